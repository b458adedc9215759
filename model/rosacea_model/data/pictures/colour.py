"""Converts colours to sRGB, by the ICC profile or by PNG chunks, EXIF or AVIF boxes.

Redness is what these pictures are for, so numbers are never taken as sRGB where the file says otherwise. Transparency
is laid over its background afterwards, so that the background comes out in the very colour that was stated.
"""

from __future__ import annotations

import functools
import io
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageCms

from ..errors import Unusable, UnusableReason
from . import icc
from .png import SIGNATURE, chunks

if TYPE_CHECKING:
    from collections.abc import Mapping

GREY_MODES = ("1", "L", "LA", "La")
ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")
DEEP_MODES = ("I;16", "I;16L", "I;16B", "I;16N")
PLAIN_MODES = ("RGB", "L", "P", "1", "CMYK", "LAB", "YCbCr")
MODES = (*PLAIN_MODES, *ALPHA_MODES, *DEEP_MODES)
DEEP_NOTE = "16 bits to 8"
PNG_DEPTH, TIFF_DEPTHS = 24, 258  # a byte of the header, and a tag
PROFILE_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}
STEPS = 17  # of each channel, when a profile is compared with sRGB

EXIF_IFD, EXIF_COLOUR_SPACE, INTEROP_IFD, INTEROP_INDEX = 0x8769, 0xA001, 0xA005, 1
UNCALIBRATED, ADOBE_COLOUR_SPACE = 65535, 2
SRGB_GAMMA, GAMMA_SLACK = 0.45455, 0.005
# ITU-T H.273, as cICP chunks and nclx boxes use it. Video's own curves are taken for sRGB's, as viewers do.
CICP_PRIMARIES = {1: icc.REC709, 9: icc.REC2020, 12: icc.DISPLAY_P3}
CICP_CURVES = {
    1: icc.SRGB_CURVE,
    6: icc.SRGB_CURVE,
    14: icc.SRGB_CURVE,
    15: icc.SRGB_CURVE,
    13: icc.SRGB_CURVE,
    4: (2.2,),
    5: (2.8,),
    8: (1.0,),
}
CICP_HDR = {16: "PQ", 18: "HLG"}


@dataclass(frozen=True)
class Layers:
    """Colours and alpha of a picture (None: opaque)."""

    colours: Image.Image  # RGB, L, CMYK or LAB
    alpha: Image.Image | None = None

    def over(self, background: tuple[int, int, int]) -> Image.Image:
        """Compose the colours over a background; grey stays grey if both are."""
        if self.alpha is None:
            return self.colours
        grey = self.colours.mode == "L" and len(set(background)) == 1
        canvas = Image.new("L" if grey else "RGB", self.colours.size, background[0] if grey else background)
        canvas.paste(self.colours if grey else self.colours.convert("RGB"), mask=self.alpha)
        return canvas


def split(image: Image.Image, notes: list[str]) -> Layers:
    """Separate colours from alpha for any accepted mode, noting conversions."""
    if image.mode in DEEP_MODES:
        return Layers(_eight_bits(image))
    if image.mode in ALPHA_MODES or "transparency" in image.info:
        grey = image.mode in GREY_MODES
        layered = image.convert("LA" if grey else "RGBA")
        alpha = layered.getchannel("A")
        opaque = alpha.getextrema() == (255, 255)
        return Layers(layered.convert("L" if grey else "RGB"), None if opaque else alpha)
    if image.mode == "1":
        notes.append("black and white to grey")
        return Layers(image.convert("L"))
    if image.mode == "P":
        notes.append("palette to colour")
    if image.mode in ("P", "YCbCr"):
        return Layers(image.convert("RGB"))
    return Layers(image.copy() if image.readonly else image)


def is_deep(image: Image.Image, data: bytes) -> bool:
    """Whether the file has 16 bits per channel; Pillow reads 16-bit colour as 8."""
    depths = getattr(image, "tag_v2", {}).get(TIFF_DEPTHS, ())
    deep_png = data.startswith(SIGNATURE) and data[PNG_DEPTH] == 16
    return image.mode in DEEP_MODES or deep_png or (isinstance(depths, tuple) and 16 in depths)


def _eight_bits(image: Image.Image) -> Image.Image:
    levels = np.asarray(image).astype(np.uint32)
    # Pillow turns photometric 0, white is zero, around for 8 bits only.
    if getattr(image, "tag_v2", {}).get(262) == 0:
        levels = 65535 - levels
    return Image.fromarray(((levels + 128) // 257).astype(np.uint8))


def to_srgb(image: Image.Image, profile: bytes | None, notes: list[str]) -> Image.Image:
    """Convert RGB, L, CMYK or LAB to sRGB or grey. An unusable profile is noted and sRGB assumed."""
    if image.mode == "LAB":
        notes.append("Lab to colour")
        return _applied(image, _lab_to_srgb())
    if profile is not None:
        try:
            return _managed(image, profile, notes)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            notes.append("unreadable colour profile ignored")
    if image.mode != "CMYK":
        return image
    notes.append("CMYK without a profile to colour")
    return image.convert("RGB")


def _managed(image: Image.Image, profile: bytes, notes: list[str]) -> Image.Image:
    space = _space(profile)
    grey = image.mode == "L"
    # A grey picture may carry the profile of the colours that it was made from.
    source = image.convert("RGB") if grey and space == "RGB" else image
    if PROFILE_SPACES.get(source.mode) != space:
        raise ValueError(f"a profile of {space} on a picture of {source.mode}")
    transform = _transform(profile, source.mode)
    if transform is None:
        return image
    notes.append("colour profile to sRGB")
    converted = _applied(source, transform)
    return converted.getchannel("G") if grey else converted


def _space(profile: bytes) -> str:
    return ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space.strip()


@functools.lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform from a profile to sRGB; None if it changes nothing by more than one level."""
    embedded = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    transform = ImageCms.buildTransform(embedded, ImageCms.createProfile("sRGB"), mode, "RGB")
    if mode == "CMYK":
        return transform
    probe = _probe().convert(mode)
    moved = np.asarray(_applied(probe, transform), np.int16) - np.asarray(probe.convert("RGB"), np.int16)
    return transform if np.abs(moved).max() > 1 else None


@functools.cache
def _probe() -> Image.Image:
    """Test colours: a grid over the RGB cube, and all greys."""
    steps = np.linspace(0, 255, STEPS).round()
    cube = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(-1, 3)
    greys = np.repeat(np.arange(256.0)[:, None], 3, axis=1)
    return Image.fromarray(np.concatenate([cube, greys])[None].astype(np.uint8))


@functools.cache
def _lab_to_srgb() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")


def _applied(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    converted = ImageCms.applyTransform(image, transform)
    assert converted is not None
    return converted


def profile_of(image: Image.Image, data: bytes, notes: list[str]) -> bytes | None:
    """The embedded profile, or one built from other colour metadata; None for sRGB."""
    if profile := image.info.get("icc_profile"):
        return bytes(profile)
    if data.startswith(SIGNATURE):
        said = {kind: bytes(body) for kind, body, _ in chunks(data) if kind in (b"cICP", b"sRGB", b"gAMA", b"cHRM")}
        if said:
            return _png_profile(said)
    if (nclx := _nclx(data)) is not None:
        return _cicp_profile(*nclx)
    return _exif_profile(image, notes)


def _png_profile(said: Mapping[bytes, bytes]) -> bytes | None:
    """The profile of a PNG, by the specification's order of precedence (third edition, 4.3)."""
    if len(code := said.get(b"cICP", b"")) == 4:
        return _cicp_profile(code[0], code[1])
    if b"sRGB" in said:
        return None
    gamma = _gamma(said.get(b"gAMA", b""))
    white, primaries = _chromaticities(said.get(b"cHRM", b""))
    usual = white is None or np.abs(np.array([white, *primaries]) - [icc.D65, *icc.REC709]).max() < GAMMA_SLACK
    # Many programs write the gamma 1/2.2 where they mean the curve of sRGB.
    if usual and (gamma is None or abs(gamma - SRGB_GAMMA) < GAMMA_SLACK):
        return None
    curve = icc.SRGB_CURVE if gamma is None else (1 / gamma,)
    return icc.matrix_profile(primaries, white or icc.D65, curve)


def _gamma(body: bytes) -> float | None:
    value = int.from_bytes(body, "big") / 100_000 if len(body) == 4 else 0.0
    return value if 0.05 <= value <= 10 else None


def _chromaticities(body: bytes) -> tuple[icc.XY | None, icc.Primaries]:
    """White point and primaries of a cHRM chunk; None and the primaries of Rec. 709 if it is missing or degenerate."""
    if len(body) == 32:
        numbers = [value / 100_000 for value in struct.unpack(">8I", body)]
        white, red, green, blue = zip(numbers[::2], numbers[1::2], strict=True)
        area = (green[0] - red[0]) * (blue[1] - red[1]) - (blue[0] - red[0]) * (green[1] - red[1])
        if min(y for _, y in (white, red, green, blue)) > 0.001 and abs(area) > 0.01:
            return white, (red, green, blue)
    return None, icc.REC709


def _cicp_profile(primaries: int, transfer: int) -> bytes | None:
    if transfer in CICP_HDR:
        raise Unusable(
            UnusableReason.wrong_mode,
            f"high dynamic range ({CICP_HDR[transfer]}), which 8 bits cannot show; export it as an ordinary picture",
        )
    gamut, curve = CICP_PRIMARIES.get(primaries), CICP_CURVES.get(transfer)
    if gamut is None or curve is None:
        return None
    return icc.matrix_profile(gamut, icc.D65, curve)


def _nclx(data: bytes) -> tuple[int, int] | None:
    """Code numbers of primaries and transfer curve in an AVIF's or HEIC's nclx box (ISO/IEC 14496-12, 12.1.5); None
    without one."""
    at = data.find(b"colrnclx", 0, 2**16) if data[4:8] == b"ftyp" else -1
    if at < 0 or at + 12 > len(data):
        return None
    primaries, transfer = struct.unpack_from(">HH", data, at + 8)
    return primaries, transfer


def _exif_profile(image: Image.Image, notes: list[str]) -> bytes | None:
    """The Adobe RGB profile if EXIF declares it, as its colour space or by the DCF rules as interoperability index R03;
    else None."""
    try:
        exif = image.getexif()
        space = exif.get_ifd(EXIF_IFD).get(EXIF_COLOUR_SPACE)
        index = str(exif.get_ifd(INTEROP_IFD).get(INTEROP_INDEX, "")).strip("\0 ")
    except Exception:
        return None  # damaged EXIF says nothing
    if space == ADOBE_COLOUR_SPACE or (index == "R03" and space in (UNCALIBRATED, None)):
        return icc.matrix_profile(icc.ADOBE_RGB, icc.D65, (icc.ADOBE_GAMMA,))
    if space == UNCALIBRATED:
        notes.append("unknown colours taken as sRGB")
    return None
