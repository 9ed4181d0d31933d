"""What a worker says of its work: a plain line now and then, or the same as JSON."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from convert_middleware.cli.outbox import facts_of
from convert_middleware.cli.output import age, number_of, printable, public, say, say_json
from convert_middleware.delivery.upkeep import open_upkeep
from convert_middleware.errors import ConvertError
from convert_middleware.hooks import HitRetried

if TYPE_CHECKING:
    from collections.abc import Callable

    from convert_middleware.delivery import Counts
    from convert_middleware.hooks import Event

_OUT_OF_REACH: Final = "the outbox cannot be read"


class Report:
    """Reports on a worker.

    Args:
        outbox: URL of the outbox.
        as_json: Whether to write JSON.
    """

    def __init__(self, outbox: str, *, as_json: bool) -> None:
        self._outbox = outbox
        self._as_json = as_json
        self._retried = 0
        self._delivered = 0  # when last told
        self._told_at = self._started_at = time.monotonic()

    def note(self, event: Event) -> None:
        """Count what no account has; a hook."""
        if isinstance(event, HitRetried):
            self._retried += 1

    def start(self, endpoint: str, sender: object) -> None:
        """Say what the worker is about to do."""
        where, to, how = public(self._outbox), printable(endpoint), printable(str(sender))
        if self._as_json:
            say_json(
                {"event": "started", "time": time.time(), "outbox": where, "endpoint": to, "sender": how}
            )
        else:
            say(f"{_clock()} started: from {where} to {to}, sender {how}")

    def end(self, counts: Counts) -> None:
        """Say that the end is near."""
        if self._as_json:
            say_json({"event": "ending", "time": time.time(), "in_flight": counts.in_flight})
        else:
            under_way = number_of("hit", counts.in_flight)
            say(f"{_clock()} ending: {under_way} under way; another signal ends it at once")

    async def tell_every(self, seconds: float, counts: Callable[[], Counts]) -> None:
        """Report until cancelled."""
        task = asyncio.current_task()
        while not (task and task.cancelling()):  # a client that is interrupted may keep that to itself
            await asyncio.sleep(seconds)
            await self.tell(counts(), "report")

    async def tell(self, counts: Counts, event: str) -> None:
        """Report what was done since the start, and what is left in the outbox."""
        now = time.monotonic()
        span = now - (self._started_at if event == "stopped" else self._told_at)
        rate = (counts.delivered - (0 if event == "stopped" else self._delivered)) / max(span, 1e-3)
        self._told_at, self._delivered = now, counts.delivered
        left = await self._left()
        if self._as_json:
            say_json(
                {
                    "event": event,
                    "time": time.time(),
                    "seconds": round(span, 3),
                    "delivered": counts.delivered,
                    "per_second": round(rate, 1),
                    "retried": self._retried,
                    "dropped": counts.dropped,
                    "dead": counts.dead,
                    "in_flight": counts.in_flight,
                    "outbox": left,
                }
            )
            return
        done = [
            f"delivered {counts.delivered} ({rate:.1f}/s)",
            f"retried {self._retried}",
            f"dropped {sum(counts.dropped.values())}",
            f"dead {counts.dead}",
        ]
        say(f"{_clock()} {event}: {', '.join(done)}; {_in_words(left)}")

    async def _left(self) -> dict[str, Any] | None:
        # Opened anew each time: the file may be another one by now.
        try:
            upkeep = open_upkeep(self._outbox)
            try:
                return facts_of(await upkeep.status(), time.time())
            finally:
                await upkeep.close()
        except ConvertError:
            return None


def _in_words(left: dict[str, Any] | None) -> str:
    if left is None:
        return _OUT_OF_REACH
    oldest = "" if left["oldest_age"] is None else f", the oldest for {age(left['oldest_age'])}"
    return f"outbox: {left['waiting']} waiting{oldest}, {left['in_flight']} in flight, {left['dead']} dead"


def _clock() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
