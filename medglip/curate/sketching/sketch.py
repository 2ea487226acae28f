"""The text of a TOML to start from, with comments that say what is left to do. Writes no file."""

import importlib
import json
import re
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import Any

from medglip.curate.layout import listed
from medglip.curate.sketching.contents import guess
from medglip.curate.sketching.guessed import TODO, Guess
from medglip.curate.sketching.shapes import SPLIT_WORDS, Shape, shapes
from medglip.curate.sketching.trial import tried
from medglip.errors import InputError, SourceError
from medglip.records import MODALITIES, concept_of, label_tree

_SHOWN = 12  # forms of paths in the comment
_KEY = re.compile(r"[A-Za-z0-9_-]+")


def sketch(
    name: str, folder: Path | None = None, *, converter: str | None = None, modality: str | None = None
) -> tuple[str, tuple[str, ...]]:
    """A TOML to start from.

    Args:
        name: Name of the source: lower-case letters, digits and ``_``.
        folder: Its files; what they show is filled in, the rest is left to do.
        converter: A file of converters/; None guesses it.
        modality: One of ``medglip.records.MODALITIES``; None where the files do not say leaves it to do.

    Returns:
        The text, and what is left to do in it or to look at, in words.

    Raises:
        InputError: the name or modality is not allowed, the converter is not known, or the folder holds no file.
    """
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise InputError(f"Name of a source: found {name!r}; allowed: lower-case letters, digits and _.")
    if modality is not None and modality not in MODALITIES:
        raise InputError(f"Modality: found {modality!r}; allowed: {', '.join(MODALITIES)}.")
    if converter is not None:
        _converter(converter)
    paths = listed(folder) if folder else ()
    found = shapes(paths)
    thought = guess(folder, found) if folder else Guess(converter or TODO, {})
    if converter and converter != thought.converter:
        seen = f"converter: the files look like {thought.converter}" if folder and thought.converter != TODO else ""
        thought = Guess(converter, {}, {}, (), thought.modality, (seen,) if seen else ())
    if thought.modality and modality and modality != thought.modality:
        thought = replace(thought, doubts=(*thought.doubts, f"modality: the files say {thought.modality}, not {modality}"))
    thought = replace(thought, modality=modality or thought.modality)
    body, todo = _body(thought)
    head = _head(name, found)
    text = "\n".join([*head, "", *body]) + "\n"
    if not folder:
        return text, ("title", "licence", *todo)
    line, wrong = tried(text, folder)
    text = "\n".join([*head, f"# {line}", *(f"# {TODO}: {_one_line(doubt)}" for doubt in wrong), "", *body]) + "\n"
    return text, ("title", "licence", *todo, *wrong)


def _head(name: str, found: list[Shape]) -> list[str]:
    lines = [
        "# A source for medglip. How to go on: docs/guide/add-a-source.md; the grammar: medglip/curate/grammar.py.",
        "# Try it: medglip convert THIS.toml INPUT DATASET --limit 5, then medglip preview DATASET.",
        f'name = "{name}"',
        f'title = ""      # {TODO}: what it is, in one line',
        f'licence = ""      # {TODO}: SPDX id or text; internal, where nobody may have it',
        '# names = "public"      # only where the names of files are published ids; without it they are stored hashed',
        '# page = "https://..."',
        '# citation = "..."',
    ]
    if found:
        lines += ["", f"# {sum(len(shape.paths) for shape in found)} files lie in the folder:"]
        lines += [f"#   {len(shape.paths):>6}  {_one_line(shape.pattern)}" for shape in found[:_SHOWN]]
        lines += [f"#   and {len(found) - _SHOWN} other forms"] if len(found) > _SHOWN else []
    return lines


def _body(thought: Guess) -> tuple[list[str], list[str]]:
    """The part, and what is left to do in it."""
    known = None if thought.converter == TODO else _converter(thought.converter)
    files, labels = _files(thought, known), _labels(thought)
    todo = [] if known else ["converter: the file of converters/ that reads the format"]
    if thought.modality is None:
        todo.append(f"modality: one of {', '.join(MODALITIES)}")
    if any(line.endswith(f'"{TODO}"') for line in files):
        todo.append("files: a pattern for each role")
    if TODO in str(thought.options):
        todo.append("options: " + ", ".join(key for key, value in thought.options.items() if TODO in str(value)))
    left = [raw for raw, label, _ in labels if label == TODO]
    if left:
        todo.append(f"labels: {', '.join(map(repr, left[:6]))}{' ...' if len(left) > 6 else ''} ({len(left)} in all)")
    regions = sorted({label_tree().body_region(_resolved(raw, thought)[0]) for raw, label, _ in labels if label != TODO})
    lines = [
        "[[part]]",
        f'converter = "{thought.converter}"      # {_first_line(known)}',
        f'modality = "{thought.modality or TODO}"',
        f"# field = {json.dumps(regions or ['thorax'])}      # what anatomy the images show, ALL of it: labels of any other are"
        " then impossible",
        *_patient(thought),
        '# exhaustive = "all"      # only where every label below was marked wherever it is: then an image without one is a'
        " negative",
        *_split(thought),
        *(f"# {TODO}: {_one_line(doubt)}" for doubt in thought.doubts),
        "",
        "[part.files]",
        *files,
        "",
        "[part.options]",
        *(f"{key} = {_toml(value)}" for key, value in thought.options.items()),
        *_options_told(known),
        "",
        '[part.labels]      # raw label = label of the tree (id, name or synonym, with its side), or "skip"',
        *(f"{_toml(raw)} = {_toml(label)}{f'      # {_one_line(near)}' if near else ''}" for raw, label, near in labels),
        *([] if labels else [f'# "raw label" = "{TODO}"']),
    ]
    return lines, [*todo, *thought.doubts]


def _patient(thought: Guess) -> list[str]:
    main = thought.files.get("image") or thought.files.get("series") or ""
    if "{patient}" in main:
        return ['patient = "{patient}"      # a guess: one folder a patient; images of one patient are never split apart']
    words = sorted(set(re.findall(r"\{([a-z_]+)", main)))
    told = f" (here: {', '.join(words)})" if words else ""
    return [
        f'# patient = "{{patient}}"      # a name that a pattern remembers{told}: images of one patient are never split apart'
    ]


def _split(thought: Guess) -> list[str]:
    main = thought.files.get("image") or thought.files.get("series") or ""
    if "{split}" not in main:
        return ['# split = "{split}"      # the official split, where there is one']
    words = {word: split for word, split in SPLIT_WORDS.items() if word != split}
    return ['# split = "{split}"      # if the folders are the official split', f"# split_words = {_toml(words)}"]


def _files(thought: Guess, known: ModuleType | None) -> list[str]:
    """Lines of ``[part.files]``."""
    if thought.files:
        return [f"{role} = {_toml(pattern)}" for role, pattern in thought.files.items()]
    roles = known.ROLES if known else ("image",)
    return [f'{role} = "{TODO}"' if at == 0 else f'# {role} = "..."' for at, role in enumerate(roles)]


def _resolved(raw: str, thought: Guess) -> tuple[str, Any]:
    return label_tree().resolve(thought.names.get(raw, raw))


def _labels(thought: Guess) -> list[tuple[str, str, str]]:
    """Raw label, label or ``TODO``, and the nearest ones."""
    tree, lines = label_tree(), []
    for raw in thought.labels:
        try:
            lines.append((raw, concept_of(*_resolved(raw, thought)), ""))
        except SourceError:
            near = [one.name for one in tree.nearest(raw, 3)] if re.search("[A-Za-z]{3}", raw) and raw != "object" else []
            lines.append((raw, TODO, f"near: {', '.join(near)}" if near else ""))
    return lines


def _converter(name: str) -> ModuleType:
    try:
        return importlib.import_module(f"medglip.converters.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"medglip.converters.{name}":
            raise
        known = converter_names()
        near = get_close_matches(name, known, n=3, cutoff=0.0)
        raise InputError(f"Converter: found {name!r}; nearest known: {', '.join(near)}; all: {', '.join(known)}.") from error


def converter_names() -> tuple[str, ...]:
    """Names of the files of converters/, sorted."""
    places = importlib.import_module("medglip.converters").__path__
    return tuple(sorted({path.stem for place in places for path in Path(place).glob("[a-z]*.py")}))


def _first_line(known: ModuleType | None) -> str:
    return str(known.__doc__).partition("\n")[0] if known else f"{TODO}: the file of converters/ that reads the format"


def _options_told(known: ModuleType | None) -> list[str]:
    """The converter's own words on roles and options, as comments."""
    text = str(known.__doc__).partition("\n")[2].strip() if known else ""
    return [f"# {line}".rstrip() for line in text.splitlines()]


def _one_line(text: str) -> str:
    """A text without what would end a comment."""
    return " ".join(text.split())


def _toml(value: Any) -> str:
    """A value as TOML; JSON's strings, numbers, truths and lists are TOML's, but for keys and a character that JSON lets be."""
    if isinstance(value, dict):
        pairs = (f"{key if _KEY.fullmatch(key) else _toml(key)} = {_toml(item)}" for key, item in value.items())
        return "{ " + ", ".join(pairs) + " }"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str) and "\\" in value and not re.search(r"['\x00-\x1f\x7f]", value):
        return f"'{value}'"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
