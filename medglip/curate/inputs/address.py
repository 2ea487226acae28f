"""Addresses of picture archives: where one is and what is asked of it. Knows nothing of how it answers.

``dicomweb://HOST[:PORT]/PATH?KEYWORD=VALUE&...`` (``dicomwebs`` for https) and ``dimse://CALLED@HOST[:PORT]?...``.
Words that begin with a capital are DICOM keywords and narrow what is asked for; a keyword given more than once allows
each of its values. Words in small letters are options.
"""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import product
from urllib.parse import parse_qsl, unquote, urlsplit

from pydicom.dataset import Dataset

from medglip.errors import InputError

STUDY_KEYS = ("StudyInstanceUID", "PatientID", "PatientName", "AccessionNumber", "StudyDate", "StudyID", "StudyDescription",
              "ModalitiesInStudy")  # fmt: skip
SERIES_KEYS = ("SeriesInstanceUID", "Modality", "SeriesNumber", "SeriesDescription", "BodyPartExamined")
_OPTIONS = {"dicomweb": ("timeout",), "dicomwebs": ("timeout",), "dimse": ("timeout", "calling", "by", "listen")}
_GRAMMAR = {
    "dicomweb": "dicomweb://HOST[:PORT]/PATH?StudyInstanceUID=...",
    "dicomwebs": "dicomwebs://HOST[:PORT]/PATH?StudyInstanceUID=...",
    "dimse": "dimse://CALLED@HOST[:PORT]?calling=MEDGLIP&StudyInstanceUID=...",
}
_AE_TITLE = re.compile(r"[ -\[\]-~]{1,16}")  # PS3.5 6.2: no backslash, no control characters
_PORTS = {"dicomweb": 80, "dicomwebs": 443, "dimse": 104}


@dataclass(frozen=True, slots=True)
class Asked:
    """What an address says.

    Attributes:
        scheme: ``dicomweb``, ``dicomwebs`` or ``dimse``.
        host, port: Where.
        path: Of DICOMweb, with its leading ``/``.
        called: AE title of a DIMSE service.
        filters: Allowed values by DICOM keyword.
        options: Words in small letters.
    """

    scheme: str
    host: str
    port: int
    path: str
    called: str
    filters: dict[str, tuple[str, ...]]
    options: dict[str, str]

    @property
    def where(self) -> str:
        """The service without what is asked of it, for messages."""
        return f"{self.scheme}://{self.called and self.called + '@'}{self.host}:{self.port}{self.path}"

    @property
    def canonical(self) -> str:
        """Equal for addresses that ask the same of the same service, whatever their options and order."""
        return f"{self.where}?{sorted((key, sorted(values)) for key, values in self.filters.items())}"

    @property
    def timeout(self) -> float:
        """Seconds that the service may stay silent."""
        return float(self.options.get("timeout", "60"))

    def study_queries(self) -> list[dict[str, str]]:
        """Keywords and values of each study query to send: one value a keyword."""
        keys = [key for key in self.filters if key in STUDY_KEYS]
        return [dict(zip(keys, values, strict=True)) for values in product(*(self.filters[key] for key in keys))]

    def series_query(self) -> dict[str, str]:
        """Keywords and values of a series query; where several values are allowed, the answers are sorted out here."""
        return {key: values[0] for key, values in self.filters.items() if key in SERIES_KEYS and len(values) == 1}

    def fits(self, answer: Dataset, keys: tuple[str, ...]) -> bool:
        """Whether an answer is what was asked for; services may ignore keywords that they do not know."""
        return all(_fits(answer, key, self.filters[key]) for key in keys if key in self.filters)


def asked_of(address: str) -> Asked:
    """What an address says.

    Raises:
        InputError: it is not well formed, or holds a password or an unknown word.
    """
    parts = urlsplit(address)
    scheme = parts.scheme.lower()
    try:
        host, port = parts.hostname or "", parts.port or _PORTS[scheme]
    except ValueError as error:
        raise _malformed(scheme, f"its port is no number from 1 to 65535: {parts.netloc.rpartition('@')[2]!r}") from error
    if not host:
        raise _malformed(scheme, "it names no host")
    called = unquote(parts.username or "")
    if parts.password is not None or (called and scheme != "dimse"):
        raise InputError(
            f"Address of {host!r}: found a user name or a password in it; allowed are MEDGLIP_DICOMWEB_TOKEN,"
            " MEDGLIP_DICOMWEB_USER with MEDGLIP_DICOMWEB_PASSWORD, or a netrc file; take them out of the address."
        )
    if scheme == "dimse" and not _AE_TITLE.fullmatch(called):
        raise _malformed(scheme, f"its called AE title is {called!r}, and 1 to 16 characters are allowed")
    filters, options = _words(scheme, parts.query)
    return Asked(scheme, host, port, parts.path if scheme != "dimse" else "", called, filters, options)


def _words(scheme: str, query: str) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    filters: dict[str, tuple[str, ...]] = {}
    options: dict[str, str] = {}
    for word, value in parse_qsl(query, keep_blank_values=True):
        if not value:
            raise _malformed(scheme, f"{word!r} has no value")
        if word in STUDY_KEYS or word in SERIES_KEYS:
            filters[word] = (*filters.get(word, ()), value)
        elif word in _OPTIONS[scheme]:
            options[word] = value
        else:
            allowed = ", ".join((*STUDY_KEYS, *SERIES_KEYS, *_OPTIONS[scheme]))
            raise _malformed(scheme, f"it has the unknown word {word!r}, and allowed are {allowed}")
    for word, rule in (("timeout", r"\d+(\.\d+)?"), ("by", "get|move"), ("listen", r"\d{1,5}"), ("calling", _AE_TITLE.pattern)):
        if word in options and not re.fullmatch(rule, options[word]):
            raise _malformed(scheme, f"{word} is {options[word]!r}")
    if options.get("by") == "move" and "listen" not in options:
        raise _malformed(scheme, "by=move needs listen=PORT, the port at which the archive knows the calling AE title")
    return filters, options


def _fits(answer: Dataset, key: str, values: tuple[str, ...]) -> bool:
    found = answer.get(key)
    if found in (None, "") or key == "PatientName":  # not told, or in one of many spellings: the service has matched it
        return True
    texts = (
        [str(found)] if isinstance(found, str | int | float) or not hasattr(found, "__iter__") else [str(one) for one in found]
    )
    return any(_matches(text, value) for text in texts for value in values)


def _matches(text: str, value: str) -> bool:
    if "-" in value and re.fullmatch(r"\d{8}", text):
        first, _, last = value.partition("-")
        return (first or "0") <= text <= (last or "9")
    return fnmatchcase(text.strip().casefold(), re.sub(r"\[", "[[]", value.strip().casefold()))


def _malformed(scheme: str, found: str) -> InputError:
    return InputError(f"Address of the kind {scheme}:// is not well formed: {found}; write it as {_GRAMMAR[scheme]}.")
