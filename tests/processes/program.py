"""A program of its own with a tracker, with something that happens before the tracker is imported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.accounts import accounts_in
from tests.delivery.test_processes import START
from tests.discretion import assert_discreet

if TYPE_CHECKING:
    from tests.servers import TrackingServer

PATIENCE: Final = 30.0  # seconds a program gets to end


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended."""

    code: int
    out: str
    err: str


def ended(server: TrackingServer, script: str, *, early: str = "", endpoint: str = "") -> Ended:
    """Run a program to its end, with all it forked, and return how that was.

    Args:
        server: Where its hits go.
        script: What it does with ``tracker`` and ``reach(*goals)``.
        early: What it does before it imports the tracker.
        endpoint: Where its hits go instead.
    """
    text = "\n".join(
        [
            textwrap.dedent(early),
            f"ENDPOINT = {endpoint or server.endpoint!r}",
            START,
            textwrap.dedent(script),
        ]
    )
    with subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "ignore::DeprecationWarning", "-c", text],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            out, err = process.communicate(timeout=PATIENCE)  # ends when the last child has let go of them
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert_discreet([out, err])
    accounts_in(err)
    return Ended(process.returncode, out, err)


def ended_well(server: TrackingServer, script: str, *, early: str = "", endpoint: str = "") -> Ended:
    """Run a program that has to end without a complaint but those of our logger."""
    end = ended(server, script, early=early, endpoint=endpoint)
    assert end.code == 0, end.err
    foreign = [
        line
        for line in end.err.splitlines()
        if not line.startswith(("DEBUG ", "INFO ", "WARNING ", "ERROR "))
    ]
    assert not foreign, end.err
    return end
