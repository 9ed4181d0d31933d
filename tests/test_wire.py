"""The tracking request: read and written as published, and never longer than a URL may be."""

from __future__ import annotations

import re
from bisect import bisect_left
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convert_middleware.errors import WireError
from convert_middleware.model import Exposure, Hit, Transaction
from convert_middleware.wire import MAX_URL, decode, encode, fit, query
from tests.strategies import hits, transactions, visits

EXAMPLE = "c=2&p=1&e=11-12-331.33.34,21-22-33.331.341&ea=1&g=331,33,34,341,35&ga=3&t=35|ab12345|1599.99|10"
EXAMPLE_HIT = Hit(
    customer_id=2,
    project_id=1,
    exposures=(Exposure(11, 12, (331, 33, 34)), Exposure(21, 22, (33, 331, 341))),
    new_exposures=1,
    goals=(331, 33, 34, 341, 35),
    new_goals=3,
    transaction=Transaction((35,), "ab12345", Decimal("1599.99"), 10),
)
SERVER = "https://1.track.convertexperiments.com/track/"


@pytest.mark.parametrize("spelling", ["|", "%7C"])
def test_the_published_example_means_what_is_published_and_comes_back_byte_for_byte(spelling: str) -> None:
    text = EXAMPLE.replace("|", spelling)
    assert decode(text) == decode(f"?{text}") == decode(f"{SERVER}?{text}") == EXAMPLE_HIT
    assert query(decode(text)) == text
    assert encode(decode(f"{SERVER}?{text}")) == f"{SERVER}?{text}"
    assert encode(decode(f"?{text}"), "") == f"?{text}"


def test_the_bar_is_written_as_a_uri_allows() -> None:
    assert encode(EXAMPLE_HIT) == f"{SERVER}?{EXAMPLE}".replace("|", "%7C")


def test_the_endpoint_is_an_option() -> None:
    assert encode(EXAMPLE_HIT, "http://127.0.0.1:8070/{project_id}/").startswith(
        "http://127.0.0.1:8070/1/?c=2"
    )


@pytest.mark.parametrize(
    "endpoint", ["", "https://h/a=b/", "http://[::1]:80/a=b&c=2/", "/a=b/", "h/=/", "http://h/{project_id}=/"]
)
def test_a_path_may_hold_an_equals_sign(endpoint: str) -> None:
    assert decode(encode(EXAMPLE_HIT, endpoint)) == EXAMPLE_HIT


def hit(**fields: Any) -> Hit:
    return Hit(customer_id=2, project_id=1, **fields)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("c=2&p=1", hit()),
        ("c=2&p=1&e=11-12&ea=0", hit(exposures=(Exposure(11, 12),))),
        (
            "c=2&p=1&e=11-12,21-22-5&ea=2",
            hit(exposures=(Exposure(11, 12), Exposure(21, 22, (5,))), new_exposures=2),
        ),
        ("c=2&p=1&g=5&ga=1", hit(goals=(5,), new_goals=1)),
        ("c=2&p=1&g=5,6&ga=0", hit(goals=(5, 6))),
        ("c=2&p=1&t=5.6%7Ca%7C0.00%7C1", hit(transaction=Transaction((5, 6), "a", Decimal(0)))),
        (
            "c=2&p=1&t=5%7C%C3%A9%20%26%3D%23%3F%2F%2B%7C7.50%7C2",
            hit(transaction=Transaction((5,), "é &=#?/+", Decimal("7.5"), 2)),
        ),
    ],
)
def test_each_form_is_written_one_way_and_read_back(text: str, meaning: Hit) -> None:
    assert query(meaning) == text
    assert decode(text) == meaning


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("p=1&c=2", "c=2&p=1"),
        ("c=2&p=1&e=11-12-&ea=0", "c=2&p=1&e=11-12&ea=0"),
        ("c=2&p=1&e=11%2D12%2D5%2E6%2C7-8&ea=1", "c=2&p=1&e=11-12-5.6,7-8&ea=1"),
        ("c=2&p=1&t=5%7ca%7c1.00%7c1", "c=2&p=1&t=5%7Ca%7C1.00%7C1"),
        ("c=2&p=1&t=5|a+b|1.00|1", "c=2&p=1&t=5|a%2Bb|1.00|1"),
        ("c=2&p=1&t=5|a?b|1.00|1", "c=2&p=1&t=5|a%3Fb|1.00|1"),
        ("c=2&p=1#part", "c=2&p=1"),
        ("c=002&p=01", "c=2&p=1"),
    ],
)
def test_other_spellings_are_read_as_the_same(text: str, same: str) -> None:
    assert query(decode(text)) == same
    assert query(decode(f"{SERVER}?{text}")) == same


@pytest.mark.parametrize(
    ("text", "parameter", "reason"),
    [
        ("", "query", "name=value"),
        ("c", "query", "name=value"),
        ("c=2", "p", "missing"),
        ("p=1", "c", "missing"),
        ("c=2&p=1&c=2", "c", "twice"),
        ("c=2&p=1&x=1", "x", "no parameter"),
        ("c=2&p=1&E=11-12&ea=0", "E", "no parameter"),
        ("c=&p=1", "c", "whole number"),
        ("c=0&p=1", "query", "ids run from 1"),
        ("c=-2&p=1", "c", "whole number"),
        ("c=2&p=9999999999999999999", "query", "ids run from 1"),
        ("c=2&p=12345678901234567890", "p", "19 digits"),
        ("c=2&p=%D9%A1", "p", "whole number"),
        ("c=2&p=%FF", "p", "UTF-8"),
        ("c=2&p=1&e=11-12", "e", "'ea'"),
        ("c=2&p=1&ea=1", "ea", "'e'"),
        ("c=2&p=1&g=5", "g", "'ga'"),
        ("c=2&p=1&ga=1", "ga", "'g'"),
        ("c=2&p=1&e=11-12&ea=2", "ea", "more than"),
        ("c=2&p=1&g=5&ga=2", "ga", "more than"),
        ("c=2&p=1&g=5&ga=x", "ga", "whole number"),
        ("c=2&p=1&e=&ea=0", "e", "experiment-variation"),
        ("c=2&p=1&e=11&ea=0", "e", "experiment-variation"),
        ("c=2&p=1&e=11-12-5-6&ea=0", "e", "experiment-variation"),
        ("c=2&p=1&e=11-12,&ea=0", "e", "experiment-variation"),
        ("c=2&p=1&e=11-12-5.&ea=0", "e", "whole number"),
        ("c=2&p=1&e=0-12&ea=0", "e", "ids run from 1"),
        ("c=2&p=1&g=&ga=0", "g", "whole number"),
        ("c=2&p=1&g=5.6&ga=0", "g", "whole number"),
        ("c=2&p=1&g=" + "5," * 4096 + "5&ga=0", "g", "more than 4096"),
        ("c=2&p=1&e=" + "1-2," * 4096 + "1-2&ea=0", "e", "more than 4096"),
        ("c=2&p=1&t=5|1.00|1", "t", "3 fields"),
        ("c=2&p=1&t=5|a|b|1.00|1", "t", "5 fields"),
        ("c=2&p=1&t=|a|1.00|1", "t", "whole number"),
        ("c=2&p=1&t=5||1.00|1", "t", "empty"),
        ("c=2&p=1&t=5|a|1|1", "t", "two decimals"),
        ("c=2&p=1&t=5|a|1.5|1", "t", "two decimals"),
        ("c=2&p=1&t=5|a|-1.00|1", "t", "whole number"),
        ("c=2&p=1&t=5|a|NaN|1", "t", "two decimals"),
        ("c=2&p=1&t=5|a|9999999999999.00|1", "t", "too large"),
        ("c=2&p=1&t=5|a|1.00|0", "t", "out of range"),
        ("c=2&p=1&t=5|a|1.00|", "t", "whole number"),
        ("c=2&p=1&t=5|" + "a" * 257 + "|1.00|1", "t", "256 bytes"),
        ("c=2&p=1&t=5|\ud800|1.00|1", "t", "surrogate"),
        ("c=2&p=1&t=" + ".".join(map(str, range(1, 52))) + "|a|1.00|1", "t", "1 to 50 goals"),
        ("c=2&p=1&t=" + "a" * 70_000, "query", "longer than"),
    ],
)
def test_what_breaks_a_rule_is_refused_naming_parameter_and_rule(
    text: str, parameter: str, reason: str
) -> None:
    with pytest.raises(WireError) as caught:
        decode(text)
    assert caught.value.parameter == parameter
    assert reason in caught.value.reason
    assert len(str(caught.value)) < 400


@given(hits())
def test_any_hit_comes_back_from_its_url(hit: Hit) -> None:
    assert decode(encode(hit)) == hit
    assert decode(query(hit)) == hit
    assert query(decode(query(hit))) == query(hit)


@given(hits())
def test_a_query_consists_of_characters_a_uri_allows(hit: Hit) -> None:
    legal = r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-F]{2})*"  # RFC 3986, section 3.4
    if hit.transaction is not None and hit.transaction.separator == "|":
        legal = legal.replace(":@", ":@|")  # read in that spelling, and so written
    assert re.fullmatch(legal, query(hit), re.ASCII)


tokens = st.sampled_from(
    ["c=", "p=", "e=", "ea=", "g=", "ga=", "t=", "&", ",", ".", "-", "|", "%", "7C", "?", "#", "1", "0", "99"]
)
nearly = st.builds(
    lambda hit, cut, more: query(hit)[:cut] + more + query(hit)[cut:],
    hits(),
    st.integers(0, 200),
    st.text(max_size=3),
)


@given(
    st.one_of(
        st.text(),
        st.lists(tokens).map("".join),
        st.lists(tokens).map(lambda pieces: "c=2&p=1&" + "".join(pieces)),
        nearly,
    )
)
def test_any_text_is_a_hit_or_a_wire_error_and_nothing_else(text: str) -> None:
    try:
        decoded = decode(text)
    except WireError:
        return
    assert decode(encode(decoded)) == decoded


LIMITS = st.integers(2048, MAX_URL)


def is_part(part: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    rest = iter(whole)
    return all(item in rest for item in part)


@given(visits(), LIMITS)
def test_no_request_is_too_long_and_all_that_is_new_counts_exactly_once(hit: Hit, limit: int) -> None:
    requests, _ = fit(hit, limit)
    assert all(len(query(request)) <= limit for request in requests)
    counted = [e[:2] for request in requests for e in request.exposures[: request.new_exposures]]
    assert counted == [e[:2] for e in hit.exposures[: hit.new_exposures]]
    reached = [goal for request in requests for goal in request.goals[: request.new_goals]]
    assert reached == list(hit.goals[: hit.new_goals])
    paid = [request.transaction for request in requests if request.transaction is not None]
    assert paid == [hit.transaction] * (hit.transaction is not None)


@given(visits(), LIMITS)
def test_splitting_invents_nothing(hit: Hit, limit: int) -> None:
    goals_of = {exposure[:2]: exposure.goals for exposure in hit.exposures}
    requests, _ = fit(hit, limit)
    for request in requests:
        assert request[:2] == hit[:2]
        assert set(request.goals) <= set(hit.goals)
        for experiment, variation, goals in request.exposures:
            assert is_part(goals, goals_of[experiment, variation])
        assert len(requests) == 1 or request.new_exposures or request.new_goals or request.transaction
        assert decode(query(request)) == request


@given(visits(most=25), st.integers(0, MAX_URL))
def test_what_fits_is_sent_whole(hit: Hit, more: int) -> None:
    assert fit(hit, max(2048, len(query(hit)) + more)) == ([hit], 0)


def history(hit: Hit) -> list[tuple[str, int, int]]:
    """Return the pieces of history in the order in which they may go: kind, triplet, goal."""
    new, goals, triplets = hit.goals[: hit.new_goals], hit.goals[hit.new_goals :], hit.exposures
    old = range(hit.new_exposures, len(triplets))
    return [
        *[("goal", 0, goal) for goal in goals],
        *[
            ("goal of a triplet", place, goal)
            for goal in sorted({goal for place in old for goal in triplets[place].goals} - set(new))
            for place in old
            if goal in triplets[place].goals
        ],
        *[("triplet", place, 0) for place in old],
    ]


def without(hit: Hit, pieces: list[tuple[str, int, int]]) -> Hit:
    gone = set(pieces)
    return hit._replace(
        goals=tuple(goal for goal in hit.goals if ("goal", 0, goal) not in gone),
        exposures=tuple(
            exposure._replace(
                goals=tuple(g for g in exposure.goals if ("goal of a triplet", place, g) not in gone)
            )
            for place, exposure in enumerate(hit.exposures)
            if ("triplet", place, 0) not in gone
        ),
    )


@given(visits(least=60, most_new=4), LIMITS)
def test_as_little_history_as_needed_is_left_out_and_the_oldest_first(hit: Hit, limit: int) -> None:
    requests, left_out = fit(hit, limit)
    if len(requests) > 1 or not left_out:  # not what this is about
        return
    pieces = history(hit)
    number = bisect_left(
        range(len(pieces)), True, key=lambda number: len(query(without(hit, pieces[:number]))) <= limit
    )
    assert requests == [without(hit, pieces[:number])]


@given(visits(least=40), transactions, LIMITS)
def test_an_order_by_itself_names_every_triplet_that_has_room_and_loses_their_goals_first(
    hit: Hit, transaction: Transaction, limit: int
) -> None:
    order = hit._replace(goals=(), new_goals=0, new_exposures=0, transaction=transaction)
    (request,), _ = fit(order, limit)
    assert request.transaction == transaction
    lost = len(order.exposures) - len(request.exposures)
    assert [each[:2] for each in request.exposures] == [each[:2] for each in order.exposures[lost:]]
    if lost:
        assert not any(each.goals for each in request.exposures)
        one_more = (order.exposures[lost - 1]._replace(goals=()), *request.exposures)
        assert len(query(request._replace(exposures=one_more))) > limit


def told(*requests: Hit) -> set[tuple[object, ...]]:
    exposures = [exposure for request in requests for exposure in request.exposures]
    return (
        {("goal", goal) for request in requests for goal in request.goals}
        | {("triplet", *exposure[:2]) for exposure in exposures}
        | {("triplet", *exposure[:2], goal) for exposure in exposures for goal in exposure.goals}
    )


@given(visits(least=20), LIMITS)
def test_all_that_is_left_out_is_counted(hit: Hit, limit: int) -> None:
    requests, left_out = fit(hit, limit)
    assert len(told(hit) - told(*requests)) == left_out


def test_a_goal_and_an_order_reach_every_experiment_of_a_visitor_with_a_long_history() -> None:
    """Twenty experiments with twenty of forty goals each, ids of ten digits: what the cookie is made for."""
    old = tuple(3_000_000_000 + number for number in range(40))
    new = 3_000_000_099
    whole = Hit(
        customer_id=1_000_000_000,
        project_id=1_000_000_001,
        exposures=tuple(
            Exposure(1_000_000_000 + number, 2_000_000_000 + number, (*old[number % 2 :: 2], new))
            for number in range(20)
        ),
        goals=(new, *old),
        new_goals=1,
        transaction=Transaction((new,), "ab12345", Decimal("1599.99"), 10),
    )
    assert len(encode(whole)) > MAX_URL
    (request,), _ = fit(whole, MAX_URL - len(encode(whole)) + len(query(whole)))
    assert len(encode(request)) <= MAX_URL
    assert [each[:2] for each in request.exposures] == [each[:2] for each in whole.exposures]
    assert all(new in each.goals for each in request.exposures)
    assert (request.goals, request.new_goals, request.transaction) == ((new,), 1, whole.transaction)


def test_an_order_that_leaves_apart_from_many_new_goals_is_booked_in_every_experiment() -> None:
    goals = tuple(3_000_000_000 + number for number in range(700))
    whole = hit(
        exposures=(Exposure(31, 32), Exposure(11, 12, goals), Exposure(21, 22, goals[-1:])),
        new_exposures=1,
        goals=goals,
        new_goals=400,
        transaction=Transaction((5,), "ab12345", Decimal(1)),
    )
    (order,) = [request for request in fit(whole, MAX_URL)[0] if request.transaction]
    assert [each[:2] for each in order.exposures] == [(11, 12), (21, 22), (31, 32)]
    assert (order.new_exposures, order.goals) == (0, ())


@given(visits(least=40), LIMITS)
def test_a_request_that_counts_a_goal_names_the_triplets_it_belongs_to_as_far_as_there_is_room(
    hit: Hit, limit: int
) -> None:
    requests, _ = fit(hit, limit)
    if len(requests) == 1:  # not what this is about
        return
    news = {exposure.experiment_id for exposure in hit.exposures[: hit.new_exposures]}
    for request in requests:
        counted = request.goals[: request.new_goals]
        if not counted:
            continue
        named = {exposure.experiment_id for exposure in request.exposures}
        owed = [e._replace(goals=tuple(g for g in e.goals if g in counted)) for e in hit.exposures]
        missing = [exposure for exposure in owed if exposure.goals and exposure.experiment_id not in named]
        if missing:
            shortest = min(missing, key=lambda exposure: len(exposure.goals))
            longer = request._replace(exposures=(*request.exposures, shortest), transaction=None)
            assert len(query(longer)) > limit
        if news & {exposure.experiment_id for exposure in missing}:
            assert named <= news, "an earlier triplet took the place of a new one"


@given(transactions, LIMITS)
def test_the_longest_transaction_fits_with_nothing_beside_it(transaction: Transaction, limit: int) -> None:
    assert len(query(Hit(customer_id=2**63 - 1, project_id=2**63 - 1, transaction=transaction))) <= limit


def test_the_longest_possible_transaction_fits() -> None:
    most = tuple(2**63 - 1 - number for number in range(50))
    transaction = Transaction(most, "\x00" * 256, Decimal("999999999999.99"), 10**9)
    whole = Hit(customer_id=2**63 - 1, project_id=2**63 - 1, transaction=transaction)
    assert len(query(whole)) <= 2048
