"""What is refused when images are to be given to everybody, and what is said with those that may be."""

import json
import shutil
import sys

import numpy as np
import pytest

from medglip.cli import main
from medglip.errors import InputError
from medglip.exports import Choice, Public, export
from medglip.exports.croissant import document
from medglip.exports.facts import terms_of
from medglip.exports.public import RISKS, public_notices
from medglip.records import Text
from medglip.store import Dataset, write_part

INFO = {"source": "made_up", "title": "Made up", "licence": "CC-BY-4.0", "citation": "Nobody 2020", "page": "",
        "access": "open", "names": "public", "key_check": "01234567"}  # fmt: skip


@pytest.fixture
def write(tmp_path, make_picture):
    """Writes a dataset of one image for each set of fields."""

    def written(*fields, **info) -> Dataset:
        rng = np.random.default_rng(3)
        pictures = [
            make_picture(rng.integers(0, 255, (20, 20), dtype=np.uint8), number, **given) for number, given in enumerate(fields)
        ]
        shutil.rmtree(tmp_path / "d", ignore_errors=True)
        write_part(tmp_path / "d", "made_up-0", pictures, (), (), INFO | info)
        return Dataset(tmp_path / "d")

    return written


@pytest.mark.parametrize(
    ("licence", "terms"),
    [
        ("CC0-1.0", ()),
        ("MIT", ("credit",)),
        ("cc by 4.0", ("credit",)),
        ("CC BY-SA", ("share-alike", "credit")),
        ("CC-BY-NC-SA-4.0", ("non-commercial", "share-alike", "credit")),
        ("CC-BY-NC-3.0-IGO", ("non-commercial", "credit")),
        ("ODbL-1.0", ("share-alike", "credit")),
    ],
)
def test_open_licences_and_their_terms(licence, terms):
    assert terms_of(licence) == terms


@pytest.mark.parametrize(
    "licence",
    ["internal", "", " ", "see page", "unknown", "CC-BY-ND-4.0", "CC BY-NC-ND 4.0", "proprietary", "CC-BY-4.0 or internal",
     "not CC-BY-4.0", "all rights reserved", "CC-BY-9.9"],
)  # fmt: skip
def test_other_words_are_no_open_licence(licence):
    assert terms_of(licence) is None


def test_open_images_are_exported_with_their_terms(write, tmp_path):
    dataset = write({"licence": "CC-BY-NC-4.0"}, {"licence": "CC0-1.0"})
    said = []
    export(dataset, tmp_path / "out", "coco", public=Public(say=said.append))
    assert said == [
        "Notice: 1 of 2 images may be used for non-commercial purposes only.",
        "Notice: 1 of 2 images must be passed on with their licence and the credit that LICENCES.txt gives.",
    ]
    words = " ".join((tmp_path / "out" / "LICENCES.txt").read_text().split())
    assert all(notice in words for notice in said)
    export(dataset, tmp_path / "quiet", "coco")
    assert "Notice" not in (tmp_path / "quiet" / "LICENCES.txt").read_text()


@pytest.mark.parametrize(
    ("fields", "info", "reason"),
    [
        ({"licence": "internal"}, {}, r"1 images of 'made_up' have the licence 'internal'"),
        ({}, {"access": "agreement"}, "under an agreement only"),
        ({}, {"access": "credentialed"}, "to credentialed people only"),
        ({}, {"names": "private", "key_check": "everybody"}, "the key that everybody knows"),
        ({"flags": ("burned_in_risk", "lossy")}, {}, r"1 images have the flag burned_in_risk .*--flagged leave-out"),
        ({"flags": ("face_risk",)}, {}, r"1 images have the flag face_risk"),
        ({"texts": (Text("Seen by DOE^JANE."),)}, {}, "finds 1 places that may name a patient"),
        ({}, {"title": "Of DOE^JANE"}, "finds 1 places"),
    ],
)
def test_what_must_not_be_given_to_everybody_is_refused(write, tmp_path, fields, info, reason):
    dataset = write(fields, {}, **info)
    with pytest.raises(InputError, match=reason) as refused:
        export(dataset, tmp_path / "out", "coco", public=Public())
    assert "DOE" not in str(refused.value)
    assert not (tmp_path / "out").exists()
    export(dataset, tmp_path / "out", "coco")  # to oneself


def test_all_reasons_are_said_at_once(write):
    dataset = write({"licence": "internal"}, {"licence": "", "flags": RISKS}, access="agreement")
    with pytest.raises(InputError, match=r"\(4\)") as refused:
        public_notices(dataset, Choice())
    assert all(f"({number})" in str(refused.value) for number in (1, 2, 3, 4))


def test_only_what_is_chosen_counts(write):
    dataset = write({"split": "train", "licence": "internal"}, {"split": "test"})
    assert public_notices(dataset, Choice("test")) == [
        "Notice: 1 of 1 images must be passed on with their licence and the credit that LICENCES.txt gives."
    ]


@pytest.mark.parametrize("to", ["coco", "odvg", "mdetr", "yolo", "webdataset", "croissant"])
def test_images_with_a_risk_can_be_left_out(write, tmp_path, to):
    dataset = write({"flags": ("face_risk",)}, {}, {"flags": ("lossy",)}, {"flags": ("burned_in_risk", "lossy")})
    choice = Choice(without_flags=RISKS)
    counts = export(dataset, tmp_path / "out", to, choice=choice, public=Public())
    assert (counts["images"], counts["images_flagged"]) == (2, 2)
    assert [record.flags for record in choice.records(dataset)] == [(), ("lossy",)]
    said = json.loads((tmp_path / "out" / "licences.json").read_text())
    assert said[0]["licences"] == {"CC-BY-4.0": 2}
    assert "2 images with the flags burned_in_risk, face_risk were left" in (tmp_path / "out" / "LICENCES.txt").read_text()


def test_who_has_looked_may_keep_them_and_it_is_said(write):
    said = public_notices(write({"flags": ("face_risk",)}, {}), Choice(), keep_flagged=True)
    assert any("1 images with the flag face_risk" in notice and "has looked" in notice for notice in said)


def test_croissant_says_whose_names_are_hashes(write):
    dataset = write({}, names="private")
    said = " ".join(document(dataset)["rai:personalSensitiveInformation"])
    assert "Of made_up, the names of files and cases are keyed hashes too." in said
    assert "keyed hashes too" not in " ".join(document(write({}))["rai:personalSensitiveInformation"])


def test_the_command(write, tmp_path, monkeypatch, capsys):
    dataset = write({"flags": ("face_risk",)}, {})

    def run(*words):
        monkeypatch.setattr(
            sys, "argv", ["medglip", "export", str(dataset.path), str(tmp_path / "out"), "--to", "yolo", *words]
        )
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code or 0, capsys.readouterr()

    code, said = run("--public")
    assert (code, "face_risk" in said.err) == (2, True)
    assert run("--flagged", "perhaps")[0] == 2
    code, said = run("--public", "--flagged", "leave-out", "--json")
    assert code == 0
    assert json.loads(said.out)["images_flagged"] == 1
    assert "were left out" in " ".join(said.err.split())
