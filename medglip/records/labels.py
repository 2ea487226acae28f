"""The label tree: what a region can show, and the way of every raw label into it. Knows no images and no sources.

The tree is ``schemas/labels.toml``; its header says what the columns mean and what is taken for granted.
"""

import re
import tomllib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache, cached_property

from medglip.errors import SourceError
from medglip.records.record import Laterality
from medglip.records.spelling import british, key_of_words, plural_of, side_parsed_off, words_of
from medglip.shelf import shelf

LEVELS = ("body_region", "organ", "substructure", "finding", "finding_part")

_COLUMNS: dict[str, type] = {
    "level": str, "name": str, "synonyms": list, "aliases": list, "adjective": str, "plural": str, "laterality": bool,
    "countable": bool, "part_of": str, "site": list, "is_a": str, "also_is": list, "coarse": str, "sct": str,
    "sct_category": str, "sct_region": str,
}  # fmt: skip

Code = tuple[str, str, str]  # coding scheme, value, meaning, as in a DICOM code sequence


@dataclass(frozen=True, slots=True)
class Label:
    """One node of the label tree, complete: what the file takes for granted is filled in.

    Attributes:
        id: For ever the same, for example ``abdomen.kidney.tumor``.
        name: American English, singular: ``kidney tumor``.
        level: One of ``LEVELS``.
        part_of: Id of the anatomy (or, for a finding part, the finding) that it is a part of, or None.
        is_a: Id of the kind that it is, or None.
        site: Ids of the anatomy where a finding is located; empty for anatomy.
        synonyms: Other words, British spelling of the name included.
        adjective: ``renal`` of ``kidney``, or empty.
        plural: ``kidney tumors``.
        laterality: True where the region can be the patient's left or right one.
        countable: True where one image may show several, each a region of its own.
        coarse: One of about forty classes.
        codes: ``category``, ``type`` and perhaps ``region``: (scheme, value, meaning) of DICOM SEG's
            SegmentedPropertyCategory, SegmentedPropertyType and AnatomicRegion code sequences; empty where no code is
            known. The side is a modifier, not a code of the label.
        also_is: Ids of further kinds that it is.
        aliases: Raw spellings of sources; resolved, never spoken.
    """

    id: str
    name: str
    level: str
    part_of: str | None = None
    is_a: str | None = None
    site: tuple[str, ...] = ()
    synonyms: tuple[str, ...] = ()
    adjective: str = ""
    plural: str = ""
    laterality: bool = False
    countable: bool = False
    coarse: str = ""
    codes: dict[str, Code] = field(default_factory=dict)
    also_is: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def is_finding(self) -> bool:
        """True for a finding or a part of one, False for anatomy."""
        return self.level.startswith("finding")


class LabelTree:
    """Labels by id, with the questions that the rest of medglip asks of them.

    >>> tree = label_tree()
    >>> tree.resolve("kidney_left")
    ('abdomen.kidney', 'left')
    >>> tree.concept_name("abdomen.kidney@left")
    'left kidney'
    """

    def __init__(self, labels: Iterable[Label]) -> None:
        self._labels = {label.id: label for label in labels}
        self._kinds: dict[str, frozenset[str]] = {}

    def __getitem__(self, label_id: str) -> Label:
        try:
            return self._labels[label_id]
        except (KeyError, TypeError):
            near = get_close_matches(str(label_id), self._labels, n=3)
            raise SourceError(
                f"Label tree: found {label_id!r}; allowed: ids of schemas/labels.toml{_or_nearest(near)}."
            ) from None

    def __contains__(self, label_id: object) -> bool:
        return label_id in self._labels

    def __iter__(self) -> Iterator[Label]:
        return iter(self._labels.values())

    def __len__(self) -> int:
        return len(self._labels)

    def resolve(self, raw: str) -> tuple[str, Laterality]:
        """Label id and the patient's side of a source's raw label.

        Tried in this order: id or concept; name, synonym or alias; the same with a side parsed off. Case, separators,
        plural and British spelling make no difference.

        Args:
            raw: As the source writes it: ``rib_left_9``, ``Frontal_Sup_L``, ``Lt Lung``, ``breast tumour``.

        Returns:
            ``(label id, "left" | "right" | "bilateral" | None)``.

        Raises:
            SourceError: nothing fits; the sentence names the nearest known words.

        >>> label_tree().resolve("Lung_R")
        ('thorax.lung', 'right')
        """
        if raw in self._labels:
            return raw, None
        if isinstance(raw, str) and "@" in raw:
            return self.split(raw)
        words = words_of(str(raw))
        found = self._by_key.get(key_of_words(words))
        if found:
            return found, None
        side, rest = side_parsed_off(words)
        found = self._by_key.get(key_of_words(rest)) if side else None
        if found and self._labels[found].laterality:
            return found, side
        if found:
            raise SourceError(
                f"Raw label {raw!r}: found the side {side!r}; allowed: none, because {found!r} has no left and right; "
                "map the raw label to an id in the source's label map."
            )
        near = get_close_matches(key_of_words(rest or words), self._by_key, n=3, cutoff=0.7)
        names = list(dict.fromkeys(self._labels[self._by_key[key]].name for key in near))
        raise SourceError(
            f"Raw label {raw!r}: no label has this name{_or_nearest(names)}; map it in the source's label map, or add "
            "it to schemas/labels.toml."
        )

    def resolve_codes(self, type_value: str, region_value: str = "", modifier_value: str = "") -> tuple[str, Laterality]:
        """Label id and side of a segment's SNOMED CT code values.

        Args:
            type_value: Code value of SegmentedPropertyTypeCodeSequence.
            region_value: Code value of AnatomicRegionSequence; empty for none.
            modifier_value: Code value of the modifier of either; empty for none.

        Raises:
            SourceError: no label has these codes.

        >>> label_tree().resolve_codes("64033007", modifier_value="7771000")
        ('abdomen.kidney', 'left')
        """
        found = self._by_code.get((type_value, region_value))
        if not found:
            raise SourceError(
                f"Codes: found type {type_value!r}, region {region_value!r}; allowed: codes of schemas/labels.toml; "
                "map the segment's label in the source's label map."
            )
        return found, _SIDE_OF_MODIFIER.get(modifier_value) if self._labels[found].laterality else None

    def name(self, label_id: str, laterality: Laterality = None) -> str:
        """What to call it: ``kidney``, ``left kidney`` or, for bilateral, ``both kidneys``."""
        label = self[label_id]
        if laterality == "bilateral" and label.laterality:
            return f"both {label.plural}"
        return f"{laterality} {label.name}" if laterality in ("left", "right") else label.name

    def split(self, concept: str) -> tuple[str, Laterality]:
        """``abdomen.kidney@left`` as ``("abdomen.kidney", "left")``; the side is None where the concept has none.

        Raises:
            SourceError: no such label, or a side that is neither left nor right.
        """
        label_id, at, side = concept.partition("@")
        if at and side not in ("left", "right"):
            raise SourceError(f"Concept {concept!r}: found side {side!r}; allowed: left, right.")
        laterality: Laterality = "left" if side == "left" else "right" if side == "right" else None
        return self[label_id].id, laterality

    def concept_name(self, concept: str) -> str:
        """``left kidney`` of ``abdomen.kidney@left``."""
        return self.name(*self.split(concept))

    def body_region(self, label_id: str) -> str:
        """Id of the body region that it belongs to: by parts and site, not by kind."""
        label = self[label_id]
        while label.level != "body_region":
            label = self[label.part_of or label.site[0]]
        return label.id

    def ancestors(self, label_id: str) -> tuple[str, ...]:
        """Ids upward through part_of, site, is_a and also_is, nearest first, each once."""
        found: dict[str, None] = {}
        queue = deque([self[label_id]])
        while queue:
            label = queue.popleft()
            for above in (label.part_of, *label.site, label.is_a, *label.also_is):
                if above and above not in found:
                    found[above] = None
                    queue.append(self[above])
        return tuple(found)

    def covers(self, general: str, specific: str) -> bool:
        """True where a region of ``specific`` also answers ``general``: it is the same or a kind of it, on that side.

        A part does not answer for the whole: a region of the upper lobe is no answer to "lung".

        >>> tree = label_tree()
        >>> tree.covers("abdomen.kidney", "abdomen.kidney@left"), tree.covers("abdomen.kidney@left", "abdomen.kidney")
        (True, False)
        """
        (kind, side), (label_id, own_side) = self.split(general), self.split(specific)
        return (side is None or side == own_side) and (kind == label_id or kind in self._kinds_of(label_id))

    def children(self, label_id: str) -> tuple[str, ...]:
        """Ids directly under it in the file's order of ids: its parts, kinds and findings."""
        return self._under.get(self[label_id].id, ())

    def search(self, word: str) -> list[Label]:
        """Labels whose id, name, synonyms or aliases contain a word, in the order of the tree.

        Case, separators, plural and British spelling make no difference.
        """
        plain, key = word.strip().lower(), key_of_words(words_of(word))
        found = [
            label for label in self
            if any(plain in text.lower() or (key and key in key_of_words(words_of(text)))
                   for text in (label.id, label.name, *label.synonyms, *label.aliases))
        ]  # fmt: skip
        return found if plain else []

    def nearest(self, word: str, most: int = 5) -> list[Label]:
        """Labels with a name, synonym or alias that is spelt almost like this, the nearest first."""
        words = words_of(word)
        keys = get_close_matches(key_of_words(side_parsed_off(words)[1] or words), self._by_key, n=2 * most, cutoff=0.6)
        return [self._labels[label_id] for label_id in list(dict.fromkeys(self._by_key[key] for key in keys))[:most]]

    def _kinds_of(self, label_id: str) -> frozenset[str]:
        if label_id not in self._kinds:
            label = self._labels[label_id]
            above = [kind for kind in (label.is_a, *label.also_is) if kind]
            self._kinds[label_id] = frozenset(above).union(*(self._kinds_of(kind) for kind in above))
        return self._kinds[label_id]

    @cached_property
    def _under(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        for label in self:
            if label.level != "body_region":
                found.setdefault(_above(label.id, self._labels), []).append(label.id)
        return {above: tuple(ids) for above, ids in found.items()}

    @cached_property
    def _by_key(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for label in self:
            for text in (label.name, label.plural, *label.synonyms, *label.aliases):
                other = found.setdefault(key_of_words(words_of(text)), label.id)
                if other != label.id:
                    raise SourceError(f"labels.toml: {text!r} names {other!r} and {label.id!r}; allowed: one label; drop one.")
        for label in self:  # "hepatic tumor" and "tumor of the liver" beside "liver tumor"
            for site in (self._labels[one] for one in label.site if label.name.startswith(f"{self._labels[one].name} ")):
                bare = label.name.removeprefix(site.name)
                for text in (f"{site.adjective}{bare}" if site.adjective else label.name, f"{bare} {site.name}"):
                    found.setdefault(key_of_words(words_of(text)), label.id)
        return found

    @cached_property
    def _by_code(self) -> dict[tuple[str, str], str]:
        return {
            (label.codes["type"][1], label.codes["region"][1] if "region" in label.codes else ""): label.id
            for label in self
            if label.codes
        }


@cache
def label_tree() -> LabelTree:
    """The label tree of this installation, read once from ``schemas/labels.toml``."""
    return LabelTree(read_labels((shelf("schemas") / "labels.toml").read_text(encoding="utf-8")))


def read_labels(toml: str) -> list[Label]:
    """Labels of a tree file, in its order, with what the file takes for granted filled in.

    Args:
        toml: The text of ``labels.toml``.

    Raises:
        SourceError: the file names a label that it does not have, or goes round in a circle.
    """
    rows: dict[str, dict] = {}
    for region, table in tomllib.loads(toml).items():
        rows[region] = {"level": "body_region"} | {key: value for key, value in table.items() if key not in LEVELS}
        for level in LEVELS[1:]:
            for label_id, row in table.get(level, {}).items():
                rows[label_id] = row | {"level": level}
    for label_id, row in rows.items():
        _check_row(label_id, row)
    done: dict[str, Label] = {}
    for label_id in rows:
        _complete(label_id, rows, done, ())
    return [done[label_id] for label_id in rows]


def _complete(label_id: str, rows: dict[str, dict], done: dict[str, Label], below: tuple[str, ...]) -> Label:
    """One label with its defaults; those that it depends on are completed first."""
    if label_id in done:
        return done[label_id]
    if label_id not in rows or label_id in below:
        raise SourceError(
            f"labels.toml: {' > '.join((*below, label_id))} leads nowhere or in a circle; allowed: ids of the file."
        )

    def label(other: str) -> Label:
        return _complete(other, rows, done, (*below, label_id))

    row = rows[label_id]
    level, is_a, also_is = row["level"], row.get("is_a"), tuple(row.get("also_is", ()))
    above = label(_above(label_id, rows)) if level != "body_region" else None
    if level == "finding" and is_a is None and above and above.level == "finding":
        is_a = above.id
    kind = label(is_a) if is_a else None
    for other in also_is:
        label(other)
    part_of, site = row.get("part_of"), tuple(row.get("site", ()))
    if level == "finding":
        site = site or ((above.id,) if above and not above.is_finding else above.site if above else ())
    elif part_of is None and above:
        part_of = kind.part_of if kind and above.id in (kind.id, kind.is_a) else above.id
    container = label(part_of or site[0]) if above else None
    done[label_id] = Label(
        id=label_id, name=row["name"], level=level, part_of=part_of, is_a=is_a, site=site, also_is=also_is,
        synonyms=_with_british(row["name"], row.get("synonyms", ())), aliases=tuple(row.get("aliases", ())),
        adjective=row.get("adjective", ""), plural=row.get("plural") or plural_of(row["name"]),
        laterality=row.get("laterality", above.laterality if above else False),
        countable=row.get("countable", level == "finding" or bool(kind and kind.countable)),
        coarse=row.get("coarse") or (kind or container or done[label_id]).coarse, codes=_codes_of(row),
    )  # fmt: skip
    return done[label_id]


def _check_row(label_id: str, row: dict) -> None:
    """Refuse a row that ``schemas/labels.schema.json`` does not allow: what it may say, and as what."""
    who = f"labels.toml: {label_id!r}"
    if not re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)*", label_id) or (row["level"] == "body_region") == ("." in label_id):
        raise SourceError(f"{who}: allowed: an id like 'thorax.lung' in a level, like 'thorax' for a body region; rename it.")
    for key, value in row.items():
        words = value if isinstance(value, list) else [value]
        fits = type(value) is _COLUMNS.get(key) and (type(value) is bool or all(isinstance(w, str) and w for w in words))
        if not fits or (key.startswith("sct") and not re.fullmatch(r"\S+ \S.*", value)):
            raise SourceError(f"{who}: found {key} = {value!r}; allowed: what the file's header says; correct it.")
    if missing := [key for key in ("name", "coarse")[: 2 - ("." in label_id)] if key not in row]:
        raise SourceError(f"{who}: {missing[0]!r} is missing; it is required; add it.")


def _above(label_id: str, rows: Mapping[str, object]) -> str:
    """The nearest id above: without its last word, or its last two..."""
    while label_id:
        label_id = label_id.rpartition(".")[0]
        if label_id in rows:
            return label_id
    raise SourceError(f"labels.toml: {label_id!r} is under no body region; allowed: ids that start with one.")


_SIDE_OF_MODIFIER: dict[str, Laterality] = {"7771000": "left", "24028007": "right", "51440002": "bilateral"}


def _codes_of(row: dict) -> dict[str, Code]:
    if "sct" not in row:
        return {}
    anatomy = "123037004 Anatomical Structure"
    usual = "49755003 Morphologically Altered Structure" if row["level"].startswith("finding") else anatomy
    texts = {"category": row.get("sct_category", usual), "type": row["sct"], "region": row.get("sct_region")}
    return {name: ("SCT", *text.split(" ", 1)) for name, text in texts.items() if text}


def _with_british(name: str, synonyms: Iterable[str]) -> tuple[str, ...]:
    return (*synonyms, british(name)) if british(name) != name else tuple(synonyms)


def _or_nearest(names: list[str]) -> str:
    return f" (nearest: {', '.join(map(repr, names))})" if names else ""
