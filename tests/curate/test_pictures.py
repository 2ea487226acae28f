"""One picture of a case: frames of a clip, and why a file is of no use."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from medglip.curate.cases import Refused
from medglip.curate.images import frames_to_show, read_image
from medglip.curate.source import Part


def part(**options: object) -> Part:
    return Part("p", "mask_images", "ultrasound", "tiny", "CC0-1.0", "human", {}, {}, options=options)


def clip(path: Path, frames: int, **elements: object) -> Path:
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = "1.2.840.10008.5.1.4.1.1.3.1", "1.2.3", "US"
    data.Rows = data.Columns = 4
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.NumberOfFrames = 7, frames
    data.add_new("PixelData", "OB", (np.arange(16 * frames) % 251).astype(np.uint8).tobytes())
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.save_as(path, enforce_file_format=True)
    return path


def test_frames_of_a_clip_are_spread_evenly(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip", 30)
    assert frames_to_show(part(frames=3), path) == [5, 15, 25]
    assert len(frames_to_show(part(), path)) == 8
    assert frames_to_show(part(), clip(tmp_path / "short", 2)) == [0, 1]
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "one.png")
    assert frames_to_show(part(), tmp_path / "one.png") == [0]
    for number in frames_to_show(part(frames=3), path):
        assert read_image(part(), path, number)[0].flat[0] == 16 * number % 251


def test_a_file_without_a_picture_is_refused_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="structured report") as refused:
        read_image(part(), clip(tmp_path / "sr", 1, Modality="SR"))
    assert refused.value.reason == "no_image"


def test_a_picture_of_one_value_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 7, np.uint8)).save(tmp_path / "flat.png")
    with pytest.raises(Refused, match="All pixels") as refused:
        read_image(part(), tmp_path / "flat.png")
    assert refused.value.reason == "constant_image"
