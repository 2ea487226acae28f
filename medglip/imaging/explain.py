"""What codes, numbers and formats mean, in words for a person. Knows no files."""

from collections.abc import Sequence
from typing import Any

Facts = dict[str, Any]

# Every flag, check and reason that the readers of this room give, and what it means for a dataset.
MEANINGS = {
    "lossy": "compressed with loss: values are near to what they were, not equal",
    "burned_in_risk": "text (perhaps a name) may be drawn into the pixels; look before you share it",
    "overlay_plane": "graphics lie beside the pixels in an overlay plane; medglip leaves them out",
    "overlay_in_pixels": "graphics lie in unused bits of the pixels; medglip clears them",
    "bits_mismatch": "header and compressed data disagree about bits or sign; medglip believes the compressed data",
    "ybr_tagged_rgb": "the header says RGB and the pixels are YBR; medglip converts them",
    "mended_jpeg": "a JPEG scan header names impossible coefficients; medglip puts it right",
    "mosaic": "a Siemens mosaic: medglip takes its slices apart",
    "spacing_uncalibrated": "the pitch holds at the detector, not in the patient: sizes are too large by the magnification",
    "not_hu": "a CT whose numbers are not Hounsfield units: named windows do not apply, percentiles are shown",
    "suv_unavailable": "a PET whose header lacks dose, weight or times: values are relative, not SUV",
    "orientation_unknown": "nothing says where the patient's left is: planes keep the order of the file, sides are unknown",
    "gantry_tilt": "the slices are sheared against each other: planes are kept as they are, millimetres follow the affine",
    "missing_slices": "slices are missing: those that are there are used, 3-D sizes in mm are not trusted",
    "uneven_slices": "slices are unevenly spaced: each keeps its own place, 3-D sizes in mm are not trusted",
    "constant_image": "every pixel has one value: there is nothing to see, a converter rejects it",
    "oblique": "the planes lie far from the anatomical ones; they are shown turned to the nearest, never resampled",
    "slice_pitch_unknown": "a single slice without thickness: millimetres in its plane only",
    "sform_qform": "sform and qform disagree; medglip uses the sform",
    "sheared": "the axes are not at right angles; medglip uses the affine as it is",
    "not_finite_filled": "NaN or infinite voxels; medglip fills them with the lowest value",
    "duplicate_slices": "slices stored twice; medglip keeps one of each",
    "repeated_files": "files with the same SOPInstanceUID; medglip keeps one of each",
    "spacing_unknown": "nothing says how large a pixel is: no millimetres will be written",
    "maybe_mask": "few different values: this may be a mask rather than an image",
    "alpha_varies": "transparency varies: it is dropped in an image, and is the mask where the colours are all one",
    "turned_by_exif": "EXIF says that the picture is turned; medglip turns image and mask alike",
    "unsafe_members": "members whose path leaves the archive; medglip refuses these",
    "huge_when_unpacked": "unpacks to more than 100 times its size; medglip refuses such archives",
    "byte_order_mark": "begins with a byte order mark; medglip skips it",
    "ragged_rows": "rows have more or fewer cells than the header; check the columns",
    "box_outside": "boxes that leave their image or have no area",
    "unknown_image": "annotations of images that the file does not list",
}  # fmt: skip
UNITS = {"HU": "Hounsfield units", "SUVbw": "standardised uptake values by body weight", "au": "numbers without a unit",
         "rgb": "colours"}  # fmt: skip
_SIDES = {"L": "left", "R": "right", "P": "back", "A": "front", "S": "head", "I": "feet"}


def meaning(code: str) -> str:
    """What a problem means, for a person.

    >>> meaning("gantry_tilt")[:30]
    'the slices are sheared against'
    """
    return MEANINGS.get(code, "see the facts below")


def listed(names: Sequence[object], most: int = 12) -> str:
    """Names joined by commas, the rest as a number.

    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    shown = ", ".join(str(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def counted(number: int, singular: str, plural: str | None = None) -> str:
    """A number with its noun.

    >>> counted(1, "slice"), counted(3, "slice")
    ('1 slice', '3 slices')
    """
    return f"{number} {singular if number == 1 else plural or singular + 's'}"


def orientation_words(codes: str | None) -> str:
    """Where columns, rows and slices run.

    >>> orientation_words("LPS")
    'columns run to the left, rows to the back, slices to the head of the patient (LPS)'
    """
    if not codes:
        return "nothing says how it lies in the patient"
    column, row, across = (_SIDES.get(code, "?") for code in codes)
    return f"columns run to the {column}, rows to the {row}, slices to the {across} of the patient ({codes})"


def pitch_words(spacing_mm: Sequence[float] | None, source: str | None) -> str:
    """How large a pixel or voxel is and who says so.

    >>> pitch_words((0.5, 0.7), "PixelSpacing")
    'rows are 0.5 mm and columns 0.7 mm apart (PixelSpacing)'
    """
    if spacing_mm is None:
        return "nothing says how large a pixel is, so no millimetres will be written"
    parts = [f"{pitch:.4g} mm" for pitch in spacing_mm]
    said = f" ({source})" if source else ""
    if len(parts) == 2:
        return f"rows are {parts[0]} and columns {parts[1]} apart{said}"
    return f"slices are {parts[0]}, rows {parts[1]} and columns {parts[2]} apart{said}"


def window_words(unit: str, window: tuple[float, float] | None) -> str:
    """What medglip would show of values in a unit."""
    if unit == "HU":
        return "stores it as 16-bit Hounsfield units and shows soft tissue (-160 to 240) unless a source names another window"
    if unit == "SUVbw":
        return "stores it as 16-bit SUV and shows 0 to 10"
    if unit == "rgb":
        return "stores its colours with 8 bits a channel"
    if window:
        return f"stores it without loss and shows the file's own window, {window[0]:g} to {window[1]:g}"
    return "stores it without loss (8 or 16 bits); 8 bits are shown as they are, more between percentiles 0.5 and 99.5"


def problem_words(problems: Sequence[str]) -> list[str]:
    """A sentence for each problem."""
    return [f"{code}: {meaning(code)}." for code in problems]
