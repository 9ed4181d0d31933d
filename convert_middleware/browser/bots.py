"""Known bots, by the list that the package ``crawler-user-agents`` keeps up.

The one module that knows that package. Its list holds what bots call themselves and guesses nothing, so that
no visitor with an odd browser is taken for one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from convert_middleware.browser.exclusion import IsBot

AGENT_READ: Final = 512  # bytes; the longest that the list gives as an example has 285
AGENTS_KEPT: Final = 2048  # answers; browsers' User-Agents hardly differ since they hide their minor versions


@lru_cache(maxsize=1)
def load_bots() -> IsBot | None:
    """Return who tells known bots by their User-Agent; None where the extra ``bots`` is not installed.

    The first call reads the list, which takes about 0.1 s. Then a User-Agent costs 0.2 ms when it is first
    seen, 1.5 ms where somebody makes it as costly as can be, and next to nothing while its answer is kept.
    """
    try:
        from crawleruseragents import is_crawler  # type: ignore[import-untyped]  # it has no type hints
    except ImportError:
        return None

    @lru_cache(maxsize=AGENTS_KEPT)
    def known(agent: bytes) -> bool:
        return bool(is_crawler(agent.decode("latin-1")))

    def is_bot(agent: bytes) -> bool:
        return known(agent[:AGENT_READ])

    is_bot(b"")  # so that the patterns are compiled now and not in a request
    return is_bot
