"""Real servers on loopback that misbehave on demand.

``with TrackingServer() as server:`` works alike in plain tests and in tests on any event loop: every server
runs in a thread with a loop of its own and is asked, never awaited.
"""

from tests.servers.behaviour import (
    EVERY_BEHAVIOUR,
    Behaviour,
    after,
    answer,
    answer_and_close,
    bot,
    broken_chunks,
    broken_head,
    captive_portal,
    close,
    drip,
    early_hints,
    endless,
    garbage,
    gzip_bomb,
    redirect,
    reset,
    reset_on_accept,
    set_cookie,
    stall,
    wrong_clock,
)
from tests.servers.listener import Seen, refused_port
from tests.servers.proxy import ForwardProxy
from tests.servers.tls import Authority
from tests.servers.tracking import TrackingServer

__all__ = [
    "EVERY_BEHAVIOUR",
    "Authority",
    "Behaviour",
    "ForwardProxy",
    "Seen",
    "TrackingServer",
    "after",
    "answer",
    "answer_and_close",
    "bot",
    "broken_chunks",
    "broken_head",
    "captive_portal",
    "close",
    "drip",
    "early_hints",
    "endless",
    "garbage",
    "gzip_bomb",
    "redirect",
    "refused_port",
    "reset",
    "reset_on_accept",
    "set_cookie",
    "stall",
    "wrong_clock",
]
