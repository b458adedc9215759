"""Parses seeds such as `0-15,42`, and reads files of seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rosacea_client.errors import InvalidSpec
from rosacea_client.files import read_bounded
from rosacea_contract.fields import SEEDS_END
from rosacea_contract.reasons import Reason, Violation, show

if TYPE_CHECKING:
    from pathlib import Path

MAX_SEEDS = 10_000_000


def parse_seeds(text: str) -> range | list[int]:
    """Parse seeds such as `0-15,42`, keeping their order. Raises InvalidSpec."""
    ranges = [_parse_range(part.strip(), text) for part in text.split(",")]
    if len(ranges) == 1:
        return ranges[0]
    if (count := sum(map(len, ranges))) > MAX_SEEDS:
        raise _refused(f"must name at most {MAX_SEEDS} of them, got {count}", Reason.BATCH_TOO_LARGE)
    return [seed for part in ranges for seed in part]


def read_seeds(path: Path) -> list[int]:
    """Seeds of a text file, one a line, in their order; empty lines and what follows # are left out.

    ValueError names the line that holds no seed, or one that was there before.
    """
    found: dict[int, None] = {}
    try:
        lines = read_bounded(path).decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: must be text with a seed on each line, got {error}") from None
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < SEEDS_END):
            raise ValueError(f"{path}, line {number}: must be a seed from 0 to 2**32 - 1, got {show(text)}")
        if int(text) in found:
            raise ValueError(f"{path}, line {number}: the seed {text} is there twice")
        found[int(text)] = None
    if not found:
        raise ValueError(f"{path}: no seeds in it")
    return list(found)


def _parse_range(part: str, text: str) -> range:
    first, dash, last = part.partition("-")
    if not (first.isascii() and first.isdigit() and (not dash or (last.isascii() and last.isdigit()))):
        raise _refused(f"must be whole numbers and ranges such as 0-15,42, got {show(text)}", Reason.INVALID_FIELD)
    if max(len(first), len(last)) > 10 or int(last or first) >= SEEDS_END:
        raise _refused(f"must be below 2**32, got {part[:80]}", Reason.SEED_OUT_OF_RANGE)
    seeds = range(int(first), int(last or first) + 1)
    if not seeds:
        raise _refused(f"must name ranges from low to high, got {part}", Reason.SEED_OUT_OF_RANGE)
    return seeds


def _refused(rule: str, reason: Reason) -> InvalidSpec:
    return InvalidSpec([Violation("spec.seeds.values", reason, f"seeds {rule}")])
