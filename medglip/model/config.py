"""Reads configurations (``configs/*.toml``): one whole file per recipe, sections of plain values. Builds nothing."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medglip.errors import ModelError

FOLDER = Path(__file__).resolve().parent.parent / "configs"
SECTIONS = ("image", "text", "model", "train", "loss")

Config = dict[str, dict[str, Any]]


def load_config(source: str | Path | Mapping[str, Any], **overrides: Any) -> Config:
    """A configuration as nested dicts, a copy of its own.

    Args:
        source: Name of a file in ``medglip/configs``, a path to a TOML file, or the dicts themselves.
        overrides: New values by key; each key is of one section: ``load_config("lite", steps=300)``.

    Raises:
        ModelError: no such file, broken TOML, a section missing, or a key that the configuration does not have.
    """
    if isinstance(source, Mapping):
        raw: Mapping[str, Any] = source
    else:
        path = Path(source) if str(source).endswith(".toml") else FOLDER / f"{source}.toml"
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.toml")))
        if not path.is_file():
            raise ModelError(f"Configuration {str(source)!r} is not there; allowed: a path to a .toml file, or one of {known}.")
        try:
            raw = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ModelError(f"Configuration {path} is not TOML: {error}.") from error
    if missing := [section for section in SECTIONS if not isinstance(raw.get(section), Mapping)]:
        raise ModelError(f"Configuration {str(source)[:80]!r} lacks the sections {missing!r}; needed: {', '.join(SECTIONS)}.")
    config = {section: dict(raw[section]) for section in SECTIONS}
    for key, value in overrides.items():
        home = [section for section in SECTIONS if key in config[section]]
        if len(home) != 1:
            keys = sorted(name for section in SECTIONS for name in config[section])
            raise ModelError(f"Configuration has no key {key!r}; allowed: {', '.join(keys)}.")
        config[home[0]][key] = value
    return config
