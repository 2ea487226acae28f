"""Which DICOM files are images of a part, told by their headers, for converters that take any files. Knows no regions."""

from collections.abc import Sequence
from pathlib import Path

from pydicom.dataset import Dataset

from medglip.curate.source import Part
from medglip.errors import InputError
from medglip.imaging.dicom import MODALITY_OF, NO_IMAGE, is_dicom, read_dicom, read_header
from medglip.imaging.header import no_image_of
from medglip.records import Reject

_IDS = {"sop": "SOPInstanceUID", "patientid": "PatientID", "study": "StudyInstanceUID", "series": "SeriesInstanceUID"}
_ENDINGS = (".dcm", ".dcm.gz", ".dicom")


def says_dicom(path: Path) -> bool:
    """Whether the content is DICOM, or the name says so."""
    return path.name.casefold().endswith(_ENDINGS) or is_dicom(path)


def ids_of(header: Dataset) -> dict[str, str]:
    """The ids of a header by the names that templates use; empty where it has none."""
    return {ours: str(header.get(theirs) or "") for ours, theirs in _IDS.items()}


def first_that_decodes(copies: Sequence[Path]) -> Path:
    """Of several files of one DICOM object, the first whose pixels can be read: one copy may be cut off. Else the first."""
    for path in copies:
        try:
            read_dicom(path)
        except InputError:
            continue
        return path
    return copies[0]


def image_header(part: Part, folder: Path, file: str, key: str = "") -> Dataset | Reject | None:
    """The header of an image of the part's modality.

    Args:
        part: Its option ``other_modality`` is ``reject`` (default) or ``ignore``.
        folder: The input folder.
        file: A file that ``says_dicom``, relative.
        key: Of its case.

    Returns:
        A Reject for what is broken or no image of the part; None for a DICOMDIR, and for what another part takes.
    """
    path = folder / file
    if not is_dicom(path):
        sentence = f"{file!r} is named as a DICOM file and does not begin as one; fetch it anew, or leave it out."
        return Reject(part.source, file, "unreadable_file", sentence, key)
    try:
        header = read_header(path)
    except InputError as error:
        return Reject(part.source, file, "unreadable_file", str(error), key)
    if "DirectoryRecordSequence" in header:
        return None  # a list of the others
    kind = str(header.get("Modality") or "")
    if kind in NO_IMAGE or "Rows" not in header:
        sentence = f"DICOM file {file!r} holds no image but: {no_image_of(header) or 'no pixels'}; leave it, or take it out."
        return Reject(part.source, file, "not_a_picture", sentence, key)
    modality = MODALITY_OF.get(kind, "other")
    if modality != part.modality:
        if part.option("other_modality") == "ignore":
            return None
        sentence = f"DICOM file {file!r} is {modality!r} ({kind or 'no code'}), the part takes {part.modality!r}; add a part."
        return Reject(part.source, file, "other_modality", sentence, key)
    return header
