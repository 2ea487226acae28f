import itertools

import pytest

from medglip import store
from medglip.records.labels import label_tree
from medglip.records.record import Region, Reject
from medglip.store.pages.statistics import statistics
from medglip.store.write import write_part


@pytest.fixture
def tables(tmp_path, plain_picture):
    liver = Region("abdomen.liver", (0, 0, 4, 1))
    kidneys = (Region("abdomen.kidney", (0, 0, 2, 2), laterality="left"), Region("abdomen.kidney", (3, 0, 4, 1)))
    pictures = [
        plain_picture(1, regions=(liver,), spacing_mm=(2.0, 2.0), split="train", group="a"),
        plain_picture(2, regions=(liver, *kidneys), split="test", group="b"),
        plain_picture(3, absent=("abdomen.liver", "thorax.lung@left"), split="train", group="a"),
    ]
    rejects = [Reject("made_up", "x", "corrupt_file", "d"), Reject("other", "y", "size_mismatch", "d")]
    write_part(tmp_path / "d", "p", pictures, (), rejects, {"source": "made_up", "title": "T", "licence": "MIT"})
    return statistics(store.open(tmp_path / "d"))


def test_labels_are_counted_and_measured(tables):
    labels = tables["labels"].set_index("label")
    liver, kidney, lung = (labels.loc[name] for name in ("abdomen.liver", "abdomen.kidney", "thorax.lung"))
    assert (liver.regions, liver.images, liver.absent, kidney.regions, kidney.images) == (2, 2, 1, 2, 1)
    assert (liver.median_side_px, liver.median_side_mm) == (2.0, 4.0)
    assert kidney.median_side_mm != kidney.median_side_mm  # no spacing is known: NaN
    assert (lung.regions, lung.absent, liver["name"], liver.level) == (0, 1, "liver", "organ")


def test_sources_splits_and_rejects(tables):
    sources = tables["sources"].set_index("source")
    made_up = sources.loc["made_up"]
    assert (made_up.title, made_up.licence, made_up.images, made_up.regions) == ("T", "MIT", 3, 4)
    assert (made_up.train, made_up.test, made_up.groups, made_up.rejects) == (2, 1, 2, 1)
    assert (sources.loc["other"].images, sources.loc["other"].rejects) == (0, 1)
    assert tables["splits"].set_index("split")["images"].to_dict() == {"test": 1, "train": 2}
    assert list(tables["rejects"]["reason"]) == ["corrupt_file", "size_mismatch"]
    assert tables["modalities"].iloc[0].to_dict() == {"modality": "xray", "images": 3, "regions": 4, "labels": 2}
    assert tables["levels"]["regions"].sum() == 4


def test_labels_are_counted_by_split_and_modality(tables):
    counts = tables["label_counts"].set_index(["label", "split"])
    assert counts.loc[("abdomen.liver", "train")].to_dict() == {"modality": "xray", "regions": 1, "images": 1}
    assert counts.loc[("abdomen.kidney", "test")].to_dict() == {"modality": "xray", "regions": 2, "images": 1}


def test_box_sizes_are_binned_by_half_a_doubling(tables):
    sizes = tables["box_sizes"]
    pixels = sizes[sizes["unit"] == "px"]
    # sides 2, 2 (liver), 2, 1 (kidneys); in mm one liver of side 4
    assert pixels[["low", "regions"]].to_dict("list") == {"low": [1.0, 2.0], "regions": [1, 3]}
    assert sizes[sizes["unit"] == "mm"][["low", "regions"]].to_dict("list") == {"low": [4.0], "regions": [1]}


def test_positions_lie_on_a_grid_over_the_image(tables):
    places = tables["positions"].set_index("label").loc[["abdomen.kidney"]]
    # centres (1, 1) and (3.5, 0.5) of 7 x 5 pixels, times 16
    assert sorted(zip(places["row"], places["column"], places["regions"], strict=True)) == [(1, 8, 1), (3, 2, 1)]


def test_pairs_spacings_and_empty_images(tables):
    assert tables["pairs"].to_dict("list") == {"label": ["abdomen.kidney"], "other": ["abdomen.liver"], "images": [1]}
    spacing = tables["spacings"].iloc[0]
    assert (spacing["images"], spacing["known"], spacing["median"], spacing["most"]) == (3, 1, 2.0, 2.0)
    assert tables["empty"].iloc[0].to_dict() == {
        "dataset": "made_up", "modality": "xray", "images": 3, "empty": 1, "share": 0.3333
    }  # fmt: skip


def test_pairs_of_more_labels_than_a_number_has_bits(tmp_path, plain_picture):
    labels = [label.id for label in label_tree()][:150]
    pictures = [plain_picture(n, regions=(Region(a, (0, 0, 1, 1)), Region(b, (0, 0, 2, 1)))) for n, (a, b) in
                enumerate(itertools.pairwise(labels))]  # fmt: skip
    write_part(tmp_path / "d", "p", pictures)
    found = statistics(store.open(tmp_path / "d"))["pairs"]
    wanted = sorted(tuple(sorted(pair)) for pair in itertools.pairwise(labels))[:50]
    assert list(zip(found["label"], found["other"], strict=True)) == wanted
    assert set(found["images"]) == {1}


def test_a_dataset_without_images_has_all_tables(tmp_path, reject):
    write_part(tmp_path / "d", "p", [], [], [reject])
    tables = statistics(store.open(tmp_path / "d"))
    assert tables["rejects"]["rejects"].tolist() == [1]
    assert all(tables[name].empty for name in ("labels", "label_counts", "box_sizes", "positions", "pairs", "spacings"))
