"""The visitor's state as a packed struct, within a hard budget.

Layout: the shape, whose it is, a column of times, a column of ids, and a column of credits: per goal one bit
for each experiment. It knows sizes and what is let go first; it signs nothing and trusts nothing that it
reads.
"""

from __future__ import annotations

import struct
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from bisect import bisect_left
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import accumulate, pairwise
from struct import Struct
from typing import TYPE_CHECKING, Final

from convert_middleware.errors import ConvertError
from convert_middleware.visitor import Visitor, unchecked

if TYPE_CHECKING:
    from collections.abc import Iterable

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


_SHAPE: Final = Struct(">BBHHH")  # bytes of an id, bytes of a time, numbers of the three kinds
_WHOSE: Final = "16s"  # visitor id, followed by two times: the first visit, and where the cookie's life began
_FEW: Final = 24  # ids; splitting them into columns of bytes would cost more time than it saves space
_LATEST: Final = 2**32 - 1  # of the times that four bytes hold; in the year 2106
_TIMES: Final = {4: "I", 8: "q"}  # bytes -> struct code of a time
_CODES: Final = {1: "B", 2: "H", 3: "I", 4: "I", 5: "Q", 6: "Q", 7: "Q", 8: "Q"}  # bytes -> struct code


class _Layout:
    """Where everything is in a payload of this shape."""

    def __init__(self, width: int, precision: int, exposures: int, goals: int, transactions: int) -> None:
        number, moments = 2 * exposures + goals + transactions, exposures + goals + transactions
        # Ids that need more than 32 bits are stored as a column of high bytes and one of low words: ten
        # digits fit into 40 bits.
        columns = {4: f"{number}I", 5: f"{number}B{number}I", 8: f"{number}Q"}[width]
        size = (exposures + 7) // 8
        self.credit_size = 0 if size <= 8 else size  # of one credit, where it is no native integer
        credited = f"{size}s" * goals if self.credit_size else f"{goals}{_CODES[size or 1]}"
        times = f"{2 + moments}{_TIMES[precision]}"
        self.shape = _SHAPE.pack(width, precision, exposures, goals, transactions)
        body = Struct(f">{_SHAPE.size}s{_WHOSE}{times}{columns}{credited}")
        self.size, self.pack, self.unpack = body.size, body.pack, body.unpack
        self.split = number if width == 5 else 0
        whole = accumulate((4, exposures, goals, transactions, self.split, number, goals))
        self.presented, self.reached, self.paid, self.highs, self.ids, self.credited = _parts(whole)
        # Ids that were put together stand by themselves then.
        start = 0 if self.split else self.ids.start
        within = accumulate((start, exposures, exposures, goals, transactions))
        self.experiments, self.variations, self.goals, self.transactions = _parts(within)


def _parts(bounds: Iterable[int]) -> list[slice]:
    return [slice(start, end) for start, end in pairwise(bounds)]


@lru_cache(maxsize=1024)
def _layout(width: int, precision: int, exposures: int, goals: int, transactions: int) -> _Layout:
    return _Layout(width, precision, exposures, goals, transactions)


@lru_cache(maxsize=1024)
def _layout_of(shape: bytes) -> _Layout:
    """Return the layout of a payload that begins like this.

    Raises:
        KeyError: There are no ids or times of such a size.
        struct.error: It is too short.
    """
    return _layout(*_SHAPE.unpack(shape))


def _width(ids: tuple[int, ...]) -> int:
    """Return how many bytes each id gets: as few as are needed, but native words where ids are few."""
    largest = max(ids) if ids else 0
    return 4 if largest < 1 << 32 else 5 if largest < 1 << 40 and len(ids) > _FEW else 8


def pack(visitor: Visitor, renewed_at: int) -> bytes:
    """Return the state in base64 without padding; its life counts from ``renewed_at``."""
    try:
        raw = _pack(visitor, renewed_at, 4)
    except struct.error:  # a time beyond the year 2106, or before 1970
        raw = _pack(visitor, renewed_at, 8)
    return b2a_base64(raw, newline=False).rstrip(b"=")


def _pack(visitor: Visitor, renewed_at: int, precision: int) -> bytes:
    whose, issued_at, experiments, variations, presented, goals, reached, credited, transactions, paid = (
        visitor
    )
    ids = experiments + variations + goals + transactions
    layout = _layout(_width(ids), precision, len(experiments), len(goals), len(transactions))
    columns: Iterable[int | bytes] = credited
    if layout.split:
        ids = (*[number >> 32 for number in ids], *[number & 0xFFFFFFFF for number in ids])
    if layout.credit_size:
        columns = [credit.to_bytes(layout.credit_size) for credit in credited]
    return layout.pack(
        layout.shape, bytes.fromhex(whose), issued_at, renewed_at, *presented, *reached, *paid, *ids, *columns
    )


def unpack(text: bytes) -> tuple[Visitor, int]:
    """Return what :func:`pack` wrote: the state, and the time its life counts from.

    Raises:
        RejectedError: It is no payload.
    """
    try:
        raw = a2b_base64(text + b"==")
        layout = _layout_of(raw[: _SHAPE.size])
        values = layout.unpack(raw)
    except (Base64Error, struct.error, KeyError):
        raise RejectedError(Rejection.MALFORMED) from None
    ids, credited = values, values[layout.credited]
    if layout.split:
        pairs = zip(values[layout.highs], values[layout.ids], strict=True)
        ids = tuple([high << 32 | low for high, low in pairs])
    if layout.credit_size:
        credited = tuple([int.from_bytes(credit) for credit in credited])
    visitor = unchecked(
        Visitor,
        (
            values[1].hex(),
            values[2],
            ids[layout.experiments],
            ids[layout.variations],
            values[layout.presented],
            ids[layout.goals],
            values[layout.reached],
            credited,
            ids[layout.transactions],
            values[layout.paid],
        ),
    )
    return visitor, values[3]


def within_budget(visitor: Visitor, renewed_at: int) -> tuple[Visitor, Evicted]:
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
            numbers,
            True,
            key=lambda number: _fits(visitor.without_oldest(**{**lost, kind: number}), renewed_at),
        )
        lost[kind] = least + place
    return visitor.without_oldest(**lost), Evicted(**lost)


def _fits(visitor: Visitor, renewed_at: int) -> bool:
    _, issued_at, experiments, variations, presented, goals, reached, _, transactions, paid = visitor
    ids = experiments + variations + goals + transactions
    times = (issued_at, renewed_at, *presented, *reached, *paid)
    precision = 4 if min(times) >= 0 and max(times) <= _LATEST else 8
    layout = _layout(_width(ids), precision, len(experiments), len(goals), len(transactions))
    return layout.size <= MAX_PAYLOAD * 6 // 8
