"""Pixel pitch of one DICOM image in mm, where it is from and whether it holds in the patient. Knows no pixels."""

import numpy as np
from pydicom.dataset import Dataset

from medglip.imaging.header import functional, pitch

# Projections: their pitch holds at the detector unless the header says that it was calibrated.
_PROJECTIONS = ("CR", "DX", "RG", "PX", "IO", "XA", "RF", "MG")
_CENTIMETRES = 3  # code of PhysicalUnitsXDirection and -YDirection
# A region whose scale is taken for the whole picture covers at least this share of it.
_COVERS = 0.5


def spacing_of(header: Dataset) -> tuple[tuple[float, float] | None, str | None, bool]:
    """Pitch (row, column) in mm, the attribute it is from, and whether it holds in the patient, not at the detector.

    Source: DICOM PS3.3 10.7.1.3 (calibration), C.8.5.5 (ultrasound regions).
    """
    at_detector = pitch(header.get("ImagerPixelSpacing"))
    measures = functional(header, "PixelMeasuresSequence", 0)
    found = pitch(header.get("PixelSpacing")) or (pitch(measures.get("PixelSpacing")) if measures else None)
    projection = header.get("Modality") in _PROJECTIONS and "PixelSpacingCalibrationType" not in header
    # A projection's PixelSpacing that differs from that of its detector has been corrected.
    if found and not (projection and (at_detector is None or np.allclose(found, at_detector, rtol=1e-3))):
        return found, "PixelSpacing", True
    if found and at_detector is None:
        return found, "PixelSpacing", False
    if nominal := pitch(header.get("NominalScannedPixelSpacing")):
        return nominal, "NominalScannedPixelSpacing", True
    if at_detector:
        factor = _magnification(header)
        if found and factor == 1.0:
            return found, "PixelSpacing", False
        return (at_detector[0] / factor, at_detector[1] / factor), "ImagerPixelSpacing", False
    if found := _ultrasound_pitch(header):
        return found, "ultrasound region", True
    return None, None, True


def _magnification(header: Dataset) -> float:
    """How much larger than the patient the detector sees; 1 where it is not said or cannot be."""
    try:
        factor = float(header.get("EstimatedRadiographicMagnificationFactor") or 1.0)
    except (TypeError, ValueError):
        return 1.0
    return factor if np.isfinite(factor) and factor > 0 else 1.0


def _ultrasound_pitch(header: Dataset) -> tuple[float, float] | None:
    """Pitch of the ultrasound regions measured in cm both ways (unit code 3).

    They must agree within 1 %, or one of them must cover at least half of the picture; else boxes would be measured
    with the scale of another region.
    """
    found: list[tuple[tuple[float, float], float]] = []
    for region in header.get("SequenceOfUltrasoundRegions") or []:
        if any(region.get(f"PhysicalUnits{axis}Direction") != _CENTIMETRES for axis in "XY"):
            continue
        size = pitch(abs(float(region.get(f"PhysicalDelta{axis}") or 0.0)) * 10.0 for axis in "YX")
        if size is not None:
            found.append((size, _share(region, header)))
    if not found:
        return None
    if all(np.allclose(size, found[0][0], rtol=0.01) for size, _ in found):
        return found[0][0]
    largest, share = max(found, key=lambda item: item[1])
    return largest if share >= _COVERS else None


def _share(region: Dataset, header: Dataset) -> float:
    """How much of the picture a region covers, 0 where it does not say."""
    edges = [region.get(f"RegionLocation{name}") for name in ("MinX0", "MaxX1", "MinY0", "MaxY1")]
    if any(edge is None for edge in edges) or not header.get("Rows") or not header.get("Columns"):
        return 0.0
    left, right, top, bottom = (float(edge) for edge in edges)
    return max(right - left + 1, 0.0) * max(bottom - top + 1, 0.0) / (float(header.Rows) * float(header.Columns))
