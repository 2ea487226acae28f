"""What a check says of a dataset, and what to do about it. Knows no tables and no files."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

# Problems of one kind that are listed; the others are counted.
LISTED = 20


class Problem(NamedTuple):
    """Something wrong in a dataset.

    Attributes:
        level: ``error``, or ``note`` for what may be meant so.
        where: File, table, image or region.
        what: One sentence.
        check: Which check found it; a key of ``ADVICE``.
        image: Id of the image, or empty.
        region: Id of the region, or empty.
        more: Number of further problems of this kind that are not listed; the sentence says so.
    """

    level: str
    where: str
    what: str
    check: str = ""
    image: str = ""
    region: str = ""
    more: int = 0


Problems = Iterator[Problem]

# Check -> its title, and what to do.
ADVICE = {
    "files": ("Files", "Restore the file from a copy, or convert the source again into a new dataset."),
    "tables": ("Tables", "Restore the table, or convert the source again with this version of medglip."),
    "ids": ("Ids and order", "Two conversions were mixed or a table was edited; convert the source again."),
    "schema": ("Schema", "Correct the converter or the source's TOML where the value comes from, and convert again."),
    "derived": ("Columns that follow from others", "The table was edited; convert the source again."),
    "boxes": ("Boxes", "Look at the image: a box outside is often swapped x and y, or the size before a resize."),
    "masks": ("Masks", "Look at the image: the mask is of another size, or the box is not that of the mask."),
    "axes": ("Axes in mm", "Check the spacing; axes are measured on the mask by medglip, never taken from another unit."),
    "labels": ("Labels", "Map the raw label in the source's TOML, or add it to schemas/labels.toml."),
    "absent": ("Absent and shown", "Correct the source's list of exhaustive or absent labels: one of the two is wrong."),
    "texts": ("Texts", "Correct the spans where the text is made: they count characters and name regions of the same image."),
    "volumes": ("Volumes", "Correct the geometry where the volume is read."),
    "splits": ("Splits", "Run `medglip split` on the dataset, or give the source's patients in its TOML."),
    "twins": ("Images that look alike in two splits", "Look at both; `medglip split` joins what its check on pixels confirms."),
    "privacy": ("Privacy", "Remove the text where it is made (the source's TOML or its converter) and convert again."),
    "expected": ("Counts of the published source", "Nothing, if a part of the source is meant; else look for missing files."),
    "pixels": ("Pixels", "Restore the shard, or convert the source again into a new dataset."),
}  # fmt: skip


def capped(problems: Iterable[Problem], listed: int = LISTED) -> list[Problem]:
    """The first problems of each check and level, and for the rest one that says how many there are."""
    kept: list[Problem] = []
    found: Counter = Counter()
    last: dict[tuple[str, str], Problem] = {}
    for problem in problems:
        kind = problem.level, problem.check
        found[kind] += 1
        if found[kind] <= listed:
            kept.append(problem)
            last[kind] = problem
    for kind, number in found.items():
        if (more := number - listed) > 0:
            what = f"{more} more problems such as: {last[kind].what}"
            kept.append(Problem(kind[0], "as above", what, kind[1], more=more))
    return kept


def errors(problems: Iterable[Problem]) -> int:
    """Number of errors, those that are only counted included."""
    return sum(problem.more or 1 for problem in problems if problem.level == "error")
