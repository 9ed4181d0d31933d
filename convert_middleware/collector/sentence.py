"""A hit in words, and the names that ids may have.

What is said is what was counted: what is new comes first, history in brackets. This module only writes text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal

from convert_middleware.errors import ArgumentError, SettingsError, shown
from convert_middleware.model import identifier

if TYPE_CHECKING:
    from pathlib import Path

    from convert_middleware.model import Hit, Transaction

Kind = Literal["experiments", "variations", "goals"]
_KINDS: Final[tuple[Kind, ...]] = ("experiments", "variations", "goals")
_LONGEST_NAME: Final = 200  # characters


class Names:
    """Names of experiments, variations and goals.

    Args:
        given: ``{"experiments": {"11": "Landing headline"}, "variations": {…}, "goals": {…}}``; every part
            may be missing.

    Raises:
        SettingsError: It has another shape.
    """

    def __init__(self, given: Mapping[str, Mapping[str, str]] | None = None) -> None:
        self._names: dict[str, dict[int, str]] = {}
        if not isinstance(given, Mapping | None):
            raise SettingsError(
                "catalogue", f"must be an object with {', '.join(_KINDS)}, not {shown(given)}"
            )
        for kind, names in (given or {}).items():
            if kind not in _KINDS:
                raise SettingsError("catalogue", f"has no part {shown(kind)}: only {', '.join(_KINDS)}")
            if not isinstance(names, Mapping):
                raise SettingsError("catalogue", f"must map ids to names in {kind!r}, not be {shown(names)}")
            self._names[kind] = {_id(kind, key): _name(kind, key, name) for key, name in names.items()}

    @classmethod
    def read(cls, path: Path) -> Names:
        """Return the names in a JSON file."""
        try:
            return cls(json.loads(path.read_text("utf-8")))
        except OSError as error:
            raise SettingsError("catalogue", f"cannot be read: {path}: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            if isinstance(error, SettingsError):
                raise
            raise SettingsError("catalogue", f"is no JSON text: {path}: {error}") from error

    def of(self, kind: Kind, number: int) -> str | None:
        """Return the name of an id, if it has one."""
        return self._names.get(kind, {}).get(number)

    def shown(self, kind: Kind, number: int) -> str:
        """Return the id, followed by its name in quotation marks where it has one."""
        name = self.of(kind, number)
        return str(number) if name is None else f"{number} “{name}”"


def _id(kind: str, key: object) -> int:
    try:
        return identifier(kind, key)  # type: ignore[arg-type]  # identifier() itself refuses other types
    except ArgumentError as error:
        raise SettingsError("catalogue", f"has a key in {kind!r} that is no id: {shown(key)}") from error


def _name(kind: str, key: object, name: object) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
        raise SettingsError(
            "catalogue",
            f"needs a text of 1 to {_LONGEST_NAME} characters as name of {kind} {key}, not {shown(name)}",
        )
    return name


def describe(hit: Hit, names: Names, *, duplicate: bool = False) -> list[tuple[str, str]]:
    """Return what a hit says, as pieces of a sentence that are joined by semicolons.

    Args:
        hit: What was received.
        names: Names for its ids.
        duplicate: Whether the transaction id was used before.

    Returns:
        Pairs of a kind (``exposure``, ``goals``, ``order``, ``warning``, ``nothing``) and a text.
    """
    parts = []
    if hit.new_exposures:
        presented = [
            f"experiment {names.shown('experiments', x.experiment_id)} "
            f"variation {names.shown('variations', x.variation_id)}"
            for x in hit.exposures[: hit.new_exposures]
        ]
        parts.append(("exposure", f"presented {', '.join(presented)} for the first time"))
    if hit.goals:
        new, before = _listed(hit.goals[: hit.new_goals], names), _listed(hit.goals[hit.new_goals :], names)
        text = f"reached {new} for the first time" if new else "reached nothing new"
        parts.append(("goals" if new else "nothing", f"{text} (before: {before})" if before else text))
    if hit.transaction is not None:
        parts.append(("order", _order(hit.transaction, names)))
        if duplicate:
            parts.append(("warning", "duplicate transaction id, not booked again"))
    if not parts:
        parts.append(("nothing", "nothing new" if hit.exposures else "nothing but customer and project"))
    return parts


def _listed(goals: tuple[int, ...], names: Names) -> str:
    return ", ".join([names.shown("goals", goal) for goal in goals])


def _order(order: Transaction, names: Names) -> str:
    products = "1 product" if order.products == 1 else f"{order.products} products"
    goals = "goal" if len(order.goals) == 1 else "goals"
    return (
        f"order {order.transaction_id}, {order.value}, {products}, "
        f"booked on {goals} {_listed(order.goals, names)}"
    )
