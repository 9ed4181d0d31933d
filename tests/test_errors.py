"""Errors are sentences with evidence, of one family, that survive a trip to another process."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from convert_middleware.errors import (
    ArgumentError,
    ArgumentTypeError,
    ConvertError,
    OutsideRequestError,
    SettingsError,
    TokenError,
    WireError,
    public,
    shown,
)


class Hostile:
    """Cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


FAMILY: list[tuple[ConvertError, type[Exception], dict[str, Any], str]] = [
    (
        ArgumentError("goal_id", -1, "is no id: ids run from 1 to 9"),
        ValueError,
        {"argument": "goal_id", "value": -1, "reason": "is no id: ids run from 1 to 9"},
        "goal_id=-1 is no id: ids run from 1 to 9.",
    ),
    (
        ArgumentTypeError("goal_id", None, "has the wrong type NoneType"),
        TypeError,
        {"argument": "goal_id", "value": None, "reason": "has the wrong type NoneType"},
        "goal_id=None has the wrong type NoneType.",
    ),
    (
        SettingsError("secret_key", "is shorter than 16 bytes"),
        ValueError,
        {"option": "secret_key", "reason": "is shorter than 16 bytes"},
        "secret_key is shorter than 16 bytes.",
    ),
    (
        WireError("ea", "7", "counts more than 'e' holds"),
        ValueError,
        {"parameter": "ea", "text": "7", "reason": "counts more than 'e' holds"},
        "Parameter 'ea' counts more than 'e' holds; got '7'.",
    ),
    (TokenError("signature"), ValueError, {"reason": "signature"}, "refused (signature)"),
    (OutsideRequestError(), LookupError, {}, "no current request"),
]


@pytest.mark.parametrize(
    ("error", "kind", "facts", "sentence"), FAMILY, ids=lambda value: type(value).__name__
)
def test_each_error_is_a_sentence_that_carries_its_facts(
    error: ConvertError, kind: type[Exception], facts: dict[str, Any], sentence: str
) -> None:
    assert isinstance(error, ConvertError)
    assert isinstance(error, kind)
    assert vars(error) == facts
    assert sentence in str(error)
    assert str(error).endswith(".")


@pytest.mark.parametrize("error", [row[0] for row in FAMILY], ids=lambda error: type(error).__name__)
def test_each_error_survives_pickling(error: ConvertError) -> None:
    same = pickle.loads(pickle.dumps(error))
    assert type(same) is type(error)
    assert (str(same), vars(same)) == (str(error), vars(error))


def test_a_wrong_type_is_both_a_type_error_and_a_value_error() -> None:
    assert issubclass(ArgumentTypeError, ArgumentError)
    assert issubclass(ArgumentTypeError, TypeError)
    assert issubclass(ArgumentTypeError, ValueError)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1, "1"),
        ("a" * 78, repr("a" * 78)),
        ("a" * 79, f"'{'a' * 38}…{'a' * 39}'"),
        ("/tmp/" + "a" * 200 + "/missing.db", f"'/tmp/{'a' * 33}…{'a' * 28}/missing.db'"),
        ("\n\x1b[31m", r"'\n\x1b[31m'"),
        (Hostile(), "<Hostile>"),
        (10**5000, "<int>"),  # Python itself refuses to write it out
    ],
    ids=["short", "just short", "long", "path", "control characters", "hostile", "huge"],
)
def test_a_foreign_value_is_shown_short_and_harmless(value: object, text: str) -> None:
    assert shown(value) == text
    assert f"x={text} is odd." == str(ArgumentError("x", value, "is odd"))


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("redis://:Top/Secret@redis.internal:6379/0", "redis://redis.internal:6379/0"),
        ("redis://:Top#Secret@redis.internal:6379/0", "redis://redis.internal:6379/0"),
        ("redis://:Top?Secret@redis.internal:6379/0", "redis://redis.internal:6379/0"),
        ("redis://user:Top@Secret@[::1]:6379", "redis://[::1]:6379"),
        ("redis://[::1]/0", "redis://[::1]/0"),
        ("redis://host/0?password=Top@Secret&db=1", "redis://host/0"),
        ("redis://:Top?Secret", "redis://…"),
        ("redis://:2?Top=Secret@redis.internal", "redis://…"),
        ("redis://:[Secret@host/0", "redis://host/0"),
        ("sqlite:////var/lib/outbox.db?max_hits=5", "sqlite:////var/lib/outbox.db"),
        ("memory://", "memory://"),
    ],
)
def test_of_a_url_nothing_is_shown_that_may_be_secret(url: str, seen: str) -> None:
    assert public(url) == seen
