"""The file of a durable outbox: opened, recognised, made anew, set aside when it is no database any more.

It knows tables and faults of files, and nothing of what an outbox does with its hits.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from convert_middleware.errors import LockedError, OutboxError, SettingsError, shown

if sys.platform != "win32":  # there processes that start together on a broken file are on their own
    import fcntl

SCHEMA_VERSION: Final = 2
OLDEST_SQLITE: Final = (3, 35)  # the first with RETURNING
BUSY: Final = 5.0  # seconds to wait for another process; it writes for milliseconds
_APPLICATION: Final = 0x434F4E56  # "CONV" in the header of the file
_BROKEN: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_TRIES: Final = 1000  # names for files set aside

# A row of hits waits while nobody holds it: fresh with due 0, else as a retry. Ids only grow, so fresh hits
# are found behind the last one taken, without an index that every hit would pay for.
_SCHEMA: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE hits (
    id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL, worth INTEGER NOT NULL,
    accepted_at REAL NOT NULL, due REAL NOT NULL, attempts INTEGER NOT NULL, waited REAL NOT NULL,
    owner INTEGER NOT NULL, visitor TEXT NOT NULL DEFAULT '', holder INTEGER
);
CREATE INDEX retries ON hits (due) WHERE due > 0;
CREATE TABLE accounts (
    id INTEGER PRIMARY KEY, alive_until REAL NOT NULL, held INTEGER NOT NULL DEFAULT 0,
    waiting INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0, ceded INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE dead (
    id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL, worth INTEGER NOT NULL,
    accepted_at REAL NOT NULL, attempts INTEGER NOT NULL, reason TEXT NOT NULL, died_at REAL NOT NULL,
    visitor TEXT NOT NULL DEFAULT ''
);
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {SCHEMA_VERSION};
COMMIT;
"""
_RECOUNT: Final = """
UPDATE accounts SET waiting = 0, bytes = 0, held = 0;
INSERT INTO accounts (id, alive_until, waiting, bytes)
SELECT owner, 0, count(*), sum(length(CAST(text AS BLOB))) FROM hits WHERE holder IS NULL GROUP BY owner
ON CONFLICT DO UPDATE SET waiting = excluded.waiting, bytes = excluded.bytes;
INSERT INTO accounts (id, alive_until, held)
SELECT holder, 0, count(*) FROM hits WHERE holder IS NOT NULL GROUP BY holder
ON CONFLICT DO UPDATE SET held = excluded.held;
DELETE FROM accounts WHERE waiting + held = 0 AND alive_until < strftime('%s', 'now') - 86400
"""


def is_broken(error: sqlite3.Error) -> bool:
    """Tell whether an error says that the file is no sound database."""
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _BROKEN


def is_locked(error: sqlite3.Error) -> bool:
    """Tell whether an error says that another process keeps the file to itself."""
    return (getattr(error, "sqlite_errorcode", 0) & 0xFF) == sqlite3.SQLITE_BUSY


def name_of(error: sqlite3.Error) -> str:
    """Return what SQLite calls an error; nothing of what was stored."""
    return getattr(error, "sqlite_errorname", None) or type(error).__name__


def check_place(path: str) -> None:
    """Make sure that a file can be there.

    Raises:
        SettingsError: There is no such directory, a directory stands there, or SQLite is too old.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        found = sqlite3.sqlite_version
        raise SettingsError(
            "outbox", f"needs SQLite 3.35 or newer, and this Python has {found}; use 'memory://'"
        )
    if "\0" in path or not path:
        raise SettingsError("outbox", f"names no file: {shown(path)}")
    folder = Path(path).parent
    if not folder.is_dir():
        raise SettingsError(
            "outbox", f"is {shown(path)}, but there is no directory {shown(str(folder))}; create it first"
        )
    if Path(path).is_dir():
        raise SettingsError("outbox", f"is {shown(path)}, which is a directory; name a file in it")


def open_file(
    path: str, *, busy: float = BUSY, thorough: bool = True, say_aside: Callable[[str], None] | None = None
) -> sqlite3.Connection:
    """Open the file, made anew if need be.

    Args:
        path: Where it is.
        busy: Seconds to wait for another process.
        thorough: Read it from end to end and count what it holds anew.
        say_aside: Told the new name of a broken file that was set aside.

    Raises:
        SettingsError: The file is of another program.
        OutboxError: It cannot be opened at the moment, or is of another version.
    """
    check_place(path)
    try:
        with _alone(path, busy):
            _create(path)
            try:
                return _open(path, busy, thorough)
            except sqlite3.DatabaseError as error:
                if not is_broken(error):
                    raise
            aside = _set_aside(path)
            if say_aside is not None:  # at once: a new file may be impossible, as on a full disk
                say_aside(aside)
            _create(path)
            return _open(path, busy, thorough)
    except sqlite3.Error as error:
        kind = LockedError if is_locked(error) else OutboxError
        raise kind(path, "open", name_of(error)) from error
    except BlockingIOError as error:
        raise LockedError(path, "open", "another process is opening it") from error
    except OSError as error:
        raise OutboxError(path, "open", error.strerror or type(error).__name__) from error


def _create(path: str) -> None:
    """Make an empty file if there is none: it says what visitors bought, so it is its owner's alone.

    SQLite gives the files beside it the same mode. A file that is there must not even be opened: closing it
    would undo the locks of all connections in this process (https://www.sqlite.org/howtocorrupt.html, 2.2).
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600))


def _open(path: str, busy: float, thorough: bool) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=busy, isolation_level=None, check_same_thread=False)
    try:
        _prepare(connection, path)
        if thorough:
            _recount(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: str) -> None:
    version = _number(connection, "PRAGMA user_version")
    application = _number(connection, "PRAGMA application_id")
    tables = _number(connection, "SELECT count(*) FROM sqlite_master")
    if tables and application != _APPLICATION:
        raise SettingsError("outbox", f"is {shown(path)}, a database of another program; name another file")
    if tables and version != SCHEMA_VERSION:
        raise OutboxError(
            path,
            "open",
            f"it was written in version {version} and this package writes {SCHEMA_VERSION}; "
            "empty it with the version that wrote it, or name another file",
        )
    with closing(connection.execute("PRAGMA journal_mode = WAL")) as answer:
        answer.fetchall()
    connection.execute("PRAGMA synchronous = NORMAL")
    if not tables:
        connection.executescript(_SCHEMA)


def _recount(connection: sqlite3.Connection) -> None:
    with closing(connection.execute("PRAGMA quick_check(1)")) as answer:
        if answer.fetchall() != [("ok",)]:
            raise _broken()
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in _RECOUNT.split(";"):
            connection.execute(statement)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _broken() -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError("quick_check failed")
    error.sqlite_errorcode, error.sqlite_errorname = sqlite3.SQLITE_CORRUPT, "SQLITE_CORRUPT"
    return error


def _number(connection: sqlite3.Connection, query: str) -> int:
    with closing(connection.execute(query)) as answer:
        return int(answer.fetchone()[0])


def _set_aside(path: str) -> str:
    """Rename the file and what belongs to it to the first free ``*.corrupt-<n>``, and return that."""
    for number in range(1, _TRIES):
        aside = f"{path}.corrupt-{number}"
        if not Path(aside).exists():
            break
    for ending in ("-wal", "-shm", ""):
        with suppress(FileNotFoundError):
            Path(path + ending).replace(aside + ending)
    return aside


@contextmanager
def _alone(path: str, busy: float) -> Iterator[None]:
    """Keep other processes from opening the same file meanwhile, so that only one sets it aside."""
    if sys.platform == "win32":
        yield
        return
    descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + busy
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)
