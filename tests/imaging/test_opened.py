"""One picture out of any file, and what `inspect` says of files."""

import json

import nibabel
import numpy as np
import pytest
from PIL import Image

from medglip.errors import InputError
from medglip.imaging.inspect import inspect
from medglip.imaging.opened import open_image


@pytest.fixture
def volume(tmp_path):
    data = np.zeros((6, 8, 4), np.int16)
    data[0, 1, 2] = 1000  # the first axis runs from the patient's right to the left: x is RAS and falls
    nibabel.save(nibabel.Nifti1Image(data, np.diag([-1.0, 2.0, 5.0, 1.0])), tmp_path / "v.nii.gz")
    return tmp_path / "v.nii.gz"


def test_a_slice_of_a_volume_is_shown_as_radiologists_do(volume):
    opened = open_image(volume, modality="mr", number=2)
    row, column = np.unravel_index(opened.display.argmax(), opened.display.shape)
    # Patient's right is on the image's left; low y is posterior in RAS, so it is at the bottom.
    assert (column, row) == (0, 6)
    assert opened.spacing_mm == (2.0, 1.0)
    assert opened.modality == "mr"


def test_the_middle_slice_is_the_default(volume):
    assert open_image(volume).name == "v.nii.gz slice 2"


@pytest.mark.parametrize(
    ("make", "kwargs", "message"),
    [
        (lambda p: p / "none.png", {}, "is not there"),
        (lambda p: _written(p / "notes.txt", b"hello"), {}, "no format that medglip reads"),
        (lambda p: _written(p / "cut.png", b"\x89PNG\r\n"), {}, "cut.png"),
        (lambda p: p / "v.nii.gz", {"number": 9}, "allowed: 0 to 3"),
        (lambda p: p / "v.nii.gz", {"modality": "sonar"}, "found 'sonar'"),
    ],
)
def test_what_cannot_be_opened_is_said_in_one_sentence(volume, tmp_path, make, kwargs, message):
    with pytest.raises(InputError, match=message):
        open_image(make(tmp_path), **kwargs)


def _written(path, content):
    path.write_bytes(content)
    return path


def test_inspect_names_format_geometry_and_problems(volume, tmp_path):
    (facts,) = inspect(volume)
    assert facts["shape_kji"] == [4, 8, 6]
    assert facts["spacing_kji_mm"] == [5.0, 2.0, 1.0]
    Image.new("L", (7, 5), 9).save(tmp_path / "flat.png")
    (facts,) = inspect(tmp_path / "flat.png")
    assert (facts["size"], facts["problems"]) == ("7 x 5", ["constant_image"])
    json.dumps(inspect(tmp_path))


def test_inspect_refuses_what_is_not_there(tmp_path):
    with pytest.raises(InputError, match="is not there"):
        inspect(tmp_path / "none")
    with pytest.raises(InputError, match="holds no file"):
        inspect(tmp_path)


def test_inspect_real_dicom(real_data):
    (facts,) = inspect(real_data / "dicom-seg-highdicom" / "dx_image.dcm")
    assert facts["monochrome1"] is True
    assert facts["modality"] == "xray"
    (facts,) = inspect(real_data / "dicom-seg-dcmqi" / "liver.dcm")
    assert facts["holds"] == "segmentation"
