"""Recognises unsupported file types by their first bytes, with advice for their owner."""

from __future__ import annotations

import functools
import importlib.util

from rosacea_contract.install import missing

MAGIC_BYTES = 132
HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"))
AVIF_BRANDS = frozenset((b"avif", b"avis"))
HEIC_HINT = f"{missing('a HEIC picture', 'pillow-heif', 'heic')}; or let the phone export JPEG"
DICOM_HINT = (
    "a DICOM file: export it as PNG or TIFF, with dcm2img of DCMTK for example, and look that no name is "
    "burnt into the picture"
)
STARTS = {
    b"GIF8": "a GIF: save it as PNG",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000: save it as PNG or TIFF",
    b"\x00\x00\x00\x0cJXL ": "JPEG XL: save it as PNG or JPEG",
    b"\xff\x0a": "JPEG XL: save it as PNG or JPEG",
    b"8BPS": "a Photoshop file: export it as PNG or TIFF",
    b"%PDF": "a PDF: export its pictures",
    b"FUJIFILMCCD-RAW": "a camera's raw file: develop it to TIFF or JPEG",
    b"version https://git-lfs": "a Git LFS pointer, not the picture: run git lfs pull",
    b"<svg": "an SVG drawing: export it as PNG",
}
CR2_START = b"II*\x00\x10\x00\x00\x00CR"
TIFF_STARTS = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
RAW_HINT = "a camera's raw file, whose first picture is a preview: develop it to TIFF or JPEG"
# DICOM without its preamble begins with group 2 or 8, in little-endian order or, where it is old, in the other.
DICOM_GROUPS = (
    b"\x02\0\0\0UL",
    b"\0\x08\0\5",
    *(b"\x08\0" + element + b"\0" for element in (b"\0", b"\1", b"\5", b"\10")),
)


def described(data: bytes) -> str:
    """Description of an unsupported file, by its first bytes, and advice; "" if its type is supported or unknown."""
    if is_dicom(data):
        return DICOM_HINT
    if is_heif(data) and not heif_opened():
        return HEIC_HINT
    if data.startswith(CR2_START):
        return RAW_HINT
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n")
    if start[:14].lower().startswith((b"<!doctype html", b"<html")):
        return "a web page, not a picture: download the picture again"
    return next((what for first, what in STARTS.items() if data.startswith(first) or start.startswith(first)), "")


def is_dicom(data: bytes) -> bool:
    """Whether a file is DICOM, by its first MAGIC_BYTES."""
    return data[128:132] == b"DICM" or data.startswith(DICOM_GROUPS)


def is_heif(data: bytes) -> bool:
    """Whether a file is HEIC, by the brands at its start; AVIF has the same container."""
    if data[4:8] != b"ftyp":
        return False
    size = min(int.from_bytes(data[:4], "big"), 256)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, size, 4))}
    return bool(brands & HEIF_BRANDS) and not brands & AVIF_BRANDS


@functools.cache
def heif_opened() -> bool:
    """Register pillow-heif with Pillow if it is installed; returns whether it is."""
    if importlib.util.find_spec("pillow_heif") is None:
        return False
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False)
    return True
