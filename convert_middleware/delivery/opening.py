"""From the option that names an outbox to the outbox."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import parse_qsl, unquote, urlencode

from convert_middleware.delivery.adopted import AdoptedOutbox
from convert_middleware.delivery.outbox import MAX_BYTES, MAX_HITS, MemoryOutbox
from convert_middleware.delivery.redis_ledger import RedisLedger
from convert_middleware.delivery.redis_streams import RedisOutbox
from convert_middleware.delivery.sheltered import ShelteredOutbox, Store
from convert_middleware.delivery.sqlite import SqliteOutbox
from convert_middleware.errors import ConvertError, SettingsError, shown
from convert_middleware.hooks import OutboxSetAside

if TYPE_CHECKING:
    from collections.abc import Callable

    from convert_middleware.delivery.outbox import Outbox
    from convert_middleware.hooks import Announcer

REDIS: Final = ("redis://", "rediss://", "unix://")
_LIMITS: Final = {"max_hits": 10**8, "max_bytes": 2**40}


def open_outbox(
    outbox: object, announcer: Announcer, clock: Callable[[], float], *, repeat: bool
) -> MemoryOutbox:
    """Return the outbox that an option names.

    Args:
        outbox: ``"memory://"``, ``"sqlite:///path"`` or ``"redis://host:port/db"``, with ``?max_hits=`` and
            ``&max_bytes=`` if wanted, for Redis also ``&prefix=``; or an outbox itself, in memory or a store
            that memory is put in front of.
        announcer: Whom to tell when a store cannot be used.
        clock: Returns seconds since the epoch.
        repeat: Whether hits that a dead process was sending are sent again.

    Raises:
        SettingsError: There is no such outbox, or it can never be used.
    """
    store: Store
    limits: dict[str, int] = {}
    if isinstance(outbox, str) and outbox.startswith("sqlite:"):
        path, limits = path_of(outbox)
        store = SqliteOutbox(path, repeat_expired=repeat, clock=clock, **limits)
    elif isinstance(outbox, str) and outbox.startswith(REDIS):
        url, options = redis_options(outbox)
        store = RedisOutbox(url, repeat_expired=repeat, clock=clock, **options)
        limits = options
    elif isinstance(outbox, (str, MemoryOutbox)):
        return open_memory(outbox)
    elif isinstance(outbox, (SqliteOutbox, RedisOutbox)):
        store = outbox
    else:
        store = AdoptedOutbox(cast("Outbox", outbox))

    def say(error: ConvertError | None) -> None:
        if error is None:
            announcer.log(logging.WARNING, "outbox works", "The outbox works again.")
        else:
            announcer.log(logging.ERROR, "outbox", "%s Hits wait in memory meanwhile.", error)

    def say_aside(name: str) -> None:
        message = "The file of the outbox was broken and is %s now; what waited in it is not sent."
        announcer.log(logging.ERROR, "set aside", message, name)
        announcer.announce(OutboxSetAside(file=name))

    if isinstance(store, SqliteOutbox):
        store.on_set_aside(say_aside)
    return ShelteredOutbox(store, say, limits.get("max_hits", MAX_HITS), limits.get("max_bytes", MAX_BYTES))


def shared_ledger_of(outbox: MemoryOutbox) -> RedisLedger | None:
    """Return the ledger that machines share which share this outbox, if there is one."""
    store = outbox.store if isinstance(outbox, ShelteredOutbox) else None
    return RedisLedger(store.link) if isinstance(store, RedisOutbox) else None


def path_of(outbox: str) -> tuple[str, dict[str, int]]:
    """Return the file that ``sqlite:///path`` names, and the limits.

    Raises:
        SettingsError: It names none.
    """
    slashes, _, path = outbox.partition("///")
    path, _, options = path.partition("?")
    if slashes != "sqlite:" or not path:
        raise SettingsError(
            "outbox", f"must be 'sqlite:///path/to/file', with four slashes if absolute, not {shown(outbox)}"
        )
    return unquote(path), _limits_of(options)


def redis_options(outbox: str) -> tuple[str, dict[str, Any]]:
    """Return the URL for redis-py, which has options of its own behind the ``?``, and ours.

    Raises:
        SettingsError: One of ours is no whole number in its range, or the prefix is empty.
    """
    url, _, query = outbox.partition("?")
    ours: dict[str, Any] = {}
    theirs: list[tuple[str, str]] = []
    for name, text in parse_qsl(query, keep_blank_values=True):
        if name in _LIMITS:
            ours.update(_limits_of(f"{name}={text}"))
        elif name == "prefix":
            if not text or set(text) & set("{}"):
                raise SettingsError(
                    "outbox", f"has the prefix {shown(text)}; name one without braces, such as 'shop'"
                )
            ours["prefix"] = text
        else:
            theirs.append((name, text))
    return f"{url}?{urlencode(theirs)}" if theirs else url, ours


def open_memory(outbox: object) -> MemoryOutbox:
    """Return the outbox in memory that an option names, or that it is.

    Raises:
        SettingsError: There is no such outbox.
    """
    if isinstance(outbox, MemoryOutbox):
        return outbox
    if not isinstance(outbox, str):
        raise SettingsError(
            "outbox", f"must be a URL such as 'memory://' or a MemoryOutbox, not {shown(outbox)}"
        )
    scheme, colon, rest = outbox.partition("://")  # what follows may hold a password
    path, _, options = rest.partition("?")
    if scheme != "memory" or not colon or path:
        raise SettingsError(
            "outbox",
            "must be 'memory://', 'sqlite:///path' or 'redis://host:port/db', with '?max_hits=N' if wanted, "
            f"not one that begins with {scheme.partition(':')[0][:20]!r}",
        )
    return MemoryOutbox(**_limits_of(options))


def _limits_of(options: str) -> dict[str, int]:
    limits: dict[str, int] = {}
    for piece in filter(None, options.split("&")):
        name, _, text = piece.partition("=")
        if name not in _LIMITS or not (
            text.isascii() and text.isdigit() and 0 < int(text[:13]) <= _LIMITS[name]
        ):
            raise SettingsError(
                "outbox",
                f"has the option {shown(piece)}; there are max_hits and max_bytes, whole numbers from 1 to "
                f"{_LIMITS['max_hits']} and {_LIMITS['max_bytes']}",
            )
        limits[name] = int(text)
    return limits
