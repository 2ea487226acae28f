import pytest

from medglip import store
from medglip.records.record import Region, Reject
from medglip.store.statistics import statistics
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
