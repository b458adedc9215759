"""The slow rows of docs/RELIABILITY.md against the real service: `make soak`, or some of them alone.

    python -m tests.soak                        # everything, with 30 minutes of mixed load
    python -m tests.soak --minutes 3 mixed      # one step: mixed (S31), memory (S24), oom (S26), network (S29),
                                                #   forks (C5), streams (D7), maps (D1)

Prints how it stands every half minute and a Markdown table at the end; exit code 1 where a promise was broken. What is
not permitted here is skipped, with its reason in the table.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from .forks import forks
from .memory import memory
from .network import network
from .oom import oom
from .report import exit_code, table, troubles
from .soak import soak
from .streams import maps, streams

if TYPE_CHECKING:
    from collections.abc import Callable

    from .report import Row

STEPS: dict[str, Callable[[Path, float], list[Row]]] = {
    "mixed": soak,
    "memory": lambda folder, minutes: memory(folder),
    "oom": lambda folder, minutes: oom(folder),
    "network": lambda folder, minutes: network(folder),
    "forks": lambda folder, minutes: forks(folder),
    "streams": lambda folder, minutes: streams(folder),
    "maps": lambda folder, minutes: maps(folder),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="of mixed load")
    parser.add_argument("steps", nargs="*", choices=[[], *STEPS], help="which; all of them where none is named")
    options = parser.parse_args()
    rows: list[Row] = []
    for name in options.steps or STEPS:
        print(f"== {name}", flush=True)
        with tempfile.TemporaryDirectory(prefix="soak") as folder:
            rows += STEPS[name](Path(folder), options.minutes)
    print(table(rows))
    if found := troubles(rows):
        print(f"\n{found}")
    return exit_code(rows)


if __name__ == "__main__":
    sys.exit(main())
