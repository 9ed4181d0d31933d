"""The tracker: the one place that joins the parts. One per process serves every door.

It decides nothing that a part could decide: it reads cookies through the codec, keeps what no cookie could
carry in its memory, and leaves news to the writer and hits to delivery.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
import weakref
from collections import Counter
from dataclasses import dataclass
from secrets import token_hex
from typing import TYPE_CHECKING, Final

from convert_middleware.admission import Admission
from convert_middleware.browser import VISITOR_COOKIE, fields_of, read_state
from convert_middleware.composer import Composer
from convert_middleware.cookie import CookieCodec, RejectedError, Rejection, find
from convert_middleware.delivery import Delivery, Ledger, Policy, open_outbox, shared_ledger_of
from convert_middleware.delivery.forks import HERE, begin_anew, in_every_child
from convert_middleware.delivery.senders.choose import make_sender
from convert_middleware.errors import SettingsError, TokenError
from convert_middleware.hooks import (
    Announcer,
    BrowserPartsIgnored,
    CookieRejected,
    StateEvicted,
    VisitorWithdrew,
    visitor_hash,
)
from convert_middleware.memory import Memory
from convert_middleware.page import Loaded, Page
from convert_middleware.recorder import Recorder
from convert_middleware.settings import Settings
from convert_middleware.visitor import News, Visitor, unchecked
from convert_middleware.wire import MAX_URL
from convert_middleware.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from convert_middleware.delivery import Counts

_TO_URL: Final = str.maketrans("+/", "-_")  # a token may stand in a URL
_FROM_URL: Final = str.maketrans("-_", "+/")


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
        self._cookies = CookieCodec(settings.keys, settings.cookie.max_age)
        self.cookie_attributes = settings.cookie.attributes(False), settings.cookie.attributes(True)
        self._tokens = CookieCodec(settings.keys, settings.cookie.max_age, purpose="token")
        # Of visitors who are not counted, and so must not be where their token is resumed.
        self._idle_tokens = CookieCodec(settings.keys, settings.cookie.max_age, purpose="idle token")
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
        self._reads_browser = settings.browser_state == "read"
        endpoint = settings.endpoint.replace("{project_id}", str(self.project_id))
        self._memory = Memory()
        self._lock = threading.RLock()
        self._refused = self._odd = 0
        self._told: Counts | None = None  # of a drain or the end before; told again only if it changed
        self._rejected: Counter[str] = Counter()
        repeat = settings.on_ambiguous == "retry"
        outbox = open_outbox(settings.outbox, self.announcer, clock, repeat=repeat)
        self._ledger = Ledger()
        limit = MAX_URL - 1 - len(f"{endpoint}?")
        shared = shared_ledger_of(outbox)
        self._shares_claims = shared is not None
        composer = Composer(self.customer_id, self.project_id, limit, outbox, self.announcer)
        self._writer = Writer(
            composer.compose,
            self._ledger,
            outbox,
            self.announcer,
            shared,
        )
        self._delivery = delivery(
            outbox,
            make_sender(settings.sender, settings.endpoint, self.project_id, soon=settings.deliver),
            Policy(on_ambiguous=settings.on_ambiguous),
            self.announcer,
            clock,
            self._writer,
            settings.deliver,
        )
        # A tracker that nobody closes leaves no thread behind; at exit _close_all() waits for delivery.
        weakref.finalize(self, _let_go, self._delivery, settings.drain_timeout).atexit = False
        _alive.add(self)

    # --- for the application --------------------------------------------------------------------------

    def stats(self) -> Stats:
        """Return a consistent account of all hits."""
        counts = self._delivery.counts()
        with self._lock:
            return Stats(
                counts.accepted,
                counts.delivered,
                counts.waiting,
                counts.in_flight,
                counts.dead,
                counts.dropped,
                self._refused,
                dict(self._rejected),
                self._odd,
                self._admission.counts(),
            )

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until everything is delivered or given up; return whether that was reached.

        Args:
            timeout: Seconds to wait at most.
        """
        done = self._delivery.flush(timeout)
        self.announcer.force_flush(timeout)
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
        now = self._clock()
        try:
            text = token.translate(_FROM_URL).encode()
            try:
                visitor, _ = self._tokens.read(text, now)
            except RejectedError as error:
                if error.reason != Rejection.SIGNATURE:
                    raise
                idle, _ = self._idle_tokens.read(text, now)
                return Recorder(Page(self, lambda: Loaded(idle, excluded=True), shown=True))
        except RejectedError as error:
            raise TokenError(error.reason) from None
        except (AttributeError, TypeError, UnicodeEncodeError):
            raise TokenError(f"{type(token).__name__} is no text") from None
        visitor, seen = self._memory.complete(visitor, None, now)
        loaded = Loaded(visitor, excluded=self.withdrew(visitor), text=seen)
        return Recorder(Page(self, lambda: loaded, shown=True))

    # --- for the doors --------------------------------------------------------------------------------

    def start(self) -> None:
        """Start delivery ahead of the first hit."""
        self._delivery.start()

    def signal_stop(self, deadline: float) -> None:
        """Have delivery end by ``deadline`` of the monotonic clock; does not wait."""
        self._delivery.signal_stop(deadline)

    def after_fork(self) -> None:
        """Begin in a forked child with a lock nobody holds; another thread may have held it in the parent."""
        self._lock = threading.RLock()
        self._told = None
        self._memory.after_fork()
        self._ledger.after_fork()
        self._writer.after_fork()
        self._admission.after_fork()

    def drain(self) -> bool:
        """Deliver what is left and end the thread; a later hit starts it again."""
        clean = self._delivery.drain(self.settings.drain_timeout)
        self._say_goodbye()
        return clean

    def meet(
        self, name: bytes, method: str, path: str, query: bytes, headers: Iterable[tuple[bytes, bytes]]
    ) -> Loaded:
        """Return what a request begins with.

        Args:
            name: Of the visitor's cookie.
            method: The request's method; ``"GET"`` for a WebSocket.
            path: Its path, percent-decoded.
            query: Its query string as it came.
            headers: Its headers.
        """
        fields = fields_of(headers)
        header = fields.get(b"cookie", b"")
        cookies = find(header, name)
        reason = self._admission.excluded(method, path, query, fields)
        if reason is None:
            visitor, stale, text = self._load(cookies)
            if self._reads_browser and VISITOR_COOKIE in header:  # told by Convert's own script
                state = read_state(find(header, VISITOR_COOKIE))
                seen = visitor
                visitor = visitor.with_browser(state.exposures, state.goals)
                text = text if visitor is seen else None
                if state.odd:
                    self._note_odd(state.odd)
            return unchecked(Loaded, (visitor, stale, False, False, text))
        if not (reason.denies and cookies):
            return Loaded(self.load(cookies)[0], excluded=True)
        for visitor, _ in self._read_cookies(cookies, self._clock()):
            self._withdraw(visitor)
        return Loaded(self.load(())[0], excluded=True, withdrawn=True)

    def load(self, cookies: Sequence[bytes]) -> tuple[Visitor, bool]:
        """Return the visitor that these cookies describe, and whether the cookie should be written anew."""
        return self._load(cookies)[:2]

    def _load(self, cookies: Sequence[bytes]) -> tuple[Visitor, bool, bytes | None]:
        """Do what :meth:`load` does, and return also a cookie that holds just this state, if there is one."""
        now = self._clock()
        found = self._read_cookies(cookies, now)
        if self._writer.anybody_withdrew:
            # A cookie that outlived its deletion is nobody's: who withdrew and agrees again is somebody new.
            found = [each for each in found if not self.withdrew(each[0])]
        if not found:
            return Visitor(token_hex(16), int(now)), False, None
        visitor, stale = found[0]
        if len(found) > 1:
            for other, _ in found[1:]:
                visitor = visitor.merge(other)
            stale = any(old for _, old in found) or visitor not in [each for each, _ in found]
        complete, text = self._memory.complete(visitor, cookies[0] if len(cookies) == 1 else None, now)
        return complete, stale or (complete is not visitor and complete != visitor), text

    def write_cookie(self, visitor: Visitor) -> tuple[bytes, int]:
        """Return the value of the visitor's cookie and its remaining life in seconds."""
        return self.seal(visitor)[:2]

    def seal(self, visitor: Visitor) -> tuple[bytes, int, bool]:
        """Do what :meth:`write_cookie` does, and return also whether the cookie holds the whole state."""
        options, now = self.settings.cookie, int(self._clock())
        issued_at = now if options.sliding else visitor.issued_at
        text, evicted = self._cookies.write(visitor, issued_at)
        if evicted is not None:
            self.announcer.announce(
                StateEvicted(
                    visitor=visitor_hash(visitor.visitor_id),
                    transactions=evicted.transactions,
                    experiments=evicted.experiments,
                    goals=evicted.goals,
                )
            )
        return text, max(1, issued_at + options.max_age - now), evicted is None

    # --- for the pages --------------------------------------------------------------------------------

    def now(self) -> int:
        """Return seconds since the epoch."""
        return int(self._clock())

    def write_token(self, visitor: Visitor, *, excluded: bool = False) -> str:
        """Return signed text that :meth:`resume` accepts."""
        codec = self._idle_tokens if excluded else self._tokens
        return codec.write(visitor, int(self._clock()))[0].decode().translate(_TO_URL)

    def forget(self, visitor: Visitor) -> None:
        """Drop what the process remembers of a visitor."""
        self._memory.forget(visitor)
        self._ledger.forget(visitor.visitor_id)

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

    def _withdraw(self, visitor: Visitor) -> None:
        """Drop everything of a visitor who was counted and denies it now."""
        self.forget(visitor)
        if self._writer.withdraw(visitor.visitor_id, self._clock()):
            self.announcer.announce(VisitorWithdrew(visitor=visitor_hash(visitor.visitor_id)))
            self._delivery.wake()

    def _read_cookies(self, cookies: Iterable[bytes], now: float) -> list[tuple[Visitor, bool]]:
        """Return the state in each that is valid, and whether an old key had signed it; count the others."""
        found: list[tuple[Visitor, bool]] = []
        for text in cookies:
            try:
                found.append(self._cookies.read(text, now))
            except RejectedError as error:
                with self._lock:
                    self._rejected[error.reason] += 1
                self.announcer.announce(CookieRejected(reason=error.reason))
        return found

    def _note_odd(self, parts: int) -> None:
        with self._lock:
            self._odd += 1
        self.announcer.announce(BrowserPartsIgnored(parts=parts))

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
