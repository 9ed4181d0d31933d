"""Servers that close a connection just when the next request may be on its way over it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from convert_middleware.delivery.policy import Result
from tests.contract.test_senders import Kind, every_sender, send_texts
from tests.servers import answer, answer_and_close, close, reset

if TYPE_CHECKING:
    from tests.servers import Behaviour, TrackingServer


@every_sender
@pytest.mark.parametrize("announced", [False, True])
def test_no_request_is_repeated_when_the_server_closes_after_each_answer(
    kind: Kind, announced: bool, tracking_server: TrackingServer
) -> None:
    tracking_server.default = answer_and_close(announced=announced)
    texts = [f"n={number}" for number in range(60)]

    outcomes = send_texts(kind, tracking_server.endpoint, *texts)

    seen = tracking_server.targets
    assert len(set(seen)) == len(seen)
    for text, outcome in zip(texts, outcomes, strict=True):
        # What was not sent is sent again, so that the server must not know it.
        assert outcome.result in (Result.DELIVERED, Result.AMBIGUOUS, Result.NOT_SENT)
        arrived = f"/track/?{text}" in seen
        assert arrived or outcome.result is not Result.DELIVERED
        assert not (arrived and outcome.result is Result.NOT_SENT)
    if announced:
        assert {outcome.result for outcome in outcomes} == {Result.DELIVERED}


@every_sender
@pytest.mark.parametrize("ending", [reset(), close()], ids=str)
def test_a_kept_connection_that_ends_under_a_request_is_no_reason_to_repeat_it(
    kind: Kind, ending: Behaviour, tracking_server: TrackingServer
) -> None:
    tracking_server.script(answer(), ending)

    outcomes = send_texts(kind, tracking_server.endpoint, "n=1", "n=2", "n=3")

    assert [outcome.result for outcome in outcomes] == [
        Result.DELIVERED,
        Result.AMBIGUOUS,
        Result.DELIVERED,
    ]
    assert tracking_server.targets == ["/track/?n=1", "/track/?n=2", "/track/?n=3"]
