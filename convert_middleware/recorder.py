"""What one request writes down, and how handlers reach it.

The page keeps the state of one visitor during one request and what of it is news. The recorder is its public
face: it checks arguments. Neither knows where cookies come from nor where hits go; time and everything else
is handed in by the host.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar, Token
from types import MappingProxyType, TracebackType
from typing import NamedTuple, Protocol, Self

from convert_middleware.errors import ArgumentError, OutsideRequestError
from convert_middleware.hooks import (
    Announcer,
    ArgumentRejected,
    VariationConflict,
    VisitorForgotten,
    visitor_hash,
)
from convert_middleware.model import Id, Money, Transaction, identifier, identifiers
from convert_middleware.visitor import News, Visitor

_current: ContextVar[Recorder] = ContextVar("convert_middleware.recorder")


def current() -> Recorder:
    """Return the recorder of the request being served.

    Works wherever the request's context does: in plain functions, in dependencies, in threads started with a
    copied context.

    Raises:
        OutsideRequestError: No request is being served here.
    """
    try:
        return _current.get()
    except LookupError:
        raise OutsideRequestError from None


def enter(recorder: Recorder) -> Token[Recorder]:
    """Make ``recorder`` the current one; hand the token to :func:`leave`."""
    return _current.set(recorder)


def leave(token: Token[Recorder]) -> None:
    """Undo :func:`enter`."""
    _current.reset(token)


class Host(Protocol):
    """What a page asks of the engine that made it."""

    @property
    def announcer(self) -> Announcer: ...  # noqa: D102 - a plain attribute

    @property
    def strict(self) -> bool: ...  # noqa: D102 - a plain attribute

    def now(self) -> int:
        """Return seconds since the epoch."""

    def send_news(self, page: Page) -> None:
        """Send what is news on the page; never raises."""

    def write_token(self, visitor: Visitor, *, excluded: bool) -> str:
        """Return signed text that the visitor can be resumed from."""

    def forget(self, visitor: Visitor) -> None:
        """Drop what is remembered of the visitor."""

    def owes(self, visitor: Visitor) -> bool:
        """Tell whether something must be told again although this request records nothing."""


class Loaded(NamedTuple):
    """What a request begins with.

    Attributes:
        visitor: The state.
        stale: Whether the cookie should be written anew when something is recorded.
        excluded: Whether the request is not counted: records work on this page, and nothing of them is kept.
        withdrawn: Whether the browser's cookie has to go.
    """

    visitor: Visitor
    stale: bool = False
    excluded: bool = False
    withdrawn: bool = False


class Page:
    """The state of one visitor during one request.

    Args:
        host: The engine.
        load: Returns the visitor of the request, and whether the cookie should be written anew; called when
            somebody asks for state.
        shown: Whether exposures count from the start, as there is no response to wait for.
    """

    __slots__ = (
        "_exposures",
        "_goals",
        "_host",
        "_kept",
        "_load",
        "_lock",
        "_stale",
        "_transactions",
        "_visitor",
        "dirty",
        "ended",
        "excluded",
        "forgotten",
        "loaded",
        "shown",
        "touched",
        "withdrawn",
    )

    def __init__(self, host: Host, load: Callable[[], Loaded], *, shown: bool = False) -> None:
        self._host = host
        self._load = load
        self._visitor: Visitor | None = None
        self.loaded: Visitor | None = None  # the state that the request began with
        self._kept: Visitor | None = None  # the state as the browser has it, or will have
        self._stale = False
        self._exposures: list[int] = []
        self._goals: list[int] = []
        self._transactions: list[Transaction] = []
        # A sync endpoint records in a thread while the async part of the same request records too.
        self._lock = threading.RLock()
        self.shown = shown  # the response has left, so that exposures count
        self.touched = False  # something was recorded
        self.dirty = False  # there is something to tell since the door last looked
        self.ended = False
        self.excluded = False  # nothing of this request is kept or sent
        self.withdrawn = False  # the visitor denies consent, and came with a cookie
        self.forgotten = False

    @property
    def used(self) -> bool:
        """Whether somebody asked for the visitor's state."""
        return self._visitor is not None

    @property
    def visitor(self) -> Visitor:
        """The state, read from the cookies when it is first asked for."""
        visitor = self._visitor
        if visitor is not None:
            return visitor
        with self._lock:
            if self._visitor is None:
                self.loaded, self._stale, self.excluded, self.withdrawn = self._load()
                self._visitor = self._kept = self.loaded
                self.dirty = not self.excluded and self._host.owes(self.loaded)
            return self._visitor

    @property
    def changed(self) -> bool:
        """Whether this request's records changed the state."""
        return self._visitor is not self.loaded

    def present(self, experiment_id: int, variation_id: int) -> int:
        """Record an exposure; return the variation this visitor has."""
        with self._lock:
            visitor = self.visitor
            self.touched = self.dirty = True
            kept = visitor.variation(experiment_id)
            if kept is None and not self.forgotten:
                self._visitor = visitor.present(experiment_id, variation_id, self._host.now())
                self._exposures.append(experiment_id)
        if kept is None:
            if self.ended:
                self.flush()
            return variation_id
        if kept != variation_id:
            self._host.announcer.announce(
                VariationConflict(
                    visitor=visitor_hash(visitor.visitor_id),
                    experiment_id=experiment_id,
                    kept=kept,
                    asked=variation_id,
                )
            )
        return kept

    def reach(self, goal_id: int, experiments: tuple[int, ...] | None) -> bool:
        """Record a goal; return whether it was reached for the first time."""
        with self._lock:
            visitor = self.visitor
            self.touched = self.dirty = True
            if self.forgotten:
                return False
            self._visitor = visitor.reach(goal_id, self._host.now(), experiments)
            first = goal_id not in visitor.goals
            if first:
                self._goals.append(goal_id)
        if self.ended:
            self.flush()
        return first

    def pay(self, transaction: Transaction) -> bool:
        """Record a transaction; return False if it was recorded before."""
        with self._lock:
            visitor = self.visitor
            self.touched = self.dirty = True
            if self.forgotten or visitor.has_paid(transaction.transaction_id):
                return False
            self._visitor = visitor.pay(transaction.transaction_id, self._host.now())
            self._transactions.append(transaction)
        if self.ended:
            self.flush()
        return True

    def forget(self) -> None:
        """Drop all state and news of this visitor; the door deletes the cookie."""
        with self._lock:
            visitor = self.visitor
            self._exposures, self._goals, self._transactions = [], [], []
            self._visitor = self._kept = Visitor(visitor.visitor_id, visitor.issued_at)
            self.forgotten = self.touched = True
        self._host.forget(visitor)
        self._host.announcer.announce(VisitorForgotten(visitor=visitor_hash(visitor.visitor_id)))

    def flush(self) -> None:
        """Send what is news now."""
        self._host.send_news(self)

    @property
    def deletes(self) -> bool:
        """Whether the browser's cookie has to go."""
        return self.forgotten or self.withdrawn

    def to_save(self) -> Visitor | None:
        """Return the state a response's cookie should carry; None: leave the browser's as it is."""
        if (
            self.touched
            and not (self.forgotten or self.excluded)
            and (self._visitor is not self._kept or self._stale)
        ):
            return self.visitor
        return None

    def withhold(self) -> None:
        """Take back exposures that were recorded and not shown: this response presents nothing."""
        with self._lock:
            if self._exposures:
                visitor = self.visitor.without_last(len(self._exposures))
                self._visitor = self._kept if visitor == self._kept else visitor
                self._exposures = []

    def saved(self, visitor: Visitor) -> None:
        """Take note that a cookie with this state has left."""
        self._kept, self._stale = visitor, False

    def take(self) -> News | None:
        """Return what is news and start afresh; exposures that are not shown yet stay behind."""
        if self.excluded:
            self._exposures, self._goals, self._transactions = [], [], []
        if not (self._exposures or self._goals or self._transactions):
            return None
        with self._lock:
            visitor, exposures = self.visitor, self._exposures
            if exposures and not self.shown:
                visitor, exposures = visitor.without_last(len(exposures)), []
            else:
                self._exposures = []
            goals, self._goals = self._goals, []
            transactions, self._transactions = self._transactions, []
        return News(visitor, exposures, goals, transactions)

    def write_token(self) -> str:
        """Return signed text that stands for this visitor."""
        visitor = self.visitor
        return self._host.write_token(visitor, excluded=self.excluded)

    def reject(self, error: ArgumentError) -> None:
        """Raise ``error``, or announce it where the page must go on."""
        if self._host.strict:
            raise error
        announcer = self._host.announcer
        announcer.announce(ArgumentRejected(argument=error.argument, reason=error.reason))
        announcer.log(logging.ERROR, "argument", "Nothing was recorded: %s %s.", error.argument, error.reason)


class Recorder:
    """What handlers write on; one per request, at ``request.state.convert`` and from :func:`current`.

    A bad argument raises :class:`~convert_middleware.errors.ArgumentError`, which names it; what was recorded
    before stays. With ``strict=False`` it is logged and announced instead and nothing is recorded.
    """

    __slots__ = ("__weakref__", "_page")

    def __init__(self, page: Page) -> None:
        self._page = page

    def experiment(self, experiment_id: Id, variation_id: Id) -> int:
        """Record that the visitor is presented a variation.

        It counts when this response is really sent, and once per visitor and experiment.

        Args:
            experiment_id: The experiment; an int or a string of digits.
            variation_id: The variation to present.

        Returns:
            The variation to render: the one given, or the one this visitor was presented first.

        Raises:
            ArgumentError: An id is no id.
        """
        try:
            experiment = identifier("experiment_id", experiment_id)
            variation = identifier("variation_id", variation_id)
        except ArgumentError as error:
            self._page.reject(error)
            return variation_id  # type: ignore[return-value]  # not strict: the page renders what it asked for
        return self._page.present(experiment, variation)

    def goal(self, goal_id: Id, *, experiments: Id | Iterable[Id] | None = None) -> bool:
        """Record that the visitor reached a goal.

        Args:
            goal_id: The goal; an int or a string of digits.
            experiments: Ids of the experiments the goal belongs to; empty: none; None: all.

        Returns:
            Whether this visitor reached it for the first time.

        Raises:
            ArgumentError: An id is no id.
        """
        try:
            goal = identifier("goal_id", goal_id)
            restricted = None if experiments is None else identifiers("experiments", experiments)
        except ArgumentError as error:
            self._page.reject(error)
            return False
        return self._page.reach(goal, restricted)

    def revenue(
        self, goal_ids: Id | Iterable[Id], *, transaction_id: str, value: Money, products: int = 1
    ) -> bool:
        """Record an order that was paid. It fires no conversion; call :meth:`goal` for that.

        Args:
            goal_ids: The goal or goals the revenue is booked on, at most 50.
            transaction_id: The order's id, unique per order; at most 256 bytes, without ``|``.
            value: Amount in the project's currency, rounded half-even to cents; not negative.
            products: Number of items ordered.

        Returns:
            False if this visitor's transaction was already recorded.

        Raises:
            ArgumentError: An argument cannot be recorded.
        """
        try:
            goals = identifiers("goal_ids", goal_ids)
            transaction = Transaction(goals, transaction_id, value, products)  # type: ignore[arg-type]  # checked at birth
        except ArgumentError as error:
            self._page.reject(error)
            return False
        return self._page.pay(transaction)

    @property
    def visitor_id(self) -> str:
        """The visitor's id, 32 hexadecimal digits; kept from the first response that records something."""
        return self._page.visitor.visitor_id

    @property
    def experiments(self) -> Mapping[int, int]:
        """The variation of each experiment this visitor was presented."""
        visitor = self._page.visitor
        return MappingProxyType(dict(zip(visitor.experiments, visitor.variations, strict=True)))

    @property
    def goals(self) -> tuple[int, ...]:
        """The goals this visitor reached, in the order reached."""
        return self._page.visitor.goals

    def flush(self) -> None:
        """Send now what was recorded; for connections that live long. Never blocks."""
        self._page.flush()

    def token(self) -> str:
        """Return signed text that ``Tracker.resume()`` turns back into a recorder in another process.

        Whoever holds it can record for this visitor; keep it as carefully as an order's data.
        """
        return self._page.write_token()

    def forget(self) -> None:
        """Delete the visitor's cookie; nothing of this request is sent, and nothing more is recorded."""
        self._page.forget()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.flush()
