"""Tiny folders of every kind of source that `medglip new-source` knows, generated."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

SIZE = (32, 48)
SQUARE = (slice(8, 16), slice(10, 30))  # 8 rows, 20 columns


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 250, shape or SIZE).astype(np.uint8)


def square(value: object = 255, shape: tuple[int, ...] = SIZE) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[SQUARE] = value
    return mask


def save(folder: Path, name: str, array: np.ndarray, **options: object) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def write(folder: Path, name: str, text: object) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text if isinstance(text, str) else json.dumps(text))


def table(folder: Path, name: str, *rows: tuple[object, ...]) -> None:
    with (folder / name).open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def volume(folder: Path, name: str, array: np.ndarray) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.Nifti1Image(array.astype(np.int16), np.diag([1, 1, 2, 1])).to_filename(path)


def cube(value: int = 1, shape: tuple[int, ...] = (16, 16, 4)) -> np.ndarray:
    voxels = np.zeros(shape, np.int16)
    voxels[4:12, 4:12, 1:3] = value
    return voxels


def dicom(folder: Path, name: str, number: int, *, patient: str = "p1", modality: str = "CT", k: int = 0) -> str:
    data, root = Dataset(), f"1.2.{sum(patient.encode())}"
    data.SOPClassUID = CTImageStorage if modality == "CT" else DigitalXRayImageStorageForPresentation
    data.SOPInstanceUID, data.Modality, data.PatientID = f"{root}.{number + 1}", modality, patient
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = f"{root}.100", f"{root}.200", f"{root}.300"
    data.Rows, data.Columns = SIZE
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    data.PixelSpacing, data.ImageOrientationPatient = [0.8, 0.8], [1, 0, 0, 0, 1, 0]
    data.ImagePositionPatient, data.SliceThickness = [-10.0, 5.0, 50.0 + 3.0 * k], 3.0
    data.RescaleSlope, data.RescaleIntercept, data.InstanceNumber = 1, -1024 if modality == "CT" else 0, number + 1
    data.add_new("PixelData", "OW", (noise(number).astype(np.uint16) * 8).tobytes())
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID, data.file_meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    data.save_as(folder / name, enforce_file_format=True)
    return data.SOPInstanceUID


# ---------------------------------------------------------------------------------------------------- folders


def busi(folder: Path) -> None:
    for n, kind in enumerate(("benign", "malignant", "normal")):
        for at in (1, 2):
            save(folder, f"Set_with_GT/{kind}/{kind} ({at}).png", noise(10 * n + at))
            save(folder, f"Set_with_GT/{kind}/{kind} ({at})_mask.png", square())
    save(folder, "Set_with_GT/benign/benign (1)_mask_1.png", np.roll(square(), 12, 0))


def in_folders(folder: Path, ending: str = "png", mask: np.ndarray | None = None, marks: str = "masks/{}") -> None:
    for n in range(3):
        save(folder, f"images/im_{n}.png", noise(n))
        save(folder, marks.format(f"im_{n}.{ending}"), square() if mask is None else mask)


def colours(folder: Path) -> None:
    mask = square((255, 0, 0), (*SIZE, 3))
    mask[20:28, 10:30] = (0, 255, 0)
    in_folders(folder, mask=mask)


def jpeg_masks(folder: Path) -> None:
    in_folders(folder, ending="jpg")


def indexed(folder: Path) -> None:
    in_folders(folder, mask=square(3))


def class_folders(folder: Path) -> None:
    for n in range(3):
        save(folder, f"images/im_{n}.png", noise(n))
        for name in ("liver", "spleen"):
            save(folder, f"masks/{name}/im_{n}.png", square())


def class_suffixes(folder: Path) -> None:
    for n in range(3):
        save(folder, f"img/eye_{n}.jpg", noise(n, *SIZE, 3), quality=95)
        for name in ("disc", "cup"):
            save(folder, f"gt/eye_{n}_{name}.tif", square())


def drive(folder: Path) -> None:
    for n in (21, 22, 23):
        save(folder, f"training/images/{n}_training.tif", noise(n, *SIZE, 3))
        save(folder, f"training/1st_manual/{n}_manual1.gif", square())


def outlines(folder: Path) -> None:
    mask = np.zeros(SIZE, np.uint8)
    mask[4:28, 6:40] = 255
    mask[5:27, 7:39] = 0
    for n in range(3):
        save(folder, f"{n:03d}_HC.png", noise(n))
        save(folder, f"{n:03d}_HC_Annotation.png", mask)


def mixed_endings(folder: Path) -> None:
    in_folders(folder)
    save(folder, "images/im_9.jpg", noise(9))
    save(folder, "masks/im_9.png", square())


def label_volumes(folder: Path) -> None:
    for n in range(3):
        volume(folder, f"imagesTr/case_{n}.nii.gz", noise(n, 16, 16, 4))
        volume(folder, f"labelsTr/case_{n}.nii.gz", cube() + 2 * np.roll(cube(), 4, 0) * (cube() == 0))


def four_contrasts(folder: Path) -> None:
    for n in range(3):
        for at, kind in enumerate(("flair", "t1", "t2")):
            volume(folder, f"BraTS_{n}/BraTS_{n}_{kind}.nii.gz", noise(10 * n + at, 16, 16, 4))
        volume(folder, f"BraTS_{n}/BraTS_{n}_seg.nii.gz", cube())


def total_segmentator(folder: Path) -> None:
    for n in range(2):
        volume(folder, f"s{n:04d}/ct.nii.gz", noise(n, 16, 16, 4))
        for name in ("liver", "kidney_left", "spleen"):
            volume(folder, f"s{n:04d}/segmentations/{name}.nii.gz", cube())


def voc(folder: Path) -> None:
    for n in range(2):
        save(folder, f"JPEGImages/{n}.jpg", noise(n, *SIZE, 3))
        box = "<bndbox><xmin>11</xmin><ymin>9</ymin><xmax>30</xmax><ymax>16</ymax></bndbox>"
        size = f"<size><width>{SIZE[1]}</width><height>{SIZE[0]}</height><depth>3</depth></size>"
        write(folder, f"Annotations/{n}.xml", f"<annotation>{size}<object><name>WBC</name>{box}</object></annotation>")


def coco(folder: Path) -> None:
    save(folder, "imgs/a.png", noise(1))
    image = {"id": 1, "file_name": "a.png", "width": SIZE[1], "height": SIZE[0]}
    mark = {"id": 1, "image_id": 1, "category_id": 7, "bbox": [10, 8, 20, 8], "area": 160, "iscrowd": 0}
    write(folder, "train.json", {"images": [image], "annotations": [mark], "categories": [{"id": 7, "name": "polyp"}]})


def boxes(header: tuple[str, ...], row: tuple[object, ...], *more: tuple[object, ...]) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        for n in range(3):
            save(folder, f"images/im_{n}.png", noise(n))
        table(folder, "boxes.csv", header, ("im_0", *row), ("im_1", *row), *more)

    return build


def codes(folder: Path) -> None:
    for n in range(3):
        save(folder, f"images/1.2.{n}.png", noise(n))
    table(folder, "train-rle.csv", ("ImageId", " EncodedPixels"), ("1.2.0", "11 4 43 4"), ("1.2.1", " -1"))


def aperio(folder: Path) -> None:
    for n in range(2):
        save(folder, f"tiles/t{n}.tif", noise(n, *SIZE, 3))
        points = "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in ((10, 8), (30, 8), (30, 16), (10, 16)))
        region = f'<Region Type="0" NegativeROA="0" Text=""><Vertices>{points}</Vertices></Region>'
        layer = f'<Annotation Id="1" Name="Lymphocyte"><Regions>{region}</Regions></Annotation>'
        write(folder, f"tiles/t{n}.xml", f"<Annotations MicronsPerPixel='0.25'>{layer}</Annotations>")


def lidc(folder: Path) -> None:
    uids = [dicom(folder, f"LIDC-1/study/series/{k}.dcm", k, k=k) for k in range(4)]
    series = uids[0].rpartition(".")[0] + ".200"
    chain = [*((x, 8) for x in range(10, 30)), *((30, y) for y in range(8, 16)), *((x, 16) for x in range(30, 10, -1)),
             *((10, y) for y in range(16, 7, -1))]  # fmt: skip
    edges = "".join(f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for x, y in chain)
    rois = "".join(f"<roi><imageZposition>{50 + 3 * k}</imageZposition><imageSOP_UID>{uids[k]}</imageSOP_UID>"
                   f"<inclusion>TRUE</inclusion>{edges}</roi>" for k in (1, 2))  # fmt: skip
    nodule = f"<unblindedReadNodule><noduleID>N1</noduleID>{rois}</unblindedReadNodule>"
    session = f"<readingSession>{nodule}</readingSession>"
    head = f"<ResponseHeader><SeriesInstanceUid>{series}</SeriesInstanceUid></ResponseHeader>"
    message = f"<LidcReadMessage xmlns='http://www.nih.gov'>{head}{session * 4}</LidcReadMessage>"
    write(folder, "LIDC-1/study/series/069.xml", message)


def dicom_alone(folder: Path) -> None:
    for n in range(3):
        dicom(folder, f"p{n}/IM{n}", n, patient=f"p{n}", modality="DX")


def series_alone(folder: Path) -> None:
    for patient in ("1", "2"):
        for k in range(3):
            dicom(folder, f"{patient}/ct/i{k}.dcm", 10 * int(patient) + k, patient=patient, k=k)


def series_beside_volumes(folder: Path) -> None:
    series_alone(folder)
    volume(folder, "reference/p1.nii.gz", noise(1, *SIZE, 3))


def volumes_alone(folder: Path) -> None:
    for n in range(2):
        volume(folder, f"scans/p{n}.nii.gz", noise(n, *SIZE, 3))


def dicom_boxes(folder: Path) -> None:
    uids = [dicom(folder, f"p{n}/IM{n}", n, patient=f"p{n}", modality="DX") for n in range(3)]
    header = ("SOPInstanceUID", "x", "y", "width", "height", "label")
    table(folder, "boxes.csv", header, *((uid, 10, 8, 20, 8, "Nodule") for uid in uids))


def dicom_masks(folder: Path) -> None:
    for patient in ("1", "2"):
        for k in range(3):
            dicom(folder, f"{patient}/DICOM_anon/i{k}.dcm", k, patient=patient, k=k)
            save(folder, f"{patient}/Ground/liver_GT_{k:03d}.png", square())


def arrays(folder: Path) -> None:
    (folder / "fold1").mkdir(parents=True)
    np.save(folder / "fold1/images.npy", noise(1, 2, *SIZE, 3))
    masks = np.zeros((2, *SIZE, 2), np.uint8)
    masks[:, 8:16, 10:30, 0] = 1
    masks[..., 1] = 1 - masks[..., 0]
    np.save(folder / "fold1/masks.npy", masks)


def reports(folder: Path) -> None:
    for n in range(3):
        save(folder, f"files/{n}.png", noise(n))
        write(folder, f"reports/{n}.txt", "The lungs are clear. No effusion.")


def report_table(folder: Path) -> None:
    for n in range(3):
        save(folder, f"files/{n}.png", noise(n))
    rows = ((f"{n}.png", "The lungs are clear.", "No acute disease.") for n in range(3))
    table(folder, "reports.csv", ("filename", "findings", "impression"), *rows)


def questions(folder: Path) -> None:
    for n in range(3):
        save(folder, f"imgs/{n}.jpg", noise(n))
    write(folder, "qa.json", [{"image_name": f"{n}.jpg", "question": "Which organ?", "answer": "Lung"} for n in range(3)])


def json_boxes(folder: Path) -> None:
    for n in range(2):
        save(folder, f"train/{n}.png", noise(n))
    rows = [
        {"file_name": f"{n}.png", "syms": ["Nodule", "Mass"], "boxes": [[10, 8, 30, 16], [30, 4, 40, 30]]} for n in range(2)
    ]
    write(folder, "ann.json", rows)


def key_slices(folder: Path) -> None:
    for n in range(2):
        save(folder, f"Images_png/00000{n}_01_01/109.png", noise(n).astype(np.uint16) * 4 + 32000)
    head = ("File_name", "Key_slice_index", "Bounding_boxes", "Coarse_lesion_type", "Spacing_mm_px_", "DICOM_windows")
    rows = ((f"00000{n}_01_01_109.png", 109, "10.2, 8.1, 30.0, 16.4", 1, "0.8, 0.8, 5", "-175, 275") for n in range(2))
    table(folder, "DL_info.csv", head, *rows)


def yolo(folder: Path) -> None:
    for n in range(2):
        save(folder, f"images/{n}.jpg", noise(n))
        write(folder, f"labels/{n}.txt", "0 0.5 0.5 0.25 0.25\n")
    write(folder, "classes.txt", "polyp\n")


def masks_and_reports(folder: Path) -> None:
    in_folders(folder)
    rows = ((f"im_{n}.png", f"P{n}", "One tumor.") for n in range(3))
    table(folder, "reports.csv", ("image", "patient", "findings"), *rows)
