"""Looking after an outbox that processes share: what it holds, and what became of what Convert refused.

For people and their tools; no request and no delivery goes through here. It knows nothing of hits but their
text, which holds what visitors did and is shown to nobody who did not ask for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from convert_middleware.delivery.opening import REDIS, path_of, redis_options
from convert_middleware.delivery.redis_streams import PREFIX
from convert_middleware.errors import SettingsError


@dataclass(frozen=True, slots=True)
class Status:
    """What an outbox holds, of all processes together.

    Attributes:
        waiting: Hits that wait.
        retrying: Those of them that were tried before.
        in_flight: Hits that some process is sending.
        dead: Hits that Convert refused for good.
        bytes: Bytes of text that wait.
        oldest: When the oldest waiting hit was accepted, in seconds since the epoch; None if none waits.
        processes: How many processes gave a sign of life lately.
    """

    waiting: int
    retrying: int
    in_flight: int
    dead: int
    bytes: int
    oldest: float | None
    processes: int


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter: a hit that Convert refused for good.

    Attributes:
        key: Names it in its outbox.
        worth: See :class:`~convert_middleware.delivery.outbox.Worth`.
        accepted_at: When the hit was handed over, in seconds since the epoch.
        died_at: When it was refused.
        attempts: How often it was tried.
        reason: Why it was refused, without anything of the request.
        text: The query string; it says what a visitor did, and is no part of the repr.
    """

    key: str
    worth: int
    accepted_at: float
    died_at: float
    attempts: int
    reason: str
    text: str = field(repr=False)


class Upkeep(Protocol):
    """Looks after an outbox while processes use it; their accounts stay right."""

    async def status(self) -> Status:
        """Return what the outbox holds."""

    async def dead(self, number: int, after: str = "") -> list[Letter]:
        """Return up to ``number`` dead letters, oldest first, from behind the one with the key ``after``."""

    async def replay(self, keys: Sequence[str], now: float) -> int:
        """Let dead letters wait again as if they had been accepted now; each once or not at all.

        Args:
            keys: Of the letters; those of others are passed over.
            now: Seconds since the epoch.

        Returns:
            How many wait again.
        """

    async def purge_dead(self) -> int:
        """Delete all dead letters; return how many those were."""

    async def purge_waiting(self) -> int:
        """Delete all hits that wait; return how many those were."""

    async def close(self) -> None:
        """Leave the outbox."""


def open_upkeep(url: str) -> Upkeep:
    """Return what looks after the outbox that an option names.

    Args:
        url: ``"sqlite:///path"`` or ``"redis://host:port/db"``, with ``?prefix=`` if there is one.

    Raises:
        SettingsError: There is no such outbox, or only its own process can see it.
    """
    must_be_shared(url)
    if url.startswith("sqlite:"):
        from convert_middleware.delivery.sqlite_upkeep import SqliteUpkeep

        return SqliteUpkeep(path_of(url)[0])
    from convert_middleware.delivery.redis_upkeep import RedisUpkeep

    redis, options = redis_options(url)
    return RedisUpkeep(redis, prefix=options.get("prefix", PREFIX))


def must_be_shared(url: str) -> None:
    """Make sure that other processes can see an outbox.

    Raises:
        SettingsError: Only its own process can, or there is no such kind. What follows the scheme may hold a
            password and is not repeated.
    """
    scheme = url.partition(":")[0]
    if scheme == "memory":
        raise SettingsError(
            "outbox",
            "is in memory, where only its own process can see it; name one that processes share, "
            "such as 'sqlite:////var/lib/shop/outbox.db'",
        )
    if not url.startswith(("sqlite:", *REDIS)):
        raise SettingsError(
            "outbox",
            "must be 'sqlite:///path/to/file', with four slashes if absolute, or 'redis://host:port/db', "
            f"not one that begins with {scheme[:20]!r}",
        )
