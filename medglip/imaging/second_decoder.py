"""A second decoder of grey DICOM frames: GDCM, which SimpleITK brings along. Knows no rescale and no windows.

pydicom's plugins read no progressive JPEG (the retired processes 6, 8, 10 and 12) and refuse some bytes that GDCM reads.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import SecondaryCaptureImageStorage, generate_uid

# What a decoder has to know; everything else, the rescale above all, is left out so that stored values come back.
_KEPT = ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel",
         "NumberOfFrames", "PixelData")  # fmt: skip


def decoded_by_gdcm(header: Dataset, frames: Sequence[int] | None) -> np.ndarray:
    """Stored values of grey frames, (N, H, W).

    Args:
        header: A data set read with its pixels.
        frames: Which frames, from 0; None for all.

    Raises:
        RuntimeError: GDCM cannot decode them either, or they are colours.
    """
    import SimpleITK

    if int(header.get("SamplesPerPixel", 1)) != 1 or "PixelData" not in header:
        raise RuntimeError("GDCM is asked for grey frames only")
    bare = Dataset()
    for keyword in _KEPT:
        if keyword in header:
            bare[keyword] = header[keyword]
    bare.PhotometricInterpretation = "MONOCHROME2"
    bare.SOPClassUID, bare.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    bare.file_meta = FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = header.file_meta.TransferSyntaxUID
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames.dcm"
        bare.save_as(path, enforce_file_format=True)
        array = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))
    array = array.reshape(-1, int(header.Rows), int(header.Columns))
    return array if frames is None else array[list(frames)]
