import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import io

from medglip.errors import InputError
from medglip.exports import export
from medglip.exports.nnunet import FIRST_ID, Seen, class_of, label_map, planned
from medglip.records.masks import box_of_mask, rle_of_mask
from medglip.records.record import Intensity, Origin, Region

KIDNEY, CYST, LIVER = "abdomen.kidney", "abdomen.kidney.cyst", "abdomen.liver"
LEFT, RIGHT = f"{KIDNEY}@left", f"{KIDNEY}@right"
HU = Intensity("HU", 1.0, -1024.0, (-160.0, 240.0))


def _region(label: str, rows: slice, columns: slice, side: str | None = None, size: tuple[int, int] = (24, 32)) -> Region:
    mask = np.zeros(size, bool)
    mask[rows, columns] = True
    return Region(label, box_of_mask(mask), rle_of_mask(mask), side)


def _box(label: str, side: str | None = None) -> Region:
    return Region(label, (1.0, 1.0, 5.0, 5.0), laterality=side)


def _kidneys(number: int) -> list[Region]:
    """Two kidneys, a cyst inside the left one that is listed first, all at places of their own."""
    x = 2 + number % 5
    return [
        _region(CYST, slice(6, 8), slice(x + 1, x + 3), "left"),
        _region(KIDNEY, slice(4, 12), slice(x, x + 6), "left"),
        _region(KIDNEY, slice(4, 12), slice(20, 26), "right"),
    ]


@pytest.fixture(scope="module")
def pictures(make_picture):
    """CT for kidneys and cysts, X-ray with boxes only, ultrasound in colour, and images that prove nothing."""
    rng = np.random.default_rng(2)
    known = (LEFT, RIGHT, CYST)

    def ct(number: int, regions: list[Region], **fields: object):
        pixels = rng.integers(0, 3000, (24, 32), dtype=np.uint16)
        return make_picture(
            pixels, number, regions, **{"intensity": HU, "exhaustive": known, "group": f"g{number % 4}", **fields}
        )

    def colour(number: int, modality: str, regions: list[Region], **fields: object):
        pixels = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        return make_picture(pixels, number, regions, modality=modality, intensity=Intensity("rgb"), **fields)

    return [
        *(ct(number, _kidneys(number), split=("train", "train", "val", "test")[number % 4]) for number in range(8)),
        ct(8, [], absent=known, group="g0"),
        ct(9, _kidneys(9), exhaustive=(LEFT, RIGHT), group="g0"),
        ct(10, [*_kidneys(10), _box(KIDNEY, "right")], group="g0"),
        ct(11, [*_kidneys(11), _region(LIVER, slice(14, 20), slice(0, 9)), _box(LIVER)], group="g0"),
        ct(12, [_region(KIDNEY, slice(1, 3), slice(1, 3))], group="g0"),
        *(colour(20 + n, "ultrasound", [_region(LIVER, slice(2, 9), slice(3, 9))], exhaustive=(LIVER,)) for n in range(3)),
        colour(30, "xray", [_box(LIVER)], exhaustive=(LIVER,)),
        colour(31, "dermoscopy", [_region("systemic.skin.nevus", slice(1, 5), slice(1, 5))]),
        colour(32, "fundus", [_region("head_neck.eye.macula", slice(1, 5), slice(1, 5))],
               exhaustive=("head_neck.eye.macula",), split="test"),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def made(pictures, write_dataset, tmp_path_factory):
    """The dataset, its export, and what the export counted."""
    folder = tmp_path_factory.mktemp("nnunet")
    data = write_dataset(folder / "data", pictures)
    return data, folder / "raw", export(data, folder / "raw", "nnunet")


def _about(folder: Path) -> dict:
    return json.loads((folder / "dataset.json").read_text("utf-8"))


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def _datasets(raw: Path) -> list[Path]:
    return sorted(path for path in raw.iterdir() if path.is_dir())


def _follows_the_format(folder: Path) -> None:
    """The rules of nnU-Net v2: documentation/dataset_format.md, and what its verify_dataset_integrity checks.

    Pixels are read by ``skimage.io.imread``, as nnU-Net's NaturalImage2DIO does.
    """
    about = _about(folder)
    assert {"channel_names", "labels", "numTraining", "file_ending"} <= set(about)
    assert about["file_ending"] == ".png"
    assert about["labels"]["background"] == 0
    values = sorted(about["labels"].values())
    assert values == list(range(len(values)))
    for part in ("Tr", "Ts"):
        if not (folder / f"images{part}").exists():
            continue
        cases = {name.removesuffix(".png") for name in _names(folder / f"labels{part}")}
        # one file holds all channels of a colour image
        assert _names(folder / f"images{part}") == {f"{case}_0000.png" for case in cases}
        for case in cases:
            image = io.imread(folder / f"images{part}" / f"{case}_0000.png")
            labels = io.imread(folder / f"labels{part}" / f"{case}.png")
            assert labels.shape == image.shape[:2]
            assert labels.dtype == np.uint8
            assert set(np.unique(labels).tolist()) <= set(values)
            assert (1 if image.ndim == 2 else image.shape[2]) == len(about["channel_names"])
    cases = {name.removesuffix(".png") for name in _names(folder / "labelsTr")}
    assert len(cases) == about["numTraining"] > 0
    if (folder / "splits_final.json").exists():
        folds = json.loads((folder / "splits_final.json").read_text("utf-8"))
        for fold in folds:
            assert set(fold["train"]) | set(fold["val"]) == cases
            assert not set(fold["train"]) & set(fold["val"])
            assert fold["train"]
            assert fold["val"]


def test_every_dataset_follows_the_format(made):
    _, raw, counts = made
    folders = _datasets(raw)
    assert [folder.name for folder in folders] == [f"Dataset{FIRST_ID}_made_up_ct", f"Dataset{FIRST_ID + 1}_made_up_ultrasound"]
    assert counts["datasets"] == 2
    for folder in folders:
        _follows_the_format(folder)


def test_nnunet_itself_finds_no_fault(made, monkeypatch, tmp_path):
    """Its own check raises where it finds a fault; it runs where nnunetv2 is installed, which the project does not ask for."""
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path))
    own = pytest.importorskip("nnunetv2.experiment_planning.verify_dataset_integrity", exc_type=ImportError)
    for folder in _datasets(made[1]):
        own.verify_dataset_integrity(str(folder), 1)


def test_images_are_the_stored_pixels(made):
    data, raw, _ = made
    for path in raw.glob("*/images*/*.png"):
        assert np.array_equal(io.imread(path), data.pixels(path.name.removesuffix("_0000.png")))


def test_what_is_left_out_is_counted_by_its_reason(made):
    data, raw, counts = made
    ct = _datasets(raw)[0]
    written = {path.name.removesuffix("_0000.png") for path in raw.glob("*/images*/*.png")}
    left_out = {int(image, 16) for image in data.ids() if image not in written}
    # 9: cysts not searched for; 10: a kidney as a box; 12: a kidney of unknown side; 30: boxes only; 31: nothing
    # exhaustive; 32: for tests only
    assert left_out == {9, 10, 12, 30, 31, 32}
    assert counts["images_not_exhaustive"] == 3
    assert counts["images_with_boxes_only"] == 2
    assert counts["images_without_training"] == 1
    assert counts["regions_without_mask"] == 3
    assert counts["regions_of_other_labels"] == 1
    assert counts["images"] + 6 == len(data)
    assert not io.imread(ct / "labelsTr" / f"{8:016x}.png").any()


def test_masks_come_back_but_for_what_lies_above(made):
    data, raw, counts = made
    ct = _datasets(raw)[0]
    values = _about(ct)["concepts"]
    named = {"kidney cyst": values[CYST], "left kidney": values[LEFT], "right kidney": values[RIGHT]}
    assert _about(ct)["labels"] == {"background": 0, **named}
    for path in ct.glob("labels*/*.png"):
        painted = io.imread(path)
        regions = data.record(path.stem).regions
        cyst, left, right = (regions[place].mask.decode() if regions else np.zeros((24, 32), bool) for place in range(3))
        assert np.array_equal(painted == values[CYST], cyst)
        assert np.array_equal(painted == values[LEFT], left & ~cyst)
        assert np.array_equal(painted == values[RIGHT], right)
    assert counts["regions_overlapped"] == 9
    assert counts["regions_hidden"] == 0
    assert counts["regions"] == 9 * 3 + 3


def test_split_of_the_dataset_is_the_only_fold(made):
    data, raw, _ = made
    ct, ultrasound = _datasets(raw)
    (fold,) = json.loads((ct / "splits_final.json").read_text("utf-8"))
    for name, ids in fold.items():
        assert {data.record(image).split for image in ids} == {name}
    assert {data.record(path.stem).split for path in (ct / "labelsTs").iterdir()} == {"test"}
    # without validation images: folds by group
    folds = json.loads((ultrasound / "splits_final.json").read_text("utf-8"))
    assert len(folds) == 3
    cases = sorted(path.stem for path in (ultrasound / "labelsTr").iterdir())
    assert sorted(image for fold in folds for image in fold["val"]) == cases


def test_groups_are_not_split_apart_by_the_folds(tmp_path, make_picture, write_dataset):
    rng = np.random.default_rng(0)
    pictures = [
        make_picture(rng.integers(0, 255, (24, 32), dtype=np.uint8), number, _kidneys(number), exhaustive=(LEFT, RIGHT, CYST),
                     group=f"g{number % 6}") for number in range(18)
    ]  # fmt: skip
    export(write_dataset(tmp_path / "data", pictures), tmp_path / "raw", "nnunet")
    group_of = {picture.record.id: picture.record.group for picture in pictures}
    (folder,) = _datasets(tmp_path / "raw")
    _follows_the_format(folder)
    folds = json.loads((folder / "splits_final.json").read_text("utf-8"))
    assert len(folds) == 5
    assert Counter(image for fold in folds for image in fold["val"]) == Counter(list(group_of))
    for fold in folds:
        assert not {group_of[image] for image in fold["train"]} & {group_of[image] for image in fold["val"]}


def test_channel_is_called_ct_only_where_numbers_are_hounsfield_units(tmp_path, made, pictures, write_dataset):
    assert _about(_datasets(made[1])[0])["channel_names"] == {"0": "CT"}
    assert _about(_datasets(made[1])[1])["channel_names"] == {"0": "R", "1": "G", "2": "B"}
    first, second = pictures[:2]
    other = second._replace(record=replace(second.record, intensity=replace(HU, slope=0.5)))
    export(write_dataset(tmp_path / "data", [first, other]), tmp_path / "raw", "nnunet")
    assert _about(_datasets(tmp_path / "raw")[0])["channel_names"] == {"0": "CT of several scales"}


def test_nothing_to_train_on_is_refused(tmp_path, pictures, write_dataset):
    poor = [picture for picture in pictures if picture.record.modality in ("xray", "dermoscopy", "fundus")]
    data = write_dataset(tmp_path / "data", poor)
    with pytest.raises(
        InputError, match="1 without labels that are marked wherever they are, 1 with boxes only, 1 for tests only"
    ):
        export(data, tmp_path / "raw", "nnunet")
    assert not (tmp_path / "raw").exists()


def test_hidden_regions_are_counted(pictures):
    above = _region(CYST, slice(4, 9), slice(4, 9), "left")
    record = replace(pictures[0].record, regions=(_region(KIDNEY, slice(4, 9), slice(4, 9), "left"), above))
    counts: Counter = Counter()
    painted = label_map(record, (CYST, LEFT), counts)
    assert (counts["regions_overlapped"], counts["regions_hidden"]) == (1, 1)
    assert np.count_nonzero(painted) == 25


@pytest.mark.parametrize(
    ("concept", "labels", "expected"),
    [
        (LEFT, {LEFT, KIDNEY}, LEFT),
        (LEFT, {KIDNEY, LIVER}, KIDNEY),
        (LEFT, {RIGHT}, None),
        (KIDNEY, {LEFT}, None),
        ("systemic.skin.melanoma", {"systemic.skin.melanoma", LIVER}, "systemic.skin.melanoma"),
        ("not.in.the.tree", {"not.in.the.tree"}, "not.in.the.tree"),
        ("not.in.the.tree", {KIDNEY}, None),
    ],
)
def test_region_counts_as_the_most_specific_label(concept, labels, expected):
    assert class_of(concept, frozenset(labels)) == expected


_CONCEPTS = st.sampled_from([LEFT, RIGHT, CYST, LIVER, "abdomen.spleen"])


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ct", "mr"]),
            st.frozensets(_CONCEPTS),
            st.frozensets(st.tuples(_CONCEPTS, st.booleans()), max_size=4),
            st.sampled_from(["train", "val", "test", "unassigned"]),
        ),
        max_size=25,
    )
)
def test_no_unmarked_pixel_is_taught_as_background(drawn):
    images = [
        Seen(str(number), ("s", modality, 1), known, marked, split, f"g{number}", ("au", 1.0, 0.0))
        for number, (modality, known, marked, split) in enumerate(drawn)
    ]
    counts: Counter = Counter()
    targets = planned(images, counts)
    used = [image.id for target in targets for image in target.images]
    assert len(used) == len(set(used))
    assert len(used) + sum(counts.values()) == len(images)
    assert len({target.folder for target in targets}) == len(targets)
    for target in targets:
        labels = set(target.labels)
        assert any(image.split != "test" for image in target.images)
        for image in target.images:
            assert image.key == target.key
            assert labels <= image.known
            assert all(mask for concept, mask in image.marked if concept in labels)


def test_sources_and_colours_are_datasets_of_their_own(tmp_path, make_picture, write_dataset):
    rng = np.random.default_rng(1)
    liver = _region(LIVER, slice(2, 9), slice(3, 9))
    grey, colour = rng.integers(0, 255, (24, 32), dtype=np.uint8), rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)
    facts = {"modality": "ultrasound", "exhaustive": (LIVER,)}
    pictures = [
        make_picture(grey, 1, [liver], **facts),
        make_picture(colour, 2, [liver], **facts),
        make_picture(colour, 3, [liver], origin=Origin("other", "3.png", "3"), **facts),
    ]
    export(write_dataset(tmp_path / "data", pictures), tmp_path / "raw", "nnunet")
    names = [folder.name.partition("_")[2] for folder in _datasets(tmp_path / "raw")]
    assert names == ["made_up_ultrasound", "made_up_ultrasound_rgb", "other_ultrasound"]
