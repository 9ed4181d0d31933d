"""A database that the processes of a machine share, and the connection of one process to it.

It is opened when it is needed, closed while the process forks, and left when the file is gone or broken. What
stands in it is a subclass's affair.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, TypeVar
from weakref import WeakSet

from convert_middleware.delivery.forks import around_every_fork, in_every_child
from convert_middleware.delivery.sqlite_file import BUSY, is_broken, is_locked, name_of, open_file
from convert_middleware.errors import LockedError, OutboxError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_AT_A_TIME: Final = 0.02  # seconds in which the event loop stands still for another process, then as many not
T = TypeVar("T")


class SharedFile:
    """What is kept in one file.

    Whatever fails raises :class:`~convert_middleware.errors.OutboxError` and did not happen; the next call
    tries again, with a new file if the old one is gone or broken.

    Args:
        path: The file; made if there is none.
        busy: Seconds to wait for another process that writes; the event loop goes on meanwhile.

    Raises:
        SettingsError: There can be no such file, or it is not ours.
    """

    def __init__(self, path: str | os.PathLike[str], *, busy: float) -> None:
        self._path = os.path.abspath(os.fspath(path))  # noqa: PTH100 - SQLite takes text, and cwd may change
        self._busy = busy
        self._aside: list[str] = []  # broken files, by the names they have now
        self._say_aside: Callable[[str], None] | None = None
        self._connection: sqlite3.Connection | None = None
        self._pid = os.getpid()
        self._barred = False
        with suppress(OutboxError):  # whoever uses it first hears of that
            open_file(self._path, say_aside=self._note_aside).close()
        self.after_fork()
        _OPEN.add(self)

    def after_fork(self) -> None:
        """Begin anew in a forked child: what was here belongs to the parent."""
        if self._connection is not None and self._pid != os.getpid():
            # The fork went past the hook that closes the file. SQLite must neither use nor close it here
            # (https://www.sqlite.org/howtocorrupt.html, 2.6).
            _inherited.append(self._connection)
            self._barred = True
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._connection = None
        self._identity: tuple[int, int] | None = None
        self._thorough = False

    @property
    def set_aside(self) -> int:
        """How many broken files were renamed so far."""
        return len(self._aside)

    def on_set_aside(self, say: Callable[[str], None]) -> None:
        """Have somebody told of every broken file, by its new name, also of those renamed so far."""
        self._say_aside = say
        for name in self._aside:
            say(name)

    def disconnect(self) -> None:
        """Close the file; the next call opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def __del__(self) -> None:
        with suppress(AttributeError, sqlite3.Error):
            self.disconnect()

    async def _patiently(self, doing: str, do: Callable[[], T]) -> T:
        """Return what it returns; while another process keeps the file to itself the loop goes on."""
        deadline = time.monotonic() + self._busy
        while True:
            try:
                with self._lock, self._faults(doing):
                    return do()
            except LockedError:
                if time.monotonic() >= deadline:
                    raise
            await asyncio.sleep(_AT_A_TIME)

    # Below, the lock is held.

    def _begin_alone(self) -> sqlite3.Connection:
        """Begin a transaction, and hold the lock once more, for whoever ends it to let go."""
        connection = self._connected()
        connection.execute("BEGIN IMMEDIATE")
        self._lock.acquire()
        return connection

    @contextmanager
    def _faults(self, doing: str) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            if self._connection is not None and self._connection.in_transaction:
                with suppress(sqlite3.Error):  # SQLite has rolled back of its own accord after some errors
                    self._connection.execute("ROLLBACK")
            self._failed()
            if not isinstance(error, sqlite3.Error):
                raise
            if is_broken(error):
                self._lose_file()
            kind = LockedError if is_locked(error) else OutboxError
            raise kind(self._path, doing, name_of(error)) from error

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None and self._identity == _identity(self._path):
            return self._connection
        if self._barred:
            raise OutboxError(
                self._path, "open", "this process was forked past Python's hooks while it was open"
            )
        if self._connection is not None:
            self._lose_file()
            raise OutboxError(self._path, "find its file", "it is gone")
        try:
            self._connection = open_file(
                self._path, busy=_AT_A_TIME, thorough=self._thorough, say_aside=self._note_aside
            )
        except SettingsError as error:
            raise OutboxError(self._path, "open", error.reason) from error
        found = _identity(self._path)
        if self._identity not in (None, found):
            self._lose_file()
            raise OutboxError(self._path, "find its file", "another one is in its place")
        self._identity, self._thorough = found, False
        return self._connection

    def _failed(self) -> None:
        """Take note that something failed and did not happen."""

    def _lose_file(self) -> None:
        """Leave a file that is gone or broken."""
        with suppress(sqlite3.Error):
            self.disconnect()
        self._identity, self._thorough = None, True

    def _note_aside(self, name: str) -> None:
        self._aside.append(name)
        if self._say_aside is not None:
            self._say_aside(name)


_OPEN: Final[WeakSet[SharedFile]] = WeakSet()
_inherited: list[sqlite3.Connection] = []


def _hold() -> Iterator[Callable[[], None]]:
    """Close all files: a child that inherits an open one shares its locks without the system knowing."""
    for file in list(_OPEN):
        lock = file._lock  # noqa: SLF001 - it is the class's own module
        if lock.acquire(timeout=BUSY):
            with suppress(sqlite3.Error):
                file.disconnect()
            yield lock.release


def _begin_anew() -> None:
    for file in list(_OPEN):
        file.after_fork()


around_every_fork(_hold)
in_every_child(_begin_anew)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - a third of the price of Path, and asked for with every batch
    except OSError:
        return None
    return found.st_dev, found.st_ino
