"""What a converter takes and gives: cases in, pictures out, and the few steps that every converter shares.

A converter is one file with two functions::

    cases(part: Part, folder: Path) -> Iterator[Case | Reject]      cheap and deterministic: names of files, no pixels
    convert(part: Part, case: Case) -> Iterator[Picture | VolumeRecord | Reject]

``convert`` raises ``Refused`` (or any MedglipError) where the whole case cannot be used; the engine lists it in the
rejects and goes on. It yields a ``Reject`` where one item of the case cannot.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from medglip.curate.layout import find, listed, without_ending
from medglip.curate.privacy.allowed import allowed_detail, capped_age, says_head
from medglip.curate.privacy.hiding import check_templates, shows_a_face
from medglip.curate.privacy.keys import keyed
from medglip.curate.source import Part
from medglip.errors import MedglipError
from medglip.imaging.intensity import display
from medglip.records import (
    ImageRecord,
    Intensity,
    Keys,
    Origin,
    Picture,
    Region,
    Reject,
    Text,
    axes_of_rle,
    label_tree,
)  # fmt: skip
from medglip.records.phrases import phrased
from medglip.store import perceptual_hash, pixel_sha256


class Refused(MedglipError):
    """A case, or an item of it, that cannot be used. ``reason`` is the short code that the rejects list."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Case:
    """One unit of work: files that belong together.

    Attributes:
        key: Unique in its part and stable over machines.
        folder: The input folder.
        files: Paths relative to it, by role.
        fields: What the names of the files say.
    """

    key: str
    folder: Path
    files: dict[str, tuple[str, ...]]
    fields: dict[str, str] = field(default_factory=dict)

    def path(self, relative: str) -> Path:
        """Where a file of the case lies."""
        return self.folder / relative

    def one(self, role: str) -> str:
        """The only file of a role, relative.

        Raises:
            Refused: there is none, or more than one.
        """
        found = self.files.get(role, ())
        if len(found) != 1:
            raise Refused(
                "missing_file" if not found else "ambiguous_file",
                f"Case {self.key!r} has {len(found)} files of role {role!r} {list(found)[:3]}; it must have one.",
            )
        return found[0]


@dataclass(frozen=True, slots=True)
class Shot:
    """What a converter knows of one stored image beyond its pixels; see ImageRecord for every field.

    Attributes:
        searched: Concepts that were marked wherever they are in THIS image; None means the part's ``exhaustive``.
    """

    file: str = ""
    frame: int | None = None
    axis: str | None = None
    slice: int | None = None
    intensity: Intensity = Intensity()
    affine_px_to_mm: tuple[float, ...] | None = None
    spacing_mm: tuple[float, float] | None = None
    spacing_source: str | None = None
    patient: str | None = None
    study: str | None = None
    series: str | None = None
    detail: dict[str, str] = field(default_factory=dict)
    searched: tuple[str, ...] | None = None
    texts: tuple[Text, ...] = ()
    flags: tuple[str, ...] = ()


def joined(part: Part, folder: Path, main: str = "image") -> Iterator[Case | Reject]:
    """Cases made by file names: every file of role ``main``, with the files of the other roles whose names agree.

    A file belongs to a case when all names that its pattern and the main pattern both remember are equal. Files of
    another role that belong to no case are rejected as ``orphan``.
    """
    paths = listed(folder)
    mains = list(find(part.files[main], paths))
    others = {role: list(find(pattern, paths)) for role, pattern in part.files.items() if role != main}
    index = {role: _by_shared_fields(mains, found) for role, found in others.items()}
    used: set[str] = {entry.path for entry in mains}
    seen: dict[str, str] = {}
    for entry in mains:
        key = without_ending(entry.path)
        if key in seen:
            yield Reject(part.source, entry.path, "duplicate_case",
                         f"{entry.path!r} and {seen[key]!r} differ in their ending only; remove one.", key)  # fmt: skip
            continue
        seen[key] = entry.path
        files: dict[str, tuple[str, ...]] = {main: (entry.path,)}
        for role, (names, table) in index.items():
            files[role] = tuple(table.get(tuple(entry.fields[name].lower() for name in names), ()))
            used.update(files[role])
        yield Case(key, folder, files, entry.fields)
    for role, found in others.items():
        for entry in found:
            if entry.fields and entry.path not in used:  # a table of all cases names none of them
                yield Reject(part.source, entry.path, "orphan", f"This {role} belongs to no {main}; add it or remove this.")


def _by_shared_fields(mains: list, found: list) -> tuple[list[str], dict[tuple[str, ...], list[str]]]:
    names = sorted(set(mains[0].fields) & set(found[0].fields)) if mains and found else []
    table: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for entry in found:
        table[tuple(entry.fields[name].lower() for name in names)].append(entry.path)
    return names, table


def picture(part: Part, case: Case, pixels: np.ndarray, regions: Sequence[Region], shot: Shot = Shot()) -> Picture:
    """Pixels and regions with all that the source and the converter know of them.

    Args:
        part: Where it is from.
        case: The case.
        pixels: As they will be stored: uint8 or uint16, (H, W) or (H, W, 3).
        regions: In pixels of the stored image; phrases and ids are added here.
        shot: What else the converter knows.
    """
    check_templates(part)
    sha = pixel_sha256(pixels)
    file = shot.file or case.files.get("image", next(iter(case.files.values()), ("",)))[0]
    meaning = replace(shot.intensity, unit="rgb") if pixels.ndim == 3 else shot.intensity
    spacing = shot.spacing_mm or part.spacing_mm
    patient = shot.patient or _filled(part.patient, case)
    official = _filled(part.split, case)
    own, ids = _filled(part.group, case), part.patient_of or part.source
    key = keyed(part.group_of or part.source, own) or keyed(ids, patient) or keyed(part.source, case.key) or ""
    searched = part.exhaustive if shot.searched is None else shot.searched
    tree = label_tree()
    trusted = None if "spacing_uncalibrated" in shot.flags else spacing
    measured = [_with_axes(region, trusted) for region in regions]
    texts = tuple(Text(text, "finding") for text in [_filled(part.text, case)] if text)
    record = ImageRecord(
        id=_id(part, (case.key, file, shot.frame, shot.axis, shot.slice, sha)),
        sha256=sha,
        perceptual_hash=perceptual_hash(display(pixels, meaning)),  # so that a copy saved as it was shown is found
        width=pixels.shape[1],
        height=pixels.shape[0],
        channels=1 if pixels.ndim == 2 else pixels.shape[2],
        bits=8 * pixels.dtype.itemsize,
        modality=part.modality,
        modality_detail={name: capped_age(name, _filled(text, case) or "") for name, text in part.detail.items()}
        | _detail(part, shot),
        body_region=_body_region(regions, searched),
        origin=Origin(part.source, file, case.key, shot.frame, shot.axis, shot.slice),
        licence=part.licence,
        affine_px_to_mm=shot.affine_px_to_mm,
        spacing_mm=spacing,
        spacing_source=shot.spacing_source or ("source" if spacing else None),
        intensity=meaning,
        keys=Keys(*(keyed(ids, raw) for raw in (patient, shot.study, shot.series))),
        group=key,
        split=part.split_words.get(official, official) if official else hash_split(key),
        split_source="official" if official else "hash",
        regions=tuple(measured),
        absent=absent_concepts(regions, searched),
        exhaustive=tuple(searched),
        texts=texts + shot.texts,
        flags=_with_face_risk(part, shot, regions),
    )
    return Picture(phrased(record, tree), pixels)


def _id(part: Part, facts: Sequence[object]) -> str:
    """Id of an image, 16 hex digits; of a private source a keyed hash, so that nobody can try names of files."""
    identity = "|".join(map(str, (part.source, part.name, *facts)))
    if not part.public_names:
        return keyed(part.source, f"image|{identity}") or ""
    return hashlib.sha1(identity.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _detail(part: Part, shot: Shot) -> dict[str, str]:
    """What the header says of the acquisition; of a private source only words that the standard knows."""
    return dict(shot.detail) if part.public_names else allowed_detail(shot.detail)


def _with_face_risk(part: Part, shot: Shot, regions: Sequence[Region]) -> tuple[str, ...]:
    """The flags, with ``face_risk`` for planes of a head in 3-D: a face can be made from them."""
    if "face_risk" in shot.flags or (shot.axis is None and shot.affine_px_to_mm is None):
        return shot.flags
    said = part.modality in ("ct", "mr", "pet") and says_head(shot.detail.get("body_part", ""))
    return (*shot.flags, "face_risk") if said or shows_a_face(part, [region.label for region in regions]) else shot.flags


def _with_axes(region: Region, spacing_mm: tuple[float, float] | None) -> Region:
    """The region with its long and short axis, where it has a mask and the spacing can be trusted."""
    axes = axes_of_rle(region.mask, spacing_mm) if region.mask and region.long_axis_mm is None else None
    return replace(region, long_axis_mm=axes[0], short_axis_mm=axes[1]) if axes else region


def absent_concepts(regions: Sequence[Region], searched: Sequence[str]) -> tuple[str, ...]:
    """Of the concepts searched for, those that no region shows, not even under a wider or narrower name."""
    return _unseen(frozenset(region.concept for region in regions), tuple(searched))


@lru_cache(maxsize=4096)  # the slices of a volume show the same few sets
def _unseen(shown: frozenset[str], searched: tuple[str, ...]) -> tuple[str, ...]:
    tree = label_tree()
    return tuple(c for c in searched if not any(tree.covers(c, s) or tree.covers(s, c) for s in shown))


def hash_split(group: str) -> str:
    """Split of a group, the same wherever and whenever it is asked: 80 % train, 10 % val, 10 % test.

    Source: the first 32 bits of SHA-256 as a fraction of 1.
    """
    share = int.from_bytes(hashlib.sha256(group.encode()).digest()[:4], "big") / 2**32
    return "train" if share < 0.8 else "val" if share < 0.9 else "test"


def _filled(template: str | None, case: Case) -> str | None:
    if template is None:
        return None
    try:
        return template.format_map(case.fields).strip() or None
    except KeyError as error:
        raise Refused("missing_field", f"The template {template!r} names {error}, which case {case.key!r} lacks.") from error


def _body_region(regions: Sequence[Region], searched: Sequence[str]) -> str | None:
    """The body region of most regions; without regions, of the concepts searched for, where it is one."""
    tree = label_tree()
    found = [tree.body_region(region.label) for region in regions]
    if found:
        return max(sorted(set(found)), key=found.count)
    searched_in = {tree.body_region(tree.split(concept)[0]) for concept in searched}
    return searched_in.pop() if len(searched_in) == 1 else None
