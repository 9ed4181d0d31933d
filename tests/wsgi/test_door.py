"""The WSGI door: what counts, when it counts, and that nothing of the application's own changes."""

from __future__ import annotations

import gc
import sys
import threading
import weakref
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Any
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest

from convert_middleware import ConvertWSGIMiddleware, OutsideRequestError, SettingsError, current
from convert_middleware.model import Exposure

from .drive import call, door, environ, serve

if TYPE_CHECKING:
    from convert_middleware.wsgi import Environ, StartResponse
    from tests.asgi.conftest import Convert

PLAIN = [("Content-Type", "text/plain")]


def shop(request: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Present, reach, sell: by the path."""
    convert = request["convert"]
    assert convert is current()
    if request["PATH_INFO"] == "/":
        convert.experiment(11, 12)
    elif request["PATH_INFO"] == "/buy":
        convert.goal(331)
        convert.revenue(35, transaction_id="ab12345", value="1599.99", products=10)
    start_response("200 OK", PLAIN)
    return [b"page"]


def test_a_visit_and_a_purchase_are_two_hits_and_a_repeated_one_is_none(convert: Convert) -> None:
    app = door(convert, shop)
    cookie = serve(app).cookie()
    (landing,) = convert.hits()
    assert landing.exposures == (Exposure(11, 12),)

    cookie = serve(app, cookie, PATH_INFO="/buy").cookie()
    (purchase,) = convert.hits()
    assert purchase.goals[: purchase.new_goals] == (331,)
    assert purchase.transaction is not None
    assert purchase.exposures == (Exposure(11, 12, (331,)),)

    for path in ("/", "/buy"):
        again = serve(app, cookie, PATH_INFO=path)
        assert again.header("set-cookie") == []
    assert convert.hits() == []


def test_a_response_that_uses_no_state_is_passed_on_as_it_is(convert: Convert) -> None:
    headers = [("Content-Type", "text/plain"), ("X-Own", "ä"), ("Cache-Control", "public")]

    def app(request: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", headers)
        return [b"static"]

    answer = serve(door(convert, app), "convert_visitor=whatever")
    assert answer.headers is headers
    assert convert.hits() == []


def test_a_response_of_one_visitors_own_is_kept_out_of_shared_caches(convert: Convert) -> None:
    def app(request: Environ, start_response: StartResponse) -> Iterable[bytes]:
        current().experiment(11, 12)
        start_response("200 OK", [("Cache-Control", "public, s-maxage=60"), ("X-Own", "ä")])
        return [b""]

    answer = serve(door(convert, app))
    assert answer.header("cache-control") == ["private"]
    assert answer.header("vary") == ["Cookie"]
    assert answer.header("x-own") == ["ä"]


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
def test_what_nobody_looks_at_presents_nothing(convert: Convert, method: str) -> None:
    answer = serve(door(convert, shop), REQUEST_METHOD=method)
    assert answer.header("set-cookie") == []
    assert convert.hits() == []


def test_not_modified_presents_nothing_and_a_redirect_does(convert: Convert) -> None:
    def app(request: Environ, start_response: StartResponse) -> Iterable[bytes]:
        current().experiment(11, 12)
        start_response(request["PATH_INFO"][1:] + " Some", [])
        return []

    tracked = door(convert, app)
    serve(tracked, PATH_INFO="/304")
    assert convert.hits() == []
    serve(tracked, PATH_INFO="/302")
    assert len(convert.hits()) == 1


def test_an_exception_keeps_what_was_paid_and_takes_back_what_was_not_shown(convert: Convert) -> None:
    def app(request: Environ, start_response: StartResponse) -> Iterable[bytes]:
        current().experiment(11, 12)
        current().goal(331)
        raise ZeroDivisionError("the page's own")

    with pytest.raises(ZeroDivisionError, match="the page's own"):
        serve(door(convert, app))
    (hit,) = convert.hits()
    assert (hit.exposures, hit.goals) == ((), (331,))


def test_an_exception_before_the_first_chunk_presents_nothing_and_after_it_does(convert: Convert) -> None:
    def app(request: Environ, start_response: StartResponse) -> Iterator[bytes]:
        current().experiment(11, 12)
        start_response("200 OK", [])
        yield b""
        if request["PATH_INFO"] == "/late":
            yield b"begun"
        raise ZeroDivisionError

    tracked = door(convert, app)
    with pytest.raises(ZeroDivisionError):
        serve(tracked)
    assert convert.hits() == []
    with pytest.raises(ZeroDivisionError):
        serve(tracked, PATH_INFO="/late")
    assert len(convert.hits()) == 1


class Body:
    """A body that notes what becomes of it, and fails where it is told to."""

    def __init__(self, *, iterates: bool = True, closes: bool = True) -> None:
        self.closed = 0
        self._left = [b"", b"one", b"two"]
        self._iterates = iterates
        self._closes = closes

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self._iterates:
            raise LookupError("iterating")
        if not self._left:
            raise StopIteration
        return self._left.pop(0)

    def close(self) -> None:
        self.closed += 1
        if not self._closes:
            raise OSError("closing")


def with_body(body: Any) -> Any:
    def app(request: Environ, start_response: StartResponse) -> Any:
        current().goal(331)
        current().experiment(11, 12)
        start_response("200 OK", PLAIN)
        return body

    return app


@pytest.mark.parametrize(("iterates", "closes"), [(True, True), (True, False), (False, True), (False, False)])
def test_whatever_a_body_raises_arrives_and_it_is_closed_once(
    convert: Convert, iterates: bool, closes: bool
) -> None:
    body = Body(iterates=iterates, closes=closes)
    app = door(convert, with_body(body))
    if iterates and closes:
        assert serve(app).written == [b"one", b"two"]
    else:
        with pytest.raises((LookupError, OSError)) as caught:
            serve(app)
        assert type(caught.value) is (OSError if not closes else LookupError)
    assert body.closed == 1
    (hit,) = convert.hits()
    assert hit.goals == (331,)
    assert bool(hit.exposures) == iterates


def test_a_body_that_is_only_closed_counts(convert: Convert) -> None:
    body = Body()
    answer = call(door(convert, with_body(body)))
    answer.body.close()  # type: ignore[attr-defined] # every body of ours has it
    assert body.closed == 1
    assert len(convert.hits()) == 1


def test_a_body_that_is_never_closed_counts_when_it_is_let_go(convert: Convert) -> None:
    answer = call(door(convert, with_body([b"page"])))
    assert list(answer.body) == [b"page"]
    del answer
    gc.collect()
    assert len(convert.hits()) == 1


def test_a_body_whose_iterator_has_no_close_is_fine(convert: Convert) -> None:
    assert serve(door(convert, with_body((b"a", b"b")))).written == [b"a", b"b"]
    assert len(convert.hits()) == 1


def test_a_list_keeps_its_length_and_a_generator_has_none(convert: Convert) -> None:
    assert len(call(door(convert, with_body([b"page"]))).body) == 1  # type: ignore[arg-type] # as servers do
    generated = call(door(convert, with_body(part for part in (b"a", b"b"))))
    assert not hasattr(generated.body, "__len__")
    for answer in (generated,):
        answer.body.close()  # type: ignore[attr-defined] # as above


def test_a_file_stays_the_object_that_the_server_knows(convert: Convert) -> None:
    file = FileWrapper(BytesIO(b"a file"))
    answer = call(door(convert, with_body(file)), "", **{"wsgi.file_wrapper": FileWrapper})
    assert answer.body is file
    assert len(convert.hits()) == 1


def test_a_file_stays_the_object_that_a_server_knows_whose_wrapper_is_a_function(convert: Convert) -> None:
    """In uWSGI the wrapper is built in, and returns the very file."""
    file, other = BytesIO(b"a file"), BytesIO(b"another")
    asked: list[tuple[object, ...]] = []

    def wrap(*arguments: Any) -> Any:
        asked.append(arguments)
        return arguments[0]

    def app(request: Environ, start_response: StartResponse) -> Any:
        current().goal(331)
        start_response("200 OK", PLAIN)
        wrapped = request["wsgi.file_wrapper"](file, 4096)
        return wrapped if request["PATH_INFO"] == "/file" else other

    site = door(convert, app)
    answer = call(site, "", PATH_INFO="/file", **{"wsgi.file_wrapper": wrap})
    assert answer.body is file
    assert asked == [(file, 4096)]
    assert len(convert.hits()) == 1

    watched = serve(site, "", PATH_INFO="/other", **{"wsgi.file_wrapper": wrap})
    assert watched.body is not other, "a body that the server did not wrap is watched"
    assert watched.written == [b"another"]
    assert len(convert.hits()) == 1


def test_two_projects_leave_a_file_the_object_that_the_server_knows(convert: Convert) -> None:
    file = BytesIO(b"a file")

    def app(request: Environ, start_response: StartResponse) -> Any:
        current().goal(331)
        start_response("200 OK", PLAIN)
        return request["wsgi.file_wrapper"](file)

    site = door(convert, door(convert, app, project_id="70"))
    assert call(site, "", **{"wsgi.file_wrapper": lambda given: given}).body is file
    assert len(convert.hits()) == 1


def test_a_wrapped_file_that_is_not_sent_lives_no_longer_than_without_us(convert: Convert) -> None:
    files: list[weakref.ref[BytesIO]] = []

    def app(request: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("404 Not Found", PLAIN)
        file = request["wsgi.file_wrapper"](BytesIO(b"a file"))
        files.append(weakref.ref(file))
        return [b"not for you"]

    kept = environ("", **{"wsgi.file_wrapper": lambda file: file})
    body = door(convert, app)(kept, lambda *_: list[bytes]().append)
    assert files[0]() is None
    assert list(body) == [b"not for you"]


def test_a_generator_that_starts_its_response_when_iterated_records_as_well(convert: Convert) -> None:
    def app(request: Environ, start_response: StartResponse) -> Iterator[bytes]:
        current().goal(331)
        start_response("200 OK", PLAIN)
        yield b"begun"
        current().goal(332)  # too late for this response's cookie
        yield b"ended"

    tracked = door(convert, app)
    cookie = serve(tracked).cookie()
    (hit,) = convert.hits()
    assert hit.goals == (331, 332)
    serve(tracked, cookie)
    assert convert.hits() == []


def test_chunks_made_in_another_thread_find_their_own_recorder(convert: Convert) -> None:
    def app(request: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        for goal in (331, 332):
            assert current() is request["convert"]
            current().goal(goal)
            yield b"chunk"

    body = call(door(convert, app)).body
    chunks: list[bytes] = []
    thread = threading.Thread(target=lambda: chunks.extend(body))
    thread.start()
    thread.join()
    body.close()  # type: ignore[attr-defined] # as above
    assert chunks == [b"chunk", b"chunk"]
    (hit,) = convert.hits()
    assert hit.goals == (331, 332)


def test_interleaved_requests_do_not_mix_and_nothing_is_current_afterwards(convert: Convert) -> None:
    def app(request: Environ, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        for number in range(3):
            current().goal(int(request["QUERY_STRING"]) + number)
            yield b"chunk"

    tracked = door(convert, app)
    bodies = [iter(call(tracked, QUERY_STRING=f"{first}").body) for first in (100, 200)]
    for _ in range(3):
        for body in bodies:
            next(body)
    for body in bodies:
        body.close()  # type: ignore[attr-defined] # as above
    assert sorted(hit.goals for hit in convert.hits()) == [(100, 101, 102), (200, 201, 202)]
    with pytest.raises(OutsideRequestError):
        current()


def test_starting_twice_after_an_error_sends_the_cookie_once(convert: Convert) -> None:
    def app(request: Environ, start_response: StartResponse) -> Iterable[bytes]:
        current().goal(331)
        start_response("200 OK", PLAIN)
        try:
            print(1 // 0)
        except ZeroDivisionError:
            start_response("500 Oops", PLAIN, sys.exc_info())
        return [b"sorry"]

    answer = serve(door(convert, app))
    assert (answer.status, answer.starts) == ("500 Oops", 2)
    assert len(convert.hits()) == 1
    assert len(answer.header("set-cookie")) == 1


def test_what_is_written_through_write_is_shown(convert: Convert) -> None:
    def app(request: Environ, start_response: StartResponse) -> Iterable[bytes]:
        current().experiment(11, 12)
        write = start_response("200 OK", PLAIN)
        write(b"by hand")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        serve(door(convert, app))
    assert len(convert.hits()) == 1


def test_the_standard_librarys_validator_is_content_on_both_sides(convert: Convert) -> None:
    def within(request: Environ, start_response: StartResponse) -> Iterable[bytes]:
        # The validator wants text under every name without a dot, and ``convert`` is our public name.
        recorder = request.pop("convert")

        def inner(checked: Environ, start: StartResponse) -> Iterable[bytes]:
            return shop({**checked, "convert": recorder}, start)

        inside: Any = validator(inner)
        answered: Iterable[bytes] = inside(request, start_response)
        return answered

    app: Any = validator(door(convert, within))
    answer = serve(app, PATH_INFO="/buy", SCRIPT_NAME="")
    assert answer.written == [b"page"]
    assert len(convert.hits()) == 1


def test_installed_twice_it_counts_once_and_says_so(
    convert: Convert, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = convert.tracker()
    app = ConvertWSGIMiddleware(ConvertWSGIMiddleware(shop, tracker=tracker), tracker=tracker)
    answer = serve(app)
    assert len(answer.header("set-cookie")) == 1
    assert len(convert.hits()) == 1
    assert caplog.text.count("installed twice") == 1


def test_cookies_of_others_and_odd_bytes_do_no_harm(convert: Convert) -> None:
    app = door(convert, shop)
    cookie = serve(app).cookie()
    convert.hits()
    odd = f'{{"json": 1}}; =nameless; a="b; {cookie}; z=\xff\xfe'
    assert serve(app, odd, PATH_INFO="/caf\xc3\xa9\xff").header("set-cookie") == []
    assert convert.hits() == []


def test_options_and_a_tracker_contradict_each_other(convert: Convert) -> None:
    with pytest.raises(SettingsError, match="strict cannot be given together with tracker="):
        ConvertWSGIMiddleware(shop, tracker=convert.tracker(), strict=False)


def test_https_makes_the_cookie_secure(convert: Convert) -> None:
    app = door(convert, shop)
    for scheme in ("http", "https"):
        (line,) = serve(app, **{"wsgi.url_scheme": scheme}).header("set-cookie")
        assert ("Secure" in line) == (scheme == "https")
    assert environ()["wsgi.url_scheme"] == "http"


def test_a_request_that_follows_the_last_chunk_at_once_knows_what_came_too_late_for_the_cookie(
    convert: Convert,
) -> None:
    known: list[tuple[int, ...]] = []

    def app(request: dict[str, Any], start: Any) -> Iterator[bytes]:
        start("200 OK", [])
        yield b"one"
        known.append(current().goals)
        current().goal(34)
        yield b"two"

    def site(request: dict[str, Any], start: Any) -> Iterator[bytes]:
        current().goal(331)
        return app(request, start)

    wrapped = door(convert, site)
    first = call(wrapped)
    chunks = iter(first.body)
    assert [next(chunks), next(chunks)] == [b"one", b"two"]
    list(call(wrapped, first.cookie()).body)  # while the server has yet to close the first

    assert known == [(331,), (331, 34)]


@pytest.mark.parametrize("lazy", [False, True])
def test_when_the_inner_projects_code_does_not_run_the_outer_ones_has_its_recorder(
    convert: Convert, lazy: bool
) -> None:
    def shop(environ: dict[str, Any], start_response: Any) -> Any:
        def pieces() -> Any:
            environ["convert"].goal(33)
            yield b"bought"

        start_response("200 OK", [])
        return pieces() if lazy else list(pieces())

    inner = door(convert, shop, project_id="70")

    def site(environ: dict[str, Any], start_response: Any) -> Any:
        environ["convert"].goal(11)
        body = inner(environ, start_response)
        environ["convert"].goal(12)
        return body

    serve(door(convert, site))

    hits = convert.hits()
    assert sorted((hit.project_id, hit.goals) for hit in hits) == [(1, (11, 12)), (70, (33,))]
