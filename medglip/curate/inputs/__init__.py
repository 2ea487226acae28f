"""What a user gives as input becomes a local folder: folders, archives, media with a DICOMDIR, and picture archives (PACS).

The folder's tree is the same every time, wherever it lies, so that cases keep their identities and a second run goes on.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

from medglip.curate.inputs.address import asked_of
from medglip.curate.inputs.archives import kind_of, unpack
from medglip.curate.inputs.dicomdir import DICOMDIR, checked_files, is_dicomdir, media_files
from medglip.curate.inputs.fetched import fetched
from medglip.curate.inputs.lost import Lost, LostWarning, News, OnStep, news
from medglip.curate.inputs.members import Budget, Limits
from medglip.curate.inputs.trees import archives_in, files_under, link_files, still_packed, unpack_nested
from medglip.curate.layout import find, listed
from medglip.errors import InputError

__all__ = ["Limits", "Lost", "LostWarning", "beginning", "opened_input"]

# A Path made of an address has lost one of its slashes.
_REMOTE = re.compile(r"(dicomwebs?|dimse):/{1,2}(?=[^/])", re.IGNORECASE)
_OTHER_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+):/{1,2}", re.IGNORECASE)


@contextmanager
def opened_input(
    given: str | Path, scratch: Path | None = None, on_step: OnStep | None = None, *,
    on_lost: Callable[[Lost], None] | None = None, limits: Limits | None = None,
) -> Iterator[Path]:  # fmt: skip
    """A local folder with the files of an input.

    - A folder is yielded itself, and never written to. If it holds archives that are not unpacked beside themselves, a
      folder of links is yielded in which they are. If it holds a DICOMDIR, the files that this names are looked for.
    - A ZIP or TAR (plain, gzip, bzip2 or xz), recognised by content, becomes its tree; archives in it are unpacked where
      they lie.
    - A DICOMDIR becomes links to the files that it names, at their paths; if it is damaged, to all DICOM files beside it.
    - ``dicomweb://``, ``dicomwebs://`` and ``dimse://`` addresses (docs/guide/from-a-pacs.md) become the instances that
      they ask for, as ``study/series/instance.dcm`` with hashes for names.

    Args:
        given: Path or address.
        scratch: Folder for what is unpacked or fetched, kept; a second run then goes on with what is there. None for a
            temporary folder (``TMPDIR`` says where), which is removed at the end.
        on_step: Called as ``on_step(done, total, note)``: bytes of an archive, series of a picture archive.
        on_lost: Called with each file that cannot be brought; None for a ``LostWarning`` each.
        limits: How much an archive may become; default ``Limits()``.

    Raises:
        InputError: the input is not there, is of no such kind, is refused as a whole, or holds nothing.
    """
    say = news(on_step, on_lost)
    limits = limits or Limits()
    text = str(given)
    with ExitStack() as stack:

        def place() -> Path:
            return _scratch_folder(scratch, stack)

        if scheme := _REMOTE.match(text):
            asked = asked_of(f"{scheme[1].lower()}://{text[scheme.end() :]}")
            yield fetched(asked, place(), say)
            return
        path = Path(given)
        if path.is_dir():
            yield _opened_folder(path, place, say, limits)
        elif not path.exists():
            raise _not_there(text)
        elif is_dicomdir(path):
            tree = _fresh(place() / f"dicomdir-{_digest(str(path.resolve()))}")
            link_files(media_files(path.resolve(), say), path.resolve().parent, tree)
            yield tree
        elif kind := kind_of(path):
            tree = _unpacked(path, kind, place(), say, limits)
            _check_media(tree, say)
            yield tree
        else:
            raise InputError(
                f"Input {text!r} is a single file that is neither a ZIP or TAR archive nor a DICOMDIR; give the folder, archive"
                " or address that holds the source's files."
            )


def beginning(folder: Path, patterns: Iterable[str], *, packed: bool = False) -> Path:
    """The folder in which a source's paths begin: the given one, or, where nothing fits there, the only folder in it.

    Archives often hold one folder at their top, which the paths of a source leave out. Of an archive it is left out also
    where patterns that begin with ``**/`` fit with it, so that the archive gives what its folder gives. A folder is not
    entered then: it may get a second one tomorrow.

    Args:
        folder: What ``opened_input`` yielded.
        patterns: The source's path patterns (``medglip.curate.layout``).
        packed: Whether an archive was given.
    """
    patterns, at = list(patterns), folder
    fitting, best = _fitting(at, patterns), folder
    while (packed or not any(fitting)) and (below := _only_folder(at)) is not None:
        at, found = below, _fitting(below, patterns)
        if any(found) and all(here >= above for here, above in zip(found, fitting, strict=True)):
            fitting, best = found, at
        elif any(fitting):
            break
    return best


def _fitting(folder: Path, patterns: list[str]) -> list[int]:
    """How many files fit each pattern."""
    paths = listed(folder)
    return [sum(1 for _ in find(pattern, paths)) for pattern in patterns]


def _only_folder(folder: Path) -> Path | None:
    tops = {path.partition("/")[0] for path in listed(folder)}
    return folder / min(tops) if len(tops) == 1 and (folder / min(tops)).is_dir() else None


def _opened_folder(folder: Path, place: Callable[[], Path], say: News, limits: Limits) -> Path:
    packed = [path for path in archives_in(folder) if still_packed(path)]
    if not packed:
        _check_media(folder, say)
        return folder
    home = place()
    if home.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"Scratch folder {str(home)!r} lies in the input, which is never written to; give one outside it.")
    tree = _fresh(home / f"folder-{_digest(str(folder.resolve()))}")
    link_files(files_under(folder), folder, tree)
    size = sum(path.stat().st_size for path in packed)
    budget = Budget(limits, packed[0].name if len(packed) == 1 else f"{len(packed)} archives in {folder.name}", size, home)
    unpack_nested(tree, tree.with_name(f"{tree.name}.part"), budget, say, limits.nested)
    _check_media(tree, say)
    return tree


def _unpacked(path: Path, kind: str, home: Path, say: News, limits: Limits) -> Path:
    """The archive's tree: unpacked now, or by an earlier run with the same scratch folder."""
    facts = path.stat()
    tree = home / f"archive-{_digest(f'{path.resolve()}|{facts.st_size}|{facts.st_mtime_ns}')}"
    done = tree.with_name(f"{tree.name}.json")  # written last: the tree is whole
    if tree.is_dir() and done.is_file():
        for lost in json.loads(done.read_text("utf-8")):
            say.lost(Lost(**lost))
        return tree
    losses: list[Lost] = []
    part = _fresh(tree.with_name(f"{tree.name}.{os.getpid()}.part"))
    say.step(0, facts.st_size, f"unpacking {path.name} into {home}")
    try:
        budget, told = Budget(limits, path.name, facts.st_size, home), News(say.step, losses.append)
        unpack(path, part, kind, budget, told)
        unpack_nested(part, part.with_name(f"{part.name}.nested"), budget, told, limits.nested)
        shutil.rmtree(tree, ignore_errors=True)
        part.rename(tree)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    for lost in losses:
        say.lost(lost)
    done.write_text(json.dumps([asdict(lost) for lost in losses]), "utf-8")
    return tree


def _check_media(folder: Path, say: News) -> None:
    """Look for the files that each DICOMDIR in a folder names."""
    for where, _, names in os.walk(folder):
        for name in sorted(names):
            if name.upper() == DICOMDIR:
                checked_files(Path(where, name), folder, say)


def _scratch_folder(scratch: Path | None, stack: ExitStack) -> Path:
    try:
        if scratch is None:
            return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="medglip-", ignore_cleanup_errors=True)))
        Path(scratch).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Scratch folder {str(scratch)!r} cannot be made: {error.strerror}; give another one.") from error
    return Path(scratch)


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _not_there(text: str) -> InputError:
    if _OTHER_SCHEME.match(text):
        return InputError(
            f"Input {text!r} is an address of an unknown kind; allowed: dicomweb://, dicomwebs://, dimse://, or a path."
        )
    return InputError(f"Input {text!r} is not there; give a folder, an archive, a DICOMDIR or an address.")
