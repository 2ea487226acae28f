import json
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from typer.testing import CliRunner

from medglip.cli import app


@pytest.fixture
def run():
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def ultrasound(path: Path) -> Path:
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = "1.2.840.10008.5.1.4.1.1.6.1", "1.2.3", "US"
    data.PatientName, data.PatientID, data.StudyDate = "Doe^Jane", "MRN-998877", "20200102"
    data.Rows = data.Columns = 4
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit = 7
    data.add_new("PixelData", "OB", bytes(range(16)))
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.save_as(path, enforce_file_format=True)
    return path


def test_inspect_speaks_to_people_and_to_programs(run, tmp_path):
    path = ultrasound(tmp_path / "x.dcm")
    words = run("inspect", path)
    assert words.exit_code == 0
    assert "A picture of modality ultrasound" in words.output
    assert "burned_in_risk: text (perhaps a name) may be drawn into the pixels" in words.output
    facts = run("inspect", path, "--json")
    assert json.loads(facts.output)[0]["modality"] == "ultrasound"
    for secret in ("Doe", "Jane", "MRN-998877", "20200102"):
        assert secret not in words.output + facts.output


def test_inspect_ends_with_2_where_a_file_cannot_be_read(medglip_command, tmp_path):
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n")
    done = subprocess.run([*medglip_command, "inspect", str(tmp_path / "cut.png")], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("medglip: 'cut.png'")
    assert "Traceback" not in done.stderr


def test_odd_values_of_a_header_are_not_printed(medglip_command, tmp_path):
    data = pydicom.dcmread(ultrasound(tmp_path / "x.dcm"))
    data.add_new("SeriesInstanceUID", "LO", "MRN-998877")  # no UID: pydicom would warn and name it
    data["SeriesInstanceUID"].VR = "UI"
    data.save_as(tmp_path / "x.dcm")
    done = subprocess.run([*medglip_command, "inspect", str(tmp_path)], capture_output=True, text=True, check=True)
    assert "1 DICOM file" in done.stdout
    assert "MRN-998877" not in done.stdout + done.stderr


def test_inspect_ends_with_3_where_some_files_of_a_folder_cannot(run, tmp_path):
    ultrasound(tmp_path / "x.dcm")
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    assert run("inspect", tmp_path).exit_code == 0
    (tmp_path / "cut").write_bytes(bytes(128) + b"DICM\x02\x00\x00\x00UL\x04")
    done = run("inspect", tmp_path)
    assert done.exit_code == 3
    assert "cut" in done.output


def test_doctor_says_what_works(run):
    done = run("doctor", "--json")
    found = json.loads(done.output)
    states = {one["uid"]: one["state"] for one in found["transfer_syntaxes"]}
    assert states["1.2.840.10008.1.2.5"] == "works"
    assert states["1.2.840.10008.1.2.4.102"] == "none"
    assert any(one["package"] == "pydicom" and one["version"] for one in found["packages"])
    assert done.exit_code == (3 if {"missing", "wrong", "fails"} & set(states.values()) else 0)
    assert "JPEG 2000" in run("doctor").output
