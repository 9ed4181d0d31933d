"""A shared cache as RFC 9111 has it, in few lines; and the same as less careful ones are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from tests.contract.doors import Answer, Page, Request

if TYPE_CHECKING:
    from convert_middleware import Tracker

_BY_DEFAULT: Final = frozenset({200, 203, 204, 300, 301, 404, 410})  # RFC 9110, section 15.1, without 206
_TARGETED: Final = ("cdn-cache-control", "surrogate-control")  # RFC 9213, most specific first


@dataclass(frozen=True)
class Habits:
    """What a cache does beside the book.

    Attributes:
        obeys_vary: Whether it gives a response to those only who sent the same headers that it varies on.
        targeted: Whether it obeys headers for CDNs before ``Cache-Control``.
        guesses: Whether it keeps for a while what does not say for how long (RFC 9111, section 4.2.2).
    """

    name: str
    obeys_vary: bool = True
    targeted: bool = False
    guesses: bool = False

    def __str__(self) -> str:
        return self.name


HABITS: Final = [
    Habits("by the book"),
    Habits("guessing", guesses=True),
    Habits("deaf to Vary", obeys_vary=False),
    Habits("CDN", targeted=True, obeys_vary=False),
    Habits("greedy CDN", targeted=True, guesses=True, obeys_vary=False),
]


class SharedCache:
    """A cache in front of a site behind one kind of door.

    Args:
        serve: The kind of door, of :mod:`tests.contract.doors`.
        tracker: The door's; None: there is no door.
        site: What there is at each path.
        habits: The kind of cache.
    """

    def __init__(
        self,
        serve: Callable[[list[Tracker], Page, Request], Answer],
        tracker: Tracker | None,
        site: Mapping[str, Page],
        habits: Habits,
    ) -> None:
        self._serve = serve
        self._trackers = [] if tracker is None else [tracker]
        self._site = site
        self._habits = habits
        self._stored: dict[str, list[tuple[dict[str, str], float, Answer]]] = {}
        self.now = 0.0

    def ask(self, path: str, **request: str) -> tuple[Answer, bool]:
        """Ask for a page; return it, and whether it came from the cache."""
        asked = Request(**request)  # type: ignore[arg-type]  # of text only
        sent = {"cookie": asked.cookie, **dict(asked.headers)}
        for varies, expires, kept in self._stored.get(path, []):
            if self.now < expires and all(sent.get(name, "") == value for name, value in varies.items()):
                return kept, True
        answer = self._serve(self._trackers, self._site[path], asked)
        life = self._life(answer)
        vary = set(_pieces(answer.header("vary"))) if self._habits.obeys_vary else set()
        if asked.method == "GET" and life > 0 and "*" not in vary:
            varies = {name: sent.get(name, "") for name in vary}
            self._stored.setdefault(path, []).append((varies, self.now + life, replace(answer)))
        return answer, False

    def _life(self, answer: Answer) -> float:
        """Return for how many seconds the answer may be kept."""
        control = next((found for name in self._obeyed() if (found := answer.header(name))), [])
        told: dict[str, str] = {}
        for piece in _pieces(control):
            name, _, value = piece.partition("=")
            told.setdefault(name.strip(), value.strip().strip('"'))
        if told.keys() & {"no-store", "private", "no-cache"}:  # one that asks each time needs no model
            return 0.0
        for name in ("s-maxage", "max-age"):
            if name in told:
                return float(told[name])
        # Of RFC 9111, section 3: a response that says it is public may be kept whatever its status.
        may_guess = "public" in told or answer.status in _BY_DEFAULT
        return 10.0 if self._habits.guesses and may_guess else 0.0

    def _obeyed(self) -> Iterable[str]:
        return (*_TARGETED, "cache-control") if self._habits.targeted else ("cache-control",)


def _pieces(values: Iterable[str]) -> list[str]:
    return [piece.strip().lower() for value in values for piece in value.split(",") if piece.strip()]
