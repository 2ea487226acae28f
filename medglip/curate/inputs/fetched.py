"""Instances of a picture archive as a folder: which are there, which are missing, fetched one after another.

The folder is ``study/series/instance.dcm`` with hashes of the UIDs for names, so that no id stands in a path. A file has
its name only when it is whole; so what an ended run left is not fetched again. Knows nothing of protocols.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydicom.dataset import FileMetaDataset
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, UID

from medglip.curate.inputs.address import Asked
from medglip.curate.inputs.lost import Lost, News
from medglip.errors import InputError

# Writes the instance of a UID by calling the function with the path to write.
Keep = Callable[[str, Callable[[Path], object]], None]


def file_meta(sop_class: str, uid: str, syntax: str) -> FileMetaDataset:
    """The head of an instance's file, the same whatever way it came, so that its size tells whether it has changed."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(sop_class), UID(uid)
    meta.TransferSyntaxUID = UID(syntax)
    meta.ImplementationClassUID, meta.ImplementationVersionName = PYDICOM_IMPLEMENTATION_UID, "MEDGLIP"
    return meta


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance of a series.

    Attributes:
        uid: SOPInstanceUID.
        sop_class: SOPClassUID, or empty where the archive does not tell.
    """

    uid: str
    sop_class: str


class Service(Protocol):
    """What a protocol gives."""

    def series(self) -> list[tuple[str, str]]:
        """Study and series UIDs that fit the address."""

    def instances(self, study: str, series: str) -> list[Instance]:
        """Instances of a series."""

    def fetch(self, study: str, series: str, wanted: list[Instance], keep: Keep, *, whole: bool) -> str:
        """Fetch instances, calling ``keep`` for each that came; what the archive said of those that did not.

        Args:
            study: Its UID.
            series: Its UID.
            wanted: Instances.
            keep: Writes one.
            whole: They are all of the series.
        """


def fetched(asked: Asked, home: Path, say: News) -> Path:
    """The folder of all instances that an address asks for; fetches those that are not there.

    Args:
        asked: The address.
        home: Folder for this and other addresses' folders.
        say: Told of series done, and of instances that did not come.

    Raises:
        InputError: the service is not there, refuses, has nothing that fits, or sends nothing.
    """
    tree = home / f"{asked.scheme}-{_hash(asked.canonical)}"
    parts = tree.with_name(f"{tree.name}.part")
    shutil.rmtree(parts, ignore_errors=True)
    with _service(asked) as service:
        found = sorted(set(service.series()))
        if not found:
            raise InputError(f"Archive {asked.where!r} holds nothing that fits {asked.filters!r}; ask for less narrow values.")
        tree.mkdir(parents=True, exist_ok=True)
        parts.mkdir()
        count, losses = 0, []
        try:
            for done, (study, series) in enumerate(found):
                say.step(done, len(found), f"{count} instances fetched")
                folder = tree / _hash(study) / _hash(series)
                came, missing = _fetch_series(service, (study, series), folder, parts)
                count += came
                losses += [Lost(f"{path.relative_to(tree).as_posix()}", "not_retrieved", why) for path, why in missing]
        finally:
            shutil.rmtree(parts, ignore_errors=True)
        say.step(len(found), len(found), f"{count} instances fetched")
    if losses and not next(tree.rglob("*.dcm"), None):
        raise InputError(f"Archive {asked.where!r} sent none of {len(losses)} instances; {losses[0].detail}")
    for lost in losses:
        say.lost(lost)
    return tree


def _fetch_series(service: Service, uids: tuple[str, str], folder: Path, parts: Path) -> tuple[int, Iterable[tuple[Path, str]]]:
    """How many instances came, and the places of those that did not, with what was said."""
    asked = service.instances(*uids)
    places = {instance.uid: folder / f"{_hash(instance.uid)}.dcm" for instance in asked}
    wanted = [instance for instance in asked if not places[instance.uid].is_file()]
    if not wanted:
        return 0, ()
    folder.mkdir(parents=True, exist_ok=True)

    def keep(uid: str, write: Callable[[Path], object]) -> None:
        part = parts / places[uid].name
        try:
            write(part)
            part.replace(places[uid])
        except OSError as error:
            raise InputError(
                f"Scratch folder {str(folder.parents[1])!r} cannot be written: {error.strerror or error}; make room, and"
                " run the same command again to go on."
            ) from error

    said = service.fetch(*uids, wanted, keep, whole=len(wanted) == len(asked))
    missing = [places[instance.uid] for instance in wanted if not places[instance.uid].is_file()]
    return len(wanted) - len(missing), [
        (path, said or "The archive did not send it; run the command again.") for path in missing
    ]


def _service(asked: Asked) -> AbstractContextManager[Service]:
    """The protocol's side, or what to install for it."""
    try:
        if asked.scheme == "dimse":
            from medglip.curate.inputs import dimse

            return dimse.opened(asked)
        from medglip.curate.inputs import dicomweb

        return dicomweb.opened(asked)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("pynetdicom", "dicomweb_client", "requests", "urllib3"):
            raise
        raise InputError(
            f"Input {asked.where!r} needs the package {error.name!r}, which is not installed; install it with"
            ' pip install "medglip[dicomweb]".'
        ) from error


def _hash(uid: str) -> str:
    return hashlib.sha256(uid.encode()).hexdigest()[:16]
