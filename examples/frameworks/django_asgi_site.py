"""The site in Django, for ASGI: ``uvicorn examples.frameworks.django_asgi_site:app``.

A project of one file; in yours the last line stands at the end of ``asgi.py``.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import FileResponse, HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.http import require_GET, require_POST

from convert_middleware import ConvertMiddleware, Recorder, current

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from django.core.handlers.asgi import ASGIRequest

FILE = Path(__file__).parent / "hello.txt"


async def home(request: ASGIRequest) -> HttpResponse:
    convert: Recorder = request.scope["state"]["convert"]
    return HttpResponse(f"variation {convert.experiment(11, 12)}")


@require_POST
def signup(_: HttpRequest) -> HttpResponse:
    """Run in a thread, as every view that is not async."""
    return HttpResponse("first" if current().goal(331) else "again")


@require_POST
async def buy(_: HttpRequest) -> HttpResponse:
    current().revenue(35, transaction_id="ab12345", value="1599.99", products=10)
    return HttpResponse("thanks")


async def chunks() -> AsyncIterator[str]:
    yield "one\n"
    current().goal(34)
    yield "two\n"
    yield "three\n"


async def stream(_: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(chunks(), content_type="text/plain")


@require_GET
async def file(_: HttpRequest) -> FileResponse:
    current().goal(33)
    return FileResponse(FILE.open("rb"))


async def plain(_: HttpRequest) -> HttpResponse:
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
app = ConvertMiddleware(get_asgi_application(), project_id="1", customer_id="2")
