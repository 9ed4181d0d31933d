from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from convert_middleware import wire
from convert_middleware.collector import Collector, create_collector
from convert_middleware.collector.serve import running
from examples import bare_asgi
from examples.demo import compare
from examples.shop import ids
from examples.visitors import USER_AGENT, Book

DEADLINE = 20.0  # seconds
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def collector() -> Iterator[tuple[str, Collector]]:
    app = create_collector()
    with running(app) as address:
        yield address, app.state.collector
    app.state.collector.close()


def clean() -> dict[str, str]:
    """Return the environment without options and proxies."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("CONVERT_") and not name.lower().endswith("_proxy")
    }


def browser(site: str) -> httpx.Client:
    return httpx.Client(base_url=site, headers={"User-Agent": USER_AGENT}, trust_env=False, timeout=DEADLINE)


@contextmanager
def served(collector: str, *app: str) -> Iterator[str]:
    """Run an example under a uvicorn process of its own, as its first line says."""
    environment = {**clean(), "CONVERT_ENDPOINT": f"{collector}/track/"}
    command = [sys.executable, "-m", "uvicorn", *app, "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said: list[str] = []
        try:
            for line in process.stderr:
                said.append(line)
                if found := re.search(r"http://[\d.:]+", line):
                    yield found[0]
                    break
            else:
                pytest.fail(f"the example has ended: {''.join(said)}")
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=DEADLINE)
        finally:
            process.kill()  # which does nothing to one that has ended


def arrived(collector: Collector, number: int) -> list[str]:
    """Return the queries of the hits that arrived, once there are as many as expected."""
    deadline = time.monotonic() + DEADLINE
    while len(collector.hits()) < number and time.monotonic() < deadline:
        time.sleep(0.02)  # between two looks at a real process's doings
    return [record.query for record in collector.hits()]


def test_the_five_lines_send_one_hit_with_everything_and_a_second_visit_counts_nothing(
    collector: tuple[str, Collector],
) -> None:
    address, seen = collector
    with served(address, "examples.five_lines:app") as site, browser(site) as visitor:
        assert visitor.get("/").text == "You see variation 12.\n"
        assert arrived(seen, 1) == ["c=2&p=1&e=11-12-331&ea=1&g=331&ga=1&t=35%7Cab12345%7C1599.99%7C10"]
        again = visitor.get("/")
        assert "set-cookie" not in again.headers
    # The site has ended and drained, so nothing more can come.
    assert len(seen.hits()) == 1
    assert not seen.malformed()


def test_a_bare_asgi_application_tracks_without_a_framework(collector: tuple[str, Collector]) -> None:
    address, seen = collector
    with served(address, "examples.bare_asgi:app") as site, browser(site) as visitor:
        assert visitor.get("/").text == "Hello, variation 12."
        assert visitor.get("/hello").text == "Hello, variation 12."
        assert visitor.get("/").text == "Welcome back."
    hits = [wire.decode(query) for query in arrived(seen, 2)]
    assert sorted((hit.new_exposures, hit.goals, hit.new_goals) for hit in hits) == [
        (0, (331,), 1),
        (1, (), 0),
    ]


@pytest.mark.parametrize(("kind", "answered"), [("websocket", ["websocket.close"]), ("carrier pigeon", [])])
def test_a_bare_asgi_application_never_answers_in_a_protocol_it_was_not_asked_in(
    kind: str, answered: list[str]
) -> None:
    sent: list[str] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    with nullcontext() if answered else pytest.raises(NotImplementedError, match="does not speak"):
        asyncio.run(bare_asgi.app({"type": kind, "path": "/", "headers": [], "scheme": "ws"}, receive, send))
    assert sent == answered
    assert bare_asgi.app.tracker.stats().accepted == 0


def test_the_shop_runs_by_itself_with_the_options_of_the_environment(
    collector: tuple[str, Collector],
) -> None:
    address, seen = collector
    with served(address, "--factory", "examples.shop.app:from_env") as site, browser(site) as visitor:
        assert "none yet" in visitor.get("/").text
    (record,) = arrived(seen, 1)
    hit = wire.decode(record)
    assert (hit.project_id, hit.customer_id) == (ids.PROJECT, ids.CUSTOMER)
    assert hit.exposures[0].experiment_id == ids.HEADLINE


FREE = ("--collector-port", "0", "--shop-port", "0")


def demo(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "examples.demo", *options]
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**clean(), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@contextmanager
def running_demo(*options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "examples.demo", *FREE, *options]
    with subprocess.Popen(
        command, cwd=ROOT, env=clean(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()  # which does nothing to one that has ended


def test_the_demo_ends_well_when_what_the_shop_did_is_what_arrived() -> None:
    done = demo("--once", "--visitors", "30", *FREE)
    assert done.returncode == 0, done.stdout + done.stderr
    said, _, table = done.stdout.partition("Both sides agree.")
    assert "30/30" in said
    assert "What the shop did and what arrived" in table
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in table.splitlines() if "│" in line]
    counted = [row for row in rows if row[0] != "Repeated, malformed or refused"]
    assert "0" not in [row[1] for row in counted], "nobody needs a row of two zeros"
    assert all(row[3] == "yes" for row in rows)
    assert re.fullmatch(r"\d,\d{3}\.\d\d", next(row[1] for row in reversed(rows) if row[0] == "Revenue"))
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--visitors", "0"), "1 to 10000"),
        (("--visitors", "many"), "1 to 10000"),
        (("--shop-port", "99999"), "65535"),
        (("--speed", "9"), "--speed"),
    ],
)
def test_the_demo_names_a_wrong_option(options: tuple[str, str], word: str) -> None:
    done = demo(*options)
    assert done.returncode == 2
    assert word in done.stderr


def test_the_demo_stays_up_until_it_is_told_to_end() -> None:
    with running_demo("--visitors", "5") as process:
        assert process.stdout is not None
        addresses: list[str] = []
        for line in process.stdout:
            addresses += re.findall(r"(http://[\d.:]+)/$", line.strip())
            if "Ctrl-C" in line:
                break
        shop, collector = addresses
        with browser(shop) as visitor:
            assert "What Convert was told" in visitor.get("/").text
            summary: dict[str, Any] = visitor.get(f"{collector}/api/summary").json()
        assert summary["totals"]["requests"] > 0
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=DEADLINE) == 0
    with pytest.raises(httpx.ConnectError), browser(shop) as visitor:
        visitor.get("/")


@pytest.mark.parametrize("order", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_ends_in_order_when_it_is_interrupted_before_the_summary(order: signal.Signals) -> None:
    with running_demo("--visitors", "10000") as process:
        assert process.stdout is not None
        assert "Sending 10000 visitors" in process.stdout.readline()
        process.send_signal(order)
        _, errors = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    assert errors == "python -m examples.demo: interrupted\n"


def test_the_demo_names_a_port_that_somebody_else_has() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        for option in ("--collector-port", "--shop-port"):
            done = demo(*FREE, "--once", option, port)
            assert done.returncode == 2
            said = f"cannot listen on port {port}: Address already in use"
            assert done.stderr == f"python -m examples.demo: {said}\n"


def test_neither_proxies_nor_options_of_the_environment_change_the_demo() -> None:
    nowhere = "http://127.0.0.1:9"
    done = demo(
        *FREE, "--once", "--visitors", "3",
        HTTP_PROXY=nowhere, http_proxy=nowhere, ALL_PROXY=nowhere,
        CONVERT_ID_NUMBER="2_1", CONVERT_SECRET_KEY="short", CONVERT_ENDPOINT=nowhere,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_demo_tells_when_the_two_sides_differ() -> None:
    book = Book()
    book.orders["o1"] = Decimal("9.99"), 1
    app = create_collector()
    rows = list(compare(book, app.state.collector.summary()))
    app.state.collector.close()
    assert ("orders", "Orders", 1, 0) in rows
    assert ("orders", "Revenue", Decimal("9.99"), Decimal("0.00")) in rows
