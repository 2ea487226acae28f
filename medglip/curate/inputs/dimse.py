"""DIMSE: series and instances by C-FIND, fetched by C-GET or by C-MOVE to a storage service of our own, through pynetdicom.

Every wait has an end: the address's ``timeout`` holds for the connection, the association and each answer. Knows nothing
of folders.
"""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom import uid as uids
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.filebase import DicomIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import UID
from pynetdicom import AE, AllStoragePresentationContexts, StoragePresentationContexts, build_context, build_role, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made when the module is loaded
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from medglip.curate.inputs.address import SERIES_KEYS, STUDY_KEYS, Asked
from medglip.curate.inputs.fetched import Instance, Keep, file_meta
from medglip.errors import InputError

# What an instance may be compressed by: all that medglip decodes, and what it can at least name.
SYNTAXES = [
    uids.ExplicitVRLittleEndian, uids.ImplicitVRLittleEndian, uids.DeflatedExplicitVRLittleEndian,
    uids.ExplicitVRBigEndian, uids.JPEGBaseline8Bit, uids.JPEGExtended12Bit, uids.JPEGLossless, uids.JPEGLosslessSV1,
    uids.JPEGLSLossless, uids.JPEGLSNearLossless, uids.JPEG2000Lossless, uids.JPEG2000, uids.RLELossless,
    uids.HTJ2KLossless, uids.HTJ2KLosslessRPCL, uids.HTJ2K, uids.MPEG2MPML, uids.MPEG4HP41,
]  # fmt: skip
_TRIES, _PAUSE = 3, 1.0
_GO_ON = "check host, port and network, and run the same command again to go on"
_MOST_CONTEXTS = 128  # an association's ids are the odd numbers below 256
_PENDING = (0xFF00, 0xFF01)
_REFUSALS = (0xA801, 0x0122, 0x0124)
_TRANSIENT_REJECTION = 2
_REASONS = {
    0xA701: "out of resources", 0xA702: "out of resources", 0xA801: "the archive does not know the calling AE title as a place"
    " to send to", 0xA900: "the archive does not take this query", 0xFE00: "cancelled", 0x0122: "not supported",
    0x0124: "not allowed", 0xB000: "some instances could not be sent",
}  # fmt: skip


class _Broken(Exception):
    """The association ended in the middle; it may go better the next time."""


class Dimse:
    """A DIMSE service, with what is asked of it."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._calling = asked.options.get("calling", "MEDGLIP").strip()
        self._by_move = asked.options.get("by") == "move"
        self._keep: Keep | None = None
        self._expected: set[str] = set()
        self._failure: Exception | None = None
        self._answered = False
        self._open: dict[tuple[str, ...], Association] = {}
        self.ae = AE(ae_title=self._calling)
        self.ae.connection_timeout = self.ae.acse_timeout = min(asked.timeout, 30.0)
        self.ae.dimse_timeout = self.ae.network_timeout = asked.timeout

    def series(self) -> list[tuple[str, str]]:
        """Study and series UIDs that fit the address."""
        studies: dict[str, None] = {}
        for query in self._asked.study_queries():
            for answer in self._find("STUDY", {"StudyInstanceUID": ""} | query):
                if answer.get("StudyInstanceUID") and self._asked.fits(answer, STUDY_KEYS):
                    studies[str(answer.StudyInstanceUID)] = None
        return [
            (study, str(answer.SeriesInstanceUID))
            for study in studies
            for answer in self._find("SERIES", {"SeriesInstanceUID": ""} | self._series_query() | {"StudyInstanceUID": study})
            if answer.get("SeriesInstanceUID") and self._asked.fits(answer, SERIES_KEYS)
        ]

    def _series_query(self) -> dict[str, str]:
        """Keys with several values are asked back empty and sorted out here."""
        return {key: "" for key in SERIES_KEYS if key in self._asked.filters} | self._asked.series_query()

    def instances(self, study: str, series: str) -> list[Instance]:
        """Instances of a series."""
        keys = {"StudyInstanceUID": study, "SeriesInstanceUID": series, "SOPInstanceUID": "", "SOPClassUID": ""}
        answers = self._find("IMAGE", keys)
        return [Instance(str(answer.SOPInstanceUID), str(answer.get("SOPClassUID") or "")) for answer in answers
                if answer.get("SOPInstanceUID")]  # fmt: skip

    def fetch(self, study: str, series: str, wanted: list[Instance], keep: Keep, *, whole: bool) -> str:
        """Fetch instances: the series at once if all of it is wanted, else one by one; what was said of those left out."""
        self._keep, said = keep, ""
        keys = {"StudyInstanceUID": study, "SeriesInstanceUID": series}
        for attempt in range(_TRIES):
            self._expected = {instance.uid for instance in wanted}
            requests = [_identifier("SERIES", keys)]
            if not whole or attempt:
                requests = [_identifier("IMAGE", keys | {"SOPInstanceUID": one.uid}) for one in wanted]
            try:
                said = self._request(requests, wanted)
            except _Broken as error:
                self._hang_up(attempt)
                said = f"The connection to the archive broke ({error}); run the command again."
            if self._failure:
                raise self._failure
            wanted = [instance for instance in wanted if instance.uid in self._expected]
            if not wanted:
                return ""
        return said

    def _find(self, level: str, keys: dict[str, str]) -> list[Dataset]:
        model = StudyRootQueryRetrieveInformationModelFind
        said = ""
        for attempt in range(_TRIES):
            try:
                return self._found(self._associated([build_context(model)], model), _identifier(level, keys))
            except _Broken as error:
                self._hang_up(attempt)
                said = str(error)
        raise self._error(
            f"does not answer a query ({said})",
            f"have those who run it enter the calling AE title {self._calling!r} with this machine, or give a longer timeout=",
        )

    def _found(self, association: Association, identifier: Dataset) -> list[Dataset]:
        answers = []
        for status, answer in association.send_c_find(identifier, StudyRootQueryRetrieveInformationModelFind):
            code = _code(status)
            if code in _PENDING and answer is not None:
                answers.append(answer)
            elif code:
                raise self._error(f"answers a query with {_said(code)}", "ask those who run it")
        return answers

    def _request(self, identifiers: list[Dataset], wanted: list[Instance]) -> str:
        """Send retrieve requests over one association; what the archive said of failures, or nothing."""
        said = ""
        if self._by_move:
            model, roles = StudyRootQueryRetrieveInformationModelMove, []
            contexts = [build_context(model)]
        else:
            model = StudyRootQueryRetrieveInformationModelGet
            storage = _storage_contexts({instance.sop_class for instance in wanted})
            contexts = [build_context(model), *storage]
            roles = [build_role(name, scp_role=True) for name in sorted({str(one.abstract_syntax) for one in storage})]
        association = self._associated(contexts, model, roles)
        for identifier in identifiers:
            if self._by_move:
                answers = association.send_c_move(identifier, self._calling, model)
            else:
                answers = association.send_c_get(identifier, model)
            for status, _ in answers:
                code = _code(status)
                if code in _REFUSALS:  # of any request, so the others would fare no better
                    raise self._error(f"sends nothing: {_said(code)}", "ask those who run it")
                if code and code not in _PENDING:
                    said = f"The archive sent not all of the series: {_said(code)}; ask those who run it."
            if self._failure:
                break
        return said

    def _associated(self, contexts: list[PresentationContext], model: UID, roles: Any = ()) -> Association:
        """An association that has accepted ``model``, the one that is open where there is one.

        Raises:
            _Broken: it was refused for now, or broke.
            InputError: it was refused.
        """
        key = (str(model), *sorted({str(context.abstract_syntax) for context in contexts}))
        if key in self._open and self._open[key].is_established:
            return self._open[key]
        reached: list[evt.Event] = []
        handlers: list[Any] = [(evt.EVT_C_STORE, self.store), (evt.EVT_CONN_OPEN, reached.append)]
        association = self.ae.associate(
            self._asked.host, self._asked.port, contexts, self._asked.called, ext_neg=list(roles), evt_handlers=handlers
        )
        if association.is_rejected:
            answer = association.acceptor.primitive
            assert answer is not None  # a rejection is an answer
            if answer.result == _TRANSIENT_REJECTION:
                raise _Broken(answer.reason_str)
            raise self._error(
                f"refuses the association of {self._calling!r} ({answer.reason_str})",
                "check the called AE title, and have those who run it enter the calling one",
            )
        if not association.is_established:
            if not reached and not self._answered:
                raise self._error("cannot be reached", _GO_ON)
            raise _Broken("it takes no association, or hangs up" if reached else "it cannot be reached any more")
        self._answered = True
        self._open[key] = association
        if model not in [context.abstract_syntax for context in association.accepted_contexts]:
            hint = "use by=move" if model == StudyRootQueryRetrieveInformationModelGet else "ask those who run it"
            raise self._error(f"does not offer {model.name} to {self._calling!r}", hint)
        return association

    def _hang_up(self, attempt: int) -> None:
        """End what is open the hard way, and wait before the next attempt."""
        self.close(gently=False)
        if attempt + 1 < _TRIES:
            time.sleep(_PAUSE * 2**attempt)

    def close(self, *, gently: bool) -> None:
        """End all associations; gently only where no answer is awaited."""
        for association in self._open.values():
            if association.is_established:
                association.release() if gently else association.abort()
        self._open.clear()

    def store(self, event: evt.Event) -> int:
        """Keep an instance that the archive sends; a status of PS3.4 table B.2-1."""
        instance = str(event.request.AffectedSOPInstanceUID)  # type: ignore[union-attr]
        if instance not in self._expected or self._keep is None:
            return 0x0124  # nobody asked for it
        try:
            self._keep(instance, lambda path: _write(path, event))
        except InputError as error:
            self._failure = error
            return 0xA700
        self._expected.discard(instance)
        return 0x0000

    def _error(self, found: str, hint: str) -> InputError:
        return InputError(f"Archive {self._asked.where!r} {found}; {hint}.")


@contextmanager
def opened(asked: Asked) -> Iterator[Dimse]:
    """The service, to which nothing is sent yet; for C-MOVE with a storage service of our own beside it.

    Raises:
        InputError: there is no way to it, or our own port is taken.
    """
    service = Dimse(asked)
    try:
        family, kind, *_, place = socket.getaddrinfo(asked.host, asked.port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(place)  # sends nothing; chooses the address of ours from which the archive is reached
            own = probe.getsockname()[0]
    except OSError as error:
        raise InputError(f"Archive {asked.where!r} cannot be reached: {error.strerror or error}; {_GO_ON}.") from error
    server = None
    if asked.options.get("by") == "move":
        port = int(asked.options["listen"])
        service.ae.require_called_aet = True
        for context in AllStoragePresentationContexts:
            service.ae.add_supported_context(str(context.abstract_syntax), [str(syntax) for syntax in SYNTAXES])
        try:
            server = service.ae.start_server((own, port), block=False, evt_handlers=[(evt.EVT_C_STORE, service.store)])
        except (OSError, OverflowError) as error:
            raise InputError(
                f"Port listen={port} cannot be used for C-MOVE: {error}; close what uses it, or take another."
            ) from error
    gently = False
    try:
        yield service
        gently = True
    finally:
        service.close(gently=gently)
        if server is not None:
            server.shutdown()


def _storage_contexts(classes: set[str]) -> list[PresentationContext]:
    """For each class and compression a context of its own, so that the archive can send each as it is stored.

    Where there would be too many, or the classes are not known, one context a class, with all compressions.
    """
    known = sorted(classes - {""})
    if known and "" not in classes and len(known) * len(SYNTAXES) < _MOST_CONTEXTS:
        return [build_context(name, [syntax]) for name in known for syntax in SYNTAXES]
    names = known if "" not in classes else [str(context.abstract_syntax) for context in StoragePresentationContexts]
    return [build_context(name, [str(syntax) for syntax in SYNTAXES]) for name in names[: _MOST_CONTEXTS - 1]]


def _write(path: Path, event: evt.Event) -> None:
    request = event.request
    head = file_meta(str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID), event.context.transfer_syntax)  # type: ignore[union-attr]
    with path.open("wb") as file:
        file.write(b"\0" * 128 + b"DICM")
        write_file_meta_info(DicomIO(file), head)
        file.write(event.encoded_dataset(include_meta=False))


def _identifier(level: str, keys: dict[str, str]) -> Dataset:
    identifier = Dataset()
    identifier.QueryRetrieveLevel = level
    with disable_value_validation():  # wildcards and ranges are no valid values
        for key, value in keys.items():
            setattr(identifier, key, value)
    return identifier


def _code(status: Dataset) -> int:
    """The status of an answer.

    Raises:
        _Broken: there is none: the archive was silent too long, or hung up.
    """
    if "Status" not in status:
        raise _Broken("no answer in time, or the archive hung up")
    return int(status.Status)


def _said(code: int) -> str:
    return f"status 0x{code:04X}" + (f" ({_REASONS[code]})" if code in _REASONS else "")
