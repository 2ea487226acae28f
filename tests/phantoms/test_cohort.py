from itertools import chain

import numpy as np
import pytest

from medglip.errors import InputError
from medglip.phantoms import MODALITIES, Scene, cases, exams, findings
from medglip.records import label_tree


@pytest.fixture(scope="module")
def scenes() -> dict[str, list[Scene]]:
    return {modality: list(cases(modality, 3, seed=5)) for modality in MODALITIES}


def _planes(mask: np.ndarray) -> np.ndarray:
    return mask if mask.ndim == 3 else mask[None]


@pytest.mark.parametrize("modality", MODALITIES)
def test_values_are_as_promised(modality, scenes):
    volume, colour = modality in ("ct", "mr", "ultrasound"), modality in ("endoscopy", "dermoscopy", "fundus")
    for scene in scenes[modality]:
        assert scene.values.dtype == {"ct": np.int16, "mr": np.int16, "xray": np.uint16}.get(modality, np.uint8)
        assert scene.values.ndim == 2 + (volume or colour)
        assert (scene.values.shape[-1] == 3) == colour
        assert len(scene.spacing_mm or ()) == {"ct": 3, "mr": 3, "xray": 2, "ultrasound": 2}.get(modality, 0)
        assert scene.mask("liver").shape == (scene.values.shape[:2] if colour else scene.values.shape)


@pytest.mark.parametrize("modality", MODALITIES)
def test_masks_are_inside_their_picture_and_their_parent(modality, scenes):
    for scene in scenes[modality]:
        for thing in scene.things:
            assert thing.mask.dtype == bool
            assert thing.mask.any()
            assert thing.mask.shape == scene.mask(thing.name).shape
            if thing.within:
                assert not (thing.mask & ~scene.mask(thing.within)).any(), (thing.name, thing.within)


@pytest.mark.parametrize("modality", MODALITIES)
def test_names_resolve_and_are_searched_for(modality, scenes):
    tree = label_tree()
    for scene in scenes[modality]:
        assert set(scene.names()) <= set(scene.searched)
        for thing in scene.things:
            label, side = tree.resolve(thing.name)
            assert side == thing.side
            assert side is None or tree[label].laterality


@pytest.mark.parametrize("modality", MODALITIES)
def test_each_countable_thing_is_one_piece_apart_from_its_like(modality, scenes):
    from skimage.measure import label

    tree = label_tree()
    for scene in scenes[modality]:
        for name in scene.names():
            if tree[tree.resolve(name)[0]].countable:
                things = [thing for thing in scene.things if thing.name == name]
                count = sum(int(label(plane, connectivity=2).max()) for thing in things for plane in _planes(thing.mask))
                assert sum(int(label(plane, connectivity=2).max()) for plane in _planes(scene.mask(name))) == count
                assert all(label(plane, connectivity=2).max() <= 1 for thing in things for plane in _planes(thing.mask))


def test_no_thing_is_too_small_to_find(scenes):
    for scene in chain.from_iterable(scenes.values()):
        for thing in scene.things:
            for plane in _planes(thing.mask):
                if plane.any():
                    sides = np.ptp(np.flatnonzero(plane.any(axis=1))) + 1, np.ptp(np.flatnonzero(plane.any(axis=0))) + 1
                    assert sum(sides) >= 17, (scene.exam.case, thing.name, sides)


@pytest.mark.parametrize("modality", MODALITIES)
def test_findings_are_absent_from_some_and_present_in_others(modality):
    found = list(cases(modality, {"ct": 4, "mr": 12, "ultrasound": 9}.get(modality, 3)))
    for kind in {scene.kind for scene in found}:
        alike = [scene for scene in found if scene.kind == kind]
        shown = [len(set(scene.searched) - set(scene.names())) for scene in alike]
        assert max(shown) > 0
        assert min(shown) < max(shown)


def test_left_is_on_the_right_of_the_picture(scenes):
    pairs = 0
    for scene in scenes["ct"] + scenes["mr"] + scenes["xray"]:
        for name in scene.names():
            if name.startswith("left ") and (right := name.replace("left", "right")) in scene.names():
                columns = [np.nonzero(scene.mask(side))[-1].mean() for side in (right, name)]
                assert columns[0] < columns[1], name
                pairs += 1
    assert pairs > 5


def test_a_cyst_is_dark_in_ct_and_bright_in_mr_and_a_tumor_the_other_way_round():
    contrast: dict[tuple[str, str], list[bool]] = {}
    for modality in ("ct", "mr"):
        for scene in cases(modality, 6):
            for name in ("liver cyst", "liver tumor"):
                if name in scene.names():
                    mask, liver = scene.mask(name), scene.mask("liver")
                    brighter = scene.values[mask].mean() > np.median(scene.values[liver & ~mask])
                    contrast.setdefault((modality, name), []).append(bool(brighter))
    assert not any(contrast["ct", "liver cyst"])
    assert all(contrast["mr", "liver cyst"])
    assert all(contrast["ct", "liver tumor"])
    assert not any(contrast["mr", "liver tumor"])


def test_equal_seeds_give_equal_scenes_and_others_do_not(scenes):
    again = next(cases("fundus", 1, seed=5))
    assert np.array_equal(again.values, scenes["fundus"][0].values)
    assert not np.array_equal(again.values, next(cases("fundus", 1, seed=6)).values)
    few, many = [next(iter(cases("xray", n, seed=5))) for n in (1, 2)]
    assert np.array_equal(few.values, many.values)


def test_most_patients_have_several_exams_and_are_the_same_person_everywhere():
    people: dict[str, set[tuple[str, int]]] = {}
    visits: dict[str, set[str]] = {}
    for modality in MODALITIES:
        for exam in exams(modality, 8):
            people.setdefault(exam.patient, set()).add((exam.sex, exam.age))
            visits.setdefault(exam.patient, set()).add(exam.case.split("_")[1])
    assert all(len(facts) == 1 for facts in people.values())
    assert len(people) == 4
    assert sorted(map(len, visits.values())) == [1, 2, 2, 3]


def test_unknown_modality():
    with pytest.raises(InputError, match="'pet'; allowed: ct, mr"):
        list(exams("pet", 1))


def test_findings_say_what_is_there_and_what_is_not(scenes):
    tree = label_tree()
    for scene in chain.from_iterable(scenes.values()):
        text = findings(scene)
        said, _, denied = text.partition("No ")
        for name in scene.searched:
            label = tree[tree.resolve(name)[0]]
            if label.is_finding:
                present = name in scene.names()
                words = {name, name.replace(label.name, label.plural), f"{name[0].upper()}{name[1:]}"}
                assert any(word in said for word in words) == present or any(
                    name in other for other in scene.names() if other != name
                )
                assert present or name in denied
