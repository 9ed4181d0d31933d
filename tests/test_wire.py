"""The tracking request: read and written as published, and never longer than a URL may be."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convert_middleware.errors import WireError
from convert_middleware.model import Exposure, Hit, Transaction
from convert_middleware.wire import decode, encode, query
from tests.strategies import hits

EXAMPLE = "c=2&p=1&e=11-12-331.33.34,21-22-33.331.341&ea=1&g=331,33,34,341,35&ga=3&t=35|ab12345|1599.99|10"
EXAMPLE_HIT = Hit(
    customer_id=2,
    project_id=1,
    exposures=(Exposure(11, 12, (331, 33, 34)), Exposure(21, 22, (33, 331, 341))),
    new_exposures=1,
    goals=(331, 33, 34, 341, 35),
    new_goals=3,
    transaction=Transaction((35,), "ab12345", Decimal("1599.99"), 10),
)
SERVER = "https://1.track.convertexperiments.com/track/"


@pytest.mark.parametrize("spelling", ["|", "%7C"])
def test_the_published_example_means_what_is_published_and_comes_back_byte_for_byte(spelling: str) -> None:
    text = EXAMPLE.replace("|", spelling)
    assert decode(text) == decode(f"?{text}") == decode(f"{SERVER}?{text}") == EXAMPLE_HIT
    assert query(decode(text)) == text
    assert encode(decode(f"{SERVER}?{text}")) == f"{SERVER}?{text}"
    assert encode(decode(f"?{text}"), "") == f"?{text}"


def test_the_bar_is_written_as_a_uri_allows() -> None:
    assert encode(EXAMPLE_HIT) == f"{SERVER}?{EXAMPLE}".replace("|", "%7C")


def test_the_endpoint_is_an_option() -> None:
    assert encode(EXAMPLE_HIT, "http://127.0.0.1:8070/{project_id}/").startswith(
        "http://127.0.0.1:8070/1/?c=2"
    )


@pytest.mark.parametrize(
    "endpoint", ["", "https://h/a=b/", "http://[::1]:80/a=b&c=2/", "/a=b/", "h/=/", "http://h/{project_id}=/"]
)
def test_a_path_may_hold_an_equals_sign(endpoint: str) -> None:
    assert decode(encode(EXAMPLE_HIT, endpoint)) == EXAMPLE_HIT


def hit(**fields: Any) -> Hit:
    return Hit(customer_id=2, project_id=1, **fields)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("c=2&p=1", hit()),
        ("c=2&p=1&e=11-12&ea=0", hit(exposures=(Exposure(11, 12),))),
        (
            "c=2&p=1&e=11-12,21-22-5&ea=2",
            hit(exposures=(Exposure(11, 12), Exposure(21, 22, (5,))), new_exposures=2),
        ),
        ("c=2&p=1&g=5&ga=1", hit(goals=(5,), new_goals=1)),
        ("c=2&p=1&g=5,6&ga=0", hit(goals=(5, 6))),
        ("c=2&p=1&t=5.6%7Ca%7C0.00%7C1", hit(transaction=Transaction((5, 6), "a", Decimal(0)))),
        (
            "c=2&p=1&t=5%7C%C3%A9%20%26%3D%23%3F%2F%2B%7C7.50%7C2",
            hit(transaction=Transaction((5,), "é &=#?/+", Decimal("7.5"), 2)),
        ),
    ],
)
def test_each_form_is_written_one_way_and_read_back(text: str, meaning: Hit) -> None:
    assert query(meaning) == text
    assert decode(text) == meaning


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("p=1&c=2", "c=2&p=1"),
        ("c=2&p=1&e=11-12-&ea=0", "c=2&p=1&e=11-12&ea=0"),
        ("c=2&p=1&e=11%2D12%2D5%2E6%2C7-8&ea=1", "c=2&p=1&e=11-12-5.6,7-8&ea=1"),
        ("c=2&p=1&t=5%7ca%7c1.00%7c1", "c=2&p=1&t=5%7Ca%7C1.00%7C1"),
        ("c=2&p=1&t=5|a+b|1.00|1", "c=2&p=1&t=5|a%2Bb|1.00|1"),
        ("c=2&p=1&t=5|a?b|1.00|1", "c=2&p=1&t=5|a%3Fb|1.00|1"),
        ("c=2&p=1#part", "c=2&p=1"),
        ("c=002&p=01", "c=2&p=1"),
    ],
)
def test_other_spellings_are_read_as_the_same(text: str, same: str) -> None:
    assert query(decode(text)) == same
    assert query(decode(f"{SERVER}?{text}")) == same


@pytest.mark.parametrize(
    ("text", "parameter", "reason"),
    [
        ("", "query", "name=value"),
        ("c", "query", "name=value"),
        ("c=2", "p", "missing"),
        ("p=1", "c", "missing"),
        ("c=2&p=1&c=2", "c", "twice"),
        ("c=2&p=1&x=1", "x", "no parameter"),
        ("c=2&p=1&E=11-12&ea=0", "E", "no parameter"),
        ("c=&p=1", "c", "whole number"),
        ("c=0&p=1", "query", "ids run from 1"),
        ("c=-2&p=1", "c", "whole number"),
        ("c=2&p=9999999999999999999", "query", "ids run from 1"),
        ("c=2&p=12345678901234567890", "p", "19 digits"),
        ("c=2&p=%D9%A1", "p", "whole number"),
        ("c=2&p=%FF", "p", "UTF-8"),
        ("c=2&p=1&e=11-12", "e", "'ea'"),
        ("c=2&p=1&ea=1", "ea", "'e'"),
        ("c=2&p=1&g=5", "g", "'ga'"),
        ("c=2&p=1&ga=1", "ga", "'g'"),
        ("c=2&p=1&e=11-12&ea=2", "ea", "more than"),
        ("c=2&p=1&g=5&ga=2", "ga", "more than"),
        ("c=2&p=1&g=5&ga=x", "ga", "whole number"),
        ("c=2&p=1&e=&ea=0", "e", "experiment-variation"),
        ("c=2&p=1&e=11&ea=0", "e", "experiment-variation"),
        ("c=2&p=1&e=11-12-5-6&ea=0", "e", "experiment-variation"),
        ("c=2&p=1&e=11-12,&ea=0", "e", "experiment-variation"),
        ("c=2&p=1&e=11-12-5.&ea=0", "e", "whole number"),
        ("c=2&p=1&e=0-12&ea=0", "e", "ids run from 1"),
        ("c=2&p=1&g=&ga=0", "g", "whole number"),
        ("c=2&p=1&g=5.6&ga=0", "g", "whole number"),
        ("c=2&p=1&g=" + "5," * 4096 + "5&ga=0", "g", "more than 4096"),
        ("c=2&p=1&e=" + "1-2," * 4096 + "1-2&ea=0", "e", "more than 4096"),
        ("c=2&p=1&t=5|1.00|1", "t", "3 fields"),
        ("c=2&p=1&t=5|a|b|1.00|1", "t", "5 fields"),
        ("c=2&p=1&t=|a|1.00|1", "t", "whole number"),
        ("c=2&p=1&t=5||1.00|1", "t", "empty"),
        ("c=2&p=1&t=5|a|1|1", "t", "two decimals"),
        ("c=2&p=1&t=5|a|1.5|1", "t", "two decimals"),
        ("c=2&p=1&t=5|a|-1.00|1", "t", "whole number"),
        ("c=2&p=1&t=5|a|NaN|1", "t", "two decimals"),
        ("c=2&p=1&t=5|a|9999999999999.00|1", "t", "too large"),
        ("c=2&p=1&t=5|a|1.00|0", "t", "out of range"),
        ("c=2&p=1&t=5|a|1.00|", "t", "whole number"),
        ("c=2&p=1&t=5|" + "a" * 257 + "|1.00|1", "t", "256 bytes"),
        ("c=2&p=1&t=5|\ud800|1.00|1", "t", "surrogate"),
        ("c=2&p=1&t=" + ".".join(map(str, range(1, 52))) + "|a|1.00|1", "t", "1 to 50 goals"),
        ("c=2&p=1&t=" + "a" * 70_000, "query", "longer than"),
    ],
)
def test_what_breaks_a_rule_is_refused_naming_parameter_and_rule(
    text: str, parameter: str, reason: str
) -> None:
    with pytest.raises(WireError) as caught:
        decode(text)
    assert caught.value.parameter == parameter
    assert reason in caught.value.reason
    assert len(str(caught.value)) < 400


@given(hits())
def test_any_hit_comes_back_from_its_url(hit: Hit) -> None:
    assert decode(encode(hit)) == hit
    assert decode(query(hit)) == hit
    assert query(decode(query(hit))) == query(hit)


@given(hits())
def test_a_query_consists_of_characters_a_uri_allows(hit: Hit) -> None:
    legal = r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-F]{2})*"  # RFC 3986, section 3.4
    if hit.transaction is not None and hit.transaction.separator == "|":
        legal = legal.replace(":@", ":@|")  # read in that spelling, and so written
    assert re.fullmatch(legal, query(hit), re.ASCII)


tokens = st.sampled_from(
    ["c=", "p=", "e=", "ea=", "g=", "ga=", "t=", "&", ",", ".", "-", "|", "%", "7C", "?", "#", "1", "0", "99"]
)
nearly = st.builds(
    lambda hit, cut, more: query(hit)[:cut] + more + query(hit)[cut:],
    hits(),
    st.integers(0, 200),
    st.text(max_size=3),
)


@given(
    st.one_of(
        st.text(),
        st.lists(tokens).map("".join),
        st.lists(tokens).map(lambda pieces: "c=2&p=1&" + "".join(pieces)),
        nearly,
    )
)
def test_any_text_is_a_hit_or_a_wire_error_and_nothing_else(text: str) -> None:
    try:
        decoded = decode(text)
    except WireError:
        return
    assert decode(encode(decoded)) == decoded
