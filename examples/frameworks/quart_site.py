"""The site in Quart: ``uvicorn examples.frameworks.quart_site:app``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from quart import Quart, Response, send_file

from convert_middleware import ConvertMiddleware, current

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

FILE = Path(__file__).parent / "hello.txt"

app = Quart(__name__)
app.asgi_app = ConvertMiddleware(  # type: ignore[method-assign] # the way Quart documents
    app.asgi_app, project_id="1", customer_id="2"
)


@app.get("/")
async def home() -> str:
    return f"variation {current().experiment(11, 12)}"


@app.post("/signup")
def signup() -> str:
    """Run in a thread, as every handler that is not async."""
    return "first" if current().goal(331) else "again"


@app.post("/buy")
async def buy() -> str:
    current().revenue(35, transaction_id="ab12345", value="1599.99", products=10)
    return "thanks"


async def chunks() -> AsyncIterator[str]:
    yield "one\n"
    current().goal(34)
    yield "two\n"
    yield "three\n"


@app.get("/stream")
async def stream() -> Response:
    return Response(chunks(), mimetype="text/plain")


@app.get("/file")
async def file() -> Response:
    current().goal(33)
    return await send_file(FILE)


@app.get("/plain")
async def plain() -> str:
    return "nothing is recorded here"
