"""Let chaos loose many times: ``python -m tests.chaos [--seeds 20] [--store sqlite]``.

Ends with 1 if anything was lost or counted twice.
"""

from __future__ import annotations

import argparse
import sys

from tests.chaos.run import CROWDS, run, table


def main() -> int:
    """Run, and show a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="how many runs (default: 20)")
    parser.add_argument("--first", type=int, default=1, help="the first seed (default: 1)")
    parser.add_argument("--store", choices=sorted(CROWDS), default="sqlite")
    parser.add_argument("--seconds", type=float, default=8.0, help="of load in each run (default: 8)")
    parser.add_argument(
        "--patience", type=float, default=3.0, help="seconds of the longest stall (default: 3)"
    )
    given = parser.parse_args()
    figures = []
    for seed in range(given.first, given.first + given.seeds):
        figures.append(run(seed, given.store, seconds=given.seconds, patience=given.patience))
        print(figures[-1], file=sys.stderr, flush=True)
    print(table(figures))
    return 0 if all(each.right for each in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
