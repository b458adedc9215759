"""What a run of the soak has shown, as rows: promise, measured, and what was broken."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_SHOWN = 20
# asyncio's own pool, as Python sizes it; and the gateway's one thread for large requests.
POOLS = Counter({"thread: asyncio": min(32, (os.cpu_count() or 1) + 4), "thread: check": 1})


@dataclass
class Row:
    """One promise and what became of it."""

    name: str  # of the row in docs/RELIABILITY.md
    promise: str
    measured: str
    broken: list[str] = field(default_factory=list)
    skipped: str = ""  # why it could not be tried

    @property
    def verdict(self) -> str:
        return f"SKIPPED: {self.skipped}" if self.skipped else "BROKEN" if self.broken else "held"


def table(rows: Sequence[Row]) -> str:
    """All of them as Markdown."""
    lines = ["| row | promise | measured | verdict |", "|---|---|---|---|"]
    lines += [f"| {row.name} | {row.promise} | {row.measured} | {row.verdict} |" for row in rows]
    return "\n".join(lines)


def troubles(rows: Sequence[Row]) -> str:
    """Every violation, in words; the first of many of a kind."""
    lines = []
    for row in rows:
        lines += [f"{row.name}: {each}" for each in row.broken[:MOST_SHOWN]]
        if len(row.broken) > MOST_SHOWN:
            lines.append(f"{row.name}: and {len(row.broken) - MOST_SHOWN} more")
    return "\n".join(lines)


def exit_code(rows: Sequence[Row]) -> int:
    """0 if something was tried and everything held."""
    tried = [row for row in rows if not row.skipped]
    return 0 if tried and not any(row.broken for row in tried) else 1


def held(name: str, before: Counter[str], after: Counter[str]) -> Row:
    """Whether anything is held that was not held before the run; pools may fill up to their bounds."""
    broken = [f"{count} more of {thing}" for thing, count in sorted((after - (before | POOLS)).items())]
    kinds = Counter[str]()
    for thing, count in after.items():
        kinds[thing.partition(":")[0]] += count
    measured = f"held after the run: {', '.join(f'{kind} {count}' for kind, count in sorted(kinds.items()))}"
    return Row(name, "no task, descriptor, thread, process or file more than before", measured, broken)
