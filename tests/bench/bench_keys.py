"""X7: whether the time that a key check takes tells anything: `python -m tests.bench.bench_keys`.

Medians of many checks, kinds in turn so that whatever else the machine does falls on all of them.
"""

from __future__ import annotations

import statistics
import time
from contextlib import suppress
from dataclasses import replace

from rosacea_serving.access.api_keys.keys import Keys, make_key
from rosacea_serving.access.identity import Refused

ROUNDS = 20_000
NOW = 1_800_000_000.0


def main() -> None:
    key, record = make_key("alice", NOW - 10, NOW + 10)
    late, late_record = make_key("bob", NOW - 10, NOW + 10)
    keys = Keys([record, replace(late_record, expires=NOW - 1)])
    flipped = "A" if key[13] != "A" else "B"
    kinds = {
        "valid": key,
        "expired": late,
        "first character wrong": key[:13] + flipped + key[14:],
        "last characters wrong": key[:-2] + ("AA" if key[-2:] != "AA" else "BB"),
        "unknown id": f"rsk_aaaaaaaa{key[12:]}",
    }
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(ROUNDS):
        for kind, presented in kinds.items():
            seconds[kind].append(timed(keys, presented))
    base = statistics.median(seconds["last characters wrong"])
    for kind, each in seconds.items():
        median = statistics.median(each)
        print(f"{kind:24} {median * 1e6:7.2f} us  {(median - base) * 1e6:+6.2f} us")


def timed(keys: Keys, presented: str) -> float:
    """Seconds that one check takes, refused or not."""
    began = time.perf_counter()
    with suppress(Refused):
        keys.check(presented, NOW)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
