"""The worker against a real server that misbehaves."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import pytest

from convert_middleware.delivery import Counts, Delivery, MemoryOutbox, Policy, Worth
from convert_middleware.delivery.policy import SPREAD
from convert_middleware.delivery.senders import httpx_sender
from convert_middleware.delivery.worker import LANES
from convert_middleware.hooks import Event, HitRetried
from tests.servers import (
    Behaviour,
    TrackingServer,
    after,
    answer,
    broken_head,
    close,
    garbage,
    refused_port,
    reset,
    stall,
)

from .conftest import QUICK, Deliver, until

if TYPE_CHECKING:
    from tests.servers import Seen
    from tests.servers.listener import Peer

MAYBE_COUNTED: Final = [reset(), close(), answer(504), broken_head(), garbage(), stall()]
REPEATING: Final = Policy(on_ambiguous="retry", first_delay=0.01, max_delay=0.02)


def test_a_503_is_tried_again_with_the_same_url_and_delivered_once(
    tracking_server: TrackingServer, deliver: Deliver
) -> None:
    tracking_server.script(answer(503))
    delivery = deliver(tracking_server.endpoint)
    delivery.hand_over("n=1", Worth.GOAL)

    assert delivery.flush(20.0)
    assert tracking_server.targets == ["/track/?n=1"] * 2
    assert delivery.counts() == Counts(accepted=1, delivered=1)


@pytest.mark.parametrize("status", [400, 404, 410, 414])
def test_what_is_rejected_is_tried_once_and_dead(
    status: int, tracking_server: TrackingServer, deliver: Deliver, caplog: pytest.LogCaptureFixture
) -> None:
    tracking_server.script(answer(status))
    delivery = deliver(tracking_server.endpoint)
    delivery.hand_over("t=35%7Csecret-order", Worth.REVENUE)

    assert delivery.flush(20.0)
    assert len(tracking_server.requests) == 1
    assert delivery.counts() == Counts(accepted=1, dead=1)
    assert f"status {status}" in caplog.text
    assert "secret-order" not in caplog.text


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No attempt lasts ten seconds here."""
    monkeypatch.setattr(httpx_sender, "TOTAL_TIMEOUT", 0.3)


@pytest.mark.parametrize("ambiguous", MAYBE_COUNTED, ids=str)
def test_what_may_have_been_counted_is_not_repeated_by_default(
    ambiguous: Behaviour, tracking_server: TrackingServer, deliver: Deliver, impatient: None
) -> None:
    tracking_server.script(ambiguous)
    delivery = deliver(tracking_server.endpoint)
    delivery.hand_over("n=1", Worth.GOAL)

    assert delivery.flush(20.0)
    assert len(tracking_server.requests) == 1
    assert delivery.counts() == Counts(accepted=1, dropped={"ambiguous": 1})


@pytest.mark.parametrize("ambiguous", MAYBE_COUNTED, ids=str)
def test_what_may_have_been_counted_is_repeated_exactly_once_on_request(
    ambiguous: Behaviour, tracking_server: TrackingServer, deliver: Deliver, impatient: None
) -> None:
    tracking_server.script(ambiguous)
    delivery = deliver(tracking_server.endpoint, REPEATING)
    delivery.hand_over("n=1", Worth.GOAL)

    assert delivery.flush(20.0)
    assert len(tracking_server.requests) == 2
    assert delivery.counts() == Counts(accepted=1, delivered=1)


def test_hits_wait_while_nobody_listens_and_arrive_when_somebody_does(deliver: Deliver) -> None:
    with refused_port() as port:
        delivery = deliver(f"http://127.0.0.1:{port}/track/")
        for number in range(50):
            delivery.hand_over(f"n={number}", Worth.GOAL)
        assert not delivery.flush(0.2)
        assert delivery.counts().accepted == 50
        with TrackingServer(port=port) as server:
            assert delivery.flush(20.0)

            assert sorted(server.targets) == sorted(f"/track/?n={number}" for number in range(50))
    assert delivery.counts() == Counts(accepted=50, delivered=50)


def test_a_server_that_is_down_has_at_most_one_request_open_at_any_moment(
    tracking_server: TrackingServer, deliver: Deliver, caplog: pytest.LogCaptureFixture
) -> None:
    opened = 0  # begun and not yet being answered, as the server sees it
    most: list[int] = []  # opened at the beginning of each request since the first burst was over

    async def begin(_: Peer) -> None:
        nonlocal opened
        opened += 1
        if most:
            most.append(opened)

    async def end(_: Peer) -> None:
        nonlocal opened
        opened -= 1
        over = "is down" in caplog.text and delivery.counts().in_flight == 1
        if over and not most:
            most.append(0)

    def choose(seen: Seen) -> Behaviour:
        slow, last = after(0.02, answer(503)).steps, answer(503).steps
        if len(most) > 40:
            return answer()
        return Behaviour("counted", (begin, *slow[: -len(last)], end, *last))

    tracking_server.default = choose
    delivery = deliver(tracking_server.endpoint)
    for number in range(60):
        delivery.hand_over(f"n={number}", Worth.GOAL)

    until(lambda: delivery.counts().delivered == 60, 10.0)
    assert len(most) > 40
    assert max(most) == 1


def test_handing_over_to_a_stalled_server_never_waits_and_costs_exactly_what_has_no_room(
    tracking_server: TrackingServer, deliver: Deliver
) -> None:
    tracking_server.default = stall()
    delivery = deliver(tracking_server.endpoint, outbox=MemoryOutbox(max_hits=100))
    for number in range(LANES):
        delivery.hand_over(f"n={number}", Worth.EXPOSURE)
    tracking_server.until_requests(LANES)
    for number in range(1000):  # the server never answers, so this would never end
        delivery.hand_over(f"m={number}", Worth.EXPOSURE)

    assert delivery.counts() == Counts(
        accepted=1000 + LANES, in_flight=LANES, waiting=100, dropped={"overflow": 900}
    )
    assert len(tracking_server.requests) == LANES


def test_a_burst_that_fails_at_once_is_one_failure_and_waited_for_as_such(
    tracking_server: TrackingServer, deliver: Deliver
) -> None:
    tracking_server.script(*[after(0.3, answer(503))] * LANES)
    # Thirteen doublings would make it two minutes.
    delivery = deliver(tracking_server.endpoint, Policy(first_delay=0.02, max_delay=1e6))
    for number in range(LANES):
        delivery.hand_over(f"n={number}", Worth.GOAL)

    until(lambda: delivery.counts().delivered == LANES)
    assert len(tracking_server.requests) == 2 * LANES


def test_401_twenty_times_pauses_with_one_loud_line_and_then_everything_is_delivered(
    tracking_server: TrackingServer, deliver: Deliver, caplog: pytest.LogCaptureFixture
) -> None:
    tracking_server.script(*[answer(401), answer(403)] * 10)
    delivery = deliver(tracking_server.endpoint)
    for number in range(30):
        delivery.hand_over(f"n={number}", Worth.GOAL)

    until(lambda: delivery.counts().delivered == 30)
    loud = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(loud) == 1
    assert "check project_id and customer_id" in loud[0]
    assert delivery.counts() == Counts(accepted=30, delivered=30)


def test_one_hit_that_always_gets_500_does_not_hold_up_the_others(
    tracking_server: TrackingServer, deliver: Deliver
) -> None:
    tracking_server.default = lambda seen: answer(500 if "poison" in seen.target else 200)
    patient = Policy(first_delay=1000.0, max_delay=3600.0)
    delivery = deliver(tracking_server.endpoint, patient, clock=lambda: 1_800_000_000.0)
    delivery.hand_over("poison", Worth.GOAL)
    # Flushing makes the retry due at once; otherwise the time stands still.
    until(lambda: delivery.flush(0.02) or len(tracking_server.requests) >= 5)
    until(lambda: delivery.counts().in_flight == 0)
    for number in range(20):
        delivery.hand_over(f"n={number}", Worth.GOAL)

    until(lambda: delivery.counts().delivered == 20, 2.0)
    assert delivery.counts().waiting == 1


def test_many_hits_that_always_get_500_do_not_hold_up_the_others_even_when_they_seem_an_outage(
    tracking_server: TrackingServer, deliver: Deliver, caplog: pytest.LogCaptureFixture
) -> None:
    tracking_server.default = lambda seen: answer(500 if "poison" in seen.target else 200)
    delivery = deliver(tracking_server.endpoint)  # so quick that some of them are always due
    for number in range(LANES):
        delivery.hand_over(f"poison={number}", Worth.GOAL)
    until(lambda: "is down" in caplog.text)
    for number in range(50):
        delivery.hand_over(f"n={number}", Worth.GOAL)

    until(lambda: delivery.counts().delivered == 50)
    assert delivery.counts().waiting + delivery.counts().in_flight == LANES


def test_what_is_too_old_is_counted_expired_and_said_and_what_is_younger_arrives(
    deliver: Deliver, caplog: pytest.LogCaptureFixture
) -> None:
    now = [1_800_000_000.0]
    with refused_port() as port:
        delivery = deliver(f"http://127.0.0.1:{port}/track/", QUICK, clock=lambda: now[0])
        for hour in range(6):
            now[0] = 1_800_000_000.0 + 3600.0 * hour
            for number in range(10):
                delivery.hand_over(f"n={hour}.{number}", Worth.GOAL)
        now[0] += 1800.0
        # An attempt that is under way already must not meet the server.
        until(lambda: delivery.flush(0.02) or delivery.counts().dropped == {"expired": 50})
        with TrackingServer(port=port) as server:
            assert delivery.flush(20.0)

            assert sorted(server.targets) == [f"/track/?n=5.{number}" for number in range(10)]
    assert delivery.counts() == Counts(accepted=60, delivered=10, dropped={"expired": 50})
    assert caplog.text.count("A hit was dropped: expired") == 1


def test_a_hit_that_expires_while_it_waits_is_said(
    tracking_server: TrackingServer, deliver: Deliver, caplog: pytest.LogCaptureFixture
) -> None:
    now, events = [1_800_000_000.0], list[Event]()
    tracking_server.script(answer(503))
    patient = Policy(first_delay=1e6, max_delay=1e6)
    delivery = deliver(tracking_server.endpoint, patient, events.append, clock=lambda: now[0])
    delivery.hand_over("t=35%7Csecret-order", Worth.REVENUE)
    until(lambda: any(isinstance(event, HitRetried) for event in events))
    now[0] += 3601.0

    assert delivery.flush(20.0)
    assert delivery.counts() == Counts(accepted=1, dropped={"expired": 1})
    assert "A hit was dropped: expired (waited too long)." in caplog.messages
    assert "secret-order" not in caplog.text


def have_three_told_to_wait(
    delivery: Delivery, server: TrackingServer, seconds: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Hand over three hits to a server that asks to come back later, until it counts as down."""
    server.script(*[answer(503, headers={"Retry-After": seconds})] * 3)
    for number in range(3):
        delivery.hand_over(f"n={number}", Worth.GOAL)
    until(lambda: "is down" in caplog.text)


def test_what_waits_behind_a_server_that_says_when_to_come_back_is_not_too_old_then(
    tracking_server: TrackingServer, deliver: Deliver, caplog: pytest.LogCaptureFixture
) -> None:
    now = [1_800_000_000.0]
    delivery = deliver(tracking_server.endpoint, clock=lambda: now[0])
    have_three_told_to_wait(delivery, tracking_server, "3600", caplog)
    for number in range(3, 103):
        delivery.hand_over(f"n={number}", Worth.GOAL)
    now[0] += 3610.0

    assert delivery.flush(20.0)
    assert delivery.counts() == Counts(accepted=103, delivered=103)
    assert len(tracking_server.requests) == 106


def test_time_for_which_the_server_did_not_ask_is_spent_also_behind_one_that_asks(
    tracking_server: TrackingServer, deliver: Deliver, caplog: pytest.LogCaptureFixture
) -> None:
    now = [1_800_000_000.0]
    delivery = deliver(tracking_server.endpoint, clock=lambda: now[0])
    have_three_told_to_wait(delivery, tracking_server, "1800", caplog)
    delivery.hand_over("n=3", Worth.GOAL)
    now[0] += 900.0
    delivery.hand_over("n=4", Worth.GOAL)
    now[0] += 900.0 + SPREAD * 1800.0 + 3601.0

    assert delivery.flush(20.0)
    assert len(tracking_server.requests) == 3
    assert delivery.counts() == Counts(accepted=5, dropped={"expired": 5})


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_a_hook_that_raises_in_the_worker_does_not_end_it(
    error: type[BaseException], tracking_server: TrackingServer, deliver: Deliver
) -> None:
    def hook(event: Event) -> None:
        raise error("of the hook's")

    delivery = deliver(tracking_server.endpoint, hook=hook)
    for number in range(30):
        delivery.hand_over(f"n={number}", Worth.GOAL)

    assert delivery.flush(20.0)
    assert delivery.counts() == Counts(accepted=30, delivered=30)
