"""Ultrasound sources in their published layouts, generated tiny."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK
from images_world import A, B, C, World, check, check_dataset, check_matrix, drawn, painted, records_of, scene, write
from PIL import Image
from skimage.draw import ellipse_perimeter

from medglip.curate import convert
from medglip.store.checks.validate import validate

BUSI = "Dataset_BUSI_with_GT"
BENIGN, MALIGNANT = "thorax.breast.tumor.benign", "thorax.breast.tumor.malignant"
NODULE = "head_neck.thyroid.nodule"


def alpha(array: np.ndarray) -> Image.Image:
    """A mask stored in colours with an opaque alpha channel."""
    return Image.fromarray(np.dstack([array] * 3 + [np.full_like(array, 255)]))


def busi() -> World:
    files = {
        f"{BUSI}/benign/benign (4).png": scene(1), f"{BUSI}/benign/benign (4)_mask.png": Image.fromarray(drawn(A) > 0),
        f"{BUSI}/benign/benign (4)_mask_1.png": drawn(C, height=40, width=60),
        f"{BUSI}/benign/benign (100).png": scene(2), f"{BUSI}/benign/benign (100)_mask.png": drawn(A),
        f"{BUSI}/benign/benign (100)_mask_1.png": drawn(B), f"{BUSI}/benign/benign (100)_mask_2.png": drawn(C),
        f"{BUSI}/benign/benign (10).png": scene(3), f"{BUSI}/benign/benign (10)_mask.png": drawn(B),
        f"{BUSI}/malignant/malignant (1).png": scene(4), f"{BUSI}/malignant/malignant (1)_mask.png": alpha(drawn(B)),
        f"{BUSI}/normal/normal (1).png": scene(5), f"{BUSI}/normal/normal (1)_mask.png": alpha(drawn()),
    }  # fmt: skip
    shown = {
        "benign/benign (4)": [(BENIGN, A)], "benign/benign (100)": [(BENIGN, A), (BENIGN, B)],
        "benign/benign (10)": [(BENIGN, B)], "malignant/malignant (1)": [(MALIGNANT, B)], "normal/normal (1)": [],
    }  # fmt: skip
    absent = {
        f"{BUSI}/normal/normal (1).png": ("thorax.breast.tumor", BENIGN, MALIGNANT),
        f"{BUSI}/malignant/malignant (1).png": (BENIGN,), f"{BUSI}/benign/benign (10).png": (MALIGNANT,),
    }  # fmt: skip
    return World("us_busi", files, {f"{BUSI}/{name}.png": regions for name, regions in shown.items()}, absent,
                 reasons=("size_mismatch",))  # fmt: skip


def tn3k() -> World:
    files = {
        f"tn3k/{role}-{kind}/{number:04d}.jpg": drawn(A, B) if kind == "mask" else scene(number + len(role))
        for role, numbers in (("trainval", (0, 7, 31)), ("test", (0, 7))) for number in numbers for kind in ("image", "mask")
    }  # fmt: skip
    files |= {
        "tn3k/tn3k-trainval-fold0.json": json.dumps({"train": [0, 31], "val": [7]}),
        "tn3k/tn3k-trainval-fold1.json": json.dumps({"train": [7], "val": [0, 31]}),
        "tn3k/label4trainval.csv": "0000.jpg,1\n",
    }
    splits = {"trainval-image/0000": "train", "trainval-image/0031": "train", "trainval-image/0007": "val",
              "test-image/0000": "test", "test-image/0007": "test"}  # fmt: skip
    return World("us_tn3k", files, {f"tn3k/{name}.jpg": [(NODULE, A), (NODULE, B)] for name in splits},
                 splits={f"tn3k/{name}.jpg": split for name, split in splits.items()})  # fmt: skip


def ddti() -> World:
    files = {
        "DDTI/1_or_data/image/0000.PNG": scene(1), "DDTI/1_or_data/mask/0000.PNG": drawn(A),
        "DDTI/1_or_data/image/0001.PNG": scene(2), "DDTI/1_or_data/mask/0001.PNG": drawn(B),
        "DDTI/2_preprocessed_data/stage1/p_image/0000.PNG": scene(3), "DDTI/1_or_data/category.csv": "0000.PNG,1\n",
    }  # fmt: skip
    shown = {f"DDTI/1_or_data/image/{name}.PNG": [(NODULE, box)] for name, box in (("0000", A), ("0001", B))}
    return World("us_ddti", files, shown)


def psfhs() -> World:
    """Colours as slices; the grey pictures of the set have three equal ones."""
    symphysis, head = "pelvis.pubic_symphysis", "pelvis.fetus.head"
    files = {}
    for number, plane in ((3744, scene(1, colours=False)), (3745, scene(2))):
        slices = np.stack([plane] * 3) if plane.ndim == 2 else np.moveaxis(plane, 2, 0)
        files[f"PSFHS/image_mha/{number:05d}.mha"] = SimpleITK.GetImageFromArray(np.ascontiguousarray(slices))
        labels = painted((A, 1), (B, 2)) if number == 3744 else painted((B, 2))
        files[f"PSFHS/label_mha/{number:05d}.mha"] = SimpleITK.GetImageFromArray(labels)
    shown = {"PSFHS/image_mha/03744.mha": [(symphysis, A), (head, B)], "PSFHS/image_mha/03745.mha": [(head, B)]}
    return World("us_psfhs", files, shown, {"PSFHS/image_mha/03745.mha": (symphysis,)})


def hc18() -> World:
    """An ellipse drawn as a line; two scans of one fetus."""
    line = np.zeros((48, 64), np.uint8)
    line[ellipse_perimeter(24, 32, 14, 20)] = 255
    files: dict[str, object] = {"test_set/000_HC.png": scene(9), "training_set_pixel_size_and_HC.csv": "filename\n000_HC.png\n"}
    names = ("000_HC", "010_HC", "010_2HC")
    for number, name in enumerate(names):
        files |= {f"training_set/{name}.png": scene(number), f"training_set/{name}_Annotation.png": line}
    images = [f"training_set/{name}.png" for name in names]
    shown = {image: [("pelvis.fetus.head", (12, 10, 53, 39))] for image in images}
    return World("us_hc18_fetal_head", files, shown, splits=dict.fromkeys(images, "train"),
                 groups=({images[0]}, set(images[1:])))  # fmt: skip


WORLDS = (busi(), tn3k(), ddti(), psfhs(), hc18())


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.source)
def test_a_published_layout_gives_its_boxes_negatives_and_splits(world: World, tmp_path: Path) -> None:
    check(world, tmp_path)


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.source)
def test_its_dataset_validates_clean(world: World, tmp_path: Path) -> None:
    check_dataset(world, tmp_path)


def test_a_refused_mask_of_busi_leaves_its_picture_in_doubt(tmp_path: Path) -> None:
    records, _ = records_of("us_busi", write(busi().files, tmp_path))
    assert records[f"{BUSI}/benign/benign (4).png"].exhaustive == ()
    assert records[f"{BUSI}/benign/benign (10).png"].exhaustive != ()


def test_masks_in_jpeg_say_how_many_of_their_pixels_are_unclear(tmp_path: Path) -> None:
    records, _ = records_of("us_tn3k", write(tn3k().files, tmp_path))
    assert all("soft_mask" not in record.flags for record in records.values())
    files = {"test-image/0000.jpg": scene(1), "test-mask/0000.jpg": painted((A, 255), ((24, 8, 32, 24), 120))}
    soft, _ = records_of("us_tn3k", write(files, tmp_path / "soft"))
    (record,) = soft.values()
    share = float(record.modality_detail["ambiguous_mask_pixels"])
    assert 0.4 < share < 0.7  # half as many as are inside, and the edges of JPEG
    assert "soft_mask" in record.flags


def test_the_channels_of_a_picture_in_slices_are_its_colours(tmp_path: Path) -> None:
    records, _ = records_of("us_psfhs", write(psfhs().files, tmp_path))
    assert {name[-9:]: record.channels for name, record in records.items()} == {"03744.mha": 1, "03745.mha": 3}
    assert {record.spacing_mm for record in records.values()} == {None}


def camus(folder: Path, patients: tuple[int, ...] = (1, 2)) -> Path:
    """Pictures of 40 x 24 pixels; the arrays have the column first, and no third dimension."""
    labels = np.zeros((40, 24), np.uint8)  # column, row
    labels[5:20, 3:20], labels[8:16, 6:18], labels[8:16, 20:23] = 2, 1, 3
    for patient in patients:
        stem = f"database_nifti/patient{patient:04d}/patient{patient:04d}"
        for view in ("2CH", "4CH"):
            for number, frame in enumerate(("ED", "ES")):
                image = scene(patient * 10 + number + len(view), colours=False, height=40, width=24)
                for name, array in ((f"{stem}_{view}_{frame}", image), (f"{stem}_{view}_{frame}_gt", labels)):
                    path = folder / f"{name}.nii.gz"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    nibabel.save(nibabel.Nifti1Image(array, np.diag([-0.3, -0.15, 1.0, 1.0])), path)
            half = nibabel.Nifti1Image(np.zeros((40, 24, 3), np.uint8), np.eye(4))
            nibabel.save(half, folder / f"{stem}_{view}_half_sequence.nii.gz")
            (folder / f"{stem}_{view}.cfg".replace(f"patient{patient:04d}_{view}", f"Info_{view}")).write_text(
                "ED: 1\nES: 18\n"
            )
    for word, names in (("training", patients[1:]), ("validation", ()), ("testing", patients[:1])):
        path = folder / f"database_split/subgroup_{word}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"patient{patient:04d}\n" for patient in names))
    return folder


def test_camus_stands_upright_with_its_spacing_and_its_patients_together(tmp_path: Path) -> None:
    records, rejects = records_of("us_camus", camus(tmp_path))
    assert rejects == []
    assert len(records) == 8
    for record in records.values():
        assert (record.width, record.height) == (40, 24)
        assert {region.concept: region.box_xyxy for region in record.regions} == {
            "thorax.heart.left_ventricle": (8, 6, 16, 18), "thorax.heart.myocardium": (5, 3, 20, 20),
            "thorax.heart.left_atrium": (8, 20, 16, 23),
        }  # fmt: skip
        assert record.spacing_mm == pytest.approx((0.15, 0.3))  # row, column
    assert len({record.group for record in records.values()}) == 2
    assert {("patient0001" in name, record.split, record.split_source) for name, record in records.items()} == {
        (True, "test", "official"), (False, "train", "official"),
    }  # fmt: skip
    assert {(record.modality_detail["view"], record.modality_detail["frame"]) for record in records.values()} == {
        (view, frame) for view in ("2CH", "4CH") for frame in ("ED", "ES")
    }
    check_matrix("us_camus", records)


def test_a_dataset_of_camus_validates_clean(tmp_path: Path) -> None:
    done = convert("us_camus", camus(tmp_path / "in", patients=(1,)), tmp_path / "dataset")
    assert (done.images, done.regions, done.volumes) == (4, 12, 4)
    assert [problem for problem in validate(tmp_path / "dataset") if problem.level == "error"] == []
