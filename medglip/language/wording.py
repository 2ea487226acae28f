"""One finding of a scene in words: what, where, how large. Knows findings and the label tree, no boxes."""

from typing import TYPE_CHECKING

from medglip.language.grammar import subject
from medglip.records import LabelTree, Laterality

if TYPE_CHECKING:
    from medglip.language.scene import Finding


def finding_in_words(finding: "Finding", tree: LabelTree) -> str:
    """One finding in words: "two nodules in the upper part of the left lung, the largest about 8 mm long"."""
    text = subject(finding.concept, tree, finding.count) + where_in_words(finding, tree) + size_in_words(finding)
    return f"{text} (confidence {finding.confidence:.2f})."


def where_in_words(finding: "Finding", tree: LabelTree) -> str:
    """Where a finding lies, with a leading space; empty for anatomy and where nothing is known."""
    if finding.kind == "anatomy" or (finding.count != 1 and finding.within is None):
        return ""
    if finding.within is None or finding.within_name is None:
        return _place_in_image(finding)
    # "a left kidney tumor in the left kidney" says one thing twice.
    label = tree[tree.split(finding.within)[0]]
    implied = label.name in finding.name
    organ = label.name if implied else finding.within_name
    # Image directions inside an organ would be taken for the patient's.
    words = [word for word in finding.place if not word.startswith("image-")]
    part = " ".join(_of_a_side(word, tree.split(finding.within)[1]) for word in words)
    if part and finding.count == 1:
        return f" in the {part} part of the {organ}"
    return "" if implied else f" in the {organ}"


def _of_a_side(word: str, organ_side: Laterality) -> str:
    """In an organ of one side, left and right are medial and lateral."""
    if organ_side not in ("left", "right") or word not in ("left", "right"):
        return word
    return "lateral" if word == organ_side else "medial"


def _place_in_image(finding: "Finding") -> str:
    """Place in the whole image; a finding with a side of the patient gets no second, image-relative one."""
    words = [word for word in finding.place if not (finding.side and word.startswith("image-"))]
    if not words:
        return ""
    if any(word.startswith("image-") for word in words) or words in (["upper"], ["lower"]):
        plain = " ".join(word.removeprefix("image-") for word in words)
        return f" in the {plain} part of the image" if plain in ("upper", "lower") else f" at the {plain} of the image"
    return f" in the {' '.join(words)} part of the image"


def size_in_words(finding: "Finding") -> str:
    """Size with a leading comma; a box gives a bounding extent, a mask a long axis; empty where spacing is unknown."""
    if finding.size_mm is None or finding.kind == "anatomy":
        return ""
    size = f"{finding.size_mm:.0f}" if finding.size_mm >= 2 else f"{finding.size_mm:.1f}"
    basis = "a long axis" if finding.size_basis == "mask" else "a bounding extent"
    return f", {'the largest ' if finding.count > 1 else ''}with {basis} of about {size} mm"
