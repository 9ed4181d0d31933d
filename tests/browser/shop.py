"""A small shop for tests with a browser: it notes what it is asked for and can hold its answers back."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING, Final

from starlette.applications import Starlette
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from convert_middleware import ConvertMiddleware, Tracker

if TYPE_CHECKING:
    from starlette.requests import Request

_PATIENCE: Final = 20.0  # seconds that a held answer waits for the others
_PAGE: Final = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<link rel="icon" href="data:,">{head}</head><body><h1>{title}</h1><p id="variation">{variation}</p>
<a href="/goal">goal</a> <a href="/buy">buy</a> <a href="/">landing</a>
<script>addEventListener("pageshow", (event) => {{ window.restored = event.persisted }})</script>
</body></html>"""
_AHEAD: Final = """<script type="speculationrules">
{"prerender": [{"source": "list", "urls": ["/PATH"], "eagerness": "immediate"}]}</script>"""
# A page that follows its link when the shop says so, for a browser that nobody drives.
_FOLLOWS: Final = """<script>setInterval(async () => {
  if (await (await fetch("/go")).text() === "yes") location.href = "/PATH";
}, 100)</script>"""
# What a page that may be loaded ahead does to be counted when somebody sees it.
_TELLS: Final = """<script>
const seen = () => fetch(`/seen?${performance.getEntriesByType("navigation")[0].activationStart}`);
if (document.prerendering) document.addEventListener("prerenderingchange", seen, {once: true});
else seen();
</script>"""


class Shop:
    """The shop.

    Args:
        tracker: Ours.
    """

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self.url = ""
        self.takes = 0.0  # seconds for each page
        self.asked: list[tuple[str, str]] = []  # path and Sec-Purpose of every request
        self.go = False  # whether the page that waits for it follows its link
        self.activated: list[
            float
        ] = []  # milliseconds after which a page loaded ahead was shown; 0: it was not
        self._numbers = count(12)
        self._pairs: dict[str, asyncio.Barrier] = {}
        routes = [
            Route("/", self._landing),
            Route("/goal", self._goal),
            Route("/buy", self._buy),
            Route("/ahead-of/{path}", self._ahead),
            Route("/telling", self._telling),
            Route("/seen", self._seen),
            Route("/go", self._go),
            Route("/plain", self._plain),
            Route("/choice/{choice}", self._choose),
        ]
        self.app = Starlette(routes=routes)
        self.app.add_middleware(ConvertMiddleware, tracker=tracker)

    def pair(self, path: str) -> None:
        """Answer at this path when two have asked, and both at once."""
        self._pairs[path] = asyncio.Barrier(2)

    def unpair(self, path: str) -> None:
        """Answer everybody at once again."""
        del self._pairs[path]

    async def _landing(self, request: Request) -> Response:
        return await self._page(request, "landing", present=True)

    async def _goal(self, request: Request) -> Response:
        request.state.convert.goal(331)
        return await self._page(request, "goal")

    async def _buy(self, request: Request) -> Response:
        request.state.convert.goal(332)
        request.state.convert.revenue(35, transaction_id="ab12345", value="1599.99", products=10)
        return await self._page(request, "thanks")

    async def _ahead(self, request: Request) -> Response:
        head = _AHEAD + (_FOLLOWS if request.url.query == "follow" else "")
        return await self._page(request, "ahead", head=head.replace("PATH", request.path_params["path"]))

    async def _telling(self, request: Request) -> Response:
        request.state.convert.goal(331)
        return await self._page(request, "telling", head=_TELLS)

    async def _seen(self, request: Request) -> Response:
        request.state.convert.goal(333)
        self.activated.append(float(request.url.query))
        return await self._page(request, "seen")

    async def _go(self, request: Request) -> Response:
        return PlainTextResponse("yes" if self.go else "no")

    async def _plain(self, request: Request) -> Response:
        return await self._page(request, "plain")

    async def _choose(self, request: Request) -> Response:
        response = await self._page(request, "chosen")
        response.set_cookie("choice", request.path_params["choice"])
        return response

    async def _page(self, request: Request, title: str, *, present: bool = False, head: str = "") -> Response:
        path = request.url.path
        self.asked.append((path, request.headers.get("sec-purpose", "")))
        variation = request.state.convert.experiment(11, next(self._numbers)) if present else ""
        await asyncio.sleep(self.takes)
        if (pair := self._pairs.get(path)) is not None:
            async with asyncio.timeout(_PATIENCE):
                await pair.wait()
        return HTMLResponse(_PAGE.format(title=title, variation=variation, head=head))
