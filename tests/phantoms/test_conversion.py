"""The archive, read back by the converters, is the scenes that were drawn: same pixels, same boxes, same absences."""

import importlib
import re
from collections import Counter

import numpy as np
import pytest

from medglip.curate.grammar import load_source
from medglip.phantoms import Scene, cases
from medglip.records import Picture, VolumeRecord, box_of_mask, concept_of, label_tree

PARTS = {part.name: part for part in load_source("phantom").parts}


def _plane_of(scene: Scene, picture: Picture) -> int | None:
    """Which slice or frame of its scene a picture shows, told by its pixels; None for a scene of one picture."""
    if scene.modality == "ultrasound":
        return picture.record.origin.frame
    if scene.modality not in ("ct", "mr"):
        return None
    values = picture.pixels + picture.record.intensity.intercept
    padded = values == -1024
    off = [np.abs(np.where(padded, 0, values - plane)).max() for plane in scene.values.astype(float)]
    assert min(off) == 0, "no slice of the scene has these pixels the right way round"
    return int(np.argmin(off))


@pytest.mark.parametrize("name", PARTS)
def test_converted_is_drawn(name, archive):
    part, tree = PARTS[name], label_tree()
    converter = importlib.import_module(f"medglip.converters.{part.converter}")
    scenes = {scene.exam.case: scene for scene in cases(part.modality, 5)}
    pictures = 0
    for case in converter.cases(part, archive):
        for item in converter.convert(part, case):
            assert isinstance(item, Picture | VolumeRecord), item
            if isinstance(item, VolumeRecord):
                continue
            record = item.record
            scene = scenes[re.search(r"P\d{4}_E\d(_\d)?", record.origin.file)[0]]
            k = _plane_of(scene, item)
            planes = [(thing, thing.mask if k is None else thing.mask[k]) for thing in scene.things]
            truth = Counter((concept_of(*tree.resolve(t.name)), *box_of_mask(mask)) for t, mask in planes if mask.any())
            assert Counter((region.concept, *region.box_xyxy) for region in record.regions) == truth
            searched = {concept_of(*tree.resolve(wanted)) for wanted in scene.searched}
            assert set(record.absent) == searched - {concept for concept, *_ in truth}
            assert record.split == (
                "test" if scene.exam.patient[-1] in "49" else "val" if scene.exam.patient[-1] == "6" else "train"
            )
            pictures += 1
    assert pictures > 0
