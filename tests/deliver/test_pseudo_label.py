"""Self-training: what is asked, what is believed, and that the new dataset is whole."""

import json
from dataclasses import replace

import numpy as np
import pytest

from medglip import store
from medglip.deliver.pseudo_label import Lesson, iou, pseudo_label
from medglip.deliver.unmarked import Unmarked
from medglip.errors import DatasetError, InputError
from medglip.model.checkpoints import CheckpointInfo
from medglip.predict import Answer
from medglip.records import ImageRecord, Origin, Phrase, Region, Span, Text, VolumeRecord, label_tree
from medglip.records.picture import Picture
from medglip.store import pixel_sha256, write_part
from medglip.store.checks.validate import validate
from medglip.store.matrix import matrix_of

TREE = label_tree()
HEART, LUNG, EFFUSION = "thorax.heart", "thorax.lung", "thorax.pleura.effusion"
NODULE, PNEUMO = "thorax.lung.nodule", "thorax.pleura.pneumothorax"
FACTS = {"exhaustive": [HEART], "field": ["thorax"]}
INFO = {"source": "films", "title": "Films", "licence": "MIT", "citation": "Nobody 2020", "matrix": {"xray": [FACTS]}}
WIDTH, HEIGHT = 80, 60


def picture(number, text="", regions=(), **more):
    pixels = np.random.default_rng(number).integers(0, 255, (HEIGHT, WIDTH), dtype=np.uint8)
    texts = (Text(text, "report"),) if isinstance(text, str) and text else tuple(text)
    record = ImageRecord(
        f"{number:016x}", pixel_sha256(pixels), WIDTH, HEIGHT, 1, 8, "xray", Origin("films", f"{number}.png", str(number)),
        "MIT", split=more.pop("split", "train"), regions=tuple(regions), texts=texts, group=f"g{number}", **more,
    )  # fmt: skip
    return Picture(record, pixels)


def region(label, box=(5.0, 5.0, 30.0, 30.0), side=None, **more):
    return Region(label, box, laterality=side, phrases=(Phrase("it"),), **more)


class Scripted:
    """Answers by phrase: presence, and boxes with scores."""

    def __init__(self, script, concepts=(), presence_threshold=0.5):
        self.info = CheckpointInfo({}, concepts=concepts, presence_threshold=presence_threshold)
        self.script, self.asked = script, []

    def answer(self, images, phrases, modalities):
        assert all(image.shape == (HEIGHT, WIDTH) for image in images)
        assert set(modalities) == {"xray"}
        self.asked += [list(asked) for asked in phrases]
        return [self._one(asked) for asked in phrases]

    def _one(self, phrases):
        boxes, scores = np.zeros((len(phrases), 3, 4), np.float32), np.zeros((len(phrases), 3), np.float32)
        presence = np.zeros(len(phrases), np.float32)
        for place, phrase in enumerate(phrases):
            presence[place], found = self.script.get(phrase, (0.9, []))
            for number, (box, score) in enumerate(found):
                boxes[place, number], scores[place, number] = box, score
        return Answer(boxes, scores, presence, np.zeros((len(phrases), 3, 2)), np.zeros((len(phrases), 2)), presence * 0, {})


def dataset_of(folder, *pictures, part="films-0", info=INFO):
    write_part(folder, part, pictures, (), (), info)
    return store.open(folder)


def asked_of(record, tmp_path, concepts=()):
    dataset = dataset_of(tmp_path / "asked", Picture(record.record, record.pixels))
    return Unmarked(TREE, matrix_of(dataset), concepts)(record.record)


# ---- what is asked


def test_what_a_text_names_is_asked_and_what_it_denies_or_doubts_is_not(tmp_path):
    text = "Small LEFT pleural effusion, unchanged. No pneumothorax. Possible lung nodule. Left\npleural effusion drained."
    asked, left_out = asked_of(picture(1, text), tmp_path)
    assert [(one.concept, one.name) for one in asked] == [
        (f"{EFFUSION}@left", "left pleural effusion"),
        (EFFUSION, "pleural effusion"),
    ]
    words = [text[first:last] for one in asked for _, first, last in one.places]
    assert words == ["LEFT pleural effusion", "pleural effusion"]
    assert left_out == {"denied": 1, "uncertain": 1}


def test_spelling_and_length_of_words_do_not_shift_the_characters(tmp_path):
    text = "Œdema? A tumour in the lung — and an oesophageal stent; tumour."
    dataset = dataset_of(tmp_path / "asked", picture(1))
    found = Unmarked(TREE, matrix_of(dataset)).found(Text(text))
    told = [(mention.words, text[first:last]) for mention, first, last in found]
    assert ("tumor", "tumour") in told
    assert all(
        last > first and len(part.split()) == len(words.split())
        for (words, part), (_, first, last) in zip(told, found, strict=True)
    )
    assert text.rindex("tumour") in [first for _, first, _ in found]


def test_what_is_marked_or_known_to_be_absent_is_not_asked(tmp_path):
    record = picture(
        1, "The heart. Lung nodule. Pneumothorax. Lung. Brain tumor.", [region(NODULE)], absent=(PNEUMO,), exhaustive=(HEART,)
    )
    asked, left_out = asked_of(record, tmp_path)
    # The heart is marked wherever it is, and here it is not; no chest film shows a brain.
    assert [one.concept for one in asked] == [LUNG]
    assert left_out == {"marked": 1, "negative": 3}


def test_a_concept_that_is_named_and_denied_is_not_asked(tmp_path):
    asked, left_out = asked_of(picture(1, "Right pleural effusion. No pleural effusion."), tmp_path)
    assert asked == []
    assert left_out == {"denied": 2}


def test_templates_and_questions_are_not_read(tmp_path):
    texts = (Text("A pleural effusion.", "template"), Text("Is there a pneumothorax?", "question", answer="No."))
    assert asked_of(picture(1, texts), tmp_path) == ([], {})


def test_partial_labels_ask_for_what_is_possible_and_not_marked(tmp_path):
    concepts = (HEART, f"{LUNG}@left", NODULE, PNEUMO, "head_neck.brain", "thorax.lung.nodule.solid")
    record = picture(1, "No pneumothorax.", [region(NODULE)])
    asked, _ = asked_of(record, tmp_path, concepts)
    # HEART: the source marks it wherever it is; the nodule is marked, so a solid one may be it; the brain is not in the field.
    assert [one.concept for one in asked] == [f"{LUNG}@left"]


# ---- what is believed


TEXT = "Left pleural effusion. Lung nodule. Pneumothorax."
SCRIPT = {
    "left pleural effusion": (0.9, [((10, 10, 40, 50), 0.8), ((50, 10, 70, 50), 0.5), ((60, 10, 70, 50), 0.51)]),
    "lung nodule": (0.4, [((20, 20, 30, 30), 0.99)]),  # it is not there
    "pneumothorax": (0.9, [((-5, -5, 200, 20), 0.7), ((90, 5, 95, 9), 0.9)]),  # over the edge, and outside
}


def test_boxes_above_the_threshold_of_what_is_there_are_written(tmp_path):
    old = dataset_of(tmp_path / "old", picture(1, TEXT, [region(HEART, (1.0, 1.0, 9.0, 9.0))]))
    found = pseudo_label(Scripted(SCRIPT), old, tmp_path / "new", Lesson("c0ffee"))
    record = next(store.open(tmp_path / "new").records())
    before = next(old.records())
    assert record.regions[:1] == before.regions
    predicted = record.regions[1:]
    assert [(one.concept, one.box_xyxy, round(one.score, 2)) for one in predicted] == [
        (f"{EFFUSION}@left", (10, 10, 40, 50), 0.8),
        (PNEUMO, (0, 0, 80, 20), 0.7),
        (f"{EFFUSION}@left", (60, 10, 70, 50), 0.51),
    ]
    assert {one.provenance for one in predicted} == {"predicted"}
    assert predicted[0].attributes == {"phrase": "left pleural effusion", "checkpoint": "c0ffee", "presence": 0.9}
    ids = [one.id for one in record.regions]
    assert len(set(ids)) == 4
    spans = {record.texts[0].text[span.start : span.end]: span.regions for span in record.texts[0].spans}
    assert spans == {"Left pleural effusion": (ids[1], ids[3]), "Pneumothorax": (ids[2],)}
    counts = {"images": 1, "asked": 3, "kept": 2, "boxes": 3}
    assert {name: found[name] for name in counts} == counts
    assert found["modalities"] == {"xray": counts}
    assert [problem for problem in validate(tmp_path / "new") if problem.level == "error"] == []
    assert replace(record, regions=before.regions, texts=before.texts) == before


def test_spans_that_are_there_stay_and_no_other_lies_over_them(tmp_path):
    text = "Pneumothorax near the heart"
    mine = region(HEART, id=f"{1:016x}-000")
    texts = (Text(text, "report", spans=(Span(0, 12, (mine.id,)),)),)
    old = dataset_of(tmp_path / "old", picture(1, texts, [mine]))
    pseudo_label(Scripted(SCRIPT), old, tmp_path / "new", Lesson("x"))
    record = next(store.open(tmp_path / "new").records())
    assert len(record.regions) == 2
    assert record.texts == next(old.records()).texts


def test_of_two_sides_or_a_wider_name_at_one_place_the_surer_stays(tmp_path):
    box = (10, 10, 40, 50)
    script = {
        "left pleural effusion": (0.9, [(box, 0.7)]), "right pleural effusion": (0.9, [(box, 0.8)]),
        "lung nodule": (0.9, [(box, 0.9)]), "nodule": (0.9, [((11, 10, 40, 50), 0.6), ((60, 40, 70, 50), 0.6)]),
    }  # fmt: skip
    old = dataset_of(tmp_path / "old", picture(1, "Left pleural effusion. Right pleural effusion. Lung nodule. Nodule."))
    pseudo_label(Scripted(script), old, tmp_path / "new", Lesson("x"))
    kept = [(one.concept, round(one.score, 1)) for one in next(store.open(tmp_path / "new").records()).regions]
    assert kept == [(NODULE, 0.9), (f"{EFFUSION}@right", 0.8), ("systemic.nodule", 0.6)]


def test_overlap_by_hand():
    assert iou((0, 0, 4, 4), (2, 0, 6, 4)) == 8 / 24
    assert iou((0, 0, 1, 1), (2, 2, 3, 3)) == 0


# ---- the new dataset


def many(first, count, **more):
    return [picture(number, TEXT, **more) for number in range(first, first + count)]


def test_only_the_split_is_asked_and_all_images_are_copied(tmp_path):
    old = dataset_of(tmp_path / "old", *many(0, 11), *many(11, 2, split="val"), picture(13))
    teacher = Scripted(SCRIPT)
    steps = []
    found = pseudo_label(teacher, old, tmp_path / "new", Lesson("x"), progress=lambda done, total: steps.append((done, total)))
    new = store.open(tmp_path / "new")
    assert len(teacher.asked) == found["images"] == 11
    assert steps == [(number, 14) for number in range(1, 15)]
    assert new.ids() == old.ids()
    assert all(np.array_equal(new.pixels(one), old.pixels(one)) for one in old.ids())
    assert all(not record.regions for record in new.records("val"))
    assert all(record.regions for record in new.records("train") if record.texts)
    entry = new.manifest["parts"]["films-0"]
    assert {name: entry[name] for name in INFO} == INFO
    every = pseudo_label(Scripted(SCRIPT), old, tmp_path / "all", Lesson("x", split="all"))
    assert every["images"] == 13


def test_a_stopped_run_goes_on_after_the_last_whole_part(tmp_path):
    dataset_of(tmp_path / "old", *many(0, 3))
    volume = VolumeRecord("f" * 16, "xray", Origin("films", "a/1.nii.gz", "c1"), "MIT", (4, 30, 31))
    write_part(tmp_path / "old", "films-1", many(3, 4), [volume], (), INFO)
    old = store.open(tmp_path / "old")
    whole = pseudo_label(Scripted(SCRIPT), old, tmp_path / "whole", Lesson("x"))

    class Stopped(Scripted):
        def answer(self, images, phrases, modalities):
            if len(self.asked) == self.most:
                raise KeyboardInterrupt
            return super().answer(images, phrases, modalities)

    for most in (0, 3):  # in the first part, and in the second
        stopped = Stopped(SCRIPT)
        stopped.most = most
        with pytest.raises(KeyboardInterrupt):
            pseudo_label(stopped, old, tmp_path / "new", Lesson("x"))
    assert set(store.open(tmp_path / "new").manifest["parts"]) == {"films-0"}
    teacher = Scripted(SCRIPT)
    again = pseudo_label(teacher, old, tmp_path / "new", Lesson("x"))
    assert len(teacher.asked) == 4  # the first part is not asked again
    assert {**again, "out": ""} == {**whole, "out": ""}
    assert list(store.open(tmp_path / "new").records()) == list(store.open(tmp_path / "whole").records())
    assert list(store.open(tmp_path / "new").volume_records()) == [volume]
    json.dumps(again)


def test_another_lesson_is_not_mixed_in_unless_begun_anew(tmp_path):
    old = dataset_of(tmp_path / "old", *many(0, 2))
    pseudo_label(Scripted(SCRIPT), old, tmp_path / "new", Lesson("x"))
    with pytest.raises(DatasetError, match=r"threshold 0.5.* now is asked for .*threshold 0.7"):
        pseudo_label(Scripted(SCRIPT), old, tmp_path / "new", Lesson("x", threshold=0.7))
    found = pseudo_label(Scripted(SCRIPT), old, tmp_path / "new", Lesson("x", threshold=0.7), overwrite=True)
    assert found["boxes"] == 2  # only that of 0.8 in each image; 0.7 is not above it


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_truth_and_what_is_no_pseudo_label_is_never_written_to(tmp_path, overwrite):
    old = dataset_of(tmp_path / "old", *many(0, 1))
    other = dataset_of(tmp_path / "other", *many(1, 1))
    before = sorted(path.name for path in (tmp_path / "old").rglob("*"))
    with pytest.raises(DatasetError, match="the truth is not written to"):
        pseudo_label(Scripted(SCRIPT), old, tmp_path / "old", Lesson("x"), overwrite=overwrite)
    with pytest.raises(DatasetError, match="'films-0', which is no pseudo-labels"):
        pseudo_label(Scripted(SCRIPT), other, tmp_path / "old", Lesson("x"), overwrite=overwrite)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "notes.txt").write_text("mine")
    with pytest.raises(DatasetError, match="files and no dataset"):
        pseudo_label(Scripted(SCRIPT), old, tmp_path / "files", Lesson("x"), overwrite=overwrite)
    assert (tmp_path / "files" / "notes.txt").read_text() == "mine"
    assert sorted(path.name for path in (tmp_path / "old").rglob("*")) == before


@pytest.mark.parametrize(("choice", "message"), [({"threshold": 1.0}, "threshold 1.0"), ({"split": "tests"}, "split 'tests'")])
def test_a_bad_lesson_is_one_sentence(choice, message):
    with pytest.raises(InputError, match=message):
        Lesson("x", **choice)
