"""A source described in TOML: the grammar, and reading it. Reads no data.

One file ``datasets/<name>.toml`` a source; no Python. Grammar (everything not marked required may be left out)::

    name = "us_busi"                 # required; letters, digits, _
    title = "..."                    # required
    licence = "CC-BY-4.0"            # required: SPDX id or text; on every record
    page = "https://..."
    citation = "..."
    access = "open"                  # open | registration | agreement | credentialed
    names = "public"                 # public: file names and case names are published ids and may be stored; private (default):
                                     # they are stored as keyed hashes
    annotation = "human"             # human | machine | synthetic: who marked the regions
    lineage = ["nih_chestxray14"]    # sources that share images with this one
    known_defects = ["..."]

    [expected]                       # counts of the whole published set; a partial copy converts, with a note
    images = 780

    [[part]]                         # required, one or more: files read the same way
    name = "slices"                  # default: the converter's name
    converter = "mask_images"        # required: a file in converters/
    modality = "ultrasound"          # required: one of medglip.records.MODALITIES
    detail = { view = "{view}" }     # modality_detail; may use the names that patterns remember
    exhaustive = ["breast tumor"]    # labels marked wherever they are, so that an image without one is a true negative;
                                     # "all" for every label below
    field = ["thorax"]               # what anatomy the images show: body regions, organs, parts of them. With it, labels of
                                     # other anatomy are impossible (medglip.store.matrix has the rule); without it, none
    possible = ["brain"]             # labels that may be there all the same, with their parts, kinds and findings
    impossible = ["femur"]           # labels that cannot be there all the same
    spacing_mm = [0.2, 0.2]          # (row, column), only where the source documents it
    patient = "{case}"               # template of the patient's id; without it every case is its own patient
    group = "{lesion}"               # template of what else must not be split apart
    patient_of = "nih_chestxray14"   # source whose patient, study and series ids these are: equal ids are one patient
    group_of = "isic2018_task3"      # the same for the ids in group
    split = "{split}"                # official split: a field, or a fixed word
    split_words = { training = "train", testing = "test" }
    text = "..."                     # template of a text of kind "finding"

    [part.files]                     # patterns by role, see medglip.curate.layout; the roles are the converter's
    image = "{class}/{case}.png"
    mask = "{class}/{case}_mask*.png"

    [part.options]                   # the converter's; its docstring lists them

    [part.options.derived]           # label of the tree -> raw labels whose union it is, where the converter takes it
    "kidney" = ["1", "2", "3"]

    [part.labels]                    # raw label -> label of the tree (id, name or synonym, with its side), or "skip"
    "255" = "breast tumor"

    [part.labels_by_name]            # instead of, or beside, a table: raw labels are looked up in the tree as they are
    enabled = true
"""

import hashlib
import json
import re
import tomllib
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from medglip.curate.source import SKIP, Derived, Named, Part, Source
from medglip.errors import SourceError
from medglip.records import MODALITIES, label_tree
from medglip.shelf import shelf
from medglip.store.matrix import labels_unseen

_ACCESS = ("open", "registration", "agreement", "credentialed")
_ANNOTATION = ("human", "machine", "synthetic")
_NAMES = ("public", "private")


def source_names() -> tuple[str, ...]:
    """Names of the sources that medglip knows, sorted."""
    return tuple(sorted(path.stem for path in shelf("datasets").glob("*.toml")))


def load_source(name_or_path: str | Path) -> Source:
    """The source of that name in ``datasets/``, or described by the TOML at that path.

    Raises:
        SourceError: there is none, its TOML is not well formed, or a label, modality or converter is unknown.
    """
    path = Path(name_or_path)
    if path.suffix != ".toml":
        path = shelf("datasets") / f"{name_or_path}.toml"
        if not path.is_file():
            near = get_close_matches(str(name_or_path), source_names(), n=3, cutoff=0.3)
            raise SourceError(
                f"There is no source {str(name_or_path)!r}; nearest known: {', '.join(near) or 'none'}."
                " `medglip sources` lists all; or give the path of a TOML of your own."
            )
    try:
        text = path.read_bytes()
        data = tomllib.loads(text.decode("utf-8"))
    except OSError as error:
        raise SourceError(f"The source {str(path)!r} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SourceError(f"The source {str(path)!r} is not well-formed TOML: {error}.") from error
    return _source(data, path, hashlib.sha256(text).hexdigest())


def _source(data: dict[str, Any], path: Path, digest: str) -> Source:
    where = f"datasets/{path.name}"
    _known(data, {"name", "title", "licence", "page", "citation", "access", "names", "annotation", "lineage", "known_defects",
                  "expected", "part"}, where)  # fmt: skip
    for key in ("name", "title", "licence", "part"):
        if not data.get(key):
            raise SourceError(f"{where}: {key!r} is missing or empty; it is required.")
    if not isinstance(data["name"], str) or not re.fullmatch(r"[a-z0-9_]+", data["name"]):
        raise SourceError(f"{where}: name is {data['name']!r}; allowed: lower-case letters, digits and _.")
    _one_of(data.get("access", "open"), _ACCESS, f"{where}: access")
    annotation = _one_of(data.get("annotation", "human"), _ANNOTATION, f"{where}: annotation")
    _one_of(data.get("names", "private"), _NAMES, f"{where}: names")
    for number, entry in enumerate(data["part"], 1) if isinstance(data["part"], list) else ():
        _check_keys(entry, f"{where} part {number}")
    _well_formed(data, where)
    parts = tuple(_part(entry, data, annotation, f"{where} part {n}") for n, entry in enumerate(data["part"], 1))
    return Source(
        name=data["name"], title=data["title"], licence=data["licence"], parts=parts, page=data.get("page", ""),
        citation=data.get("citation", ""), access=data.get("access", "open"), annotation=annotation,
        public_names=data.get("names") == "public", lineage=tuple(data.get("lineage", ())),
        known_defects=tuple(data.get("known_defects", ())),
        expected=dict(data.get("expected", {})), digest=digest,
    )  # fmt: skip


def _part(entry: dict[str, Any], data: dict[str, Any], annotation: str, where: str) -> Part:
    labels = {str(raw): _resolved(text, where) for raw, text in entry.get("labels", {}).items()}
    by_name = bool(entry.get("labels_by_name", {}).get("enabled", False))
    derived = _derived(entry.get("options", {}).get("derived", {}), labels, by_name, where)
    exhaustive = entry.get("exhaustive", ())
    concepts = (
        {named.concept for named in (*labels.values(), *(one.named for one in derived)) if named}
        if exhaustive == "all"
        else {named.concept for text in exhaustive if (named := _resolved(text, where))}
    )
    concepts |= {one.named.concept for one in derived if _searched(one, labels, concepts)}
    part = Part(
        name=entry.get("name", entry["converter"]), converter=entry["converter"],
        modality=_one_of(entry["modality"], MODALITIES, f"{where}: modality"), source=data["name"],
        licence=data["licence"], annotation=annotation, public_names=data.get("names") == "public",
        files=dict(entry["files"]), labels=labels, by_name=by_name,
        exhaustive=tuple(sorted(concepts)), field=_ids(entry, "field", where), possible=_ids(entry, "possible", where),
        impossible=_ids(entry, "impossible", where), detail=dict(entry.get("detail", {})),
        spacing_mm=tuple(entry["spacing_mm"]) if "spacing_mm" in entry else None,
        patient=entry.get("patient"), group=entry.get("group"), patient_of=entry.get("patient_of"),
        group_of=entry.get("group_of"), split=entry.get("split"),
        split_words=dict(entry.get("split_words", {})), text=entry.get("text"), options=dict(entry.get("options", {})),
        derived=derived,
    )  # fmt: skip
    _check_field(part, where)
    return part


def _derived(table: Any, labels: dict[str, Named | None], by_name: bool, where: str) -> tuple[Derived, ...]:
    """The labels that ``[part.options.derived]`` makes of raw ones.

    Raises:
        SourceError: a name has no place in the tree, a raw label no entry, or the union is that of one of its parts.
    """
    if not isinstance(table, dict):
        raise SourceError(f"{where}: derived is {table!r}; allowed: a table of label = list of raw labels.")
    found: list[Derived] = []
    for text, raws in table.items():
        who = f"{where}: the derived label {text!r}"
        if not isinstance(raws, list) or not raws or not all(isinstance(raw, str) for raw in raws):
            raise SourceError(f'{who} is {raws!r}; allowed: a list of raw labels, such as ["1", "2"].')
        named = None if text == SKIP else _resolved(text, where)
        if named is None:
            raise SourceError(f"{who} is no label; allowed: labels of the tree. Leave the entry out instead.")
        known = labels | ({raw: _resolved(raw, who) for raw in raws if raw not in labels} if by_name else {})
        if unknown := [raw for raw in raws if raw not in known]:
            raise SourceError(
                f"{who} is made of the raw label {unknown[0]!r}, which has no entry in [part.labels]; known:"
                f' {", ".join(map(repr, labels)) or "none"}. Correct it, or add the entry ("{SKIP}" if it is nothing else).'
            )
        taken = [raw for raw, other in known.items() if other == named]
        if taken or named in [one.named for one in found]:
            other = f"the raw label {taken[0]!r}" if taken else "another derived label"
            raise SourceError(
                f"{who} is {named.concept!r}, and so is {other}; allowed: one of the two."
                f' Where a raw label is what its parts leave over, write "{SKIP}" for it in [part.labels].'
            )
        found.append(Derived(named, tuple(dict.fromkeys(raws))))
    return tuple(found)


def _searched(derived: Derived, labels: dict[str, Named | None], concepts: set[str]) -> bool:
    """Whether every part of a derived label is marked wherever it is; of a skipped part, that is not known."""
    parts = [labels.get(raw) for raw in derived.raw]
    return all(named is not None and named.concept in concepts for named in parts)


def _check_keys(entry: dict[str, Any], where: str) -> None:
    _known(entry, {"name", "converter", "modality", "detail", "exhaustive", "field", "possible", "impossible",
                   "spacing_mm", "patient", "group", "patient_of", "group_of", "split", "split_words", "text", "files",
                   "options", "labels", "labels_by_name"}, where)  # fmt: skip
    for key in ("converter", "modality", "files"):
        if not entry.get(key):
            raise SourceError(f"{where}: {key!r} is missing or empty; it is required.")


def _check_field(part: Part, where: str) -> None:
    """Refuse a field or an ``impossible`` that contradicts the part's own labels."""
    tree = label_tree()
    if strange := [label for label in part.field if tree[label].is_finding]:
        raise SourceError(f"{where}: field names {strange[0]!r}; allowed: anatomy, not findings.")
    mapped = sorted({named.label for named in part.all_named})
    facts = part.facts | {"exhaustive": []}
    if unseen := labels_unseen(mapped, part.modality, facts, tree):
        raise SourceError(
            f"{where}: its labels name {unseen[0]!r}, which a picture of {part.modality!r} with the field"
            f" {list(part.field)} cannot show; add its anatomy to field, or it to possible."
        )


def _ids(entry: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    """Labels that a list names, without sides."""
    named = [_resolved(text, where) for text in entry.get(key, ())]
    if sided := [one for one in named if one is None or one.laterality]:
        raise SourceError(f"{where}: {key} names {sided[0]!r}; allowed: labels without a side.")
    return tuple(sorted({one.label for one in named if one}))


@cache
def _schema() -> Any:
    """Checker of ``schemas/source.schema.json``."""
    import jsonschema_rs

    return jsonschema_rs.validator_for(json.loads((shelf("schemas") / "source.schema.json").read_text(encoding="utf-8")))


def _well_formed(data: dict[str, Any], where: str) -> None:
    try:
        errors = list(_schema().iter_errors(data))
    except ValueError as error:  # a TOML date has no place in JSON
        raise SourceError(f"{where}: {error}; write dates and times as text, in quotes.") from error
    for wrong in errors:
        path = "/".join(map(str, wrong.instance_path))
        raise SourceError(f"{where}: {path or 'the file'}: {wrong.message}; see schemas/source.schema.json.")


def _resolved(text: str, where: str) -> Named | None:
    if text == SKIP:
        return None
    try:
        return Named(*label_tree().resolve(text))
    except SourceError as error:
        raise SourceError(f"{where}: {error}") from error


def _known(entry: dict[str, Any], allowed: set[str], where: str) -> None:
    if extra := sorted(set(entry) - allowed):
        raise SourceError(f"{where}: unknown key {extra[0]!r}; allowed: {', '.join(sorted(allowed))}.")


def _one_of(value: str, allowed: tuple[str, ...], where: str) -> str:
    if value not in allowed:
        raise SourceError(f"{where} is {value!r}; allowed: {', '.join(allowed)}.")
    return value
