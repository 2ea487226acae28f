"""A dataset in the formats of others, and their files as a dataset. One module a format; each is imported when asked for."""

import importlib
import json
import os
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from medglip.errors import InputError
from medglip.exports.chosen import Choice, OnImage
from medglip.exports.public import Public, public_notices
from medglip.store.read import Dataset

__all__ = ["FORMATS", "Choice", "OnImage", "Public", "export"]

FORMATS = ("coco", "odvg", "mdetr", "yolo", "hf", "webdataset", "croissant", "nnunet")
ALL = Choice()
# What to install for formats whose library is an extra.
EXTRAS = {"hf": "hub", "webdataset": "webdataset", "croissant": "croissant"}


def export(
    dataset: Dataset, out: Path, to: str, *, choice: Choice = ALL, on_image: OnImage | None = None,
    polygons: bool = False, public: Public | None = None,
) -> dict[str, int]:  # fmt: skip
    """Write a dataset, or a part of it, in another format.

    Everything is written beside ``out`` and moved there when it is complete, so that nothing half-written stays.
    ``LICENCES.txt`` and ``licences.json`` say where the images come from and under which licence.

    Args:
        dataset: The dataset.
        out: Folder, new or empty.
        to: One of ``FORMATS``.
        choice: Which images and regions.
        on_image: Called as ``on_image(done, total)`` after each image.
        polygons: For ``yolo`` only: write outlines (lossy) instead of boxes.
        public: The export will be given to everybody: refuse what must not be (``medglip.exports.public`` has the rules).

    Returns:
        Counts: ``images`` and ``regions`` written, and what was left out and why, for example ``regions_too_small``.

    Raises:
        InputError: the format is not known, ``out`` is not empty or cannot be written, nothing is chosen, or a library
            that the format needs is not installed; or, with ``public``, the images must not be given to everybody.
    """
    out = Path(out)
    if to not in FORMATS:
        raise InputError(f"Export format: found {to!r}; allowed: {', '.join(FORMATS)}.")
    if polygons and to != "yolo":
        raise InputError(f"Export of polygons: found the format {to!r}; allowed: 'yolo'; leave polygons out.")
    if not choice.number(dataset):
        what = f"no image in the split {choice.split!r}" if choice.split else "no image"
        raise InputError(f"Export of {dataset!r}: found {what}; see `medglip stats` for what there is.")
    notices = public_notices(dataset, choice, keep_flagged=public.keep_flagged) if public else []
    if public:
        for notice in notices:
            public.say(notice)
    options: dict[str, Any] = {"polygons": True} if polygons else {}
    with _moved_when_done(out) as draft, _extra_named(to):
        writer = importlib.import_module(f"medglip.exports.{to}")
        counts = writer.write(dataset, draft, choice, on_image or (lambda done, total: None), **options)
        _write_licences(dataset, draft, choice, notices)
    if choice.without_flags:
        counts = {**counts, "images_flagged": replace(choice, without_flags=()).number(dataset) - choice.number(dataset)}
    return dict(counts)


@contextmanager
def _extra_named(to: str) -> Iterator[None]:
    """A missing library becomes a sentence that says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        if to not in EXTRAS or (error.name or "").startswith("medglip"):
            raise
        raise InputError(
            f"Export to {to!r} needs the library {error.name!r}, which is not installed; install it with"
            f" `pip install 'medglip[{EXTRAS[to]}]'`."
        ) from error


@contextmanager
def _moved_when_done(out: Path) -> Iterator[Path]:
    """An empty folder beside ``out``, which takes its place in the end; gone where anything fails."""
    if out.exists() and not out.is_dir():
        raise InputError(f"Export to {str(out)!r}: found a file; allowed: a folder, new or empty.")
    if out.is_dir() and (inside := next(out.iterdir(), None)):
        raise InputError(
            f"Export to {str(out)!r}: found a folder with files in it ({inside.name!r}); allowed: a folder, new or empty;"
            " give another, or remove what it holds."
        )
    place = out.absolute()
    draft = place.with_name(f".{place.name}.writing-{os.getpid()}")
    try:
        draft.mkdir(parents=True)
        yield draft
        if sys.platform == "win32" and place.is_dir():
            place.rmdir()  # there, an empty folder is not replaced
        os.replace(draft, place)
    except OSError as error:
        raise InputError(
            f"Export to {str(out)!r} cannot be written: {error.strerror or error}; nothing was left there. Free space or"
            " choose another folder, and run again."
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def licences(dataset: Dataset, choice: Choice) -> list[dict[str, Any]]:
    """One entry a source of the chosen images: name, title, licences with their numbers of images, citation, page."""
    table = choice.images(dataset)
    said: dict[str, dict[str, Any]] = {}
    for part in dataset.manifest["parts"].values():
        said.setdefault(part.get("source", ""), part)
    found: dict[str, dict[str, Any]] = {}
    for (source, licence), images in sorted(Counter(zip(table["dataset"], table["licence"], strict=True)).items()):
        part = said.get(source, {})
        about = {key: part.get(key) or "" for key in ("title", "citation", "page")}
        found.setdefault(source, {"source": source, **about, "licences": {}})["licences"][licence] = images
    return list(found.values())


def _write_licences(dataset: Dataset, folder: Path, choice: Choice, notices: Sequence[str]) -> None:
    entries = licences(dataset, choice)
    (folder / "licences.json").write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    lines = ["The images and annotations of this folder come from the sources below and stay under their licences."]
    for notice in notices:
        lines += textwrap.wrap(notice, 100, initial_indent="* ", subsequent_indent="  ")
    for entry in entries:
        lines += ["", entry["title"] or entry["source"]]
        lines += [f"  licence: {licence} ({images} images)" for licence, images in entry["licences"].items()]
        for key in ("citation", "page"):
            if entry[key]:
                lines += textwrap.wrap(f"{key}: {entry[key]}", 100, initial_indent="  ", subsequent_indent="    ",
                                       break_long_words=False, break_on_hyphens=False)  # fmt: skip
    (folder / "LICENCES.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
