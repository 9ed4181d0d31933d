"""The tracker: the one place that joins the parts. One per process serves every door.

It decides nothing that a part could decide: it leaves who comes to the reception, what no cookie could carry
to the memory, news to the writer and hits to delivery.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from convert_middleware.admission import Admission
from convert_middleware.composer import Composer
from convert_middleware.credentials import Credentials
from convert_middleware.delivery import Delivery, Ledger, Policy, open_outbox, shared_ledger_of
from convert_middleware.delivery.forks import HERE, begin_anew, in_every_child
from convert_middleware.delivery.senders.choose import make_sender
from convert_middleware.errors import SettingsError
from convert_middleware.hooks import Announcer
from convert_middleware.memory import Memory
from convert_middleware.page import Page
from convert_middleware.reception import Reception
from convert_middleware.recorder import Recorder
from convert_middleware.settings import Settings
from convert_middleware.visitor import News, Visitor
from convert_middleware.wire import MAX_URL
from convert_middleware.writer import Writer

_FOR_HOOKS: Final = 0.5  # seconds at least that hooks get to flush when a server ends

if TYPE_CHECKING:
    from collections.abc import Callable

    from convert_middleware.delivery import Counts


@dataclass(frozen=True, slots=True)
class Stats:
    """What became of every hit, and what was not accepted.

    ``accepted = delivered + waiting + in_flight + dead + sum(dropped.values())`` at any moment.

    Attributes:
        accepted: Hits handed over.
        delivered: Taken by Convert.
        waiting: In the outbox.
        in_flight: Being sent.
        dead: Refused by Convert for good.
        dropped: Given up, by reason: overflow, expired, ambiguous, withdrawn, shutdown, interrupted,
            file lost, store lost, lease lost.
        refused: Handed over after ``close()``; not accepted.
        rejected_cookies: Cookies that were no valid state, by reason.
        odd_browser_cookies: Requests in which the cookie of Convert's own script was odd in parts.
        excluded: Requests that asked for state and are not counted, by reason.
    """

    accepted: int
    delivered: int
    waiting: int
    in_flight: int
    dead: int
    dropped: dict[str, int]
    refused: int
    rejected_cookies: dict[str, int]
    odd_browser_cookies: int
    excluded: dict[str, int]


class Tracker:
    """The assembled engine.

    Args:
        settings: The options.
        clock: Returns seconds since the epoch; for tests.
        delivery: Makes what brings hits to Convert; for tests.

    Raises:
        SettingsError: The outbox or sender cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
        delivery: Callable[..., Delivery] = Delivery,
    ) -> None:
        wrong: object = settings
        if not isinstance(wrong, Settings):
            raise SettingsError("settings", f"must be Settings(...), not {type(wrong).__name__}")
        self.settings = settings
        self.strict = settings.strict
        self.announcer = Announcer(settings.hooks, time.monotonic)
        self.customer_id, self.project_id = settings.ids
        self._clock = clock
        self._credentials = Credentials(settings.keys, settings.cookie, self.announcer)
        self.cookie_attributes = settings.cookie.attributes(False), settings.cookie.attributes(True)
        self._admission = Admission(
            consent=settings.consent,
            exclude=settings.exclude,
            honour_gpc=settings.honour_gpc,
            honour_dnt=settings.honour_dnt,
            exclude_bots=settings.exclude_bots,
            announcer=self.announcer,
            timer=time.monotonic,
        )
        self.asks_consent = self._admission.asks
        self.guards_caches = settings.cache_guard
        self.signals = self._admission.signals
        endpoint = settings.endpoint.replace("{project_id}", str(self.project_id))
        self._memory = Memory()
        self._lock = threading.RLock()
        self._refused = 0
        self._serving = 0  # servers that have started and not ended
        self._told: Counts | None = None  # of a drain or the end before; told again only if it changed
        repeat = settings.on_ambiguous == "retry"
        outbox = open_outbox(settings.outbox, self.announcer, clock, repeat=repeat)
        self._ledger = Ledger()
        limit = MAX_URL - 1 - len(f"{endpoint}?")
        shared = shared_ledger_of(outbox)
        self._shares_claims = shared is not None
        composer = Composer(self.customer_id, self.project_id, limit, outbox, self.announcer)
        self._writer = Writer(composer.compose, self._ledger, outbox, self.announcer, shared)
        self._delivery = delivery(
            outbox,
            make_sender(settings.sender, settings.endpoint, self.project_id, soon=settings.deliver),
            Policy(on_ambiguous=settings.on_ambiguous),
            self.announcer,
            clock,
            self._writer,
            settings.deliver,
        )
        self._reception = Reception(
            self._admission,
            self._credentials,
            self._memory,
            self._ledger,
            self._writer,
            self.announcer,
            clock,
            self._delivery.wake,
            reads_browser=settings.browser_state == "read",
        )
        self.meet, self.load = self._reception.meet, self._reception.load
        self.forget = self._reception.forget
        # A tracker that nobody closes leaves no thread behind; at exit _close_all() waits for delivery.
        weakref.finalize(self, _let_go, self._delivery, settings.drain_timeout).atexit = False
        _alive.add(self)

    # --- for the application --------------------------------------------------------------------------

    def stats(self) -> Stats:
        """Return a consistent account of all hits."""
        counts = self._delivery.counts()
        return Stats(
            counts.accepted,
            counts.delivered,
            counts.waiting,
            counts.in_flight,
            counts.dead,
            counts.dropped,
            self._refused,
            self._credentials.rejected(),
            self._reception.odd(),
            self._admission.counts(),
        )

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until everything is delivered or given up; return whether that was reached.

        Args:
            timeout: Seconds to wait at most.
        """
        deadline = time.monotonic() + timeout
        done = self._delivery.flush(timeout)
        self.announcer.force_flush(deadline)
        return done

    def close(self, timeout: float | None = None) -> bool:
        """Accept nothing more, deliver what is left, end the thread; may be called again.

        Args:
            timeout: Seconds to try; what is left then is counted as dropped. None: ``drain_timeout``.

        Returns:
            Whether nothing was lost.
        """
        first = not self._delivery.closed
        clean = self._delivery.close(self.settings.drain_timeout if timeout is None else timeout)
        if first:
            self._say_goodbye()
            self.announcer.shutdown()
        return clean

    def resume(self, token: str) -> Recorder:
        """Return a recorder for the visitor of a token, outside any request.

        Use it in a ``with`` block, or call ``flush()`` when all is recorded.

        Args:
            token: What ``Recorder.token()`` returned, perhaps days ago in another process.

        Raises:
            TokenError: It is no valid token.
        """
        loaded = self._reception.resume(token)
        return Recorder(Page(self, lambda: loaded, shown=True))

    # --- for the doors --------------------------------------------------------------------------------

    def start(self) -> None:
        """Start delivery ahead of the first hit."""
        self._delivery.start()

    def begin_service(self) -> None:
        """Take note that a server has started, and :meth:`start`."""
        with self._lock:
            self._serving += 1
        self.start()

    def end_service(self) -> None:
        """Take note that a server ends; with the last one, :meth:`drain`.

        A signal may end the process right after that, without its exit handlers.
        """
        with self._lock:
            self._serving -= 1
            last = self._serving <= 0
        if last:
            self.drain()

    def signal_stop(self, deadline: float) -> None:
        """Have delivery end by ``deadline`` of the monotonic clock; does not wait."""
        self._delivery.signal_stop(deadline)

    def after_fork(self) -> None:
        """Begin in a forked child with a lock nobody holds; another thread may have held it in the parent."""
        self._lock = threading.RLock()
        self._told = None
        self._serving = 0
        self._memory.after_fork()
        self._ledger.after_fork()
        self._writer.after_fork()
        self._admission.after_fork()
        self._credentials.after_fork()
        self._reception.after_fork()

    def drain(self) -> bool:
        """Deliver what is left, end the thread and flush the hooks; a later hit starts it again."""
        began, timeout = time.monotonic(), self.settings.drain_timeout
        clean = self._delivery.drain(timeout)
        self._say_goodbye()
        self.announcer.force_flush(max(began + timeout, time.monotonic() + _FOR_HOOKS))
        return clean

    # --- for the pages --------------------------------------------------------------------------------

    def now(self) -> int:
        """Return seconds since the epoch."""
        return int(self._clock())

    def write_cookie(self, visitor: Visitor) -> tuple[bytes, int, bool]:
        """Return the visitor's cookie, its life in seconds, and whether it holds the whole state."""
        return self._credentials.write_cookie(visitor, int(self._clock()))

    def write_token(self, visitor: Visitor, *, excluded: bool = False) -> str:
        """Return signed text that :meth:`resume` accepts."""
        return self._credentials.write_token(visitor, int(self._clock()), excluded=excluded)

    def withdrew(self, visitor: Visitor) -> bool:
        """Tell whether the visitor withdrew consent, perhaps while a page of theirs was being made."""
        return self._writer.anybody_withdrew and self._writer.withdrew(visitor.visitor_id)

    def owes(self, visitor: Visitor) -> bool:
        """Tell whether an earlier hit of the visitor was finally lost, so that it has to be made good."""
        return (self._ledger.owes_anybody or self._shares_claims) and self._writer.owes(visitor.visitor_id)

    def send_news(self, page: Page) -> None:
        """Hand over what is news on the page; never raises."""
        if not page.used:
            return
        try:
            news = page.take()
            if page.forgotten or page.excluded or self.withdrew(page.visitor):
                return
            now = self._clock()
            if news is not None:
                before = news.visitor
                visitor = self._memory.remember(before, page.loaded, page.seen, page.text_of(before), now)
                self._accept(news if visitor is before else news._replace(visitor=visitor), now)
                return
            if page.shown and page.changed:
                self._memory.remember(page.visitor, page.loaded, page.seen, page.text_of(page.visitor), now)
            if page.shown and self.owes(page.visitor) and not self._delivery.closed:
                self._accept(News(page.visitor), now)
        except Exception as error:  # noqa: BLE001 - the site comes first; the loss is said
            self._say_lost(error)

    def remember(self, page: Page) -> None:
        """Have the visitor's next request know what is on the page, as its cookie will not tell it all.

        Doors call it before the last of a response leaves: that request may follow at once. Never raises.
        """
        try:
            visitor = page.remembered = page.visitor
            if page.shown and not (page.deletes or page.excluded or self.withdrew(visitor)):
                self._memory.remember(visitor, page.loaded, page.seen, None, self._clock())
        except Exception as error:  # noqa: BLE001 - the site comes first; the loss is said
            self._say_lost(error)

    def _say_lost(self, error: Exception) -> None:
        message = "Tracking failed and a page's records are lost: %s."
        self.announcer.log(logging.ERROR, "news", message, type(error).__name__)

    def _accept(self, news: News, now: float) -> None:
        if not HERE[0]:  # before anything is added to what is the parent's
            begin_anew()
        if self._delivery.closed:
            with self._lock:
                self._refused += max(1, len(news.transactions))
            self.announcer.log(logging.WARNING, "closed", "A hit was refused: the tracker is closed.")
            return
        self._writer.take(news, now)
        self._delivery.wake()

    def _say_goodbye(self) -> None:
        counts = self._delivery.counts()
        if counts.accepted and counts != self._told:
            self._told = counts
            lost = sum(counts.dropped.values())
            logging.getLogger("convert_middleware").log(
                logging.WARNING if lost else logging.INFO,
                "Tracking stops: %d hits accepted, %d delivered, %d dropped, %d dead, %d waiting, "
                "%d in flight.",
                counts.accepted,
                counts.delivered,
                lost,
                counts.dead,
                counts.waiting,
                counts.in_flight,
            )


def _let_go(delivery: Delivery, timeout: float) -> None:
    delivery.closed = True
    delivery.signal_stop(time.monotonic() + timeout)


_alive: weakref.WeakSet[Tracker] = weakref.WeakSet()


def _close_all() -> None:
    """Close what is left, all at the same time."""
    began = time.monotonic()
    trackers = [(tracker, began + tracker.settings.drain_timeout) for tracker in _alive]
    for tracker, deadline in trackers:
        tracker.signal_stop(deadline)
    for tracker, deadline in trackers:
        tracker.close(max(0.0, deadline - time.monotonic()))


def _after_fork_in_child() -> None:
    for tracker in list(_alive):
        tracker.after_fork()


atexit.register(_close_all)
in_every_child(_after_fork_in_child)
