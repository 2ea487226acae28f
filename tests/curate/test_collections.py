"""Collections: every file of datasets/collections loads, and what is held out is held out."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from medglip import store
from medglip.curate import load_source, source_names
from medglip.curate.collections import (
    collection_names,
    convert_collection,
    divided,
    evaluation_view,
    load_collection,
    source_verdict,
    training_view,
    zero_shot_view,
)  # fmt: skip
from medglip.errors import InputError, SourceError
from medglip.records.labels import label_tree
from medglip.records.licences import allows_derived_weights

MALIGNANT, BENIGN = "thorax.breast.tumor.malignant", "thorax.breast.tumor.benign"
GOOD = 'name = "mine"\ntitle = "Mine"\nsources = ["phantom"]\n[split]\nrule = "hash"\n'


def written(folder, text):
    (folder / "mine.toml").write_text(text, encoding="utf-8")
    return folder / "mine.toml"


def test_the_collections_are_there_and_are_no_sources():
    assert {"medglip_bench", "lite_training"} <= set(collection_names())
    assert not set(collection_names()) & set(source_names())
    assert load_collection("medglip-bench") == load_collection("medglip_bench")


@pytest.mark.parametrize("name", collection_names())
def test_a_collection_holds_together(name):
    collection = load_collection(name)
    assert collection.name == name
    tree = label_tree()
    labels = {
        source: {concept.partition("@")[0] for concept in load_source(source).concepts} for source in collection.all_sources
    }
    taught = set().union(*(labels[source] for source in collection.sources))
    for source in collection.held_out_sources:
        assert any(tree.covers(one, other) or tree.covers(other, one) for one in labels[source] for other in taught), source
    for label in collection.held_out_labels:
        assert any(tree.covers(label, other) for shown in labels.values() for other in shown), f"no source shows {label}"


def test_the_bench_holds_out_sources_and_labels_of_many_modalities():
    bench = load_collection("medglip-bench")
    assert len({modality for source in bench.held_out_sources for modality in load_source(source).modalities}) >= 7
    assert len({label_tree().body_region(label) for label in bench.held_out_labels}) >= 5


def test_every_source_of_the_shipped_weights_may_be_used():
    for name in load_collection("lite_training").sources:
        assert source_verdict(load_source(name)).allowed, name


@pytest.mark.parametrize("name", source_names())
def test_every_source_is_decided(name):
    source = load_source(name)
    allowed, reason = source_verdict(source)
    assert reason
    words = source.licence.lower().replace("-", " ").split()
    if allowed and not all(part.option("licence") for part in source.parts):
        assert not {"nc", "nd", "sa", "noncommercial", "memory", "research", "terms"} & set(words)
        assert allows_derived_weights(source.licence)
        assert source.access in ("open", "registration")
        assert not any("not checked" in defect and "licence" in defect for defect in source.known_defects)


@pytest.mark.parametrize("name", ["ct_totalsegmentator", "mri_isles22", "ct_ct_org"])
def test_an_open_licence_that_nobody_has_checked_does_not_pass(name):
    assert allows_derived_weights(load_source(name).licence)
    assert source_verdict(load_source(name)) == (False, "nobody has checked it with the publisher")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("rule", "rules"), "split"),
        (('"hash"', '"random"'), "split rule"),
        (('["phantom"]', "[]"), "sources"),
        (('["phantom"]', '["phantom", "phantom"]'), "sources"),
        (('["phantom"]', '["us_bussi"]'), "no source 'us_bussi'"),
        (('["phantom"]', '["phantom"]\nheld_out_sources = ["phantom"]'), "trained on and held out"),
        (('["phantom"]', '["phantom"]\nheld_out_labels = ["abdomen.livr"]'), "no label 'abdomen.livr'"),
        (('["phantom"]', '["phantom", "derm_ham10000"]\nredistributable = true'), "'derm_ham10000' forbids commercial use"),
        (('name = "mine"', "name = mine"), "not well-formed"),
        (('"Mine"', '"Mine"\nyear = 2020-01-01'), "mine.toml"),
    ],
)
def test_a_wrong_collection_is_refused(tmp_path, change, message):
    assert load_collection(written(tmp_path, GOOD)).sources == ("phantom",)
    with pytest.raises(SourceError, match=message):
        load_collection(written(tmp_path, GOOD.replace(*change)))


def test_an_unknown_collection_is_refused_with_the_names():
    with pytest.raises(SourceError, match=r"no collection 'bench'; known: .*medglip_bench"):
        load_collection("bench")
    with pytest.raises(SourceError, match="cannot be read"):
        load_collection("nowhere/mine.toml")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Breast ultrasound as the one source that is there, of a collection that holds out malignant tumors."""
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    for kind in ("benign", "malignant", "normal"):
        (folder / "root" / "us-busi" / kind).mkdir(parents=True)
        for number in range(1, 5):
            pixels, mask = rng.integers(0, 255, (40, 50), np.uint8), np.zeros((40, 50), np.uint8)
            mask[10:20, 12:30] = 0 if kind == "normal" else 255
            for name, image in ((f"{kind} ({number}).png", pixels), (f"{kind} ({number})_mask.png", mask)):
                Image.fromarray(image).save(folder / "root" / "us-busi" / kind / name)
    text = GOOD.replace('["phantom"]', f'["phantom", "us_busi"]\nheld_out_labels = ["{MALIGNANT}"]')
    collection = load_collection(written(folder, text.replace('"hash"', '"rank"\ntest = 0.5\nval = 0.0')))
    seen = []
    done = convert_collection(collection, folder / "root", folder / "dataset", on_source=lambda name, _: seen.append(name))
    assert set(done) == set(seen) == {"us_busi"}  # the other is not there
    assert done["us_busi"].images == 12
    return collection, divided(store.open(folder / "dataset"), collection)


def test_training_never_hears_of_a_held_out_label(world):
    collection, data = world
    view = training_view(data, collection)
    assert len(data.ids("train")) == len(data.ids("test")) == 6
    assert view.ids("train") == data.ids("train")
    shown = [one.concept for record in data.records() for one in record.regions]
    assert shown.count(MALIGNANT) == shown.count(BENIGN) == 4
    left = [one.concept for record in view.records() for one in record.regions]
    assert left == [BENIGN] * 4
    for record in view.records():
        assert MALIGNANT not in (*record.absent, *record.exhaustive)
        words = [text.text for text in record.texts] + [phrase.text for one in record.regions for phrase in one.phrases]
        assert not any("malignant breast tumor" in text.lower() for text in words)
    assert any(BENIGN in record.exhaustive for record in view.records())
    assert list(pickle.loads(pickle.dumps(view)).records()) == list(view.records())  # for the workers of a loader


def test_tests_see_whole_images_and_the_zero_shot_test_only_what_is_held_out(world):
    collection, data = world
    tested = list(evaluation_view(data, collection).records("test"))
    assert tested == list(data.records("test"))
    zero = list(zero_shot_view(data, collection).records("test"))
    assert len(zero) == 6  # each was searched for it
    for record in zero:
        assert {one.concept for one in record.regions} <= {MALIGNANT}
        assert {*record.absent, *record.exhaustive} == {MALIGNANT}


def test_a_held_out_source_is_tested_on_whole_and_never_trained_on(world):
    collection, data = world
    other = replace(collection, sources=("phantom",), held_out_sources=("us_busi",), held_out_labels=())
    assert list(training_view(data, other).records()) == []
    assert len(evaluation_view(data, other).ids("test")) == len(zero_shot_view(data, other).ids("test")) == 12


def test_a_folder_without_sources_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no source of 'lite_training'; wanted: .* 'xray-covid-chestxray'"):
        convert_collection("lite-training", tmp_path, tmp_path / "dataset")
    assert not (tmp_path / "dataset").exists()
