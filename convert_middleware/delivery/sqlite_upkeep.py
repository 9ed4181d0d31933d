"""Looking after an outbox in a file, beside the processes that use it.

It never makes a file, never puts a broken one aside and holds nothing; it writes one short transaction at a
time.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from convert_middleware.delivery.sqlite_file import BUSY, check_place, is_broken, name_of, open_file
from convert_middleware.delivery.sqlite_step import PUT, TELL_OWNER
from convert_middleware.delivery.upkeep import Letter, Status
from convert_middleware.errors import OutboxError, SettingsError, shown

if TYPE_CHECKING:
    import os

_NOBODY: Final = 0  # whose account has what waits again; no process has this number
_TABLES: Final = "SELECT count(*) FROM sqlite_master WHERE name IN ('hits', 'accounts', 'dead')"
_STATUS: Final = (
    "SELECT count(*) FILTER (WHERE holder IS NULL), "
    "count(*) FILTER (WHERE holder IS NULL AND attempts > 0), "
    "count(holder), (SELECT count(*) FROM dead), "
    "coalesce(sum(length(CAST(text AS BLOB))) FILTER (WHERE holder IS NULL), 0), "
    "min(accepted_at) FILTER (WHERE holder IS NULL), "
    "(SELECT count(*) FROM accounts WHERE alive_until >= ?) FROM hits"
)
_DEAD: Final = (
    "SELECT id, worth, accepted_at, died_at, attempts, reason, text FROM dead "
    "WHERE id > ? ORDER BY id LIMIT ?"
)
_RISE: Final = "DELETE FROM dead WHERE id = ? RETURNING text, worth, visitor, length(CAST(text AS BLOB))"
_OWE: Final = (
    "INSERT INTO accounts (id, alive_until, waiting, bytes) VALUES (?, 0, ?, ?) "
    "ON CONFLICT DO UPDATE SET waiting = waiting + excluded.waiting, bytes = bytes + excluded.bytes"
)
_OWNERS: Final = (
    "SELECT owner, count(*), sum(length(CAST(text AS BLOB))) FROM hits WHERE holder IS NULL GROUP BY owner"
)


class SqliteUpkeep:
    """Looks after the outbox in a file.

    Args:
        path: The file.
        clock: Returns seconds since the epoch.
        busy: Seconds to wait for another process that writes.

    Raises:
        SettingsError: There is no such file, or it is no outbox.
        OutboxError: It cannot be opened at the moment, or is of another version.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        clock: Callable[[], float] = time.time,
        busy: float = BUSY,
    ) -> None:
        self._path = str(Path(path).absolute())
        self._clock = clock
        check_place(self._path)
        if not Path(self._path).exists():
            raise SettingsError("outbox", f"is {shown(self._path)}, and there is no such file")
        _must_be_outbox(self._path)
        self._connection = open_file(self._path, busy=busy, thorough=False)

    async def status(self) -> Status:
        """See :class:`~convert_middleware.delivery.upkeep.Upkeep`."""
        with self._faults("count what it holds"):
            return Status(*self._connection.execute(_STATUS, (self._clock(),)).fetchone())

    async def dead(self, number: int, after: str = "") -> list[Letter]:
        """See :class:`~convert_middleware.delivery.upkeep.Upkeep`."""
        first = _row(after) or 0
        with self._faults("read dead letters"):
            rows = self._connection.execute(_DEAD, (first, number)).fetchall()
        return [Letter(str(row[0]), *row[1:]) for row in rows]

    async def replay(self, keys: Sequence[str], now: float) -> int:
        """See :class:`~convert_middleware.delivery.upkeep.Upkeep`."""
        risen = [(row,) for key in keys if (row := _row(key)) is not None]
        with self._writing("let dead letters wait again") as execute:
            found = [letter for row in risen for letter in execute(_RISE, row).fetchall()]
            for text, worth, visitor, _ in found:
                execute(PUT, (text, worth, now, 0.0, 0, 0.0, visitor, _NOBODY))
            if found:
                execute(_OWE, (_NOBODY, len(found), sum(size for *_, size in found)))
        return len(found)

    async def purge_dead(self) -> int:
        """See :class:`~convert_middleware.delivery.upkeep.Upkeep`."""
        with self._writing("delete dead letters") as execute:
            return execute("DELETE FROM dead", ()).rowcount

    async def purge_waiting(self) -> int:
        """See :class:`~convert_middleware.delivery.upkeep.Upkeep`."""
        with self._writing("delete what waits") as execute:
            for owner, number, size in execute(_OWNERS, ()).fetchall():
                execute(TELL_OWNER, (number, size, number, owner))
            return execute("DELETE FROM hits WHERE holder IS NULL", ()).rowcount

    async def close(self) -> None:
        """See :class:`~convert_middleware.delivery.upkeep.Upkeep`."""
        self._connection.close()

    @contextmanager
    def _writing(self, doing: str) -> Iterator[Callable[[str, tuple[object, ...]], sqlite3.Cursor]]:
        """Do something in one transaction or not at all."""
        with self._faults(doing):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection.execute
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:
                    with suppress(sqlite3.Error):  # the error under way says more
                        self._connection.execute("ROLLBACK")

    @contextmanager
    def _faults(self, doing: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise OutboxError(self._path, doing, name_of(error)) from error


def _row(key: str) -> int | None:
    """Return the row of a letter; None if no letter can have this key."""
    return int(key) if key.isascii() and key.isdigit() and len(key) < 19 else None


def _must_be_outbox(path: str) -> None:
    """Make sure that opening the file will neither fill it nor put it aside."""
    try:
        with closing(sqlite3.connect(f"{Path(path).as_uri()}?mode=rw", uri=True)) as connection:
            outbox = connection.execute(_TABLES).fetchone() == (3,)
    except sqlite3.Error as error:
        if not is_broken(error):
            raise OutboxError(path, "open", name_of(error)) from error
        outbox = False
    if not outbox:
        raise SettingsError("outbox", f"is {shown(path)}, which is no outbox of convert_middleware")
