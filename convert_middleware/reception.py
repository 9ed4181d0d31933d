"""Who comes: what a request begins with, from its cookies, its browser and what the process remembers.

It puts together what others know, each in its own way: who is counted, what cookies say, what Convert's own
script counted. It neither records nor sends anything.
"""

from __future__ import annotations

import threading
from secrets import token_hex
from typing import TYPE_CHECKING

from convert_middleware.browser import VISITOR_COOKIE, fields_of, read_state
from convert_middleware.cookie import find
from convert_middleware.hooks import Announcer, BrowserPartsIgnored, VisitorWithdrew, visitor_hash
from convert_middleware.page import Loaded
from convert_middleware.visitor import Visitor, unchecked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from convert_middleware.admission import Admission
    from convert_middleware.credentials import Credentials
    from convert_middleware.delivery import Ledger
    from convert_middleware.memory import Memory
    from convert_middleware.writer import Writer


class Reception:
    """Receives visitors.

    Args:
        admission: Decides who is counted.
        credentials: Reads cookies and tokens.
        memory: What the process remembers.
        ledger: What it owes.
        writer: Whom to tell of a visitor who withdraws, and who knows of those that did.
        announcer: Whom to tell of what is odd.
        clock: Returns seconds since the epoch.
        wake: Has delivery look for what a visitor withdrew.
        reads_browser: Whether the cookie of Convert's own script is heeded.
    """

    def __init__(
        self,
        admission: Admission,
        credentials: Credentials,
        memory: Memory,
        ledger: Ledger,
        writer: Writer,
        announcer: Announcer,
        clock: Callable[[], float],
        wake: Callable[[], None],
        *,
        reads_browser: bool,
    ) -> None:
        self._admission = admission
        self._credentials = credentials
        self._memory = memory
        self._ledger = ledger
        self._writer = writer
        self._announcer = announcer
        self._clock = clock
        self._wake = wake
        self._reads_browser = reads_browser
        self._odd = 0
        self.after_fork()

    def after_fork(self) -> None:
        """Begin in a forked child with a lock nobody holds."""
        self._lock = threading.RLock()  # reentrant, for a signal handler that asks for stats while it is held

    def odd(self) -> int:
        """Return in how many requests the cookie of Convert's own script was odd in parts."""
        with self._lock:
            return self._odd

    def meet(
        self, name: bytes, method: str, path: str, query: bytes, headers: Iterable[tuple[bytes, bytes]]
    ) -> Loaded:
        """Return what a request begins with.

        Args:
            name: Of the visitor's cookie.
            method: The request's method; ``"GET"`` for a WebSocket.
            path: Its path, percent-decoded.
            query: Its query string as it came.
            headers: Its headers.
        """
        fields = fields_of(headers)
        header = fields.get(b"cookie", b"")
        cookies = find(header, name)
        reason = self._admission.excluded(method, path, query, fields)
        if reason is None:
            loaded = self.load(cookies)
            if self._reads_browser and VISITOR_COOKIE in header:  # told by Convert's own script
                return self._with_browser(loaded, find(header, VISITOR_COOKIE))
            return loaded
        if not (reason.denies and cookies):
            return Loaded(self.load(cookies).visitor, excluded=True)
        for visitor, _ in self._credentials.read_cookies(cookies, self._clock()):
            self._withdraw(visitor)
        return Loaded(self.load(()).visitor, excluded=True, withdrawn=True)

    def load(self, cookies: Sequence[bytes]) -> Loaded:
        """Return what cookies describe.

        Args:
            cookies: The values of those with our name.
        """
        now = self._clock()
        found = self._credentials.read_cookies(cookies, now)
        if self._writer.anybody_withdrew:
            # A cookie that outlived its deletion is nobody's: who withdrew and agrees again is somebody new.
            found = [each for each in found if not self._writer.withdrew(each[0].visitor_id)]
        if not found:
            return Loaded(Visitor(token_hex(16), int(now)), known=False)
        visitor, stale = found[0]
        if len(found) > 1:
            for other, _ in found:  # under each id there may be what no cookie tells
                visitor = visitor.merge(self._memory.complete(other, None, now)[0])
            stale = any(old for _, old in found) or visitor not in [each for each, _ in found]
        complete, text = self._memory.complete(visitor, cookies[0] if len(cookies) == 1 else None, now)
        stale = stale or (complete is not visitor and complete != visitor)
        return unchecked(Loaded, (complete, stale, False, False, text, True))

    def resume(self, token: str) -> Loaded:
        """Return what somebody begins with who comes with a token.

        Raises:
            TokenError: It is no valid token.
        """
        now = self._clock()
        visitor, excluded = self._credentials.read_token(token, now)
        if excluded:
            return Loaded(visitor, excluded=True)
        visitor, seen = self._memory.complete(visitor, None, now)
        return Loaded(visitor, excluded=self._writer.withdrew(visitor.visitor_id), text=seen)

    def forget(self, visitor: Visitor) -> None:
        """Drop what the process remembers of a visitor, and what it owes."""
        self._memory.forget(visitor)
        self._ledger.forget(visitor.visitor_id)

    def _withdraw(self, visitor: Visitor) -> None:
        """Drop everything of a visitor who was counted and denies it now."""
        self.forget(visitor)
        if self._writer.withdraw(visitor.visitor_id, self._clock()):
            self._announcer.announce(VisitorWithdrew(visitor=visitor_hash(visitor.visitor_id)))
            self._wake()

    def _with_browser(self, loaded: Loaded, cookies: Sequence[bytes]) -> Loaded:
        """Return it with what Convert's own script counted."""
        state = read_state(cookies)
        if state.odd:
            with self._lock:
                self._odd += 1
            self._announcer.announce(BrowserPartsIgnored(parts=state.odd))
        visitor = loaded.visitor.with_browser(state.exposures, state.goals)
        return loaded if visitor is loaded.visitor else loaded._replace(visitor=visitor, text=None)
