"""Marks in images: that an image is synthetic, and how to generate it again.

A mark is written in the ways that others read: XMP with IPTC's digital source type, a PNG's texts, a JPEG's Exif. The
whole of it stands as JSON in the PNG's text `rosacea` and in the XMP of both formats. It depends on the face and the
model alone, so the same request still gives the same bytes: there is no date in it.
"""

from __future__ import annotations

import html
import itertools
import json
import re
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from xml.parsers import expat

from pydantic import BaseModel, ConfigDict, ValidationError

from rosacea_contract.containers import (
    PNG_SIGNATURE,
    XMP_KEYWORD,
    app1_segment,
    exif_payload,
    text_chunk,
    text_payload,
    with_chunks,
    with_segments,
    xmp_payload,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rosacea_contract.containers import Metadata

NOTICE = "Synthetic image, made by a trained model; for research and education only, not for diagnosis."
SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
TRAINED = f"{SOURCE_TYPES}trainedAlgorithmicMedia"
KEYWORD = "rosacea"
MARK_VERSION = 1
MAX_MARK_BYTES = 32 * 1024  # that a mark may add to an image

_NAMESPACES = {
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "dc": "http://purl.org/dc/elements/1.1/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "rosacea": "urn:rosacea:mark:1#",
}
_SOURCE_TYPE = f"{_NAMESPACES['Iptc4xmpExt']} DigitalSourceType"
_RECORD = f"{_NAMESPACES['rosacea']} generation"
# Fields that are properties too, for tools that parse no JSON; the first two are IPTC's, of 2025.1.
_TOLD_APART = {
    "Iptc4xmpExt:AISystemUsed": "model",
    "Iptc4xmpExt:AISystemVersionUsed": "digest",
    "rosacea:model": "model",
    "rosacea:digest": "digest",
    "rosacea:seed": "seed",
}
_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MAX_DEPTH = 64
_SEEDS = ("seed", "noise_seed")
_FIRST_PLACEHOLDER = 10**9


@cache
def software() -> str:
    """`rosacea` and its version, as written into the metadata of image files."""
    return f"rosacea {version('rosacea')}"


class MixMark(BaseModel, frozen=True):
    """A style mix in a mark: rows of w from another seed."""

    seed: int
    first_row: int
    end_row: int


class Mark(BaseModel):
    """How one face was made, from request and answer. It never contains a latent."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    mark: int = MARK_VERSION
    notice: str = NOTICE
    digital_source_type: str = TRAINED
    software: str  # rosacea and its version
    model: str  # models/NAME
    digest: str  # SHA-256 of the model's weights
    fingerprint: str  # of the worker: equal ones and equal requests give equal pixels
    seed_scheme: str  # how seeds become latents
    latent: str  # "seed", or what was given: "z", "w" or "ws"
    seed: int | None = None
    truncation_psi: float | None = None
    truncation_cutoff: int | None = None
    noise_mode: str
    noise_seed: int | None = None  # where noise_mode is random
    class_index: int | None = None
    class_name: str | None = None  # of that class, where the model has names for them
    label_vector: tuple[float, ...] | None = None
    label_left_out: bool | None = None  # there was a label, too long to keep
    style_mixes: tuple[MixMark, ...] | None = None
    format: str  # png or jpeg
    jpeg_quality: int | None = None

    def facts(self) -> dict[str, Any]:
        """The non-empty fields by name; tuples as lists."""
        return self.model_dump(mode="json", exclude_none=True)

    def to_json(self) -> str:
        """JSON text in ASCII, identical for equal marks."""
        return json.dumps(self.facts(), separators=(",", ":"), allow_nan=False)


def marked(image: bytes, mark: Mark) -> bytes:
    """Insert the mark into a PNG or JPEG; the coded pixels stay untouched.

    Raises ValueError for a mark beyond `MAX_MARK_BYTES`.
    """
    container = PNG if image.startswith(PNG_SIGNATURE) else JPEG
    return _with_blocks(image, container, [container.block(payload) for payload in container.payloads(mark)])


class Stamp:
    """Marks images whose marks differ in nothing but their seeds: all else is rendered once.

    The result is that of `marked`, byte for byte, in a fraction of its time.
    """

    def __init__(self, mark: Mark, container: Container) -> None:
        self._container = container
        seeds = _placeholders(mark, container)
        payloads = container.payloads(mark.model_copy(update=seeds))
        self._blocks = [_block(container, payload, seeds) for payload in payloads]

    def marked(self, image: bytes, seed: int, noise_seed: int) -> bytes:
        """Insert the mark with these seeds, as far as it has them, into an image; ValueError as in `marked`."""
        seeds = {b"seed": seed, b"noise_seed": noise_seed}
        return _with_blocks(image, self._container, [block(seeds) for block in self._blocks])


@dataclass(frozen=True)
class Container:
    """How a file format holds marks: in blocks, which are chunks or segments, each with a payload."""

    payloads: Callable[[Mark], list[bytes]]
    block: Callable[[bytes], bytes]
    insert: Callable[[bytes, Sequence[bytes]], bytes]


def _png_payloads(mark: Mark) -> list[bytes]:
    texts = {
        "Description": mark.notice,
        "Software": mark.software,
        KEYWORD: mark.to_json(),
        XMP_KEYWORD: xmp(mark.software, mark),
    }
    return [text_payload(keyword, text) for keyword, text in texts.items()]


def _jpeg_payloads(mark: Mark) -> list[bytes]:
    return [exif_payload(mark.notice, mark.software), xmp_payload(xmp(mark.software, mark))]


PNG = Container(_png_payloads, text_chunk, with_chunks)
JPEG = Container(_jpeg_payloads, app1_segment, with_segments)


def _with_blocks(image: bytes, container: Container, blocks: Sequence[bytes]) -> bytes:
    result = container.insert(image, blocks)
    if len(result) - len(image) > MAX_MARK_BYTES:
        raise ValueError(f"a mark takes at most {MAX_MARK_BYTES} bytes, got {len(result) - len(image)}")
    return result


def _placeholders(mark: Mark, container: Container) -> dict[str, int]:
    """A number for each seed of the mark that stands nowhere else in its payloads."""
    names = [name for name in _SEEDS if getattr(mark, name) is not None]
    others = b" ".join(container.payloads(mark.model_copy(update=dict.fromkeys(names))))
    free = (number for number in itertools.count(_FIRST_PLACEHOLDER) if b"%d" % number not in others)
    return dict(zip(names, free, strict=False))


def _block(
    container: Container, payload: bytes, placeholders: Mapping[str, int]
) -> Callable[[Mapping[bytes, int]], bytes]:
    """A block as a function of the seeds; one without any is built here and now."""
    template = _template(payload, placeholders)
    if template == _template(payload, {}):
        block = container.block(payload)
        return lambda _: block
    return lambda seeds: container.block(template % seeds)


def _template(payload: bytes, seeds: Mapping[str, int]) -> bytes:
    """The payload as a format string that takes the seeds by name."""
    template = payload.replace(b"%", b"%%")
    for name, number in seeds.items():
        template = template.replace(b"%d" % number, b"%%(%s)d" % name.encode())
    return template


def xmp(software: str, mark: Mark | None = None) -> str:
    """Build the XMP packet: the image is synthetic and, if a mark is given, how it was made."""
    facts = mark.facts() if mark else {}
    shown = {
        "Iptc4xmpExt:DigitalSourceType": TRAINED,
        "xmp:CreatorTool": software,
        **{name: str(facts[key]) for name, key in _TOLD_APART.items() if key in facts},
    }
    spaces = "".join(f' xmlns:{name}="{address}"' for name, address in _NAMESPACES.items() if name != "rdf")
    attributes = "".join(f' {name}="{_xml(text)}"' for name, text in shown.items())
    record = f"<rosacea:generation>{_xml(mark.to_json(), quote=False)}</rosacea:generation>" if mark else ""
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_NAMESPACES["rdf"]}">'
        f'<rdf:Description rdf:about=""{spaces}{attributes}>'
        f'<dc:description><rdf:Alt><rdf:li xml:lang="x-default">{_xml(NOTICE)}</rdf:li></rdf:Alt></dc:description>'
        f"{record}</rdf:Description></rdf:RDF></x:xmpmeta>"
        '<?xpacket end="r"?>'
    )


def _xml(text: str, quote: bool = True) -> str:
    """Escape text for XML elements and attributes."""
    return html.escape(_NOT_IN_XML.sub("\ufffd", text), quote=quote)


def read_mark(found: Metadata) -> Mark | None:
    """Read the mark in a file's metadata; None if there is none or it is invalid."""
    facts = found.texts.get(KEYWORD) or properties(found.xmp).get(_RECORD)
    if facts is None:
        return None
    try:
        return Mark.model_validate_json(facts)
    except ValidationError:
        return None


def source_type(found: Metadata) -> str | None:
    """The IPTC digital source type in a file's metadata."""
    return properties(found.xmp).get(_SOURCE_TYPE)


def properties(packet: bytes | None) -> dict[str, str]:
    """Parse an XMP packet's plain properties by `NAMESPACE NAME`; empty if the packet is malformed.

    Packets come from strangers: one with a document type is not read, so none has entities of its own to grow by.
    """
    reader = _Properties()
    try:
        reader.read((packet or b"").decode())
    except (expat.ExpatError, ValueError):
        return {}
    return reader.found


class _Properties:
    """XML parser that collects properties written as attributes or as elements."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self._open: list[str] = []
        self._text: list[str] = []

    def read(self, packet: str) -> None:
        parser = expat.ParserCreate(namespace_separator=" ")
        parser.StartDoctypeDeclHandler = self._refuse
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text.append
        parser.Parse(packet, True)

    def _refuse(self, *declaration: object) -> None:
        raise ValueError("an XMP packet has no document type")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        if len(self._open) == _MAX_DEPTH:
            raise ValueError(f"an XMP packet is at most {_MAX_DEPTH} elements deep")
        self._open.append(name)
        self._text.clear()
        for attribute, value in attributes.items():
            self.found.setdefault(attribute, value)

    def _end(self, name: str) -> None:
        self._open.pop()
        text = "".join(self._text).strip()
        self._text.clear()
        if text:
            self.found.setdefault(name, text)
