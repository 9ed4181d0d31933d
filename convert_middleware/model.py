"""The values that are tracked: exposures, transactions and the hit that carries them.

Valid at birth: a value checks and normalises itself, so nobody checks it again. It knows the rules of
the fields (PROTOCOL, section 1) and nothing of how they are written, stored or sent.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Context, Decimal
from operator import index
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from convert_middleware.errors import ArgumentError, ArgumentTypeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAX_ID: Final = 2**63 - 1  # ids are 9 to 10 digits today; a signed 64-bit column holds this much
MAX_PRODUCTS: Final = 10**9
MAX_TRANSACTION_BYTES: Final = 256  # PROTOCOL, section 1, gap 5
MAX_TRANSACTION_GOALS: Final = 50  # so that a transaction, which cannot be split, always fits into a URL
MAX_VALUE: Final = Decimal("999999999999.99")

_CENT: Final = Decimal("0.01")
_ARITHMETIC: Final = Context(prec=28, rounding=ROUND_HALF_EVEN, traps=[])  # the site's own context may be odd
_DECIMAL: Final = re.compile(r"[0-9]{1,13}(\.[0-9]{1,20})?", re.ASCII)

Id = int | str
Money = Decimal | str | int | float


def identifier(argument: str, value: Id) -> int:
    """Return ``value`` as an id: an int from 1 to 2**63 - 1.

    Args:
        argument: Name of the argument, for the error.
        value: An int or a string of ASCII digits.

    Raises:
        ArgumentError: It is no such number.
        ArgumentTypeError: It is neither an int nor a string.
    """
    number: int
    if type(value) is int:
        number = value
    elif isinstance(value, str):
        if not (value.isascii() and value.isdigit() and len(value) <= 19):
            raise ArgumentError(argument, value, "is no id: a string of at most 19 digits was expected")
        number = int(value)
    else:
        number = _whole(argument, value, "an id is an int or a string of digits")
    if not 0 < number <= MAX_ID:
        raise ArgumentError(argument, value, f"is no id: ids run from 1 to {MAX_ID}")
    return number


def check_ids(argument: str, values: Iterable[int]) -> None:
    """Raise unless every value is an int that can be an id; nothing is converted."""
    for value in values:
        if type(value) is not int:
            kind = type(value).__name__
            raise ArgumentTypeError(argument, value, f"has the wrong type {kind}: int expected")
        if not 0 < value <= MAX_ID:
            identifier(argument, value)


def count(argument: str, value: int, least: int, most: int) -> int:
    """Return ``value`` if it is a whole number from ``least`` to ``most``."""
    number = value if type(value) is int else _whole(argument, value, "a whole number was expected")
    if not least <= number <= most:
        raise ArgumentError(argument, value, f"is out of range: {least} to {most} was expected")
    return number


def _whole(argument: str, value: object, rule: str) -> int:
    if isinstance(value, bool):
        raise ArgumentTypeError(argument, value, f"has the wrong type bool: {rule}")
    try:
        return index(value)  # type: ignore[arg-type]  # index() itself decides; numpy's integers pass
    except TypeError:
        raise ArgumentTypeError(
            argument, value, f"has the wrong type {type(value).__name__}: {rule}"
        ) from None


def money(argument: str, value: Money) -> Decimal:
    """Return ``value`` rounded half-even to cents.

    A float is taken at its shortest decimal form, so that 1599.99 means what it looks like.

    Args:
        argument: Name of the argument, for the error.
        value: Zero to 999 999 999 999.99, in the project's currency.

    Raises:
        ArgumentError: It is negative, not finite, too large or not written as a plain decimal number.
        ArgumentTypeError: It is no number at all.
    """
    amount: Decimal
    if isinstance(value, Decimal):
        amount = value
    elif isinstance(value, str):
        if not _DECIMAL.fullmatch(value):
            raise ArgumentError(argument, value, "is no amount: a plain decimal like '1599.99' was expected")
        amount = Decimal(value)
    elif isinstance(value, float):
        amount = Decimal(float.__repr__(value))
    else:
        amount = Decimal(_whole(argument, value, "an amount is a Decimal, a str, an int or a float"))
    if not amount.is_finite():
        raise ArgumentError(argument, value, "is no amount: it must be finite")
    if amount.is_signed() and amount:
        raise ArgumentError(argument, value, "is negative: the tracking request has no form for refunds")
    if amount > MAX_VALUE:
        raise ArgumentError(argument, value, f"is too large: at most {MAX_VALUE} can be booked")
    return amount.quantize(_CENT, context=_ARITHMETIC).copy_abs()


def transaction_identifier(argument: str, value: str) -> str:
    """Return ``value`` as plain text if it can stand as a transaction id in a tracking request.

    Raises:
        ArgumentError: It is empty, longer than 256 bytes of UTF-8, or contains ``|`` (which the format
            cannot escape) or a lone surrogate.
        ArgumentTypeError: It is no string.
    """
    if not isinstance(value, str):
        raise ArgumentTypeError(argument, value, f"has the wrong type {type(value).__name__}: str expected")
    text = str.__str__(
        value
    )  # what a subclass holds, such as an enumeration's member, and not what it prints
    if not text:
        raise ArgumentError(argument, value, "is empty: every transaction needs an id of its own")
    if "|" in text:
        raise ArgumentError(argument, value, "contains '|', which separates fields and has no escape")
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ArgumentError(argument, value, "is no valid text: it contains a lone surrogate") from None
    if size > MAX_TRANSACTION_BYTES:
        raise ArgumentError(
            argument, value, f"is too long: at most {MAX_TRANSACTION_BYTES} bytes of UTF-8 are allowed"
        )
    return text


def identifiers(argument: str, values: Id | Iterable[Id]) -> tuple[int, ...]:
    """Return one id or several as a tuple without repeats, in the order given."""
    if isinstance(values, (int, str, bytes, bytearray, memoryview)):  # bytes hold numbers, but no ids
        return (identifier(argument, values),)  # type: ignore[arg-type]  # raises for bytes
    try:
        several = iter(values)
    except TypeError:
        return (identifier(argument, values),)  # type: ignore[arg-type]  # raises, naming the argument
    return tuple(dict.fromkeys([identifier(argument, value) for value in several]))


class _Exposure(NamedTuple):
    experiment_id: int
    variation_id: int
    goals: tuple[int, ...] = ()


class Exposure(_Exposure):
    """A visitor was presented a variation; on the wire, a triplet.

    A named tuple: ``Exposure._make()`` takes values that were checked before without checking them again.

    Attributes:
        experiment_id: The experiment.
        variation_id: The variation presented.
        goals: Goals the visitor reached after that, in the order reached.
    """

    __slots__ = ()

    def __new__(cls, experiment_id: int, variation_id: int, goals: tuple[int, ...] = ()) -> Self:
        """Make an exposure of ids that are ints."""
        check_ids("experiment_id", (experiment_id,))
        check_ids("variation_id", (variation_id,))
        goals = tuple(goals)
        check_ids("goals", goals)
        return super().__new__(cls, experiment_id, variation_id, goals)


@dataclass(frozen=True, slots=True)
class Transaction:
    """An order that was paid. Its goals fire no conversion by themselves.

    Attributes:
        goals: One to 50 goals the revenue is booked on.
        transaction_id: The order's id in the shop; unique per order.
        value: Amount with two decimals.
        products: Number of items ordered.
        separator: How the URL spells ``|``. ``%7C`` is legal and what is sent; the published examples
            show ``|`` itself, and a URL read in that spelling is written back in it.
    """

    goals: tuple[int, ...]
    transaction_id: str
    value: Decimal
    products: int = 1
    separator: str = field(default="%7C", compare=False, repr=False)

    def __post_init__(self) -> None:
        goals = identifiers("goal_ids", self.goals)
        if not 0 < len(goals) <= MAX_TRANSACTION_GOALS:
            raise ArgumentError("goal_ids", self.goals, f"must name 1 to {MAX_TRANSACTION_GOALS} goals")
        if self.separator not in ("|", "%7C"):
            raise ArgumentError("separator", self.separator, "must be '|' or '%7C'")
        object.__setattr__(self, "goals", goals)
        transaction_id = transaction_identifier("transaction_id", self.transaction_id)
        object.__setattr__(self, "transaction_id", transaction_id)
        object.__setattr__(self, "value", money("value", self.value))
        object.__setattr__(self, "products", count("products", self.products, 1, MAX_PRODUCTS))


class _Hit(NamedTuple):
    customer_id: int
    project_id: int
    exposures: tuple[Exposure, ...]
    new_exposures: int
    goals: tuple[int, ...]
    new_goals: int
    transaction: Transaction | None


class Hit(_Hit):
    """The content of one tracking request.

    Order carries meaning: the first ``new_exposures`` exposures were presented for the first time now, the
    first ``new_goals`` goals were reached for the first time now. What follows is history, oldest first.
    A named tuple: ``Hit._make()`` and ``_replace()`` take values that were checked before.
    """

    __slots__ = ()

    def __new__(
        cls,
        *,
        customer_id: int,
        project_id: int,
        exposures: tuple[Exposure, ...] = (),
        new_exposures: int = 0,
        goals: tuple[int, ...] = (),
        new_goals: int = 0,
        transaction: Transaction | None = None,
    ) -> Self:
        """Make a hit of ids that are ints and counts that fit."""
        check_ids("customer_id", (customer_id,))
        check_ids("project_id", (project_id,))
        check_ids("goals", goals)
        count("new_exposures", new_exposures, 0, len(exposures))
        count("new_goals", new_goals, 0, len(goals))
        return super().__new__(
            cls,
            customer_id,
            project_id,
            tuple(exposures),
            new_exposures,
            tuple(goals),
            new_goals,
            transaction,
        )

    def __reduce__(self) -> tuple[Callable[[tuple[object, ...]], Self], tuple[tuple[object, ...]]]:
        return type(self)._make, (tuple(self),)
