"""What a concept is, in words made from the label tree: its lineage and its definition. Knows no pixels and no model.

A phrase that is said with its ancestors, or with a definition, tells more to a text encoder that does not know the name.
Source: GLIP's knowledge-augmented evaluation on ODinW; K-LITE (arXiv 2204.09222), section 3.
"""

from collections.abc import Iterator

from medglip.errors import InputError
from medglip.records.labels import Label, LabelTree
from medglip.records.phrases import concept_phrases
from medglip.records.spelling import words_of

WAYS = ("name", "lineage", "definition")
_MOST_WORDS = 34  # of a definition: at most 67 WordPiece tokens, special ones included, over the whole tree
_MOST_SYNONYMS = 3
_EVERYWHERE = "systemic"  # the body region of what is bound to no place
_NOUNS = {"device": "an object or a marking", "image sign": "an image sign"}  # coarse class -> what its findings are


def augmented(concept: str, tree: LabelTree, way: str) -> str:
    """A concept's name in one of three ways of saying it.

    Args:
        concept: ``label`` or ``label@left|right``.
        tree: The label tree.
        way: ``name``, ``lineage`` (said with its ancestors) or ``definition`` (said with what it is).

    Raises:
        InputError: no such way.
        SourceError: the tree has no such concept.
    """
    if way == "name":
        return tree.concept_name(concept)
    if way == "lineage":
        return lineage(concept, tree)
    if way == "definition":
        return definition(concept, tree)
    raise InputError(f"Wording: found {way!r}; allowed: {', '.join(WAYS)}; choose one.")


def lineage(concept: str, tree: LabelTree) -> str:
    """A concept with all that it lies in, the nearest first: lesion, sub-structure, organ, body region.

    The side goes up as far as there is a left and a right. What is bound to no place has only its name.

    >>> from medglip.records.labels import label_tree
    >>> lineage("abdomen.kidney.cyst@left", label_tree())
    'left kidney cyst, in the left kidney, in the abdomen'
    """
    return ", ".join([tree.concept_name(concept), *(f"in the {name}" for name in _containers(concept, tree))])


def definition(concept: str, tree: LabelTree) -> str:
    """What a concept is: its level, where it lies, its kinds, its side and up to three other names.

    At most 34 words; other names that would not fit are left out.

    >>> from medglip.records.labels import label_tree
    >>> definition("abdomen.liver.cyst", label_tree())
    'liver cyst: a finding in the liver, in the abdomen, a kind of cyst and of liver lesion; also called hepatic cyst'
    """
    label_id, _ = tree.split(concept)
    label = tree[label_id]
    clauses = [_what_and_where(concept, tree)]
    kinds = [tree[kind].name for kind in dict.fromkeys([label.is_a, *label.also_is]) if kind]
    if kinds:
        clauses.append(f"a kind of {' and of '.join(kinds)}")
    if said := _side_clause(concept, tree):
        clauses.append(said)
    text = f"{tree.concept_name(concept)}: {', '.join(clauses)}"
    others: list[str] = []
    for other in _other_names(concept, tree):
        longer = f"{text}; also called {', '.join([*others, other])}"
        if len(others) < _MOST_SYNONYMS and len(longer.split()) <= _MOST_WORDS:
            others.append(other)
    return f"{text}; also called {', '.join(others)}" if others else text


def _above(label: Label) -> str | None:
    """Id of what it is in or a part of; kinds do not count."""
    return label.part_of or (label.site[0] if label.site else None)


def _containers(concept: str, tree: LabelTree) -> list[str]:
    """Names of all that it lies in, the nearest first, with its side where they have one.

    Left out is one whose name says no more than the one before ("head and neck" after "neck"), and one that is a kind of
    the concept or its many ("tooth" after "third molar" and "lower teeth").
    """
    label_id, side = tree.split(concept)
    label, last = tree[label_id], tree[label_id].name
    names: list[str] = []
    while (above := _above(label)) and above != _EVERYWHERE:
        label = tree[above]
        says_less = f" {last} " in f" {label.name} " or f" {label.plural} " in f" {last} "
        if not says_less and not tree.covers(above, label_id):
            names.append(tree.name(above, side if label.laterality else None))
            last = label.name
    return names


def _what_and_where(concept: str, tree: LabelTree) -> str:
    """Its level and what it lies in: "a finding in the left kidney, in the abdomen", "a part of the heart, in the thorax"."""
    label = tree[tree.split(concept)[0]]
    places = _containers(concept, tree)
    if label.level == "body_region":
        return "a body region"
    if label.level in ("substructure", "finding_part"):
        first, *rest = places or ["body"]
        return ", ".join([f"a part of the {first}", *(f"in the {place}" for place in rest)])
    what = "an anatomical structure"
    if label.is_finding:
        what = _NOUNS.get(label.coarse, "a finding")
    if not places:
        return what if label.coarse in _NOUNS else f"{what} of the body"
    return ", ".join([f"{what} in the {places[0]}", *(f"in the {place}" for place in places[1:])])


def _side_clause(concept: str, tree: LabelTree) -> str:
    """The side, where no name of what it lies in says it already; empty where there is nothing to say."""
    label_id, side = tree.split(concept)
    label = tree[label_id]
    if side is None:
        return "left or right" if label.laterality and not label.is_finding else ""
    return "" if any(name.startswith(f"{side} ") for name in _containers(concept, tree)) else f"on the {side} side"


def _other_names(concept: str, tree: LabelTree) -> Iterator[str]:
    """Synonyms and the adjective form ("renal cyst"), with the side; the same words again, in other spelling or order, not."""
    label_id, side = tree.split(concept)
    said = {tuple(sorted(words_of(tree[label_id].name)))}
    for phrase in concept_phrases(label_id, tree):
        words = tuple(sorted(words_of(phrase.text)))
        if phrase.kind in ("synonym", "adjective") and words not in said:
            said.add(words)
            yield f"{side} {phrase.text}" if side else phrase.text
