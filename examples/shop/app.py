"""The shop: ``uvicorn --factory examples.shop.app:from_env``.

Every handler records on ``request.state.convert`` and goes on; the rest is an ordinary FastAPI site. Without
``CONVERT_ENDPOINT`` it reports to a collector on this machine, never to Convert.

Each response says in the header ``X-Shop-Did`` what the shop itself meant to record, so that the demo can
keep its own book and compare it with what arrived.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import FastAPI, Form, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.templating import Jinja2Templates

from convert_middleware import ConvertMiddleware, Recorder, Settings, Tracker
from examples.shop import ids
from examples.shop.goods import PRODUCTS, Product

R = TypeVar("R", bound=Response)
HERE = Path(__file__).parent
SESSIONS = 10_000  # carts kept in memory; the oldest are forgotten first
MOST = 9  # of one product in a cart
NUMBERS = {str(number): number for number in range(1, MOST + 1)}
WHY = {
    400: "We could not read that form.",
    404: "There is no such page.",
    405: "This page cannot be used that way.",
}


@dataclass(slots=True)
class Cart:
    """What one browser has chosen, and its last order."""

    lines: dict[str, int] = field(default_factory=dict)
    order: Order | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def products(self) -> list[tuple[Product, int]]:
        """What is in it, and how many of each."""
        return [(PRODUCTS[slug], number) for slug, number in self.lines.items()]

    @property
    def count(self) -> int:
        """How many things are in it."""
        return sum(self.lines.values())

    @property
    def total(self) -> Decimal:
        """What they cost."""
        return sum((product.price * number for product, number in self.products), Decimal(0))

    def pay(self) -> Order | None:
        """Make an order of what is in it; None if nothing is, as when two clicks pay at the same time."""
        with self._lock:
            if not self.lines:
                return None
            self.order = Order(secrets.token_hex(6), self.total, self.count)
            self.lines = {}
            return self.order


@dataclass(frozen=True, slots=True)
class Order:
    """What was paid."""

    number: str
    total: Decimal
    count: int


class Counter:
    """The carts of all browsers, and the pages."""

    def __init__(self, collector: str) -> None:
        self._collector = collector
        self._carts: OrderedDict[str, Cart] = OrderedDict()
        self._templates = Jinja2Templates(HERE / "templates")

    def cart(self, request: Request) -> tuple[str, Cart]:
        """Return the browser's cart and the key it has it under."""
        key = request.cookies.get("cart", "")
        if key not in self._carts:
            key = secrets.token_urlsafe(16)
            self._carts[key] = Cart()
            if len(self._carts) > SESSIONS:
                self._carts.popitem(last=False)
        self._carts.move_to_end(key)
        return key, self._carts[key]

    def page(
        self,
        request: Request,
        name: str,
        did: dict[str, Any] | None = None,
        status: int = 200,
        **values: object,
    ) -> HTMLResponse:
        """Return a page, with what was recorded on it in its foot and in ``X-Shop-Did``."""
        key, cart = self.cart(request)
        convert: Recorder = request.state.convert
        told = {
            "experiments": [(ids.NAMES["experiments"][str(e)], (ids.HEADLINES | ids.BUTTONS)[v])
                            for e, v in convert.experiments.items()],
            "goals": [ids.NAMES["goals"][str(goal)] for goal in convert.goals],
        }  # fmt: skip
        context = {"cart": cart, "told": told, "collector": self._collector, **values}
        response = self._templates.TemplateResponse(request, f"{name}.html", context, status_code=status)
        return finished(response, key, did)


def finished(response: R, key: str, did: dict[str, Any] | None = None) -> R:
    """Give the response the cart's cookie and the shop's own account of what it did."""
    response.set_cookie("cart", key, httponly=True, samesite="lax")
    response.headers["X-Shop-Did"] = json.dumps(did or {})
    return response


def create_app(tracker: Tracker, collector: str = "") -> FastAPI:
    """Return the shop.

    Args:
        tracker: What it records with.
        collector: Address of the collector's page, for a link in the foot of every page.
    """
    app = FastAPI(title="Shop", openapi_url=None)
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    counter = Counter(collector)

    @app.get("/")
    def landing(request: Request) -> Response:
        convert: Recorder = request.state.convert
        chosen = convert.experiments.get(ids.HEADLINE) or secrets.choice(list(ids.HEADLINES))
        variation = convert.experiment(ids.HEADLINE, chosen)
        return counter.page(
            request,
            "landing",
            {"presented": {ids.HEADLINE: variation}},
            headline=ids.HEADLINES[variation],
            products=PRODUCTS.values(),
        )

    @app.post("/newsletter")
    def newsletter(request: Request, email: Annotated[str, Form()] = "") -> Response:
        if not (3 <= len(email) <= 200 and "@" in email[1:-1]):
            return counter.page(
                request, "sorry", status=422, why="That does not look like an e-mail address."
            )
        request.state.convert.goal(ids.SIGNED_UP)
        return counter.page(request, "signed_up", {"reached": [ids.SIGNED_UP]})

    @app.get("/product/{slug}")
    def product(request: Request, slug: str) -> Response:
        if slug not in PRODUCTS:
            return counter.page(request, "sorry", status=404, why="We do not sell that.")
        convert: Recorder = request.state.convert
        chosen = convert.experiments.get(ids.BUTTON) or secrets.choice(list(ids.BUTTONS))
        variation = convert.experiment(ids.BUTTON, chosen)
        convert.goal(ids.VIEWED)
        return counter.page(
            request,
            "product",
            {"presented": {ids.BUTTON: variation}, "reached": [ids.VIEWED]},
            product=PRODUCTS[slug],
            button=ids.BUTTONS[variation],
            most=MOST,
        )

    @app.post("/cart")
    def fill_cart(
        request: Request, slug: Annotated[str, Form()] = "", number: Annotated[str, Form()] = "1"
    ) -> Response:
        if slug not in PRODUCTS or number not in NUMBERS:
            return counter.page(
                request, "sorry", status=422, why=f"Please choose a product and 1 to {MOST} of it."
            )
        key, cart = counter.cart(request)
        cart.lines[slug] = min(MOST, cart.lines.get(slug, 0) + NUMBERS[number])
        request.state.convert.goal(ids.FILLED_CART)
        return finished(RedirectResponse("/cart", status_code=303), key, {"reached": [ids.FILLED_CART]})

    @app.get("/cart")
    def show_cart(request: Request) -> Response:
        return counter.page(request, "cart")

    @app.get("/checkout")
    def checkout(request: Request) -> Response:
        if not counter.cart(request)[1].lines:
            return counter.page(request, "sorry", status=409, why="Your cart is empty.")
        request.state.convert.goal(ids.AT_CHECKOUT)
        return counter.page(request, "checkout", {"reached": [ids.AT_CHECKOUT]})

    @app.post("/checkout")
    async def pay(request: Request, name: Annotated[str, Form()] = "") -> Response:
        key, cart = counter.cart(request)
        to_thanks = RedirectResponse("/thanks", status_code=303)
        if cart.lines and not 1 <= len(name.strip()) <= 100:
            return counter.page(request, "sorry", status=422, why="We need a name on the parcel.")
        order = cart.pay()
        if order is None and cart.order is not None:  # a second click on the button
            return finished(to_thanks, key)
        if order is None:
            return counter.page(request, "sorry", status=409, why="Your cart is empty.")
        # Recorded where the money is taken; whether the page with the thanks is ever seen does not matter.
        convert: Recorder = request.state.convert
        convert.goal(ids.BOUGHT)
        convert.revenue(ids.BOUGHT, transaction_id=order.number, value=order.total, products=order.count)
        paid = {"order": order.number, "value": str(order.total), "products": order.count}
        return finished(to_thanks, key, {"reached": [ids.BOUGHT], "paid": paid})

    @app.get("/thanks")
    def thanks(request: Request) -> Response:
        order = counter.cart(request)[1].order
        if order is None:
            return counter.page(request, "sorry", status=404, why="There is no order yet.")
        return counter.page(request, "thanks", order=order)

    @app.get("/debug/stats")
    def stats() -> Response:
        now = tracker.stats()
        return JSONResponse({
            "accepted": now.accepted, "delivered": now.delivered, "waiting": now.waiting,
            "in_flight": now.in_flight, "dead": now.dead, "dropped": now.dropped,
        })  # fmt: skip

    @app.exception_handler(HTTPException)
    def sorry(request: Request, error: HTTPException) -> Response:
        why = WHY.get(error.status_code, "That did not work.")
        return counter.page(request, "sorry", status=error.status_code, why=why)

    @app.exception_handler(RequestValidationError)
    def misread(request: Request, _error: RequestValidationError) -> Response:
        return counter.page(request, "sorry", status=422, why=WHY[400])

    app.add_middleware(ConvertMiddleware, tracker=tracker)
    return app


def from_env() -> FastAPI:
    """Return the shop with the options of the environment, and harmless ones where there are none."""
    harmless = {
        "CONVERT_ID_NUMBER": f"{ids.CUSTOMER}_{ids.PROJECT}",
        "CONVERT_SECRET_KEY": "only-for-trying-things-out",
        "CONVERT_ENDPOINT": "http://127.0.0.1:8070/track/",
    }
    if "CONVERT_PROJECT_ID" in os.environ or "CONVERT_CUSTOMER_ID" in os.environ:
        del harmless["CONVERT_ID_NUMBER"]  # one of them would contradict it
    tracker = Tracker(Settings.from_env({**harmless, **os.environ}))
    return create_app(tracker, os.environ.get("SHOP_COLLECTOR", "http://127.0.0.1:8070/"))
