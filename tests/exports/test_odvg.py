"""ODVG out and in: the layout that its two readers take, phrases and their characters, and the way back."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from medglip.errors import InputError
from medglip.exports import export
from medglip.exports.from_odvg import import_odvg
from medglip.exports.incoming import Given
from medglip.exports.mdetr import image_entry
from medglip.records.record import Phrase, Region, Span, Text
from medglip.store import open as open_dataset
from medglip.store.checks.validate import validate

GIVEN = Given("again", "MIT")


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_detection_has_every_image_and_zero_based_labels(dataset, exported):
    folder = exported("odvg")
    names = json.loads((folder / "label_map.json").read_text())
    assert list(names) == [str(number) for number in range(len(names))]
    lines = {line["filename"]: line for split in ("train", "val", "test") for line in lines_of(folder / f"{split}.jsonl")}
    assert len(lines) == len(dataset)
    for record in dataset.records():
        line = lines[f"{record.id}.png"]
        assert (line["width"], line["height"]) == (record.width, record.height)
        instances = line["detection"]["instances"]
        assert [tuple(one["bbox"]) for one in instances] == [region.box_xyxy for region in record.regions]
        assert all(names[str(one["label"])] == one["category"] for one in instances)
        assert Image.open(folder / "images" / line["filename"]).size == (record.width, record.height)


def test_grounded_lines_have_phrases_with_their_characters(dataset, exported):
    # both readers take one flat box a region; Open-GroundingDINO fails where there is none
    lines = [line for split in ("train", "test") for line in lines_of(exported("odvg") / f"{split}_grounded.jsonl")]
    assert not (exported("odvg") / "val_grounded.jsonl").exists()
    assert len(lines) == 2
    for line in lines:
        regions = line["grounding"]["regions"]
        boxes = [one["bbox"] for one in line["detection"]["instances"]]
        assert sorted(one["bbox"] for one in regions) == sorted(boxes)
        for one in regions:
            assert [line["grounding"]["caption"][a:b] for a, b in one["tokens_positive"]] == [one["phrase"]]
    cysts = [one for one in lines[0]["grounding"]["regions"] if "cyst" in one["phrase"]]
    assert len(cysts) == 2
    assert cysts[0]["tokens_positive"] == cysts[1]["tokens_positive"]


def test_own_export_comes_back(dataset, exported, tmp_path):
    folder, back = exported("odvg"), tmp_path / "back"
    for split in ("train", "val", "test"):
        assert import_odvg(folder / f"{split}.jsonl", back, folder / "images", GIVEN)["rejects"] == {}
    assert [problem for problem in validate(back) if problem.level == "error"] == []
    new = {record.origin.file.split(".")[0]: record for record in open_dataset(back).records()}
    assert set(new) == set(dataset.ids())
    for before in dataset.records():
        after = new[before.id]
        plain = [(r.label, r.laterality, r.box_xyxy, r.phrases) for r in before.regions]
        assert [(r.label, r.laterality, r.box_xyxy, r.phrases) for r in after.regions] == plain
        for name in ("split", "modality", "licence", "group", "absent", "exhaustive"):
            assert getattr(after, name) == getattr(before, name), name
        named = {region for text in after.texts for span in text.spans for region in span.regions}
        assert named == {region.id for region in after.regions}
    assert new[dataset.ids("test")[0]].texts[0].text == "ÄÖÜ: a nodule, no other nodule."


@pytest.fixture
def foreign(tmp_path):
    """Writes lines and a label map, and reads them in; two images of 30 x 20 pixels are there."""
    rng = np.random.default_rng(0)
    for number in range(2):
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(
            tmp_path / f"{number}.{'jpg' if number else 'png'}"
        )

    def run(*lines, names=None, **options):
        path = tmp_path / "lines.jsonl"
        path.write_text("".join(json.dumps({"width": 30, "height": 20} | line) + "\n" for line in lines), encoding="utf-8")
        if names:
            (tmp_path / "label_map.json").write_text(json.dumps(names))
        facts = import_odvg(path, tmp_path / "d", tmp_path, replace(Given("others", "MIT", "endoscopy"), **options))
        return facts, list(open_dataset(tmp_path / "d").records())

    return run


def test_labels_of_the_label_map(foreign):
    line = {"filename": "0.png", "detection": {"instances": [{"bbox": [1, 2, 9, 8], "label": 1}]}}
    _, (record,) = foreign(line, names={"0": "kidney", "1": "polyp"}, exhaustive=True)
    assert [(region.phrases[0].text, region.box_xyxy) for region in record.regions] == [("polyp", (1.0, 2.0, 9.0, 8.0))]
    assert record.absent == ("abdomen.kidney",)
    assert len(record.exhaustive) == 2
    assert record.split == "unassigned"


def test_jpeg_is_flagged(foreign):
    _, (record,) = foreign({"filename": "1.jpg", "detection": {"instances": []}})
    assert record.flags == ("lossy",)


def test_grounding_alone_several_boxes_a_phrase(foreign):
    caption = "Zwei — two polyps, and a left kidney."
    regions = [{"phrase": "polyps", "bbox": [[1, 2, 9, 8], [12, 2, 20, 9]], "tokens_positive": [[11, 17]]},
               {"phrase": "left kidney", "bbox": [2, 10, 9, 19]}]  # fmt: skip
    _, (record,) = foreign({"filename": "0.png", "grounding": {"caption": caption, "regions": regions}})
    assert [region.laterality for region in record.regions] == [None, None, "left"]
    ids = [region.id for region in record.regions]
    assert record.flags == ()
    assert record.texts[0].kind == "caption"
    spans = [(caption[span.start : span.end], list(span.regions)) for span in record.texts[0].spans]
    assert spans == [("polyps", ids[:2]), ("left kidney", ids[2:])]


@pytest.mark.parametrize("text", ["{", '{"filename": "0.png"}', '{"filename": "0.png", "detection": {"instances": [{}]}}'])
def test_a_broken_line_is_named(tmp_path, text):
    (tmp_path / "x.jsonl").write_text(f"\n{text}\n")
    with pytest.raises(InputError, match=r"'x.jsonl', line 2"):
        import_odvg(tmp_path / "x.jsonl", tmp_path / "d", tmp_path, GIVEN)
    assert not (tmp_path / "d").exists()


def test_what_is_wrong_is_listed(foreign):
    box = {"bbox": [1, 2, 9, 8], "category": "polyp"}
    good = {"filename": "0.png", "detection": {"instances": [box, {**box, "bbox": [1, 2, 99, 8]}, {"bbox": [1, 1, 2, 2]}]}}
    with pytest.raises(InputError, match="gribble"):
        foreign({"filename": "1.png", "detection": {"instances": [{**box, "category": "gribble"}]}})
    facts, (record,) = foreign(good, good, {**good, "filename": "2.png"}, exhaustive=True)
    assert facts["rejects"] == {"box_out_of_image": 1, "duplicate_image": 1, "missing_file": 1, "unknown_label": 2}
    assert len(record.regions) == 1
    assert record.absent == record.exhaustive == ()


def test_a_question_whose_words_name_the_regions_keeps_its_answer(tmp_path, make_picture, write_dataset):
    nodule = Region("thorax.lung.nodule", (4.0, 5.0, 12.5, 13.0), phrases=(Phrase("lung nodule"),))
    asked = Text("Is the nodule large?", "question", spans=(Span(7, 13, (f"{1:016x}-000",)),), answer="No, 8 mm.")
    picture = make_picture(np.zeros((32, 40), np.uint8), 1, [nodule], texts=(asked,))
    export(write_dataset(tmp_path / "d", [picture]), tmp_path / "out", "odvg")
    import_odvg(tmp_path / "out/train.jsonl", tmp_path / "back", tmp_path / "out/images", GIVEN)
    [text] = open_dataset(tmp_path / "back").record(0).texts
    assert (text.text, text.kind, text.answer) == (asked.text, "question", asked.answer)
    assert image_entry(picture.record, asked, 1)["answer"] == asked.answer


@pytest.mark.parametrize("answer", [{}, {"answer": " "}, {"answer": None}])
def test_a_question_without_an_answer_is_a_caption(foreign, answer):
    grounding = {"caption": "Is it a polyp?", "caption_kind": "question", "regions": [], **answer}
    _, [record] = foreign({"filename": "0.png", "grounding": grounding})
    assert [(text.text, text.kind, text.answer) for text in record.texts] == [("Is it a polyp?", "caption", "")]
