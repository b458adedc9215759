"""Parses seeds such as `0-15,42`."""

from __future__ import annotations

from rosacea_client.errors import InvalidSpec
from rosacea_contract.fields import SEEDS_END
from rosacea_contract.reasons import Reason, Violation, show

MAX_SEEDS = 10_000_000


def parse_seeds(text: str) -> range | list[int]:
    """Parse seeds such as `0-15,42`, keeping their order. Raises InvalidSpec."""
    ranges = [_parse_range(part.strip(), text) for part in text.split(",")]
    if len(ranges) == 1:
        return ranges[0]
    if (count := sum(map(len, ranges))) > MAX_SEEDS:
        raise _refused(f"must name at most {MAX_SEEDS} of them, got {count}", Reason.BATCH_TOO_LARGE)
    return [seed for part in ranges for seed in part]


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
