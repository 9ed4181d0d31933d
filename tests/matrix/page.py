"""The page that tells what was run: ``docs/reference/compatibility.md``."""

from __future__ import annotations

from importlib.metadata import version
from textwrap import wrap
from typing import TYPE_CHECKING, Final

from examples.frameworks import ASGI, WSGI
from tests.end_to_end.process import ROOT

from .servers import NOT_TRIO, PYTHON, SERVERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .servers import Server

PAGE: Final = ROOT / "docs" / "reference" / "compatibility.md"
_FRAMEWORKS: Final = {  # example -> what people call it, and what is installed
    "starlette_site": ("Starlette", "starlette"),
    "fastapi_site": ("FastAPI", "fastapi"),
    "litestar_site": ("Litestar", "litestar"),
    "quart_site": ("Quart", "quart"),
    "django_asgi_site": ("Django", "django"),
    "falcon_asgi_site": ("Falcon", "falcon"),
    "blacksheep_site": ("BlackSheep", "blacksheep"),
    "flask_site": ("Flask", "flask"),
    "django_wsgi_site": ("Django", "django"),
    "falcon_wsgi_site": ("Falcon", "falcon"),
    "bottle_site": ("Bottle", "bottle"),
    "pyramid_site": ("Pyramid", "pyramid"),
}
_END: Final = {True: "is delivered", None: "is delivered as a rule", False: "is lost"}
_HEAD: Final = """# Compatibility

What was run: the same small site in each framework ([examples](../../examples/frameworks/__init__.py)),
and in each server two visits to it. For every *yes*, the pages, the cookies and what Convert was told are
the same. This page is written by `python -m tests.matrix`; every pair is part of `make test`.
"""


def page(passed: Callable[[Server, str], bool]) -> str:
    """Return the page.

    Args:
        passed: Whether a pair of a server and an example was run and all was as it should be.
    """
    return "\n".join((_HEAD, tables(passed), *_versions()))


def tables(passed: Callable[[Server, str], bool]) -> str:
    """Return the part of it that does not depend on versions."""
    return "\n".join(_tables(passed))


def _tables(passed: Callable[[Server, str], bool]) -> Iterator[str]:
    for interface, frameworks in (("ASGI", ASGI), ("WSGI", WSGI)):
        servers = [server for server in SERVERS if set(server.frameworks) <= set(frameworks)]
        yield f"## {interface}\n"
        yield from _table(
            ("", *[_FRAMEWORKS[name][0] for name in frameworks]),
            [(server.name, *[_cell(server, name, passed) for name in frameworks]) for server in servers],
        )
    yield "What cannot work:\n"
    for name, reason in NOT_TRIO.items():
        yield f"- {_FRAMEWORKS[name][0]} in hypercorn with trio: {reason}."
    yield "\n## Streams and sockets\n"
    yield "Server-sent events, files sent with `pathsend` (granian) and `sendfile` (gunicorn, uWSGI), and"
    yield "WebSockets work in every server that supports them. The cookie is set by the response that accepts"
    yield "a WebSocket. These servers send none of the application's headers there, so that a visitor is"
    yield "known only from an earlier page:\n"
    for server in SERVERS:
        if not server.accepts_with_headers:
            yield f"- {server.name}"
    yield "\n## Shutdown\n"
    yield "What happens to hits that wait in memory when the server gets `SIGTERM`. In a file or in Redis"
    yield "none are lost. Where they are lost, there is"
    yield "[something to do about it](../how-to/frameworks/when-a-wsgi-server-shuts-down.md).\n"
    yield from _table(
        ("server", "what waits"),
        [(server.name, _END[server.delivers]) for server in SERVERS],
    )
    yield "uWSGI needs `--enable-threads`, and `--die-on-term` to shut down at all when it gets `SIGTERM`.\n"


def _cell(server: Server, name: str, passed: Callable[[Server, str], bool]) -> str:
    if name not in server.frameworks:
        return "cannot"
    return "yes" if passed(server, name) else "**no**"


def _versions() -> Iterator[str]:
    packages = {name for _, name in _FRAMEWORKS.values()} | {server.package for server in SERVERS} - {""}
    yield "## Versions\n"
    yield f"On {PYTHON}:"
    yield from wrap(", ".join(f"{name} {version(name)}" for name in sorted(packages)) + ".", 110)
    yield ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(row)} |"
    yield ""
