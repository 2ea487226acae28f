"""DICOMweb: studies and series by QIDO-RS, instances by WADO-RS, through dicomweb-client. Knows nothing of folders.

Who we are comes from the environment (MEDGLIP_DICOMWEB_TOKEN, or MEDGLIP_DICOMWEB_USER and MEDGLIP_DICOMWEB_PASSWORD) or
from a netrc file, which requests reads itself; it is never written anywhere.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import requests
from dicomweb_client import DICOMwebClient
from pydicom.dataset import Dataset
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from medglip.curate.inputs.address import SERIES_KEYS, STUDY_KEYS, Asked
from medglip.curate.inputs.fetched import Instance, Keep, file_meta
from medglip.errors import InputError
from medglip.imaging.dicom import BROKEN

T = TypeVar("T")
# A query may hold wildcards as they are (RFC 3986 3.4), and some servers know no other writing of them.
_PLAIN = {"%2A": "*", "%3F": "?", "+": "%20"}
_PAGE = 100
_CUT_OFF_TRIES = 3
# Busy, restarting or behind a proxy that is; tried again after 0, 1, 2, 4 seconds.
_TRANSIENT = (408, 425, 429, 502, 503, 504)
_AS_STORED = (("application/dicom", "*"),)


class DicomWeb:
    """A DICOMweb service, with what is asked of it."""

    def __init__(self, asked: Asked, session: requests.Session) -> None:
        self._asked = asked
        http = "https" if asked.scheme == "dicomwebs" else "http"
        host = f"[{asked.host}]" if ":" in asked.host else asked.host
        url = f"{http}://{host}:{asked.port}{asked.path.rstrip('/')}"
        self._client = DICOMwebClient(url, session=session, timeout=asked.timeout, permissive_uid=True)
        self._client.set_http_retry_params(retry=False)  # the session does it, for lost connections too

    def series(self) -> list[tuple[str, str]]:
        """Study and series UIDs that fit the address."""
        studies: dict[str, None] = {}
        for query in self._asked.study_queries():
            for answer in self._all(self._client.search_for_studies, STUDY_KEYS, query):
                if self._asked.fits(answer, STUDY_KEYS):
                    studies[str(answer.StudyInstanceUID)] = None
        query = self._asked.series_query()
        return [
            (study, str(answer.SeriesInstanceUID))
            for study in studies
            for answer in self._all(self._client.search_for_series, SERIES_KEYS, query, study)
            if self._asked.fits(answer, SERIES_KEYS)
        ]

    def instances(self, study: str, series: str) -> list[Instance]:
        """Instances of a series."""
        answers = self._all(self._client.search_for_instances, ("SOPInstanceUID",), {}, study, series)
        return [Instance(str(answer.SOPInstanceUID), str(answer.get("SOPClassUID", ""))) for answer in answers]

    def fetch(self, study: str, series: str, wanted: list[Instance], keep: Keep, *, whole: bool) -> str:
        """Fetch instances one by one, so that one at a time is in memory; what was wrong with the last that failed."""
        said = ""
        for instance in wanted:
            dataset, why = self._retrieved(study, series, instance.uid)
            if dataset is None:
                said = why
            else:
                syntax = dataset.file_meta.TransferSyntaxUID
                dataset.file_meta = file_meta(str(dataset.SOPClassUID), instance.uid, syntax)
                dataset.preamble = b"\0" * 128
                keep(instance.uid, lambda path, data=dataset: data.save_as(path, enforce_file_format=True))  # type: ignore[misc]
        return said

    def _retrieved(self, study: str, series: str, uid: str) -> tuple[Dataset | None, str]:
        why = ""
        for _ in range(_CUT_OFF_TRIES):
            try:
                dataset = self._client.retrieve_instance(study, series, uid, media_types=_AS_STORED)
            except requests.exceptions.ChunkedEncodingError:
                why = "The connection broke while it was sent; run the command again."
                continue
            except requests.HTTPError as error:
                if _status(error) in (401, 403, *_TRANSIENT):  # the others would fare no better
                    raise self._refused(error) from error
                return None, f"The archive answered with status {_status(error)}; ask those who run it."
            except requests.RequestException as error:
                raise self._unreachable(error) from error
            except BROKEN as error:
                return None, f"What the archive sent for it is no DICOM file ({type(error).__name__}); ask those who run it."
            if "SOPClassUID" not in dataset or "TransferSyntaxUID" not in getattr(dataset, "file_meta", ()):
                return None, "What the archive sent for it is no whole DICOM file; ask those who run it."
            if str(dataset.get("SOPInstanceUID")) != uid:
                return None, "The archive sent another instance in its place; ask those who run it."
            return dataset, ""
        return None, why

    def _all(self, search: Callable[..., Any], keys: tuple[str, ...], query: dict[str, str], *uids: str) -> Iterator[Dataset]:
        """Answers to a search, page by page until one brings nothing new: services give fewer than asked, or all at once.

        Args:
            search: The client's function.
            keys: Keywords of this level, the UID first; those that the address names are asked back.
            query: What must match.
            uids: Of the levels above.
        """
        key, asked_back = keys[0], sorted(set(keys) & set(self._asked.filters))
        seen: set[str] = set()
        offset = 0
        while True:
            page = self._answer(
                lambda at=offset: search(*uids, search_filters=query, fields=asked_back, limit=_PAGE, offset=at)  # type: ignore[misc]
            )
            answers = [Dataset.from_json(item) for item in page]
            new = [answer for answer in answers if str(answer.get(key, "")) not in ("", *seen)]
            if not new:
                return
            seen.update(str(answer[key].value) for answer in new)
            yield from new
            offset += len(page)

    def _answer(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except requests.HTTPError as error:
            raise self._refused(error) from error
        except (requests.exceptions.JSONDecodeError, ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"Server {self._asked.where!r} does not answer as a DICOMweb service does; check the path, for Orthanc"
                " /dicom-web."
            ) from error
        except requests.RequestException as error:
            raise self._unreachable(error) from error

    def _refused(self, error: requests.HTTPError) -> InputError:
        status = _status(error)
        if status in (401, 403):
            return InputError(
                f"Server {self._asked.where!r} refuses us (status {status}); set MEDGLIP_DICOMWEB_TOKEN, or"
                " MEDGLIP_DICOMWEB_USER and MEDGLIP_DICOMWEB_PASSWORD, or name the host in a netrc file."
            )
        if status in _TRANSIENT:
            return InputError(
                f"Server {self._asked.where!r} is too busy, or not up (status {status}), and was asked five times; run the same"
                " command again to go on."
            )
        hint = "check the path, for Orthanc /dicom-web" if status in (404, 405) else "ask those who run it"
        return InputError(f"Server {self._asked.where!r} answers a search with status {status}; {hint}.")

    def _unreachable(self, error: requests.RequestException) -> InputError:
        if isinstance(error, requests.exceptions.SSLError):
            return InputError(
                f"Server {self._asked.where!r} has a certificate that is not trusted here; name the file of the authority in"
                " REQUESTS_CA_BUNDLE, or use dicomweb:// where it speaks no TLS."
            )
        silent = f"is silent for {self._asked.timeout:g} s" if isinstance(error, requests.Timeout) else "cannot be reached"
        return InputError(
            f"Server {self._asked.where!r} {silent}; check host, port and network, and run the same command again to go on."
        )


class _PlainWildcards(HTTPAdapter):
    """Sends queries with their wildcards as they are."""

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        """Send a request."""
        path, mark, query = (request.url or "").partition("?")
        for escaped, plain in _PLAIN.items():
            query = query.replace(escaped, plain)
        request.url = path + mark + query
        return super().send(request, *args, **options)


@contextmanager
def opened(asked: Asked) -> Iterator[DicomWeb]:
    """A session with the service; nothing is sent yet."""
    with requests.Session() as session:
        retry = Retry(total=4, connect=2, read=2, status=4, backoff_factor=0.5, status_forcelist=_TRANSIENT,
                      raise_on_status=False, respect_retry_after_header=False)  # fmt: skip
        for scheme in ("http://", "https://"):
            session.mount(scheme, _PlainWildcards(max_retries=retry))
        session.auth = _credentials()
        yield DicomWeb(asked, session)


def _credentials() -> Any:
    """What requests takes as ``auth``; None lets it look into netrc files."""
    token, user = os.environ.get("MEDGLIP_DICOMWEB_TOKEN"), os.environ.get("MEDGLIP_DICOMWEB_USER")
    if token:

        def bearer(request: requests.PreparedRequest) -> requests.PreparedRequest:
            request.headers["Authorization"] = f"Bearer {token}"
            return request

        return bearer
    return (user, os.environ.get("MEDGLIP_DICOMWEB_PASSWORD", "")) if user else None


def _status(error: requests.HTTPError) -> int:
    return error.response.status_code if error.response is not None else 0
