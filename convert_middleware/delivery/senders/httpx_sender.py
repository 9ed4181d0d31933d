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
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from convert_middleware.delivery.policy import Outcome, Result
from convert_middleware.delivery.senders import (
    BODY_READ,
    BODY_TIMEOUT,
    CONNECT_TIMEOUT,
    TOTAL_TIMEOUT,
    outcome_of_answer,
    proxy_for,
    user_agent,
)
from convert_middleware.errors import SettingsError

ClientFactory = Callable[[], Any]  # returns an httpx.AsyncClient or httpx2.AsyncClient

_LIBRARIES: Final = (("httpx2", "httpcore2"), ("httpx", "httpcore"))
_KEEP_ALIVE: Final = 30.0  # seconds an idle connection is kept
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


class HttpxSender:
    """Sends through the transport library of httpx, with the environment's proxies and certificates.

    Args:
        endpoint: URL up to the ``?``.
        library: "httpx", "httpx2" or "auto".
    """

    def __init__(self, endpoint: str, library: str = "auto") -> None:
        self._endpoint = endpoint
        self._httpx, self._core = load(library)
        self._idle: list[Any] = []
        self._all: list[Any] = []
        self._open_pool: Callable[[], Any] = partial(self._core.AsyncConnectionPool, max_connections=1)

    async def open(self) -> None:
        """See :class:`Sender`.

        Raises:
            SettingsError: A proxy of the environment cannot be used.
        """
        url = urlsplit(self._endpoint)
        options: dict[str, Any] = {
            "max_connections": 1,
            "max_keepalive_connections": 1,
            "keepalive_expiry": _KEEP_ALIVE,
        }
        if url.scheme == "https":
            options["ssl_context"] = self._httpx.create_ssl_context()
        try:
            self._open_pool = self._pool_opener(proxy_for(url.scheme, url.hostname or ""), options)
            self._idle.append(self._new_pool())
        except Exception as error:  # the libraries raise many kinds, some of which are their own
            raise SettingsError(
                "sender", "cannot use the proxy that the environment names; for SOCKS install httpx[socks]"
            ) from error
        port = url.port
        self._origin = {
            "scheme": url.scheme.encode(),
            "host": (url.hostname or "").encode("idna"),
            "port": port,
        }
        self._path = f"{url.path}?".encode("ascii")
        self._headers = [
            (b"Host", url.netloc.rpartition("@")[2].encode("idna" if port is None else "ascii")),
            (b"User-Agent", user_agent().encode()),
            (b"Accept", b"*/*"),
            (b"Accept-Encoding", b"identity"),
        ]

    async def send(self, text: str) -> Outcome:
        """See :class:`Sender`."""
        answered: list[Outcome] = []
        return await attempt(self._exchange(text, answered), answered)

    async def _exchange(self, text: str, answered: list[Outcome]) -> Outcome:
        pool = self._idle.pop() if self._idle else self._new_pool()
        try:
            request = self._core.Request(
                b"GET",
                self._core.URL(**self._origin, target=self._path + text.encode("ascii")),
                headers=self._headers,
                extensions={"timeout": _TIMEOUTS},
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
        self._idle.append(pool)
        return outcome_of_answer(response.status, wait, body, time.time())

    async def close(self) -> None:
        """See :class:`Sender`."""
        for pool in self._all:
            await pool.aclose()
        self._all, self._idle = [], []

    def _pool_opener(self, proxy: str | None, options: dict[str, Any]) -> Callable[[], Any]:
        if proxy is None:
            return partial(self._core.AsyncConnectionPool, **options)
        given = self._httpx.Proxy(proxy)
        if not given.url.host:
            raise ValueError("a proxy without a host")
        socks = given.url.scheme.startswith("socks")
        kind = self._core.AsyncSOCKSProxy if socks else self._core.AsyncHTTPProxy
        return partial(kind, proxy_url=str(given.url), proxy_auth=given.raw_auth, **options)

    def _new_pool(self) -> Any:
        pool = self._open_pool()
        self._all.append(pool)
        return pool


class ClientSender:
    """Sends through a client the user made, for those who need its certificates, proxies or hooks.

    Args:
        endpoint: URL up to the ``?``.
        factory: Returns a new ``AsyncClient``; called again if the client was closed under us.
    """

    def __init__(self, endpoint: str, factory: ClientFactory) -> None:
        self._endpoint = endpoint
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
        return not any(str(part).startswith(self._endpoint) for part in record.args or ())

    async def send(self, text: str) -> Outcome:
        """See :class:`Sender`."""
        answered: list[Outcome] = []
        return await attempt(self._exchange(f"{self._endpoint}?{text}", answered), answered)

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


async def attempt(exchange: Awaitable[Outcome], answered: Sequence[Outcome] = ()) -> Outcome:
    """Return the outcome of an exchange, its errors classed by what had left the socket.

    Args:
        exchange: The exchange.
        answered: Gets what the status says as soon as it is known; whatever breaks later changes nothing.
    """
    try:
        async with asyncio.timeout(TOTAL_TIMEOUT):
            return await exchange
    except Exception as error:  # noqa: BLE001 - a client may raise anything; whatever it was, the hit is settled
        if answered:
            return answered[0]
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
