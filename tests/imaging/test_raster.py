import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import tifffile
from PIL import Image

from medglip.errors import InputError
from medglip.imaging.raster import pages_of, read_mask_raster, read_raster

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (5, 7), dtype=np.uint8)
COLOUR = RANDOM.integers(0, 256, (5, 7, 3), dtype=np.uint8)


@pytest.mark.parametrize("ending", ["png", "tif", "bmp", "gif"])
def test_lossless_formats_give_the_pixels_back(tmp_path: Path, ending: str) -> None:
    Image.fromarray(GREY).save(tmp_path / f"grey.{ending}")
    assert np.array_equal(read_raster(tmp_path / f"grey.{ending}"), GREY)
    if ending != "gif":
        Image.fromarray(COLOUR).save(tmp_path / f"colour.{ending}")
        assert np.array_equal(read_raster(tmp_path / f"colour.{ending}"), COLOUR)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits_are_kept(tmp_path: Path, ending: str) -> None:
    deep = RANDOM.integers(0, 65536, (5, 7), dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / f"deep.{ending}")
    back = read_raster(tmp_path / f"deep.{ending}")
    assert back.dtype == np.uint16
    assert np.array_equal(back, deep)
    deep_colour = RANDOM.integers(0, 65536, (5, 7, 3), dtype=np.uint16)
    image = SimpleITK.GetImageFromArray(deep_colour, isVector=True)
    SimpleITK.WriteImage(image, str(tmp_path / f"colour.{ending}"))
    assert np.array_equal(read_raster(tmp_path / f"colour.{ending}"), deep_colour)


def test_exif_orientation_is_applied_to_image_and_mask(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to the right
    Image.fromarray(GREY).save(tmp_path / "turned.png", exif=exif)
    upright = np.rot90(GREY, -1)
    assert np.array_equal(read_raster(tmp_path / "turned.png"), upright)
    assert np.array_equal(read_mask_raster(tmp_path / "turned.png"), upright)


def test_alpha_is_dropped_but_a_mask_may_be_drawn_in_it(tmp_path: Path) -> None:
    alpha = (GREY > 100).astype(np.uint8) * 255
    Image.fromarray(np.dstack([COLOUR, alpha])).save(tmp_path / "rgba.png")
    assert np.array_equal(read_raster(tmp_path / "rgba.png"), COLOUR)
    assert np.array_equal(read_mask_raster(tmp_path / "rgba.png"), COLOUR)
    Image.fromarray(np.dstack([np.zeros_like(COLOUR), alpha])).save(tmp_path / "alpha.png")
    assert np.array_equal(read_mask_raster(tmp_path / "alpha.png"), alpha)


def test_palette_is_colours_in_an_image_and_indices_in_a_mask(tmp_path: Path) -> None:
    indices = (GREY % 3).astype(np.uint8)
    image = Image.fromarray(indices).convert("P")
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    image.putdata(indices.ravel().tolist())
    image.save(tmp_path / "palette.png")
    assert np.array_equal(read_mask_raster(tmp_path / "palette.png"), indices)
    assert read_raster(tmp_path / "palette.png").shape == (5, 7, 3)


def test_one_bit_masks_are_zero_and_one(tmp_path: Path) -> None:
    Image.fromarray(GREY > 100).save(tmp_path / "bit.png")
    assert np.array_equal(read_mask_raster(tmp_path / "bit.png"), (GREY > 100).astype(np.uint8))
    assert set(np.unique(read_raster(tmp_path / "bit.png"))) == {0, 255}


def test_instance_numbers_above_65535_are_kept(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 70000]], np.int32)).save(tmp_path / "instances.tif")
    assert read_mask_raster(tmp_path / "instances.tif").tolist() == [[0, 70000]]


def test_broken_files_are_named(tmp_path: Path) -> None:
    Image.fromarray(RANDOM.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:900])
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("cut.jpg", "text.png", "empty.png", "gone.png"):
        with pytest.raises(InputError, match=name):
            read_raster(tmp_path / name)


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("kind", ["uint8", "uint16"])
def test_every_layout_of_a_tiff_gives_its_pixels(tmp_path: Path, bigtiff: bool, planar: str, tile: object, kind: str) -> None:
    pixels = RANDOM.integers(0, 256, (40, 30, 3)).astype(kind)
    stored = np.moveaxis(pixels, -1, 0) if planar == "separate" else pixels
    tifffile.imwrite(tmp_path / "x.tif", stored, bigtiff=bigtiff, planarconfig=planar, tile=tile, photometric="rgb")
    back = read_raster(tmp_path / "x.tif")
    assert back.dtype == kind
    assert np.array_equal(back, pixels)


@pytest.mark.parametrize(
    ("kind", "back"), [("float32", "float32"), ("float64", "float32"), ("int16", "int16"), ("uint32", "int32")]
)
def test_numbers_of_a_tiff_keep_their_type(tmp_path: Path, kind: str, back: str) -> None:
    pixels = (RANDOM.normal(100, 30, (6, 5)) - (200 if kind[0] in "if" else 0)).astype(kind)
    tifffile.imwrite(tmp_path / "x.tif", pixels)
    found = read_raster(tmp_path / "x.tif")
    assert found.dtype == back
    assert np.allclose(found, pixels)


def test_pages_of_a_tiff_are_read_one_by_one(tmp_path: Path) -> None:
    pages = RANDOM.integers(0, 65536, (3, 6, 5)).astype(np.uint16)
    with tifffile.TiffWriter(tmp_path / "x.tif") as file:
        for page in pages:
            file.write(page, contiguous=False)
    assert pages_of(tmp_path / "x.tif") == 3
    assert all(np.array_equal(read_raster(tmp_path / "x.tif", frame=at), pages[at]) for at in range(3))
    with pytest.raises(InputError, match=r"x\.tif"):
        read_raster(tmp_path / "x.tif", frame=3)


def test_white_is_zero_is_turned_around(tmp_path: Path) -> None:
    deep = RANDOM.integers(0, 65536, (6, 5)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "x.tif", 65535 - deep, photometric="miniswhite")
    assert np.array_equal(read_raster(tmp_path / "x.tif"), deep)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_exif_orientations_agree_in_both_depths(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(GREY).save(tmp_path / "shallow.png", exif=exif)
    deep = GREY.astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "deep.tif", deep, extratags=[(0x0112, 3, 1, orientation, True)])
    assert np.array_equal(read_raster(tmp_path / "deep.tif"), read_raster(tmp_path / "shallow.png").astype(np.uint16) * 257)


def test_a_palette_of_16_bit_colours_with_alpha_loses_only_its_alpha(tmp_path: Path) -> None:
    deep = RANDOM.integers(0, 65536, (6, 5, 4)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "x.tif", deep, photometric="rgb", extrasamples=["unassalpha"])
    assert np.array_equal(read_raster(tmp_path / "x.tif"), deep[..., :3])


def test_a_deep_picture_with_exif_is_turned(tmp_path: Path) -> None:
    deep = RANDOM.integers(0, 65536, (6, 5, 3)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "x.tif", deep, photometric="rgb", extratags=[(0x0112, 3, 1, 6, True)])
    assert np.array_equal(read_raster(tmp_path / "x.tif"), np.rot90(deep, -1))


def test_a_png_that_promises_more_pixels_than_it_can_hold_is_broken(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.zeros((40, 50), np.uint8)).save(path)
    assert read_raster(path).shape == (40, 50)
    content = bytearray(path.read_bytes())
    content[16:24] = struct.pack(">II", 5_000_000, 30)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    with pytest.raises(InputError, match="too short for 5000000 x 30"):
        read_raster(path)
