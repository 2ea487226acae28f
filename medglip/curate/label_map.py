"""Label values of voxels as structures: named, united, split into objects and sides. Knows no files.

Options of the converters that use it:

- ``derived``: a table of label = raw labels. Their union is a structure of its own beside them: "brain tumor" =
  ["1", "2", "4"] is the whole tumor. An organ that the source draws without its tumors is derived from both, and
  the raw label of what is left over is "skip" in ``[part.labels]``.
- ``apart``: labels whose connected parts are objects of their own although the label is not countable: paired organs
  in a source that does not tell the sides.
- ``sides``: labels of paired organs in a source that does not tell the sides, which are told by the patient's midline;
  see medglip/curate/sides.py.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from scipy.ndimage import find_objects

from medglip.curate.cases import Refused
from medglip.curate.regions import SPECKLE
from medglip.curate.sides import sided
from medglip.curate.source import Named, Part
from medglip.curate.volumes import Structure, structure_of
from medglip.errors import SourceError
from medglip.imaging.components import components_of
from medglip.imaging.volume import Volume
from medglip.records import label_tree

OPTIONS = ("derived", "apart", "sides")


def structures_of_labels(
    part: Part, volume: Volume, voxels: np.ndarray, file: str, codes: Mapping[str, str] | None = None
) -> Iterator[Structure]:
    """What each integer marks that occurs and is not skipped, and then each union that the part derives of them.

    Args:
        part: Its labels and options say what the integers mean.
        volume: The image.
        voxels: (K, J, I) integers on the image's grid; 0 is background unless it is named.
        file: Where they are from, for messages.
        codes: Raw label of each integer, both as text; None where the integers are the raw labels.

    Raises:
        SourceError: an integer has no name.
        Refused: an integer has no code, or a side is wanted and cannot be told.
    """
    split = _Split(part, volume, file)
    lowest = int(voxels.min())
    if lowest < 0:  # find_objects passes over them
        part.named(str(lowest), f"{file}, {np.count_nonzero(voxels == lowest)} voxels")
    if "0" in part.labels and codes is None and (background := part.labels["0"]):
        yield structure_of(background, voxels == 0)
    boxes = _boxes_of(voxels)
    raws = {value: str(value) if codes is None else _coded(codes, value, file) for value in boxes}
    for value, box in boxes.items():
        mask = voxels[box] == value
        if named := part.named(raws[value], f"{file}, {np.count_nonzero(mask)} voxels"):
            for structure in split.structures(named, mask, box, voxels.shape):
                yield structure if codes is None else replace(structure, single=True)
    whole = tuple(slice(0, length) for length in voxels.shape)
    for derived in part.derived:
        found = [value for value in boxes if raws[value] in derived.raw]
        zero = codes is None and "0" in derived.raw and lowest == 0
        if found or zero:
            box = whole if zero else _around([boxes[value] for value in found])
            mask = np.isin(voxels[box], [*found, *([0] if zero else [])])
            yield from split.structures(derived.named, mask, box, voxels.shape)


def _boxes_of(voxels: np.ndarray) -> dict[int, tuple[slice, ...]]:
    """The box of each value above 0, ascending."""
    if voxels.max() <= max(voxels.size, 2**16):
        return {value: box for value, box in enumerate(find_objects(voxels), 1) if box is not None}
    # find_objects takes memory for every value up to the largest, which one broken voxel may make as large as it likes.
    values, places = np.unique(voxels, return_inverse=True)
    boxes = find_objects(places.reshape(voxels.shape).astype(np.int32) + 1)
    return {int(value): box for value, box in zip(values, boxes, strict=True) if value > 0 and box is not None}


class _Split:
    """How the masks of a part's labels become structures: whole, object by object, or side by side."""

    def __init__(self, part: Part, volume: Volume, file: str) -> None:
        self.apart, self.sides = _listed(part, "apart"), _listed(part, "sides")
        self.volume, self.file = volume, file
        if wrong := [one for one in self.sides if one.laterality or not label_tree()[one.label].laterality]:
            raise SourceError(
                f"datasets/{part.source}.toml: the option sides names {wrong[0].concept!r}; allowed: labels without a side"
                " of what can be left or right."
            )

    def structures(
        self, named: Named, mask: np.ndarray, box: tuple[slice, ...], shape_kji: tuple[int, ...]
    ) -> Iterator[Structure]:
        """The structures of a mask in a box."""
        start = [edge.start for edge in box]
        if named in self.sides:
            for one, piece in sided(named, mask, box, self.volume, self.file):
                yield structure_of(one, piece, start, shape_kji)
        elif named in self.apart:
            numbers, found = components_of(mask)
            for component in found:
                if component.voxels > SPECKLE or component.number == 1:
                    yield structure_of(named, numbers == component.number, start, shape_kji)
        else:
            yield structure_of(named, mask, start, shape_kji)


def _coded(codes: Mapping[str, str], value: int, file: str) -> str:
    if str(value) not in codes:
        known = ", ".join(codes) or "none"
        raise Refused("unknown_label", f"{file!r} holds the value {value}, for which its table has no row (known: {known}).")
    return codes[str(value)]


def _listed(part: Part, option: str) -> set[Named]:
    """The labels that an option lists."""
    found = set()
    for text in part.option(option, ()):
        named = Named(*label_tree().resolve(text))
        if named not in part.all_named:
            raise SourceError(
                f"datasets/{part.source}.toml: the option {option} names {text!r}, which no label of {part.name!r} is;"
                f" allowed: {', '.join(one.concept for one in part.all_named)}."
            )
        found.add(named)
    return found


def _around(boxes: list[tuple[slice, ...]]) -> tuple[slice, ...]:
    """The box around boxes."""
    return tuple(slice(min(s.start for s in edges), max(s.stop for s in edges)) for edges in zip(*boxes, strict=True))
