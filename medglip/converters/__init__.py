"""Gives the top-level converters/ folder its import name, medglip.converters."""

from pathlib import Path

_root = Path(__file__).resolve().parents[2]
if (_root / "pyproject.toml").is_file():  # a clone; in a wheel the files already lie beside this one
    __path__.append(str(_root / "converters"))
