"""The visitor's state as a packed struct, within a hard budget.

Layout: a header, a column of ids, a column of times relative to the start of the cookie's life, and per
experiment one bit for each goal. It knows sizes and what is let go first; it signs nothing and trusts nothing
that it reads.
"""

from __future__ import annotations

import binascii
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from itertools import compress, islice
from struct import Struct
from typing import TYPE_CHECKING, Final

from convert_middleware.errors import ConvertError
from convert_middleware.model import MAX_ID
from convert_middleware.visitor import Presented, Visitor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

BUDGET: Final = 3072  # bytes of a cookie value; browsers drop cookies over 4 096 with name and attributes
MAX_TRANSACTIONS: Final = 16  # remembered in the cookie
SIGNATURE: Final = 2 + 1 + 43  # bytes around the payload: version, separator, 256 bits in base64


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

    def __bool__(self) -> bool:
        return bool(self.transactions or self.experiments or self.goals)


_HEADER: Final = Struct(">BHHB16sQ")  # width of ids, numbers of the three kinds, visitor id, issued at
_MAX_MOMENT: Final = 2**31 - 1


class _Layout:
    """Where everything is in a payload with these numbers of exposures, goals and transactions."""

    def __init__(self, width: int, exposures: int, goals: int, transactions: int) -> None:
        # Ids that need more than 32 bits are stored as a column of high bytes and one of low words: ten
        # digits fit into 40 bits.
        number = 2 * exposures + goals + transactions
        columns = {4: f"{number}I", 5: f"{number}B{number}I", 8: f"{number}Q"}[width]
        bits = f"{(goals + 7) // 8}s" * exposures
        self.struct = Struct(f"{_HEADER.format}{columns}{exposures + goals + transactions}i{bits}")
        self.exposures, self.goals = exposures, goals
        self.split = width == 5
        self.ids = number
        self.moments = exposures + goals + transactions


@lru_cache(maxsize=1024)
def _layout(width: int, exposures: int, goals: int, transactions: int) -> _Layout:
    return _Layout(width, exposures, goals, transactions)


def _width(ids: Iterable[int]) -> int:
    """Return how many bytes each id gets."""
    largest = max(ids, default=0)
    return 4 if largest < 1 << 32 else 5 if largest < 1 << 40 else 8


def _ids(visitor: Visitor) -> list[int]:
    variations = [presented.variation_id for presented in visitor.exposures.values()]
    return [*visitor.exposures, *variations, *visitor.goals, *visitor.transactions]


def pack(visitor: Visitor, issued_at: int) -> bytes:
    """Return the state in URL-safe base64 without padding; its life counts from ``issued_at``."""
    presented = list(visitor.exposures.values())
    goals, transactions = visitor.goals, visitor.transactions
    ids = _ids(visitor)
    shape = _width(ids), len(presented), len(goals), len(transactions)
    layout = _layout(*shape)
    moments = [each.at - issued_at for each in presented]
    moments += [at - issued_at for at in goals.values()]
    moments += [at - issued_at for at in transactions.values()]
    if layout.split:
        ids = [number >> 32 for number in ids] + [number & 0xFFFFFFFF for number in ids]
    bits = [_bits(each.goals, goals) for each in presented]
    if moments and not -_MAX_MOMENT <= min(moments) <= max(moments) <= _MAX_MOMENT:
        moments = [max(-_MAX_MOMENT, min(_MAX_MOMENT, moment)) for moment in moments]
    raw = layout.struct.pack(*shape, bytes.fromhex(visitor.visitor_id), issued_at, *ids, *moments, *bits)
    return urlsafe_b64encode(raw).rstrip(b"=")


def unpack(text: bytes) -> tuple[Visitor, int]:
    """Return what :func:`pack` wrote: the state, and the time its life counts from.

    Raises:
        RejectedError: It is no payload.
    """
    try:
        raw = urlsafe_b64decode(text + b"=" * (-len(text) % 4))
        layout = _layout(*_HEADER.unpack_from(raw)[:4])
        _, exposures, goals_number, _, visitor_id, issued_at, *values = layout.struct.unpack(raw)
    except (binascii.Error, struct.error, KeyError):
        raise RejectedError(Rejection.MALFORMED) from None
    number = layout.ids
    ids = values[:number]
    if layout.split:
        lows = values[number : 2 * number]
        ids = [high << 32 | low for high, low in zip(ids, lows, strict=True)]
        number *= 2
    moments = [issued_at + offset for offset in values[number : number + layout.moments]]
    goals = tuple(ids[2 * exposures : 2 * exposures + goals_number])
    members = [_members(bits, goals) for bits in values[number + layout.moments :]]
    visitor = Visitor(
        visitor_id.hex(),
        min(issued_at, *moments) if moments else issued_at,
        dict(zip(ids, map(Presented, moments, ids[exposures : 2 * exposures], members), strict=False)),
        dict(zip(goals, moments[exposures:], strict=False)),
        dict(zip(ids[2 * exposures + goals_number :], moments[exposures + goals_number :], strict=True)),
    )
    if (
        not all(ids)
        or (layout.ids and max(ids) > MAX_ID)
        or len(visitor.exposures) < exposures
        or len(visitor.goals) < goals_number
    ):
        raise RejectedError(Rejection.MALFORMED)
    return visitor, issued_at


_ONES: Final = bytes.maketrans(b"01", b"\0\1")


def _bits(members: tuple[int, ...], goals: Mapping[int, int]) -> bytes:
    if len(members) == len(goals):
        number = (1 << len(goals)) - 1
    else:
        chosen = frozenset(members)
        number = int("".join(["1" if goal in chosen else "0" for goal in goals]), 2)
    return number.to_bytes((len(goals) + 7) // 8)


def _members(bits: bytes, goals: tuple[int, ...]) -> tuple[int, ...]:
    number = int.from_bytes(bits)
    if number == (1 << len(goals)) - 1:
        return goals
    return tuple(compress(goals, format(number, f"0{len(goals)}b").encode().translate(_ONES)))


def _size(visitor: Visitor) -> int:
    """Return the length of the signed text, in bytes."""
    shape = len(visitor.exposures), len(visitor.goals), len(visitor.transactions)
    raw = _layout(_width(_ids(visitor)), *shape).struct.size
    return (raw * 8 + 5) // 6 + SIGNATURE


def within_budget(visitor: Visitor) -> tuple[Visitor, Evicted]:
    """Return the state as far as it fits, and what had to go.

    Transaction ids go first, then the oldest experiments, then the oldest goals; the newest stay.
    """
    if len(visitor.transactions) <= MAX_TRANSACTIONS and _size(visitor) <= BUDGET:
        return visitor, Evicted()
    lost = {"transactions": max(0, len(visitor.transactions) - MAX_TRANSACTIONS), "exposures": 0, "goals": 0}
    state = _without_oldest(visitor, lost)
    for kind in lost:
        while _size(state) > BUDGET and getattr(state, kind):
            lost[kind] += 1
            state = _without_oldest(visitor, lost)
    return state, Evicted(*lost.values())


def _without_oldest(visitor: Visitor, lost: Mapping[str, int]) -> Visitor:
    goals = dict(islice(visitor.goals.items(), lost["goals"], None))
    exposures = {
        key: each._replace(goals=tuple([goal for goal in each.goals if goal in goals]))
        for key, each in islice(visitor.exposures.items(), lost["exposures"], None)
    }
    transactions = dict(islice(visitor.transactions.items(), lost["transactions"], None))
    return replace(visitor, exposures=exposures, goals=goals, transactions=transactions)
