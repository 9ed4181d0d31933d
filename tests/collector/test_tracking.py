from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convert_middleware import wire
from convert_middleware.collector.collector import Collector, is_bot
from convert_middleware.collector.sentence import Names
from convert_middleware.collector.store import Store
from convert_middleware.collector.tracking import Tracking
from convert_middleware.model import Exposure, Hit, Transaction

from .conftest import AGENT, EXAMPLE

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx
    from starlette.types import Message, Scope


def raw(address: str, target: bytes, *headers: bytes) -> bytes:
    """Send a GET byte for byte, as no client library would."""
    url = urlsplit(address)
    with socket.create_connection((url.hostname, url.port or 0), timeout=5) as connection:
        lines = [b"GET " + target + b" HTTP/1.1", b"Host: 1.track.test", b"Connection: close", *headers]
        connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n")
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_a_hit_is_answered_with_200_and_a_scrap_of_javascript(
    client: httpx.Client, collector: Collector
) -> None:
    answer = client.get(f"/track/?{EXAMPLE}", headers={"Host": "1.track.convertexperiments.com"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/javascript")
    assert collector.hits()[0].hit == wire.decode(EXAMPLE)


def test_a_hit_is_kept_as_it_stood_on_the_wire(address: str, collector: Collector) -> None:
    assert raw(address, b"/track/?" + EXAMPLE.encode(), b"User-Agent: " + AGENT.encode()).startswith(
        b"HTTP/1.1 200"
    )
    (record,) = collector.hits()
    assert record.query == EXAMPLE
    assert wire.query(record.hit) == EXAMPLE


def test_every_request_header_is_kept(client: httpx.Client, collector: Collector) -> None:
    client.get("/track/?c=2&p=1", headers=[("X-One", "a"), ("X-One", "b"), ("Cookie", "s=1")])
    (record,) = collector.hits()
    kept = [pair for pair in record.headers if pair[0] in ("x-one", "cookie", "user-agent")]
    assert kept == [("user-agent", AGENT), ("x-one", "a"), ("x-one", "b"), ("cookie", "s=1")]
    assert record.user_agent == AGENT


def test_the_project_may_stand_in_the_path(client: httpx.Client, collector: Collector) -> None:
    assert client.get("/track/1/?c=2&p=1").status_code == 200
    refusal = client.get("/track/7/?c=2&p=1")
    assert (refusal.status_code, refusal.json()["error"]["parameter"]) == (400, "p")
    assert client.get("/track/x/?c=2&p=1").json()["error"]["parameter"] == "project"
    assert (len(collector.hits()), len(collector.malformed())) == (1, 2)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "HEAD"])
def test_only_get_is_tracking(client: httpx.Client, collector: Collector, method: str) -> None:
    answer = client.request(method, "/track/?c=2&p=1")
    assert (answer.status_code, answer.headers["allow"]) == (405, "GET")
    if method != "HEAD":
        assert method in answer.json()["error"]["message"]
    assert collector.summary()["totals"]["requests"] == 0


MALFORMED = [
    ("", "query"),
    ("c=2", "p"),
    ("p=1", "c"),
    ("c=x&p=1", "c"),
    ("c=2&p=1&x=1", "x"),
    ("c=2&c=2&p=1", "c"),
    ("c=2&p=1&e=11-12", "e"),
    ("c=2&p=1&e=11-12&ea=2", "ea"),
    ("c=2&p=1&e=11&ea=1", "e"),
    ("c=2&p=1&e=11-x&ea=1", "e"),
    ("c=2&p=1&g=5", "g"),
    ("c=2&p=1&g=5,&ga=1", "g"),
    ("c=2&p=1&t=5|a|1.00", "t"),
    ("c=2&p=1&t=5|a|1.0|1", "t"),
    ("c=2&p=1&t=5||1.00|1", "t"),
    ("c=2&p=1&t=5|%FF|1.00|1", "t"),
    ("c=2&p=1&<script>=1", "<script>"),
]


@pytest.mark.parametrize(("query", "parameter"), MALFORMED)
def test_a_malformed_request_is_told_what_is_wrong(
    address: str, collector: Collector, query: str, parameter: str
) -> None:
    answer = raw(address, b"/track/?" + query.encode(), b"User-Agent: " + AGENT.encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    error = json.loads(body)["error"]
    assert error["parameter"] == parameter
    assert error["reason"] in error["message"]
    (record,) = collector.malformed()
    assert (record.query, json.loads(record.content or "")) == (query, error)
    assert collector.summary()["totals"]["malformed"] == 1
    assert collector.hits() == []


async def ask(app: Tracking, query: bytes) -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: Scope = {
        "type": "http",
        "method": "GET",
        "path": "/track/",
        "path_params": {},
        "query_string": query,
        "headers": [(b"user-agent", AGENT.encode())],
    }
    await app(scope, receive, send)
    return sent


def ask_directly(collector: Collector, query: bytes) -> list[Message]:
    """Hand the endpoint a query that a server in between might not let through."""
    return asyncio.run(ask(Tracking(collector), query))


def test_what_arrives_is_written_soon_whatever_hindered_it_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    collector = Collector(Store(str(tmp_path / "hits.db")), Names())
    app = Tracking(collector)
    other = sqlite3.connect(tmp_path / "hits.db", isolation_level=None)

    async def wait_until(reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not reached():  # noqa: ASYNC110 - what is waited for happens in plain code
                await asyncio.sleep(0.01)

    async def story() -> None:
        other.execute("BEGIN IMMEDIATE")
        await ask(app, b"c=2&p=1")
        await wait_until(lambda: "refuses to write" in caplog.text)
        await ask(app, b"c=2&p=1")
        other.execute("ROLLBACK")
        await wait_until(lambda: collector.waiting == 0)
        await ask(app, b"c=2&p=1")

    asyncio.run(story())  # ends before the last one is written
    assert collector.waiting == 1

    async def later() -> None:
        await ask(app, b"c=2&p=1")
        await wait_until(lambda: collector.waiting == 0)

    asyncio.run(later())
    assert other.execute("SELECT count(*) FROM request").fetchone() == (4,)
    other.close()
    collector.close()


def test_bytes_that_are_no_utf_8_are_refused_and_kept(collector: Collector) -> None:
    start, body = ask_directly(collector, b"c=2&p=1&t=5|\xff\xfe|1.00|1")
    assert start["status"] == 400
    assert b"is not UTF-8" in body["body"]
    assert collector.malformed()[0].query == "c=2&p=1&t=5|%FF%FE|1.00|1"


def test_utf_8_that_nobody_encoded_is_read(collector: Collector) -> None:
    start, _ = ask_directly(collector, "c=2&p=1&t=5|naïve?|1.00|1".encode())
    order = collector.hits()[0].hit.transaction
    assert start["status"] == 200
    assert order is not None
    assert order.transaction_id == "naïve?"


@given(query=st.binary(max_size=60) | st.text("cpegat=&|,.-12%?#", max_size=40).map(str.encode))
def test_any_bytes_are_a_hit_or_clearly_malformed(served: tuple[str, Collector], query: bytes) -> None:
    start, body = ask_directly(served[1], query)
    assert start["status"] in (200, 400)
    assert start["status"] == 200 or json.loads(body["body"])["error"]["message"]


@pytest.mark.parametrize(
    ("agent", "bot"),
    [
        ("", True),
        ("python-httpx/0.28.1", True),
        ("curl/8.5.0", True),
        ("python-requests/2.32", True),
        ("Go-http-client/2.0", True),
        ("Python/3.12 aiohttp/3.9", True),
        ("Python-urllib/3.11", True),
        ("okhttp/4.12", True),
        ("ConvertAgent/1.0", False),
        ("ConvertAgent/1.0 python-httpx", False),
        ("convertagent/1.0", False),
        ("Mozilla/5.0 (X11; Linux x86_64)", False),
    ],
)
def test_a_default_client_agent_is_a_bot(agent: str, bot: bool) -> None:
    assert is_bot(agent) is bot


@pytest.mark.parametrize("headers", [[], [b"User-Agent: "], [b"User-Agent: curl/8.5.0"]])
def test_a_bot_gets_200_with_bot_and_is_not_counted(
    address: str, collector: Collector, headers: list[bytes]
) -> None:
    head, _, body = raw(address, b"/track/?c=2&p=1", *headers).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert json.loads(body)["code"] == "BOT"
    assert (len(collector.hits()), len(collector.bots())) == (0, 1)
    assert collector.summary()["totals"]["bots"] == 1


ids = st.integers(1, 2**63 - 1)
exposures = st.lists(st.builds(Exposure, ids, ids, st.lists(ids, max_size=4).map(tuple)), max_size=4).map(
    tuple
)
transactions = st.builds(
    Transaction,
    st.lists(ids, min_size=1, max_size=4, unique=True).map(tuple),
    st.text(st.characters(exclude_characters="|", codec="utf-8"), min_size=1, max_size=40),
    st.decimals("0", "999999999999.99", places=2, allow_nan=False, allow_infinity=False),
    st.integers(1, 10**9),
)


@st.composite
def hits(draw: st.DrawFn) -> Hit:
    shown, goals = draw(exposures), draw(st.lists(ids, max_size=5).map(tuple))
    return Hit(
        customer_id=draw(ids),
        project_id=draw(ids),
        exposures=shown,
        new_exposures=draw(st.integers(0, len(shown))),
        goals=goals,
        new_goals=draw(st.integers(0, len(goals))),
        transaction=draw(st.none() | transactions),
    )


@settings(deadline=None, max_examples=40)
@given(hit=hits())
def test_any_hit_is_read_back_equal(served: tuple[str, Collector], hit: Hit) -> None:
    address, collector = served
    before = collector.last_id
    target = wire.encode(hit, "/track/").encode()
    assert raw(address, target, b"User-Agent: " + AGENT.encode()).startswith(b"HTTP/1.1 200")
    (record,) = collector.newest(10, before)
    assert record.hit == hit
