"""Volume: voxels with their place in the patient, and the test whether two volumes share a grid. Knows no files."""

from dataclasses import dataclass, field

import numpy as np
from nibabel.orientations import aff2axcodes

from medglip.errors import InputError

# medical-data rule 16: grids agree within 0.1 voxel; up to half a voxel is kept with a warning.
_AGREE, _TOLERATED = 0.1, 0.5


class GridError(InputError):
    """Two volumes do not lie on one grid. ``reason`` is ``size_mismatch`` or ``geometry_mismatch``."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels with their place in the patient.

    Attributes:
        voxels: (K, J, I) or (K, J, I, 3), values in ``unit``; for a label volume, its integers.
        affine_ijk_to_mm: 4x4 float64; (i, j, k, 1) of a voxel CENTRE to LPS+ mm; None if unknown.
        spacing_kji_mm: Pitch along each array axis; None if unknown. Known where only the affine is not.
        unit: ``HU``, ``SUVbw``, ``au`` or ``rgb``.
        window: (low, high) that the file asks for, or None.
        inverted: True where the source was MONOCHROME1 and the voxels have been inverted.
        origins_mm: (K, 3) centre of voxel (0, 0, k) where slices are unevenly spaced; overrules the affine. Else None.
        sop_uids: SOP instance of each slice (with ``#frame`` for a multi-frame file), or empty.
        frame_of_reference: UID, or None.
        patient, study, series: The source's ids as they are; hash them before they are written anywhere.
        detail: What the header says of the acquisition, for ``modality_detail``.
        checks: What was found about the geometry: ``{"regular": "yes", "missing_slices": "3"}``.
        flags: ``not_hu``, ``orientation_unknown``, ``gantry_tilt``, ``lossy`` ...
    """

    voxels: np.ndarray
    affine_ijk_to_mm: np.ndarray | None = None
    spacing_kji_mm: tuple[float, float, float] | None = None
    unit: str = "au"
    window: tuple[float, float] | None = None
    inverted: bool = False
    origins_mm: np.ndarray | None = None
    sop_uids: tuple[str, ...] = ()
    frame_of_reference: str | None = None
    patient: str | None = None
    study: str | None = None
    series: str | None = None
    detail: dict[str, str] = field(default_factory=dict)
    checks: dict[str, str] = field(default_factory=dict)
    flags: tuple[str, ...] = ()

    @property
    def shape_kji(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        k, j, i = self.voxels.shape[:3]
        return k, j, i

    @property
    def orientation(self) -> str | None:
        """Where i, j and k point, for example ``LPS``; None if unknown.

        >>> Volume(np.zeros((1, 2, 3)), np.diag([-1.0, -1.0, 1.0, 1.0])).orientation
        'RAS'
        """
        if self.affine_ijk_to_mm is None:
            return None
        codes = aff2axcodes(self.affine_ijk_to_mm, labels=(("R", "L"), ("A", "P"), ("I", "S")))
        return "".join(code or "?" for code in codes)

    @property
    def voxel_mm3(self) -> float | None:
        """Volume of a voxel; None where the spacing is unknown or uneven, so that no volume is made up."""
        if self.origins_mm is not None or self.spacing_kji_mm is None:
            return None
        if self.affine_ijk_to_mm is not None:
            return float(abs(np.linalg.det(self.affine_ijk_to_mm[:3, :3])))  # also right for a tilted gantry
        return float(np.prod(self.spacing_kji_mm))


def spacing_of_affine(affine_ijk_to_mm: np.ndarray) -> tuple[float, float, float]:
    """Pitch along k, j and i: the lengths of the affine's columns, also right where it is sheared."""
    i, j, k = np.linalg.norm(affine_ijk_to_mm[:3, :3], axis=0)
    return float(k), float(j), float(i)


def on_grid_of(image: Volume, labels: Volume, who: str) -> tuple[np.ndarray, float]:
    """Label voxels in the array order of the image: axes swapped and flipped as the affines say, never resampled.

    Two files may hold the same grid in another order (a DICOM series and a NIfTI file, a mirrored affine): the affines
    decide, not the order of the arrays. Where either has no affine the arrays are taken as they lie.

    Args:
        image: The image.
        labels: The label volume.
        who: Name of the label file, for the error.

    Returns:
        (K, J, I) integers of the image's shape, and by how many voxels the grids differ at the worst corner.

    Raises:
        GridError: the shapes differ (``size_mismatch``), or corners lie more than half a voxel apart
            (``geometry_mismatch``).
    """
    if image.affine_ijk_to_mm is None or labels.affine_ijk_to_mm is None:
        _same_shape(image, labels.voxels.shape[:3], who)
        return labels.voxels, 0.0
    # label index -> image index; on a shared grid a signed permutation of the axes with a whole offset
    to_image = np.linalg.inv(image.affine_ijk_to_mm) @ labels.affine_ijk_to_mm
    permutation = np.rint(to_image[:3, :3])
    if not np.array_equal(np.abs(permutation) @ np.ones(3), np.ones(3)) or abs(np.linalg.det(permutation)) != 1:
        _same_shape(image, labels.voxels.shape[:3], who)
        raise GridError("geometry_mismatch", f"{who!r} is turned or scaled against its image; resample it to the image.")
    source_axis = np.abs(permutation).argmax(axis=1)  # for image axis i, j, k: the label's axis
    sign = permutation[np.arange(3), source_axis]
    voxels = labels.voxels.transpose([2 - int(source_axis[2 - axis]) for axis in range(3)])
    _same_shape(image, voxels.shape, who)
    voxels = voxels[tuple(slice(None, None, -1 if sign[2 - axis] < 0 else 1) for axis in range(3))]
    if image.origins_mm is not None or labels.origins_mm is not None:
        return voxels, 0.0  # uneven slices lie on no affine; size and directions agree
    off = _worst_corner(to_image, labels.voxels.shape, sign, source_axis)
    if off > _TOLERATED:
        raise GridError(
            "geometry_mismatch",
            f"{who!r} lies {off:.2f} voxels away from its image; allowed: {_TOLERATED}; resample it to the image.",
        )
    return voxels, off if off > _AGREE else 0.0


def _same_shape(image: Volume, shape: tuple[int, ...], who: str) -> None:
    if tuple(shape) != image.shape_kji:
        raise GridError(
            "size_mismatch",
            f"{who!r} has the shape (k, j, i) {tuple(shape)}, its image {image.shape_kji}; they must be equal;"
            " resample the mask to the image.",
        )


def _worst_corner(to_image: np.ndarray, shape_kji: tuple[int, ...], sign: np.ndarray, source_axis: np.ndarray) -> float:
    """How far, in voxels, the label's corner voxels lie from where flips and swaps alone would put them."""
    last = np.array(shape_kji[::-1], dtype=float) - 1  # along i, j, k of the label
    corners = np.array(np.meshgrid(*[(0.0, end) for end in last], indexing="ij")).reshape(3, -1)
    found = to_image[:3, :3] @ corners + to_image[:3, 3:]
    expected = np.array([
        corners[axis] if direction > 0 else last[axis] - corners[axis]
        for axis, direction in zip(source_axis, sign, strict=True)
    ])  # fmt: skip
    return float(np.abs(found - expected).max())
