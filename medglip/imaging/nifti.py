"""Volume files: NIfTI and MGH through nibabel, NRRD and MetaImage through SimpleITK. Knows no labels and no DICOM.

World coordinates are LPS+ mm everywhere in medglip; NIfTI's RAS+ is flipped once, here.
"""

import math
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from isal import igzip, isal_zlib
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import ImageFileError
from nibabel.freesurfer.mghformat import MGHError
from nibabel.imageglobals import LoggingOutputSuppressor
from nibabel.spatialimages import HeaderDataError, SpatialImage
from nibabel.volumeutils import apply_read_scaling

from medglip.errors import InputError
from medglip.imaging.header import MOST_PACKED
from medglip.imaging.itk_header import check_itk_header
from medglip.imaging.volume import Volume, spacing_of_affine

NIFTI_ENDINGS = (".nii", ".nii.gz", ".hdr", ".img", ".mgz", ".mgh")
ITK_ENDINGS = (".nrrd", ".nhdr", ".mha", ".mhd")
# Axes further from right angles than this cosine are said to be sheared; the affine holds all the same.
_SHEARED = 1e-3
# Labels may be this far from whole numbers.
_WHOLE = 1e-3
# What gzip's readers say of a checksum that does not fit.
_DAMAGED = ("CRC check failed", "Incorrect length of data")
# How much is unpacked at a time.
_PART_BYTES = 1 << 20
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_BROKEN = (ImageFileError, HeaderDataError, MGHError, EOFError, OSError, ValueError, TypeError, LookupError,
           ArithmeticError, zlib.error)  # fmt: skip
_ISAL_BROKEN: type[Exception] = isal_zlib.IsalError  # type: ignore[assignment]  # its stub says that it is no class


def read_volume(path: Path, *, modality: str = "other", index: int | None = None) -> Volume:
    """An image volume from a NIfTI, MGH, NRRD or MetaImage file, by its ending.

    Args:
        path: The file.
        modality: One of ``medglip.records.MODALITIES``; ``ct`` means Hounsfield units.
        index: Which volume of a file of four dimensions.

    Raises:
        InputError: the file is missing, broken, of another kind, or has four dimensions and ``index`` is None.
    """
    volume = read_itk(path, index=index) if is_itk(path) else read_nifti(path, index=index)
    return _with_unit(volume, modality)


def read_labels(path: Path, *, index: int | None = None) -> Volume:
    """A label volume: as ``read_volume``, with integer voxels.

    Raises:
        InputError: as ``read_volume``, or a voxel is further than 0.001 from an integer.
    """
    volume = read_itk(path, index=index) if is_itk(path) else read_nifti(path, index=index)
    voxels = volume.voxels
    if voxels.ndim != 3:
        raise InputError(f"Label volume {path.name!r} holds colours; allowed: one integer a voxel.")
    if voxels.dtype.kind == "f":
        # Signed 32 bit: never uint8 before the largest label has been seen.
        whole = np.empty_like(voxels, np.int32)
        for plane, target in zip(voxels, whole, strict=True):
            target[...] = nearest = np.rint(plane)
            if np.abs(plane - nearest).max(initial=0.0) > _WHOLE:
                odd = float(voxels.reshape(-1)[np.abs(voxels - np.rint(voxels)).argmax()])
                raise InputError(f"Label volume {path.name!r} holds values such as {odd!r}; allowed: integers.")
        return replace(volume, voxels=whole)
    return volume


def is_volume_file(path: Path | str) -> bool:
    """Whether the name ends as a volume file that this module reads."""
    return str(path).lower().endswith(NIFTI_ENDINGS + ITK_ENDINGS)


def is_itk(path: Path) -> bool:
    """Whether the name ends as NRRD or MetaImage."""
    return path.name.lower().endswith(ITK_ENDINGS)


def read_nifti(path: Path, *, index: int | None = None) -> Volume:
    """Voxels and affine of a NIfTI-1, NIfTI-2 or MGH file; scaling applied, world flipped from RAS+ to LPS+.

    Raises:
        InputError: the file is missing or broken, or has four dimensions and ``index`` is None.
    """
    try:
        with LoggingOutputSuppressor():  # what nibabel mends in a header is judged here
            image = nibabel.load(path)
        if not isinstance(image, SpatialImage):
            raise InputError(f"Volume {path.name!r} is a {type(image).__name__}; allowed: an image on a voxel grid.")
        _check_length(image, path)
        array = _voxels_of(image.dataobj, path.name, index)
        affine, spacing, checks = _nifti_geometry(image)
    except FileNotFoundError as error:
        if path.is_file():
            raise InputError(f"Volume {path.name!r} is half of a pair, and the other half (.hdr, .img) is gone.") from error
        raise InputError(f"Volume {str(path)!r} is not there.") from error
    except _BROKEN as error:
        raise InputError(f"Volume {path.name!r} cannot be read, it is broken or cut off: {error}.") from error
    if array.dtype.names:  # RGB or RGBA voxels: alpha is dropped
        array = np.stack([array[channel] for channel in ("R", "G", "B")], axis=-1)
    array = array.transpose(2, 1, 0, *range(3, array.ndim))
    flags = ("orientation_unknown",) if affine is None else ()
    return _finite(Volume(array, affine, spacing, checks=checks, flags=flags), path.name)


def read_itk(path: Path, *, index: int | None = None) -> Volume:
    """Voxels and affine of an NRRD or MetaImage file.

    Raises:
        InputError: the file is missing or broken, or holds several volumes and ``index`` is None.
    """
    import SimpleITK

    if not path.is_file():
        raise InputError(f"Volume {str(path)!r} is not there.")
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    check_itk_header(path)
    try:
        image = SimpleITK.ReadImage(str(path))
        with path.open("rb") as file:
            head = file.read(4096)
    except (RuntimeError, OSError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise InputError(f"Volume {path.name!r} cannot be read, it is broken or cut off: {reason}") from error
    array, dimension = SimpleITK.GetArrayFromImage(image), image.GetDimension()
    if dimension == 2:
        array = array[None]
    if dimension == 4:
        array = _one_volume(array.T, path.name, index).T
    elif array.ndim == 4 and not (array.dtype == np.uint8 and array.shape[-1] == 3):
        array = _one_volume(array, path.name, index)
    # ITK invents a pitch of 1 mm where the header names none.
    if dimension == 2 or not any(word in head for word in (b"space directions", b"spacings", b"ElementSpacing")):
        return _finite(Volume(array, flags=("orientation_unknown",)), path.name)
    affine = np.eye(4)
    directions = np.reshape(image.GetDirection(), (dimension, dimension))[:3, :3]
    affine[:3, :3] = directions * np.array(image.GetSpacing()[:3])
    affine[:3, 3] = image.GetOrigin()[:3]
    return _finite(Volume(array, affine, spacing_of_affine(affine), checks=_sheared(affine)), path.name)


def _check_length(image: SpatialImage, path: Path) -> None:
    """Refuse a header that promises more than the file can hold, before memory is asked for it.

    Raises:
        InputError: it does.
    """
    shape = tuple(int(length) for length in image.shape)
    promised = math.prod(shape) * image.get_data_dtype().itemsize
    holder = image.file_map.get("image")
    file = Path(holder.filename) if holder is not None and holder.filename else path
    size = file.stat().st_size
    packed = file.name.lower().endswith((".gz", ".mgz"))
    if min(shape, default=0) < 0 or promised > size * (MOST_PACKED if packed else 1):
        raise InputError(
            f"Volume {path.name!r} is broken or cut off: its header promises the shape {shape}, {promised} bytes, and the file"
            f" has {size}{' packed' if packed else ''}."
        )


class _Unpacked(igzip.IGzipFile):
    """A gzip file read by ISA-L, in two thirds of zlib's time; what is read is unpacked into its place, part by part."""

    def readinto(self, buffer: Any) -> int:
        """As of any file; Python's own would unpack all of it to a second place first."""
        target = memoryview(buffer).cast("B")
        filled = 0
        while filled < len(target) and (part := self.read(min(_PART_BYTES, len(target) - filled))):
            target[filled : filled + len(part)] = part
            filled += len(part)
        return filled


def _voxels_of(data: Any, name: str, index: int | None) -> np.ndarray:
    """The voxels (I, J, K) that nibabel's proxy stands for, scaled.

    Raises:
        OSError: the checksum of a packed file says that its voxels are not those that were packed.
    """
    if type(data) is ArrayProxy and str(data.file_like).lower().endswith((".gz", ".mgz")):
        try:
            with _Unpacked(data.file_like, "rb") as file:
                same = ArrayProxy(file, (data.shape, data.dtype, data.offset, data.slope, data.inter))
                voxels = _scaled(_one_volume(same, name, index))
                file.read(1)  # where the voxels end the file, what follows them is their checksum
                return voxels
        except (OSError, EOFError, _ISAL_BROKEN) as error:
            if str(error).startswith(_DAMAGED):
                raise
            # zlib reads as far as it is asked to, also where the end is cut off or something else follows it
    return _scaled(_one_volume(data, name, index))


def _scaled(data: Any) -> np.ndarray:
    """An array as it is, or what a proxy holds; scaled numbers as 32 bit, plane by plane, for nibabel's have 64."""
    plain = type(data) is not ArrayProxy or (data.slope, data.inter) == (1, 0) or data.dtype.kind not in "iuf"
    if plain or not (isinstance(data.slope, float) and isinstance(data.inter, float)):
        return np.asarray(data)
    stored = data.get_unscaled()
    values = np.empty(stored.shape, np.float32, order="F")
    for plane in range(stored.shape[-1]):
        values[..., plane] = apply_read_scaling(stored[..., plane], np.float64(data.slope), np.float64(data.inter))
    return values


def _one_volume(data: Any, name: str, index: int | None) -> Any:
    """The three-dimensional part (I, J, K) of an array or nibabel proxy that may have more or fewer dimensions."""
    shape = tuple(int(length) for length in data.shape)
    if len(shape) < 2 or 0 in shape:
        raise InputError(f"Volume {name!r} has the shape {shape}; allowed: three dimensions, none of them empty.")
    if len(shape) == 2:
        return np.asarray(data)[:, :, None]
    count = int(np.prod(shape[3:]))
    if count == 1:
        index = 0
    if index is None:
        raise InputError(f"Volume {name!r} holds {count} volumes, shape {shape}; allowed: one; name which one by its index.")
    if not 0 <= index < count:
        raise InputError(f"Volume {name!r} holds {count} volumes; found index {index}; allowed: 0 to {count - 1}.")
    return data[(..., *np.unravel_index(index, shape[3:], order="F"))] if len(shape) > 3 else data


def _nifti_geometry(
    image: SpatialImage,
) -> tuple[np.ndarray | None, tuple[float, float, float] | None, dict[str, str]]:
    """Affine to LPS+ (sform if it is coded and valid, else qform), spacing and checks.

    Without either code the pitch is known, but not where the patient's left is: no affine.
    """
    zooms = [float(zoom) for zoom in image.header.get_zooms()[:3]]
    zooms += [1.0] * (3 - len(zooms))
    known = all(np.isfinite(zooms)) and min(zooms) > 0 and not _pitch_made_up(image)
    spacing = (zooms[2], zooms[1], zooms[0]) if known else None
    checks: dict[str, str] = {}
    if isinstance(image, nibabel.MGHImage):
        affine = image.affine if _invertible(image.affine) else None
    elif isinstance(image, nibabel.Nifti1Pair):
        sform, sform_code = image.get_sform(coded=True)
        qform, qform_code = image.get_qform(coded=True)
        if spacing is None:  # a qform takes its pitch from pixdim
            qform_code = 0
        usable = [form for form, code in ((sform, sform_code), (qform, qform_code)) if code > 0 and _invertible(form)]
        if len(usable) == 2 and np.abs(usable[0] - usable[1]).max() > 1e-3:
            checks["sform_qform"] = "differ"
        affine = usable[0] if usable else None
    else:
        affine = None
    if affine is None:
        return None, spacing, checks
    affine = _RAS_TO_LPS @ np.asarray(affine, dtype=np.float64)
    return affine, spacing_of_affine(affine), checks | _sheared(affine)


def _sheared(affine: np.ndarray) -> dict[str, str]:
    """The check ``sheared`` where the axes of an affine are not at right angles; it holds all the same."""
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return {"sheared": "yes"} if np.abs(axes.T @ axes - np.eye(3)).max() > _SHEARED else {}


def _pitch_made_up(image: SpatialImage) -> bool:
    """Whether a NIfTI file has a pitch of 0, which nibabel reads as 1 mm."""
    if not isinstance(image, nibabel.Nifti1Pair):
        return False
    holder = image.file_map.get("header") or image.file_map["image"]
    if holder.filename is None:
        holder = image.file_map["image"]
    with holder.get_prepare_fileobj("rb") as file:
        raw = type(image.header).from_fileobj(file, check=False)
    return bool((raw["pixdim"][1:4] == 0).any())


def _invertible(form: np.ndarray | None) -> bool:
    return form is not None and bool(np.isfinite(form).all()) and abs(np.linalg.det(form[:3, :3])) > 1e-9


def _finite(volume: Volume, name: str) -> Volume:
    """The volume in the machine's byte order, floats as 32 bit, with NaN and infinity filled by the lowest value."""
    voxels = volume.voxels
    if voxels.dtype.kind not in "buif":
        raise InputError(f"Volume {name!r} holds numbers of type {voxels.dtype}; allowed: integers, floats, RGB.")
    if voxels.dtype.kind == "b":
        return replace(volume, voxels=voxels.astype(np.uint8))
    if voxels.dtype.kind != "f":
        native = voxels.dtype.newbyteorder("=")
        if voxels.dtype != native and voxels.flags.writeable:  # it was read for this, so no copy is needed
            return replace(volume, voxels=voxels.byteswap(inplace=True).view(native))
        return replace(volume, voxels=voxels.astype(native, copy=False))
    voxels = voxels.astype(np.float32, copy=False)
    if all(np.isfinite(plane).all() for plane in voxels):
        return replace(volume, voxels=voxels)
    voxels = voxels if voxels.flags.writeable else voxels.copy(order="K")
    good = np.isfinite(voxels)
    if not good.any():
        raise InputError(f"Volume {name!r} holds no finite number; there is nothing to show.")
    voxels[~good] = voxels[good].min()
    return replace(volume, voxels=voxels, checks=volume.checks | {"not_finite_filled": str(int((~good).sum()))})


def _with_unit(volume: Volume, modality: str) -> Volume:
    if volume.voxels.ndim == 4:
        return replace(volume, unit="rgb")
    if modality != "ct":
        return volume
    # A CT always holds air or fat; without anything below water these are not Hounsfield units.
    if volume.voxels.min() >= 0:
        return replace(volume, flags=(*volume.flags, "not_hu"))
    return replace(volume, unit="HU")
