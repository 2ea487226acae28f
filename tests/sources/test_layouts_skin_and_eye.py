"""Dermoscopy, fundus and OCT sources in their published layouts, generated tiny."""

from pathlib import Path

import numpy as np
import pytest
from images_world import A, B, C, World, check, check_dataset, drawn, painted, records_of, scene, write
from PIL import Image

EYE = "head_neck.eye"
DISC, CUP, RIM = f"{EYE}.optic_disc", f"{EYE}.optic_cup", f"{EYE}.optic_rim"
VESSEL, LESION = f"{EYE}.retinal_vessel", "systemic.skin.lesion"
LESIONS = {"1. Microaneurysms": "MA", "2. Haemorrhages": "HE", "3. Hard Exudates": "EX", "4. Soft Exudates": "SE",
           "5. Optic Disc": "OD"}  # fmt: skip


def isic(source: str, images: str, masks: str, ending: str, words: dict[str, str]) -> World:
    """Every split with one image, a picture of superpixels and a licence text."""
    files: dict[str, object] = {}
    splits = {}
    for number, (word, split) in enumerate(words.items()):
        case = f"ISIC_{number:07d}"
        image = f"{images.format(word)}/{case}.jpg"
        files |= {image: scene(number), f"{masks.format(word)}/{case}{ending}.png": drawn(A),
                  f"{images.format(word)}/{case}_superpixels.png": scene(number + 50),
                  f"{images.format(word)}/ATTRIBUTION.txt": "ISIC", f"{masks.format(word)}/LICENSE.txt": "CC-0"}  # fmt: skip
        splits[image] = split
    return World(source, files, {image: [(LESION, A)] for image in splits}, splits=splits)


def ham() -> World:
    """Two images of one lesion, in both halves of the archive, and one of another."""
    table = "lesion_id,image_id,dx,dx_type,age,sex,localization\n"
    files: dict[str, object] = {}
    shown, rows = {}, (("HAM_0000118", 27419, "bkl"), ("HAM_0000118", 25030, "bkl"), ("HAM_0002730", 26769, "mel"))
    labels = {"bkl": "systemic.skin.benign_keratosis", "mel": "systemic.skin.melanoma"}
    for number, (lesion, image, dx) in enumerate(rows):
        table += f"{lesion},ISIC_{image:07d},{dx},histo,80.0,male,scalp\n"
        name = f"HAM10000_images_part_{1 + number % 2}/ISIC_{image:07d}.jpg"
        files |= {name: scene(number), f"HAM10000_segmentations_lesion_tschandl/ISIC_{image:07d}_segmentation.png": drawn(A)}
        shown[name] = [(labels[dx], A)]
    names = list(shown)
    return World("derm_ham10000", files | {"HAM10000_metadata.csv": table}, shown, {names[0]: ("systemic.skin.melanoma",)},
                 groups=(set(names[:2]), {names[2]}))  # fmt: skip


def ph2() -> World:
    stem = "PH2Dataset/PH2 Dataset images/IMD002/IMD002"
    files = {
        f"{stem}_Dermoscopic_Image/IMD002.bmp": scene(1), f"{stem}_lesion/IMD002_lesion.bmp": Image.fromarray(drawn(A) > 0),
        f"{stem}_roi/IMD002_R1_Label4.bmp": drawn(C), "PH2Dataset/PH2_dataset.txt": "|| Name || Clinical Diagnosis ||\n",
    }  # fmt: skip
    return World("derm_ph2", files, {f"{stem}_Dermoscopic_Image/IMD002.bmp": [(LESION, A)]})


def idrid() -> World:
    """Masks are red in a palette; an image without soft exudates has no file for them; part B has images of the same names."""

    def red(array: np.ndarray) -> Image.Image:
        image = Image.fromarray((array > 0).astype(np.uint8), "P")
        image.putpalette([0, 0, 0, 255, 0, 0] + [0] * 762)
        return image

    root, files = "A. Segmentation", {}
    images = {"a. Training Set/IDRiD_01": LESIONS, "b. Testing Set/IDRiD_55": {"5. Optic Disc": "OD"}}
    for name, lesions in images.items():
        files[f"{root}/1. Original Images/{name}.jpg"] = scene(len(lesions))
        subset, case = name.split("/")
        for number, (folder, letters) in enumerate(lesions.items()):
            mask = f"{root}/2. All Segmentation Groundtruths/{subset}/{folder}/{case}_{letters}.tif"
            files[mask] = red(drawn((8 * number, 8, 8 * number + 6, 16)))
    files["B. Disease Grading/1. Original Images/a. Training Set/IDRiD_001.jpg"] = scene(9)
    files["C. Localization/1. Original Images/a. Training Set/IDRiD_001.jpg"] = scene(9)
    retina = f"{EYE}.retina"
    concepts = [f"{retina}.microaneurysm", f"{retina}.hemorrhage", f"{retina}.exudate.hard", f"{retina}.exudate.soft", DISC]
    first, second = (f"{root}/1. Original Images/{name}.jpg" for name in images)
    shown = {
        first: [(concept, (8 * n, 8, 8 * n + 6, 16)) for n, concept in enumerate(concepts)],
        second: [(DISC, (0, 8, 6, 16))],
    }
    return World("fundus_idrid", files, shown, {second: tuple(concepts[:4])}, {first: "train", second: "test"})


def refuge() -> World:
    """A disc whose rim lies around the cup, on white."""
    rings = painted(((16, 8, 48, 40), 128), ((24, 16, 40, 32), 0), ground=255)
    names = {"Training400/Glaucoma/g0001": "Annotation-Training400/Disc_Cup_Masks/Glaucoma/g0001",
             "Training400/Non-Glaucoma/n0001": "Annotation-Training400/Disc_Cup_Masks/Non-Glaucoma/n0001",
             "REFUGE-Validation400/V0001": "REFUGE-Validation400-GT/Disc_Cup_Masks/V0001",
             "Test400/T0001": "REFUGE-Test-GT/Disc_Cup_Masks/G/T0001"}  # fmt: skip
    files: dict[str, object] = {"REFUGE-Validation400-GT/Fovea_locations.xlsx": b"PK"}
    for number, (image, mask) in enumerate(names.items()):
        files |= {f"{image}.jpg": scene(number), f"{mask}.bmp": rings}
    regions = [(DISC, (16, 8, 48, 40)), (RIM, (16, 8, 48, 40)), (CUP, (24, 16, 40, 32))]
    splits = dict(zip(names, ("train", "train", "val", "test"), strict=True))
    return World("fundus_refuge", files, {f"{name}.jpg": regions for name in names},
                 splits={f"{name}.jpg": split for name, split in splits.items()})  # fmt: skip


def rings(source: str, folder: str, names: tuple[str, str]) -> World:
    """Numbers 1 and 2 from outside in; the second image has no cup drawn."""
    both, one = (f"{folder}/Images/{name}.jpg" for name in names)
    files = {
        both: scene(1), f"{folder}/Masks/{names[0]}.png": painted((B, 1), (C, 2)),
        one: scene(2), f"{folder}/Masks/{names[1]}.png": painted((B, 1)),
        f"{folder}/Images_Cropped/img/{names[0]}.jpg": scene(3), f"{folder}/Masks_Cropped/img/{names[0]}.png": painted((B, 1)),
        f"{folder}/Images_Square/{names[0]}.jpg": scene(4), f"{folder}/Masks_Square/{names[0]}.png": painted((B, 1)),
    }  # fmt: skip
    return World(source, files, {both: [(DISC, B), (CUP, C), (RIM, B)], one: [(DISC, B), (RIM, B)]})


def vessels(source: str, files: dict[str, object], **more: object) -> World:
    """The first file is the image, the second its mask."""
    return World(source, files, {next(iter(files)): [(VESSEL, A)]}, **more)


STARE = vessels("fundus_stare", {
    "stare-images/im0001.ppm": scene(1), "labels-ah/im0001.ah.ppm": np.dstack([drawn(A)] * 3),
    "labels-vk/im0001.vk.ppm": np.dstack([drawn(B)] * 3),
})  # fmt: skip
CHASE = vessels("fundus_chase_db1", {
    "Image_01L.jpg": scene(1), "Image_01L_1stHO.png": Image.fromarray(drawn(A) > 0),
    "Image_01L_2ndHO.png": Image.fromarray(drawn(B) > 0),
})  # fmt: skip
FIVES = World("fundus_fives", {
    "train/Original/1_A.png": scene(1), "train/Ground truth/1_A.png": drawn(A), "test/Original/1_N.png": scene(2),
    "test/Groud truth/1_N.png": drawn(B), "Quality Assessment.xlsx": b"PK",
}, {"train/Original/1_A.png": [(VESSEL, A)], "test/Original/1_N.png": [(VESSEL, B)]},
    splits={"train/Original/1_A.png": "train", "test/Original/1_N.png": "test"})  # fmt: skip
DRIVE = World("fundus_drive", {
    "training/images/21_training.tif": scene(1), "training/1st_manual/21_manual1.gif": drawn(A),
    "training/mask/21_training_mask.gif": drawn((1, 1, 62, 46)), "test/images/01_test.tif": scene(2),
    "test/mask/01_test_mask.gif": drawn((1, 1, 62, 46)), "test/images/02_test.tif": scene(3),
    "test/1st_manual/02_manual1.gif": drawn(B), "test/2nd_manual/02_manual2.gif": drawn(C),
}, {"training/images/21_training.tif": [(VESSEL, A)], "test/images/01_test.tif": [], "test/images/02_test.tif": [(VESSEL, B)]},
    splits={"training/images/21_training.tif": "train", "test/images/01_test.tif": "test"})  # fmt: skip


def rim_one() -> World:
    images, masks = "RIM-ONE_DL_images", "RIM-ONE_DL_reference_segmentations"
    names = {f"{images}/partitioned_by_hospital/training_set/normal/r2_Im001.png": "normal/r2_Im001",
             f"{images}/partitioned_by_hospital/test_set/glaucoma/r1_Im001.png": "glaucoma/r1_Im001"}  # fmt: skip
    files: dict[str, object] = {}
    for number, (image, stem) in enumerate(names.items()):
        files |= {image: scene(number), f"{masks}/{stem}-1-Disc-T.png": drawn(B), f"{masks}/{stem}-1-Cup-T.png": drawn(C),
                  image.replace("by_hospital", "randomly"): scene(number)}  # fmt: skip
    return World("fundus_rim_one_dl", files, {name: [(DISC, B), (CUP, C)] for name in names},
                 splits=dict(zip(names, ("train", "test"), strict=True)))  # fmt: skip


def palm() -> World:
    """Masks are black inside; the second image has a disc only."""
    root, black = "PALM", {"value": 0, "ground": 255}
    first, second = f"{root}/Training/Images/H0001.jpg", f"{root}/Testing/Images/T0001.jpg"
    files = {
        first: scene(1), f"{root}/Training/Disc Masks/H0001.bmp": drawn(C, **black),
        f"{root}/Training/Lesion Masks/Atrophy/H0001.bmp": drawn(A, **black),
        f"{root}/Training/Lesion Masks/Detachment/H0001.bmp": drawn(B, **black),
        second: scene(2), f"{root}/Testing/Disc Masks/T0001.bmp": drawn(B, **black),
    }  # fmt: skip
    retina = f"{EYE}.retina"
    shown = {first: [(DISC, C), (f"{retina}.atrophy", A), (f"{retina}.detachment", B)], second: [(DISC, B)]}
    return World("fundus_palm", files, shown, splits={first: "train", second: "test"})


def beside(source: str, folder: str, name: str, colours: dict[str, tuple[int, int, int]], skipped: tuple) -> World:
    """A scan with its coloured mask to the right of it, in one file; the second scan of the eye shows nothing."""
    marks = [((8 * n, 8, 8 * n + 6, 24), colour) for n, colour in enumerate(colours.values())]
    mask = painted(*marks, *(((50, 30 + 6 * n, 60, 34 + 6 * n), colour) for n, colour in enumerate(skipped)), ground=(0, 0, 0))
    files = {f"{folder}/{name.format(1)}.png": np.hstack([scene(1), mask]),
             f"{folder}/{name.format(2)}.png": np.hstack([scene(2), np.zeros_like(mask)])}  # fmt: skip
    first, second = files
    shown = [(concept, tuple(map(float, window))) for concept, (window, _) in zip(colours, marks, strict=True)]
    return World(source, files, {first: shown, second: []}, {second: tuple(colours)}, groups=({first, second},))


RETINA = f"{EYE}.retina"
WORLDS = (
    isic("derm_isic2016", "ISBI2016_ISIC_Part1_{}_Data", "ISBI2016_ISIC_Part1_{}_GroundTruth", "_Segmentation",
         {"Training": "train", "Test": "test"}),
    isic("derm_isic2017", "ISIC-2017_{}_Data", "ISIC-2017_{}_Part1_GroundTruth", "_segmentation",
         {"Training": "train", "Validation": "val", "Test_v2": "test"}),
    isic("derm_isic2018_task1", "ISIC2018_Task1-2_{}_Input", "ISIC2018_Task1_{}_GroundTruth", "_segmentation",
         {"Training": "train", "Validation": "val", "Test": "test"}),
    ham(), ph2(), idrid(), refuge(), rings("fundus_g1020", "G1020", ("image_0", "image_1")),
    rings("fundus_origa", "ORIGA", ("001", "002")), STARE, CHASE, FIVES, DRIVE, rim_one(), palm(),
    beside("oct_oimhs", "Images/7", "{}", {
        f"{EYE}.choroid": (255, 255, 0), RETINA: (0, 255, 0), f"{RETINA}.intraretinal_fluid": (0, 0, 255),
        f"{EYE}.macula.hole": (255, 0, 0)}, ()),
    beside("oct_amd_sd", "AMD-SD/images/1", "1_{}", {
        f"{RETINA}.subretinal_fluid": (255, 0, 0), f"{RETINA}.intraretinal_fluid": (0, 255, 0),
        f"{RETINA}.pigment_epithelial_detachment": (0, 0, 255),
        f"{RETINA}.subretinal_hyperreflective_material": (255, 255, 0)}, ((255, 0, 255),)),
)  # fmt: skip


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.source)
def test_a_published_layout_gives_its_boxes_negatives_and_splits(world: World, tmp_path: Path) -> None:
    check(world, tmp_path)


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.source)
def test_its_dataset_validates_clean(world: World, tmp_path: Path) -> None:
    check_dataset(world, tmp_path)


def test_an_image_of_two_years_of_isic_has_one_group(tmp_path: Path) -> None:
    worlds = {world.source: world for world in WORLDS}
    groups = [
        {name[-11:-4]: record.group for name, record in records_of(source, write(worlds[source].files, tmp_path))[0].items()}
        for source in ("derm_isic2016", "derm_isic2017", "derm_isic2018_task1")
    ]
    assert groups[1] == groups[2]
    assert groups[0].items() <= groups[1].items()
    assert len(set(groups[1].values())) == 3


def test_the_disc_of_rings_holds_its_cup_and_its_rim(tmp_path: Path) -> None:
    records, _ = records_of("fundus_refuge", write(refuge().files, tmp_path))
    (record,) = (record for name, record in records.items() if name.endswith("V0001.jpg"))
    areas = {region.concept: region.mask.area for region in record.regions}
    assert areas == {DISC: 32 * 32, CUP: 16 * 16, RIM: 32 * 32 - 16 * 16}
    concepts = {region.id: region.concept for region in record.regions}
    inside = {region.concept: [concepts[parent] for parent in region.parents] for region in record.regions}
    assert DISC in inside[CUP]
    assert inside[RIM] == [DISC]


def test_a_mask_without_a_cup_does_not_say_that_there_is_none(tmp_path: Path) -> None:
    world = rings("fundus_g1020", "G1020", ("image_0", "image_1"))
    records, _ = records_of("fundus_g1020", write(world.files, tmp_path))
    assert records["G1020/Images/image_1.jpg"].absent == ()
    assert records["G1020/Images/image_1.jpg"].exhaustive == (DISC,)


def test_a_scan_is_cut_from_its_mask(tmp_path: Path) -> None:
    both = np.hstack([scene(1), painted((A, (0, 255, 0)), ground=(0, 0, 0))])
    records, _ = records_of("oct_oimhs", write({"Images/7/1.png": both}, tmp_path))
    (record,) = records.values()
    assert (record.width, record.height) == (64, 48)
    odd = {"Images/8/1.png": scene(1, width=65)}
    records, rejects = records_of("oct_oimhs", write(odd, tmp_path / "odd"))
    assert [reject.reason for reject in rejects] == ["size_mismatch"]
    assert not records


def test_the_test_images_of_drive_are_unlabelled_where_they_have_no_mask(tmp_path: Path) -> None:
    records, _ = records_of("fundus_drive", write(DRIVE.files, tmp_path))
    assert records["test/images/01_test.tif"].exhaustive == ()
    assert records["test/images/02_test.tif"].exhaustive == (VESSEL,)
