"""The zip that comes out, read by a reader that shares no code with the writer."""

from __future__ import annotations

import json
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from rosacea_model.data import writer as writing
from rosacea_model.data.source import open_source
from rosacea_model.data.writer import DatasetWriter

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def read_zip(data: bytes) -> dict[str, bytes]:
    """Members of a zip, from PKWARE's APPNOTE: end record, central directory, local headers; stored members only."""
    end = data.rindex(b"PK\x05\x06")
    count, size, start = struct.unpack_from("<HLL", data, end + 10)
    members, at = {}, start
    for _ in range(count):
        assert data[at : at + 4] == b"PK\x01\x02"
        method, crc, packed, plain, name_length, extra, comment = struct.unpack_from("<H4xLLLHHH", data, at + 10)
        (offset,) = struct.unpack_from("<L", data, at + 42)
        name = data[at + 46 : at + 46 + name_length].decode()
        assert method == 0 and packed == plain, "StyleGAN tools want stored members"
        local_name, local_extra = struct.unpack_from("<HH", data, offset + 26)
        body = data[offset + 30 + local_name + local_extra :][:plain]
        assert zlib.crc32(body) == crc
        members[name] = body
        at += 46 + name_length + extra + comment
    assert at == start + size == end
    return members


def read_png(data: bytes) -> NDArray[np.uint8]:
    """Pixels of an 8-bit unfiltered PNG, from the PNG specification."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, body = 8, b""
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        content = data[at + 8 : at + 8 + length]
        assert zlib.crc32(kind + content) == struct.unpack_from(">I", data, at + 8 + length)[0]
        if kind == b"IHDR":
            width, height, depth, colour, *rest = struct.unpack(">IIBBBBB", content)
            assert (depth, rest) == (8, [0, 0, 0]), "8 bits, not interlaced"
        elif kind == b"IDAT":
            body += content
        at += 12 + length
    rows = np.frombuffer(zlib.decompress(body), np.uint8).reshape(height, -1)
    assert not rows[:, 0].any(), "no row is filtered"
    return rows[:, 1:].reshape(height, width, {0: 1, 2: 3}[colour])


def images(count: int, size: int = 16, channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, size, size, channels), dtype=np.uint8)


def test_an_independent_reader_finds_every_pixel_and_label(tmp_path: Path) -> None:
    pixels = images(1002)
    with DatasetWriter(tmp_path / "data.zip") as writer:
        names = [writer.add(image, number % 3, {"severity": number}) for number, image in enumerate(pixels)]

    members = read_zip((tmp_path / "data.zip").read_bytes())

    assert names[0] == "00000/img00000000.png" and names[1001] == "00001/img00001001.png"
    assert all((read_png(members[name]) == image).all() for name, image in zip(names, pixels, strict=True))
    labels = json.loads(members["dataset.json"])["labels"]
    assert labels == [[name, number % 3] for number, name in enumerate(names)]
    facts = [json.loads(line) for line in members["facts.jsonl"].splitlines()]
    assert [fact["severity"] for fact in facts] == list(range(1002))
    sheet = json.loads(members["datasheet.json"])
    assert sheet["images"]["count"] == 1002 and sheet["labels"]["per_class"] == {"0": 334, "1": 334, "2": 334}
    assert sheet["licence"] is None and sheet["consent"]["obtained"] is None, "for the owner to fill"


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [4, 128, 256])
def test_pixels_of_every_shape_come_back(tmp_path: Path, size: int, channels: int) -> None:
    (pixels,) = images(1, size, channels)
    with DatasetWriter(tmp_path / "data.zip") as writer:
        name = writer.add(pixels)

    members = read_zip((tmp_path / "data.zip").read_bytes())

    assert (read_png(members[name]) == pixels).all()
    assert json.loads(members["dataset.json"]) == {"labels": None}


def test_the_same_calls_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one.zip", "two.zip"):
        with DatasetWriter(tmp_path / name, datasheet={"title": "phantoms"}) as writer:
            for image in images(3):
                writer.add(image, [0.5, 1], {"melanin": np.float32(0.25)})
            writer.add_file("truth/maps.npz", b"maps")

    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_nothing_is_left_when_the_work_fails(tmp_path: Path) -> None:
    (tmp_path / "data.zip").write_bytes(b"before")

    with pytest.raises(RuntimeError, match="power cut"), DatasetWriter(tmp_path / "data.zip") as writer:
        writer.add(images(1)[0])
        raise RuntimeError("power cut")

    assert [path.name for path in tmp_path.iterdir()] == ["data.zip"]
    assert (tmp_path / "data.zip").read_bytes() == b"before"


@pytest.mark.parametrize(
    ("shape", "label", "told"),
    [
        ((16, 8, 3), 0, "square"),
        ((24, 24, 3), 0, "power of two"),
        ((32, 32, 3), 0, "as the first"),
        ((16, 16, 1), 0, "as the first"),
        ((16, 16, 4), 0, "1 or 3 channels"),
        ((16, 16, 3), None, "label like the first"),
        ((16, 16, 3), [1.0], "label like the first"),
        ((16, 16, 3), -1, "at least 0"),
        ((16, 16, 3), True, "class number or a vector"),
        ((16, 16, 3), [float("nan")], "finite"),
    ],
)
def test_what_does_not_fit_the_first_image_is_refused(
    tmp_path: Path, shape: tuple[int, int, int], label: Any, told: str
) -> None:
    with DatasetWriter(tmp_path / "data.zip") as writer:
        writer.add(images(1)[0], 0)

        with pytest.raises(ValueError, match=told):
            writer.add(np.zeros(shape, np.uint8), label)


@pytest.mark.parametrize("name", ["../x", "/x", "a//b", "a\\b", "dataset.json", "Facts.jsonl", "x.png", "a\x00b", ""])
def test_extra_members_cannot_be_mistaken_or_climb(tmp_path: Path, name: str) -> None:
    with DatasetWriter(tmp_path / "data.zip") as writer, pytest.raises(ValueError, match=r"."):
        writer.add_file(name, b"")


def test_what_was_counted_is_not_overridden(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "data.zip", datasheet={"images": {"count": 9}, "labels": None}) as writer:
        writer.add(images(1)[0], 0)

    sheet = json.loads(read_zip((tmp_path / "data.zip").read_bytes())["datasheet.json"])
    assert sheet["images"]["count"] == 1 and sheet["labels"] == {"kind": "class", "per_class": {"0": 1}}


def test_facts_may_be_called_anything(tmp_path: Path) -> None:
    facts = {"self": 1, "data": 2, "label": 3, "pixels": 4}
    with DatasetWriter(tmp_path / "data.zip") as writer:
        writer.add(images(1)[0], 0, facts)

    (picture,) = open_source(tmp_path / "data.zip").pictures
    assert picture.known(picture.facts_sha256) == facts


@pytest.mark.parametrize(
    ("limit", "value", "told"),
    [
        ("MAX_MEMBER_BYTES", 1000, "at most 1000 bytes"),
        ("MAX_ENTRIES", 5, "at most 5 files"),
        ("MAX_TOTAL_BYTES", 2000, "at most 2000 bytes"),
    ],
)
def test_what_our_reader_would_refuse_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, told: str
) -> None:
    monkeypatch.setattr(writing, limit, value)

    with pytest.raises(ValueError, match=told), DatasetWriter(tmp_path / "data.zip") as writer:
        for image in images(3):
            writer.add(image)
        writer.add_file("truth.jsonl", bytes(1001))

    assert list(tmp_path.iterdir()) == []


def test_labels_too_wide_for_our_reader_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dataset\.json of 1 images"), DatasetWriter(tmp_path / "a.zip") as writer:
        writer.add(images(1)[0], [0.5] * 20_000)
