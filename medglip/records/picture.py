"""A record together with its pixels: what a converter yields and the store writes. Knows nothing of files."""

from typing import NamedTuple

import numpy as np

from medglip.records.record import ImageRecord


class Picture(NamedTuple):
    """One image on its way into a dataset.

    Attributes:
        record: What is known of it; ``record.sha256`` is the hash of ``pixels``.
        pixels: As they will be stored: uint8 (H, W) or (H, W, 3), or uint16 (H, W).
    """

    record: ImageRecord
    pixels: np.ndarray
