"""Line charts as inline SVG that follows a page's colours. Knows numbers and names only."""

from collections.abc import Collection, Mapping, Sequence
from html import escape
from math import ceil, floor, isfinite, log10

WIDTH, HEIGHT = 560, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 16, 30, 38

Points = Sequence[tuple[float, float]]


def line_chart(
    series: Mapping[str, Points], *, x_label: str, title: str, y_range: tuple[float, float] | None = None,
    x_range: tuple[float, float] | None = None, dashed: Collection[str] = (), dots: bool = True,
) -> str:  # fmt: skip
    """An SVG of one line a series, with axes, round ticks and a legend at its head.

    Args:
        series: Name to (x, y) points in order of x; points that are not finite are left out.
        x_label: Under the x axis.
        title: For those who cannot see the chart.
        y_range: Ends of the y axis; default: those of the data, from 0 where that is near.
        x_range: Ends of the x axis; default: those of the data.
        dashed: Names of the series that are drawn dashed and without dots: what to compare with.
        dots: Whether the points of a short series are marked.
    """
    clean = {name: [(x, y) for x, y in points if isfinite(x) and isfinite(y)] for name, points in series.items()}
    clean = {name: points for name, points in clean.items() if points}
    if not clean:
        return ""
    xs = [x for points in clean.values() for x, _ in points]
    ys = [y for points in clean.values() for _, y in points]
    x_ticks = ticks(*(x_range or (min(xs), max(xs))))
    y_ticks = ticks(*(y_range or (0.0 if min(ys) >= 0 and min(ys) < 0.5 * max(ys) else min(ys), max(ys))))
    x_low, x_high = x_range or (min(xs), max(max(xs), min(xs) + 1e-9))
    y_low, y_high = (y_ticks[0], y_ticks[-1]) if y_range is None else y_range

    def place(x: float, y: float) -> tuple[float, float]:
        right = (x - x_low) / (x_high - x_low) * (WIDTH - _LEFT - _RIGHT)
        up = (y - y_low) / ((y_high - y_low) or 1.0) * (HEIGHT - _TOP - _BOTTOM)
        return _LEFT + right, HEIGHT - _BOTTOM - up

    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for y in y_ticks:
        at = place(x_low, y)[1]
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{number(y)}</text>')
    words = [(place(x, y_low)[0], HEIGHT - 20, number(x)) for x in x_ticks if x_low <= x <= x_high]
    words.append(((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 4, escape(x_label)))
    parts += [f'<text class="tick" x="{x:.1f}" y="{y}" text-anchor="middle">{text}</text>' for x, y, text in words]
    head = float(_LEFT)
    for place_in_order, (name, points) in enumerate(clean.items()):
        line = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in points)
        dash = ' stroke-dasharray="5 4"' if name in dashed else ""
        parts.append(f'<polyline class="line s{place_in_order % 4}" points="{line}"{dash}/>')
        if dots and len(points) <= 40 and not dash:
            spots = (place(x, y) for x, y in points)
            parts += [f'<circle class="dot s{place_in_order % 4}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>' for x, y in spots]
        parts.append(f'<line class="line s{place_in_order % 4}" x1="{head}" x2="{head + 18}" y1="12" y2="12"{dash}/>')
        parts.append(f'<text class="name" x="{head + 24}" y="16">{escape(name)}</text>')
        head += 40 + 7.4 * len(name)
    return "".join([*parts, "</svg>"])


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that enclose low and high, about ``count`` of them.

    >>> ticks(0, 0.93)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if high <= low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / count
    unit = 10.0 ** floor(log10(rough))
    step = min((unit, 2 * unit, 5 * unit, 10 * unit), key=lambda size: abs(size - rough))
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [round(place * step, 12) for place in range(first, last + 1)]


def smoothed(points: Points, keep: float = 0.9) -> list[tuple[float, float]]:
    """Points with an exponential mean of y, without its pull toward the start."""
    mean, weight, out = 0.0, 0.0, []
    for x, y in points:
        mean, weight = keep * mean + (1 - keep) * y, keep * weight + (1 - keep)
        out.append((x, mean / weight))
    return out


def number(value: float) -> str:
    """A number of an axis, short."""
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
