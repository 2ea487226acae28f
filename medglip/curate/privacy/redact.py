"""Sentences and texts without what may name a patient. Knows no records and no files.

A sentence of a reject is kept word by word: words of medglip's own sentences, short numbers and what the source's TOML says
stay; whatever else it quotes from a file, or a library says of it, goes. A text that a source asks to keep is prose: there
only what looks like an identifier is struck out, which is a rule of thumb and no de-identification.
"""

import ast
import builtins
import importlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

from medglip.store.checks.privacy import PATTERNS

STRUCK = "…"
# Of what the check on privacy looks for: what no published file name should hold. Dates and numbers often are the ids.
_EVIDENT = ("a DICOM UID", "a person's name", "a patient's name or number", "an e-mail address")
_LABELLED = "a patient's name or number"


def _either(names: Iterable[str]) -> re.Pattern[str]:
    """Any of the patterns, each up to the end of the word that it ends in; after a label, up to the end of the clause."""
    ends = {name: r"[^\r\n,;.]{0,60}" if name == _LABELLED else r"(?:(?<!\s)[^\s,;]*|(?<=\s))" for name in names}
    return re.compile("|".join(f"(?:{PATTERNS[name]}){end}" for name, end in ends.items()))


EVIDENT, _ANY = _either(_EVIDENT), _either(PATTERNS)
_QUOTED = re.compile(r"""(?<![^\s(\[{=:,])(?:'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)")(?![^\s.,;:)\]}])""")
_NUMBER = re.compile(r"[-+]?\d{1,5}(?:\.\d{1,6})?%?")
_AROUND = re.compile(r"^([(\[{\"'<]*)(.*?)([.,;:!?)\]}\"'>]*)$", re.DOTALL)
_MARKS = ("x", "-", "+", "/", "=", "<", ">", "|", "&", "[]", "()", "{}", "→", "%")
# What a broken table quotes may be megabytes of one word; its beginning says what it is.
_LONGEST = 4000
_MARK = "\ue000"  # of the private use area: stands for a name that has been replaced
# Rooms whose sentences a conversion may say.
_ROOMS = ("curate", "imaging", "records", "store")


def looks_like_a_name(text: str) -> bool:
    """Whether a name of a file or folder holds a DICOM UID, a person's name or an address."""
    return EVIDENT.search(text) is not None


def without_evident(sentence: str) -> str:
    """A sentence without DICOM UIDs, names of persons and addresses; an endless one is cut."""
    sentence = _cut(sentence)
    return EVIDENT.sub(f" {STRUCK}", sentence).replace(f"  {STRUCK}", f" {STRUCK}") if EVIDENT.search(sentence) else sentence


def masked(text: str) -> str:
    """A text in which every character of what looks like an identifier or a date is ``_``; as long as before.

    >>> masked("Seen by DOE^JANE on 2019-03-02 again, no nodule.")
    'Seen by ________ on __________ again, no nodule.'
    """
    return _ANY.sub(lambda found: re.sub(r"[^\s]", "_", found[0]), text) if _ANY.search(text) else text


def redacted(
    sentence: str, stand_ins: Mapping[str, str], quotable: frozenset[str], name_file: Callable[[str], str]
) -> str:  # fmt: skip
    """A sentence of a reject without what it says of a private file.

    Args:
        sentence: As medglip or a library wrote it.
        stand_ins: Names that are known -> what to write for them.
        quotable: What may be quoted: words of the source's own description.
        name_file: What to write for a quoted name of another file.
    """
    sentence, names = _with_stand_ins(unicodedata.normalize("NFC", _cut(sentence)), stand_ins)
    pieces: list[str] = []
    at = 0
    for quote in _QUOTED.finditer(sentence):
        pieces += [_kept_words(sentence[at : quote.start()]), _kept_quote(quote[0], quotable, names, name_file)]
        at = quote.end()
    pieces.append(_kept_words(sentence[at:]))
    result = re.sub(rf"(?:{STRUCK}\s*){{2,}}(?<!\s)|(?:{STRUCK}\s*){{2,}}(?=\s)", STRUCK, "".join(pieces))
    return re.sub(rf"{_MARK}(\d+){_MARK}", lambda mark: names[int(mark[1])], result)


def _cut(sentence: str) -> str:
    return sentence if len(sentence) <= _LONGEST else f"{sentence[:_LONGEST]} {STRUCK}"


def _with_stand_ins(sentence: str, stand_ins: Mapping[str, str]) -> tuple[str, list[str]]:
    """The sentence with a numbered mark for each known name, whatever its case and separators, and the names."""
    names = list(stand_ins.values())
    for number, raw in sorted(enumerate(stand_ins), key=lambda entry: -len(entry[1])):
        for spelling in {raw, raw.replace("/", "\\"), raw.replace("/", "\\\\"), repr(raw)[1:-1]}:
            spelling = unicodedata.normalize("NFC", spelling)
            whole = rf"(?<![\w]){re.escape(spelling)}(?![\w])"
            sentence = re.sub(whole, f"{_MARK}{number}{_MARK}", sentence, flags=re.IGNORECASE)
    return sentence, names


def _kept_quote(quote: str, quotable: frozenset[str], names: list[str], name_file: Callable[[str], str]) -> str:
    inside = quote[1:-1]
    if inside in quotable or re.fullmatch(rf"(?:{_MARK}\d+{_MARK})", inside):
        return quote
    if marks := re.findall(rf"{_MARK}\d+{_MARK}", inside):
        return f"{quote[0]}{STRUCK}{marks[-1]}{quote[0]}"  # a known name with something before or after it
    relative = not re.match(r"[/\\]|[A-Za-z]:[/\\]", inside)
    if relative and re.search(r"[^/\\]\.[A-Za-z]{2,5}(\.gz)?$", inside):
        names.append(name_file(inside))
        return f"{quote[0]}{_MARK}{len(names) - 1}{_MARK}{quote[0]}"
    if _NUMBER.fullmatch(inside) and len(inside) < 5:
        return quote
    return f"{quote[0]}{STRUCK}{quote[0]}"


def _kept_words(text: str) -> str:
    return "".join(piece if piece.isspace() or not piece else _kept_word(piece) for piece in re.split(r"(\s+)", text))


def _kept_word(word: str) -> str:
    before, middle, after = _AROUND.match(word).groups()  # type: ignore[union-attr]
    if not middle or middle in _MARKS or re.fullmatch(rf"(?:\W*{_MARK}\d+{_MARK}\W*)", middle) or _NUMBER.fullmatch(middle):
        return word
    parts = re.split(r"[-/=]", middle)
    if all(part in own_words() or _NUMBER.fullmatch(part) for part in parts) and not re.fullmatch(r"[\d/-]{6,}", middle):
        return word
    return f"{before}{STRUCK}{after}"


@cache
def own_words() -> frozenset[str]:
    """The words of the sentences that medglip itself says while it converts, as its code holds them.

    An installation without source files has none; then only numbers and names of the TOML are left of a sentence.
    """
    words = {name for name in dir(builtins) if name.endswith("Error")}
    for path in sorted(_sources()):
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (OSError, SyntaxError, ValueError):
            continue
        for text in _said(tree):
            words.update(re.findall(r"[A-Za-z_][\w'.-]*[\w]|[A-Za-z]", text))
    return frozenset(words)


def _sources() -> Iterator[Path]:
    house = Path(__file__).parents[2]
    for room in _ROOMS:
        yield from (house / room).rglob("*.py")
    for folder in importlib.import_module("medglip.converters").__path__:
        yield from Path(folder).glob("*.py")


def _said(tree: ast.AST) -> Iterator[str]:
    """Texts in code that hold a blank, less those that explain the code."""
    explained = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in explained and " " in node.value:
            yield node.value
