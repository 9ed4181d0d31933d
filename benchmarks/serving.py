"""Row 3: a site on one core with every response tracked and delivered, against the same site untracked."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

from benchmarks.children import Child, child, cores, installed
from benchmarks.figures import Line, compare
from benchmarks.sites import SITES

if TYPE_CHECKING:
    from collections.abc import Mapping

_DRAIN: Final = 60.0  # seconds that deliveries may lag behind


def serving(*, quick: bool) -> list[Line]:
    """Row 3: pages and tracking requests a second; the deliveries that lag behind count as time."""
    names = ["bare", "httpx", "by hand"] if quick else installed(SITES)
    rounds, seconds, connections = (1, 0.2, 8) if quick else (4, 1.0, 32)
    ours, world = cores() or (None, None)
    rates: dict[str, list[float]] = {name: [] for name in names}
    served: dict[str, list[float]] = {name: [] for name in names}
    slowest: dict[str, list[float]] = {name: [] for name in names}
    with ExitStack() as running:
        server = running.enter_context(child("world", "server", core=world))
        tracking_port = server.ask()["port"]
        visitors = running.enter_context(child("world", "visitors", core=world))
        visitors.ask()
        sites = {
            name: running.enter_context(child("sites", name, tracking_port, core=ours)) for name in names
        }
        how = {name: {"port": site.ask()["port"], "connections": connections} for name, site in sites.items()}
        for name in names:
            _visit(server, visitors, name, {**how[name], "seconds": seconds / 4})
        for number in range(rounds):
            first = number % len(names)
            for name in (*names[first:], *names[:first]):
                seen = _visit(server, visitors, name, {**how[name], "seconds": seconds})
                rates[name].append(seen["pages"] / (seen["delivered"] - seen["start"]))
                served[name].append(seen["pages"] / (seen["end"] - seen["start"]))
                slowest[name].append(seen["p99"] * 1000)
    lines = []
    for name in names:
        if name == "bare":
            continue
        whose = name if name.startswith("by hand") else f"sender {name}"
        least, most = (0.4, 2.0) if name == "httptools" else (None, None)
        told, meanwhile = (
            f"{whose}: tracked and delivered, vs bare",
            f"{whose}: pages served meanwhile, vs bare",
        )
        lines += [
            compare("3", told, "/s", rates[name], rates["bare"], bar=least, at_least=True),
            compare("3", meanwhile, "/s", served[name], served["bare"]),
            compare("3", f"{whose}: p99, vs bare", "ms", slowest[name], slowest["bare"], bar=most),
        ]
    return lines


def _visit(server: Child, visitors: Child, name: str, how: Mapping[str, Any]) -> dict[str, float]:
    """Have visitors ask for pages, wait for the deliveries, and add when the last one came."""
    before = server.ask({})["requests"]
    seen: dict[str, float] = visitors.ask(how)
    if name == "bare":
        return {**seen, "delivered": seen["end"]}
    deadline = time.monotonic() + _DRAIN
    while (came := server.ask({}))["requests"] - before < seen["pages"]:
        if time.monotonic() > deadline:
            raise RuntimeError(
                f"{name}: of {seen['pages']} tracking requests {came['requests'] - before} arrived"
            )
        time.sleep(0.02)
    if came["requests"] - before > seen["pages"]:
        raise RuntimeError(f"{name}: more tracking requests than pages")
    return {**seen, "delivered": max(came["last"], seen["end"])}
