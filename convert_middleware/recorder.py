"""What handlers write on, and how they reach it.

The recorder is the public face of a request's page: it checks arguments.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Final, Self

from convert_middleware.errors import ArgumentError, OutsideRequestError
from convert_middleware.model import Id, Money, Transaction, identifier, identifiers

if TYPE_CHECKING:
    from convert_middleware.page import Page

_current: Final[ContextVar[Recorder]] = ContextVar("convert_middleware.recorder")


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


around: Final = _current.get  # returns the current recorder, or what it is given where there is none
enter: Final = _current.set  # makes a recorder the current one, and returns a token
leave: Final = _current.reset  # undoes that, given the token


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
