"""DICOMDIR files: which files a medium says it holds. Knows nothing of the files' pixels.

The records are read one after another, without their tree: a medium whose tree is damaged still names its files.
"""

from collections.abc import Iterator
from pathlib import Path

from pydicom import dcmread

from medglip.curate.inputs.lost import Lost, News
from medglip.errors import InputError
from medglip.imaging.dicom import BROKEN
from medglip.imaging.header import open_packed
from medglip.imaging.series import dicom_files

MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"
DICOMDIR = "DICOMDIR"


def is_dicomdir(path: Path) -> bool:
    """Whether a file is a DICOMDIR: by its content, or, where that is broken, by its name."""
    if path.name.upper() == DICOMDIR:
        return path.is_file()
    try:
        with path.open("rb") as file:
            if file.read(132)[128:] != b"DICM":
                return False
        with open_packed(path) as file:
            return dcmread(file, specific_tags=[]).file_meta.get("MediaStorageSOPClassUID") == MEDIA_STORAGE_DIRECTORY
    except BROKEN:
        return False


def checked_files(dicomdir: Path, root: Path, news: News) -> list[Path] | None:
    """The files that a DICOMDIR names and that are there, sorted; None where it is damaged.

    Args:
        dicomdir: The file.
        root: Folder that losses are told relative to.
        news: Told of each file that is named and not there, and of damage.
    """
    home = dicomdir.parent
    above = home.relative_to(root).parts
    try:
        named = list(_named(dicomdir))
    except BROKEN:
        named = []
    if not named:
        news.lost(Lost("/".join((*above, dicomdir.name)), "damaged_dicomdir",
                       "It is damaged or names no file; the files beside it are found by their content instead."))  # fmt: skip
        return None
    found: set[Path] = set()
    listings: dict[Path, dict[str, str]] = {}
    for parts in named:
        told = "/".join((*above, *parts))
        if any(part in ("", ".", "..") or "/" in part or "\\" in part for part in parts):
            news.lost(Lost(told, "unsafe_name", "The DICOMDIR names a file that does not lie under it; it is left out."))
        elif path := _resolved(home, parts, listings):
            found.add(path)
        else:
            news.lost(Lost(told, "missing_file", "The DICOMDIR names it, and it is not there; copy the medium again."))
    return sorted(found)


def media_files(dicomdir: Path, news: News) -> list[Path]:
    """The files of a medium: those that its DICOMDIR names, or, where it is damaged, all DICOM files beside it.

    Raises:
        InputError: there are none.
    """
    files = checked_files(dicomdir, dicomdir.parent, news)
    if files is None:
        files = [path for path in dicom_files(dicomdir.parent) if not is_dicomdir(path)]
    if not files:
        raise InputError(f"DICOMDIR {str(dicomdir)!r}: none of its files is there; give the medium's folder, copied whole.")
    return files


def _named(dicomdir: Path) -> Iterator[tuple[str, ...]]:
    """Paths that the records name, as parts."""
    with open_packed(dicomdir) as file:
        records = dcmread(file).get("DirectoryRecordSequence", ())
    for record in records:
        if name := record.get("ReferencedFileID"):
            yield (str(name),) if isinstance(name, str) else tuple(str(part) for part in name)


def _resolved(home: Path, parts: tuple[str, ...], listings: dict[Path, dict[str, str]]) -> Path | None:
    """The file of that name; media are often copied with small letters, endings or version marks (``;1``)."""
    at = home
    for part in parts:
        if at not in listings:
            names = sorted(path.name for path in at.iterdir()) if at.is_dir() else []
            listings[at] = {name.upper().partition(";")[0].rstrip("."): name for name in names} | {name: name for name in names}
        known = listings[at].get(part) or listings[at].get(part.upper())
        if known is None:
            return None
        at /= known
    return at if at.is_file() else None
