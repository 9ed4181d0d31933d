"""When records count and leave: however a request ends, once, and with nothing awaited on the way out."""

from __future__ import annotations

import contextvars
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from convert_middleware import ConvertMiddleware, current
from convert_middleware.hooks import RequestExcluded, TooLateForCookie
from convert_middleware.model import Exposure

from .drive import Answer, Message, Receive, Scope, Send, ask, http_scope, one_request, page, respond, visit

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from .conftest import Convert

START: Message = {"type": "http.response.start", "status": 200, "headers": []}
MORE: Message = {"type": "http.response.body", "body": b"data: tick\n\n", "more_body": True}
END: Message = {"type": "http.response.body", "body": b"", "more_body": False}


def record(recorder: Any) -> None:
    recorder.experiment(11, 12)
    recorder.goal(331)
    recorder.revenue(35, transaction_id="ab12345", value="1599.99", products=10)


def assert_counted(convert: Convert, *, exposure: bool) -> None:
    """What was paid and reached has arrived once; the exposure only if its response had started."""
    (hit,) = convert.hits()
    assert hit.exposures == ((Exposure(11, 12, (331,)),) if exposure else ())
    assert hit.new_exposures == exposure
    assert (hit.goals, hit.new_goals) == ((331,), 1)
    assert hit.transaction is not None
    assert hit.transaction.transaction_id == "ab12345"


class ShopError(Exception):
    """What a handler raises."""


@pytest.mark.parametrize("sent", [[], [START], [START, MORE], [START, END]], ids=len)
def test_an_exception_arrives_unchanged_and_what_counts_counts(
    convert: Convert, backend: str, sent: list[Message]
) -> None:
    raised = ShopError("out of stock")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        record(current())
        for message in sent:
            await send(message)
        raise raised

    with pytest.raises(ShopError) as caught:
        ask(convert.door(app), backend=backend)

    assert caught.value is raised
    assert caught.value.__context__ is caught.value.__cause__ is None
    assert_counted(convert, exposure=bool(sent))


def test_an_application_that_never_starts_a_response_presented_nothing(convert: Convert) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        record(current())

    answer = ask(convert.door(app))

    assert answer.messages == []
    assert_counted(convert, exposure=False)


def test_a_second_start_reaches_the_server_untouched(convert: Convert) -> None:
    second: Message = {"type": "http.response.start", "status": 500, "headers": [(b"x", b"1")]}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        record(current())
        await send(START)
        current().goal(332)
        await send(second)
        await send(END)

    answer = ask(convert.door(app))

    assert answer.messages[1] is second
    assert second["headers"] == [(b"x", b"1")]
    (hit,) = convert.hits()
    assert hit.new_exposures == 1
    assert hit.goals == (331, 332)


@pytest.mark.parametrize("failing", [0, 1, 2], ids=["before the start", "in mid-stream", "at the end"])
def test_a_client_that_is_gone_costs_only_an_exposure_that_never_left(convert: Convert, failing: int) -> None:
    gone = OSError("connection lost")
    sent: list[Message] = []

    async def send(message: Message) -> None:
        if len(sent) == failing:
            raise gone
        sent.append(message)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        record(current())
        for message in (START, MORE, END):
            await send(message)

    with pytest.raises(OSError, match="connection lost") as caught:
        anyio.run(convert.door(app), http_scope(), one_request(), send)

    assert caught.value is gone
    assert_counted(convert, exposure=failing > 0)


@pytest.mark.parametrize("started", [False, True])
def test_a_cancelled_request_ends_at_once_and_what_counts_counts(
    convert: Convert, backend: str, started: bool
) -> None:
    answer = Answer()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        record(current())
        if started:
            await send(START)
            await send(MORE)
        await anyio.sleep_forever()

    async def main() -> bool:
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(convert.door(app), http_scope(), one_request(), answer.take)
                await anyio.wait_all_tasks_blocked()
                scope.cancel()
        return scope.cancelled_caught

    assert anyio.run(main, backend=backend)
    assert_counted(convert, exposure=started)


class Pause:
    """An await that hands control to whoever drives the coroutine."""

    def __await__(self) -> Any:
        yield "paused"


def driven_by_hand(convert: Convert) -> Coroutine[Any, Any, None]:
    """Return a request that is stopped in mid-stream, without any event loop."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        record(current())
        await send(START)
        await Pause()

    async def serve() -> None:
        await convert.door(app)(http_scope(), one_request(), Answer().take)

    request = serve()
    assert request.send(None) == "paused"
    return request


def test_nothing_is_awaited_on_the_way_out_of_an_exception(convert: Convert) -> None:
    request = driven_by_hand(convert)

    with pytest.raises(ShopError):
        request.throw(ShopError())

    assert_counted(convert, exposure=True)


def test_a_request_whose_server_closes_it_ends_without_a_word(convert: Convert) -> None:
    request = driven_by_hand(convert)

    request.close()

    assert_counted(convert, exposure=True)


def test_a_request_closed_from_another_context_ends_without_a_word(convert: Convert) -> None:
    elsewhere = contextvars.copy_context()  # so that what cannot be undone stays out of the other tests
    request = elsewhere.run(driven_by_hand, convert)

    request.close()

    assert_counted(convert, exposure=True)


def test_the_hit_leaves_with_the_last_body_and_late_records_in_one_more_when_the_app_returns(
    convert: Convert,
) -> None:
    tracker = convert.tracker()
    accepted: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        recorder = current()
        recorder.experiment(11, 12)
        await send(START)
        recorder.goal(331)
        accepted.append(tracker.stats().accepted)
        await send(END)
        accepted.append(tracker.stats().accepted)
        recorder.goal(332)
        recorder.goal(333)
        accepted.append(tracker.stats().accepted)

    ask(ConvertMiddleware(app, tracker=tracker))

    assert accepted == [0, 1, 1]
    first, late = convert.hits()
    assert (first.new_exposures, first.goals, first.new_goals) == (1, (331,), 1)
    assert (late.new_exposures, late.goals, late.new_goals) == (0, (332, 333, 331), 2)
    assert late.exposures == (Exposure(11, 12, (331, 332, 333)),)


def test_late_records_are_merged_into_the_visitors_next_request(convert: Convert) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        current().experiment(11, 12)
        await respond()(send)
        assert current().goal(331)
        assert current().revenue(35, transaction_id="ab12345", value=1)

    tracker = convert.tracker()
    cookie = ask(ConvertMiddleware(app, tracker=tracker)).cookie()
    assert len(convert.hits()) == 2
    again: list[bool] = []

    def repeat(recorder: Any) -> None:
        again.append(recorder.goal(331))
        again.append(recorder.revenue(35, transaction_id="ab12345", value=1))

    merged = ask(ConvertMiddleware(page(repeat), tracker=tracker), cookie=cookie).cookie()

    assert again == [False, False]
    assert convert.hits() == []
    elsewhere = convert.door(page(repeat))  # another process, which has the cookie and nothing else
    ask(elsewhere, cookie=merged)
    assert again == [False] * 4
    assert convert.hits() == []


def test_a_goal_five_minutes_into_ten_of_server_sent_events_arrives_and_counts_once(convert: Convert) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        current().experiment(11, 12)
        await send(START)
        for minute in range(10):
            if minute == 5:
                assert current().goal(331)
            convert.clock.sleep(60)
            await send(MORE)
        await send(END)

    tracker = convert.tracker()
    cookie = ask(ConvertMiddleware(app, tracker=tracker)).cookie()

    (hit,) = convert.hits()
    assert (hit.exposures, hit.goals, hit.new_goals) == ((Exposure(11, 12, (331,)),), (331,), 1)
    ask(ConvertMiddleware(page(lambda recorder: recorder.goal(331)), tracker=tracker), cookie=cookie)
    assert convert.hits() == []


def test_flush_sends_a_streams_records_while_it_goes_on(convert: Convert) -> None:
    tracker = convert.tracker()
    accepted: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(START)
        current().experiment(11, 12)
        for goal in (331, 332):
            current().goal(goal)
            current().flush()
            accepted.append(tracker.stats().accepted)
            await send(MORE)
        current().flush()
        await send(END)

    ask(ConvertMiddleware(app, tracker=tracker))

    assert accepted == [1, 2]
    first, second = convert.hits()
    assert (first.new_exposures, first.goals) == (1, (331,))
    assert (second.new_exposures, second.goals, second.new_goals) == (0, (332, 331), 1)


def test_flush_before_the_start_waits_until_the_exposure_is_presented(convert: Convert) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        current().experiment(11, 12)
        current().goal(331)
        current().flush()
        await respond()(send)

    ask(convert.door(app))

    [hit] = convert.hits()
    assert (hit.exposures, hit.new_exposures, hit.goals) == ((Exposure(11, 12, (331,)),), 1, (331,))


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("others", ["", "; _conv_v=vi:1*sc:1*exp:{11.{v.12-g.{33.1}}}"])
def test_a_visitor_without_a_cookie_who_is_met_only_after_the_start_is_told_of(
    convert: Convert, known: bool, others: str
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond()(send)
        current().goal(331)

    cookie = ask(convert.door(page(lambda recorder: recorder.goal(33)))).cookie() if known else None
    ask(convert.door(app), cookie=f"{cookie or 'theme=dark'}{others}")

    assert len(convert.told(TooLateForCookie)) == (0 if known else 1)


def test_a_request_that_nobody_looked_at_is_not_looked_at_for_the_sake_of_what_its_visitor_is_owed(
    convert: Convert,
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        current().flush()
        await respond()(send)
        current().flush()

    ask(convert.door(app), query=b"convert_disable=true")

    assert convert.hits() == []
    assert convert.told(RequestExcluded) == []


def test_a_background_task_that_raises_after_a_minute_has_still_recorded(convert: Convert) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        current().experiment(11, 12)
        await respond()(send)
        convert.clock.sleep(60)
        current().goal(331)
        raise ShopError

    with pytest.raises(ShopError):
        ask(convert.door(app))

    assert [(hit.new_exposures, hit.new_goals) for hit in convert.hits()] == [(1, 0), (0, 1)]


def test_a_page_that_records_nothing_sends_nothing(convert: Convert) -> None:
    tracker = convert.tracker()

    answer = ask(ConvertMiddleware(page(lambda recorder: recorder.goals), tracker=tracker))

    assert answer.cookies() == []
    assert tracker.stats().accepted == 0


def visitor_with_one_goal(convert: Convert) -> str:
    """Return the cookie of a visitor who was presented 11-12 and reached goal 1."""

    def arrive(recorder: Any) -> None:
        recorder.experiment(11, 12)
        recorder.goal(1)

    cookie = ask(convert.door(page(arrive))).cookie()
    assert len(convert.hits()) == 1
    return cookie


@pytest.mark.parametrize("first_back", [2, 3])
@pytest.mark.parametrize("kept", [2, 3])
def test_two_parallel_responses_lose_no_goal_and_count_none_twice(
    convert: Convert, first_back: int, kept: int
) -> None:
    before = visitor_with_one_goal(convert)
    may_end: dict[int, anyio.Event] = {}
    answers: dict[int, Answer] = {}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        own = int(scope["path"][1:])
        current().goal(own)
        current().goal(4)
        await may_end[own].wait()
        await respond()(send)

    tracker = convert.tracker()
    door = ConvertMiddleware(app, tracker=tracker)

    async def call(own: int) -> None:
        answers[own] = await visit(door, path=f"/{own}", cookie=before)

    async def main() -> None:
        may_end.update({2: anyio.Event(), 3: anyio.Event()})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, 2)
            tasks.start_soon(call, 3)
            await anyio.wait_all_tasks_blocked()
            may_end[first_back].set()
            await anyio.wait_all_tasks_blocked()
            may_end[5 - first_back].set()

    anyio.run(main)

    hits = convert.hits()
    assert sorted(goal for hit in hits for goal in hit.goals[: hit.new_goals]) == [2, 3, 4]

    def repeat(recorder: Any) -> None:
        assert [goal for goal in range(1, 6) if recorder.goal(goal)] == [5]

    after = ask(ConvertMiddleware(page(repeat), tracker=tracker), cookie=answers[kept].cookie())
    (hit,) = convert.hits()
    assert (hit.goals[0], sorted(hit.goals), hit.new_goals) == (5, [1, 2, 3, 4, 5], 1)
    elsewhere = convert.door(page(lambda recorder: [recorder.goal(goal) for goal in range(1, 6)]))
    ask(elsewhere, cookie=after.cookie())
    assert convert.hits() == [], "the cookie holds all of them again"


@pytest.mark.parametrize("presents", [False, True], ids=["reads", "presents again"])
def test_a_slow_read_only_response_after_a_writing_one_sends_no_cookie(
    convert: Convert, presents: bool
) -> None:
    before = visitor_with_one_goal(convert)
    answers: dict[str, Answer] = {}
    gates: list[anyio.Event] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/slow":
            assert current().experiments == {11: 12}
            if presents:
                assert current().experiment(11, 13) == 12
            await gates[0].wait()
        else:
            current().goal(2)
        await respond()(send)

    door = convert.door(app)

    async def call(path: str) -> None:
        answers[path] = await visit(door, path=path, cookie=before)

    async def main() -> None:
        gates.append(anyio.Event())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, "/slow")
            await anyio.wait_all_tasks_blocked()
            await call("/writing")
            gates[0].set()

    anyio.run(main)

    assert len(answers["/writing"].cookies()) == 1
    assert answers["/slow"].headers("set-cookie") == []
    assert [hit.goals for hit in convert.hits()] == [(2, 1)]


def test_reading_with_an_old_cookie_after_a_write_sends_no_cookie(convert: Convert) -> None:
    before = visitor_with_one_goal(convert)
    tracker = convert.tracker()
    ask(ConvertMiddleware(page(lambda recorder: recorder.goal(2)), tracker=tracker), cookie=before)

    answer = ask(ConvertMiddleware(page(lambda recorder: recorder.goals), tracker=tracker), cookie=before)

    assert answer.headers("set-cookie") == []


def test_a_visitor_who_is_forgotten_leaves_no_cookie_and_no_hit(convert: Convert) -> None:
    before = visitor_with_one_goal(convert)

    def forget(recorder: Any) -> None:
        recorder.goal(2)
        recorder.forget()
        recorder.goal(3)

    answer = ask(convert.door(page(forget)), cookie=before)

    (header,) = answer.cookies()
    assert header.startswith("convert_visitor=; Max-Age=0; Path=/;")
    assert convert.hits() == []


def test_the_cookie_is_written_only_when_the_state_changed(convert: Convert) -> None:
    tracker = convert.tracker()

    def arrive(recorder: Any) -> None:
        recorder.experiment(11, 12)
        recorder.goal(1)

    door = ConvertMiddleware(page(arrive), tracker=tracker)
    first = ask(door)
    second = ask(door, cookie=first.cookie())

    assert len(first.cookies()) == 1
    assert second.headers("set-cookie") == []
    assert len(convert.hits()) == 1


def test_a_request_that_follows_the_last_byte_at_once_knows_what_came_too_late_for_the_cookie(
    convert: Convert,
) -> None:
    known: list[tuple[int, ...]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/next":
            known.append(current().goals)
            await respond()(send)
            return
        current().goal(331)
        await send(START)
        current().goal(34)
        await send(END)

    door = convert.door(app)
    answer = Answer()

    async def send(message: Message) -> None:
        await answer.take(message)
        if message is END:  # the visitor has it before the server's call returns
            await visit(door, path="/next", cookie=answer.cookie())

    anyio.run(door, http_scope(), one_request(), send)

    assert known == [(331, 34)]
    assert [hit.new_goals for hit in convert.hits()] == [2]
