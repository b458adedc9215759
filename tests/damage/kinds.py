"""Ways to damage a file: bits and bytes anywhere, lengths, and any JSON value in any place of a JSON document."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 2**31, 2**64, -(2**70), 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"), "", "x",
    "\0", "\ud800", "../../etc/passwd", "[red]", "9" * 5000, [], {}, [[]], [None], {"": None}, ["x"] * 1000,
    {"a": {"b": []}},
]  # fmt: skip
DEEP = 100_000


def damage(data: bytes, choose: random.Random) -> tuple[str, bytes]:
    """A damaged form of the bytes, and the kind of damage."""
    kinds = [*BYTES, *(JSONS if documents(data) else ())]
    kind = choose.choice(kinds)
    return kind.__name__, kind(data, choose)


def flip_bit(data: bytes, choose: random.Random) -> bytes:
    return flip_bits(data, choose, 1)


def flip_bits(data: bytes, choose: random.Random, count: int = 0) -> bytes:
    changed = bytearray(data)
    for _ in range(count or choose.randint(2, 64)) if data else ():
        changed[choose.randrange(len(changed))] ^= 1 << choose.randrange(8)
    return bytes(changed)


def truncate(data: bytes, choose: random.Random) -> bytes:
    return data[: choose.randrange(len(data) + 1)]


def lose_the_start(data: bytes, choose: random.Random) -> bytes:
    return data[choose.randrange(len(data) + 1) :]


def zero(data: bytes, choose: random.Random) -> bytes:
    start, length = choose.randrange(len(data) + 1), choose.randint(1, 512)
    return (data[:start] + bytes(length) + data[start + length :])[: len(data)]


def insert_noise(data: bytes, choose: random.Random) -> bytes:
    place = choose.randrange(len(data) + 1)
    return data[:place] + choose.randbytes(choose.randint(1, 64)) + data[place:]


def append(data: bytes, choose: random.Random) -> bytes:
    return data + choose.choice([b"\0", b"\n", b"{}", b"\xff\xfe", data[:4096], bytes(2**20)])


def double(data: bytes, choose: random.Random) -> bytes:
    return data + data if len(data) < 2**20 else data[:4096] + data


def replace_all(data: bytes, choose: random.Random) -> bytes:
    deep = [b"[" * DEEP, b'{"a":' * DEEP, b"[" * DEEP + b"]" * DEEP, b" " * DEEP, b"\n" * DEEP, b"\xef\xbb\xbf{}"]
    whole = [json.dumps(value).encode() for value in VALUES]
    return choose.choice([*deep, *whole, b"", choose.randbytes(200), "{}".encode("utf-16")])


def replace_value(data: bytes, choose: random.Random) -> bytes:
    return edited(data, choose, lambda parent, key: parent.__setitem__(key, choose.choice(VALUES)))


def remove_entry(data: bytes, choose: random.Random) -> bytes:
    return edited(data, choose, lambda parent, key: parent.__delitem__(key))


def swap_type(data: bytes, choose: random.Random) -> bytes:
    """A number as its text, a text as a list of it, and so on."""
    changes: list[Callable[[Any], Any]] = [str, repr, list_of]
    change = choose.choice(changes)
    return edited(data, choose, lambda parent, key: parent.__setitem__(key, change(parent[key])))


def add_entry(data: bytes, choose: random.Random) -> bytes:
    def add(parent: Any, key: Any) -> None:
        if isinstance(parent, dict):
            parent[choose.choice(["more", "", "\0", "__class__"])] = choose.choice(VALUES)
        else:
            parent.append(choose.choice(VALUES))

    return edited(data, choose, add)


def list_of(value: Any) -> list[Any]:
    return [value]


def edited(data: bytes, choose: random.Random, edit: Callable[[Any, Any], Any]) -> bytes:
    """The lines of JSON with an edit at one place of one of them."""
    found = copy.deepcopy(documents(data))
    assert found
    number = choose.randrange(len(found))
    if places := places_of(found[number]):
        edit(*choose.choice(places))
    else:
        found[number] = choose.choice(VALUES)
    return "\n".join(map(json.dumps, found)).encode("utf-8", "replace") + b"\n"


def documents(data: bytes) -> list[Any] | None:
    """The JSON in a file: one document, or one a line; None where it is no JSON."""
    try:
        return [json.loads(data)]
    except (ValueError, RecursionError):
        pass
    try:
        return [json.loads(line) for line in data.splitlines()] or None
    except (ValueError, RecursionError):
        return None


def places_of(value: Any) -> list[tuple[Any, Any]]:
    """Every container and key within a document."""
    keys: list[Any] = list(value) if isinstance(value, dict) else []
    if isinstance(value, list):
        keys = list(range(len(value)))
    return [(value, key) for key in keys] + [place for key in keys[:200] for place in places_of(value[key])]


BYTES = [flip_bit, flip_bits, truncate, lose_the_start, zero, insert_noise, append, double, replace_all]
JSONS = [replace_value, remove_entry, swap_type, add_entry] * 3
