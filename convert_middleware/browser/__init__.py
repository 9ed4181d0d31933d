"""What the browser says: what its own script counted already, and whether this request may be counted."""

from convert_middleware.browser.bots import load_bots
from convert_middleware.browser.consent import Answer, AskConsent, Consent, Decision, decide
from convert_middleware.browser.exclusion import Exclusion, IsBot, exclusion
from convert_middleware.browser.request import RequestFacts, fields_of
from convert_middleware.browser.state import VISITOR_COOKIE, BrowserState, read_state

__all__ = [
    "VISITOR_COOKIE",
    "Answer",
    "AskConsent",
    "BrowserState",
    "Consent",
    "Decision",
    "Exclusion",
    "IsBot",
    "RequestFacts",
    "decide",
    "exclusion",
    "fields_of",
    "load_bots",
    "read_state",
]
