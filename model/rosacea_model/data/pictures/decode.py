"""Decodes untrusted bytes to an 8-bit RGB or grey picture; the one reader of `prepare` and training.

Accepted are JPEG, PNG, WebP, TIFF, BMP, AVIF and (with pillow-heif) HEIC, by their bytes, never by their name; RGB,
grey, palette, CMYK, Lab and alpha, 8 or 16 bits a channel. EXIF orientation is applied, then colours become sRGB, then
alpha is laid over a stated background, and everything but pixels is dropped. Refused are other modes, animations, files
of several pages, and more pixels than a photograph has.
"""

from __future__ import annotations

import io
import re
import threading
import warnings
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import Unusable, UnusableReason
from .colour import DEEP_NOTE, MODES, is_deep, profile_of, split, to_srgb
from .foreign import RAW_HINT, TIFF_STARTS, described, heif_opened, is_heif
from .png import SIGNATURE, chunks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .colour import Layers

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "AVIF")
MAX_PIXELS = 64_000_000  # a 61-megapixel camera
# Above this many pixels a file must have at least 1/200 of the raw bytes: a photograph compresses 10 to 60 times,
# and a few hundred bytes must not be able to claim hundreds of megabytes.
FREE_PIXELS = 4096**2
MAX_RATIO = 200
SUBFILE_TYPE, REDUCED = 254, 1  # TIFF's tag of a page, and its bit for a smaller copy of another page
GREY_NOTE = "grey repeated"
JPEG_START = b"\xff\xd8\xff"
JPEG_END, JPEG_SCAN = 0xD9, 0xDA
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # one that ends the data of a scan
# Ones are no code of JPEG: they let the decoder look ahead, as it does by up to 8 bytes, but hold next to no picture.
JPEG_NOTHING = b"\xff\x00" * 12
JPEG_LEFT_OVER = 16  # bytes of a scan's end without which a sound file cannot be complete
STRIP = 256  # rows compared at once
MAX_PAGES = 32  # of a TIFF that are looked at: a pyramid of smaller copies has fewer


@dataclass(frozen=True, kw_only=True)
class DecodeOptions:
    """Limits on the pictures that are accepted, and the channels and background colour they are decoded to; sizes
    stay."""

    channels: int | None = 3  # 3: grey is repeated; 1: colour becomes luma; None: as the picture is
    background: tuple[int, int, int] = (255, 255, 255)  # what shows through where a picture is transparent
    min_size: int = 250  # pixels on the shorter side
    max_pixels: int = MAX_PIXELS
    max_ratio: int | None = MAX_RATIO  # None: however few bytes the pixels come from

    def __post_init__(self) -> None:
        if self.channels not in (1, 3, None):
            raise ValueError(f"channels must be 1 or 3, got {self.channels}")
        if self.min_size < 1:
            raise ValueError(f"min_size must be at least 1, got {self.min_size}")


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A decoded picture, with notes on conversions."""

    image: Image.Image  # mode RGB or L
    format: str
    notes: tuple[str, ...] = field(default=())


def decode(data: bytes, options: DecodeOptions) -> Decoded:
    """Decode one picture; any failure raises Unusable with its reason."""
    if not data:
        raise Unusable(UnusableReason.empty, "it has no bytes")
    if what := described(data):
        raise Unusable(UnusableReason.wrong_format, what)
    if data.startswith(SIGNATURE):
        check_png(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        check_webp(data)
    try:
        with _PILLOW_LIMIT.off(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of odd metadata, which is dropped anyway
            return _decoded(data, options)
    except Unusable:
        raise
    except UnidentifiedImageError as error:
        if data.startswith(TIFF_STARTS):
            raise Unusable(UnusableReason.wrong_mode, "a TIFF whose kind of pixels cannot be read") from error
        raise Unusable(UnusableReason.wrong_format, f"must be one of {', '.join(FORMATS)}, HEIC") from error
    except MemoryError as error:
        raise Unusable(UnusableReason.bomb, "it needs more memory than a picture may") from error
    except Exception as error:
        # Pillow's readers raise many kinds of errors over damaged files; the process itself is guarded elsewhere.
        truncated = "truncated" in str(error) or isinstance(error, EOFError)
        cause = f"{type(error).__name__}: {error}"[:200]
        raise Unusable(UnusableReason.truncated if truncated else UnusableReason.corrupt, cause) from error


def _decoded(data: bytes, options: DecodeOptions) -> Decoded:
    notes: list[str] = []
    # In two steps, so that the picture as it was stored is gone from memory before its colours are converted.
    form, layers, profile = _stored(data, options, notes)
    return Decoded(image=_flat(layers, profile, options, notes), format=form, notes=tuple(notes))


def _stored(data: bytes, options: DecodeOptions, notes: list[str]) -> tuple[str, Layers, bytes | None]:
    """Check and decode a file: its format, its colours and alpha turned upright, and its colour profile (None for
    sRGB)."""
    scans = jpeg_scans(data)
    with _opened(scans.with_open_end(data) if scans else data) as image:
        check_header(image, len(data), options)
        if scans and not scans.several:
            check_scan(data, scans.ends[0])
        noisy = _sums_of(scans.with_noise(data)) if scans and scans.several else None
        image.load()
        if noisy is not None and noisy != _strip_sums(image):
            raise Unusable(UnusableReason.truncated, "its scans end before the picture does")
        notes += [DEEP_NOTE] * is_deep(image, data)
        profile = profile_of(image, data, notes)
        return image.format or "?", split(_upright(image, notes), notes), profile


def _upright(image: Image.Image, notes: list[str]) -> Image.Image:
    if not (orientation := _orientation(image)):
        return image
    notes.append(f"EXIF orientation {orientation}")
    return ImageOps.exif_transpose(image)


def _flat(layers: Layers, profile: bytes | None, options: DecodeOptions, notes: list[str]) -> Image.Image:
    """Convert to sRGB, compose over the background, and convert to the requested channels."""
    layers = replace(layers, colours=to_srgb(layers.colours, profile, notes))
    if layers.alpha is not None:
        notes.append("transparency over #{:02x}{:02x}{:02x}".format(*options.background))
    plain = layers.over(options.background)
    if plain.mode == "L" and options.channels == 3:
        notes.append(GREY_NOTE)
        return plain.convert("RGB")
    if plain.mode == "RGB" and options.channels == 1:
        notes.append("colour to luma")
        return plain.convert("L")
    return plain


def _opened(data: bytes, formats: Sequence[str] = FORMATS) -> Image.Image:
    heif = ("HEIF",) if is_heif(data) and heif_opened() else ()
    return Image.open(io.BytesIO(data), formats=(*formats, *heif))


class _PillowLimit:
    """Turns off Pillow's process-wide pixel limit while any thread decodes here, where `check_header` applies ours."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._decoding = 0
        self._before: int | None = None

    @contextmanager
    def off(self) -> Iterator[None]:
        with self._lock:
            if not self._decoding:
                self._before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            self._decoding += 1
        try:
            yield
        finally:
            with self._lock:
                self._decoding -= 1
                if not self._decoding:
                    Image.MAX_IMAGE_PIXELS = self._before


_PILLOW_LIMIT = _PillowLimit()


def check_header(image: Image.Image, file_bytes: int, options: DecodeOptions) -> None:
    """Raise Unusable, before any pixel is decoded, if a picture's header breaks a limit or states several pictures or
    an unsupported mode."""
    width, height = image.size
    pixels = width * height
    if pixels > options.max_pixels:
        raise Unusable(UnusableReason.bomb, f"at most {options.max_pixels} pixels, got {width}x{height}")
    if options.max_ratio and pixels > FREE_PIXELS and pixels * 3 > options.max_ratio * file_bytes:
        raise Unusable(UnusableReason.bomb, f"{width}x{height} pixels cannot come from {file_bytes} bytes")
    check_frames(image)
    if image.mode not in MODES:
        raise Unusable(
            UnusableReason.wrong_mode, f"must be RGB, grey, palette or CMYK of 8 or 16 bits, got {image.mode}"
        )
    if min(width, height) < options.min_size:
        raise Unusable(UnusableReason.too_small, f"at least {options.min_size} pixels a side, got {width}x{height}")


def check_frames(image: Image.Image) -> None:
    """Reject files with several pictures, except a phone's JPEG or HEIC (whose further ones are depth or gain maps) and
    a TIFF whose other pages are smaller copies."""
    if image.format in ("MPO", "HEIF"):
        return
    frames = getattr(image, "n_frames", 1)
    if image.format == "TIFF":
        kinds = [_subfile_type(image, page) for page in range(min(frames, MAX_PAGES))]
        image.seek(0)
        if kinds[0] & REDUCED:
            raise Unusable(UnusableReason.wrong_format, RAW_HINT)
        if frames > MAX_PAGES or not all(kind & REDUCED for kind in kinds[1:]):
            raise Unusable(UnusableReason.animated, f"{frames} pages: save the one that is meant")
    elif frames > 1 or getattr(image, "is_animated", False):
        raise Unusable(UnusableReason.animated, f"{frames} frames")


def _subfile_type(image: Image.Image, page: int) -> int:
    image.seek(page)
    kind = getattr(image, "tag_v2", {}).get(SUBFILE_TYPE, 0)
    return kind if isinstance(kind, int) else 0


def check_png(data: bytes) -> None:
    """Raise Unusable if a PNG is truncated, animated, or has a critical chunk with a wrong checksum, which Pillow
    overlooks in pixel data."""
    kinds = set()
    for kind, _, crc_holds in chunks(data):
        kinds.add(kind)
        if not crc_holds and not kind[0] & 0x20:  # a capital first letter: a critical chunk
            raise Unusable(UnusableReason.corrupt, f"the checksum of its {kind.decode('latin-1')} chunk is wrong")
        if kind == b"acTL":
            raise Unusable(UnusableReason.animated, "an animated PNG")
        if kind == b"IEND":
            return
    raise Unusable(
        UnusableReason.truncated, "it ends before its last chunk" if kinds else "it ends after its signature"
    )


def check_webp(data: bytes) -> None:
    """Raise Unusable if a WebP file is shorter than its header says."""
    stated = int.from_bytes(data[4:8], "little") + 8
    if stated > len(data):
        raise Unusable(UnusableReason.truncated, f"it must have {stated} bytes, got {len(data)}")


@dataclass(frozen=True)
class JpegScans:
    """Ends of a JPEG's scans, and whether there are several (as in a progressive one)."""

    ends: tuple[int, ...]
    several: bool

    def with_open_end(self, data: bytes) -> bytes:
        """The file cut after its only scan, without an end marker: if data is missing, Pillow then raises an error, and
        libjpeg does not fill in grey. Unchanged with several scans."""
        return data if self.several else data[: self.ends[0]] + JPEG_NOTHING

    def with_noise(self, data: bytes) -> bytes:
        """The file with other bytes after each scan, which a decoder that has a complete scan does not read."""
        noise = bytes(np.random.default_rng(0).integers(0, 255, 1024, np.uint8))
        starts = (0, *self.ends)
        parts = [data[start:end] for start, end in zip(starts, (*self.ends, len(data)), strict=True)]
        return noise.join(parts)


def jpeg_scans(data: bytes) -> JpegScans | None:
    """Parse a JPEG's markers; None if it is no JPEG, or so damaged that its decoder will fail."""
    if not data.startswith(JPEG_START):
        return None
    at, several, components = 2, False, 0
    ends: list[int] = []
    while at + 4 <= len(data) and data[at] == 0xFF:
        kind, size = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if kind == 0xFF:  # a fill byte
            at += 1
            continue
        if kind in JPEG_FRAMES and at + 10 <= len(data):
            several, components = kind == 0xC2, data[at + 9]
        start, at = at, at + 2 + size
        if kind == JPEG_SCAN and at < len(data):
            several = several or data[start + 4] < components
            end = JPEG_MARKER.search(data, at)
            if end is None:
                return None
            at = end.start()
            ends.append(at)
            if not several:
                break
        if data[at + 1 : at + 2] == bytes([JPEG_END]):
            break
    return JpegScans(tuple(ends), several) if ends else None


def check_scan(data: bytes, end: int) -> None:
    """Reject a single-scan JPEG with more data than its picture needs, a sign of damage that libjpeg skips."""
    end = len(data[:end].rstrip(b"\x00\xff"))
    try:
        with _opened(data[: end - JPEG_LEFT_OVER], ("JPEG",)) as image:
            image.draft(image.mode, (1, 1))  # an eighth of the size: a fifth of the time
            image.load()
    except OSError:
        return  # as it should: the end was needed
    raise Unusable(
        UnusableReason.corrupt, f"the picture is complete {JPEG_LEFT_OVER} bytes and more before its scan ends"
    )


def _sums_of(jpeg: bytes) -> list[int]:
    with _opened(jpeg, ("JPEG",)) as image:
        return _strip_sums(image)


def _strip_sums(image: Image.Image) -> list[int]:
    """Checksums of pixel strips, since a second copy of a large picture would not fit in memory."""
    boxes = ((0, top, image.width, min(top + STRIP, image.height)) for top in range(0, image.height, STRIP))
    return [zlib.crc32(image.crop(box).tobytes()) for box in boxes]


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation if it is not upright, else 0; damaged EXIF counts as upright."""
    try:
        orientation = image.getexif().get(0x0112)
    except Exception:
        return 0
    return orientation if isinstance(orientation, int) and 2 <= orientation <= 8 else 0
