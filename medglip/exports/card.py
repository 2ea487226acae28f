"""The dataset card of a Hugging Face export: what is in it, under which licence, and how to read it. Reads no pixels."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from medglip.exports.facts import SourceFacts, marked_by, sources_of, spdx_of
from medglip.records.labels import label_tree
from medglip.records.record import ImageRecord
from medglip.store.read import Dataset

_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"),
          (10**8, "10M<n<100M"))  # fmt: skip

_READING = """## Read it

```python
from datasets import load_dataset

dataset = load_dataset("PATH OR NAME OF THIS DATASET")
row = dataset["{split}"][0]
row["image"]                                  # PIL image, the pixels as stored: 8 or 16 bit
[thing["bbox"] for thing in row["objects"]]   # (x0, y0, x1, y1) pixels, half-open: x1 is one past the last column
```

Masks are COCO run-length codes: `pycocotools.mask.decode(thing["mask"])`; `mask` is empty where only a box is known.

| column | meaning |
| --- | --- |
| `image` | the stored PNG, lossless; 16 bit for CT, MR, PET and deep X-ray: `unit value = stored * slope + intercept` |
| `preview` | 8-bit picture of a 16-bit image through its display window; empty where `image` has 8 bits |
| `objects` | regions: `label` (id in medglip's tree), `name`, `laterality` (the patient's side), `bbox`, `mask`, `phrases` |
| `texts` | reports, captions, findings, questions with their `answer`; `spans` say which characters mean which regions |
| `absent` | labels that the image was searched for and that are not there |
| `exhaustive` | labels that are marked wherever they are; of any other label an image without a mark says nothing |
| `spacing_mm` | (row, column) pixel pitch; empty where it is unknown |
| `group`, `patient` | keyed hashes; images of one group are never in two splits |
"""


@dataclass(slots=True)
class Tally:
    """What has been written, counted as it goes.

    Attributes:
        images: Number of images by (source, licence).
        splits: Images by split, as the hub calls it.
        modalities: Images by modality.
        labels: Regions by label.
        marks: Regions by (source, provenance).
    """

    images: Counter[tuple[str, str]] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    modalities: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    marks: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, record: ImageRecord, split: str) -> None:
        """Count an image."""
        source = record.origin.dataset
        self.images[source, record.licence] += 1
        self.splits[split] += 1
        self.modalities[record.modality] += 1
        self.labels.update(region.label for region in record.regions)
        self.marks.update((source, region.provenance) for region in record.regions)


def card_of(dataset: Dataset, tally: Tally) -> str:
    """The text of README.md: a YAML head that the hub reads, and a body for people.

    Args:
        dataset: What was exported.
        tally: What of it was written.
    """
    from huggingface_hub import DatasetCardData

    used = {source for source, _ in tally.images}
    sources = [source for source in sources_of(dataset) if source.name in used]
    known = [spdx_of(licence) for licence in sorted({licence for _, licence in tally.images})]
    ids = sorted({spdx.lower() for spdx in known if spdx}) if all(known) else ["other"]
    number = tally.splits.total()
    data = DatasetCardData(
        pretty_name=sources[0].title if len(sources) == 1 else f"medglip: {', '.join(source.name for source in sources)}",
        license=ids[0] if len(ids) == 1 else ids,
        license_name=None if all(known) else "see-the-sources",
        task_categories=["object-detection", "image-segmentation", "zero-shot-object-detection"],
        tags=["medical", "visual-grounding", "medglip", *sorted(tally.modalities)],
        size_categories=[next((name for limit, name in _SIZES if number < limit), "100M<n<1B")],
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": f"data/{split}-*"} for split in tally.splits],
            }
        ],
    )
    return f"---\n{data.to_yaml()}\n---\n\n{_body(sources, tally)}"


def _body(sources: Sequence[SourceFacts], tally: Tally) -> str:
    tree = label_tree()
    names = {label: tree.name(label) if label in tree else label for label in tally.labels}
    splits = ", ".join(f"{split} {number}" for split, number in tally.splits.items())
    parts = [
        "# Medical images with regions, phrases and texts",
        f"{tally.splits.total()} images ({splits}), {tally.labels.total()} regions of {len(tally.labels)} labels."
        " Written by `medglip export --to hf`.",
        "## Sources",
        "Each image stays under the licence of its source (column `licence`). Cite the sources that you use.",
        "\n".join(_source(source, tally) for source in sources),
        "## Modalities",
        _table(("modality", "images"), tally.modalities.most_common()),
        "## Labels",
        _table(("label", "name", "regions"), [(label, names[label], n) for label, n in tally.labels.most_common()]),
        _READING.replace("{split}", next(iter(tally.splits))).strip(),
        "## Limits",
        "For research; no medical device. Patients, studies and series are keyed hashes. A label that is neither in"
        " `objects` nor in `absent` of an image may be there all the same, unless it is in `exhaustive`.",
    ]
    return "\n\n".join(parts) + "\n"


def _source(source: SourceFacts, tally: Tally) -> str:
    licences = ", ".join(
        f"{licence} ({n} images)" for (name, licence), n in sorted(tally.images.items()) if name == source.name
    )
    marks = marked_by([provenance for name, provenance in tally.marks if name == source.name])
    said = {
        "licence": licences, "regions": marks, "access": source.access, "page": source.page, "citation": source.citation,
        "shares images with": ", ".join(source.lineage),
    }  # fmt: skip
    lines = [f"- **{source.title}** (`{source.name}`)", *(f"  - {key}: {value}" for key, value in said.items() if value)]
    return "\n".join(lines)


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in row)} |" for row in lines)
