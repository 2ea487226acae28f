"""Writers of tiny DICOM files for the tests of this folder."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian


def dicom_dataset(pixels: np.ndarray, **elements: object) -> Dataset:
    """A CT-like data set around ``pixels`` (H, W), (H, W, 3) or (N, H, W); ``elements`` are added or replaced."""
    data = Dataset()
    data.SOPClassUID = CTImageStorage
    data.SOPInstanceUID = "1.2.3.1"
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = "1.2.3", "1.2.3.4", "1.2.3.5"
    data.Modality, data.PatientID = "CT", "patient one"
    colour = pixels.ndim >= 3 and pixels.shape[-1] == 3
    data.SamplesPerPixel, data.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
    if colour:
        data.PlanarConfiguration = 0
    if pixels.ndim == 4 or (pixels.ndim == 3 and not colour):
        data.NumberOfFrames = len(pixels)
    data.Rows, data.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    data.BitsAllocated = data.BitsStored = 8 * pixels.dtype.itemsize
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    content = pixels.tobytes()
    data.add_new("PixelData", "OB" if pixels.dtype.itemsize == 1 else "OW", content + b"\0" * (len(content) % 2))
    for keyword, value in elements.items():
        setattr(data, keyword, value)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = data.SOPClassUID, "1.2.3.1"
    return data


@pytest.fixture
def make_dicom() -> Callable[..., Path]:
    """``make_dicom(path, pixels, **elements)`` writes a file and returns its path."""

    def write(path: Path, pixels: np.ndarray, **elements: object) -> Path:
        dicom_dataset(pixels, **elements).save_as(path, enforce_file_format=True)
        return path

    return write
