"""Hooks hear every event in order, and whatever they do, nobody else is harmed."""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import FrozenInstanceError, fields
from decimal import Decimal

import pytest

from convert_middleware import hooks
from convert_middleware.hooks import (
    LOG_PERIOD,
    MAX_FAILURES,
    Announcer,
    ArgumentRejected,
    Event,
    Hook,
    TransactionRecorded,
    visitor_hash,
)
from tests.histories import VISITOR_ID

EVENT = ArgumentRejected(argument="goal_id", reason="is no id")


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Failing:
    """A hook that fails while it is told to."""

    def __init__(self, error: BaseException) -> None:
        self.error: BaseException | None = error
        self.calls = 0

    def __call__(self, event: Event) -> None:
        self.calls += 1
        if self.error is not None:
            raise self.error


def test_hooks_are_called_in_the_order_of_registration(clock: Clock) -> None:
    heard: list[tuple[str, Event]] = []
    first: Hook = lambda event: heard.append(("first", event))  # noqa: E731 - a hook is any callable
    Announcer([first, lambda event: heard.append(("second", event))], clock).announce(EVENT)
    assert heard == [("first", EVENT), ("second", EVENT)]


@pytest.mark.parametrize(
    "error",
    [ValueError("secret"), SystemExit(1), GeneratorExit(), asyncio.CancelledError(), RecursionError()],
    ids=lambda error: type(error).__name__,
)
def test_a_hook_that_raises_harms_neither_caller_nor_other_hooks(
    error: BaseException, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Event] = []
    Announcer([Failing(error), heard.append], clock).announce(EVENT)
    assert heard == [EVENT]
    assert f"The hook Failing raised {type(error).__name__} in test_hooks.py:" in caplog.text
    assert "secret" not in caplog.text


def test_what_was_not_logged_is_said_at_the_end_once(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    announcer = Announcer([], clock)
    for _ in range(4):
        announcer.log(logging.WARNING, "trouble", "There is trouble.")
    announcer.log(logging.WARNING, "luck", "There is luck.")
    announcer.shutdown()
    announcer.shutdown()
    assert [record.getMessage() for record in caplog.records] == [
        "There is trouble.",
        "There is luck.",
        "3 log lines of the kind 'trouble' were left out.",
    ]


def test_an_interrupt_from_the_keyboard_is_not_swallowed(clock: Clock) -> None:
    announcer = Announcer([Failing(KeyboardInterrupt())], clock)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            announcer.announce(EVENT)


def test_a_failing_hook_is_logged_once_a_period_with_the_number_left_out(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    announcer = Announcer([Failing(ValueError())], clock)
    for _ in range(4):
        announcer.announce(EVENT)
    assert len(caplog.records) == 1
    clock.now = LOG_PERIOD
    announcer.announce(EVENT)
    assert len(caplog.records) == 2
    assert "(3 more of this kind since the last line)" in caplog.records[1].getMessage()


def test_a_hook_is_switched_off_after_ten_failures_in_a_row(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    failing, heard = Failing(ValueError()), list[Event]()
    announcer = Announcer([failing, heard.append], clock)
    for _ in range(MAX_FAILURES + 5):
        announcer.announce(EVENT)
    assert failing.calls == MAX_FAILURES
    assert len(heard) == MAX_FAILURES + 5
    assert "The hook Failing failed 10 times in a row; it is off." in caplog.text
    assert announcer.active


def test_a_hook_that_recovers_in_time_stays_on(clock: Clock) -> None:
    failing = Failing(ValueError())
    announcer = Announcer([failing], clock)
    for _ in range(3):
        failing.error = ValueError()
        for _ in range(MAX_FAILURES - 1):
            announcer.announce(EVENT)
        failing.error = None
        announcer.announce(EVENT)
    assert failing.calls == 3 * MAX_FAILURES
    assert announcer.active


def test_with_no_hook_left_nothing_is_announced(clock: Clock) -> None:
    assert not Announcer([], clock).active
    failing = Failing(ValueError())
    announcer = Announcer([failing], clock)
    for _ in range(MAX_FAILURES):
        announcer.announce(EVENT)
    assert not announcer.active


def test_an_event_that_a_hook_causes_itself_is_not_announced(clock: Clock) -> None:
    heard: list[Event] = []

    def echo(event: Event) -> None:
        heard.append(event)
        announcer.announce(event)

    announcer = Announcer([echo], clock)
    announcer.announce(EVENT)
    announcer.announce(EVENT)
    assert heard == [EVENT, EVENT]


def test_a_hook_busy_in_one_thread_hears_another_threads_events(clock: Clock) -> None:
    heard: list[str] = []
    inside, go_on = threading.Event(), threading.Event()

    def slow(event: Event) -> None:
        heard.append(threading.current_thread().name)
        if threading.current_thread() is not threading.main_thread():
            inside.set()
            assert go_on.wait(5)

    announcer = Announcer([slow], clock)
    other = threading.Thread(target=announcer.announce, args=[EVENT], name="other")
    other.start()
    assert inside.wait(5)
    announcer.announce(EVENT)
    go_on.set()
    other.join()
    assert heard == ["other", "MainThread"]


def test_a_log_line_that_a_log_line_causes_is_not_written(clock: Clock) -> None:
    announcer = Announcer([], clock)
    lines: list[str] = []

    class Chatty(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())
            announcer.log(logging.ERROR, f"more {len(lines)}", "Another line.")

    handler = Chatty()
    hooks.logger.addHandler(handler)
    try:
        announcer.log(logging.ERROR, "kind", "A %s.", "line")
    finally:
        hooks.logger.removeHandler(handler)
    assert lines == ["A line."]


def test_a_log_handler_that_raises_harms_nobody(clock: Clock) -> None:
    class Broken(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise RuntimeError(record.getMessage())

    heard: list[Event] = []
    handler = Broken()
    hooks.logger.addHandler(handler)
    try:
        announcer = Announcer([Failing(ValueError()), heard.append], clock)
        announcer.announce(EVENT)
        announcer.log(logging.ERROR, "kind", "A line.")
    finally:
        hooks.logger.removeHandler(handler)
    assert heard == [EVENT]


def test_flush_and_shutdown_reach_the_hooks_that_know_them(clock: Clock) -> None:
    told: list[object] = []

    class Buffering:
        def __call__(self, event: Event) -> None:
            told.append(event)

        def force_flush(self, timeout: float) -> None:
            told.append(timeout)
            raise RuntimeError

        def shutdown(self) -> None:
            told.append("shutdown")

    announcer = Announcer([told.append, Buffering(), Buffering()], clock)
    announcer.force_flush(0.5)
    announcer.shutdown()
    assert told == [0.5, 0.5, "shutdown", "shutdown"]


def test_events_cannot_be_changed_and_hold_a_visitor_as_a_short_hash_only() -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(EVENT, "reason", "another")  # noqa: B010 - a plain assignment would not pass the type check
    kinds = [kind for kind in vars(hooks).values() if isinstance(kind, type) and issubclass(kind, Event)]
    assert len(kinds) > 10
    assert all("visitor_id" not in [each.name for each in fields(kind)] for kind in kinds)
    assert len(visitor_hash(VISITOR_ID)) == 8
    assert visitor_hash(VISITOR_ID) not in VISITOR_ID


def test_an_order_is_not_part_of_its_events_repr() -> None:
    event = TransactionRecorded(
        visitor="0", goal_ids=(35,), transaction_id="ab12345", value=Decimal("1599.99"), products=10
    )
    assert "ab12345" not in repr(event)
    assert "1599" not in repr(event)


def test_hooks_share_the_time_that_they_get_to_flush(clock: Clock) -> None:
    left: list[float] = []

    class Slow:
        def __call__(self, event: Event) -> None:
            """Buffer nothing."""

        def force_flush(self, timeout: float) -> None:
            left.append(timeout)
            clock.now += 3.0

    Announcer([Slow(), Slow(), Slow()], clock).force_flush(clock() + 5.0)
    assert left == [5.0, 2.0, 0.0]
