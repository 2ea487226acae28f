"""What is marked in one image as it is read: regions, what was refused, what is now in doubt. Knows no file format."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from medglip.curate.cases import Case, Shot, picture
from medglip.curate.source import Named, Part
from medglip.curate.tables import filled, texts_of
from medglip.errors import InputError, MedglipError, SourceError
from medglip.records import Picture, Region, Reject


@dataclass
class Marks:
    """Regions of one image.

    A refused item leaves its label in doubt: the image may show it without a region, so it counts neither as absent nor
    as marked wherever it is. A refused item whose label is not known leaves every label in doubt.

    Attributes:
        part: Where it is from.
        case: The case.
        labelled: False where nobody marked the image, which is not the same as nothing to mark.
        regions: What was read.
        rejects: What was refused.
        searched: Concepts searched for in this image besides the part's exhaustive ones.
        doubtful: Concepts in doubt; ``None`` among them stands for all.
        flags: Flags of the image.
    """

    part: Part
    case: Case
    labelled: bool = True
    regions: list[Region] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    searched: set[str] = field(default_factory=set)
    doubtful: set[str | None] = field(default_factory=set)
    flags: tuple[str, ...] = ()

    @contextmanager
    def item(self, file: str, named: Named | None = None) -> Iterator[None]:
        """Do something with one item; what goes wrong with it is listed, and the rest goes on."""
        try:
            yield
        except MedglipError as error:
            self.refuse(file, reason_of(error), str(error), named)

    def refuse(self, file: str, reason: str, detail: str, named: Named | None = None) -> None:
        """List an item as refused."""
        self.rejects.append(Reject(self.part.source, file, reason, detail, self.case.key))
        self.doubtful.add(named.concept if named else None)

    def picture(self, pixels: np.ndarray, shot: Shot) -> Picture:
        """The finished record with its pixels."""
        sure = self.labelled and None not in self.doubtful
        searched = {*self.part.exhaustive, *self.searched} - self.doubtful if sure else set()
        shot = replace(
            shot, searched=tuple(sorted(searched)), texts=shot.texts + texts_of(self.part, self.case),
            flags=shot.flags + self.flags,
        )  # fmt: skip
        result = picture(self.part, self.case, pixels, self.regions, shot)
        licence = filled(self.part.option("licence", ""), self.case)
        return result._replace(record=replace(result.record, licence=licence)) if licence else result


def reason_of(error: MedglipError) -> str:
    """The short code under which an error is listed in the rejects."""
    if isinstance(error, SourceError):
        return "unknown_label"
    return getattr(error, "reason", "unreadable_file" if isinstance(error, InputError) else "invalid_record")
