"""What of the application's messages the door may change: our headers on the start, and nothing else."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from convert_middleware import ConvertMiddleware, current
from convert_middleware.model import Exposure

from .drive import OURS, Answer, Message, Receive, Scope, Send, ask, facts, http_scope, one_request, page

if TYPE_CHECKING:
    from .conftest import Convert

ENDINGS: dict[str, list[Message]] = {
    "one body": [{"type": "http.response.body", "body": b"hello"}],
    "no body key": [{"type": "http.response.body"}],
    "several bodies": [
        {"type": "http.response.body", "body": b"hel", "more_body": True},
        {"type": "http.response.body", "body": b"lo", "more_body": False},
    ],
    "pathsend": [{"type": "http.response.pathsend", "path": "/srv/picture.png"}],
    "zerocopysend": [
        {"type": "http.response.zerocopysend", "file": 7, "count": 100, "more_body": True},
        {"type": "http.response.zerocopysend", "file": 7, "offset": 100, "more_body": False},
    ],
    "push in between": [
        {"type": "http.response.push", "path": "/style.css", "headers": []},
        {"type": "http.response.body", "body": b"hello"},
    ],
}


def sends(*messages: Message) -> Any:
    """Return an application that records goal 331 and then sends these messages."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        current().goal(331)
        for message in messages:
            await send(message)

    return app


START: Message = {"type": "http.response.start", "status": 200, "headers": []}


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
def test_every_way_to_end_a_response_passes_untouched_and_completes_it_once(
    convert: Convert, ending: list[Message]
) -> None:
    before = deepcopy(ending)
    waiting_after: list[int] = []
    tracker = convert.tracker()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        current().goal(331)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for message in ending:
            waiting_after.append(tracker.stats().accepted)
            await send(message)
        waiting_after.append(tracker.stats().accepted)

    answer = ask(ConvertMiddleware(app, tracker=tracker))

    assert answer.messages[1:] == ending == before
    assert all(sent is given for sent, given in zip(answer.messages[1:], ending, strict=True))
    assert waiting_after == [*[0] * len(ending), 1], "the hit leaves with the last message, not earlier"
    assert [hit.goals for hit in convert.hits()] == [(331,)]


def test_a_response_with_trailers_is_complete_with_the_last_of_them(convert: Convert) -> None:
    messages: list[Message] = [
        {**START, "trailers": True},
        {"type": "http.response.body", "body": b"hello"},
        {"type": "http.response.trailers", "headers": [(b"a", b"1")], "more_trailers": True},
        {"type": "http.response.trailers", "headers": [(b"b", b"2")], "more_trailers": False},
    ]
    tracker = convert.tracker()
    accepted: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        current().goal(331)
        for message in messages:
            await send(message)
            accepted.append(tracker.stats().accepted)

    answer = ask(ConvertMiddleware(app, tracker=tracker))

    assert answer.messages[1:] == messages[1:]
    assert facts(answer.start) == facts(messages[0])
    assert accepted == [0, 0, 0, 1]


def test_what_comes_before_the_start_passes_untouched_and_gets_no_cookie(convert: Convert) -> None:
    early: list[Message] = [
        {"type": "http.response.debug", "info": {"template": "home.html", "context": {}}},
        {"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]},
        {"type": "http.response.start", "status": 103, "headers": [(b"link", b"</style.css>")]},
        {"type": "shop.unknown", "more_body": False},
    ]
    before = deepcopy(early)

    answer = ask(convert.door(sends(*early, START, *ENDINGS["one body"])))

    assert answer.messages[:4] == before
    assert len(answer.messages) == 6
    final = answer.messages[4]
    assert [key for key, _ in final["headers"]].count(b"set-cookie") == 1
    assert [hit.goals for hit in convert.hits()] == [(331,)]


def test_unknown_messages_pass_as_the_same_objects_in_order(convert: Convert) -> None:
    messages: list[Message] = [
        {"type": "shop.first"},
        START,
        {"type": "shop.second", "body": object()},
        {"type": "http.response.body", "body": b"hello"},
        {"type": "shop.third"},
    ]

    answer = ask(convert.door(sends(*messages)))

    assert [message["type"] for message in answer.messages] == [message["type"] for message in messages]
    for number in (0, 2, 3, 4):
        assert answer.messages[number] is messages[number]
    assert len(convert.hits()) == 1


PAIR = (b"x-shop", b"1")
HEADERS: dict[str, Any] = {
    "an empty list": [],
    "a tuple": (PAIR, (b"content-type", b"text/html")),
    "lists as pairs": [list(PAIR), [b"Cache-Control", b"public, max-age=60"]],
    "upper-case names": [(b"X-Shop", b"1"), (b"VARY", b"Accept"), (b"SET-COOKIE", b"theme=dark")],
    "non-latin bytes": [(b"x-shop", "grün €".encode()), (b"x-odd", b"\x80\xff")],
    "repeated": [PAIR, PAIR, (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")],
}
OF_THE_GUARD = (b"vary", b"cache-control")


def _others(headers: Any) -> list[tuple[bytes, bytes]]:
    """Return the headers that neither the cookie nor the cache guard is about, in order."""
    return [
        (key, value)
        for key, value in headers
        if key.lower() not in OF_THE_GUARD and not value.startswith(OURS.encode())
    ]


@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS)
def test_exactly_one_cookie_of_ours_is_added_and_nothing_else_changes(convert: Convert, headers: Any) -> None:
    start: Message = {"type": "http.response.start", "status": 201, "headers": headers, "shop": object()}
    before = deepcopy(headers)

    answer = ask(convert.door(sends(start, *ENDINGS["one body"])))

    assert facts(answer.start) == facts(start)
    assert _others(answer.start["headers"]) == [tuple(pair) for pair in _others(before)]
    assert len(answer.cookies()) == 1
    assert start["headers"] is headers
    assert headers == before, "the application's own headers are not changed"
    assert len(answer.headers("vary")) == len(answer.headers("cache-control")) == 1


def test_a_start_without_headers_gets_only_ours(convert: Convert) -> None:
    start: Message = {"type": "http.response.start", "status": 200}

    answer = ask(convert.door(sends(start, *ENDINGS["one body"])))

    assert sorted(key for key, _ in answer.start["headers"]) == [b"cache-control", b"set-cookie", b"vary"]
    assert start == {"type": "http.response.start", "status": 200}


@pytest.mark.parametrize("records", [True, False])
@pytest.mark.parametrize("cache_guard", [True, False])
def test_headers_from_a_generator_all_arrive(convert: Convert, records: bool, cache_guard: bool) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        recorder = scope["state"]["convert"]
        assert recorder.goals == ()
        if records:
            recorder.goal(331)
        headers = (pair for pair in [PAIR, (b"content-type", b"text/html")])
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body"})

    answer = ask(convert.door(app, cache_guard=cache_guard))

    assert _others(answer.start["headers"]) == [PAIR, (b"content-type", b"text/html")]
    assert len(answer.cookies()) == records


def test_a_generator_of_headers_that_fails_is_the_applications_own_error(convert: Convert) -> None:
    def broken() -> Any:
        yield PAIR
        raise LookupError("no such header")

    start: Message = {"type": "http.response.start", "status": 200, "headers": broken()}

    with pytest.raises(LookupError, match="no such header"):
        ask(convert.door(sends(start)))


def test_headers_that_are_no_bytes_reach_the_server_as_they_are(convert: Convert) -> None:
    wrong = [("content-type", "text/html"), ("vary", "Accept")]
    start: Message = {"type": "http.response.start", "status": 200, "headers": wrong}

    answer = ask(convert.door(sends(start, *ENDINGS["one body"])))

    assert answer.messages[0] == start
    assert [hit.goals for hit in convert.hits()] == [(331,)]


def test_headers_from_a_generator_are_not_even_read_where_nothing_is_recorded(convert: Convert) -> None:
    generator = (pair for pair in [PAIR])
    start: Message = {"type": "http.response.start", "status": 200, "headers": generator}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start)
        await send({"type": "http.response.body"})

    answer = ask(convert.door(app))

    assert answer.messages[0] is start
    assert list(generator) == [PAIR]


def test_a_list_that_all_responses_share_never_grows(convert: Convert) -> None:
    shared = [(b"server", b"shop"), (b"vary", b"Accept"), (b"cache-control", b"public")]
    kept = list(shared)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        current().goal(331)
        await send({"type": "http.response.start", "status": 200, "headers": shared})
        await send({"type": "http.response.body"})

    door = convert.door(app)
    answers = [ask(door) for _ in range(3)]

    assert shared == kept
    assert [len(answer.headers("set-cookie")) for answer in answers] == [1, 1, 1]
    assert [answer.headers("vary") for answer in answers] == [["Accept, Cookie"]] * 3


RESPONSES = {
    "GET 200": ("GET", 200, True),
    "POST 303": ("POST", 303, True),
    "GET 302": ("GET", 302, True),
    "GET 204": ("GET", 204, True),
    "GET 404": ("GET", 404, True),
    "GET 500": ("GET", 500, True),
    "GET 304": ("GET", 304, False),
    "HEAD 200": ("HEAD", 200, False),
    "OPTIONS 200": ("OPTIONS", 200, False),
    "OPTIONS 204": ("OPTIONS", 204, False),
}


@pytest.mark.parametrize(("method", "status", "counts"), RESPONSES.values(), ids=RESPONSES)
def test_an_exposure_counts_only_where_a_page_was_presented(
    convert: Convert, method: str, status: int, counts: bool
) -> None:
    door = convert.door(page(lambda recorder: recorder.experiment(11, 12), status=status))

    answer = ask(door, method=method)

    assert answer.status == status
    assert [hit.exposures for hit in convert.hits()] == [(Exposure(11, 12),)] * counts
    assert len(answer.cookies()) == counts


@pytest.mark.parametrize(("method", "status", "counts"), RESPONSES.values(), ids=RESPONSES)
def test_goals_and_transactions_count_whatever_the_method_and_status(
    convert: Convert, method: str, status: int, counts: bool
) -> None:
    def record(recorder: Any) -> None:
        recorder.experiment(11, 12)
        recorder.goal(331)
        recorder.revenue(35, transaction_id="ab12345", value="1599.99", products=10)

    door = convert.door(page(record, status=status))

    answer = ask(door, method=method)
    again = ask(convert.door(page(record)), cookie=answer.cookie())

    first, *further = convert.hits()
    assert first.goals == (331,)
    assert first.transaction is not None
    assert first.transaction.transaction_id == "ab12345"
    assert first.exposures == ((Exposure(11, 12, (331,)),) if counts else ())
    if counts:
        assert further == []
        assert again.cookies() == []
    else:
        assert [hit.new_exposures for hit in further] == [1], "it is presented only now"
        assert [hit.new_goals for hit in further] == [0]


def test_a_cookie_goes_with_https_only_where_the_page_came_over_https(convert: Convert) -> None:
    door = convert.door(page(lambda recorder: recorder.goal(331)))

    (plain,), (sure,) = ask(door).cookies(), ask(door, scheme="https").cookies()

    assert "Secure" not in plain.split("; ")
    assert "Secure" in sure.split("; ")
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(plain.split("; ")) & set(sure.split("; "))


def test_a_send_that_fails_for_the_start_is_the_servers_own_error(convert: Convert) -> None:
    answer = Answer()

    async def send(message: Message) -> None:
        raise OSError("connection lost")

    with pytest.raises(OSError, match="connection lost"):
        anyio.run(convert.door(sends(START)), http_scope(), one_request(), send)

    assert answer.messages == []
    assert [hit.goals for hit in convert.hits()] == [(331,)]
