"""Chest X-ray sources in their published layouts, generated tiny."""

import gzip
import io
import json
from pathlib import Path

import numpy as np
import pytest
from images_world import A, B, C, World, check, check_dataset, drawn, records_of, scene, write
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian

from medglip.curate import load_source

LUNG, HEART, OPACITY, COVID = "thorax.lung", "thorax.heart", "thorax.lung.opacity", "thorax.lung.covid_infection"
TB, OLD_TB = "thorax.lung.tuberculosis.active", "thorax.lung.tuberculosis.obsolete"
EFFUSION, NODULE, DIFFUSE = "thorax.pleura.effusion", "thorax.lung.nodule", "thorax.lung.nodule.diffuse"
RIGHT, LEFT = f"{LUNG}@right", f"{LUNG}@left"
# Two lungs as they lie in a picture: the patient's right one on the left.
TWO = ((8, 8, 24, 40), (40, 8, 56, 40))


def grey(seed: int) -> np.ndarray:
    return scene(seed, colours=False)


def dicom(pixels: np.ndarray, patient: str) -> bytes:
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = ComputedRadiographyImageStorage, f"1.2.3.{int(pixels.sum())}"
    data.Modality, data.PatientID, data.ViewPosition, data.PixelSpacing = "CR", patient, "PA", [0.2, 0.2]
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.Rows, data.Columns = pixels.shape
    data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
    data.PixelData = pixels.tobytes()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = io.BytesIO()
    data.save_as(file, enforce_file_format=True)
    return file.getvalue()


def coded(*windows: tuple[int, int, int, int]) -> str:
    """Run-length code along the rows, from pixel 1."""
    flat = np.concatenate([[0], (drawn(*windows) > 0).ravel(), [0]])
    edges = np.flatnonzero(np.diff(flat)) + 1
    return " ".join(f"{start} {stop - start}" for start, stop in zip(edges[::2], edges[1::2], strict=True))


def rsna() -> World:
    ids = [f"{number:08d}-0d82-41cd-b8c9-c8da9fa1a2b{number}" for number in range(4)]
    boxes = f"{ids[1]},8.0,8.0,16.0,16.0,1\n{ids[1]},32.0,8.0,24.0,24.0,1\n"
    kinds = zip(ids[:3], ("No Lung Opacity / Not Normal", "Lung Opacity", "Normal"), strict=True)
    files = {f"stage_2_train_images/{name}.dcm": dicom(grey(n), name) for n, name in enumerate(ids[:3])}
    files |= {
        f"stage_2_test_images/{ids[3]}.dcm": dicom(grey(9), ids[3]),
        "stage_2_train_labels.csv": f"patientId,x,y,width,height,Target\n{ids[0]},,,,,0\n{boxes}{ids[2]},,,,,0\n",
        "stage_2_detailed_class_info.csv": "patientId,class\n" + "".join(f"{name},{kind}\n" * 2 for name, kind in kinds),
    }
    shown = {ids[0]: [], ids[1]: [(OPACITY, A), (OPACITY, B)], ids[2]: []}
    named = {f"stage_2_train_images/{name}.dcm": regions for name, regions in shown.items()}
    return World("xray_rsna_pneumonia", files, named, {name: (OPACITY,) for name, regions in named.items() if not regions})


def nih() -> World:
    folder = "images_00{}/images/{}.png"
    names = {"00013118_008": 1, "00013118_009": 1, "00014716_007": 2, "00000001_000": 1}
    across, down = 1024 / 64, 1024 / 48
    cells = [f"{x0 * across},{y0 * down},{(x1 - x0) * across},{(y1 - y0) * down}" for x0, y0, x1, y1 in (A, B)]
    files: dict[str, object] = {folder.format(at, name): grey(number) for number, (name, at) in enumerate(names.items())}
    head = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    said = ("Infiltration|Effusion", "No Finding", "Atelectasis", "Cardiomegaly")
    rows = [
        f"{name}.png,{labels},{int(name[9:])},{int(name[:8])},69,M,PA,2992,2991,0.143,0.143"
        for name, labels in zip(names, said, strict=True)
    ]
    files |= {
        "BBox_List_2017.csv": "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"
        f"00013118_008.png,Infiltrate,{cells[0]}\n00014716_007.png,Atelectasis,{cells[1]}\n00099999_000.png,Mass,{cells[0]}\n",
        "Data_Entry_2017_v2020.csv": "\n".join([f"{head}OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]", *rows]),
        "train_val_list.txt": "00013118_008.png\n00013118_009.png\n00000001_000.png\n",
        "test_list.txt": "00014716_007.png\r\n00099999_000.png\r\n",
    }
    marked = {"00013118_008": [("thorax.lung.infiltration", A)], "00014716_007": [("thorax.lung.atelectasis", B)]}
    shown = {folder.format(at, name): marked.get(name, []) for name, at in names.items()}
    splits = {folder.format(at, name): "test" if at == 2 else "train" for name, at in names.items()}
    same = {folder.format(1, name) for name in ("00013118_008", "00013118_009")}
    return World("xray_nih_chestxray14", files, shown, splits=splits, groups=(same, {folder.format(2, "00014716_007")}))


def chexmask() -> World:
    images = {
        "nih/images_001/images/00000001_000.png": ("ChestX-Ray8.csv", "Image Index", "00000001_000.png", 0.83),
        "nih/images_001/images/00000002_000.png": ("ChestX-Ray8.csv", "Image Index", "00000002_000.png", 0.69),
        "CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg":
            ("CheXpert.csv", "Path", "CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg", 0.9),
        "CheXpert-v1.0/train/patient00002/study1/view1_frontal.jpg":
            ("CheXpert.csv", "Path", "CheXpert-v1.0/train/patient00002/study1/view1_frontal.jpg", 0.7),
        "files/p10/p10000032/s50414267/02aa804e-bde0afdd.jpg": ("MIMIC-CXR-JPG.csv", "dicom_id", "02aa804e-bde0afdd", 0.8),
        "pc/216840111366964012989926673512011151082430686_00-163-058.png":
            ("Padchest.csv", "ImageID", "216840111366964012989926673512011151082430686_00-163-058.png", 0.8),
        "vindr/000434271f63a053c4128a0ba6352c7f.png": ("VinDr-CXR.csv", "image_id", "000434271f63a053c4128a0ba6352c7f", 0.8),
    }  # fmt: skip
    tables: dict[str, list[str]] = {}
    for number, (table, column, image, grade) in enumerate(images.values()):
        rows = tables.setdefault(
            table, [f"{column},Dice RCA (Max),Dice RCA (Mean),Landmarks,Left Lung,Right Lung,Heart,Height,Width"]
        )
        lungs = coded(TWO[1]), coded(TWO[0])
        rows.append(f'{image},0.95,{grade},"1,2,3,4",{lungs[0]},{lungs[1]},{coded(A) if number % 2 == 0 else ""},48,64')
    files: dict[str, object] = {name: grey(number) for number, name in enumerate(images)}
    files |= {f"chexmask/OriginalResolution/{name}": "\n".join(rows) for name, rows in tables.items()}
    packed = "chexmask/OriginalResolution/VinDr-CXR.csv"
    files[f"{packed}.gz"] = gzip.compress(str(files.pop(packed)).encode())
    files["chexmask/Preprocessed/CheXpert.csv"] = "Path,Left Lung\nx,1 2\n"
    both = [(LEFT, TWO[1]), (RIGHT, TWO[0])]
    shown = {name: both + ([(HEART, A)] if number % 2 == 0 else []) for number, name in enumerate(images)}
    return World("xray_chexmask", files, {name: [] if "00000002" in name else regions for name, regions in shown.items()},
                 reasons=("low_quality",))  # fmt: skip


def montgomery() -> World:
    files: dict[str, object] = {}
    for number, name in enumerate(("MCUCXR_0001_0", "MCUCXR_0104_1")):
        files |= {f"MontgomerySet/CXR_png/{name}.png": grey(number),
                  f"MontgomerySet/ManualMask/leftMask/{name}.png": Image.fromarray(drawn(TWO[1]) > 0),
                  f"MontgomerySet/ManualMask/rightMask/{name}.png": Image.fromarray(drawn(TWO[0]) > 0),
                  f"MontgomerySet/ClinicalReadings/{name}.txt": "Patient's Sex: F\nPatient's Age: 027Y\nnormal"}  # fmt: skip
    lungs = [(LUNG, window) for window in TWO]  # whose left the folders mean is not known, so no side
    return World("xray_montgomery", files, {name: lungs for name in files if "CXR_png" in name})


def shenzhen() -> World:
    folder = "ChinaSet_AllFiles/CXR_png"
    files = {f"{folder}/CHNCXR_0001_0.png": grey(1), f"{folder}/CHNCXR_0327_1.png": scene(2),
             f"{folder}/CHNCXR_0330_1.png": grey(3), f"{folder}/Thumbs.db": b"debris",
             "mask/mask/CHNCXR_0001_0_mask.png": drawn(*TWO), "mask/mask/CHNCXR_0327_1_mask.png": drawn(*TWO)}  # fmt: skip
    lungs = [(LUNG, window) for window in TWO]
    shown = {f"{folder}/CHNCXR_0001_0.png": lungs, f"{folder}/CHNCXR_0327_1.png": lungs, f"{folder}/CHNCXR_0330_1.png": []}
    return World("xray_shenzhen", files, shown)


def tbx11k() -> World:
    def coco(*entries: tuple[str, list]) -> str:
        kinds = ["ActiveTuberculosis", "ObsoletePulmonaryTuberculosis", "PulmonaryTuberculosis"]
        boxes = [(number, kind, window) for number, (_, marks) in enumerate(entries) for kind, window in marks]
        return json.dumps({
            "images": [{"id": n, "file_name": name, "width": 64, "height": 48} for n, (name, _) in enumerate(entries)],
            "annotations": [{"id": n, "image_id": image, "category_id": kind, "iscrowd": 0, "area": 1,
                             "bbox": [x0, y0, x1 - x0, y1 - y0]} for n, (image, kind, (x0, y0, x1, y1)) in enumerate(boxes)],
            "categories": [{"id": n + 1, "name": name, "supercategory": "Tuberculosis"} for n, name in enumerate(kinds)],
        })  # fmt: skip

    train, val = [("tb/tb0003.png", [(1, A), (2, B)]), ("health/h0001.png", [])], [("tb/tb0005.png", [(1, C)])]
    images = ["tb/tb0003", "tb/tb0005", "health/h0001", "sick/s0001", "test/test_0001"]
    files: dict[str, object] = {f"TBX11K/imgs/{name}.png": grey(number) for number, name in enumerate(images)}
    files |= {
        "TBX11K/imgs/extra/da/0001.png": grey(9),
        "TBX11K/annotations/json/TBX11K_train.json": coco(*train), "TBX11K/annotations/json/TBX11K_val.json": coco(*val),
        "TBX11K/annotations/json/TBX11K_trainval.json": coco(*train, *val),
        "TBX11K/annotations/json/TBX11K_trainval_only_tb.json": coco(train[0], *val),
        "TBX11K/lists/TBX11K_train.txt": "tb/tb0003.png\nhealth/h0001.png\n", "TBX11K/lists/TBX11K_val.txt": "tb/tb0005.png\n",
        "TBX11K/lists/TBX11K_trainval.txt": "tb/tb0003.png\nhealth/h0001.png\ntb/tb0005.png\n",
    }  # fmt: skip
    marks = {"tb/tb0003": [(TB, A), (OLD_TB, B)], "tb/tb0005": [(TB, C)]}
    shown = {f"TBX11K/imgs/{name}.png": marks.get(name, []) for name in images}
    splits = {"TBX11K/imgs/tb/tb0003.png": "train", "TBX11K/imgs/tb/tb0005.png": "val", "TBX11K/imgs/health/h0001.png": "train"}
    return World("xray_tbx11k", files, shown, {"TBX11K/imgs/health/h0001.png": (TB, OLD_TB)}, splits)


def chestx_det() -> World:
    def ring(window: tuple[int, int, int, int]) -> list[list[float]]:
        x0, y0, x1, y1 = window
        return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]

    train = [{"file_name": "36199.png", "syms": ["Effusion", "Diffuse Nodule"], "boxes": [list(A), list(B)],
              "polygons": [ring(A), ring(B)]},
             {"file_name": "36200.png", "syms": [], "boxes": [], "polygons": []}]  # fmt: skip
    test = [
        {"file_name": "36199_2.png", "syms": ["Nodule", "Fracture"], "boxes": [list(C), list(A)], "polygons": [ring(C), []]}
    ]
    files = {"train_data/train/36199.png": grey(1), "train_data/train/36200.png": grey(2),
             "test_data/test/36199_2.png": grey(3), "ChestX_Det_train.json": json.dumps(train),
             "ChestX_Det_test.json": json.dumps(test)}  # fmt: skip
    shown = {"train_data/train/36199.png": [(EFFUSION, A), (DIFFUSE, B)], "train_data/train/36200.png": [],
             "test_data/test/36199_2.png": [(NODULE, C), ("thorax.rib.fracture", A)]}  # fmt: skip
    splits = {name: "test" if "test" in name else "train" for name in shown}
    absent = {"train_data/train/36200.png": (EFFUSION, NODULE), "test_data/test/36199_2.png": (EFFUSION,)}
    return World("xray_chestx_det", files, shown, absent, splits)


def covid_qu_ex() -> World:
    root = "{0} Segmentation Data/{0} Segmentation Data/{1}/{2}"
    files: dict[str, object] = {}
    for number, (kind, split, folder, name) in enumerate((
        ("Lung", "Train", "COVID-19", "covid_1"), ("Lung", "Val", "Normal", "Normal (1)"),
        ("Infection", "Test", "COVID-19", "covid_1"), ("Infection", "Train", "Non-COVID", "non_COVID (7)"),
    )):  # fmt: skip
        where = root.format(kind, split, folder)
        files |= {
            f"{where}/images/{name}.png": grey(0 if name == "covid_1" else number),
            f"{where}/lung masks/{name}.png": drawn(*TWO),
        }
        if kind == "Infection":
            files[f"{where}/infection masks/{name}.png"] = drawn(C) if folder == "COVID-19" else drawn()
    lungs = [(LUNG, window) for window in TWO]
    shown = {name: lungs + ([(COVID, C)] if "Infection" in name and "COVID-19" in name else [])
             for name in files if "/images/" in name}  # fmt: skip
    same, other = {name for name in shown if "covid_1" in name}, {name for name in shown if "non_COVID" in name}
    absent = {next(iter(other)): (COVID,)}
    return World("xray_covid_qu_ex", files, shown, absent, groups=(same, other))


def qata() -> World:
    root, name = "QaTa-COV19/QaTa-COV19-v2/{}", "sub-S09349_ses-E1701{}_run-1_bp-chest_vp-ap_dx-corrected.png"
    pairs = [(root.format("Train Set"), name.format(1)), (root.format("Test Set"), name.format(2)),
             (root.format("Test Set"), "covid_12.png")]  # fmt: skip
    files: dict[str, object] = {f"{where}/Images/{file}": grey(number) for number, (where, file) in enumerate(pairs)}
    files |= {f"{where}/Ground-truths/mask_{file}": drawn(A) for where, file in pairs}
    shown = {f"{where}/Images/{file}": [(COVID, A)] for where, file in pairs}
    patient = {name for name in shown if "S09349" in name}
    return World("xray_qata_cov19", files, shown, groups=(patient, set(shown) - patient))


def radiography() -> World:
    root, files = "COVID-19_Radiography_Dataset/{}/{}/{}-1.png", {}
    for number, kind in enumerate(("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")):
        files[root.format(kind, "images", kind)] = scene(number, colours=False, height=96, width=128)
        files[root.format(kind, "masks", kind)] = np.dstack([drawn(*TWO)] * 3)
    shown = {name: [(LUNG, tuple(2 * side for side in window)) for window in TWO] for name in files if "/images/" in name}
    return World("xray_covid19_radiography", files, shown)


WORLDS = (rsna(), nih(), chexmask(), montgomery(), shenzhen(), tbx11k(), chestx_det(), covid_qu_ex(), qata(), radiography())


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.source)
def test_a_published_layout_gives_its_boxes_and_splits(world: World, tmp_path: Path) -> None:
    check(world, tmp_path)


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.source)
def test_its_dataset_validates_clean(world: World, tmp_path: Path) -> None:
    check_dataset(world, tmp_path)


def test_the_class_of_an_image_of_rsna_is_its_text(tmp_path: Path) -> None:
    records, _ = records_of("xray_rsna_pneumonia", write(rsna().files, tmp_path))
    assert sorted(text.text for record in records.values() for text in record.texts) == [
        "Lung Opacity", "No Lung Opacity / Not Normal", "Normal",
    ]  # fmt: skip
    assert {record.modality_detail["view"] for record in records.values()} == {"pa"}


def test_an_image_of_nih_without_a_box_is_unlabelled_and_has_its_findings(tmp_path: Path) -> None:
    records, _ = records_of("xray_nih_chestxray14", write(nih().files, tmp_path))
    texts = {Path(name).stem: [text.text for text in record.texts] for name, record in records.items()}
    assert texts["00013118_008"] == ["Infiltration|Effusion"]
    assert all(record.absent == record.exhaustive == () for record in records.values())


def test_nih_without_its_lists_and_labels_is_split_by_patient(tmp_path: Path) -> None:
    files = {name: content for name, content in nih().files.items() if "Data_Entry" not in name and "list.txt" not in name}
    records, rejects = records_of("xray_nih_chestxray14", write(files, tmp_path))
    assert rejects == []
    assert {record.split_source for record in records.values()} == {"hash"}
    assert len({record.group for record in records.values()}) == 3


def test_the_masks_of_chexmask_are_a_machines_with_their_grade(tmp_path: Path) -> None:
    world = chexmask()
    records, rejects = records_of(world.source, write(world.files, tmp_path))
    regions = [region for record in records.values() for region in record.regions]
    assert {region.provenance for region in regions} == {"machine"}
    assert {region.score for region in regions} == {0.7, 0.8, 0.83, 0.9}
    assert all(record.absent == () for record in records.values())  # a machine that finds no heart proves nothing
    assert "Dice RCA (Mean) is 0.69; at least 0.7" in rejects[0].detail
    assert load_source(world.source).annotation == "machine"


def test_images_of_another_size_than_the_codes_of_chexmask_are_refused(tmp_path: Path) -> None:
    files = {name: content for name, content in chexmask().files.items() if "nih/" in name or "ChestX-Ray8" in name}
    files["nih/images_001/images/00000001_000.png"] = scene(1, colours=False, height=96, width=128)
    records, rejects = records_of("xray_chexmask", write(files, tmp_path))
    assert sorted(reject.reason for reject in rejects) == ["low_quality"] + ["size_mismatch"] * 3
    assert not any(record.regions for record in records.values())
