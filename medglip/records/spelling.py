"""Spelling of labels: American and British, singular and plural, sides, CamelCase. Knows no label tree."""

import re
import unicodedata

from medglip.records.record import Laterality

# Starts of words, British to American: raw labels are compared in American, phrases come in both.
_AMERICAN = {
    "tumour": "tumor", "haemo": "hemo", "haema": "hema", "oedema": "edema", "oesoph": "esoph", "foet": "fet",
    "caec": "cec", "naev": "nev", "ischaem": "ischem", "leukaem": "leukem", "leucocyt": "leukocyt", "grey": "gray",
    "fibre": "fiber", "coeliac": "celiac", "goitre": "goiter", "faeces": "feces", "artefact": "artifact",
    "orthopaed": "orthoped", "neovascularis": "neovasculariz",
}  # fmt: skip
_BRITISH = {american: british for british, american in _AMERICAN.items()}
_TO_AMERICAN = re.compile(rf"\b(?:{'|'.join(_AMERICAN)})")
_TO_BRITISH = re.compile(rf"\b(?:{'|'.join(_BRITISH)})")

# Ends of words, singular to plural, where English keeps Latin and Greek.
_PLURALS = {
    "vertebra": "vertebrae", "nucleus": "nuclei", "nevus": "nevi", "gyrus": "gyri", "sulcus": "sulci",
    "bronchus": "bronchi", "calculus": "calculi", "thrombus": "thrombi", "embolus": "emboli", "humerus": "humeri",
    "thalamus": "thalami", "hippocampus": "hippocampi", "atrium": "atria", "septum": "septa", "ganglion": "ganglia",
    "phalanx": "phalanges", "diverticulum": "diverticula", "tasis": "tases", "osis": "oses", "physis": "physes",
    "thesis": "theses", "thorax": "thoraces", "genu": "genua", "itis": "itides",
    "fasciculus": "fasciculi", "lemniscus": "lemnisci", "pallidus": "pallidi", "vermis": "vermes", "cortex": "cortices",
    "rynx": "rynges", "fundus": "fundi", "stomach": "stomachs",
}  # fmt: skip
_SINGULARS = {plural: singular for singular, plural in _PLURALS.items()}
_TO_PLURAL = re.compile(rf"(?:{'|'.join(_PLURALS)})$")
_TO_SINGULAR = re.compile(rf"(?:{'|'.join(_SINGULARS)})\b")
_REGULAR_PLURAL = re.compile(r"(?:(?<=[^aeiou ])(ies)|(?<=ss|sh|ch|us|.x)es|(?<=[a-z]{2})(?<![sui])s)\b")
_NUMBERED = re.compile(r"(.+) (\d+|[IVX]+B?)")

_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_SEPARATORS = re.compile(r"[^a-z0-9]+")
_SIDES: dict[str, Laterality] = {
    "left": "left", "lt": "left", "right": "right", "rt": "right", "bilateral": "bilateral", "both": "bilateral"
}  # fmt: skip
_SIDE_LETTERS: dict[str, Laterality] = {"l": "left", "r": "right"}  # only as first or last word


def british(text: str) -> str:
    """A text in British spelling.

    >>> british("fetal tumor")
    'foetal tumour'
    """
    return _TO_BRITISH.sub(lambda found: _BRITISH[found[0]], text)


def plural_of(name: str) -> str:
    """English plural of a name: of the word before "of", and of that before a number.

    >>> plural_of("lobe of the lung"), plural_of("liver segment IV")
    ('lobes of the lung', 'liver segments IV')
    """
    head, of, rest = name.partition(" of ")
    numbered = _NUMBERED.fullmatch(head)
    if numbered:
        plural = f"{plural_of(numbered[1])} {numbered[2]}"
    elif _TO_PLURAL.search(head):
        plural = _TO_PLURAL.sub(lambda found: _PLURALS[found[0]], head)
    elif head.endswith("y") and head[-2:-1] not in "aeiou":
        plural = f"{head[:-1]}ies"
    else:
        plural = f"{head}es" if head.endswith(("s", "x", "sh", "ch")) else f"{head}s"
    return plural + of + rest


def words_of(raw: str) -> list[str]:
    """Words of a raw label: lower case, singular, American; separators, "of" and "the" dropped, CamelCase parted."""
    if not raw.isascii():
        raw = unicodedata.normalize("NFKD", raw)
    text = _CAMEL.sub(" ", raw.replace("'", "").replace("\u2019", "")).lower()
    text = _TO_AMERICAN.sub(lambda found: _AMERICAN[found[0]], _SEPARATORS.sub(" ", text))
    text = _TO_SINGULAR.sub(lambda found: _SINGULARS[found[0]], text)
    text = _REGULAR_PLURAL.sub(lambda found: "y" if found[1] else "", text)
    return [word for word in text.split() if word not in ("of", "the")]


def key_of_words(words: list[str]) -> str:
    """Words joined to one; a mark stays between numbers, so that lobule 4-5 is not 45."""
    return re.sub(r"(?<=\d) (?=\d)", "_", " ".join(words)).replace(" ", "").replace("disk", "disc")


def side_parsed_off(words: list[str]) -> tuple[Laterality, list[str]]:
    """The side that the words name, and the other words; None where they name none, or two."""
    sides = {place: _SIDES[word] for place, word in enumerate(words) if word in _SIDES}
    for place in {0, len(words) - 1} if words and not sides else ():
        if words[place] in _SIDE_LETTERS:
            sides[place] = _SIDE_LETTERS[words[place]]
    if len(sides) != 1:
        return None, words
    ((place, side),) = sides.items()
    rest = [word for number, word in enumerate(words) if number != place and word not in ("on", "side", "sided")]
    return side, rest
