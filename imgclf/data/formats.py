"""Image formats: which there are, and how a file's first bytes tell which one it is, whatever its name says."""

import functools
import importlib.util
import re
import struct
from typing import NamedTuple

from PIL import Image

Image.init()
# Some of Pillow's plugins start other programs (EPS runs Ghostscript), and others open nothing without further code of one's own.
_LEFT_OUT = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "IPTC"})
_WEAK = ("IMT", "SPIDER", "TGA", "MCIDAS", "PCD", "XVTHUMB")  # which take many files that are none of theirs for one
STRONG = tuple(name for name in Image.OPEN if name not in (*_LEFT_OUT, *_WEAK))  # what a file's content is tried for
HEIF_EXTENSIONS = frozenset({".heic", ".heif", ".hif"})
EXTENSIONS = HEIF_EXTENSIONS | {ext for ext, name in Image.registered_extensions().items() if name in (*STRONG, "TGA", "PCD")} | {".mpo"}
# Pictures that can't be read: quarantined, not merely counted as junk.
UNSUPPORTED_EXTENSIONS = frozenset({".jxl", ".svg", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"})
WITHOUT_HEIF = 'HEIC needs a decoder: pip install "imgclf[heic]", or convert it to JPEG'

_STARTS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG2000",
    b"\xff\x4f\xff\x51": "JPEG2000",
    b"8BPS\0\x01": "PSD",
    b"qoif": "QOI",
    b"DDS ": "DDS",
    b"icns": "ICNS",
    b"\x59\xa6\x6a\x95": "SUN",
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
}
# Too few fixed bytes for a mark: the fields after them must be plausible, too.
_PATTERNS = {
    "SGI": re.compile(rb"\x01\xda[\x00\x01][\x01\x02]\x00[\x01-\x03]"),
    "PCX": re.compile(rb"\x0a[\x00\x02-\x05]\x01[\x01\x02\x04\x08]"),
    "ICO": re.compile(rb"\x00\x00[\x01\x02]\x00[\x01-\x40]\x00..[\x00-\xff]\x00", re.DOTALL),
}
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")


def sniff(start: bytes) -> str:
    """Names the image format that a file's first 16 bytes promise, or ""."""
    for magic, name in _STARTS.items():
        if start.startswith(magic):
            return name
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WebP"
    if start[:2] == b"BM" and start[6:10] == bytes(4):  # two letters alone would take texts in
        return "BMP"
    for name, pattern in _PATTERNS.items():
        if pattern.match(start):
            return name
    if start[4:8] == b"ftyp":
        brand = start[8:12]
        return {b"avif": "AVIF", b"avis": "AVIF"}.get(brand, "HEIC" if brand in _HEIF_BRANDS else "")
    return ""


@functools.cache
def has_heif() -> bool:
    """Whether HEIC can be read; if so, Pillow knows how from then on."""
    if importlib.util.find_spec("pillow_heif") is None:
        return False
    import pillow_heif

    pillow_heif.register_heif_opener()
    return True


def candidates(data: bytes) -> tuple[str, ...]:
    """The names of Pillow's formats that a file's content may be."""
    if sniff(data[:16]) == "HEIC" and has_heif():
        return ("HEIF",)
    if _is_targa(data):
        return ("TGA",)
    return STRONG


def _is_targa(data: bytes) -> bool:
    """Whether the data hold a Targa image: it has no mark at its start, so all fields of its header must fit together."""
    if len(data) < 19 or sniff(data[:16]):
        return False
    id_length, has_map, kind, _, map_length, map_depth, _, _, width, height, depth, descriptor = struct.unpack_from("<BBBHHBHHHHBB", data)
    if kind not in (1, 2, 3, 9, 10, 11) or has_map > 1 or descriptor & 0xC0 or not (width and height):
        return False
    if has_map != (kind in (1, 9)) or depth not in ((8,) if kind in (1, 3, 9, 11) else (16, 24, 32)):
        return False
    size = 18 + id_length + has_map * map_length * ((map_depth + 7) // 8)
    least = width * height * depth // 8 if kind < 8 else (width * height + 127) // 128 * (1 + depth // 8)
    return len(data) >= size + min(least, 16)  # a truncated one is one, too


class PlainJpeg(NamedTuple):
    """The header of an 8-bit grey or three-component JPEG."""

    height: int  # as stored
    width: int
    has_app1: bool  # EXIF or XMP
    profile: bytes  # ICC; b"" = none


def plain_jpeg(data: bytes) -> PlainJpeg | None:
    """Reads the header of a JPEG; None for any that is not plain, or no JPEG."""
    if data[:2] != b"\xff\xd8":
        return None
    at, has_app1, parts = 2, False, dict[int, bytes]()
    while at + 10 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker in (0xC0, 0xC1, 0xC2):  # baseline, extended, progressive
            precision, height, width, components = struct.unpack_from(">BHHB", data, at + 4)
            plain = precision == 8 and components in (1, 3) and 0 < width * height < 2**30  # OpenCV's own limit
            return PlainJpeg(height, width, has_app1, b"".join(parts[key] for key in sorted(parts))) if plain else None
        if marker in (0xD9, 0xDA) or (0xC3 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):  # data already; other coding
            return None
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        has_app1 |= marker == 0xE1
        if marker == 0xE2 and data[at + 4 : at + 16] == b"ICC_PROFILE\0":  # in parts, which are numbered
            parts[data[at + 16]] = data[at + 18 : at + 2 + length]
        at += 2 + length
    return None
