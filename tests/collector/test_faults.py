from __future__ import annotations

import threading
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import uvicorn

from convert_middleware.collector import create_collector
from convert_middleware.collector.faults import Fault, Faults
from convert_middleware.collector.serve import running

from .conftest import AGENT

if TYPE_CHECKING:
    from convert_middleware.collector import Collector

HIT = "/track/?c=2&p=1"


def tell(client: httpx.Client, **fault: Any) -> None:
    assert client.put("/api/faults", json=fault).status_code == 200


def test_503_with_retry_after_ends_after_the_told_number(client: httpx.Client, collector: Collector) -> None:
    tell(client, status=503, retry_after="2", count=2)
    answers = [client.get(HIT) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503, 503, 200]
    assert [answer.headers.get("retry-after") for answer in answers] == ["2", "2", None]
    assert len(collector.hits()) == 1
    state = client.get("/api/faults").json()
    assert (state["active"], state["remaining"]) == (False, None)


def test_retry_after_may_be_a_date(client: httpx.Client) -> None:
    tell(client, status=503, retry_after="date")
    date = parsedate_to_datetime(client.get(HIT).headers["retry-after"])
    assert 0 <= date.timestamp() - time.time() <= 3


@pytest.mark.parametrize(
    ("fault", "kept"),
    [
        ({"status": 503}, 0),
        ({"status": 503, "record": True}, 1),
        ({"status": 202}, 1),
        ({"status": 204, "record": False}, 0),
        ({"delay_ms": 1}, 1),
        ({"record": False}, 0),
        ({"mode": "bot"}, 0),
        ({"mode": "captive", "record": True}, 1),
    ],
)
def test_a_request_is_kept_as_told(
    client: httpx.Client, collector: Collector, fault: dict[str, Any], kept: int
) -> None:
    tell(client, **fault)
    assert client.get(HIT).status_code == fault.get("status", 200)
    assert len(collector.hits()) == kept


def test_it_can_play_convert_refusing_a_bot_and_a_captive_portal(client: httpx.Client) -> None:
    tell(client, mode="bot")
    assert client.get(HIT).json()["code"] == "BOT"
    tell(client, mode="captive")
    assert client.get(HIT).headers["content-type"].startswith("text/html")
    tell(client, mode="captive", status=302)
    answer = client.get(HIT)
    assert (answer.status_code, answer.headers["location"]) == (302, "/elsewhere")


def test_a_delay_is_waited(client: httpx.Client) -> None:
    tell(client, delay_ms=300)
    started = time.monotonic()
    client.get(HIT)
    assert time.monotonic() - started >= 0.3


@pytest.mark.parametrize(
    ("fault", "kept", "error"),
    [
        ({"mode": "reset"}, 0, httpx.ReadError),
        ({"mode": "reset", "record": True}, 1, httpx.ReadError),
        ({"mode": "refuse"}, 0, httpx.ReadError),
        ({"mode": "garbage"}, 0, httpx.RemoteProtocolError),
        ({"mode": "stall"}, 0, httpx.ReadTimeout),
        ({"mode": "stall", "record": True}, 1, httpx.ReadTimeout),
    ],
)
def test_a_broken_connection_is_really_broken(
    client: httpx.Client, collector: Collector, fault: dict[str, Any], kept: int, error: type[Exception]
) -> None:
    tell(client, **fault, count=1)
    with pytest.raises(error):
        client.get(HIT, timeout=httpx.Timeout(2, read=0.5))
    assert len(collector.hits()) == kept
    assert client.get(HIT).status_code == 200


def test_a_reset_arrives_as_a_tcp_reset(client: httpx.Client) -> None:
    tell(client, mode="reset")
    with pytest.raises(httpx.ReadError) as broken:
        client.get(HIT)
    cause: BaseException | None = broken.value
    while cause and not isinstance(cause, ConnectionResetError):
        cause = cause.__cause__ or cause.__context__
    assert isinstance(cause, ConnectionResetError)


@pytest.mark.parametrize("mode", ["reset", "refuse", "garbage"])
def test_under_any_other_server_the_answer_stops_short(mode: str) -> None:
    app = create_collector()
    app.state.collector.faults.set(Fault(mode=mode))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", ws="none"))
    thread = threading.Thread(target=server.run)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started and time.monotonic() < deadline:
        thread.join(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    with pytest.raises((httpx.RemoteProtocolError, httpx.DecodingError, httpx.ReadError)):
        httpx.get(f"http://127.0.0.1:{port}{HIT}", headers={"User-Agent": AGENT}, timeout=5, trust_env=False)
    server.should_exit = True
    thread.join()
    app.state.collector.close()


def test_a_stalled_request_does_not_hold_up_shutdown() -> None:
    app = create_collector()
    app.state.collector.faults.set(Fault(mode="stall", record=True))
    gone: list[Exception] = []

    def ask(address: str) -> None:
        try:
            httpx.get(f"{address}{HIT}", headers={"User-Agent": AGENT}, timeout=20, trust_env=False)
        except httpx.HTTPError as error:
            gone.append(error)

    with running(app) as address:
        asking = threading.Thread(target=ask, args=(address,))
        asking.start()
        deadline = time.monotonic() + 5
        while not app.state.collector.hits() and time.monotonic() < deadline:
            asking.join(0.01)
        started = time.monotonic()
    assert time.monotonic() - started < 2
    asking.join()
    assert len(gone) == 1
    app.state.collector.close()


def drawn(fault: Fault, number: int) -> list[bool]:
    faults = Faults()
    faults.set(fault)
    return [faults.draw() is not None for _ in range(number)]


def test_the_dice_are_repeatable_and_fair() -> None:
    fault = Fault(status=503, probability=0.3, seed=7)
    assert drawn(fault, 1000) == drawn(fault, 1000)
    assert 230 < sum(drawn(fault, 1000)) < 370
    assert drawn(fault, 100) != drawn(Fault(status=503, probability=0.3, seed=8), 100)


def test_probability_bounds_are_never_and_always() -> None:
    assert not any(drawn(Fault(status=503, probability=0), 100))
    assert all(drawn(Fault(status=503, probability=1), 100))


def test_a_count_counts_spared_requests_too() -> None:
    faults = Faults()
    faults.set(Fault(status=503, probability=0, count=3))
    for _ in range(3):
        assert faults.as_json()["active"]
        faults.draw()
    assert not faults.as_json()["active"]


def test_only_tracking_requests_are_hit(client: httpx.Client) -> None:
    tell(client, mode="reset")
    assert client.get("/health").status_code == 200
    assert client.get("/").status_code == 200
    assert client.post("/track/").status_code == 405
    assert client.get("/api/faults").json()["affected"] == 0
