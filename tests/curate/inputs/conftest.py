"""Small generated inputs: files of a source, archives of them, DICOM series."""

import zipfile

import numpy as np
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

CT_IMAGE = UID("1.2.840.10008.5.1.4.1.1.2")


@pytest.fixture
def files():
    """Contents of a little source by path; the name in the second is written with a combining mark."""
    return {"set/images/a_1.png": b"first" * 100, "set/images/Bru\u0308cke (1).png": b"second", "set/table.csv": b"id\na_1\n"}


@pytest.fixture
def zipped(tmp_path, files):
    def make(name="source.zip", extra=()):
        path = tmp_path / name
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, content in (*files.items(), *extra):
                archive.writestr(member, content)
        return path

    return make


@pytest.fixture
def tree_of():
    """Contents of a folder by path."""
    return lambda folder: {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def ct_slice(study, series, number, patient="phantom-1", modality="CT"):
    """A synthetic 64 x 48 slice with its own pixels."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = CT_IMAGE, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["medglip test", study, series, str(number)])
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = CT_IMAGE, meta.MediaStorageSOPInstanceUID
    data.PatientName, data.PatientID, data.Modality = "Phantom^Test", patient, modality
    data.StudyInstanceUID = generate_uid(entropy_srcs=["medglip test", study])
    data.SeriesInstanceUID = generate_uid(entropy_srcs=["medglip test", study, series])
    data.FrameOfReferenceUID = data.StudyInstanceUID
    data.StudyDate, data.StudyTime, data.AccessionNumber, data.StudyID = "20000101", "120000", "", "1"
    data.ReferringPhysicianName, data.PatientBirthDate, data.PatientSex = "", "", ""
    data.SeriesNumber, data.InstanceNumber = 1, number
    data.ImageType = ["DERIVED", "PRIMARY", "AXIAL"]
    data.ImageOrientationPatient, data.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 2.0 * number]
    data.PixelSpacing, data.SliceThickness = [1, 1], 2
    data.RescaleIntercept, data.RescaleSlope = -1024, 1
    data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = 48, 64, 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.PixelData = (np.arange(3072, dtype=np.uint16) % 1000 + 100 * number).tobytes()
    return data


@pytest.fixture(scope="session")
def make_slice():
    return ct_slice
