"""Lifespan: delivery is warm when the site has started, and drained before the server hears it is down."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from convert_middleware import ConvertMiddleware, Tracker, current
from tests.servers import stall

from .conftest import Convert, warnings_of
from .drive import Answer, Message, Receive, Scope, Send, ask, receiver, respond, visit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

STARTUP: Message = {"type": "lifespan.startup"}
SHUTDOWN: Message = {"type": "lifespan.shutdown"}


def delivering() -> bool:
    return any(thread.name == "convert_middleware" for thread in threading.enumerate())


async def site(scope: Scope, receive: Receive, send: Send) -> None:
    """A site with a lifespan, whose pages record the goal named in the path."""
    if scope["type"] == "lifespan":
        for kind in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{kind}"
            await send({"type": f"lifespan.{kind}.complete"})
        return
    current().goal(scope["path"][1:])
    await respond()(send)


async def live(door: ConvertMiddleware, *paths: str, send: Send | None = None) -> Answer:
    """Live through one lifespan with these requests in it, as a server does."""
    answer = Answer()
    up, down = anyio.Event(), anyio.Event()
    states = [STARTUP, SHUTDOWN]

    async def receive() -> Message:
        message = states.pop(0)
        if message is SHUTDOWN:
            up.set()
            await down.wait()
        return message

    async with anyio.create_task_group() as tasks:
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        tasks.start_soon(door, scope, receive, send or answer.take)
        await up.wait()
        for path in paths:
            await visit(door, path=path)
        down.set()
    return answer


def test_messages_of_the_lifespan_pass_verbatim(convert: Convert) -> None:
    messages: list[Message] = [
        {"type": "lifespan.startup.complete", "shop": 1},
        {"type": "lifespan.shutdown.failed", "message": "the till is open"},
    ]
    scope = {"type": "lifespan", "state": {}}

    async def app(given: Scope, receive: Receive, send: Send) -> None:
        assert given is scope
        for message in messages:
            await receive()
            await send(message)

    answer = Answer()
    anyio.run(convert.door(app), scope, receiver(STARTUP, SHUTDOWN), answer.take)

    assert all(sent is given for sent, given in zip(answer.messages, messages, strict=True))
    assert scope == {"type": "lifespan", "state": {}}


def test_delivery_has_started_when_the_server_hears_that_the_site_has(convert: Convert) -> None:
    running: list[tuple[str, bool]] = []

    async def send(message: Message) -> None:
        running.append((message["type"], delivering()))

    door = convert.door(site)
    assert not delivering()

    async def main() -> None:
        await live(door, send=send)

    anyio.run(main)

    assert running[0] == ("lifespan.startup.complete", True)


def test_everything_is_delivered_before_shutdown_complete_is_passed_on(
    convert: Convert, backend: str
) -> None:
    held = convert.hold()
    door = ConvertMiddleware(site, **convert.options())
    convert.trackers.append(door.tracker)
    delivered: list[int] = []

    async def send(message: Message) -> None:
        if message["type"] == "lifespan.shutdown.complete":
            delivered.append(door.tracker.stats().delivered)
            assert not delivering()

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: live(door, *[f"/{goal}" for goal in range(1, 41)], send=send))
            await anyio.wait_all_tasks_blocked()
            assert door.tracker.stats().delivered == 0
            held.set()

    anyio.run(main, backend=backend)

    assert delivered == [40]
    assert len(convert.server.targets) == 40


def test_a_shutdown_that_fails_is_drained_too(convert: Convert) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await fails_to_stop(receive, send)
        else:
            await site(scope, receive, send)

    door = ConvertMiddleware(app, **convert.options())
    convert.trackers.append(door.tracker)

    async def main() -> None:
        await live(door, "/331")

    anyio.run(main)

    assert not delivering()
    assert door.tracker.stats().delivered == 1


def test_a_tracker_that_doors_share_is_drained_with_the_last_of_them(convert: Convert) -> None:
    tracker = convert.tracker()
    doors = [ConvertMiddleware(site, tracker=tracker) for _ in range(2)]
    told: list[tuple[str, bool]] = []

    async def send(message: Message) -> None:
        told.append((message["type"].removeprefix("lifespan."), delivering()))

    async def inner() -> None:
        await live(doors[1], "/1", send=send)

    async def nested(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await inner()
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await site(scope, receive, send)

    async def main() -> None:
        await live(ConvertMiddleware(nested, tracker=tracker), "/2", send=send)

    anyio.run(main)

    assert told == [
        ("startup.complete", True),
        ("startup.complete", True),
        ("shutdown.complete", True),
        ("shutdown.complete", False),
    ]
    assert sorted(hit.goals for hit in convert.hits()) == [(1,), (2,)]


def test_a_tracker_that_doors_share_counts_what_it_cannot_deliver_before_a_signal_ends_the_process(
    convert: Convert,
) -> None:
    """Uvicorn raises SIGTERM again after its shutdown, so that no exit handler runs."""
    convert.server.default = stall()
    tracker = convert.tracker(drain_timeout=0.0)

    async def main() -> None:
        await live(ConvertMiddleware(site, tracker=tracker), "/1", "/2")

    anyio.run(main)
    stats = tracker.stats()

    assert stats.accepted == 2 == sum(stats.dropped.values()) + stats.in_flight
    assert not stats.waiting


def test_hooks_that_buffer_are_flushed_before_shutdown_complete_is_passed_on(convert: Convert) -> None:
    class Buffer:
        def __init__(self) -> None:
            self.flushed = self.kept = 0

        def __call__(self, event: object) -> None:
            self.kept += 1

        def force_flush(self, timeout: float) -> None:
            assert 4.0 < timeout <= 5.0
            self.flushed, self.kept = self.flushed + self.kept, 0

    buffer = Buffer()
    door = ConvertMiddleware(site, **convert.options(hooks=[buffer]))
    convert.trackers.append(door.tracker)
    seen: list[int] = []

    async def send(message: Message) -> None:
        seen.append(buffer.flushed)

    async def main() -> None:
        await live(door, "/331", send=send)

    anyio.run(main)

    assert seen == [0, 3]  # reached, flushed, delivered
    assert not buffer.kept


def test_the_loop_is_free_while_the_rest_is_being_delivered(convert: Convert) -> None:
    held = convert.hold()
    door = ConvertMiddleware(site, **convert.options())
    convert.trackers.append(door.tracker)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: live(door, "/1"))
            await anyio.wait_all_tasks_blocked()
            assert not held.is_set()
            held.set()  # would never be reached if draining held the loop up

    anyio.run(main)

    assert len(convert.hits()) == 1


def test_two_lifespans_in_one_process_deliver_both(convert: Convert, backend: str) -> None:
    door = ConvertMiddleware(site, **convert.options())
    convert.trackers.append(door.tracker)

    for goal in (1, 2, 3):

        async def main(path: str = f"/{goal}") -> None:
            answer = await live(door, path)
            assert [message["type"] for message in answer.messages] == [
                "lifespan.startup.complete",
                "lifespan.shutdown.complete",
            ]

        anyio.run(main, backend=backend)
        assert [hit.goals for hit in convert.hits()] == [(goal,)]


def test_a_server_without_lifespan_delivers_from_the_first_hit_on(convert: Convert) -> None:
    door = convert.door(site)
    assert not delivering()

    ask(door, path="/331")

    assert [hit.goals for hit in convert.hits()] == [(331,)]


async def refuses(scope: Scope, _receive: Receive, send: Send) -> None:
    """A site that knows no lifespan and says so, as Django does."""
    if scope["type"] != "http":
        raise ValueError("http only")
    current().goal(scope["path"][1:])
    await respond()(send)


async def ignores(scope: Scope, receive: Receive, send: Send) -> None:
    """A site that knows no lifespan and returns."""
    if scope["type"] == "http":
        await refuses(scope, receive, send)


@pytest.mark.parametrize(("app", "raised"), [(refuses, ["ValueError"]), (ignores, [])])
def test_the_door_lives_through_a_lifespan_that_the_application_does_not_know_and_says_what_it_raised(
    convert: Convert,
    app: Callable[[Scope, Receive, Send], Awaitable[None]],
    raised: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    door = ConvertMiddleware(app, **convert.options())
    convert.trackers.append(door.tracker)

    async def main() -> None:
        answer = await live(door, "/331")
        assert [message["type"] for message in answer.messages] == [
            "lifespan.startup.complete",
            "lifespan.shutdown.complete",
        ]

    anyio.run(main)

    assert not delivering()
    assert [hit.goals for hit in convert.hits()] == [(331,)]
    assert warnings_of(caplog) == [
        f"The application raised {name} before it took note of its lifespan, and is taken to have none."
        for name in raised
    ]


async def fails_to_start(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


async def raises_at_the_start(receive: Receive, send: Send) -> None:
    await receive()
    raise OSError("no database")


async def fails_to_stop(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.failed", "message": "still busy"})


async def raises_at_the_stop(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    raise OSError("still busy")


@pytest.mark.parametrize("fails", [fails_to_start, raises_at_the_start, fails_to_stop, raises_at_the_stop])
def test_a_lifespan_that_fails_fails_as_if_we_were_not_there(
    convert: Convert, fails: Callable[[Receive, Send], Awaitable[None]]
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await fails(receive, send)

    def outcome(serve: Any) -> tuple[list[Message], str]:
        answer, error = Answer(), ""
        try:
            anyio.run(serve, {"type": "lifespan"}, receiver(STARTUP, SHUTDOWN), answer.take)
        except OSError as raised:
            error = str(raised)
        return answer.messages, error

    assert outcome(convert.door(app)) == outcome(app)


def test_a_server_that_never_answers_holds_shutdown_up_only_for_the_drain_timeout(
    convert: Convert, caplog: pytest.LogCaptureFixture
) -> None:
    convert.server.default = stall()
    door = ConvertMiddleware(site, **convert.options(drain_timeout=0.0))
    convert.trackers.append(door.tracker)

    async def main() -> None:
        answer = await live(door, "/1", "/2")
        assert answer.messages[-1]["type"] == "lifespan.shutdown.complete"

    anyio.run(main)
    stats = door.tracker.stats()

    assert stats.accepted == 2
    assert stats.delivered + sum(stats.dropped.values()) + stats.in_flight == 2
    assert "Tracking stops: 2 hits accepted" in caplog.text
    assert len(warnings_of(caplog)) >= 1


def test_two_doors_on_one_tracker_share_one_thread_and_one_account(convert: Convert) -> None:
    tracker: Tracker = convert.tracker()
    doors = [ConvertMiddleware(site, tracker=tracker) for _ in range(2)]

    ask(doors[0], path="/1")
    ask(doors[1], path="/2")

    assert [hit.goals for hit in convert.hits()] == [(1,), (2,)]
    assert [thread.name for thread in threading.enumerate()].count("convert_middleware") == 1
    assert tracker.stats().accepted == 2


def test_a_second_lifespan_right_after_the_first_delivers_without_waiting_for_its_end(
    convert: Convert,
) -> None:
    door = ConvertMiddleware(site, **convert.options())
    convert.trackers.append(door.tracker)

    async def main() -> None:
        await live(door, "/1")
        await visit(door, path="/2")

    anyio.run(main)
    assert [hit.goals for hit in convert.hits()] == [(1,), (2,)]
