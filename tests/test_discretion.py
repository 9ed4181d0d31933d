"""The look for what no log line may tell, itself."""

from __future__ import annotations

import logging

import pytest

from convert_middleware import Settings, Tracker
from tests.discretion import TELLING, assert_discreet, overheard, told

KEY = "a secret of at least 16 bytes"


def spoken() -> dict[str, str]:
    """Return one of each, as a careless log line would hold it."""
    tracker = Tracker(Settings(project_id="1", customer_id="2", secret_key=KEY))
    visitor = tracker.load(()).visitor
    return {
        "a signing key": f"Settings(secret_key={KEY!r})",
        "a visitor's state": f"set-cookie: convert_visitor={tracker.write_token(visitor)}; path=/",
        "a visitor's id": f"Visitor(visitor_id='{visitor.visitor_id}')",
        "a query": 'HTTP Request: GET https://1.track.example/track/?c=2&p=1&e=11-12&ea=1 "200 OK"',
        "an order": "Transaction(value=Decimal('1599.99'))",
    }


@pytest.mark.parametrize("what", TELLING)
@pytest.mark.parametrize("logger", ["convert_middleware", "httpcore.http11", "somebody.else"])
def test_whatever_is_told_at_the_lowest_level_is_found(what: str, logger: str) -> None:
    with overheard() as lines:
        logging.getLogger(logger).debug("something: %s", spoken()[what])

    assert [found.partition(":")[0] for line in lines for found in told(line)].count(what) == 1
    with pytest.raises(AssertionError, match=what):
        assert_discreet(lines)


def test_what_an_exception_tells_is_found_too() -> None:
    with overheard() as lines:
        error = ValueError(KEY)
        logging.getLogger("convert_middleware").debug("It failed.", exc_info=error)

    with pytest.raises(AssertionError, match="a signing key"):
        assert_discreet(lines)


@pytest.mark.parametrize(
    "line",
    [
        "Tracking stops: 1 hits accepted, 1 delivered, 0 dropped, 0 dead, 0 waiting, 0 in flight.",
        "The tracking server is down (status 503); hits wait.",
        "GoalReached(visitor='0123abcd', goal_id=331)",
        "send_request_headers.started request=<Request [b'GET']>",
        "connect_tcp.started host='127.0.0.1' port=40123 local_address=None timeout=3.0",
    ],
)
def test_what_may_be_told_is_no_alarm(line: str) -> None:
    assert_discreet([line])
