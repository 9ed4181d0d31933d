"""Hits waiting in a file: what was accepted survives the process, and the workers of a machine share it.

Every process has an account in the file, with what waits in its name and what it holds, and is alive as long
as it renews it. What a dead process held may have left. The outbox stores opaque text and belongs to the
delivery thread; requests never touch it.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from convert_middleware.delivery.entry import Entry
from convert_middleware.delivery.outbox import (
    MAX_BYTES,
    MAX_HITS,
    NOT_OWED,
    Counts,
    check_limits,
    check_seconds,
)
from convert_middleware.delivery.sqlite_shared import SharedFile
from convert_middleware.delivery.sqlite_step import (
    ANY_FRESH,
    BURY,
    DUE,
    FORGET_ACCOUNTS,
    FORGET_DEAD,
    FRESH,
    HOLD,
    HOLD_FRESH,
    KEEP_ACCOUNT,
    LEAVE_NO_ACCOUNT,
    NEXT,
    PUT,
    RETRY,
    SACRIFICE,
    TAKE_BACK,
    VICTIMS_FIRST,
    WITHDRAW,
    Flight,
    Step,
)

if TYPE_CHECKING:
    import os
    import sqlite3

MAX_DEAD: Final = 10_000  # dead letters kept
LEASE: Final = 30.0  # seconds without a sign of life after which a process counts as dead
PATIENCE: Final = 0.5  # seconds to wait for another process that writes; it does so for milliseconds
_RECEIPTS: Final = 1_000  # receipts kept before somebody looks which hits others took
_LEFT: Final = 1.0  # seconds since the last sign of life of a process that says it leaves
_FORGOTTEN: Final = 86_400.0  # seconds after which a process that may come back has not come back
_VICTIMS: Final = 1000  # hits found together when room runs out; finding them reads the whole table
_AT_ONCE: Final = 1e-9  # a retry that is due; 0 stands for fresh hits


class SqliteOutbox(SharedFile):
    """The outbox of all processes of a machine that name the same file.

    Ends of hits are written together with the next batch put or taken, or by :meth:`commit`.

    Args:
        path: The file; made if there is none.
        max_hits: How many may wait, those of all processes together.
        max_bytes: How many bytes of text may wait.
        max_dead: How many dead letters are kept; the oldest go.
        lease: Seconds without a sign of life after which a process counts as dead.
        busy: Seconds to wait for another process that writes; the event loop goes on meanwhile.
        repeat_expired: Whether to send again what a dead process held, although it may have left.
        clock: Returns seconds since the epoch.

    Raises:
        SettingsError: There can be no such file, it is not ours, or a limit is impossible.
    """

    batch = 1_000  # hits in one transaction
    durable = True  # what it holds outlives the process

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_hits: int = MAX_HITS,
        max_bytes: int = MAX_BYTES,
        max_dead: int = MAX_DEAD,
        lease: float = LEASE,
        busy: float = PATIENCE,
        repeat_expired: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_limits(max_hits=max_hits, max_bytes=max_bytes, max_dead=max_dead)
        check_seconds(lease=lease, busy=busy)
        self._max_hits = max_hits
        self._max_bytes = max_bytes
        self._max_dead = max_dead
        self._lease = lease
        self._repeat_expired = repeat_expired
        self._clock = clock
        super().__init__(path, busy=busy)

    def after_fork(self) -> None:
        """Begin with an account of one's own: in a forked child what was here belongs to the parent."""
        super().after_fork()
        self._file = 0
        self._cursor = 0  # no fresh hit has this id or a lower one
        self._me = secrets.randbits(62)
        self._flying: dict[int, Flight] = {}
        self._ended: list[int] = []
        self._buried: list[tuple[str, int, float, int, str, float, str]] = []
        self._receipts: dict[int, object] = {}
        self._victims: deque[int] = deque()  # who goes next when room runs out, all of one worth
        self._victims_worth = 0
        self._gained = self._ceded = self._waiting = self._held = 0
        self._delivered = self._dead = 0
        self._dropped: Counter[str] = Counter()
        self._shown = Counts()
        self._page = self._shown, self._flying
        self.lost: deque[object] = deque()  # receipts of hits that were not counted and never will be

    async def put(self, entries: list[Entry]) -> None:
        """See :class:`~convert_middleware.delivery.outbox.Outbox`."""
        if not entries:
            return
        me = self._me
        rows = [
            (e.text, int(e.worth), e.accepted_at, 0.0, e.attempts, e.waited, e.visitor, me) for e in entries
        ]
        async with self._step("store hits") as step:
            step.connection.executemany(PUT, rows)
            step.gained += len(entries)
            for entry in entries:
                step.enter(_size(entry.text))
            if any(entry.receipt is not None for entry in entries):
                last: int = step.connection.execute("SELECT last_insert_rowid()").fetchone()[0]
                for row, entry in enumerate(entries, last - len(entries) + 1):
                    if entry.receipt is not None:
                        self._receipts[row] = entry.receipt
            self._spare(min(entry.worth for entry in entries) + 1)  # of equal ones the older goes
            self._make_room(step)

    async def take(self, number: int, now: float) -> list[Entry]:
        """See :class:`~convert_middleware.delivery.outbox.Outbox`."""
        if not self._ended and not self._buried and not await self._any_fresh():
            due = await self.next_due()
            if due is None or due > max(now, self._clock()):
                return []
        async with self._step("take hits") as step:
            self._reclaim(step)
            execute, me, cursor = step.connection.execute, self._me, self._cursor
            rows = execute(DUE, (now, number)).fetchall()
            if rows:
                step.connection.executemany(HOLD, [(me, row[0]) for row in rows])
            if room := number - len(rows):
                fresh = execute(FRESH, (cursor, room)).fetchall()
                if fresh:
                    execute(HOLD_FRESH, (me, fresh[0][0], fresh[-1][0]))
                cursor = fresh[-1][0] if len(fresh) == room else _last_id(step.connection)
                rows += fresh
            step.leave(me, [(row[7], _size(row[1])) for row in rows])
            step.held += len(rows)
            receipts, file = self._receipts, self._file
            flights = [
                Flight(row, file, Entry(text, worth, at, attempts, waited, visitor, receipts.get(row)))
                for row, text, worth, at, attempts, waited, visitor, _owner in rows
            ]
            step.started += flights
        self._cursor = cursor
        for flight in flights:
            receipts.pop(flight.row, None)
        return [flight.entry for flight in flights]

    def let_go(self, entry: Entry) -> bool:
        """Forget a hit in flight that waits elsewhere."""
        flying = self._land(entry)
        self._gained -= 1
        self._show(flying)
        return True

    def unsure_of(self, entries: list[Entry]) -> list[Entry]:
        """Return none: a transaction that failed did not happen."""
        del entries
        return []

    async def settle(self, entry: Entry) -> None:
        """See :class:`~convert_middleware.delivery.outbox.Outbox`."""
        # The one step by which the account knows: who is in flight no longer was delivered.
        flight = self._flying.pop(id(entry))
        if flight.file == self._file:
            self._ended.append(flight.row)

    async def bury(self, entry: Entry, reason: str) -> None:
        """Keep a hit in flight as a dead letter, which people may have sent again."""
        flying = self._land(entry)
        now, at = self._clock(), entry.accepted_at
        letter = (entry.text, int(entry.worth), at, entry.attempts, reason, now, entry.visitor)
        self._buried.append(letter)
        self._dead += 1
        self._show(flying)

    async def drop(self, entry: Entry, reason: str) -> None:
        """See :class:`~convert_middleware.delivery.outbox.Outbox`."""
        flying = self._land(entry)
        self._dropped[reason] += 1
        if reason not in NOT_OWED:
            self._lose(entry.receipt)
        self._show(flying)

    async def retry(self, entry: Entry, due: float) -> None:
        """See :class:`~convert_middleware.delivery.outbox.Outbox`."""
        await self._put_back([(entry, due)])

    async def purge(self, visitor: str) -> int:
        """See :class:`~convert_middleware.delivery.outbox.Outbox`; the visitor's dead letters go, too."""
        async with self._step("drop what waits of a visitor") as step:
            gone = step.connection.execute(WITHDRAW, (visitor,)).fetchall()
            step.leave(self._me, [(owner, size) for _, owner, size in gone])
            step.dropped["withdrawn"] += len(gone)
            step.connection.execute("DELETE FROM dead WHERE visitor = ?", (visitor,))
            self._victims.clear()
        for row, _, _ in gone:
            self._receipts.pop(row, None)
        return len(gone)

    async def release(self, entries: Iterable[Entry] | None = None) -> None:
        """Give back what was taken and certainly did not leave; all that is in flight by default."""
        given = [flight.entry for flight in self._flying.values()] if entries is None else list(entries)
        await self._put_back([(entry, entry.accepted_at) for entry in given])

    async def commit(self) -> None:
        """Write what ended since the last batch."""
        if self._ended or self._buried:
            async with self._step("write what was delivered"):
                pass

    async def renew(self, now: float) -> None:
        """Give a sign of life; whatever is written is one too."""
        async with self._step("renew its leases") as step:
            step.alive_until = now + self._lease

    async def next_due(self) -> float | None:
        """See :class:`~convert_middleware.delivery.outbox.Outbox`; with other processes never None."""
        me = self._me
        fresh, due, expiry, others, ceded = await self._look(NEXT, me, me, me)
        if ceded:  # what others took must not seem to wait
            async with self._step("note what others took"):
                pass
        if fresh:
            return 0.0
        # Somebody else may leave something at any time.
        moments = [due, expiry, self._clock() + self._lease if others else None]
        return min((moment for moment in moments if moment is not None), default=None)

    def counts(self) -> Counts:
        """Return the account of this process: of what it accepted and took over, less what others took."""
        shown, flying = self._page
        in_flight = len(flying)
        delivered = shown.delivered + shown.in_flight - in_flight
        return replace(shown, delivered=delivered, in_flight=in_flight)

    async def close(self) -> None:
        """Write what ended and leave the file; what is still in flight may have left."""
        if self._repeat_expired:
            await self.release()
        for flight in list(self._flying.values()):
            await self.drop(flight.entry, "interrupted")
        async with self._step("close") as step:
            step.alive_until = self._clock() - _LEFT
        await self._patiently("close", self._leave_no_account)
        self.disconnect()

    @asynccontextmanager
    async def _step(self, doing: str) -> AsyncIterator[Step]:
        """Do something in one transaction, together with what ended since the last one.

        Once begun it is not interrupted: nothing is awaited in it.
        """
        connection = await self._patiently(doing, self._begin_alone)
        try:
            with self._faults(doing):
                step = self._begin(connection)
                yield step
                account = (self._me, step.alive_until, step.held, step.waiting, step.bytes)
                connection.execute(KEEP_ACCOUNT, account)
                connection.execute("COMMIT")
                self._ended.clear()
                self._buried.clear()
                self._gained += step.gained
                self._ceded += step.ceded
                self._waiting = step.waiting
                self._held = step.held
                self._dropped += step.dropped
                flying = self._flying.copy()
                for key in step.landed:
                    del flying[key]
                for flight in step.started:
                    flying[id(flight.entry)] = flight
                for row in step.lost:
                    self._lose(self._receipts.pop(row, None))
                self._show(flying)
        finally:
            self._lock.release()

    async def _put_back(self, entries: list[tuple[Entry, float]]) -> None:
        """Let hits in flight wait again."""
        async with self._step("take hits back") as step:
            for entry, due in entries:
                row = self._wait_again(step, self._flying[id(entry)], max(due, _AT_ONCE))
                step.landed.append(id(entry))
                self._spare(entry.worth)
                if row and entry.receipt is not None:
                    self._receipts[row] = entry.receipt
            self._make_room(step)

    async def _any_fresh(self) -> bool:
        return await self._look(ANY_FRESH) is not None

    async def _look(self, query: str, *about: int) -> Any:
        """Return the first row of what is asked about hits behind the cursor."""

        def look() -> Any:
            return self._connected().execute(query, (self._cursor, *about)).fetchone()

        return await self._patiently("look for hits", look)

    # Below, the lock is held.

    def _leave_no_account(self) -> None:
        self._connected().execute(LEAVE_NO_ACCOUNT, (self._me,))

    def _begin(self, connection: sqlite3.Connection) -> Step:
        accounts = connection.execute("SELECT id, waiting, bytes, held, ceded, alive_until FROM accounts")
        mine, others = (0, 0, self._waiting), []  # of a forgotten account others took all that waited
        room_hits, room_bytes = self._max_hits, self._max_bytes
        for key, waiting, size, held, ceded, alive_until in accounts.fetchall():
            room_hits -= waiting
            room_bytes -= size
            if key == self._me:
                mine = waiting, size, ceded
            else:
                others.append((key, held, alive_until))
        if len(self._receipts) > 2 * mine[0] + _RECEIPTS:  # most are of hits that others took
            rows = connection.execute("SELECT id FROM hits WHERE owner = ? AND holder IS NULL", (self._me,))
            waiting = {row for (row,) in rows}
            self._receipts = {row: each for row, each in self._receipts.items() if row in waiting}
        if self._ended:
            ended = [(row, self._me) for row in self._ended]
            connection.executemany("DELETE FROM hits WHERE id = ? AND holder = ?", ended)
        if self._buried:
            connection.executemany(BURY, self._buried)
            connection.execute(FORGET_DEAD, (self._max_dead,))
        return Step(
            connection, others, mine[0], mine[1], self._held - len(self._ended), room_hits, room_bytes,
            self._clock() + self._lease, ceded=mine[2],
        )  # fmt: skip

    def _failed(self) -> None:
        self._victims.clear()

    def _lose_file(self) -> None:
        """Leave a file that is gone or broken, and count what waited in it as dropped."""
        super()._lose_file()
        self._file += 1
        self._cursor = self._held = 0
        self._victims.clear()
        self._ended.clear()
        self._receipts.clear()  # another process may have sent these hits
        if self._waiting:
            self._dropped["file lost"] += self._waiting
        self._waiting = 0
        self._show(self._flying.copy())

    def _reclaim(self, step: Step) -> None:
        """Deal with what dead processes held, and forget those that nobody will hear of any more."""
        long_ago = self._clock() - _FORGOTTEN
        if any(alive_until < long_ago for _, _, alive_until in step.others):
            step.connection.execute(FORGET_ACCOUNTS, (long_ago,))
        for key, held, alive_until in step.others:
            if not held or alive_until >= self._clock():
                continue
            if self._repeat_expired:
                sizes = step.connection.execute(TAKE_BACK, (self._me, _AT_ONCE, key)).fetchall()
                for (size,) in sizes:
                    step.enter(size)
                step.gained += len(sizes)
            else:
                gone = step.connection.execute("DELETE FROM hits WHERE holder = ?", (key,)).rowcount
                step.gained += gone
                step.dropped["interrupted"] += gone
            step.connection.execute("UPDATE accounts SET held = 0 WHERE id = ?", (key,))

    def _make_room(self, step: Step) -> None:
        while step.room_hits < 0 or step.room_bytes < 0:
            if not self._victims:
                found = step.connection.execute(VICTIMS_FIRST, (_VICTIMS,)).fetchall()
                if not found:
                    return
                self._victims_worth = found[0][1]
                self._victims.extend(row for row, worth in found if worth == self._victims_worth)
            row = self._victims.popleft()
            for owner, size in step.connection.execute(SACRIFICE, (row,)).fetchall():
                step.leave(self._me, [(owner, size)])
                step.dropped["overflow"] += 1
                step.lost.append(row)

    def _spare(self, worth: int) -> None:
        """Look for victims anew if a hit of this worth may have to go before those that were found."""
        if worth <= self._victims_worth:
            self._victims.clear()

    def _wait_again(self, step: Step, flight: Flight, due: float) -> int:
        """Return the row in which a hit in flight waits, 0 if our lease of it was over."""
        entry, row, execute = flight.entry, flight.row, step.connection.execute
        if flight.file == self._file:
            change = (due, entry.attempts, entry.waited, self._me, row, self._me)
            step.held -= 1
            if not execute(RETRY, change).rowcount:
                step.dropped["lease lost"] += 1
                return 0
        else:
            hit = (
                entry.text,
                int(entry.worth),
                entry.accepted_at,
                due,
                entry.attempts,
                entry.waited,
                entry.visitor,
                self._me,
            )
            row = execute(PUT, hit).lastrowid or 0
        step.enter(_size(entry.text))
        return row

    def _land(self, entry: Entry) -> dict[int, Flight]:
        """Return what remains in flight without a hit that was not delivered."""
        flying = self._flying.copy()
        flight = flying.pop(id(entry))
        if flight.file == self._file:
            self._ended.append(flight.row)
        return flying

    def _lose(self, receipt: object) -> None:
        if receipt is not None:
            self.lost.append(receipt)

    def _show(self, flying: dict[int, Flight]) -> None:
        """Begin a new page of the account; whoever reads sees the old one or the new one as a whole."""
        self._delivered += self._shown.in_flight - len(self._flying)  # since the last page
        self._flying = flying
        self._shown = Counts(
            self._gained - self._ceded,
            self._delivered,
            self._waiting,
            len(flying),
            self._dead,
            dict(self._dropped),
        )
        self._page = self._shown, flying


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _last_id(connection: sqlite3.Connection) -> int:
    found = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'hits'").fetchone()
    return found[0] if found else 0
