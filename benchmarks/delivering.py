"""Row 4: CPU time of a delivered tracking request, against the client library and against a socket."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Final

from benchmarks.children import child, cores, installed
from benchmarks.figures import Line, compare
from benchmarks.senders import SENDERS

_LINES: Final = (
    ("our httptools", "a raw socket", 4.0),
    ("our httpx", "httpx.AsyncClient", 0.4),
    ("our httpx2", "httpx.AsyncClient", 0.4),
    ("our httpx2", "httpx2.AsyncClient", None),
    ("our pyreqwest", "a raw socket", None),
    ("our httpx", "a raw socket", None),
    ("our httpx2", "a raw socket", None),
)


def delivering(*, quick: bool) -> list[Line]:
    """Row 4: user and system CPU time of the whole sending process for each request, 16 connections."""
    rounds, requests = (1, 64) if quick else (20, 200)
    ours, world = cores() or (None, None)
    names = installed(SENDERS)
    times: dict[str, list[float]] = {name: [] for name in names}
    with ExitStack() as running:
        port = running.enter_context(child("world", "server", core=world)).ask()["port"]
        senders = {name: running.enter_context(child("senders", name, port, core=ours)) for name in names}
        for sender in senders.values():
            sender.ask()
            sender.ask({"requests": 100})  # connections open, everything imported
        for number in range(rounds):
            first = number % len(names)
            for name in (*names[first:], *names[:first]):
                cpu: float = senders[name].ask({"requests": requests})["cpu"]
                times[name].append(cpu / requests * 1e6)
    return [
        compare("4", f"delivered GET, {mine} vs {theirs}", "µs", times[mine], times[theirs], bar=bar)
        for mine, theirs, bar in _LINES
        if mine in times and theirs in times
    ]
