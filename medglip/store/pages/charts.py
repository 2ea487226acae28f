"""Histograms and maps of a dataset's statistics as rectangles for an SVG. Knows nothing of pages and files."""

from math import log2
from typing import Any, NamedTuple

import pandas as pd

from medglip.records.labels import LabelTree
from medglip.store.pages.distributions import GRID

# Maps and histograms on a page; the most frequent first.
MAPS, HISTOGRAMS = 24, 8
_WIDE, _HIGH, _FOOT = 300.0, 96.0, 16.0  # px of a histogram: bars, and room for the numbers below


class Bar(NamedTuple):
    """A rectangle with its number as a tooltip."""

    x: float
    y: float
    width: float
    height: float
    title: str


class Tick(NamedTuple):
    """A number below the bars."""

    x: float
    text: str


class Histogram(NamedTuple):
    """The sizes of a modality's boxes in one unit."""

    title: str
    unit: str
    regions: int
    bars: list[Bar]
    ticks: list[Tick]
    width: float = _WIDE
    height: float = _HIGH
    foot: float = _FOOT


class HeatMap(NamedTuple):
    """Where in the image the boxes of a label lie: cells with an opacity from 0 to 1."""

    title: str
    modality: str
    regions: int
    cells: list[tuple[int, int, float, int]]
    grid: int = GRID


def histograms(sizes: pd.DataFrame) -> list[Histogram]:
    """One for each modality and unit of the table ``box_sizes``, of the modalities with the most regions."""
    pixels = sizes[sizes["unit"] == "px"].groupby("modality")["regions"].sum()
    order = sorted(pixels.items(), key=lambda item: (-item[1], item[0]))[:HISTOGRAMS]
    return [
        _histogram(str(modality), unit, rows)
        for modality, _ in order
        for unit in ("px", "mm")
        if len(rows := sizes[(sizes["modality"] == modality) & (sizes["unit"] == unit)])
    ]


def _histogram(modality: str, unit: str, table: pd.DataFrame) -> Histogram:
    rows: list[dict[Any, Any]] = table.to_dict("records")
    low, high = rows[0]["low"], rows[-1]["high"]
    bins = max(1, round(2 * log2(high / low)))
    wide, most = _WIDE / bins, max(row["regions"] for row in rows)
    bars = []
    for row in rows:
        tall = max(1.0, (_HIGH - 4) * row["regions"] / most)
        x = round(2 * log2(row["low"] / low)) * wide
        title = f"{_short(row['low'])} to {_short(row['high'])} {unit}: {row['regions']:,}"
        bars.append(Bar(round(x + 0.5, 1), round(_HIGH - tall, 1), round(max(1.0, wide - 1), 1), round(tall, 1), title))
    # a number at every edge would not fit; at most seven do
    step = -(-(bins + 1) // 7)
    ticks = [
        Tick(round(min(max(place * wide, 10), _WIDE - 12), 1), _short(low * 2 ** (place / 2)))
        for place in range(0, bins + 1, step)
    ]
    return Histogram(modality, unit, int(sum(row["regions"] for row in rows)), bars, ticks)


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}".removesuffix(".0")


def heat_maps(positions: pd.DataFrame, tree: LabelTree) -> list[HeatMap]:
    """One for each label and modality of the table ``positions``, those with the most regions."""
    kinds = {(str(label), str(modality)): rows for (label, modality), rows in positions.groupby(["label", "modality"])}
    order = sorted(kinds, key=lambda kind: (-kinds[kind]["regions"].sum(), kind))[:MAPS]
    maps = []
    for label, modality in order:
        rows = kinds[label, modality]
        most = rows["regions"].max()
        cells = [
            (int(column), int(row), round(float((regions / most) ** 0.5), 2), int(regions))
            for row, column, regions in zip(rows["row"], rows["column"], rows["regions"], strict=True)
        ]
        maps.append(HeatMap(tree[label].name if label in tree else label, modality, int(rows["regions"].sum()), cells))
    return maps
