"""Sources of polygons and of boxes by several readers in their published layouts, generated tiny: counts, boxes, traps."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from medglip.curate import convert, load_source
from medglip.curate.engine import found_tasks, run
from medglip.records import ImageRecord, Picture, Reject
from medglip.store.checks.validate import validate
from medglip.store.matrix import Matrix

NUCLEUS = "systemic.nucleus"
Square = tuple[float, float, float, float]


def tissue(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (64, 80, 3)).astype(np.uint8)).save(path)


def region(square: Square, *, negative: int = 0) -> str:
    x0, y0, x1, y1 = square
    corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    vertices = "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in corners)
    return f'<Region Id="1" Type="0" Text="" NegativeROA="{negative}"><Attributes/><Vertices>{vertices}</Vertices></Region>'


def layer(attribute: str, *regions: str) -> str:
    named = f'<Attributes><Attribute Name="{attribute}" Id="0" Value=""/></Attributes>'
    drawn = f"<Regions><RegionAttributeHeaders/>{''.join(regions)}</Regions>"
    return f'<Annotation Id="1" Name="" Type="4">{named}{drawn}</Annotation>'


def aperio(path: Path, *layers: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'<Annotations MicronsPerPixel="0.252000">{"".join(layers)}</Annotations>')


def xray(path: Path, photometric: str = "MONOCHROME2", seed: int = 0) -> None:
    """A DICOM X-ray of 60 rows and 50 columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = DigitalXRayImageStorageForPresentation, f"1.2.{seed + 1}"
    data.Modality, data.PatientID = "DX", ""
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, photometric, 0
    data.Rows, data.Columns, data.BitsAllocated, data.BitsStored, data.HighBit = 60, 50, 16, 12, 11
    data.PixelData = np.random.default_rng(seed).integers(0, 4096, (60, 50)).astype(np.uint16).tobytes()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.save_as(path, enforce_file_format=True)


def monuseg(folder: Path) -> None:
    train, test = "MoNuSeg 2018 Training Data", "MoNuSegTestData"
    touching = [region((10, 10, 20, 20)), region((20, 10, 30, 20)), region((40.5, 30.5, 44.5, 36.5))]
    for name in ("TCGA-A7-A13E-01Z-00-DX1", "TCGA-A7-A13E-01Z-00-DX2"):
        tissue(folder / train / "Tissue Images" / f"{name}.tif", len(name))
        aperio(folder / train / "Annotations" / f"{name}.xml", layer("Description", *touching))
    tissue(folder / test / "TCGA-2Z-A9J9-01A-01-TS1.tif", 7)
    aperio(folder / test / "TCGA-2Z-A9J9-01A-01-TS1.xml", layer("Description", region((1, 2, 9, 8))))
    (folder / train / "Tissue Images/._TCGA-A7-A13E-01Z-00-DX1.tif").write_bytes(b"debris")


def monusac(folder: Path) -> None:
    for where, slide in (
        ("MoNuSAC_images_and_annotations", "TCGA-5P-A9K0-01Z-00-DX1"),
        ("MoNuSAC Testing Data and Annotations", "TCGA-2Z-A9JG-01Z-00-DX1"),
    ):  # fmt: skip
        stem = folder / where / slide / f"{slide}_1"
        tissue(stem.with_suffix(".tif"), len(where))
        stem.with_suffix(".svs").write_bytes(b"the same picture again")
        layers = [
            layer("Epithelial", region((10, 10, 20, 20))),
            layer("Lymphocyte", region((30, 30, 36, 38)), region((50, 5, 58, 9))),
        ]
        aperio(stem.with_suffix(".xml"), *layers, *([layer("Ambiguous", region((60, 40, 76, 60)))] if "Test" in where else []))


ONE, TWO, THREE, FOUR = (f"{digit}" * 32 for digit in "1234")
KAGGLE = [
    f"{ONE},Cardiomegaly,3,R8,10,20,30,40", f"{ONE},Cardiomegaly,3,R9,12,20,32,40", f"{ONE},Nodule/Mass,8,R10,5,5,15,12",
    f"{TWO},No finding,14,R1,,,,", f"{TWO},No finding,14,R2,,,,", f"{TWO},No finding,14,R3,,,,",
    f"{THREE},Pleural effusion,10,R8,1,30,11,50", f"{THREE},No finding,14,R9,,,,", f"{THREE},No finding,14,R10,,,,",
]  # fmt: skip


def vindr(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate((ONE, TWO, THREE)):
        xray(folder / f"train/{name}.dicom", "MONOCHROME1" if seed else "MONOCHROME2", seed)
    xray(folder / f"test/{FOUR}.dicom", seed=9)
    head = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max\n"
    (folder / "train.csv").write_text(head + "\n".join(KAGGLE) + "\n")
    (folder / "sample_submission.csv").write_text("image_id,PredictionString\n")


def vindr_physionet(folder: Path) -> None:
    vindr(folder)
    (folder / "train.csv").unlink()
    (folder / "annotations").mkdir()
    rows = [",".join([*row.split(",")[:1], row.split(",")[3], row.split(",")[1], *row.split(",")[4:]]) for row in KAGGLE]
    rows.append(f"{ONE},R8,Rib fracture,40,5,48,12")
    (folder / "annotations/annotations_train.csv").write_text(
        "image_id,rad_id,class_name,x_min,y_min,x_max,y_max\n" + "\n".join(rows)
    )
    (folder / "annotations/annotations_test.csv").write_text(
        f"image_id,class_name,x_min,y_min,x_max,y_max\n{FOUR},Lung cavity,5,6,20,30\n{FOUR},Pneumothorax,30,6,40,30\n"
    )
    (folder / "annotations/image_labels_train.csv").write_text("image_id,rad_id\n")


MAMMO = "study_id,series_id,image_id,laterality,view_position,height,width,breast_birads,breast_density,finding_categories," \
        "finding_birads,xmin,ymin,xmax,ymax,split\n"  # fmt: skip


def vindr_mammo(folder: Path) -> None:
    for seed, (study, image) in enumerate(((ONE, TWO), (ONE, THREE), (FOUR, FOUR))):
        xray(folder / f"images/{study}/{image}.dicom", seed=seed)
    (folder / "finding_annotations.csv").write_text(
        MAMMO + f"{ONE},{ONE},{TWO},L,CC,60,50,BI-RADS 4,DENSITY C,\"['Mass', 'Skin Retraction']\","
        "BI-RADS 4,5.5,6.5,20.5,30,training\n"
        + f"{ONE},{ONE},{TWO},L,CC,60,50,BI-RADS 4,DENSITY C,['Global Asymmetry'],BI-RADS 3,30,6,40,30,training\n"
        + f"{ONE},{ONE},{THREE},R,MLO,60,50,BI-RADS 1,DENSITY C,['No Finding'],,,,,,training\n"
        + f"{FOUR},{FOUR},{FOUR},R,CC,60,50,BI-RADS 5,DENSITY B,['Suspicious Calcification'],BI-RADS 5,1,2,11,12,test\n"
    )
    (folder / "breast-level_annotations.csv").write_text("study_id,series_id,image_id\n")


LAYOUTS = {
    "path_monuseg": (monuseg, 3, {NUCLEUS: 7}),
    "path_monusac_xml": (monusac, 2, {f"{NUCLEUS}.epithelial": 2, f"{NUCLEUS}.lymphocyte": 4, f"{NUCLEUS}.ambiguous": 1}),
    "xray_vindr_cxr": (vindr, 3, dict.fromkeys(
        ("thorax.heart.cardiomegaly", "thorax.lung.nodule_or_mass", "thorax.pleura.effusion"), 1)),
    "xray_vindr_cxr_physionet": (vindr_physionet, 4, {
        "thorax.heart.cardiomegaly": 1, "thorax.lung.nodule_or_mass": 1, "thorax.pleura.effusion": 1, "thorax.rib.fracture": 1,
        "thorax.lung.cavity": 1, "thorax.pleura.pneumothorax": 1,
    }),
    "mammo_vindr": (vindr_mammo, 3, {
        "thorax.breast.tumor@left": 1, "thorax.breast.skin_retraction@left": 1, "thorax.breast.asymmetry@left": 1,
        "thorax.breast.calcification.suspicious@right": 1,
    }),
}  # fmt: skip


def records_of(source: str, folder: Path) -> tuple[list[ImageRecord], list[Reject]]:
    tasks, rejects = found_tasks(load_source(source), folder)
    items = [item for task in tasks for item in run(task)]
    records = [item.record for item in items if isinstance(item, Picture)]
    return records, [*rejects, *(item for item in items if isinstance(item, Reject))]


@pytest.mark.parametrize("source", LAYOUTS)
def test_a_published_layout_gives_its_counts(source: str, tmp_path: Path) -> None:
    write, images, concepts = LAYOUTS[source]
    write(tmp_path)
    records, rejects = records_of(source, tmp_path)
    assert rejects == []
    assert len(records) == images
    assert Counter(region.concept for record in records for region in record.regions) == concepts
    matrix = Matrix({source: load_source(source).matrix})
    for record in records:
        shown = {region.concept for region in record.regions}
        states = {matrix.state(source, record.modality, concept) for concept in shown}
        assert states <= {"exhaustive", "possible"}
        assert shown.isdisjoint(record.absent)
        assert all(matrix.is_negative(record, concept) for concept in record.absent)


@pytest.mark.parametrize("source", LAYOUTS)
def test_its_dataset_validates_clean(source: str, tmp_path: Path) -> None:
    write, images, concepts = LAYOUTS[source]
    write(tmp_path / "in")
    done = convert(source, tmp_path / "in", tmp_path / "dataset")
    assert (done.images, done.regions) == (images, sum(concepts.values()))
    assert [problem for problem in validate(tmp_path / "dataset") if problem.level == "error"] == []


def test_nuclei_that_touch_stay_apart_and_slides_of_a_patient_together(tmp_path: Path) -> None:
    monuseg(tmp_path)
    records, _ = records_of("path_monuseg", tmp_path)
    train = [record for record in records if record.split == "train"]
    assert [region.box_xyxy for region in train[0].regions] == [(10, 10, 20, 20), (20, 10, 30, 20), (40, 30, 44, 36)]
    assert len({record.group for record in train}) == 1
    assert [(record.split, record.split_source, record.height) for record in records].count(("test", "official", 64)) == 1


def test_the_class_of_a_nucleus_is_its_attribute_and_an_image_without_a_tif_is_listed(tmp_path: Path) -> None:
    monusac(tmp_path)
    records, _ = records_of("path_monusac_xml", tmp_path)
    boxes = {(record.split, region.concept): region.box_xyxy for record in records for region in record.regions}
    assert boxes["train", f"{NUCLEUS}.epithelial"] == (10, 10, 20, 20)
    assert boxes["test", f"{NUCLEUS}.ambiguous"] == (60, 40, 76, 60)
    assert all({f"{NUCLEUS}.neutrophil", f"{NUCLEUS}.macrophage"} == set(record.absent) for record in records)
    next(tmp_path.rglob("TCGA-2Z*.tif")).unlink()
    records, (reject,) = records_of("path_monusac_xml", tmp_path)
    assert (len(records), reject.reason) == (1, "orphan")


def test_readers_of_an_x_ray_agree_in_part_and_all_of_them_count(tmp_path: Path) -> None:
    vindr(tmp_path)
    records, _ = records_of("xray_vindr_cxr", tmp_path)
    shown = {
        record.origin.file[6]: {r.concept: (r.box_xyxy, r.attributes["agreement"]) for r in record.regions}
        for record in records
    }
    assert shown == {
        "1": {"thorax.heart.cardiomegaly": ((11, 20, 31, 40), 0.667), "thorax.lung.nodule_or_mass": ((5, 5, 15, 12), 0.333)},
        "2": {},
        "3": {"thorax.pleura.effusion": ((1, 30, 11, 50), 0.333)},  # two of three readers found nothing
    }
    assert [len(record.absent) for record in records] == [12, 14, 13]
    assert [record.intensity.inverted for record in records] == [False, True, True]
    reader_boxes = records[0].regions[0].attributes["reader_boxes"]
    assert reader_boxes == "R8 10.0 20.0 30.0 40.0; R9 12.0 20.0 32.0 40.0"


def test_the_test_part_of_physionet_has_no_readers(tmp_path: Path) -> None:
    vindr_physionet(tmp_path)
    records, _ = records_of("xray_vindr_cxr_physionet", tmp_path)
    (test,) = [record for record in records if record.split == "test"]
    assert [(region.box_xyxy, region.attributes) for region in test.regions] == [((5, 6, 20, 30), {}), ((30, 6, 40, 30), {})]
    assert len(test.absent) == 20


def test_a_mammogram_with_two_findings_in_one_box(tmp_path: Path) -> None:
    vindr_mammo(tmp_path)
    records, _ = records_of("mammo_vindr", tmp_path)
    first = next(record for record in records if len(record.regions) == 3)
    assert [region.box_xyxy for region in first.regions].count((5.5, 6.5, 20.5, 30)) == 2
    assert [region.attributes["birads"] for region in first.regions] == ["4", "4", "3"]
    assert (first.split, first.modality_detail["view"]) == ("train", "CC")
    groups = {(record.split, record.group) for record in records}
    assert len(groups) == 2  # both images of an exam together
    assert all(record.absent == () for record in records)
