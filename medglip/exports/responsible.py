"""What a dataset says of itself in the words of Croissant's responsible-AI vocabulary; from its manifest and tables alone.

It says what is known and nothing else: what a source does not tell, such as the age of its patients, is not guessed.

Source: Croissant RAI vocabulary 1.0, https://docs.mlcommons.org/croissant/docs/croissant-rai-spec.html
"""

from collections.abc import Sequence
from typing import Any

from medglip.exports.facts import SourceFacts, marked_by
from medglip.store.checks.names import private_sources
from medglip.store.read import Dataset

_ACCESS = {
    "open": "open to all",
    "registration": "open after registration",
    "agreement": "given out under an agreement",
    "credentialed": "given out to credentialed people",
}


def responsible(dataset: Dataset, sources: Sequence[SourceFacts]) -> dict[str, Any]:
    """The fields ``rai:...`` of a dataset's Croissant description.

    Args:
        dataset: The dataset.
        sources: Its sources.
    """
    counts = dataset.manifest["counts"]
    return {
        "rai:dataCollection": "Converted by medglip from files as their sources published them; no image was acquired for this"
        f" dataset. {' '.join(_collected(source) for source in sources)}",
        "rai:dataCollectionType": "Secondary Data Analysis",
        "rai:dataCollectionMissingData": _missing(dataset),
        "rai:dataPreprocessingProtocol": [
            "Images are stored as lossless PNG with 8 or 16 bits; slope and intercept lead back to the source's unit.",
            "Slices of volumes are turned into radiological display order; MONOCHROME1 images are inverted and say so.",
            "Boxes are half-open pixels of the stored image; raw labels are mapped to one tree of labels.",
        ],
        "rai:dataAnnotationProtocol": [
            f"{source.name}: {source.regions} regions, {marked_by(source.provenances)}." for source in sources
        ],
        "rai:dataBiases": [
            "Patients, scanners, hospitals and the choice of cases are those of the sources; they have not been measured here.",
            f"Images by modality: {_listed(counts.get('modalities', {}))}.",
            f"Most frequent labels, by regions: {_listed(counts.get('labels', {}), 10)}.",
        ],
        "rai:dataLimitations": _limits(sources, counts),
        "rai:dataUseCases": [
            "Training and evaluation of models that find in a medical image what a phrase names, and of models that answer"
            " questions or draft reports from such regions.",
            "Not for the diagnosis or treatment of patients.",
        ],
        "rai:personalSensitiveInformation": _personal(dataset),
    }


def _collected(source: SourceFacts) -> str:
    said = [f"{source.images} images"]
    if source.access:
        said.append(f"the source is {_ACCESS.get(source.access, source.access)}")
    if source.page:
        said.append(source.page)
    return f"{source.title} ({'; '.join(said)})."


def _missing(dataset: Dataset) -> str:
    row = dataset.query(
        "SELECT count(*) AS n, count(row_mm) AS spacing, count(affine_px_to_mm) AS affine, count(patient) AS patient"
        " FROM images"
    ).iloc[0]
    masks = dataset.query("SELECT count(*) AS n, count(area_px) AS masks FROM regions").iloc[0]
    rejects = dataset.manifest["counts"].get("rejects", 0)
    return (
        f"What a source does not say is empty, never filled in. Of {row['n']} images {row['spacing']} have a pixel spacing,"
        f" {row['affine']} a place in the patient and {row['patient']} a patient key; of {masks['n']} regions"
        f" {masks['masks']} have a mask. {rejects} items of the sources could not be converted; the table rejects says why."
    )


def _limits(sources: Sequence[SourceFacts], counts: dict[str, Any]) -> list[str]:
    limits = [
        "An image without a mark of a label says nothing of it, unless the label is among its absent or exhaustive ones.",
        "Images are two-dimensional; of a volume only some slices may be stored.",
    ]
    splits = counts.get("splits", {})
    if unassigned := splits.get("unassigned"):
        limits.append(f"{unassigned} images are in no split.")
    limits += [
        f"{source.name} shares images with {', '.join(source.lineage)}: do not train on one and test on the other."
        for source in sources
        if source.lineage
    ]
    return limits


def _personal(dataset: Dataset) -> list[str]:
    flags = dataset.query(
        "SELECT flag, count(*) AS n FROM (SELECT unnest(flags) AS flag FROM images)"
        " WHERE flag IN ('burned_in_risk', 'face_risk') GROUP BY flag"
    )
    risk = dict(zip(flags["flag"], flags["n"], strict=True))
    private = sorted(private_sources(dataset.manifest))
    return [
        "Health data. The columns patient, study and series hold keyed hashes (HMAC), not raw identifiers.",
        *([f"Of {', '.join(private)}, the names of files and cases are keyed hashes too."] if private else []),
        "Other names, texts and pixels are as the source gave them and have not been searched by people.",
        f"Images flagged for a risk of burned-in text: {risk.get('burned_in_risk', 0)};"
        f" for a recognisable face: {risk.get('face_risk', 0)}.",
    ]


def _listed(numbers: dict[str, int], most: int | None = None) -> str:
    ordered = sorted(((number, name) for name, number in numbers.items() if number), key=lambda pair: (-pair[0], pair[1]))
    return ", ".join(f"{name} {number}" for number, name in ordered[:most]) or "none"
