"""How fast time passes for a process: where much else wants to run, slower than on the clock."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

BEAT: Final = 0.01  # seconds


def since(beats: Sequence[float], moment: float, seconds: float) -> float:
    """Return the moment from which on a process had ``seconds`` to run.

    Args:
        beats: When a thread of the process got to run that asked for it every ``BEAT`` seconds.
        moment: On the monotonic clock, as the beats are.
        seconds: As many as a process has on a machine with nothing else to do.
    """
    first = bisect_left(beats, moment) - round(seconds / BEAT)
    return min(moment - seconds, beats[first]) if first >= 0 else moment - seconds
