"""Tracking GETs over asyncio's own transports, their answers read by a parser in C.

It knows where connections lead and which of them are idle, and leaves to the connection what becomes of a
request. An endpoint behind a proxy is left to the sender that knows proxies.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from convert_middleware.delivery.policy import Outcome, Result
from convert_middleware.delivery.senders import (
    CONNECT_TIMEOUT,
    NO_PROJECT,
    TOTAL_TIMEOUT,
    proxy_for,
    user_agent,
)
from convert_middleware.delivery.senders.certificates import certifi_certificates, named_certificates
from convert_middleware.delivery.senders.connection import Connection
from convert_middleware.delivery.senders.httpx_sender import HttpxSender
from convert_middleware.delivery.senders.places import MOST, PLACEHOLDER, Places, filled
from convert_middleware.errors import SettingsError

_MOST_IDLE: Final = 32  # connections kept, those to the servers of all projects together
_NEXT_ADDRESS: Final = 0.25  # seconds after which a name's next address is tried too (RFC 8305)
_WARY: Final = 10.0  # seconds in which no connection is kept to a server that closes them unannounced
_PARTING: Final = 0.25  # seconds that servers get to say goodbye to encrypted connections
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, eq=False)
class _Server:
    """What all requests to one endpoint have in common.

    Attributes:
        address: Host and port.
        proxied: Whether the environment names a proxy for it.
        before: What of a request stands before the query string.
        after: What stands behind it.
    """

    address: tuple[str, int]
    proxied: bool
    before: bytes
    after: bytes


class HttptoolsSender:
    """Sends over connections of its own, with the environment's proxies and certificates.

    Args:
        endpoint: URL up to the ``?``; ``{project_id}`` in it stands for the hit's own project.
        project_id: Whose first hit finds a connection open; None where nobody knows whose that will be.
    """

    def __init__(self, endpoint: str, project_id: int | None = None) -> None:
        self._endpoint = endpoint
        self._project_id = project_id
        self._places = Places(endpoint, self._find)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tls: ssl.SSLContext | None = None
        self._opened: set[Connection] = set()
        self._idle: list[Connection] = []  # the one used last is the last
        self._wary: dict[tuple[str, int], float] = {}  # until when, on the loop's clock
        self._opening: set[asyncio.Task[Connection]] = set()
        self._warming: asyncio.Task[Connection] | None = None
        self._proxied: HttpxSender | None = None

    async def open(self) -> None:
        """See :class:`Sender`.

        Raises:
            SettingsError: A proxy or a certificate of the environment cannot be used.
        """
        self._loop = asyncio.get_running_loop()
        if self._endpoint.startswith("https:"):
            self._tls = _trusting()
        self._places.open()
        server = self._find(filled(self._endpoint, str(self._project_id or 1)))
        if server.proxied:
            await self._open_proxied()
        elif self._project_id is not None or PLACEHOLDER not in self._endpoint:
            self._warming = self._begin(server)
            self._warming.add_done_callback(self._keep_opened)

    async def send(self, text: str) -> Outcome:
        """See :class:`Sender`."""
        if self._loop is None:
            return Outcome(Result.NOT_SENT, "not open")
        server = self._places.of(text)
        if server is None:
            return NO_PROJECT
        if not text.isascii() or text.split() != [text]:  # white space would end the line it stands in
            return Outcome(Result.REJECTED, "no query string")
        if server.proxied:
            return await self._send_proxied(text)
        deadline = self._loop.time() + TOTAL_TIMEOUT
        request = server.before + text.encode("ascii") + server.after
        connection = self._take(server.address)
        if connection is None or (answer := connection.ask(request, deadline)) is None:
            try:
                connection = await self._connection(server)
            except Exception as error:  # noqa: BLE001 - whatever it was, there is no connection to send it over
                return Outcome(Result.NOT_SENT, type(error).__name__)
            answer = connection.ask(request, deadline)
            if answer is None:
                return Outcome(Result.NOT_SENT, "connection closed")
        try:
            outcome = await answer
        except BaseException:
            connection.abort()
            raise
        if connection.usable and self._loop is not None:
            if self._wary and self._wary.get(server.address, 0.0) > self._loop.time():
                connection.leave()
            else:
                self._keep(connection)
        return outcome

    async def close(self) -> None:
        """See :class:`Sender`."""
        self._loop = None
        self._places.close()
        self._idle.clear()
        for connection in tuple(self._opened):
            connection.leave()
        await self._wait_for_endings()
        for opening in self._opening:
            opening.cancel()
        for connection in tuple(self._opened):
            connection.abort()
        await self._wait_for_endings()
        if self._proxied is not None:
            await self._proxied.close()

    async def _wait_for_endings(self) -> None:
        ending: list[asyncio.Future[Any]] = [*self._opening, *[each.gone for each in self._opened]]
        if ending:
            await asyncio.wait(ending, timeout=_PARTING)

    def _find(self, endpoint: str) -> _Server:
        url = urlsplit(endpoint)
        host = url.hostname or ""
        usual = _PORTS[url.scheme]
        port = url.port or usual
        name = f"[{host}]" if ":" in host else host
        headers = {
            "Host": name if port == usual else f"{name}:{port}",
            "User-Agent": user_agent(),
            "Accept": "*/*",
            "Accept-Encoding": "identity",
        }
        lines = [" HTTP/1.1", *[f"{key}: {value}" for key, value in headers.items()], "", ""]
        return _Server(
            address=(host, port),
            proxied=proxy_for(url.scheme, host) is not None,
            before=f"GET {url.path}?".encode("ascii"),
            after="\r\n".join(lines).encode("ascii"),
        )

    # --- connections ----------------------------------------------------------------------------------

    def _take(self, address: tuple[str, int]) -> Connection | None:
        """Take the connection to a server that was used last; None if none is idle."""
        idle = self._idle
        for number in range(len(idle) - 1, -1, -1):
            if idle[number].address == address and (connection := idle.pop(number)).usable:
                return connection
        return None

    def _keep(self, connection: Connection) -> None:
        if len(self._idle) >= _MOST_IDLE:
            self._idle.pop(0).leave()
        self._idle.append(connection)

    def _note_deserted(self, connection: Connection) -> None:
        """Be wary of a server that closes after one answer: the next request may be on its way by then."""
        if connection.answers == 1 and self._loop is not None:
            if len(self._wary) >= MOST:
                self._wary.clear()
            self._wary[connection.address] = self._loop.time() + _WARY

    async def _connection(self, server: _Server) -> Connection:
        """Return a connection that was just opened, if possible the one being opened since the start."""
        if self._warming is not None and not self._warming.done():
            await asyncio.wait([self._warming])  # that it failed is no news of this request
            if (connection := self._take(server.address)) is not None:
                return connection
        opening = self._begin(server)
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(self._keep_opened)
            raise

    def _begin(self, server: _Server) -> asyncio.Task[Connection]:
        """Begin to open a connection; no end of a request breaks that off.

        Asyncio can lose the socket of a connection that is given up in the moment in which it opens.
        """
        opening = asyncio.get_running_loop().create_task(self._open_connection(server))
        self._opening.add(opening)
        opening.add_done_callback(self._begun)
        return opening

    def _keep_opened(self, opening: asyncio.Task[Connection]) -> None:
        if not opening.cancelled() and opening.exception() is None:
            self._keep(opening.result())

    def _begun(self, opening: asyncio.Task[Connection]) -> None:
        self._opening.discard(opening)
        if not opening.cancelled():
            opening.exception()  # heard now, if by nobody else

    async def _open_connection(self, server: _Server) -> Connection:
        loop = asyncio.get_running_loop()
        host, port = server.address
        encrypted: dict[str, Any] = {}
        if self._tls is not None:
            encrypted = {
                "ssl": self._tls,
                "server_hostname": host,
                "ssl_handshake_timeout": CONNECT_TIMEOUT,
                "ssl_shutdown_timeout": _PARTING,
            }
        async with asyncio.timeout(CONNECT_TIMEOUT):
            _, connection = await loop.create_connection(
                partial(Connection, loop, server.address, self._opened, self._note_deserted),
                host,
                port,
                happy_eyeballs_delay=_NEXT_ADDRESS,
                **encrypted,
            )
        if self._loop is None:
            raise ConnectionAbortedError  # closed meanwhile, and this connection with it
        return connection

    # --- proxies --------------------------------------------------------------------------------------

    async def _open_proxied(self) -> HttpxSender:
        sender = HttpxSender(self._endpoint)
        await sender.open()
        self._proxied = sender
        return sender

    async def _send_proxied(self, text: str) -> Outcome:
        try:
            sender = self._proxied or await self._open_proxied()
        except SettingsError as error:
            return Outcome(Result.NOT_SENT, type(error).__name__)
        return await sender.send(text)


def _trusting() -> ssl.SSLContext:
    """Return what says whom to trust: those whom the environment names, else certifi's and the system's.

    Raises:
        SettingsError: What the environment names cannot be used.
    """
    try:
        named = named_certificates()
        if named is None:
            context = ssl.create_default_context()
            if found := certifi_certificates():
                context.load_verify_locations(cadata=_joined(found))
        else:
            context = ssl.create_default_context(cadata=_joined(named))
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise SettingsError(
            "sender", "cannot use the certificates that SSL_CERT_FILE or SSL_CERT_DIR name"
        ) from error
    context.set_alpn_protocols(["http/1.1"])
    return context


def _joined(certificates: list[bytes]) -> str:
    return b"\n".join(certificates).decode("ascii")
