"""Colours of every form of picture, against Pillow's colour management used by hand and against arithmetic."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from rosacea_model.data.dataset import LabelledImages
from rosacea_model.data.errors import Unusable, UnusableReason
from rosacea_model.data.pictures.decode import DecodeOptions, decode
from rosacea_model.data.pictures.foreign import HEIC_HINT
from rosacea_model.data.pictures.png import SIGNATURE
from rosacea_model.data.prepare import PrepareOptions, prepare
from rosacea_model.data.worker import WorkOptions

from .faces import encoded, face

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

SMALL = DecodeOptions(min_size=1)
SIZE = 16
# Columns of Adobe RGB (1998) in the profile connection space, as Adobe's own profile has them.
ADOBE_XYZ = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))


def profile_bytes(colorants: tuple[tuple[float, float, float], ...] = ADOBE_XYZ, gamma: float = 563 / 256) -> bytes:
    """A version 2 matrix profile, written here by the specification and not by the code under test."""

    def fixed(values: tuple[float, ...]) -> bytes:
        return b"XYZ \0\0\0\0" + b"".join(struct.pack(">i", round(value * 65536)) for value in values)

    name = b"some camera\0"
    description = (b"desc\0\0\0\0" + struct.pack(">I", len(name)) + name).ljust(102, b"\0") + b"\0\0"
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags = [
        (b"desc", description),
        (b"wtpt", fixed((0.9642, 1, 0.8249))),
        *((f"{name}XYZ".encode(), fixed(xyz)) for name, xyz in zip("rgb", colorants, strict=True)),
        *((f"{name}TRC".encode(), curve) for name in "rgb"),
    ]
    table, body, at = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for tag, content in tags:
        table += struct.pack(">4sII", tag, at + len(body), len(content))
        body += content
    header = bytearray(128)
    header[:4], header[8:12] = struct.pack(">I", at + len(body)), b"\2\x10\0\0"
    header[12:24], header[36:40] = b"mntrRGB XYZ ", b"acsp"
    header[68:80] = fixed((0.9642, 1, 0.8249))[8:]
    return bytes(header) + table + body


WIDE = profile_bytes()


def by_hand(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB as Pillow's own colour management gives it."""
    if profile is None:
        return image.convert("RGB")
    space = ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.xcolor_space.strip()
    source = image.convert("RGB") if image.mode not in ("CMYK",) and space == "RGB" else image
    srgb = ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(source, ImageCms.ImageCmsProfile(io.BytesIO(profile)), srgb, outputMode="RGB")
    assert converted is not None
    return converted


def levels(image: Image.Image) -> NDArray[np.int16]:
    return np.asarray(image.convert("RGB"), np.int16)


def furthest(one: Image.Image | NDArray[np.int16], other: Image.Image | NDArray[np.int16]) -> int:
    first, second = (levels(item) if isinstance(item, Image.Image) else item for item in (one, other))
    return int(np.abs(first - second).max())


def turned(image: Image.Image, exif: Image.Exif, orientation: int) -> Image.Image:
    """The picture as a camera held that way stores it."""
    turns = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    exif[0x0112] = orientation
    return image.transpose(turns[orientation])


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def with_chunks(png: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG with more chunks after its header."""
    return png[:33] + b"".join(chunk(*parts) for parts in chunks) + png[33:]


def sixteen_bit_png(levels_: NDArray[np.uint8]) -> bytes:
    """16 bits a channel: the same levels with other low bytes."""
    height, width, _ = levels_.shape
    rows = np.stack([levels_, levels_ // 2], -1).reshape(height, -1)
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return SIGNATURE + b"".join(chunk(*parts) for parts in ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b"")))


Form = tuple[str, bytes, Image.Image]  # suffix, file, and what it should look like


def plain_png(image: Image.Image) -> Form:
    return "png", encoded(image), image


def wide_jpeg(image: Image.Image) -> Form:
    data = encoded(image, "JPEG", quality=95, icc_profile=WIDE)
    return "jpg", data, by_hand(Image.open(io.BytesIO(data)), WIDE)


def turned_jpeg(image: Image.Image) -> Form:
    exif = Image.Exif()
    data = encoded(turned(image, exif, 6), "JPEG", quality=95, exif=exif)
    return "jpg", data, Image.open(io.BytesIO(data)).transpose(Image.Transpose.ROTATE_270)


def turned_wide_tiff(image: Image.Image) -> Form:
    exif = Image.Exif()
    stored = turned(image, exif, 8)
    return "tif", encoded(stored, "TIFF", exif=exif, icc_profile=WIDE), by_hand(image, WIDE)


def packed_tiff(image: Image.Image) -> Form:
    return "tiff", encoded(image, "TIFF", compression="tiff_lzw"), image


def cmyk_jpeg(image: Image.Image) -> Form:
    data = encoded(image.convert("CMYK"), "JPEG", quality=95)
    return "jpeg", data, Image.open(io.BytesIO(data)).convert("RGB")


def bmp(image: Image.Image) -> Form:
    return "bmp", encoded(image, "BMP"), image


def wide_webp(image: Image.Image) -> Form:
    return "webp", encoded(image, "WEBP", lossless=True, icc_profile=WIDE), by_hand(image, WIDE)


def avif(image: Image.Image) -> Form:
    data = encoded(image, "AVIF", quality=90, speed=10)
    return "avif", data, Image.open(io.BytesIO(data)).convert("RGB")


def deep_png(image: Image.Image) -> Form:
    return "png", sixteen_bit_png(np.asarray(image)), image


def clear_wide_png(image: Image.Image) -> Form:
    alpha = Image.fromarray(np.tile(np.linspace(0, 255, image.width).astype(np.uint8), (image.height, 1)))
    layered = image.copy()
    layered.putalpha(alpha)
    expected = Image.new("RGB", image.size, (255, 255, 255))
    expected.paste(by_hand(image, WIDE), mask=alpha)
    return "png", encoded(layered, icc_profile=WIDE), expected


def palette_png(image: Image.Image) -> Form:
    indexed = image.quantize(32)
    return "png", encoded(indexed, icc_profile=WIDE), by_hand(indexed.convert("RGB"), WIDE)


FORMS: list[Callable[[Image.Image], Form]] = [
    plain_png,
    wide_jpeg,
    turned_jpeg,
    turned_wide_tiff,
    packed_tiff,
    cmyk_jpeg,
    bmp,
    wide_webp,
    avif,
    deep_png,
    clear_wide_png,
    palette_png,
]


def check_forms(tmp_path: Path, count: int) -> None:
    """Write `count` photographs in turn in each form; both readers must show what is expected, within a level."""
    folder = tmp_path / "photos"
    folder.mkdir()
    expected = []
    for number in range(count):
        coarse = Image.fromarray(np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8))
        suffix, data, shown = FORMS[number % len(FORMS)](coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
        (folder / f"{number:03d}.{suffix}").write_bytes(data)
        expected.append(levels(shown))
    options = PrepareOptions(work=WorkOptions(resolution=SIZE, decode=SMALL), workers=2)

    result = prepare(folder, tmp_path / "data.zip", options)

    assert not result.unusable and len(result.kept) == count
    prepared, direct = LabelledImages(tmp_path / "data.zip"), LabelledImages(folder)
    direct.check()
    for number, wanted in enumerate(expected):
        one, other = prepared[number][0], direct[number][0]
        assert (one == other).all(), direct.name(number)
        assert furthest(one.transpose(1, 2, 0).astype(np.int16), wanted) <= 1, direct.name(number)


def test_twelve_forms_give_the_same_pixels_in_both_readers(tmp_path: Path) -> None:
    check_forms(tmp_path, 12)


@pytest.mark.slow
def test_three_hundred_photographs_in_twelve_forms_give_the_same_pixels_in_both_readers(tmp_path: Path) -> None:
    check_forms(tmp_path, 300)


def xyz_to_srgb(xyz: NDArray[np.float64]) -> NDArray[np.float64]:
    """D65 XYZ to sRGB levels, by IEC 61966-2-1."""
    matrix = np.array([[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]])
    linear = np.clip(xyz @ matrix.T, 0, 1)
    coded: NDArray[np.float64] = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return coded * 255


def to_linear(image: Image.Image) -> NDArray[np.float64]:
    share = levels(image) / 255
    linear: NDArray[np.float64] = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return linear


# Linear RGB to XYZ, with the white of D65 (Lindbloom; SMPTE EG 432-1; ITU-R BT.2020).
SRGB = np.array([[0.412456, 0.357576, 0.180437], [0.212673, 0.715152, 0.072175], [0.019334, 0.119192, 0.950304]])
ADOBE = np.array([[0.576731, 0.185554, 0.188185], [0.297377, 0.627349, 0.075274], [0.027034, 0.070687, 0.991109]])
P3 = np.array([[0.4865709, 0.2656677, 0.1982173], [0.2289746, 0.6917385, 0.0792869], [0.0, 0.0451134, 1.0439444]])
REC2020 = np.array([[0.6369580, 0.1446169, 0.1688810], [0.2627002, 0.6779981, 0.0593017], [0.0, 0.0280727, 1.0609851]])


def chunk_of_primaries() -> bytes:
    numbers = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
    return struct.pack(">8I", *(round(number * 100_000) for number in numbers))


def gamma_chunk(gamma: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(gamma * 100_000))


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ((gamma_chunk(1.0),), lambda image: xyz_to_srgb(levels(image) / 255 @ SRGB.T)),
        ((gamma_chunk(1 / 1.8),), lambda image: xyz_to_srgb((levels(image) / 255) ** 1.8 @ SRGB.T)),
        (
            (gamma_chunk(1 / 2.2), (b"cHRM", chunk_of_primaries())),
            lambda image: xyz_to_srgb((levels(image) / 255) ** 2.2 @ ADOBE.T),
        ),
        (((b"cICP", b"\x0c\x0d\0\1"),), lambda image: xyz_to_srgb(to_linear(image) @ P3.T)),
        (((b"cICP", b"\x09\x0d\0\1"), gamma_chunk(1.0)), lambda image: xyz_to_srgb(to_linear(image) @ REC2020.T)),
        ((gamma_chunk(1 / 2.2),), levels),  # as many programs write it for sRGB
        (((b"sRGB", b"\0"), gamma_chunk(0.6)), levels),
        (((b"cICP", b"\x01\x0d\0\1"),), levels),
        ((gamma_chunk(0.0),), levels),
    ],
)
def test_what_a_png_says_of_its_colours_is_heeded(
    chunks: tuple[tuple[bytes, bytes], ...], expected: Callable[[Image.Image], Any]
) -> None:
    image = face(3, 48)

    shown = decode(with_chunks(encoded(image), *chunks), SMALL).image

    assert np.abs(levels(shown) - expected(image)).max() <= 1.5  # half a level is rounding


def test_high_dynamic_range_is_refused_and_not_shown_wrong() -> None:
    with pytest.raises(Unusable, match="high dynamic range") as refused:
        decode(with_chunks(encoded(face(0, 48)), (b"cICP", b"\x09\x10\0\1")), SMALL)
    assert refused.value.reason is UnusableReason.wrong_mode


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP"])
def test_a_camera_s_adobe_rgb_without_a_profile_is_heeded(format_: str) -> None:
    image, exif = face(2, 48), Image.Exif()
    exif[0x0112] = 1  # Pillow writes no EXIF without an entry of its own
    exif.get_ifd(0x8769)[0xA001] = 65535
    exif.get_ifd(0x8769)[0xA005] = {1: "R03"}
    data = encoded(image, format_, exif=exif, quality=95, lossless=True)

    decoded = decode(data, SMALL)

    stored = Image.open(io.BytesIO(data))
    assert decoded.notes == ("colour profile to sRGB",)
    assert furthest(decoded.image, by_hand(stored, WIDE)) <= 1


def test_calibration_that_is_not_told_is_noted() -> None:
    exif = Image.Exif()
    exif[0x0112] = 1
    exif.get_ifd(0x8769)[0xA001] = 65535

    decoded = decode(encoded(face(2, 48), exif=exif), SMALL)

    assert decoded.notes == ("unknown colours taken as sRGB",) and furthest(decoded.image, face(2, 48)) == 0


def test_a_profile_counts_before_all_else_and_srgb_s_changes_nothing() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    tagged = encoded(face(1, 48), icc_profile=srgb)

    decoded = decode(with_chunks(tagged, gamma_chunk(1.0)), SMALL)

    assert decoded.notes == () and furthest(decoded.image, face(1, 48)) == 0


def test_a_profile_is_known_by_what_it_does_and_not_by_its_name() -> None:
    named = WIDE.replace(b"some camera", b"sRGB camera")

    assert furthest(decode(encoded(face(1, 48), icc_profile=named), SMALL).image, by_hand(face(1, 48), WIDE)) <= 1


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_grey_with_a_profile_stays_grey(mode: str) -> None:
    grey = face(4, 48).convert(mode)

    decoded = decode(encoded(grey, icc_profile=WIDE), DecodeOptions(min_size=1, channels=None))

    assert decoded.image.mode == "L" and furthest(decoded.image, by_hand(grey.convert("L"), WIDE)) <= 1


def test_sixteen_bits_a_colour_are_noted() -> None:
    decoded = decode(sixteen_bit_png(np.asarray(face(4, 48))), SMALL)

    assert decoded.notes == ("16 bits to 8",) and furthest(decoded.image, face(4, 48)) <= 1


@pytest.mark.parametrize("byte_order", ["<u2", ">u2"])
@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_its_levels(format_: str, byte_order: str) -> None:
    deep = np.arange(48 * 48, dtype=np.uint16).reshape(48, 48) * 28
    image = Image.frombytes("I;16" if byte_order == "<u2" else "I;16B", (48, 48), deep.astype(byte_order).tobytes())

    decoded = decode(encoded(image, format_), SMALL)

    assert decoded.notes == ("16 bits to 8", "grey repeated")
    assert np.abs(levels(decoded.image)[..., 0] - deep / 257).max() <= 1


@pytest.mark.parametrize("background", [(60, 180, 90), (0, 0, 0)])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_the_background_keeps_its_very_colour_whatever_the_profile(mode: str, background: tuple[int, int, int]) -> None:
    image = Image.new("RGBA", (8, 8), (200, 30, 40, 0)).convert(mode)

    decoded = decode(
        encoded(image, "TIFF" if mode == "PA" else "PNG", icc_profile=WIDE),
        DecodeOptions(min_size=1, background=background),
    )

    assert (levels(decoded.image) == background).all()


def test_heic_is_read_where_its_library_is_and_hinted_at_where_not(monkeypatch: pytest.MonkeyPatch) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    data = encoded(face(5, 64), "HEIF", quality=95, icc_profile=WIDE)

    decoded = decode(data, SMALL)

    assert decoded.format == "HEIF"
    assert furthest(decoded.image, by_hand(Image.open(io.BytesIO(data)), WIDE)) <= 1
    monkeypatch.setattr("rosacea_model.data.pictures.foreign.heif_opened", lambda: False)
    with pytest.raises(Unusable, match=r"rosacea\[heic\]") as refused:
        decode(data, SMALL)
    assert refused.value.detail == HEIC_HINT


def test_an_avif_in_other_primaries_is_shown_in_its_colours() -> None:
    data = bytearray(encoded(face(6, 64), "AVIF", quality=95))
    at = bytes(data).find(b"colrnclx") + 8
    data[at : at + 4] = struct.pack(">HH", 12, 13)

    shown = decode(bytes(data), SMALL).image

    plain = Image.open(io.BytesIO(bytes(data))).convert("RGB")
    assert np.abs(levels(shown) - xyz_to_srgb(to_linear(plain) @ P3.T)).max() <= 1.5
