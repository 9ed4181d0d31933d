"""The site in Bottle: ``waitress-serve examples.frameworks.bottle_site:app``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bottle import Bottle, request, response, static_file

from convert_middleware import ConvertWSGIMiddleware, Recorder, current

if TYPE_CHECKING:
    from collections.abc import Iterator

FOLDER = Path(__file__).parent

site = Bottle()
app = ConvertWSGIMiddleware(site, project_id="1", customer_id="2")


@site.get("/")
def home() -> str:
    convert: Recorder = request.environ["convert"]
    return f"variation {convert.experiment(11, 12)}"


@site.post("/signup")
def signup() -> str:
    return "first" if current().goal(331) else "again"


@site.post("/buy")
def buy() -> str:
    current().revenue(35, transaction_id="ab12345", value="1599.99", products=10)
    return "thanks"


@site.get("/stream")
def stream() -> Iterator[str]:
    response.content_type = "text/plain"
    yield "one\n"
    current().goal(34)
    yield "two\n"
    yield "three\n"


@site.get("/file")
def file() -> object:
    current().goal(33)
    return static_file("hello.txt", root=FOLDER)


@site.get("/plain")
def plain() -> str:
    return "nothing is recorded here"
