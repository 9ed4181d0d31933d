"""WebSockets: what is presented counts with the accept, what is reached counts in any case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocketDisconnect

from convert_middleware import ConvertMiddleware, current
from convert_middleware.model import Exposure

from .drive import OURS, Answer, Message, Receive, Scope, Send, ask, converse, page, receiver, websocket_scope

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

    from .conftest import Convert

CONNECT: Message = {"type": "websocket.connect"}
GONE: Message = {"type": "websocket.disconnect", "code": 1001}


def text(message: str) -> Message:
    return {"type": "websocket.receive", "text": message}


def cookies_of(message: Message) -> list[bytes]:
    return [
        value
        for key, value in message.get("headers", ())
        if key == b"set-cookie" and value.startswith(OURS.encode())
    ]


def replies(*messages: Message) -> Any:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        current().experiment(11, 12)
        current().goal(331)
        for message in messages:
            await send(message)

    return app


def test_an_accepted_socket_counts_and_its_accept_carries_the_state(convert: Convert) -> None:
    accept: Message = {"type": "websocket.accept", "subprotocol": None, "headers": [(b"x-shop", b"1")]}
    end: Message = {"type": "websocket.close", "code": 1000}

    answer = converse(convert.door(replies(accept, end)), CONNECT)

    sent, closed = answer.messages
    assert sent["headers"][0] == (b"x-shop", b"1")
    assert len(cookies_of(sent)) == 1
    assert {key for key, _ in sent["headers"]} == {b"x-shop", b"set-cookie"}, "no cache stores an accept"
    assert accept["headers"] == [(b"x-shop", b"1")]
    assert closed is end
    (hit,) = convert.hits()
    assert (hit.exposures, hit.goals) == ((Exposure(11, 12, (331,)),), (331,))


def test_an_accept_without_headers_carries_the_state_too(convert: Convert) -> None:
    answer = converse(convert.door(replies({"type": "websocket.accept"})), CONNECT)

    assert len(cookies_of(answer.messages[0])) == 1
    assert len(convert.hits()) == 1


def test_a_socket_that_is_closed_before_it_was_accepted_presented_nothing(convert: Convert) -> None:
    end: Message = {"type": "websocket.close", "code": 1008}

    answer = converse(convert.door(replies(end)), CONNECT)

    assert answer.messages == [end]
    (hit,) = convert.hits()
    assert (hit.exposures, hit.goals) == ((), (331,))


def test_a_socket_that_is_denied_with_a_page_presents_that_page(convert: Convert) -> None:
    denial: list[Message] = [
        {"type": "websocket.http.response.start", "status": 403, "headers": [(b"x-shop", b"1")]},
        {"type": "websocket.http.response.body", "body": b"please ", "more_body": True},
        {"type": "websocket.http.response.body", "body": b"log in"},
    ]

    answer = converse(convert.door(replies(*denial)), CONNECT)

    start, *bodies = answer.messages
    assert bodies == denial[1:]
    assert start["status"] == 403
    assert len(cookies_of(start)) == 1
    assert (b"cache-control", b"private") in start["headers"]
    (hit,) = convert.hits()
    assert (hit.new_exposures, hit.goals) == (1, (331,))


LAST_WORDS: dict[str, list[Message]] = {
    "closed": [{"type": "websocket.accept"}, {"type": "websocket.close"}],
    "closed before the accept": [{"type": "websocket.close"}],
    "denied": [
        {"type": "websocket.http.response.start", "status": 403, "headers": []},
        {"type": "websocket.http.response.body", "body": b"no", "more_body": True},
        {"type": "websocket.http.response.body", "body": b"!"},
    ],
}


@pytest.mark.parametrize("messages", LAST_WORDS.values(), ids=LAST_WORDS)
def test_the_hit_leaves_with_the_last_word_even_if_the_handler_goes_on(
    convert: Convert, messages: list[Message]
) -> None:
    tracker = convert.tracker()
    accepted: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        current().goal(331)
        for message in messages:
            await send(message)
            accepted.append(tracker.stats().accepted)

    converse(ConvertMiddleware(app, tracker=tracker), CONNECT)

    assert accepted == [*[0] * (len(messages) - 1), 1]
    assert len(convert.hits()) == 1


def chat() -> Starlette:
    async def endpoint(socket: WebSocket) -> None:
        socket.state.convert.experiment(11, 12)
        await socket.accept()
        try:
            while True:
                goal = await socket.receive_text()
                current().goal(goal)
                if goal == "332":
                    current().flush()
        except WebSocketDisconnect:
            assert current().goal(335)

    return Starlette(routes=[WebSocketRoute("/chat", endpoint)])


def test_goals_during_a_connection_leave_with_flush_and_when_it_ends(convert: Convert) -> None:
    tracker = convert.tracker()
    door = ConvertMiddleware(chat(), tracker=tracker)

    answer = converse(door, CONNECT, text("331"), text("332"), text("333"), GONE, path="/chat")

    flushed, ended = convert.hits()
    assert (flushed.new_exposures, flushed.goals, flushed.new_goals) == (1, (331, 332), 2)
    assert (ended.new_exposures, ended.goals, ended.new_goals) == (0, (333, 335, 331, 332), 2)

    # The accept had left long ago: the process remembers the rest for the visitor's next request.
    cookie = cookies_of(answer.messages[0])[0].decode().partition(";")[0]
    again = ask(ConvertMiddleware(page(lambda recorder: recorder.goal(333)), tracker=tracker), cookie=cookie)
    assert len(again.cookies()) == 1
    assert convert.hits() == []


def test_a_returning_visitor_is_known_on_the_socket(convert: Convert) -> None:
    cookie = ask(convert.door(page(lambda recorder: recorder.experiment(11, 12)))).cookie()
    assert len(convert.hits()) == 1

    answer = converse(convert.door(chat()), CONNECT, GONE, path="/chat", cookie=cookie)

    assert cookies_of(answer.messages[0]) == []
    (hit,) = convert.hits()
    assert (hit.new_exposures, hit.exposures) == (0, (Exposure(11, 12, (335,)),))


@pytest.mark.parametrize("accepts", [False, True])
def test_a_socket_that_breaks_arrives_as_the_same_exception(convert: Convert, accepts: bool) -> None:
    broken = ConnectionResetError("gone")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        current().experiment(11, 12)
        current().goal(331)
        if accepts:
            await send({"type": "websocket.accept"})
        raise broken

    with pytest.raises(ConnectionResetError) as caught:
        converse(convert.door(app), CONNECT)

    assert caught.value is broken
    (hit,) = convert.hits()
    assert (hit.new_exposures, hit.goals) == (int(accepts), (331,))


def test_a_client_that_is_gone_before_the_accept_was_presented_nothing(convert: Convert) -> None:
    async def send(message: Message) -> None:
        raise OSError("connection lost")

    door = convert.door(replies({"type": "websocket.accept"}))

    with pytest.raises(OSError, match="connection lost"):
        anyio.run(door, websocket_scope(), receiver(CONNECT), send)

    (hit,) = convert.hits()
    assert (hit.exposures, hit.goals) == ((), (331,))


def test_sockets_on_trio_count_alike(convert: Convert, backend: str) -> None:
    answer = Answer()

    async def main() -> None:
        scope = websocket_scope(path="/chat")
        await convert.door(chat())(scope, receiver(CONNECT, text("331"), GONE), answer.take)

    anyio.run(main, backend=backend)

    assert [hit.goals for hit in convert.hits()] == [(331, 335)]


def test_a_secure_socket_gets_a_secure_cookie(convert: Convert) -> None:
    answer = converse(convert.door(replies({"type": "websocket.accept"})), CONNECT, scheme="wss")

    assert b"Secure" in cookies_of(answer.messages[0])[0].split(b"; ")
    assert len(convert.hits()) == 1
