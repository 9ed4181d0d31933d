"""One run: chaos for some seconds, quiet until everything is sent, and the reckoning.

The reckoning goes by the server's own log and by what visitors were answered. What the processes tell of
themselves is only held against it.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, fields
from random import Random
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tests.chaos.collector import DEAD, DOUBT, REFUSED, TAKEN, Collector
from tests.chaos.crowd import Crowd, Recorded, Visitors
from tests.chaos.pulse import since
from tests.chaos.stores import Left, Store, left_in, opened, status_of

if TYPE_CHECKING:
    from tests.chaos.told import Told

YOUNG: Final = 0.1  # seconds before it is killed in which a process may lose what it recorded
_DYING: Final = 0.02  # seconds in which a process that was killed may still do something
_QUIET: Final = 60.0  # seconds that sending the rest may take
_ENOUGH: Final = 200  # hits without which a run says little
_LONGEST: Final = 5  # times as long as asked for a busy machine may take for them
CROWDS: Final = {
    "sqlite": {"sites": 1, "processes": 4, "workers": 0},
    "redis": {"sites": 2, "processes": 2, "workers": 2},
}


class Death(NamedTuple):
    """When a process was killed, and since when it had 0.1 s to run; both on the monotonic clock."""

    at: float
    since: float


_NEVER: Final = Death(math.inf, math.inf)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What came of a run; ``recorded`` is the sum of the seven that follow it.

    Attributes:
        seed: Of the dice.
        kills: Processes that were killed.
        recorded: Hits whose page was answered 200.
        delivered: The server answered 200.
        dead: The server answered that it never takes them.
        ambiguous: The server reset or stalled; dropped, because they may have been counted.
        interrupted: Held by a process when it was killed, and not seen by the server or refused.
        young: Recorded at most 0.1 s before their process was killed, and gone. A visitor may read an answer
            after that.
        late: The same, and earlier than that, but the machine was so busy that a thread of that process which
            does next to nothing did not get to run for 0.1 s either.
        missing: Gone without any of these excuses.
        twice: Sent again although the server may have counted them.
        left: Still waiting in the outbox at the end.
        counted: Hits that a survivor counts as interrupted, also those the server has seen.
        retried: Attempts that the server refused.
        untold: Ends of hits in the server's log which no process told, beyond those of interrupted hits.
        invented: Ends of hits that processes told, beyond those in the server's log.
        oldest: Milliseconds before the kill that the oldest of the young and late was recorded.
        traces: What is known of the missing.
    """

    seed: int
    kills: int
    recorded: int
    delivered: int
    dead: int
    ambiguous: int
    interrupted: int
    young: int
    late: int
    missing: int
    twice: int
    left: int
    counted: int
    retried: int
    untold: int
    invented: int
    oldest: int
    traces: tuple[str, ...] = ()

    @property
    def right(self) -> bool:
        """Tell whether nothing was lost or counted twice, and the accounts are true."""
        return not (self.missing or self.twice or self.left or self.untold or self.invented)


def run(seed: int, kind: str, *, seconds: float, patience: float) -> Figures:
    """Let chaos loose.

    Args:
        seed: Of the dice.
        kind: Of the outbox: "sqlite" or "redis".
        seconds: How long there is load, at least.
        patience: See :class:`~tests.chaos.collector.Collector`.
    """
    dice = Random(seed)
    with opened(kind) as store, Collector(Random(dice.random()), patience) as server:
        with Crowd(store.url, server.endpoint, **CROWDS[kind]) as crowd:
            with Visitors(crowd.addresses()) as visitors:
                start = time.monotonic()
                held: set[int] = set()  # by some process when one was killed, so perhaps by that one
                while (passed := time.monotonic() - start) < seconds or (
                    len(visitors.log) < _ENOUGH and passed < _LONGEST * seconds
                ):
                    time.sleep(dice.uniform(0.2, 1.2))  # load goes on meanwhile, as long as the dice say
                    if crowd.kill_one(dice):
                        time.sleep(_DYING)  # nothing tells when it has done its last
                        held |= store.held()
                    crowd.tend()
            server.calm()
            left = _quiet(store)
            crowd.stop()
            told = crowd.told()
        deaths = {pid: Death(at, since(told.beats[pid], at, YOUNG)) for pid, at in crowd.dead.items()}
        return reckon(seed, visitors.log, deaths, server.log(), left, left_in(store), told, held, kind=kind)


def _quiet(store: Store) -> int:
    """Wait until nothing waits, and return how many hits do nevertheless."""
    deadline = time.monotonic() + _QUIET
    while (waiting := status_of(store).waiting) and time.monotonic() < deadline:
        time.sleep(0.05)  # what other processes do cannot be waited for otherwise
    return waiting


def reckon(
    seed: int,
    recorded: list[Recorded],
    killed: dict[int, Death],
    log: dict[int, list[str]],
    waiting: int,
    left: Left,
    told: Told,
    held: set[int],
    *,
    kind: str,
) -> Figures:
    """Say of each hit what became of it."""
    lasts = {number: done[-1] for number, done in log.items()}
    fates = (TAKEN, DEAD, DOUBT, "left", "young", "late", "missing")
    fate: dict[str, list[Recorded]] = {name: [] for name in fates}
    in_doubt = set(left.in_doubt)
    for each in recorded:
        last = lasts.get(each.number, REFUSED)
        if last != REFUSED:
            fate[last].append(each)
        elif each.number in in_doubt:
            fate["left"].append(each)
        elif each.number in log:
            fate["missing"].append(each)
        else:
            death = killed.get(each.pid, _NEVER)
            young, late = each.at >= death.at - YOUNG, each.at >= death.since
            fate["young" if young else "late" if late else "missing"].append(each)
    ends = {
        "delivered": sum(last == TAKEN for last in lasts.values()),
        "dead": sum(last == DEAD for last in lasts.values()),
        "ambiguous": sum(last == DOUBT for last in lasts.values()),
    }
    # Survivors took over some hits before the end, and told only how many: of those held at a death.
    taken_over = [each for each in fate["missing"] if each.number in held][: told.ends["interrupted"]]
    fate["missing"] = [each for each in fate["missing"] if each not in taken_over]
    fate["left"] += taken_over
    gaps = {name: number - told.ends[name] for name, number in ends.items()}
    # Who is killed between an end and telling of it leaves the hit in doubt. Reports of workers come late.
    excused = sum(lasts.get(number, REFUSED) != REFUSED for number in in_doubt)
    excused += told.ends["interrupted"] - len(taken_over)
    untold = max(0, sum(gap for gap in gaps.values() if gap > 0) - excused) if kind == "sqlite" else 0
    return Figures(
        seed=seed,
        kills=len(killed),
        recorded=len(recorded),
        delivered=len(fate[TAKEN]),
        dead=len(fate[DEAD]),
        ambiguous=len(fate[DOUBT]),
        interrupted=len(fate["left"]),
        young=len(fate["young"]),
        late=len(fate["late"]),
        missing=len(fate["missing"]),
        twice=sum(any(each != REFUSED for each in done[:-1]) for done in log.values()),
        left=waiting,
        counted=left.interrupted + told.ends["interrupted"],
        retried=sum(done.count(REFUSED) for done in log.values()),
        untold=untold,
        invented=sum(-gap for gap in gaps.values() if gap < 0),
        oldest=round(
            1000 * max((killed[each.pid].at - each.at for each in fate["young"] + fate["late"]), default=0)
        ),
        traces=tuple(
            f"{each.number}: killed {1000 * (killed.get(each.pid, _NEVER).at - each.at):.0f} ms later, "
            f"server {log.get(each.number)}"
            for each in fate["missing"]
        ),
    )


def table(figures: list[Figures]) -> str:
    """Return a line for each run, and one for all."""
    names = [field.name for field in fields(Figures)][:-1]  # traces are no figures
    rows: list[list[Any]] = [[getattr(each, name) for name in names] for each in figures]
    total = [
        "all",
        *[sum(column) for column in list(zip(*rows, strict=True))[1:-1]],
        max(r[-1] for r in rows),
    ]
    texts = [[str(cell) for cell in row] for row in (names, *rows, total)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in texts
    )
