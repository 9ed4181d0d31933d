"""The state of one visitor during one request, and what of it is news.

The page knows no argument checks; the recorder, its public face, has made them. Where cookies come from and
where hits go is its host's affair; time and everything else is handed in by that.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from convert_middleware.hooks import (
    Announcer,
    ArgumentRejected,
    TooLateForCookie,
    VariationConflict,
    VisitorForgotten,
    place_of,
    visitor_hash,
)
from convert_middleware.visitor import News, Visitor, unchecked

if TYPE_CHECKING:
    from convert_middleware.errors import ArgumentError
    from convert_middleware.model import Transaction


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
        text: A cookie that holds just this state; None: there is none.
        known: Whether the browser sent a cookie, so that its next request will be known, too.
    """

    visitor: Visitor
    stale: bool = False
    excluded: bool = False
    withdrawn: bool = False
    text: bytes | None = None
    known: bool = True


class Page:
    """The state of one visitor during one request.

    Args:
        host: The engine.
        load: Returns what the request begins with; called when somebody asks for state. None: a subclass has
            a :meth:`meet` of its own.
        shown: Whether exposures count from the start, as there is no response to wait for.
    """

    __slots__ = (
        "_exposures",
        "_goals",
        "_host",
        "_kept",
        "_known",
        "_late",
        "_load",
        "_lock",
        "_stale",
        "_text",
        "_transactions",
        "_visitor",
        "begun",
        "dirty",
        "ended",
        "excluded",
        "forgotten",
        "loaded",
        "remembered",
        "seen",
        "shown",
        "touched",
        "used",
        "withdrawn",
    )

    def __init__(self, host: Host, load: Callable[[], Loaded] | None = None, *, shown: bool = False) -> None:
        self._host = host
        self._load = load
        self._visitor: Visitor | None = None
        self.loaded: Visitor | None = None  # the state that the request began with
        self.seen: bytes | None = None  # a cookie that holds just that
        self._kept: Visitor | None = None  # the state as the browser has it, or will have
        self.remembered: Visitor | None = None  # the state as the next request will know it
        self._text: bytes | None = None  # a cookie that holds just that
        self._stale = self._late = self._known = False
        self._exposures: list[int] = []  # what is news
        self._goals: list[int] = []
        self._transactions: list[Transaction] = []
        # A sync endpoint records in a thread while the async part of the same request records too.
        self._lock = threading.RLock()
        self.used = False  # somebody asked for the visitor's state
        self.begun = False  # the response has, so that its cookie can carry nothing more
        self.shown = shown  # the response has left, so that exposures count
        self.touched = False  # something was recorded
        self.dirty = False  # there is something to tell since the door last looked
        self.ended = False
        self.excluded = False  # nothing of this request is kept or sent
        self.withdrawn = False  # the visitor denies consent, and came with a cookie
        self.forgotten = False

    def meet(self) -> Loaded:
        """Return what the request begins with."""
        if self._load is None:
            raise NotImplementedError
        return self._load()

    @property
    def visitor(self) -> Visitor:
        """The state, read from the cookies when it is first asked for."""
        visitor = self._visitor
        if visitor is not None:
            return visitor
        with self._lock:
            if self._visitor is None:
                self.loaded, self._stale, self.excluded, self.withdrawn, self.seen, self._known = self.meet()
                self._visitor = self._kept = self.loaded
                self._text = self.seen
                self.used = True
                self.dirty = not self.excluded and self._host.owes(self.loaded)
            return self._visitor

    @property
    def changed(self) -> bool:
        """Whether this request's records changed the state."""
        return self._visitor is not self.loaded

    @property
    def ahead(self) -> bool:
        """Whether the state has what came too late for the response's cookie, and nobody remembers yet."""
        return self._visitor is not self._kept and self._visitor is not self.remembered

    def present(self, experiment_id: int, variation_id: int) -> int:
        """Record an exposure; return the variation this visitor has."""
        with self._lock:
            visitor = self.visitor
            self.touched = True
            if self.begun:
                self._look_whether_it_is_late()
            kept = visitor.variation(experiment_id)
            if kept is None and not self.forgotten:
                self._visitor = visitor.present(experiment_id, variation_id, self._host.now())
                if not self.excluded:
                    self._exposures.append(experiment_id)
            self.dirty = True  # only now, as the door may look at any moment
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
            visitor = self._visitor or self.visitor
            self.touched = True
            if self.begun:
                self._look_whether_it_is_late()
            if self.forgotten:
                return False
            self._visitor = visitor.reach(goal_id, self._host.now(), experiments)
            first = goal_id not in visitor.goals
            if first and not self.excluded:
                self._goals.append(goal_id)
            self.dirty = True
        if self.ended:
            self.flush()
        return first

    def pay(self, transaction: Transaction) -> bool:
        """Record a transaction; return False if it was recorded before."""
        with self._lock:
            visitor = self.visitor
            self.touched = True
            if self.begun:
                self._look_whether_it_is_late()
            if self.forgotten or visitor.has_paid(transaction.transaction_id):
                return False
            self._visitor = visitor.pay(transaction.transaction_id, self._host.now())
            if not self.excluded:
                self._transactions.append(transaction)
            self.dirty = True
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
        announcer = self._host.announcer
        announcer.announce(VisitorForgotten(visitor=visitor_hash(visitor.visitor_id)))
        if self.begun:
            message = "forget() came after the response had begun, so that the browser keeps its cookie."
            announcer.log(logging.WARNING, "late forget", message)

    def flush(self) -> None:
        """Send what is news now."""
        self._host.send_news(self)

    @property
    def deletes(self) -> bool:
        """Whether the browser's cookie has to go."""
        return self.forgotten or self.withdrawn

    def to_save(self) -> Visitor | None:
        """Return the state a response's cookie should carry; None: leave the browser's as it is."""
        told = not self.touched or self.forgotten or self.excluded
        return None if told or (self._visitor is self._kept and not self._stale) else self._visitor

    def withhold(self) -> None:
        """Take back exposures that were recorded and not shown: this response presents nothing."""
        with self._lock:
            if self._exposures:
                visitor = self.visitor.without_last(len(self._exposures))
                self._visitor = self._kept if visitor == self._kept else visitor
                self._exposures = []

    def saved(self, visitor: Visitor, text: bytes | None = None) -> None:
        """Take note that a cookie with this state has left.

        Args:
            visitor: The state.
            text: The cookie, if it holds just this state.
        """
        self._kept, self._text, self._stale = visitor, text, False

    def text_of(self, visitor: Visitor) -> bytes | None:
        """Return a cookie that holds just this state, if there is one."""
        return self._text if visitor is self._kept else None

    def take(self) -> News | None:
        """Return what is news and start afresh.

        As long as exposures may still be shown everything stays, since goals are credited to them.
        """
        if not (self._exposures or self._goals or self._transactions):
            return None
        with self._lock:
            if self._exposures and not self.shown:
                if not self.ended:
                    return None
                self.withhold()
            exposures, goals, transactions = self._exposures, self._goals, self._transactions
            self._exposures, self._goals, self._transactions = [], [], []
            return unchecked(News, (self.visitor, exposures, goals, transactions))

    def write_token(self) -> str:
        """Return signed text that stands for this visitor."""
        visitor = self.visitor
        return self._host.write_token(visitor, excluded=self.excluded)

    def reject(self, error: ArgumentError) -> None:
        """Raise ``error``, or announce it where the page must go on; for the recorder's methods to call."""
        if self._host.strict:
            raise error
        announcer = self._host.announcer
        announcer.announce(ArgumentRejected(argument=error.argument, reason=error.reason))
        handler = sys._getframe(2)  # noqa: SLF001 - documented, and the only way to the recorder's caller
        place = place_of(handler.f_code, handler.f_lineno)
        message = "Nothing was recorded in %s: %s %s."
        announcer.log(logging.ERROR, f"argument in {place}", message, place, error.argument, error.reason)

    def _look_whether_it_is_late(self) -> None:
        """Tell, once, of a record that the browser's next request cannot bring along."""
        visitor = self.loaded
        if self._late or self.excluded or visitor is None or self._known or self._kept is not visitor:
            return
        self._late = True
        announcer = self._host.announcer
        announcer.announce(TooLateForCookie(visitor=visitor_hash(visitor.visitor_id)))
        announcer.log(
            logging.WARNING,
            "too late",
            "What a visitor without a cookie did was recorded after the response had begun, and their next "
            "request will be somebody new. Record in the handler itself, before the response begins.",
        )
