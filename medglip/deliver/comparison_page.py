"""The page of a comparison of evaluations, in one file without network. Compares nothing itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medglip.deliver.html import pages, written
from medglip.evaluate.definitions import HEADLINE, SHORT

_CLASSES = {"better": "gain", "worse": "loss", "unclear": ""}


def comparison_page(facts: Mapping[str, Any], out: str | Path) -> Path:
    """Write what ``medglip.evaluate.compare.compare`` returned as one HTML file; comes back with its path."""
    page = pages().get_template("comparison.html").render(facts=facts, definitions=HEADLINE, short=SHORT, classes=_CLASSES)
    return written(Path(out), page)
