"""Why a request is not counted, as far as its headers, cookies and query say so.

It reads what browsers, Convert's marks and known bots say, each within bounds, and decides nothing about
consent. Whoever knows bots is handed in.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from convert_middleware.browser.request import RequestFacts

IsBot = Callable[[bytes], bool]  # whether a User-Agent is a known bot's

OPT_OUT_COOKIE: Final = b"_conv_prevent_tracking"

_GPC: Final = b"sec-gpc"
_DNT: Final = b"dnt"
_READ: Final = 256  # bytes of a header that are looked at; those that mean something have 40 at most
_QUERY_READ: Final = 8192  # bytes of a query string; servers take few longer ones
_CONVERT: Final = re.compile(
    rb"(?:^|&)(?:(?P<opt_out>(?:convert_disable|_conv_prevent_tracking)=true)(?![^&])"
    rb"|(?P<preview>convert_preview=[^&]|convert_action=convert_vpreview(?![^&])))"
)
# Header -> what a browser says in it that loads a page nobody looks at. Safari's "preview" is a thumbnail.
_AHEAD: Final = (
    (b"sec-purpose", frozenset({b"prefetch", b"prerender"})),
    (b"purpose", frozenset({b"prefetch", b"prerender", b"preview"})),
    (b"x-moz", frozenset({b"prefetch"})),
    (b"x-purpose", frozenset({b"prefetch", b"preview"})),
)
SIGNS: Final = frozenset({_GPC, _DNT, *[header for header, _ in _AHEAD]})  # headers that may exclude


class Exclusion(StrEnum):
    """Why a request is not counted; its value is what counters and events show."""

    OPT_OUT = "opt-out"
    GPC = "gpc"
    DNT = "dnt"
    PREVIEW = "preview"
    PRERENDER = "prerender"
    PREFETCH = "prefetch"
    BOT = "bot"
    RULE = "rule"  # of the site's own
    CONSENT_DENIED = "consent denied"
    CONSENT_UNKNOWN = "consent unknown"

    @property
    def denies(self) -> bool:
        """Whether the visitor denies consent by it, so that what is kept of them has to go."""
        return self in (Exclusion.GPC, Exclusion.DNT, Exclusion.CONSENT_DENIED)


def exclusion(
    request: RequestFacts, *, honour_gpc: bool = True, honour_dnt: bool = False, is_bot: IsBot | None = None
) -> Exclusion | None:
    """Return why a request is not counted, or None.

    What the visitor wants comes first, what costs most last.

    Args:
        request: The request.
        honour_gpc: Whether ``Sec-GPC: 1`` excludes (Global Privacy Control).
        honour_dnt: Whether ``DNT: 1`` excludes (Tracking Preference Expression).
        is_bot: Tells known bots by their User-Agent; None: nobody is one.
    """
    get = request.get
    if any(value == b"true" for value in request.cookies(OPT_OUT_COOKIE)):
        return Exclusion.OPT_OUT
    mark = _CONVERT.search(request.query[:_QUERY_READ]) if b"conv" in request.query else None
    if mark and mark["opt_out"]:
        return Exclusion.OPT_OUT
    if honour_gpc and b"1" in _words(get(_GPC)):
        return Exclusion.GPC
    if honour_dnt and b"1" in _words(get(_DNT)):
        return Exclusion.DNT
    if mark:
        return Exclusion.PREVIEW
    for header, ahead in _AHEAD:
        words = _words(get(header))
        if not ahead.isdisjoint(words):
            return Exclusion.PRERENDER if b"prerender" in words else Exclusion.PREFETCH
    if is_bot is not None:
        agent = get(b"user-agent")
        if agent and is_bot(agent):
            return Exclusion.BOT
    return None


def _words(value: bytes | None) -> list[bytes]:
    """Return the items and parameters of a header that is a list of tokens."""
    if not value:
        return []
    return [word.strip() for word in value[:_READ].lower().replace(b";", b",").split(b",")]
