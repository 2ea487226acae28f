"""Keys, hashed names, sentences without names, and the table of what of a header may be stored."""

import ast
import pickle
import re
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from pydicom.datadict import tag_for_keyword

from medglip.curate.cases import Case, Shot, picture
from medglip.curate.privacy import allowed, keys
from medglip.curate.privacy.allowed import DETAIL, HEADER, PRIVATE, allowed_detail, says_head
from medglip.curate.privacy.hiding import check_templates, hidden, hidden_file, hidden_key, shows_a_face
from medglip.curate.privacy.keys import check_same_key, key_check, key_facts, key_warnings, keyed, read_key_file, require_key
from medglip.curate.privacy.redact import masked, own_words
from medglip.curate.source import Named, Part, Source
from medglip.errors import DatasetError, InputError, SourceError
from medglip.records import Instance, Origin, Phrase, Region, Reject, Text, VolumeRecord
from medglip.store.checks.names import EVERYBODY

KEY = "0123456789abcdef-of-the-test"
PART = Part("slices", "mask_images", "ct", "ward", "internal", "human", {"image": "{who}/{case}_{view:pa|ap}.png"},
            {"kidney": Named("abdomen.kidney"), "rest": None})  # fmt: skip
PUBLIC = replace(PART, public_names=True)
SOURCE = Source("ward", "A ward", "internal", (PART,))


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("MEDGLIP_KEY", KEY)
    monkeypatch.delenv("MEDGLIP_KEY_FILE", raising=False)


# ---- the key


def key_file(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    path = folder / "the.key"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_a_key_file_gives_what_the_variable_gives(tmp_path, monkeypatch):
    before = keyed("ward", "p1"), key_check()
    monkeypatch.delenv("MEDGLIP_KEY")
    keys.use_key_file(key_file(tmp_path, f" {KEY}\r\n".encode()))
    assert (keyed("ward", "p1"), key_check()) == before
    key_file(tmp_path, b"another key, which is as long")
    assert keyed("ward", "p1") != before[0]  # a file that was changed is read again
    monkeypatch.delenv("MEDGLIP_KEY_FILE")
    assert key_check() == EVERYBODY


@pytest.mark.parametrize(("content", "found"), [(b"", "nothing"), (b" \n", "nothing"), (b"secret words", "12 bytes")])
def test_a_bad_key_is_refused_and_never_repeated(tmp_path, monkeypatch, content, found):
    with pytest.raises(InputError, match=found) as refused:
        read_key_file(key_file(tmp_path, content))
    assert "secret words" not in str(refused.value)
    monkeypatch.setenv("MEDGLIP_KEY", content.decode())
    with pytest.raises(InputError, match=f"MEDGLIP_KEY: found {found}"):
        keyed("ward", "p1")


def test_a_key_file_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("MEDGLIP_KEY_FILE", str(tmp_path / "no.key"))
    with pytest.raises(InputError, match="No such file"):
        keyed("ward", "p1")


def test_warnings_of_no_key_and_of_a_file_that_others_read(tmp_path, monkeypatch):
    assert key_warnings(SOURCE) == []
    keys.use_key_file(key_file(tmp_path, KEY.encode(), 0o640))
    [said] = key_warnings(SOURCE)
    assert "chmod 600" in said
    assert KEY not in said
    monkeypatch.delenv("MEDGLIP_KEY_FILE")
    monkeypatch.delenv("MEDGLIP_KEY")
    [said] = key_warnings(SOURCE)
    assert "no key is set" in said
    assert key_warnings(replace(SOURCE, public_names=True)) == []


def test_another_key_is_refused_and_the_key_is_not_in_what_is_remembered(monkeypatch):
    facts = key_facts(SOURCE)
    assert facts["names"] == "private"
    assert KEY not in str(facts)
    check_same_key({"a": facts, "older": {"source": "x"}}, "d")
    require_key(facts["key_check"])
    monkeypatch.setenv("MEDGLIP_KEY", KEY[::-1])
    with pytest.raises(DatasetError, match="one patient would become two"):
        check_same_key({"a": facts}, "d")
    with pytest.raises(InputError, match="Worker"):
        require_key(facts["key_check"])
    monkeypatch.delenv("MEDGLIP_KEY")
    with pytest.raises(InputError, match="the key that everybody knows"):
        require_key(facts["key_check"])


# ---- names


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("DOE^JOHN/IM1.DCM", r"file-[0-9a-f]{16}\.dcm"),
        ("a/b.nii.gz", r"file-[0-9a-f]{16}\.nii\.gz"),
        ("scan.Doe", r"file-[0-9a-f]{16}"),  # an ending of no format is a name
        ("1.2.840.113619", r"file-[0-9a-f]{16}"),
        ("t.csv row 12", r"file-[0-9a-f]{16}\.csv row 12"),
        ("a.json b c.png annotation 3", r"file-[0-9a-f]{16}\.json file-[0-9a-f]{16}\.png annotation 3"),
        ("", ""),
    ],
)
def test_a_file_keeps_its_format_and_nothing_else(name, form):
    assert re.fullmatch(form, hidden_file(PART, name))
    assert hidden_file(SOURCE, name) == hidden_file(PART, name)


def test_one_file_has_one_hash_however_its_path_is_written():
    assert hidden_file(PART, "a\\é.png") == hidden_file(PART, "a/e\u0301.png") != hidden_file(PART, "a/e.png")
    assert hidden_file(PART, "a.png") != hidden_file(replace(PART, source="other"), "a.png")
    assert hidden_key(PART, "a.png") != hidden_file(PART, "a.png")


def test_the_parts_name_stays_before_the_hash_of_a_case():
    alone = hidden_key(PART, "doe/1")
    assert hidden_key(PART, "slices:doe/1") == hidden_key(SOURCE, "slices:doe/1") == f"slices:{alone}"
    assert hidden_key(PART, "slices") == "slices:"  # a whole part that could not be read


def test_public_names_lose_only_what_looks_like_a_patients():
    assert hidden_file(PUBLIC, "LIDC-0001/00000001_000.png") == "LIDC-0001/00000001_000.png"
    assert hidden_file(PUBLIC, "20051020_43808_0100_PP.tif") == "20051020_43808_0100_PP.tif"  # a published id
    uid = hidden_file(PUBLIC, "LIDC-0001/1.3.6.1.4.1.14519.5.2/1-01.dcm")
    assert uid.startswith("LIDC-0001/name-")
    assert uid.endswith("/1-01.dcm")
    assert "14519" not in uid
    assert "DOE" not in hidden_key(PUBLIC, "a/DOE^JANE")
    reject = Reject("ward", "a.png", "x", "'1.2.840.10008.5.1.4.dcm' of DOE^JANE is broken.", "a")
    assert hidden(PUBLIC, reject) == replace(reject, detail=" … of … is broken.")


def test_a_picture_keeps_its_links_without_its_names():
    pixels = np.arange(100, dtype=np.uint8).reshape(10, 10)
    region = Region("abdomen.kidney", (1.0, 1.0, 5.0, 5.0), instance="Doe lesion 1", attributes={"note": "DOE^JANE", "n": 3},
                    phrases=(Phrase("mass of 2019-03-02"),))  # fmt: skip
    case = Case("doe/1", Path(), {"image": ("doe/1_pa.png",)}, {"who": "doe", "case": "1"})
    texts = (Text("MRN: 1234567; well."), Text("Whose?", "question", answer="Of MRN: 1234567."))
    made = picture(PART, case, pixels, [region], Shot(texts=texts, study="1.2.3", axis="k"))
    stored = hidden(PART, made)
    text = repr(stored.record)
    assert "doe" not in text.lower()
    assert "2019" not in text
    assert "1234567" not in text
    assert len(stored.record.texts[0].text) == len("MRN: 1234567; well.")  # spans stay where they are
    assert stored.record.regions[0].attributes["n"] == 3
    volume = VolumeRecord("0" * 16, "ct", Origin("ward", "doe/1_pa.png", "doe/1"), "MIT", (1, 2, 3),
                          instances=(Instance("Doe lesion 1", "abdomen.kidney", None, (0,) * 6, None, 1),))  # fmt: skip
    kept = hidden(PART, volume)
    assert kept.instances[0].id == stored.record.regions[0].instance
    assert kept.origin.case == stored.record.origin.case
    assert "doe" not in repr(kept).lower()
    assert hidden(PUBLIC, made) == made
    assert pickle.loads(pickle.dumps(stored)).record == stored.record


def test_an_image_id_cannot_be_tried_with_a_guessed_name(monkeypatch):
    def made(part):
        case = Case("doe/1", Path(), {"image": ("doe/1_pa.png",)})
        return picture(part, case, np.eye(8, dtype=np.uint8), []).record.id

    private, public = made(PART), made(PUBLIC)
    monkeypatch.setenv("MEDGLIP_KEY", KEY[::-1])
    assert made(PUBLIC) == public
    assert made(PART) != private


# ---- sentences


SENTENCES = [
    ("Mask 'doe/1.png' is 20 x 30 pixels; they must agree within 1 %.", "20 x 30 pixels; they must agree within 1 %."),
    ("Mask 'DOE/1.PNG' is cut off.", "is cut off."),
    ("'doe\\\\1.png' is broken", "is broken"),
    ("'1.png' is broken", "is broken"),
    ("doe/1.png object 3: the box (5.0, 6.0, 425.0, 18.0) leaves its image", "(5.0, 6.0, 425.0, 18.0)"),
    ("Case 'doe/1' has 2 files of role 'image' ['doe/a.png', 'doe/b.png'].", "has 2 files of role 'image' ['file-"),
    ("the label 'Doe tumor' has no entry; nearest known: 'kidney'.", "nearest known: 'kidney'."),
    ("Input folder '/home/doe/in' is not there", "Input folder '…' is not there"),
    ('Table "o\'doe.csv" has no column', "has no column"),
    ("ValueError: could not convert string to float: 'doe'", "ValueError:"),
    ("KeyError: 'DOE^JANE'", "KeyError: '…'"),
    ("UID 1.2.840.113619.2.55 of Doe, born 1950-01-02, MRN 12345678 is broken", "is broken"),
    ("the patient's image isn't Doe's", "the patient's image"),
    ("Zuse Doe-Smith (doe) [Doe] <doe>", ""),
]


@pytest.mark.parametrize(("sentence", "kept"), SENTENCES)
def test_a_sentence_keeps_its_sense_and_no_name(sentence, kept):
    stored = hidden(PART, Reject("ward", "doe/1.png object 3", "x", sentence, "slices:doe/1"))
    assert kept in stored.detail
    for name in ("doe", "zuse", "smith", "jane", "113619", "1950", "12345678", "/home"):
        assert name not in stored.detail.lower()
    assert "1.png" not in stored.detail.replace(stored.file.split(" ")[0], "").lower()


def test_without_the_sources_of_medglip_a_sentence_keeps_less(monkeypatch):
    own_words.cache_clear()
    monkeypatch.setattr("medglip.curate.privacy.redact._sources", lambda: iter(()))
    stored = hidden(PART, Reject("ward", "doe/1.png", "x", "Mask 'doe/1.png' is 20 x 30 pixels", ""))
    own_words.cache_clear()
    assert stored.detail == f"… '{stored.file}' … 20 x 30 …"


@pytest.mark.parametrize("text", ["Seen by DOE^JANE at noon", "on 2019-03-02.", "see jane@ward.example.org, please", "MRN: 12"])
def test_a_mask_is_as_long_as_what_it_covers(text):
    assert len(masked(text)) == len(text)
    assert masked(text) != text
    assert masked("A 12 mm nodule, grade 3.") == "A 12 mm nodule, grade 3."


# ---- templates, header, faces


@pytest.mark.parametrize(
    "changes",
    [{"text": "seen in {case}"}, {"detail": {"site": "{who}"}}, {"options": {"texts": [{"text": "of {who}"}]}},
     {"options": {"licence": "{case}"}}, {"text": "of {sop}"}],
)  # fmt: skip
def test_texts_from_names_are_refused_where_names_are_private(changes):
    with pytest.raises(SourceError, match="names are private"):
        check_templates(replace(PART, **changes))
    check_templates(replace(PUBLIC, **changes))
    with pytest.raises(SourceError, match="names are private"):
        picture(replace(PART, **changes), Case("a", Path(), {}, {"who": "a", "case": "b"}), np.eye(8, dtype=np.uint8), [])


def test_a_closed_list_of_words_and_columns_may_be_stored():
    check_templates(replace(PART, detail={"view": "{view}"}, text="{findings}"))


def is_of_records(path: Path) -> bool:
    """Whether what a module reads of a header may come into a record: not what is shown on a terminal or asked of a PACS."""
    return path.name != "allowed.py" and not path.name.startswith("inspect") and "inputs" not in path.parts


def is_hexadecimal(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int) and node.value > 0xF


def test_the_code_reads_no_attribute_that_the_table_lacks():
    rooms = [Path(allowed.__file__).parents[2] / "imaging", Path(allowed.__file__).parents[1]]
    rooms += [Path(path) for path in import_module("medglip.converters").__path__]
    read: dict[str, str] = {}
    tags: dict[tuple[int, ...], str] = {}
    for path in (path for room in rooms for path in room.rglob("*.py") if is_of_records(path)):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            word = node.value if isinstance(node, ast.Constant) else node.attr if isinstance(node, ast.Attribute) else None
            if isinstance(word, str) and word and tag_for_keyword(word) is not None:
                read[word] = path.name
            if isinstance(node, ast.Tuple) and len(node.elts) == 2 and all(map(is_hexadecimal, node.elts)):
                tags[tuple(element.value for element in node.elts)] = path.name
    assert len(read) > 80
    assert {tag: file for tag, file in tags.items() if tag[0] % 2 and tag[1] >= 0x1000 and tag not in PRIVATE} == {}
    assert {word: file for word, file in read.items() if word not in HEADER} == {}
    assert [word for word in HEADER if tag_for_keyword(word) is None] == []
    named = {"PatientName", "PatientBirthDate", "PatientAge", "AccessionNumber", "InstitutionName", "OtherPatientIDs",
             "ReferringPhysicianName", "StudyDate", "ImageComments", "PatientComments"}  # fmt: skip
    assert not named & set(HEADER)


def test_only_words_of_the_standard_pass():
    said = {"view": "pa", "body_part": "doe", "scanning_sequence": "gr/ir", "pixel_aspect_ratio": "4:3", "ward": "3"}
    assert allowed_detail(said) == {"view": "pa", "scanning_sequence": "gr/ir", "pixel_aspect_ratio": "4:3"}
    assert all(word == word.lower() for words in DETAIL.values() for word in words)


@pytest.mark.parametrize(("word", "head"), [("HEAD", True), ("Head^Routine", True), ("WHOLE BODY", True), ("CHEST", False)])
def test_a_header_says_that_a_head_is_shown(word, head):
    assert says_head(word) is head
    case, pixels = Case("a", Path(), {}), np.eye(8, dtype=np.uint8)
    shot = Shot(axis="k", detail={"body_part": word.lower()})
    assert ("face_risk" in picture(PART, case, pixels, [], shot).record.flags) is head
    flat = replace(shot, axis=None)  # one picture alone is no volume
    assert picture(PART, case, pixels, [], flat).record.flags == ()


def test_what_is_marked_or_meant_says_that_a_head_is_shown():
    head = replace(PART, modality="mr", field=("head_neck",), labels={"1": Named("head_neck.brain")})
    assert shows_a_face(head, [])
    assert shows_a_face(replace(PART, field=()), ["abdomen.liver", "head_neck.brain"])
    assert not shows_a_face(head, ["abdomen.liver"])
    assert not shows_a_face(PART, [])
    assert not shows_a_face(replace(head, modality="ultrasound"), ["head_neck.brain"])
    volume = VolumeRecord("0" * 16, "mr", Origin("ward", "a", "b"), "MIT", (1, 2, 3))
    assert hidden(head, volume).checks == {"face_risk": "yes"}
    assert hidden(replace(head, public_names=True), volume).checks == {"face_risk": "yes"}


def test_the_oldest_are_not_told_apart():
    part = replace(PART, detail={"patient_age": "{age}", "stage": "{age}"})
    case = Case("a", Path(), {}, {"age": "093Y"})
    assert picture(part, case, np.eye(8, dtype=np.uint8), []).record.modality_detail == {"patient_age": "90+", "stage": "093Y"}


def test_checks_tell_no_time_and_no_text():
    volume = VolumeRecord("0" * 16, "mr", Origin("ward", "a", "b"), "MIT", (1, 2, 3))
    for said, kept in [
        ("EchoTime=4.6", "EchoTime=4.6"),
        ("AcquisitionTime=101112.5", "AcquisitionTime"),
        ("StackID=Doe", "StackID"),
    ]:
        for part in (PART, PUBLIC):
            assert hidden(part, replace(volume, checks={"apart_by": said})).checks == {"apart_by": kept}
    checks = {"regular": "no", "missing_after_slice": "3, 17", "made_up": "Doe 20190302"}
    assert hidden(PART, replace(volume, checks=checks)).checks == checks | {"made_up": "…"}
