"""Names that must not leave the source: of files, cases and objects, and what sentences, texts and templates say of them.

A source whose TOML does not say ``names = "public"`` is private: what its files are called is stored as keyed hashes. Only
the one who has the key and the files finds a file by its hash (``medglip names``). Of a public source's names only those
are hashed that look like a patient's: DICOM UIDs, names of persons, addresses. Reads no file.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import replace
from typing import overload

from medglip.curate.privacy.allowed import HEADER, allowed_apart
from medglip.curate.privacy.keys import keyed
from medglip.curate.privacy.redact import EVIDENT, looks_like_a_name, masked, redacted, without_evident
from medglip.curate.source import Part, Source
from medglip.errors import SourceError
from medglip.records import ImageRecord, Origin, Picture, Region, Reject, Text, VolumeRecord, concept_of, label_tree

# Endings that tell a format; any other may be a part of a name, and is hashed with it.
_ENDINGS = """
    avi|bmp|csv|dcm|dicom|dic|edf|gif|gz|h5|hdr|hdf5|ima|img|jfif|jp2|jpeg|jpg|json|jsonl|mat|mgh|mgz|mha|mhd|mp4|ndpi|nhdr|nii
    |npy|npz|nrrd|parquet|pbm|pgm|png|pnm|ppm|raw|seg|svs|tar|tfw|tgz|tif|tiff|tsv|txt|vms|vsi|webp|xls|xlsx|xml|zip
"""
_ENDING = re.compile(rf"(\.({_ENDINGS}))(\.gz)?$", re.IGNORECASE | re.VERBOSE)
# "marks.json scan.png": a file, and what stands in it.
_TWO_FILES = re.compile(rf"((?:\.(?:{_ENDINGS}))(?:\.gz)?)[ ](?=[^ ])", re.IGNORECASE | re.VERBOSE)
# What converters add to a file to name a place in it: "table.csv row 12".
_PLACE_IN_FILE = re.compile(r",? (?:annotation|frame|image|line|object|page|polygon|ROI|row|segment|slice) \d+$")
# Names that converters give to templates beside those of patterns and tables: ids of a header, names of files.
_OF_CONVERTERS = ("annotated_in", "asked_in", "patientid", "series", "sop", "study")
_ANSWERS = ("yes", "no", "differ", *HEADER)
_REMEMBERED = re.compile(r"\{([a-z_]+)(?::((?:[^{}]|\{\d+(?:,\d*)?\})+))?\}")
# A closed list of words, such as {view:AP|PA}: it is in the TOML, so no patient can be in it.
_CLOSED = re.compile(r"\(?(?:\?:)?[A-Za-z_-]+(?:\|[A-Za-z_-]+)*\)?")


def hidden_file(of: Part | Source, name: str) -> str:
    """What is stored for a file: ``file-`` and a hash, with the ending that tells its format.

    Args:
        of: The source, or a part of it.
        name: Path relative to the input folder; perhaps with a place in the file after it (``table.csv row 12``).

    Returns:
        The name itself where names are public, less what looks like a patient's.
    """
    if of.public_names or not name:
        return _public_path(of, name)
    place = _PLACE_IN_FILE.search(name)
    path, where = (name[: place.start()], place[0]) if place else (name, "")
    pieces = _TWO_FILES.split(path)
    files = [*map("".join, zip(pieces[0:-1:2], pieces[1::2], strict=True)), pieces[-1]]
    return " ".join(_hashed(of, "file", file) for file in files) + where


def hidden_key(of: Part | Source, key: str) -> str:
    """What is stored for the key of a case: ``case-`` and a hash, or the key itself where names are public.

    The name of a part before a colon, as the engine writes it, stays: it is from the TOML.
    """
    if of.public_names or not key:
        return _public_path(of, key)
    for part in (of,) if isinstance(of, Part) else of.parts:
        if key == part.name or key.startswith(f"{part.name}:"):
            rest = key[len(part.name) + 1 :]
            return f"{part.name}:{hidden_key(of, rest) if rest else ''}"
    return _hashed(of, "case", key, ending=False)


@overload
def hidden(part: Part, item: Picture) -> Picture: ...
@overload
def hidden(part: Part, item: VolumeRecord) -> VolumeRecord: ...
@overload
def hidden(part: Part, item: Reject) -> Reject: ...
def hidden(part: Part, item: Picture | VolumeRecord | Reject) -> Picture | VolumeRecord | Reject:
    """What a converter yielded, as it may be stored: without the names of a private source's files, cases and objects.

    Args:
        part: Where it is from.
        item: With the names as they are. It must not have been hidden before.

    Returns:
        The same, equal for equal keys; the item itself where there is nothing to hide.
    """
    if isinstance(item, Picture):
        return item._replace(record=_hidden_record(part, item.record))
    if isinstance(item, VolumeRecord):
        return _hidden_volume(part, item)
    file, case = hidden_file(part, item.file), hidden_key(part, item.case)
    if part.public_names:
        return replace(item, file=file, case=case, detail=without_evident(item.detail))
    detail = redacted(item.detail, _stand_ins(part, item), _words_of(part), lambda name: hidden_file(part, name))
    return replace(item, file=file, case=case, detail=detail)


def check_templates(part: Part) -> None:
    """Refuse a private part whose texts would write down what its files are called.

    A template of a text, a detail or a licence may use the columns of the table ``about``, and names that a pattern
    remembers out of a closed list of words: ``{view:AP|PA}``.

    Raises:
        SourceError: a template uses another name of a pattern.
    """
    if part.public_names:
        return
    open_names = set(_OF_CONVERTERS)
    for pattern in part.files.values():
        for name, rule in _REMEMBERED.findall(pattern):
            if not _CLOSED.fullmatch(rule):
                open_names.add(name)
    texts = [entry.get("text", "") for entry in part.option("texts", ())]
    templates = [*part.detail.values(), part.text or "", part.option("licence", ""), *texts]
    for template in templates:
        if used := sorted(open_names.intersection(re.findall(r"\{([a-z0-9_]+)", template))):
            raise SourceError(
                f"datasets/{part.source}.toml: the template {template!r} would store {used[0]!r}, which is from the names of"
                f" files or an id, and names are private; allowed: columns of the table about, words that a pattern lists:"
                f' {{{used[0]}:left|right}}. Or, where the file names are published ids, names = "public".'
            )


def shows_a_face(part: Part, labels: Iterable[str]) -> bool:
    """Whether a volume, or a plane of one, may show enough of a head that a face can be made from it.

    Args:
        part: Where it is from; CT, MR and PET only.
        labels: What is marked in it. Without any, the part's field and its labels decide: all of the head.
    """
    if part.modality not in ("ct", "mr", "pet"):
        return False
    tree = label_tree()
    marked = {tree.body_region(label) for label in labels}
    if marked:
        return "head_neck" in marked
    meant = {tree.body_region(label) for label in part.field or [named.label for named in part.all_named]}
    return meant == {"head_neck"}


def _hidden_record(part: Part, record: ImageRecord) -> ImageRecord:
    origin = _hidden_origin(part, record.origin)
    if part.public_names:
        return record if origin == record.origin else replace(record, origin=origin)
    regions = tuple(_hidden_region(part, region) for region in record.regions)
    texts = tuple(_masked_text(text) for text in record.texts)
    detail = {name: masked(text) for name, text in record.modality_detail.items()}
    return replace(record, origin=origin, regions=regions, texts=texts, modality_detail=detail)


def _hidden_volume(part: Part, volume: VolumeRecord) -> VolumeRecord:
    """The volume, with a check that says so where it may show a face."""
    checks = {name: allowed_apart(said) if name == "apart_by" else said for name, said in volume.checks.items()}
    if shows_a_face(part, [instance.label for instance in volume.instances]):
        checks["face_risk"] = "yes"
    origin = _hidden_origin(part, volume.origin)
    if part.public_names:
        return replace(volume, origin=origin, checks=checks)
    checks = {name: said if said in _ANSWERS else redacted(said, {}, frozenset(HEADER), str) for name, said in checks.items()}
    instances = tuple(replace(instance, id=_hidden_instance(part, instance.id) or "") for instance in volume.instances)
    own = keyed(part.source, f"volume|{volume.id}") or volume.id
    return replace(volume, id=own, origin=origin, checks=checks, instances=instances)


def _hidden_origin(part: Part, origin: Origin) -> Origin:
    return replace(origin, file=hidden_file(part, origin.file), case=hidden_key(part, origin.case))


def _hidden_region(part: Part, region: Region) -> Region:
    attributes = {name: masked(found) if isinstance(found, str) else found for name, found in region.attributes.items()}
    phrases = tuple(replace(phrase, text=masked(phrase.text)) for phrase in region.phrases)
    return replace(region, instance=_hidden_instance(part, region.instance), attributes=attributes, phrases=phrases)


def _hidden_instance(part: Part, instance: str | None) -> str | None:
    return keyed(part.source, f"instance|{instance}") if instance else None


def _masked_text(text: Text) -> Text:
    return replace(text, text=masked(text.text), answer=masked(text.answer))


def _public_path(of: Part | Source, name: str) -> str:
    """A public source's name, with hashes for the folders and files that look like a patient's."""
    if not EVIDENT.search(name):
        return name
    pieces = re.split(r"([/\\])", name)
    return "".join(_public_piece(of, piece) for piece in pieces)


def _public_piece(of: Part | Source, piece: str) -> str:
    if not looks_like_a_name(piece):
        return piece
    return _hashed(of, "name", piece)


def _hashed(of: Part | Source, kind: str, name: str, *, ending: bool = True) -> str:
    """``kind-`` and a keyed hash, with the ending that tells a format."""
    source = of.source if isinstance(of, Part) else of.name
    format_of = _ENDING.search(name) if ending else None
    return f"{kind}-{keyed(source, f'{kind}|{_one_spelling(name)}')}{format_of[0].lower() if format_of else ''}"


def _one_spelling(name: str) -> str:
    """One spelling of a path, whatever the system: ``/`` between folders, composed accents."""
    return unicodedata.normalize("NFC", name.replace("\\", "/"))


def _stand_ins(part: Part, reject: Reject) -> dict[str, str]:
    """Names that a sentence about a file or case may hold, with what is stored for them."""
    place = _PLACE_IN_FILE.search(reject.file)
    path = reject.file[: place.start()] if place else reject.file
    key = reject.case.removeprefix(f"{part.name}:")
    file, case = hidden_file(part, path), hidden_key(part, key)
    base = re.split(r"[/\\]", path)[-1]
    toml = f"datasets/{part.source}.toml"
    found = {toml: toml, base: file, path: file}
    if key and key != part.name:
        stem = re.split(r"[/\\]", key)[-1]
        found = {stem: case, key: case} | found
    return {raw: name for raw, name in found.items() if len(raw) > 2}


def _words_of(part: Part) -> frozenset[str]:
    """What a sentence may quote of the source: words of its TOML and of the label tree."""
    named = part.all_named
    patterns = [*part.files, *part.files.values()]
    options = [str(value) for value in part.options.values()] + list(part.options)
    labels = [*(label.label for label in named), *(concept_of(label.label, label.laterality) for label in named)]
    return frozenset((*part.labels, *labels, *part.exhaustive, *patterns, *options, part.name, part.source, part.modality))
