"""Lines of the table: a measured ratio, its spread, its bar and what that means.

It knows how figures are shown and nothing of how they are come by.
"""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_HEADINGS: Final = ("row", "what", "ours", "yardstick", "ratio", "spread", "bar", "verdict")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the table.

    Attributes:
        row: Row of the table of bars, as a digit.
        what: What was measured, against what.
        ours: Our figure, in ``unit``; the median over the rounds.
        yardstick: The yardstick's figure, likewise.
        unit: Unit of both.
        ratio: Median of the ratios of the rounds.
        spread: The ratios that one round in ten was below, and one in ten above.
        bar: What the ratio is to stay under; None: there is no bar, the line is for information.
        at_least: Whether the bar is to be reached instead of stayed under.
    """

    row: str
    what: str
    ours: float
    yardstick: float
    unit: str
    ratio: float
    spread: tuple[float, float]
    bar: float | None = None
    at_least: bool = False

    @property
    def verdict(self) -> str:
        """Say whether the bar was met: "ok", "over", "under", or nothing without a bar."""
        if self.bar is None:
            return ""
        if self.at_least:
            return "ok" if self.ratio >= self.bar else "under"
        return "ok" if self.ratio <= self.bar else "over"

    def cells(self) -> tuple[str, ...]:
        """Return the cells of the line as text."""
        low, high = self.spread
        sign = "≥" if self.at_least else "≤"
        return (
            self.row,
            self.what,
            f"{_number(self.ours)} {self.unit}",
            f"{_number(self.yardstick)} {self.unit}",
            _number(self.ratio),
            f"{_number(low)}..{_number(high)}",
            "" if self.bar is None else f"{sign} {_number(self.bar)}",
            self.verdict,
        )

    def as_json(self) -> dict[str, Any]:
        """Return the line as JSON values."""
        return {
            "row": self.row,
            "what": self.what,
            "unit": self.unit,
            "ours": self.ours,
            "yardstick": self.yardstick,
            "ratio": self.ratio,
            "spread": list(self.spread),
            "bar": self.bar,
            "at_least": self.at_least,
            "verdict": self.verdict,
        }


def compare(
    row: str,
    what: str,
    unit: str,
    ours: Sequence[float],
    yardstick: Sequence[float],
    *,
    bar: float | None = None,
    at_least: bool = False,
) -> Line:
    """Return the line for figures of interleaved rounds, one ratio a round."""
    ratios = [mine / theirs for mine, theirs in zip(ours, yardstick, strict=True)]
    spread = (ratios[0], ratios[0])
    if len(ratios) > 1:
        tenths = quantiles(ratios, n=10, method="inclusive")
        spread = tenths[0], tenths[-1]
    return Line(
        row=row,
        what=what,
        unit=unit,
        ours=median(ours),
        yardstick=median(yardstick),
        ratio=median(ratios),
        spread=spread,
        bar=bar,
        at_least=at_least,
    )


def table(lines: Sequence[Line]) -> str:
    """Return the lines as a plain table."""
    rows = [_HEADINGS, *[line.cells() for line in lines]]
    widths = [max(len(row[number]) for row in rows) for number in range(len(_HEADINGS))]
    to_the_left = {0, 1, len(_HEADINGS) - 1}
    texts = [
        "  ".join(
            cell.ljust(width) if number in to_the_left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([texts[0], "-" * max(map(len, texts)), *texts[1:]])


def load() -> str:
    """Say how busy the machine is; above the number of cores the figures of rows 3 and 4 mean little."""
    return f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load unknown"


def machine() -> str:
    """Describe what the figures were measured on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{platform.python_implementation()} {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}, {cores} cores"
    )


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.4f}"
