"""The problems of a dataset as pages to work through: by check, with the image, the region, and what to do.

``problems.html`` is the summary; the pages and pictures lie beside it in ``problem_files/``. Needs no network.
"""

import io
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from PIL import Image

from medglip.errors import DatasetError, MedglipError
from medglip.records.masks import Rle
from medglip.store.checks.problems import ADVICE, Problem
from medglip.store.checks.runs import measure
from medglip.store.pages.overlays import outline
from medglip.store.read import Dataset

FOLDER, INDEX = "problem_files", "problems.html"
# Problems on a page, and images of a check that are drawn: drawing 100,000 would take an hour and help nobody.
PER_PAGE, DRAWN = 200, 200
_LOOKED_UP = 100 * PER_PAGE  # problems whose images and regions are found by one query
_SIDE = 220  # px of a picture
_MARGIN = 0.5  # of the image's size, shown around it where a box lies outside


@dataclass(frozen=True, slots=True)
class Sketch:
    """One image with one region over it, in pixels of the picture."""

    file: str
    width: int
    height: int
    view: str
    box: tuple[float, float, float, float] | None
    outline: str


class Item(NamedTuple):
    """One problem as it is shown."""

    number: int
    problem: Problem
    source: str
    label: str
    sketch: Sketch | None


class Group(NamedTuple):
    """The problems of one check."""

    check: str
    title: str
    advice: str
    items: list[Problem]
    number: int
    errors: int
    pages: list[str]


def write_fix_report(path: Path, problems: Sequence[Problem]) -> Path:
    """Write the pages for what ``validate`` found in a dataset; pages of an earlier time are removed.

    Args:
        path: Folder of the dataset.
        problems: What was found.

    Returns:
        Path of the summary.

    Raises:
        DatasetError: the folder cannot be written.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("medglip", "store/pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("fix_report.html")
    groups = _groups(problems)
    shared = {"title": path.resolve().name, "groups": groups}
    try:
        shutil.rmtree(path / FOLDER, ignore_errors=True)
        if groups:
            (path / FOLDER).mkdir(parents=True)
        drawing = _Drawing(path)
        for group in groups:
            for page, items in enumerate(drawing.pages(group.items)):
                text = template.render(shared, group=group, page=page, items=items, up="../", here="")
                (path / FOLDER / group.pages[page]).write_text(text, "utf-8")
        index = path / INDEX
        index.write_text(template.render(shared, group=None, page=0, items=[], up="", here=f"{FOLDER}/"), "utf-8")
    except OSError as error:
        raise DatasetError(
            f"Dataset {str(path)!r}: its problems cannot be written ({error.strerror}); free space or copy the dataset to"
            " where you may write."
        ) from error
    return index


def _groups(problems: Iterable[Problem]) -> list[Group]:
    by_check: dict[str, list[Problem]] = {check: [] for check in ADVICE}
    for problem in problems:
        by_check.setdefault(problem.check, []).append(problem)
    groups = []
    for check, found in by_check.items():
        if found:
            title, advice = ADVICE.get(check, (check or "Others", ""))
            pages = [f"{check or 'others'}-{number:04d}.html" for number in range(1, -(-len(found) // PER_PAGE) + 1)]
            number = sum(problem.more or 1 for problem in found)
            wrong = sum(problem.more or 1 for problem in found if problem.level == "error")
            groups.append(Group(check, title, advice, found, number, wrong, pages))
    return groups


class _Drawing:
    """Looks up and draws what problems speak of; whatever is broken is left out, since that is what they say."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: dict[str, tuple[str, int, int, int, int] | None] = {}
        try:
            self._dataset: Dataset | None = Dataset(path)
        except (MedglipError, KeyError, TypeError):
            self._dataset = None

    def pages(self, problems: Sequence[Problem]) -> Iterator[list[Item]]:
        """The problems of a check, page by page; the first images are drawn."""
        for start in range(0, len(problems), _LOOKED_UP):
            some = problems[start : start + _LOOKED_UP]
            images = self._rows("images", ["dataset", "file"], {problem.image for problem in some})
            labels = self._rows("regions", ["label"], {problem.region for problem in some})
            shown = {problem.region for problem in some[: max(0, DRAWN - start)]}
            shapes = self._rows("regions", ["x0", "y0", "x1", "y1", "rle"], shown)
            for first in range(0, len(some), PER_PAGE):
                page = []
                for number, problem in enumerate(some[first : first + PER_PAGE], start + first + 1):
                    image, label = images.get(problem.image), labels.get(problem.region, {}).get("label", "")
                    drawn = number <= DRAWN and image is not None
                    sketch = self._sketch(problem.image, shapes.get(problem.region)) if drawn else None
                    source = f"{image['dataset']}: {image['file']}" if image else ""
                    page.append(Item(number, problem, source, label, sketch))
                yield page

    def _rows(self, table: str, columns: list[str], ids: set[str]) -> dict[str, dict[str, Any]]:
        """Columns of some rows by their ids."""
        ids = ids - {""}
        if self._dataset is None or not ids:
            return {}
        listed = ", ".join("'" + one.replace("'", "''") + "'" for one in sorted(ids))
        try:
            rows = self._dataset.query(f"SELECT id, {', '.join(columns)} FROM {table} WHERE id IN ({listed})")
        except (MedglipError, OSError, ValueError):
            return {}
        return {row["id"]: {str(name): value for name, value in row.items()} for row in rows.to_dict("records")}

    def _sketch(self, image: str, region: dict[str, Any] | None) -> Sketch | None:
        if image not in self._files:
            self._files[image] = self._picture(image)
        picture = self._files[image]
        if picture is None:
            return None
        file, width, height, columns, rows = picture
        if region is None:
            return Sketch(file, width, height, f"0 0 {width} {height}", None, "")
        scale = width / columns, height / rows
        corners = np.array([region[side] for side in ("x0", "y0", "x1", "y1")], float) * (scale * 2)
        if not np.isfinite(corners).all():
            return Sketch(file, width, height, f"0 0 {width} {height}", None, "")
        low = np.clip(np.minimum(corners[:2], corners[2:]), (-_MARGIN * width, -_MARGIN * height), 0)
        high = np.clip(np.maximum(corners[:2], corners[2:]), (width, height), ((1 + _MARGIN) * width, (1 + _MARGIN) * height))
        view = " ".join(f"{value:.1f}" for value in (*low, *(high - low)))
        x, y = np.minimum(corners[:2], corners[2:])
        w, h = np.abs(corners[2:] - corners[:2])
        box = round(float(x), 1), round(float(y), 1), round(float(w), 1), round(float(h), 1)
        return Sketch(file, width, height, view, box, _path(region["rle"], rows, columns, scale))

    def _picture(self, image: str) -> tuple[str, int, int, int, int] | None:
        """File, size, and the size of the stored image, of its small picture."""
        if self._dataset is None:
            return None
        try:
            pixels = self._dataset.display(image)
        except (MedglipError, OSError, ValueError, KeyError, IndexError):
            return None
        rows, columns = pixels.shape[:2]
        factor = _SIDE / max(rows, columns)
        size = max(1, round(columns * factor)), max(1, round(rows * factor))
        buffer = io.BytesIO()
        Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0).save(buffer, "JPEG", quality=85)
        name = f"{''.join(c for c in image if c.isalnum())}.jpg"
        (self._path / FOLDER / name).write_bytes(buffer.getvalue())
        return name, *size, columns, rows


def _path(rle: Any, rows: int, columns: int, scale: tuple[float, float]) -> str:
    """Outline of a mask, or "" where it is none of the image's size."""
    if not isinstance(rle, str) or not measure(pa.array([rle]), np.array([rows]), np.array([columns])).good[0]:
        return ""  # COCO's decoder must not see a broken code: it may read and write outside its memory
    return outline(Rle((rows, columns), rle), (0, 0, columns, rows), scale)
