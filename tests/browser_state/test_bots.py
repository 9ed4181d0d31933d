"""Bots that call themselves so are known, visitors are none, and no User-Agent takes long."""

from __future__ import annotations

import sys
from time import thread_time

import pytest

from convert_middleware.browser import Exclusion, IsBot, exclusion, load_bots
from tests.browser_state.requests import request

WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"


@pytest.fixture(scope="module")
def is_bot() -> IsBot:
    loaded = load_bots()
    assert loaded is not None
    return loaded


@pytest.mark.parametrize(
    "agent",
    [
        "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
        f"{WEBKIT[:-1]}; compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
        f"{WEBKIT[:-1]}; compatible; GPTBot/1.2; +https://openai.com/gptbot)",
        "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
        f"Mozilla/5.0 (X11; Linux x86_64) {WEBKIT} HeadlessChrome/130.0.0.0 Safari/537.36",
        "Mozilla/5.0+(compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)",
        "curl/8.5.0",
    ],
)
def test_a_bot_that_says_so_is_known(agent: str, is_bot: IsBot) -> None:
    assert exclusion(request(("User-Agent", agent)), is_bot=is_bot) is Exclusion.BOT


@pytest.mark.parametrize(
    "agent",
    [
        "",
        "-",
        "gr\xfc\xdfe \x00\xff",
        f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {WEBKIT} Chrome/139.0.0.0 Safari/537.36",
        "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
        f"Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) {WEBKIT} Version/18.5 Safari/604.1",
        f"Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) {WEBKIT} Mobile/15E148 Instagram 300.0.0.0",
        # A make of telephones, whose name other lists take for a bot's.
        f"Mozilla/5.0 (Linux; Android 13; CUBOT X30) {WEBKIT} Chrome/120.0 Mobile Safari/537.36",
    ],
)
def test_a_visitor_is_no_bot(agent: str, is_bot: IsBot) -> None:
    assert not is_bot(agent.encode("latin-1"))


@pytest.mark.parametrize("text", [b"Spider", b"a", b"Current", b"BlogTraffic/1.", b"(", b" "])
def test_no_user_agent_takes_long(text: bytes, is_bot: IsBot) -> None:
    begun = thread_time()
    for number in range(10):
        is_bot(b"%d" % number + text * (2**20 // len(text)))
    assert thread_time() - begun < 0.25  # ten new ones


def test_one_user_agent_is_looked_up_once(is_bot: IsBot) -> None:
    agent = b"somebody/%d" % id(is_bot)
    is_bot(agent)
    begun = thread_time()
    for _ in range(10_000):
        is_bot(agent)
    assert thread_time() - begun < 0.25  # looked up anew they would take more than a second


def test_the_list_is_loaded_once_and_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_bots() is load_bots()
    monkeypatch.setitem(sys.modules, "crawleruseragents", None)  # as where it is not installed
    assert load_bots.__wrapped__() is None
