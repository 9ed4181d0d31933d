"""Measure, and show a table: ``python -m benchmarks [--quick] [--json FILE] [row …]``."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from benchmarks.delivering import delivering
from benchmarks.figures import load, machine, table
from benchmarks.handling import idle, returning
from benchmarks.outboxes import outboxes
from benchmarks.passing import passing
from benchmarks.recovering import recovering
from benchmarks.serving import serving
from benchmarks.waiting import waiting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.figures import Line


class Row(Protocol):
    """Measures one row of the table of bars."""

    def __call__(self, *, quick: bool) -> list[Line]: ...  # noqa: D102 - said above


ROWS: Final[Mapping[str, Row]] = {
    "1": idle,
    "2": returning,
    "3": serving,
    "4": delivering,
    "5": waiting,
    "6": outboxes,
    "7": passing,
    "8": recovering,
}


def main(arguments: list[str]) -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="only show that everything runs; the figures mean little"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE as well")
    parser.add_argument(
        "rows", nargs="*", metavar="row", help=f"rows to measure: {', '.join(ROWS)}; all by default"
    )
    options = parser.parse_args(arguments)
    unknown = [row for row in options.rows if row not in ROWS]
    if unknown:
        parser.error(f"there is no row {unknown[0]!r}; rows are {', '.join(ROWS)}")
    start, busy = time.monotonic(), load()
    lines: list[Line] = []
    for row in options.rows or ROWS:
        begun = time.monotonic()
        lines += ROWS[row](quick=options.quick)
        print(f"row {row}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    print(table(lines))
    remark = "; quick: the figures mean little" if options.quick else ""
    print(f"\n{machine()}, {busy} at the start; {time.monotonic() - start:.0f} s{remark}")
    if options.json:
        figures = {
            "machine": machine(),
            "load": busy,
            "quick": options.quick,
            "lines": [line.as_json() for line in lines],
        }
        options.json.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
