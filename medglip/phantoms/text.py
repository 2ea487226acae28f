"""The findings of a scene in words, from a template: no reader wrote them. Knows no files."""

from collections.abc import Iterable

import numpy as np

from medglip.phantoms.scene import Scene, Thing
from medglip.records import Label, label_tree

_NUMBERS = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")


def findings(scene: Scene) -> str:
    """Sentences about a scene: what was found, how often, where and how large, and what is not there.

    >>> from medglip.phantoms.cohort import cases
    >>> findings(next(cases("fundus", 1))).endswith(".")
    True
    """
    names = [name for name in scene.searched if _is_said(_label(name))]
    seen = scene.names()
    sentences = [_sentence(scene, name) for name in names if name in seen]
    if absent := [name for name in names if name not in seen]:
        sentences.append(f"No {_listed(absent, 'or')}.")
    return " ".join(sentences)


def _label(name: str) -> Label:
    tree = label_tree()
    return tree[tree.resolve(name)[0]]


def _is_said(label: Label) -> bool:
    """Findings and devices are reported; of anatomy only that it is abnormal would be."""
    return label.is_finding or label.id.startswith("systemic.instrument")


def _sentence(scene: Scene, name: str) -> str:
    """For example "Two liver cysts, the larger 21 mm." or "Three lung nodules in both lungs, the largest 14 mm."."""
    things, label = [thing for thing in scene.things if thing.name == name], _label(name)
    place = _place(things, label)
    if not (label.countable or label.id.startswith("systemic.instrument")):
        return f"{name[0].upper()}{name[1:]}{place}."
    count = len(things)
    number = _NUMBERS[count] if count < len(_NUMBERS) else str(count)
    noun = name if count == 1 else name.replace(label.name, label.plural)
    sizes = [size for thing in things if (size := _diameter_mm(scene, thing)) is not None]
    which = ("", "the larger ", "the largest ")[min(count, 3) - 1]
    return f"{number} {noun}{place}{f', {which}{max(sizes):.0f} mm' if sizes else ''}."


def _place(things: list[Thing], label: Label) -> str:
    """Where they lie, unless their name says so, as that of a liver cyst and of a left kidney stone does."""
    within = dict.fromkeys(thing.within for thing in things if thing.within)
    if not within or things[0].side or any(label.name.startswith(name) for name in within):
        return ""
    organs = {name.removeprefix("left ").removeprefix("right ") for name in within}
    if len(within) == 2 and len(organs) == 1:
        return f" in both {organs.pop()}s"
    return f" in the {_listed(within, 'and')}"


def _listed(names: Iterable[str], word: str) -> str:
    *first, last = names
    return f"{', '.join(first)} {word} {last}" if first else last


def _diameter_mm(scene: Scene, thing: Thing) -> float | None:
    """The longer side of its box in the plane where it is largest; None where no millimetres are known."""
    if scene.spacing_mm is None:
        return None
    mask = thing.mask if thing.mask.ndim == 2 else thing.mask[int(np.argmax(thing.mask.sum(axis=(1, 2))))]
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return max(float(np.ptp(rows) + 1) * scene.spacing_mm[-2], float(np.ptp(columns) + 1) * scene.spacing_mm[-1])
