"""Images that are nearly the same: found by their perceptual hashes, confirmed on their pixels. Decides no splits.

Both thresholds were measured (``benchmarks/duplicates.py``): see docs/guide/splits.md for the rates found.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import gaussian_filter

from medglip.imaging.intensity import display
from medglip.records.record import Intensity
from medglip.store.groups.lineage import connected, families, images_to_group, linked_by_keys
from medglip.store.pixels import pixels_of_png
from medglip.store.place import Place
from medglip.store.read import Dataset

# Hash bits that may differ, and the correlation that the pixels must reach: anywhere, and between sources of one family.
DISTANCE, CORRELATION = 4, 0.93
FAMILY_DISTANCE, FAMILY_CORRELATION = 8, 0.85
# A hash that more groups share says nothing (black frames, empty slices): its images are left out, and listed.
POPULAR = 256
# Rows that a row is compared with in one bucket; only a crowd of look-alikes reaches it, and is counted.
CROWD = 1024
# Side of the picture that is correlated; blurs that bound its frequencies, in its pixels; contrast, as a share of the
# image's standard deviation, below which a neighbourhood counts as even.
SIDE, _FINE, _COARSE, _EVEN = 64, 0.7, 4.0, 0.1
_FLAT = 1.0  # standard deviation, of 255 levels, below which an image shows nothing
_BLOCK = 1024
_PLACE = ("id", "shard", "tar_offset", "tar_bytes", "unit", "slope", "intercept", "window_low", "window_high", "inverted")

Progress = Callable[[int, int], None]


class NearHashes(NamedTuple):
    """Pairs of hashes that differ in few bits.

    Attributes:
        pairs: int64 (P, 2), positions, first < second, sorted, each pair once.
        distance: int64 (P,), bits that differ.
        popular: int64, positions whose hash was left out because too many groups share it.
        crowded: Number of hashes of which not every pair was compared.
    """

    pairs: np.ndarray
    distance: np.ndarray
    popular: np.ndarray
    crowded: int


def near_hashes(
    hashes: np.ndarray,
    distance: int = DISTANCE,
    apart: Sequence[np.ndarray] = (),
    *,
    popular: int = POPULAR,
    crowd: int = CROWD,
) -> NearHashes:
    """All pairs of 64-bit hashes that differ in at most ``distance`` bits, less those that have something in common.

    The 64 bits are dealt to ``distance + 2`` bands. Where at most ``distance`` bits differ at least two bands agree, so it
    is enough to compare hashes that agree in two bands, for every two bands. Of equal hashes with equal ``apart`` one,
    the first, stands for all.

    Args:
        hashes: uint64 (N,).
        distance: Bits that may differ, 0 to 30.
        apart: int64 (N,) each, for example group and source: a pair must differ in every one.
        popular: A hash that occurs with more different ``apart`` than this is left out.
        crowd: Neighbours that a hash is compared with in one bucket.

    Source: Norouzi, Punjani, Fleet, "Fast exact search in Hamming space with multi-index hashing" (2014), section 3,
    with two bands agreeing instead of one.
    """
    rows = np.lexsort((*apart, hashes))
    columns = [hashes[rows], *(column[rows] for column in apart)] if apart else [hashes[rows]]
    if apart and len(rows):
        new = np.concatenate([[True], np.any([column[1:] != column[:-1] for column in columns], axis=0)])
        rows, columns = rows[new], [column[new] for column in columns]
    _, inverse, number = np.unique(columns[0], return_inverse=True, return_counts=True)
    left = number[inverse] > popular
    kept, columns = rows[~left], [column[~left] for column in columns]
    shape = np.empty((0,), np.int64)
    found, crowded = [(shape, shape)], np.zeros(len(kept), bool)
    for mask in _band_masks(distance):
        found.extend(_agreeing(columns, mask, distance, crowd, crowded))
    first, second = (kept[np.concatenate(side)] for side in zip(*found, strict=True))
    pairs = np.stack([np.minimum(first, second), np.maximum(first, second)], axis=1).astype(np.int64)
    pairs = np.unique(pairs[:, 0] * max(1, len(hashes)) + pairs[:, 1])
    pairs = np.stack(np.divmod(pairs, max(1, len(hashes))), axis=1)
    bits = np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]]).astype(np.int64)
    unheard = np.flatnonzero(np.isin(hashes, hashes[rows[left]])) if left.any() else shape
    return NearHashes(pairs, bits, unheard, int(crowded.sum()))


def _band_masks(distance: int) -> list[np.uint64]:
    """Masks of two bands each; bit b is in band b modulo their number, so that low frequencies are in all of them."""
    count = distance + 2
    bands = [sum(1 << bit for bit in range(band, 64, count)) for band in range(count)]
    return [np.uint64(one | other) for one, other in combinations(bands, 2)]


def _agreeing(
    columns: list[np.ndarray], mask: np.uint64, distance: int, crowd: int, crowded: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of rows that agree under the mask, are near, and are apart; sets ``crowded`` where a bucket is too long."""
    order = np.argsort(columns[0] & mask, kind="stable")
    keys, (hashes, *apart) = (columns[0] & mask)[order], (column[order] for column in columns)
    here = np.arange(len(keys))
    for step in range(1, crowd + 1):
        here = here[here + step < len(keys)]
        here = here[keys[here] == keys[here + step]]
        if not len(here):
            return
        near = here[np.bitwise_count(hashes[here] ^ hashes[here + step]) <= distance]
        for column in apart:
            near = near[column[near] != column[near + step]]
        if len(near):
            yield order[near], order[near + step]
    crowded[order[here]] = True


def signature(shown: np.ndarray) -> np.ndarray:
    """What an image looks like, without its size, brightness and contrast: the dot product of two is their correlation.

    The image is brought to 64 x 64, and of its middle frequencies each neighbourhood is given the same contrast: the bright
    disc of a fundus photograph or the outline of a chest is in every image of its kind and would drown the rest.

    Args:
        shown: uint8 (H, W) or (H, W, 3), for display.

    Returns:
        float32 (4096,), sum 0, length 1; zeros where the image is flat.
    """
    grey = shown.mean(axis=2) if shown.ndim == 3 else shown
    image = Image.fromarray(np.asarray(grey, np.float32)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    small = np.asarray(image)
    spread = float(small.std())
    if spread < _FLAT:
        return np.zeros(SIDE * SIDE, np.float32)
    band = gaussian_filter(small, _FINE) - gaussian_filter(small, _COARSE)
    even = band / np.sqrt(gaussian_filter(band * band, _COARSE) + (_EVEN * spread) ** 2)
    flat = (even - even.mean()).ravel()
    length = float(np.linalg.norm(flat))
    return flat / length if length > 0 else np.zeros_like(flat)


class Found(NamedTuple):
    """Near duplicates and what was not compared.

    Attributes:
        pairs: Columns ``a``, ``b`` (rows of the images that were searched), ``distance``, ``correlation``; confirmed.
        checked: Pairs whose pixels were compared.
        left_out: Reason -> images.
    """

    pairs: pd.DataFrame
    checked: int
    left_out: dict[str, int]


def search(
    dataset: Dataset, images: pd.DataFrame, component: np.ndarray, apart: Sequence[np.ndarray] = (),
    on_progress: Progress | None = None,
) -> Found:  # fmt: skip
    """Near duplicates among images of different components.

    Args:
        dataset: An opened dataset.
        images: From ``medglip.store.groups.lineage.images_to_group``.
        component: Of each row; images of one need no check.
        apart: What else a pair must differ in, int64 (N,) each.
        on_progress: Called with the number of images looked at, and their total.
    """
    told = np.flatnonzero((images["perceptual_hash"] != "").to_numpy())
    hashes = np.array([int(text, 16) for text in images["perceptual_hash"].iloc[told]], np.uint64)
    apart = (component, *apart)
    general = near_hashes(hashes, DISTANCE, [column[told] for column in apart])
    popular, crowded = set(told[general.popular].tolist()), general.crowded
    pairs, distance = [told[general.pairs]], [general.distance]
    family = images["dataset"].map(families(dataset.manifest)).fillna(images["dataset"])
    source = pd.factorize(images["dataset"])[0]
    for name in sorted(family[family != images["dataset"]].unique()):
        rows = told[(family.iloc[told] == name).to_numpy()]
        mine = hashes[np.searchsorted(told, rows)]
        near = near_hashes(mine, FAMILY_DISTANCE, [column[rows] for column in (*apart, source)])
        pairs.append(rows[near.pairs])
        distance.append(near.distance)
        crowded += near.crowded
    both = pd.DataFrame(np.concatenate(pairs).reshape(-1, 2), columns=["a", "b"]).assign(distance=np.concatenate(distance))
    both = both.drop_duplicates(["a", "b"]).sort_values(["a", "b"], ignore_index=True)
    both["correlation"] = _correlations(dataset, images, both[["a", "b"]].to_numpy(), on_progress)
    related = (family.to_numpy()[both["a"]] == family.to_numpy()[both["b"]]) & (source[both["a"]] != source[both["b"]])
    sure = both["correlation"] >= np.where(related, FAMILY_CORRELATION, CORRELATION)
    reasons = {
        "no perceptual hash": len(images) - len(told),
        f"a perceptual hash that more than {POPULAR} groups share": len(popular),
        "too many alike to compare all": crowded,
    }
    left_out = {reason: number for reason, number in reasons.items() if number}
    return Found(both[sure].reset_index(drop=True), len(both), left_out)


def _correlations(dataset: Dataset, images: pd.DataFrame, pairs: np.ndarray, on_progress: Progress | None) -> np.ndarray:
    """Correlation of the images of each pair, float64 (P,); every image is read once."""
    rows, numbers = np.unique(pairs, return_inverse=True)
    numbers = numbers.reshape(-1, 2)
    result = np.zeros(len(pairs))
    if not len(pairs):
        return result
    position = images["position"].to_numpy()[rows]
    order = np.argsort(position)  # as they lie on disk
    places = dataset.table("images", list(_PLACE)).iloc[position[order]]
    with tempfile.TemporaryFile() as file:  # a million of them would not fit in memory
        seen = np.memmap(file, np.float16, "w+", shape=(len(rows), SIDE * SIDE))
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            for start in range(0, len(rows), _BLOCK):
                block = places.iloc[start : start + _BLOCK].to_dict("records")
                for number, values in enumerate(pool.map(lambda row: _look(dataset.place, row), block), start):
                    seen[order[number]] = values
                    if on_progress:
                        on_progress(number + 1, len(rows))
        for start in range(0, len(pairs), _BLOCK):
            one, other = (seen[side].astype(np.float32) for side in numbers[start : start + _BLOCK].T)
            result[start : start + _BLOCK] = np.einsum("ij,ij->i", one, other)
        del seen
    return result


def _look(place: Place, row: dict) -> np.ndarray:
    """The signature of an image from where its PNG lies and what its numbers mean."""
    png = place.read_range(row["shard"], int(row["tar_offset"]), int(row["tar_bytes"]))
    pixels = pixels_of_png(png, f"Image {row['id']!r} in {row['shard']!r} of {place.name!r}")
    window = row["window_low"], row["window_high"]
    return signature(display(pixels, Intensity(row["unit"], row["slope"], row["intercept"], window, row["inverted"])))


def near_duplicate_pairs(dataset: Dataset, on_progress: Progress | None = None) -> pd.DataFrame:
    """Pairs of images that look the same and that nothing else says to belong together.

    Args:
        dataset: An opened dataset.
        on_progress: Called with the number of images looked at, and their total.

    Returns:
        Columns ``image_a``, ``image_b`` (ids, a < b), ``distance`` (hash bits that differ) and ``correlation``; sorted by
        ids. Images of one group, patient, study or series, or with equal pixels, are not listed.
    """
    images = images_to_group(dataset)
    component, _ = linked_by_keys(dataset, images)
    return named_pairs(images, search(dataset, images, component, on_progress=on_progress).pairs)


def named_pairs(images: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Pairs of rows as pairs of ids: columns ``image_a``, ``image_b``, ``distance``, ``correlation``."""
    ids = images["id"].to_numpy()
    named = {"image_a": ids[pairs["a"]], "image_b": ids[pairs["b"]]}
    return pd.DataFrame({**named, "distance": pairs["distance"], "correlation": pairs["correlation"].round(4)})


def joined_with(component: np.ndarray, pairs: pd.DataFrame) -> np.ndarray:
    """The components after near duplicates are joined as well, int64."""
    edges = component[pairs[["a", "b"]].to_numpy(np.int64).T].reshape(2, -1)
    return connected(int(component.max(initial=-1)) + 1, [edges])[component]
