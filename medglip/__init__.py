"""medglip: medical images in, a grounding dataset and a modality-conditioned GLIP model out.

>>> import medglip
>>> dataset = medglip.open("DATASET")  # doctest: +SKIP
>>> grounder = medglip.Grounder.load("CHECKPOINT")  # doctest: +SKIP
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medglip.curate import convert as convert
    from medglip.curate import load_source as load_source
    from medglip.language.report import Reporter as Reporter
    from medglip.language.vqa import VQA as VQA
    from medglip.predict import Grounder as Grounder
    from medglip.records import label_tree as label_tree
    from medglip.store import open as open  # noqa: A004  (the public name, as in `PIL.Image.open`)

__version__ = "0.1.0"
__all__ = ["VQA", "Grounder", "Reporter", "__version__", "convert", "label_tree", "load_source", "open"]

# Loaded on first use, so that `import medglip` brings in neither torch nor the store.
_HOMES = {
    "Grounder": "medglip.predict", "Reporter": "medglip.language.report", "VQA": "medglip.language.vqa",
    "convert": "medglip.curate", "label_tree": "medglip.records", "load_source": "medglip.curate", "open": "medglip.store",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'medglip' has no attribute {name!r}")
