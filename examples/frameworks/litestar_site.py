"""The site in Litestar: ``uvicorn examples.frameworks.litestar_site:app``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from litestar import Litestar, MediaType, get, post
from litestar.di import NamedDependency, Provide
from litestar.response import File, Stream

from convert_middleware import ConvertMiddleware, Recorder, current

FILE = Path(__file__).parent / "hello.txt"


@get("/", media_type=MediaType.TEXT)
async def home(convert: NamedDependency[Recorder]) -> str:
    return f"variation {convert.experiment(11, 12)}"


@post("/signup", media_type=MediaType.TEXT, status_code=200, sync_to_thread=True)
def signup(convert: NamedDependency[Recorder]) -> str:
    return "first" if convert.goal(331) else "again"


@post("/buy", media_type=MediaType.TEXT, status_code=200)
async def buy(convert: NamedDependency[Recorder]) -> str:
    convert.revenue(35, transaction_id="ab12345", value="1599.99", products=10)
    return "thanks"


async def chunks(convert: Recorder) -> AsyncIterator[str]:
    yield "one\n"
    convert.goal(34)
    yield "two\n"
    yield "three\n"


@get("/stream")
async def stream(convert: NamedDependency[Recorder]) -> Stream:
    return Stream(chunks(convert), media_type=MediaType.TEXT)


@get("/file")
async def file(convert: NamedDependency[Recorder]) -> File:
    convert.goal(33)
    return File(FILE, content_disposition_type="inline")


@get("/plain", media_type=MediaType.TEXT)
async def plain() -> str:
    return "nothing is recorded here"


site = Litestar(
    [home, signup, buy, stream, file, plain],
    dependencies={"convert": Provide(current, sync_to_thread=False)},
)
app = ConvertMiddleware(site, project_id="1", customer_id="2")
