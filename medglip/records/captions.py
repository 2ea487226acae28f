"""A caption of a record by template, with the exact characters that name its regions. Knows no pixels and no reports.

Every region is named once, and nothing is said that the record does not hold.
"""

from collections.abc import Sequence

from medglip.records.labels import LabelTree
from medglip.records.record import ImageRecord, Region, Span, Text, identified

_MODALITY_NAMES = {
    "ct": "CT", "mr": "MR image", "xray": "X-ray image", "ultrasound": "ultrasound image", "endoscopy": "endoscopic image",
    "dermoscopy": "dermoscopic image", "fundus": "fundus photograph", "histopathology": "histopathology image",
    "microscopy": "microscopy image", "pet": "PET image", "mammography": "mammogram", "oct": "OCT image",
    "other": "medical image",
}  # fmt: skip
_PLANES = ("axial", "coronal", "sagittal")
_NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_OF_A_BODY_REGION = ("ct", "mr", "xray", "ultrasound", "pet")
_NO_PLACE = ("systemic", "musculoskeletal")  # body regions that no picture is "of"


def caption_of(record: ImageRecord, tree: LabelTree) -> Text:
    """What the image is, what is marked in it and which findings it was searched for in vain, in two sentences.

    Args:
        record: The image. Regions without an id get the ids that ``identified`` gives them.
        tree: The label tree that the regions' labels are from.

    Returns:
        A text of kind ``template``, equal for equal records. Regions of one concept are one phrase and one span
        ("three kidney cysts"); spans are in order and do not overlap, every region is in one of them, and
        ``text[start:end]`` is the phrase. Anatomy comes before findings. Absent findings have no span, and absent
        anatomy is not spoken of: what a section misses, the patient may have.

    Raises:
        SourceError: the tree does not have a label of the record.

    >>> from medglip.records.labels import label_tree
    >>> from medglip.records.record import Origin
    >>> cysts = tuple(Region("abdomen.kidney.cyst", (x, 2.0, x + 4, 6.0)) for x in (1.0, 9.0))
    >>> scan = ImageRecord("0" * 16, "0" * 64, 32, 32, 1, 8, "ct", Origin("made_up", "1.png", "1"), "MIT",
    ...                    body_region="abdomen", regions=cysts, absent=("abdomen.kidney.stone",))
    >>> caption = caption_of(scan, label_tree())
    >>> caption.text
    'CT of the abdomen showing two kidney cysts. No kidney stone.'
    >>> [caption.text[span.start : span.end] for span in caption.spans]
    ['two kidney cysts']
    """
    record = identified(record)
    text = _picture_named(record, tree)
    spans = []
    groups = _groups(record.regions, tree)
    for number, (phrase, ids) in enumerate(groups):
        text += " showing " if number == 0 else " and " if number == len(groups) - 1 else ", "
        spans.append(Span(len(text), len(text) + len(phrase), ids))
        text += phrase
    negatives = [f"no {tree.concept_name(concept)}" for concept in _said_absent(record, tree)]
    if negatives:
        text += f". N{', '.join(negatives)[1:]}"
    return Text(f"{text}.", "template", spans=tuple(spans))


def _picture_named(record: ImageRecord, tree: LabelTree) -> str:
    plane = record.modality_detail.get("plane", "")
    name = f"{plane} {_MODALITY_NAMES[record.modality]}" if plane in _PLANES else _MODALITY_NAMES[record.modality]
    place = record.body_region
    if record.modality in _OF_A_BODY_REGION and place is not None and place not in _NO_PLACE:
        name = f"{name} of the {tree[place].name}"
    return name[0].upper() + name[1:]


def _groups(regions: Sequence[Region], tree: LabelTree) -> list[tuple[str, tuple[str, ...]]]:
    """Phrase and ids of the regions of each concept: anatomy, then findings, each as the record has them."""
    grouped: dict[tuple[str, str | None], list[str]] = {}
    for region in regions:
        sided = region.laterality in ("left", "right") or (region.laterality == "bilateral" and tree[region.label].laterality)
        side = region.laterality if sided else None
        grouped.setdefault((region.label, side), []).append(region.id)
    order = sorted(grouped, key=lambda key: tree[key[0]].is_finding)  # stable
    return [(_phrase(*key, len(grouped[key]), tree), tuple(grouped[key])) for key in order]


def _phrase(label_id: str, side: str | None, count: int, tree: LabelTree) -> str:
    label = tree[label_id]
    if side == "bilateral":
        return tree.name(label_id, "bilateral")
    sided = f"{side} " if side else ""
    if count > 1 and label.countable:
        return f"{_NUMBERS[count - 2] if count <= 10 else count} {sided}{label.plural}"
    pair = count > 1 and label.laterality and not side and not label.is_finding  # both kidneys, their sides not told
    return sided + (label.plural if pair else label.name)


def _said_absent(record: ImageRecord, tree: LabelTree) -> list[str]:
    """Absent findings that no region contradicts, without those that a wider absent one says already."""
    absent = [concept for concept in dict.fromkeys(record.absent) if tree[tree.split(concept)[0]].is_finding]
    shown = {region.concept for region in record.regions}
    absent = [c for c in absent if not any(tree.covers(c, other) for other in shown)]
    return [c for c in absent if not any(tree.covers(wide, c) for wide in absent if wide != c)]
