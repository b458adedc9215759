"""Reads members of an untrusted zip one at a time, extracting nothing.

The directory is walked entry by entry, so refusing costs little whatever the archive says: a climbing or absolute
path, a NUL or other control character, a symlink, a name twice (also when only upper and lower case differ),
overlapping members, encryption, an unknown compression, or more than the limits below is a DataRejected.

PKWARE's APPNOTE 6.3.10, sections 4.3.6 to 4.3.16 and 4.5.3, tells the format.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import zlib
from array import array
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np

from .errors import DataRejected

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_ENTRIES = 210_000  # CelebA, the largest set of faces in common use, has 202,599
MAX_MEMBER_BYTES = 64 * 2**20
MAX_TOTAL_BYTES = 200 * 2**30
MAX_RATIO = 200  # deflate reaches 1032, pictures stay near 1
RATIO_FREE_BYTES = 2**16  # so little cannot hurt, and JSON may shrink a lot
MAX_NAME_BYTES = 1024
STORED, DEFLATED = 0, 8

END_RECORD, END_RECORD_64 = struct.Struct("<4s4H2LH"), struct.Struct("<4sQ2H2L4Q")
LOCATOR_64, ENTRY, LOCAL_HEADER = struct.Struct("<4sLQL"), struct.Struct("<4s4B4HL2L5H2L"), struct.Struct("<4s5H3L2H")
ONES_16, ONES_32 = 0xFFFF, 0xFFFFFFFF
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")  # and marks that turn text around


class Member(NamedTuple):
    """A file of an archive, from its directory."""

    name: str
    offset: int
    stored_bytes: int
    bytes: int
    crc: int
    method: int


def read_directory(path: Path) -> list[Member]:
    """List the archive's files in their order, without folders."""
    try:
        with path.open("rb") as file:
            _check(_entries(file), file.seek(0, os.SEEK_END))
            # A second walk, so that an archive refused for its last entry has not filled the memory by then.
            return [member for member in _entries(file) if not member.name.endswith("/")]
    except (OSError, OverflowError, struct.error) as error:
        raise DataRejected(f"{path.name}: not a readable zip: {error}") from error
    except DataRejected as error:
        raise DataRejected(f"{path.name}: {error}") from error


def read_member(file: IO[bytes], member: Member) -> bytes:
    """Read one member, checked against its size and CRC; at most MAX_MEMBER_BYTES.

    What is wrong with it is said without its name, which may be nobody's business.
    """
    file.seek(member.offset)
    header = file.read(LOCAL_HEADER.size)
    if len(header) < LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
        raise DataRejected("it is not where the directory says")
    *_, name_bytes, extra_bytes = LOCAL_HEADER.unpack(header)
    if _decoded(file.read(name_bytes)) != member.name:
        raise DataRejected("it has another name in its own header")
    file.seek(extra_bytes, os.SEEK_CUR)
    data = file.read(member.stored_bytes)
    if member.method == DEFLATED:
        data = _inflated(data, member)
    if len(data) != member.bytes or zlib.crc32(data) != member.crc:
        raise DataRejected("it differs from its checksum in the directory")
    return data


def _inflated(data: bytes, member: Member) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        # One byte more than stated is enough to see that the statement was a lie.
        return inflater.decompress(data, member.bytes + 1)
    except zlib.error as error:
        raise DataRejected(f"it cannot be decompressed: {error}") from error


def _check(entries: Iterator[Member], file_bytes: int) -> None:
    """Raise DataRejected if a name is unsafe or occurs twice, members overlap, or the archive would unpack to too
    much."""
    seen: set[int] = set()
    offsets, ends = array("Q"), array("Q")
    total = 0
    for member in entries:
        _check_name(member.name)
        folded = hash(member.name.rstrip("/").casefold())
        if folded in seen:
            raise DataRejected(f"{member.name!r} is there twice (upper and lower case are one)")
        seen.add(folded)
        total += member.bytes
        if total > MAX_TOTAL_BYTES:
            raise DataRejected(f"it must unpack to at most {MAX_TOTAL_BYTES} bytes")
        offsets.append(member.offset)
        ends.append(member.offset + LOCAL_HEADER.size + member.stored_bytes)
    starts, stops = np.sort(np.asarray(offsets, np.uint64)), np.sort(np.asarray(ends, np.uint64))
    if len(starts) and (int(stops[-1]) > file_bytes or (starts[1:] < stops[:-1]).any()):
        raise DataRejected("its members overlap or lie outside the file")


def _check_name(name: str) -> None:
    parts = name.rstrip("/").split("/")
    if CONTROL.search(name):
        raise DataRejected(f"a name holds a control character: {name[:80]!r}")
    if "\\" in name or ":" in parts[0] or not all(parts) or {".", ".."} & set(parts):
        raise DataRejected(f"a name must be a plain relative path, got {name[:80]!r}")


def _entries(file: IO[bytes]) -> Iterator[Member]:
    """Parse the zip's directory into its entries."""
    count, size, start = _locate_directory(file)
    if count > MAX_ENTRIES:
        raise DataRejected(f"it must hold at most {MAX_ENTRIES} entries, got {count}")
    file.seek(start)
    for _ in range(count):
        fixed = file.read(ENTRY.size)
        if len(fixed) < ENTRY.size or not fixed.startswith(b"PK\x01\x02"):
            raise DataRejected("its directory is damaged")
        (
            _,
            _,
            made_by,
            _,
            _,
            flags,
            method,
            _,
            _,
            crc,
            stored_bytes,
            plain_bytes,
            name_bytes,
            extra_bytes,
            comment_bytes,
            _,
            _,
            attributes,
            offset,
        ) = ENTRY.unpack(fixed)
        if not 0 < name_bytes <= MAX_NAME_BYTES:
            raise DataRejected(f"a name must have 1 to {MAX_NAME_BYTES} bytes, got {name_bytes}")
        name = _decoded(file.read(name_bytes))
        extra = file.read(extra_bytes)
        file.seek(comment_bytes, os.SEEK_CUR)
        size -= ENTRY.size + name_bytes + extra_bytes + comment_bytes
        plain_bytes, stored_bytes, offset = _wide(extra, (plain_bytes, stored_bytes, offset))
        member = Member(name, offset, stored_bytes, plain_bytes, crc, method)
        _check_entry(member, flags, attributes >> 16 if made_by == 3 else 0)
        yield member
    if size:
        raise DataRejected(f"its directory must hold the {count} entries that it states, and nothing else")


def _check_entry(member: Member, flags: int, unix_mode: int) -> None:
    name = member.name[:80]
    if unix_mode and stat.S_IFMT(unix_mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise DataRejected(f"{name!r} must be a plain file, not a link or a device")
    if flags & 0x2041:
        raise DataRejected(f"{name!r} must not be encrypted")
    if member.method not in (STORED, DEFLATED) or (member.method == STORED and member.bytes != member.stored_bytes):
        raise DataRejected(f"{name!r} must be stored or deflated, got method {member.method}")
    if member.bytes > MAX_MEMBER_BYTES:
        raise DataRejected(f"{name!r} must have at most {MAX_MEMBER_BYTES} bytes, got {member.bytes}")
    if member.stored_bytes > member.bytes + RATIO_FREE_BYTES:
        raise DataRejected(f"{name!r} takes more room in the archive than outside it")
    if member.bytes > RATIO_FREE_BYTES and member.bytes > MAX_RATIO * member.stored_bytes:
        raise DataRejected(
            f"{name!r} must shrink at most {MAX_RATIO} times, got {member.bytes} bytes "
            f"from {member.stored_bytes}: a decompression bomb"
        )


def _locate_directory(file: IO[bytes]) -> tuple[int, int, int]:
    """Find the directory: number of entries, size and offset."""
    length = file.seek(0, os.SEEK_END)
    tail_bytes = min(length, END_RECORD.size + ONES_16)
    file.seek(length - tail_bytes)
    tail = file.read(tail_bytes)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < END_RECORD.size:
        raise DataRejected("not a zip: it does not end with a zip directory")
    _, disk, first_disk, _, count, size, start, _ = END_RECORD.unpack_from(tail, at)
    end = length - tail_bytes + at
    if count == ONES_16 or ONES_32 in (size, start):
        count, size, start, end = _locate_directory_64(file, end, (count, size, start))
    if disk or first_disk:
        raise DataRejected("it must be one file, not a part of several")
    if start + size != end:
        raise DataRejected("its directory is not where it says, or something was put before the archive")
    return count, size, start


def _locate_directory_64(file: IO[bytes], end: int, narrow: tuple[int, int, int]) -> tuple[int, int, int, int]:
    """Find the directory by the 64-bit record, or by the 32-bit one if there is none."""
    if end < LOCATOR_64.size:
        return *narrow, end
    file.seek(end - LOCATOR_64.size)
    signature, _, record_at, _ = LOCATOR_64.unpack(file.read(LOCATOR_64.size))
    if signature != b"PK\x06\x07":
        return *narrow, end
    file.seek(min(record_at, end))
    record = file.read(END_RECORD_64.size)
    if len(record) < END_RECORD_64.size or not record.startswith(b"PK\x06\x06"):
        raise DataRejected("its 64-bit directory record is damaged")
    count, size, start = END_RECORD_64.unpack(record)[-3:]
    return count, size, start, record_at


def _wide(extra: bytes, values: tuple[int, int, int]) -> tuple[int, int, int]:
    """Sizes and offset, from the 64-bit extra field if the 32-bit ones refer to it."""
    if ONES_32 not in values:
        return values
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            field = extra[at + 4 : at + 4 + size]
            wide = iter(struct.unpack(f"<{len(field) // 8}Q", field[: len(field) // 8 * 8]))
            plain, stored, offset = (next(wide, value) if value == ONES_32 else value for value in values)
            return plain, stored, offset
        at += 4 + size
    return values


def _decoded(name: bytes) -> str:
    """Decode a name: UTF-8, or code page 437 in old archives."""
    try:
        return name.decode("utf-8")
    except UnicodeDecodeError:
        return name.decode("cp437")
