"""From a source's files to a dataset: sources (TOML), layouts, cases and the engine that runs converters over them."""

from medglip.curate.engine import Conversion, Input, convert
from medglip.curate.grammar import load_source, source_names
from medglip.curate.source import Part, Source

__all__ = ["Conversion", "Input", "Part", "Source", "convert", "load_source", "source_names"]
