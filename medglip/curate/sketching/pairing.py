"""Patterns under which images and the files that mark them find each other. Looks at names only."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from medglip.curate.layout import find
from medglip.curate.sketching.guessed import TODO
from medglip.curate.sketching.shapes import Shape, common_start, levels, stem_of, words_of

_CLASSES = 24  # more words than these after an image's name are no classes
_LOOKED_AT = 5000  # names of marks that are compared with those of the images


class Pair(NamedTuple):
    """Patterns of images and of what marks them.

    Attributes:
        image: Pattern of the images.
        marks: Pattern of the others; ``TODO`` where the names do not agree.
        classes: What ``{label}`` in the pattern of the marks stands for, sorted.
    """

    image: str
    marks: str
    classes: tuple[str, ...] = ()


def paired(images: Shape, marks: Shape) -> Pair:
    """The patterns of both; every image pattern leaves the marks out."""
    words = words_of(images.paths)
    folder = "/".join(levels(marks.paths, words))
    if "{label}" in folder:
        at = levels(marks.paths, words).index("{label}")
        classes = tuple(sorted({path.split("/")[at] for path in marks.paths}))
    else:
        classes = ()
    folder = re.sub(r"\{other(_[a-h])?\}", "*", folder)
    if "{case}" not in images.pattern:
        image, name, more = images.pattern, *_beside_one(images, marks, folder)
    else:
        image, name, more = _by_name(images, marks)
    if not name:
        return Pair(_without(image, marks), TODO)
    return Pair(_without(image, marks), f"{folder}/{name}".lstrip("/"), classes or more)


def _beside_one(images: Shape, marks: Shape, folder: str) -> tuple[str, tuple[str, ...]]:
    """Name of the marks where one folder is one image: one file, or one a class."""
    names = Counter(path.rsplit("/", 1)[-1] for path in marks.paths)
    if len(names) == 1:
        return next(iter(names)), ()
    if "{case}" not in marks.name:
        word = levels(images.paths)[-1] if levels(images.paths) else ""
        own = levels(marks.paths)[-1]
        return marks.name.replace(own, word), ()
    if "{label}" in folder:
        return f"*{marks.ending}", ()
    return f"{{label}}{marks.ending}", tuple(sorted({stem_of(path) for path in marks.paths}))


def _by_name(images: Shape, marks: Shape) -> tuple[str, str, tuple[str, ...]]:
    """Pattern of the images, name of the marks and classes in it, where ``{case}`` is a part of both names."""
    stems = {stem_of(path) for path in images.paths}
    forms: Counter[tuple[str, str]] = Counter()
    looked_at = marks.paths[:: max(1, len(marks.paths) // _LOOKED_AT)]
    for path in looked_at:
        if stem := _longest_in(stem_of(path), stems):
            before, after = stem_of(path).split(stem, 1)
            forms[before, after] += 1
    if 2 * forms.total() >= len(looked_at):
        name, classes = _name_of(forms, marks.ending)
        if "*" in name:  # "{case}" takes as little as it can: the number of words in the images' names bounds it
            words = {stem.count("_") for stem in stems}
            rule = f"(?:[^_/]+_){{{words.pop()}}}[^_/]+" if len(words) == 1 else ""
            name = name.replace("{case}", f"{{case:{rule}}}") if rule else name
        return images.pattern, name, classes
    return _by_core(images, marks)


def _longest_in(name: str, stems: set[str]) -> str:
    """The longest stem that a name holds: "case_12" begins "case_123", too."""
    pieces = (name[a:b] for length in range(len(name), 0, -1) for a, b in _spans(len(name), length))
    return next((piece for piece in pieces if piece in stems), "")


def _spans(size: int, length: int) -> list[tuple[int, int]]:
    return [(at, at + length) for at in range(size - length + 1)]


def _name_of(forms: Counter[tuple[str, str]], ending: str) -> tuple[str, tuple[str, ...]]:
    """Name of the marks, and classes in it. What follows ``{case}`` is spelt out, for it takes as little as it can."""
    befores, afters = sorted({before for before, _ in forms}), sorted({after for _, after in forms})
    before = befores[0] if len(befores) == 1 else "*"
    if len(afters) == 1:
        return f"{before}{{case}}{afters[0]}{ending}", ()
    start = re.sub(r"[A-Za-z0-9]*$", "", common_start(afters))
    words = [after[len(start) :] for after in afters]
    if start and len(words) <= _CLASSES and all(re.fullmatch(r"[A-Za-z][A-Za-z _-]*", word) for word in words):
        return f"{before}{{case}}{start}{{label:{'|'.join(words)}}}{ending}", tuple(words)
    start = common_start(afters)
    rules = sorted(
        {re.sub(r"\d+", r"\\d+", re.escape(after[len(start) :])) for after in afters}, key=lambda rule: (-len(rule), rule)
    )
    if len(rules) > _CLASSES or "{" in "".join(rules):
        return f"{before}{{case}}{start}*{ending}", ()
    optional = "?" if "" in rules else ""
    return f"{before}{{case}}{start}{{number:(?:{'|'.join(rule for rule in rules if rule)}){optional}}}{ending}", ()


def _by_core(images: Shape, marks: Shape) -> tuple[str, str, tuple[str, ...]]:
    """Names that differ in a fixed beginning or end only: ``21_training`` and ``21_manual1``."""
    (before, cores, after), (other, others, end) = (_cut([stem_of(path) for path in shape.paths]) for shape in (images, marks))
    if len(cores & others) * 2 < len(others) or len(others) < 2:
        return images.pattern, "", ()
    folder = images.pattern.rpartition("/")[0]
    return (
        f"{folder}/{before}{{case}}{after}{images.ending}".lstrip("/"),
        f"{other}{{case}}{end}{marks.ending}",
        (),
    )


def _cut(stems: Sequence[str]) -> tuple[str, set[str], str]:
    """Beginning and end that all names share, up to a separator, and what lies between."""
    start = re.sub(r"[^_. -]*$", "", common_start(stems))
    end = re.sub(r"[^_. -]*$", "", common_start([stem[::-1] for stem in stems]))[::-1]
    return start, {stem[len(start) : len(stem) - len(end)] for stem in stems}, end


def _without(pattern: str, marks: Shape) -> str:
    """The pattern of the images, made to leave out the files that mark them."""
    caught = [entry.fields.get("case", "") for entry in find(pattern, marks.paths)]
    if not caught or "{case}" not in pattern:
        return pattern
    found = [re.search(r"[_\-. ]?(mask|seg|label|gt|ground|truth|manual|anno|roi|target|contour|outline)", name, re.IGNORECASE)
             for name in caught]  # fmt: skip
    words = sorted({hit[0].lower() for hit in found if hit})
    if not words or not all(found):
        return pattern
    return pattern.replace("{case}", "{case:(?!.*(?:" + "|".join(map(re.escape, words)) + "))[^/]+?}", 1)
