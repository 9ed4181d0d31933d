"""Hit ⇄ tracking URL, in the published structure (PROTOCOL, section 1).

One table of parameters is walked in both directions. This module knows how a hit is written and how long that
may get; it never sends anything and decides nothing about what is new.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote

from convert_middleware.errors import ArgumentError, WireError
from convert_middleware.model import Exposure, Hit, Transaction
from convert_middleware.visitor import fired_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from convert_middleware.visitor import News

ENDPOINT: Final = "https://{project_id}.track.convertexperiments.com/track/"
MAX_URL: Final = 4096  # bytes; DESIGN, section 5.7
_MAX_READ: Final = 64 * 1024  # characters of a query that are looked at
_ITEMS_READ: Final = 4096  # triplets or goals in one parameter


def encode(hit: Hit, endpoint: str = ENDPOINT) -> str:
    """Return the tracking URL of ``hit``.

    Args:
        hit: What to write.
        endpoint: The URL up to the ``?``; ``{project_id}`` in it is replaced. Empty: only ``?…``.
    """
    return f"{endpoint.replace('{project_id}', str(hit.project_id))}?{query(hit)}"


def query(hit: Hit) -> str:
    """Return the query string of ``hit``, without the ``?``."""
    customer_id, project_id, exposures, new_exposures, goals, new_goals, transaction = hit
    text = _WHOSE % (customer_id, project_id)
    if exposures:
        text += _PRESENTED % (write_triplets(exposures), new_exposures)
    if goals:
        text += _REACHED % (_write_goals(goals), new_goals)
    if transaction is not None:
        text += _PAID % _write_transaction(transaction)
    return text


def queries(news: News, customer_id: int, project_id: int) -> list[str]:
    """Return the query strings of ``news.hits()``, written straight from the visitor's columns.

    Args:
        news: What a visitor did now.
        customer_id: The customer.
        project_id: The project.
    """
    visitor, presented, reached, paid = news
    if not (presented or reached or paid):
        return []
    _, _, experiments, variations, _, goal_ids, _, credited, _, _ = visitor
    goals = [*map(_digits, goal_ids)]
    triplets = [
        f"{pair}-{'.'.join(fired)}" if fired else pair
        for pair, fired in zip(
            map(_pair, experiments, variations), fired_for(goals, credited, len(experiments)), strict=True
        )
    ]
    text = whose = _whose(customer_id, project_id)
    if presented:
        new = [triplet for key, triplet in zip(experiments, triplets, strict=True) if key in presented]
        if not (reached or paid):
            return [whose + _PRESENTED % (",".join(new), len(new))]
        triplets = new + [
            triplet for key, triplet in zip(experiments, triplets, strict=True) if key not in presented
        ]
    written = ",".join(triplets)
    if triplets:
        text += _PRESENTED % (written, len(presented))
    if goals:
        now = [*map(_digits, reached)]
        before = len(goals) - len(now)
        if goals[before:] == now:  # as when nobody else added anything meanwhile
            goals = now + goals[:before]
        else:
            goals = now + [goal for goal in goals if goal not in now]
        text += _REACHED % (",".join(goals), len(now))
    if not paid:
        return [text]
    further = whose + _PRESENTED % (written, 0) if triplets else whose
    return [
        before + _PAID % _write_transaction(each)
        for before, each in zip(chain([text], repeat(further)), paid, strict=False)
    ]


# A project has few ids, and visitors take few ways through it, so that these are hardly ever made anew.
_KNOWN: Final = 4096
_digits: Final = lru_cache(_KNOWN)(str)


@lru_cache(maxsize=1)
def _whose(customer_id: int, project_id: int) -> str:
    return _WHOSE % (customer_id, project_id)


@lru_cache(_KNOWN)
def _pair(experiment_id: int, variation_id: int) -> str:
    return f"{experiment_id}-{variation_id}"


def decode(url: str) -> Hit:
    """Return the hit that a tracking URL, or its query string alone, carries.

    Raises:
        WireError: It does not follow the published structure; the error names the parameter and the rule.
    """
    before, mark, after = url.partition("?")
    name, equals, _ = before.partition("=")
    # A bare query may hold a "?" of its own, and a path may hold a "=".
    text = after if mark and ("/" in name or not equals) else url
    text = text.partition("#")[0]
    if len(text) > _MAX_READ:
        raise WireError("query", text, f"is longer than {_MAX_READ} characters")
    given = _split(text)
    fields: dict[str, Any] = {}
    for parameter in _PARAMETERS:
        value = given.pop(parameter.name, None)
        if value is not None:
            fields[parameter.field] = _read(parameter, value)
        elif parameter.required:
            raise WireError(parameter.name, text, "is missing: it is always required")
    for name in given:
        raise WireError(name, given[name], "is no parameter of a tracking request")
    for content, number in _PAIRS.items():
        if (content.field in fields) != (number.field in fields):
            here, absent = (content, number) if content.field in fields else (number, content)
            raise WireError(here.name, text, f"needs parameter {absent.name!r}, which is missing")
        if fields.get(number.field, 0) > len(fields.get(content.field, ())):
            raise WireError(
                number.name, str(fields[number.field]), f"counts more than {content.name!r} holds"
            )
    try:
        return Hit(**fields)
    except ArgumentError as error:  # pragma: no cover - the readers are at least as strict
        raise WireError("query", text, f"breaks a rule: {error.argument} {error.reason}") from error


def _split(text: str) -> dict[str, str]:
    given: dict[str, str] = {}
    for piece in text.split("&"):
        name, equals, value = piece.partition("=")
        if not equals:
            raise WireError("query", piece, "must consist of name=value pieces joined by '&'")
        if name in given:
            raise WireError(name, value, "is given twice")
        given[name] = value
    return given


def _read(parameter: _Parameter, raw: str) -> Any:
    try:
        text = unquote(raw, errors="strict")
    except UnicodeDecodeError:
        raise WireError(parameter.name, raw, "is not UTF-8") from None
    try:
        return parameter.read(raw, text)
    except _Broken as broken:
        raise WireError(parameter.name, raw, str(broken)) from None
    except ArgumentError as error:
        raise WireError(parameter.name, raw, f"breaks a rule: {error.argument} {error.reason}") from None


class _Broken(Exception):  # noqa: N818 - never leaves this module
    """What is wrong with a piece of text, as the end of a sentence."""


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise _Broken(f"holds {text[:40]!r} where a whole number of at most 19 digits was expected")
    return int(text)


def _numbers(text: str, separator: str) -> tuple[int, ...]:
    pieces = text.split(separator)
    if len(pieces) > _ITEMS_READ:
        raise _Broken(f"holds more than {_ITEMS_READ} items")
    return tuple([_number(piece) for piece in pieces])


def write_triplets(exposures: tuple[Exposure, ...]) -> str:
    """Return triplets as they stand in ``e``."""
    pieces = []
    known: tuple[int, ...] = ()
    written = ""
    for experiment_id, variation_id, goals in exposures:
        if not goals:
            pieces.append(f"{experiment_id}-{variation_id}")
            continue
        if goals is not known:  # most triplets of a visitor share their goals
            known, written = goals, ".".join(map(str, goals))
        pieces.append(f"{experiment_id}-{variation_id}-{written}")
    return ",".join(pieces)


def _read_triplets(_raw: str, text: str) -> tuple[Exposure, ...]:
    pieces = text.split(",")
    if len(pieces) > _ITEMS_READ:
        raise _Broken(f"holds more than {_ITEMS_READ} triplets")
    return tuple([_read_triplet(piece) for piece in pieces])


def _read_triplet(text: str) -> Exposure:
    fields = text.split("-")
    if len(fields) not in (2, 3):
        raise _Broken(f"holds {text[:40]!r} where experiment-variation-goal.goal… was expected")
    # A missing third field and an empty one both mean "no goal yet" (PROTOCOL, section 1, gap 2).
    goals = _numbers(fields[2], ".") if len(fields) == 3 and fields[2] else ()
    return Exposure(_number(fields[0]), _number(fields[1]), goals)


def _write_goals(goals: tuple[int, ...]) -> str:
    return ",".join(map(str, goals))


def _write_transaction(transaction: Transaction) -> str:
    return transaction.separator.join(
        (
            ".".join(map(str, transaction.goals)),
            quote(transaction.transaction_id, safe=""),
            str(transaction.value),
            str(transaction.products),
        )
    )


def _read_transaction(raw: str, text: str) -> Transaction:
    fields = text.split("|")
    if len(fields) != 4:
        raise _Broken(f"has {len(fields)} fields where goals|transaction id|value|products were expected")
    goals, transaction_id, value, products = fields
    whole, point, cents = value.partition(".")
    if not (point and len(cents) == 2 and cents.isascii() and cents.isdigit() and _number(whole) >= 0):
        raise _Broken(f"holds the value {value[:40]!r} where two decimals were expected")
    separator = "|" if "|" in raw else "%7C"
    return Transaction(_numbers(goals, "."), transaction_id, value, _number(products), separator)  # type: ignore[arg-type]  # the value is converted at birth


@dataclass(frozen=True, slots=True)
class _Parameter:
    """One row of the table: a name on the wire, a field of the hit, and how its text is read."""

    name: str
    field: str
    read: Callable[[str, str], Any]  # raw text, percent-decoded text
    required: bool = False
    counts: str | None = None  # the field whose first items it counts; both or none are there


def _read_number(_raw: str, text: str) -> int:
    return _number(text)


def _read_goals(_raw: str, text: str) -> tuple[int, ...]:
    return _numbers(text, ",")


_PARAMETERS: Final = (
    _Parameter("c", "customer_id", _read_number, required=True),
    _Parameter("p", "project_id", _read_number, required=True),
    _Parameter("e", "exposures", _read_triplets),
    _Parameter("ea", "new_exposures", _read_number, counts="exposures"),
    _Parameter("g", "goals", _read_goals),
    _Parameter("ga", "new_goals", _read_number, counts="goals"),
    _Parameter("t", "transaction", _read_transaction),
)
_FIELDS: Final = {parameter.field: parameter for parameter in _PARAMETERS}
_PAIRS: Final = {_FIELDS[parameter.counts]: parameter for parameter in _PARAMETERS if parameter.counts}


def _template(*fields: str) -> str:
    return "&".join([f"{_FIELDS[field].name}=%s" for field in fields])


# The same table as the writer needs it: what is there is written together.
_WHOSE: Final = _template("customer_id", "project_id")
_PRESENTED: Final = "&" + _template("exposures", "new_exposures")
_REACHED: Final = "&" + _template("goals", "new_goals")
_PAID: Final = "&" + _template("transaction")

# Bytes of a list and its count that go with the list's last item.
NO_TRIPLETS: Final = len(_PRESENTED % ("", 0))
NO_GOALS: Final = len(_REACHED % ("", 0))
