"""Paths of many files as few patterns, and which files mark others. Looks at names only."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from medglip.imaging.raster import ENDINGS

# Words in a path that say "this marks another file".
_MARKING = re.compile(
    r"(^|[^a-z])(masks?|segs?|segmentations?|labels?(tr|ts|va)?|gts?|ground[ _-]?truths?|truth|manual\d?|anno(tation)?s?|roi"
    r"|targets?|contours?|outlines?)($|[^a-z])",
    re.IGNORECASE,
)
_ENDING = re.compile(r"(\.nii|\.csv)?\.[A-Za-z][A-Za-z0-9]{0,7}$")
_VOLUMES = (".nii.gz", ".nii", ".mgz", ".mgh", ".mha", ".mhd", ".nrrd")
SPLIT_WORDS = {
    "train": "train", "training": "train", "tr": "train", "val": "val", "valid": "val", "validation": "val", "va": "val",
    "test": "test", "testing": "test", "ts": "test",
}  # fmt: skip
# A folder level with at most so many names, without a digit in them, is a kind of file and not a case.
_KINDS = 12
_LETTERS = "abcdefgh"


class Shape(NamedTuple):
    """Files whose paths have one form.

    Attributes:
        paths: The files, sorted.
        marking: Whether their names say that they mark others.
    """

    paths: tuple[str, ...]
    marking: bool

    @property
    def ending(self) -> str:
        """What tells the format, as a pattern where it differs."""
        found = sorted({ending_of(path) for path in self.paths})
        if len(found) == 1:
            return found[0]
        return f".{{{'mark_ending' if self.marking else 'ending'}:{'|'.join(one.lstrip('.') for one in found)}}}"

    @property
    def pattern(self) -> str:
        """As ``medglip.curate.layout`` reads it; ``{case}`` is the file's own name, where names differ."""
        folder = "/".join(levels(self.paths))
        return f"{folder}/{self.name}".lstrip("/")

    @property
    def name(self) -> str:
        """The last part of the pattern."""
        own = {path.rsplit("/", 1)[-1] for path in self.paths}
        if len(own) == 1 < len(self.paths):
            return own.pop()
        if after := _after_folder(self.paths):
            word = levels(self.paths)[-1]
            return f"{after[0]}{word}{after[1]}"
        return f"{{case}}{self.ending}"


def ending_of(path: str) -> str:
    """What tells the format, in lower case; ``.nii.gz`` is one ending, the last number of a UID none."""
    found = _ENDING.search(path.rsplit("/", 1)[-1])
    return found[0].lower() if found else ""


def stem_of(path: str) -> str:
    """A file's name without folders and ending."""
    return path.rsplit("/", 1)[-1][: -len(ending_of(path)) or None]


def shapes(paths: Sequence[str]) -> list[Shape]:
    """The forms of paths, those of most files first."""
    shared = _shared_folders(paths) if paths else 0
    groups: dict[tuple[int, str, str], list[str]] = defaultdict(list)
    for path in paths:
        ending = ending_of(path)
        groups[path.count("/"), "raster" if ending in ENDINGS else ending, _mark(path.split("/", shared)[-1])].append(path)
    found = []
    for (_, ending, mark), members in groups.items():
        marking = mark != ""
        families = [sorted(members)] if ending not in _VOLUMES or marking else _families(sorted(members))
        found += [Shape(tuple(family), marking) for family in families]
    return sorted(found, key=lambda shape: (-len(shape.paths), shape.paths))


def levels(paths: Sequence[str], words: dict[str, set[str]] | None = None) -> list[str]:
    """One word a folder level: its name where all share it, else a name in braces.

    Args:
        paths: Files of one depth.
        words: Word -> folder names of another form whose words these levels take, where they hold the same names.
    """
    names, used = [], Counter[str]()
    known = dict(words or {})
    for level in range(paths[0].count("/")):
        values = {path.split("/")[level] for path in paths}
        if len(values) == 1 and not any(values == held for held in known.values()):
            names.append(next(iter(values)).replace("{", "*").replace("}", "*"))
            continue
        same = [word for word, held in known.items() if 2 * len(values & held) >= len(values)]
        if same:
            names.append(f"{{{same[0]}}}")
            del known[same[0]]
            continue
        word = _word(values, words is not None)
        used[word] += 1
        names.append(f"{{{word}}}" if used[word] == 1 else f"{{{word}_{_LETTERS[min(used[word], 8) - 1]}}}")
    return names


def words_of(paths: Sequence[str]) -> dict[str, set[str]]:
    """Word -> folder names, for the levels whose names differ."""
    return {
        name.strip("{}"): {path.split("/")[at] for path in paths}
        for at, name in enumerate(levels(paths))
        if name.startswith("{")
    }


def common_start(texts: Iterable[str]) -> str:
    """What all texts begin with."""
    texts = list(texts)
    first, last = min(texts), max(texts)
    return first[: next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))]


def _word(values: set[str], marks: bool) -> str:
    """What a folder level stands for."""
    if {value.lower() for value in values} <= SPLIT_WORDS.keys():
        return "split"
    if len(values) <= _KINDS and not any(re.search(r"\d", value) for value in values):
        return "label" if marks else "kind"
    return "other" if marks else "patient"


def _mark(path: str) -> str:
    """The folder whose name says that it marks, else the word of the file's name; empty where nothing does."""
    *folders, name = path.split("/")
    if folder := next((folder for folder in folders if _MARKING.search(folder)), ""):
        return f"{folder}/"
    return "file" if _MARKING.search(name) else ""


def _shared_folders(paths: Sequence[str]) -> int:
    """How many folders at the beginning all paths share: their names tell nothing apart."""
    folders = [path.split("/")[:-1] for path in paths]
    return next((at for at in range(min(map(len, folders))) if len({folder[at] for folder in folders}) > 1),
                min(map(len, folders)))  # fmt: skip


def _after_folder(paths: Sequence[str]) -> tuple[str, str] | None:
    """What stands before and after the last folder's name in every file's name, with the ending."""
    if not (names := levels(paths)) or not names[-1].startswith("{"):
        return None
    forms = {_around(path) for path in paths}
    return forms.pop() if len(forms) == 1 and len(paths) > 1 else None


def _around(path: str) -> tuple[str, str] | None:
    folder, name = path.split("/")[-2:]
    before, found, after = name.partition(folder)
    return (before, after) if found else None


def _families(members: list[str]) -> list[list[str]]:
    """Volumes of a folder apart, where each folder holds the same kinds: ``p1/p1_t1``, ``p1/p1_t2``; ``t1``, ``t2``."""
    if "/" not in members[0]:
        return [members]
    folders = {path.rpartition("/")[0] for path in members}
    for key in (_around, lambda path: path.rsplit("/", 1)[-1]):
        kinds: dict[object, list[str]] = defaultdict(list)
        for path in members:
            kinds[key(path)].append(path)
        usual = all(2 * len(family) >= len(folders) for family in kinds.values())
        if 1 < len(kinds) <= _KINDS and len(folders) > 1 and None not in kinds and usual:
            return [kinds[kind] for kind in sorted(kinds, key=str)]
    return [members]
