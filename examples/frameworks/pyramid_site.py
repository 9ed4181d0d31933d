"""The site in Pyramid: ``waitress-serve examples.frameworks.pyramid_site:app``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pyramid.config import Configurator
from pyramid.response import FileResponse, Response

from convert_middleware import ConvertWSGIMiddleware, Recorder, current

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyramid.request import Request

FILE = Path(__file__).parent / "hello.txt"


def home(request: Request) -> Response:
    convert: Recorder = request.environ["convert"]
    return Response(f"variation {convert.experiment(11, 12)}")


def signup(_: Request) -> Response:
    return Response("first" if current().goal(331) else "again")


def buy(_: Request) -> Response:
    current().revenue(35, transaction_id="ab12345", value="1599.99", products=10)
    return Response("thanks")


def chunks() -> Iterator[bytes]:
    yield b"one\n"
    current().goal(34)
    yield b"two\n"
    yield b"three\n"


def stream(_: Request) -> Response:
    return Response(app_iter=chunks(), content_type="text/plain")


def file(request: Request) -> FileResponse:
    current().goal(33)
    return FileResponse(FILE, request=request)


def plain(_: Request) -> Response:
    return Response("nothing is recorded here")


with Configurator() as config:
    for name, url, view, method in (
        ("home", "/", home, "GET"),
        ("signup", "/signup", signup, "POST"),
        ("buy", "/buy", buy, "POST"),
        ("stream", "/stream", stream, "GET"),
        ("file", "/file", file, "GET"),
        ("plain", "/plain", plain, "GET"),
    ):
        config.add_route(name, url)
        config.add_view(view, route_name=name, request_method=method)
    site = config.make_wsgi_app()
app = ConvertWSGIMiddleware(site, project_id="1", customer_id="2")
