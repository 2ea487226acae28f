"""Phantom scenes as DICOM: CT series, segmentations, radiographs, ultrasound clips. Knows nothing of drawing.

Equal scenes give equal bytes: identifiers are hashes of the exam, dates are fixed, and no clock is read.
"""

from pathlib import Path

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.sr.coding import Code
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless, generate_uid

from medglip.phantoms.scene import Exam, Scene
from medglip.records import label_tree

_CT, _DX, _US = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.3.1")
_MAKER, _DATE = "medglip phantom", "20000101"
_PADDING = -2000  # outside the scanner's circle, as some scanners write it
_SIDE_CODES = {"left": Code("7771000", "SCT", "Left"), "right": Code("24028007", "SCT", "Right")}
_CATEGORIES = {False: Code("123037004", "SCT", "Anatomical Structure"),
               True: Code("49755003", "SCT", "Morphologically Abnormal Structure")}  # fmt: skip


def write_ct(scene: Scene, folder: Path, rng: np.random.Generator) -> list[FileDataset]:
    """A CT series, one file a slice, named without meaning; some series compressed, some padded, some lying prone.

    Args:
        scene: Of modality ct.
        folder: Where the files go.
        rng: Chooses the names.

    Returns:
        The slices from the feet up.
    """
    number = scene.exam.seed[2]
    signed, prone = number % 3 != 2, number % 5 == 4
    step, row, column = scene.spacing_mm or (1.0, 1.0, 1.0)
    count, height, width = scene.values.shape
    stored = scene.values.astype(np.int16) + 1024
    if number % 2 == 0 and signed:
        y, x = np.arange(height)[:, None] - (height - 1) / 2, np.arange(width) - (width - 1) / 2
        stored[:, np.hypot(y, x) > width / 2] = _PADDING
    corner = np.array([-column * (width - 1) / 2, -row * (height - 1) / 2])
    if prone:
        stored, corner = stored[:, ::-1, ::-1], -corner
    names = rng.permutation(0x10000)[:count]
    slices = []
    for k in range(count):
        image = _dataset(scene, _CT, "CT", k + 1)
        image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        image.InstanceNumber = count - k
        image.ImageOrientationPatient = [-1, 0, 0, 0, -1, 0] if prone else [1, 0, 0, 0, 1, 0]
        image.PatientPosition = "HFP" if prone else "HFS"
        image.ImagePositionPatient = [float(corner[0]), float(corner[1]), -800.0 + k * step]
        image.PixelSpacing, image.SliceThickness, image.KVP = [row, column], step, 120
        image.RescaleIntercept, image.RescaleSlope, image.RescaleType = -1024, 1, "HU"
        image.WindowCenter, image.WindowWidth, image.ConvolutionKernel = 40, 400, "STANDARD"
        _pixels(image, stored[k].astype(np.int16 if signed else np.uint16), 16)
        if signed:
            image.add_new("PixelPaddingValue", "SS", _PADDING)
        slices.append(image)
        syntax = (ExplicitVRLittleEndian, RLELossless, JPEG2000Lossless)[number % 3]
        _save(image, folder / f"{names[k]:04X}", syntax)
    return slices


def write_segmentation(scene: Scene, slices: list[FileDataset], path: Path) -> None:
    """The things of a CT scene as one DICOM segmentation: a segment a name, overlapping where one lies in another.

    Every name that was searched for is described; a segment without a frame says that it is not there.

    Args:
        scene: Of modality ct.
        slices: What ``write_ct`` returned.
        path: File to write.
    """
    names = scene.searched
    masks = np.stack([scene.mask(name) for name in names], axis=-1).astype(np.uint8)
    if slices[0].PatientPosition == "HFP":
        masks = masks[:, ::-1, ::-1]
    segments = [_segment(number, name) for number, name in enumerate(names, 1)]
    segmentation = hd.seg.Segmentation(
        source_images=slices, pixel_array=masks, segmentation_type="BINARY", segment_descriptions=segments,
        series_instance_uid=_uid(scene.exam, "segmentation series"), series_number=2,
        sop_instance_uid=_uid(scene.exam, "segmentation"), instance_number=1, manufacturer=_MAKER,
        manufacturer_model_name=_MAKER, software_versions="1", device_serial_number="0",
        content_description="synthetic phantom", content_label="SYNTHETIC",
    )  # fmt: skip
    for keyword in ("InstanceCreationDate", "ContentDate"):
        setattr(segmentation, keyword, _DATE)
    for keyword in ("InstanceCreationTime", "ContentTime"):
        setattr(segmentation, keyword, "120000")
    dimension = _uid(scene.exam, "dimension")
    for item in (*segmentation.DimensionOrganizationSequence, *segmentation.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimension
    for item in segmentation.get("ContributingEquipmentSequence", ()):
        item.ContributionDateTime = f"{_DATE}120000"
    segmentation.ImageComments = "synthetic phantom"
    path.parent.mkdir(parents=True, exist_ok=True)
    segmentation.save_as(path)


def write_xray(scene: Scene, path: Path) -> None:
    """A radiograph for presentation; every second one MONOCHROME1, in which bone is stored as low numbers."""
    image = _dataset(scene, _DX, "DX", 1)
    inverted = (scene.exam.seed[2] + scene.exam.seed[3]) % 2 == 1
    _pixels(image, 4095 - scene.values if inverted else scene.values, 12)
    image.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    image.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    image.PresentationIntentType, image.BodyPartExamined = "FOR PRESENTATION", "CHEST"
    image.ViewPosition, image.PatientOrientation = scene.facts["view"], ["L", "F"]
    row, column = scene.spacing_mm or (1.0, 1.0)
    image.ImagerPixelSpacing = [row, column]
    image.RescaleIntercept, image.RescaleSlope, image.RescaleType = 0, 1, "US"
    image.BurnedInAnnotation, image.LossyImageCompression = "NO", "00"
    _save(image, path, ExplicitVRLittleEndian)


def write_ultrasound(scene: Scene, path: Path) -> None:
    """A clip, calibrated in centimetres; every second one in colour (three equal channels) and run-length coded."""
    clip = _dataset(scene, _US, "US", 1)
    colour = scene.exam.seed[2] % 2 == 1
    frames = np.repeat(scene.values[..., None], 3, axis=-1) if colour else scene.values
    _pixels(clip, frames, 8)
    clip.NumberOfFrames, clip.FrameTime, clip.FrameIncrementPointer = len(frames), 50, 0x00181063
    clip.BurnedInAnnotation, clip.LossyImageCompression = "NO", "00"
    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 0
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 0, 0
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = scene.values.shape[2] - 1, scene.values.shape[1] - 1
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3  # centimetres
    row, column = scene.spacing_mm or (1.0, 1.0)
    region.PhysicalDeltaX, region.PhysicalDeltaY = column / 10, row / 10
    clip.SequenceOfUltrasoundRegions = Sequence([region])
    _save(clip, path, RLELossless if colour else ExplicitVRLittleEndian)


def _uid(exam: Exam, what: str) -> UID:
    return generate_uid(entropy_srcs=["medglip phantom", str(exam.seed[0]), exam.case, str(exam.seed[1]), what])


def _dataset(scene: Scene, sop_class: str, modality: str, number: int) -> FileDataset:
    """A data set with its patient, study, series and equipment, of a person who is clearly not one."""
    exam = scene.exam
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(sop_class)
    meta.MediaStorageSOPInstanceUID = _uid(exam, f"image {number}")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.PatientName, data.PatientID = f"Phantom^{exam.patient}", exam.patient
    data.PatientBirthDate, data.PatientSex, data.PatientAge = "", exam.sex, f"{exam.age:03d}Y"
    data.StudyInstanceUID, data.SeriesInstanceUID = _uid(exam, "study"), _uid(exam, "series")
    data.FrameOfReferenceUID, data.PositionReferenceIndicator = _uid(exam, "frame of reference"), ""
    data.StudyID, data.AccessionNumber, data.ReferringPhysicianName = exam.case, "", ""
    data.StudyDate = data.SeriesDate = data.ContentDate = _DATE
    data.StudyTime = data.SeriesTime = data.ContentTime = "120000"
    data.Modality, data.SeriesNumber, data.InstanceNumber = modality, 1, number
    data.Manufacturer, data.ManufacturerModelName = _MAKER, _MAKER
    data.SeriesDescription, data.ImageComments = f"synthetic {scene.kind}", "synthetic phantom"
    data.ImageType = ["DERIVED", "PRIMARY"]
    return data


def _pixels(image: FileDataset, pixels: np.ndarray, bits: int) -> None:
    colour = pixels.shape[-1] == 3
    image.Rows, image.Columns = pixels.shape[-3:-1] if colour else pixels.shape[-2:]
    image.SamplesPerPixel, image.PhotometricInterpretation = (3, "RGB") if colour else (1, "MONOCHROME2")
    if colour:
        image.PlanarConfiguration = 0
    image.BitsAllocated, image.BitsStored, image.HighBit = 8 * pixels.dtype.itemsize, bits, bits - 1
    image.PixelRepresentation = int(pixels.dtype.kind == "i")
    image.PixelData = np.ascontiguousarray(pixels).tobytes()


def _save(image: FileDataset, path: Path, syntax: UID) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if syntax != ExplicitVRLittleEndian:
        image.compress(syntax, generate_instance_uid=False)
    image.save_as(path, enforce_file_format=True)


def _segment(number: int, name: str) -> hd.seg.SegmentDescription:
    tree = label_tree()
    label_id, side = tree.resolve(name)
    label = tree[label_id]
    codes = {kind: Code(value, scheme, meaning) for kind, (scheme, value, meaning) in label.codes.items()}
    category = codes.get("category", _CATEGORIES[label.is_finding])
    kind = codes.get("type", Code(label.id.upper().replace(".", "_")[-16:], "99MEDGLIP", label.name[:64]))
    segment = hd.seg.SegmentDescription(
        segment_number=number, segment_label=name, segmented_property_category=category, segmented_property_type=kind,
        algorithm_type="MANUAL", anatomic_regions=[codes["region"]] if "region" in codes else None,
    )  # fmt: skip
    if side in _SIDE_CODES:
        modifier = hd.sr.CodedConcept.from_code(_SIDE_CODES[side])
        segment.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = Sequence([modifier])
    return segment
