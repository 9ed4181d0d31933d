"""Convert's own cookie is read in every shape it has, and whatever else it may hold harms nothing."""

from __future__ import annotations

from time import thread_time
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convert_middleware.browser import BrowserState, read_state
from convert_middleware.browser.state import BYTES_READ, COOKIES_READ, MAX_EXPERIMENTS, MAX_GOALS, NOTHING
from convert_middleware.model import MAX_ID, Exposure
from tests.strategies import exposures

# As Convert's help pages publish it.
PUBLISHED = (
    b"vi:1374074822644-0.8675333885475993*sc:2*cs:1374079443*fs:1374074823*pv:4"
    b"*exp:{10001236.{v.10008683-g.{10001841.1}}-10001237.{v.10008687-g.{10001841.1}}}*ps:1374074823"
)
PUBLISHED_STATE = BrowserState(
    exposures=(Exposure(10001236, 10008683, (10001841,)), Exposure(10001237, 10008687, (10001841,))),
    goals=(10001841,),
)


def encoded(cookie: bytes) -> bytes:
    """Return a cookie as newer scripts write it."""
    return quote(cookie, safe="*.-").encode()


def state(*exposures: Exposure, goals: tuple[int, ...] = (), odd: int = 0) -> BrowserState:
    return BrowserState(exposures=exposures, goals=goals, odd=odd)


def cookie_of(told: list[Exposure]) -> bytes:
    entries = [
        f"{key}.{{v.{variation}-g.{{{'-'.join(f'{goal}.1' for goal in goals)}}}}}"
        for key, variation, goals in told
    ]
    return f"vi:1*sc:2*exp:{{{'-'.join(entries)}}}*seg:{{100246.1}}".encode()


@pytest.mark.parametrize("cookie", [PUBLISHED, encoded(PUBLISHED), encoded(PUBLISHED).lower()])
def test_the_published_example_is_read_raw_and_percent_encoded(cookie: bytes) -> None:
    assert read_state([cookie]) == PUBLISHED_STATE


@pytest.mark.parametrize(
    "cookie",
    [
        b"vi:1*sc:2*cs:1*fs:1*pv:4*exp:{11.{v.12-g.{331.1-33.1}}}*seg:{}*ps:1",
        b"vi:1*sc:2*cs:1*fs:1*pv:4*seg:{100246.1-100247.1}*exp:{11.{v.12-g.{331.1-33.1}}}",
        b"exp:{11.{v.12-g.{331.1-33.1}}}",
        b"exp:{11.{v.12-g.{331.1-33.1}}}*vi:1",
        b"vi:a customer:s own id*exp:{11.{v.12-g.{331.1-33.1}}}",
        b"vi:1*new:{11.{v.99-g.{}}}*exp:{11.{v.12-g.{331.1-33.1}}}",
        b"exp:{11.{g.{331.1-33.1}-v.12}}",
        b"exp:{11.{v.12-g.{331.1-33.1}-t.{5.1-v.9}}}",
        b"exp:{11.{t.{5.1-v.9}-n.7-v.12-g.{331.2-33.10}}}",
        b"exp%3A%7B11.%7Bv.12-g.%7B331.1-33.1%7D%7D%7D",
        b"exp%3A%7B11%2E%7Bv.12%2Dg.%7B331.1-33.1%7D%7D%7D",
        b"vi:%ff%zz%*exp:{11.{v.12-g.{331.1-33.1}}}",
    ],
)
def test_pieces_may_stand_in_any_order_or_be_missing(cookie: bytes) -> None:
    assert read_state([cookie]) == state(Exposure(11, 12, (331, 33)), goals=(331, 33))


@pytest.mark.parametrize(
    "cookie",
    [
        b"",
        b"1",
        b"vi:1*sc:1*cs:1731589274*fs:1731589274*pv:2",
        b"vi:1*exp:{}*seg:{}",
        b"vi%3A1*sc%3A2*exp%3A%7B%7D*ps%3A1651172239",
        b"exp:",
        b"exp",
        b"exp:{11.{v.12-g.{}}}"[:4],
    ],
)
def test_a_visitor_who_saw_no_experiment_has_nothing(cookie: bytes) -> None:
    assert read_state([cookie]) is NOTHING


def test_an_experiment_without_goals_is_an_exposure() -> None:
    assert read_state([b"exp:{11.{v.12-g.{}}-21.{v.22}}"]) == state(Exposure(11, 12), Exposure(21, 22))


def test_a_visitor_whom_the_traffic_limit_left_out_was_presented_nothing() -> None:
    found = read_state([b"exp:{11.{v.1-g.{}}-21.{v.22-g.{33.1}}}"])
    assert found == BrowserState(exposures=(Exposure(21, 22, (33,)),), goals=(33,), left_out=(11,))


@pytest.mark.parametrize(
    ("cookie", "odd"),
    [
        (b"exp:{11.{v.12-g.{33.1}}-x.{v.1-g.{}}}", 1),
        (b"exp:{11.{v.12-g.{33.1}}-21.{v.x-g.{}}}", 1),
        (b"exp:{11.{v.12-g.{33.1}}-21.{g.{}}}", 1),
        (b"exp:{11.{v.12-g.{33.1}}-21.{}}", 1),
        (b"exp:{11.{v.12-g.{33.1}}-0.{v.22-g.{}}}", 1),
        (b"exp:{11.{v.12-g.{33.1}}-021.{v.22-g.{}}}", 1),
        (b"exp:{11.{v.12-g.{33.1}}-9999999999999999999.{v.22-g.{}}}", 1),
        (b"exp:{11.{v.12-g.{33.1}}-99999999999999999999.{v.22-g.{}}}", 1),
        (b"exp:{11.{v.12-g.{33.1}}-21.{v.9999999999999999999-g.{}}}", 1),
        (b"exp:{11.{v.12-g.{33.1}}-21.{v.22.5-g.{}}}", 1),
        (b"exp:{11.{v.12-g.{33.1}}-11.{v.13-g.{}}}", 1),
        (b"exp:{11.{v.12-g.{33.1-x.1-34-35.-36.0-.1--37.1.1}}}", 7),
        ("exp:{11.{v.12-g.{33.1}}-\u0662\u0661.{v.\u0662-g.{}}}".encode(), 1),
        (b"exp:{11.{v.12-g.{33.1}}-21.{v.22-g.{34", 1),
        (b"exp:{11.{v.12-g.{33.1}}-21.{v.22", 1),
        (b"exp:{11.{v.12-g.{33.1}}-21 .{v.22-g.{}}}", 1),
        (b"exp:{11.{v.12-g.{33.1}}}<script>", 1),
        (b"exp:{11.{v.12-g.{33.1}}}*exp:oops", 1),
        (b"exp:{11.{v.12-g.{33.1}}}\x00", 1),
    ],
)
def test_what_makes_no_sense_is_counted_and_the_rest_is_read(cookie: bytes, odd: int) -> None:
    assert read_state([cookie]) == state(Exposure(11, 12, (33,)), goals=(33,), odd=odd)


@pytest.mark.parametrize("whole", [PUBLISHED, encoded(PUBLISHED)])
def test_a_cookie_cut_anywhere_tells_nothing_that_was_not_there(whole: bytes) -> None:
    for length in range(len(whole)):
        found = read_state([whole[:length]])
        assert set(found.exposures) <= set(PUBLISHED_STATE.exposures)
        assert set(found.goals) <= set(PUBLISHED_STATE.goals)


def test_of_several_cookies_the_first_variation_counts_and_all_goals_do() -> None:
    cookies = [b"exp:{11.{v.12-g.{33.1}}}", b"exp:{11.{v.13-g.{34.1}}-21.{v.22-g.{}}}"]
    assert read_state(cookies) == state(Exposure(11, 12, (33,)), Exposure(21, 22), goals=(33, 34), odd=1)


def test_plus_signs_stand_for_themselves_and_decoding_happens_once() -> None:
    assert read_state([b"vi:a+b*exp:{11.{v.1%2532-g.{}}}"]).exposures == ()
    assert read_state([b"exp:{11.{v.12-g.{}}+21.{v.22-g.{}}}"]).exposures == (Exposure(11, 12),)


@given(st.lists(exposures(), max_size=12, unique_by=lambda exposure: exposure.experiment_id), st.booleans())
def test_whatever_the_browser_can_write_is_read_back(told: list[Exposure], percent: bool) -> None:
    told = [exposure for exposure in told if exposure.variation_id != 1]
    cookie = cookie_of(told)
    found = read_state([encoded(cookie) if percent else cookie])
    if len(cookie) * 2 < BYTES_READ:  # shorter than that however it is encoded
        assert found.exposures == tuple(told)
        assert found.goals == tuple(dict.fromkeys(goal for exposure in told for goal in exposure.goals))
        assert found.odd == 0


_alphabet = st.sampled_from([*b"0123456789.-{}*:%vg", *b"exp", 0, 255])


@given(
    st.lists(
        st.one_of(
            st.binary(max_size=300),
            st.lists(_alphabet, max_size=300).map(bytes),
            st.lists(_alphabet, max_size=300).map(lambda text: b"vi:1*exp:{" + bytes(text)),
            st.lists(st.sampled_from([b"{", b"}", b"-", b"11.{", b"v.12", b"-g.{", b"33.1", b"}}"])).map(
                lambda parts: b"exp:{" + b"".join(parts)
            ),
        ),
        max_size=6,
    )
)
def test_any_bytes_are_a_state_within_bounds(cookies: list[bytes]) -> None:
    found = read_state(cookies)
    assert len(found.exposures) + len(found.left_out) <= MAX_EXPERIMENTS
    assert len(found.goals) <= MAX_GOALS
    for experiment_id, variation_id, goals in found.exposures:
        assert 0 < experiment_id <= MAX_ID
        assert 1 < variation_id <= MAX_ID
        assert set(goals) <= set(found.goals)
    assert all(0 < goal_id <= MAX_ID for goal_id in found.goals)


def test_of_a_huge_cookie_only_what_a_browser_stores_is_looked_at() -> None:
    beyond = b"exp:{11.{v.12-g.{33.1}}}*vi:" + b"a" * BYTES_READ + b"*exp:{21.{v.22-g.{}}}"
    assert read_state([beyond]) == state(Exposure(11, 12, (33,)), goals=(33,), odd=1)
    many = [b"exp:{%d.{v.12-g.{}}}" % number for number in range(11, 31)]
    assert len(read_state(many).exposures) == COOKIES_READ


def test_more_than_a_real_cookie_holds_is_left_out() -> None:
    experiments = b"exp:{%b}" % b"-".join([b"%d.{v.2}" % number for number in range(11, 311)])
    assert len(experiments) < BYTES_READ
    found = read_state([experiments])
    assert (len(found.exposures), found.odd) == (MAX_EXPERIMENTS, 300 - MAX_EXPERIMENTS)
    goals = b"exp:{11.{v.12-g.{%b}}}" % b"-".join([b"%d.1" % number for number in range(100, 700)])
    found = read_state([goals])
    assert (len(found.goals), found.odd) == (MAX_GOALS, 600 - MAX_GOALS)


HOSTILE = [
    b"{" * BYTES_READ,
    b"exp:{" + b"{" * BYTES_READ,
    b"exp:" + b"{-" * BYTES_READ,
    b"exp:{" + b"1" * BYTES_READ,
    b"exp:{" + b"-1.{" * BYTES_READ,
    b"exp:{" + b"-1.{{}" * BYTES_READ,
    b"exp:{1.{" + b"-1.{}" * BYTES_READ,
    b"exp:{1.{" + b"-v.1" * BYTES_READ,
    b"exp:{1.{v.2-g.{" + b"1.1-" * BYTES_READ,
    b"exp:{1.{v.2-g.{" + b"-" * 4000 + b"}}}",
    b"exp:{" + b"1.{v.2-g.{" * BYTES_READ,
    b"exp:" * BYTES_READ,
    b"exp:*" * BYTES_READ,
    b"*" * BYTES_READ,
    b"%" * BYTES_READ,
    b"%7B" * BYTES_READ,
    b"%2" * BYTES_READ,
]


@pytest.mark.parametrize("hostile", HOSTILE, ids=range(len(HOSTILE)))
def test_no_text_costs_much_more_than_its_length(hostile: bytes) -> None:
    begun = thread_time()
    for _ in range(5):
        read_state([hostile[:BYTES_READ]] * COOKIES_READ)
    assert thread_time() - begun < 0.25  # five times 8 KiB; one that goes back over its text takes seconds
