"""What visitors carry: the cookies and tokens of one tracker, written and read.

It knows for which purpose a text was signed and how long it lives, and counts what it rejects. It decides
nothing about who is counted; time is handed in.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Final

from convert_middleware.cookie import CookieCodec, RejectedError, Rejection
from convert_middleware.errors import TokenError
from convert_middleware.hooks import Announcer, CookieRejected, StateEvicted, visitor_hash

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from convert_middleware.cookie import CookieOptions
    from convert_middleware.visitor import Visitor

_TO_URL: Final = str.maketrans("+/", "-_")  # a token may stand in a URL
_FROM_URL: Final = str.maketrans("-_", "+/")


class Credentials:
    """Writes and reads cookies and tokens.

    Args:
        keys: Secret keys; the first one signs, all are accepted.
        options: The cookie's attributes; a token lives as long.
        announcer: Whom to tell.
    """

    def __init__(self, keys: Sequence[bytes], options: CookieOptions, announcer: Announcer) -> None:
        self._options = options
        self._announcer = announcer
        self._cookies = CookieCodec(keys, options.max_age)
        self._tokens = CookieCodec(keys, options.max_age, purpose="token")
        # Of visitors who are not counted, and so must not be where their token is resumed.
        self._idle_tokens = CookieCodec(keys, options.max_age, purpose="idle token")
        self._rejected: Counter[str] = Counter()
        self.after_fork()

    def after_fork(self) -> None:
        """Begin in a forked child with a lock nobody holds."""
        self._lock = threading.RLock()  # reentrant, for a signal handler that asks for stats while it is held

    def rejected(self) -> dict[str, int]:
        """Return how many cookies were no valid state, by reason."""
        with self._lock:
            return dict(self._rejected)

    def read_cookies(self, cookies: Iterable[bytes], now: float) -> list[tuple[Visitor, bool]]:
        """Return the state in each that is valid, and whether an old key had signed it; count the others.

        Args:
            cookies: Their values.
            now: Seconds since the epoch.
        """
        found: list[tuple[Visitor, bool]] = []
        for text in cookies:
            try:
                found.append(self._cookies.read(text, now))
            except RejectedError as error:
                with self._lock:
                    self._rejected[error.reason] += 1
                self._announcer.announce(CookieRejected(reason=error.reason))
        return found

    def write_cookie(self, visitor: Visitor, now: int) -> tuple[bytes, int, bool]:
        """Return a cookie's value, its remaining life in seconds, and whether it holds the whole state.

        Args:
            visitor: The state.
            now: Seconds since the epoch.
        """
        options = self._options
        issued_at = now if options.sliding else visitor.issued_at
        text, evicted = self._cookies.write(visitor, issued_at)
        if evicted is not None:
            self._announcer.announce(
                StateEvicted(
                    visitor=visitor_hash(visitor.visitor_id),
                    transactions=evicted.transactions,
                    experiments=evicted.experiments,
                    goals=evicted.goals,
                )
            )
        return text, max(1, issued_at + options.max_age - now), evicted is None

    def write_token(self, visitor: Visitor, now: int, *, excluded: bool) -> str:
        """Return signed text that :meth:`read_token` accepts.

        Args:
            visitor: The state.
            now: Seconds since the epoch, from which its life counts.
            excluded: Whether the visitor is not counted.
        """
        codec = self._idle_tokens if excluded else self._tokens
        return codec.write(visitor, now)[0].decode().translate(_TO_URL)

    def read_token(self, token: str, now: float) -> tuple[Visitor, bool]:
        """Return the state in a token, and whether the visitor was not counted.

        Args:
            token: What :meth:`write_token` returned.
            now: Seconds since the epoch.

        Raises:
            TokenError: It is no valid token.
        """
        try:
            text = token.translate(_FROM_URL).encode()
            try:
                return self._tokens.read(text, now)[0], False
            except RejectedError as error:
                if error.reason != Rejection.SIGNATURE:
                    raise
                return self._idle_tokens.read(text, now)[0], True
        except RejectedError as error:
            raise TokenError(error.reason) from None
        except (AttributeError, TypeError, UnicodeEncodeError):
            raise TokenError(f"{type(token).__name__} is no text") from None
