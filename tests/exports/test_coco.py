"""COCO out and in: pycocotools reads it, boxes and masks are exact, and it comes back as it was."""

import contextlib
import json
import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO

from medglip.errors import InputError
from medglip.exports import export
from medglip.exports.from_coco import import_coco
from medglip.exports.incoming import Given
from medglip.records.labels import label_tree
from medglip.records.masks import box_of_mask, rle_of_mask
from medglip.records.record import Region
from medglip.store import open as open_dataset
from medglip.store.checks.validate import validate
from medglip.store.matrix import matrix_of

GIVEN = Given("again", "MIT")
# What pixels and the place of storing say; all else of a record must come back.
PIXEL_FIELDS = ("id", "sha256", "perceptual_hash", "bits", "intensity", "origin", "regions", "texts")


def loaded(path):
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        return COCO(str(path))


def errors_of(path):
    return [problem for problem in validate(path) if problem.level == "error"]


def assert_same_regions(old, new, where):
    names = dict(zip([r.id for r in old], [r.id for r in new], strict=True))
    for before, after in zip(old, new, strict=True):
        np.testing.assert_allclose(after.box_xyxy, before.box_xyxy, rtol=0, atol=1e-6, err_msg=str(where))
        assert (after.mask is None) == (before.mask is None)
        if before.mask is not None:
            assert (after.mask.decode() == before.mask.decode()).all()
        parents = tuple(names[parent] for parent in before.parents)
        assert replace(after, id="", box_xyxy=before.box_xyxy, mask=None) == replace(before, id="", parents=parents, mask=None)


def test_pycocotools_reads_boxes_and_masks(dataset, exported):
    regions = {region.id: region for record in dataset.records() for region in record.regions}
    seen = set()
    for path in exported("coco").glob("instances_*.json"):
        coco = loaded(path)
        for entry in coco.loadAnns(coco.getAnnIds()):
            region = regions[entry["region_id"]]
            x, y, w, h = entry["bbox"]
            assert max(np.abs(np.subtract((x, y, x + w, y + h), region.box_xyxy))) < 1e-6
            assert coco.cats[entry["category_id"]]["label_id"] == region.label
            assert ("segmentation" in entry) == (region.mask is not None)
            if region.mask is not None:
                mask = region.mask.decode()
                assert (coco.annToMask(entry) == mask).all()
                assert entry["area"] == mask.sum()
            seen.add(entry["region_id"])
    assert seen == set(regions)


def test_splits_images_and_negatives(dataset, exported):
    folder = exported("coco")
    train, val = (loaded(folder / f"instances_{split}.json") for split in ("train", "val"))
    assert sorted(train.imgs) == [1, 4]
    assert sorted(val.imgs) == [2]
    assert val.anns == {}
    names = {number: entry["label_id"] for number, entry in train.cats.items()}
    kidney, scan = {label: number for number, label in names.items()}["abdomen.kidney"], train.imgs[1]
    assert [names[n] for n in scan["neg_category_ids"]] == ["abdomen.kidney.stone"]
    assert kidney not in scan["not_exhaustive_category_ids"]  # its left and right are both exhaustive
    assert [names[n] for n in scan["not_exhaustive_category_ids"]] == ["abdomen.kidney.cyst"]
    assert [names[n] for n in val.imgs[2]["neg_category_ids"]] == ["thorax.lung.nodule"]  # one lung is not the lungs
    assert train.cats[kidney] == {"id": kidney, "name": "kidney", "label_id": "abdomen.kidney", "supercategory": "abdomen"}
    for image in train.imgs.values():
        with Image.open(folder / "images" / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"])
            assert (np.asarray(picture) == dataset.display(image["medglip_id"])).all()
    assert train.dataset["licenses"][scan["license"] - 1]["name"] == "CC-BY-4.0"
    assert "display window" in train.dataset["info"]["pixels"]


def test_category_ids_do_not_depend_on_the_dataset(dataset, exported, tmp_path, write_dataset, make_picture):
    one = make_picture(np.zeros((9, 9), np.uint8), 1, [Region("thorax.lung.nodule", (1.0, 1.0, 5.0, 5.0))])
    export(write_dataset(tmp_path / "d", [one]), tmp_path / "coco", "coco")
    mine = loaded(tmp_path / "coco" / "instances_train.json").cats
    theirs = loaded(exported("coco") / "instances_train.json").cats
    assert len(mine) == 1
    assert all(theirs[number] == entry for number, entry in mine.items())


def test_own_export_comes_back(dataset, exported, tmp_path):
    folder, back = exported("coco"), tmp_path / "back"
    for path in sorted(folder.glob("instances_*.json")):
        facts = import_coco(path, back, folder / "images", GIVEN)
        assert facts["rejects"] == {}
    assert errors_of(back) == []
    new = {record.origin.file.split(".")[0]: record for record in open_dataset(back).records()}
    assert len(new) == len(dataset)
    for before in dataset.records():
        after = new[before.id]
        assert_same_regions(before.regions, after.regions, before.id)
        kept = {name: getattr(before, name) for name in PIXEL_FIELDS}
        assert replace(after, **kept) == before
        names = dict(zip([r.id for r in before.regions], [r.id for r in after.regions], strict=True))
        for old, text in zip(before.texts, after.texts, strict=True):
            assert replace(text, spans=()) == replace(old, spans=())
            assert [span.regions for span in text.spans] == [tuple(names[r] for r in span.regions) for span in old.spans]
        assert (open_dataset(back).pixels(after.id) == dataset.display(before.id)).all()
        assert after.origin.case == f"made_up:{before.origin.case}"


def test_the_same_file_again_replaces_its_images(exported, tmp_path):
    folder = exported("coco")
    for _ in range(2):
        import_coco(folder / "instances_train.json", tmp_path / "d", folder / "images", GIVEN)
    assert len(open_dataset(tmp_path / "d")) == 2


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_box_and_mask_comes_back(data, tmp_path_factory, write_dataset, make_picture):
    folder = tmp_path_factory.mktemp("property")
    labels = st.sampled_from([label for label in label_tree() if label.level != "body_region"][::17])
    pictures = []
    for number in range(3):
        height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
        rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
        regions = []
        for _ in range(data.draw(st.integers(0, 4))):
            label = data.draw(labels)
            side = data.draw(st.sampled_from(["left", "right", "bilateral", None])) if label.laterality else None
            mask = rng.random((height, width)) < data.draw(st.sampled_from([0.02, 0.5, 1.0]))
            xs, ys = (np.sort(rng.random(2)) * size for size in (width, height))
            loose = (float(xs[0]), float(ys[0]), float(xs[1]), float(ys[1]))
            if mask.any() and data.draw(st.booleans()):
                regions.append(Region(label.id, box_of_mask(mask), rle_of_mask(mask), side))
            elif xs[0] < xs[1] and ys[0] < ys[1]:
                regions.append(Region(label.id, loose, None, side))
        pixels = rng.integers(0, 256, (height, width), dtype=np.uint8)
        pictures.append(make_picture(pixels, number, regions))
    before = write_dataset(folder / "d", pictures)
    export(before, folder / "coco", "coco")
    import_coco(folder / "coco/instances_train.json", folder / "back", folder / "coco/images", GIVEN)
    for old, new in zip(before.records(), open_dataset(folder / "back").records(), strict=True):
        assert_same_regions(old.regions, new.regions, old.id)
        assert new.sha256 == old.sha256


# ---- files of others


@pytest.fixture
def foreign(tmp_path):
    """A COCO file as others write it, to be spoilt: three images of 30 x 20 pixels and two categories."""
    (tmp_path / "images" / "a").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (20, 30), dtype=np.uint8)).save(tmp_path / f"images/a/{number}.png")
    square = [5, 4, 15, 4, 15, 14, 5, 14]
    runs = [3 * 20 + 5, 5, 30 * 20 - 70]
    coco = {
        "images": [{"id": 7 + n, "file_name": f"a/{n}.png", "width": 30, "height": 20} for n in range(3)],
        "categories": [{"id": 3, "name": "Polyp"}, {"id": 9, "name": "left kidney"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [5, 4, 10, 10], "segmentation": [square], "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 9, "bbox": [0.5, 1.25, 8, 6.5]},
            {"id": 3, "image_id": 8, "category_id": 3, "bbox": [0, 0, 9, 9], "iscrowd": 1,
             "segmentation": {"size": [20, 30], "counts": runs}},
        ],
    }  # fmt: skip

    def run(**options):
        (tmp_path / "coco.json").write_text(json.dumps(coco))
        given = Given("others", "CC-BY-4.0", **{"modality": "endoscopy"} | options)
        facts = import_coco(tmp_path / "coco.json", tmp_path / "d", tmp_path / "images", given)
        return facts, list(open_dataset(tmp_path / "d").records())

    return coco, run


def test_foreign_file_becomes_a_valid_dataset(foreign, tmp_path):
    facts, (first, second, third) = foreign[1](split="val")
    assert facts == {"images": 3, "regions": 3, "texts": 0, "rejects": {}}
    polyp, kidney = first.regions
    assert polyp.box_xyxy == (5.0, 4.0, 15.0, 14.0)
    assert polyp.mask.decode().sum() == 100
    assert (kidney.label, kidney.laterality, kidney.box_xyxy) == ("abdomen.kidney", "left", (0.5, 1.25, 8.5, 7.75))
    assert "left kidney" in [phrase.text for phrase in kidney.phrases]
    assert second.regions[0].box_xyxy == (3.0, 5.0, 4.0, 10.0)  # of its mask
    assert second.regions[0].flags == ("merged", "tiny")
    assert {record.split for record in (first, second, third)} == {"val"}
    assert third.absent == third.exhaustive == ()  # not marked is not absent
    assert errors_of(tmp_path / "d") == []


def test_exhaustive_makes_negatives_and_doubt_takes_them_away(foreign):
    coco, run = foreign
    coco["annotations"].append({"id": 4, "image_id": 9, "category_id": 9, "bbox": [100, 100, 5, 5]})
    facts, (first, second, third) = run(exhaustive=True)
    assert facts["rejects"] == {"box_out_of_image": 1}
    polyp = label_tree().resolve("polyp")[0]
    assert first.absent == ()
    assert second.absent == ("abdomen.kidney@left",)
    assert third.absent == (polyp,)  # a kidney is there, but its box is broken
    assert third.exhaustive == (polyp,)


def test_what_the_source_searched_for_is_in_the_matrix(foreign, tmp_path):
    foreign[1](exhaustive=True)
    matrix = matrix_of(open_dataset(tmp_path / "d"))
    states = [matrix.state("others", "endoscopy", c) for c in ("abdomen.kidney@left", "abdomen.kidney@right")]
    assert states == ["exhaustive", "possible"]


def test_negatives_of_lvis(foreign):
    coco, run = foreign
    coco["images"][0]["not_exhaustive_category_ids"] = [3]
    coco["images"][2]["neg_category_ids"] = [3]
    _, (first, _, third) = run(exhaustive=True)
    assert first.exhaustive == ("abdomen.kidney@left",)
    assert label_tree().resolve("polyp")[0] in third.absent


def test_unknown_labels_are_refused_together_or_skipped(foreign):
    coco, run = foreign
    coco["categories"][0]["name"], coco["categories"][1]["name"] = "kidny", "gribble"
    with pytest.raises(InputError, match=r"2 of its labels.*'kidny'.*nearest: 'kidney'.*'gribble'"):
        run()
    coco["categories"][1]["name"] = "left kidney"
    facts, (first, *_) = run(skip_unknown=True)
    assert facts["rejects"] == {"unknown_label": 1}
    assert [region.label for region in first.regions] == ["abdomen.kidney"]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda c: c["annotations"][0].update(image_id=99), "unknown_image"),
        (lambda c: c["annotations"][0].update(category_id=99), "unknown_label"),
        (lambda c: c["annotations"][1].update(bbox=[20, 5, 30, 5]), "box_out_of_image"),
        (lambda c: c["annotations"][1].update(bbox=[20, 5, 0, 5]), "bad_box"),
        (lambda c: c["annotations"][1].update(bbox=[20, 5]), "bad_box"),
        (lambda c: c["annotations"][1].pop("bbox"), "bad_box"),
        (lambda c: c["annotations"][2]["segmentation"].update(counts=[1, 2, 3]), "bad_mask"),
        (lambda c: c["annotations"][2]["segmentation"].update(counts="not a code"), "bad_mask"),
        (lambda c: c["annotations"][2]["segmentation"].update(size=[30, 20]), "bad_mask"),
        (lambda c: c["images"][0].update(file_name="a/9.png"), "missing_file"),
        (lambda c: c["images"][0].update(file_name="../images/a/0.png"), "bad_path"),
        (lambda c: c["images"][0].update(width=31), "size_mismatch"),
        (lambda c: c["images"][1].update(file_name="a/0.png"), "duplicate_image"),
        (lambda c: c["images"][0].update(record={"keys": {"colour": "red"}}), "invalid_record"),
        (lambda c: c["annotations"][0].update(region_id="x", score=7), "invalid_record"),
    ],
)  # fmt: skip
def test_one_broken_thing_is_listed_and_the_rest_goes_on(foreign, tmp_path, spoil, reason):
    coco, run = foreign
    spoil(coco)
    facts, records = run(exhaustive=True)
    assert facts["rejects"] == {reason: 1}
    assert len(records) >= 2
    listed = open_dataset(tmp_path / "d").rejects
    assert listed["reason"].tolist() == [reason]
    assert errors_of(tmp_path / "d") == []


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda c: c["images"][1].update(id=7), "the id 7 twice among its images"),
        (lambda c: c["categories"][1].update(id=3), "the id 3 twice among its categories"),
        (lambda c: c.pop("annotations"), "lacks 'annotations'"),
        (lambda c: c["images"][0].pop("file_name"), "an image lacks 'file_name'"),
        (lambda c: [image.update(file_name="gone.png") for image in c["images"]], "none of its 1 images"),
    ],
)
def test_a_file_that_cannot_be_used_leaves_nothing(foreign, tmp_path, spoil, words):
    coco, run = foreign
    spoil(coco)
    with pytest.raises(InputError, match=words):
        run()
    assert not (tmp_path / "d").exists()


def test_modality_and_licence_must_be_known(foreign):
    with pytest.raises(InputError, match="--modality"):
        foreign[1](modality=None)
    with pytest.raises(InputError, match="licence"):
        Given("others", " ")


def test_no_file_and_no_json(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        import_coco(tmp_path / "no.json", tmp_path / "d", tmp_path, GIVEN)
    (tmp_path / "no.json").write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        import_coco(tmp_path / "no.json", tmp_path / "d", tmp_path, GIVEN)
