import pytest
from pydicom.dataset import Dataset

from medglip.imaging.pitch import spacing_of


def header(**elements: object) -> Dataset:
    found = Dataset()
    for keyword, value in elements.items():
        setattr(found, keyword, value)
    return found


def region(delta_mm: float, corners: tuple[int, int, int, int] | None = None, unit: int = 3) -> Dataset:
    found = header(PhysicalUnitsXDirection=unit, PhysicalUnitsYDirection=unit, PhysicalDeltaX=delta_mm / 10,
                   PhysicalDeltaY=-delta_mm / 10)  # fmt: skip
    if corners:
        names = ("RegionLocationMinX0", "RegionLocationMinY0", "RegionLocationMaxX1", "RegionLocationMaxY1")
        for name, edge in zip(names, corners, strict=True):
            setattr(found, name, edge)
    return found


IMAGER = [0.2, 0.2]


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        # A projection without calibration holds at the detector, whatever the attribute is called.
        ({"Modality": "CR", "PixelSpacing": [0.1, 0.1]}, ((0.1, 0.1), "PixelSpacing", False)),
        ({"Modality": "DX", "PixelSpacing": [0.18, 0.18], "ImagerPixelSpacing": IMAGER}, ((0.18, 0.18), "PixelSpacing", True)),
        ({"Modality": "MG", "PixelSpacing": IMAGER, "ImagerPixelSpacing": IMAGER,
          "EstimatedRadiographicMagnificationFactor": 2.0}, ((0.1, 0.1), "ImagerPixelSpacing", False)),
        ({"Modality": "MG", "ImagerPixelSpacing": IMAGER, "EstimatedRadiographicMagnificationFactor": 0.0},
         ((0.2, 0.2), "ImagerPixelSpacing", False)),
        ({"Modality": "CR", "NominalScannedPixelSpacing": [0.3, 0.3]}, ((0.3, 0.3), "NominalScannedPixelSpacing", True)),
        ({"Modality": "CT", "PixelSpacing": [0.5, 0.7]}, ((0.5, 0.7), "PixelSpacing", True)),
        ({"Modality": "MR", "PixelSpacing": [-0.5, 0.7]}, (None, None, True)),
    ],
)  # fmt: skip
def test_order_of_sources_and_calibration(elements: dict, expected: tuple) -> None:
    spacing, source, calibrated = expected
    found = spacing_of(header(**elements))
    assert found[0] == (pytest.approx(spacing) if spacing else None)
    assert found[1:] == (source, calibrated)


@pytest.mark.parametrize(
    ("regions", "spacing"),
    [
        ([region(0.3, (0, 0, 99, 99))], 0.3),
        ([region(0.3, (0, 0, 99, 59)), region(0.5, (0, 60, 99, 99))], 0.3),  # the larger one covers most of the picture
        ([region(0.3, (0, 0, 99, 39)), region(0.5, (0, 40, 99, 79))], None),  # neither does
        ([region(0.3, (0, 0, 99, 59)), region(0.5, (0, 60, 99, 99), unit=4)], 0.3),  # seconds are no centimetres
        ([region(0.0, (0, 0, 99, 99))], None),
    ],
)  # fmt: skip
def test_ultrasound_takes_the_region_that_covers_the_picture(regions: list, spacing: float | None) -> None:
    found, source, _ = spacing_of(header(Modality="US", Rows=100, Columns=100, SequenceOfUltrasoundRegions=regions))
    assert found == (pytest.approx((spacing, spacing)) if spacing else None)
    assert source == ("ultrasound region" if spacing else None)
