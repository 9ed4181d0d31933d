"""A tracker for the tests of a site: the real one, with a list in place of Convert.

What a request records has arrived when its response is over: it is sent at once, in the thread that recorded
it, without network, threads or waiting. This module decides nothing of what counts; it keeps what the engine
sends, and says it in words.
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Unpack

from convert_middleware.delivery import Delivery
from convert_middleware.errors import SettingsError, shown
from convert_middleware.hooks import HitDelivered
from convert_middleware.model import count, identifier, identifiers, money
from convert_middleware.page import Page
from convert_middleware.recorder import Recorder, enter, leave
from convert_middleware.settings import Options, Settings
from convert_middleware.tracker import Tracker
from convert_middleware.wire import decode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from convert_middleware.model import Hit, Id, Money, Transaction

_MADE_UP: Final = Settings(
    project_id=1,
    customer_id=2,
    secret_key="of a site made up for tests",  # noqa: S106 - it keeps no secret
    exclude_bots=False,  # some clients of tests are on the list
)
_NOTHING: Final = (
    "Nothing was sent. Does the site have this tracker, and is every response closed? "
    "Flask's client closes one if told buffered=True."
)


class Clock:
    """Tells a time of day that stands still until it is moved: ``clock.now += 3600``."""

    def __init__(self, now: float = 1_750_000_000.0) -> None:
        self.now = now  # seconds since the epoch

    def __call__(self) -> float:
        """Return seconds since the epoch."""
        return self.now


class RecordedTracker(Tracker):
    """A tracker that keeps what it sends; ``print(tracker)`` says it in words.

    Args:
        settings: The site's own, whose outbox and server are not touched; by default some made up for tests,
            with ``exclude_bots`` off.
        clock: Returns seconds since the epoch, such as a :class:`Clock`.
        options: What shall differ; see :class:`~convert_middleware.settings.Settings`.

    Attributes:
        hits: What was sent, in order; clear it to begin anew.

    Raises:
        SettingsError: An option is impossible.
    """

    def __init__(
        self,
        settings: Settings = _MADE_UP,
        *,
        clock: Callable[[], float] = time.time,
        **options: Unpack[Options],
    ) -> None:
        wrong: object = settings
        if not isinstance(wrong, Settings):
            raise SettingsError("settings", f"must be Settings(...), not {shown(wrong)}")
        self.hits: list[Hit] = []
        options |= {"outbox": "memory://", "deliver": True}
        if "id_number" in options:
            options = {"project_id": None, "customer_id": None, **options}
        super().__init__(replace(settings, **options), clock=clock, delivery=partial(_AtOnce, self.hits))

    @property
    def exposures(self) -> list[tuple[int, int]]:
        """The experiment and the variation of each visitor that counts, in order."""
        new = [exposure for hit in self.hits for exposure in hit.exposures[: hit.new_exposures]]
        return [(each.experiment_id, each.variation_id) for each in new]

    @property
    def goals(self) -> list[int]:
        """The goal of each conversion that counts, in order."""
        return [goal for hit in self.hits for goal in hit.goals[: hit.new_goals]]

    @property
    def transactions(self) -> list[Transaction]:
        """The orders that count, in order."""
        return [hit.transaction for hit in self.hits if hit.transaction is not None]

    def assert_exposed(self, experiment_id: Id, variation_id: Id, *, times: int | None = None) -> None:
        """Assert that a visitor counts who was presented a variation.

        Args:
            experiment_id: The experiment.
            variation_id: The variation.
            times: How many such visitors; None: at least one.
        """
        __tracebackhide__ = True
        pair = identifier("experiment_id", experiment_id), identifier("variation_id", variation_id)
        subject = f"Variation {pair[1]} of experiment {pair[0]}"
        self._assert_counted(self.exposures.count(pair), times, subject, "presented")

    def assert_reached(self, goal_id: Id, *, times: int | None = None) -> None:
        """Assert that a visitor counts who reached a goal.

        Args:
            goal_id: The goal.
            times: How many such visitors; None: at least one.
        """
        __tracebackhide__ = True
        goal = identifier("goal_id", goal_id)
        self._assert_counted(self.goals.count(goal), times, f"Goal {goal}", "reached")

    def assert_paid(
        self, transaction_id: str, *, value: Money | None = None, times: int | None = None
    ) -> None:
        """Assert that an order counts.

        Args:
            transaction_id: The order.
            value: What was paid; None: whatever it was.
            times: How often; None: at least once.
        """
        __tracebackhide__ = True
        paid = [each.value for each in self.transactions if each.transaction_id == transaction_id]
        number, done = len(paid), "paid"
        if value is not None:
            amount = money("value", value)
            number, done = paid.count(amount), f"paid with {amount}"
        self._assert_counted(number, times, f"Order {transaction_id}", done)

    def assert_nothing_sent(self) -> None:
        """Assert that nothing counts."""
        __tracebackhide__ = True
        if self.hits:
            raise AssertionError(f"Something was sent.\n{self}")

    def _assert_counted(self, number: int, times: int | None, subject: str, done: str) -> None:
        __tracebackhide__ = True
        if times is not None:
            count("times", times, 0, sys.maxsize)
        if number if times is None else number == times:
            return
        often = "once" if number == 1 else f"{number} times"
        what = f"was {done} {often}, not {times}" if number else f"was not {done}"
        raise AssertionError(f"{subject} {what}.\n{self}")

    def __str__(self) -> str:
        from convert_middleware.collector.sentence import Names, describe  # brings Starlette

        lines = ["Sent:"] if self.hits else [_NOTHING]
        for number, hit in enumerate(self.hits, 1):
            lines.append(f"{number}. {'; '.join([text for _, text in describe(hit, Names())])}")
        stats = self.stats()
        lines += [f"Requests not counted: {number} ({why})." for why, number in stats.excluded.items()]
        lines += [f"Cookies refused: {number} ({why})." for why, number in stats.rejected_cookies.items()]
        return "\n".join(lines)

    def cookies_for(
        self,
        *,
        experiments: Mapping[int, Id] | Mapping[str, Id] | None = None,
        goals: Id | Iterable[Id] = (),
    ) -> dict[str, str]:
        """Return the cookies of a visitor who comes back.

        Args:
            experiments: The variation of each experiment that they were presented.
            goals: What they reached after that, in order.
        """
        visitor = self.load(()).visitor
        for key, variation in (experiments or {}).items():
            presented = identifier("experiments", key), identifier("experiments", variation)
            visitor = visitor.present(*presented, self.now())
        for goal in identifiers("goals", goals):
            visitor = visitor.reach(goal, self.now())
        text, *_ = self.write_cookie(visitor)
        return {self.settings.cookie.name: text.decode()}

    @contextmanager
    def request(self, cookies: Mapping[str, str] | None = None) -> Iterator[Recorder]:
        """Serve a request without a site, for functions that call ``current()``; it ends with the block.

        Args:
            cookies: What the browser sends.
        """
        name = self.settings.cookie.name.encode()
        header = "; ".join([f"{key}={value}" for key, value in (cookies or {}).items()]).encode()
        page = Page(self, partial(self.meet, name, "GET", "/", b"", [(b"cookie", header)]))
        recorder = Recorder(page)
        token = enter(recorder)
        try:
            yield recorder
            page.shown = True
        finally:
            leave(token)
            page.ended = True
            if page.dirty:
                if not page.shown:
                    page.withhold()
                self.send_news(page)


class _AtOnce(Delivery):
    """Delivers where it is called: in memory nothing waits, so that no thread and no loop is needed."""

    def __init__(self, hits: list[Hit], *parts: Any) -> None:
        super().__init__(*parts)
        self._hits = hits
        self._turn = threading.RLock()  # held until what one thread takes out for another has arrived

    def start(self) -> None:
        """Need no thread."""

    def wake(self) -> None:
        """Deliver everything."""
        with self._turn, suppress(StopIteration):
            self._deliver_all().send(None)

    async def _deliver_all(self) -> None:
        await self._source.bring()
        while entries := await self._outbox.take(1, self._clock()):
            self._hits.append(decode(entries[0].text))
            await self._outbox.settle(entries[0])
            self._announcer.announce(HitDelivered(attempts=1, age=0.0))
