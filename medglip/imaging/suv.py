"""Standardised uptake values of PET from what a header says. Knows no pixels and no files."""

from pydicom.dataset import Dataset

# Philips scanners write counts and, in private elements, what makes SUV or Bq/ml of them.
_PHILIPS_SUV, _PHILIPS_ACTIVITY = 0x00, 0x09
_DAY = 86400.0


def suv_factor(header: Dataset) -> float | None:
    """What to multiply PET values by to get SUV by body weight; None where the header does not tell.

    Source: QIBA FDG-PET/CT, SUV computation from DICOM: BQML with the dose, GML that is SUV already, and the private
    scale factors of Philips for counts (CNTS).
    """
    units = header.get("Units")
    if units == "GML":
        # g/ml is SUV by body weight unless the header says lean mass or surface.
        return 1.0 if header.get("SUVType") in (None, "", "BW") else None
    if units == "CNTS":
        return _of_counts(header)
    return _of_activity(header) if units == "BQML" else None


def _of_activity(header: Dataset) -> float | None:
    """SUV for each Bq/ml: body weight over the dose that is left at the time to which the values are corrected."""
    dose = (header.get("RadiopharmaceuticalInformationSequence") or [Dataset()])[0]
    try:
        weight_g = float(header.PatientWeight) * 1000.0
        activity, half_life = float(dose.RadionuclideTotalDose), float(dose.RadionuclideHalfLife)
        if min(weight_g, activity, half_life) <= 0:
            return None
        if header.DecayCorrection == "ADMIN":
            return weight_g / activity
        if header.DecayCorrection != "START":
            return None
        waited = (_start_of_scan(header) - _start_of_dose(dose)) % _DAY
    except (AttributeError, TypeError, ValueError):
        return None
    return weight_g / (activity * 2.0 ** (-waited / half_life))


def _of_counts(header: Dataset) -> float | None:
    try:
        block = header.private_block(0x7053, "Philips PET Private Group")
    except KeyError:
        return None
    if factor := _number(block, _PHILIPS_SUV):
        return factor
    activity = _number(block, _PHILIPS_ACTIVITY)
    per_becquerel = _of_activity(header)
    return activity * per_becquerel if activity and per_becquerel else None


def _number(block: object, element: int) -> float | None:
    """A private number above 0, or None."""
    try:
        value = block[element].value  # type: ignore[index]
        number = float(value.decode().strip("\0 ") if isinstance(value, bytes) else value)
    except (KeyError, TypeError, ValueError, UnicodeDecodeError):
        return None
    return number if number > 0 else None


def _start_of_scan(header: Dataset) -> float:
    """Seconds since midnight of the time to which a series is corrected: its beginning.

    Processing may set SeriesTime to a later moment; then the acquisition's is the earlier and true one. A frame acquired
    after midnight only looks earlier: by more than half a day.
    """
    series = _seconds(header.SeriesTime)
    acquired = _seconds(header.get("AcquisitionTime") or header.SeriesTime)
    return acquired if (series - acquired) % _DAY < _DAY / 2 else series


def _start_of_dose(dose: Dataset) -> float:
    if dose.get("RadiopharmaceuticalStartTime"):
        return _seconds(dose.RadiopharmaceuticalStartTime)
    return _seconds(str(dose.RadiopharmaceuticalStartDateTime)[8:])


def _seconds(time: str) -> float:
    """Seconds since midnight of a DICOM time HHMMSS.ffffff; a zone after it (+0100) is left out."""
    text = str(time).split("+")[0].split("-")[0]
    return int(text[:2]) * 3600.0 + int(text[2:4] or 0) * 60.0 + float(text[4:] or 0)
