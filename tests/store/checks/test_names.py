"""What must not name a patient: tables of private sources, ledgers, manifest, tars and the PNGs in them."""

import io
import json
import re
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from medglip.records import Origin, Region, Reject
from medglip.store import Dataset, write_part
from medglip.store.checks.names import EVERYBODY, HIDDEN, check_names, check_shards, named_patients
from medglip.store.checks.problems import errors
from medglip.store.checks.validate import validate
from medglip.store.place import Place

FILE, CASE = "file-0123456789abcdef.dcm", "case-0123456789abcdef"


@pytest.fixture
def write(tmp_path, plain_picture):
    """Writes a part of a source with one image and one reject."""

    def written(
        file=FILE, case=CASE, reject=None, instance=None, cases=None, public=False, check="01234567", **info
    ):  # fmt: skip
        regions = (Region("abdomen.kidney", (1.0, 1.0, 4.0, 4.0), instance=instance),)
        picture = plain_picture(1, origin=Origin("ward", file, case), regions=regions)
        rejects = [reject or Reject("ward", f"{FILE} row 3", "bad_box", "The box is empty.", f"slices:{CASE}")]
        facts = {"source": "ward", "title": "Ward", "licence": "MIT", "names": "public" if public else "private",
                 "key_check": check, "cases": cases or {f"slices:{CASE}": ["0" * 16, 1]}}  # fmt: skip
        shutil.rmtree(tmp_path / "d", ignore_errors=True)
        write_part(tmp_path / "d", "ward-0", [picture], (), rejects, facts | info)
        return Dataset(tmp_path / "d")

    return written


def said(dataset):
    return [(problem.level, problem.where) for problem in check_names(dataset)]


def test_a_private_source_with_hashes_for_names_is_clean(write):
    assert said(write(instance="0123456789abcdef")) == []


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"file": "doe/1.dcm"}, "column 'file'"),
        ({"file": f"{FILE} doe"}, "column 'file'"),
        ({"file": "file-0123456789abcdef.doe^jane"}, "column 'file'"),
        ({"case": "doe"}, "column 'case'"),
        ({"instance": "doe lesion 1"}, "column 'instance'"),
        ({"reject": Reject("ward", "doe.dcm", "x", "It is broken.", "")}, "column 'file'"),
        ({"reject": Reject("ward", FILE, "x", "The UID 1.2.840.113619.2.55.3 is unknown.", "")}, "column 'detail'"),
        ({"cases": {"slices:doe/1": ["0", 1]}}, "cases of ward-0"),
    ],
)
def test_a_name_in_a_private_source_is_an_error_and_is_not_repeated(write, changes, where):
    dataset = write(**changes)
    [problem] = check_names(dataset)
    assert problem.level == "error"
    assert where in problem.where
    assert "doe" not in problem.where + problem.what
    assert [found for found in validate(dataset.path) if found.check == "privacy" and found.level == "error"]
    if where != "cases of ward-0":
        assert said(write(**changes, public=True)) == []


def test_a_public_sources_ledger_is_searched_too(write):
    assert said(write(public=True, cases={"slices:benign (4)": ["0", 1], "slices:20090214": ["0", 1]})) == []
    assert said(write(public=True, cases={"slices:DOE^JANE": ["0", 1]})) == [("error", "cases of ward-0, number 0")]


def test_the_manifest_is_searched(write):
    [problem] = check_names(write(title="CT of DOE^JANE"))
    assert (problem.level, problem.where) == ("error", "manifest.json, parts/ward-0/title")
    cited = "Doe J, Smith A. Kidneys. Journal 12, 2009-02-14. doi:10.1007/s00134-009-1501-x. jane@example.org"
    assert said(write(citation=cited, page="https://example.org/2009/02/14/1234567")) == []


def test_ids_that_anybody_can_try_are_noted(write):
    assert said(write(check=EVERYBODY)) == [("note", "source ward")]
    assert said(write(check=EVERYBODY, public=True)) == []


def test_all_of_it_in_one_without_pixels(write):
    assert errors(named_patients(write())) == 0
    assert errors(named_patients(write(title="CT of DOE^JANE"))) == 1
    assert errors(named_patients(write(licence="MIT", reject=Reject("ward", FILE, "x", "of DOE^JANE", "")))) == 2


def test_the_form_of_a_hidden_name():
    for name in ("", FILE, f"{FILE} row 12", f"slices:{CASE}", "slices:", f"{FILE} {FILE} annotation 3", "file-" + "0" * 16):
        assert re.fullmatch(HIDDEN, name), name
    for name in ("doe", "doe.dcm", f"doe/{FILE}", f"{FILE}/doe", f"{FILE}, doe", "file-0123.dcm", "FILE-" + "0" * 16):
        assert not re.fullmatch(HIDDEN, name), name


def shard_with(folder, members):
    """A dataset's place with one shard of these members; each a TarInfo and its bytes."""
    (folder / "shards").mkdir()
    with tarfile.open(folder / "shards" / "a.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    manifest = {"parts": {"a": {"files": {"shards/a.tar": {}}, "counts": {}}}}
    return list(check_shards(Place(folder), manifest))


def png(**options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(buffer, "PNG", **options)
    return buffer.getvalue()


def test_a_shard_of_plain_pngs_is_clean(tmp_path):
    assert (
        shard_with(tmp_path, [(tarfile.TarInfo("0" * 64 + ".png"), png()), (tarfile.TarInfo("1" * 64 + ".png"), png())]) == []
    )


def test_a_pngs_words_are_found(tmp_path):
    words = PngInfo()
    words.add_text("Comment", "DOE^JANE")
    exif = Image.Exif()
    exif[0x013B] = "DOE^JANE"
    members = [png(pnginfo=words), png(exif=exif), png() + b"DOE^JANE"]
    found = shard_with(tmp_path, [(tarfile.TarInfo(f"{n:064x}.png"), data) for n, data in enumerate(members)])
    assert [problem.where for problem in found] == [f"shards/a.tar member {number}" for number in range(3)]
    assert "DOE" not in json.dumps(found)


def test_a_members_name_and_owner_are_found(tmp_path):
    named, owned = tarfile.TarInfo("doe.png"), tarfile.TarInfo("0" * 64 + ".png")
    owned.uname = "doe"
    found = shard_with(tmp_path, [(named, png()), (owned, png())])
    assert [problem.level for problem in found] == ["error", "error"]
    assert "doe" not in json.dumps(found)


def test_a_datasets_own_shards_are_clean(dataset_path):
    dataset = Dataset(dataset_path)
    assert list(check_shards(dataset.place, dataset.manifest)) == []
    for shard in dataset_path.glob("shards/*.tar"):
        shard.write_bytes(shard.read_bytes()[:700])
    assert {problem.check for problem in check_shards(dataset.place, dataset.manifest)} == {"pixels"}
