"""The worker: takes hits from the outbox, has them sent, and does what the policy decides.

It lives in one event loop and knows nothing of threads, processes or the site. While the server is down one
hit at a time probes it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Protocol

from convert_middleware.delivery.health import Health
from convert_middleware.delivery.losses import Losses
from convert_middleware.delivery.outbox import NOTHING_DUE
from convert_middleware.delivery.policy import MAX_WAITED, Action, Outcome, Policy, Result
from convert_middleware.errors import ConvertError
from convert_middleware.hooks import Announcer, HitDead, HitDelivered, HitRetried

if TYPE_CHECKING:
    from convert_middleware.delivery.entry import Entry
    from convert_middleware.delivery.outbox import MemoryOutbox
    from convert_middleware.delivery.senders import Sender

LANES: Final = 16  # requests under way at once
TICK: Final = 0.005  # seconds in which hits gather before the worker looks at them
SIGN_OF_LIFE: Final = 10.0  # seconds in which an outbox that outlives the process hears of the worker
_STEP: Final = 1.0  # seconds by which a clock is set back before anybody minds
_PORTION: Final = 64  # times that hits too old to be sent are taken one after the other
_FIRST: Final = 0.05  # seconds in which more hits follow the first; nothing is kept while a sender is made
_PAUSE: Final = 1.0  # seconds until a sender that could not be opened is tried again; doubled each time
_MAX_PAUSE: Final = 60.0  # seconds
HURRIED: Final = 0.25  # seconds; the longest wait between attempts when somebody waits for the end


class Source(Protocol):
    """Where hits come from that are not in the outbox yet."""

    def pending(self) -> int:
        """Return how many hits, about, only :meth:`bring` can offer to the outbox."""

    def gather(self) -> None:
        """Offer to the outbox what can be offered at once; called from any thread."""

    async def bring(self) -> None:
        """Offer everything; called in the worker's loop."""

    def finish(self) -> None:
        """Offer everything at once, because the end is near; called from any thread."""

    def withdrew(self, visitor: str, accepted_at: float) -> bool:
        """Tell whether a hit is of a visitor who has withdrawn consent since it was accepted."""


class Worker:
    """Empties an outbox.

    Args:
        outbox: Where hits wait.
        make_sender: Returns a new way for them to leave; it is opened and closed here.
        policy: What to do after an attempt.
        announcer: Whom to tell.
        clock: Returns seconds since the epoch.
        look_every: Seconds after which it looks, unasked, for what other processes left in a durable outbox,
            and for what was dropped.
        source: Where hits come from that are not in the outbox yet.
        deliver: Whether to send; otherwise hits are brought to safety, for another process to send.
        dice: Returns random numbers from 0 to 1, for jitter.
        losses: What tells of hits that are dropped, should it know of earlier ones.
    """

    def __init__(
        self,
        outbox: MemoryOutbox,
        make_sender: Callable[[], Sender],
        policy: Policy,
        announcer: Announcer,
        clock: Callable[[], float],
        *,
        look_every: float = SIGN_OF_LIFE,
        source: Source | None = None,
        deliver: bool = True,
        dice: Callable[[], float] = random.random,
        losses: Losses | None = None,
    ) -> None:
        self._outbox = outbox
        self._make_sender = make_sender
        self._sender: Sender | None = None  # once it is open
        self._open_at = 0.0  # of time.monotonic(); not tried before
        self._pause = _PAUSE
        self._policy = policy
        self._announcer = announcer
        self._clock = clock
        self._look_every = look_every
        self._source = source
        self._deliver = deliver
        self._dice = dice
        self._losses = losses or Losses(outbox, announcer)
        self._lanes: set[asyncio.Task[None]] = set()
        self._ready: dict[int, Entry] = {}  # by identity: their lanes have not begun
        self._health = Health(policy, announcer, dice)
        self._last = 0.0  # when the clock was last looked at
        self._retried = False  # whether what was taken last had been tried before
        self._wake = asyncio.Event()
        self._deadline: float | None = None  # of time.monotonic(); set when the end is near
        self.sleeping = False  # whether a new hit should call wake()
        self.on_empty: Callable[[int], None] = _ignore  # told how many hits had been accepted by then
        # Lanes that ask for a hit while the outbox is being asked for another one are served together.
        self._serving = asyncio.Lock()
        self._askers = 0
        self._served: deque[Entry | None] = deque()

    def wake(self) -> None:
        """Look at the outbox now; to be called in the worker's loop."""
        self._wake.set()

    def probe(self) -> None:
        """Try the server at once even if it is down; to be called in the worker's loop."""
        self._health.probe_at = self._open_at = 0.0
        self._wake.set()

    def stop(self, deadline: float) -> None:
        """End when the outbox is empty or, at the latest, at ``deadline`` of the monotonic clock."""
        self._deadline = deadline
        self._health.longest = HURRIED
        self.probe()

    async def open(self) -> None:
        """Make the sender and open it; whatever that raises is raised."""
        sender = self._make_sender()
        await sender.open()
        self._sender = sender

    async def run(self) -> None:
        """Deliver until stopped."""
        try:
            if self._outbox.durable and self._deadline is None:
                await self._keep()
                await asyncio.sleep(_FIRST)
            while True:
                await self._keep()
                # Only now, because it takes long and may fail: what has come is as safe as it can be.
                if self._deliver and self._sender is None and time.monotonic() >= self._open_at:
                    await self._try_to_open()
                    continue
                await asyncio.sleep(0)  # a store that held us up may have kept us from hearing of the end
                await self._fill()
                if self._idle() and self._deadline is not None:
                    await self._bring()  # what was lost just now goes back before the end
                    return
                if self._over():
                    return
                await self._sleep()
        finally:
            lanes = list(self._lanes)
            for lane in lanes:
                lane.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)
            for entry in (*self._ready.values(), *filter(None, self._served)):
                await self._outbox.retry(entry, self._now())
            await self._outbox.leave(self._now())
            self._losses.tell()
            if self._sender is not None:
                await self._sender.close()

    async def _try_to_open(self) -> None:
        """Open the sender, later if it fails now and hits are safe meanwhile."""
        try:
            await self.open()
        except Exception as error:
            if not self._outbox.durable:
                raise
            said = error if isinstance(error, ConvertError) else type(error).__name__
            message = "No hit can be sent, and all are kept meanwhile: %s"
            self._announcer.log(logging.ERROR, "sender", message, said)
            self._open_at = time.monotonic() + min(self._pause, self._health.longest)
            self._pause = min(_MAX_PAUSE, 2 * self._pause)

    async def _keep(self) -> None:
        """Have what came brought to safety."""
        await self._bring()
        await self._outbox.keep(self._now())
        self._losses.tell()

    async def _bring(self) -> None:
        """Have the source bring what it has, as far as there is time."""
        if self._source is not None:
            left = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._source.bring()

    def _idle(self) -> bool:
        """Tell whether nothing is left to do, also to who waits for that."""
        counts = self._outbox.counts()
        left = counts.waiting + counts.in_flight if self._deliver else self._outbox.in_memory()
        if left or self._lanes or (self._source is not None and self._source.pending()):
            return False
        self.on_empty(counts.accepted)
        return True

    def _now(self) -> float:
        """Return the time; after a clock was set back, nothing planned by it waits the longer for that."""
        now, last = self._clock(), self._last
        self._last = now
        if now < last - _STEP:
            self._health.move(now - last)
            self._outbox.hurry()
        return now

    def _over(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline

    def _room(self) -> int:
        """Return how many more lanes may be opened."""
        if self._sender is None or self._over():
            return 0
        return (1 if self._health.down else LANES) - len(self._lanes)

    async def _fill(self) -> None:
        """Open as many lanes as there is work and room for."""
        while (room := self._room()) > 0 and (entries := await self._take(room)):
            for entry in entries:
                self._ready[id(entry)] = entry
                lane = asyncio.ensure_future(self._drive(entry))
                self._lanes.add(lane)
                lane.add_done_callback(self._lane_ended)

    def _lane_ended(self, lane: asyncio.Task[None]) -> None:
        self._lanes.discard(lane)
        self._wake.set()

    async def _drive(self, first: Entry) -> None:
        sender = self._sender
        assert sender is not None  # noqa: S101 - for the type checker
        entry: Entry | None = self._ready.pop(id(first))
        while entry is not None:
            failed = self._health.failed
            try:
                outcome = await sender.send(entry.text)
            except asyncio.CancelledError as error:
                lane = asyncio.current_task()
                if lane is None or lane.cancelling():
                    raise
                outcome = Outcome(Result.AMBIGUOUS, type(error).__name__)  # the sender's own, not ours
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a sender may raise anything; the hit is settled
                outcome = Outcome(Result.AMBIGUOUS, type(error).__name__)
            await self._settle(entry, outcome, news=failed == self._health.failed)
            entry = None if self._health.down else await self._next()

    async def _next(self) -> Entry | None:
        """Take the next hit that may be tried now; lanes that ask at the same time are served at once."""
        if not self._outbox.durable:
            entries = await self._take(1)
            return entries[0] if entries else None
        self._askers += 1
        async with self._serving:
            if not self._served:
                await asyncio.sleep(0)  # lanes whose answers arrived together all ask by now
                asked, self._askers = self._askers, 0
                entries = await self._take(asked)
                self._served.extend(entries)
                self._served.extend([None] * (asked - len(entries)))
            return self._served.popleft()

    async def _take(self, number: int) -> list[Entry]:
        """Take hits that may be tried now, at most so many."""
        now = self._now()
        if self._health.down:
            if now < self._health.probe_at:
                return []
            number = 1
        for _ in range(_PORTION):
            entries = await self._due(number, now)
            fresh = []
            for entry in entries:
                if self._withdrew(entry):
                    await self._withdraw(entry)
                elif self._policy.expired(now - entry.accepted_at - self._waited(entry, now)):
                    await self._drop(entry, "expired", "waited too long")
                else:
                    fresh.append(entry)
            if fresh or not entries or self._over():
                return fresh
            await asyncio.sleep(0)  # answers are read, new hits stored, and whoever forks gets a turn
        return []

    async def _due(self, number: int, now: float) -> list[Entry]:
        """Take what is due, after retries what is fresh, so that hits which always fail hold up no others.

        A server that is down is probed with what is fresh as long as there is any.
        """
        entries: list[Entry] = []
        if self._health.down or self._retried:
            entries = await self._outbox.take(number, NOTHING_DUE)
        entries = entries or await self._outbox.take(number, now)
        self._retried = any(entry.attempts for entry in entries)
        return entries

    async def _settle(self, entry: Entry, outcome: Outcome, *, news: bool) -> None:
        now = self._now()
        entry.attempts += 1
        age = now - entry.accepted_at
        self._health.note(outcome, entry.attempts, now, news=news)
        waited = self._waited(entry, now)
        decision = self._policy.decide(outcome, entry.attempts, age - waited, self._dice())
        announcer = self._announcer
        if decision.action not in (Action.SETTLE, Action.DROP) and self._withdrew(entry):
            await self._withdraw(entry)
        elif decision.action is Action.SETTLE:
            await self._outbox.settle(entry)
            if announcer.active:
                announcer.announce(HitDelivered(attempts=entry.attempts, age=age))
        elif decision.action is Action.RETRY:
            delay = min(decision.delay, self._health.longest)
            if self._outbox.durable:  # another process may be the next to send it, and obeys the server too
                delay = max(delay, outcome.retry_after or 0.0)
            entry.waited = min(MAX_WAITED, waited + (outcome.retry_after or 0.0))
            await self._outbox.retry(entry, now + delay)
            announcer.announce(HitRetried(reason=decision.reason, attempts=entry.attempts, delay=delay))
        elif decision.action is Action.BURY:
            await self._outbox.bury(entry, decision.reason)
            announcer.announce(HitDead(reason=decision.reason))
            announcer.log(logging.ERROR, "dead", "A hit was refused for good: %s.", decision.reason)
        else:
            await self._drop(entry, decision.reason, outcome.reason)

    def _waited(self, entry: Entry, now: float) -> float:
        """Return how much of a hit's life the server asked for, of that hit or of all."""
        return min(MAX_WAITED, max(entry.waited, self._health.waited(entry.accepted_at, now)))

    def _withdrew(self, entry: Entry) -> bool:
        return self._source is not None and self._source.withdrew(entry.visitor, entry.accepted_at)

    async def _withdraw(self, entry: Entry) -> None:
        await self._outbox.drop(entry, "withdrawn")
        self._losses.tell()

    async def _drop(self, entry: Entry, reason: str, why: str) -> None:
        await self._outbox.drop(entry, reason)
        self._losses.tell()
        kind = f"dropped {reason}"
        self._announcer.log(logging.WARNING, kind, "A hit was dropped: %s (%s).", reason, why)

    async def _sleep(self) -> None:
        """Wait for a hit, the end of a lane, the time of the next attempt or the deadline."""
        self._wake.clear()
        # From here on whoever brings a hit wakes us, if that is of use.
        self.sleeping = self._room() > 0 or self._outbox.durable or not self._deliver
        # While lanes are busy the outbox may overflow, which it cannot say itself.
        limits = [self._look_every] if self._outbox.durable or self._lanes else []
        if self._room() > 0:
            if self._source is not None:
                self._source.gather()
            due = await self._outbox.next_due()
            if due is not None:
                limits.append(max(due, self._health.probe_at if self._health.down else due) - self._now())
        # What came since it was last kept is in memory only, which matters most while the server is down.
        keep = await self._outbox.next_keep()
        if keep is not None:
            limits.append(keep - self._now())
        if self._source is not None and (self._source.pending() or self._outbox.lost):
            limits.append(0.0)
        if self._deliver and self._sender is None:
            limits.append(self._open_at - time.monotonic())
        if self._deadline is not None:
            limits.append(self._deadline - time.monotonic())
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, min(limits)) if limits else None):
                await self._wake.wait()
        self.sleeping = False
        if self._deadline is None:
            await asyncio.sleep(TICK)


def _ignore(_accepted: int) -> None:
    """Stand in for who waits for an empty outbox."""
