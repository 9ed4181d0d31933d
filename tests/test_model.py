"""Values are valid at birth, and a bad argument is named with its value."""

from __future__ import annotations

import copy
import decimal
import pickle
from decimal import Decimal
from enum import Enum, IntEnum
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convert_middleware.errors import ArgumentError, ArgumentTypeError
from convert_middleware.model import (
    MAX_ID,
    Exposure,
    Hit,
    Transaction,
    count,
    identifier,
    identifiers,
    money,
    transaction_identifier,
)
from tests.strategies import amounts, hits, ids

if TYPE_CHECKING:
    from collections.abc import Iterator


class Goal(IntEnum):
    """Ids under names, as a site may keep them."""

    SIGNED_UP = 331


class Order(str, Enum):  # noqa: UP042 - a StrEnum prints what it holds
    """A transaction id under a name."""

    FIRST = "ab12345"


class Number:
    """What numpy's integers are to us: something with an index."""

    def __index__(self) -> int:
        return 33


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (1, 1),
        ("12", 12),
        ("0012", 12),
        (MAX_ID, MAX_ID),
        (str(MAX_ID), MAX_ID),
        (Goal.SIGNED_UP, 331),
        (Number(), 33),
    ],
)
def test_an_id_is_an_int_or_a_string_of_digits(value: Any, number: int) -> None:
    assert identifier("goal_id", value) == number
    assert type(identifier("goal_id", value)) is int


BAD_IDS = [
    0,
    -1,
    MAX_ID + 1,
    10**40,
    "",
    "0",
    "-1",
    "+1",
    " 1",
    "1 ",
    "12a",
    "1.005",
    "1_0",
    "٣",
    "²",
    "1\n",
    "9" * 40,
]


@pytest.mark.parametrize("value", BAD_IDS)
def test_what_is_no_id_is_refused_naming_argument_and_value(value: Any) -> None:
    with pytest.raises(ArgumentError, match=r"^goal_id=") as caught:
        identifier("goal_id", value)
    assert not isinstance(caught.value, TypeError)
    assert (caught.value.argument, caught.value.value) == ("goal_id", value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    "value", [True, False, None, 1.0, float("nan"), Decimal(1), b"12", [], object(), Fraction(1)]
)
def test_what_is_of_no_type_for_an_id_is_refused_as_such(value: Any) -> None:
    with pytest.raises(ArgumentTypeError, match=r"^goal_id=.* has the wrong type ") as caught:
        identifier("goal_id", value)
    assert caught.value.value is value


@pytest.mark.parametrize(
    ("values", "several"),
    [
        (5, (5,)),
        ("5", (5,)),
        ([5, "6", 5], (5, 6)),
        ((number for number in (7, 5)), (7, 5)),
        ({5: "five"}, (5,)),
        ((), ()),
    ],
)
def test_ids_come_alone_or_together_without_repeats(values: Any, several: tuple[int, ...]) -> None:
    assert identifiers("goal_ids", values) == several


@pytest.mark.parametrize(
    "values", [None, True, 5.0, [5, None], [5, True], b"12", bytearray(b"12"), memoryview(b"12")]
)
def test_ids_of_the_wrong_type_are_refused_alone_and_together(values: Any) -> None:
    with pytest.raises(ArgumentTypeError, match=r"^goal_ids="):
        identifiers("goal_ids", values)


@pytest.mark.parametrize(
    ("value", "amount"),
    [
        ("1599.99", "1599.99"),
        (1599.99, "1599.99"),
        (Decimal("1599.99"), "1599.99"),
        (10, "10.00"),
        ("7", "7.00"),
        ("1.005", "1.00"),
        ("1.015", "1.02"),
        (2.675, "2.68"),
        (0.1 + 0.2, "0.30"),
        (Decimal("1E+3"), "1000.00"),
        (Decimal("1E-400"), "0.00"),
        (0, "0.00"),
        (-0.0, "0.00"),
        (Decimal("-0.00"), "0.00"),
        ("999999999999.99", "999999999999.99"),
        (Number(), "33.00"),
    ],
)
def test_an_amount_is_rounded_half_even_to_cents(value: Any, amount: str) -> None:
    assert str(money("value", value)) == amount


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (-1, "negative"),
        (-0.01, "negative"),
        (Decimal("-1E-9"), "negative"),
        (float("nan"), "finite"),
        (float("inf"), "finite"),
        (1e400, "finite"),
        (Decimal("NaN"), "finite"),
        (Decimal("sNaN"), "finite"),
        (Decimal("-Infinity"), "finite"),
        (1e12, "too large"),
        (Decimal("1E+999999"), "too large"),
        (10**400, "too large"),
        ("-1", "plain decimal"),
        ("1e3", "plain decimal"),
        ("1,50", "plain decimal"),
        ("1 000", "plain decimal"),
        ("٣", "plain decimal"),
        ("NaN", "plain decimal"),
        ("", "plain decimal"),
        (".5", "plain decimal"),
        ("1\n", "plain decimal"),
        ("9" * 40, "plain decimal"),
    ],
)
def test_what_is_no_amount_is_refused_with_the_reason(value: Any, reason: str) -> None:
    with pytest.raises(ArgumentError, match=rf"^value=.*{reason}"):
        money("value", value)


@pytest.mark.parametrize("value", [None, True, b"1", [1], 1j, object(), Fraction(1, 2)])
def test_what_is_of_no_type_for_an_amount_is_refused_as_such(value: Any) -> None:
    with pytest.raises(ArgumentTypeError, match=r"^value=.* has the wrong type "):
        money("value", value)


@given(amounts)
def test_an_amount_in_cents_stays_whatever_decimal_context_the_site_has_set(amount: Decimal) -> None:
    with decimal.localcontext(prec=3, rounding=decimal.ROUND_UP) as context:
        context.traps[decimal.Inexact] = context.traps[decimal.Rounded] = True
        for value in (amount, str(amount)):
            assert money("value", value) == amount
        assert money("value", Decimal("1.0050000001")) == money("value", 1.01)


@given(st.floats() | st.decimals() | st.text() | st.integers())
def test_any_number_or_text_is_an_amount_in_cents_or_refused(value: Any) -> None:
    try:
        amount = money("value", value)
    except ArgumentError:
        return
    assert amount.as_tuple().exponent == -2
    assert not amount.is_signed()


def test_an_error_of_the_callers_own_generator_is_left_as_it_is() -> None:
    def basket() -> Iterator[int]:
        yield 331
        raise TypeError("unsupported operand")

    with pytest.raises(TypeError, match="unsupported operand") as caught:
        identifiers("goal_ids", basket())
    assert not isinstance(caught.value, ArgumentError)


@pytest.mark.parametrize("value", ["a", " ", "\x00", "é" * 128, "a" * 256, "order/1?x=2&y#z%", "𝄞", "-.,~"])
def test_a_transaction_id_is_any_text_up_to_256_bytes(value: str) -> None:
    assert transaction_identifier("transaction_id", value) == value


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "empty"),
        ("a|b", "'|'"),
        ("|", "'|'"),
        ("\ud800", "surrogate"),
        ("a" * 257, "256"),
        ("é" * 129, "256"),
    ],
)
def test_what_cannot_stand_as_a_transaction_id_is_refused_with_the_reason(value: str, reason: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        transaction_identifier("transaction_id", value)
    assert str(caught.value).startswith("transaction_id=")
    assert reason in caught.value.reason


@pytest.mark.parametrize("value", [None, 5, b"ab12345", True])
def test_a_transaction_id_is_a_string(value: Any) -> None:
    with pytest.raises(ArgumentTypeError, match=r"^transaction_id=.* str expected"):
        transaction_identifier("transaction_id", value)


@pytest.mark.parametrize(
    ("value", "error"),
    [(0, ArgumentError), (6, ArgumentError), (True, ArgumentTypeError), ("2", ArgumentTypeError)],
)
def test_a_count_is_a_whole_number_within_its_range(value: Any, error: type[ArgumentError]) -> None:
    assert [count("products", number, 1, 5) for number in (1, 5)] == [1, 5]
    with pytest.raises(error, match=r"^products="):
        count("products", value, 1, 5)


def a_transaction(**fields: Any) -> Transaction:
    return Transaction(
        **{"goals": (35,), "transaction_id": "ab12345", "value": "1599.99", "products": 10, **fields}
    )


def a_hit(**fields: Any) -> Hit:
    return Hit(**{"customer_id": 2, "project_id": 1, **fields})


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("goals", ()),
        ("goals", (0,)),
        ("goals", tuple(range(1, 52))),
        ("transaction_id", ""),
        ("value", -1),
        ("products", 0),
        ("products", 10**9 + 1),
        ("products", 1.5),
        ("separator", ";"),
    ],
)
def test_a_transaction_checks_each_field(argument: str, value: Any) -> None:
    with pytest.raises(ArgumentError) as caught:
        a_transaction(**{argument: value})
    assert caught.value.argument == {"goals": "goal_ids"}.get(argument, argument)


def test_a_transaction_id_is_what_a_kind_of_text_holds_and_not_what_it_prints() -> None:
    transaction = Transaction((35,), Order.FIRST, Decimal(1))
    assert type(transaction.transaction_id) is str
    assert transaction == Transaction((35,), "ab12345", Decimal(1))
    assert repr(transaction.transaction_id) == "'ab12345'"


def test_a_transaction_is_normalised() -> None:
    paid = a_transaction(goals=["35", 36, 35], value=1599.99)
    assert paid == a_transaction(goals=(35, 36), separator="|")
    assert hash(paid) == hash(a_transaction(goals=(35, 36)))
    assert "separator" not in repr(paid)


@pytest.mark.parametrize(
    ("fields", "argument"),
    [
        ({"customer_id": 0}, "customer_id"),
        ({"project_id": "1"}, "project_id"),
        ({"goals": (5, 0)}, "goals"),
        ({"goals": (5, True)}, "goals"),
        ({"new_goals": 1}, "new_goals"),
        ({"goals": (5,), "new_goals": 2}, "new_goals"),
        ({"goals": (5,), "new_goals": -1}, "new_goals"),
        ({"exposures": (Exposure(11, 12),), "new_exposures": 2}, "new_exposures"),
    ],
)
def test_a_hit_checks_each_field(fields: dict[str, Any], argument: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        a_hit(**fields)
    assert caught.value.argument == argument


@pytest.mark.parametrize(
    "fields", [(0, 12), (11, 0), (11, "12"), (11, 12, (0,)), (11, 12, (5, None)), (11, True)]
)
def test_an_exposure_checks_each_field(fields: tuple[Any, ...]) -> None:
    with pytest.raises(ArgumentError):
        Exposure(*fields)


def test_what_was_recorded_stays_when_the_callers_own_lists_change() -> None:
    goals: Any = [331, 33]
    exposure, paid = Exposure(11, 12, goals), a_transaction(goals=goals)
    exposures: Any = [exposure]
    hit = a_hit(exposures=exposures, goals=goals)
    goals.clear()
    exposures.clear()
    assert exposure.goals == paid.goals == hit.goals == (331, 33)
    assert hit.exposures == (exposure,)


def test_goals_that_can_be_read_only_once_are_kept() -> None:
    once: Any = (goal for goal in (331, 33))
    assert Exposure(11, 12, once).goals == (331, 33)


@pytest.mark.parametrize("name", ["goals", "value", "new"])
def test_values_cannot_be_changed(name: str) -> None:
    for value in (a_transaction(), a_hit(), Exposure(11, 12)):
        with pytest.raises((AttributeError, TypeError)):
            setattr(value, name, 1)


@given(hits())
def test_values_can_be_copied_pickled_and_hashed(hit: Hit) -> None:
    for same in (pickle.loads(pickle.dumps(hit)), copy.copy(hit), copy.deepcopy(hit)):
        assert same == hit
        assert type(same) is Hit
        assert hash(same) == hash(hit)
        assert [type(exposure) for exposure in same.exposures] == [Exposure] * len(hit.exposures)


@given(ids)
def test_an_id_is_the_same_as_int_and_as_text(number: int) -> None:
    assert identifier("goal_id", number) == identifier("goal_id", str(number)) == number
