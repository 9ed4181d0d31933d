"""Visitor ⇄ signed cookie: the payload, the signature and the headers."""

from convert_middleware.cookie.codec import CLOCK_SKEW, CookieCodec, check_keys, state_of, text_of
from convert_middleware.cookie.header import MAX_AGE, CookieOptions, find, set_cookie
from convert_middleware.cookie.payload import BUDGET, Evicted, RejectedError, Rejection

__all__ = [
    "BUDGET",
    "CLOCK_SKEW",
    "MAX_AGE",
    "CookieCodec",
    "CookieOptions",
    "Evicted",
    "RejectedError",
    "Rejection",
    "check_keys",
    "find",
    "set_cookie",
    "state_of",
    "text_of",
]
