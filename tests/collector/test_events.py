from __future__ import annotations

import json
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from convert_middleware.collector import create_collector
from convert_middleware.collector.serve import running

from .conftest import AGENT, EXAMPLE
from .test_counting import EXAMPLE_SENTENCE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from convert_middleware.collector import Collector

Event = tuple[str, str, Any]  # name, id, data


class Listener:
    """Reads server-sent events one by one."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines

    def read(self) -> Event:
        name, number, data = "", "", ""
        for line in self._lines:
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("id: "):
                number = line[4:]
            elif line.startswith("data: "):
                data = line[6:]
            elif not line and name:
                return name, number, json.loads(data)
        raise EOFError

    def until(self, wanted: Callable[[Event], bool]) -> list[Event]:
        """Return everything up to the first event that is wanted."""
        events = [self.read()]
        while not wanted(events[-1]):
            events.append(self.read())
        return events


@contextmanager
def listening(address: str, last_event_id: str | None = None, **parameters: int) -> Iterator[Listener]:
    headers = {"Last-Event-ID": last_event_id} if last_event_id is not None else {}
    with (
        httpx.Client(base_url=address, timeout=5, trust_env=False) as client,
        client.stream("GET", "/api/events", headers=headers, params=parameters) as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield Listener(answer.iter_lines())


def requests_in(events: list[Event]) -> list[str]:
    return [data["query"] for name, _, data in events if name in ("hit", "malformed", "bot")]


def take(collector: Collector, *goals: int) -> None:
    for goal in goals:
        collector.take("/track/", f"c=2&p=1&g={goal}&ga=1", [("user-agent", AGENT)])


def shows_requests(number: int) -> Callable[[Event], bool]:
    return lambda event: event[0] == "summary" and event[2]["totals"]["requests"] == number


def test_a_hit_appears_in_words_and_then_in_the_summary(address: str, client: httpx.Client) -> None:
    with listening(address) as listener:
        listener.until(lambda event: event[0] == "summary")
        client.get(f"/track/?{EXAMPLE}")
        events = listener.until(shows_requests(1))
    name, number, data = events[0]
    assert (name, data["sentence"]) == ("hit", EXAMPLE_SENTENCE)
    assert number.endswith(f"-{data['id']}")
    assert events[-1][2]["experiments"]["11"]["variations"]["12"]["visitors"] == 1


def test_malformed_requests_and_bots_appear_under_their_own_names(address: str, client: httpx.Client) -> None:
    with listening(address) as listener:
        listener.until(lambda event: event[0] == "summary")
        client.get("/track/?c=2")
        client.get("/track/?c=2&p=1", headers={"User-Agent": "curl/8"})
        events = listener.until(lambda event: event[0] == "bot")
    assert [name for name, _, _ in events if name != "summary"] == ["malformed", "bot"]


def test_several_browsers_see_the_same(address: str, collector: Collector) -> None:
    with listening(address) as one, listening(address) as two:
        for listener in (one, two):
            listener.until(lambda event: event[0] == "summary")
        take(collector, 1, 2, 3)
        seen = [requests_in(listener.until(shows_requests(3))) for listener in (one, two)]
    assert seen[0] == seen[1]
    assert len(seen[0]) == 3


def test_a_reader_that_comes_back_gets_what_it_missed(address: str, collector: Collector) -> None:
    take(collector, 1)
    with listening(address, recent=10) as listener:
        number = listener.until(lambda event: event[0] == "hit")[-1][1]
    take(collector, 2, 3)
    with listening(address, number, recent=10) as listener:
        events = listener.until(lambda event: event[0] == "summary")
    assert requests_in(events) == ["c=2&p=1&g=2&ga=1", "c=2&p=1&g=3&ga=1"]
    assert "reset" not in [name for name, _, _ in events]
    plain = number.rpartition("-")[2]
    with listening(address, plain) as listener:
        assert len(requests_in(listener.until(lambda event: event[0] == "summary"))) == 2


def test_a_reader_of_another_run_begins_anew(address: str, collector: Collector) -> None:
    take(collector, 1, 2)
    with listening(address, "0badcafe-1000", recent=1) as listener:
        events = listener.until(lambda event: event[0] == "summary")
    assert events[0][0] == "reset"
    assert requests_in(events) == ["c=2&p=1&g=2&ga=1"]


def test_clearing_tells_every_reader(address: str, collector: Collector) -> None:
    take(collector, 1)
    with listening(address, recent=10) as listener:
        listener.until(shows_requests(1))
        collector.clear()
        events = listener.until(shows_requests(0))
    assert [name for name, _, _ in events] == ["reset", "summary"]
    assert events[0][2]["epoch"] == collector.epoch


def test_a_flood_gives_at_most_about_four_summaries_a_second(address: str, collector: Collector) -> None:
    with listening(address) as listener:
        listener.until(lambda event: event[0] == "summary")
        started = time.monotonic()
        for goal in range(1, 401):
            take(collector, goal)
        events = listener.until(shows_requests(400))
        seconds = time.monotonic() - started
    assert len(requests_in(events)) == 400
    assert sum(name == "summary" for name, _, _ in events) <= 4 * seconds + 2


def test_a_change_of_the_fault_reaches_the_readers(address: str, client: httpx.Client) -> None:
    with listening(address) as listener:
        listener.until(lambda event: event[0] == "summary")
        client.put("/api/faults", json={"status": 503, "count": 2})
        listener.until(lambda event: event[0] == "summary" and event[2]["faults"]["remaining"] == 2)
        client.get("/track/?c=2&p=1")
        listener.until(lambda event: event[0] == "summary" and event[2]["faults"]["remaining"] == 1)


def test_shutdown_ends_streams_cleanly_and_at_once() -> None:
    app = create_collector()
    server = running(app)
    address = server.__enter__()
    with listening(address) as listener:
        listener.until(lambda event: event[0] == "summary")
        started = time.monotonic()
        server.__exit__(None, None, None)
        assert time.monotonic() - started < 2
        with pytest.raises(EOFError):
            listener.read()
    app.state.collector.close()
