"""A TOML to start from: looks at a folder, guesses the converter, the layout and the raw labels, and says what is left."""

from medglip.curate.sketching.sketch import sketch

__all__ = ["sketch"]
