"""What is written into an image is found again, by us and by others, and changes no pixel."""

from __future__ import annotations

import io
import json
import random
import shutil
import subprocess
import zlib
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest
from PIL import Image

from rosacea_client import Mark, inspect_image
from rosacea_client.files import read_bounded
from rosacea_client.results.grid import save_sheet
from rosacea_contract.containers import MAX_TEXT_BYTES, MAX_TEXTS, MAX_TEXTS_BYTES, PNG_SIGNATURE, metadata, with_texts
from rosacea_contract.marks import JPEG, KEYWORD, NOTICE, PNG, TRAINED, Stamp, marked, properties, xmp

from ..client.images import FORMATS, MARK, coded, opened, png_with

if TYPE_CHECKING:
    from pathlib import Path

EXIFTOOL = shutil.which("exiftool")
needs_exiftool = pytest.mark.skipif(EXIFTOOL is None, reason="no exiftool (Debian: libimage-exiftool-perl)")
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
IPTC = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"
OURS = "{urn:rosacea:mark:1#}"
HOSTILE = [
    "\"/><rosacea:seed>8</rosacea:seed><x y='",
    "'\"><!--",
    "]]>&lt;&amp;&#0;&bogus;",
    '","seed":8,"x":"',
    "?xpacket end='w'?>\x00\x1b[2J\r\n\t\u2028\ufffe",
    '\\\\"\\u0022',
]


def exiftool(file: Path, *options: str) -> dict[str, Any]:
    """What exiftool says of a file, by group and name."""
    command = [str(EXIFTOOL), "-json", "-G1", *options, str(file)]
    (found,) = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return dict(found)


def description(packet: str) -> ElementTree.Element:
    """The one description in a packet, as another parser reads it."""
    root = ElementTree.fromstring(packet)
    (found,) = root.iter(f"{RDF}Description")
    return found


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("image_format", FORMATS)
def test_a_mark_comes_back_and_no_pixel_changes(image_format: str, mode: str) -> None:
    plain = coded(image_format, mode)

    image = marked(plain, MARK)

    found = inspect_image(image)
    assert (found.format, found.mark, found.source_type) == (image_format, MARK, "trainedAlgorithmicMedia")
    assert found.synthetic and found.signature is None
    assert opened(image).tobytes() == opened(plain).tobytes()
    assert opened(image).mode == mode


@pytest.mark.parametrize("image_format", FORMATS)
def test_the_coded_pixels_stay_as_they_are(image_format: str) -> None:
    plain = coded(image_format)

    image = marked(plain, MARK)

    added = len(image) - len(plain)
    cuts = [cut for cut in range(len(plain)) if image == plain[:cut] + image[cut : cut + added] + plain[cut:]]
    assert cuts, "the image is the plain one with something put in between"


@pytest.mark.parametrize("image_format", FORMATS)
def test_the_same_mark_gives_the_same_bytes(image_format: str) -> None:
    again = Mark.model_validate_json(MARK.to_json())

    assert marked(coded(image_format), MARK) == marked(coded(image_format), again)
    assert marked(coded(image_format), MARK) != marked(coded(image_format), MARK.model_copy(update={"seed": 8}))


def test_pillow_reads_a_png() -> None:
    found = opened(marked(coded("png"), MARK)).info

    assert json.loads(found[KEYWORD]) == MARK.facts()
    assert (found["Software"], found["Description"]) == ("rosacea 1.2.3", NOTICE)
    assert TRAINED in found["XML:com.adobe.xmp"]


def test_pillow_reads_a_jpeg() -> None:
    image = marked(coded("jpeg"), MARK)

    found = opened(image)

    assert image.index(b"\xff\xe1") < image.index(b"\xff\xdb"), "before the tables, where others look for it"
    told = description(found.info["xmp"].decode())
    assert told.attrib[f"{IPTC}DigitalSourceType"] == TRAINED
    assert json.loads(told.findtext(f"{OURS}generation") or "") == MARK.facts()
    assert dict(found.getexif()) == {0x010E: NOTICE, 0x0131: "rosacea 1.2.3"}
    assert (found.info["jfif_version"], found.size) == ((1, 1), (8, 8))


@needs_exiftool
@pytest.mark.parametrize("image_format", FORMATS)
def test_exiftool_says_that_it_is_synthetic_and_from_what(image_format: str, tmp_path: Path) -> None:
    file = tmp_path / f"face.{image_format}"
    file.write_bytes(marked(coded(image_format), MARK))

    told = exiftool(file)

    assert told["XMP-iptcExt:DigitalSourceType"] == TRAINED
    assert (told["XMP-rosacea:Seed"], told["XMP-rosacea:Digest"]) == (7, "ab" * 32)
    assert (told["XMP-xmp:CreatorTool"], told["XMP-dc:Description"]) == ("rosacea 1.2.3", NOTICE)
    # -json parses a value that is JSON.
    assert told["XMP-rosacea:Generation"] in (MARK.facts(), MARK.to_json())
    assert "ExifTool:Warning" not in told


@needs_exiftool
def test_exiftool_finds_nothing_in_an_unmarked_image(tmp_path: Path) -> None:
    file = tmp_path / "face.png"
    file.write_bytes(coded("png"))

    assert not [name for name in exiftool(file) if "XMP" in name or "Rosacea" in name]


@needs_exiftool
@pytest.mark.parametrize("image_format", FORMATS)
def test_a_mark_that_another_tool_has_written_anew_is_still_read(image_format: str, tmp_path: Path) -> None:
    file = tmp_path / f"face.{image_format}"
    file.write_bytes(marked(coded(image_format), MARK))

    subprocess.run([str(EXIFTOOL), "-q", "-XMP-dc:Creator=Someone", "-XMP-dc:Title=A title", file], check=True)

    found = inspect_image(file.read_bytes())
    assert file.read_bytes() != marked(coded(image_format), MARK)
    assert (found.mark, found.source_type) == (MARK, "trainedAlgorithmicMedia")


@needs_exiftool
@pytest.mark.parametrize("image_format", FORMATS)
def test_a_foreign_image_is_read_for_what_it_says(image_format: str, tmp_path: Path) -> None:
    file = tmp_path / f"photo.{image_format}"
    file.write_bytes(coded(image_format))
    kind = "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture"
    subprocess.run([str(EXIFTOOL), "-q", f"-XMP-iptcExt:DigitalSourceType={kind}", file], check=True)

    found = inspect_image(file.read_bytes())

    assert (found.source_type, found.mark, found.synthetic) == ("digitalCapture", None, False)


@pytest.mark.parametrize("image_format", FORMATS)
def test_an_unmarked_image_is_found_unmarked(image_format: str) -> None:
    found = inspect_image(coded(image_format))

    assert (found.mark, found.source_type, found.signature, found.synthetic) == (None, None, None, False)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text: str) -> None:
    mark = MARK.model_copy(update={"model": text, "software": "".join(c for c in text if " " <= c <= "~") + "!!!!"})

    told = description(xmp(mark.software, mark))

    assert set(told.attrib) == set(description(xmp(MARK.software, MARK)).attrib)
    assert [child.tag for child in told] == [child.tag for child in description(xmp(MARK.software, MARK))]
    assert told.attrib[f"{OURS}seed"] == "7"
    assert json.loads(told.findtext(f"{OURS}generation") or "") == mark.facts()
    for image_format in FORMATS:
        assert inspect_image(marked(coded(image_format), mark)).mark == mark


def test_a_packed_text_is_read() -> None:
    assert inspect_image(png_with(KEYWORD, MARK.to_json(), packed=True)).mark == MARK


NO_MARKS = ["", "{", "[]", "null", "7", '{"seed": 1}', "[" * 100_000, '{"a":' * 100_000, "\ud7ff"]


@pytest.mark.parametrize("told", NO_MARKS)
def test_a_mark_that_is_none_is_taken_for_none(told: str) -> None:
    assert inspect_image(png_with(KEYWORD, told)).mark is None


def test_a_text_that_unpacks_without_end_is_cut_off() -> None:
    bomb = png_with(KEYWORD, "A" * 50 * MAX_TEXT_BYTES, packed=True)

    assert len(bomb) < MAX_TEXT_BYTES
    assert len(metadata(bomb).texts[KEYWORD]) == MAX_TEXT_BYTES


def test_many_texts_together_have_one_budget() -> None:
    """In bytes, for those that stand under one keyword too, and in number."""
    bomb = png_with("a", "A" * MAX_TEXT_BYTES, packed=True)
    end = len(PNG_SIGNATURE) + 25
    chunk = bomb[end : bomb.index(b"IDAT") - 4]
    for count in (50, 2000):
        found = metadata(bomb[:end] + chunk * count + bomb[end:])
        assert sum(map(len, found.texts.values())) <= MAX_TEXTS_BYTES
    texts = {str(number): "" for number in range(5000)}
    assert len(metadata(with_texts(bomb[:end] + bomb[end + len(chunk) :], texts)).texts) == MAX_TEXTS


def test_a_mark_behind_a_few_large_texts_is_found() -> None:
    marked_image = png_with(KEYWORD, MARK.to_json())

    assert inspect_image(with_texts(marked_image, {"workflow": "A" * 3 * MAX_TEXT_BYTES})).mark == MARK


def test_a_file_without_end_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "long.png").open("wb") as file:
        file.truncate(1001)

    with pytest.raises(ValueError, match="at most 1000 bytes"):
        read_bounded(tmp_path / "long.png", 1000)
    assert len(read_bounded(tmp_path / "long.png", 1001)) == 1001


def test_a_packet_with_entities_is_not_read() -> None:
    packet = xmp("rosacea", MARK)
    laughs = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>'

    assert properties(packet.encode())
    assert properties((laughs + packet).encode()) == {}
    assert properties(packet.replace("?>", "?>" + laughs, 1).encode()) == {}
    assert properties(packet.encode("utf-16")) == {}
    assert properties(("<a>" * 1000 + "</a>" * 1000).encode()) == {}


@pytest.mark.parametrize("image_format", FORMATS)
def test_damaged_files_are_read_as_far_as_they_go(image_format: str) -> None:
    image = marked(coded(image_format), MARK)
    rng = random.Random(0)

    for _ in range(2000):
        damaged = bytearray(image)
        for _ in range(rng.randint(1, 8)):
            damaged[rng.randrange(2, len(image))] = rng.randrange(256)
        bytes_left = bytes(damaged[: rng.randint(0, len(image))] if rng.random() < 0.3 else damaged)
        try:
            inspect_image(bytes_left)
        except ValueError as error:
            assert str(error) == "neither a PNG nor a JPEG image"


def test_what_is_no_image_is_refused() -> None:
    for data in (b"", b"GIF89a", b"\x89PNG", zlib.compress(b"x" * 100)):
        with pytest.raises(ValueError, match="neither a PNG nor a JPEG image"):
            inspect_image(data)


def test_a_mark_beyond_its_room_is_refused() -> None:
    endless = MARK.model_copy(update={"label_vector": (0.123456789,) * 10_000})

    for image_format in FORMATS:
        with pytest.raises(ValueError, match=r"at most \d+ bytes, got \d+"):
            marked(coded(image_format), endless)


SEEDS = (0, 7, 1_000_000_000, 2**32 - 1)


def any_mark(rng: random.Random) -> Mark:
    """A mark with whatever stands in the way of a template: specials of both syntaxes, numbers, long texts."""
    words = [*HOSTILE, "%(seed)d", "%%", "1000000000", "1000000001", "\U0001f600", "\x85", "x" * 1000, '"seed":7']
    optional: dict[str, Any] = {
        "seed": rng.choice(SEEDS),
        "noise_seed": rng.choice(SEEDS),
        "class_name": "".join(rng.choices(words, k=rng.randint(1, 3))),
        "label_vector": tuple(rng.uniform(-1, 1) for _ in range(rng.choice([1, 64]))),
        "style_mixes": ({"seed": rng.choice(SEEDS), "first_row": 0, "end_row": 1},) * rng.choice([1, 64]),
        "truncation_psi": rng.choice([0.7, -0.0, 1e9]),
    }
    given = {name: value for name, value in optional.items() if rng.random() < 0.6}
    return Mark.model_validate({**MARK.model_dump(exclude=set(optional)), "model": rng.choice(words), **given})


@pytest.mark.parametrize("image_format", FORMATS)
def test_a_stamp_gives_the_bytes_of_its_mark_whatever_the_seeds(image_format: str) -> None:
    rng = random.Random(0)
    plain, container = coded(image_format), {"png": PNG, "jpeg": JPEG}[image_format]

    for _ in range(300):
        mark = any_mark(rng)
        stamp = Stamp(mark, container)
        for seed, noise_seed in rng.choices([(a, b) for a in SEEDS for b in SEEDS], k=3):
            told = {"seed": seed, "noise_seed": noise_seed}
            update = {name: value for name, value in told.items() if getattr(mark, name) is not None}
            assert stamp.marked(plain, **told) == marked(plain, mark.model_copy(update=update))


def test_a_stamp_beyond_its_room_is_refused() -> None:
    endless = MARK.model_copy(update={"label_vector": (0.123456789,) * 10_000})

    for image_format, container in (("png", PNG), ("jpeg", JPEG)):
        with pytest.raises(ValueError, match=r"at most \d+ bytes, got \d+"):
            Stamp(endless, container).marked(coded(image_format), 7, 0)


def test_fields_of_a_later_version_are_passed_over() -> None:
    later = with_texts(coded("png"), {KEYWORD: json.dumps({**MARK.facts(), "mark": 2, "mood": "calm"})})

    assert inspect_image(later).mark == MARK.model_copy(update={"mark": 2})


def test_a_sheet_says_that_it_is_synthetic(tmp_path: Path) -> None:
    save_sheet(Image.new("RGB", (20, 10), "red"), tmp_path / "sheet.png")

    found = inspect_image((tmp_path / "sheet.png").read_bytes())
    assert found.synthetic and found.mark is None
    with Image.open(io.BytesIO((tmp_path / "sheet.png").read_bytes())) as sheet:
        assert sheet.info["Description"].endswith(NOTICE)
        assert sheet.getpixel((0, 0)) == (255, 0, 0)
