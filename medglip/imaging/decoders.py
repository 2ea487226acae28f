"""Which transfer syntaxes of DICOM can be decoded here, and which package would help. Knows no files.

Source: DICOM PS3.5 section 10 and PS3.6 table A-1.
"""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder, get_encoder, pixel_array
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

_VIDEO = "a video: export its frames as images or as a multi-frame file of another transfer syntax"
_JXL = "pydicom has no decoder of JPEG XL yet; convert the file at its archive"
# Compressed transfer syntaxes, and the package that decodes each, or what to do where none does.
SYNTAXES: dict[str, str] = {
    "1.2.840.10008.1.2.5": "pylibjpeg-rle",
    "1.2.840.10008.1.2.4.50": "pylibjpeg-libjpeg", "1.2.840.10008.1.2.4.51": "pylibjpeg-libjpeg",
    "1.2.840.10008.1.2.4.57": "pylibjpeg-libjpeg", "1.2.840.10008.1.2.4.70": "pylibjpeg-libjpeg",
    "1.2.840.10008.1.2.4.80": "pylibjpeg-libjpeg", "1.2.840.10008.1.2.4.81": "pylibjpeg-libjpeg",
    "1.2.840.10008.1.2.4.90": "pylibjpeg-openjpeg", "1.2.840.10008.1.2.4.91": "pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.201": "pylibjpeg-openjpeg", "1.2.840.10008.1.2.4.202": "pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.203": "pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.53": "SimpleITK", "1.2.840.10008.1.2.4.55": "SimpleITK",
    "1.2.840.10008.1.2.4.100": _VIDEO,
    "1.2.840.10008.1.2.4.101": _VIDEO,
    "1.2.840.10008.1.2.4.102": _VIDEO,
    "1.2.840.10008.1.2.4.103": _VIDEO,
    "1.2.840.10008.1.2.4.107": _VIDEO,
    "1.2.840.10008.1.2.4.110": _JXL, "1.2.840.10008.1.2.4.111": _JXL, "1.2.840.10008.1.2.4.112": _JXL,
}  # fmt: skip
# Names that pydicom does not know.
_NAMES = {"1.2.840.10008.1.2.4.110": "JPEG XL Lossless", "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
          "1.2.840.10008.1.2.4.112": "JPEG XL"}  # fmt: skip
_PLUGINS = {"pylibjpeg-rle": "rle", "pylibjpeg-libjpeg": "libjpeg", "pylibjpeg-openjpeg": "openjpeg", "SimpleITK": "SimpleITK"}
# Import name of each package beside its name: what medglip always has, and what it uses where it is there.
PACKAGES = {
    "pydicom": "pydicom", "pylibjpeg": "pylibjpeg", "pylibjpeg-libjpeg": "libjpeg", "pylibjpeg-openjpeg": "openjpeg",
    "pylibjpeg-rle": "rle", "nibabel": "nibabel", "SimpleITK": "SimpleITK", "pillow": "PIL", "tifffile": "tifffile",
    "scikit-image": "skimage", "connected-components-3d": "cc3d", "highdicom": "highdicom",
}  # fmt: skip
OPTIONAL = {
    "torch": ("torch", "train, ground, ask and report"), "monai": ("monai", "sliding windows, losses and transforms"),
    "transformers": ("transformers", "pretrained encoders"), "dask": ("dask", "convert --engine dask"),
    "dicomweb-client": ("dicomweb_client", "convert from dicomweb://"), "webdataset": ("webdataset", "read the shards"),
    "datasets": ("datasets", "export --to hf"), "onnx": ("onnx", "export of a model"),
    "imagecodecs": ("imagecodecs", "TIFF tiles in JPEG 2000, JPEG XR and other rare codecs"),
}  # fmt: skip


class Decoder(NamedTuple):
    """One transfer syntax and what became of it here.

    Attributes:
        uid, name: Of the transfer syntax.
        state: ``works`` (a frame was decoded and compared), ``ready`` (its decoder is there), ``missing`` or ``none``.
        by: Packages that pydicom would use.
        advice: What would help, where it is not ready.
    """

    uid: str
    name: str
    state: str
    by: tuple[str, ...]
    advice: str


def syntax_name(uid: str) -> str:
    """A transfer syntax in words."""
    return _NAMES.get(uid) or UID(uid).name


def advice_for(uid: str) -> str:
    """What a user can do about a transfer syntax that does not decode.

    >>> advice_for("1.2.840.10008.1.2.4.112")
    'pydicom has no decoder of JPEG XL yet; convert the file at its archive'
    """
    package = SYNTAXES.get(uid)
    if package is None:
        return "it is no transfer syntax that medglip knows; convert the file at its archive"
    if package not in _PLUGINS:
        return package
    if find_spec(_PLUGINS[package]) is None:
        return f"install {package}"
    return f"{package} refuses these bytes, they may be damaged; fetch the file anew or leave it out"


@contextmanager
def without_panics() -> Iterator[None]:
    """A RuntimeError instead of what a decoder written in Rust raises when it falls over, which is no Exception.

    Uncaught it would end the whole run at one broken file. Its type can be imported from nowhere.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ == "PanicException":
            raise RuntimeError(f"the decoder gave up: {error}") from None
        raise


def plugins_for(uid: str) -> tuple[str, ...]:
    """The decoders that are asked, in order: always the same, so that a machine with more packages decodes the same values.

    Codecs with loss differ by a step between decoders; pydicom would take whichever is installed. GDCM's own is never
    asked: it ends the process at a broken JPEG. Nor is pydicom's own of RLE where a strict one is there, for it makes up
    what broken runs leave out.
    """
    try:
        there = get_decoder(uid).available_plugins
    except NotImplementedError:
        return ()
    if uid == RLELossless and "pylibjpeg" in there:
        return ("pylibjpeg",)
    return tuple(sorted((plugin for plugin in there if plugin != "gdcm"), key=lambda plugin: (plugin != "pylibjpeg", plugin)))


def probed() -> list[Decoder]:
    """Every compressed transfer syntax; those that can be written here are tried on a real frame, made for it."""
    found = []
    for uid, package in SYNTAXES.items():
        name = syntax_name(uid)
        try:
            by = plugins_for(uid) if get_decoder(uid).is_available else ()
        except NotImplementedError:
            by = ("SimpleITK",) if package == "SimpleITK" and find_spec("SimpleITK") else ()
        if by:
            found.append(Decoder(uid, name, _tried(uid), by, ""))
        else:
            found.append(Decoder(uid, name, "missing" if package in _PLUGINS else "none", by, advice_for(uid)))
    return found


def versions() -> list[tuple[str, str | None, str]]:
    """Each package, its version or None where it is not installed, and what it is for."""
    needed = [(package, _version(package), "always") for package in PACKAGES]
    return needed + [(package, _version(package), use) for package, (_, use) in OPTIONAL.items()]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _tried(uid: str) -> str:
    """``works`` where a frame comes back from the codec as it went in; ``ready`` where nothing here can write it."""
    frame = (np.arange(32 * 32, dtype=np.uint16).reshape(32, 32) * 7) % 4096
    frame, payload = _compressed(frame, uid)
    if payload is None:
        return "ready"
    try:
        back = pixel_array(_around(encapsulate([payload]), uid, frame.dtype.itemsize * 8))
    except (RuntimeError, ValueError, NotImplementedError):
        return "fails"
    off = 2 if uid == JPEGBaseline8Bit else 0  # a lossy codec: a smooth frame comes back within two steps
    return "works" if np.abs(back.astype(int) - frame).max() <= off else "wrong"


def _compressed(frame: np.ndarray, uid: str) -> tuple[np.ndarray, bytes | None]:
    """A frame and its bytes in a syntax, None where no encoder is here."""
    if uid in (JPEGLossless, JPEGLosslessSV1):
        return np.full((32, 32), 2048, np.uint16), _flat_lossless_jpeg()
    if uid == JPEGBaseline8Bit:
        smooth, file = (np.add.outer(np.arange(32), np.arange(32)) * 4).astype(np.uint8), io.BytesIO()
        Image.fromarray(smooth).save(file, "JPEG", quality=100)
        return smooth, file.getvalue()
    writer = {JPEGLSNearLossless: JPEGLSLossless, JPEG2000: JPEG2000Lossless}.get(UID(uid), UID(uid))
    if writer not in (RLELossless, JPEGLSLossless, JPEG2000Lossless) or not get_encoder(writer).is_available:
        return frame, None
    return frame, get_encoder(writer).encode(_around(frame.tobytes(), ExplicitVRLittleEndian, 16))


def _flat_lossless_jpeg() -> bytes:
    """A lossless JPEG of 32 x 32 samples of 12 bits that are all 2048: every difference is 0, one bit a sample.

    Source: ITU-T T.81 annex H; predictor 1, and a Huffman table whose only code, 0, stands for "no difference".
    """
    table = bytes([0x00, 1]) + bytes(15) + bytes([0])
    segments = [(0xC3, bytes([12, 0, 32, 0, 32, 1, 1, 0x11, 0])), (0xC4, table), (0xDA, bytes([1, 1, 0, 1, 0, 0]))]
    head = b"".join(struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in segments)
    return b"\xff\xd8" + head + bytes(32 * 32 // 8) + b"\xff\xd9"


def _around(payload: bytes, uid: str, bits: int) -> Dataset:
    """A grey 32 x 32 image of 8 bits, or of 12 in 16, around its pixel data."""
    data = Dataset()
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.Rows = data.Columns = 32
    data.BitsAllocated, data.BitsStored = bits, min(bits, 12)
    data.HighBit = data.BitsStored - 1
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = UID(uid)
    data.PixelData = payload
    data["PixelData"].VR = "OB" if UID(uid).is_compressed else "OW"
    data["PixelData"].is_undefined_length = UID(uid).is_compressed
    return data
