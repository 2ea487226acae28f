"""A collection whose captions lie in Parquet tables, and films without a header, in their published layouts, generated."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from images_world import scene
from PIL import Image
from volumes_world import check_dataset, checked, shown

from medglip.curate import load_source
from medglip.errors import InputError


def jpeg(seed: int) -> bytes:
    """An image with a box drawn into it, as the collection publishes them."""
    pixels = scene(seed)
    pixels[10, 10:30] = pixels[25, 10:30] = pixels[10:26, 10] = pixels[10:26, 29] = (0, 255, 0)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=95)
    return file.getvalue()


NAMES = {
    "deeplesion": "_data5_someone_DeepLesion_Images_png_17_Images_png_001087_10_01_184__98.3207_236.573_17.3433_16.837.jpg",
    "MAMA-MIA": "ISPY1_1001_0001.nii_45.png",
    "nih_chest": "00000001_000.png",
    "NCT-CRC-HE-100K": "TUM-AAAA.jpg",
    "pmc_oa": "PMC1_fig.jpg",
}
SHOWN_BY = dict(zip(NAMES, ("ct", "mr", "xray", "histopathology", "other"), strict=True))


def medtrinity(folder: Path) -> Path:
    """The demo's rows with their images, and the tables of all images with those that were unpacked beside them."""
    demo, full = folder / "25M_demo", folder / "25M_full"
    demo.mkdir(parents=True)
    full.mkdir()
    rows = [{"image": {"bytes": jpeg(number), "path": None}, "id": f"id{number}", "caption": f"A lesion, number {number}."}
            for number in range(5)]  # fmt: skip
    rows[3]["image"] = {"bytes": None, "path": "somewhere.jpg"}
    rows[4]["caption"] = " "
    pq.write_table(pa.Table.from_pylist(rows), demo / "train-00000-of-00001.parquet", row_group_size=2)
    named = [{"file_name": f"somewhere/{name}", "id": name, "caption": f"Of {source}.", "source": source}
             for source, name in NAMES.items()]  # fmt: skip
    lost = [{"file_name": f"lost_{number}.png", "id": "x", "caption": "Gone.", "source": "brats24"} for number in range(3)]
    strange = [{"file_name": "griffin.png", "id": "x", "caption": "A griffin.", "source": "bestiary"}]
    pq.write_table(pa.Table.from_pylist(named[:2] + lost), full / "train-00000-of-00002.parquet")
    pq.write_table(pa.Table.from_pylist(named[2:] + strange), full / "train-00001-of-00002.parquet")
    for number, name in enumerate(NAMES.values()):
        path = folder / f"25M_accessible_unpacked/mnt/shard_{number % 2}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(10 + number))
    return folder


def test_captions_come_with_the_images_that_are_there(tmp_path: Path) -> None:
    result = checked("multi_medtrinity", medtrinity(tmp_path))
    assert result.reasons == ["missing_file", "missing_image"]
    (gone,) = [reject for reject in result.rejects if reject.reason == "missing_file"]
    assert gone.detail.startswith("3 rows of ")
    texts = {Path(record.origin.file).name: [text.text for text in record.texts] for record in result.records}
    table = "train-00000-of-00001.parquet"
    assert texts == {f"{table}#{number}": [f"A lesion, number {number}."] for number in range(3)} | {f"{table}#4": []} | {
        name: [f"Of {source}."] for source, name in NAMES.items()
    }
    found = {record.modality_detail["set"]: record.modality for record in result.records if "set" in record.modality_detail}
    assert found == SHOWN_BY


def test_captions_mark_nothing_and_rule_nothing_out(tmp_path: Path) -> None:
    for record in checked("multi_medtrinity", medtrinity(tmp_path)).records:
        assert (record.regions, record.absent, record.exhaustive) == ((), (), ())
        assert (record.split, record.split_source) == ("train", "official")
        assert record.modality_detail["boxes"] == "drawn into the pixels"
        assert {text.kind for text in record.texts} <= {"caption"}
    assert load_source("multi_medtrinity").annotation == "machine"


def test_pixels_of_a_row_are_those_of_its_file(tmp_path: Path) -> None:
    result = checked("multi_medtrinity", medtrinity(tmp_path))
    by_file = {picture.record.origin.file: picture.pixels for picture in result.pictures}
    for number in (0, 2):
        expected = np.asarray(Image.open(io.BytesIO(jpeg(number))))
        assert np.array_equal(by_file[f"25M_demo/train-00000-of-00001.parquet#{number}"], expected)


def test_a_name_that_two_rows_or_two_files_have_is_listed(tmp_path: Path) -> None:
    folder = medtrinity(tmp_path)
    twin = folder / "25M_accessible_unpacked/other" / NAMES["MAMA-MIA"]
    twin.parent.mkdir()
    twin.write_bytes(jpeg(1))
    row = {"file_name": NAMES["deeplesion"], "id": "x", "caption": "Another.", "source": "deeplesion"}
    pq.write_table(pa.Table.from_pylist([row]), folder / "25M_full/zzz.parquet")
    result = checked("multi_medtrinity", folder)
    assert result.reasons == ["duplicate_image", "duplicate_image", "missing_file", "missing_image"]
    assert [
        text.text for one in result.of(f"25M_accessible_unpacked/mnt/shard_0/{NAMES['deeplesion']}") for text in one.texts
    ] == ["Of deeplesion."]


def test_a_table_that_is_broken_or_lacks_a_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "25M_demo").mkdir()
    file = tmp_path / "25M_demo/a.parquet"
    pq.write_table(pa.table({"image": [b"x"], "id": ["1"]}), file)
    with pytest.raises(InputError, match="no column 'caption'"):
        checked("multi_medtrinity", tmp_path)
    file.write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match="broken or cut off"):
        checked("multi_medtrinity", tmp_path)


SIDE = 2048
PARTS = {"left lung": (1200, 300, 1800, 1500), "right lung": (250, 300, 850, 1500), "heart": (800, 1000, 1400, 1500),
         "left clavicle": (1100, 240, 1500, 320), "right clavicle": (500, 240, 900, 320)}  # fmt: skip
CONCEPTS = {"left lung": "thorax.lung@left", "right lung": "thorax.lung@right", "heart": "thorax.heart",
            "left clavicle": "musculoskeletal.clavicle@left", "right clavicle": "musculoskeletal.clavicle@right"}  # fmt: skip


def film(seed: int) -> np.ndarray:
    """A film (2048, 2048) of 12 bits as it is shown: lungs dark."""
    shown = np.random.default_rng(seed).integers(2000, 4096, (SIDE, SIDE)).astype(np.uint16)
    for x0, y0, x1, y1 in (PARTS["left lung"], PARTS["right lung"]):
        shown[y0:y1, x0:x1] //= 4
    return shown


def jsrt(folder: Path) -> Path:
    """Two films, one in each fold, and one that is cut off."""
    images = folder / "JSRT/All247images"
    images.mkdir(parents=True)
    for fold, case in enumerate(("JPCLN001", "JPCNN002"), 1):
        (images / f"{case}.IMG").write_bytes((4095 - film(fold)).astype(">u2").tobytes())
        for name, window in PARTS.items():
            x0, y0, x1, y1 = (edge // 2 for edge in window)
            mask = np.zeros((SIDE // 2, SIDE // 2), np.uint8)
            mask[y0:y1, x0:x1] = 255
            file = folder / f"scratch/fold{fold}/masks/{name}/{case}.gif"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(file)
    (images / "JPCNN003.IMG").write_bytes((4095 - film(3)).astype(">u2").tobytes()[:-512])
    return folder


def test_films_without_a_header_are_shown_the_right_way_round(tmp_path: Path) -> None:
    result = checked("xray_jsrt_scr", jsrt(tmp_path))
    assert result.reasons == ["unreadable_file"]
    assert "cut off" in result.rejects[0].detail
    by_case = {Path(picture.record.origin.file).stem: picture for picture in result.pictures}
    for fold, case in enumerate(("JPCLN001", "JPCNN002"), 1):
        record = by_case[case].record
        assert record.intensity.inverted
        assert np.array_equal(by_case[case].pixels * record.intensity.slope + record.intensity.intercept, film(fold))
        assert shown(record) == {CONCEPTS[name]: [tuple(map(float, window))] for name, window in PARTS.items()}


@pytest.mark.parametrize("content", [b"\xff\xff" * SIDE * SIDE, b"\0" * 10])
def test_a_film_of_other_numbers_is_refused(content: bytes, tmp_path: Path) -> None:
    folder = jsrt(tmp_path)
    (folder / "JSRT/All247images/JPCLN001.IMG").write_bytes(content)
    result = checked("xray_jsrt_scr", folder)
    assert result.reasons == ["unreadable_file"] * 2
    assert [Path(record.origin.file).stem for record in result.records] == ["JPCNN002"]


def test_the_datasets_validate_clean(tmp_path: Path) -> None:
    check_dataset({"multi_medtrinity": medtrinity, "xray_jsrt_scr": jsrt}, tmp_path)
