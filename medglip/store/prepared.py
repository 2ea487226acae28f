"""Pictures as rows and PNGs, ready to be written: what a worker does so that the process that writes has little to do.

Knows no files and no parts.
"""

from collections.abc import Iterable
from typing import NamedTuple

import pyarrow as pa

from medglip.errors import RecordError
from medglip.records.picture import Picture
from medglip.records.record import ImageRecord, identified
from medglip.store.pixels import pixel_sha256, png_bytes
from medglip.store.schema import SCHEMAS, Row, image_row, region_rows, text_rows


class Prepared(NamedTuple):
    """Pictures whose pixels are PNGs already, and whose records are rows of tables.

    Attributes:
        images: Rows of the table ``images``, whose places are not known yet.
        regions: Rows of the table ``regions``.
        texts: Rows of the table ``texts``.
        pngs: PNG of each image.
    """

    images: pa.Table
    regions: pa.Table
    texts: pa.Table
    pngs: list[bytes]

    @property
    def bytes(self) -> int:
        """Size of the PNGs."""
        return sum(map(len, self.pngs))


class Preparing:
    """Takes pictures one by one and keeps rows and PNGs alone, so that their pixels can go."""

    def __init__(self) -> None:
        self._rows: dict[str, list[Row]] = {"images": [], "regions": [], "texts": []}
        self._pngs: list[bytes] = []
        self._known: dict[str, bytes] = {}

    def add(self, picture: Picture) -> None:
        """Take a picture.

        Raises:
            RecordError: the pixels are not those that the record describes.
        """
        record = checked(picture)
        # equal planes of a volume are one object, which is sent to another process once
        if (png := self._known.get(record.sha256)) is None:
            png = self._known[record.sha256] = png_bytes(picture.pixels)
        self._pngs.append(png)
        self._rows["images"].append({**image_row(record, 0, len(png)), "shard": ""})
        self._rows["regions"] += region_rows(record)
        self._rows["texts"] += text_rows(record)

    def end(self) -> Prepared:
        """All that was taken."""
        images, regions, texts = (pa.Table.from_pylist(rows, SCHEMAS[name]) for name, rows in self._rows.items())
        return Prepared(images, regions, texts, self._pngs)


def prepared(pictures: Iterable[Picture]) -> Prepared:
    """Pictures ready to be written by ``Writer.write``, in another process perhaps.

    Raises:
        RecordError: the pixels are not those that a record describes.
    """
    taken = Preparing()
    for picture in pictures:
        taken.add(picture)
    return taken.end()


def checked(picture: Picture) -> ImageRecord:
    """The record with ids for its regions, if the pixels are those that it describes.

    Raises:
        RecordError: they are not.
    """
    record, pixels = picture
    who = f"Image {record.id!r} of {record.origin.dataset!r} ({record.origin.file!r})"
    shape = (record.height, record.width) if record.channels == 1 else (record.height, record.width, record.channels)
    if pixels.shape != shape or 8 * pixels.dtype.itemsize != record.bits:
        raise RecordError(f"{who}: found pixels {pixels.dtype} {pixels.shape}; its record says {record.bits} bit {shape}.")
    if (found := pixel_sha256(pixels)) != record.sha256:
        raise RecordError(f"{who}: found pixels of hash {found!r}; its record says {record.sha256!r}.")
    return identified(record)
