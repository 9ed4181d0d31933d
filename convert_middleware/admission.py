"""Which requests are counted: the site's rule first, then what the browser says, bots and consent.

One decision a request, made when somebody first asks for state, with its reason counted and announced. It
knows nothing of cookies' contents and of counting.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Awaitable, Coroutine
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from convert_middleware.browser import Consent, Exclusion, RequestFacts, decide, exclusion, load_bots
from convert_middleware.browser.exclusion import OPT_OUT_COOKIE, SIGNS
from convert_middleware.cookie import find
from convert_middleware.errors import SettingsError
from convert_middleware.hooks import RequestExcluded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from convert_middleware.browser import AskConsent, IsBot
    from convert_middleware.hooks import Announcer

    Fields = Mapping[bytes, bytes]

SLOW: Final = 0.05  # seconds; a consent callable runs while the visitor waits
_INSTALL: Final = "pip install 'convert-middleware[bots]'"


class Admission:
    """Decides whether a request is counted.

    Args:
        consent: The site's callable; None: nobody has to be asked.
        exclude: The site's own rule: whether a request is left out; None: none.
        honour_gpc: Whether ``Sec-GPC: 1`` counts as denied.
        honour_dnt: Whether ``DNT: 1`` does.
        exclude_bots: Whether known bots are left out; None: where the extra ``bots`` is installed.
        announcer: Whom to tell.
        timer: Returns seconds of a monotonic clock.

    Raises:
        SettingsError: Known bots are to be left out and nobody knows them.
    """

    def __init__(
        self,
        *,
        consent: AskConsent | None,
        exclude: Callable[[RequestFacts], object] | None,
        honour_gpc: bool,
        honour_dnt: bool,
        exclude_bots: bool | None,
        announcer: Announcer,
        timer: Callable[[], float],
    ) -> None:
        self._consent = consent
        self._exclude = exclude
        self._honour_gpc = honour_gpc
        self._honour_dnt = honour_dnt
        self._is_bot = None if exclude_bots is False else _who_knows_bots(must=exclude_bots is True)
        self._announcer = announcer
        self._timer = timer
        self._excluded: Counter[str] = Counter()
        self.after_fork()
        self._plain = consent is None and exclude is None  # only what the browser says matters
        # By what a visitor may withdraw on a page that records nothing: an answer, or one of these at "1".
        self.asks = consent is not None
        signals = (b"sec-gpc", honour_gpc), (b"dnt", honour_dnt)
        self.signals = frozenset(name for name, honoured in signals if honoured)

    def after_fork(self) -> None:
        """Begin in a forked child with a lock nobody holds."""
        self._lock = threading.RLock()  # reentrant, for a signal handler that asks for stats while it is held

    def excluded(self, method: str, path: str, query: bytes, fields: Fields) -> Exclusion | None:
        """Return why a request is not counted, or None; counted and announced.

        Args:
            method: Its method; ``"GET"`` for a WebSocket.
            path: Its path, percent-decoded.
            query: Its query string as it came.
            fields: Its headers by lower-case name.
        """
        # As most requests are: nothing in them could exclude them, and no bot made them.
        if (
            self._plain
            and SIGNS.isdisjoint(fields)
            and (b"cookie" not in fields or OPT_OUT_COOKIE not in fields[b"cookie"])
            and b"conv" not in query
        ):
            agent = fields.get(b"user-agent")
            if not agent or self._is_bot is None or not self._is_bot(agent):
                return None
        reason = self._reason(method, path, query, fields)
        if reason is not None:
            with self._lock:
                self._excluded[reason.value] += 1
            self._announcer.announce(RequestExcluded(reason=reason.value))
        return reason

    def counts(self) -> dict[str, int]:
        """Return how many requests were left out, by reason."""
        with self._lock:
            return dict(self._excluded)

    def _reason(self, method: str, path: str, query: bytes, fields: Fields) -> Exclusion | None:
        facts = RequestFacts(method=method, path=path, query=query, get=fields.get, find=find)
        if self._exclude is not None and self._leaves_out(facts):
            return Exclusion.RULE
        reason = exclusion(
            facts, honour_gpc=self._honour_gpc, honour_dnt=self._honour_dnt, is_bot=self._is_bot
        )
        return reason or self._refusal(facts)

    def _leaves_out(self, facts: RequestFacts) -> bool:
        assert self._exclude is not None  # noqa: S101 - for the type checker
        try:
            answer = self._exclude(facts)
            if not isinstance(answer, Awaitable):
                return bool(answer)
            problem = "is asynchronous; a plain function is needed"
            if isinstance(answer, Coroutine):
                answer.close()  # or Python warns that nobody awaited it
        except Exception as error:  # noqa: BLE001 - a site's callable may raise anything; the page goes on
            problem = f"raised {type(error).__name__}"
        self._announcer.log(logging.ERROR, "exclude", "exclude %s; the request is not counted.", problem)
        return True

    def _refusal(self, facts: RequestFacts) -> Exclusion | None:
        began = self._timer()
        consent, problem = decide(self._consent, facts)
        took = self._timer() - began
        if problem:
            self._announcer.log(logging.ERROR, "consent", "consent %s; that counts as denied.", problem)
        elif took > SLOW:
            self._announcer.log(
                logging.WARNING,
                "slow consent",
                "consent took %.0f ms, and the visitor waits for it.",
                took * 1000,
            )
        if consent is Consent.GRANTED:
            return None
        return Exclusion.CONSENT_DENIED if consent is Consent.DENIED else Exclusion.CONSENT_UNKNOWN


def _who_knows_bots(*, must: bool) -> IsBot | None:
    is_bot = load_bots()
    if is_bot is None and must:
        raise SettingsError("exclude_bots", f"needs a list of them: {_INSTALL}")
    if is_bot is None:
        _say_that_bots_are_counted()
    return is_bot


@lru_cache(maxsize=1)  # once a process, however many applications are made in it
def _say_that_bots_are_counted() -> None:
    logging.getLogger("convert_middleware").warning(
        "Known bots are counted, as no list of them is installed: %s, or set exclude_bots=False.", _INSTALL
    )
