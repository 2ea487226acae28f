import gzip
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian
from small_sources import boxes, converted, noise, save

from medglip.curate.cases import Refused
from medglip.errors import InputError, SourceError

PART = """
converter = "box_table"
modality = "xray"
exhaustive = "all"
files = {{ image = "images/{{case}}.{{ending:png|dcm}}", table = "boxes.{{table_ending:csv(?:\\\\.gz)?}}" }}
options = {{ {options} }}
labels = {{ Nodule = "lung nodule", Effusion = "pleural effusion", Device = "skip" }}
"""
COLUMNS = 'columns = { image = "file", label = "finding", box = ["x", "y", "w", "h"] }'
NODULE, EFFUSION = "thorax.lung.nodule", "thorax.pleura.effusion"


def part(options: str = "", columns: str = COLUMNS) -> str:
    return PART.format(options=", ".join(filter(None, [columns, options])))


def folder(tmp_path: Path, table: str | bytes, *images: str, name: str = "boxes.csv") -> Path:
    where = tmp_path / "in"
    for image in images or ("a.png",):
        save(where, f"images/{image}", noise())
    (where / name).write_bytes(table if isinstance(table, bytes) else table.encode())
    return where


def test_rows_become_half_open_boxes_and_every_other_label_is_absent(tmp_path: Path) -> None:
    where = folder(tmp_path, "file,finding,x,y,w,h\na.png,Nodule,5,6,10.5,12\na,Device,1,1,5,5\n")
    result = converted(where, part())
    assert boxes(result.only) == [(NODULE, (5, 6, 15.5, 18))]
    assert result.only.absent == (EFFUSION,)
    assert not result.rejects


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ('format = "xyxy"', "5,6,15,18"),
        ('format = "cxcywh"', "10,12,10,12"),
        ("frame = [120, 80]", "10,12,20,24"),
        ("frame = [1, 1]", "0.08333333333,0.15,0.16666666667,0.3"),
        ('format = "xyxy", swapped_corners = "fix"', "15,6,5,18"),
    ],
)
def test_formats_and_frames(tmp_path: Path, options: str, numbers: str) -> None:
    where = folder(tmp_path, f"file,finding,x,y,w,h\na.png,Nodule,{numbers}\n")
    (region,) = converted(where, part(options)).only.regions
    assert region.box_xyxy == pytest.approx((5, 6, 15, 18))


@pytest.mark.parametrize(
    "table",
    [
        "\ufefffile,finding,x,y,w,h\r\na.png,Nodule,5,6,10,12\r\n\r\n",
        " File ; FINDING;x ;y;w; h\na.png; Nodule ;5;6;10;12\n",
        'file,finding,x,y,w,h,,,\n"a.png","Nodule",5,6,10,12\n',
        'note,file,finding,x,y,w,h\n"one, two",sub/folder/a.PNG,Nodule,5,6,10,12\n',
        gzip.compress(b"file\tfinding\tx\ty\tw\th\na\tNodule\t5\t6\t10\t12\n"),
    ],
    ids=["bom", "semicolons", "ragged", "quoted", "gzip_tabs"],
)
def test_tables_as_people_write_them(tmp_path: Path, table: str | bytes) -> None:
    where = folder(tmp_path, table, name="boxes.csv.gz" if isinstance(table, bytes) else "boxes.csv")
    result = converted(where, part())
    assert boxes(result.only) == [(NODULE, (5, 6, 15, 18))]
    assert not result.rejects


def test_the_header_of_the_nih_list(tmp_path: Path) -> None:
    columns = 'columns = { image = "Image Index", label = "Finding Label", box = ["Bbox [x", "y", "w", "h]"] }'
    where = folder(tmp_path, "Image Index,Finding Label,Bbox [x,y,w,h],,,\na.png,Effusion,100.5,200,50,60\n")
    (region,) = converted(where, part("frame = [1024, 1024]", columns)).only.regions
    assert region.box_xyxy == pytest.approx((100.5 * 60 / 1024, 200 * 40 / 1024, 150.5 * 60 / 1024, 260 * 40 / 1024))


def test_rows_that_say_nothing_is_there(tmp_path: Path) -> None:
    table = "file,finding,x,y,w,h\na.png,No finding,,,,\nb.png,Nodule,5,6,10,12\n"
    result = converted(folder(tmp_path, table, "a.png", "b.png"), part('negative = ["No finding"]'))
    assert result.records["images/a.png"].absent == (NODULE, EFFUSION)
    assert not result.rejects
    columns = 'columns = { image = "file", target = "Target", box = ["x", "y", "w", "h"] }'
    table = "file,x,y,w,h,Target\na.png,,,,,0\nb.png,5,6,10,12,1\n"
    result = converted(folder(tmp_path, table), part('label = "Nodule", negative = ["0"]', columns))
    assert result.records["images/a.png"].absent == (NODULE, EFFUSION)
    assert boxes(result.records["images/b.png"]) == [(NODULE, (5, 6, 15, 18))]


def test_an_image_that_the_table_does_not_name_is_unlabelled_unless_the_source_says_else(tmp_path: Path) -> None:
    where = folder(tmp_path, "file,finding,x,y,w,h\nb.png,Nodule,5,6,10,12\n", "a.png", "b.png")
    assert converted(where, part()).records["images/a.png"].absent == ()
    assert converted(where, part('unlisted = "negative"')).records["images/a.png"].absent == (NODULE, EFFUSION)


def test_bad_boxes_are_refused_by_row_and_leave_their_label_in_doubt(tmp_path: Path) -> None:
    rows = ["5,6,0,12", "5,6,-3,12", "nan,6,10,12", "one,6,10,12", "50,6,20,12", "55,6,5.5,12"]
    where = folder(tmp_path, "file,finding,x,y,w,h\n" + "".join(f"a.png,Nodule,{row}\n" for row in rows))
    result = converted(where, part())
    assert result.reasons == ["bad_box"] * 4 + ["box_out_of_image"]
    assert boxes(result.only) == [(NODULE, (55, 6, 60, 18))]  # half a pixel over the border: clipped
    assert [reject.file for reject in result.rejects] == [f"boxes.csv row {number}" for number in range(1, 6)]
    assert result.only.exhaustive == (EFFUSION,)


def test_swapped_corners_are_refused_unless_the_source_says_to_fix_them(tmp_path: Path) -> None:
    where = folder(tmp_path, "file,finding,x,y,w,h\na.png,Nodule,15,6,5,18\n")
    assert converted(where, part('format = "xyxy"')).reasons == ["bad_box"]


def test_an_unknown_finding_is_named_and_the_rest_stays(tmp_path: Path) -> None:
    where = folder(tmp_path, "file,finding,x,y,w,h\na.png,Nodul,5,6,10,12\na.png,Effusion,5,6,10,12\n")
    result = converted(where, part())
    assert boxes(result.only) == [(EFFUSION, (5, 6, 15, 18))]
    assert result.reasons == ["unknown_label"]
    for word in ("'Nodul'", "boxes.csv row 1", "Nearest known: 'Nodule'"):
        assert word in result.rejects[0].detail
    assert result.only.exhaustive == ()


def test_the_same_box_of_several_readers_is_one_region(tmp_path: Path) -> None:
    where = folder(tmp_path, "file,finding,x,y,w,h\na,Nodule,5,6,30,30\na,Nodule,5,6,30,30.2\na,Effusion,5,6,30,30\n")
    nodule, effusion = converted(where, part()).only.regions
    assert nodule.attributes == {"readers": 2}
    assert effusion.attributes == {}


def test_rows_without_their_image_are_listed_once_or_ignored(tmp_path: Path) -> None:
    where = folder(tmp_path, "file,finding,x,y,w,h\nz.png,Nodule,5,6,10,12\nz.png,Nodule,5,6,10,30\n")
    result = converted(where, part())
    assert result.reasons == ["missing_file"]
    assert "'z.png'" in result.rejects[0].detail
    assert not converted(where, part('missing_images = "ignore"')).rejects


def test_a_table_without_its_column_is_named_with_the_columns_it_has(tmp_path: Path) -> None:
    where = folder(tmp_path, "file,finding,x,y,width,h\na.png,Nodule,5,6,10,12\n")
    with pytest.raises(Refused) as caught:
        converted(where, part())
    for word in ("'boxes.csv'", "no column 'w'", "'width'"):
        assert word in str(caught.value)


def test_a_missing_empty_or_broken_table_is_an_input_error(tmp_path: Path) -> None:
    where = folder(tmp_path, "")
    with pytest.raises(InputError, match="empty"):
        converted(where, part())
    (where / "boxes.csv").rename(where / "boxes.csv.gz")
    (where / "boxes.csv.gz").write_bytes(gzip.compress(b"file,finding,x,y,w,h\n" * 9)[:-9])
    with pytest.raises(InputError, match="broken"):
        converted(where, part())
    (where / "boxes.csv.gz").unlink()
    with pytest.raises(InputError, match="no file is their table"):
        converted(where, part())


def test_a_source_must_say_where_the_boxes_are(tmp_path: Path) -> None:
    where = folder(tmp_path, "file,finding,x,y,w,h\n")
    with pytest.raises(SourceError, match="must name image"):
        converted(where, part(columns='columns = { image = "file" }'))


def test_boxes_on_dicom_images(tmp_path: Path) -> None:
    where = folder(tmp_path, "file,finding,x,y,w,h\nray,Nodule,5,6,10,12\n", "a.png")
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = DigitalXRayImageStorageForPresentation, "1.2.3"
    data.Modality, data.PatientID, data.PixelSpacing, data.PixelSpacingCalibrationType = "DX", "p1", [0.2, 0.1], "GEOMETRY"
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME1", 0
    data.Rows, data.Columns, data.BitsAllocated, data.BitsStored, data.HighBit = 40, 60, 16, 12, 11
    pixels = noise().astype(np.uint16) * 16
    data.PixelData = pixels.tobytes()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.save_as(where / "images/ray.dcm", enforce_file_format=True)
    result = converted(where, part())
    record = result.records["images/ray.dcm"]
    assert boxes(record) == [(NODULE, (5, 6, 15, 18))]
    assert record.spacing_mm == (0.2, 0.1)
    assert record.intensity.inverted
    assert record.keys.patient
    stored = next(picture.pixels for picture in result.pictures if picture.record is record)
    assert np.array_equal(stored * record.intensity.slope + record.intensity.intercept, 4095 - pixels)


def test_what_a_second_table_says_of_an_image(tmp_path: Path) -> None:
    where = folder(tmp_path, "file,finding,x,y,w,h\na,Nodule,5,6,10,12\n", "a.png", "b.png", "c.png")
    (where / "about.csv").write_text("Name,Patient ID,view,Notes (free),rights\na.png,7,PA,Cough.,CC0\nb,7,Lateral,n/a,\n")
    more = """
        about_key = "name", about_empty = ["n/a"], licence = "{rights}", where = { view = "PA" },
        texts = [{ kind = "report", text = "{notes_free}" }]"""
    text = part(more.replace("\n", " ")).replace(".csv(?:", ".csv(?:").replace("files = {", 'files = { about = "about.csv",')
    result = converted(where, text + 'patient = "{patient_id}"\ndetail = { view = "{view}" }')
    record = result.only
    assert record.origin.file == "images/a.png"
    assert [(entry.kind, entry.text) for entry in record.texts] == [("report", "Cough.")]
    assert (record.licence, record.modality_detail) == ("CC0", {"view": "PA"})
    assert result.reasons == ["missing_row"]  # of c.png; b.png is of another view


READERS = 'columns = { image = "file", label = "finding", reader = "who", box = ["x", "y", "w", "h"] }'


def test_boxes_of_several_readers_are_fused_and_say_how_many_agree(tmp_path: Path) -> None:
    rows = "a,Nodule,r1,10,10,20,20\na,Nodule,r2,12,10,20,20\na,No finding,r3,,,,\na,Effusion,r2,40,5,10,10\n"
    where = folder(tmp_path, "file,finding,who,x,y,w,h\n" + rows)
    nodule, effusion = converted(where, part('negative = ["No finding"]', READERS)).only.regions
    assert (nodule.box_xyxy, nodule.attributes["readers"], nodule.attributes["agreement"]) == ((11, 10, 31, 30), 2, 0.667)
    assert (effusion.box_xyxy, effusion.attributes["agreement"]) == ((40, 5, 50, 15), 0.333)
    assert ["uncertain" in region.flags for region in (nodule, effusion)] == [False, True]
    each = converted(where, part('negative = ["No finding"], readers = "each"', READERS)).only.regions
    assert [region.box_xyxy for region in each] == [(10, 10, 30, 30), (12, 10, 32, 30), (40, 5, 50, 15)]
    assert [region.attributes["consensus"] for region in each] == [1, 1, 2]


def test_an_image_in_which_no_reader_found_anything_is_a_negative(tmp_path: Path) -> None:
    rows = "".join(f"a,No finding,r{n},,,,\n" for n in (1, 2, 3))
    where = folder(tmp_path, "file,finding,who,x,y,w,h\n" + rows)
    assert converted(where, part('negative = ["No finding"]', READERS)).only.absent == (NODULE, EFFUSION)
    (reject,) = converted(where, part('readers = "best"', READERS)).rejects
    assert "readers is" in reject.detail


def test_a_cell_may_list_several_findings_and_a_column_the_side(tmp_path: Path) -> None:
    columns = 'columns = { image = "file", label = "finding", side = "side", box = ["x", "y", "w", "h"] }'
    options = 'label_lists = true, negative = ["No finding"], attributes = { birads = "grade" }'
    rows = "\"['Nodule', 'Effusion']\",R,BI-RADS 4,5,6,20,20\n\"['No finding']\",L,,,,,\n[],L,,,,,\n"
    table = "file,finding,side,grade,x,y,w,h\n" + "".join(f"a,{row}\n" for row in rows.splitlines())
    result = converted(folder(tmp_path, table), part(options, columns))
    assert not result.rejects
    assert boxes(result.only) == [(f"{NODULE}@right", (5, 6, 25, 26)), (f"{EFFUSION}@right", (5, 6, 25, 26))]
    assert [region.attributes for region in result.only.regions] == [{"birads": "4"}] * 2


@pytest.mark.parametrize("cell", ["Nodule", "['Nodule'", "['Nodule', __import__('os')]", "[Nodule]"])
def test_a_cell_that_is_no_list_is_not_evaluated(tmp_path: Path, cell: str) -> None:
    table = f'file,finding,x,y,w,h\na,"{cell}",5,6,20,20\n'
    result = converted(folder(tmp_path, table), part("label_lists = true"))
    assert result.reasons == ["bad_list"]
    assert result.only.exhaustive == ()


def test_a_side_that_is_none_is_refused(tmp_path: Path) -> None:
    columns = 'columns = { image = "file", label = "finding", side = "side", box = ["x", "y", "w", "h"] }'
    result = converted(folder(tmp_path, "file,finding,side,x,y,w,h\na,Nodule,up,5,6,20,20\n"), part("", columns))
    assert result.reasons == ["bad_side"]
