"""The site in BlackSheep: ``uvicorn examples.frameworks.blacksheep_site:app``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from blacksheep import Application, Response, StreamedContent, get, post, text
from blacksheep.server.responses import ContentDispositionType
from blacksheep.server.responses import file as send_file

from convert_middleware import ConvertMiddleware, current

FILE = Path(__file__).parent / "hello.txt"

site = Application()
app = ConvertMiddleware(site, project_id="1", customer_id="2")


@get("/")
async def home() -> Response:
    return text(f"variation {current().experiment(11, 12)}")


@post("/signup")
async def signup() -> Response:
    return text("first" if current().goal(331) else "again")


@post("/buy")
async def buy() -> Response:
    current().revenue(35, transaction_id="ab12345", value="1599.99", products=10)
    return text("thanks")


async def chunks() -> AsyncIterator[bytes]:
    yield b"one\n"
    current().goal(34)
    yield b"two\n"
    yield b"three\n"


@get("/stream")
async def stream() -> Response:
    return Response(200, content=StreamedContent(b"text/plain", chunks))


@get("/file")
async def file() -> Response:
    current().goal(33)
    return send_file(str(FILE), "text/plain", content_disposition=ContentDispositionType.INLINE)


@get("/plain")
async def plain() -> Response:
    return text("nothing is recorded here")
