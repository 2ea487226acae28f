"""A box as tables and JSON files write it. Knows no file format."""

from collections.abc import Sequence
from dataclasses import replace

from medglip.curate.cases import Refused
from medglip.curate.readers import SAME_BOX, overlap
from medglip.curate.regions import clipped_box
from medglip.curate.source import Part
from medglip.errors import SourceError
from medglip.records import Box, Region

FORMATS = ("xywh", "xyxy", "cxcywh")


def box_of_numbers(
    part: Part, where: str, numbers: Sequence[object], size_hw: Sequence[int], frame: Sequence[float] | None = None
) -> Box:
    """Four numbers as a half-open box in pixels of the image.

    Args:
        part: Where they are from; its options ``format`` (``xywh``, ``xyxy`` or ``cxcywh``; default ``xywh``), ``frame``
            and ``swapped_corners = "fix"`` say what they mean.
        where: File and row, for the error.
        numbers: Four numbers, or their text.
        size_hw: Height and width of the image.
        frame: (width, height) in which the box is given; default the option ``frame``, else the image's own. ``(1, 1)``:
            fractions.

    Raises:
        Refused: they are no box, or it leaves the image.
        SourceError: the option ``format`` is not known.
    """
    form = part.option("format", "xywh")
    if form not in FORMATS:
        raise SourceError(f"datasets/{part.source}.toml: option format is {form!r}; allowed: {', '.join(FORMATS)}.")
    try:
        a, b, c, d = (float(str(number)) for number in numbers)
    except (TypeError, ValueError) as error:
        raise Refused("bad_box", f"{where}: the box {numbers!r} is not four numbers.") from error
    x0, y0, x1, y1 = {"xywh": (a, b, a + c, b + d), "xyxy": (a, b, c, d),
                      "cxcywh": (a - c / 2, b - d / 2, a + c / 2, b + d / 2)}[form]  # fmt: skip
    if part.option("swapped_corners") == "fix":
        x0, x1, y0, y1 = min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)
    height, width = size_hw
    across, down = (side / theirs for side, theirs in zip((width, height), frame or part.option("frame", (width, height)),
                                                          strict=True))  # fmt: skip
    try:
        return clipped_box((x0 * across, y0 * down, x1 * across, y1 * down), size_hw)
    except Refused as error:
        raise Refused(error.reason, f"{where}: {error}") from error


def add_once(regions: list[Region], region: Region) -> int:
    """Add a region, or count it as another reader's mark of one that is there.

    Returns:
        Its position in the list.
    """
    for at, other in enumerate(regions):
        if other.concept == region.concept and overlap(other.box_xyxy, region.box_xyxy) > SAME_BOX:
            readers = int(other.attributes.get("readers", 1)) + 1
            regions[at] = replace(other, attributes={**other.attributes, "readers": readers})
            return at
    regions.append(region)
    return len(regions) - 1
