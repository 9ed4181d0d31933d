"""Tracking GETs through pyreqwest, which does its I/O in Rust, outside the interpreter lock.

The one module that knows it. Its exceptions are finer than its knowledge (a reset after the request is a
``ConnectError`` too), so what had left is read from the causes, and in doubt something had.
"""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final
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
from convert_middleware.delivery.senders.certificates import certifi_certificates, named_certificates
from convert_middleware.delivery.senders.places import Places
from convert_middleware.errors import SettingsError

try:
    from pyreqwest.client import ClientBuilder
    from pyreqwest.exceptions import ConnectError, PoolTimeoutError, RequestError
    from pyreqwest.proxy import ProxyBuilder
except ModuleNotFoundError as error:
    raise SettingsError(
        "sender", "needs pyreqwest, which is not installed; run: pip install pyreqwest"
    ) from error

if TYPE_CHECKING:
    from pyreqwest.client import Client
    from pyreqwest.response import Response

_KEEP_ALIVE: Final = timedelta(seconds=30)  # that an idle connection is kept
# seconds in which pyreqwest's thread leaves the interpreter after its last result: one that is caught inside
# when the interpreter ends aborts the process (CPython before 3.14).
_SETTLING: Final = 0.02
_PROXIES: Final = frozenset({"http", "https", "socks4", "socks4a", "socks5", "socks5h"})
_CONNECTING: Final = "client error (Connect)"  # how hyper calls all that precedes the first byte of a request


class PyreqwestSender:
    """Sends through pyreqwest, with the environment's proxies and certificates.

    Args:
        endpoint: URL up to the ``?``; ``{project_id}`` in it stands for the hit's own project.
    """

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._places = Places(endpoint, self._find)
        self._clients: dict[str | None, Client] = {}  # by proxy
        self._open = False

    async def open(self) -> None:
        """See :class:`Sender`.

        Raises:
            SettingsError: A proxy or a certificate of the environment cannot be used.
        """
        self._places.open()
        self._open = True

    def _find(self, endpoint: str) -> tuple[Client, str]:
        """Return the client for an endpoint and how its URLs begin."""
        proxy = _proxy(endpoint)
        if proxy not in self._clients:
            self._clients[proxy] = self._client(proxy)
        return self._clients[proxy], f"{endpoint}?"

    def _client(self, proxy: str | None) -> Client:
        builder = (
            ClientBuilder()
            .runtime_multithreaded(False)  # more threads cost more CPU time for each request
            .user_agent(user_agent())
            .default_headers({"Accept": "*/*", "Accept-Encoding": "identity"})
            .http1_only()
            .follow_redirects(False)
            .referer(False)
            .default_cookie_store(False)
            .gzip(False)  # these four would also unpack
            .deflate(False)
            .brotli(False)
            .zstd(False)
            .connect_timeout(timedelta(seconds=CONNECT_TIMEOUT))
            .timeout(timedelta(seconds=TOTAL_TIMEOUT))
            .pool_idle_timeout(_KEEP_ALIVE)
            .no_proxy()  # reqwest would read the environment by rules of its own
        )
        if proxy is not None:
            builder = builder.proxy(_proxy_builder(proxy))
        try:
            for certificate in _certificates() if self._endpoint.startswith("https:") else ():
                builder = builder.add_root_certificate_pem(certificate)
            return builder.build()
        except (RequestError, ValueError, OSError) as error:
            raise SettingsError(
                "sender", "cannot use the certificates that SSL_CERT_FILE or SSL_CERT_DIR name"
            ) from error

    async def send(self, text: str) -> Outcome:
        """See :class:`Sender`."""
        if not self._open:
            return Outcome(Result.NOT_SENT, "not open")
        try:
            place = self._places.of(text)
        except SettingsError as error:
            return Outcome(Result.NOT_SENT, type(error).__name__)
        if place is None:
            return NO_PROJECT
        client, beginning = place
        status, retry, body = 0, None, b""
        try:
            # Nothing of the body is read ahead: a broken or slow one would swallow the status.
            builder = client.get(beginning + text).streamed_read_buffer_limit(0)
            async with builder.build_streamed() as response:
                status = response.status
                retry = _retry_after(response)
                body = await _beginning(response)
        except RequestError as error:
            if not status:
                return _outcome(error)
        except Exception as error:  # noqa: BLE001 - whatever it was, the hit is settled
            if not status:
                return Outcome(Result.AMBIGUOUS, type(error).__name__)
        return outcome_of_answer(status, retry, body, time.time())

    async def close(self) -> None:
        """See :class:`Sender`."""
        self._open = False
        self._places.close()  # a client closes its connections when nobody has it any more
        used = bool(self._clients)
        while self._clients:
            await self._clients.popitem()[1].close()
        if used:
            await asyncio.sleep(_SETTLING)


def _outcome(error: RequestError) -> Outcome:
    """Return what an error means for the hit; its message holds the URL and is not shown."""
    name = type(error).__name__
    causes = [cause["message"] for cause in error.details["causes"] or ()]
    if isinstance(error, PoolTimeoutError) or _CONNECTING in causes:
        return Outcome(Result.NOT_SENT, name)
    if isinstance(error, TimeoutError):
        name = "timeout"
    elif isinstance(error, ConnectError):
        name = "NetworkError"
    return Outcome(Result.AMBIGUOUS, name)


def _retry_after(response: Response) -> str | None:
    try:
        return response.get_header("Retry-After")
    except ValueError:  # it is not text, so it says nothing
        return None


async def _beginning(response: Response) -> bytes:
    """Read at most 64 KiB of a body for at most two seconds; a broken body changes nothing."""
    body = b""
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            while len(body) < BODY_READ:
                chunk = await response.body_reader.read_chunk()
                if chunk is None:
                    break
                body += chunk
    except Exception:  # noqa: BLE001, S110 - the status is what counts, and that has arrived
        pass
    return body[:BODY_READ]


def _proxy(endpoint: str) -> str | None:
    """Return the URL of the proxy that the environment names for this server."""
    try:
        url = urlsplit(endpoint)
        return proxy_for(url.scheme, url.hostname or "")
    except ValueError as error:
        raise _unusable() from error


def _proxy_builder(proxy: str) -> ProxyBuilder:
    try:
        if urlsplit(proxy).scheme in _PROXIES:
            return ProxyBuilder.all(proxy)
    except ValueError as error:
        raise _unusable() from error
    raise _unusable()


def _unusable() -> SettingsError:
    return SettingsError("sender", "cannot use the proxy that the environment names")


def _certificates() -> list[bytes]:
    """Return what is trusted besides the system's own; pyreqwest looks into the environment on Linux only."""
    named = named_certificates()
    return certifi_certificates() if named is None else named
