"""What processes say of their hits when they end; it has to add up."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_SAID: Final = re.compile(
    r"Tracking stops: (\d+) hits accepted, (\d+) delivered, (\d+) dropped, (\d+) dead, (\d+) waiting, "
    r"(\d+) in flight\."
)


class Account(NamedTuple):
    """The numbers of one process."""

    accepted: int
    delivered: int
    dropped: int
    dead: int
    waiting: int
    in_flight: int


def accounts_in(said: str) -> list[Account]:
    """Return the accounts in what processes said, in order; each holds to the conservation law."""
    found = [Account(*map(int, numbers)) for numbers in _SAID.findall(said)]
    wrong = [account for account in found if account.accepted != sum(account[1:])]
    assert not wrong, f"they do not add up: {wrong}"
    return found
