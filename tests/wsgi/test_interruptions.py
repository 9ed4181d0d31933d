"""Responses that go wrong, or end, after the first of their bytes have left."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING
from wsgiref.handlers import SimpleHandler

import pytest

from convert_middleware import ConvertWSGIMiddleware, current

from .drive import call, door, environ, serve

if TYPE_CHECKING:
    from convert_middleware.wsgi import Environ, StartResponse
    from tests.asgi.conftest import Convert

PLAIN = [("Content-Type", "text/plain")]


class LateError(Exception):
    """The application's own."""


def fail() -> None:
    raise LateError


@pytest.mark.parametrize("by_write", [False, True])
def test_an_error_after_the_headers_went_out_arrives_and_takes_nothing_back(
    convert: Convert, by_write: bool
) -> None:
    def app(request: Environ, start_response: StartResponse) -> Iterator[bytes]:
        current().experiment(11, 12)
        current().goal(331)
        write = start_response("200 OK", PLAIN)
        if by_write:
            write(b"begun")
        else:
            yield b"begun"
        try:
            fail()
        except LateError:
            start_response("500 Oops", PLAIN, sys.exc_info())
        yield b"never"

    answer = call(door(convert, app))
    chunks = iter(answer.body)
    with pytest.raises(LateError):
        # Not at once: the server has to know by then that its headers are out.
        answer.written.extend(chunk for chunk in chunks)
    answer.body.close()  # type: ignore[attr-defined] # every body of ours has it
    assert (answer.status, answer.written) == ("200 OK", [b"begun"])
    cookie = answer.cookie()
    (hit,) = convert.hits()
    assert (hit.new_exposures, hit.goals) == (1, (331,))

    def known(request: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        return [str(list(current().goals)).encode()]

    assert serve(door(convert, known), cookie).written == [b"[331]"]


def test_a_server_of_the_standard_library_gets_the_same_error_and_closes_the_page(convert: Convert) -> None:
    closed: list[bool] = []

    class Page:
        def __iter__(self) -> Iterator[bytes]:
            yield b"begun"
            current().goal(332)
            raise LateError

        def close(self) -> None:
            closed.append(True)

    def app(request: Environ, start_response: StartResponse) -> Iterable[bytes]:
        current().experiment(11, 12)
        start_response("200 OK", PLAIN)
        return Page()

    with open("/dev/null", "rb+", buffering=0) as nowhere:  # noqa: PTH123 - a device, not a path of ours
        errors = _Errors()
        handler = SimpleHandler(nowhere, nowhere, errors, environ())  # type: ignore[arg-type] # as servers do
        handler.run(door(convert, app))
    assert "Late" in errors.text
    assert closed == [True]
    (hit,) = convert.hits()
    assert (hit.new_exposures, hit.goals) == (1, (332,))


class _Errors:
    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None:
        """Nothing waits."""


def test_a_client_that_leaves_in_mid_stream_ends_the_generator_and_what_it_recorded_counts(
    convert: Convert,
) -> None:
    ended: list[tuple[int, ...]] = []

    def app(request: Environ, start_response: StartResponse) -> Iterator[bytes]:
        current().experiment(11, 12)
        start_response("200 OK", PLAIN)
        try:
            for goal in range(331, 1000):
                current().goal(goal)
                yield b"chunk"
        except GeneratorExit:
            current().goal(35)  # as an application tidies up
            ended.append(tuple(current().goals))
            raise

    body = call(door(convert, app)).body
    chunks = iter(body)
    assert [next(chunks), next(chunks)] == [b"chunk"] * 2
    body.close()  # type: ignore[attr-defined] # every body of ours has it
    assert ended == [(331, 332, 35)]
    (hit,) = convert.hits()
    assert (hit.new_exposures, hit.goals, hit.new_goals) == (1, (331, 332, 35), 3)


def test_a_generator_that_is_closed_before_its_first_chunk_never_ran_and_nothing_counts(
    convert: Convert,
) -> None:
    def app(request: Environ, start_response: StartResponse) -> Iterator[bytes]:
        current().goal(331)
        start_response("200 OK", PLAIN)
        yield b"chunk"

    answer = call(door(convert, app))
    answer.body.close()  # type: ignore[attr-defined] # as above
    assert answer.starts == 0
    assert convert.hits() == []


def test_a_thousand_doors_built_and_used_leave_nothing_behind(convert: Convert) -> None:
    def app(request: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        return [str(len(current().goals)).encode()]

    tracker = convert.tracker()
    gone = []
    for _ in range(1000):
        built = ConvertWSGIMiddleware(app, tracker=tracker)
        assert serve(built).written == [b"0"]
        gone.append(weakref.ref(built))
        del built
    gc.collect()
    assert not any(reference() for reference in gone)
    assert convert.hits() == []
