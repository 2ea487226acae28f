"""MDETR and GLIP: captions, boxes and the characters that name them."""

import json

import pytest
from pycocotools.coco import COCO

from medglip.exports.mdetr import annotations, grounded_text, image_entry, spans_of
from medglip.records.labels import label_tree
from medglip.records.record import Region, Span, Text


def load(folder):
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("mdetr_*.json"))]


def test_every_region_is_named_by_its_characters(dataset, exported):
    regions = {region.id: region for record in dataset.records() for region in record.regions}
    seen = []
    for file in load(exported("mdetr")):
        captions = {image["id"]: image["caption"] for image in file["images"]}
        for entry in file["annotations"]:
            region = regions[entry["region_id"]]
            x, y, w, h = entry["bbox"]
            assert (x, y, x + w, y + h) == pytest.approx(region.box_xyxy, abs=1e-6)
            assert entry["category_id"] == entry["isfinal"] == 1
            words = [captions[entry["image_id"]][start:end] for start, end in entry["tokens_positive"]]
            noun = label_tree()[region.label].name.split()[-1]
            assert any(noun in word for word in words), words
            seen.append(region.id)
    assert sorted(seen) == sorted(regions)


def test_pycocotools_finds_captions_and_ids(exported, capsys):
    coco = COCO(str(exported("mdetr") / "mdetr_train.json"))
    for image in coco.loadImgs(coco.getImgIds()):
        assert {"caption", "tokens_negative", "tokens_positive_eval", "dataset_name", "sentence_id"} <= set(image)
    assert len(coco.anns) == 5
    assert len(coco.getAnnIds(imgIds=4)) == 0  # the negative is there, with its caption
    assert coco.imgs[4]["caption"]


def test_one_phrase_of_several_regions_is_one_span(dataset):
    record = dataset.record(0)
    caption = grounded_text(record, label_tree())
    cysts = [region.id for region in record.regions if region.label.endswith("cyst")]
    spans = [spans_of(caption, region) for region in cysts]
    assert len(spans) == 2
    assert spans[0] == spans[1] != []
    entry = image_entry(record, caption, 1)
    assert spans[0][0] in [said[0] for said in entry["tokens_positive_eval"]]
    assert len(entry["tokens_positive_eval"]) < len(record.regions)


def test_words_that_name_nothing_do_not_overlap_those_that_do(dataset):
    for record in dataset.records():
        entry = image_entry(record, grounded_text(record, label_tree()), 1)
        said = [span for spans in entry["tokens_positive_eval"] for span in spans]
        assert entry["tokens_negative"]
        for start, end in entry["tokens_negative"]:
            assert entry["caption"][start:end].strip() == entry["caption"][start:end] != ""
            assert all(end <= begin or stop <= start for begin, stop in said)


def test_a_stored_text_that_names_every_region_is_the_caption(dataset, exported):
    test = json.loads((exported("mdetr") / "mdetr_test.json").read_text(encoding="utf-8"))
    assert test["images"][0]["caption"] == "ÄÖÜ: a nodule, no other nodule."
    assert test["annotations"][0]["tokens_positive"] == [[7, 13]]  # characters, not bytes
    first = grounded_text(dataset.record(0), label_tree())  # its report names the cysts only
    assert first.kind == "template"


def test_a_region_said_twice_has_two_spans(make_picture, dataset):
    region = Region("abdomen.liver", (1.0, 1.0, 5.0, 6.0), id="r")
    text = Text("Liver. A large liver.", spans=(Span(15, 20, ("r",)), Span(0, 5, ("r",))))
    record = make_picture(dataset.pixels(0), 9, [region], texts=(text,)).record
    assert annotations(record, grounded_text(record, label_tree()))[0]["tokens_positive"] == [[0, 5], [15, 20]]
