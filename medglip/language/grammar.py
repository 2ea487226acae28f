"""English for concepts: articles, plurals, counts, lists, sentences. Knows words of the label tree, no images."""

from collections.abc import Sequence

from medglip.records import LabelTree

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
# Vowel letters spoken with a consonant ("a ureter"), and capitals whose name begins with a vowel ("an L1 vertebra").
_SPOKEN_AS_CONSONANT = ("uter", "uret", "urin", "unil", "unif", "eu", "one")
_CAPITALS_SPOKEN_WITH_VOWEL = "AEFHILMNORSX"
# Last words of names whose plural is the same word because there is no plural.
_MASS_WORDS = frozenset({"matter", "ascites", "esophagus", "liver", "caries"})


def is_finding(concept: str, tree: LabelTree) -> bool:
    """Whether the concept is something found (a lesion, a device) and not anatomy."""
    return tree[tree.split(concept)[0]].level in ("finding", "finding_part")


def is_plural_name(concept: str, tree: LabelTree) -> bool:
    """Whether the concept's own name is a plural, such as "basal ganglia" or "drusen"."""
    label = tree[tree.split(concept)[0]]
    return label.plural == label.name and label.name.split()[-1] not in _MASS_WORDS


def is_counted(concept: str, tree: LabelTree) -> bool:
    """Whether one image may show several of it, so that "a nodule" or "three nodules" is said, not "the liver"."""
    return tree[tree.split(concept)[0]].countable


def noun(concept: str, tree: LabelTree, number: int = 1) -> str:
    """Name of a concept with its side, in the plural unless ``number`` is 1.

    >>> from medglip.records import label_tree
    >>> noun("abdomen.kidney@left", label_tree())
    'left kidney'
    """
    label_id, side = tree.split(concept)
    if number == 1 or not is_counted(concept, tree):
        return tree.concept_name(concept)
    return f"{side} {tree[label_id].plural}" if side else tree[label_id].plural


def indefinite(words: str) -> str:
    """``a`` or ``an`` before words, by their sound.

    >>> indefinite("ulcer"), indefinite("ureter"), indefinite("L1 vertebra")
    ('an ulcer', 'a ureter', 'an L1 vertebra')
    """
    first = words.split()[0]
    if first[:1].isupper() and (len(first) < 2 or not first[1:2].islower()):
        vowel = first[0] in _CAPITALS_SPOKEN_WITH_VOWEL
    else:
        vowel = first[:1].lower() in "aeiou" and not first.lower().startswith(_SPOKEN_AS_CONSONANT)
    return f"{'an' if vowel else 'a'} {words}"


def subject(concept: str, tree: LabelTree, count: int = 1) -> str:
    """The concept as the subject of a sentence: "a nodule", "three nodules", "edema", "the left kidney"."""
    words = noun(concept, tree, count)
    if is_counted(concept, tree):
        if count != 1:
            return f"{number_word(count)} {words}"
        return words if is_plural_name(concept, tree) else indefinite(words)
    return words if is_finding(concept, tree) else f"the {words}"


def is_are(concept: str, tree: LabelTree, count: int = 1) -> str:
    """The verb that agrees with ``subject`` of the same concept and count."""
    many = count != 1 and is_counted(concept, tree)
    return "are" if many or is_plural_name(concept, tree) else "is"


def number_word(count: int) -> str:
    """A count in words up to ten, in digits above."""
    return NUMBERS[count] if 0 <= count < len(NUMBERS) else str(count)


def listed(parts: Sequence[str], last: str = "and") -> str:
    """Parts as a list in words.

    >>> listed(["mass", "nodule", "effusion"], "or")
    'mass, nodule or effusion'
    """
    *before, end = parts
    return f"{', '.join(before)} {last} {end}" if before else end


def sentence(text: str) -> str:
    """Text with a capital first letter and one full stop at its end."""
    text = text.strip().rstrip(".")
    return f"{text[:1].upper()}{text[1:]}."
