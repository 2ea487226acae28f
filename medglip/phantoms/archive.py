"""The phantom archive: seven folders, one a modality, each in the files that the modality comes in."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from medglip.errors import InputError
from medglip.phantoms.cohort import PICTURES, cases, exams
from medglip.phantoms.dicom_files import write_ct, write_segmentation, write_ultrasound, write_xray
from medglip.phantoms.files import (
    CocoFile,
    box_rows,
    write_binary_masks,
    write_binary_volumes,
    write_colour_masks,
    write_label_volume,
    write_mr,
    write_picture,
    write_table,
)  # fmt: skip
from medglip.phantoms.scene import MODALITIES, Scene
from medglip.phantoms.text import findings

ANNOTATED_FRAMES = (0, 2, 4)  # of an ultrasound clip
_README = """Synthetic phantoms written by medglip, seed {seed}. No person was examined; of no use for diagnosis.

ct/           DICOM series (one folder an exam) with a DICOM segmentation
mr/abdomen/   NIfTI volumes with a label volume; mr/brain/ NIfTI volumes with one binary volume a label
xray/         DICOM radiographs, half of them MONOCHROME1, with a table of boxes (x, y, width, height in pixels)
ultrasound/   multi-frame DICOM clips with PNG masks of some frames (f0 is the first)
endoscopy/    JPEG frames with a COCO file
dermoscopy/   JPEG pictures with a binary PNG mask a label
fundus/       PNG pictures with two colour-coded PNG masks
*/reports.csv one row an exam's picture, clip or volume: its findings in words, from a template
patients.csv  who is who; a patient has the same id in every modality
"""

Progress = Callable[..., None]
Writer = Callable[[Iterator[Scene], Path], Iterator[tuple[Scene, str]]]


def write_archive(out: Path, *, cases: int = 40, seed: int = 0, progress: Progress | None = None) -> Path:
    """Writes phantoms of all seven modalities as the files that a hospital or a public data set would keep.

    Args:
        out: Folder to write; made where it is missing, and must be empty.
        cases: Exams of each modality: volumes, clips, or visits of three pictures each.
        seed: Equal seeds give equal bytes.
        progress: Called as ``progress(done, total, note)`` after each picture, clip or volume.

    Returns:
        ``out``.

    Raises:
        InputError: the folder holds something, or there is not at least one case.
    """
    out = Path(out)
    if cases < 1:
        raise InputError(f"Phantoms: found {cases!r} cases; allowed: 1 or more.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"Phantoms: {str(out)!r} is not an empty folder; name another one, or empty it.")
    out.mkdir(parents=True, exist_ok=True)
    total = sum(cases * PICTURES.get(modality, 1) for modality in MODALITIES)
    done = 0
    for modality in MODALITIES:
        rows = []
        for scene, file in _WRITERS[modality](_scenes(modality, cases, seed), out / modality):
            rows.append((file, scene.exam.patient, scene.exam.case, findings(scene)))
            done += 1
            if progress:
                progress(done, total, modality)
        write_table(("image", "patient", "exam", "findings"), rows, out / modality / "reports.csv")
    _write_patients(out / "patients.csv", cases, seed)
    (out / "README.txt").write_text(_README.format(seed=seed), encoding="utf-8")
    return out


def _scenes(modality: str, count: int, seed: int) -> Iterator[Scene]:
    return cases(modality, count, seed)


def _write_patients(path: Path, count: int, seed: int) -> None:
    people: dict[str, tuple[str, int]] = {}
    visits: dict[str, dict[str, set[str]]] = {}
    for modality in MODALITIES:
        for exam in exams(modality, count, seed):
            people[exam.patient] = exam.sex, exam.age
            visits.setdefault(exam.patient, {}).setdefault(modality, set()).add("_".join(exam.case.split("_")[:2]))
    rows = [(patient, *people[patient], *(len(visits[patient].get(modality, ())) for modality in MODALITIES))
            for patient in sorted(people)]  # fmt: skip
    write_table(("patient", "sex", "age", *(f"{modality}_exams" for modality in MODALITIES)), rows, path)


def _write_ct(scenes: Iterator[Scene], folder: Path) -> Iterator[tuple[Scene, str]]:
    for scene in scenes:
        home = folder / scene.exam.case
        slices = write_ct(scene, home / "series", np.random.default_rng((*scene.exam.seed, 2)))
        write_segmentation(scene, slices, home / "segmentation.dcm")
        yield scene, scene.exam.case


def _write_mr(scenes: Iterator[Scene], folder: Path) -> Iterator[tuple[Scene, str]]:
    for scene in scenes:
        home, case = folder / scene.kind, scene.exam.case
        write_mr(scene, home / f"{case}.nii.gz")
        if scene.kind == "abdomen":
            write_label_volume(scene, home / f"{case}_labels.nii.gz")
        else:
            write_binary_volumes(scene, home / f"{case}_masks")
        yield scene, f"{case}.nii.gz"


def _write_xray(scenes: Iterator[Scene], folder: Path) -> Iterator[tuple[Scene, str]]:
    rows: list[tuple[str | int, ...]] = []
    for scene in scenes:
        file = f"{scene.exam.case}.dcm"
        write_xray(scene, folder / "images" / file)
        rows += box_rows(scene, file)
        yield scene, file
    write_table(("image", "label", "x", "y", "w", "h"), rows, folder / "boxes.csv")


def _write_ultrasound(scenes: Iterator[Scene], folder: Path) -> Iterator[tuple[Scene, str]]:
    for scene in scenes:
        file = f"{scene.exam.case}.dcm"
        write_ultrasound(scene, folder / scene.kind / "clips" / file)
        write_binary_masks(scene, folder / scene.kind / "masks", ANNOTATED_FRAMES)
        yield scene, file


def _write_endoscopy(scenes: Iterator[Scene], folder: Path) -> Iterator[tuple[Scene, str]]:
    coco: CocoFile | None = None
    for scene in scenes:
        coco = coco or CocoFile(scene.searched)
        file = f"{scene.exam.case}.jpg"
        write_picture(scene.values, folder / "images" / file)
        coco.add(scene, file)
        yield scene, file
    if coco:
        coco.write(folder / "annotations.json")


def _write_dermoscopy(scenes: Iterator[Scene], folder: Path) -> Iterator[tuple[Scene, str]]:
    for scene in scenes:
        file = f"{scene.exam.case}.jpg"
        write_picture(scene.values, folder / "images" / file)
        write_binary_masks(scene, folder / "masks")
        yield scene, file


def _write_fundus(scenes: Iterator[Scene], folder: Path) -> Iterator[tuple[Scene, str]]:
    for scene in scenes:
        file = f"{scene.exam.case}.png"
        write_picture(scene.values, folder / "images" / file)
        write_colour_masks(scene, folder / "masks")
        yield scene, file


_WRITERS: dict[str, Writer] = {
    "ct": _write_ct, "mr": _write_mr, "xray": _write_xray, "ultrasound": _write_ultrasound,
    "endoscopy": _write_endoscopy, "dermoscopy": _write_dermoscopy, "fundus": _write_fundus,
}  # fmt: skip
