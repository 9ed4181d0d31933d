"""The site in Falcon: ``waitress-serve examples.frameworks.falcon_wsgi_site:app``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from falcon import MEDIA_TEXT, App, Request, Response

from convert_middleware import ConvertWSGIMiddleware, Recorder, current

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE = Path(__file__).parent / "hello.txt"


class Site:
    """Every page is a responder with a suffix of its own."""

    def on_get_home(self, request: Request, response: Response) -> None:
        convert: Recorder = request.env["convert"]
        response.text = f"variation {convert.experiment(11, 12)}"

    def on_post_signup(self, _: Request, response: Response) -> None:
        response.text = "first" if current().goal(331) else "again"

    def on_post_buy(self, _: Request, response: Response) -> None:
        current().revenue(35, transaction_id="ab12345", value="1599.99", products=10)
        response.text = "thanks"

    def on_get_stream(self, _: Request, response: Response) -> None:
        response.stream = self.chunks()

    def chunks(self) -> Iterator[bytes]:
        yield b"one\n"
        current().goal(34)
        yield b"two\n"
        yield b"three\n"

    def on_get_file(self, _: Request, response: Response) -> None:
        current().goal(33)
        response.set_stream(FILE.open("rb"), FILE.stat().st_size)

    def on_get_plain(self, _: Request, response: Response) -> None:
        response.text = "nothing is recorded here"


site = App(media_type=MEDIA_TEXT)
pages = Site()
site.add_route("/", pages, suffix="home")
for name in ("signup", "buy", "stream", "file", "plain"):
    site.add_route(f"/{name}", pages, suffix=name)
app = ConvertWSGIMiddleware(site, project_id="1", customer_id="2")
