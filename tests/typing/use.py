"""The API as a typed site uses it. mypy reads this; nothing runs it."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, assert_type

import httpx
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request  # noqa: TC002 - as a site would write it
from starlette.responses import PlainTextResponse, Response

from convert_middleware import (
    ArgumentError,
    ConvertMiddleware,
    CookieOptions,
    MemoryOutbox,
    Recorder,
    Settings,
    SqliteOutbox,
    Stats,
    Tracker,
    current,
)
from convert_middleware.hooks import Event, GoalReached, HitDropped
from convert_middleware.model import Hit, Transaction
from convert_middleware.testing import Clock, RecordedTracker
from convert_middleware.wire import decode, encode

SECRET = "a secret of at least sixteen bytes"


def hear(event: Event) -> None:
    """Take events as a hook does."""
    match event:
        case GoalReached(goal_id=goal_id):
            assert_type(goal_id, int)
        case HitDropped():
            assert_type(event.reason, str)
            assert_type(event.number, int)
        case _:
            pass


settings = Settings(
    project_id="1",
    customer_id=2,
    secret_key=SECRET,
    previous_keys=(b"an older secret, long enough",),
    cookie=CookieOptions(name="visitor", max_age=86_400, samesite="strict", secure=True),
    outbox=MemoryOutbox(max_hits=10),
    sender=httpx.AsyncClient,
    hooks=[hear],
    strict=False,
)
tracker = Tracker(settings)
Settings(id_number="2_1", secret_key=SECRET, outbox=SqliteOutbox("outbox.db", max_dead=10), deliver=False)
assert_type(Settings.from_env(secret_key=SECRET), Settings)
assert_type(tracker.stats(), Stats)
assert_type(tracker.stats().dropped, dict[str, int])
assert_type(tracker.flush(0.5), bool)
assert_type(tracker.close(), bool)


async def buy(request: Request) -> Response:
    """Record everything there is."""
    convert: Recorder = request.state.convert
    assert_type(convert.experiment(11, "12"), int)
    assert_type(convert.goal("331"), bool)
    convert.goal(331, experiments=[11, "21"])
    for value in (Decimal("1599.99"), "1599.99", 1599, 1599.99):
        assert_type(convert.revenue([35, 36], transaction_id="ab12345", value=value, products=10), bool)
    assert_type(convert.visitor_id, str)
    assert_type(convert.experiments, Mapping[int, int])
    assert_type(convert.goals, tuple[int, ...])
    with tracker.resume(convert.token()) as later:
        assert_type(later, Recorder)
        later.goal(332)
    convert.flush()
    convert.forget()
    return PlainTextResponse("thanks")


site = Starlette(middleware=[Middleware(ConvertMiddleware, tracker=tracker)])
site.add_middleware(ConvertMiddleware, project_id="1", customer_id="2", secret_key=SECRET)

shop = FastAPI()
shop.add_middleware(ConvertMiddleware, id_number="2_1", secret_key=SECRET, cache_guard=False)


@shop.get("/cart")
def cart(convert: Annotated[Recorder, Depends(current)]) -> dict[str, int]:
    """Take the recorder as a dependency."""
    return {"variation": convert.experiment(11, 12)}


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """Answer nothing."""


ConvertMiddleware(bare, project_id=1, customer_id=2, secret_key=SECRET)

try:
    current().goal(331)
except ArgumentError as error:
    assert_type(error.argument, str)

clock = Clock()
clock.now += 3600
recorded = RecordedTracker(settings, clock=clock, consent=lambda request: request.cookie("choice") == "all")
RecordedTracker(id_number="2_1")
ConvertMiddleware(bare, tracker=recorded)
assert_type(recorded.hits, list[Hit])
assert_type(recorded.exposures, list[tuple[int, int]])
assert_type(recorded.goals, list[int])
assert_type(recorded.transactions, list[Transaction])
recorded.assert_exposed(11, "12")
recorded.assert_reached("331", times=1)
recorded.assert_paid("ab12345", value=Decimal("1599.99"))
recorded.assert_nothing_sent()
assert_type(recorded.cookies_for(experiments={11: "12"}, goals=[331, "332"]), dict[str, str])
assert_type(recorded.cookies_for(experiments=current().experiments, goals=331), dict[str, str])
with recorded.request(recorded.cookies_for()) as begun:
    assert_type(begun, Recorder)

hit = decode("?c=2&p=1&g=331&ga=1")
assert_type(hit, Hit)
assert_type(encode(hit), str)
