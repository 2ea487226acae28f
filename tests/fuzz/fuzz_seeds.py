"""Tiny valid inputs of every kind that medglip reads: the files, which of them is to be broken, and the source's TOML."""

import io
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

HEAD = 'name = "tiny"\ntitle = "Tiny"\nlicence = "CC0-1.0"\nnames = "public"\n[[part]]\n'


@dataclass(frozen=True)
class Seed:
    """One valid input.

    Attributes:
        kind: What is broken, for the table of results.
        files: Content by path, relative to the input folder.
        target: The path of the file that mutants change.
        toml: The source that converts it.
        family: Which mutations make sense beside those of bytes.
        given: Which path is given to the conversion: an archive, or the folder ("").
    """

    kind: str
    files: dict[str, bytes]
    target: str
    toml: str
    family: str = ""
    given: str = ""


def saved(write: Callable[[Path], object], name: str) -> bytes:
    """What ``write`` puts into a file of this name."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder, name))
        return Path(folder, name).read_bytes()


def tree_of(write: Callable[[Path], object]) -> dict[str, bytes]:
    """All files that ``write`` puts into a folder."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        return {
            path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(Path(folder).rglob("*")) if path.is_file()
        }


def noise(height: int = 20, width: int = 30, kind: type = np.uint8) -> np.ndarray:
    """A grey picture with something to see."""
    return np.random.default_rng(height * width).integers(0, np.iinfo(kind).max, (height, width)).astype(kind)


def picture(array: np.ndarray, form: str, **options: object) -> bytes:
    """An array as an image file."""
    file = io.BytesIO()
    Image.fromarray(array).save(file, format=form, **options)
    return file.getvalue()


def mask(height: int = 20, width: int = 30) -> np.ndarray:
    """Two rectangles of 255 in 0."""
    array = np.zeros((height, width), np.uint8)
    array[4:10, 5:15] = array[12:18, 18:28] = 255
    return array


def all_seeds() -> list[Seed]:
    """Every seed, in a fixed order; real files too where MEDGLIP_REAL_DATA names a folder."""
    from fuzz_seeds_dicom import dicom_seeds
    from fuzz_seeds_tables import table_seeds
    from fuzz_seeds_volumes import raster_seeds, volume_seeds

    seeds = [*dicom_seeds(), *volume_seeds(), *raster_seeds(), *table_seeds()]
    if real := os.environ.get("MEDGLIP_REAL_DATA"):
        seeds += real_seeds(Path(real))
    return seeds


MOST_REAL_BYTES = 200_000
# At most so many files of a kind and folder: neighbours break alike.
_A_FOLDER = 3


def real_seeds(folder: Path) -> Iterator[Seed]:
    """Small files of the folder of real data, by what they are; a few of each folder."""
    from fuzz_seeds_dicom import DICOM_TOML
    from fuzz_seeds_volumes import PICTURES_TOML, SAME_VOLUME_TOML

    from medglip.imaging.dicom import is_dicom
    from medglip.imaging.nifti import is_volume_file
    from medglip.imaging.raster import ENDINGS

    taken: dict[tuple[Path, str], int] = {}
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or not 0 < path.stat().st_size < MOST_REAL_BYTES:
            continue
        name, content = path.name.lower(), path.read_bytes()
        if is_volume_file(path):
            ending = name[name.index(".") :] if name.endswith(".gz") else path.suffix.lower()
            if ending in (".hdr", ".img", ".nhdr", ".mhd"):
                continue  # halves
            ending = ".nii.gz" if ending.endswith(".nii.gz") else ending
            seed = Seed("real volume", {f"a_ct{ending}": content, f"a_seg{ending}": content}, f"a_ct{ending}",
                        SAME_VOLUME_TOML, "nifti" if ".nii" in ending else "")  # fmt: skip
        elif name.endswith(ENDINGS):
            file = f"images/a{path.suffix.lower()}"
            seed = Seed("real picture", {file: content}, file, PICTURES_TOML, "png" if name.endswith(".png") else "")
        elif is_dicom(path):
            seed = Seed("real DICOM", {"a": content}, "a", DICOM_TOML.replace("xray", _modality(path)), "dicom")
        else:
            continue
        key = (path.parent, seed.kind)
        taken[key] = taken.get(key, 0) + 1
        if taken[key] <= _A_FOLDER:
            yield seed


def _modality(path: Path) -> str:
    """The modality of a real DICOM file, so that the source does not pass it over; ``other`` where it is broken."""
    from medglip.errors import InputError
    from medglip.imaging.dicom import MODALITY_OF, read_header

    try:
        return MODALITY_OF.get(str(read_header(path).get("Modality", "")), "other")
    except InputError:
        return "other"
