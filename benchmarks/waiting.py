"""Row 5: memory of hits that wait."""

from __future__ import annotations

from typing import Final

from benchmarks.children import child
from benchmarks.figures import Line, compare

_ALLOWED: Final = 60e6 / 100_000  # bytes a hit


def waiting(*, quick: bool) -> list[Line]:
    """Row 5: bytes a waiting hit, in processes of their own."""
    number = 10_000 if quick else 100_000
    lines = [
        _line(number, f"{number} waiting hits, {words}", "hits", how, 1.0)
        for how, words in (
            ("traced", "as allocated (tracemalloc)"),
            ("resident", "as the process grew (RSS)"),
        )
    ]
    if not quick:
        what = f"{number} new visitors' hits and all that is remembered of them (RSS)"
        lines.append(_line(number, what, "visitors", "resident", None))
    return lines


def _line(number: int, text: str, what: str, how: str, bar: float | None) -> Line:
    with child("hoard", what, how, number) as measured:
        return compare("5", text, "B/hit", [measured.ask()["bytes"]], [_ALLOWED], bar=bar)
