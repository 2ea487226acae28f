import json
from pathlib import Path

import pytest
from small_sources import Converted, boxes, converted, noise, save

from medglip.errors import InputError, SourceError
from medglip.records import ImageRecord

NODULE, EFFUSION = "thorax.lung.nodule", "thorax.pleura.effusion"
PART = """
converter = "text_table"
modality = "xray"
files = {{ image = "{{study}}/{{case}}.png", {files} }}
labels = {{ Nodule = "lung nodule", Effusion = "pleural effusion", Device = "skip" }}
[part.options]
{options}
"""
REPORTS = 'columns = { image = "file" }\nrows = [{ kind = "report", columns = ["findings", "impression"] }]'
BOXED = """
columns = { image = "file", label = "label", box = ["x", "y", "w", "h"] }
sentences = [{ column = "words" }]
negative = ["none"]
"""
HEAD = "file,label,words,x,y,w,h\n"


def part(options: str = REPORTS, files: str = 'table = "reports.csv"') -> str:
    return PART.format(options=options, files=files)


def folder(tmp_path: Path, table: str, *images: str, name: str = "reports.csv") -> Path:
    where = tmp_path / "in"
    for number, image in enumerate(images or ("s1/a.png",)):
        save(where, image, noise(40 + number))
    (where / name).write_text(table, encoding="utf-8")
    return where


def texts(record: ImageRecord) -> list[tuple[str, str, str]]:
    return [(text.kind, text.language, text.text) for text in record.texts]


def spans(record: ImageRecord) -> list[tuple[str, list[tuple[float, ...]]]]:
    by_id = {region.id: region.box_xyxy for region in record.regions}
    return [(text.text[span.start : span.end], [by_id[one] for one in span.regions])
            for text in record.texts for span in text.spans]  # fmt: skip


def test_sections_are_joined_under_their_names_and_empty_ones_left_out(tmp_path: Path) -> None:
    where = folder(tmp_path, 'file,findings,impression\na,"Clear,\nall.",Normal.\nb.PNG,,Normal.\nc,,\n',
                   "s1/a.png", "s1/b.png", "s1/c.png", "s1/d.png")  # fmt: skip
    result = converted(where, part())
    assert {Path(name).stem: texts(record) for name, record in result.records.items()} == {
        "a": [("report", "en", "Findings: Clear,\nall.\nImpression: Normal.")], "b": [("report", "en", "Impression: Normal.")],
        "c": [], "d": [],
    }  # fmt: skip
    one = part(REPORTS.replace('["findings", "impression"]', '["impression"], language = "{tongue}"'))
    where = folder(tmp_path / "two", "file,impression,tongue\na,Normal.,es\n")
    assert texts(converted(where, one).only) == [("report", "es", "Normal.")]


def test_several_images_share_a_report(tmp_path: Path) -> None:
    where = folder(tmp_path, "file,findings,impression\ns1.0,Clear.,\ns2,Not clear.,\n", "s1/a.png", "s1/b.png", "s2/a.png")
    result = converted(where, part(f'{REPORTS}\nid = "{{study}}"').replace('image = "{study}', 'image = "s{study}'))
    assert [len(record.texts) for record in result.records.values()] == [0, 0, 0]
    assert sorted(result.reasons) == ["missing_file", "missing_file"]
    result = converted(where, part(f'{REPORTS}\nid = "{{study}}"'))
    assert {name: record.texts[0].text if record.texts else "" for name, record in result.records.items()} == {
        "s1/a.png": "", "s1/b.png": "", "s2/a.png": "Findings: Not clear.",
    }  # fmt: skip
    listed = [{"file": ["s1/a.png", "s1/b.png"], "findings": "Clear.", "impression": ""}]
    (where / "reports.json").write_text(json.dumps({"train": listed, "test": []}))
    result = converted(where, part(files='table = "reports.json"'))
    assert [len(record.texts) for record in result.records.values()] == [1, 1, 0]


def test_a_text_file_is_the_report_of_all_images_of_its_study(tmp_path: Path) -> None:
    where = folder(tmp_path, "FINDINGS:  \r\n Clear.\r\n\r\n", "s1/a.png", "s1/b.png", "s2/a.png", name="s1.txt")
    (where / "s2.txt").write_bytes("D\xe9riv\xe9".encode("latin-1"))
    (where / "s3.txt").write_text("No image of this one.")
    result = converted(where, part('report_kind = "caption"\nreport_language = "fr"', 'report = "{study}.txt"'))
    assert {name: texts(record) for name, record in result.records.items()} == {
        "s1/a.png": [("caption", "fr", "FINDINGS:\n Clear.")], "s1/b.png": [("caption", "fr", "FINDINGS:\n Clear.")],
        "s2/a.png": [("caption", "fr", "Dérivé")],
    }  # fmt: skip
    assert result.reasons == ["orphan"]


def test_a_sentence_is_the_span_and_the_phrase_of_its_boxes(tmp_path: Path) -> None:
    rows = "a,Nodule,two nodules,5,6,15,12\na,Nodule,two  nodules,30,6,15,12\n"
    rows += "a,Effusion,an effusion,5,6,15,12\na,none,no mass,,,,\n"
    record = converted(folder(tmp_path, HEAD + rows), part(BOXED)).only
    one, two = (5, 6, 20, 18), (30, 6, 45, 18)
    assert boxes(record) == [(NODULE, one), (NODULE, two), (EFFUSION, one)]
    assert [text.text for text in record.texts] == ["two nodules", "an effusion", "no mass"]
    assert spans(record) == [("two nodules", [one, two]), ("an effusion", [one])]
    said = [[phrase.text for phrase in region.phrases if phrase.kind == "report"] for region in record.regions]
    assert said == [["two nodules"], ["two nodules"], ["an effusion"]]
    assert (record.absent, record.exhaustive) == ((), ())


def test_two_sentences_about_one_place_share_its_region(tmp_path: Path) -> None:
    rows = "a,Nodule,a nodule,5,6,15,12\na,Nodule,it is calcified,5,6,15,12\n"
    record = converted(folder(tmp_path, HEAD + rows), part(BOXED)).only
    assert [(concept, region.attributes) for (concept, _), region in zip(boxes(record), record.regions, strict=True)] == [
        (NODULE, {})
    ]
    assert [words for words, _ in spans(record)] == ["a nodule", "it is calcified"]


def test_joined_sentences_are_one_text_with_a_span_each(tmp_path: Path) -> None:
    rows = "a,Nodule,A nodule,5,6,15,12\na,none,No mass.,,,,\na,Effusion,An effusion?,1,1,9,9\n"
    record = converted(folder(tmp_path, HEAD + rows), part(f"{BOXED}joined = true")).only
    assert [text.text for text in record.texts] == ["A nodule. No mass. An effusion?"]
    assert spans(record) == [("A nodule", [(5, 6, 20, 18)]), ("An effusion?", [(1, 1, 10, 10)])]


def test_boxes_made_for_another_size_are_scaled_where_the_shape_agrees(tmp_path: Path) -> None:
    table = "file,label,words,x,y,w,h,width,height\na,Nodule,n,50,60,150,120,600,400\nb,Nodule,n,5,6,15,12,60,60\n"
    table += "b,Effusion,n,5,6,15,12,,\nb,Effusion,n,5,6,15,12,60,0\n"
    where = folder(tmp_path, table, "s1/a.png")
    save(where, "s1/b.png", noise())
    sized = BOXED.replace('"h"] }', '"h"], size = ["width", "height"] }')
    result = converted(where, part(sized))
    assert boxes(result.records["s1/a.png"]) == [(NODULE, (5, 6, 20, 18))]
    assert boxes(result.records["s1/b.png"]) == []
    assert [text.text for text in result.records["s1/b.png"].texts] == ["n"]
    assert result.reasons == ["size_mismatch"] * 3


def grounded(tmp_path: Path, *findings: dict) -> Converted:
    data = json.dumps([{"file": "a", "findings": findings}])
    options = """
columns = { image = "file", label = "labels", boxes = ["boxes", "extra"] }
each = "findings"
sentences = [{ column = "words" }]
format = "xyxy"
frame = [1, 1]
negative = ["Normal"]
"""
    return converted(folder(tmp_path, data, name="r.json"), part(options, 'table = "r.json"'))


def test_the_second_readers_boxes_grade_those_of_the_first(tmp_path: Path) -> None:
    one, off, other = [0.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.5, 0.25], [0.75, 0.75, 1.0, 1.0]
    result = grounded(tmp_path, {"words": "both", "labels": ["Nodule"], "boxes": [one, other], "extra": [off]},
                      {"words": "second only", "labels": ["Effusion"], "boxes": [], "extra": [other]})  # fmt: skip
    record = result.only
    assert boxes(record) == [(NODULE, (0, 0, 30, 20)), (NODULE, (45, 30, 60, 40)), (EFFUSION, (45, 30, 60, 40))]
    assert [region.attributes for region in record.regions] == [
        {"readers": 2, "agreement": 0.5}, {"readers": 2, "agreement": 0.0}, {},
    ]  # fmt: skip
    assert spans(record)[1] == ("second only", [(45, 30, 60, 40)])


def test_boxes_of_several_or_unknown_labels_are_refused_and_the_sentences_stay(tmp_path: Path) -> None:
    box = [[0.0, 0.0, 0.5, 0.5]]
    result = grounded(tmp_path, {"words": "two things", "labels": ["Nodule", "Effusion"], "boxes": box, "extra": []},
                      {"words": "one thing twice", "labels": ["Nodule", "Nodule"], "boxes": box, "extra": []},
                      {"words": "what?", "labels": ["Griffin"], "boxes": box, "extra": []},
                      {"words": "tube", "labels": "Device", "boxes": box, "extra": []},
                      {"words": "flat", "labels": ["Effusion"], "boxes": [0.5, 0.5, 1.0, 1.0], "extra": []},
                      {"words": "nameless", "labels": [], "boxes": box, "extra": []},
                      {"words": "clear", "labels": ["Normal"], "boxes": box, "extra": []},
                      {"words": "outside", "labels": ["Nodule"], "boxes": [[0.5, 0.5, 1.5, 1.5]], "extra": []})  # fmt: skip
    assert result.reasons == ["ambiguous_label", "box_out_of_image", "contradiction", "unknown_label", "unknown_label"]
    assert [text.text for text in result.only.texts] == [
        "two things", "one thing twice", "what?", "tube", "flat", "nameless", "clear", "outside",
    ]  # fmt: skip
    assert spans(result.only) == [("one thing twice", [(0, 0, 30, 20)]), ("flat", [(30, 20, 60, 40)])]


def test_images_of_a_larger_source_are_left_where_they_are(tmp_path: Path) -> None:
    where = folder(tmp_path, f"{HEAD}a,Nodule,n,5,6,15,12\n", "s1/a.png", "s1/b.png")
    assert list(converted(where, part(f'{BOXED}unlisted = "ignore"')).records) == ["s1/a.png"]
    assert len(converted(where, part(BOXED)).records) == 2


@pytest.mark.parametrize(
    ("options", "files", "words"),
    [
        ("rows = []", 'table = "reports.csv"', "must name image"), ("", 'table = "reports.csv"', "must name image"),
        ('columns = { image = "file", box = ["x", "y", "w", "h"] }', 'table = "reports.csv"', "must name label"),
        ('columns = { image = "file", label = "l", box = ["x"] }', 'table = "reports.csv"', "four columns"),
    ],
)  # fmt: skip
def test_a_wrong_option_is_named(tmp_path: Path, options: str, files: str, words: str) -> None:
    where = folder(tmp_path, "file,findings,impression\na,x,y\n")
    with pytest.raises(SourceError, match=words):
        converted(where, part(options, files))


def test_a_missing_table_is_an_error(tmp_path: Path) -> None:
    where = folder(tmp_path, "x", name="other.csv")
    with pytest.raises(InputError, match="no file is their table"):
        converted(where, part())
