"""How a valid file is broken: bytes anywhere, and what each format is broken at. Knows no seeds and reads nothing."""

import copy
import gzip
import io
import json
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

Rng = np.random.Generator
Mutation = Callable[[bytes, Rng], bytes]

WORDS = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]
FLOATS = [0.0, -0.0, -1.0, 1e-38, 1e-300, 1e38, 1e308, float("nan"), float("inf"), float("-inf"), 65536.5]
# In a path of an archive or a cell, it would lead into the folder that is looked through for strange files.
GUARD = "fuzz-guard"


def any_of(rng: Rng, values: list) -> object:
    """One of the values."""
    return values[int(rng.integers(len(values)))]


def _at(data: bytes, rng: Rng, length: int = 1) -> int:
    """A place in the data; half of the time in its first kilobyte, where headers are."""
    most = max(len(data) - length, 1)
    return int(rng.integers(min(most, 1024) if rng.random() < 0.5 else most))


def put(data: bytes, at: int, new: bytes) -> bytes:
    """The data with some bytes replaced."""
    return data[:at] + new + data[at + len(new) :]


# --- bytes ---


def cut_off(data: bytes, rng: Rng) -> bytes:
    if rng.random() < 0.4:  # at a border that formats have
        return data[
            : int(any_of(rng, [0, 1, 2, 4, 8, 16, 100, 128, 132, 256, 348, 352, 512, 540, len(data) - 1, len(data) - 2]))
        ]
    return data[: int(rng.integers(len(data) + 1))]


def flip_bits(data: bytes, rng: Rng) -> bytes:
    if not data:
        return data
    array = np.frombuffer(data, np.uint8).copy()
    for _ in range(int(rng.integers(1, 9))):
        array[_at(data, rng)] ^= 1 << int(rng.integers(8))
    return array.tobytes()


def set_bytes(data: bytes, rng: Rng) -> bytes:
    length = int(any_of(rng, [1, 2, 4, 8, 64]))
    return put(data, _at(data, rng, length), rng.bytes(length))


def set_word(data: bytes, rng: Rng) -> bytes:
    word, size = int(any_of(rng, WORDS)), int(any_of(rng, [2, 4, 8]))
    order = "little" if rng.random() < 0.5 else "big"
    return put(data, _at(data, rng, size), (word % 2 ** (8 * size)).to_bytes(size, order))


def move_block(data: bytes, rng: Rng) -> bytes:
    size = int(rng.integers(1, max(len(data) // 4, 2)))
    one, two = _at(data, rng, size), _at(data, rng, size)
    block, kind = data[one : one + size], int(rng.integers(5))
    if kind == 0:
        return put(data, one, bytes(len(block)))
    if kind == 1:
        return data[:one] + block + data[one:]
    if kind == 2:
        return data[:one] + data[one + size :]
    if kind == 3:
        return put(put(data, one, data[two : two + size]), two, block)
    return data[:one] + rng.bytes(size) + data[one:]


def add_tail(data: bytes, rng: Rng) -> bytes:
    return data + (rng.bytes(64), bytes(5000), data)[int(rng.integers(3))]


BYTES: list[Mutation] = [cut_off, flip_bits, set_bytes, set_word, move_block, add_tail]

# --- DICOM ---

_VR = (b"AE|AS|AT|CS|DA|DS|DT|FL|FD|IS|LO|LT|OB|OD|OF|OL|OV|OW|PN|SH|SL|SQ|SS|ST|SV|TM|UC|UI|UL|UN|UR|US|UT|UV").split(b"|")
_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
_ELEMENT = re.compile(rb"(?s)[\x00-\xff]{4}(?=" + b"|".join(_VR) + b")")
_TAGS = {
    "Rows": 0x00280010, "Columns": 0x00280011, "BitsAllocated": 0x00280100, "BitsStored": 0x00280101, "HighBit": 0x00280102,
    "NumberOfFrames": 0x00280008, "SamplesPerPixel": 0x00280002, "Photometric": 0x00280004, "Representation": 0x00280103,
    "Planar": 0x00280006, "TransferSyntax": 0x00020010, "SOPClass": 0x00080016, "Spacing": 0x00280030,
    "Orientation": 0x00200037, "Position": 0x00200032, "Slope": 0x00281053, "Intercept": 0x00281052, "Centre": 0x00281050,
    "Width": 0x00281051, "Modality": 0x00080060, "Contour": 0x30060050, "ROINumber": 0x30060084, "SegmentNumber": 0x0062000B,
    "FileID": 0x00041500, "Pixels": 0x7FE00010, "Charset": 0x00080005, "Next": 0x00041400, "Lower": 0x00041420,
}  # fmt: skip
_TEXTS = [b"", b"0", b"-1", b"1e308", b"nan", b"inf", b"99999999999", b"0\\0", b"1\\2\\3\\4\\5\\6", b"0\\0\\0\\0\\0\\0", b"abc",
          b"MONOCHROME1", b"RGB", b"YBR_FULL", b"YBR_FULL_422", b"PALETTE COLOR", b"\xff\xfe", b"..\\..\\..\\etc\\passwd",
          b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.4.50",
          b"1.2.840.10008.1.2.4.70", b"1.2.840.10008.1.2.4.80", b"1.2.840.10008.1.2.4.90", b"1.2.840.10008.1.2.5",
          b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.4.201", b"ISO 2022 IR 87", b"2147483648", b"1000000"]  # fmt: skip


def _elements(data: bytes) -> list[int]:
    return [match.start() for match in _ELEMENT.finditer(data, 132)]


def _value(data: bytes, at: int) -> tuple[int, int, int]:
    """Where the length of an explicit element stands, how many bytes it has, and where the value begins."""
    return (at + 8, 4, at + 12) if data[at + 4 : at + 6] in _LONG else (at + 6, 2, at + 8)


def dicom_vr(data: bytes, rng: Rng) -> bytes:
    places = _elements(data)
    return put(data, int(any_of(rng, places)) + 4, any_of(rng, [*_VR, b"ZZ", b"\0\0"])) if places else data


def dicom_length(data: bytes, rng: Rng) -> bytes:
    places = _elements(data)
    if not places:
        return data
    at, size, _ = _value(data, int(any_of(rng, places)))
    return put(data, at, (int(any_of(rng, WORDS)) % 2 ** (8 * size)).to_bytes(size, "little"))


def dicom_tag(data: bytes, rng: Rng) -> bytes:
    places = _elements(data)
    if not places:
        return data
    tag = int(any_of(rng, list(_TAGS.values()))) if rng.random() < 0.5 else int(rng.integers(2**32))
    return put(data, int(any_of(rng, places)), struct.pack("<HH", tag >> 16, tag & 0xFFFF))


def dicom_value(data: bytes, rng: Rng) -> bytes:
    """One of the values that say how pixels lie becomes another, with its length."""
    tags = [tag for tag in _TAGS.values() if struct.pack("<HH", tag >> 16, tag & 0xFFFF) in data[132:]]
    if not tags:
        return data
    tag = int(any_of(rng, tags))
    at = data.find(struct.pack("<HH", tag >> 16, tag & 0xFFFF), 132)
    kind, (where, size, begin) = data[at + 4 : at + 6], _value(data, at)
    length = int.from_bytes(data[where : where + size], "little")
    if length > len(data):
        return dicom_length(data, rng)
    new = struct.pack("<H", int(any_of(rng, WORDS)) & 0xFFFF) if kind in (b"US", b"SS") else any_of(rng, _TEXTS)
    if kind in (b"UL", b"SL"):
        new = struct.pack("<I", int(any_of(rng, WORDS)))
    if kind in (b"OB", b"OW"):
        new = rng.bytes(int(rng.integers(0, 64)) * 2)
    new += b" " * (len(new) % 2)
    return data[:where] + len(new).to_bytes(size, "little") + new + data[begin + length :]


def dicom_dropped(data: bytes, rng: Rng) -> bytes:
    """One element of those with a short length goes."""
    places = [at for at in _elements(data) if data[at + 4 : at + 6] not in _LONG]
    if not places:
        return data
    at = int(any_of(rng, places))
    where, size, begin = _value(data, at)
    return data[:at] + data[begin + int.from_bytes(data[where : where + size], "little") :]


def dicom_nested(data: bytes, rng: Rng) -> bytes:
    """A sequence in a sequence in a sequence, before the first element after the meta header."""
    at = data.find(b"\x08\x00\x05\x00", 132)
    at = at if at > 0 else max(data.find(b"\x08\x00", 200), 132)
    deep = int(any_of(rng, [10, 300, 3000, 20000]))
    return data[:at] + (b"\x08\x00\x40\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * deep) + data[at:]


# --- volumes ---

_NIFTI_FIELDS = {40: "h", 42: "h", 44: "h", 46: "h", 48: "h", 50: "h", 70: "h", 72: "h", 76: "f", 80: "f", 84: "f", 88: "f",
                 108: "f", 112: "f", 116: "f", 123: "b", 252: "h", 254: "h", 256: "f", 260: "f", 264: "f", 268: "f", 280: "f",
                 284: "f", 296: "f", 312: "f", 320: "f", 344: "i", 0: "i"}  # fmt: skip


def _within_gzip(data: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """The change made to what a packed file holds, so that it reaches the reader; plain files as they are."""
    if data[:2] != b"\x1f\x8b":
        return change(data)
    try:
        return gzip.compress(change(gzip.decompress(data)), 1, mtime=0)
    except (OSError, EOFError, zlib.error):
        return data


def nifti_field(data: bytes, rng: Rng) -> bytes:
    def change(raw: bytes) -> bytes:
        for _ in range(int(rng.integers(1, 4))):
            at = int(any_of(rng, list(_NIFTI_FIELDS)))
            kind = _NIFTI_FIELDS[at]
            size = struct.calcsize(kind)
            if kind == "f":
                with np.errstate(over="ignore"):
                    new = np.float32(any_of(rng, FLOATS)).tobytes()
            else:
                number = int(any_of(rng, [*WORDS, 3, 4, 5, 7, 8, 16, 64, 128, 256, 512, 768, 1024, 1536, 1792, 2304]))
                new = (number % 2 ** (8 * size)).to_bytes(size, "little")
            raw = put(raw, at, new)
        return raw

    return _within_gzip(data, change)


def nifti_bytes(data: bytes, rng: Rng) -> bytes:
    return _within_gzip(data, lambda raw: any_of(rng, BYTES)(raw, rng))  # type: ignore[operator]


def gzip_bomb(data: bytes, rng: Rng) -> bytes:
    """The file's content, then 256 MB of zeros."""

    def change(raw: bytes) -> bytes:
        return raw + bytes(int(any_of(rng, [2**16, 2**26, 2**28])))

    return _within_gzip(data, change)


def header_line(data: bytes, rng: Rng) -> bytes:
    """A line of an NRRD or MetaImage header says something else."""
    lines = data.split(b"\n")
    head = [n for n, line in enumerate(lines[:20]) if (b":" in line or b"=" in line) and len(line) < 200]
    if not head:
        return data
    at = int(any_of(rng, head))
    name, sign, _ = re.split(rb"([:=]+ ?)", lines[at], maxsplit=1)
    new = any_of(rng, [b"", b"0 0 0", b"-1", b"99999 99999 99999", b"4294967296", b"nan nan nan", b"1e308", b"raw", b"gzip",
                       b"uchar", b"double", b"MET_DOUBLE", b"MET_FLOAT_ARRAY", b"7", b"16", b"2 2", b"../../../etc/passwd",
                       b"/etc/passwd", b"LIST", b"True", b"a" * 70000, b"(1,0,0) (0,0,0) (0,0,1)", b"none",
    b"1 1 1 1 1 1 1 1"])  # fmt: skip
    lines[at] = name + sign + new
    return b"\n".join(lines)


# --- images ---


def png_chunk(data: bytes, rng: Rng) -> bytes:
    """A chunk's length, name or content, with or without its sum put right."""
    at, places = 8, []
    while at + 12 <= len(data):
        places.append(at)
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    if not places:
        return data
    at = int(any_of(rng, places))
    length, kind = int.from_bytes(data[at : at + 4], "big"), int(rng.integers(3))
    if kind == 0:
        return put(data, at, int(any_of(rng, WORDS)).to_bytes(4, "big"))
    name = data[at + 4 : at + 8]
    if kind == 1:
        name = any_of(rng, [b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"eXIf", b"zTXt", b"iCCP", b"acTL", b"fdAT"])
    body = data[at + 8 : at + 8 + length]
    if kind == 2 and body:
        body = any_of(rng, BYTES)(body, rng)
    return _chunk_in(data, at, length, name, body)


def _chunk_in(data: bytes, at: int, length: int, name: bytes, body: bytes) -> bytes:
    chunk = len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")
    return data[:at] + chunk + data[at + 12 + length :]


def png_size(data: bytes, rng: Rng) -> bytes:
    """Another size, depth or kind of colour, with the right sum."""
    body = bytearray(data[16:29])
    if len(body) < 13:  # another change has cut it off already
        return data
    for _ in range(int(rng.integers(1, 3))):
        kind = int(rng.integers(4))
        if kind < 2:
            body[4 * kind : 4 * kind + 4] = int(any_of(rng, [*WORDS, 13000, 20000, 60000])).to_bytes(4, "big")
        else:
            body[6 + kind] = int(any_of(rng, [0, 1, 2, 3, 4, 6, 7, 8, 16, 255]))
    return _chunk_in(data, 8, 13, b"IHDR", bytes(body))


def png_text_bomb(data: bytes, rng: Rng) -> bytes:
    """A text or profile chunk that becomes 200 MB."""
    packed = zlib.compress(bytes(200_000_000 if rng.random() < 0.2 else 2_000_000), 1)
    name = b"zTXt" if rng.random() < 0.5 else b"iCCP"
    body = b"Comment\0\0" + packed
    chunk = len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")
    return data[:33] + chunk + data[33:]


def tiff_entry(data: bytes, rng: Rng) -> bytes:
    """The type, count or value of an entry of the first directory."""
    big = data[2:3] == b"+"
    first = int.from_bytes(data[8:16], "little") if big else int.from_bytes(data[4:8], "little")
    head, size = (8, 20) if big else (2, 12)
    count = int.from_bytes(data[first : first + head], "little")
    if not 0 < count < 1000:
        return data
    entry = first + head + size * int(rng.integers(count))
    kind = int(rng.integers(4))
    if kind == 0:
        return put(data, entry, struct.pack("<H", int(any_of(rng, [256, 257, 258, 259, 262, 273, 277, 278, 279, 284, 322,
                                                                  323, 324, 325, 330, 339, 274, 320, 65535]))))  # fmt: skip
    if kind == 1:
        return put(data, entry + 2, struct.pack("<H", int(rng.integers(0, 20))))
    width = 8 if big else 4
    at = entry + 4 + (width if kind == 3 else 0)
    return put(data, at, int(any_of(rng, [*WORDS, 3, 4, 5, 7, 32773, 34712, 50000, 100_000])).to_bytes(width, "little"))


# --- tables and texts ---

_CELLS = ["", "nan", "NaN", "inf", "-inf", "1e308", "-1e308", "1e400", "-1", "0", "0x10", "1_000", "½", "１２", '"', '"""',
          "'", "\0", "\ufeff", "a" * 200_000, "9" * 5000, "[" * 5000, "=1+1", "../../../etc/passwd", "/etc/passwd", "a\nb",
          "a,b", ";", "\u202e", "None", "True", "1 2 3", "1 -5", "-1 -1", "1 99999999999999999999", "0 0", "5 5 5", "é́",
"[]", "{}", "1;2"]  # fmt: skip


def csv_cell(data: bytes, rng: Rng) -> bytes:
    lines = data.decode("utf-8", "replace").split("\n")
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(len(lines)))
        sign = "," if "," in lines[at] else " "
        cells = lines[at].split(sign)
        cells[int(rng.integers(len(cells)))] = str(any_of(rng, _CELLS))
        if rng.random() < 0.2:
            cells = cells[:-1] if rng.random() < 0.5 else [*cells, "more"]
        lines[at] = sign.join(cells)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def csv_form(data: bytes, rng: Rng) -> bytes:
    """Another encoding, ending of lines, separator; rows doubled or gone."""
    text = data.decode("utf-8", "replace")
    kind = int(rng.integers(9))
    if kind == 0:
        return text.encode("utf-16")
    if kind == 1:
        return b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n")
    if kind == 2:
        return data.replace(b",", any_of(rng, [b";", b"\t", b"|", b",,", b" ,"]))
    if kind == 3:
        return data + data.split(b"\n")[1] * 3 if b"\n" in data else data * 2
    if kind == 4:
        return data.split(b"\n")[0]
    if kind == 5:
        return data.replace(b"\n", b"\r")
    if kind == 6:
        return b"".join(data.split(b"\n")[1:])
    if kind == 7:
        return gzip.compress(data, mtime=0)
    return data + b"\n" * 5000


_JSON_VALUES = [None, True, False, 0, -1, 1e308, -1e308, 10**40, 2**63, "", "x", "nan", [], {}, [[]], [None], [[1, 2], [3]],
                {"size": [2**31, 2**31], "counts": "0"}, {"size": [20, 30], "counts": [10**12]}, {"size": [20, 30],
                "counts": "zz~"}, [1, 2, 3], [1, 2, 3, 4, 5], [float("nan")] * 4, [float("inf")] * 4, "a" * 100_000,
                {"id": {"id": 1}}, [[1, 1] * 3], "../../etc/passwd", [1e300] * 8, {"size": "x", "counts": 3},
{"counts": [1]}, "\ud800"]  # fmt: skip


def json_value(data: bytes, rng: Rng) -> bytes:
    """Some value anywhere in it becomes one of another type, or a key goes."""
    text = data.decode("utf-8", "replace")
    lines = text.split("\n") if text.lstrip().startswith("{") and "\n" in text else [text]
    at = int(rng.integers(len(lines)))
    try:
        content = json.loads(lines[at])
    except (ValueError, RecursionError):
        return data
    for _ in range(int(rng.integers(1, 3))):
        places = list(_places(content))
        if not places:
            break
        holder, key = places[int(rng.integers(len(places)))]
        if rng.random() < 0.2:
            del holder[key]
        else:
            holder[key] = copy.deepcopy(any_of(rng, _JSON_VALUES))  # else a second change could put it into itself
    lines[at] = json.dumps(content)
    return "\n".join(lines).encode()


def _places(value: object, depth: int = 0) -> list[tuple]:
    if depth > 20:
        return []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [(value, key) for key, _ in pairs]
    for _, inner in list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()):
        found += _places(inner, depth + 1)
    return found


def json_deep(data: bytes, rng: Rng) -> bytes:
    deep = int(any_of(rng, [100, 2000, 100_000]))
    inner = any_of(rng, [b"[" * deep + b"]" * deep, b'{"a":' * deep + b"1" + b"}" * deep, b"[" * deep, b"9" * deep, b"NaN",
                         b"1e999", b"-", b"[1,2", b'"\\ud800"', b"\xff\xfe"])  # fmt: skip
    at = data.find(b":", _at(data, rng)) + 1
    return inner if rng.random() < 0.3 or at == 0 else data[:at] + inner + data[data.find(b",", at) :]


_ENTITIES = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
_LAUGHS = f'<!DOCTYPE x [<!ENTITY l0 "{"ha" * 10}">{_ENTITIES}]>'
_OUTSIDE = ['<!DOCTYPE x [<!ENTITY l9 SYSTEM "file:///etc/passwd">]>', '<!DOCTYPE x [<!ENTITY l9 SYSTEM "file:///dev/zero">]>',
            '<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd">',
            '<!DOCTYPE x [<!ENTITY % p SYSTEM "http://127.0.0.1:9/x">%p;<!ENTITY l9 "a">]>',
            f'<!DOCTYPE x [<!ENTITY q "{"a" * 100_000}"><!ENTITY l9 "{"&q;" * 50_000}">]>']  # fmt: skip


def xml_entity(data: bytes, rng: Rng) -> bytes:
    """Entities that grow, or that stand for files and addresses, in a text or an attribute."""
    text = re.sub(r"^<\?xml.*?\?>", "", data.decode("utf-8", "replace"))
    head = _LAUGHS if rng.random() < 0.5 else str(any_of(rng, _OUTSIDE))
    if rng.random() < 0.6:
        places = [match.start() for match in re.finditer(r"(?<=[^/])(?<=>)", text)]
    else:
        places = [match.end() for match in re.finditer(r'="', text)]
    at = int(any_of(rng, places)) if places else 0
    return f"{head}{text[:at]}&l9;{text[at:]}".encode()


def xml_deep(data: bytes, rng: Rng) -> bytes:
    deep = int(any_of(rng, [100, 5000, 100_000]))
    at = data.find(b">", _at(data, rng)) + 1
    return data[:at] + b"<a>" * deep + b"</a>" * deep + data[at:]


def xml_value(data: bytes, rng: Rng) -> bytes:
    """An attribute, a text or the name of a tag says something else."""
    rule = any_of(rng, [rb'"[^"<>]*"', rb">[^<>]+<", rb"</?[A-Za-z]+"])
    places = list(re.finditer(rule, data))  # type: ignore[call-overload]
    if not places:
        return data
    found = places[int(rng.integers(len(places)))]
    text = str(any_of(rng, [*_CELLS[:16], "1e308", "-5", "99999999", "x"])).encode("utf-8", "replace")
    new = b"<b" if found[0].startswith(b"<") else found[0][:1] + text + found[0][-1:]
    return data[: found.start()] + new + data[found.end() :]


# --- arrays, archives, sources ---


def npy_header(data: bytes, rng: Rng) -> bytes:
    """The shape, type or order of an array is another."""
    end = 10 + int.from_bytes(data[8:10], "little")
    head = data[10:end].decode("latin-1")
    shapes = ["(0,)", "()", "(-1, 4)", "(99999999, 99999999)", "(2, 16, 20)", "(2, 0, 20, 3)", "(1, 16, 20, 6)",
              "(2,16,20,3,1)", "(1e3,)", "x", "(2, 32, 20, 3)"]  # fmt: skip
    kinds = [
        "'<f8'",
        "'>i2'",
        "'|O'",
        "'<U9'",
        "'|b1'",
        "'<c16'",
        "'<M8[D]'",
        "'|V3'",
        "'<f2'",
        "'<u8'",
        "[('a', '<i4')]",
        "'zz'",
    ]
    kind = int(rng.integers(4))
    if kind == 0:
        head = re.sub(r"'shape': .*?\)", lambda _: f"'shape': {any_of(rng, shapes)}", head)
    elif kind == 1:
        head = re.sub(r"'descr': '.*?'", lambda _: f"'descr': {any_of(rng, kinds)}", head)
    elif kind == 2:
        head = head.replace("False", "True")
    else:
        head = "{" * 2000
    head = head.rstrip("\n ") + "\n"
    return data[:8] + len(head).to_bytes(2, "little") + head.encode("latin-1") + data[end:]


_NAMES = ["../evil.png", "../../evil.png", "/{guard}/evil.png", "images/../../evil", "C:\\evil.png", "..\\evil.png",
          "images/a.png", "images/A.PNG", "a/" * 300 + "b.png", "x" * 300 + ".png", "\0.png", "", ".", "..",
          "__MACOSX/._a.png", "images", "é.png", "e\u0301.png", "con.png", "images/a.png/b.png", "~/evil.png",
"images/\n.png", "\udcff.png"]  # fmt: skip


def _name(rng: Rng) -> str:
    return str(any_of(rng, _NAMES)).replace("{guard}", f"tmp/{GUARD}")


def zip_member(data: bytes, rng: Rng) -> bytes:
    """A member with a strange name, of a strange kind, or that becomes far more than it is."""
    file = io.BytesIO(data)
    try:
        with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
            kind = int(rng.integers(3))
            if kind == 0:
                archive.writestr(zipfile.ZipInfo(_name(rng) or "x"), b"evil")
            elif kind == 1:
                link = zipfile.ZipInfo("images/link.png")
                link.external_attr = 0o120777 << 16
                archive.writestr(link, f"/tmp/{GUARD}")
            else:
                name = "images/b.png" if rng.random() < 0.5 else "m.npy"
                archive.writestr(zipfile.ZipInfo(name), bytes(int(any_of(rng, [10**6, 10**8]))))
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, NotImplementedError, struct.error, UnicodeError):
        return data
    return file.getvalue()


def zip_sizes(data: bytes, rng: Rng) -> bytes:
    """A size, sum, method or place in the directory is another."""
    places = [match.start() for match in re.finditer(rb"PK\x01\x02", data)]
    if not places:
        return data
    at = int(any_of(rng, places)) + int(any_of(rng, [8, 10, 16, 20, 24, 28, 30, 34, 38, 42]))
    return put(data, at, int(any_of(rng, WORDS)).to_bytes(4, "little"))


def tar_member(data: bytes, rng: Rng) -> bytes:
    """A member with a strange name, kind or size, put first."""
    file = io.BytesIO()
    member = tarfile.TarInfo(_name(rng).replace("\0", "") or "x")
    kinds = [
        tarfile.REGTYPE,
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.CHRTYPE,
        tarfile.FIFOTYPE,
        tarfile.DIRTYPE,
        tarfile.CONTTYPE,
    ]
    member.type = any_of(rng, kinds)
    member.linkname = str(any_of(rng, ["../evil", f"/tmp/{GUARD}", "images/a.png", "/etc/passwd", member.name[:90]]))
    member.mode = int(any_of(rng, [0, 0o644, 0o4777]))
    try:
        with tarfile.open(fileobj=file, mode="w", errors="surrogateescape") as bundle:
            bundle.addfile(member)
    except (ValueError, UnicodeError):
        return data
    head = file.getvalue()[: file.getvalue().rstrip(b"\0").__len__() // 512 * 512 + 512]
    if rng.random() < 0.3:
        head = put(head, 124, b"%011o\0" % int(any_of(rng, [1, 2**20, 8**11 - 1])))
    return head + data


def tgz_member(data: bytes, rng: Rng) -> bytes:
    return _within_gzip(data, lambda raw: (tar_member if rng.random() < 0.6 else any_of(rng, BYTES))(raw, rng))  # type: ignore[operator]


def toml_value(data: bytes, rng: Rng) -> bytes:
    """A value of another type, a key doubled, unknown or gone."""
    lines = data.decode("utf-8", "replace").split("\n")
    at = int(rng.integers(len(lines)))
    values = ['""', "1", "true", "[]", "{}", "1979-05-27", "nan", "9" * 400, '"../x"', '"{case"', '"{case}{case}"',
              '"[\\\\"', '"(((("', "[" * 2000, '{ "255" = "nothing such" }', '"**/**/**/*"', '{ image = "{a:(x+x+)+y}" }',
              '{ image = 3 }', '"\\u0000"', '"mask_images"', '"nothing"', "[[]]", '{ image = "", mask = "" }', "0x",
              '{ kind = "no" }', '{ threshold = "a" }', "{ threshold = 1e9 }", '{ window = "x" }', "{ derived = 3 }",
    '{ label = ["a", 3] }'][:]  # fmt: skip
    if "=" in lines[at] and rng.random() < 0.8:
        lines[at] = lines[at].partition("=")[0] + f"= {any_of(rng, values)}"
    elif rng.random() < 0.5:
        lines.insert(
            at, str(any_of(rng, ["[part]", "[[part]]", "[part.labels]", "options = 3", "unknown = 3", "[a.b.c]", "=", "\0"]))
        )
    else:
        del lines[at]
    return "\n".join(lines).encode("utf-8", "replace")


FAMILIES: dict[str, list[Mutation]] = {
    "": [],
    "dicom": [dicom_vr, dicom_length, dicom_tag, dicom_value, dicom_value, dicom_value, dicom_dropped, dicom_nested],
    "nifti": [nifti_field, nifti_field, nifti_bytes, gzip_bomb],
    "header": [header_line],
    "png": [png_chunk, png_size, png_text_bomb],
    "tiff": [tiff_entry],
    "csv": [csv_cell, csv_cell, csv_form],
    "json": [json_value, json_value, json_deep],
    "xml": [xml_entity, xml_deep, xml_value, xml_value],
    "npy": [npy_header],
    "zip": [zip_member, zip_sizes],
    "tar": [tar_member],
    "tgz": [tgz_member, tgz_member],
    "toml": [toml_value, toml_value],
}
# These make big files, and many of them would take long.
_RARE = {gzip_bomb: 0.1, png_text_bomb: 0.2, dicom_nested: 0.3, xml_deep: 0.5}


def mutated(data: bytes, family: str, rng: Rng) -> tuple[bytes, str]:
    """The file broken in one or two ways, and their names."""
    own, names = FAMILIES[family], []
    for _ in range(2 if rng.random() < 0.25 else 1):
        one: Mutation = any_of(rng, own if own and rng.random() < 0.6 else BYTES)  # type: ignore[assignment]
        if rng.random() > _RARE.get(one, 1.0):
            one = flip_bits
        if data:
            data = one(data, rng)
            names.append(one.__name__)
    return data, "+".join(names)


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path lies in a folder."""
    return path.resolve().is_relative_to(folder)
