"""A pasted lesion: it lies where such a lesion can lie, its truth is that of its pixels, and nothing else is made to lie."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scenes import CYST, KIDNEY, LIVER, SPLEEN, STONE, TREE, TUMOR

from medglip.model import load_config
from medglip.records.masks import box_of_mask, rle_of_mask
from medglip.records.record import ImageRecord, Origin, Phrase, Region, Span, Text
from medglip.train.pasting import feathered, lesions_of, organ_of, pasted
from medglip.train.samples import Samples

LEFT, RIGHT = f"{KIDNEY}@left", f"{KIDNEY}@right"
POLYP = "abdomen.colon.polyp"
PLAN = load_config("tiny")["train"] | {"paste": 1.0, "specific": 0.0, "views": 0}
SIDE = 96


def disc(x, y, radius=6.0):
    rows, columns = np.mgrid[:SIDE, :SIDE] + 0.5
    return (rows - y) ** 2 + (columns - x) ** 2 < radius**2


def region(label, mask, side=None, name="", **more):
    return Region(label, box_of_mask(mask), rle_of_mask(mask), side, id=name, **more)


def record(name, regions, modality="ct", **more):
    return ImageRecord(
        name, "0" * 64, SIDE, SIDE, 1, 8, modality, Origin("made_up", f"{name}.png", name), "MIT", split="train",
        regions=tuple(regions), **more,
    )  # fmt: skip


class Data:
    """Images of grey 100 in which a region's own level is painted."""

    def __init__(self, *records, levels=None):
        self.manifest = {"parts": {}}
        self.kept, self.pixels = list(records), {}
        for one in records:
            image = np.full((SIDE, SIDE), 100, np.uint8)
            for place in one.regions:
                image[place.mask.decode()] = (levels or {}).get(place.label, 100)
            self.pixels[one.id] = image

    def records(self, split=None):
        return iter(self.kept)

    def display(self, name):
        return self.pixels[name]


def with_kidneys(name, *more, modality="ct", **facts):
    """A left kidney on the right of the image, a right one on its left, and more."""
    left = region(KIDNEY, disc(70, 48, 20), "left", f"{name}-l")
    right = region(KIDNEY, disc(26, 48, 20), "right", f"{name}-r")
    return record(name, [left, right, *more], modality, **facts)


def tumor(name, x, side, home, radius=5.0, **more):
    return region(TUMOR, disc(x, 48, radius), side, f"{name}-t", parents=(f"{name}-{home}",), **more)


def made(*records, **changes):
    return Samples([Data(*records, levels={TUMOR: 180, POLYP: 180})], "train", TREE, {**PLAN, **changes}, SIDE)


def grafts(samples, number, views=40):
    return [(view, graft) for view in range(1, views) if (graft := samples._graft(number, view)) is not None]


PAIR = with_kidneys("a", tumor("a", 70, "left", "l")), with_kidneys("b", absent=(TUMOR, f"{TUMOR}@left", f"{CYST}@left"))


def test_a_lesion_lies_in_the_organ_of_its_side_and_nowhere_else():
    samples = made(*PAIR)
    found = grafts(samples, 1)
    assert len(found) > 20
    places = set()
    for _, graft in found:
        whole = np.zeros((SIDE, SIDE), bool)
        x0, y0, x1, y1 = graft.box
        whole[y0:y1, x0:x1] = graft.mask
        assert box_of_mask(whole) == graft.box
        assert not (whole & ~disc(70, 48, 20)).any()
        assert graft.donor == 0
        places.add(graft.corner)
    assert len(places) > 10
    assert grafts(samples, 0) == []  # its own lesion is the only one


def test_its_facts_are_its_pixels():
    samples = made(*PAIR, masks=True, phrases=60, lineage=0.0, fill=1.0)
    concept, told = samples.words.number[f"{TUMOR}@left"], 0
    for view, graft in grafts(samples, 1, 12):
        question = samples.question(1, view)
        asked = question.target.concepts.tolist()
        is_shown = question.target.presence.bool().tolist()
        for place, number in enumerate(asked):
            if number >= 0 and samples.words.covers[number, concept]:
                assert is_shown[place], question.phrases[place]
            assert not (samples.words.concepts[number] == f"{CYST}@left" and is_shown[place])
        known = samples.view(1, view).boxes_on_canvas(np.array([graft.box], np.float32)).clip(0, SIDE)
        rows = [row for row, box in enumerate(question.target.boxes.numpy()) if np.abs(box - known[0]).max() < 1e-3]
        if rows and concept in asked:
            told += 1
            assert question.target.names[rows[0], asked.index(concept)]
            cells = question.target.masks[rows[0]].numpy() > 0.5
            mask_box = np.array(box_of_mask(cells)) * 4
            assert np.abs(mask_box - known[0]).max() <= 4  # a cell
    assert told > 3


def test_absent_facts_that_it_contradicts_are_dropped_and_others_stay():
    samples = made(*PAIR, negatives=0, phrases=200, fill=1.0)
    view, _ = grafts(samples, 1)[0]
    assert samples.items[1].known.absent == (TUMOR, f"{TUMOR}@left", f"{CYST}@left")
    question = samples.question(1, view)
    numbers, is_shown = question.target.concepts.tolist(), question.target.presence.tolist()
    denied = {samples.words.concepts[n] for n, there in zip(numbers, is_shown, strict=True) if not there}
    assert f"{CYST}@left" in denied
    assert not {TUMOR, f"{TUMOR}@left"} & denied
    clean = samples.question(1, 0)  # view 0 is as evaluation sees it
    assert not any(clean.target.presence[place] for place, n in enumerate(clean.target.concepts.tolist())
                   if n >= 0 and samples.words.concepts[n].startswith(TUMOR))  # fmt: skip


def test_pixels_change_on_the_lesion_and_its_edge_alone():
    samples = made(*PAIR)
    data = samples.items[0].data
    for _, graft in grafts(samples, 1, 10):
        before = data.display("b")
        after = pasted(before, data.display("a"), graft, follow=False)
        whole = np.zeros((SIDE, SIDE), bool)
        x0, y0, x1, y1 = graft.box
        whole[y0:y1, x0:x1] = graft.mask
        around = np.zeros((SIDE, SIDE), bool)
        around[max(0, y0 - 3) : y1 + 3, max(0, x0 - 3) : x1 + 3] = True
        assert (after[~around] == before[~around]).all()
        assert (after[whole] > 170).all()
        assert (np.array(box_of_mask(after > 140)) == graft.box).all()
        assert (before == 100).all()  # not written to


def test_brightness_follows_the_surroundings_where_it_is_no_measure():
    samples = made(*PAIR)
    _, graft = grafts(samples, 1)[0]
    donor, dark = samples.items[0].data.display("a"), np.full((SIDE, SIDE), 70, np.uint8)
    middle = (graft.box[1] + graft.box[3]) // 2, (graft.box[0] + graft.box[2]) // 2
    assert pasted(dark, donor, graft, follow=False)[middle] == 180
    assert pasted(dark, donor, graft, follow=True)[middle] == 150
    colours = np.repeat(dark[:, :, None], 3, axis=2)
    assert pasted(colours, donor, graft, follow=True)[middle].tolist() == [150] * 3


def test_it_never_overlaps_a_finding():
    other = tumor("b", 76, "left", "l", 7.0)
    samples = made(PAIR[0], with_kidneys("b", other))
    found = grafts(samples, 1, 60)
    assert found
    for _, graft in found:
        x0, y0, _, _ = graft.box
        margin = 3
        touched = feathered(graft.mask, margin) > 0
        there = disc(76, 48, 7)[y0 - margin : y0 - margin + touched.shape[0], x0 - margin : x0 - margin + touched.shape[1]]
        assert not (there & touched).any()
    full = with_kidneys("b", region(CYST, disc(70, 48, 19), "left", "b-c"))
    assert grafts(made(PAIR[0], full), 1) == []


@pytest.mark.parametrize("other", [
    replace(PAIR[1], modality="mr"), replace(PAIR[1], origin=Origin("another", "b.png", "b")),
    record("b", [region(LIVER, disc(48, 48, 30), name="b-v")]),
    record("b", [region(KIDNEY, disc(26, 48, 20), "right", "b-r")]),
], ids=["modality", "source", "organ", "side"])  # fmt: skip
def test_another_modality_source_organ_or_side_gets_none(other):
    assert grafts(made(PAIR[0], other), 1) == []


def test_a_size_is_kept_in_mm_or_not_told():
    words = {"phrases": (Phrase("10 mm tumor", "size"), Phrase("round kidney tumor", "attribute"),
                         Phrase("tumor in the left kidney", "relation"), Phrase("the largest tumor", "report"))}  # fmt: skip
    donor = with_kidneys("a", tumor("a", 70, "left", "l", **words), spacing_mm=(2.0, 2.0))
    same = made(donor, with_kidneys("b", spacing_mm=(2.0, 2.0)))
    wide = made(donor, with_kidneys("b", spacing_mm=(1.0, 2.0)))
    unknown = made(donor, with_kidneys("b"))
    far = made(donor, with_kidneys("b", spacing_mm=(0.5, 0.5)))
    mask = disc(70, 48, 5)
    assert mask.any(axis=0).sum() == mask.any(axis=1).sum() == 10
    for samples, shape, texts in (
        (same, (10, 10), ("round kidney tumor", "10 mm tumor")), (wide, (20, 10), ("round kidney tumor", "10 mm tumor")),
        (unknown, (10, 10), ("round kidney tumor",)),
    ):  # fmt: skip
        found = grafts(samples, 1)
        assert found
        assert all(np.abs(np.subtract(graft.mask.shape, shape)).max() <= 1 for _, graft in found)
        assert {graft.phrases for _, graft in found} == {texts}
    assert grafts(far, 1) == []


def test_words_that_may_be_wrong_now_are_dropped():
    kin = tumor("b", 80, "left", "l", 4.0, phrases=(Phrase("8 mm tumor", "size"),))
    text = Text("One tumor only.", "caption", spans=(Span(0, 9, ("b-t",)),))
    stone = region(STONE, disc(26, 48, 4), "right", "b-s", phrases=(Phrase("8 mm stone", "size"),))
    samples = made(PAIR[0], with_kidneys("b", kin, stone, texts=(text,)), specific=1.0, captions=1.0, phrases=60)
    found = dict(grafts(samples, 1, 60))
    said = {view: " ".join(map(str, samples.question(1, view).phrases)) for view in range(60)}
    assert found
    assert any("8 mm tumor" in said[view] for view in said if view not in found)
    assert any("8 mm stone" in said[view] for view in found)
    for view in found:
        assert "8 mm tumor" not in said[view]
        assert "only" not in said[view]


def test_without_a_marked_organ_only_pictures_that_it_fills_get_one_near_its_own_place():
    polyp = record("a", [region(POLYP, disc(30, 60, 8), name="a-p")], "endoscopy")
    clean = record("b", [], "endoscopy", absent=(POLYP,))
    samples = made(polyp, clean)
    found = grafts(samples, 1)
    assert found
    for _, graft in found:
        centre = (graft.box[0] + graft.box[2]) / 2, (graft.box[1] + graft.box[3]) / 2
        assert abs(centre[0] - 30) <= 0.2 * SIDE + 1
        assert abs(centre[1] - 60) <= 0.2 * SIDE + 1
    assert grafts(made(replace(polyp, modality="ct"), replace(clean, modality="ct")), 1) == []
    # Where a source shows several organs, an image that shows none of them may be of any.
    liver = record("c", [region(LIVER, disc(48, 48), name="c-v")], "endoscopy")
    assert grafts(made(polyp, clean, liver), 1) == []


def test_what_is_no_whole_sure_single_lesion_is_not_cut_out():
    home = {"parents": ("a-l",)}
    good = region(TUMOR, disc(70, 48, 5), "left", "a-t", **home)
    assert [lesion.concept for lesion in lesions_of(with_kidneys("a", good), TREE)] == [f"{TUMOR}@left"]
    assert lesions_of(with_kidneys("a", good), TREE)[0].home == KIDNEY
    for bad in (
        [region(TUMOR, disc(70, 48, 1.5), "left", "a-t")], [region(TUMOR, disc(94, 48, 5), "left", "a-t")],
        [replace(good, flags=("merged",))], [replace(good, mask=None)], [replace(good, laterality="bilateral")],
        [good, region(CYST, disc(73, 50, 3), "left", "a-c")],  # would come along unmarked
        [region(TUMOR, disc(48, 48, 30), "left", "a-t")],
    ):  # fmt: skip
        assert not [lesion for lesion in lesions_of(with_kidneys("a", *bad), TREE) if lesion.concept.startswith(TUMOR)]
    assert organ_of(TUMOR, TREE) == KIDNEY
    assert organ_of(SPLEEN, TREE) == SPLEEN


def test_mirrored_views_swap_the_side_of_a_pasted_lesion():
    first = with_kidneys("a", tumor("a", 70, "left", "l"), modality="ultrasound")
    samples = made(first, with_kidneys("b", modality="ultrasound"), phrases=60)
    swapped = 0
    for view, graft in grafts(samples, 1):
        if not samples.view(1, view).mirrored:
            continue
        box = samples.view(1, view).boxes_on_canvas(np.array([graft.box], np.float32))[0]
        question = samples.question(1, view)
        shown = {samples.words.concepts[n] for n, there in zip(question.target.concepts.tolist(),
                 question.target.presence.tolist(), strict=True) if n >= 0 and there}  # fmt: skip
        assert f"{TUMOR}@left" not in shown
        if f"{TUMOR}@right" in shown:
            swapped += 1
            assert box[2] < SIDE / 2 + 8  # on the other half than in the image
    assert swapped


def test_the_same_view_is_pasted_alike_and_seeds_differ():
    one, other = made(*PAIR), made(*PAIR)
    for view in range(1, 8):
        assert torch.equal(one.question(1, view).image, other.question(1, view).image)
        assert torch.equal(one.image(1, view), one.question(1, view).image)
    places = {seed: [graft.corner for _, graft in grafts(made(*PAIR, seed=seed), 1, 8)] for seed in range(3)}
    assert places[0] != places[1] != places[2]
    assert grafts(made(*PAIR, paste=0.0), 1) == []
    some = len(grafts(made(*PAIR, paste=0.5), 1, 200))
    assert 60 < some < 130
