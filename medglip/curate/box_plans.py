"""Plans of boxes: JSON files that list, slice by slice, the boxes of what volumes show. Knows no pixels and no label tree.

A plan has ``tasks``, each with an ``image_modality``, a ``labels_map`` (number -> raw label), ``train_cases`` and
``test_cases``. A case names an ``image_file``, relative to the plan's folder, and lists in ``slice_profiles_x``, ``_y`` and
``_z`` the slices across the first, second and third axis of the NIfTI array: ``slice_idx`` and, for each label, ``bboxes``
with ``min_coords`` and ``max_coords``. These are array indices along the two other axes in their order, both ends inside the
box. ``profile_3D`` lists the boxes of whole objects. The format is that of MedVision.
"""

import gzip
import io
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from medglip.curate.layout import Found
from medglip.errors import InputError

WHOLE = -1
"""In place of an array axis: a whole object, not a slice of it."""

VoxelBox = tuple[int, int, int, int, int, int]

_LIST = re.compile(r'(?P<before>.*?)"(?P<split>train|test)_cases"\s*:\s*\[', re.DOTALL)
_LABELS = re.compile(r'"labels_map"\s*:')
_BETWEEN = re.compile(r"[\s,]*")
_PIECE = 1 << 20
_PROFILES = ("slice_profiles_x", "slice_profiles_y", "slice_profiles_z")


@dataclass(frozen=True, eq=False)
class Planned:
    """What one task of a plan says of one image.

    Attributes:
        where: Plan, task and case, for messages.
        modality: As the plan writes it.
        names: Fields for templates.
        labels: Number -> raw label.
        grids: What the plan says of the grids of the image and of its mask: size, orientation, affine.
        rows: (N, 9) int32: label's number, box_kji, axis, voxels of each mark; plans have millions of them.
        broken: Boxes that make no sense: label's number, and a sentence.
    """

    where: str
    modality: str
    names: dict[str, str]
    labels: dict[int, str]
    grids: tuple[Any, Any]
    rows: np.ndarray
    broken: list[tuple[int, str]]


def newest(found: Iterable[Found]) -> list[str]:
    """Of the plans of each folder, the one with the highest version."""
    best: dict[str, tuple[list[int], str]] = {}
    for entry in found:
        version = [int(number) for number in re.findall(r"\d+", entry.fields.get("version", ""))]
        parent = str(PurePosixPath(entry.path).parent)
        best[parent] = max(best.get(parent, ([], "")), (version, entry.path))
    return sorted(path for _, path in best.values())


def read_plan(folder: Path, plan: str, patients: tuple[str, ...]) -> dict[str, list[Planned]]:
    """What a plan says, by the path of the image relative to the input folder.

    Args:
        folder: The input folder.
        plan: Path of the plan, relative to it.
        patients: Regular expressions whose first group is, in the id of a case, the patient; the first that fits counts.

    Raises:
        InputError: it is missing, broken, or no plan of boxes.
    """
    try:
        stamp = (folder / plan).stat()
    except OSError as error:
        raise InputError(f"Plan {plan!r} cannot be read: {error.strerror}.") from error
    return _parsed(folder, plan, patients, stamp.st_mtime_ns, stamp.st_size)


@lru_cache(maxsize=2)
def _parsed(folder: Path, plan: str, patients: tuple[str, ...], _mtime: int, _size: int) -> dict[str, list[Planned]]:
    try:
        parent = PurePosixPath(plan).parent
        dataset = parent.name or folder.resolve().name
        found: dict[str, list[Planned]] = defaultdict(list)
        for task, split, case in _cases(folder / plan):
            entry = _planned(plan, task, case, {"dataset": dataset, "set": split}, patients)
            found[str(parent / case["image_file"])].append(entry)
    except (OSError, EOFError, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise InputError(f"Plan {plan!r} is broken or no plan of boxes: {type(error).__name__} {error}.") from error
    tested = {entry.names["person"] for entries in found.values() for entry in entries if entry.names["set"] == "test"}
    for entries in found.values():
        for entry in entries:
            entry.names["set"] = "test" if entry.names["person"] in tested else "train"
    return dict(found)


def _cases(path: Path) -> Iterator[tuple[dict, str, dict]]:
    """Task, split and case of each case of a plan, read one by one: as text, a plan can be tens of gigabytes.

    Of a task, what stands before its cases is kept: that is how the planner writes it, and in alphabetical order too.
    """
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        text = _Text(io.TextIOWrapper(gzip.GzipFile(fileobj=file) if packed else file, encoding="utf-8"))
        task: dict[str, Any] = {}
        before = ""
        while match := text.find(_LIST):
            before += match["before"]
            if _LABELS.search(before):
                task, before = _head(before), ""
            for case in text.items():
                yield task, match["split"], case
        if not task:
            raise ValueError("it has no task with a labels_map")


def _head(before: str) -> dict[str, Any]:
    """What is said of a task before its first case."""
    decoder = json.JSONDecoder()
    found = {}
    for name in ("labels_map", "image_modality", "image_description", "task_ID"):
        places = list(re.finditer(rf'"{name}"\s*:\s*', before))
        if places:
            found[name] = decoder.raw_decode(before, places[-1].end())[0]
    return found


class _Text:
    """A text that is read as far as it is needed, and forgotten as far as it has been used."""

    def __init__(self, file: io.TextIOWrapper) -> None:
        self.file, self.held, self.at = file, "", 0

    def more(self) -> bool:
        """Read on, as much again as is held; whether there was anything."""
        piece = self.file.read(max(_PIECE, len(self.held) - self.at))
        self.held, self.at = self.held[self.at :] + piece, 0
        return bool(piece)

    def find(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """The next match, which is used up with all before it."""
        while (match := pattern.search(self.held, self.at)) is None:
            if not self.more():
                return None
        self.at = match.end()
        return match

    def items(self) -> Iterator[Any]:
        """The items of a list whose bracket has just been used."""
        decoder = json.JSONDecoder(object_hook=_packed)
        while True:
            rest = _BETWEEN.match(self.held, self.at)
            self.at = rest.end() if rest else self.at
            if self.held[self.at : self.at + 1] == "]":
                return
            try:
                item, self.at = decoder.raw_decode(self.held, self.at)
            except ValueError:
                if not self.more():
                    raise
            else:
                yield item


def _planned(plan: str, task: dict, case: dict, names: dict[str, str], patients: Sequence[str]) -> Planned:
    case_id = str(case["case_ID"])
    fits = (re.match(rule, case_id) for rule in patients)
    person = next((match[1] for match in fits if match), case_id)
    names = {**names, "case_id": case_id, "person": person, "described": str(task.get("image_description", ""))}
    where = f"{plan} task {task.get('task_ID', '?')} case {case_id}"
    labels = {int(number): str(raw) for number, raw in task["labels_map"].items()}
    grids = case["image_file_info"], case["mask_file_info"]
    return Planned(where, str(task["image_modality"]), names, labels, grids, *case["marks"])


def _packed(found: dict) -> Any:
    """What is kept of an object of a plan: a case with its boxes as one array, so that a plan of gigabytes fits."""
    if "min_coords" not in found and "case_ID" not in found:
        return found
    if "min_coords" in found:
        lengths = found.get("dimensions")
        return found["min_coords"], found["max_coords"], lengths, found.get("mask_image_ratio", 0.0)
    size = [int(length) for length in found["image_file_info"]["array_size"]]
    rows: list[tuple[int, ...]] = []
    broken: list[tuple[int, str]] = []
    shown = [(dim, entry["slice_idx"], one) for dim, profile in enumerate(_PROFILES) for entry in found.get(profile, ())
             for one in entry["slice_profile"]]  # fmt: skip
    for dim, index, one in shown + [(None, 0, one) for one in found.get("profile_3D", ())]:
        for low, high, lengths, share in one["bboxes"]:
            box, sentence = _voxel_box(low, high, lengths, (dim, int(index)), size)
            if sentence:
                broken.append((int(one["label"]), sentence))
            else:
                voxels = round(float(share) * float(np.prod(size))) if dim is None else 0
                rows.append((int(one["label"]), *box, WHOLE if dim is None else 2 - dim, voxels))
    kept = {name: found[name] for name in ("case_ID", "image_file", "image_file_info")}
    mask = found.get("mask_file_info", found["image_file_info"])
    return {**kept, "mask_file_info": mask, "marks": (np.array(rows, np.int32).reshape(-1, 9), broken)}


def _voxel_box(
    low: Sequence[int], high: Sequence[int], lengths: Sequence[int] | None, cut: tuple[int | None, int], size: Sequence[int]
) -> tuple[VoxelBox, str]:
    """The half-open box in the order k, j, i, and what is wrong with it, if anything.

    Args:
        low: First index inside, along each axis of the NIfTI array but the one that is cut across.
        high: Last index inside.
        lengths: What the plan calls their lengths, or None.
        cut: The axis that is cut across, and the slice; None for a whole object.
        size: Voxels along each axis of the NIfTI array.
    """
    wrong = lengths is not None and [int(end) - int(start) + 1 for start, end in zip(low, high, strict=True)] != list(lengths)
    first, last = [int(number) for number in low], [int(number) for number in high]
    if cut[0] is not None:
        first.insert(cut[0], cut[1])
        last.insert(cut[0], cut[1])
    inside = all(0 <= start <= end < limit for start, end, limit in zip(first, last, size, strict=True))
    (i0, j0, k0), (i1, j1, k1) = first, (end + 1 for end in last)
    sentence = f"the box from {first} to {last} leaves its array of {list(size)} voxels, or is empty" if not inside else ""
    if wrong:
        sentence = f"the box from {first} to {last}, both inside it, is said to measure {lengths} voxels"
    return (k0, j0, i0, k1, j1, i1), sentence
