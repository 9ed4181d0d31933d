"""Whether a visitor agreed to be counted, as the site's own callable says.

The site knows where its visitors' choice is kept; this module only makes an answer of whatever the callable
does. In doubt nobody agreed.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from enum import StrEnum
from typing import Final, Literal, NamedTuple

from convert_middleware.browser.request import RequestFacts


class Consent(StrEnum):
    """Whether a visitor agreed to be counted."""

    GRANTED = "granted"
    DENIED = "denied"
    UNKNOWN = "unknown"


Answer = Literal["granted", "denied", "unknown"] | bool | None
AskConsent = Callable[[RequestFacts], Answer]


class Decision(NamedTuple):
    """What follows from an answer.

    Attributes:
        consent: Whether the visitor agreed.
        problem: What was wrong with the callable, as the end of a sentence; empty: nothing. It repeats
            nothing of the request.
    """

    consent: Consent
    problem: str = ""


_GRANTED: Final = Decision(Consent.GRANTED)
_DENIED: Final = Decision(Consent.DENIED)
_UNKNOWN: Final = Decision(Consent.UNKNOWN)
_WORDS: Final = {"granted": _GRANTED, "denied": _DENIED, "unknown": _UNKNOWN}


def decide(ask: AskConsent | None, request: RequestFacts) -> Decision:
    """Return what a site's callable says of a request's visitor; never raises what is an error of its own.

    Args:
        ask: Returns "granted" or True, "denied" or False, "unknown" or None. One that raises or returns
            anything else denies. None: nobody has to be asked.
        request: The request.
    """
    if ask is None:
        return _GRANTED
    try:
        return _decision(ask(request))
    # What is no Exception is no error of the callable's: an interrupt, or gevent ending this greenlet.
    except Exception as error:  # noqa: BLE001 - a site's callable may raise anything, and that means no
        return Decision(Consent.DENIED, f"raised {type(error).__name__}")


def _decision(answer: object) -> Decision:
    if answer is True:
        return _GRANTED
    if answer is False:
        return _DENIED
    if answer is None:
        return _UNKNOWN
    if isinstance(answer, str):
        known = _WORDS.get(answer)
        return known or Decision(
            Consent.DENIED, "returned a text that is not 'granted', 'denied' or 'unknown'"
        )
    if isinstance(answer, Coroutine):
        answer.close()  # or Python warns that nobody awaited it
        return Decision(Consent.DENIED, "is asynchronous; a plain function is needed")
    return Decision(
        Consent.DENIED,
        f"returned {type(answer).__name__}; 'granted', 'denied', 'unknown', True, False or None is needed",
    )
