"""Tiny tables, JSON, XML, arrays, archives and sources; knows no mutations."""

import gzip
import io
import json
import tarfile
import zipfile

import numpy as np
from fuzz_seeds import HEAD, Seed, mask, noise, picture
from fuzz_seeds_dicom import SHAPE, as_bytes, ct_slice
from fuzz_seeds_volumes import MASKS_TOML
from scipy import sparse
from scipy.io import savemat

IMAGE = "images/a.png"
LABELS = 'labels = { Nodule = "lung nodule", Effusion = "pleural effusion" }\n'


def part(converter: str, files: str, options: str = "", labels: str = LABELS, modality: str = "xray") -> str:
    """A source of one part."""
    more = f"options = {{ {options} }}\n" if options else ""
    return HEAD + f'converter = "{converter}"\nmodality = "{modality}"\nfiles = {{ {files} }}\n{more}{labels}'


def table_seeds() -> list[Seed]:
    """Every kind of file that is no picture."""
    return [*_csv_seeds(), *_json_seeds(), *_xml_seeds(), *_array_seeds(), *_archive_seeds(), *_source_seeds()]


def _seed(kind: str, name: str, text: str | bytes, toml: str, family: str) -> Seed:
    content = text if isinstance(text, bytes) else text.encode()
    return Seed(kind, {IMAGE: picture(noise(), "PNG"), name: content}, name, toml, family)


def _csv_seeds() -> list[Seed]:
    boxes = "file,finding,x,y,w,h\na.png,Nodule,5,6,10,12\na.png,Effusion,1,1,5,5\n"
    runs = "file,rle,finding\na.png,101 5 121 5 141 5,Nodule\na.png,-1,Effusion\n"
    about = "id,age,sex,text\na,44,F,lungs are clear\n"
    words = "file,findings,impression\na.png,no nodule is seen,clear\n"
    questions = "file,q,a\na.png,what is this?,a nodule\n"
    yolo = "0 0.25 0.5 0.1 0.2\n1 0.1 0.25 0.5 0.25 0.5 0.5 0.1 0.5\n"
    image = 'image = "images/{case}.png"'
    box = 'columns = { image = "file", label = "finding", box = ["x", "y", "w", "h"] }'
    described = part("mask_images", f'{image}, about = "about.csv"', 'about_key = "id"', labels="").replace(
        "[[part]]\n", '[[part]]\npatient = "{id}"\n')  # fmt: skip
    return [
        _seed("csv of boxes", "t.csv", boxes, part("box_table", f'{image}, table = "t.csv"', box), "csv"),
        _seed("csv of run lengths", "t.csv", runs, part(
            "rle_table", f'{image}, table = "t.csv"', 'columns = { image = "file", code = "rle", label = "finding" }'), "csv"),
        _seed("csv about cases", "about.csv", about, described, "csv"),
        _seed("csv of reports", "t.csv", words, part(
            "text_table", f'{image}, table = "t.csv"',
            'columns = { image = "file" }, rows = [{ kind = "report", columns = ["findings", "impression"] }]', ""), "csv"),
        _seed("csv of questions", "q.csv", questions, part(
            "qa_json", f'{image}, questions = "q.csv"', 'columns = { image = "file", question = "q", answer = "a" }', ""),
        "csv"), _seed("txt of YOLO", "labels/a.txt", yolo, part(
            "yolo", f'{image}, labels = "labels/{{case}}.txt"', 'names = ["Nodule", "Effusion"]'), "csv"),
    ]  # fmt: skip


def _json_seeds() -> list[Seed]:
    image = 'image = "images/{case}.png"'
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "width": 30, "height": 20}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 6, 10, 12], "segmentation": [], "area": 120, "iscrowd": 0},
            {"id": 2, "image_id": 1, "category_id": 2, "bbox": [5, 6, 10, 8], "segmentation": [[5, 6, 15, 6, 15, 14, 5, 14]]},
            {"id": 3, "image_id": 1, "category_id": 1, "bbox": [0, 0, 5, 20], "iscrowd": 1,
             "segmentation": {"size": [20, 30], "counts": [0, 100, 500]}},
        ],
        "categories": [{"id": 1, "name": "Nodule"}, {"id": 2, "name": "Effusion"}],
    }  # fmt: skip
    boxes = [{"file": "a.png", "labels": ["Nodule", "Effusion"], "boxes": [[5, 6, 20, 18], [1, 2, 9, 9]],
              "rings": [[5, 6, 20, 6, 20, 18, 5, 18], []]}]  # fmt: skip
    lines = [{"file": "a.png", "q": "what is this?", "a": "a nodule"}, {"file": "a.png", "q": "where?", "a": "left"}]
    questions = 'columns = { image = "file", question = "q", answer = "a" }'
    return [
        _seed("json of COCO", "coco.json", json.dumps(coco), part("coco", f'{image}, annotations = "coco.json"'), "json"),
        _seed("json of boxes", "b.json", json.dumps(boxes), part(
            "box_json", f'{image}, annotations = "b.json"',
            'columns = { image = "file", label = "labels", box = "boxes", polygon = "rings" }, format = "xyxy"'), "json"),
        _seed("json of questions", "q.json", json.dumps(lines), part(
            "qa_json", f'{image}, questions = "q.json"', questions, ""), "json"),
        _seed("json lines", "q.jsonl", "\n".join(map(json.dumps, lines)), part(
            "qa_json", f'{image}, questions = "q.jsonl"', questions, ""), "json"),
    ]  # fmt: skip


def _xml_seeds() -> list[Seed]:
    voc = ("<annotation><size><width>30</width><height>20</height></size><object><name>Nodule</name><truncated>1</truncated>"
           "<bndbox><xmin>6</xmin><ymin>7</ymin><xmax>15</xmax><ymax>18</ymax></bndbox></object></annotation>")  # fmt: skip
    corners = "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in ((5, 6), (20, 6), (20, 18), (5, 18)))
    aperio = ('<?xml version="1.0"?><Annotations MicronsPerPixel="0.252"><Annotation Id="1" Name="Nodule"><Attributes/>'
              f'<Regions><Region Type="0" NegativeROA="0"><Vertices>{corners}</Vertices></Region></Regions>'
              "</Annotation></Annotations>")  # fmt: skip
    points = "".join(
        f'<Coordinate Order="{n}" X="{x}" Y="{y}"/>' for n, (x, y) in enumerate(((5, 6), (20, 6), (20, 18), (5, 18)))
    )
    asap = ('<?xml version="1.0"?><ASAP_Annotations><Annotations><Annotation Name="a" Type="Polygon" PartOfGroup="Nodule">'
            f"<Coordinates>{points}</Coordinates></Annotation></Annotations></ASAP_Annotations>")  # fmt: skip
    image = 'image = "images/{case}.png"'
    polygons = part("polygons_xml", f'{image}, polygons = "{{case}}.xml"', 'label_from = "annotation"')
    seeds = [
        _seed("xml of VOC", "a.xml", voc, part("voc", f'{image}, annotation = "{{case}}.xml"'), "xml"),
        _seed("xml of Aperio", "a.xml", aperio, polygons, "xml"),
        _seed("xml of ASAP", "a.xml", asap, polygons.replace('"annotation"', '"group"'), "xml"),
    ]
    edges = "".join(f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for x, y in ((2, 2), (7, 2), (7, 8), (2, 8)))
    rois = "".join(f"<roi><imageZposition>{50 + 3 * k}</imageZposition><imageSOP_UID>1.2.3.{k + 1}</imageSOP_UID>"
                   f"<inclusion>TRUE</inclusion>{edges}</roi>" for k in range(2))  # fmt: skip
    names = "subtlety internalStructure calcification sphericity margin lobulation spiculation texture malignancy"
    rated = "".join(f"<{name}>3</{name}>" for name in names.split())
    reading = ('<?xml version="1.0"?><LidcReadMessage uid="1" xmlns="http://www.nih.gov"><ResponseHeader><SeriesInstanceUid>'
               "1.2.3.4</SeriesInstanceUid></ResponseHeader><readingSession><unblindedReadNodule><noduleID>1</noduleID>"
               f"<characteristics>{rated}</characteristics>{rois}</unblindedReadNodule></readingSession>"
               "</LidcReadMessage>")  # fmt: skip
    slices = {f"L1/t/s/{k}.dcm": as_bytes(ct_slice(k)) for k in range(SHAPE[0])}
    lidc = part("lidc_xml", 'series = "{patient}/{study}/{series}/*.dcm", marks = "**/*.xml"', "",
                'labels = { nodule = "lung nodule" }\n', "ct")  # fmt: skip
    seeds.append(Seed("xml of LIDC", {**slices, "L1/1.xml": reading.encode()}, "L1/1.xml", lidc, "xml"))
    return seeds


def _array_seeds() -> list[Seed]:
    def npy(array: np.ndarray) -> bytes:
        file = io.BytesIO()
        np.save(file, array)
        return file.getvalue()

    stack = np.random.default_rng(0).integers(0, 255, (2, 16, 20, 3)).astype(np.uint8)
    marks = np.zeros((2, 16, 20, 3), np.int16)
    marks[0, 2:6, 3:9, 0], marks[1, 8:12, 4:8, 1] = 1, 7
    labels = '[part.labels]\n"0" = "nucleus"\n"1" = "epithelial nucleus"\n"2" = "skip"\n'
    stacks = part("npy_stacks", 'image = "images.npy", mask = "masks.npy"',
                  'axes = "nhwc", mask_axes = "nhwc", kind = "instance_layers"', labels, "histopathology")  # fmt: skip
    single = part("npy_stacks", 'image = "images/{case}.png", mask = "{case}.npz"', 'mask_key = "m"',
                  '[part.labels]\n"255" = "nucleus"\n', "histopathology")  # fmt: skip
    flat = part("npy_stacks", 'image = "images/{case}.png", mask = "{case}.{shape}.npz"', "sparse = true, kind = \"layers\"",
                '[part.labels]\n"0" = "nucleus"\n', "histopathology")  # fmt: skip
    packed, layers, matlab = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.savez_compressed(packed, m=mask())
    sparse.save_npz(layers, sparse.csr_matrix((mask() > 0).reshape(1, -1)))
    savemat(matlab, {"m": mask()})
    both = {"images.npy": npy(stack), "masks.npy": npy(marks)}
    return [
        Seed("npy images", both, "images.npy", stacks, "npy"),
        Seed("npy masks", both, "masks.npy", stacks, "npy"),
        _seed("npz masks", "a.npz", packed.getvalue(), single, "zip"),
        _seed("npz of sparse layers", "a.(1, 20, 30).npz", layers.getvalue(), flat, "zip"),
        _seed(
            "mat masks",
            "a.mat",
            b"MATLAB 5.0 MAT-file".ljust(116) + matlab.getvalue()[116:],
            single.replace(".npz", ".mat"),
            "",
        ),
    ]


def _archive_seeds() -> list[Seed]:
    files = {IMAGE: picture(noise(), "PNG"), "masks/a.png": picture(mask(), "PNG")}
    zipped, tarred, packed = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    with tarfile.open(fileobj=tarred, mode="w") as bundle:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            bundle.addfile(member, io.BytesIO(content))
    packed.write(gzip.compress(tarred.getvalue(), mtime=0))
    return [Seed(name.partition(".")[2], {name: made.getvalue()}, name, MASKS_TOML, family, name)
            for name, made, family in (("a.zip", zipped, "zip"), ("a.tar", tarred, "tar"), ("a.tar.gz", packed,
"tgz"))]  # fmt: skip


def _source_seeds() -> list[Seed]:
    files = {IMAGE: picture(noise(), "PNG"), "masks/a.png": picture(mask(), "PNG"), "source.toml": MASKS_TOML.encode()}
    return [Seed("source toml", files, "source.toml", MASKS_TOML, "toml")]
