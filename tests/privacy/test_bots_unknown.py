"""Where no list of known bots is installed they are counted, and nobody is left in the dark about it."""

from __future__ import annotations

import subprocess
import sys
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

from convert_middleware import Settings, SettingsError, Tracker
from convert_middleware.browser import load_bots
from tests.privacy.test_exclusion import GOOGLEBOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.privacy.conftest import Sites

GIVEN: dict[str, Any] = {"id_number": "2_1", "secret_key": "a secret of the shop, long enough"}
INSTALL = "pip install 'convert-middleware[bots]'"


@pytest.fixture
def no_list(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For a test it is as if the extra were not installed."""
    monkeypatch.setitem(sys.modules, "crawleruseragents", None)
    load_bots.cache_clear()
    yield
    load_bots.cache_clear()


@pytest.mark.parametrize(
    ("options", "environ"),
    [({"exclude_bots": True}, {}), ({}, {"CONVERT_EXCLUDE_BOTS": "true"})],
    ids=["option", "environment"],
)
def test_who_asks_for_bots_to_be_left_out_is_told_what_that_takes(
    options: dict[str, Any], environ: dict[str, str], no_list: None
) -> None:
    settings = Settings.from_env(environ, **GIVEN, **options)
    with pytest.raises(SettingsError) as caught:
        Tracker(settings)
    assert caught.value.option == "exclude_bots"
    assert INSTALL in caught.value.reason


@pytest.mark.parametrize("options", [{}, {"exclude_bots": False}], ids=["default", "off"])
def test_who_does_not_ask_has_a_site_that_works_and_counts_them(
    options: dict[str, Any], sites: Sites, no_list: None
) -> None:
    browser = sites.open(**options)
    browser.get(lambda convert: convert.goal(331), headers=(("User-Agent", GOOGLEBOT),))
    assert browser.tracker.stats().excluded == {}
    assert len(browser.convert.hits()) == 1


def said(options: str) -> str:
    """Return what a program says that makes two trackers where no list is installed."""
    program = f"""
        import sys
        sys.modules["crawleruseragents"] = None
        from convert_middleware import Settings, Tracker
        for project in (1, 2):
            Tracker(Settings(project_id=project, customer_id=2, secret_key="k" * 16, {options})).close(0)
    """
    done = subprocess.run(
        [sys.executable, "-c", dedent(program)], capture_output=True, text=True, timeout=30, check=True
    )
    return done.stdout + done.stderr


def test_a_process_says_at_its_start_that_bots_are_counted_once_and_how_to_end_that() -> None:
    assert said("") == (
        f"Known bots are counted, as no list of them is installed: {INSTALL}, or set exclude_bots=False.\n"
    )


def test_a_process_that_wants_bots_counted_says_nothing() -> None:
    assert said("exclude_bots=False") == ""
