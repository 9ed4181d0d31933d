"""What was received, in SQLite: one row per request, whatever became of it.

Rows are written in batches, so that taking a request costs no commit; reading writes the waiting batch
first. One lock makes it safe from any thread. It stores and returns; it counts nothing.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import weakref
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import RLock
from typing import TYPE_CHECKING, Final, Literal

from convert_middleware import wire
from convert_middleware.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from convert_middleware.model import Hit

Outcome = Literal["hit", "malformed", "bot"]
_log = logging.getLogger("convert_middleware.collector")
_APPLICATION: Final = 0x436F6E76  # "Conv": marks the file as ours
_VERSION: Final = 1
_BATCH: Final = 500  # rows that wait at most
_PATIENCE: Final = 0.05  # seconds for another program's lock on the file; requests wait meanwhile
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS request (
    id          INTEGER PRIMARY KEY,
    received_at INTEGER NOT NULL,  -- milliseconds since 1970, UTC
    outcome     TEXT NOT NULL CHECK (outcome IN ('hit', 'malformed', 'bot')),
    path        TEXT NOT NULL,
    query       TEXT NOT NULL,     -- as it stood on the wire
    user_agent  TEXT NOT NULL,
    headers     TEXT NOT NULL,     -- JSON: [[name, value], ...]
    content     TEXT,              -- JSON: a hit's decoded content, or what is wrong with a malformed request
    duplicate   INTEGER NOT NULL   -- 1: the transaction id was used before
) STRICT;
CREATE INDEX IF NOT EXISTS request_outcome ON request (outcome, id);
"""
_COLUMNS: Final = "id, received_at, outcome, path, query, user_agent, headers, content, duplicate"
Row = tuple[int, int, str, str, str, str, str, str | None, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One request as it was received.

    Attributes:
        id: Running number over all requests of this collector.
        received_at: When, in UTC, to the millisecond.
        outcome: ``hit``, ``malformed`` or ``bot``.
        path: Path of the request.
        query: Query string as it stood on the wire.
        user_agent: Empty if there was none.
        headers: All request headers, in order, names in lower case.
        content: Decoded content of a hit, or what is wrong with a malformed request, as JSON text.
        duplicate: Whether the hit's transaction id was used before.
    """

    id: int
    received_at: datetime
    outcome: str
    path: str
    query: str
    user_agent: str
    headers: tuple[tuple[str, str], ...]
    content: str | None = None
    duplicate: bool = False

    @property
    def hit(self) -> Hit:
        """What the request says.

        Raises:
            WireError: It is malformed; the error tells why.
        """
        return wire.decode(f"?{self.query}")

    def as_row(self) -> Row:
        """Return the columns in the order of the table."""
        milliseconds = round(self.received_at.timestamp() * 1000)
        headers = json.dumps(self.headers, separators=(",", ":"))
        return (
            self.id,
            milliseconds,
            self.outcome,
            self.path,
            self.query,
            self.user_agent,
            headers,
            self.content,
            int(self.duplicate),
        )

    @classmethod
    def from_row(cls, row: Row) -> Record:
        """Return the record that :meth:`as_row` wrote."""
        number, milliseconds, outcome, path, query, user_agent, headers, content, duplicate = row
        return cls(
            id=number,
            received_at=at(milliseconds),
            outcome=outcome,
            path=path,
            query=query,
            user_agent=user_agent,
            headers=tuple([(name, value) for name, value in json.loads(headers)]),
            content=content,
            duplicate=bool(duplicate),
        )


def at(milliseconds: int) -> datetime:
    """Return a time in milliseconds since 1970 as UTC."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


class Store:
    """The table of requests.

    Args:
        database: A file, created when missing, or ``":memory:"``.

    Raises:
        SettingsError: The file cannot be opened or belongs to something else.
    """

    def __init__(self, database: str) -> None:
        self._lock = RLock()
        self._waiting: list[Row] = []
        self._complained = False
        self._connection = _open(database)
        weakref.finalize(self, self._connection.close)
        self.last_id: int
        (self.last_id,) = self._connection.execute("SELECT coalesce(max(id), 0) FROM request").fetchone()

    @property
    def waiting(self) -> int:
        """How many records are not yet written."""
        return len(self._waiting)

    def add(self, record: Record) -> None:
        """Keep a record; it is written with the next batch."""
        with self._lock:
            self._waiting.append(record.as_row())
            self.last_id = record.id
            if len(self._waiting) >= _BATCH:
                self.flush()

    def flush(self) -> None:
        """Write what waits. A disk that refuses is reported once and tried again with the next batch."""
        with self._lock:
            if not self._waiting:
                return
            try:
                with self._connection:
                    self._connection.executemany(
                        f"INSERT INTO request ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?)",  # noqa: S608 - constants
                        self._waiting,
                    )
            except sqlite3.Error:
                if not self._complained:
                    _log.exception("The collector's database refuses to write; requests wait in memory.")
                self._complained = True
                return
            self._complained = False
            self._waiting.clear()

    def newest(self, limit: int, outcomes: Iterable[Outcome], after: int = 0) -> list[Record]:
        """Return the last ``limit`` records after an id, oldest first."""
        return self._select(outcomes, after, "DESC", limit)[::-1]

    def oldest(self, limit: int, outcomes: Iterable[Outcome], after: int = 0) -> list[Record]:
        """Return the first ``limit`` records after an id, oldest first."""
        return self._select(outcomes, after, "ASC", limit)

    def _select(self, outcomes: Iterable[Outcome], after: int, order: str, limit: int) -> list[Record]:
        wanted = list(outcomes)
        places = ",".join("?" * len(wanted))
        with self._lock:
            self.flush()
            rows = self._connection.execute(
                f"SELECT {_COLUMNS} FROM request WHERE id > ? AND outcome IN ({places})"  # noqa: S608 - constants
                f" ORDER BY id {order} LIMIT ?",
                (after, *wanted, limit),
            ).fetchall()
        return [Record.from_row(row) for row in rows]

    def outcomes(self) -> Iterator[tuple[str, str]]:
        """Yield outcome and query of every request, oldest first."""
        yield from self._connection.execute("SELECT outcome, query FROM request ORDER BY id")

    def clear(self) -> None:
        """Forget everything; numbers go on from where they are."""
        with self._lock:
            with self._connection:
                self._connection.execute("DELETE FROM request")
            self._waiting.clear()

    def close(self) -> None:
        """Write what waits and close the file; nothing works afterwards."""
        with self._lock:
            self.flush()
            self._connection.close()


def _open(database: str) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(database, timeout=_PATIENCE, check_same_thread=False)
    except sqlite3.Error as error:
        raise SettingsError("database", f"cannot be opened: {database}: {error}") from error
    try:
        _prepare(connection, database)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, database: str) -> None:
    try:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if tables and application != _APPLICATION:
            raise SettingsError("database", f"belongs to another program: {database}; name a new file")
        if tables and version != _VERSION:
            raise SettingsError(
                "database", f"has format {version}, this is format {_VERSION}: {database}; name a new file"
            )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        connection.execute(f"PRAGMA user_version = {_VERSION}")
        connection.executescript(_SCHEMA)
    except sqlite3.Error as error:
        raise SettingsError("database", f"is no usable SQLite file: {database}: {error}") from error
