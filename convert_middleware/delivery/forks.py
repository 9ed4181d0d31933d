"""What stands still while a process forks, and what begins anew in the child.

The latter also where C code forked past Python's hooks.
To ask for the number of the process is a system call, too dear for every request. Linux empties a page of
memory in the child if told so (madvise(2), MADV_WIPEONFORK), and to look at that costs next to nothing.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_WIPE_ON_FORK: Final = 18  # since Linux 4.14; the module mmap has no name for it


class _Number:
    """Stands in for the page where there is none."""

    def __init__(self) -> None:
        self._pid = 0

    def __getitem__(self, place: int) -> int:
        return int(os.getpid() == self._pid)

    def __setitem__(self, place: int, value: int) -> None:
        self._pid = os.getpid()


def _make_mark() -> mmap.mmap | _Number:
    if sys.platform == "linux":
        with suppress(OSError):
            page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            page.madvise(_WIPE_ON_FORK)
            return page
    return _Number()


HERE: Final = _make_mark()  # HERE[0] is 0 where begin_anew() is due
_pid = 0
_children: Final[list[Callable[[], None]]] = []
_holds: Final[list[Callable[[], Iterable[Callable[[], None]]]]] = []


def in_every_child(begin: Callable[[], None]) -> None:
    """Have something called in every forked child, in the order of these calls."""
    _children.append(begin)


def around_every_fork(hold: Callable[[], Iterable[Callable[[], None]]]) -> None:
    """Have something stand still while Python forks.

    Args:
        hold: Called before; yields what lets it go on in the parent. Who called last is held first.
    """
    _holds.append(hold)


def notice_fork() -> None:
    """Begin anew in a child of a fork that Python did not see; for where a system call does not matter."""
    if not HERE[0] or os.getpid() != _pid:
        begin_anew()


def begin_anew() -> None:
    """Call what is to be called in a forked child."""
    _mark()
    _forking.let_go.clear()  # whatever it would let go on is the parent's
    for begin in _children:
        begin()


class _Forking(threading.local):
    """What goes on again when this thread has forked."""

    def __init__(self) -> None:
        self.let_go: list[Callable[[], None]] = []


_forking: Final = _Forking()


def _hold() -> None:
    for hold in reversed(_holds):
        for let_go in hold():
            _forking.let_go.append(let_go)


def _let_go() -> None:
    while _forking.let_go:
        _forking.let_go.pop()()


def _mark() -> None:
    global _pid
    HERE[0], _pid = 1, os.getpid()


_mark()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_hold, after_in_parent=_let_go, after_in_child=begin_anew)
