"""Event loops come and go; delivery does not care which, how many, or whether any is left."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from convert_middleware import current

from .drive import Answer, Receive, Scope, Send, http_scope, one_request, respond, visit

if TYPE_CHECKING:
    from .conftest import Convert


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    current().goal(scope["path"][1:])
    await anyio.lowlevel.checkpoint()
    await respond()(send)


def test_three_event_loops_in_a_row_use_one_instance(convert: Convert, backend: str) -> None:
    door = convert.door(app)

    for goal in (1, 2, 3):

        async def main(path: str = f"/{goal}") -> None:
            await visit(door, path=path)

        anyio.run(main, backend=backend)

    assert [hit.goals for hit in convert.hits()] == [(1,), (2,), (3,)]


def test_asyncio_run_three_times_with_hits_read_in_between(convert: Convert) -> None:
    door = convert.door(app)

    for goal in (1, 2, 3):
        asyncio.run(visit(door, path=f"/{goal}"))
        assert [hit.goals for hit in convert.hits()] == [(goal,)]


def test_asyncio_and_trio_take_turns_on_one_instance(convert: Convert) -> None:
    door = convert.door(app)

    for goal, backend in enumerate(["asyncio", "trio", "asyncio", "trio"], start=1):

        async def main(path: str = f"/{goal}") -> None:
            await visit(door, path=path)

        anyio.run(main, backend=backend)

    assert [hit.goals for hit in convert.hits()] == [(1,), (2,), (3,), (4,)]


@pytest.mark.parametrize("others", ["asyncio", "trio"])
def test_two_loops_in_two_threads_share_one_instance(convert: Convert, others: str) -> None:
    door = convert.door(app)
    both = threading.Barrier(2, timeout=5)

    def site(backend: str, goals: range) -> None:
        async def main() -> None:
            await anyio.to_thread.run_sync(both.wait)
            for goal in goals:
                await visit(door, path=f"/{goal}")

        anyio.run(main, backend=backend)

    threads = [
        threading.Thread(target=site, args=("asyncio", range(1, 101))),
        threading.Thread(target=site, args=(others, range(101, 201))),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(hit.goals[0] for hit in convert.hits()) == list(range(1, 201))
    assert [thread.name for thread in threading.enumerate()].count("convert_middleware") == 1


def test_a_loop_that_is_closed_before_anything_was_sent_loses_nothing(convert: Convert) -> None:
    held = convert.hold()
    door = convert.door(app)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(visit(door, path="/331"))
    loop.close()
    assert door.tracker.stats().delivered == 0
    held.set()

    assert [hit.goals for hit in convert.hits()] == [(331,)]


def test_a_loop_that_stops_in_mid_request_loses_nothing_that_was_reached(convert: Convert) -> None:
    async def stuck(scope: Scope, receive: Receive, send: Send) -> None:
        current().goal(331)
        await asyncio.get_running_loop().create_future()

    loop = asyncio.new_event_loop()
    request = loop.create_task(_serve(convert.door(stuck)))
    loop.run_until_complete(asyncio.wait([request], timeout=0.01))
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(request)
    loop.close()

    assert [hit.goals for hit in convert.hits()] == [(331,)]


async def _serve(door: object) -> None:
    assert callable(door)
    await door(http_scope(), one_request(), Answer().take)


def test_no_loop_at_all_is_needed(convert: Convert) -> None:
    """A server may drive the coroutine with something that is neither asyncio nor trio."""

    async def plain(scope: Scope, receive: Receive, send: Send) -> None:
        current().goal(331)
        await respond()(send)

    request = visit(convert.door(plain))
    with pytest.raises(StopIteration) as stopped:
        request.send(None)

    assert len(stopped.value.value.cookies()) == 1
    assert [hit.goals for hit in convert.hits()] == [(331,)]
