import pickle
import subprocess
import sys
from multiprocessing import get_context

import numpy as np
import pyarrow.parquet as pq
import pytest

from medglip import store
from medglip.errors import DatasetError, InputError
from medglip.imaging.intensity import display
from medglip.store.write import write_part


def test_tables_are_frames_of_plain_columns(dataset_path, pictures):
    dataset = store.open(str(dataset_path))
    assert len(dataset) == len(dataset.images) == len(pictures)
    assert "rle" not in dataset.regions
    assert dataset.table("regions", ["rle"])["rle"].notna().sum() == 2 * sum(bool(p.record.regions) for p in pictures)
    assert list(dataset.table("images", ["modality", "id"]).columns) == ["modality", "id"]
    assert len(dataset.texts) == 3 * len(pictures)
    assert len(dataset.volumes) == len(dataset.rejects) == 1
    left = dataset.regions.query("laterality == 'left'")
    assert set(left["concept"]) == {"abdomen.kidney@left"}
    assert "left kidney" in list(left["phrases"].iloc[0])
    with pytest.raises(InputError, match="allowed: images"):
        dataset.table("pictures")
    with pytest.raises(InputError, match="'colour'"):
        dataset.table("images", ["colour"])


def test_ids_by_split(tmp_path, make_picture):
    pictures = [make_picture(n, split=split) for n, split in enumerate(("train", "test", "train", "val"))]
    write_part(tmp_path / "d", "p", pictures)
    dataset = store.open(tmp_path / "d")
    assert dataset.ids("train") == [pictures[0].record.id, pictures[2].record.id]
    assert [record.id for record in dataset.records("test")] == dataset.ids("test") == [pictures[1].record.id]
    with pytest.raises(InputError, match="allowed: train"):
        dataset.ids("validation")


def test_images_by_id_and_by_position(dataset_path, pictures):
    dataset = store.open(dataset_path)
    assert dataset.record(-1) == dataset.record(len(dataset) - 1) == pictures[-1].record
    for wrong in ("nothing", len(dataset), -len(dataset) - 1):
        with pytest.raises(InputError):
            dataset.pixels(wrong)


def test_display_is_the_window_of_the_record(dataset_path, pictures):
    dataset = store.open(dataset_path)
    for n, picture in enumerate(pictures):
        shown = dataset.display(n)
        assert shown.dtype == np.uint8
        assert np.array_equal(shown, display(picture.pixels, picture.record.intensity))


def test_queries_see_every_part(dataset_path, plain_picture):
    write_part(dataset_path, "another", [plain_picture(40)])
    dataset = store.open(dataset_path)
    counts = dataset.query("SELECT modality, count(*) AS n FROM images GROUP BY modality ORDER BY modality")
    assert dict(zip(counts["modality"], counts["n"], strict=True)) == {"ct": 3, "endoscopy": 4, "xray": 1}
    assert dataset.query("SELECT * FROM volumes, rejects, texts LIMIT 1").shape[0] == 1
    with pytest.raises(InputError, match="SELEC"):
        dataset.query("SELEC 1")


def test_a_folder_with_a_quotation_mark_is_queried(tmp_path, plain_picture):
    write_part(tmp_path / "o'neill", "p", [plain_picture(1)])
    assert store.open(tmp_path / "o'neill").query("SELECT count(*) AS n FROM images")["n"][0] == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "no dataset"), ("{", "cannot be read"), ('{"schema_version": "9.0", "parts": {}}', "'9.0'"),
     ("[]", "None"), ('{"schema_version": "2.0"}', "no list of parts")],
)  # fmt: skip
def test_what_is_no_dataset_is_refused_with_one_sentence(tmp_path, content, words):
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(DatasetError, match=words):
        store.open(tmp_path)
    with pytest.raises(DatasetError, match="no such folder"):
        store.open(tmp_path / "nowhere")


def test_a_missing_file_is_named(dataset_path):
    dataset = store.open(dataset_path)
    for path in (*dataset_path.glob("shards/*"), *dataset_path.glob("regions/*")):
        path.unlink()
    with pytest.raises(DatasetError, match="shards/"):
        dataset.pixels(0)
    with pytest.raises(DatasetError, match="regions/"):
        dataset.record(1)


def test_a_table_that_was_cut_off_is_named_by_a_query(dataset_path):
    table = next(dataset_path.glob("regions/*.parquet"))
    table.write_bytes(table.read_bytes()[:200])
    with pytest.raises(DatasetError, match="its regions cannot be read"):
        store.open(dataset_path).query("SELECT count(*) FROM regions")


def test_ids_are_found_by_scanning_and_by_sorting(tmp_path, plain_picture):
    numbers = [5, 3, 11, 7, 2, 13, 1, 9, 4, 12, 6, 10]
    write_part(tmp_path / "d", "b", [plain_picture(n) for n in numbers[:7]])
    write_part(tmp_path / "d", "a", [plain_picture(n, id="x" * n) for n in numbers[7:]])
    dataset = store.open(tmp_path / "d")
    ids = [plain_picture(n).record.id if n in numbers[:7] else "x" * n for n in [*numbers[7:], *numbers[:7]]]
    assert dataset.ids() == ids
    for _ in range(2):  # the first few ids are looked for in the column, later ones in a sorted copy
        for position, image in enumerate(ids):
            assert dataset.record(image).id == image
            assert np.array_equal(dataset.pixels(image), dataset.pixels(position))
        for wrong in ("", "x", f"{0:016x}", "zzz", "ü"):
            with pytest.raises(InputError, match="no such image"):
                dataset.record(wrong)


def test_records_of_a_split_are_those_among_all(tmp_path, make_picture):
    splits = ["train", "val", "train", "test", "test", "train", "val"]
    write_part(tmp_path / "d", "p", [make_picture(n, split=split) for n, split in enumerate(splits)])
    dataset = store.open(tmp_path / "d")
    everything = list(dataset.records())
    for split in ("train", "val", "test", "unassigned"):
        assert list(dataset.records(split)) == [record for record in everything if record.split == split]
    assert [document["id"] for document in dataset.documents()] == dataset.ids()


def test_a_table_with_fewer_rows_than_the_manifest_says_is_noticed(dataset_path):
    for name in ("images", "regions"):
        path = next((dataset_path / name).iterdir())
        table = pq.read_table(path)
        pq.write_table(table.slice(1), path)
        with pytest.raises(DatasetError, match=r"the manifest counts|its manifest counts"):
            store.open(dataset_path).record(3)
        pq.write_table(table, path)
    assert len(store.open(dataset_path).record(3).regions) == 3


def test_a_flipped_bit_anywhere_in_a_png_names_image_and_shard(dataset_path):
    dataset = store.open(dataset_path)
    row = dataset.images.iloc[3]
    shard = dataset_path / row["shard"]
    whole = shard.read_bytes()
    for at in (0, 9, 20, 40, row["tar_bytes"] // 2, row["tar_bytes"] - 1):
        spoilt = bytearray(whole)
        spoilt[row["tar_offset"] + at] ^= 16
        shard.write_bytes(spoilt)
        with pytest.raises(DatasetError, match=f"{row['id']}.*{shard.name}.*restore the shard"):
            dataset.pixels(row["id"])
    shard.write_bytes(whole)
    assert dataset.pixels(row["id"]).shape == (row["height"], row["width"])


def test_regions_that_are_not_in_place_are_not_mixed_up(dataset_path):
    dataset = store.open(dataset_path)
    assert dataset.record(2).regions
    dataset._index._ends[0]["regions"][:] += 1  # as if a row of the table were lost
    with pytest.raises(DatasetError, match="not in their place"):
        dataset.record(2)


def _sum_of(dataset: store.Dataset, position: int) -> int:
    return int(dataset.pixels(position).sum()) + len(dataset.record(position).regions)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_as_their_parent_does(dataset_path, method):
    dataset = store.open(dataset_path)
    here = [_sum_of(dataset, n) for n in range(4)]
    assert len(pickle.dumps(dataset)) < 20_000
    with get_context(method).Pool(1) as pool:
        assert pool.starmap(_sum_of, [(dataset, n) for n in range(4)]) == here


def test_show_draws_every_region(dataset_path):
    figure = store.open(dataset_path).show(1)
    assert len(figure.axes[0].patches) == 3
    assert "left kidney" in [text.get_text() for text in figure.axes[0].get_legend().get_texts()]


def test_the_store_brings_in_no_torch():
    code = (
        "import sys, medglip.store.checks.validate, medglip.store.pages.statistics, medglip.store.pages.preview; "
        "print([m for m in ('torch', 'monai', 'transformers', 'matplotlib') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
