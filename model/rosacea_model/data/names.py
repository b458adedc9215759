"""File names as people mean them: one Unicode form, natural order, tolerant matching."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NUMBERS = re.compile(r"(\d+)", re.ASCII)
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def plain(name: str) -> str:
    """Normalise a path: slashes, no leading `./`, composed Unicode (Macs write the decomposed form)."""
    parts = [part for part in unicodedata.normalize("NFC", name).replace("\\", "/").split("/") if part != "."]
    return "/".join(parts)


def natural(name: str) -> tuple[object, ...]:
    """Sort key for natural order: 2 before 10."""
    form = unicodedata.normalize("NFC", name)
    # Texts and numbers alternate, a text first, so that like is compared with like.
    parts = [int(part) if place % 2 else part for place, part in enumerate(NUMBERS.split(form))]
    return *parts, "", name


def stem(name: str) -> str:
    """A file name normalised, without suffix and in lower case, for matching."""
    folder, slash, last = plain(name).casefold().rpartition("/")
    return folder + slash + (last.rpartition(".")[0] or last)


def folded(name: str) -> str:
    return plain(name).casefold()


def matched(stated: Iterable[str], files: Iterable[str]) -> dict[str, str]:
    """Match stated names to files: exactly, else up to Unicode form, case or suffix if unambiguous."""
    names, left = list(stated), list(files)
    found: dict[str, str] = {}
    steps: tuple[Callable[[str], str], ...] = (str, plain, folded, stem)
    for key in steps:
        found |= _unambiguous(names, left, key)
        taken = set(found.values())
        names, left = [name for name in names if name not in found], [name for name in left if name not in taken]
    return found


def _unambiguous(names: list[str], files: list[str], key: Callable[[str], str]) -> dict[str, str]:
    by_key: dict[str, list[str]] = defaultdict(list)
    for file in files:
        by_key[key(file)].append(file)
    wanted: dict[str, list[str]] = defaultdict(list)
    for name in names:
        wanted[key(name)].append(name)
    return {who[0]: by_key[what][0] for what, who in wanted.items() if len(who) == 1 == len(by_key.get(what, ()))}


def decoded(data: bytes) -> str:
    """Decode a hand-made text file; ValueError with a hint if it is not UTF-8."""
    if data.startswith(UTF16_MARKS) or b"\0" in data[:256]:
        raise ValueError("it is in UTF-16: save it as UTF-8 (Excel calls that CSV UTF-8)")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not in UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8") from error
