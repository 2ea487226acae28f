"""What the figures are called and what they mean, one line each. Knows names only; nothing is measured here."""

from typing import NamedTuple


class Definition(NamedTuple):
    """A figure for a reader.

    Attributes:
        title: Short, for a column.
        meaning: One line.
        better: ``higher`` or ``lower``.
    """

    title: str
    meaning: str
    better: str = "higher"


# Those with intervals, in the order of a table.
HEADLINE: dict[str, Definition] = {
    "ap": Definition("AP", "average precision of a label over IoU 0.50 to 0.95, as COCO counts it"),
    "ap50": Definition("AP50", "average precision at IoU 0.5"),
    "ap75": Definition("AP75", "average precision at IoU 0.75"),
    "ar": Definition("AR", "share of the true boxes that 100 boxes reach, mean over IoU 0.50 to 0.95"),
    "miou": Definition("mIoU", "IoU of the best box of a phrase that is there; 0 where it has no box"),
    "acc50": Definition("Acc@0.5", "the best box of a phrase that is there has IoU 0.5 or more with one of its regions"),
    "acc50_micro": Definition("Acc@0.5, micro", "the same, mean over questions and not over labels"),
    "r1": Definition("R@1", "the first box of a phrase that is there has IoU 0.5 or more: Acc@0.5"),
    "r5": Definition("R@5", "one of the first five boxes of a phrase that is there has IoU 0.5 or more"),
    "r10": Definition("R@10", "one of the first ten boxes of a phrase that is there has IoU 0.5 or more"),
    "found": Definition("Found", "the best box has IoU 0.5 or more with any marked region, whatever its name"),
    "recall01": Definition("Hit@0.1", "the best box of a phrase that is there has IoU 0.1 or more"),
    "centre": Definition("Pointing", "the centre of the best box lies in one of the true boxes"),
    "absence_auroc": Definition("Absence AUROC", "within a label, presence of images that show it against images that do not"),
    "false_positives_per_image": Definition("FP / image", "boxes shown that take no true box at IoU 0.5", "lower"),
}
# Figures of a narrow table.
SHORT = ("ap", "ap50", "acc50", "miou", "found", "absence_auroc")


def definition(name: str) -> Definition:
    """Of a figure; one that has none here is called by its name.

    >>> definition("ap50").title, definition("no_such_figure").title
    ('AP50', 'no such figure')
    """
    return HEADLINE.get(name) or Definition(name.replace("_", " "), "")


# Sections of ``figures.json`` with figures of one kind, and what each figure is; counts are without a meaning.
SPECIAL: dict[str, tuple[str, dict[str, str]]] = {
    "absence": ("Absence", {
        "specificity_at_sensitivity_95": "absent phrases rejected, as a share, where 95 % of the shown ones are kept",
        "sensitivity_at_specificity_95": "shown phrases kept, as a share, where 95 % of the absent ones are rejected",
        "absent_rejected": "share of absent phrases whose presence is below the checkpoint's threshold",
        "shown_rejected": "share of shown phrases whose presence is below it",
        "false_boxes_per_absent_phrase": "boxes above both thresholds of an absent phrase",
        "absent_with_box": "share of absent phrases with such a box",
        "false_boxes_per_image": "such boxes of all absent phrases of an image; grows with the phrases asked",
    }),
    "froc": ("Findings: FROC", {
        "cpm_iou10": "mean sensitivity at 1/8 to 8 false positives an image; a hit is IoU 0.1",
        "froc_iou10_at_1": "sensitivity at one false positive an image; a hit is IoU 0.1",
        "cpm_iou50": "the mean with IoU 0.5",
        "froc_iou50_at_1": "at one false positive with IoU 0.5",
        "cpm_centre": "the mean where a hit is a centre inside the true box",
        "froc_centre_at_1": "at one false positive with that rule",
    }),
    "pointing": ("Pointing", {
        "pointing_box": "the centre of the best box lies in a true box",
        "pointing_box_random": "the same of a point anywhere in the image",
        "pointing_mask": "the centre of the best box lies in a true mask",
        "pointing_mask_random": "the same of a point anywhere in the image",
        "recall_iou10": "the best box has IoU 0.1 or more",
    }),
    "masks": ("Masks", {
        "mask_iou": "overlap of the best box's mask with the true masks; 0 where there is none",
        "dice": "Dice of the same",
        "dice_all": "Dice of all found masks with all true ones",
        "hd95_mm": "95 % Hausdorff distance in mm, of images with a spacing",
        "hd95_px": "the same in pixels, of images without",
        "mask_missed": "share of shown phrases without a mask",
        "absent_with_mask": "share of absent phrases that were given a mask",
    }),
    "calibration": ("Calibration", {
        "presence_ece": "distance of stated presence and frequency, 15 bins of equal width",
        "presence_ece_mass": "the same, bins of equal mass",
        "presence_brier": "mean squared distance of presence and truth",
        "presence_ece_tempered": "calibration error after temperatures that other patients taught",
        "presence_ece_mass_tempered": "the same, bins of equal mass",
        "presence_brier_tempered": "Brier score after them",
        "presence_ece_by_label": "calibration error within labels with enough questions",
        "presence_ece_by_label_tempered": "the same after temperatures",
        "box_ece": "distance of box score and share of right boxes at IoU 0.5",
        "box_ece_mass": "the same, bins of equal mass",
        "box_brier": "mean squared distance of box score and right or wrong",
    }),
    "laterality": ("Sides", {
        "laterality_accuracy": "both sides marked: own side, of boxes that lie on either",
        "laterality_own": "both sides marked: the best box lies on the side asked for",
        "laterality_other": "both sides marked: it lies on the other side",
        "laterality_neither": "both sides marked: it lies on neither",
        "laterality_alone_own": "only the side asked for is marked: the best box lies on it",
        "laterality_absent_rejected": "only the other side is marked: no box is shown",
        "laterality_absent_other": "only the other side is marked: the best box is shown there",
        "swap_consistent": "asked alone and with the side swapped: the answer follows",
        "swap_stuck": "asked with the side swapped: the box stays",
    }),
    "hierarchy": ("Hierarchy", {
        "hierarchy_kinds": "a narrower phrase is not more present than the wider one that it is a kind of",
        "hierarchy_parts": "a part or finding is not more present than the whole",
        "hierarchy_excess": "by how much the narrower one is more present, mean over both",
        "hierarchy_contradicted": "said to be there while what it belongs to is said to be absent",
        "hierarchy_inside": "the best box of a part lies in a box of the whole, by 90 % of its area",
    }),
}  # fmt: skip
