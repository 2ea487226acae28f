"""Progress bars of long work, on a terminal or in a log. Knows nothing of what the work is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Step = Callable[..., None]


class Bars:
    """A set of progress bars that are shown together."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def step(self, title: str) -> Step:
        """A new bar; call what comes back as ``step(done, total, note="")`` whenever there is news."""
        task = self._progress.add_task(title, total=None, note="")

        def report(done: int, total: int | None = None, note: str = "") -> None:
            self._progress.update(task, completed=done, total=total, note=note)

        return report


@contextmanager
def bar(console: Console) -> Iterator[Bars]:
    """Bars with counts, rate, time spent and time left; they stay when the work is done."""
    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(), TextColumn("{task.fields[note]}"),
    )  # fmt: skip
    with Progress(*columns, console=console, refresh_per_second=2) as progress:
        yield Bars(progress)
