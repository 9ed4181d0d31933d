from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from random import Random
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convert_middleware.delivery.policy import (
    MAX_AGE,
    MAX_RETRY_AFTER,
    MAX_WAITS,
    SPREAD,
    Action,
    Outcome,
    Policy,
    Result,
    Waits,
    result_of_status,
    retry_after,
)
from convert_middleware.delivery.senders import outcome_of_answer

NOW: Final = 1_800_000_000.0
FAILED: Final = (Result.NOT_SENT, Result.REFUSED, Result.UNAUTHORISED)
REFUSED: Final = {408, 425, 429, 500, 502, 503}


def http_date(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(NOW, UTC) + timedelta(seconds=seconds), usegmt=True)


def expected_class(status: int) -> Result:
    if 200 <= status < 300:
        return Result.DELIVERED
    if status in (401, 403, 407):
        return Result.UNAUTHORISED
    if status in REFUSED:
        return Result.REFUSED
    return Result.AMBIGUOUS if status >= 500 else Result.REJECTED  # processed or not: nobody knows


def test_every_status_has_the_class_that_the_design_gives_it() -> None:
    statuses = range(100, 600)

    assert {each: result_of_status(each) for each in statuses} == {
        each: expected_class(each) for each in statuses
    }


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        (http_date(90), 90.0),
        (http_date(-90), 0.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("315360000", MAX_RETRY_AFTER),
        (http_date(315_360_000), MAX_RETRY_AFTER),
        ("9" * 400, MAX_RETRY_AFTER),
        ("-5", None),
        ("inf", None),
        ("nan", None),
        ("1e9", None),
        ("soon", None),
        ("", None),
        ("٣", None),
        ("Fri, 31 Dec 99999999999999999999 23:59:59 GMT", None),
    ],
    ids=str,
)
def test_a_retry_after_is_understood_clamped_or_ignored(header: str, seconds: float | None) -> None:
    assert retry_after(header, NOW) == seconds


@given(st.text(st.characters(max_codepoint=255)) | st.text("0123456789:-+., GMTJanFri", max_size=40))
def test_no_retry_after_does_harm(header: str) -> None:
    seconds = retry_after(header, NOW)

    assert seconds is None or 0.0 <= seconds <= MAX_RETRY_AFTER


@given(
    attempts=st.integers(1, 10_000), dice=st.floats(0, 1), first=st.floats(0.01, 10), cap=st.floats(0.01, 600)
)
def test_the_wait_is_jittered_from_nothing_to_an_exponential_limit(
    attempts: int, dice: float, first: float, cap: float
) -> None:
    policy = Policy(first_delay=first, max_delay=cap)
    limit = min(cap, first * 2.0 ** min(attempts - 1, 60))

    assert policy.backoff(attempts, 0.0) == 0.0
    assert policy.backoff(attempts, 1.0) == pytest.approx(limit)
    assert 0.0 <= policy.backoff(attempts, dice) <= cap


@pytest.mark.parametrize(
    ("attempts", "wait", "most"),
    [(8, None, 8), (8, 30.0, 8), (1, 30.0, 24), (2, 30.0, 24), (3, 30.0, 20), (1, 120.0, 12), (1, 3600.0, 3)],
)
def test_fifty_workers_do_not_come_back_in_the_same_second(
    attempts: int, wait: float | None, most: int
) -> None:
    chance = Random(7)
    outcome = Outcome(Result.REFUSED, "status 503", wait)
    for delays in (
        [Policy().decide(outcome, attempts, 0.0, chance.random()).delay for _ in range(50)],
        [Policy().pause(attempts, wait, chance.random()) for _ in range(50)],
    ):
        busiest = max(sum(start <= delay < start + 1 for delay in delays) for start in delays)

        assert busiest <= most
        assert min(delays) >= (wait or 0.0)


@given(
    result=st.sampled_from(FAILED),
    attempts=st.integers(1, 1000),
    wait=st.none() | st.floats(0, MAX_RETRY_AFTER),
    age=st.floats(0, 2 * MAX_AGE),
    dice=st.floats(0, 1),
)
def test_a_request_that_was_not_processed_is_tried_again_until_its_age_budget_is_spent(
    result: Result, attempts: int, wait: float | None, age: float, dice: float
) -> None:
    decision = Policy().decide(Outcome(result, "why", wait), attempts, age, dice)

    if age > MAX_AGE:
        assert (decision.action, decision.reason) == (Action.DROP, "expired")
    else:
        assert decision.action is Action.RETRY
        assert (wait or 0.0) <= decision.delay <= (wait or 0.0) * (1 + SPREAD) + Policy().max_delay
        assert math.isfinite(decision.delay)


@pytest.mark.parametrize(
    ("outcome", "on_ambiguous", "action"),
    [
        (Outcome(Result.DELIVERED, "status 200"), "drop", Action.SETTLE),
        (Outcome(Result.REJECTED, "status 404"), "retry", Action.BURY),
        (Outcome(Result.AMBIGUOUS, "reset"), "drop", Action.DROP),
        (Outcome(Result.AMBIGUOUS, "reset"), "retry", Action.RETRY),
    ],
    ids=str,
)
def test_what_may_have_been_counted_is_repeated_only_on_request(
    outcome: Outcome, on_ambiguous: str, action: Action
) -> None:
    policy = Policy(on_ambiguous="retry" if on_ambiguous == "retry" else "drop")

    assert policy.decide(outcome, 1, 0.0, 0.5).action is action


def test_retry_after_zero_for_ever_spends_the_age_budget() -> None:
    policy, outcome = Policy(), Outcome(Result.REFUSED, "status 503", 0.0)
    age, attempts, actions = 0.0, 0, set()
    while age <= MAX_AGE + policy.max_delay and attempts < 10_000:
        attempts += 1
        decision = policy.decide(outcome, attempts, age, 0.5)
        actions.add(decision.action)
        if decision.action is Action.DROP:
            break
        age += decision.delay

    assert actions == {Action.RETRY, Action.DROP}
    assert age > MAX_AGE
    assert attempts < 200


@pytest.mark.parametrize(
    ("body", "result"),
    [
        (b'{"code": "BOT"}', Result.REJECTED),
        (b' {"message": "x", "code": "BOT"} ', Result.REJECTED),
        (b'{"code": "OK", "note": "BOT"}', Result.DELIVERED),
        (b"<p>ROBOTS AND BOTS</p>", Result.DELIVERED),
        (b'["BOT"]', Result.DELIVERED),
        (b'{"code": "BOT"', Result.DELIVERED),
        (b"[" * 50_000 + b"BOT", Result.DELIVERED),
        (b"\xff\xfeBOT", Result.DELIVERED),
        (b"", Result.DELIVERED),
    ],
    ids=lambda value: str(value)[:40],
)
def test_only_a_json_body_whose_code_is_bot_turns_a_success_into_a_rejection(
    body: bytes, result: Result
) -> None:
    assert outcome_of_answer(200, None, body, NOW).result is result


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 20), st.booleans()), max_size=12),
    st.integers(0, 400),
    st.integers(0, 400),
)
def test_a_second_for_which_the_server_asked_counts_once_however_often_it_asked(
    asked: list[tuple[int, int, bool]], one: int, other: int
) -> None:
    waits, moment, seconds = Waits(), 0, set[int]()
    for later, long, answers in asked:
        moment += later
        waits.ask(NOW + moment, long)
        seconds |= set(range(moment, moment + long))
        if answers:
            waits.end(NOW + moment)
            seconds = {each for each in seconds if each < moment}
    begin, end = sorted((one, other))

    assert waits.between(NOW + begin, NOW + end) == len(seconds & set(range(begin, end)))


def test_a_server_that_asks_for_a_moment_again_and_again_is_remembered_within_bounds() -> None:
    waits = Waits()
    for minute in range(2 * MAX_WAITS):
        waits.ask(NOW + 60 * minute, 1.0)

    assert waits.between(NOW, NOW + 120 * MAX_WAITS) == MAX_WAITS
    assert waits.between(NOW + 60 * MAX_WAITS, NOW + 120 * MAX_WAITS) == MAX_WAITS


def test_a_clock_that_is_set_moves_what_the_server_asked_for() -> None:
    waits = Waits()
    waits.ask(NOW, 60.0)
    waits.ask(NOW + 100, 60.0)
    waits.move(-1_000.0)
    waits.ask(NOW - 800, 60.0)
    assert waits.between(NOW - 1_000, NOW - 850) == 110.0
    assert waits.between(NOW - 1_000, NOW) == 180.0
