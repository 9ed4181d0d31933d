"""The ways a tracking GET can leave: one port, and what every sender shares."""

from __future__ import annotations

import json
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Final, Protocol
from urllib.request import getproxies, proxy_bypass

from convert_middleware.delivery.policy import Outcome, Result, result_of_status, retry_after

CONNECT_TIMEOUT: Final = 3.0  # seconds
TOTAL_TIMEOUT: Final = 10.0  # seconds for one attempt
BODY_TIMEOUT: Final = 2.0  # seconds; once the status is known the body may not hold anything up
BODY_READ: Final = 64 * 1024  # bytes of an answer that are looked at
NO_PROJECT: Final = Outcome(Result.REJECTED, "names no project")


class Sender(Protocol):
    """Sends tracking requests; used by one thread and one event loop only."""

    async def open(self) -> None:
        """Do the slow part of starting: imports, certificates."""

    async def send(self, text: str) -> Outcome:
        """Send one query string as a GET; never raises but for cancellation."""

    async def close(self) -> None:
        """Close every connection."""


def user_agent() -> str:
    """Return the User-Agent of every request; Convert drops others as bots (PROTOCOL, section 1, gap 8)."""
    try:
        release = version("convert-middleware")
    except PackageNotFoundError:  # used from a source tree that was never installed
        release = "0"
    return f"ConvertAgent/1.0 convert-middleware/{release}"


def proxy_for(scheme: str, host: str) -> str | None:
    """Return the URL of the proxy that the environment names for a server, if any.

    Args:
        scheme: "http" or "https".
        host: Name or address of the server.
    """
    if proxy_bypass(host):
        return None
    proxies = getproxies()
    found = proxies.get(scheme) or proxies.get("all")
    if found and "://" not in found:
        found = f"http://{found}"
    return found


def outcome_of_answer(status: int, retry_header: str | None, body: bytes, now: float) -> Outcome:
    """Return what an answer means.

    Args:
        status: The HTTP status.
        retry_header: The Retry-After header, if any.
        body: The beginning of the body.
        now: Seconds since the epoch.
    """
    outcome = _outcome_of_status(status)
    if outcome.result is Result.DELIVERED and _says_bot(body):
        return Outcome(Result.REJECTED, "answered as to a bot")
    if retry_header is None:
        return outcome
    return Outcome(outcome.result, outcome.reason, retry_after(retry_header, now))


@cache  # nearly every answer has the same one
def _outcome_of_status(status: int) -> Outcome:
    return Outcome(result_of_status(status), f"status {status}")


def _says_bot(body: bytes) -> bool:
    """Tell whether a JSON body has the code ``BOT``; such a request was not counted in spite of its 200."""
    if b"BOT" not in body:
        return False
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):  # no JSON, or nested on purpose
        return False
    return isinstance(answer, dict) and answer.get("code") == "BOT"
