"""What a request goes through at the door: its own recorder, its own state, and nothing of anybody else's."""

from __future__ import annotations

import contextvars
import gc
import threading
import weakref
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from convert_middleware import (
    ConvertMiddleware,
    OutsideRequestError,
    Recorder,
    Settings,
    SettingsError,
    Tracker,
    current,
)
from convert_middleware.model import Exposure

from .conftest import Convert, warnings_of
from .drive import Answer, Message, Receive, Scope, Send, ask, http_scope, one_request, page, respond, visit

if TYPE_CHECKING:
    from collections.abc import Callable


def test_two_interleaved_requests_record_for_their_own_visitors(convert: Convert, backend: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        own = int(scope["path"][1:])
        current().experiment(11, own)
        await arrived[own].wait()
        scope["state"]["convert"].goal(own)
        await respond()(send)

    door = convert.door(app)
    answers: dict[int, Answer] = {}

    async def call(own: int) -> None:
        answers[own] = await visit(door, path=f"/{own}")

    async def main() -> None:
        arrived.update({1: anyio.Event(), 2: anyio.Event()})
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call, 1)
            tasks.start_soon(call, 2)
            await anyio.wait_all_tasks_blocked()
            arrived[2].set()
            await anyio.wait_all_tasks_blocked()
            arrived[1].set()

    arrived: dict[int, anyio.Event] = {}
    anyio.run(main, backend=backend)

    assert [(hit.exposures, hit.goals) for hit in convert.hits()] == [
        ((Exposure(11, 2, (2,)),), (2,)),
        ((Exposure(11, 1, (1,)),), (1,)),
    ]
    assert answers[1].cookie() != answers[2].cookie()


def test_a_hundred_concurrent_requests_are_not_mixed(convert: Convert) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        own = int(scope["path"][1:])
        current().experiment(own, own)
        await anyio.lowlevel.checkpoint()
        current().goal(own)
        await anyio.lowlevel.checkpoint()
        current().revenue(own, transaction_id=f"order {own}", value=own)
        await respond()(send)

    door = convert.door(app)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for own in range(1, 101):
                tasks.start_soon(lambda path: visit(door, path=path), f"/{own}")

    anyio.run(main)

    hits = {hit.goals[0]: hit for hit in convert.hits()}
    assert sorted(hits) == list(range(1, 101))
    for own, hit in hits.items():
        assert hit.exposures == (Exposure(own, own, (own,)),)
        assert hit.transaction is not None
        assert hit.transaction.transaction_id == f"order {own}"


def test_a_server_that_shares_one_state_between_requests_mixes_no_visitors(convert: Convert) -> None:
    shared: dict[str, Any] = {"pool": object()}
    seen: list[Recorder] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        own = int(scope["path"][1:])
        seen.append(scope["state"]["convert"])
        assert scope["state"]["convert"] is current()
        assert scope["state"]["pool"] is shared["pool"]
        await anyio.lowlevel.checkpoint()
        scope["state"]["convert"].goal(own)
        await respond()(send)

    door = convert.door(app)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for own in (1, 2, 3):
                tasks.start_soon(lambda path: visit(door, path=path, state=shared), f"/{own}")

    anyio.run(main)

    assert len(set(map(id, seen))) == 3
    assert sorted(hit.goals for hit in convert.hits()) == [(1,), (2,), (3,)]


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda scope: scope.pop("state"), id="missing"),
        pytest.param(lambda scope: scope.update(state=None), id="none"),
        pytest.param(lambda scope: scope.update(state=MappingProxyType({"pool": 1})), id="read-only"),
    ],
)
def test_a_server_without_a_state_of_its_own_gets_one(
    convert: Convert, change: Callable[[dict[str, Any]], object]
) -> None:
    scope = http_scope()
    change(scope)
    given = dict(scope.get("state") or {})

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["state"] == {**given, "convert": current()}
        scope["state"]["convert"].goal(331)
        await respond()(send)

    answer = Answer()
    anyio.run(convert.door(app), scope, one_request(), answer.take)

    assert answer.status == 200
    assert [hit.goals for hit in convert.hits()] == [(331,)]


def test_a_state_that_is_no_mapping_is_left_alone_and_current_still_works(convert: Convert) -> None:
    state = object()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["state"] is state
        current().goal(331)
        await respond()(send)

    assert ask(convert.door(app), state=state).status == 200
    assert [hit.goals for hit in convert.hits()] == [(331,)]


@pytest.mark.parametrize("headers", [None, (), [(b"cookie", b"\xff=\xfe;;=;convert_visitor")]])
def test_a_request_without_readable_headers_is_a_new_visitor(convert: Convert, headers: object) -> None:
    scope = http_scope()
    del scope["headers"]
    if headers is not None:
        scope["headers"] = headers
    answer = Answer()

    anyio.run(convert.door(page(lambda recorder: recorder.goal(331))), scope, one_request(), answer.take)

    assert len(answer.cookies()) == 1
    assert [hit.new_goals for hit in convert.hits()] == [1]


@pytest.mark.parametrize("name", [b"sec-gpc", b"Sec-GPC"])
@pytest.mark.parametrize("pair", [tuple, list])
def test_a_no_of_the_browser_is_heard_however_a_server_writes_headers(
    convert: Convert, pair: Callable[[tuple[bytes, bytes]], Any], name: bytes
) -> None:
    site = convert.door(page(lambda recorder: None))
    visitor = ask(ConvertMiddleware(page(lambda recorder: recorder.goal(331)), tracker=site.tracker)).cookie()
    lines = [(b"host", b"shop.example"), (b"cookie", visitor.encode()), (name, b"1")]

    answer = ask(site, headers=[pair(line) for line in lines])

    assert "Max-Age=0" in answer.cookies()[0]


def test_receive_is_handed_on_as_the_same_object(convert: Convert) -> None:
    handed: list[Receive] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        handed.append(receive)

    receive = one_request()
    for kind in ("http", "websocket", "shop.custom"):
        anyio.run(convert.door(app), {"type": kind, "headers": []}, receive, Answer().take)

    assert handed == [receive] * 3


def test_a_connection_of_an_unknown_type_passes_as_it_is(convert: Convert) -> None:
    scope = {"type": "shop.custom"}
    answer = Answer()

    async def app(given: Scope, receive: Receive, send: Send) -> None:
        assert given is scope
        assert given == {"type": "shop.custom"}
        assert send == answer.take

    anyio.run(convert.door(app), scope, one_request(), answer.take)


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda state: state.pop("convert"), id="deleted"),
        pytest.param(lambda state: state.update(convert=None), id="replaced"),
        pytest.param(lambda state: state.clear(), id="state cleared"),
    ],
)
def test_a_handler_that_spoils_the_state_loses_nothing_it_recorded(
    convert: Convert, spoil: Callable[[dict[str, Any]], object]
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["convert"].experiment(11, 12)
        spoil(scope["state"])
        current().goal(331)
        await respond()(send)

    answer = ask(convert.door(app))

    assert len(answer.cookies()) == 1
    assert [hit.goals for hit in convert.hits()] == [(331,)]


def test_a_handler_that_sets_a_cookie_of_our_name_keeps_its_own_and_is_warned(
    convert: Convert, caplog: pytest.LogCaptureFixture
) -> None:
    own = (b"Set-Cookie", b"convert_visitor=mine; Path=/")
    door = convert.door(page(lambda recorder: recorder.goal(331), headers=[own]))

    answer = ask(door)

    assert answer.headers("set-cookie") == ["convert_visitor=mine; Path=/"]
    assert [hit.goals for hit in convert.hits()] == [(331,)]
    assert len(warnings_of(caplog)) == 1
    assert "convert_visitor" in warnings_of(caplog)[0]


def test_a_cookie_whose_name_only_begins_like_ours_is_not_mistaken_for_it(convert: Convert) -> None:
    other = (b"set-cookie", b"convert_visitor_theme=dark")

    answer = ask(convert.door(page(lambda recorder: recorder.goal(331), headers=[other])))

    assert len(answer.headers("set-cookie")) == 2
    assert len(answer.cookies()) == 1


def test_nothing_of_a_request_is_current_for_the_next_one_on_its_connection(convert: Convert) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        recorders.append(current())
        current().goal(331)
        await respond()(send)

    door = convert.door(app)
    recorders: list[Recorder] = []

    async def connection() -> None:
        """Serve three requests in one task, as a server does that keeps a task per connection."""
        for _ in range(3):
            await visit(door)
            with pytest.raises(OutsideRequestError):
                current()

    anyio.run(connection)

    assert len(set(map(id, recorders))) == 3
    assert [hit.new_goals for hit in convert.hits()] == [1, 1, 1]


def test_a_recorder_kept_beyond_its_request_sends_what_it_records_at_once(convert: Convert) -> None:
    kept: list[tuple[Recorder, contextvars.Context]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["convert"].experiment(11, 12)
        kept.append((current(), contextvars.copy_context()))
        await respond()(send)

    ask(convert.door(app))
    assert [hit.new_exposures for hit in convert.hits()] == [1]
    ((recorder, context),) = kept

    assert recorder.goal(331)
    assert [hit.goals for hit in convert.hits()] == [(331,)]
    assert context.run(lambda: current().goal(332))
    assert [hit.new_goals for hit in convert.hits()] == [1]


def test_an_exposure_recorded_after_its_response_was_withheld_never_counts(convert: Convert) -> None:
    kept: list[Recorder] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        kept.append(current())
        await respond(status=304)(send)

    ask(convert.door(app))
    kept[0].experiment(11, 12)
    kept[0].goal(331)

    assert [(hit.exposures, hit.goals) for hit in convert.hits()] == [((), (331,))]


def test_a_goal_recorded_in_a_thread_while_the_last_of_the_body_leaves_is_never_lost(
    convert: Convert,
) -> None:
    within, go_on = threading.Event(), threading.Event()

    class Clock:
        def __call__(self) -> float:
            if threading.current_thread() is recording:
                within.set()
                go_on.wait(5)  # the thread is in the midst of recording
            return 1_750_000_000.0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert current().goals == ()
        recorders.append(current())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        recording.start()
        within.wait(5)
        await send({"type": "http.response.body", "body": b"x"})
        go_on.set()
        recording.join()

    recorders: list[Recorder] = []
    recording = threading.Thread(target=lambda: recorders[0].goal(331))
    tracker = Tracker(Settings(**convert.options()), clock=Clock())
    convert.trackers.append(tracker)
    ask(ConvertMiddleware(app, tracker=tracker))

    assert sum(hit.new_goals for hit in convert.hits()) == 1


def test_records_of_a_thread_that_races_with_the_end_of_the_request_are_never_lost(convert: Convert) -> None:
    rounds = 300

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        recorder = current()
        thread = threading.Thread(target=lambda: [recorder.goal(goal) for goal in range(1, 6)])
        threads.append(thread)
        await respond()(send)
        thread.start()

    threads: list[threading.Thread] = []
    door = convert.door(app)

    async def main() -> None:
        for _ in range(rounds):
            await visit(door)

    anyio.run(main)
    for thread in threads:
        thread.join()

    assert sum(hit.new_goals for hit in convert.hits()) == rounds * 5


def test_a_request_leaves_no_reference_cycle_behind(convert: Convert) -> None:
    gone: list[weakref.ref[Recorder]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        recorder = scope["state"]["convert"]
        recorder.goal(331)
        gone.append(weakref.ref(recorder))
        await respond()(send)

    door = convert.door(app)

    async def main() -> None:
        await visit(door)

    gc.disable()
    try:
        anyio.run(main)
        assert gone[0]() is None
    finally:
        gc.enable()


def test_a_broken_part_of_ours_never_breaks_the_page(
    convert: Convert, caplog: pytest.LogCaptureFixture
) -> None:
    """No input is known that makes the codec fail, so a clock that fails stands in for what is not known."""
    tracker = convert.tracker()
    answers: list[Answer] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        current().goal(331)
        convert.clock.now = float("nan")
        headers = ((key, value) for key, value in [(b"content-type", b"text/plain")])
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"hello"})

    answers.append(ask(ConvertMiddleware(app, tracker=tracker)))
    convert.clock.now = 1_750_000_000.0

    assert answers[0].headers("content-type") == ["text/plain"]
    assert answers[0].body == b"hello"
    assert answers[0].cookies() == []
    assert "The visitor cookie could not be set" in warnings_of(caplog)[0]


def test_a_tracker_and_options_together_are_refused(convert: Convert) -> None:
    with pytest.raises(SettingsError, match="project_id cannot be given together with tracker="):
        ConvertMiddleware(page(lambda recorder: None), tracker=convert.tracker(), project_id="1")


def test_an_unknown_option_is_refused_by_name() -> None:
    options: Any = {"project": "1"}
    with pytest.raises(SettingsError, match=r"project is no option; did you mean 'project_id'"):
        ConvertMiddleware(page(lambda recorder: None), **options)


def test_messages_reach_the_server_one_by_one_and_nothing_is_held_back(convert: Convert) -> None:
    order: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        current().goal(331)
        for number in range(3):
            order.append(f"app {number}")
            message: Message = {"type": "http.response.body", "body": b"x", "more_body": number < 2}
            if number == 0:
                message = {"type": "http.response.start", "status": 200, "headers": []}
            await send(message)

    async def send(message: Message) -> None:
        order.append(message["type"])

    anyio.run(convert.door(app), http_scope(), one_request(), send)

    assert order == [
        "app 0", "http.response.start", "app 1", "http.response.body", "app 2", "http.response.body",
    ]  # fmt: skip
