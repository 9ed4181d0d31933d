"""What stands around the door and within it may be odd, and works as it does without the door."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import pytest

from convert_middleware import current

from .drive import call, door, environ, serve

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from convert_middleware.wsgi import Environ, StartResponse
    from tests.asgi.conftest import Convert

bound: ContextVar[str] = ContextVar("bound", default="nobody")


def reach(_request: Environ, start_response: StartResponse) -> Iterable[bytes]:
    current().goal(331)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"page"]


def test_what_the_application_sets_in_its_context_is_seen_around_the_door(convert: Convert) -> None:
    """As access logs and clients that Django keeps per context need it."""

    def app(_request: Environ, start_response: StartResponse) -> Iterator[bytes]:
        bound.set("ann")
        start_response("200 OK", [])

        def body() -> Iterator[bytes]:
            yield bound.get().encode()
            current().goal(331)
            bound.set("bob")

        return body()

    answer = serve(door(convert, app))

    assert answer.written == [b"ann"]
    assert bound.get() == "bob"
    bound.set("nobody")
    assert [hit.new_goals for hit in convert.hits()] == [1]


@pytest.mark.parametrize(
    "odd",
    [
        {"HTTP_X_REMOTE_USER": "Łukasz"},
        {"HTTP_X_REMOTE_USER": None},
        {"HTTP_COOKIE": None},
        {"PATH_INFO": "/Łódź"},
        {"QUERY_STRING": "q=Ł"},
    ],
    ids=str,
)
def test_an_environ_that_a_layer_around_made_odd_is_read_as_far_as_it_goes(
    convert: Convert, odd: dict[str, Any]
) -> None:
    assert serve(door(convert, reach), **odd).written == [b"page"]
    assert [hit.goals for hit in convert.hits()] == [(331,)]


def test_headers_that_are_not_latin_1_pass_as_they_are(convert: Convert) -> None:
    headers: list[tuple[str, Any]] = [("X-Price", "5 €"), ("X-Number", 5), ("Cache-Control", "public")]

    def app(_request: Environ, start_response: StartResponse) -> Iterable[bytes]:
        current().goal(331)
        start_response("200 OK", headers)
        return [b"page"]

    answer = serve(door(convert, app))

    assert answer.headers[:2] == headers[:2]
    assert answer.header("cache-control") == ["private"]
    assert len(answer.header("set-cookie")) == 1
    assert len(convert.hits()) == 1


def test_exc_info_may_be_given_by_name(convert: Convert) -> None:
    def app(_request: Environ, start_response: Any) -> Iterable[bytes]:
        start_response("500 Oops", [], exc_info=None)
        return [b"page"]

    assert serve(door(convert, app)).status == "500 Oops"


def test_who_calls_again_with_the_same_environ_passes_the_door_again(convert: Convert) -> None:
    inner = door(convert, reach)

    def twice(request: Environ, start_response: StartResponse) -> Iterable[bytes]:
        first = inner(request, start_response)
        close = getattr(first, "close", None)
        assert close is not None
        close()
        return inner(request, start_response)

    request = environ()
    assert [*twice(request, lambda *_: lambda _data: None)] == [b"page"]


def test_a_list_may_be_read_more_than_once(convert: Convert) -> None:
    answer = call(door(convert, reach))

    assert [*answer.body] == [*answer.body] == [b"page"]
    answer.body.close()  # type: ignore[attr-defined]  # ours has it
    assert len(convert.hits()) == 1
