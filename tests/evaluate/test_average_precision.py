"""Average precision and recall are COCO's, checked against pycocotools itself."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from medglip.evaluate.boxes import (
    Found,
    average_precision,
    best_score_threshold,
    box_iou,
    coco_figures,
    match,
    matches,
    precision_at_recalls,
)

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def random_found(rng, whole):
    """One label in one image: detections that are jittered copies or noise; ``whole`` for numbers that tie."""
    count = int(rng.integers(0, 7)) if rng.random() < 0.8 else 0
    corner = rng.uniform(0, 150, (count, 2))
    true = np.hstack([corner, corner + np.exp(rng.uniform(1.5, 5.3, (count, 2)))])
    copies = np.repeat(true, int(rng.integers(0, 4)), axis=0)
    copies = copies + rng.normal(0, 4, copies.shape)
    noise = rng.uniform(0, 150, (int(rng.integers(0, 20)) if rng.random() < 0.9 else 130, 2))
    boxes = np.vstack([copies, np.hstack([noise, noise + np.exp(rng.uniform(1.5, 5.3, noise.shape))])])
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    scores = rng.random(len(boxes))
    if whole:
        boxes, true = (boxes / 16).round() * 16, (true / 16).round() * 16
        boxes[:, 2:], true[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 16), np.maximum(true[:, 2:], true[:, :2] + 16)
        scores = (scores * 8).round() / 8
    order = np.argsort(-scores, kind="mergesort")
    return Found(boxes[order], scores[order], true)


def coco_says(labels):
    """The same twelve figures by pycocotools."""
    count = max(len(images) for images in labels.values())
    truth = {"images": [{"id": i} for i in range(count)], "categories": [{"id": i} for i in range(len(labels))],
             "annotations": []}  # fmt: skip
    found = []
    for category, images in enumerate(labels.values()):
        for number, (boxes, scores, true) in enumerate(images):
            for x0, y0, x1, y1 in true.tolist():
                truth["annotations"].append({
                    "id": len(truth["annotations"]) + 1, "image_id": number, "category_id": category, "iscrowd": 0,
                    "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0)})  # fmt: skip
            for (x0, y0, x1, y1), score in zip(boxes.tolist(), scores.tolist(), strict=True):
                found.append({"image_id": number, "category_id": category, "bbox": [x0, y0, x1 - x0, y1 - y0], "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(found), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return dict(zip(NAMES, judge.stats.tolist(), strict=True))


@pytest.mark.parametrize("whole", [False, True], ids=["any numbers", "ties"])
@pytest.mark.parametrize("seed", range(6))
def test_all_figures_equal_cocos(seed, whole):
    rng = np.random.default_rng((seed, whole))
    labels = {str(label): [random_found(rng, whole) for _ in range(9)] for label in range(4)}
    ours = coco_figures(labels)
    assert tuple(ours) == NAMES
    for name, value in coco_says(labels).items():
        assert ours[name] is not None or value == -1, name
        assert ours[name] is None or abs(ours[name] - value) < 1e-9, name


def test_labels_and_sizes_without_truth_are_left_out():
    rng = np.random.default_rng(0)
    box = np.array([[0.0, 0, 200, 200]])
    labels = {"large": [Found(box, np.array([0.5]), box)], "never": [random_found(rng, False)._replace(truth=np.zeros((0, 4)))]}
    ours = coco_figures(labels)
    assert ours == {name: None if name[-1] in "sm" else 1.0 for name in NAMES}
    assert {name: -1.0 if value is None else value for name, value in ours.items()} == pytest.approx(coco_says(labels))
    assert set(coco_figures({}).values()) == {None}


@pytest.mark.parametrize("seed", range(4))
def test_the_average_precision_of_a_label_is_that_of_all_sizes(seed):
    rng = np.random.default_rng(seed)
    images = [random_found(rng, False) for _ in range(9)]
    images = [image._replace(boxes=image.boxes[:100], scores=image.scores[:100]) for image in images]
    ours = average_precision([image.scores for image in images], [box_iou(image.boxes, image.truth) for image in images])
    figures = coco_figures({"": images})
    assert (ours.mean(), ours[0], ours[5]) == pytest.approx((figures["AP"], figures["AP50"], figures["AP75"]), abs=1e-12)


def test_perfect_boxes_have_precision_1_and_none_have_0():
    true = np.array([[0.0, 0, 10, 10], [20, 20, 40, 40]])
    assert average_precision([np.array([0.9, 0.8])], [box_iou(true, true)]).tolist() == [1.0] * 10
    assert average_precision([np.zeros(0)], [np.zeros((0, 2))]).tolist() == [0.0] * 10


def test_without_true_boxes_it_is_undefined():
    assert np.isnan(average_precision([np.array([0.5])], [np.zeros((1, 0))])).all()


def test_a_true_box_is_taken_once():
    true = np.array([[0.0, 0, 10, 10]])
    assert match(box_iou(np.vstack([true, true]), true), 0.5).tolist() == [True, False]


def test_a_true_box_that_is_ignored_is_taken_last():
    iou = np.array([[0.9, 0.6], [0.9, 0.6]])
    assert matches(iou, np.array([0.5, 0.7]), np.array([True, False])).tolist() == [[1, 0], [0, -1]]


def test_a_multiplicity_counts_as_so_many_boxes():
    right, counted = np.array([[2.0, 0, 1]]), np.array([[2.0, 3, 1]])
    apart = precision_at_recalls(np.array([[1.0, 1, 0, 0, 0, 1]]), np.ones((1, 6)), 3)
    assert precision_at_recalls(right, counted, 3).tolist() == apart.tolist()


def test_score_threshold_lies_between_right_and_wrong():
    assert best_score_threshold(np.array([0.9, 0.2, 0.8]), np.array([True, False, True]), 2) == 0.5
    assert best_score_threshold(np.array([0.9]), np.array([False]), 2) == 0.5
