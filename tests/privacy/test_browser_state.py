"""What Convert's own script has counted in the browser is not counted again, and is never written by us."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import pytest

from convert_middleware.hooks import BrowserPartsIgnored, VariationConflict

if TYPE_CHECKING:
    from convert_middleware import Recorder
    from tests.privacy.conftest import Sites
    from tests.privacy.doors import Record

# Experiment 21 with variation 22, in which the script fired goals 33 and 341.
TOLD: Final = (
    "_conv_v=vi:1*sc:2*cs:1374079443*fs:1374074823*pv:4*exp:{21.{v.22-g.{33.1-341.1}}}*ps:1374074823"
)
SHAPES: Final = {
    "raw": TOLD,
    "encoded": "_conv_v=" + quote(TOLD.removeprefix("_conv_v="), safe="*.-"),
    "among others": f'a={{"b": 1}}; {TOLD}; _conv_s=si:1*sh:2*pv:3',
    "alone": "_conv_v=exp:{21.{g.{33.1-341.1}-v.22}}",
}
every_shape = pytest.mark.parametrize("cookie", list(SHAPES.values()), ids=list(SHAPES))


@every_shape
def test_what_the_browser_counted_is_not_new(cookie: str, sites: Sites) -> None:
    browser = sites.open()
    answer = browser.get(
        lambda convert: (convert.experiment(21, 22), convert.goal(33), convert.goal(341)), cookie=cookie
    )
    assert answer.body == "(22, False, False)"
    assert browser.convert.hits() == []


def test_the_browsers_variation_stays(sites: Sites) -> None:
    browser = sites.open()
    assert browser.get(lambda convert: convert.experiment(21, 23), cookie=TOLD).body == "22"
    (conflict,) = browser.convert.told(VariationConflict)
    assert isinstance(conflict, VariationConflict)
    assert (conflict.experiment_id, conflict.kept, conflict.asked) == (21, 22, 23)
    assert browser.convert.hits() == []


@every_shape
def test_a_goal_of_the_server_is_credited_to_the_browsers_experiments(cookie: str, sites: Sites) -> None:
    browser = sites.open()
    browser.get(lambda convert: (convert.experiment(11, 12), convert.goal(331)), cookie=cookie)
    (hit,) = browser.convert.hits()
    assert hit.new_exposures == 1
    assert hit.exposures == ((11, 12, (331,)), (21, 22, (33, 341, 331)))
    assert (hit.goals, hit.new_goals) == ((331, 33, 341), 1)


def test_a_goal_that_belongs_elsewhere_is_not_credited_to_the_browsers_experiments(sites: Sites) -> None:
    browser = sites.open()
    browser.get(lambda convert: convert.goal(331, experiments=[11]), cookie=TOLD)
    (hit,) = browser.convert.hits()
    assert hit.exposures == ((21, 22, (33, 341)),)


def test_revenue_is_told_with_the_browsers_experiments(sites: Sites) -> None:
    browser = sites.open()
    browser.get(lambda convert: convert.revenue(341, transaction_id="ab12345", value="1599.99"), cookie=TOLD)
    (hit,) = browser.convert.hits()
    assert (hit.exposures, hit.new_exposures) == (((21, 22, (33, 341)),), 0)
    assert (hit.goals, hit.new_goals) == ((33, 341), 0)


def test_what_the_browser_counted_is_remembered_when_its_cookie_is_gone(sites: Sites) -> None:
    browser = sites.open()
    first = browser.get(lambda convert: convert.goal(331), cookie=TOLD)
    assert len(browser.convert.hits()) == 1
    second = browser.get(
        lambda convert: (convert.experiment(21, 23), convert.goal(33), convert.goal(331)), cookie=first.cookie
    )
    assert second.body == "(22, False, False)"
    assert browser.convert.hits() == []


def test_the_script_that_learns_of_our_experiment_makes_nothing_new_of_it(sites: Sites) -> None:
    browser = sites.open()
    cookie = browser.get(lambda convert: (convert.experiment(21, 22), convert.goal(33))).cookie
    again = browser.get(
        lambda convert: (convert.experiment(21, 22), convert.goal(33)), cookie=f"{cookie}; {TOLD}"
    )
    assert again.body == "(22, False)"
    assert len(browser.convert.hits()) == 1


def test_of_two_variations_the_one_we_showed_stays(sites: Sites) -> None:
    browser = sites.open()
    cookie = browser.get(lambda convert: convert.experiment(21, 29)).cookie
    assert browser.get(lambda convert: convert.experiment(21, 22), cookie=f"{TOLD}; {cookie}").body == "29"
    browser.get(lambda convert: convert.goal(331), cookie=f"{TOLD}; {cookie}")
    *_, hit = browser.convert.hits()
    assert hit.exposures == ((21, 29, (331,)),)


def test_whom_converts_traffic_limit_left_out_was_presented_nothing(sites: Sites) -> None:
    browser = sites.open()
    left_out = "_conv_v=exp:{21.{v.1-g.{}}}"
    assert browser.get(lambda convert: dict(convert.experiments), cookie=left_out).body == "{}"
    assert browser.get(lambda convert: convert.experiment(21, 22), cookie=left_out).body == "22"
    (hit,) = browser.convert.hits()
    assert (hit.exposures, hit.new_exposures) == (((21, 22, ()),), 1)


@every_shape
def test_where_the_browser_is_ignored_everything_is_new(cookie: str, sites: Sites) -> None:
    browser = sites.open(browser_state="ignore")
    answer = browser.get(lambda convert: (convert.experiment(21, 23), convert.goal(33)), cookie=cookie)
    assert answer.body == "(23, True)"
    (hit,) = browser.convert.hits()
    assert (hit.exposures, hit.new_exposures, hit.goals) == (((21, 23, (33,)),), 1, (33,))


@pytest.mark.parametrize(
    "cookie",
    [
        "_conv_v=",
        "_conv_v=exp",
        "_conv_v=exp:{21.{v.22-g.{33.1",
        "_conv_v=exp:{0.{v.22-g.{}}}",
        "_conv_v=exp:{21.{v.-1-g.{}}}",
        f"_conv_v=exp:{{{'9' * 30}.{{v.22-g.{{}}}}}}",
        "_conv_v=exp:{21.{v.<script>-g.{x.1}}}",
        "_conv_v=%ff%00%zz*exp:%7b21",
        "_conv_v=" + "{" * 9_000,
        "_conv_v=" + "%25" * 4_000,
        "my_conv_v=exp:{21.{v.22-g.{33.1}}}",
    ],
)
def test_what_is_forged_harms_nothing(cookie: str, sites: Sites) -> None:
    browser = sites.open()
    answer = browser.get(lambda convert: (convert.experiment(21, 23), convert.goal(33)), cookie=cookie)
    assert (answer.status, answer.body) == (200, "(23, True)")
    assert len(browser.convert.hits()) == 1


# Two of its parts make no sense: an experiment without a variation, and a goal that is none.
ODD: Final = "_conv_v=exp:{21.{v.22-g.{33.1}}-31.{g.{}}-41.{v.42-g.{x.1}}}"


def test_odd_parts_of_converts_cookie_are_counted_and_announced_and_the_rest_is_read(sites: Sites) -> None:
    browser = sites.open()
    for cookie in (ODD, TOLD, ODD):
        assert browser.get(lambda convert: convert.goal(33), cookie=cookie).body == "False"
    assert browser.tracker.stats().odd_browser_cookies == 2
    assert browser.convert.told(BrowserPartsIgnored) == [BrowserPartsIgnored(parts=2)] * 2


@pytest.mark.parametrize(
    ("options", "record", "headers"),
    [
        ({}, lambda convert: "nobody asks", ()),
        ({"browser_state": "ignore"}, lambda convert: convert.goals, ()),
        ({}, lambda convert: convert.goals, (("Sec-GPC", "1"),)),
    ],
    ids=["unasked", "ignored", "excluded"],
)
def test_converts_cookie_is_only_looked_at_where_it_matters(
    options: dict[str, Any], record: Record, headers: tuple[tuple[str, str], ...], sites: Sites
) -> None:
    browser = sites.open(**options)
    browser.get(record, cookie=ODD, headers=headers)
    assert browser.tracker.stats().odd_browser_cookies == 0
    assert browser.convert.told(BrowserPartsIgnored) == []


def test_a_huge_cookie_of_convert_makes_neither_our_cookie_nor_the_url_too_long(sites: Sites) -> None:
    browser = sites.open()
    pairs = "-".join(
        f"1000{number:06d}.{{v.2000{number:06d}-g.{{3000{number:06d}.1}}}}" for number in range(95)
    )
    answer = browser.get(
        lambda convert: (convert.experiment(11, 12), convert.goal(331)), cookie=f"_conv_v=exp:{{{pairs}}}"
    )
    assert answer.body == "(12, True)"
    (line,) = answer.cookies
    assert len(line) <= 4096
    (hit,) = browser.convert.hits()
    assert hit.exposures[0] == (11, 12, (331,))
    assert (hit.new_exposures, hit.goals[0], hit.new_goals) == (1, 331, 1)
    assert all(len(target) < 4096 for target in browser.convert.server.targets)
    again = browser.get(lambda convert: (convert.experiment(11, 13), convert.goal(331)), cookie=answer.cookie)
    assert again.body == "(12, False)"


@pytest.mark.parametrize("cookie", ["", TOLD, "_conv_v=exp:{21.{v.22-g.{}}}; _conv_s=si:1"])
def test_converts_cookies_are_never_written(cookie: str, sites: Sites) -> None:
    def everything(convert: Recorder) -> None:
        convert.experiment(11, 12)
        convert.experiment(21, 22)
        convert.goal(331)
        convert.goal(33)

    browser = sites.open(consent=lambda request: "granted")
    ours = browser.get(everything, cookie=cookie)
    gone = browser.get(lambda convert: convert.forget(), cookie=f"{cookie}; {ours.cookie}")
    denied = browser.get(everything, cookie=f"{cookie}; {ours.cookie}", headers=(("Sec-GPC", "1"),))
    lines = [line for answer in (ours, gone, denied) for line in answer.cookies]
    assert len(lines) == 3
    assert all(line.startswith("convert_visitor=") for line in lines)


def test_reading_alone_writes_no_cookie_and_sends_nothing(sites: Sites) -> None:
    browser = sites.open()
    answer = browser.get(lambda convert: (dict(convert.experiments), convert.goals), cookie=TOLD)
    assert answer.body == "({21: 22}, (33, 341))"
    assert answer.cookies == []
    assert browser.convert.hits() == []
