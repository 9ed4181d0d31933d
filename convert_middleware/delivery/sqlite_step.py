"""One transaction of an outbox in a file: what it says to SQLite, and what it does to the account.

It knows the tables, and nothing of connections, faults and leases.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable

    from convert_middleware.delivery.entry import Entry

PUT: Final = (
    "INSERT INTO hits (text, worth, accepted_at, due, attempts, waited, visitor, owner) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
DUE: Final = (
    "SELECT id, text, worth, accepted_at, attempts, waited, visitor, owner FROM hits "
    "WHERE due > 0 AND due <= ? AND holder IS NULL ORDER BY due LIMIT ?"
)
FRESH: Final = (
    "SELECT id, text, worth, accepted_at, attempts, waited, visitor, owner FROM hits "
    "WHERE id > ? AND due = 0 AND holder IS NULL ORDER BY id LIMIT ?"
)
HOLD: Final = "UPDATE hits SET holder = ? WHERE id = ?"
HOLD_FRESH: Final = (  # half the price of one by one
    "UPDATE hits SET holder = ? WHERE id BETWEEN ? AND ? AND due = 0 AND holder IS NULL"
)
ANY_FRESH: Final = "SELECT 1 FROM hits WHERE id > ? AND due = 0 AND holder IS NULL LIMIT 1"
RETRY: Final = (
    "UPDATE hits SET due = ?, attempts = ?, waited = ?, owner = ?, holder = NULL WHERE id = ? AND holder = ?"
)
BURY: Final = (
    "INSERT INTO dead (text, worth, accepted_at, attempts, reason, died_at, visitor) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)
FORGET_DEAD: Final = "DELETE FROM dead WHERE id <= (SELECT max(id) FROM dead) - ?"
TAKE_BACK: Final = (
    "UPDATE hits SET holder = NULL, owner = ?, due = max(accepted_at, ?) WHERE holder = ? "
    "RETURNING length(CAST(text AS BLOB))"
)
VICTIMS_FIRST: Final = (  # the least valuable; of these the retry that is due last, then the oldest
    "SELECT id, worth FROM hits WHERE holder IS NULL ORDER BY worth, due = 0, -due, id LIMIT ?"
)
SACRIFICE: Final = (
    "DELETE FROM hits WHERE id = ? AND holder IS NULL RETURNING owner, length(CAST(text AS BLOB))"
)
WITHDRAW: Final = (
    "DELETE FROM hits WHERE visitor = ? AND holder IS NULL RETURNING id, owner, length(CAST(text AS BLOB))"
)
TELL_OWNER: Final = (
    "UPDATE accounts SET waiting = waiting - ?, bytes = bytes - ?, ceded = ceded + ? WHERE id = ?"
)
KEEP_ACCOUNT: Final = (
    "INSERT INTO accounts (id, alive_until, held, waiting, bytes) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT DO UPDATE SET alive_until = excluded.alive_until, held = excluded.held, "
    "waiting = excluded.waiting, bytes = excluded.bytes, ceded = 0"
)
LEAVE_NO_ACCOUNT: Final = "DELETE FROM accounts WHERE id = ? AND waiting = 0 AND held = 0 AND ceded = 0"
FORGET_ACCOUNTS: Final = "DELETE FROM accounts WHERE waiting = 0 AND held = 0 AND alive_until < ?"
NEXT: Final = (
    "SELECT EXISTS (SELECT 1 FROM hits WHERE id > ? AND due = 0 AND holder IS NULL), "
    "(SELECT min(due) FROM hits WHERE due > 0 AND holder IS NULL), "
    "(SELECT min(alive_until) FROM accounts WHERE held > 0 AND id <> ?), "
    "EXISTS (SELECT 1 FROM accounts WHERE id <> ?), "
    "EXISTS (SELECT 1 FROM accounts WHERE id = ? AND ceded > 0)"
)


class Flight(NamedTuple):
    """A hit this process holds, and in which of the files it opened one after the other it has its row."""

    row: int
    file: int
    entry: Entry


@dataclass(slots=True)
class Step:
    """What one transaction does to the account; it comes into force when the transaction is written."""

    connection: sqlite3.Connection
    others: list[tuple[int, int, float]]  # id, held, alive until
    waiting: int
    bytes: int
    held: int
    room_hits: int
    room_bytes: int
    alive_until: float
    gained: int = 0
    ceded: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    lost: list[int] = field(default_factory=list)  # rows that certainly never left
    started: list[Flight] = field(default_factory=list)
    landed: list[int] = field(default_factory=list)  # ids of entries no longer in flight

    def enter(self, size: int) -> None:
        """Let a hit of ours wait."""
        self.waiting += 1
        self.bytes += size
        self.room_hits -= 1
        self.room_bytes -= size

    def leave(self, me: int, gone: Iterable[tuple[int, int]]) -> None:
        """Let hits wait no longer; those of others become ours, and their owners are told."""
        number: Counter[int] = Counter()
        size: Counter[int] = Counter()
        for owner, length in gone:
            number[owner] += 1
            size[owner] += length
        for owner, many in number.items():
            self.room_hits += many
            self.room_bytes += size[owner]
            if owner == me:
                self.waiting -= many
                self.bytes -= size[owner]
            else:
                self.gained += many
                self.connection.execute(TELL_OWNER, (many, size[owner], many, owner))
