"""Tracking GETs through httpx, or httpx2 where that is installed.

The one module that knows either. By default it drives their transport library directly, each lane with a
connection of its own: building requests and looking for a free connection cost more than the sending.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from convert_middleware.delivery.policy import Outcome, Result
from convert_middleware.delivery.senders import (
    BODY_READ,
    BODY_TIMEOUT,
    CONNECT_TIMEOUT,
    NO_PROJECT,
    TOTAL_TIMEOUT,
    outcome_of_answer,
    proxy_for,
    user_agent,
)
from convert_middleware.delivery.senders.places import Places, pattern
from convert_middleware.errors import SettingsError

ClientFactory = Callable[[], Any]  # returns an httpx.AsyncClient or httpx2.AsyncClient

_LIBRARIES: Final = (("httpx2", "httpcore2"), ("httpx", "httpcore"))
_KEEP_ALIVE: Final = 30.0  # seconds an idle connection is kept
_MOST_IDLE: Final = 32  # connections kept, those to the servers of all projects together
_NOT_SENT: Final = frozenset(
    {
        "ConnectError",
        "ConnectTimeout",
        "PoolTimeout",
        "ProxyError",
        "UnsupportedProtocol",
        "LocalProtocolError",
    }
)
_TIMEOUTS: Final = {
    "connect": CONNECT_TIMEOUT,
    "read": TOTAL_TIMEOUT,
    "write": TOTAL_TIMEOUT,
    "pool": TOTAL_TIMEOUT,
}


def load(name: str = "auto") -> tuple[Any, Any]:
    """Return the client library and its transport library.

    Args:
        name: "httpx", "httpx2", or "auto" for the newer of those installed.

    Raises:
        SettingsError: It is not installed.
    """
    for client, transport in _LIBRARIES:
        if name in ("auto", client):
            try:
                return importlib.import_module(client), importlib.import_module(transport)
            except ModuleNotFoundError:
                continue
    wanted = "httpx" if name == "auto" else name
    raise SettingsError("sender", f"needs {wanted}, which is not installed; run: pip install {wanted}")


@dataclass(frozen=True, slots=True, eq=False)
class _Server:
    """What all requests to one server have in common."""

    origin: dict[str, Any]
    path: bytes
    headers: list[tuple[bytes, bytes]]
    open_pool: Callable[[], Any]
    tunnels: bool  # through a proxy, which is asked for the way first


class HttpxSender:
    """Sends through the transport library of httpx, with the environment's proxies and certificates.

    Args:
        endpoint: URL up to the ``?``; ``{project_id}`` in it stands for the hit's own project.
        library: "httpx", "httpx2" or "auto".
    """

    def __init__(self, endpoint: str, library: str = "auto") -> None:
        self._endpoint = endpoint
        self._httpx, self._core = load(library)
        self._places = Places(endpoint, self._find)
        self._idle: list[tuple[_Server, Any]] = []
        self._all: list[Any] = []
        self._options: dict[str, Any] = {}

    async def open(self) -> None:
        """See :class:`Sender`.

        Raises:
            SettingsError: A proxy of the environment cannot be used.
        """
        self._options = {
            "max_connections": 1,
            "max_keepalive_connections": 1,
            "keepalive_expiry": _KEEP_ALIVE,
        }
        if self._endpoint.startswith("https:"):
            self._options["ssl_context"] = self._httpx.create_ssl_context()
        self._places.open()
        # What connects loads its libraries now, not with the first hit.
        await self._core.AnyIOBackend().sleep(0)

    async def send(self, text: str) -> Outcome:
        """See :class:`Sender`."""
        answered: list[Outcome] = []
        halted: list[str] = []
        return await attempt(self._exchange(text, answered, halted), answered, halted)

    async def _exchange(self, text: str, answered: list[Outcome], halted: list[str]) -> Outcome:
        try:
            server = self._places.of(text)
        except SettingsError as error:
            return Outcome(Result.NOT_SENT, type(error).__name__)
        if server is None:
            return NO_PROJECT
        extensions: dict[str, Any] = {"timeout": _TIMEOUTS}
        if server.tunnels:
            halted.append("at the proxy")
            extensions["trace"] = partial(_note_departure, halted)
        pool = self._idle_pool(server) or await self._new_pool(server)
        try:
            request = self._core.Request(
                b"GET",
                self._core.URL(**server.origin, target=server.path + text.encode("ascii")),
                headers=server.headers,
                extensions=extensions,
            )
            response = await pool.handle_async_request(request)
            try:
                retry = next(
                    (value for name, value in response.headers if name.lower() == b"retry-after"), None
                )
                wait = None if retry is None else retry.decode("latin-1")
                answered.append(outcome_of_answer(response.status, wait, b"", time.time()))
                body = await _beginning(response.stream)
            finally:
                await response.aclose()
        except BaseException:
            # What broke off may have left its connection half made, and a lane has no other one.
            self._all.remove(pool)
            with suppress(Exception):
                await pool.aclose()
            raise
        self._idle.append((server, pool))
        return outcome_of_answer(response.status, wait, body, time.time())

    async def close(self) -> None:
        """See :class:`Sender`."""
        for pool in self._all:
            await pool.aclose()
        self._all, self._idle = [], []
        self._places.close()

    def _idle_pool(self, server: _Server) -> Any:
        """Take a connection to the server that nobody uses, the warmest one; None if there is none."""
        idle = self._idle
        for number in range(len(idle) - 1, -1, -1):
            if idle[number][0] is server:
                return idle.pop(number)[1]
        return None

    async def _new_pool(self, server: _Server) -> Any:
        if len(self._idle) >= _MOST_IDLE:  # of other servers
            _, oldest = self._idle.pop(0)
            self._all.remove(oldest)
            with suppress(Exception):
                await oldest.aclose()
        pool = server.open_pool()
        self._all.append(pool)
        return pool

    def _find(self, endpoint: str) -> _Server:
        url = urlsplit(endpoint)
        host, port = url.hostname or "", url.port
        try:
            proxy = proxy_for(url.scheme, host)
            open_pool = self._pool_opener(proxy)
            open_pool()
        except Exception as error:  # the libraries raise many kinds, some of which are their own
            raise SettingsError(
                "sender", "cannot use the proxy that the environment names; for SOCKS install httpx[socks]"
            ) from error
        return _Server(
            {"scheme": url.scheme.encode(), "host": host.encode("idna"), "port": port},
            f"{url.path}?".encode("ascii"),
            [
                (b"Host", url.netloc.rpartition("@")[2].encode("idna" if port is None else "ascii")),
                (b"User-Agent", user_agent().encode()),
                (b"Accept", b"*/*"),
                (b"Accept-Encoding", b"identity"),
            ],
            open_pool,
            tunnels=proxy is not None and url.scheme == "https",
        )

    def _pool_opener(self, proxy: str | None) -> Callable[[], Any]:
        if proxy is None:
            return partial(self._core.AsyncConnectionPool, **self._options)
        given = self._httpx.Proxy(proxy)
        if not given.url.host:
            raise ValueError("a proxy without a host")
        socks = given.url.scheme.startswith("socks")
        kind = self._core.AsyncSOCKSProxy if socks else self._core.AsyncHTTPProxy
        return partial(kind, proxy_url=str(given.url), proxy_auth=given.raw_auth, **self._options)


class ClientSender:
    """Sends through a client the user made, for those who need its certificates, proxies or hooks.

    Args:
        endpoint: URL up to the ``?``; ``{project_id}`` in it stands for the hit's own project.
        factory: Returns a new ``AsyncClient``; called again if the client was closed under us.
    """

    def __init__(self, endpoint: str, factory: ClientFactory) -> None:
        self._places = Places(endpoint, _as_it_is)
        self._ours = pattern(endpoint)
        self._factory = factory
        self._client: Any = None

    async def open(self) -> None:
        """See :class:`Sender`."""
        client = self._factory()
        if not (hasattr(client, "send") and hasattr(client, "aclose")):
            raise SettingsError("sender", f"must return an httpx.AsyncClient, not {type(client).__name__}")
        self._library = importlib.import_module(type(client).__module__.partition(".")[0])
        if not hasattr(self._library, "Request"):
            self._library = load()[0]
        self._client = client
        # httpx logs every URL at INFO; ours hold order numbers and revenue, which no log may show.
        logging.getLogger(self._library.__name__).addFilter(self._is_not_ours)

    def _is_not_ours(self, record: logging.LogRecord) -> bool:
        return not any(self._ours.match(str(part)) for part in record.args or ())

    async def send(self, text: str) -> Outcome:
        """See :class:`Sender`."""
        endpoint = self._places.of(text)
        if endpoint is None:
            return NO_PROJECT
        answered: list[Outcome] = []
        return await attempt(self._exchange(f"{endpoint}?{text}", answered), answered)

    async def _exchange(self, url: str, answered: list[Outcome]) -> Outcome:
        if self._client is None or self._client.is_closed:
            try:
                await self.open()
            except Exception as error:  # noqa: BLE001 - the factory is the user's, and nothing has left yet
                return Outcome(Result.NOT_SENT, type(error).__name__)
        # A request of our own carries neither the client's cookies nor its default User-Agent.
        request = self._library.Request(
            "GET",
            url,
            headers={"User-Agent": user_agent(), "Accept": "*/*", "Accept-Encoding": "identity"},
            extensions={"timeout": _TIMEOUTS},
        )
        response = await self._client.send(request, stream=True, follow_redirects=False)
        status, wait = response.status_code, response.headers.get("Retry-After")
        answered.append(outcome_of_answer(status, wait, b"", time.time()))
        try:
            body = await _beginning(response.aiter_raw())
        finally:
            await response.aclose()
        return outcome_of_answer(status, wait, body, time.time())

    async def close(self) -> None:
        """See :class:`Sender`."""
        if self._client is not None:
            logging.getLogger(self._library.__name__).removeFilter(self._is_not_ours)
            await self._client.aclose()


def _as_it_is(endpoint: str) -> str:
    return endpoint


async def _note_departure(halted: list[str], event: str, details: dict[str, Any]) -> None:
    """Note that a tracking request leaves, as the transport library tells its steps."""
    if event.endswith("send_request_headers.started") and details["request"].method == b"GET":
        halted.clear()


async def attempt(
    exchange: Awaitable[Outcome], answered: Sequence[Outcome] = (), halted: Sequence[str] = ()
) -> Outcome:
    """Return the outcome of an exchange, its errors classed by what had left the socket.

    Args:
        exchange: The exchange.
        answered: Gets what the status says as soon as it is known; whatever breaks later changes nothing.
        halted: Holds something as long as the request itself has certainly not left.
    """
    try:
        async with asyncio.timeout(TOTAL_TIMEOUT):
            return await exchange
    except Exception as error:  # noqa: BLE001 - a client may raise anything; whatever it was, the hit is settled
        if answered:
            return answered[0]
        if halted:
            return Outcome(Result.NOT_SENT, type(error).__name__)
        if isinstance(error, TimeoutError):
            return Outcome(Result.AMBIGUOUS, "timeout")
        kinds = {kind.__name__ for kind in type(error).__mro__}
        result = Result.NOT_SENT if kinds & _NOT_SENT else Result.AMBIGUOUS
        return Outcome(result, type(error).__name__)


async def _beginning(stream: Any) -> bytes:
    """Read at most 64 KiB of a body for at most two seconds; a broken body changes nothing."""
    body = b""
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            async for chunk in stream:
                body += chunk
                if len(body) >= BODY_READ:
                    break
    except Exception:  # noqa: BLE001, S110 - the status is what counts, and that has arrived
        pass
    return body[:BODY_READ]
