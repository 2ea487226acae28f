from dataclasses import replace

import numpy as np
import pytest
import torch
from scenes import CYST, KIDNEY, LIVER, SPLEEN, STONE, TREE, TUMOR, Scenes, random_record, record, region

from medglip.errors import ModelError
from medglip.model.prompt import Span
from medglip.model.view import View, fitted
from medglip.records import record as records
from medglip.records.definitions import lineage
from medglip.records.masks import rle_of_crop, rle_of_mask
from medglip.records.record import Origin, Phrase, Text
from medglip.store.matrix import Matrix
from medglip.train.asking import LONGEST, Asking, Recipe, excerpt, known_of, merge, mirrored
from medglip.train.augment import jittered
from medglip.train.vocabulary import Vocabulary, opposite, sides_said

LEFT, RIGHT = f"{KIDNEY}@left", f"{KIDNEY}@right"
BRAIN = "head_neck.brain"
MATRIX = Matrix({"made_up": {"ultrasound": [{"exhaustive": [LEFT, RIGHT], "field": ["abdomen", "thorax"]}]}})
PLAIN = {"fill": 1.0, "lineage": 0.0, "captions": 0.0}


def asking(kept, **settings):
    seen, searched = {}, set()
    for one in kept:
        for concept in {r.concept for r in one.regions}:
            seen.setdefault(concept, set()).add(one.modality)
        searched.update(one.absent, one.exhaustive)
    return Asking(Vocabulary(TREE, seen, searched), Recipe.of({"phrases": 16, "far_negatives": 3, "specific": 0.0, **settings}))


def asked_of(made, one, view=None, seed=0):
    return made(known_of(one, MATRIX, made.recipe.masks), view or fitted(96, 96, 128), np.random.default_rng(seed))


def denied(made, one, seed=0):
    _, target = asked_of(made, one, seed=seed)
    return {made.words.concepts[concept] for concept in target.concepts[target.presence == 0].tolist()}


def test_what_is_known_absent_is_what_the_matrix_says():
    rng = np.random.default_rng(0)
    kept = [random_record(rng) for _ in range(60)] + [record([region(BRAIN)], modality="mr")]
    made, told = asking(kept), 0
    for one in kept[:-1]:
        near, far = made.absent(known_of(one, MATRIX))
        for concept, said in zip(made.words.concepts, near | far, strict=True):
            label = concept.partition("@")[0]
            if "@" in concept or not TREE[label].laterality or f"{label}@left" in made.words.number:
                assert said == MATRIX.is_negative(one, concept), concept
            told += said
    assert 0 < told < 60 * len(made.words.concepts)


@pytest.mark.parametrize("is_mirrored", [False, True])
def test_no_phrase_of_unknown_truth_is_denied_and_what_is_there_is_pointed_at(is_mirrored):
    rng = np.random.default_rng(1)
    kept = [random_record(rng) for _ in range(80)] + [record([region(BRAIN)], modality="mr")]
    made = asking(kept, specific=0.5, lineage=0.3, definitions=0.3)
    seen = {0: 0, 1: 0}
    for number, one in enumerate(kept[:-1]):
        view = replace(jittered(96, 96, 128, rng, may_mirror=False), mirrored=is_mirrored)
        phrases, target = asked_of(made, one, view, number)
        truth = one
        if is_mirrored:
            turned = [
                replace(r, laterality={"left": "right", "right": "left"}.get(r.laterality, r.laterality)) for r in one.regions
            ]
            truth = replace(one, regions=tuple(turned), absent=tuple(map(opposite, one.absent)),
                            exhaustive=tuple(map(opposite, one.exhaustive)))  # fmt: skip
        assert len(set(phrases)) == len(phrases) == len(target.presence)
        for column, (text, number_of) in enumerate(zip(phrases, target.concepts.tolist(), strict=True)):
            presence = int(target.presence[column])
            seen[presence] += 1
            assert bool(target.names[:, column].any()) == bool(presence)
            if number_of < 0:
                assert presence == 1
                assert not (is_mirrored and sides_said(text))
                continue
            concept = made.words.concepts[number_of]
            if presence == 0:
                assert MATRIX.is_negative(truth, concept), concept
            else:
                assert any(TREE.covers(concept, r.concept) for r in truth.regions)
            if is_mirrored:
                assert sides_said(text) <= {concept.partition("@")[2]}
    assert min(seen.values()) > 50


def test_a_wider_phrase_names_all_that_it_covers():
    kept = [record([region(KIDNEY, "left", (5, 5, 30, 30)), region(KIDNEY, "right", (60, 5, 90, 30))])]
    made, widths = asking(kept, lineage=0.0), set()
    for seed in range(30):
        _, target = asked_of(made, kept[0], seed=seed)
        for concept, named in zip(target.concepts.tolist(), target.names.sum(0).tolist(), strict=True):
            assert named == (1 if "@" in made.words.concepts[concept] else 2)
            widths.add(named)
    assert widths == {1, 2}


@pytest.mark.parametrize("searched", [(), ("systemic.lesion",)])
def test_a_wider_kind_is_asked_only_where_all_of_it_is_marked(searched):
    one = record([region(TUMOR)], exhaustive=searched)
    made, asked = asking([one, record(absent=["systemic.lesion"])]), set()
    for seed in range(60):
        _, target = asked_of(made, one, seed=seed)
        asked |= {made.words.concepts[c] for c in target.concepts[target.presence == 1].tolist()}
    kinds = {kind for kind in TREE.ancestors(TUMOR) if TREE.covers(kind, TUMOR)}
    assert "systemic.lesion" in kinds
    assert asked == {TUMOR, *(kinds if searched else ())}


def test_the_other_side_is_asked_where_it_is_known_to_be_empty():
    one_sided = record([region(KIDNEY, "left")], exhaustive=(LEFT, RIGHT))
    others = (CYST, STONE, SPLEEN, LIVER)
    made = asking([one_sided, record(absent=others)], **PLAIN, negatives=1, sides=1.0, hard=0.0, far_negatives=0)
    assert denied(made, replace(one_sided, absent=others)) == {RIGHT}
    unknown = replace(one_sided, exhaustive=(), absent=others)  # nobody has looked for the right one
    assert RIGHT not in denied(made, unknown)
    unsided = replace(one_sided, regions=(region(KIDNEY, "left"), region(KIDNEY, None, (50, 50, 90, 90))))
    assert RIGHT not in denied(made, unsided)  # the other kidney may be the right one


def test_hard_negatives_are_of_the_same_organ_before_the_same_region():
    absent = (CYST, STONE, SPLEEN, LIVER, "thorax.lung", "thorax.heart", "thorax.airway")
    one = record([region(TUMOR)], absent)
    made = asking([one], **PLAIN, sides=0.0, hard=1.0, far_negatives=0, negatives=2)
    for seed in range(5):
        assert denied(made, one, seed) == {CYST, STONE}
    made = asking([one], **PLAIN, sides=0.0, hard=1.0, far_negatives=0, negatives=4)
    for seed in range(5):
        assert denied(made, one, seed) == {CYST, STONE, SPLEEN, LIVER}
    made = asking([one], **PLAIN, sides=0.0, hard=0.0, far_negatives=0, negatives=2)
    assert len(set().union(*(denied(made, one, seed) for seed in range(40)))) == len(absent)


def test_words_that_a_region_has_are_never_denied():
    words = (Phrase("cyst in the left kidney", "relation"),)
    one = record([region(CYST, phrases=words)], (f"{CYST}@left",))  # the source has drawn it without its side
    made, asked = asking([one], **PLAIN), set()
    for seed in range(60):
        phrases, target = asked_of(made, one, seed=seed)
        asked |= {text for text, presence in zip(phrases, target.presence.tolist(), strict=True) if not presence}
    assert "left kidney cyst" in asked
    assert "cyst in the left kidney" in made.words.wordings(f"{CYST}@left")
    assert "cyst in the left kidney" not in asked


def test_what_a_report_denies_is_absent_unless_it_or_a_region_says_otherwise():
    report = "No kidney cyst. The liver is normal without liver tumor. No kidney tumor, but a kidney tumor on the left."
    told = (Text(report, "report"), Text("Is there no kidney stone?", "question", answer="yes"))
    assert known_of(record(texts=told), MATRIX).absent == (CYST, "abdomen.liver.tumor")
    assert known_of(record([region(CYST)], texts=told), MATRIX).absent == ("abdomen.liver.tumor",)
    assert known_of(record(absent=[STONE], texts=told), MATRIX).absent == (STONE, CYST, "abdomen.liver.tumor")
    made = asking([record(absent=[CYST, "abdomen.liver.tumor"])])
    assert {CYST, "abdomen.liver.tumor"} <= denied(made, record(texts=told))


def test_a_predicted_box_names_what_it_names_and_denies_no_other_phrase_that_is_there():
    own, guessed = region(LIVER, box=(50, 50, 90, 90)), region(STONE, box=(10, 10, 40, 40), provenance="predicted", score=0.8)
    one = record([own, guessed])
    made = asking([one])
    _, target = asked_of(made, one)
    liver, stone = (target.concepts.tolist().index(made.words.number[name]) for name in (LIVER, STONE))
    assert target.names[:, stone].sum() == 1
    assert target.presence[stone] == 1
    assert len(target.unsure_boxes) == 1
    assert target.unsure_names[0, liver]
    assert not target.unsure_names[0, stone]
    everybody = record([own, replace(guessed, provenance="human", score=None)])
    assert len(asked_of(made, everybody)[1].unsure_boxes) == 0


def test_far_negatives_are_what_no_image_of_the_source_can_show():
    mr = [record([region(label)], modality="mr") for label in (BRAIN, "head_neck.eye", "head_neck.brain.ventricle")]
    absent = (CYST, STONE, SPLEEN, LIVER, "thorax.lung", "thorax.heart")
    one = record([region(KIDNEY, "left")], absent)
    made = asking([one, *mr], **PLAIN, far_negatives=2)
    found = denied(made, one) - set(absent) - set(map(opposite, absent))
    assert len(found) == 2
    assert {"head_neck"} == {concept.partition(".")[0] for concept in found}
    unheard_of = replace(one, origin=Origin("unheard_of", "1.png", "1"))
    assert not any(concept.startswith("head_neck") for concept in denied(made, unheard_of))


def test_all_that_is_there_is_kept_and_the_rest_filled_or_not():
    absent = tuple(f"{label}" for label in (CYST, STONE, SPLEEN, LIVER, "thorax.lung", "thorax.heart"))
    one = record([region(KIDNEY, "left"), region(TUMOR, None, (50, 50, 80, 80))], absent)
    counts = {0.0: [], 1.0: []}
    for fill, found in counts.items():
        made = asking([one], fill=fill, far_negatives=0, negatives=5)
        for seed in range(80):
            _, target = asked_of(made, one, seed=seed)
            assert (target.presence == 1).sum() == 2
            found.append(int((target.presence == 0).sum()))
    assert set(counts[1.0]) == {5}
    assert set(counts[0.0]) == {1, 2, 3, 4, 5}
    made = asking([one], fill=1.0, phrases=6)
    assert len(asked_of(made, one)[0]) == 6


def test_words_of_a_caption_are_asked_inside_it():
    data = Scenes(12, rich=True)
    made = asking(data.kept, captions=1.0)
    seen = 0
    for one in data.kept:
        phrases, target = asked_of(made, one)
        spans = [(place, phrase) for place, phrase in enumerate(phrases) if isinstance(phrase, Span)]
        assert len(spans) == len(one.regions)
        for place, span in spans:
            number = int(span.text[span.start : span.end].removeprefix("bright place "))
            box = fitted(96, 96, 128).boxes_on_canvas(np.array([one.regions[number].box_xyxy], np.float32))
            assert np.allclose(target.boxes[target.names[:, place]], box)
            assert target.presence[place] == 1
            seen += 1
    assert seen > 12
    assert not any(isinstance(phrase, Span) for phrase in asked_of(asking(data.kept, captions=0.0), data.kept[0])[0])


def test_a_question_and_a_region_off_the_canvas_are_no_captions():
    one = record([region(KIDNEY, id="a"), region(LIVER, None, (60, 60, 90, 90), id="b")])
    text = "the kidney and the liver"
    spans = (records.Span(4, 10, ("a",)), records.Span(19, 24, ("b",)), records.Span(0, 3, ("elsewhere",)))
    made = asking([one], captions=1.0)
    asked = replace(one, texts=(Text(text, "question", spans=spans, answer="yes"),))
    assert not any(isinstance(phrase, Span) for phrase in asked_of(made, asked)[0])
    told = replace(one, texts=(Text(text, "report", spans=spans),))
    half = View(128, (128 / 50, 128 / 50), (0.0, 0.0))  # the liver is outside
    found = [phrase for phrase in asked_of(made, told, half)[0] if isinstance(phrase, Span)]
    assert found == [Span(text, 4, 10)]


def test_an_excerpt_holds_the_span_and_no_half_word():
    rng = np.random.default_rng(2)
    for _ in range(300):
        words = ["".join(rng.choice(list("abc"), rng.integers(1, 9))) + str(rng.choice(["", "", ".", "\n"])) for _ in range(60)]
        text = " ".join(words)
        chosen = int(rng.integers(60))
        start = len(" ".join(words[:chosen])) + bool(chosen)
        end = start + len(words[chosen].strip(".\n"))
        most = int(rng.integers(20, 200))
        first, last = excerpt(text, start, end, most)
        assert first <= start < end <= last <= first + most
        assert text[first:last] == text[first:last].strip()
        assert set(text[first:last].split()) <= set(text.split())


def test_a_long_report_is_asked_by_a_part_that_fits():
    words = "The left kidney is seen" + " and seen again" * 60
    text = Text(words, "report", spans=(records.Span(4, 15, ("a",)), records.Span(len(words) - 5, len(words), ("a",))))
    one = record([region(KIDNEY, "left", id="a")], texts=(text,))
    made = asking([one], captions=1.0)
    for seed in range(6):
        (span,) = (phrase for phrase in asked_of(made, one, seed=seed)[0] if isinstance(phrase, Span))
        assert len(span.text) <= LONGEST
        assert span.text[span.start : span.end] in ("left kidney", "again")


def test_a_mirrored_picture_swaps_sides_and_says_none_of_them():
    words = (Phrase("cyst in the left kidney", "relation"), Phrase("12 mm cyst", "size"), Phrase("cyst at 3 o'clock", "report"))
    texts = (Text("left kidney", spans=(records.Span(5, 11, ("a",)),)), Text("a kidney", spans=(records.Span(2, 8, ("a",)),)))
    one = record([region(KIDNEY, "left", id="a", phrases=words)], (f"{STONE}@right", SPLEEN), (LEFT,), texts)
    turned = mirrored(known_of(one, MATRIX))
    assert turned.concepts == (RIGHT,)
    assert turned.absent == (f"{STONE}@left", SPLEEN)
    assert turned.exhaustive == (RIGHT,)
    assert turned.phrases == (("12 mm cyst",),)
    assert [caption.text for caption in turned.captions] == ["a kidney"]
    assert mirrored(turned).concepts == (LEFT,)


def test_concepts_are_worded_as_the_recipe_says():
    one = record([region(CYST, "left")], (STONE, SPLEEN))
    made = asking([one], lineage=1.0)
    for seed in range(5):
        phrases, target = asked_of(made, one, seed=seed)
        for text, concept in zip(phrases, target.concepts.tolist(), strict=True):
            assert text == lineage(made.words.concepts[concept], TREE)
    made = asking([one], lineage=0.0, definitions=1.0)
    assert all(":" in text for text in asked_of(made, one)[0])
    made = asking([one], lineage=0.0)
    phrases, target = asked_of(made, one)
    for text, concept in zip(phrases, target.concepts.tolist(), strict=True):
        assert text in made.words.wordings(made.words.concepts[concept])


def test_parents_are_the_pairs_that_the_tree_says():
    rng = np.random.default_rng(3)
    kept = [random_record(rng) for _ in range(60)]
    made, pairs = asking(kept, specific=1.0), 0
    for number, one in enumerate(kept):
        _, target = asked_of(made, one, seed=number)
        concepts = [made.words.concepts[c] if c >= 0 else None for c in target.concepts.tolist()]
        wanted = {
            (child, parent) for child, narrow in enumerate(concepts) for parent, wide in enumerate(concepts)
            if narrow and wide and narrow != wide and TREE.covers(wide, narrow)
        }  # fmt: skip
        assert set(map(tuple, target.parents.tolist())) == wanted
        assert target.parents.shape == (len(wanted), 2)
        pairs += len(wanted)
        for child, parent in wanted:  # where the child is, the parent is
            assert target.presence[parent] >= target.presence[child]
    assert pairs > 10


def ellipse(box):
    """A mask that touches the four sides of an integer box in a 96 x 96 image."""
    x0, y0, x1, y1 = box
    y, x = np.mgrid[:96, :96] + 0.5
    return (((x - (x0 + x1) / 2) / (x1 - x0) * 2) ** 2 + ((y - (y0 + y1) / 2) / (y1 - y0) * 2) ** 2) < 1


@pytest.mark.parametrize("seed", range(12))
def test_masks_lie_in_their_boxes_on_the_canvas(seed):
    rng = np.random.default_rng(seed)
    regions = []
    for _ in range(4):
        x0, y0 = (int(v) for v in rng.integers(0, 60, 2))
        mask = ellipse((x0, y0, x0 + int(rng.integers(9, 36)), y0 + int(rng.integers(9, 36))))
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        regions.append(region(LIVER, None, tuple(map(float, box)), mask=rle_of_mask(mask)))
    one = record(regions)
    view = jittered(96, 96, 128, rng, may_mirror=False)
    view = replace(view, mirrored=bool(seed % 2), contrast=1.0, brightness=0.0)
    _, target = asked_of(asking([one], masks=True), one, view, seed)
    assert target.masks.shape == (len(target.boxes), 32, 32)
    assert target.masks.dtype == torch.float32
    assert bool(target.mask_is_known.all())
    for mask, box in zip(target.masks.numpy(), target.boxes.numpy(), strict=True):
        assert mask.min() >= 0
        assert mask.max() <= 1
        rows, columns = np.flatnonzero((mask > 1e-3).any(1)), np.flatnonzero((mask > 1e-3).any(0))
        found = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) * 4
        assert np.abs(found - box).max() <= 5
    canvas = view.draw(np.where(regions[0].mask.decode(), 255, 0).astype(np.uint8))[0] / 255
    box = view.boxes_on_canvas(np.array([regions[0].box_xyxy], np.float32))[0].clip(0, 128)
    at = int(np.abs(target.boxes.numpy() - box).max(axis=1).argmin())
    if np.allclose(target.boxes[at], box):  # it was not cut off; its pixels lie where its mask lies
        assert np.abs(canvas.reshape(32, 4, 32, 4).mean((1, 3)) - target.masks[at].numpy()).mean() < 0.02


def test_masks_of_one_box_are_united_or_unknown():
    left, right = np.zeros((96, 96), bool), np.zeros((96, 96), bool)
    left[12:36, 12:24], right[12:36, 24:36] = True, True
    box = (12.0, 12.0, 36.0, 36.0)
    regions = [region(LIVER, None, box, mask=rle_of_mask(left)), region(SPLEEN, None, box, mask=rle_of_mask(right))]
    view = View(96, (1.0, 1.0), (0.0, 0.0))
    made = asking([record(regions)], masks=True)
    _, target = asked_of(made, record(regions), view)
    assert len(target.boxes) == 1
    assert target.mask_is_known.tolist() == [True]
    wanted = np.zeros((24, 24))
    wanted[3:9, 3:9] = 1
    assert np.array_equal(target.masks[0].numpy(), wanted)
    _, target = asked_of(made, record([regions[0], region(SPLEEN, None, box)]), view)
    assert target.mask_is_known.tolist() == [False]
    _, target = asked_of(made, record([region(SPLEEN, None, box, mask=rle_of_crop(np.ones((6, 3)), (12, 12), (96, 96)))]), view)
    assert target.masks[0, 3:5, 3].tolist() == [0.75, 0.375]  # 3 of 4 columns; of the lower cell 2 of 4 rows


def test_no_masks_are_drawn_unasked():
    one = record([region(LIVER, mask=rle_of_crop(np.ones((30, 30)), (10, 10), (96, 96)))])
    _, target = asked_of(asking([one]), one)
    assert target.masks is None
    assert target.mask_is_known is None
    assert known_of(one, MATRIX).masks == ()


def test_equal_boxes_become_one_with_both_names():
    boxes = np.array([[0, 0, 10, 10], [20, 20, 30, 30], [0, 0, 10, 10.2]], np.float32)
    merged, names, box_of = merge(boxes, np.eye(3, dtype=bool))
    assert len(merged) == 2
    assert names.tolist() == [[True, False, True], [False, True, False]]
    assert box_of.tolist() == [0, 1, 0]


def test_thousands_of_boxes_are_compared_in_parts():
    corner = np.stack(np.divmod(np.arange(300), 20), axis=1).astype(np.float32) * 10
    boxes = np.hstack([corner, corner + 8])
    merged, names, box_of = merge(np.concatenate([boxes, boxes[::-1]]), np.tile(np.eye(300, dtype=bool), (2, 1)))
    assert np.array_equal(merged, boxes)
    assert np.array_equal(names, np.eye(300, dtype=bool) | np.eye(300, dtype=bool)[:, ::-1])
    assert np.array_equal(box_of, [*range(300), *range(299, -1, -1)])


@pytest.mark.parametrize(
    "wrong", [{"hard": 1.5}, {"sides": 0.6, "hard": 0.6}, {"captions": -0.1}, {"phrases": 0}, {"negatives": -1}]
)
def test_a_recipe_that_cannot_be_is_refused(wrong):
    with pytest.raises(ModelError, match="allowed"):
        Recipe.of({"phrases": 16, "far_negatives": 3, "specific": 0.2, **wrong})


def test_an_older_configuration_is_a_recipe():
    recipe = Recipe.of({"phrases": 16, "far_negatives": 3, "specific": 0.2, "seed": 0, "lr": 1e-3})
    assert (recipe.phrases, recipe.negatives, recipe.masks) == (16, 0, False)
