"""Attack the gateway for a while in each of twelve ways, and print what that costs.

Usage:

    python -m tests.attacks --seconds 60                    from one and from eight connections each
    python -m tests.attacks --seconds 5 --only settings     those whose name has that in it
"""

from __future__ import annotations

import argparse

from .attacks import ATTACKS
from .measure import HEAD, measure, row


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.attacks", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--only", default="")
    parser.add_argument("--port", choices=["main", "health"], default="main")
    options = parser.parse_args()
    print(HEAD, flush=True)
    for attack in ATTACKS:
        for connections in options.connections if options.only in attack.__name__ else ():
            print(row(measure(attack, connections, options.seconds, options.port)), flush=True)


if __name__ == "__main__":
    main()
