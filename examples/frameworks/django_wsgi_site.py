"""The site in Django, for WSGI: ``waitress-serve examples.frameworks.django_wsgi_site:app``.

A project of one file; in yours the last line stands at the end of ``wsgi.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.http import require_POST

from convert_middleware import ConvertWSGIMiddleware, Recorder, current

if TYPE_CHECKING:
    from collections.abc import Iterator

    from django.core.handlers.wsgi import WSGIRequest

FILE = Path(__file__).parent / "hello.txt"


def home(request: WSGIRequest) -> HttpResponse:
    convert: Recorder = request.environ["convert"]
    return HttpResponse(f"variation {convert.experiment(11, 12)}")


@require_POST
def signup(_: HttpRequest) -> HttpResponse:
    return HttpResponse("first" if current().goal(331) else "again")


@require_POST
def buy(_: HttpRequest) -> HttpResponse:
    current().revenue(35, transaction_id="ab12345", value="1599.99", products=10)
    return HttpResponse("thanks")


def chunks() -> Iterator[str]:
    yield "one\n"
    current().goal(34)
    yield "two\n"
    yield "three\n"


def stream(_: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(chunks(), content_type="text/plain")


def file(_: HttpRequest) -> FileResponse:
    current().goal(33)
    return FileResponse(FILE.open("rb"))


def plain(_: HttpRequest) -> HttpResponse:
    return HttpResponse("nothing is recorded here")


urlpatterns = [
    path("", home),
    path("signup", signup),
    path("buy", buy),
    path("stream", stream),
    path("file", file),
    path("plain", plain),
]
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1"])
app = ConvertWSGIMiddleware(get_wsgi_application(), project_id="1", customer_id="2")
