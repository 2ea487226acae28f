"""Writes tiny generated volumes in the layouts of published sources, and converts them."""

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
import SimpleITK
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

import medglip
from medglip.curate import convert, load_source
from medglip.curate.engine import found_tasks, run
from medglip.records import ImageRecord, Picture, Reject, VolumeRecord
from medglip.store.checks.validate import validate
from medglip.store.matrix import Matrix

SHAPE_IJK = (24, 16, 12)
SPACING_MM = (1.5, 1.5, 4.0)
AFFINE_RAS = np.diag([-1.5, -1.5, 4.0, 1.0])  # i to the left, j to the back, k to the head
# As in M&Ms and in a few cases of TotalSegmentator: the axes are not at right angles.
SHEARED_RAS = AFFINE_RAS + np.array([[0, 0, 0.2, 0], [0, 0, 0, 0], [0, 0.1, 0, 0], [0, 0, 0, 0]])
Block = tuple[int, tuple[int, int, int, int, int, int]]  # value, voxels (i0, j0, k0, i1, j1, k1)
# Blocks that lie well to the patient's right and left, and in between.
RIGHT, LEFT, MIDDLE = (1, 2, 2, 5, 12, 10), (18, 3, 3, 22, 13, 9), (9, 4, 4, 14, 9, 8)


class Converted(NamedTuple):
    """What came out of a folder of a source."""

    records: list[ImageRecord]
    volumes: list[VolumeRecord]
    rejects: list[Reject]
    pictures: list[Picture]

    def of(self, file: str) -> list[ImageRecord]:
        """The records of one image file."""
        return [record for record in self.records if record.origin.file == file]

    @property
    def reasons(self) -> list[str]:
        return sorted(reject.reason for reject in self.rejects)


def box(block: tuple[int, ...]) -> tuple[int, ...]:
    """Pixels (x0, y0, x1, y1) of a block in its axial planes."""
    return block[0], block[1], block[3], block[4]


def labelled(*blocks: Block, shape: Sequence[int] = SHAPE_IJK) -> np.ndarray:
    """Label values (i, j, k); later blocks are drawn over earlier ones."""
    labels = np.zeros(shape, np.int16)
    for value, (i0, j0, k0, i1, j1, k1) in blocks:
        labels[i0:i1, j0:j1, k0:k1] = value
    return labels


def noise(shape: Sequence[int] = SHAPE_IJK, *of: object) -> np.ndarray:
    """An image (i, j, k[, t]) with something to see, another one for every word; as HU, soft tissue everywhere."""
    seed = zlib.crc32(repr(of).encode())
    return np.random.default_rng(seed).integers(-100, 300, shape).astype(np.int16)


def save(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE_RAS) -> Path:
    """Write an array (i, j, k[, t]) as the volume file that its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix != ".mhd":
        nibabel.save(nibabel.Nifti1Image(array, affine), path)
        return path
    image = SimpleITK.GetImageFromArray(array.T)
    image.SetSpacing(SPACING_MM)
    SimpleITK.WriteImage(image, str(path))
    return path


def decoys(folder: Path, *names: str) -> None:
    """Files beside the data that are none of it."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"not of a case")


def save_series(
    folder: Path, names: Sequence[str], array: np.ndarray, *, modality: str = "CT", uid_a_file: bool = False
) -> None:
    """Write an array (i, j, k) as DICOM files, the k-th slice under the k-th name, from the feet to the head."""
    folder.mkdir(parents=True, exist_ok=True)
    who = zlib.crc32(str(folder).encode()) if uid_a_file else 1
    for number, (name, plane) in enumerate(zip(names, array.T, strict=True)):
        data = Dataset()
        data.SOPClassUID = CTImageStorage if modality == "CT" else MRImageStorage
        data.SOPInstanceUID = f"1.2.3.{number + 1}"
        data.StudyInstanceUID, data.FrameOfReferenceUID = "1.2.3", "1.2.3.5"
        data.SeriesInstanceUID = f"1.2.{who}.{number}" if uid_a_file else "1.2.3.4"
        data.Modality, data.PatientID = modality, "someone"
        data.ImagePositionPatient = [0.0, 0.0, SPACING_MM[2] * number]
        data.ImageOrientationPatient, data.PixelSpacing = [1, 0, 0, 0, 1, 0], [1.5, 1.5]
        data.SliceThickness = SPACING_MM[2]
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.Rows, data.Columns = plane.shape
        data.BitsAllocated = data.BitsStored = 16
        data.HighBit, data.PixelRepresentation = 15, 1
        data.RescaleSlope, data.RescaleIntercept = 1, 0
        data.add_new("PixelData", "OW", plane.astype("<i2").tobytes())
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        data.save_as(folder / name, enforce_file_format=True)


def converted(source: str, folder: Path) -> Converted:
    """Everything that a source gives for a folder."""
    tasks, rejects = found_tasks(load_source(source), folder)
    items = [*rejects, *(item for task in tasks for item in run(task))]
    pictures = [item for item in items if isinstance(item, Picture)]
    return Converted(
        [picture.record for picture in pictures], [item for item in items if isinstance(item, VolumeRecord)],
        [item for item in items if isinstance(item, Reject)], pictures,
    )  # fmt: skip


def shown(record: ImageRecord) -> dict[str, list[tuple[float, ...]]]:
    """Concept -> its boxes in a picture, sorted."""
    found: dict[str, list[tuple[float, ...]]] = {}
    for region in record.regions:
        found.setdefault(region.concept, []).append(region.box_xyxy)
    return {concept: sorted(boxes) for concept, boxes in found.items()}


def fullest(records: Sequence[ImageRecord]) -> ImageRecord:
    """The first of the records that show most."""
    return max(records, key=lambda record: len(record.regions))


def checked(source: str, folder: Path) -> Converted:
    """Everything that a source gives for a folder, which must fit what the source says that it shows."""
    result = converted(source, folder)
    matrix = Matrix({source: load_source(source).matrix})
    for record in result.records:
        for region in record.regions:
            assert matrix.state(source, record.modality, region.concept) != "impossible", region.concept
            assert not matrix.is_negative(record, region.concept)
            assert len(region.phrases) >= 3
        for concept in record.absent:
            assert matrix.is_negative(record, concept)
            assert matrix.state(source, record.modality, concept) != "impossible", concept
    return result


def check_dataset(worlds: dict[str, Callable[[Path], Path]], folder: Path) -> None:
    """Convert the worlds of all sources into one dataset, which must be clean."""
    images = 0
    for source, write in worlds.items():
        images += convert(source, write(folder / source), folder / "dataset").images
    dataset = medglip.open(folder / "dataset")
    assert len(dataset.images) == images
    assert set(dataset.images["dataset"]) == set(worlds)
    assert [problem for problem in validate(folder / "dataset") if problem.level == "error"] == []
