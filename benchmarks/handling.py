"""Rows 1 and 2: what the middleware adds to a request, against Starlette's SessionMiddleware."""

from __future__ import annotations

import time
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from starlette.middleware.sessions import SessionMiddleware

from benchmarks.figures import Line, compare
from benchmarks.in_process import (
    Environ,
    Receive,
    Scope,
    Send,
    Serve,
    added,
    answer,
    answer_wsgi,
    asgi,
    bare,
    bare_wsgi,
    cpu_times,
    environ,
    headers_of_answer,
    request,
    wsgi,
)
from benchmarks.stalled import stalled_tracker, wait_for_lanes
from benchmarks.visitors import LARGE, SMALL, USUAL, Size, new_goal, session_of, visitors
from convert_middleware import ConvertMiddleware, ConvertWSGIMiddleware
from convert_middleware.cookie import MAX_AGE, CookieCodec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from convert_middleware import Tracker

_SECRET: Final = "a secret of at least sixteen bytes"
_OTHER_COOKIES: Final = b"_ga=GA1.1.1234567890.1700000000; consent=yes; "
_REMEMBERED: Final = (
    10_500  # visitors; a tracker keeps the latest state of at most 10 000, and a busy site has more
)


def idle(*, quick: bool) -> list[Line]:
    """Row 1: the visitor has a cookie and the handler records nothing."""
    rounds, batch = (20, 50) if quick else (400, 100)
    lines = []
    with stalled_tracker(_SECRET) as tracker:
        for size, others, bar in ((USUAL, _OTHER_COOKIES, 0.6), (SMALL, b"", None)):
            ours, theirs = _cookies(size, 1, seed=1)
            apps: dict[str, Serve] = {
                "bare": asgi(bare),
                "ours": asgi(ConvertMiddleware(bare, tracker=tracker)),
                "session": asgi(SessionMiddleware(bare, _SECRET)),
                "bare wsgi": wsgi(bare_wsgi),
                "ours wsgi": wsgi(ConvertWSGIMiddleware(bare_wsgi, tracker=tracker)),
            }
            requests: dict[str, Any] = {
                name: partial(
                    _several,
                    environ if name.endswith("wsgi") else request,
                    others + (theirs if name == "session" else ours)[0],
                    batch,
                )
                for name in apps
            }
            times = cpu_times(apps, requests, rounds)
            what = f"idle request, {size.name} visitor's cookie" + (" and two others" if others else " alone")
            session = added(times, "session")
            lines.append(compare("1", what, "µs", added(times, "ours"), session, bar=bar))
            mine = added(times, "ours wsgi", "bare wsgi")
            lines.append(compare("1", f"WSGI: {what}", "µs", mine, session, bar=bar))
        _expect(tracker.stats().accepted == 0, "the idle handler recorded something")
    return lines


def returning(*, quick: bool) -> list[Line]:
    """Row 2: a visitor comes back and reaches a goal."""
    plan = [(USUAL, 30, 0.75), (SMALL, 30, None), (LARGE, 10, None)]
    rounds, remembered = (10, 200) if quick else (200, _REMEMBERED)
    return [line for size, batch, bar in plan for line in _returning(size, rounds, batch, remembered, bar)]


def _returning(size: Size, rounds: int, batch: int, remembered: int, bar: float | None) -> list[Line]:
    goal = new_goal(size)

    async def reach(scope: Scope, _receive: Receive, send: Send) -> None:
        scope["state"]["convert"].goal(goal)
        await answer(send)

    def reach_wsgi(environ: Environ, start_response: Any) -> list[bytes]:
        environ["convert"].goal(goal)
        return answer_wsgi(start_response)

    async def reach_by_hand(scope: Scope, _receive: Receive, send: Send) -> None:
        goals = scope["session"]["goals"]
        if str(goal) not in goals:
            scope["session"]["goals"] = {**goals, str(goal): int(time.time())}
        await answer(send)

    with stalled_tracker(_SECRET) as tracker:
        middleware = ConvertMiddleware(reach, tracker=tracker)
        _fill(tracker, middleware, remembered)
        before = tracker.stats().accepted
        number = rounds * batch + 1
        ours, theirs = _cookies(size, number, seed=2)
        others, _ = _cookies(size, number, seed=4)  # visitors whom the other door has not seen
        session = SessionMiddleware(reach_by_hand, _SECRET)
        pools = {
            "bare": iter(ours),
            "ours": iter(ours),
            "session": iter(theirs),
            "bare wsgi": iter(others),
            "ours wsgi": iter(others),
        }
        for name, app in (("ours", middleware), ("session", session)):
            names = [key for key, _ in headers_of_answer(app, request(next(pools[name])))]
            _expect(b"set-cookie" in names, f"{name}: the state was not saved")
        apps: dict[str, Serve] = {
            "bare": asgi(bare),
            "ours": asgi(middleware),
            "session": asgi(session),
            "bare wsgi": wsgi(bare_wsgi),
            "ours wsgi": wsgi(ConvertWSGIMiddleware(reach_wsgi, tracker=tracker)),
        }
        requests: dict[str, Any] = {
            name: partial(_next, environ if name.endswith("wsgi") else request, pool, batch)
            for name, pool in pools.items()
        }
        # Requests leave their news to the delivery thread; asking for the account has it written here.
        times = cpu_times(apps, requests, rounds, {"ours": tracker.stats, "ours wsgi": tracker.stats})
        stats = tracker.stats()
        _expect(stats.accepted - before == 2 * number - 1, "not every request handed over a hit")
        _expect(not stats.rejected_cookies, f"cookies were rejected: {stats.rejected_cookies}")
    what = f"returning visitor, {size.name}: {size.experiments} experiments, {size.goals} goals, one new"
    yardstick = added(times, "session")
    lines = [compare("2", what, "µs", added(times, "ours"), yardstick, bar=bar)]
    if bar is not None:
        mine = added(times, "ours wsgi", "bare wsgi")
        lines.append(compare("2", f"WSGI: {what}", "µs", mine, yardstick, bar=bar))
    return lines


def _fill(tracker: Tracker, middleware: ConvertMiddleware, number: int) -> None:
    """Bring the tracker where a busy site has it: its memory of visitors full, every lane waiting."""
    cookies, _ = _cookies(USUAL, number, seed=3)
    for cookie in cookies:
        headers_of_answer(middleware, request(cookie))
    wait_for_lanes(tracker.stats)


def _cookies(size: Size, number: int, seed: int) -> tuple[list[bytes], list[bytes]]:
    """Return the Cookie headers of different visitors for ConvertMiddleware and for SessionMiddleware.

    They are written here and not by the tracker that is measured, which would remember them.
    """
    codec = CookieCodec([_SECRET.encode()], MAX_AGE)
    signer = SessionMiddleware(bare, _SECRET).signer
    ours, theirs = [], []
    for visitor in visitors(size, number, int(time.time()), seed):
        ours.append(b"convert_visitor=" + codec.write(visitor)[0])
        theirs.append(b"session=" + signer.sign(session_of(visitor)))
    return ours, theirs


def _several(make: Callable[[bytes], Any], cookie: bytes, number: int) -> list[Any]:
    return [make(cookie) for _ in range(number)]


def _next(make: Callable[[bytes], Any], pool: Iterator[bytes], number: int) -> list[Any]:
    return [make(_OTHER_COOKIES + cookie) for cookie in islice(pool, number)]


def _expect(true: bool, otherwise: str) -> None:
    if not true:
        raise RuntimeError(otherwise)
