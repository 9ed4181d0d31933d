"""A site in Django with every kind of response.

``bare`` and ``bare_asgi`` are without the door, ``tracked`` and ``tracked_asgi`` with it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.handlers.asgi import ASGIRequest
from django.core.wsgi import get_wsgi_application
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import path

from convert_middleware import ConvertMiddleware, ConvertWSGIMiddleware, OutsideRequestError, current

FILE = Path(__file__).with_name("__init__.py")
View = Callable[[HttpRequest], HttpResponseBase]


def recording(view: View) -> View:
    """Record as a middleware of the site's own does."""

    def respond(request: HttpRequest) -> HttpResponseBase:
        if "record" in request.GET:
            with suppress(OutsideRequestError):  # without the door
                current().goal(331)
        return view(request)

    return respond


def html(_: HttpRequest) -> HttpResponse:
    return HttpResponse("<h1>Größe</h1>")


def json(_: HttpRequest) -> HttpResponse:
    return JsonResponse({"name": "Größe", "sizes": [1, 2, 3]})


def echo(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.body, status=201, headers={"Location": "/echo/1"}, content_type="text/plain")


def elsewhere(_: HttpRequest) -> HttpResponse:
    return redirect("/html", permanent=True)


def missing(_: HttpRequest) -> HttpResponse:
    raise Http404


def broken(_: HttpRequest) -> HttpResponse:
    raise RuntimeError("a page that fails")


def nothing(_: HttpRequest) -> HttpResponse:
    return HttpResponse(status=204)


def stream(request: HttpRequest) -> HttpResponseBase:
    def chunks() -> Iterator[str]:
        yield ""
        for number in range(100):
            yield f"{request.path} {number}\n" * number

    async def slowly() -> AsyncIterator[str]:
        for chunk in chunks():
            yield chunk

    parts = slowly() if isinstance(request, ASGIRequest) else chunks()
    return StreamingHttpResponse(parts, content_type="text/csv")


def file(request: HttpRequest) -> HttpResponseBase:
    headers = {"Cache-Control": "max-age=60"}
    if isinstance(request, ASGIRequest):  # where Django warns of its own FileResponse
        return HttpResponse(FILE.read_bytes(), headers=headers, content_type="text/plain")
    return FileResponse(FILE.open("rb"), headers=headers, content_type="text/plain")


def cookie(_: HttpRequest) -> HttpResponse:
    response = HttpResponse("mine")
    response.set_cookie("mine", "1; a=b", httponly=True)
    response.set_cookie("yours", "2")
    return response


def varying(_: HttpRequest) -> HttpResponse:
    return HttpResponse("by encoding", headers={"Vary": "Accept-Encoding", "Cache-Control": "no-store"})


VIEWS: tuple[Callable[[HttpRequest], HttpResponseBase], ...] = (
    *(html, json, echo, missing, broken, nothing, stream, file, cookie, varying),
)
urlpatterns = [path("redirect", elsewhere), *(path(view.__name__, view) for view in VIEWS)]

settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["shop.example"],
    MIDDLEWARE=[
        f"{__name__}.recording",
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.http.ConditionalGetMiddleware",
    ],
)
bare = get_wsgi_application()
tracked = ConvertWSGIMiddleware(bare, project_id="1", customer_id="2")
bare_asgi = get_asgi_application()
tracked_asgi = ConvertMiddleware(bare_asgi, project_id="1", customer_id="2")
