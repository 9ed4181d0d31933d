"""The site in Flask: ``waitress-serve examples.frameworks.flask_site:app``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flask import Flask, Response, send_file

from convert_middleware import ConvertWSGIMiddleware, current

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE = Path(__file__).parent / "hello.txt"

app = Flask(__name__)
app.wsgi_app = ConvertWSGIMiddleware(  # type: ignore[method-assign] # the way Flask documents
    app.wsgi_app, project_id="1", customer_id="2"
)


@app.get("/")
def home() -> str:
    return f"variation {current().experiment(11, 12)}"


@app.post("/signup")
def signup() -> str:
    return "first" if current().goal(331) else "again"


@app.post("/buy")
def buy() -> str:
    current().revenue(35, transaction_id="ab12345", value="1599.99", products=10)
    return "thanks"


def chunks() -> Iterator[str]:
    yield "one\n"
    current().goal(34)
    yield "two\n"
    yield "three\n"


@app.get("/stream")
def stream() -> Response:
    return Response(chunks(), mimetype="text/plain")


@app.get("/file")
def file() -> Response:
    current().goal(33)
    return send_file(FILE)


@app.get("/plain")
def plain() -> str:
    return "nothing is recorded here"
