"""The whole job from visitor to report: ``make demo``, or ``python -m examples.demo --help``.

Starts the collector and the shop on this machine, sends simulated visitors through the shop, compares what
the shop did with what arrived, and stays up for a person to click.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from decimal import Decimal
from functools import partial
from time import sleep
from typing import TYPE_CHECKING, Any

import httpx
import uvicorn
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from convert_middleware import Settings, Tracker
from convert_middleware.collector import create_collector
from convert_middleware.collector.serve import running
from examples.shop import ids
from examples.shop.app import create_app
from examples.visitors import Book, ShopError, send_visitors

if TYPE_CHECKING:
    from fastapi import FastAPI

SETTLE = 15.0  # seconds that delivery gets after the last visitor has left
Serve = Callable[[int], AbstractContextManager[str]]  # port -> address
Row = tuple[str, str, int | Decimal, int | Decimal]


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; return the exit status: 0 only if both sides agree."""
    options = parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that it ends as in order as with Ctrl-C
    os.environ["no_proxy"] = "127.0.0.1"  # everything stays on this machine
    try:
        return run(options, Console())
    except BusyPortError as error:
        return complain(str(error), 2)
    except (ShopError, httpx.HTTPError) as error:
        return complain(f"the visit was cut short: {str(error) or type(error).__name__}", 1)
    except KeyboardInterrupt:
        return complain("interrupted", 130)


def run(options: argparse.Namespace, console: Console) -> int:
    """Start both sides, send the visitors, compare; return the exit status."""
    with ExitStack() as stack:
        collector = create_collector(names=ids.NAMES)
        collector_address = start(
            stack, partial(running, collector, "127.0.0.1"), options.collector_port, 8070
        )
        settings = Settings(
            project_id=ids.PROJECT,
            customer_id=ids.CUSTOMER,
            secret_key=secrets.token_bytes(32),
            endpoint=f"{collector_address}/track/",
        )
        tracker = Tracker(settings)
        stack.callback(tracker.close)
        shop = create_app(tracker, collector_address)
        shop_address = start(stack, partial(serve_shop, shop), options.shop_port, 8071)

        console.print(f"Sending {options.visitors} visitors through the shop at {shop_address}")
        book = simulate(console, shop_address, options.visitors, options.seed)
        tracker.flush(SETTLE)
        agreed = summarise(console, book, collector.state.collector.summary(), tracker)
        if not options.once:
            console.print(f"\nThe shop:           {shop_address}/", highlight=False)
            console.print(f"What Convert saw:   {collector_address}/\n", highlight=False)
            console.print("Click around in the shop and watch the collector. Ctrl-C ends both.")
            wait_for_interrupt()
    return 0 if agreed else 1


class BusyPortError(Exception):
    """A port that was asked for belongs to somebody else."""


def complain(reason: str, status: int) -> int:
    """Say on stderr what went wrong; return the exit status."""
    print(f"python -m examples.demo: {reason}", file=sys.stderr)
    return status


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="python -m examples.demo",
        description="Sends simulated visitors through a shop, and compares what it did with what arrived.",
    )
    made.add_argument("--once", action="store_true", help="end after the summary")
    made.add_argument(
        "--visitors",
        type=number_of_visitors,
        default=200,
        metavar="N",
        help="how many, 1 to 10000 (default: %(default)s)",
    )
    made.add_argument(
        "--seed", type=int, default=1, help="makes what they do repeatable (default: %(default)s)"
    )
    made.add_argument("--collector-port", type=port, metavar="PORT", help="default: 8070 if it is free")
    made.add_argument("--shop-port", type=port, metavar="PORT", help="default: 8071 if it is free")
    return made


def number_of_visitors(text: str) -> int:
    """Read the number of visitors."""
    if not text.isdigit() or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 10000")
    return int(text)


def port(text: str) -> int:
    """Read a port."""
    if not text.isdigit() or not 0 <= int(text) <= 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return int(text)


def start(stack: ExitStack, serve: Serve, wanted: int | None, preferred: int) -> str:
    """Serve something until the stack closes; return its address."""
    if wanted is not None:
        try:
            return stack.enter_context(serve(wanted))
        except OSError as error:
            why = str(error.strerror or error).partition(" (")[0]  # Python adds the address to it
            raise BusyPortError(f"cannot listen on port {wanted}: {why}") from error
    try:
        return stack.enter_context(serve(preferred))
    except OSError:  # somebody else has that port
        return stack.enter_context(serve(0))


@contextmanager
def serve_shop(shop: FastAPI, wanted: int) -> Iterator[str]:
    """Serve the shop in a thread; the value is its address."""
    listener = socket.create_server(("127.0.0.1", wanted))
    server = uvicorn.Server(uvicorn.Config(shop, log_level="warning", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="shop", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def simulate(console: Console, shop: str, visitors: int, seed: int) -> Book:
    """Send visitors with a progress bar."""
    columns = (TextColumn("Visitors"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("visitors", total=visitors)
        return asyncio.run(send_visitors(shop, visitors, seed, lambda: progress.advance(task)))


def compare(book: Book, summary: dict[str, Any]) -> Iterator[Row]:
    """Yield what is compared: group, name, what the shop did, what arrived."""
    names, experiments = ids.NAMES, summary["experiments"]
    for experiment, variation in sorted(book.visitors):
        arrived = experiments.get(str(experiment), {}).get("variations", {}).get(str(variation), {})
        label = f"{names['experiments'][str(experiment)]}: {names['variations'][str(variation)]}"
        yield "visitors", label, book.visitors[experiment, variation], arrived.get("visitors", 0)
        for goal, name in names["goals"].items():
            credited = book.credited[experiment, variation, int(goal)]
            got = arrived.get("goals", {}).get(goal, {}).get("conversions", 0)
            yield "conversions", f"  {name}", credited, got
        earned = book.earned[experiment, variation]
        yield "conversions", "  Revenue", earned, Decimal(arrived.get("revenue", "0.00"))
    for goal, name in names["goals"].items():
        got = summary["goals"].get(goal, {}).get("conversions", 0)
        yield "goals", f"{name}, total", book.conversions[int(goal)], got
    totals = summary["totals"]
    yield "orders", "First exposures", book.visitors.total(), totals["visitors"]
    yield "orders", "Conversions", book.conversions.total(), totals["conversions"]
    yield "orders", "Orders", len(book.orders), totals["orders"]
    yield "orders", "Revenue", book.revenue, Decimal(totals["revenue"])
    yield "orders", "Products", book.products, totals["products"]
    wrong = totals["duplicate_transactions"] + totals["malformed"] + totals["bots"]
    yield "orders", "Repeated, malformed or refused", 0, wrong


def summarise(console: Console, book: Book, summary: dict[str, Any], tracker: Tracker) -> bool:
    """Print the outcome and the table; return whether both sides agree and nothing is missing."""
    rows = list(compare(book, summary))
    stats = tracker.stats()
    complete = stats.accepted == stats.delivered == summary["totals"]["requests"]
    agreed = complete and all(did == arrived for _, _, did, arrived in rows)
    console.print("[bold green]Both sides agree." if agreed else "[bold red]The two sides do not agree.")
    table = Table(title="What the shop did and what arrived")
    for heading in ("", "Shop", "Arrived", "Agree"):
        table.add_column(heading, justify="right" if heading else "left")
    group = ""
    for kind, name, did, arrived in rows:
        if kind in ("conversions", "goals") and not did and not arrived:
            continue  # such as sign-ups after a button that is not on that page
        if kind == "visitors" or kind not in ("conversions", group):
            table.add_section()
        group = kind
        table.add_row(name, f"{did:,}", f"{arrived:,}", "yes" if did == arrived else "[bold red]NO")
    console.print(table)
    console.print(
        f"Hits: {stats.accepted} accepted, {stats.delivered} delivered, {stats.waiting} waiting, "
        f"{sum(stats.dropped.values())} dropped, {stats.dead} dead; {summary['totals']['requests']} arrived.",
        highlight=False,
    )
    return agreed


def wait_for_interrupt() -> None:
    """Return when somebody presses Ctrl-C or the process is told to end."""
    try:
        while True:
            sleep(3600)
    except KeyboardInterrupt:
        return


if __name__ == "__main__":
    sys.exit(main())
