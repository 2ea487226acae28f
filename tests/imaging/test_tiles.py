import io
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

from medglip.errors import InputError
from medglip.imaging.dicom import Unusable, read_header
from medglip.imaging.raster import read_raster
from medglip.imaging.tiles import Tile, slide_of, tiles_of

Make = Callable[..., Path]
RANDOM = np.random.default_rng(0)
SLIDE = RANDOM.integers(0, 256, (50, 70, 3), dtype=np.uint8)
SMOOTH = (np.add.outer(np.arange(300), np.arange(400))[..., None] // np.array([3, 4, 5])).astype(np.uint8)


def joined(tiles: Iterable[Tile], shape: tuple[int, ...]) -> np.ndarray:
    whole = np.zeros(shape, np.uint8)
    for tile in tiles:
        column, row = tile.offset_px
        height, width = tile.pixels.shape[:2]
        whole[row : row + height, column : column + width] = tile.pixels
    return whole


def dicom_slide(path: Path, make_dicom: Make, *, sparse: bool) -> Path:
    """SLIDE in tiles of 16 x 16; sparse: out of order, with the places in the frames."""
    padded = np.zeros((64, 80, 3), np.uint8)
    padded[:50, :70] = SLIDE
    places = [(column, row) for row in range(0, 64, 16) for column in range(0, 80, 16)]
    if sparse:
        places = places[::-1]
    tiles = np.stack([padded[row : row + 16, column : column + 16] for column, row in places])
    groups = []
    for column, row in places:
        place, group = Dataset(), Dataset()
        place.ColumnPositionInTotalImagePixelMatrix, place.RowPositionInTotalImagePixelMatrix = column + 1, row + 1
        group.PlanePositionSlideSequence = [place]
        groups.append(group)
    measures, shared = Dataset(), Dataset()
    measures.PixelSpacing = [0.0005, 0.0005]
    shared.PixelMeasuresSequence = [measures]
    facts: dict[str, object] = (
        {"PerFrameFunctionalGroupsSequence": groups} if sparse else {"DimensionOrganizationType": "TILED_FULL"}
    )
    return make_dicom(path, tiles, Modality="SM", TotalPixelMatrixColumns=70, TotalPixelMatrixRows=50,
                      SharedFunctionalGroupsSequence=[shared], **facts)  # fmt: skip


@pytest.mark.parametrize("sparse", [False, True])
def test_a_dicom_slide_is_read_tile_by_tile(tmp_path: Path, make_dicom: Make, sparse: bool) -> None:
    path = dicom_slide(tmp_path / "slide", make_dicom, sparse=sparse)
    slide = slide_of(path)
    assert slide.size_px == (70, 50)
    assert slide.tiles == 20
    assert slide.spacing_mm == pytest.approx((0.0005, 0.0005))
    tiles = list(tiles_of(path))
    assert np.array_equal(joined(tiles, SLIDE.shape), SLIDE)
    assert all(tile.spacing_mm == slide.spacing_mm for tile in tiles)


@pytest.mark.parametrize("broken", [False, True])
def test_compressed_tiles_are_looked_at_before_they_are_decoded(tmp_path: Path, make_dicom: Make, broken: bool) -> None:
    path = dicom_slide(tmp_path / "slide", make_dicom, sparse=False)
    header = read_header(path, pixels=True)
    payloads = []
    for tile in header.pixel_array:
        file = io.BytesIO()
        Image.fromarray(tile).save(file, "JPEG", quality=95, subsampling=0, keep_rgb=True)
        payloads.append(file.getvalue())
    if broken:
        at = payloads[7].index(b"\xff\xc0") + 5
        payloads[7] = payloads[7][:at] + b"\0\0" + payloads[7][at + 2 :]
    header.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    header.PixelData = encapsulate(payloads)
    header["PixelData"].is_undefined_length = True
    header.save_as(path)
    if broken:
        with pytest.raises(InputError, match="a frame of 16 x 0 pixels"):
            list(tiles_of(path))
    else:
        assert np.abs(joined(tiles_of(path), SLIDE.shape).astype(int) - SLIDE).mean() < 4


@pytest.mark.parametrize(
    ("compression", "bigtiff"), [(None, True), (None, False), ("zlib", True)],
)  # fmt: skip
def test_a_tiled_tiff_is_read_tile_by_tile(tmp_path: Path, compression: str | None, bigtiff: bool) -> None:
    tifffile.imwrite(tmp_path / "s.tif", SMOOTH, tile=(128, 128), compression=compression, bigtiff=bigtiff,
                     photometric="rgb", resolution=(20000, 20000), resolutionunit="CENTIMETER")  # fmt: skip
    slide = slide_of(tmp_path / "s.tif")
    assert (slide.size_px, slide.tile_px, slide.tiles) == ((400, 300), (128, 128), 12)
    assert slide.spacing_mm == pytest.approx((0.0005, 0.0005))
    assert np.array_equal(joined(tiles_of(tmp_path / "s.tif"), SMOOTH.shape), SMOOTH)


@pytest.mark.parametrize(("compression", "off"), [("tiff_lzw", 0), ("jpeg", 3), ("tiff_adobe_deflate", 0), ("packbits", 0)])
def test_strips_are_tiles_whatever_their_compression(tmp_path: Path, compression: str, off: int) -> None:
    options = {"quality": 95} if compression == "jpeg" else {}
    Image.fromarray(SMOOTH).save(tmp_path / "s.tif", compression=compression, **options)
    tiles = list(tiles_of(tmp_path / "s.tif"))
    assert len(tiles) > 1
    assert np.abs(joined(tiles, SMOOTH.shape).astype(int) - SMOOTH).max() <= off


def test_a_pyramid_has_levels_with_pitches_of_their_own(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "p.tif", bigtiff=True) as file:  # as Aperio lays it out: the second page is a thumbnail
        options = {"photometric": "rgb", "metadata": None}
        file.write(SMOOTH, description="Aperio Image Library|AppMag = 20|MPP = 0.5", tile=(128, 128), **options)
        file.write(np.ascontiguousarray(SMOOTH[::8, ::8]), description="Aperio thumbnail", **options)
        file.write(np.ascontiguousarray(SMOOTH[::2, ::2]), description="Aperio level", tile=(128, 128), **options)
    slide = slide_of(tmp_path / "p.tif", level=1)
    assert slide.levels == ((400, 300), (200, 150))
    assert slide.spacing_mm == pytest.approx((0.001, 0.001))
    half = joined(tiles_of(tmp_path / "p.tif", level=1), (150, 200, 3))
    assert np.array_equal(half, SMOOTH[::2, ::2])
    with pytest.raises(InputError, match="allowed: 0 to 1"):
        slide_of(tmp_path / "p.tif", level=2)


def test_tiles_are_yielded_one_at_a_time(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "s.tif", SMOOTH, tile=(128, 128), photometric="rgb")
    content = bytearray((tmp_path / "s.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "s.tif") as file:
        last = file.pages[0].dataoffsets[-1]
    (tmp_path / "cut.tif").write_bytes(content[: last + 10])
    tiles = tiles_of(tmp_path / "cut.tif")
    assert np.array_equal(next(tiles).pixels, SMOOTH[:128, :128])  # the first ones come before the broken one is met
    with pytest.raises(Unusable, match="tile 11"):
        list(tiles)


def test_a_picture_too_large_for_memory_is_refused_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(SMOOTH).save(tmp_path / "s.tif")
    Image.fromarray(SMOOTH).save(tmp_path / "s.png")
    monkeypatch.setattr("medglip.imaging.raster.MOST_PIXELS", 1000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    for name in ("s.tif", "s.png"):
        with pytest.raises(Unusable, match=r"too large.*medglip\.imaging\.tiles") as refused:
            read_raster(tmp_path / name)
        assert refused.value.reason == "too_large"


def test_what_is_no_slide_is_said(tmp_path: Path, make_dicom: Make) -> None:
    with pytest.raises(InputError, match="no total pixel matrix"):
        slide_of(make_dicom(tmp_path / "ct", np.zeros((4, 4), np.uint16)))


def test_real_slides_equal_highdicom(real_data: Path) -> None:
    import highdicom

    for name in ("sm_image", "sm_image_jpegls", "sm_image_grayscale"):
        path = real_data / "dicom-seg-highdicom" / f"{name}.dcm"
        truth = highdicom.imread(path).get_total_pixel_matrix(apply_icc_profile=False).squeeze()
        whole = np.zeros(truth.shape, truth.dtype)
        for tile in tiles_of(path):
            column, row = tile.offset_px
            whole[row : row + tile.pixels.shape[0], column : column + tile.pixels.shape[1]] = tile.pixels
        assert np.array_equal(whole, truth), name
