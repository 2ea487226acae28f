"""Both protocols against a real Orthanc, which scripts/test-services starts; skipped where it has not."""

import os
from collections import Counter

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from medglip import store
from medglip.curate import convert
from medglip.curate.inputs import opened_input
from medglip.errors import InputError
from medglip.phantoms import cases
from medglip.phantoms.dicom_files import write_ct, write_segmentation

WEB, DIMSE, LISTEN = (os.environ.get(f"MEDGLIP_TEST_{name}", "") for name in ("DICOMWEB", "DIMSE", "LISTEN"))
pytestmark = pytest.mark.skipif(not (WEB and DIMSE), reason="no test server; run scripts/test-services, which needs Orthanc")
ADDRESSES = {"web": f"{WEB}?", "get": f"{DIMSE}?", "move": f"{DIMSE}?by=move&listen={LISTEN}&"}
TOML = """
name = "from_pacs"
title = "CT with segmentations, from a test server"
licence = "CC0-1.0"
[[part]]
converter = "dicom_seg"
modality = "ct"
field = ["thorax", "abdomen"]
exhaustive = ["liver", "spleen"]
files = { image = "**/*.dcm", seg = "**/*.dcm" }
options = { max_slices = 3, window = "soft_tissue" }
labels_by_name = { enabled = true }
"""


@pytest.fixture(scope="module")
def sent(make_slice, tmp_path_factory):
    """Synthetic instances on the server: three compressions, two studies, and a phantom with its segmentation."""
    from dicomweb_client import DICOMwebClient, session_utils

    slices = []
    for series, syntax in (("plain", ExplicitVRLittleEndian), ("rle", RLELossless), ("j2k", JPEG2000Lossless)):
        for number in range(4):
            item = make_slice("service-A", series, number, modality="MR" if series == "rle" else "CT")
            if syntax != ExplicitVRLittleEndian:
                item.compress(syntax, generate_instance_uid=False)
            slices.append(item)
    slices += [make_slice("service-B", "other", number, patient="phantom-2") for number in range(2)]
    folder = tmp_path_factory.mktemp("phantom")
    scene = next(cases("ct", 1))
    write_segmentation(scene, write_ct(scene, folder / "series", np.random.default_rng(0)), folder / "seg.dcm")
    phantom = [pydicom.dcmread(path) for path in sorted(folder.rglob("*")) if path.is_file()]
    session = session_utils.create_session_from_user_pass("medglip", os.environ["MEDGLIP_DICOMWEB_PASSWORD"])
    DICOMwebClient(WEB.replace("dicomweb:", "http:"), session=session).store_instances(slices + phantom)
    return {str(item.SOPInstanceUID): item for item in slices}, phantom


def got(folder):
    return {str(data.SOPInstanceUID): data for data in map(pydicom.dcmread, folder.rglob("*.dcm"))}


@pytest.mark.parametrize("way", ADDRESSES)
def test_instances_come_as_they_were_sent(sent, tmp_path, way):
    slices = {uid: item for uid, item in sent[0].items() if item.PatientID == "phantom-1"}
    with opened_input(f"{ADDRESSES[way]}PatientID=phantom-1", tmp_path) as folder:
        found = got(folder)
        assert found.keys() == slices.keys()
        for uid, item in slices.items():
            assert found[uid] == item
            assert found[uid].PixelData == item.PixelData
            assert found[uid].file_meta.TransferSyntaxUID == item.file_meta.TransferSyntaxUID
        assert not any(part in str(path) for path in folder.rglob("*") for part in ("phantom-1", "1.2."))
    series = Counter(path.parent for path in folder.rglob("*.dcm"))
    assert sorted(series.values()) == [4, 4, 4]


def test_the_ways_give_the_same_bytes(sent, tmp_path):
    trees = []
    for way, address in ADDRESSES.items():
        with opened_input(f"{address}PatientID=phantom-1", tmp_path / way) as folder:
            trees.append({path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.dcm")})
    assert trees[0] == trees[1] == trees[2]
    assert len(trees[0]) == 12


@pytest.mark.parametrize("way", ADDRESSES)
def test_a_second_run_brings_only_what_is_missing(sent, tmp_path, way):
    address = f"{ADDRESSES[way]}PatientID=phantom-1&Modality=MR"
    with opened_input(address, tmp_path) as folder:
        files = sorted(folder.rglob("*.dcm"))
    before = {path: path.stat().st_mtime_ns for path in files}
    files[1].unlink()
    with opened_input(address, tmp_path) as again:
        after = {path: path.stat().st_mtime_ns for path in sorted(again.rglob("*.dcm"))}
    assert after.keys() == before.keys()
    assert [path for path in files if after[path] != before[path]] == [files[1]]


@pytest.mark.parametrize("way", ADDRESSES)
@pytest.mark.parametrize(
    ("query", "count"),
    [
        ("PatientID=phantom-1&Modality=CT", 8), ("PatientID=phantom-1&Modality=C*", 8), ("PatientID=phantom-?", 14),
        ("PatientID=phantom-1&Modality=CT&Modality=MR", 12), ("StudyDate=19991231-20000102&PatientID=phantom-2", 2),
    ],
)  # fmt: skip
def test_what_is_asked_for(sent, way, query, count):
    with opened_input(f"{ADDRESSES[way]}{query}") as folder:
        assert len(list(folder.rglob("*.dcm"))) == count


@pytest.mark.parametrize("way", ADDRESSES)
def test_nothing_that_fits(sent, way):
    with pytest.raises(InputError, match="holds nothing that fits"), opened_input(f"{ADDRESSES[way]}PatientID=nobody"):
        pass


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (WEB.rsplit(":", 1)[0] + ":9/dicom-web", "cannot be reached"),
        (WEB + "-not-here", "check the path"),
        (DIMSE.rsplit(":", 1)[0] + ":9", "cannot be reached"),
        (DIMSE.replace("TESTPACS", "OTHER"), "Called AE title not recognised"),
        (f"{DIMSE}?calling=STRANGER", "enter the calling AE title 'STRANGER'"),
    ],
)
def test_a_wrong_address_is_told_in_one_sentence(sent, address, message):
    with pytest.raises(InputError, match=message), opened_input(address):
        pass


def test_a_wrong_password_is_told(sent, monkeypatch):
    monkeypatch.setenv("MEDGLIP_DICOMWEB_PASSWORD", "wrong")
    with pytest.raises(InputError, match="refuses us"), opened_input(WEB):
        pass


@pytest.mark.parametrize("way", ["web", "get"])
def test_a_source_is_converted_from_the_server(sent, tmp_path, way):
    (tmp_path / "from_pacs.toml").write_text(TOML)
    study = sent[1][0].StudyInstanceUID
    results = []
    for _ in range(2):  # the second time into another scratch folder: the same cases
        with opened_input(f"{ADDRESSES[way]}StudyInstanceUID={study}") as folder:
            results.append(convert(tmp_path / "from_pacs.toml", folder, tmp_path / "dataset"))
    assert (results[0].cases, results[0].images, results[0].skipped) == (1, 3, 0)
    assert (results[1].cases, results[1].images, results[1].skipped) == (1, 0, 1)
    assert "abdomen.liver" in set(store.open(tmp_path / "dataset").regions["label"])
