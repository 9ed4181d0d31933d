"""What visitors did, until it is known who was first and hits are composed of it.

Requests leave their news here and go on; the delivery thread has them written, many at a time. The ledger of
the process is asked who was first or, where machines share one, that. The writer knows nothing of requests,
cookies and what stands in a hit; time is handed in.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections import deque
from contextlib import suppress
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Final, Protocol

from convert_middleware.delivery import EXPOSURE, GOAL, TRANSACTION, Receipt, Recent
from convert_middleware.errors import ConvertError
from convert_middleware.visitor import News, unchecked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from convert_middleware.delivery import Ledger, MemoryOutbox
    from convert_middleware.hooks import Announcer

MOST: Final = 1_000  # pieces of news that wait to be written; a request that brings more helps out
HELP: Final = 10  # pieces of news that it writes then
MOST_ASKED: Final = 10_000  # as many may wait for the answer of a shared ledger
TOGETHER: Final = 200  # visitors a shared ledger is asked about at once
WITHDRAWN: Final = 10_000  # visitors at least of whom no attempt that failed is repeated


class SharedLedger(Protocol):
    """Who was first, for the processes of many machines; asked in the delivery thread only."""

    lost: list[Receipt]

    def owes(self, visitor_id: str) -> bool:
        """Tell whether a hit of this visitor was lost and not made good, as far as this process heard."""

    async def claim(self, wanted: Sequence[Receipt]) -> list[tuple[Receipt, Receipt | None]]:
        """Return of each what was granted, and what its visitor is owed besides."""

    async def give_back(self, receipts: Sequence[Receipt]) -> None:
        """Take claims back: their hits are finally lost, and the visitors are owed others."""

    async def look(self) -> None:
        """Hear of what other processes owe."""

    def after_fork(self) -> None:
        """Forget in a forked child what the parent knew."""


# News that nobody wrote yet; with hooks also where they came from, so that hooks see it.
_Waiting = tuple[News, float, Context | None]


class Writer:
    """Writes hits.

    Args:
        compose: Offers the hits that tell of news to the outbox.
        ledger: Who was first in this process.
        outbox: Where hits wait; what it lost finally is made good with the visitor's next news.
        announcer: Whom to tell.
        shared: Who was first on all machines. While it cannot be asked the process decides alone.
    """

    def __init__(
        self,
        compose: Callable[[News, Receipt | None, float], None],
        ledger: Ledger,
        outbox: MemoryOutbox,
        announcer: Announcer,
        shared: SharedLedger | None = None,
    ) -> None:
        self._compose = compose
        self._ledger = ledger
        self._outbox = outbox
        self._announcer = announcer
        self._shared = shared
        self.after_fork()

    def after_fork(self) -> None:
        """Begin empty, with a lock nobody holds: in a forked child what waits here is the parent's."""
        self._lock = threading.RLock()
        self._waiting: deque[_Waiting] = deque()
        self._writing = False
        self._asked: list[_Waiting] = []  # a shared ledger is being asked about them
        self._withdrawn: deque[str] = deque()  # visitors whose hits the outbox has still to drop
        self._withdrew: Recent[str, float] = Recent(WITHDRAWN)  # when
        self.anybody_withdrew = False  # so that hardly anybody has to be looked for
        self._returned: deque[Receipt] = deque(maxlen=TOGETHER * 25)  # to be given back to it
        if self._shared is not None:
            self._shared.after_fork()

    # --- in requests ----------------------------------------------------------------------------------

    def take(self, news: News, now: float) -> None:
        """Accept news; hooks hear of it at once, otherwise it is written later. Never blocks, never raises.

        Args:
            news: What a visitor did.
            now: When, in seconds since the epoch.
        """
        if self._shared is not None:
            context = copy_context() if self._announcer.active else None
            self._waiting.append((news, now, context))
            self._help(MOST_ASKED)
            return
        if self._announcer.active:
            self._give_back_what_was_lost()
            self._write_one(news, now)
            return
        self._waiting.append((news, now, None))
        self._help(MOST)

    def _help(self, most: int) -> None:
        """Write some of what waits if that is too much: more than a request brings, and still little."""
        waiting = len(self._waiting)
        # Where many requests help at once and it still becomes more, they wait for each other.
        if waiting > most and self._lock.acquire(blocking=waiting > 2 * most):
            try:
                self._write(HELP)
            finally:
                self._lock.release()

    def withdraw(self, visitor_id: str, now: float) -> bool:
        """Have all that waits of a visitor dropped; return False if that was asked for already.

        Args:
            visitor_id: The visitor.
            now: When they withdrew, in seconds since the epoch.
        """
        known = self._withdrew.get(visitor_id) is not None  # whoever sends an old cookie again and again
        self._withdrew.put(visitor_id, now)
        self.anybody_withdrew = True
        if known:
            return False
        self._withdrawn.append(visitor_id)
        return True

    def owes(self, visitor_id: str) -> bool:
        """Tell whether a hit of this visitor was lost and not made good yet."""
        shared = self._shared
        return self._ledger.owes(visitor_id) or (shared is not None and shared.owes(visitor_id))

    def withdrew(self, visitor: str, accepted_at: float = 0.0) -> bool:
        """Tell whether a hit is of a visitor who has withdrawn consent since it was accepted.

        Args:
            visitor: The visitor's id.
            accepted_at: In seconds since the epoch; 0: whether the visitor withdrew at all, as far as this
                process remembers.
        """
        if not self.anybody_withdrew:
            return False
        moment = self._withdrew.get(visitor)
        return moment is not None and accepted_at <= moment

    # --- in the delivery thread, or wherever somebody wants to know what waits ---------------------------

    def pending(self) -> int:
        """Return how much news waits for others to be asked."""
        return len(self._waiting) + len(self._asked)

    def gather(self) -> None:
        """Offer all that waits to the outbox, unless others have to be asked first."""
        if self._shared is None and (self._waiting or self._writing or self._outbox.lost):
            self._write_all()

    async def bring(self) -> None:
        """Offer all that waits to the outbox; to be called in the delivery thread."""
        await self._purge()
        shared = self._shared
        if shared is None:
            self.gather()
            return
        answers_come = await self._tell_what_was_lost(shared)
        while self._waiting:
            asked = self._asked = [self._waiting.popleft() for _ in range(min(TOGETHER, len(self._waiting)))]
            answers: list[tuple[Receipt, Receipt | None]] | None = None
            try:
                if answers_come:  # waiting in vain takes seconds, and is done once
                    answers = await shared.claim([_receipt_of(news) for news, _, _ in asked])
            except (ConvertError, ValueError):
                answers_come = False  # the outbox says that its store does not work
            finally:
                for number, (news, now, context) in enumerate(asked):
                    answer = answers[number] if answers else None
                    if context is None:
                        self._write_answered(news, now, answer)
                    else:
                        context.run(self._write_answered, news, now, answer)
                self._asked = []

    async def _purge(self) -> None:
        while self._withdrawn:
            visitor_id = self._withdrawn[0]
            with self._lock:  # what others are writing is in the outbox then
                for _ in range(len(self._waiting)):  # requests go on bringing news meanwhile
                    each = self._waiting.popleft()
                    if each[0].visitor.visitor_id != visitor_id:
                        self._waiting.append(each)
            try:
                await self._outbox.purge(visitor_id)
            except ConvertError:
                return  # it is tried again; the outbox says that its store does not work
            self._withdrawn.popleft()

    def finish(self) -> None:
        """Offer all that waits to the outbox now, without asking anybody."""
        if self._waiting or self._outbox.lost:
            self._write_all()

    async def _tell_what_was_lost(self, shared: SharedLedger) -> bool:
        """Have it made good on all machines; return False if the shared ledger cannot be asked."""
        self._collect_what_was_lost()
        self._returned.extend(shared.lost)
        shared.lost.clear()
        try:
            while self._returned:
                some = list(self._returned)[:TOGETHER]
                await shared.give_back(some)
                for _ in some:
                    self._returned.popleft()
            if not self._waiting:
                await shared.look()
        except ConvertError:
            return False
        return True

    def _write_all(self) -> None:
        with self._lock:
            self._write(sys.maxsize)

    def _write(self, most: int) -> None:
        with self._lock:
            self._give_back_what_was_lost()
            self._writing = True
            try:
                while self._waiting and most > 0:
                    most -= 1
                    news, now, context = self._waiting.popleft()
                    if context is None:
                        self._write_one(news, now)
                    else:
                        context.run(self._write_one, news, now)
            finally:
                self._writing = False

    def _give_back_what_was_lost(self) -> None:
        for receipt in self._collect_what_was_lost():
            self._ledger.give_back(receipt)

    def _collect_what_was_lost(self) -> list[Receipt]:
        """Return receipts of lost hits; what a shared ledger looks after is kept for it."""
        found = []
        lost = self._outbox.lost
        while lost:
            with suppress(IndexError):  # a request with hooks does the same without the lock
                receipt = lost.popleft()
                if isinstance(receipt, Receipt):
                    found.append(receipt)
        if self._shared is None:
            return found
        for receipt in found:
            self._ledger.release(receipt)
        self._returned.extend(found)
        return []

    # --- writing --------------------------------------------------------------------------------------

    def _write_one(self, news: News, now: float) -> None:
        """Write what is first in this process."""
        visitor, experiments, goals, transactions = news
        visitor_id, claim = visitor.visitor_id, self._ledger.claim
        try:
            if experiments:
                experiments = [key for key in experiments if claim(visitor_id, EXPOSURE, key, now)]
            if goals:
                goals = [key for key in goals if claim(visitor_id, GOAL, key, now)]
            if transactions:
                transactions = [
                    each for each in transactions if claim(visitor_id, TRANSACTION, each.transaction_id, now)
                ]
            owed = self._ledger.make_good(visitor_id, now) if self._ledger.owes_anybody else None
            self._compose(unchecked(News, (visitor, experiments, goals, transactions)), owed, now)
        except Exception as error:  # noqa: BLE001 - the others must not suffer; the loss is said
            self._say_lost(error)

    def _write_answered(self, news: News, now: float, answer: tuple[Receipt, Receipt | None] | None) -> None:
        """Write what is first on all machines, or in this process if they did not answer."""
        if answer is None:
            self._write_one(news, now)
            return
        granted, owed = answer
        paid = {key for key, _ in granted.transactions}
        try:
            for kind, key in granted.claims():
                self._ledger.claim(
                    granted.visitor_id, kind, key, now
                )  # for times when the process has to decide alone
            transactions = [each for each in news.transactions if each.transaction_id in paid]
            self._compose(News(news.visitor, granted.experiments, granted.goals, transactions), owed, now)
        except Exception as error:  # noqa: BLE001 - as above
            self._say_lost(error)

    def _say_lost(self, error: Exception) -> None:
        self._announcer.log(
            logging.ERROR, "news", "Tracking failed and a page's records are lost: %s.", type(error).__name__
        )


def _receipt_of(news: News) -> Receipt:
    """Return what these news would claim."""
    return Receipt(
        news.visitor.visitor_id,
        tuple(news.experiments),
        tuple(news.goals),
        tuple([(each.transaction_id, each) for each in news.transactions]),
    )
