"""What a site's own callables may do while the visitor waits, and what is said of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from convert_middleware.admission import SLOW, Admission
from convert_middleware.hooks import Announcer, RequestExcluded
from tests.asgi.conftest import warnings_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from convert_middleware.browser import AskConsent, RequestFacts
    from convert_middleware.hooks import Event

GPC: Final = [(b"sec-gpc", b"1")]


class Watch:
    """A clock that stands still until somebody takes time."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def admission(
    watch: Watch,
    consent: AskConsent | None = None,
    hook: Callable[[Event], object] | None = None,
    **more: Any,
) -> Admission:
    options: dict[str, Any] = {
        "exclude": None,
        "honour_gpc": True,
        "honour_dnt": False,
        "exclude_bots": True,
        "announcer": Announcer((hook,) if hook else (), watch),
        "timer": watch,
    }
    return Admission(consent=consent, **{**options, **more})


def ask(admission: Admission, headers: list[tuple[bytes, bytes]] | None = None) -> str | None:
    return admission.excluded("GET", "/", b"", dict(headers or []))


@pytest.mark.parametrize(("seconds", "warned"), [(SLOW / 2, 0), (SLOW * 2, 1)])
def test_a_consent_callable_that_keeps_visitors_waiting_is_warned_of_once(
    seconds: float, warned: int, caplog: pytest.LogCaptureFixture
) -> None:
    watch = Watch()

    def dawdle(request: RequestFacts) -> bool:
        del request
        watch.now += seconds
        return True

    judge = admission(watch, dawdle)
    assert [ask(judge) for _ in range(5)] == [None] * 5
    lines = warnings_of(caplog)
    assert lines == ["consent took 100 ms, and the visitor waits for it."] * warned


def test_a_consent_callable_that_always_raises_is_told_of_once_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watch = Watch()

    def fail(request: RequestFacts) -> bool:
        raise ValueError(request.path)

    judge = admission(watch, fail)
    for _ in range(120):
        assert ask(judge) == "consent denied"
        watch.now += 1.0
    first, second = warnings_of(caplog)
    assert first == "consent raised ValueError; that counts as denied."
    assert second == f"{first} (59 more of this kind since the last line)"
    assert judge.counts() == {"consent denied": 120}


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_no_error_of_the_callable_ends_the_request(end: type[BaseException]) -> None:
    def stop(request: RequestFacts) -> bool:
        del request
        raise end

    with pytest.raises(end):
        ask(admission(Watch(), stop))
    with pytest.raises(end):
        ask(admission(Watch(), exclude=stop))


def test_who_is_left_out_already_is_not_asked() -> None:
    asked: list[str] = []

    def note(request: RequestFacts) -> bool:
        asked.append(request.path)
        return True

    assert ask(admission(Watch(), note), GPC) == "gpc"
    assert ask(admission(Watch(), note, exclude=lambda request: True)) == "rule"
    assert asked == []


def test_the_rule_of_the_site_comes_before_all_else() -> None:
    judge = admission(Watch(), exclude=lambda request: request.path == "/", exclude_bots=False)
    assert ask(judge, GPC) == "rule"


def test_a_hook_that_fails_changes_no_decision() -> None:
    def fail(event: Event) -> None:
        assert event == RequestExcluded(reason="gpc")
        raise RuntimeError

    judge = admission(Watch(), hook=fail)
    assert [ask(judge, GPC) for _ in range(20)] == ["gpc"] * 20
    assert judge.counts() == {"gpc": 20}
