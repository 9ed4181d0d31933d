"""A site in Flask with every kind of response; ``bare`` without the door, ``tracked`` with it."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from flask import Flask, Response, abort, jsonify, redirect, request, send_file, stream_with_context

from convert_middleware import ConvertWSGIMiddleware, OutsideRequestError, current

if TYPE_CHECKING:
    from collections.abc import Iterator

    from werkzeug.wrappers import Response as BaseResponse

FILE = Path(__file__).with_name("__init__.py")

app = Flask(__name__)


@app.before_request
def record() -> None:
    if "record" in request.args:
        with suppress(OutsideRequestError):  # without the door
            current().goal(331)


@app.get("/html")
def html() -> str:
    return "<h1>Größe</h1>"


@app.get("/json")
def json() -> Response:
    return jsonify(name="Größe", sizes=[1, 2, 3])


@app.route("/echo", methods=["POST"])
def echo() -> Response:
    return Response(request.get_data(), status=201, headers={"Location": "/echo/1"}, mimetype="text/plain")


@app.get("/redirect")
def elsewhere() -> BaseResponse:
    return redirect("/html", 303)


@app.get("/missing")
def missing() -> str:
    abort(404)


@app.get("/broken")
def broken() -> str:
    raise RuntimeError("a page that fails")


@app.get("/nothing")
def nothing() -> tuple[str, int]:
    return "", 204


@app.get("/stream")
def stream() -> Response:
    def chunks() -> Iterator[str]:
        yield ""
        for number in range(100):
            yield f"{request.path} {number}\n" * number

    return Response(stream_with_context(chunks()), mimetype="text/csv")


@app.get("/file")
def file() -> Response:
    return send_file(FILE, mimetype="text/plain", max_age=60)


@app.get("/cookie")
def cookie() -> Response:
    response = Response("mine")
    response.set_cookie("mine", "1; a=b", httponly=True)
    response.set_cookie("yours", "ü")
    return response


@app.get("/varying")
def varying() -> Response:
    return Response("by encoding", headers={"Vary": "Accept-Encoding", "Cache-Control": "no-store"})


bare = app.wsgi_app
tracked = ConvertWSGIMiddleware(app.wsgi_app, project_id="1", customer_id="2")
