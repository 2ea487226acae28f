"""Endoscopy sources in their published layouts, generated tiny."""

import json
from pathlib import Path

import numpy as np
import pytest
from images_world import A, B, C, World, check, check_dataset, drawn, painted, records_of, scene, write
from medglip.converters.mask_images import cases

from medglip.curate import load_source

POLYP = "abdomen.colon.polyp"
NEOPLASTIC, OTHER = f"{POLYP}.neoplastic", f"{POLYP}.non_neoplastic"
RED, GREEN = (255, 0, 0), (0, 255, 0)


def kvasir() -> World:
    name = "cju0qkwl35piu0993l0dewei2"
    files = {
        f"Kvasir-SEG/images/{name}.jpg": scene(1), f"Kvasir-SEG/masks/{name}.jpg": drawn(A, B),
        "Kvasir-SEG/kavsir_bboxes.json": json.dumps(
            {name: {"height": 48, "width": 64, "bbox": [{"label": "polyp", "xmin": 8, "ymin": 8, "xmax": 23, "ymax": 23}]}}
        ),
    }  # fmt: skip
    return World("endo_kvasir_seg", files, {f"Kvasir-SEG/images/{name}.jpg": [(POLYP, A), (POLYP, B)]})


def clinicdb() -> World:
    """Frames at both sides of the borders of the first, the second and the last sequence."""
    groups = ((1, 25), (26, 50), (51,), (591,), (592, 612))
    numbers = [number for group in groups for number in group]
    files = {f"CVC-ClinicDB/{kind}/{number}.tif": scene(number) if kind == "Original" else drawn(A)
             for number in numbers for kind in ("Original", "Ground Truth")}  # fmt: skip
    named = {number: f"CVC-ClinicDB/Original/{number}.tif" for number in numbers}
    return World("endo_cvc_clinicdb", files, {name: [(POLYP, A)] for name in named.values()},
                 groups=tuple({named[number] for number in group} for group in groups))  # fmt: skip


def benchmark(source: str, folder: str) -> World:
    files = {}
    for other in (folder, "CVC-300", "Kvasir"):
        files |= {f"TestDataset/{other}/images/1.png": scene(len(other)), f"TestDataset/{other}/masks/1.png": drawn(B)}
    image = f"TestDataset/{folder}/images/1.png"
    return World(source, files, {image: [(POLYP, B)]}, splits={image: "test"})


def polypgen() -> World:
    single, sequence, negative = "data_C1/images_C1/C1_100H0050", "sequenceData/positive/seq1", "sequenceData/negativeOnly"
    files = {
        f"{single}.jpg": scene(1), "data_C1/masks_C1/C1_100H0050_mask.jpg": drawn(A),
        "data_C1/bbox_C1/C1_100H0050_mask.txt": "polyp 8 8 24 24\n", "data_C1/bbox_image_C1/C1_100H0050.jpg": scene(7),
        f"{sequence}/images_seq1/seq1_12.jpg": scene(2), f"{sequence}/masks_seq1/seq1_12_mask.jpg": drawn(B),
        f"{sequence}/images_seq1/seq1_13.jpg": scene(3), f"{sequence}/masks_seq1/seq1_13_mask.jpg": drawn(),
        f"{negative}/seq1_neg/1.jpg": scene(4), f"{negative}/seq1_neg/2.jpg": scene(5), f"{negative}/seq2_neg/1.jpg": scene(6),
    }  # fmt: skip
    root = "PolypGen2021_MultiCenterData_v3"
    shown = {
        f"{single}.jpg": [(POLYP, A)], f"{sequence}/images_seq1/seq1_12.jpg": [(POLYP, B)],
        f"{sequence}/images_seq1/seq1_13.jpg": [], f"{negative}/seq1_neg/1.jpg": [], f"{negative}/seq1_neg/2.jpg": [],
        f"{negative}/seq2_neg/1.jpg": [],
    }  # fmt: skip
    shown = {f"{root}/{name}": regions for name, regions in shown.items()}
    ordered = list(shown)
    return World(
        "endo_polypgen", {f"{root}/{name}": content for name, content in files.items()}, shown,
        {name: (POLYP,) for name, regions in shown.items() if not regions},
        groups=({ordered[0]}, set(ordered[1:3]), set(ordered[3:5]), {ordered[5]}),
    )  # fmt: skip


def neopolyp() -> World:
    ground = (0, 0, 0)
    files = {
        "bkai-igh-neopolyp/train/train/0a5f3601.jpeg": scene(1),
        "bkai-igh-neopolyp/train_gt/train_gt/0a5f3601.jpeg": painted((A, RED), (B, GREEN), ground=ground),
        "bkai-igh-neopolyp/train/train/1b5f3601.jpeg": scene(2),
        "bkai-igh-neopolyp/train_gt/train_gt/1b5f3601.jpeg": painted((B, GREEN), ground=ground),
        "bkai-igh-neopolyp/test/test/2c5f3601.jpeg": scene(3),
        "bkai-igh-neopolyp/sample_submission.csv": "ids,Predicted\n",
    }
    both, one = (f"bkai-igh-neopolyp/train/train/{name}5f3601.jpeg" for name in ("0a", "1b"))
    return World("endo_neopolyp", files, {both: [(NEOPLASTIC, A), (OTHER, B)], one: [(OTHER, B)]}, {one: (NEOPLASTIC,)},
                 {both: "train", one: "train"})  # fmt: skip


def cholec() -> World:
    """White frame, grey background, and the greys of four classes in three or four channels."""
    grey = painted(((0, 0, 64, 48), 255), ((2, 2, 62, 46), 50), (A, 21), (B, 31), (C, 25), ((10, 30, 20, 40), 32))
    three, four = np.dstack([grey] * 3), np.dstack([grey] * 3 + [np.full_like(grey, 255)])
    shown = [("abdomen.liver", A), ("systemic.instrument.grasper", B), ("abdomen.bile_duct.cystic_duct", C),
             ("systemic.instrument.hook", (10, 30, 20, 40))]  # fmt: skip
    files, names = {}, []
    for clip, frame, mask in (("video01/video01_00080", 80, three), ("video01/video01_00160", 160, four),
                              ("video09/video09_00896", 896, three)):  # fmt: skip
        stem = f"{clip}/frame_{frame}_endo"
        files |= {f"{stem}.png": scene(frame), f"{stem}_watershed_mask.png": mask, f"{stem}_mask.png": scene(frame + 1),
                  f"{stem}_color_mask.png": scene(frame + 2)}  # fmt: skip
        names.append(f"{stem}.png")
    return World("endo_cholecseg8k", files, dict.fromkeys(names, shown), dict.fromkeys(names, ("abdomen.gallbladder",)),
                 groups=(set(names[:2]), {names[2]}))  # fmt: skip


def endovis() -> World:
    """The kidney in two colours, one instrument in two parts of two colours, and a thread."""
    shaft, clasper, kidney, covered, thread = (0, 255, 0), (0, 255, 255), (255, 55, 0), (24, 55, 125), (187, 155, 25)
    mask = painted(((4, 4, 20, 20), kidney), ((4, 20, 20, 40), covered), ((30, 10, 40, 20), shaft), ((40, 10, 50, 20), clasper),
                   ((50, 30, 60, 34), thread), ground=(0, 0, 0))  # fmt: skip
    root = "miccai_challenge_2018_release_1"
    files = {
        f"{root}/seq_1/left_frames/frame000.png": scene(1), f"{root}/seq_1/labels/frame000.png": mask,
        f"{root}/seq_1/right_frames/frame000.png": scene(2), f"{root}/seq_1/camera_calibration.txt": "// Left camera\n",
        f"{root}/labels.json": "[]",
    }  # fmt: skip
    shown = [("abdomen.kidney", (4, 4, 20, 40)), ("systemic.instrument", (30, 10, 50, 20)),
             ("systemic.instrument.thread", (50, 30, 60, 34))]  # fmt: skip
    return World("endo_endovis18_scene", files, {f"{root}/seq_1/left_frames/frame000.png": shown},
                 {f"{root}/seq_1/left_frames/frame000.png": ("abdomen.small_bowel",)})  # fmt: skip


WORLDS = (kvasir(), clinicdb(), benchmark("endo_cvc_colondb", "CVC-ColonDB"), benchmark("endo_etis", "ETIS-LaribPolypDB"),
          polypgen(), neopolyp(), cholec(), endovis())  # fmt: skip


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.source)
def test_a_published_layout_gives_its_boxes_negatives_and_groups(world: World, tmp_path: Path) -> None:
    check(world, tmp_path)


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.source)
def test_its_dataset_validates_clean(world: World, tmp_path: Path) -> None:
    check_dataset(world, tmp_path)


def test_all_sequences_of_clinicdb_are_told_apart(tmp_path: Path) -> None:
    """612 frames, 29 groups, each of frames in a row."""
    (part,) = load_source("endo_cvc_clinicdb").parts
    write({f"Original/{number}.tif": b"" for number in range(1, 613)}, tmp_path)
    found = {int(case.fields["case"]): int(case.fields["sequence"]) for case in cases(part, tmp_path)}
    assert len(found) == 612
    ordered = [found[number] for number in sorted(found)]
    assert ordered == sorted(ordered)
    assert set(ordered) == set(range(1, 30))
    assert max(ordered.count(number) for number in set(ordered)) <= 26


def test_a_frame_of_no_number_belongs_to_no_sequence(tmp_path: Path) -> None:
    files = {"Original/0.tif": scene(1), "Ground Truth/0.tif": drawn(A)}
    _, rejects = records_of("endo_cvc_clinicdb", write(clinicdb().files | files, tmp_path))
    assert [(reject.reason, "'0'" in reject.detail) for reject in rejects] == [("no_sequence", True)]


def test_an_unknown_grey_of_cholecseg_is_named_and_leaves_the_frame_in_doubt(tmp_path: Path) -> None:
    """A mask with the class numbers of the article instead of the greys of the files."""
    files = {"video01/video01_00080/frame_80_endo.png": scene(1),
             "video01/video01_00080/frame_80_endo_watershed_mask.png": np.dstack([painted((A, 11), (B, 2))] * 3)}  # fmt: skip
    records, rejects = records_of("endo_cholecseg8k", write(files, tmp_path))
    (record,) = records.values()
    assert [reject.reason for reject in rejects] == ["unknown_label"]
    assert "value 2" in rejects[0].detail
    assert [region.concept for region in record.regions] == ["abdomen.abdominal_wall"]
    assert record.absent == ()
