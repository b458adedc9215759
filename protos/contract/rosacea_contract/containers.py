"""Reads and writes metadata of PNG and JPEG files without touching the coded pixels.

Written from the formats' own documents: the PNG specification (third edition), JFIF 1.02, Exif 2.32, and part 3 of the
XMP specification. Reading takes files of anybody's: whatever is not whole is passed over, and so is what goes beyond
`MAX_TEXT_BYTES` for one text, or `MAX_TEXTS` and `MAX_TEXTS_BYTES` for all texts of a file.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_HEADER_END = 33  # signature and the IHDR chunk, which is always the first
PNG_C2PA = b"caBX"
_TEXT = b"iTXt"
_TEXT_CHECKSUM = zlib.crc32(_TEXT)  # of a chunk's kind, with which its checksum begins
XMP_KEYWORD = "XML:com.adobe.xmp"

JPEG_START = b"\xff\xd8"
JPEG_SCAN, JPEG_END = 0xDA, 0xD9  # markers behind which no metadata stands
JPEG_BARE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
APP0, APP1, APP11 = 0xE0, 0xE1, 0xEB
MAX_SEGMENT_BYTES = 65533
XMP_SIGNATURE = b"http://ns.adobe.com/xap/1.0/\x00"
JUMBF_SIGNATURE = b"JP"  # how C2PA's segments begin

MAX_TEXT_BYTES = 2**20
MAX_TEXTS_BYTES = 8 * 2**20
MAX_TEXTS = 1000
MAX_KEYWORD_BYTES = 79  # as the PNG specification has it


@dataclass(kw_only=True)
class Metadata:
    """Metadata found in an image file."""

    format: str  # png or jpeg
    texts: dict[str, str] = field(default_factory=dict)  # of a PNG, by keyword
    xmp: bytes | None = None
    has_c2pa: bool = False  # there is a signature, good or bad


def metadata(image: bytes) -> Metadata:
    """Read the metadata of a file; ValueError unless it is PNG or JPEG."""
    if image.startswith(PNG_SIGNATURE):
        return _png_metadata(image)
    if image.startswith(JPEG_START):
        return _jpeg_metadata(image)
    raise ValueError("neither a PNG nor a JPEG image")


# PNG


def with_texts(image: bytes, texts: Mapping[str, str]) -> bytes:
    """Insert text chunks, by keyword, after a PNG's header."""
    return with_chunks(image, [text_chunk(text_payload(keyword, text)) for keyword, text in texts.items()])


def with_chunks(image: bytes, chunks: Sequence[bytes]) -> bytes:
    """Insert whole chunks after a PNG's header."""
    assert image.startswith(PNG_SIGNATURE), image[:8]
    return b"".join([image[:PNG_HEADER_END], *chunks, image[PNG_HEADER_END:]])


def text_payload(keyword: str, text: str) -> bytes:
    """Payload of an iTXt chunk."""
    # Behind the keyword: its end, two zeros for "not compressed", no language, no translated keyword.
    return b"".join([keyword.encode("latin-1"), bytes(5), text.encode()])


def text_chunk(payload: bytes) -> bytes:
    """A whole iTXt chunk."""
    checksum = zlib.crc32(payload, _TEXT_CHECKSUM)
    return b"".join((len(payload).to_bytes(4, "big"), _TEXT, payload, checksum.to_bytes(4, "big")))


def _png_metadata(image: bytes) -> Metadata:
    found = Metadata(format="png")
    count, left = 0, MAX_TEXTS_BYTES
    for kind, data in _chunks(image):
        if kind in _TEXTS and count < MAX_TEXTS and left > 0:
            # What stands under a keyword for a second time counts as well: it has been unpacked.
            keyword, text = _keyword_and_text(kind, data, min(MAX_TEXT_BYTES, left))
            count, left = count + 1, left - len(text or "")
            if text is not None:
                found.texts.setdefault(keyword, text)
        found.has_c2pa |= kind == PNG_C2PA
    if XMP_KEYWORD in found.texts:
        found.xmp = found.texts[XMP_KEYWORD].encode()
    return found


def _chunks(image: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = len(PNG_SIGNATURE)
    while place + 12 <= len(image):
        length = int.from_bytes(image[place : place + 4], "big")
        end = place + 12 + length
        if end > len(image):
            return
        yield image[place + 4 : place + 8], image[place + 8 : end - 4]
        place = end


def _keyword_and_text(kind: bytes, data: bytes, most: int) -> tuple[str, str | None]:
    keyword, _, rest = data.partition(b"\x00")
    if len(keyword) > MAX_KEYWORD_BYTES:
        return "", None
    return keyword.decode("latin-1"), _TEXTS[kind](rest, most)


def _read_text(rest: bytes, most: int) -> str | None:
    return rest[:most].decode("latin-1")


def _read_packed_text(rest: bytes, most: int) -> str | None:
    text = _unpacked(rest[1:], most)
    return None if text is None else text.decode("latin-1")


def _read_international_text(rest: bytes, most: int) -> str | None:
    is_packed, text = rest[:1] == b"\x01", rest[2:].split(b"\x00", 2)[-1]  # behind language and translated keyword
    plain = _unpacked(text, most) if is_packed else text[:most]
    return None if plain is None else plain.decode(errors="replace")


def _unpacked(data: bytes, most: int) -> bytes | None:
    try:
        return zlib.decompressobj().decompress(data, most)
    except zlib.error:
        return None


_TEXTS = {b"tEXt": _read_text, b"zTXt": _read_packed_text, _TEXT: _read_international_text}


# JPEG


def with_segments(image: bytes, segments: Sequence[bytes]) -> bytes:
    """Insert whole segments after a JPEG's JFIF header, where readers expect them."""
    assert image.startswith(JPEG_START), image[:2]
    place = len(JPEG_START)
    for marker, _, end in _segments(image):
        if marker != APP0:
            break
        place = end
    return b"".join([image[:place], *segments, image[place:]])


def xmp_payload(packet: str) -> bytes:
    """Payload of an APP1 segment for an XMP packet."""
    return XMP_SIGNATURE + packet.encode()


def exif_payload(description: str, software: str) -> bytes:
    """Payload of an APP1 segment with Exif's ImageDescription and Software fields."""
    texts = [(0x010E, description), (0x0131, software)]
    place = 8 + 2 + 12 * len(texts) + 4  # behind the TIFF header and its one directory
    entries, values = b"", b""
    for tag, text in texts:
        value = text.encode("ascii") + b"\x00"
        assert len(value) > 4, text  # shorter ones would stand in the entry itself
        entries += struct.pack(">HHII", tag, 2, len(value), place + len(values))
        values += value
    return b"".join([b"Exif\x00\x00MM\x00*", struct.pack(">IH", 8, len(texts)), entries, bytes(4), values])


def app1_segment(payload: bytes) -> bytes:
    """A whole APP1 segment; ValueError for a payload beyond `MAX_SEGMENT_BYTES`."""
    if len(payload) > MAX_SEGMENT_BYTES:
        raise ValueError(f"a JPEG segment holds at most {MAX_SEGMENT_BYTES} bytes, got {len(payload)}")
    return struct.pack(">BBH", 0xFF, APP1, len(payload) + 2) + payload


def _jpeg_metadata(image: bytes) -> Metadata:
    found = Metadata(format="jpeg")
    for marker, payload, _ in _segments(image):
        if marker == APP1 and found.xmp is None and payload.startswith(XMP_SIGNATURE):
            found.xmp = payload.removeprefix(XMP_SIGNATURE)
        found.has_c2pa |= marker == APP11 and payload.startswith(JUMBF_SIGNATURE)
    return found


def _segments(image: bytes) -> Iterator[tuple[int, bytes, int]]:
    """Yield marker, payload and end of each segment before the first scan."""
    place = len(JPEG_START)
    while place + 4 <= len(image) and image[place] == 0xFF:
        marker = image[place + 1]
        if marker in (JPEG_SCAN, JPEG_END):
            return
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        length = 0 if marker in JPEG_BARE else int.from_bytes(image[place + 2 : place + 4], "big")
        end = place + 2 + length
        if end > len(image) or (length < 2 and marker not in JPEG_BARE):
            return
        yield marker, image[place + 4 : end], end
        place = end


# Signatures


def without_signature(image: bytes) -> bytes:
    """Remove the C2PA manifest of a PNG or JPEG: the result is what was signed, byte for byte."""
    kept, place = [], 0
    for start, end in _signature_places(image):
        kept.append(image[place:start])
        place = end
    return b"".join([*kept, image[place:]])


def _signature_places(image: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of each chunk or segment of a C2PA manifest."""
    if image.startswith(PNG_SIGNATURE):
        start = len(PNG_SIGNATURE)
        for kind, data in _chunks(image):
            end = start + 12 + len(data)
            if kind == PNG_C2PA:
                yield start, end
            start = end
    else:
        for marker, payload, end in _segments(image):
            if marker == APP11 and payload.startswith(JUMBF_SIGNATURE):
                yield end - len(payload) - 4, end
