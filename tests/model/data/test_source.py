"""Folders and archives, also those made to do harm (X4): refused in two seconds, 64 MiB, and nothing written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import struct
import subprocess
import sys
import zipfile
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rosacea_model.data import zipread
from rosacea_model.data.errors import DataRejected, Unusable, UnusableReason
from rosacea_model.data.source import Reader, open_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MEASURED = """
import sys, time
from pathlib import Path
from rosacea_model.data.errors import DataRejected
from rosacea_model.data.source import open_source
def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
before, start = peak(), time.process_time()
try:
    open_source(Path(sys.argv[1]))
    told = "accepted"
except DataRejected as error:
    told = str(error)
print(time.process_time() - start, (peak() - before) / 1024, told, sep="\\n")
"""


def entry(name: str, mode: int = 0o100644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = mode << 16
    return info


def raw_zip(names: list[bytes], *, stated: int | None = None) -> bytes:
    """A zip of empty members, made by hand: zipfile would refuse some, and take minutes for others."""
    local = b"".join(
        struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, 0, 0, 0, 33, 0, 0, 0, len(name), 0) + name for name in names
    )
    directory, at = [], 0
    for name in names:
        fields = (b"PK\x01\x02", 20, 0, 20, 0, 0, 0, 0, 33, 0, 0, 0, len(name), 0, 0, 0, 0, 0, at)
        directory.append(struct.pack("<4s4B4HL2L5H2L", *fields) + name)
        at += 30 + len(name)
    central = b"".join(directory)
    count = min(len(names) if stated is None else stated, 0xFFFF)
    wide = b""
    if len(names) >= 0xFFFF and stated is None:
        wide = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, len(names), len(names), len(central), at)
        wide += struct.pack("<4sLQL", b"PK\x06\x07", 0, at + len(central), 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(central), at, 0)
    return local + central + wide + end


def slip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../climbed.png", b"x")


def absolute(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("/tmp/absolute.png", b"x")


def backslash(path: Path) -> None:
    path.write_bytes(raw_zip([b"..\\..\\climbed.png"]))


def drive(path: Path) -> None:
    path.write_bytes(raw_zip([b"C:/climbed.png"]))


def symlink(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(entry("link.png", stat.S_IFLNK | 0o777), b"/etc/passwd")


def bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.png", bytes(50 * 2**20))


def huge_member(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("large.png", bytes(zipread.MAX_MEMBER_BYTES + 1))


def million(path: Path) -> None:
    path.write_bytes(raw_zip([b"%07d.png" % number for number in range(1_000_000)]))


def lying_count(path: Path) -> None:
    path.write_bytes(raw_zip([b"%07d.png" % number for number in range(400_000)], stated=10))


def late_trouble(path: Path) -> None:
    path.write_bytes(raw_zip([*(b"%07d.png" % number for number in range(zipread.MAX_ENTRIES - 1)), b"../x.png"]))


def duplicate(path: Path) -> None:
    path.write_bytes(raw_zip([b"a.png", b"a.png"]))


def twin(path: Path) -> None:
    path.write_bytes(raw_zip([b"a.png", b"A.PNG"]))


def nul(path: Path) -> None:
    path.write_bytes(raw_zip([b"a.png\x00.txt"]))


def overlapping(path: Path) -> None:
    data = bytearray(raw_zip([b"a.png", b"b.png"]))
    second = data.rindex(b"PK\x01\x02")
    struct.pack_into("<L", data, second + 42, 0)
    path.write_bytes(data)


def damaged(path: Path) -> None:
    path.write_bytes(raw_zip([b"a.png", b"b.png"])[:-30])


def encrypted(path: Path) -> None:
    data = bytearray(raw_zip([b"a.png"]))
    struct.pack_into("<H", data, data.rindex(b"PK\x01\x02") + 8, 1)
    path.write_bytes(data)


def with_json(path: Path, name: str, text: str, pictures: int = 1) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(pictures):
            archive.writestr(f"{number}.png", b"")
        archive.writestr(name, text)


def json_bomb(path: Path) -> None:
    with_json(path, "dataset.json", '{"labels": [' + "[],{}," * (16 * 2**20 // 6) + "0]}")


def json_bomb_among_pictures(path: Path) -> None:
    with_json(path, "dataset.json", '{"labels": [' + "[],{}," * (3 * 2**20 // 6) + "0]}", pictures=4000)


def datasheet_bomb(path: Path) -> None:
    with_json(path, "datasheet.json", '{"title": [' + "[],{}," * (16 * 2**20 // 6) + "0]}")


def facts_bomb(path: Path) -> None:
    with_json(path, "facts.jsonl", '{"name": "0.png", "x": [' + "[],{}," * (16 * 2**20 // 6) + "0]}")


def facts_line_bomb(path: Path) -> None:
    line = '{"name": "0.png", "x": [' + "[],{}," * (3 * 2**20 // 6) + "0]}"
    with_json(path, "facts.jsonl", line, pictures=1000)


def deep_datasheet(path: Path) -> None:
    with_json(path, "datasheet.json", '{"title": ' + "[" * 600 + "]" * 600 + "}")


def not_a_number(path: Path) -> None:
    with_json(path, "facts.jsonl", '{"name": "0.png", "melanin": NaN}')


def infinite(path: Path) -> None:
    with_json(path, "facts.jsonl", '{"name": "0.png", "melanin": 1e999}')


def huge_number(path: Path) -> None:
    with_json(path, "dataset.json", '{"labels": [["0.png", [1' + "0" * 400 + "]]]}")


JSON_ATTACKS = [
    json_bomb,
    json_bomb_among_pictures,
    datasheet_bomb,
    facts_bomb,
    facts_line_bomb,
    deep_datasheet,
    not_a_number,
    infinite,
    huge_number,
]
ATTACKS = [
    *JSON_ATTACKS,
    slip,
    absolute,
    backslash,
    drive,
    symlink,
    bomb,
    huge_member,
    million,
    lying_count,
    late_trouble,
    duplicate,
    twin,
    nul,
    overlapping,
    damaged,
    encrypted,
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_archive_is_refused_cheaply(tmp_path: Path, attack: Callable[[Path], None]) -> None:
    path = tmp_path / "in" / "data.zip"
    path.parent.mkdir()
    attack(path)

    run = [sys.executable, "-c", MEASURED, str(path)]
    seconds, mebibytes, told = subprocess.run(run, capture_output=True, text=True, check=True).stdout.splitlines()

    assert told.startswith("data.zip: "), told
    assert float(seconds) <= 10 and float(mebibytes) <= 64, (seconds, mebibytes)
    assert [item.name for item in tmp_path.rglob("*") if item.is_file()] == ["data.zip"]


@pytest.mark.slow
def test_the_attacks_work_on_a_reader_without_rules(tmp_path: Path) -> None:
    taken = []
    for attack in (slip, absolute, symlink, bomb, twin, million):
        attack(tmp_path / "data.zip")
        with zipfile.ZipFile(tmp_path / "data.zip") as archive:
            taken.append(len(archive.infolist()))

    assert taken == [1, 1, 1, 1, 2, 1_000_000]


def test_an_honest_archive_is_accepted_and_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("b/two.png", b"two" * 1000)
        archive.writestr("a/one.JPG", b"one")
        archive.writestr("a/", b"")
        archive.writestr("README.md", b"")
        archive.writestr("__MACOSX/a/._one.JPG", b"")
        archive.writestr("\u00e4/drei.webp", b"three")

    source = open_source(tmp_path / "data.zip")
    reader = Reader(source.path)

    assert [picture.name for picture in source.pictures] == ["a/one.JPG", "b/two.png", "\u00e4/drei.webp"]
    assert [picture.label for picture in source.pictures] == [0, 1, 2]
    assert [len(reader.read(picture.name, picture.member)) for picture in source.pictures] == [3, 3000, 5]
    assert source.hidden == 1 and source.others == {"md": 1}
    reader.close()


@pytest.mark.slow
def test_a_large_archive_with_64_bit_records_is_read(tmp_path: Path) -> None:
    (tmp_path / "data.zip").write_bytes(raw_zip([b"%06d.png" % number for number in range(70_000)]))

    assert len(open_source(tmp_path / "data.zip").pictures) == 70_000


def test_a_member_that_lies_about_its_size_is_unusable(tmp_path: Path) -> None:
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(bytes(10**6)) + packer.flush()
    with zipfile.ZipFile(tmp_path / "data.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(10**6))
    data = bytearray((tmp_path / "data.zip").read_bytes())
    struct.pack_into("<L", data, data.rindex(b"PK\x01\x02") + 24, len(packed) * 50)
    (tmp_path / "data.zip").write_bytes(data)

    (picture,) = open_source(tmp_path / "data.zip").pictures
    reader = Reader(tmp_path / "data.zip")
    with pytest.raises(Unusable, match="differs from its checksum"):
        reader.read(picture.name, picture.member)
    reader.close()


def test_mutated_archives_are_refused_or_read_and_nothing_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "good.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(5):
            archive.writestr(f"{number}.png", bytes(range(256)) * 4)
    good = (tmp_path / "good.zip").read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(500):
        data = bytearray(good)
        for place in rng.integers(0, len(data), rng.integers(1, 6)):
            data[place] = rng.integers(256)
        path = tmp_path / "bad.zip"
        path.write_bytes(data[: rng.integers(len(data) // 2, len(data) + 1)])
        reader = Reader(path)
        try:
            for picture in open_source(path).pictures:
                reader.read(picture.name, picture.member)
        except (DataRejected, Unusable):
            refused += 1
        reader.close()

    assert refused > 100


def test_links_out_of_a_folder_are_not_followed_and_hidden_files_not_taken(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    root = tmp_path / "photos"
    (root / "sub").mkdir(parents=True)
    (root / "a.png").write_bytes(b"a")
    (root / ".hidden.png").write_bytes(b"h")
    (root / "out.png").symlink_to(tmp_path / "secret.png")
    (root / "in.png").symlink_to(root / "a.png")
    (root / "loop").symlink_to(root)
    (root / "gone.png").symlink_to(root / "nothing.png")
    os.mkfifo(root / "pipe.png")

    source = open_source(root)

    assert [picture.name for picture in source.pictures] == ["a.png", "in.png", "pipe.png"]
    assert (source.hidden, source.links) == (1, 3)
    with pytest.raises(Unusable) as refused:
        Reader(root).read("pipe.png", None)
    assert refused.value.reason is UnusableReason.unreadable


@pytest.mark.parametrize(
    ("files", "labels", "classes"),
    [
        (["healthy/a.png", "rosacea/b.png"], [0, 1], ("healthy", "rosacea")),
        (["00000/a.png", "00001/b.png"], [None, None], ()),
        (["only/a.png", "only/b.png"], [None, None], ()),
        (["a.png", "b.png"], [None, None], ()),
    ],
)
def test_classes_come_from_sub_folders(
    tmp_path: Path, files: list[str], labels: list[int | None], classes: tuple[str, ...]
) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")

    source = open_source(tmp_path)

    assert [picture.label for picture in source.pictures] == labels and source.classes == classes


def test_a_dataset_json_decides_and_what_it_leaves_out_has_no_label(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": [["a.png", 4], ["b.png", 2]]}))

    first, second, third = open_source(tmp_path).pictures

    assert (first.label, second.label) == (4, 2) and "has none for it" in third.problem


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"labels": 3}',
        '{"labels": [["a.png"]]}',
        '{"labels": [["a.png", true]]}',
        '{"labels": [["a.png", -1]]}',
        '{"labels": [["a.png", 1], ["b.png", [1.0]]]}',
        "[" * 100_000,
    ],
)
def test_a_bad_dataset_json_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    (tmp_path / "dataset.json").write_text(text)

    with pytest.raises(DataRejected, match=r"dataset\.json"):
        open_source(tmp_path)


def test_the_file_of_refused_json_is_named(tmp_path: Path) -> None:
    names = {"facts.jsonl": [not_a_number, infinite, facts_bomb], "dataset.json": [json_bomb, huge_number]}
    for name, attacks in names.items():
        for attack in attacks:
            attack(tmp_path / "data.zip")

            with pytest.raises(DataRejected, match=rf"^data\.zip: {name}: "):
                open_source(tmp_path / "data.zip")


def test_facts_are_of_the_bytes_that_they_were_stated_for(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    digest = hashlib.sha256(b"x").hexdigest()
    (tmp_path / "facts.jsonl").write_text(json.dumps({"name": "a.png", "sha256": digest, "melanin": 0.5}) + "\n")

    (picture,) = open_source(tmp_path).pictures

    assert picture.known(digest) == {"melanin": 0.5} and picture.known(hashlib.sha256(b"y").hexdigest()) == {}


@pytest.mark.parametrize(
    ("files", "labels", "classes"),
    [
        (["photos/healthy/a.png", "photos/rosacea/b.png"], [0, 1], ("healthy", "rosacea")),
        (
            ["photos/healthy/a.png", "photos/rosacea/b.png", "__MACOSX/photos/._a.png", "README.md"],
            [0, 1],
            ("healthy", "rosacea"),
        ),
        (["photos/a.png", "photos/b.png"], [None, None], ()),
        (["00000/a.png", "00000/b.png"], [None, None], ()),
    ],
)
def test_one_folder_around_everything_in_a_zip_is_looked_through(
    tmp_path: Path, files: list[str], labels: list[int | None], classes: tuple[str, ...]
) -> None:
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for name in files:
            archive.writestr(name, b"x")

    source = open_source(tmp_path / "data.zip")

    assert [picture.label for picture in source.pictures] == labels and source.classes == classes
    assert [picture.name for picture in source.pictures] == files[:2], "names stay those in the zip"


def test_a_dataset_json_inside_that_folder_is_found(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("photos/x/a.png", b"x")
        archive.writestr("photos/dataset.json", json.dumps({"labels": [["x/a.png", 7]]}))

    (picture,) = open_source(tmp_path / "data.zip").pictures

    assert (picture.label, picture.problem) == (7, "")


def test_dicom_is_seen_without_a_suffix_and_other_files_are_counted(tmp_path: Path) -> None:
    for name, content in (("IM001", bytes(128) + b"DICM"), ("notes", b"text"), ("a.txt", b"text"), ("x.DCM", b"")):
        (tmp_path / name).write_bytes(content)

    source = open_source(tmp_path)

    assert [picture.name for picture in source.pictures] == ["IM001", "x.DCM"]
    assert source.other_kinds == "; other files in it: 1 without a suffix, 1 .txt"


def test_a_link_to_itself_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"a")
    (tmp_path / "one.png").symlink_to(tmp_path / "two.png")
    (tmp_path / "two.png").symlink_to(tmp_path / "one.png")

    source = open_source(tmp_path)

    assert [picture.name for picture in source.pictures] == ["a.png"] and source.links == 2


def test_folders_too_deep_are_told_and_the_rest_is_read(tmp_path: Path) -> None:
    (tmp_path / "/".join("d" * 150)).mkdir(parents=True)
    (tmp_path / "a.png").write_bytes(b"a")

    good, bad = open_source(tmp_path).pictures

    assert good.name == "a.png" and bad.reason is UnusableReason.unreadable and "at most 100 deep" in bad.problem


def test_a_folder_that_cannot_be_listed_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.png").write_bytes(b"a")
    scan = os.scandir

    def refusing(path: Path) -> Iterator[os.DirEntry[str]]:
        if path.name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    good, bad = open_source(tmp_path).pictures

    assert good.problem == "" and (bad.name, bad.reason, bad.problem) == (
        "closed/",
        UnusableReason.unreadable,
        "Permission denied",
    )


def test_names_cannot_steer_the_terminal() -> None:
    told = [str(DataRejected("\x1b[2Jevil\n\udcff.png: no")), str(Unusable(UnusableReason.unreadable, "\x1b\n"))]

    assert told == [r"\x1b[2Jevil\n\udcff.png: no", r"unreadable: \x1b\n"]
