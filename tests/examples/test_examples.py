from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from convert_middleware import wire
from convert_middleware.collector import Collector, create_collector
from convert_middleware.collector.serve import running

DEADLINE = 20.0  # seconds


@pytest.fixture
def collector() -> Iterator[tuple[str, Collector]]:
    app = create_collector()
    with running(app) as address:
        yield address, app.state.collector
    app.state.collector.close()


@contextmanager
def served(app: str, collector: str) -> Iterator[str]:
    """Run an example under a uvicorn process of its own, as its first line says."""
    environment = {**os.environ, "CONVERT_ENDPOINT": f"{collector}/track/"}
    command = [sys.executable, "-m", "uvicorn", app, "--port", "0"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            yield next(found[0] for line in process.stderr if (found := re.search(r"http://[\d.:]+", line)))
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=DEADLINE)


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
    with served("examples.five_lines:app", address) as site, httpx.Client(base_url=site) as visitor:
        assert visitor.get("/").text == "You see variation 12.\n"
        assert arrived(seen, 1) == ["c=2&p=1&e=11-12-331&ea=1&g=331&ga=1&t=35%7Cab12345%7C1599.99%7C10"]
        again = visitor.get("/")
        assert "set-cookie" not in again.headers
    # The site has ended and drained, so nothing more can come.
    assert len(seen.hits()) == 1
    assert not seen.malformed()


def test_a_bare_asgi_application_tracks_without_a_framework(collector: tuple[str, Collector]) -> None:
    address, seen = collector
    with served("examples.bare_asgi:app", address) as site, httpx.Client(base_url=site) as visitor:
        assert visitor.get("/").text == "Hello, variation 12."
        assert visitor.get("/hello").text == "Hello, variation 12."
        assert visitor.get("/").text == "Welcome back."
    hits = [wire.decode(query) for query in arrived(seen, 2)]
    assert sorted((hit.new_exposures, hit.goals, hit.new_goals) for hit in hits) == [
        (0, (331,), 1),
        (1, (), 0),
    ]


def demo(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "examples.demo", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_the_demo_ends_well_when_what_the_shop_did_is_what_arrived() -> None:
    done = demo("--once", "--visitors", "30", "--collector-port", "0", "--shop-port", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Both sides agree." in done.stdout
    assert "30/30" in done.stdout
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
    command = [
        sys.executable,
        "-m",
        "examples.demo",
        "--visitors",
        "5",
        "--collector-port",
        "0",
        "--shop-port",
        "0",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        addresses: list[str] = []
        for line in process.stdout:
            addresses += re.findall(r"(http://[\d.:]+)/$", line.strip())
            if "Ctrl-C" in line:
                break
        shop, collector = addresses
        assert "What Convert was told" in httpx.get(shop).text
        summary: dict[str, Any] = httpx.get(f"{collector}/api/summary").json()
        assert summary["totals"]["requests"] > 0
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=DEADLINE) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(shop)


def test_the_demo_tells_when_the_two_sides_differ() -> None:
    from decimal import Decimal

    from examples.demo import compare
    from examples.visitors import Book

    book = Book()
    book.orders["o1"] = Decimal("9.99"), 1
    app = create_collector()
    rows = list(compare(book, app.state.collector.summary()))
    app.state.collector.close()
    assert ("orders", "Orders", 1, 0) in rows
    assert ("orders", "Revenue", Decimal("9.99"), Decimal("0.00")) in rows
