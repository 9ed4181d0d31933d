"""A site's callable decides, and whatever goes wrong with it means that nobody agreed."""

from __future__ import annotations

from typing import Any

import pytest

from convert_middleware.browser import AskConsent, Consent, RequestFacts, decide
from tests.browser_state.requests import request


@pytest.mark.parametrize(
    ("answer", "consent"),
    [
        ("granted", "granted"),
        ("denied", "denied"),
        ("unknown", "unknown"),
        (Consent.GRANTED, "granted"),
        (True, "granted"),
        (False, "denied"),
        (None, "unknown"),
    ],
)
def test_every_answer_that_is_one_is_taken(answer: Any, consent: str) -> None:
    assert decide(lambda _: answer, request()) == (consent, "")


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Granted",
        "yes",
        "granted ",
        1,
        0,
        1.0,
        b"granted",
        [],
        ["granted"],
        {"consent": True},
        object(),
        ...,
    ],
)
def test_any_other_answer_denies_and_says_what_was_returned(answer: Any) -> None:
    decision = decide(lambda _: answer, request())
    assert decision.consent is Consent.DENIED
    assert decision.problem.startswith("returned ")


def test_a_callable_that_raises_denies_and_tells_nothing_of_the_visitor() -> None:
    def asks(facts: RequestFacts) -> bool:
        raise ValueError(facts.cookie("secret"))

    assert decide(asks, request(("Cookie", "secret=abc"))) == (Consent.DENIED, "raised ValueError")


def test_an_answer_that_raises_when_looked_at_denies() -> None:
    class Odd(str):
        __slots__ = ()

        def __hash__(self) -> int:
            raise RecursionError

    assert decide(lambda _: Odd("granted"), request()) == (Consent.DENIED, "raised RecursionError")  # type: ignore[arg-type,return-value]  # a misuse


def test_an_asynchronous_callable_denies_and_leaves_no_warning() -> None:
    async def asks(_: RequestFacts) -> bool:
        return True

    decision = decide(asks, request())  # type: ignore[arg-type]  # a misuse
    assert decision == (Consent.DENIED, "is asynchronous; a plain function is needed")


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_ends_the_process_or_the_greenlet_is_not_kept_from_it(interrupt: type[BaseException]) -> None:
    def asks(_: RequestFacts) -> bool:
        raise interrupt

    with pytest.raises(interrupt):
        decide(asks, request())


def test_where_nobody_has_to_be_asked_everybody_is_counted() -> None:
    assert decide(None, request()).consent is Consent.GRANTED


@pytest.mark.parametrize(("cookie", "consent"), [("C2:1", "granted"), ("C2:0", "denied"), ("", "unknown")])
def test_a_callable_reads_the_choice_from_a_cookie(cookie: str, consent: str) -> None:
    def asks(facts: RequestFacts) -> bool | None:
        choice = facts.cookie("consent")
        return None if not choice else "C2:1" in choice

    ask: AskConsent = asks
    assert decide(ask, request(("Cookie", f"a=1; consent={cookie}"))).consent == consent
