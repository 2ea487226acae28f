"""What opening an input tells its caller: how far it is, and what it could not bring. Knows nothing of kinds of inputs."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

OnStep = Callable[[int, int, str], None]


@dataclass(frozen=True, slots=True)
class Lost:
    """One file that an input names and that could not be brought.

    Attributes:
        file: Path relative to the folder that the input becomes, with ``/``.
        reason: Short code: ``encrypted_member``, ``broken_member``, ``unsupported_compression``, ``unreadable_archive``,
            ``name_taken``, ``data_after_end``, ``missing_file``, ``unsafe_name``, ``damaged_dicomdir``, ``not_retrieved``.
        detail: One sentence: what was found and what to do; that of an ``unreadable_archive`` quotes names.
    """

    file: str
    reason: str
    detail: str


class LostWarning(UserWarning):
    """A part of an input could not be brought, and nobody asked to be told in another way."""


@dataclass(frozen=True, slots=True)
class News:
    """The two callbacks of ``opened_input``.

    Attributes:
        step: Called as ``step(done, total, note)``.
        lost: Called with each ``Lost``.
    """

    step: OnStep
    lost: Callable[[Lost], None]


def news(on_step: OnStep | None, on_lost: Callable[[Lost], None] | None) -> News:
    """The callbacks, silent about steps and warning of losses where none is given."""
    return News(on_step or (lambda done, total, note: None), on_lost or _warn)


def _warn(lost: Lost) -> None:
    warnings.warn(f"{lost.file}: {lost.detail}", LostWarning, stacklevel=3)
