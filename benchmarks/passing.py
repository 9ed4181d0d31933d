"""Row 7: how long pages take while visitors come at a steady rate, against the same site untracked.

Each site gets half of what it can serve, and all of it, in an open loop: visitors come whether or not the
site keeps up. The bare site gets the same rates.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, Final

from benchmarks.children import child, cores, installed
from benchmarks.figures import Line, compare
from benchmarks.sites import SITES

_PARTS: Final = {"half": 0.5, "all": 1.0}


def passing(*, quick: bool) -> list[Line]:
    """Row 7: p50 and p99 of the site's own responses at half of its capacity and at all of it."""
    names = ["bare", "httpx", "by hand"] if quick else installed(SITES)
    rounds, seconds, connections = (1, 0.2, 8) if quick else (3, 2.0, 64)
    ours, world = cores() or (None, None)
    figures: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    with ExitStack() as running:
        server = running.enter_context(child("world", "server", core=world))
        tracking_port = server.ask()["port"]
        visitors = running.enter_context(child("world", "visitors", core=world))
        visitors.ask()
        ports = {}
        for name in names:
            site = running.enter_context(child("sites", name, tracking_port, core=ours))
            ports[name] = site.ask()["port"]

        def ask(name: str, **how: Any) -> dict[str, float]:
            seen: dict[str, float] = visitors.ask(
                {"port": ports[name], "seconds": seconds, "connections": connections, **how}
            )
            return seen

        for name in names:
            ask(name, seconds=seconds / 8)
        for _ in range(rounds):
            for name in names[1:]:
                seen = ask(name)
                capacity = seen["pages"] / (seen["end"] - seen["start"])
                for part, share in _PARTS.items():
                    tracked = ask(name, rate=capacity * share)
                    bare = ask("bare", rate=capacity * share)
                    for point in ("p50", "p99"):
                        pair = tracked[point] * 1000, bare[point] * 1000
                        figures.setdefault((name, part, point), []).append(pair)
    return [
        compare(
            "7",
            f"{_whose(name)}: {point} at {part} of its capacity, vs bare",
            "ms",
            [mine for mine, _ in pairs],
            [theirs for _, theirs in pairs],
        )
        for (name, part, point), pairs in figures.items()
    ]


def _whose(name: str) -> str:
    return name if name.startswith("by hand") else f"sender {name}"
