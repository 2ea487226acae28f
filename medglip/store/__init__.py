"""The dataset on disk: written in parts, opened as tables, records and pixels. Knows no sources, no models."""

from medglip.store.pixels import perceptual_hash, pixel_sha256, png_bytes
from medglip.store.read import Dataset
from medglip.store.read import open_dataset as open  # noqa: A004
from medglip.store.write import Writer, write_part

__all__ = ["Dataset", "Writer", "open", "perceptual_hash", "pixel_sha256", "png_bytes", "write_part"]
