"""Views of a dataset: licences that pass, labels that are held out."""

from dataclasses import replace

import numpy as np
import pytest

from medglip.curate.views import HeldOut, View, redistributable
from medglip.records.labels import label_tree
from medglip.records.record import ImageRecord, Origin, Phrase, Region, Span, Text
from medglip.store.matrix import matrix_of

TREE = label_tree()
LIVER, TUMOR, PNEUMOTHORAX = "abdomen.liver", "abdomen.liver.tumor", "thorax.pleura.pneumothorax"
HYDRO, LUNG, LESION = "thorax.pleura.hydropneumothorax", "thorax.lung", "systemic.lesion"


def region(label, number, **more):
    return Region(label, (number, 0, number + 5, 5), id=f"r{number}", phrases=(Phrase(TREE.name(label)),), **more)


def record(number, *regions, source="made_up", licence="MIT", split="train", **more):
    return ImageRecord(f"{number:016x}", "0" * 64, 9, 9, 1, 8, "ct", Origin(source, f"{number}.png", str(number)), licence,
                       regions=regions, split=split, **more)  # fmt: skip


class Memory:
    """A dataset in memory."""

    def __init__(self, *kept, exhaustive=()):
        self.kept = kept
        facts = {"exhaustive": list(exhaustive), "field": ["thorax", "abdomen"]}
        self.manifest = {"parts": {"all": {"source": "made_up", "matrix": {"ct": [facts]}}}}

    def records(self, split=None):
        return (one for one in self.kept if split in (None, one.split))

    def display(self, image):
        return np.full((9, 9), int(image, 16), np.uint8)

    pixels = display


def test_only_images_whose_own_licence_passes_are_seen():
    licences = ("CC BY 4.0", "CC BY-NC-SA", "MIT", "", "CC BY-SA 4.0")
    data = Memory(*(record(n, licence=text, split="val" if n == 2 else "train") for n, text in enumerate(licences)))
    view = redistributable(data)
    assert [one.licence for one in view.records()] == ["CC BY 4.0", "MIT"]
    assert view.ids("train") == [f"{0:016x}"]
    assert view.ids("val") == [f"{2:016x}"]
    assert len(view) == 2
    assert view.manifest is data.manifest
    assert view.display(f"{2:016x}")[0, 0] == 2
    assert len(redistributable(data, ["another"])) == 0


def test_a_view_may_move_images_to_another_split():
    data = Memory(record(1, split="train"), record(2, split="test"))
    view = View(data, lambda one: replace(one, split="test"), moves=True)
    assert view.ids("test") == [f"{1:016x}", f"{2:016x}"]
    assert view.ids("train") == []


def test_a_held_out_label_and_its_kinds_are_gone_from_all_that_an_image_says():
    held = HeldOut([PNEUMOTHORAX])
    assert held.kinds == {PNEUMOTHORAX, HYDRO}
    lung = replace(region(LUNG, 1, parents=("r9",)), phrases=(Phrase("lung"), Phrase("lung with pneumothorax", "relation")))
    before = record(
        1, lung, region(PNEUMOTHORAX, 2), region(HYDRO, 3, laterality="left"),
        absent=(f"{PNEUMOTHORAX}@left", LIVER), exhaustive=(LUNG, HYDRO, "thorax.pleura.effusion"),
        texts=(
            Text("Lung clear.", "report", spans=(Span(0, 4, ("r1",)),)), Text("Bright rim.", spans=(Span(0, 10, ("r2",)),)),
            Text("No PNEUMOTHORAX."), Text("What is it?", "question", answer="a hydropneumothorax"),
        ),
    )  # fmt: skip
    after = held.without(before)
    assert [one.concept for one in after.regions] == [LUNG]
    assert [phrase.text for phrase in after.regions[0].phrases] == ["lung"]
    assert after.regions[0].parents == ()
    assert after.absent == (LIVER,)
    assert after.exhaustive == (LUNG, "thorax.pleura.effusion")
    assert [text.text for text in after.texts] == ["Lung clear."]
    assert (after.id, after.split, after.licence) == (before.id, before.split, before.licence)


def test_a_wider_concept_is_no_longer_marked_wherever_it_is():
    """A tumor that is not shown any more must not make the image one without lesions."""
    held = HeldOut([TUMOR])
    wide = next(kind for kind in TREE.ancestors(TUMOR) if TREE.covers(kind, TUMOR))
    shown, clear = record(1, region(TUMOR, 1), exhaustive=(wide, LIVER)), record(2, exhaustive=(wide, LIVER))
    assert held.without(shown).exhaustive == (LIVER,)
    assert held.without(clear).exhaustive == (wide, LIVER)


def test_only_what_is_held_out_is_left_for_the_zero_shot_test():
    held = HeldOut([PNEUMOTHORAX])
    both = record(1, region(LUNG, 1), region(PNEUMOTHORAX, 2, parents=("r1",)), absent=(HYDRO, LIVER), exhaustive=(LUNG, HYDRO),
                  texts=(Text("Lung."),))  # fmt: skip
    seen = held.only(both)
    assert [one.concept for one in seen.regions] == [PNEUMOTHORAX]
    assert (seen.absent, seen.exhaustive, seen.texts) == ((HYDRO,), (HYDRO,), ())


def test_the_matrix_of_a_training_view_does_not_call_them_searched_for():
    data = Memory(record(1), exhaustive=[LUNG, PNEUMOTHORAX])
    assert matrix_of(data).state("made_up", "ct", PNEUMOTHORAX) == "exhaustive"
    view = View(data, lambda one: one, HeldOut([PNEUMOTHORAX]).manifest_without(data.manifest))
    assert matrix_of(view).state("made_up", "ct", PNEUMOTHORAX) == "possible"
    assert matrix_of(view).state("made_up", "ct", LUNG) == "exhaustive"
    assert matrix_of(data).state("made_up", "ct", PNEUMOTHORAX) == "exhaustive"  # the dataset's own is untouched


@pytest.mark.parametrize(
    ("text", "says"),
    [("Left atrium is wide", True), ("the LA", True), ("la masa", False), ("relapse", False), ("left atrial", False)],
)
def test_abbreviations_count_in_capitals_only(text, says):
    assert HeldOut(["thorax.heart.left_atrium"]).says(text) is says


def test_nothing_held_out_changes_nothing():
    held = HeldOut([])
    one = record(1, region(LUNG, 1), texts=(Text("pneumothorax"),), exhaustive=(LUNG,))
    assert held.without(one) == one
    assert not held.says("pneumothorax")
