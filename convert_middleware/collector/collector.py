"""The collector itself: judges each request, keeps it, counts it, and tells what it knows.

It is plain Python that any thread may call; HTTP is the business of ``app``, ``tracking`` and ``events``.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from threading import RLock
from typing import TYPE_CHECKING, Any, Final

from convert_middleware import wire
from convert_middleware.collector.faults import Faults
from convert_middleware.collector.report import Pace, Statistics
from convert_middleware.collector.sentence import describe
from convert_middleware.collector.store import Outcome, Record, Store, at
from convert_middleware.errors import ArgumentError, SettingsError, WireError
from convert_middleware.model import identifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from convert_middleware.collector.sentence import Names
    from convert_middleware.model import Hit

OUR_AGENT: Final = "ConvertAgent/"
# What HTTP clients call themselves when nobody tells them otherwise (PROTOCOL, section 1, gap 8).
_CLIENT: Final = re.compile(
    r"""aiohttp|apache-httpclient|axios|curl|dart|faraday|go-http-client|got\b|guzzle|http[_.-]?client|
    httpie|httpx|hyper|insomnia|java\b|libcurl|libwww|lwp|mint|node|okhttp|php|postmanruntime|pycurl|pyreqwest|
    python|reqwest|requests|rest-client|ruby|scrapy|superagent|symfony|typhoeus|undici|urllib|ureq|wget""",
    re.IGNORECASE | re.VERBOSE,
)
ALL_OUTCOMES: Final[tuple[Outcome, ...]] = ("hit", "malformed", "bot")


def is_bot(user_agent: str) -> bool:
    """Return whether Convert would drop requests with this User-Agent as a bot's."""
    return not user_agent.startswith(OUR_AGENT) and (
        not user_agent.strip() or _CLIENT.match(user_agent) is not None
    )


class Collector:
    """Everything a stand-in for Convert knows.

    Args:
        store: Where requests are kept; what it holds already is counted again.
        names: Names for ids.
        clock: Seconds since 1970.

    Raises:
        SettingsError: The store holds what cannot be read.
    """

    def __init__(self, store: Store, names: Names, clock: Callable[[], float] = time.time) -> None:
        self.names = names
        self.faults = Faults()
        self.closing = False
        self._store = store
        self._clock = clock
        self._lock = RLock()
        self._start_anew()
        for number, (outcome, query) in enumerate(store.outcomes(), 1):
            try:
                if outcome == "hit":
                    self._statistics.add(wire.decode(f"?{query}"))
                else:
                    self._refused[outcome] += 1
            except WireError as error:
                reason = f"holds a hit (row {number}) that cannot be read any more: {error} Name a new file"
                raise SettingsError("database", reason) from error

    def _start_anew(self) -> None:
        self.epoch = secrets.token_hex(4)
        self._changes = 0
        self._statistics = Statistics()
        self._pace = Pace()
        self._refused = {"malformed": 0, "bot": 0}

    def take(
        self, path: str, query: str, headers: list[tuple[str, str]], project: str | None = None
    ) -> WireError | Record:
        """Judge, count and keep one request.

        Args:
            path: Its path.
            query: Its query string as received.
            headers: Its headers, names in lower case.
            project: The project named in the path, if one is.

        Returns:
            What is wrong with a malformed request; else the record, whose ``outcome`` is ``hit`` or ``bot``.
        """
        agent = next((value for name, value in headers if name == "user-agent"), "")
        outcome: Outcome = "hit"
        hit: Hit | None = None
        wrong: WireError | None = None
        content: dict[str, Any] | None = None
        if is_bot(agent):
            outcome = "bot"
        else:
            try:
                hit = wire.decode(f"?{query}")
                _check_project(hit, project)
                content = content_of(hit)
            except WireError as error:
                wrong, outcome, content = error, "malformed", error_json(error)
        with self._lock:
            milliseconds = int(self._clock() * 1000)
            self._pace.add(milliseconds // 1000)
            duplicate = False
            if outcome == "hit" and hit is not None:
                duplicate = self._statistics.add(hit)
            else:
                self._refused[outcome] += 1
            record = Record(
                id=self._store.last_id + 1,
                received_at=at(milliseconds),
                outcome=outcome,
                path=path,
                query=query,
                user_agent=agent,
                headers=tuple(headers),
                content=json.dumps(content, separators=(",", ":")) if content else None,
                duplicate=duplicate,
            )
            self._store.add(record)
            self._changes += 1
        return wrong or record

    @property
    def version(self) -> tuple[str, int, int]:
        """Differs whenever :meth:`summary` may tell something else."""
        return self.epoch, self._changes, self.faults.changes

    @property
    def last_id(self) -> int:
        """Number of the newest request."""
        return self._store.last_id

    @property
    def waiting(self) -> int:
        """How many requests are not yet written to the database."""
        return self._store.waiting

    def hits(self) -> list[Record]:
        """Return every hit, oldest first."""
        return self._store.oldest(-1, ("hit",))

    def malformed(self) -> list[Record]:
        """Return every malformed request, oldest first."""
        return self._store.oldest(-1, ("malformed",))

    def bots(self) -> list[Record]:
        """Return every request that was refused as a bot's, oldest first."""
        return self._store.oldest(-1, ("bot",))

    def page(self, outcomes: Iterable[Outcome], after: int | None, limit: int) -> list[Record]:
        """Return up to ``limit`` records, oldest first: the first after an id, or the newest of all."""
        if after is None:
            return self._store.newest(limit, outcomes)
        return self._store.oldest(limit, outcomes, after)

    def newest(self, limit: int, after: int = 0) -> list[Record]:
        """Return the newest ``limit`` requests after an id, whatever became of them, oldest first."""
        return self._store.newest(limit, ALL_OUTCOMES, after)

    def summary(self) -> dict[str, Any]:
        """Return all numbers, as ``/api/summary`` shows them."""
        with self._lock:
            summary = self._statistics.as_json(self.names)
            summary["totals"] |= {"malformed": self._refused["malformed"], "bots": self._refused["bot"]}
            summary["pace"] = self._pace.as_json(int(self._clock()))
            summary["faults"] = self.faults.as_json()
            return summary | {"last_id": self.last_id, "epoch": self.epoch}

    def in_words(self, record: Record) -> list[tuple[str, str]]:
        """Return what a request says, as pieces of a sentence."""
        if record.outcome == "bot":
            return [("warning", f"refused as a bot: User-Agent {record.user_agent!r}")]
        if record.outcome == "malformed":
            return [("warning", f"malformed: {json.loads(record.content or '{}')['message']}")]
        return describe(record.hit, self.names, duplicate=record.duplicate)

    def as_json(self, record: Record) -> dict[str, Any]:
        """Return a record as ``/api`` shows it."""
        words = self.in_words(record)
        return {
            "id": record.id,
            "received_at": record.received_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "outcome": record.outcome,
            "path": record.path,
            "query": record.query,
            "user_agent": record.user_agent,
            "headers": record.headers,
            "error" if record.outcome == "malformed" else "content": json.loads(record.content or "null"),
            "duplicate": record.duplicate,
            "parts": [{"kind": kind, "text": text} for kind, text in words],
            "sentence": "; ".join([text for _, text in words]),
        }

    def clear(self) -> None:
        """Forget every request; the fault in force stays."""
        with self._lock:
            self._store.clear()
            self._start_anew()

    def flush(self) -> None:
        """Write what waits to the database."""
        self._store.flush()

    def close(self) -> None:
        """Write what waits and close the database; nothing can be asked or taken afterwards."""
        self.closing = True
        self._store.close()


def _check_project(hit: Hit, project: str | None) -> None:
    if project is None:
        return
    try:
        number = identifier("project", project)
    except ArgumentError as error:
        raise WireError("project", project, "in the path is no id") from error
    if number != hit.project_id:
        raise WireError("p", str(hit.project_id), f"differs from project {number} in the path")


def content_of(hit: Hit) -> dict[str, Any]:
    """Return a hit as JSON; ids are text, because they may be larger than a JSON reader's numbers."""
    order = hit.transaction
    return {
        "customer": str(hit.customer_id),
        "project": str(hit.project_id),
        "exposures": [
            {
                "experiment": str(x.experiment_id),
                "variation": str(x.variation_id),
                "goals": [str(goal) for goal in x.goals],
                "new": position < hit.new_exposures,
            }
            for position, x in enumerate(hit.exposures)
        ],
        "goals": [{"goal": str(g), "new": position < hit.new_goals} for position, g in enumerate(hit.goals)],
        "transaction": order
        and {
            "goals": [str(goal) for goal in order.goals],
            "id": order.transaction_id,
            "value": str(order.value),
            "products": order.products,
        },
    }


def error_json(error: WireError) -> dict[str, str]:
    """Return what is wrong, as the ``error`` of an answer."""
    return {
        "parameter": error.parameter,
        "text": error.text,
        "reason": error.reason,
        "message": str(error),
    }
