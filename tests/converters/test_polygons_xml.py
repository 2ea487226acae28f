from pathlib import Path

import numpy as np
import pytest
from small_sources import boxes, noise, save

from medglip.curate import load_source
from medglip.curate.engine import found_tasks, run
from medglip.errors import SourceError
from medglip.records import Picture, Reject

TOML = """
name = "tiny"
title = "Tiny"
licence = "CC0-1.0"
names = "public"
[[part]]
converter = "polygons_xml"
modality = "histopathology"
exhaustive = "all"
files = {{ image = "{{case}}.png", polygons = "{{case}}.xml" }}
options = {{ {options} }}
labels = {{ Nucleus = "nucleus", Epithelial = "epithelial nucleus", Lymphocyte = "lymphocyte nucleus", Ink = "skip" }}
"""
NUCLEUS, EPITHELIAL, LYMPHOCYTE = "systemic.nucleus", "systemic.nucleus.epithelial", "systemic.nucleus.lymphocyte"
Corners = list[tuple[float, float]]


def square(x0: float, y0: float, x1: float, y1: float) -> Corners:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


def region(corners: Corners, **more: object) -> str:
    told = {"Type": 0, "Text": "", "NegativeROA": 0} | more
    vertices = "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in corners)
    head = " ".join(f'{name}="{value}"' for name, value in told.items())
    return f"<Region {head}><Attributes/><Vertices>{vertices}</Vertices></Region>"


def layer(*regions: str, name: str = "", attribute: str = "Description", value: str = "") -> str:
    words = f'<Attributes><Attribute Name="{attribute}" Id="0" Value="{value}"/></Attributes>'
    heads = "<RegionAttributeHeaders><AttributeHeader Id='9999' Name='Region'/></RegionAttributeHeaders>"
    return f'<Annotation Id="1" Name="{name}">{words}<Regions>{heads}{"".join(regions)}</Regions></Annotation>'


def aperio(*layers: str) -> str:
    return f'<?xml version="1.0"?><Annotations MicronsPerPixel="0.252">{"".join(layers)}</Annotations>'


def asap(*drawn: tuple[str, str, Corners]) -> str:
    """Type, group and corners; the coordinates are written last first, as their Order tells."""
    items = [
        f'<Annotation Name="A {n}" Type="{kind}" PartOfGroup="{group}"><Coordinates>'
        + "".join(f'<Coordinate Order="{at}" X="{x}" Y="{y}"/>' for at, (x, y) in reversed(list(enumerate(corners))))
        + "</Coordinates></Annotation>"
        for n, (kind, group, corners) in enumerate(drawn)
    ]
    groups = '<AnnotationGroups><Group Name="_0" PartOfGroup="None"/></AnnotationGroups>'
    return f"<ASAP_Annotations><Annotations>{''.join(items)}</Annotations>{groups}</ASAP_Annotations>"


@pytest.fixture
def read(tmp_path: Path):
    def run_it(xml: str | None, options: str = 'label = "Nucleus"'):
        (tmp_path / "tiny.toml").write_text(TOML.format(options=options))
        save(tmp_path / "in", "a.png", noise(40, 60))
        if xml is not None:
            (tmp_path / "in/a.xml").write_text(xml)
        tasks, _ = found_tasks(load_source(tmp_path / "tiny.toml"), tmp_path / "in")
        items = [item for task in tasks for item in run(task)]
        pictures = [item.record for item in items if isinstance(item, Picture)]
        return (pictures or [None])[0], [item for item in items if isinstance(item, Reject)]

    return run_it


def test_a_polygon_holds_the_pixels_whose_centres_it_encloses(read) -> None:
    record, rejects = read(aperio(layer(region(square(10, 20, 14, 26)), region(square(30.4, 5.6, 33.6, 8.4)))))
    assert not rejects
    assert boxes(record) == [(NUCLEUS, (10, 20, 14, 26)), (NUCLEUS, (30, 6, 34, 8))]
    assert record.regions[0].mask.area == 24
    record, _ = read(aperio(layer(region(square(10, 20, 14, 26)))), 'label = "Nucleus", origin = "centre"')
    assert boxes(record) == [(NUCLEUS, (10, 20, 14, 26))]
    record, _ = read(aperio(layer(region(square(10, 20, 14.4, 26)))), 'label = "Nucleus", origin = "centre"')
    assert boxes(record) == [(NUCLEUS, (10, 20, 15, 26))]


@pytest.mark.parametrize(
    ("place", "xml"),
    [
        ("attribute", aperio(layer(region(square(1, 1, 9, 9)), attribute="Epithelial"))),
        ("value", aperio(layer(region(square(1, 1, 9, 9)), value="Epithelial"))),
        ("annotation", aperio(layer(region(square(1, 1, 9, 9)), name="Epithelial"))),
        ("text", aperio(layer(region(square(1, 1, 9, 9), Text=" Epithelial ")))),
        ("group", asap(("Polygon", "Epithelial", square(1, 1, 9, 9)))),
    ],
)
def test_where_a_label_may_stand(read, place: str, xml: str) -> None:
    record, rejects = read(xml, f'label_from = "{place}"')
    assert not rejects
    assert boxes(record) == [(EPITHELIAL, (1, 1, 9, 9))]
    assert record.absent == (LYMPHOCYTE,)


def test_a_label_that_stands_nowhere_is_the_option_s_and_an_unknown_one_is_named(read) -> None:
    xml = aperio(layer(region(square(1, 1, 9, 9)), region(square(11, 1, 19, 9), Text="Lymphocyt"), region([], Text="Ink")))
    record, (reject,) = read(xml, 'label_from = "text", label = "Epithelial"')
    assert boxes(record) == [(EPITHELIAL, (1, 1, 9, 9))]
    assert (reject.file, reject.reason) == ("a.xml region 2", "unknown_label")
    assert "'Lymphocyte'" in reject.detail
    assert record.exhaustive == ()


def test_holes_are_cut_out_of_their_own_annotation_only(read) -> None:
    hole = region(square(12, 12, 16, 16), NegativeROA=1, InputRegionId=1)
    xml = aperio(
        layer(region(square(10, 10, 20, 20)), hole, attribute="Epithelial"),
        layer(region(square(11, 11, 18, 18)), attribute="Lymphocyte"),
    )
    record, rejects = read(xml, 'label_from = "attribute"')
    assert not rejects
    assert [(one.concept, one.mask.area) for one in record.regions] == [(EPITHELIAL, 84), (LYMPHOCYTE, 49)]
    assert not record.regions[0].mask.decode()[12:16, 12:16].any()
    cut = asap(("Polygon", "Epithelial", square(10, 10, 20, 20)), ("Spline", "_2", square(10, 10, 15, 20)))
    record, rejects = read(cut, 'label_from = "group", holes = ["_2"]')
    assert boxes(record) == [(EPITHELIAL, (15, 10, 20, 20))]
    assert not rejects


def test_rectangles_and_ellipses(read) -> None:
    xml = aperio(layer(region([(10, 10), (20, 16)], Type=1), region(square(30, 10, 50, 30), Type=2)))
    record, _ = read(xml)
    rectangle, ellipse = record.regions
    assert (rectangle.box_xyxy, rectangle.mask.area) == ((10, 10, 20, 16), 60)
    assert ellipse.box_xyxy == (30, 10, 50, 30)
    assert ellipse.mask.area == pytest.approx(np.pi * 100, rel=0.03)


def test_what_encloses_nothing_is_refused_and_leaves_its_label_in_doubt(read) -> None:
    xml = aperio(
        layer(
            region(square(1, 1, 9, 9)), region([(1, 1), (5, 5)]), region(square(1, 1, 9, 9), Type=4),
            region([(5.6, 5.6), (5.9, 5.6), (5.9, 5.9)]), region(square(70, 1, 80, 9)), region([("x", 1), (2, 3), (9, 9)]),
            region([("nan", 1), (2, 3), (9, 9)]),
        )
    )  # fmt: skip
    record, rejects = read(xml)
    assert boxes(record) == [(NUCLEUS, (1, 1, 9, 9))]
    assert [reject.reason for reject in rejects] == [
        "no_area", "no_area", "no_pixel", "outside_image", "bad_polygon", "bad_polygon",
    ]  # fmt: skip
    assert [reject.file[-1] for reject in rejects] == list("234567")
    assert NUCLEUS not in record.exhaustive
    dot, (reject,) = read(asap(("Dot", "Epithelial", [(3, 3)])), 'label_from = "group"')
    assert reject.reason == "no_area"
    assert EPITHELIAL not in dot.absent


def test_a_polygon_that_passes_the_border_is_cut(read) -> None:
    record, rejects = read(aperio(layer(region(square(-5, 30, 8, 60)))))
    assert not rejects
    assert boxes(record) == [(NUCLEUS, (0, 30, 8, 40))]
    assert "touches_border" in record.regions[0].flags


def test_no_file_is_no_negative_and_an_empty_one_is(read) -> None:
    assert read(None)[0].absent == ()
    assert NUCLEUS in read(aperio(layer()))[0].absent


@pytest.mark.parametrize("xml", ["<Annotations><Annotation>", "<annotation/>", ""])
def test_another_or_a_broken_file_is_refused(read, xml: str) -> None:
    record, (reject,) = read(xml)
    assert record is None
    assert reject.reason == "unreadable_file"


def test_options_that_are_not_known(read) -> None:
    with pytest.raises(SourceError, match="allowed: annotation"):
        read(aperio(), 'label_from = "colour"')
    with pytest.raises(SourceError, match="allowed: corner, centre"):
        read(aperio(), 'origin = "middle"')


def test_polygons_that_share_an_edge_neither_overlap_nor_leave_a_gap(read) -> None:
    left = [(5, 5), (25, 5), (17.3, 22.1), (6.2, 30)]
    right = [(25, 5), (40, 31), (6.2, 30), (17.3, 22.1)]
    record, _ = read(aperio(layer(region(left), region(right))))
    one, two = (entry.mask.decode() for entry in record.regions)
    whole, _ = read(aperio(layer(region([(5, 5), (25, 5), (40, 31), (6.2, 30)]))))
    assert not (one & two).any()
    assert np.array_equal(one | two, whole.regions[0].mask.decode())
