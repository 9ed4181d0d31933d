"""The site in FastAPI: ``uvicorn examples.frameworks.fastapi_site:app``."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI
from fastapi.responses import FileResponse, PlainTextResponse, StreamingResponse

from convert_middleware import ConvertMiddleware, Recorder, current

FILE = Path(__file__).parent / "hello.txt"
Convert = Annotated[Recorder, Depends(current)]

app = FastAPI(default_response_class=PlainTextResponse)
app.add_middleware(ConvertMiddleware, project_id="1", customer_id="2")


@app.get("/")
async def home(convert: Convert) -> str:
    return f"variation {convert.experiment(11, 12)}"


@app.post("/signup")
def signup(convert: Convert) -> str:
    """Run in a thread, as every endpoint that is not async."""
    return "first" if convert.goal(331) else "again"


@app.post("/buy")
async def buy(convert: Convert) -> str:
    convert.revenue(35, transaction_id="ab12345", value="1599.99", products=10)
    return "thanks"


async def chunks(convert: Recorder) -> AsyncIterator[str]:
    yield "one\n"
    convert.goal(34)
    yield "two\n"
    yield "three\n"


@app.get("/stream")
async def stream(convert: Convert) -> StreamingResponse:
    return StreamingResponse(chunks(convert), media_type="text/plain")


@app.get("/file")
async def file(convert: Convert) -> FileResponse:
    convert.goal(33)
    return FileResponse(FILE)


@app.get("/plain")
async def plain() -> str:
    return "nothing is recorded here"
