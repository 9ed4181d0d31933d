"""A FastAPI site: endpoints of every kind record through the state, ``current()`` and a dependency."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any

import anyio
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import FileResponse, RedirectResponse, StreamingResponse
from fastapi.testclient import TestClient

from convert_middleware import ConvertMiddleware, Recorder, current
from convert_middleware.model import Exposure

from .conftest import Convert, warnings_of
from .drive import Answer, App, ask, converse, http_scope, one_request

Tracking = Annotated[Recorder, Depends(current)]


class ShopError(Exception):
    """What an endpoint raises."""


def in_a_plain_function(goal: int) -> None:
    current().goal(goal)


async def also_async(convert: Tracking) -> Recorder:
    convert.experiment(11, 12)
    return convert


def also_sync(convert: Tracking) -> Recorder:
    convert.goal(1)
    return convert


def shop(**options: Any) -> FastAPI:
    app = FastAPI(**options)

    @app.get("/async")
    async def in_the_loop(request: Request) -> str:
        assert request.state.convert is current()
        request.state.convert.experiment(11, 12)
        in_a_plain_function(331)
        return "async"

    @app.get("/sync")
    def in_a_thread(request: Request) -> str:
        assert threading.current_thread() is not threading.main_thread()
        assert request.state.convert is current()
        request.state.convert.experiment(11, 12)
        in_a_plain_function(331)
        return "sync"

    @app.get("/depends")
    async def by_dependency(convert: Tracking) -> list[int]:
        convert.experiment(11, 12)
        convert.goal(331)
        return list(convert.goals)

    @app.get("/both")
    def both(
        first: Annotated[Recorder, Depends(also_async)], second: Annotated[Recorder, Depends(also_sync)]
    ) -> str:
        assert first is second is current()
        in_a_plain_function(331)
        return "both"

    @app.get("/background")
    async def background(convert: Tracking, tasks: BackgroundTasks) -> str:
        convert.experiment(11, 12)
        convert.goal(331)
        tasks.add_task(in_a_plain_function, 332)
        tasks.add_task(asyncio_goal, 333)
        return "thank you"

    @app.get("/background/broken")
    async def broken_background(convert: Tracking, tasks: BackgroundTasks) -> str:
        convert.experiment(11, 12)
        tasks.add_task(in_a_plain_function, 331)
        tasks.add_task(broken)
        return "thank you"

    @app.get("/stream")
    async def stream(convert: Tracking) -> StreamingResponse:
        convert.experiment(11, 12)

        async def lines() -> AsyncIterator[str]:
            for goal in (331, 332):
                current().goal(goal)
                yield f"{goal}\n"

        return StreamingResponse(lines())

    @app.get("/stream/sync")
    def sync_stream(convert: Tracking) -> StreamingResponse:
        convert.experiment(11, 12)

        def lines() -> Iterator[str]:
            for goal in (331, 332):
                in_a_plain_function(goal)
                yield f"{goal}\n"

        return StreamingResponse(lines())

    @app.get("/file")
    async def file(convert: Tracking) -> FileResponse:
        convert.experiment(11, 12)
        convert.goal(331)
        return FileResponse(Path(__file__))

    @app.get("/file/plain")
    async def plain_file() -> FileResponse:
        return FileResponse(Path(__file__))

    @app.get("/redirect")
    async def redirect(convert: Tracking) -> RedirectResponse:
        convert.goal(331)
        return RedirectResponse("/async", status_code=303)

    @app.get("/missing")
    async def missing(convert: Tracking) -> None:
        convert.experiment(11, 12)
        convert.goal(331)
        raise HTTPException(404)

    @app.get("/error")
    async def error(convert: Tracking) -> None:
        convert.experiment(11, 12)
        convert.goal(331)
        raise ShopError("out of stock")

    @app.get("/bad")
    async def bad(convert: Tracking) -> None:
        convert.goal(331)
        convert.goal("12a")

    @app.websocket("/socket")
    async def socket(socket: WebSocket, convert: Tracking) -> None:
        convert.experiment(11, 12)
        await socket.accept()
        await socket.send_text("hello")
        convert.goal(await socket.receive_text())
        await socket.close()

    return app


async def asyncio_goal(goal: int) -> None:
    await asyncio.sleep(0)
    current().goal(goal)


async def broken() -> None:
    raise ShopError("the mail server is down")


@pytest.fixture
def site(convert: Convert) -> FastAPI:
    app = shop()
    app.add_middleware(ConvertMiddleware, tracker=convert.tracker())
    return app


PRESENTED = (Exposure(11, 12, (331,)),)


@pytest.mark.parametrize("path", ["/async", "/sync", "/depends", "/file"])
def test_every_kind_of_endpoint_makes_one_hit_and_one_cookie(
    convert: Convert, site: FastAPI, path: str
) -> None:
    first = ask(site, path=path)
    second = ask(site, path=path, cookie=first.cookie())

    assert first.status == second.status == 200
    assert second.cookies() == []
    (hit,) = convert.hits()
    assert (hit.exposures, hit.new_exposures, hit.goals, hit.new_goals) == (PRESENTED, 1, (331,), 1)


def test_a_sync_endpoint_records_in_a_thread_while_the_async_part_records_too(
    convert: Convert, site: FastAPI
) -> None:
    ask(site, path="/both")

    (hit,) = convert.hits()
    assert hit.new_exposures == 1
    assert sorted(hit.goals) == [1, 331]
    assert hit.new_goals == 2


def test_parts_of_one_request_may_record_from_threads_and_tasks_at_once(convert: Convert) -> None:
    app = FastAPI()

    def record(start: int) -> None:
        for goal in range(start, start + 50):
            current().goal(goal)

    async def record_async(start: int) -> None:
        for goal in range(start, start + 50):
            current().goal(goal)
            await asyncio.sleep(0)

    @app.get("/")
    async def endpoint() -> str:
        await asyncio.gather(
            *[asyncio.to_thread(record, start) for start in (1, 101, 201)],
            *[record_async(start) for start in (301, 401)],
        )
        return "done"

    app.add_middleware(ConvertMiddleware, tracker=convert.tracker())
    ask(app)

    (hit,) = convert.hits()
    assert hit.new_goals == len(set(hit.goals)) == 250


def test_background_tasks_record_in_one_more_hit_that_the_next_visit_knows_of(
    convert: Convert, site: FastAPI
) -> None:
    answer = ask(site, path="/background")

    first, late = convert.hits()
    assert (first.exposures, first.goals) == (PRESENTED, (331,))
    assert (late.new_exposures, late.goals, late.new_goals) == (0, (332, 333, 331), 2)
    again = ask(site, path="/background", cookie=answer.cookie())
    assert convert.hits() == []
    assert len(again.cookies()) == 1, "what was remembered is saved now"


def test_a_background_task_that_raises_takes_no_record_with_it(convert: Convert, site: FastAPI) -> None:
    with pytest.raises(ShopError):
        ask(site, path="/background/broken")

    assert [(hit.new_exposures, hit.goals) for hit in convert.hits()] == [(1, ()), (0, (331,))]


@pytest.mark.parametrize("path", ["/stream", "/stream/sync"])
def test_a_streamed_body_records_while_it_is_sent(convert: Convert, site: FastAPI, path: str) -> None:
    answer = ask(site, path=path)

    assert answer.body == b"331\n332\n"
    (hit,) = convert.hits()
    assert (hit.new_exposures, hit.goals, hit.new_goals) == (1, (331, 332), 2)


@pytest.mark.parametrize("path", ["/file", "/file/plain"])
def test_a_file_still_leaves_by_pathsend_where_the_server_can(
    convert: Convert, site: FastAPI, path: str
) -> None:
    answer = ask(site, path=path, extensions={"http.response.pathsend": {}})

    assert [message["type"] for message in answer.messages] == [
        "http.response.start",
        "http.response.pathsend",
    ]
    assert answer.messages[1]["path"] == str(Path(__file__))
    assert len(convert.hits()) == len(answer.cookies()) == (path == "/file")


def test_a_file_without_records_has_the_headers_it_has_without_us(convert: Convert, site: FastAPI) -> None:
    ours, bare = ask(site, path="/file/plain"), ask(shop(), path="/file/plain")

    assert ours.start == bare.start
    assert ours.body == bare.body


def test_a_head_request_of_a_page_presents_nothing(convert: Convert) -> None:
    app = FastAPI()

    @app.api_route("/", methods=["GET", "HEAD", "OPTIONS"])
    async def endpoint(convert: Tracking) -> str:
        convert.experiment(11, 12)
        return "page"

    app.add_middleware(ConvertMiddleware, tracker=convert.tracker())

    for method, counted in (("HEAD", 0), ("OPTIONS", 0), ("GET", 1)):
        answer = ask(app, method=method)
        assert len(answer.cookies()) == len(convert.hits()) == counted


def test_a_redirect_carries_the_cookie_to_the_next_page(convert: Convert, site: FastAPI) -> None:
    answer = ask(site, path="/redirect")
    ask(site, path="/redirect", cookie=answer.cookie())

    assert answer.status == 303
    assert [hit.goals for hit in convert.hits()] == [(331,)]


def test_an_http_error_is_a_response_like_any_other(convert: Convert, site: FastAPI) -> None:
    answer = ask(site, path="/missing")

    assert answer.status == 404
    assert len(answer.cookies()) == 1
    assert [(hit.exposures, hit.goals) for hit in convert.hits()] == [(PRESENTED, (331,))]


def failed(app: App, path: str, error: type[Exception], said: str) -> Answer:
    """Return what came back from a request whose exception must still reach the server."""
    answer = Answer()
    with pytest.raises(error, match=said):
        anyio.run(app, http_scope(path=path), one_request(), answer.take)
    return answer


@pytest.mark.parametrize("debug", [False, True])
def test_an_error_page_outside_the_door_presented_nothing_but_the_goal_counts(
    convert: Convert, debug: bool
) -> None:
    """Starlette's own error page is made outside every added middleware, so we never see it."""
    app = shop(debug=debug)
    app.add_middleware(ConvertMiddleware, tracker=convert.tracker())

    answer = failed(app, "/error", ShopError, "out of stock")

    assert answer.status == 500
    assert (b"out of stock" in answer.body) is debug
    assert answer.headers("set-cookie") == []
    assert [(hit.exposures, hit.goals) for hit in convert.hits()] == [((), (331,))]


@pytest.mark.parametrize("debug", [False, True])
def test_an_error_page_inside_the_door_is_a_response_like_any_other(convert: Convert, debug: bool) -> None:
    answer = failed(convert.door(shop(debug=debug)), "/error", ShopError, "out of stock")

    assert answer.status == 500
    assert (b"out of stock" in answer.body) is debug
    assert len(answer.cookies()) == 1
    assert [(hit.exposures, hit.goals) for hit in convert.hits()] == [(PRESENTED, (331,))]


def test_a_bad_argument_fails_loudly_by_default_and_the_rest_still_counts(
    convert: Convert, site: FastAPI
) -> None:
    failed(site, "/bad", ValueError, "goal_id='12a'")

    assert [hit.goals for hit in convert.hits()] == [(331,)]


def test_a_bad_argument_is_only_logged_where_the_page_must_go_on(
    convert: Convert, caplog: pytest.LogCaptureFixture
) -> None:
    answer = ask(convert.door(shop(), strict=False), path="/bad")

    assert answer.status == 200
    assert [hit.goals for hit in convert.hits()] == [(331,)]
    assert "goal_id" in warnings_of(caplog)[0]


def test_a_websocket_route_records_with_the_same_dependency(convert: Convert, site: FastAPI) -> None:
    said = {"type": "websocket.receive", "text": "331"}

    answer = converse(site, {"type": "websocket.connect"}, said, path="/socket")

    assert [message["type"] for message in answer.messages] == [
        "websocket.accept",
        "websocket.send",
        "websocket.close",
    ]
    (hit,) = convert.hits()
    assert (hit.exposures, hit.goals) == (PRESENTED, (331,))


def test_a_mounted_site_with_a_door_of_its_own_counts_once(
    convert: Convert, site: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    outer = FastAPI()
    outer.mount("/shop", site)
    outer.add_middleware(ConvertMiddleware, tracker=convert.tracker())

    answer = ask(outer, path="/shop/depends")
    ask(outer, path="/shop/depends", cookie=answer.cookie())

    assert len(answer.headers("set-cookie")) == 1
    assert [hit.exposures for hit in convert.hits()] == [PRESENTED]
    assert len(warnings_of(caplog)) == 1


def test_a_site_under_test_by_its_own_client_drains_when_the_client_leaves(convert: Convert) -> None:
    app = shop()
    app.add_middleware(ConvertMiddleware, **convert.options())

    with TestClient(app) as client:
        assert client.get("/depends").json() == [331]
        assert client.get("/depends").headers.get("set-cookie") is None, "the client kept our cookie"

    assert len(convert.server.targets) == 1
