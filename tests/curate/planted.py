"""A generated archive in which everything that can hold text holds a patient: no person, no real id."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import highdicom as hd
import nibabel
import numpy as np
import SimpleITK
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom.datadict import DicomDictionary, keyword_for_tag
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

NAME, MRN, DAY, ROOT, OLD = "Quixplant", "QX8812345", "19470213", "1.2.826.0.1.3680043.77.31337", "093Y"
# What must be found nowhere, whatever its case.
NEEDLES = ("quixplant", "qx8812345", "19470213", "1947-02-13", "3680043.77.31337", "093y", "quíx", "sankt-qx")
FOLDER = f"{NAME}^Jane {DAY}"
SHAPE = (3, 24, 20)
TOML = """
name = "ward"
title = "A ward's archive, generated"
licence = "CC0-1.0"

[[part]]
name = "seg"
converter = "dicom_seg"
modality = "ct"
patient = "{who}"
labels_by_name = { enabled = true }
files = { seg = "{who}/ct/**/*", image = "{who}/ct/**/*" }

[[part]]
name = "rt"
converter = "dicom_rtstruct"
modality = "ct"
exhaustive = ["heart"]
labels_by_name = { enabled = true }
files = { contours = "{who}/rt/**/*", series = "{who}/rt/**/*" }

[[part]]
name = "mr"
converter = "label_volumes"
modality = "mr"
field = ["head_neck"]
exhaustive = ["brain"]
labels = { "1" = "brain" }
files = { image = "{who}/mr/{case}_t1.nii.gz", labels = "{who}/mr/{case}_seg.nii.gz" }

[[part]]
name = "nrrd"
converter = "label_volumes"
modality = "ct"
labels = { "1" = "liver" }
files = { image = "{who}/nrrd/{case}_ct.nrrd", labels = "{who}/nrrd/{case}_seg.nrrd" }

[[part]]
name = "xray"
converter = "box_table"
modality = "xray"
patient = "{patient_name}"
detail = { view = "{view}" }
files = { image = "{who}/xray/{case}_{view:pa|ap}.dcm", table = "{who}/xray/boxes.csv", about = "{who}/xray/about.csv" }
labels = { nodule = "lung nodule" }
[part.options]
columns = { image = "file", box = ["x", "y", "w", "h"], label = "label" }
about_key = "file"
texts = [{ kind = "report", text = "{findings}" }]

[[part]]
name = "masks"
converter = "mask_images"
modality = "dermoscopy"
files = { image = "{who}/skin/{case:[^_]+}.png", mask = "{who}/skin/{case}_mask.png" }
labels = { "255" = "skin lesion" }

[[part]]
name = "voc"
converter = "voc"
modality = "endoscopy"
files = { image = "{who}/voc/{case}.jpg", annotation = "{who}/voc/{case}.xml" }
labels = { polyp = "polyp" }

[[part]]
name = "coco"
converter = "coco"
modality = "fundus"
files = { image = "{who}/coco/{case}.tif", annotations = "{who}/coco/*.json" }
labels = { disc = "optic disc" }
"""
# Read to decode or to place, so that a text in their place makes the file another one.
_KEPT = (
    "SOPClassUID", "Modality", "ImageType", "BurnedInAnnotation", "PhotometricInterpretation", "PresentationLUTShape",
    "VOILUTFunction", "LossyImageCompression", "SpecificCharacterSet", "PixelSpacingCalibrationType", "Units",
    "DecayCorrection", "SegmentationType", "RescaleType",
)  # fmt: skip
_TEXT = {"LO": f"{NAME} {MRN}", "SH": NAME, "PN": f"{NAME}^Jane^^Dr", "ST": f"{NAME} was here on 1947-02-13", "AE": NAME,
         "LT": f"{NAME}\r\nMRN: {MRN}", "UT": f"Dear Dr {NAME}", "UC": NAME, "UR": f"https://{NAME}.example", "CS": "QUIXPLANT",
         "DA": DAY, "DT": f"{DAY}121314", "TM": "121314", "AS": OLD}  # fmt: skip


def write_archive(folder: Path) -> Path:
    """The archive of one patient in seven kinds of files, some of them broken; its folder."""
    home = folder / FOLDER
    for name in ("ct", "rt", "mr", "nrrd", "xray", "skin", "voc", "coco"):
        (home / name).mkdir(parents=True)
    _write_seg(home / "ct")
    _write_rtstruct(home / "rt")
    _write_nifti(home / "mr")
    _write_nrrd(home / "nrrd")
    _write_xrays(home / "xray")
    _write_rasters(home)
    (home / f"{NAME} letter.txt").write_text(NAME)
    return folder


def planted(data: Dataset) -> Dataset:
    """The data set with every attribute of text, date, time and UID that it lacks, private ones, and sequences of them."""
    texts = _texts()
    for tag, vr in texts.items():
        if tag not in data and keyword_for_tag(tag) not in _KEPT:
            data.add_new(tag, vr, _TEXT.get(vr, f"{ROOT}.{tag & 0xFFFF}"))
    inner = Dataset()
    for keyword in ("PatientID", "PatientName", "AccessionNumber", "ReferencedSOPInstanceUID", "CodeMeaning"):
        setattr(inner, keyword, f"{ROOT}.7" if keyword.endswith("UID") else NAME)
    inner.OtherPatientIDsSequence = Sequence([Dataset()])
    inner.OtherPatientIDsSequence[0].PatientID = MRN
    for keyword in ("OtherPatientIDsSequence", "RequestAttributesSequence", "ReferencedPatientSequence"):
        setattr(data, keyword, Sequence([inner]))
    block = data.private_block(0x0099, NAME, create=True)
    block.add_new(0x01, "LO", f"{NAME} {MRN}")
    block.add_new(0x02, "SQ", Sequence([inner]))
    return data


def _texts() -> dict[int, str]:
    found = {}
    for tag, (vr, _, _, retired, keyword) in DicomDictionary.items():
        group = tag >> 16
        if vr in (*_TEXT, "UI") and keyword and not retired and group > 0x0007 and group % 2 == 0:
            found[tag] = vr
    return found


def _saved(data: Dataset, path: Path) -> None:
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    data.file_meta.SourceApplicationEntityTitle = data.file_meta.SendingApplicationEntityTitle = NAME
    data.preamble = NAME.encode().ljust(128, b"\0")
    data.save_as(path, enforce_file_format=True)


def _slice(series: int, k: int) -> Dataset:
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = CTImageStorage, f"{ROOT}.{series}.{k + 1}", "CT"
    data.StudyInstanceUID, data.SeriesInstanceUID = f"{ROOT}.100", f"{ROOT}.{series}"
    data.FrameOfReferenceUID, data.PatientID, data.PatientName = f"{ROOT}.{series}.9", MRN, f"{NAME}^Jane"
    data.PatientBirthDate, data.StudyDate, data.StudyTime, data.StudyID = DAY, DAY, "121314", NAME
    data.PatientSex, data.AccessionNumber, data.ReferringPhysicianName = "O", MRN, f"{NAME}^Doc"
    data.SeriesNumber, data.InstanceNumber, data.BodyPartExamined = 1, k + 1, "QUIXPLANT"
    data.PixelSpacing, data.ImageOrientationPatient = [0.8, 0.8], [1, 0, 0, 0, 1, 0]
    data.ImagePositionPatient, data.SliceThickness = [-10.0, 5.0, 50.0 + 3.0 * k], 3.0
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    return _with_pixels(data, np.random.default_rng(k).integers(0, 1500, SHAPE[1:]).astype(np.int16))


def _with_pixels(data: Dataset, pixels: np.ndarray) -> Dataset:
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit = 15
    data.add_new("PixelData", "OW", pixels.tobytes())
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return data


def _write_seg(folder: Path) -> None:
    slices = [_slice(200, k) for k in range(SHAPE[0])]
    names = ("Liver", f"{NAME} mass")
    described = [
        hd.seg.SegmentDescription(number, name, codes.SCT.Organ, code, hd.seg.SegmentAlgorithmTypeValues.MANUAL)
        for number, (name, code) in enumerate(zip(names, (codes.SCT.Liver, codes.SCT.Mass), strict=True), 1)
    ]
    masks = np.zeros((*SHAPE, 2), np.uint8)
    masks[0:2, 4:12, 3:9, 0], masks[1:3, 14:20, 5:15, 1] = 1, 1
    seg = hd.seg.Segmentation(
        slices, masks, "BINARY", described, generate_uid(f"{ROOT}."), 2, f"{ROOT}.55", 1, NAME, NAME, "1", MRN
    )
    planted(seg).save_as(folder / f"{NAME} seg.dcm")
    for k, data in enumerate(slices):
        _saved(planted(data), folder / f"{ROOT}.{k}")
    (folder / f"{NAME}_broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + NAME.encode() * 3)


def _write_rtstruct(folder: Path) -> None:
    data, frame, study, series = Dataset(), Dataset(), Dataset(), Dataset()
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.481.3", f"{ROOT}.900"
    data.Modality = "RTSTRUCT"
    frame.FrameOfReferenceUID, series.SeriesInstanceUID = f"{ROOT}.300.9", f"{ROOT}.300"
    study.RTReferencedSeriesSequence, frame.RTReferencedStudySequence = [series], [study]
    data.ReferencedFrameOfReferenceSequence = [frame]
    rois, lines = [], []
    for number, name in enumerate(("Heart", f"GTV {NAME}"), 1):
        roi, line, item = Dataset(), Dataset(), Dataset()
        roi.ROINumber, roi.ROIName, line.ReferencedROINumber = number, name, number
        roi.ReferencedFrameOfReferenceUID = frame.FrameOfReferenceUID
        item.ContourGeometricType = "CLOSED_PLANAR"
        item.ContourData = [-8, 7, 53, 0, 7, 53, 0, 14, 53, -8, 14, 53]
        line.ContourSequence = [item]
        rois.append(planted(roi))
        lines.append(line)
    data.StructureSetROISequence, data.ROIContourSequence = rois, lines
    _saved(planted(data), folder / f"{NAME} rt.dcm")
    for k in range(SHAPE[0]):
        _saved(planted(_slice(300, k)), folder / f"{NAME}{k}")


def _write_nifti(folder: Path) -> None:
    voxels = np.random.default_rng(1).integers(0, 900, (20, 24, 6)).astype(np.int16)
    brain = np.zeros(voxels.shape, np.uint8)
    brain[4:15, 5:20, 1:5] = 1
    strange = brain * 7  # a label without a name: the case is refused
    for name, array in (("a_t1", voxels), ("a_seg", brain), ("b_t1", voxels + 1), ("b_seg", strange)):
        image = nibabel.Nifti1Image(array, np.diag([-1.0, -1.0, 2.0, 1.0]))
        image.header["descrip"], image.header["aux_file"] = f"{NAME} {DAY}".encode(), NAME.encode()
        image.header["db_name"], image.header["intent_name"] = NAME.encode(), NAME.encode()
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", f"{NAME} {MRN}".encode()))
        nibabel.save(image, folder / f"{NAME}-{name}.nii.gz")


def _write_nrrd(folder: Path) -> None:
    liver = np.zeros((4, 20, 24), np.uint8)
    liver[1:3, 4:15, 5:20] = 1
    for name, array in (("ct", np.random.default_rng(9).integers(-900, 900, liver.shape).astype(np.int16)), ("seg", liver)):
        image = SimpleITK.GetImageFromArray(array)
        image.SetMetaData("patient", f"{NAME} {MRN}")
        SimpleITK.WriteImage(image, str(folder / f"{NAME}_{name}.nrrd"))


def _write_xrays(folder: Path) -> None:
    rows, about = [], []
    for number in range(2):
        data = Dataset()
        data.SOPClassUID, data.Modality = DigitalXRayImageStorageForPresentation, "DX"
        data.SOPInstanceUID, data.BurnedInAnnotation = f"{ROOT}.400.{number}", "NO"
        data.StudyInstanceUID, data.SeriesInstanceUID = f"{ROOT}.401", f"{ROOT}.402"
        pixels = np.random.default_rng(number).integers(0, 4000, (40, 50)).astype(np.uint16)
        name = f"{NAME}-Quíx{number}_pa.dcm"
        _saved(planted(_with_pixels(data, pixels)), folder / name)
        rows.append(f"{name},5,6,{20 + 400 * number},12,nodule,{NAME}")  # the second box leaves its image
        about.append(f'{name},{NAME} Jane,"No change since 1947-02-13. MRN: {MRN}; one nodule.",{MRN}')
    rows.append(f"{NAME}_lost.dcm,1,1,5,5,nodule,{NAME}")
    (folder / "boxes.csv").write_text("file,x,y,w,h,label,radiologist\n" + "\n".join(rows) + "\n", encoding="utf-8")
    head = "file,Patient name,findings,MRN\n"
    (folder / "about.csv").write_text(head + "\n".join(about) + "\n", encoding="utf-8")


def _write_rasters(home: Path) -> None:
    pixels = np.random.default_rng(5).integers(0, 255, (30, 40, 3)).astype(np.uint8)
    mask = np.zeros((30, 40), np.uint8)
    mask[5:20, 6:30] = 255
    words = PngInfo()
    words.add_text("Comment", f"{NAME} {MRN}")
    words.add_itxt("Author", NAME)
    exif = Image.Exif()
    exif[0x010E], exif[0x013B], exif[0x0132] = f"{NAME} {MRN}", NAME, "1947:02:13 12:13:14"
    for case, size in (("left", 30), ("right", 20)):  # the second mask is of another size
        Image.fromarray(pixels[:, :, ::-1] if size == 30 else pixels // 2).save(
            home / "skin" / f"{NAME} {case}.png", pnginfo=words, exif=exif
        )
        Image.fromarray(mask[:size]).save(home / "skin" / f"{NAME} {case}_mask.png", pnginfo=words)
    (home / "skin" / f"{NAME} cut.png").write_bytes((home / "skin" / f"{NAME} left.png").read_bytes()[:200])
    Image.fromarray(mask).save(home / "skin" / f"{NAME} orphan_mask.png")
    Image.fromarray(pixels).save(home / "voc" / f"{MRN}.jpg", exif=exif, comment=NAME.encode(), quality=90)
    (home / "voc" / f"{MRN}.xml").write_text("".join(_voc()), encoding="utf-8")
    Image.fromarray(pixels[:, :, 0]).save(home / "coco" / f"{NAME}.tif", description=f"{NAME} {MRN}", artist=NAME)
    marks = [{"id": number, "image_id": 1, "category_id": number, "bbox": [3, 4, 9, 8], "note": NAME} for number in (1, 2)]
    coco = {
        "info": {"contributor": NAME, "description": MRN, "date_created": DAY}, "licenses": [{"name": NAME}],
        "images": [{"id": 1, "file_name": f"{NAME}.tif", "width": 40, "height": 30, "coco_url": f"file:///data/{NAME}.tif"}],
        "categories": [{"id": 1, "name": "disc", "supercategory": NAME}, {"id": 2, "name": f"{NAME}'s mark"}],
        "annotations": marks,
    }  # fmt: skip
    (home / "coco" / f"{NAME}.json").write_text(json.dumps(coco), encoding="utf-8")


def _voc() -> Iterator[str]:
    box = "<bndbox><xmin>3</xmin><ymin>4</ymin><xmax>20</xmax><ymax>18</ymax></bndbox>"
    yield f"<annotation><folder>{NAME}</folder><filename>{MRN}.jpg</filename><path>/home/{NAME}/{MRN}.jpg</path>"
    yield f"<owner><name>{NAME}</name></owner><object><name>polyp</name><pose>{NAME}</pose>{box}</object>"
    yield f"<object><name>{NAME} polyp</name>{box}</object></annotation>"


def chunks_of_png(png: bytes) -> Iterator[bytes]:
    """Names of the chunks of a PNG."""
    at = 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        yield png[at + 4 : at + 8]
        at += 12 + length
