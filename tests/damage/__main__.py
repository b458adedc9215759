"""Damage every file that is read back, many times: `python -m tests.damage --count 5000`.

Each damaged file must be read, or refused by an error that the command line tells in a sentence: no traceback, no
hang, no growth of memory. Exit code 1 unless all are.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import tempfile
from collections import Counter
from pathlib import Path

from .files import subjects
from .trial import attempt

MAX_GROWTH_MIB = 256


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()
    choose, verdicts, bad = random.Random(wanted.seed), Counter[str](), []
    with tempfile.TemporaryDirectory() as folder:
        found = subjects(Path(folder))
        for subject in found:
            subject.read()
        before = peak_mib()
        for number in range(wanted.count):
            trial = attempt(found[number % len(found)], choose)
            verdicts[trial.verdict] += 1
            if trial.is_bad:
                bad.append(trial)
                print(f"{trial.subject}, {trial.kind}: {trial.verdict}: {trial.told}", file=sys.stderr)
    growth = peak_mib() - before
    counts = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
    print(f"{wanted.count} damages of {len(found)} files: {counts}; peak memory grew by {growth} MiB")
    return int(bool(bad) or growth > MAX_GROWTH_MIB)


def peak_mib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    sys.exit(main())
