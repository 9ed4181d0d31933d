"""A site with our door in front and Convert behind; after every test the accounts are checked."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from convert_middleware import ConvertMiddleware, MemoryOutbox, Settings, Tracker
from convert_middleware.hooks import HitDropped
from convert_middleware.wire import decode
from tests.servers.tracking import PIXEL

if TYPE_CHECKING:
    from convert_middleware.delivery.entry import Entry
    from convert_middleware.hooks import Event
    from convert_middleware.model import Hit
    from tests.servers import Behaviour, Seen, TrackingServer

    from .drive import App

SECRET = "a secret of the shop, long enough"


class Clock:
    """The time of day, moved by hand; it never stands quite still."""

    def __init__(self, settle: Callable[[], object]) -> None:
        self.now = 1_750_000_000.0
        self._settle = settle

    def __call__(self) -> float:
        self.now += 1e-6
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass; what was handed over before has left by then, or it would be hours late."""
        self._settle()
        self.now += seconds


class Noting(MemoryOutbox):
    """An outbox that notes what it is handed, because hits may overtake each other on their way."""

    def __init__(self, handed_over: list[str]) -> None:
        super().__init__()
        self._handed_over = handed_over

    def offer(self, entry: Entry) -> None:
        self._handed_over.append(entry.text)
        super().offer(entry)


class Convert:
    """What arrives at Convert from every door that was built through it, and the hooks' events."""

    def __init__(self, server: TrackingServer) -> None:
        self.server = server
        self.handed_over: list[str] = []
        self.events: list[Event] = []
        self.clock = Clock(self.settle)
        self.trackers: list[Tracker] = []
        self._read = 0

    def options(self, **more: Any) -> dict[str, Any]:
        return {
            "project_id": "1",
            "customer_id": "2",
            "secret_key": SECRET,
            "endpoint": self.server.endpoint,
            "outbox": Noting(self.handed_over),
            "hooks": [self.events.append],
            **more,
        }

    def tracker(self, **options: Any) -> Tracker:
        tracker = Tracker(Settings(**self.options(**options)), clock=self.clock)
        self.trackers.append(tracker)
        return tracker

    def door(self, app: App, **options: Any) -> ConvertMiddleware:
        """Return the application behind a door with a tracker of its own."""
        return ConvertMiddleware(app, tracker=self.tracker(**options))

    def hits(self) -> list[Hit]:
        """Return the hits since the last call in the order handed over; each has arrived, and only once."""
        for tracker in self.trackers:
            assert tracker.flush(20.0)
        arrived = [target.partition("?")[2] for target in self.server.targets]
        assert sorted(arrived) == sorted(self.handed_over)
        fresh, self._read = self.handed_over[self._read :], len(self.handed_over)
        return [decode(text) for text in fresh]

    def settle(self) -> None:
        """Let every tracker deliver what it has, as far as the server lets it."""
        for tracker in self.trackers:
            tracker.flush(1.0)

    def hold(self) -> threading.Event:
        """Have the server answer nothing until the event is set."""
        held = threading.Event()

        def choose(seen: Seen) -> Behaviour:
            assert held.wait(5.0)
            return PIXEL

        self.server.default = choose
        return held

    def told(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, kind)]

    def check_accounts(self) -> None:
        for tracker in self.trackers:
            tracker.close(5.0)
            stats = tracker.stats()
            settled = stats.delivered + stats.waiting + stats.in_flight + stats.dead
            assert stats.accepted == settled + sum(stats.dropped.values())
            stays = not str(tracker.settings.outbox).startswith("memory:")  # where the next process finds it
            assert stats.in_flight == 0
            assert stats.waiting == 0 or stays
        told: Counter[str] = Counter()
        for event in self.events:
            if isinstance(event, HitDropped):
                told[event.reason] += event.number
        dropped: Counter[str] = Counter()
        for tracker in self.trackers:
            if self.events.append in tracker.settings.hooks:
                dropped += Counter(tracker.stats().dropped)
        assert told == dropped


@pytest.fixture
def convert(tracking_server: TrackingServer, nothing_is_told: None) -> Iterator[Convert]:
    """Convert; afterwards the conservation law holds, no thread is left and no log line tells a secret."""
    convert = Convert(tracking_server)
    yield convert
    convert.check_accounts()
    assert not [thread for thread in threading.enumerate() if thread.name == "convert_middleware"]


@pytest.fixture(params=["asyncio", "trio"])
def backend(request: pytest.FixtureRequest) -> str:
    """Each event loop library in turn."""
    return str(request.param)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return our own log lines of level WARNING and above."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "convert_middleware" and record.levelname != "INFO" and record.levelno >= 30
    ]
