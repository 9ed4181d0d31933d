"""Hits waiting in Redis: what was accepted survives the process and its machine, and many machines share it.

Fresh hits stand in streams with one consumer group: each is held by one consumer until it is settled, and
others take over what a dead one held. Every step is one script, so it happens as a whole or not at all; of a
step whose answer got lost the next one asks first. The outbox stores opaque text. Redis 6.2 or Valkey.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from convert_middleware.delivery.entry import Entry
from convert_middleware.delivery.outbox import (
    MAX_BYTES,
    MAX_HITS,
    NOT_OWED,
    Counts,
    check_limits,
    check_seconds,
)
from convert_middleware.delivery.receipt import Receipt
from convert_middleware.delivery.redis_link import RedisLink
from convert_middleware.errors import OutboxError, UnansweredError

LEASE: Final = 30.0  # seconds without a sign of life after which a process counts as dead
MAX_DEAD: Final = 10_000  # dead letters kept, about
PREFIX: Final = "convert"
_PAGE: Final = 500  # hits looked at in one step; Redis serves nobody else meanwhile
POLL: Final = 1.0  # seconds between two looks for what others left
KEYS: Final = (
    "hits:0", "hits:1", "hits:2", "again", "retries:0", "retries:1", "retries:2",
    "dead", "totals", "ceded", "alive", "steps",
)  # fmt: skip


@dataclass(slots=True)
class _Step:
    """A step that was asked for and not answered yet."""

    name: str
    number: int
    ended: list[str]  # keys it tells of
    buried: int  # dead letters it tells of
    entries: list[Entry] = field(default_factory=list)


class RedisOutbox:
    """The outbox of all processes that name the same Redis and prefix.

    Whatever fails raises :class:`~convert_middleware.errors.OutboxError`; if Redis did it nevertheless, the
    next call finds out and does not do it again.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``, as redis-py takes it.
        prefix: Begins every key.
        max_hits: How many may wait, those of all processes together.
        max_bytes: How many bytes of text may wait.
        max_dead: How many dead letters are kept, about; the oldest go.
        lease: Seconds without a sign of life after which a process counts as dead.
        repeat_expired: Whether to send again what a dead process held, although it may have left.
        clock: Returns seconds since the epoch.

    Raises:
        SettingsError: It is no such URL, a limit is impossible, or the ``redis`` package is missing.
    """

    batch = 200  # hits in one step; Redis serves nobody else meanwhile
    durable = True  # what it holds outlives the process

    def __init__(
        self,
        url: str,
        *,
        prefix: str = PREFIX,
        max_hits: int = MAX_HITS,
        max_bytes: int = MAX_BYTES,
        max_dead: int = MAX_DEAD,
        lease: float = LEASE,
        repeat_expired: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_limits(max_hits=max_hits, max_bytes=max_bytes, max_dead=max_dead)
        check_seconds(lease=lease)
        self.link = RedisLink(url, prefix)
        self._script = self.link.script("redis_streams.lua", KEYS)
        self._lease = lease
        self._repeat_expired = repeat_expired
        self._limits = {
            "max_hits": max_hits,
            "max_bytes": max_bytes,
            "max_dead": max_dead,
            "lease": round(lease * 1000),
            "repeat": repeat_expired,
        }
        self._clock = clock
        self.after_fork()

    def after_fork(self) -> None:
        """Begin with an account of one's own: in a forked child what was here belongs to the parent."""
        self.link.after_fork()
        self._me = f"{os.getpid():x}-{secrets.token_hex(6)}"
        self._lock: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None
        self._steps = 0
        self._gave_up = False  # a step, which may still be on its way to Redis
        self._unsure: _Step | None = None
        self._epoch = ""  # of the data in Redis; others begin with another one when it was flushed
        self._made: int | None = None  # how often a part of the data was lost
        self._made_anew = False  # and what remains is still to be counted
        self._reclaimed = 0.0  # of the monotonic clock
        self._flying: dict[int, tuple[str, str, Entry]] = {}  # by identity: epoch, key, hit
        self._found: list[Entry] = []  # handed out in an answer that got lost
        self._done: dict[int, Entry] = {}  # put, or put back, in a step that seemed to fail
        self._ended: list[str] = []
        self._buried: list[list[str]] = []
        self._gained = self._ceded = self._ceded_in_all = self._waiting = self._delivered = self._dead = 0
        self._dropped: Counter[str] = Counter()
        self._shown = Counts()
        self.lost: deque[object] = deque()  # receipts of hits that were not counted and never will be

    async def put(self, entries: list[Entry]) -> None:
        """See :class:`~convert_middleware.delivery.outbox.Outbox`."""
        async with self._alone():
            await self._find_out()
            new = self._not_done(entries)
            if new:
                await self._step("put", new, put=[[*_row(entry), _text_of(entry.receipt)] for entry in new])

    async def take(self, number: int, now: float) -> list[Entry]:
        """See :class:`~convert_middleware.delivery.outbox.Outbox`."""
        async with self._alone():
            if not self._found:
                look = time.monotonic() - self._reclaimed > self._lease / 6
                await self._step("take", now=repr(now), number=number, reclaim=look)
                if look:
                    self._reclaimed = time.monotonic()
            taken, self._found = self._found[:number], self._found[number:]
            return taken

    def let_go(self, entry: Entry) -> bool:
        """Forget a hit in flight that waits elsewhere; return False if it may wait here nevertheless."""
        if self.unsure_of([entry]):
            return False
        self._land(entry)
        self._gained -= 1
        self._show()
        return True

    def unsure_of(self, entries: list[Entry]) -> list[Entry]:
        """Return those that may be kept although putting them, or putting them back, failed."""
        step = self._unsure
        kept = self._done.keys() | {id(entry) for entry in (step.entries if step else ())}
        return [entry for entry in entries if id(entry) in kept]

    async def settle(self, entry: Entry) -> None:
        """See :class:`~convert_middleware.delivery.outbox.Outbox`."""
        self._land(entry)
        self._delivered += 1
        self._show()

    async def bury(self, entry: Entry, reason: str) -> None:
        """Keep a hit in flight as a dead letter, which people may have sent again."""
        self._land(entry)
        self._dead += 1
        text, worth, accepted_at, attempts, _waited = _row(entry)
        letter = [text, worth, accepted_at, attempts, _text_of(entry.receipt), reason, repr(self._clock())]
        self._buried.append(letter)
        self._show()

    async def drop(self, entry: Entry, reason: str) -> None:
        """See :class:`~convert_middleware.delivery.outbox.Outbox`."""
        self._land(entry)
        self._dropped[reason] += 1
        if reason not in NOT_OWED and entry.receipt is not None:
            self.lost.append(entry.receipt)
        self._show()

    async def retry(self, entry: Entry, due: float) -> None:
        """See :class:`~convert_middleware.delivery.outbox.Outbox`."""
        async with self._alone():
            await self._put_back([(entry, due)])

    async def purge(self, visitor: str) -> int:
        """See :class:`~convert_middleware.delivery.outbox.Outbox`; the visitor's dead letters go, too."""
        gone = 0
        for place in ("fresh", "retries"):
            for worth in range(3):
                gone += await self._purge(visitor, place, worth)
        await self._purge(visitor, "dead", 0)
        return gone

    async def _purge(self, visitor: str, place: str, worth: int) -> int:
        gone = 0
        after: str | None = ""
        while after is not None:
            async with self._alone():
                answer = await self._step(
                    "purge", place=place, worth=worth, after=after, number=_PAGE, visitor=f'["{visitor}",'
                )
            gone += answer.get("dropped", 0)
            after = answer.get("after") if answer else after  # a page whose answer got lost is read again
        return gone

    async def release(self) -> None:
        """Give back what was taken and certainly did not leave."""
        async with self._alone():
            await self._put_back([(entry, entry.accepted_at) for *_, entry in self._flying.values()])

    async def commit(self) -> None:
        """Write what ended since the last batch."""
        if self._ended or self._buried:
            async with self._alone():
                await self._step("commit")

    async def renew(self, now: float) -> None:
        """Give a sign of life; whatever is written is one too."""
        del now
        async with self._alone():
            await self._step("commit")

    async def next_due(self) -> float | None:
        """See :class:`~convert_middleware.delivery.outbox.Outbox`; with other processes never None."""
        async with self._alone():
            answer = await self._step("next")
        if answer.get("fresh") or self._found:
            return 0.0
        moments = [float(answer["due"])] if "due" in answer else []
        if answer["others"] > 0:  # somebody else may leave something at any time
            moments.append(self._clock() + POLL)
        return min(moments, default=None)

    def counts(self) -> Counts:
        """Return the account of this process: of what it accepted and took over, less what others took."""
        return self._shown

    async def close(self) -> None:
        """Write what ended and leave; what is still in flight may have left."""
        try:
            try:
                await self._release_found()
                if self._repeat_expired and self._flying:
                    await self.release()
            finally:
                for *_, entry in list(self._flying.values()):
                    await self.drop(entry, "interrupted")
            await self.commit()  # a step that may be repeated carries nothing
            async with self._alone():
                await self._step("leave", **({"bar": self._steps + 1} if self._gave_up else {}))
        finally:
            self._epoch = ""
            await self.link.close()

    async def _release_found(self) -> None:
        """Give back what an answer handed out that got lost, or that came when nobody waited for it."""
        async with self._alone():
            await self._find_out()
            found, self._found = self._found, []
            await self._put_back([(entry, entry.accepted_at) for entry in found])

    # Below, one step is made at a time.

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        if self._lock is None or self._lock[0] is not loop:  # a loop that crashed may have left it held
            self._lock = loop, asyncio.Lock()
        async with self._lock[1]:
            yield

    async def _step(
        self, name: str, entries: list[Entry] | None = None, /, **asked: object
    ) -> dict[str, Any]:
        """Make a step, once."""
        for last_try in (False, True):
            await self._find_out()
            if not self._epoch or self._made_anew:
                await self._open()
            step = self._begin(name, entries or [])
            try:
                answer = await self._ask(step, asked)
            except UnansweredError:
                # Often just a connection that was idle for too long; what happened is found out at once.
                if last_try:
                    raise
                if await self._find_out():
                    self._not_done(step.entries)
                    return {}
                continue
            self._apply(step, answer)
            return answer
        raise AssertionError  # pragma: no cover

    def _begin(self, name: str, entries: list[Entry]) -> _Step:
        if name == "next":  # it has no number, so nobody could tell whether it wrote anything
            return _Step(name, 0, [], 0, entries)
        self._steps += 1
        return _Step(name, self._steps, self._ended.copy(), len(self._buried), entries)

    async def _ask(self, step: _Step, asked: dict[str, object]) -> dict[str, Any]:
        ended: dict[str, list[str]] = {}
        for key in step.ended:
            stream, _, row = key.partition("/")
            ended.setdefault(stream, []).append(row)
        message = {
            **self._limits, **asked, "me": self._me, "ended": ended, "buried": self._buried[: step.buried]
        }  # fmt: skip
        if step.name not in ("next", "leave"):  # these may be repeated, and who left leaves no trace
            message["step"] = step.number
            self._unsure = step
        try:
            answer: dict[str, Any] = await self.link.run(self._script, step.name, message)
        except UnansweredError:
            raise
        except OutboxError:
            self._unsure = None  # Redis said no
            raise
        self._unsure = None
        return answer

    async def _open(self) -> None:
        message = {**self._limits, "me": self._me, "epoch": secrets.token_hex(8), "number": _PAGE}
        if self._made is not None:
            message["made"] = self._made
        answer = await self.link.run(self._script, "open", message)
        self._epoch, self._made, self._made_anew = answer["epoch"], answer["made"], False
        if "waits" in answer:
            self._note_ceded(answer["ceded"])
            self._dropped["store lost"] += self._waiting - answer["waits"]
            self._dropped = +self._dropped
            self._waiting = answer["waits"]
            self._show()

    async def _find_out(self) -> bool:
        """Ask whether the last step happened, if nobody knows; tell whether it did."""
        step = self._unsure
        if step is None:
            return False
        message = {**self._limits, "me": self._me, "step": step.number}
        answer = await self.link.run(self._script, "again", message)
        self._unsure = None
        if answer.get("unknown") or not answer.get("epoch"):
            self._gave_up = True
            return False
        self._apply(step, answer)
        self._done.update({id(entry): entry for entry in step.entries})
        return True

    def _not_done(self, entries: list[Entry]) -> list[Entry]:
        """Return those that no step which seemed to fail has dealt with."""
        return [entry for entry in entries if self._done.pop(id(entry), None) is None]

    async def _put_back(self, entries: list[tuple[Entry, float]]) -> None:
        """Let hits in flight wait again."""
        await self._find_out()
        due = {id(entry): due for entry, due in entries}
        back = []
        for entry in self._not_done([entry for entry, _ in entries]):
            epoch, key, _ = self._flying[id(entry)]
            text, worth, accepted_at, attempts, waited = _row(entry)
            hit: dict[str, object] = {
                "key": key, "due": repr(max(0.0, due[id(entry)])),
                "t": text, "w": worth, "a": accepted_at, "n": attempts, "d": waited,
                "r": _text_of(entry.receipt),
            }  # fmt: skip
            if epoch == self._epoch:
                stream, _, row = key.partition("/")
                hit |= {"stream": int(stream), "id": row}
            back.append(hit)
        if back:
            await self._step("back", [entry for entry, _ in entries], back=back)

    def _apply(self, step: _Step, answer: dict[str, Any]) -> None:
        """Carry over into the account what a step did."""
        if answer["epoch"] != self._epoch:
            self._lose_store(answer["epoch"])
            if not self._epoch:
                raise OutboxError(self.link.shown, step.name, "its data are gone")
        self._made_anew = self._made_anew or answer["made"] != self._made
        if step.name == "next":
            return
        del self._ended[: len(step.ended)], self._buried[: step.buried]
        self._note_ceded(answer["ceded"])
        self._waiting += answer["entered"] - answer["mine"]
        self._gained += answer["gained"]
        if step.name == "put":
            self._gained += len(step.entries)
        elif step.name == "back":
            for entry in step.entries:
                if self._flying.pop(id(entry), None) is None:
                    self._gained += 1  # given up meanwhile, and it waits nevertheless
        for reason, many in (
            ("withdrawn" if step.name == "purge" else "overflow", answer["dropped"]),
            ("interrupted", answer["interrupted"]),
            ("lease lost", len(answer["late"])),
        ):
            if many:
                self._dropped[reason] += many
        self.lost.extend(receipt for text in answer["sacrificed"] if (receipt := _receipt_of(text)))
        for key, *row in answer["hits"]:
            if row:
                text, worth, accepted_at, attempts, waited, receipt = row
                entry = Entry(text, int(worth), float(accepted_at), int(attempts), float(waited))
                entry.receipt = known = _receipt_of(receipt)
                entry.visitor = known.visitor_id if known else ""
                self._flying[id(entry)] = self._epoch, key, entry
                self._found.append(entry)
            else:  # nobody gave a sign of life for so long that somebody else took it over
                self._dropped["lease lost"] += 1
        self._show()

    def _note_ceded(self, in_all: int) -> None:
        """Take note of what others took of ours."""
        ceded, self._ceded_in_all = in_all - self._ceded_in_all, in_all
        self._ceded += ceded
        self._waiting -= ceded

    def _lose_store(self, epoch: str) -> None:
        """Count what waited in data that are gone as dropped, and begin with what is there now."""
        self._epoch = epoch
        self._made, self._made_anew = -1, True  # what is there nevertheless is counted
        self._ended.clear()
        self._ceded_in_all = 0
        if self._waiting:
            self._dropped["store lost"] += self._waiting
        self._waiting = 0
        self._show()

    def _land(self, entry: Entry) -> None:
        epoch, key, _ = self._flying.pop(id(entry))
        if epoch == self._epoch:
            self._ended.append(key)

    def _show(self) -> None:
        self._shown = Counts(
            self._gained - self._ceded,
            self._delivered,
            self._waiting,
            len(self._flying),
            self._dead,
            dict(self._dropped),
        )


def _row(entry: Entry) -> list[str]:
    """Return what Redis keeps of a hit; all text, so that no number loses a digit on its way."""
    return [
        entry.text, str(int(entry.worth)), repr(entry.accepted_at), str(entry.attempts), repr(entry.waited)
    ]  # fmt: skip


def _text_of(receipt: object) -> str:
    return receipt.to_text() if isinstance(receipt, Receipt) else ""


def _receipt_of(text: str) -> Receipt | None:
    try:
        return Receipt.from_text(text) if text else None
    except ValueError:  # of another version
        return None
