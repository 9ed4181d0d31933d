"""Malformed Cookie headers through the real readers: none may fail, none may take long.

    python -m benchmarks.fuzz_cookies [--headers NUMBER] [--seed NUMBER]

Each header holds our cookie, Convert's own ``_conv_v`` and some of others', and is then bent. The time is CPU
time of this thread for one header, and a slow one is read again, so that a busy machine does not show as a
slow reader.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections import Counter
from dataclasses import dataclass, field
from itertools import islice
from random import Random
from statistics import mean, quantiles
from time import thread_time_ns
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from benchmarks.visitors import LARGE, SMALL, USUAL, visitors
from convert_middleware import Settings, Tracker
from convert_middleware.browser import VISITOR_COOKIE, BrowserState, read_state
from convert_middleware.cookie import find

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Bend = Callable[[Random, bytes], bytes]
    Reader = Callable[[bytes], object]

NAME: Final = b"convert_visitor"
NOW: Final = 1_750_000_000  # the same headers in every run
LIMIT: Final = 10_000.0  # microseconds for one header; the largest are cut at 64 KiB
SLOW: Final = 2_000.0  # microseconds; a slower header is read again, and the shortest time counts
ATTEMPTS: Final = 5

_OTHERS: Final = (
    b"a=1", b"=", b"nameless", b'cart={"items": [1, 2]}', b'q="unclosed', b"a=b=c", b"\x00=\xff", b"", b"  ",
    b"_conv_s=si:1*sh:1*pv:2", b"_conv_vv=1", b"convert_visitor_2=1", "名=値".encode(),
)  # fmt: skip
_PIECES: Final = (
    b"{", b"}", b"}}", b"-", b".", b"*", b":", b"exp:", b"exp:{", b"11.{v.12-g.{33.1}}", b"v.", b"g.{", b"%",
    b"%7B", b"%00", b"=", b";", b'"', b"1.", b"9" * 30, b"\x00", b"\xff", b" ", b"\t", b",", NAME + b"=",
    b"_conv_v=",
)  # fmt: skip


def flip_a_byte(dice: Random, header: bytes) -> bytes:
    place = dice.randrange(len(header))
    return header[:place] + bytes([header[place] ^ 1 << dice.randrange(8)]) + header[place + 1 :]


def cut(dice: Random, header: bytes) -> bytes:
    return header[: dice.randrange(len(header) + 1)]


def drop_a_part(dice: Random, header: bytes) -> bytes:
    first, last = sorted(dice.choices(range(len(header) + 1), k=2))
    return header[:first] + header[last:]


def repeat_a_part(dice: Random, header: bytes) -> bytes:
    first = dice.randrange(len(header))
    last = min(len(header), first + dice.choice((1, 4, 20, 200)))
    return header[:last] + header[first:last] * dice.choice((1, 10, 100, 1000)) + header[last:]


def insert_a_piece(dice: Random, header: bytes) -> bytes:
    place = dice.randrange(len(header) + 1)
    return header[:place] + dice.choice(_PIECES) * dice.choice((1, 2, 50, 4000)) + header[place:]


def replace_by_noise(dice: Random, header: bytes) -> bytes:
    first, last = sorted(dice.choices(range(len(header) + 1), k=2))
    return header[:first] + dice.randbytes(last - first) + header[last:]


def make_huge(dice: Random, header: bytes) -> bytes:
    return (header + b"; ") * (dice.choice((2**16, 2**18)) // len(header))


_BENDS: Final[tuple[Bend, ...]] = (
    flip_a_byte, cut, drop_a_part, repeat_a_part, insert_a_piece, replace_by_noise
)  # fmt: skip
_RARE: Final = 0.002  # of the headers are huge; servers refuse them before they come here


def headers(tracker: Tracker, seed: int) -> Iterator[bytes]:
    """Yield headers without end, each whole once and bent one to six times."""
    dice = Random(seed)
    signed = [
        tracker.write_cookie(visitor)[0]
        for size in (SMALL, USUAL, LARGE)
        for visitor in visitors(size, 20, NOW, seed)
    ]
    while True:
        cookies = [NAME + b"=" + dice.choice(signed), VISITOR_COOKIE + b"=" + _browsers_own(dice)]
        cookies += dice.choices(_OTHERS, k=dice.randrange(5))
        dice.shuffle(cookies)
        header = b"; ".join(cookies)
        for _ in range(dice.randint(1, 6)):
            header = dice.choice(_BENDS)(dice, header) or b";"
        yield make_huge(dice, header) if dice.random() < _RARE else header


def _browsers_own(dice: Random) -> bytes:
    entries = []
    for _ in range(dice.randrange(30)):
        goals = "-".join([f"{dice.randrange(10**8, 10**9)}.1" for _ in range(dice.randrange(6))])
        entries.append(f"{dice.randrange(10**8, 10**10)}.{{v.{dice.randrange(10**9, 10**10)}-g.{{{goals}}}}}")
    text = f"vi:1*sc:2*cs:1731589274*fs:1731589274*pv:4*exp:{{{'-'.join(entries)}}}*seg:{{100246.1}}"
    return (quote(text, safe="*.-") if dice.random() < 0.5 else text).encode()


@dataclass
class Account:
    """What reading the headers took and gave."""

    times: list[float] = field(default_factory=list)  # microseconds, in the order of the headers
    failed: list[tuple[int, str]] = field(default_factory=list)

    def read(self, number: int, header: bytes, reader: Reader) -> object:
        """Return what a reader makes of a header; take note of its time and of what it raises."""
        taken: list[float] = []
        result: object = None
        while not taken or (min(taken) > SLOW and len(taken) < ATTEMPTS):
            begun = thread_time_ns()
            try:
                result = reader(header)
            except Exception as error:  # noqa: BLE001 - this is what is looked for
                self.failed.append((number, repr(error)))
                break
            finally:
                taken.append((thread_time_ns() - begun) / 1000)
        self.times.append(min(taken))
        return result

    def line(self, what: str) -> str:
        """Return the figures as a line of text."""
        cuts = quantiles(self.times, n=1000)
        return (
            f"{what:<24} mean {mean(self.times):8.1f} µs   p99 {cuts[989]:8.1f} µs   "
            f"p99.9 {cuts[998]:8.1f} µs   max {max(self.times):8.1f} µs   failed {len(self.failed)}"
        )


def main(arguments: list[str]) -> int:
    """Read headers and print figures; return 1 if one failed or took too long."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz_cookies", description=__doc__)
    parser.add_argument("--headers", type=int, default=100_000, metavar="NUMBER")
    parser.add_argument("--seed", type=int, default=1, metavar="NUMBER")
    options = parser.parse_args(arguments)
    tracker = Tracker(
        Settings(project_id=1, customer_id=2, secret_key="only for this benchmark"), clock=lambda: NOW
    )
    ours, browsers, found = Account(), Account(), Counter[str]()
    # The tracker that reads did not write the cookies, so that it has to verify each.
    reading = Tracker(tracker.settings, clock=lambda: NOW)
    gc.collect()
    gc.disable()
    for number, header in enumerate(islice(headers(tracker, options.seed), options.headers)):
        ours.read(number, header, lambda header: reading.load(find(header, NAME)))
        state = browsers.read(number, header, lambda header: read_state(find(header, VISITOR_COOKIE)))
        found["odd"] += isinstance(state, BrowserState) and state.odd > 0
        found["told something"] += isinstance(state, BrowserState) and bool(state.exposures)
        found["huge"] += len(header) >= 2**16
    print(ours.line("find, verify, merge ours"))
    print(browsers.line("find and read _conv_v"))
    print(
        f"{options.headers} headers, seed {options.seed}; {found['huge']} of 64 KiB and more; "
        f"_conv_v told something in {found['told something']}, held something odd in {found['odd']}"
    )
    rejected = {str(reason): count for reason, count in reading.stats().rejected_cookies.items()}
    print(f"our cookies that were rejected, by reason, each reading counted: {rejected}")
    for number, error in (ours.failed + browsers.failed)[:10]:
        print(f"header {number} failed: {error}", file=sys.stderr)
    worst = max(*ours.times, *browsers.times)
    if worst > LIMIT:
        print(f"a header took {worst:.0f} µs; {LIMIT:.0f} is the limit", file=sys.stderr)
    return int(bool(ours.failed or browsers.failed) or worst > LIMIT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
