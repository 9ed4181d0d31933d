"""The visitor's state as a packed struct, within a hard budget.

Layout: a header, a column of ids, a column of times relative to the start of the cookie's life, and a
column of credits: per goal one bit for each experiment. It knows sizes and what is let go first; it signs
nothing and trusts nothing that it reads.
"""

from __future__ import annotations

import struct
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from bisect import bisect_left
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import repeat
from operator import sub
from struct import Struct
from typing import Final

from convert_middleware.errors import ConvertError
from convert_middleware.visitor import Visitor

BUDGET: Final = 3072  # bytes of a cookie value; browsers drop cookies over 4 096 with name and attributes
MAX_TRANSACTIONS: Final = 16  # remembered in the cookie
MAX_PAYLOAD: Final = BUDGET - (2 + 1 + 43)  # without version, separator and 256 bits of signature


class Rejection(StrEnum):
    """Why a cookie or token is no state; its value is what counters and events show."""

    TOO_LONG = "too_long"
    MALFORMED = "malformed"
    VERSION = "version"
    SIGNATURE = "signature"
    FUTURE = "future"
    EXPIRED = "expired"


class RejectedError(ConvertError, ValueError):
    """A cookie is no valid state; the page goes on as if there were none."""

    def __init__(self, reason: Rejection) -> None:
        super().__init__(f"The visitor cookie was rejected: {reason}.")
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[Rejection]]:
        return type(self), (self.reason,)


@dataclass(frozen=True, slots=True)
class Evicted:
    """How much a state had to lose to stay within the budget."""

    transactions: int = 0
    experiments: int = 0
    goals: int = 0


_HEADER: Final = Struct(">BHHB16sQ")  # width of ids, numbers of the three kinds, visitor id, issued at
_FEW: Final = 24  # ids; splitting them into columns of bytes would cost more time than it saves space
_MAX_MOMENT: Final = 2**31 - 1
_NATIVE: Final = {1: "B", 2: "H", 3: "I", 4: "I", 5: "Q", 6: "Q", 7: "Q", 8: "Q"}  # bytes -> struct code


class _Layout:
    """Where everything is in a payload with these numbers of exposures, goals and transactions."""

    def __init__(self, width: int, exposures: int, goals: int, transactions: int) -> None:
        number, moments = 2 * exposures + goals + transactions, exposures + goals + transactions
        # Ids that need more than 32 bits are stored as a column of high bytes and one of low words: ten
        # digits fit into 40 bits.
        columns = {4: f"{number}I", 5: f"{number}B{number}I", 8: f"{number}Q"}[width]
        size = (exposures + 7) // 8
        self.credit_size = 0 if size <= 8 else size  # of one credit, where it is no native integer
        credited = f"{size}s" * goals if self.credit_size else f"{goals}{_NATIVE[size or 1]}"
        self.struct = Struct(f"{_HEADER.format}{columns}{moments}i{credited}")
        self.split = number if width == 5 else 0
        first = 6 + (2 * number if width == 5 else number)  # place of the first time stamp
        self.variations, self.goals, self.transactions = (
            6 + exposures,
            6 + 2 * exposures,
            6 + 2 * exposures + goals,
        )
        self.ids_end = 6 + number
        self.moments = slice(first, first + moments)
        self.reached, self.paid = exposures, exposures + goals
        self.credited = slice(first + moments, first + moments + goals)


@lru_cache(maxsize=1024)
def _layout(width: int, exposures: int, goals: int, transactions: int) -> _Layout:
    return _Layout(width, exposures, goals, transactions)


def _width(ids: tuple[int, ...]) -> int:
    """Return how many bytes each id gets: as few as are needed, but native words where ids are few."""
    largest = max(ids, default=0)
    if largest < 1 << 32:
        return 4
    return 5 if largest < 1 << 40 and len(ids) > _FEW else 8


def _layout_for(visitor: Visitor) -> _Layout:
    ids = visitor.experiments + visitor.variations + visitor.goals + visitor.transactions
    return _layout(_width(ids), len(visitor.experiments), len(visitor.goals), len(visitor.transactions))


def pack(visitor: Visitor, issued_at: int) -> bytes:
    """Return the state in base64 without padding; its life counts from ``issued_at``."""
    visitor_id, _, experiments, variations, presented, goals, reached, credited, transactions, paid = visitor
    ids = experiments + variations + goals + transactions
    shape = _width(ids), len(experiments), len(goals), len(transactions)
    layout = _layout(*shape)
    if layout.split:
        ids = (*[number >> 32 for number in ids], *[number & 0xFFFFFFFF for number in ids])
    moments = list(map(sub, presented + reached + paid, repeat(issued_at)))
    if layout.credit_size:
        columns = [credit.to_bytes(layout.credit_size) for credit in credited]
        raw = layout.struct.pack(
            *shape, bytes.fromhex(visitor_id), issued_at, *ids, *_clamped(moments), *columns
        )
    else:
        try:
            raw = layout.struct.pack(*shape, bytes.fromhex(visitor_id), issued_at, *ids, *moments, *credited)
        except struct.error:  # a clock was off by more than 68 years
            raw = layout.struct.pack(
                *shape, bytes.fromhex(visitor_id), issued_at, *ids, *_clamped(moments), *credited
            )
    return b2a_base64(raw, newline=False).rstrip(b"=")


def _clamped(moments: list[int]) -> list[int]:
    return [max(-_MAX_MOMENT, min(_MAX_MOMENT, moment)) for moment in moments]


def unpack(text: bytes) -> tuple[Visitor, int]:
    """Return what :func:`pack` wrote: the state, and the time its life counts from.

    Raises:
        RejectedError: It is no payload.
    """
    try:
        raw = a2b_base64(text + b"=" * (-len(text) % 4))
        layout = _layout(*_HEADER.unpack_from(raw)[:4])
        values = layout.struct.unpack(raw)
    except (Base64Error, struct.error, KeyError):
        raise RejectedError(Rejection.MALFORMED) from None
    issued_at: int = values[5]
    if layout.split:
        lows = values[layout.ids_end : layout.ids_end + layout.split]
        highs = values[6 : layout.ids_end]
        values_of_ids = tuple([high << 32 | low for high, low in zip(highs, lows, strict=True)])
        ids = (0, 0, 0, 0, 0, 0, *values_of_ids)
    else:
        ids = values
    moments = tuple(map(issued_at.__add__, values[layout.moments]))
    credited = values[layout.credited]
    if layout.credit_size:
        credited = tuple([int.from_bytes(credit) for credit in credited])
    visitor = Visitor(
        values[4].hex(),
        min(issued_at, *moments) if moments else issued_at,
        ids[6 : layout.variations],
        ids[layout.variations : layout.goals],
        moments[: layout.reached],
        ids[layout.goals : layout.transactions],
        moments[layout.reached : layout.paid],
        credited,
        ids[layout.transactions : layout.ids_end],
        moments[layout.paid :],
    )
    return visitor, issued_at


def within_budget(visitor: Visitor) -> tuple[Visitor, Evicted]:
    """Return the state as far as it fits, and what had to go.

    Transaction ids go first, then the oldest experiments, then the oldest goals; the newest stay.
    """
    lost = {
        "transactions": max(0, len(visitor.transactions) - MAX_TRANSACTIONS),
        "experiments": 0,
        "goals": 0,
    }
    for kind, least in lost.items():
        numbers = range(least, len(getattr(visitor, kind)))
        place = bisect_left(
            numbers, True, key=lambda number: _fits(visitor.without_oldest(**{**lost, kind: number}))
        )
        lost[kind] = least + place
    return visitor.without_oldest(**lost), Evicted(**lost)


def _fits(visitor: Visitor) -> bool:
    return _layout_for(visitor).struct.size <= MAX_PAYLOAD * 6 // 8
