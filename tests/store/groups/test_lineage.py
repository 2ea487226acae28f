from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from medglip import store
from medglip.curate import load_source
from medglip.curate.engine import found_tasks, run
from medglip.records import Keys
from medglip.store import write_part
from medglip.store.groups.lineage import connected, families, images_to_group, linked_by_keys, links_by

KEY = st.sampled_from([None, "", "a", "b", "c"])
POINT = st.integers(0, 11)


@given(st.lists(st.tuples(POINT, POINT), max_size=30))
def test_components_are_what_chains_of_links_join(links):
    component = connected(12, [np.array(links, np.int64).reshape(-1, 2).T])
    label = list(range(12))
    for one, other in links:
        label = [label[one] if mine == label[other] else mine for mine in label]
    assert [[component[a] == component[b] for b in range(12)] for a in range(12)] == [
        [label[a] == label[b] for b in range(12)] for a in range(12)
    ]


@given(st.lists(KEY, max_size=20))
def test_equal_keys_join_and_nothing_else_does(keys):
    component = connected(len(keys), [links_by(pd.Series(keys, dtype=object))])
    for one, first in enumerate(keys):
        for other, second in enumerate(keys):
            assert (component[one] == component[other]) == (one == other or (first == second and first not in (None, "")))


def test_no_images_make_no_components():
    assert connected(0, []).tolist() == []
    assert links_by(pd.Series([], dtype=object)).shape == (2, 0)


def test_families_are_found_through_a_parent_that_is_not_there():
    def manifest(**lineage):
        return {"parts": {f"{name}-0": {"source": name, "lineage": parents} for name, parents in lineage.items()}}

    found = families(manifest(rsna=["nih"], siim=["nih"], busi=[], a=["b"], b=["c"], c=[]))
    assert found["rsna"] == found["siim"] != found["busi"]
    assert found["a"] == found["b"] == found["c"] == "a"
    assert families(manifest()) == {}
    assert families({"parts": {"loose": {}}}) == {"loose": "loose"}


@pytest.mark.parametrize("column", ["group", "patient", "study", "series"])
def test_images_of_one_key_are_together_and_others_apart(tmp_path, plain_picture, column):
    def keyed(seed, value):
        key = {"group": value} if column == "group" else {"keys": Keys(**{column: value}), "group": f"g{seed}"}
        return plain_picture(seed, **key)

    write_part(tmp_path / "d", "p", iter([keyed(1, "x"), keyed(2, "y"), keyed(3, "x"), keyed(4, "z")]))
    dataset = store.open(tmp_path / "d")
    images = images_to_group(dataset)
    component, _ = linked_by_keys(dataset, images)
    assert [list(component).index(number) for number in component] == [0, 1, 0, 3]


def test_equal_pixels_join_but_flat_ones_do_not(tmp_path, plain_picture):
    grain = np.arange(35, dtype=np.uint8).reshape(5, 7)
    flat = [plain_picture(7, id=f"{number:016x}", group=f"g{number}") for number in (1, 2)]
    same = [plain_picture(7, id=f"{number:016x}", group=f"g{number}", sha256=store.pixel_sha256(grain)) for number in (3, 4)]
    same = [replace(picture.record) for picture in same]
    write_part(tmp_path / "d", "p", iter([*flat, *(type(flat[0])(record, grain) for record in same)]))
    dataset = store.open(tmp_path / "d")
    component, blank = linked_by_keys(dataset, images_to_group(dataset))
    assert component[2] == component[3]
    assert len(set(component)) == 3
    assert blank == {flat[0].record.sha256}


def test_groups_joined_before_stay_joined(tmp_path, plain_picture):
    write_part(tmp_path / "d", "p", iter([plain_picture(1, group="b"), plain_picture(2, group="a"), plain_picture(3)]))
    images = images_to_group(store.open(tmp_path / "d"), {"b": "a"})
    assert images["group"].tolist() == ["a", "a", images["id"][2]]  # without a group an image is one
    assert images["written"].tolist() == ["b", "a", ""]


TOML = """
name = "{name}"
title = "Toy"
licence = "CC0-1.0"
[[part]]
converter = "mask_images"
modality = "xray"
{ids}
[part.files]
image = "{{patient}}_{{n}}.png"
[part.options]
kind = "binary"
label = "lung"
[part.labels]
"lung" = "lung"
"""


def test_ids_of_a_parent_source_meet_the_parents_own(tmp_path):
    from PIL import Image

    (tmp_path / "in").mkdir()
    Image.fromarray(np.arange(400, dtype=np.uint8).reshape(20, 20)).save(tmp_path / "in" / "007_1.png")

    def keys(name, *ids):
        (tmp_path / f"{name}.toml").write_text(TOML.format(name=name, ids="\n".join(ids)))
        tasks, _ = found_tasks(load_source(tmp_path / f"{name}.toml"), tmp_path / "in")
        ((picture,),) = map(run, tasks)
        return picture.record.keys.patient, picture.record.group

    patient, of, group = 'patient = "{patient}"', 'patient_of = "parent"', 'group = "{patient}"'
    parent, child = keys("parent", patient), keys("child", patient, of)
    assert parent == child
    assert parent[0] == parent[1]  # without a group of its own the patient is the group
    assert set(keys("child", patient)).isdisjoint(parent)
    assert keys("child", patient, group, 'group_of = "parent"') == (keys("child", patient)[0], parent[1])
    assert keys("child", of)[0] is None
    assert keys("child", of) == keys("child")  # a case is no patient's id
