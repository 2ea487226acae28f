"""Finds the data folders (datasets, schemas) that travel with medglip, in a clone or in an installed wheel."""

from pathlib import Path

from medglip.errors import MedglipError

_PACKAGE = Path(__file__).resolve().parent


def shelf(name: str) -> Path:
    """Folder ``name`` ("datasets" or "schemas") of this installation.

    Raises:
        MedglipError: neither a clone nor a wheel has it; the installation is incomplete.
    """
    inside, beside = _PACKAGE / "_shelf" / name, _PACKAGE.parent / name
    for folder in (inside, beside):
        if folder.is_dir():
            return folder
    raise MedglipError(f"medglip: the folder {name!r} is neither at {inside} nor at {beside}; install medglip again.")
