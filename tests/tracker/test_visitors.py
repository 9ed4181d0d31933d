"""A visitor is known again: from the cookie, from the process's memory, from a token, and across races."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from convert_middleware import TokenError
from convert_middleware.model import Exposure
from convert_middleware.visitor import Visitor
from tests.asgi.conftest import SECRET
from tests.tracker.visits import Visit

if TYPE_CHECKING:
    from convert_middleware import Tracker
    from convert_middleware.model import Hit
    from tests.asgi.conftest import Convert

REMEMBERED_FOR = 1800  # seconds
DAY = 86_400
NEW_SECRET = "the key it will have, long enough"


def counted(hits: list[Hit]) -> tuple[list[int], list[int], list[str]]:
    """Return what Convert counts: experiments, goals, transactions."""
    return (
        [each.experiment_id for hit in hits for each in hit.exposures[: hit.new_exposures]],
        [goal for hit in hits for goal in hit.goals[: hit.new_goals]],
        [hit.transaction.transaction_id for hit in hits if hit.transaction],
    )


@pytest.mark.parametrize("winner", [0, 1])
def test_of_two_parallel_pages_nothing_is_lost_or_counted_twice(convert: Convert, winner: int) -> None:
    tracker = convert.tracker()
    start = Visit(tracker)
    start.convert.experiment(11, 12)
    cookie = start.respond()
    pages = [Visit(tracker, cookie), Visit(tracker, cookie)]
    for number, page in enumerate(pages):
        assert page.convert.goal(331)
        assert page.convert.goal(33 + number)
        assert page.convert.experiment(21, 22) == 22
        assert page.convert.revenue(35, transaction_id="ab12345", value=1)
    cookies = [page.respond() for page in pages]
    later = Visit(tracker, cookies[winner])
    assert set(later.convert.goals) == {331, 33, 34}
    for goal in (331, 33, 34):
        assert not later.convert.goal(goal)
    assert not later.convert.revenue(35, transaction_id="ab12345", value=1)
    kept = later.respond()  # and so the cookie is whole again
    experiments, goals, transactions = counted(convert.hits())
    assert (experiments, goals, transactions) == ([11, 21], [331, 33, 34], ["ab12345"])
    elsewhere = convert.tracker().load([kept]).visitor
    assert set(elsewhere.goals) == {331, 33, 34}


@pytest.mark.parametrize("kept", [0, 1])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("seconds", [0, 5])
def test_of_two_variations_that_parallel_pages_present_the_one_that_was_counted_stays(
    convert: Convert, kept: int, order: tuple[int, int], seconds: int
) -> None:
    tracker = convert.tracker()
    start = Visit(tracker)
    start.convert.goal(1)
    cookie = start.respond()
    pages = [Visit(tracker, cookie), Visit(tracker, cookie)]
    for page, variation in zip(pages, (13, 12), strict=True):
        assert page.convert.experiment(11, variation) == variation
        convert.clock.sleep(seconds)
    cookies = {number: pages[number].respond() for number in order}
    pages[order[1]].convert.goal(33)  # too late for its cookie
    later = Visit(tracker, cookies[kept])
    later.convert.goal(331)
    elsewhere = Visit(convert.tracker(), later.respond())
    elsewhere.convert.goal(35)
    elsewhere.respond()
    hits = convert.hits()
    [counted_variation] = [each.variation_id for hit in hits for each in hit.exposures[: hit.new_exposures]]
    assert counted_variation == (13, 12)[order[0]]
    told = [[each.variation_id for each in hit.exposures] for hit in hits if hit.new_goals]
    assert told == [[], *[[counted_variation]] * 3]


def test_processes_that_counted_different_variations_agree_on_one_of_them(convert: Convert) -> None:
    one, other = convert.tracker(), convert.tracker()
    start = Visit(one)
    start.convert.goal(1)
    cookie = start.respond()
    pages = [Visit(one, cookie), Visit(one, cookie), Visit(other, cookie)]
    for page, variation in zip(pages, (13, 12, 14), strict=True):
        page.convert.experiment(11, variation)
    *_, cookie = [page.respond() for page in pages]
    shown = []
    for number in range(6):
        visit = Visit((one, other)[number % 2], cookie)
        shown.append(visit.convert.experiment(11, 15))
        visit.convert.goal(2 + number)
        cookie = visit.respond()
    assert shown == [13] * 6
    assert counted(convert.hits())[0] == [11, 11]


def test_many_threads_with_one_cookie_count_everything_once(convert: Convert) -> None:
    tracker = convert.tracker()
    start = Visit(tracker)
    start.convert.goal(1)
    cookie = start.respond()
    together = threading.Barrier(8)

    def browse() -> None:
        together.wait()
        for goal in range(2, 30):
            visit = Visit(tracker, cookie)
            visit.convert.goal(goal)
            visit.convert.experiment(goal, 5)
            visit.convert.revenue(goal, transaction_id=f"order {goal}", value=1)
            visit.respond()

    threads = [threading.Thread(target=browse) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    experiments, goals, transactions = counted(convert.hits())
    assert sorted(experiments) == list(range(2, 30))
    assert sorted(goals) == list(range(1, 30))
    assert sorted(transactions) == sorted(f"order {goal}" for goal in range(2, 30))
    assert set(tracker.load([cookie]).visitor.goals) == set(range(1, 30))


def test_a_slow_page_that_only_reads_writes_no_cookie(convert: Convert) -> None:
    tracker = convert.tracker()
    start = Visit(tracker)
    start.convert.experiment(11, 12)
    cookie = start.respond()
    slow, quick = Visit(tracker, cookie), Visit(tracker, cookie)
    assert slow.convert.experiments == {11: 12}
    quick.convert.goal(331)
    quick.respond()
    slow.respond()
    assert not slow.wrote
    assert counted(convert.hits()) == ([11], [331], [])


def test_what_is_recorded_after_the_response_is_known_at_the_next_request(convert: Convert) -> None:
    tracker = convert.tracker()
    first = Visit(tracker)
    first.convert.experiment(11, 12)
    cookie = first.respond()
    assert first.convert.goal(331)  # in a background task
    assert first.convert.revenue(35, transaction_id="ab12345", value=1)
    second = Visit(tracker, cookie)
    assert second.convert.goals == (331,)
    assert not second.convert.goal(331)
    assert not second.convert.revenue(35, transaction_id="ab12345", value=1)
    kept = second.respond()
    assert second.wrote
    assert counted(convert.hits()) == ([11], [331], ["ab12345"])
    assert convert.tracker().load([kept]).visitor.goals == (331,)


def test_what_the_process_remembers_expires_and_is_still_counted_once(convert: Convert) -> None:
    tracker = convert.tracker()
    first = Visit(tracker)
    first.convert.experiment(11, 12)
    cookie = first.respond()
    first.convert.goal(331)
    assert counted(convert.hits()) == ([11], [331], [])
    convert.clock.sleep(REMEMBERED_FOR - 1)
    assert tracker.load([cookie]).visitor.goals == (331,)
    convert.clock.sleep(2)
    assert tracker.load([cookie]).visitor.goals == ()
    later = Visit(tracker, cookie)
    later.convert.goal(331)
    later.respond()
    assert counted(convert.hits()) == ([], [], [])
    convert.clock.sleep(DAY)
    much_later = Visit(tracker, cookie)
    much_later.convert.goal(331)
    much_later.respond()
    assert counted(convert.hits())[1] == [331]


def test_the_process_remembers_a_bounded_number_of_visitors(convert: Convert) -> None:
    tracker = convert.tracker()

    def reach_again_late(number: int) -> bytes:
        """Change a state after the response without any news: it is remembered and no hit is sent."""
        visitor = Visitor(f"{number:032x}", 1_750_000_000).reach(331, 0).present(11, 12, 0)
        visit = Visit(tracker, tracker.write_cookie(visitor)[0])
        cookie = visit.respond()
        assert not visit.convert.goal(331)
        return cookie

    first = reach_again_late(0)
    assert tracker.load([first]).visitor.triplets() == [Exposure(11, 12, (331,))]
    for number in range(1, 10_001):
        last = reach_again_late(number)
    assert tracker.load([first]).visitor.triplets() == [Exposure(11, 12)]
    assert tracker.load([last]).visitor.triplets() == [Exposure(11, 12, (331,))]
    assert convert.hits() == []


def tokens_of(tracker: Tracker, *goals: int) -> str:
    visit = Visit(tracker)
    visit.convert.experiment(11, 12)
    for goal in goals:
        visit.convert.goal(goal)
    visit.respond()
    return visit.convert.token()


def test_a_sale_confirmed_days_later_in_another_process_is_the_same_visitors(convert: Convert) -> None:
    token = tokens_of(convert.tracker(), 331)
    office = convert.tracker()
    assert counted(convert.hits()) == ([11], [331], [])
    convert.clock.sleep(9 * DAY)
    with office.resume(token) as recorder:
        assert recorder.experiments == {11: 12}
        assert not recorder.goal(331)
        assert recorder.goal(35)
        assert recorder.revenue(35, transaction_id="ab12345", value="1599.99", products=10)
    with office.resume(token) as again:
        assert not again.revenue(35, transaction_id="ab12345", value="1599.99", products=10)
    [hit] = convert.hits()
    assert hit.exposures == (Exposure(11, 12, (331, 35)),)
    assert (hit.new_exposures, hit.goals, hit.new_goals) == (0, (35, 331), 1)
    assert hit.transaction is not None


def test_a_resumed_recorder_presents_too_and_goes_on_with_a_new_token(convert: Convert) -> None:
    tracker = convert.tracker()
    with tracker.resume(tokens_of(tracker)) as recorder:
        recorder.experiment(21, 22)
        token = recorder.token()
    assert convert.tracker().resume(token).experiments == {11: 12, 21: 22}
    assert counted(convert.hits())[0] == [11, 21]


def test_a_token_may_stand_in_a_url(convert: Convert) -> None:
    token = tokens_of(convert.tracker(), *range(1, 200))
    assert token.replace(".", "").replace("-", "").replace("_", "").isalnum()
    assert token.isascii()
    assert len(convert.hits()) >= 1


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("", "malformed"),
        ("null", "malformed"),
        ("1.abc.def", "signature"),
        ("2.abc.def", "version"),
        ("1." + "a" * 2**20, "too_long"),
        ("\ud800", "str is no text"),
        ("é", "malformed"),
        (None, "NoneType is no text"),
        (b"1.abc.def", "bytes is no text"),
        (5, "int is no text"),
    ],
)
def test_what_is_no_token_is_refused_with_the_reason(convert: Convert, token: Any, reason: str) -> None:
    with pytest.raises(TokenError) as caught:
        convert.tracker().resume(token)
    assert caught.value.reason == reason


def test_a_cookie_is_no_token_and_a_token_is_no_cookie(convert: Convert) -> None:
    tracker = convert.tracker()
    visit = Visit(tracker)
    visit.convert.goal(331)
    cookie, token = visit.respond(), visit.convert.token()
    with pytest.raises(TokenError):
        tracker.resume(cookie.decode())
    for text in (token, token.translate(str.maketrans("-_", "+/"))):
        assert tracker.load([text.encode()]).visitor.goals == ()
    assert tracker.stats().rejected_cookies == {"signature": 2}
    assert len(convert.hits()) == 1


def test_tokens_and_cookies_of_another_key_are_refused_until_it_is_accepted(convert: Convert) -> None:
    old = convert.tracker()
    visit = Visit(old)
    visit.convert.goal(331)
    cookie, token = visit.respond(), visit.convert.token()
    new = convert.tracker(secret_key=NEW_SECRET)
    assert new.load([cookie]).visitor.goals == ()
    with pytest.raises(TokenError, match=r"\(signature\)"):
        new.resume(token)
    both = convert.tracker(secret_key=NEW_SECRET, previous_keys=[SECRET])
    assert both.resume(token).goals == (331,)
    again = Visit(both, cookie)
    assert not again.convert.goal(331)
    signed_anew = again.respond()
    assert again.wrote
    assert new.load([signed_anew])[0].goals == (331,)
    third = Visit(both, signed_anew)
    third.convert.goal(331)
    third.respond()
    assert not third.wrote
    assert len(convert.hits()) == 1


def test_of_two_cookies_neither_hides_what_the_process_remembers_under_the_other(convert: Convert) -> None:
    tracker = convert.tracker()
    older, newer = tracker.load([]).visitor, tracker.load([]).visitor._replace(visitor_id="f" * 32)
    older, newer = older.reach(1, tracker.now() - 50), newer.reach(2, tracker.now() - 40)
    first, second = (tracker.write_cookie(each)[0] for each in (older, newer))
    late = Visit(tracker, second)
    late.respond()
    late.convert.goal(331)

    both = Visit(tracker, first, second)

    assert not both.convert.goal(331)
    assert [hit.new_goals for hit in convert.hits()] == [1]
