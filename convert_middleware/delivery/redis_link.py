"""The connection to Redis, and the scripts that run there.

redis-py enters here and nowhere else. A link belongs to one event loop at a time and opens itself anew when
that changes; it knows nothing of hits and claims.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from convert_middleware.errors import (
    OutboxError,
    SettingsError,
    UnansweredError,
    UnreachableError,
    public,
    shown,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redis.asyncio import Redis

CONNECT_TIMEOUT: Final = 1.0  # seconds
ANSWER_TIMEOUT: Final = 2.0  # seconds; a step takes milliseconds
OLDEST: Final = (6, 2)  # the first with XAUTOCLAIM
_ROLES: Final = (  # as redis-py or the server itself calls such answers
    "ReadOnlyError", "MasterDownError", "BusyLoadingError", "READONLY", "MASTERDOWN", "NOREPLICAS",
)  # fmt: skip
_SCHEMES: Final = ("redis", "rediss", "unix")
_inherited: Final[list[object]] = []  # never closed: the sockets are the parent's


class Script:
    """A Lua script of this package and the keys it works on.

    Args:
        name: Its file.
        keys: The keys.
    """

    def __init__(self, name: str, keys: list[str]) -> None:
        text = files("convert_middleware.delivery").joinpath(name).read_text("utf-8")
        self.keys = keys
        self.texts = text, f"#!lua flags=allow-oom\n{text}"
        self.digests = tuple(hashlib.sha1(each.encode()).hexdigest() for each in self.texts)  # noqa: S324 - Redis names scripts so


class RedisLink:
    """A way to run scripts in one Redis.

    Args:
        url: As redis-py takes it; its options stand behind the ``?``.
        prefix: Begins every key; it is put in braces, so that all keys are in one slot of a cluster.

    Raises:
        SettingsError: It is no such URL, or the ``redis`` package is missing.
    """

    def __init__(self, url: str, prefix: str) -> None:
        try:
            from redis.asyncio import Redis
            from redis.exceptions import RedisError
        except ImportError:
            raise SettingsError(
                "outbox", "in Redis needs the package redis: pip install 'convert-middleware[redis]'"
            ) from None
        self.shown = public(url)
        self._url = url
        self._prefix = f"{{{prefix}}}:"
        self._redis = Redis
        self._errors = (RedisError, OSError, TimeoutError)
        self._client: Redis | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._frugal = 0  # which text of a script runs
        try:
            # A connection that is made and not opened refuses options that there are not.
            self._make_client().connection_pool.make_connection()  # type: ignore[no-untyped-call] # it has none
        except (ValueError, TypeError, RedisError):  # they may repeat a part of the password
            raise SettingsError("outbox", _complaint(url, self.shown)) from None

    def after_fork(self) -> None:
        """Begin without a connection."""
        if self._client is not None:
            _inherited.append(self._client)
        self._client = None

    def script(self, name: str, keys: tuple[str, ...]) -> Script:
        """Return a script of this package.

        Args:
            name: Its file.
            keys: The keys it works on, without the prefix.
        """
        return Script(name, [self.key(key) for key in keys])

    def key(self, name: str) -> str:
        """Return a key with the prefix."""
        return self._prefix + name

    async def run(
        self, script: Script, what: str, asked: Mapping[str, object], *, keys: list[str] | None = None
    ) -> Any:
        """Run a script and return its answer.

        Args:
            script: The script.
            what: What it should do; its first argument.
            asked: Its second argument, sent as JSON.
            keys: Further keys.

        Raises:
            UnansweredError: The connection failed, and it may have happened or not.
            UnreachableError: There was no connection.
            OutboxError: Redis refused; it did not happen, or only as far as it may be repeated.
        """
        from redis.exceptions import BusyLoadingError, NoScriptError, ResponseError

        all_keys = script.keys + keys if keys else script.keys
        arguments = (*all_keys, what, json.dumps(asked, separators=(",", ":")))
        try:
            client = await self._connected(what)
            # What is taken out makes room, so it must work without memory; what is put in must not.
            frugal = self._frugal if what != "put" else 0
            try:
                answer = await client.evalsha(script.digests[frugal], len(all_keys), *arguments)
            except NoScriptError:
                answer = await client.eval(script.texts[frugal], len(all_keys), *arguments)
        except (ResponseError, BusyLoadingError) as error:
            if _leads_elsewhere(error):
                await self.close()
            raise OutboxError(self.shown, what, _name(error)) from error
        except self._errors as error:
            await self.close()
            raise UnansweredError(self.shown, what, _name(error)) from error
        return json.loads(answer)

    async def close(self) -> None:
        """Close the connection; the next step opens another."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.aclose()

    async def _connected(self, what: str) -> Redis:
        if self._client is None or self._loop is not asyncio.get_running_loop():
            client = self._make_client()
            self._loop = asyncio.get_running_loop()
            self._client = client
            try:
                about = await client.info("server")
            except self._errors as error:  # memory takes over only what certainly was not asked for
                await self.close()
                raise UnreachableError(self.shown, what, _name(error)) from error
            version = tuple(map(int, about["redis_version"].split(".")[:2]))
            if version < OLDEST:
                await self.close()
                found = ".".join(map(str, version))
                raise OutboxError(
                    self.shown, what, f"it is Redis {found}, and 6.2 is the oldest that works; upgrade it"
                )
            self._frugal = 1 if version >= (7, 0) else 0
        return self._client

    def _make_client(self) -> Redis:
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        if urlsplit(self._url).scheme not in _SCHEMES or _misread(self._url):
            raise ValueError
        return self._redis.from_url(
            self._url,
            socket_connect_timeout=CONNECT_TIMEOUT,
            socket_timeout=ANSWER_TIMEOUT,
            retry=Retry(NoBackoff(), 0),  # a step that is blindly repeated would happen twice
            single_connection_client=True,
        )


def _name(error: Exception) -> str:
    """Return what kind of error it is; messages of Redis may hold keys, and so visitors."""
    kind = type(error).__name__
    word = str(error).partition(" ")[0]
    return word if kind == "ResponseError" and word.isupper() and word.isalpha() else kind


def _leads_elsewhere(error: Exception) -> bool:
    """Tell whether a server says that it has another role now; its name may lead to its successor by then."""
    return _name(error) in _ROLES or any(word in str(error) for word in _ROLES)


def _misread(url: str) -> bool:
    """Tell whether a slash, a question mark or a hash of the password seems to end the host."""
    parts = urlsplit(url)
    names = [name for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    return parts.port == 0 or (
        parts.netloc != "" and "@" in unquote("".join([parts.path, parts.fragment, *names]))
    )


def _complaint(url: str, without_secrets: str) -> str:
    """Return what to say of a URL that redis-py refuses."""
    options = url.partition("?")[2]
    names = [name for name, _ in parse_qsl(options, keep_blank_values=True)]
    certain = names and "@" not in unquote(options)  # else they may be a part of the password
    said = f" with the options {shown(', '.join(names))}" if certain else ""
    return (
        f"is no URL that redis-py takes: {shown(without_secrets)}{said}; write it like "
        "'redis://:password@host:6379/0', with every special character of the password percent-encoded"
    )
