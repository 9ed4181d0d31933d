"""Let a site run at a third of its capacity against a server with faults, and see whether anything grows.

    python -m benchmarks.soak --minutes 30 [--json FILE]

Of the site's process it samples memory, threads, open files and waiting hits, and compares the last quarter
of the time with the one before. Ends with 1 if anything grew.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import linear_regression, median
from typing import TYPE_CHECKING, Any, Final

from benchmarks.children import Child, child, cores
from benchmarks.figures import load, machine
from benchmarks.soaked import SHARE

if TYPE_CHECKING:
    from collections.abc import Sequence

_EVERY: Final = 5.0  # seconds between two samples
_LINES: Final = 16  # of the table
_DRAIN: Final = 60.0  # seconds that the rest may take to leave
# How much the median of the last quarter may exceed that of the one before: a share of it, and units.
_SLACK: Final = {
    "rss": (0.03, 1.0),
    "threads": (0.0, 0.0),
    "files": (0.1, 2.0),
    "waiting": (0.5, 100.0),
    "outbox": (0.1, 1.0),
}


@dataclass(frozen=True, slots=True)
class Sample:
    """What the site's process was like at one moment.

    Attributes:
        minute: Since the load began.
        rss: Resident memory in MiB.
        threads: Of the process.
        files: Open file handles.
        waiting: Hits in the outbox.
        outbox: Size of the outbox's files in MiB.
        pages: Pages a second since the last sample.
        p99: Milliseconds that one page in a hundred took longer than.
    """

    minute: float
    rss: float
    threads: int
    files: int
    waiting: int
    outbox: float
    pages: float
    p99: float


@dataclass(frozen=True, slots=True)
class Growth:
    """What became of one figure over the second half of the time."""

    what: str
    before: float  # median of the third quarter
    after: float  # median of the last quarter
    per_hour: float  # slope of the line through the second half
    flat: bool


def soak(minutes: float) -> tuple[list[Sample], dict[str, Any]]:
    """Run, and return the samples and the account at the end."""
    every = min(_EVERY, minutes * 60 / 8)
    ours, world = cores() or (None, None)
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
        server = running.enter_context(child("soaked", "server", core=world))
        visitors = running.enter_context(child("soaked", "visitors", core=world))
        visitors.ask()
        place = folder / "outbox.db"
        site = running.enter_context(child("soaked", "site", server.ask()["port"], place, core=ours))
        begun = site.ask()
        rate = _capacity(site, visitors, begun["port"], every) * SHARE
        print(f"{rate:.0f} pages a second, a third of capacity, for {minutes:g} minutes", file=sys.stderr)
        server.ask({"faults": True})
        samples: list[Sample] = []
        start = time.monotonic()
        while (passed := time.monotonic() - start) < minutes * 60:
            how = {"port": begun["port"], "seconds": min(every, minutes * 60 - passed), "rate": rate}
            seen = visitors.ask(how)
            stats = site.ask({})
            samples.append(_sample(begun["pid"], place, (time.monotonic() - start) / 60, seen, stats))
        server.ask({"faults": False})
        return samples, {**_settled(site), "rate": rate, "server": server.ask({})}


def _capacity(site: Child, visitors: Child, port: int, seconds: float) -> float:
    """Return how many pages a second the site can serve and have delivered, at the best of three times."""
    rates = []
    for _ in range(3):
        start = time.monotonic()
        pages = visitors.ask({"port": port, "seconds": seconds, "rate": 0})["pages"]
        _settled(site)
        rates.append(pages / (time.monotonic() - start))
    return float(max(rates))


def _settled(site: Child) -> dict[str, Any]:
    """Wait until nothing waits, and return the account."""
    deadline = time.monotonic() + _DRAIN
    while True:
        stats: dict[str, Any] = site.ask({})
        if not stats["waiting"] + stats["in_flight"] or time.monotonic() > deadline:
            return stats
        time.sleep(0.05)


def _sample(pid: int, place: Path, minute: float, seen: dict[str, Any], stats: dict[str, Any]) -> Sample:
    process = Path(f"/proc/{pid}")
    lines = (process / "status").read_text(encoding="utf-8").splitlines()
    status = dict(line.split(":", 1) for line in lines if ":" in line)
    return Sample(
        round(minute, 2),
        int(status["VmRSS"].split()[0]) / 1024,
        int(status["Threads"]),
        len(os.listdir(process / "fd")),  # noqa: PTH208 - of a folder of the kernel's
        stats["waiting"],
        sum(each.stat().st_size for each in place.parent.iterdir()) / 1024 / 1024,
        seen["pages"] / seen["seconds"],
        seen["p99"] * 1000,
    )


def growths(samples: Sequence[Sample]) -> list[Growth]:
    """Say of each figure whether it is flat over the second half."""
    half, last = samples[len(samples) // 2 : len(samples) * 3 // 4], samples[len(samples) * 3 // 4 :]
    found = []
    for name, (share, units) in _SLACK.items():
        before = median(getattr(sample, name) for sample in half)
        after = median(getattr(sample, name) for sample in last)
        both = [*half, *last]
        slope = linear_regression(
            [sample.minute / 60 for sample in both], [getattr(sample, name) for sample in both]
        ).slope
        found.append(Growth(name, before, after, slope, after <= before * (1 + share) + units))
    return found


def table(samples: Sequence[Sample]) -> str:
    """Return some of the samples as a table, the first and the last among them."""
    step = max(1, (len(samples) - 1) // (_LINES - 1))
    shown = [*samples[:-1:step], samples[-1]]
    names = [field.name for field in fields(Sample)]
    rows = [names, *[[f"{getattr(each, name):.4g}" for name in names] for each in shown]]
    return "\n".join("".join(cell.rjust(10) for cell in row) for row in rows)


def main() -> int:
    """Soak, and say what grew."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (default: 30)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to FILE as well")
    given = parser.parse_args()
    if not Path("/proc/self/status").exists():
        parser.error("needs Linux, which tells of a process what is sampled here")
    samples, account = soak(given.minutes)
    found = growths(samples)
    print(table(samples), end="\n\n")
    for each in found:
        verdict = "flat" if each.flat else "GROWS"
        change = f"{each.before:.4g} -> {each.after:.4g}"
        print(f"{each.what:>8}  {change:<20} {each.per_hour:+10.3g} an hour  {verdict}")
    print(f"\n{json.dumps(account)}\n{machine()}, {load()}")
    if given.json:
        facts = {"samples": [asdict(each) for each in samples], "account": account}
        facts["growths"] = [asdict(each) for each in found]
        given.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return 0 if all(each.flat for each in found) else 1


if __name__ == "__main__":
    sys.exit(main())
