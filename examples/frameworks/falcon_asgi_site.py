"""The site in Falcon with async handlers: ``uvicorn examples.frameworks.falcon_asgi_site:app``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from falcon import MEDIA_TEXT
from falcon.asgi import App, Request, Response

from convert_middleware import ConvertMiddleware, Recorder, current

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Site:
    """Every page is a responder with a suffix of its own."""

    async def on_get_home(self, request: Request, response: Response) -> None:
        convert: Recorder = request.scope["state"]["convert"]
        response.text = f"variation {convert.experiment(11, 12)}"

    async def on_post_signup(self, _: Request, response: Response) -> None:
        response.text = "first" if current().goal(331) else "again"

    async def on_post_buy(self, _: Request, response: Response) -> None:
        current().revenue(35, transaction_id="ab12345", value="1599.99", products=10)
        response.text = "thanks"

    async def on_get_stream(self, _: Request, response: Response) -> None:
        response.stream = self.chunks()

    async def chunks(self) -> AsyncIterator[bytes]:
        yield b"one\n"
        current().goal(34)
        yield b"two\n"
        yield b"three\n"

    async def on_get_plain(self, _: Request, response: Response) -> None:
        response.text = "nothing is recorded here"


class Visited:
    """Note who asks for a file; Falcon's static routes have no handler to do it in."""

    async def process_request(self, request: Request, _: Response) -> None:
        if request.path == "/file":
            current().goal(33)


site = App(media_type=MEDIA_TEXT, middleware=[Visited()])
pages = Site()
site.add_route("/", pages, suffix="home")
for name in ("signup", "buy", "stream", "plain"):
    site.add_route(f"/{name}", pages, suffix=name)
site.add_static_route("/file", Path(__file__).parent, fallback_filename="hello.txt")
app = ConvertMiddleware(site, project_id="1", customer_id="2")
