import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from medglip.evaluate.boxes import average_precision, best_score_threshold, box_iou, match


def random_case(seed):
    """Images with true boxes, and detections that are jittered copies or noise."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(12):
        count = int(rng.integers(0, 6))
        corner = rng.uniform(0, 150, (count, 2))
        true = np.hstack([corner, corner + rng.uniform(5, 60, (count, 2))])
        copies = np.repeat(true, 2, axis=0) + rng.normal(0, 4, (2 * count, 4))
        noise = rng.uniform(0, 150, (3, 2))
        boxes = np.vstack([copies, np.hstack([noise, noise + rng.uniform(5, 60, (3, 2))])])
        boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
        scores = rng.random(len(boxes))
        order = np.argsort(-scores)
        images.append((true, boxes[order], scores[order]))
    return images


def coco_ap(images):
    truth = {"images": [{"id": i} for i in range(len(images))], "categories": [{"id": 1}], "annotations": []}
    found = []
    for number, (true, boxes, scores) in enumerate(images):
        for x0, y0, x1, y1 in true:
            box, number_of_box = [x0, y0, x1 - x0, y1 - y0], len(truth["annotations"]) + 1
            truth["annotations"].append(
                {
                    "id": number_of_box,
                    "image_id": number,
                    "category_id": 1,
                    "iscrowd": 0,
                    "bbox": box,
                    "area": box[2] * box[3],
                }
            )
        for (x0, y0, x1, y1), score in zip(boxes, scores, strict=True):
            found.append({"image_id": number, "category_id": 1, "bbox": [x0, y0, x1 - x0, y1 - y0], "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(found), "bbox")
        judge.evaluate()
        judge.accumulate()
    return judge.eval["precision"][:, :, 0, 0, -1].mean(axis=1)


@pytest.mark.parametrize("seed", range(6))
def test_average_precision_equals_cocos(seed):
    images = random_case(seed)
    ours = average_precision([scores for _, _, scores in images], [box_iou(boxes, true) for true, boxes, _ in images])
    assert np.allclose(ours, coco_ap(images), atol=1e-9)


def test_perfect_boxes_have_precision_1_and_none_have_0():
    true = np.array([[0.0, 0, 10, 10], [20, 20, 40, 40]])
    assert average_precision([np.array([0.9, 0.8])], [box_iou(true, true)]).tolist() == [1.0] * 10
    assert average_precision([np.zeros(0)], [np.zeros((0, 2))]).tolist() == [0.0] * 10


def test_without_true_boxes_it_is_undefined():
    assert np.isnan(average_precision([np.array([0.5])], [np.zeros((1, 0))])).all()


def test_a_true_box_is_taken_once():
    true = np.array([[0.0, 0, 10, 10]])
    assert match(box_iou(np.vstack([true, true]), true), 0.5).tolist() == [True, False]


def test_score_threshold_lies_between_right_and_wrong():
    assert best_score_threshold(np.array([0.9, 0.2, 0.8]), np.array([True, False, True]), 2) == 0.5
    assert best_score_threshold(np.array([0.9]), np.array([False]), 2) == 0.5
