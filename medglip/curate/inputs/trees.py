"""Folders made of other folders: links to files that stay where they are, archives unpacked in their place.

An archive inside a folder or an archive is unpacked where it lies, as ``unzip`` in that folder would do it, and its file
is left out. One that has been unpacked there already, or into a folder of its name, is passed over. Knows nothing of
what the files hold.
"""

import filecmp
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from medglip.curate.inputs.archives import ENDINGS, kind_of, listing, unpack
from medglip.curate.inputs.lost import Lost, News
from medglip.curate.inputs.members import Budget, OverLimit
from medglip.errors import InputError

_NAME_TAKEN = "An archive holds it, and another file of this name lies there; unpack the archive into a folder of its own."


def archives_in(folder: Path) -> list[Path]:
    """Files under a folder that are named like archives, sorted, without debris."""
    return sorted(
        Path(where, name)
        for where, folders, names in os.walk(folder)
        if _without_debris(folders)
        for name in names
        if ENDINGS.search(name) and not name.startswith("._")
    )


def _without_debris(folders: list[str]) -> bool:
    folders[:] = [name for name in folders if name != "__MACOSX"]
    return True


def still_packed(archive: Path) -> bool:
    """Whether some of an archive's files do not lie beside it, nor in a folder of its name, with their sizes."""
    try:
        kind = kind_of(archive)
    except InputError:
        return True
    sizes = listing(archive, kind) if kind else {}
    places = (archive.parent, archive.with_name(ENDINGS.sub("", archive.name)))
    return not sizes or not any(all(_size(place / name) == size for name, size in sizes.items()) for place in places)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def link_files(files: Iterable[Path], source: Path, target: Path) -> None:
    """Links in ``target`` to files under ``source``, with the same relative paths.

    Raises:
        InputError: the disk takes no links.
    """
    source = source.resolve()
    for file in files:
        link = target / file.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        try:
            link.symlink_to(file)
        except OSError as error:
            raise InputError(
                f"Scratch folder {str(target)!r} takes no links ({error.strerror}); give one on another disk, or unpack the"
                " archives of the input yourself."
            ) from error


def files_under(folder: Path) -> Iterable[Path]:
    """All files under a folder, links included, at their resolved folder's path."""
    for where, folders, names in os.walk(folder.resolve()):
        _without_debris(folders)
        yield from (Path(where, name) for name in names)


def unpack_nested(tree: Path, spare: Path, budget: Budget, news: News, levels: int) -> None:
    """Unpack the archives in a tree of our own where they lie, and those in them, and remove their files.

    Args:
        tree: May be written to; links in it are not followed for writing.
        spare: A folder on the same disk that is not there yet; removed again.
        budget: How much may come out, together with what came out before.
        news: Told of archives and files that cannot be used.
        levels: How deep; what is deeper stays an archive, and is told.

    Raises:
        OverLimit: too much comes out.
    """
    for _ in range(levels):
        found = [path for path in archives_in(tree) if _packed_here(path)]
        if not found:
            return
        for path in found:
            _replace(path, tree, spare, budget, news)
    for path in filter(_packed_here, archives_in(tree)):
        news.lost(Lost(_relative(path, tree), "unreadable_archive",
                       f"It lies more than {levels} archives deep; unpack it yourself and give the folder."))  # fmt: skip


def _packed_here(path: Path) -> bool:
    return not path.is_symlink() or still_packed(path.resolve())


def _replace(path: Path, tree: Path, spare: Path, budget: Budget, news: News) -> None:
    name = _relative(path, tree)
    try:
        kind = kind_of(path.resolve())
        if kind is None:
            raise InputError(f"File {path.name!r} is named like an archive and is neither ZIP nor TAR.")
        unpack(path.resolve(), spare, kind, budget, News(news.step, lambda lost: news.lost(_inside(lost, path, tree))))
    except OverLimit:
        raise
    except InputError as error:
        news.lost(Lost(name, "unreadable_archive", str(error)))
    else:
        for file in sorted(inner for inner in spare.rglob("*") if inner.is_file()):
            place = path.parent / file.relative_to(spare)
            if not _moved(file, place):
                news.lost(Lost(_relative(place, tree), "name_taken", _NAME_TAKEN))
    finally:
        shutil.rmtree(spare, ignore_errors=True)
        path.unlink()


def _moved(file: Path, place: Path) -> bool:
    """Move a file; True too where an equal one is there."""
    if os.path.lexists(place):
        return place.is_file() and filecmp.cmp(file, place, shallow=False)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError:  # a file has the folder's name
        return False
    file.replace(place)
    return True


def _inside(lost: Lost, archive: Path, tree: Path) -> Lost:
    if lost.reason == "data_after_end":
        return Lost(_relative(archive, tree), lost.reason, lost.detail)
    return Lost(_relative(archive.parent / lost.file, tree), lost.reason, lost.detail)


def _relative(path: Path, tree: Path) -> str:
    return path.relative_to(tree).as_posix()
