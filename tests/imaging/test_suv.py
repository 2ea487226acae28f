from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from medglip.imaging.dicom import read_dicom
from medglip.imaging.suv import suv_factor

HALF_LIFE = 6586.2


def pet(**elements: object) -> Dataset:
    """A PET header one half-life after the dose, with elements replaced; None takes one away."""
    header, dose = Dataset(), Dataset()
    dose.RadionuclideTotalDose, dose.RadionuclideHalfLife = 4e8, HALF_LIFE
    dose.RadiopharmaceuticalStartTime = "100000"
    header.Units, header.DecayCorrection, header.PatientWeight = "BQML", "START", 80.0
    header.SeriesTime, header.RadiopharmaceuticalInformationSequence = "114946.200000", [dose]
    for keyword, value in elements.items():
        target = dose if keyword.startswith("Radio") else header
        if value is None:
            delattr(target, keyword)
        else:
            setattr(target, keyword, value)
    return header


ONE_HALF_LIFE_LATER = 80_000 / 2e8


def test_suv_is_weight_over_the_dose_that_is_left() -> None:
    assert suv_factor(pet()) == pytest.approx(ONE_HALF_LIFE_LATER)
    assert suv_factor(pet(DecayCorrection="ADMIN")) == pytest.approx(80_000 / 4e8)
    started = pet(RadiopharmaceuticalStartTime=None, RadiopharmaceuticalStartDateTime="20200101100000.000000")
    assert suv_factor(started) == pytest.approx(ONE_HALF_LIFE_LATER)


def test_midnight_between_dose_and_scan_does_not_matter() -> None:
    late = pet(RadiopharmaceuticalStartTime="235000", SeriesTime="013946.200000")
    assert suv_factor(late) == pytest.approx(ONE_HALF_LIFE_LATER)
    # The second bed position is acquired after midnight: the series began before.
    bed = pet(RadiopharmaceuticalStartTime="220000", SeriesTime="234946.200000", AcquisitionTime="000500")
    assert suv_factor(bed) == pytest.approx(ONE_HALF_LIFE_LATER)


def test_a_series_time_after_the_acquisition_is_that_of_its_processing() -> None:
    processed = pet(SeriesTime="180000", AcquisitionTime="114946.200000")
    assert suv_factor(processed) == pytest.approx(ONE_HALF_LIFE_LATER)


@pytest.mark.parametrize(
    "elements",
    [
        {"PatientWeight": None}, {"PatientWeight": 0}, {"Units": "CNTS"}, {"Units": None}, {"DecayCorrection": "NONE"},
        {"RadionuclideTotalDose": None}, {"RadionuclideHalfLife": None}, {"RadiopharmaceuticalStartTime": None},
        {"SeriesTime": None}, {"RadiopharmaceuticalInformationSequence": None}, {"RadionuclideTotalDose": -1},
    ],
)  # fmt: skip
def test_a_header_that_lacks_a_fact_gives_none(elements: dict) -> None:
    if "RadiopharmaceuticalInformationSequence" in elements:
        header = pet()
        del header.RadiopharmaceuticalInformationSequence
        assert suv_factor(header) is None
    else:
        assert suv_factor(pet(**elements)) is None


def test_grams_by_millilitre_are_suv_unless_by_another_measure() -> None:
    assert suv_factor(pet(Units="GML")) == 1.0
    assert suv_factor(pet(Units="GML", SUVType="LBM")) is None


def test_philips_counts_become_suv_by_their_own_factors() -> None:
    header = pet(Units="CNTS")
    block = header.private_block(0x7053, "Philips PET Private Group", create=True)
    block.add_new(0x09, "DS", "2.5")
    assert suv_factor(header) == pytest.approx(2.5 * ONE_HALF_LIFE_LATER)
    block.add_new(0x00, "DS", "0.000123")
    assert suv_factor(header) == pytest.approx(0.000123)


def test_a_real_pet_is_in_suv(real_data: Path) -> None:
    image = read_dicom(real_data / "dicom-pet-acrin-flt-breast" / "1.dcm")
    assert image.unit == "SUVbw"
    assert 0.5 < image.frames.max() < 100
