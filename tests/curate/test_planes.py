"""Pictures kept as volume files."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from medglip.curate.cases import Refused
from medglip.curate.planes import read_mask, read_picture, read_plane
from medglip.curate.source import Part
from medglip.errors import InputError

RNG = np.random.default_rng(3)
COLOURS = RNG.integers(0, 255, (20, 30, 3)).astype(np.uint8)


def save(path: Path, array: np.ndarray, *, vector: bool = False) -> Path:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(array, isVector=vector), str(path))
    return path


@pytest.mark.parametrize("ending", ["mha", "nrrd", "mhd"])
def test_colours_in_pixels_and_colours_in_slices_are_one_picture(ending: str, tmp_path: Path) -> None:
    pixels = save(tmp_path / f"pixels.{ending}", COLOURS, vector=True)
    slices = save(tmp_path / f"slices.{ending}", np.ascontiguousarray(np.moveaxis(COLOURS, 2, 0)))
    assert np.array_equal(read_plane(pixels), COLOURS)
    assert np.array_equal(read_plane(slices), COLOURS)


def test_equal_colours_and_a_single_slice_are_grey(tmp_path: Path) -> None:
    grey = COLOURS[..., 0]
    assert np.array_equal(read_plane(save(tmp_path / "a.mha", np.stack([grey] * 3))), grey)
    assert np.array_equal(read_plane(save(tmp_path / "b.mha", grey[None])), grey)
    assert np.array_equal(read_mask(save(tmp_path / "c.mha", grey), numbers=True), grey)


def test_a_volume_a_broken_file_and_an_even_picture_are_refused(tmp_path: Path) -> None:
    part = Part("p", "mask_images", "ultrasound", "tiny", "CC0-1.0", "human", {}, {})
    with pytest.raises(Refused, match="one plane"):
        read_plane(save(tmp_path / "volume.mha", np.zeros((5, 20, 30), np.uint8)))
    (tmp_path / "broken.mha").write_bytes(b"ObjectType = Image\n")
    with pytest.raises(InputError, match=r"broken\.mha"):
        read_plane(tmp_path / "broken.mha")
    with pytest.raises(Refused, match="nothing to see"):
        read_picture(part, save(tmp_path / "even.mha", np.full((20, 30), 7, np.uint8)))
