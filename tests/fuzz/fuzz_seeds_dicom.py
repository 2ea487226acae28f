"""Tiny DICOM files of every kind that medglip reads; knows no mutations."""

import io
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
from fuzz_seeds import HEAD, Seed, noise, picture, saved, tree_of
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.fileset import FileSet
from pydicom.sr.codedict import codes
from pydicom.uid import (
    BasicTextSRStorage,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
    RTStructureSetStorage,
    UltrasoundMultiFrameImageStorage,
)  # fmt: skip

DICOM_TOML = HEAD + 'converter = "dicom_images"\nmodality = "xray"\nfiles = { image = "**/*" }\n'
SERIES_TOML = (
    HEAD
    + """converter = "label_volumes"
modality = "ct"
files = { series = "{case}/dicom/*", labels = "{case}/seg.nii.gz" }
labels = { "1" = "liver" }
"""
)
SEG_TOML = (
    HEAD
    + """converter = "dicom_seg"
modality = "ct"
labels_by_name = { enabled = true }
files = { seg = "**/*", image = "**/*" }
"""
)
RT_TOML = (
    HEAD
    + """converter = "dicom_rtstruct"
modality = "ct"
labels_by_name = { enabled = true }
files = { contours = "**/*", series = "**/*" }
"""
)
SHAPE = (3, 12, 10)


def as_bytes(data: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    """The data set as a file."""
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    file = io.BytesIO()
    data.save_as(file, enforce_file_format=True)
    return file.getvalue()


def image(
    pixels: np.ndarray, sop: str = "1.2.3.1", kind: str = "CR", sop_class: str = ComputedRadiographyImageStorage
) -> Dataset:
    """A data set around pixels: (H, W), (H, W, 3) or (N, H, W)."""
    data = Dataset()
    colour = pixels.shape[-1] == 3
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = sop_class, sop, kind
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = "1.2.3", "1.2.3.4", "1.2.3.5"
    data.PatientID, data.PatientName, data.PatientBirthDate, data.PatientSex = "p1", "A^B", "", "F"
    data.StudyDate, data.StudyTime, data.StudyID = "20000101", "120000", "1"
    data.AccessionNumber = data.ReferringPhysicianName = ""
    data.SeriesNumber = data.InstanceNumber = 1
    data.SamplesPerPixel, data.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
    if colour:
        data.PlanarConfiguration = 0
    elif pixels.ndim == 3:
        data.NumberOfFrames = len(pixels)
    data.Rows, data.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    data.BitsAllocated = data.BitsStored = 8 * pixels.dtype.itemsize
    data.HighBit, data.PixelRepresentation = data.BitsStored - 1, int(pixels.dtype.kind == "i")
    data.add_new("PixelData", "OB" if pixels.dtype.itemsize == 1 else "OW", pixels.tobytes())
    return data


def ct_slice(k: int) -> Dataset:
    """One slice of a CT series."""
    pixels = np.random.default_rng(k).integers(0, 1500, SHAPE[1:]).astype(np.int16)
    data = image(pixels, f"1.2.3.{k + 1}", "CT", CTImageStorage)
    data.InstanceNumber = k + 1
    data.PixelSpacing, data.ImageOrientationPatient, data.SliceThickness = [0.8, 0.8], [1, 0, 0, 0, 1, 0], 3.0
    data.ImagePositionPatient, data.RescaleSlope, data.RescaleIntercept = [-10.0, 5.0, 50.0 + 3.0 * k], 1, -1024
    data.WindowCenter, data.WindowWidth = [40, 300], [400, 1500]
    return data


def enhanced() -> Dataset:
    """An enhanced CT: geometry and scaling in functional groups."""
    data = image(np.random.default_rng(1).integers(0, 1500, SHAPE).astype(np.int16), "1.2.9", "CT", EnhancedCTImageStorage)
    shared, measures, turned, scaled = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.8, 0.8], 3.0
    turned.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    scaled.RescaleIntercept, scaled.RescaleSlope, scaled.RescaleType = -1024, 1, "HU"
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [turned]
    shared.PixelValueTransformationSequence = [scaled]
    data.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for k in range(SHAPE[0]):
        frame, place = Dataset(), Dataset()
        place.ImagePositionPatient = [-10.0, 5.0, 50.0 + 3.0 * k]
        frame.PlanePositionSequence = [place]
        frames.append(frame)
    data.PerFrameFunctionalGroupsSequence = frames
    return data


def rtstruct() -> Dataset:
    """Two contours of a heart and one of a lung."""
    data, frame, study, series = Dataset(), Dataset(), Dataset(), Dataset()
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = RTStructureSetStorage, "1.2.900", "RTSTRUCT"
    frame.FrameOfReferenceUID, series.SeriesInstanceUID = "1.2.3.5", "1.2.3.4"
    study.RTReferencedSeriesSequence = [series]
    frame.RTReferencedStudySequence = [study]
    data.ReferencedFrameOfReferenceSequence = [frame]
    named, lines = [], []
    for number, (name, slices) in enumerate({"HEART": (0, 1), "Lung_L": (1,)}.items(), 1):
        roi, line, items = Dataset(), Dataset(), []
        roi.ROINumber, roi.ROIName, line.ReferencedROINumber = number, name, number
        for k in slices:
            item = Dataset()
            item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", 4
            z = 50.0 + 3.0 * k
            item.ContourData = [-8, 7, z, -4, 7, z, -4, 11, z, -8, 11, z]
            items.append(item)
        line.ContourSequence = items
        named.append(roi)
        lines.append(line)
    data.StructureSetROISequence, data.ROIContourSequence = named, lines
    return data


def segmentation(slices: list[Dataset]) -> bytes:
    """A SEG of the liver."""
    described = hd.seg.SegmentDescription(
        1, "Liver", codes.SCT.Organ, codes.SCT.Liver, hd.seg.SegmentAlgorithmTypeValues.MANUAL
    )
    masks = np.zeros((*SHAPE, 1), np.uint8)
    masks[:2, 3:9, 2:7] = 1
    for number, data in enumerate(slices):
        slices[number] = pydicom.dcmread(io.BytesIO(as_bytes(data)))
    made = hd.seg.Segmentation(slices, masks, "BINARY", [described], "1.2.77", 2, "1.2.78", 1, "maker", "model", "1", "2")
    for item in made.iterall():  # the clock stands still, and equal seeds are equal bytes
        if item.VR in ("DA", "TM", "DT") and item.value:
            item.value = {"DA": "20000101", "TM": "120000", "DT": "20000101120000"}[item.VR]
        if item.VR == "UI" and str(item.value).startswith("1.2.826.0.1.3680043.10.511.3"):
            item.value = "1.2.826.0.1.3680043.10.511.3.1"
    return saved(made.save_as, "seg")


def compressed() -> dict[str, bytes]:
    """One image in other transfer syntaxes."""
    grey = noise()
    files = {"DICOM implicit": as_bytes(image(grey), ImplicitVRLittleEndian)}
    big = image(grey)
    big["PixelData"].VR = "OW"
    files["DICOM big endian"] = as_bytes(big, ExplicitVRBigEndian)
    for kind, syntax in (("DICOM RLE", RLELossless), ("DICOM J2K", JPEG2000Lossless)):
        data = image(noise(40, 40, np.uint16))  # the encoder of JPEG 2000 takes nothing smaller than 32 pixels
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.compress(syntax, generate_instance_uid=False)
        files[kind] = as_bytes(data, syntax)
    data = image(grey)
    data.PixelData = encapsulate([picture(grey, "JPEG")])
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    files["DICOM JPEG"] = as_bytes(data, JPEGBaseline8Bit)
    return files


def report() -> Dataset:
    """A structured report with one line of text."""
    data, line, name = Dataset(), Dataset(), Dataset()
    data.SOPClassUID, data.SOPInstanceUID, data.Modality, data.ValueType = BasicTextSRStorage, "1.2.55", "SR", "CONTAINER"
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = "121071", "DCM", "Finding"
    line.ValueType, line.TextValue, line.ConceptNameCodeSequence = "TEXT", "nothing", [name]
    data.ContentSequence = [line]
    return data


def dicom_seeds() -> list[Seed]:
    """Images in seven forms, clips, series, and the objects that are no images."""
    from fuzz_seeds_volumes import nifti

    def seed(kind: str, content: bytes, toml: str = DICOM_TOML, **others: bytes) -> Seed:
        files = {f"p1/{name}": value for name, value in others.items()}
        return Seed(kind, {"p1/a": content, **files}, "p1/a", toml, "dicom")

    slices = [as_bytes(ct_slice(k)) for k in range(SHAPE[0])]
    named = {f"IM{k}": content for k, content in enumerate(slices)}
    labels = np.zeros(SHAPE[::-1], np.uint8)
    labels[2:6, 3:8, :2] = 1
    series = {f"p1/dicom/IM{k}": content for k, content in enumerate(slices)}
    clip = image(np.random.default_rng(3).integers(0, 255, (4, 12, 10)).astype(np.uint8), kind="US",
                 sop_class=UltrasoundMultiFrameImageStorage)  # fmt: skip
    colour = np.random.default_rng(4).integers(0, 255, (12, 10, 3)).astype(np.uint8)

    def medium(folder: Path) -> None:
        made = FileSet()
        made.UID = "1.2.3.99"
        for content in slices:
            made.add(pydicom.dcmread(io.BytesIO(content)))
        made.write(folder)

    media = tree_of(medium)
    affine = np.array([[-0.8, 0, 0, 10], [0, -0.8, 0, -5], [0, 0, 3, 50], [0, 0, 0, 1]], float)
    return [
        seed("DICOM", as_bytes(image(noise()))),
        seed("DICOM colour", as_bytes(image(colour))),
        *(seed(kind, content) for kind, content in compressed().items()),
        seed("DICOM clip", as_bytes(clip), DICOM_TOML.replace("xray", "ultrasound")),
        seed("DICOM enhanced", as_bytes(enhanced()), DICOM_TOML.replace("xray", "ct")),
        seed("DICOM SR", as_bytes(report()), b=as_bytes(image(noise()))),
        Seed("DICOM series", {**series, "p1/seg.nii.gz": nifti(labels, affine)}, "p1/dicom/IM1", SERIES_TOML, "dicom"),
        seed("DICOM SEG", segmentation([ct_slice(k) for k in range(SHAPE[0])]), SEG_TOML, **named),
        seed("DICOM RTSTRUCT", as_bytes(rtstruct()), RT_TOML, **named),
        Seed("DICOMDIR", media, "DICOMDIR", DICOM_TOML.replace("xray", "ct"), "dicom", "DICOMDIR"),
    ]  # fmt: skip
