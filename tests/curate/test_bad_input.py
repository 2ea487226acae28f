"""What becomes of each kind of bad input, by the command line: the table of docs/reference/bad-input.md.

Kinds that other tests hold, and are not repeated here:

===========================================  ==========================================================================
mask without image, duplicate stems          converters/test_mask_images.py: test_orphans_duplicates_and_broken_files...
missing mask against empty mask              converters/test_mask_images.py: test_an_empty_mask_is_a_negative...
RGB mask where numbers are expected          converters/test_mask_images.py: test_numbers_are_classes_also_through_a_palette
unknown value, colour, finding               converters/test_label_volumes.py, test_mask_images.py, test_box_table.py
4-D where 3-D is expected, cut off, shifted  converters/test_label_volumes.py: test_bad_input_is_one_reject_with_its_reason
label volume of background alone             converters/test_label_volumes.py: test_a_volume_without_any_label_is_a_negative
BOM, CRLF, quotes, blanks, ragged header     converters/test_box_table.py, test_rle_table.py: test_tables_as_people_write_them
header of NIH, leading space of SIIM         converters/test_box_table.py, test_rle_table.py: test_the_layout_of_siim_acr
traversal, links, devices, bombs, passwords  curate/inputs/test_archives.py
archive as input, the same bytes as folders  curate/inputs/test_converted.py
__MACOSX, ._*, Thumbs.db                     curate/test_layout.py: test_debris_is_left_out_and_order_is_fixed
read-only folder, disk full, of the store    store/test_write.py
slides of tiles                              imaging/test_tiles.py
licences in an export for everybody          exports/test_public.py
===========================================  ==========================================================================
"""

import hashlib
import json
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import ComputedRadiographyImageStorage, RLELossless
from typer.testing import CliRunner

from medglip import store
from medglip.cli import app
from medglip.errors import InputError, MedglipError
from medglip.imaging.dicom import read_dicom, read_header
from medglip.imaging.nifti import read_volume

HEAD = 'name = "tiny"\ntitle = "Tiny"\nlicence = "CC0-1.0"\nnames = "public"\n[[part]]\n'
MASKS = """converter = "mask_images"
modality = "endoscopy"
files = { image = "images/{case}.{ending:png|jpg|tif}", mask = "masks/{case}.{mask_ending:png|tif}" }
labels = { "255" = "colorectal polyp" }
"""
VOLUMES = """converter = "label_volumes"
modality = "ct"
files = { image = "{case}_ct.nii.gz", labels = "{case}_seg.nii.gz" }
labels = { "1" = "liver", "2" = "spleen" }
"""
TABLE = """converter = "box_table"
modality = "xray"
patient = "{patientid}"
files = { image = "images/{case}.png", table = "boxes.csv", about = "about.csv" }
options = { columns = { image = "file", label = "finding", box = ["x", "y", "w", "h"] }, about_key = "file" }
labels = { Nodule = "lung nodule" }
"""
Ran = tuple[int, str]


def medglip(*words: object) -> Ran:
    """Exit code and what was said, as the program `medglip` has them."""
    done = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(done.exception, MedglipError):
        return done.exception.exit_code, str(done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


@pytest.fixture
def convert(tmp_path: Path) -> Callable[..., Ran]:
    """``convert(part)`` runs `medglip convert` over the folder ``in`` into the dataset ``d``."""

    def run(part: str = MASKS, given: str = "in") -> Ran:
        (tmp_path / "tiny.toml").write_text(HEAD + part)
        return medglip("convert", tmp_path / "tiny.toml", tmp_path / given, tmp_path / "d")

    return run


def pair(folder: Path, name: str = "a", seed: int = 0, mask_name: str = "") -> None:
    """A picture and its mask."""
    pixels = np.random.default_rng(seed).integers(0, 255, (40, 60)).astype(np.uint8)
    mask = np.zeros((40, 60), np.uint8)
    mask[6:18, 5:20] = 255
    for kind, array, stem in (("images", pixels, name), ("masks", mask, mask_name or name)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(folder / kind / f"{stem}.png")


def volume(folder: Path, shape: tuple[int, int, int] = (10, 8, 4), value: int = 1, kind: type = np.uint8) -> None:
    """A CT and its labels."""
    folder.mkdir(exist_ok=True)
    image = np.random.default_rng(0).integers(-900, 90, shape).astype(np.int16)
    labels = np.zeros(shape, kind)
    labels[2:6, 2:6, 0] = value
    for role, array in (("ct", image), ("seg", labels)):
        nibabel.save(nibabel.Nifti1Image(array, np.diag([-1.0, -1.0, 3.0, 1.0])), folder / f"p1_{role}.nii.gz")


def reasons(tmp_path: Path) -> list[str]:
    return sorted(store.open(tmp_path / "d").rejects["reason"])


@pytest.mark.parametrize(("make", "words"), [("none", "is not there"), ("empty", "holds no file"), ("debris", "holds no file"),
                                             ("other", "holds nothing of the source 'tiny'")])  # fmt: skip
def test_without_a_file_of_the_source_it_ends_with_2(
    convert: Callable[..., Ran], tmp_path: Path, make: str, words: str
) -> None:
    if make != "none":
        (tmp_path / "in").mkdir()
    if make in ("debris", "other"):
        (tmp_path / "in" / ("._a.png" if make == "debris" else "notes.txt")).write_bytes(b"x")
    code, said = convert()
    assert code == 2
    assert words in said
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"no picture at all", b"\0" * 500])
def test_one_broken_file_of_many_costs_itself_alone_and_ends_with_3(
    convert: Callable[..., Ran], tmp_path: Path, content: bytes
) -> None:
    for number in range(12):
        pair(tmp_path / "in", f"p{number}", number)
    (tmp_path / "in/images/p7.png").write_bytes(content)
    code, said = convert()
    assert code == 3
    assert "images/p7.png" in said
    dataset = store.open(tmp_path / "d")
    assert len(dataset) == 11
    assert list(dataset.rejects["file"]) == ["images/p7.png"]
    assert list(dataset.rejects["reason"]) == ["unreadable_file"]


@pytest.mark.parametrize(
    "name", ["benign (1)", "Läsion", "病変 1", "a.b.c", "x" * 200, "it's", "100%", "a&b;c", "-rf", "{case}"]
)
def test_any_name_is_a_name(convert: Callable[..., Ran], tmp_path: Path, name: str) -> None:
    pair(tmp_path / "in", name)
    assert convert()[0] == 0
    (record,) = store.open(tmp_path / "d").records()
    assert record.origin.file == f"images/{name}.png"
    assert record.regions[0].box_xyxy == (5, 6, 20, 18)


def test_endings_may_be_in_capitals(convert: Callable[..., Ran], tmp_path: Path) -> None:
    pair(tmp_path / "in")
    for kind in ("images", "masks"):
        (tmp_path / "in" / kind / "a.png").rename(tmp_path / "in" / kind / "a.PNG")
    assert convert()[0] == 0
    assert len(next(iter(store.open(tmp_path / "d").records())).regions) == 1


def test_an_accent_written_in_two_ways_is_never_a_negative(convert: Callable[..., Ran], tmp_path: Path) -> None:
    """Macs write é as two characters: mask and picture meet, or both are listed; the picture is not taken for healthy."""
    one, two = (unicodedata.normalize(form, "Läsion é") for form in ("NFC", "NFD"))
    pair(tmp_path / "in", one, mask_name=two)
    code, _ = convert(MASKS + 'exhaustive = "all"\n')
    (record,) = store.open(tmp_path / "d").records()
    assert (code, len(record.regions)) == (0, 1) or (code == 3 and record.exhaustive == () and "orphan" in reasons(tmp_path))
    assert record.absent == ()


def test_a_loop_of_links_is_not_followed(convert: Callable[..., Ran], tmp_path: Path) -> None:
    pair(tmp_path / "in")
    (tmp_path / "in/images/again").symlink_to(tmp_path / "in")
    (tmp_path / "in/self.png").symlink_to(tmp_path / "in/self.png")
    assert convert()[0] == 0
    assert len(store.open(tmp_path / "d")) == 1


def test_a_dangling_link_is_a_broken_file(convert: Callable[..., Ran], tmp_path: Path) -> None:
    pair(tmp_path / "in")
    (tmp_path / "in/images/b.png").symlink_to(tmp_path / "nowhere.png")
    assert convert()[0] == 3
    assert reasons(tmp_path) == ["unreadable_file"]


def test_ids_of_patients_stay_as_they_are_written(convert: Callable[..., Ran], tmp_path: Path) -> None:
    """A table that went through a spreadsheet: 7.0, 007 and 1e3 are three patients, and no two of them are one number."""
    ids = ["7.0", "007", "1e3", "1000", "7.0"]
    for number in range(len(ids)):
        pair(tmp_path / "in", f"p{number}", number)
    rows = "".join(f"p{number}.png,{one}\n" for number, one in enumerate(ids))
    (tmp_path / "in/about.csv").write_text("file,patientId\n" + rows)
    (tmp_path / "in/boxes.csv").write_text("file,finding,x,y,w,h\n" + "".join(f"p{n}.png,Nodule,5,6,10,12\n" for n in range(5)))
    assert convert(TABLE)[0] == 0
    images = store.open(tmp_path / "d").images
    assert images["group"].nunique() == 4
    assert (images.groupby("group")["split"].nunique() == 1).all()


@pytest.mark.parametrize("numbers", ["nan,6,10,12", "5,inf,10,12", "1e308,6,1e308,12", "5,6,,12", "5,6,abc,12", "5,6,-10,12",
                                     "5,6,0,0", "500,600,10,12", "5;6,6,10,12"])  # fmt: skip
def test_numbers_that_make_no_box_are_listed_by_row(convert: Callable[..., Ran], tmp_path: Path, numbers: str) -> None:
    pair(tmp_path / "in")
    (tmp_path / "in/about.csv").write_text("file,patientId\na.png,1\n")
    (tmp_path / "in/boxes.csv").write_text(f"file,finding,x,y,w,h\na.png,Nodule,{numbers}\n")
    code, said = convert(TABLE)
    assert code == 3
    assert "boxes.csv row 1" in said.replace("\n", " ")
    assert reasons(tmp_path) in (["bad_box"], ["box_out_of_image"])
    assert next(iter(store.open(tmp_path / "d").records())).regions == ()


def test_a_volume_of_one_slice_is_one_picture(convert: Callable[..., Ran], tmp_path: Path) -> None:
    volume(tmp_path / "in", (10, 8, 1))
    assert convert(VOLUMES)[0] == 0
    dataset = store.open(tmp_path / "d")
    assert len(dataset) == 1
    assert len(next(iter(dataset.records())).regions) == 1


@pytest.mark.parametrize(("value", "kind"), [(300, np.uint16), (70_000, np.int32), (2**31 - 1, np.int32)])
def test_large_label_numbers_are_named_and_not_wrapped(
    convert: Callable[..., Ran], tmp_path: Path, value: int, kind: type
) -> None:
    volume(tmp_path / "in", value=value, kind=kind)
    code, said = convert(VOLUMES)
    assert code == 3
    words = " ".join(said.split())
    assert repr(str(value)) in words
    assert "16 voxels" in words
    assert "p1_seg.nii.gz" in words
    assert reasons(tmp_path) == ["unknown_label"]


def test_object_numbers_above_65535_are_objects_of_their_own(convert: Callable[..., Ran], tmp_path: Path) -> None:
    pair(tmp_path / "in")
    numbers = np.zeros((40, 60), np.int32)
    numbers[5:10, 5:10], numbers[5:10, 10:20], numbers[20:30, 30:40] = 3, 65_539, 131_075  # equal in 16 bits
    (tmp_path / "in/masks/a.png").unlink()
    Image.fromarray(numbers).save(tmp_path / "in/masks/a.tif")
    part = (
        MASKS.replace("labels =", 'options = { kind = "instances", label = "gland" }\nlabels =')
        .replace('"255" = "colorectal polyp"', 'gland = "gland"')
        .replace("endoscopy", "histopathology")
    )
    assert convert(part)[0] == 0
    (record,) = store.open(tmp_path / "d").records()
    assert sorted(region.box_xyxy for region in record.regions) == [(5, 5, 10, 10), (10, 5, 20, 10), (30, 20, 40, 30)]


def test_a_picture_too_large_for_memory_is_refused_with_advice(
    convert: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair(tmp_path / "in", "a")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    code, said = convert()
    assert code == 3
    assert "medglip.imaging.tiles" in said
    assert reasons(tmp_path) == ["too_large"]
    assert len(store.open(tmp_path / "d")) == 0


@pytest.mark.parametrize("licence", [None, ""])
def test_a_source_without_a_licence_does_not_load(tmp_path: Path, licence: str | None) -> None:
    pair(tmp_path / "in")
    line = "" if licence is None else f'licence = "{licence}"\n'
    (tmp_path / "tiny.toml").write_text((HEAD + MASKS).replace('licence = "CC0-1.0"\n', line))
    code, said = medglip("convert", tmp_path / "tiny.toml", tmp_path / "in", tmp_path / "d")
    assert code == 2
    assert "'licence' is missing or empty" in said
    assert not (tmp_path / "d").exists()


def test_a_licence_that_nobody_knows_is_kept_at_home(convert: Callable[..., Ran], tmp_path: Path) -> None:
    pair(tmp_path / "in")
    (tmp_path / "tiny.toml").write_text((HEAD + MASKS).replace("CC0-1.0", "unknown"))
    assert medglip("convert", tmp_path / "tiny.toml", tmp_path / "in", tmp_path / "d")[0] == 0
    code, said = medglip("export", tmp_path / "d", tmp_path / "out", "--to", "coco", "--public")
    assert code == 2
    assert "the licence 'unknown'" in said
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_ends_with_2(convert: Callable[..., Ran], tmp_path: Path) -> None:
    pair(tmp_path / "in")
    (tmp_path / "d").write_text("a file where the dataset should be")
    code, said = convert()
    assert code == 2
    assert str(tmp_path / "d") in said.replace("\n", "")
    assert (tmp_path / "d").read_text() == "a file where the dataset should be"


_FULL = """
import resource, sys
sys.argv = ["medglip", *sys.argv[2:]]
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
from medglip.cli import main
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such limits there")
def test_a_full_disk_ends_with_2_and_the_next_run_ends_the_same(tmp_path: Path) -> None:
    """A limit on the size of files does what a full disk does: the system refuses to write on."""
    for number in range(30):
        pair(tmp_path / "in", f"p{number:02}", number)
    (tmp_path / "tiny.toml").write_text(HEAD + MASKS)
    words = ["convert", str(tmp_path / "tiny.toml"), str(tmp_path / "in"), str(tmp_path / "d")]
    done = subprocess.run([sys.executable, "-c", _FULL, "-", *words], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "cannot be written" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert medglip(*words)[0] == 0
    assert medglip(*words[:3], tmp_path / "whole")[0] == 0
    assert bytes_of(tmp_path / "d") == bytes_of(tmp_path / "whole")


def bytes_of(dataset: Path) -> dict[str, str]:
    """Hash of every file, but for the description and the pages, which name the folder."""
    return {
        path.relative_to(dataset).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(dataset.rglob("*"))
        if path.is_file() and path.name not in ("croissant.json", "quality.html")
    }


# --- what the fuzz run found: each of these ended the program, or asked for more memory than there is ---


def header_of(path: Path, text: bytes) -> Path:
    path.write_bytes(text)
    return path


@pytest.mark.parametrize("text", [
    b"ObjectType = Image\nNDims = 99999 99999 99999\nDimSize = 2 2 2\nElementType = MET_SHORT\nElementDataFile = LOCAL\n",
    b"ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nTransformMatrix = " + b"a" * 70_000 + b"\nElementType = MET_SHORT\n",
    b"ObjectType = Image\nNDims = 3\nDimSize = 99999 99999 99999\nElementType = MET_SHORT\nElementDataFile = LOCAL\n",
    b"ObjectType = Image\nNDims = 3\nDimSize = 2 2 2\nElementType = MET_NOTHING\nElementDataFile = LOCAL\n",
    b"ObjectType = Image\nNDims = 3\nDimSize = 2 2 -2\nElementType = MET_SHORT\nElementDataFile = LOCAL\n",
])  # fmt: skip
def test_a_metaimage_header_that_crashes_its_parser_is_refused(tmp_path: Path, text: bytes) -> None:
    with pytest.raises(InputError, match=r"'a\.mha' cannot be read, its header is broken"):
        read_volume(header_of(tmp_path / "a.mha", text + bytes(64)))


@pytest.mark.parametrize("line", [b"type: " + b"a" * 70_000, b"type: none", b"dimension: 99", b"sizes: 2 2", b"sizes: 2 2 0",
                                  b"sizes: 99999 99999 99999"])  # fmt: skip
def test_an_nrrd_header_that_crashes_its_parser_is_refused(tmp_path: Path, line: bytes) -> None:
    lines = [b"NRRD0004", b"type: short", b"dimension: 3", b"sizes: 2 2 2", b"encoding: raw"]
    name = line.partition(b":")[0]
    text = b"\n".join(line if one.startswith(name) else one for one in lines) + b"\n\n" + bytes(64)
    with pytest.raises(InputError, match=r"'a\.nrrd' cannot be read, its header is broken"):
        read_volume(header_of(tmp_path / "a.nrrd", text))


def test_a_nifti_header_that_promises_too_much_is_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4))
    raw = bytearray(image.to_bytes())
    raw[42:48] = np.array([30_000, 30_000, 30_000], "<i2").tobytes()
    (tmp_path / "a.nii").write_bytes(raw)
    with pytest.raises(InputError, match=r"promises the shape \(30000, 30000, 30000\), 54000000000000 bytes"):
        read_volume(tmp_path / "a.nii")


def run_length_coded(path: Path, frame: bytes) -> Path:
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID, data.Modality = ComputedRadiographyImageStorage, "1.2.3", "CR"
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.Rows = data.Columns = 20
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    data.PixelData = encapsulate([frame])
    data["PixelData"].VR = "OB"
    data["PixelData"].is_undefined_length = True
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = RLELossless
    data.save_as(path, enforce_file_format=True)
    return path


@pytest.mark.parametrize("runs", [b"\x81\x05" * 5, (b"\x7f" + bytes(range(128))) * 4, b"\x81\x05" * 2, b"\x7f\x01", b""])
def test_run_lengths_that_do_not_fit_are_an_input_error(tmp_path: Path, runs: bytes) -> None:
    """Their decoder is written in Rust, and its panic is no Exception: it passed everything that catches errors."""
    frame = np.array([2, 64, 64 + len(runs), *[0] * 13], "<u4").tobytes() + runs * 2  # two planes of bytes
    with pytest.raises(InputError):
        read_dicom(run_length_coded(tmp_path / "a.dcm", frame))


@pytest.mark.parametrize(("elements", "words"), [({"Modality": ["CT", "MR"]}, "Modality has 2 values"),
                                                 ({"NumberOfFrames": 2**31 - 1}, "NumberOfFrames is 2147483647")])  # fmt: skip
def test_a_header_that_nobody_can_use_is_broken(tmp_path: Path, elements: dict[str, object], words: str) -> None:
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = ComputedRadiographyImageStorage, "1.2.3"
    for name, value in elements.items():
        setattr(data, name, value)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    data.save_as(tmp_path / "a.dcm", enforce_file_format=True)
    with pytest.raises(InputError, match=words):
        read_header(tmp_path / "a.dcm")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 10_000, "", "null", '{"images": 3}'])
def test_json_that_nests_without_end_is_an_input_error(convert: Callable[..., Ran], tmp_path: Path, text: str) -> None:
    pair(tmp_path / "in")
    (tmp_path / "in/coco.json").write_text(text)
    part = 'converter = "coco"\nmodality = "xray"\nlabels = { Nodule = "lung nodule" }\n' + (
        'files = { image = "images/{case}.png", annotations = "coco.json" }\n'
    )
    code, said = convert(part)
    assert code == 2
    assert "coco.json" in said


def test_an_endless_cell_is_quoted_by_its_beginning(convert: Callable[..., Ran], tmp_path: Path) -> None:
    """What looks for names of persons in a sentence takes time by the square of a word's length."""
    pair(tmp_path / "in")
    (tmp_path / "in/about.csv").write_text("file,patientId\na.png,1\n")
    (tmp_path / "in/boxes.csv").write_text(f"file,finding,x,y,w,h\na.png,{'a' * 200_000},5,6,10,12\n")
    assert convert(TABLE)[0] == 3
    (detail,) = store.open(tmp_path / "d").rejects["detail"]
    assert len(detail) < 5000
    assert json.dumps(detail).count("a") > 1000
