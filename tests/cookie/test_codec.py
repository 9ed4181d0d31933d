"""Whatever a browser sends back is a state or rejected with its reason, and nothing else."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import b64encode
from binascii import b2a_base64

import pytest
from hypothesis import given
from hypothesis import strategies as st
from itsdangerous import Signer, URLSafeTimedSerializer

from convert_middleware.cookie import BUDGET, CLOCK_SKEW, CookieCodec, RejectedError, Rejection
from convert_middleware.cookie.codec import _ALGORITHM
from convert_middleware.visitor import Visitor
from tests.histories import NOW, VISITOR_ID, visitors

KEY = "a secret of the shop, long enough"
OLD_KEY = "the key it had before, long enough"
NEW_KEY = "the key it will have, long enough"
YEAR = 365 * 86_400
YEAR_2106 = 2**32
STATE = Visitor(VISITOR_ID, NOW).present(11, 12, NOW).reach(331, NOW).pay("ab12345", NOW)

codec = CookieCodec([KEY], YEAR)


def rejection(text: bytes, now: float = NOW, reader: CookieCodec = codec) -> Rejection:
    with pytest.raises(RejectedError) as caught:
        reader.read(text, now)
    assert KEY not in str(caught.value)
    return caught.value.reason


def signed(value: bytes, purpose: str = "cookie", key: str = KEY) -> bytes:
    """Return ``value`` with a signature made by itsdangerous alone, spelt as ours."""
    signer = Signer(
        key, salt=f"convert_middleware.{purpose}", key_derivation="hmac", digest_method=hashlib.sha256
    )
    raw = signer.algorithm.get_signature(signer.derive_key(), value)
    return value + b"." + b2a_base64(raw, newline=False).rstrip(b"=")


def payload(raw: bytes) -> bytes:
    return b"1." + b2a_base64(raw, newline=False).rstrip(b"=")


@given(visitors())
def test_any_state_goes_to_a_cookie_and_comes_back_the_same(visitor: Visitor) -> None:
    text, evicted = codec.write(visitor)
    assert evicted is None
    assert codec.read(text, NOW) == (visitor, False)


def test_the_signature_is_the_hmac_sha256_of_itsdangerous() -> None:
    text, _ = codec.write(STATE)
    assert text == signed(text.rpartition(b".")[0])


def test_a_cookie_needs_no_quoting() -> None:
    text, _ = codec.write(STATE)
    assert set(text) <= set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/.")


def test_a_cookie_with_any_byte_changed_is_no_cookie() -> None:
    text, _ = codec.write(STATE)
    reasons = set()
    for place, byte in enumerate(text):
        for bit in range(8):
            reasons.add(rejection(text[:place] + bytes([byte ^ 1 << bit]) + text[place + 1 :]))
    assert reasons <= {Rejection.SIGNATURE, Rejection.MALFORMED, Rejection.VERSION}


@given(visitors(), st.data())
def test_a_cookie_with_any_byte_replaced_is_no_cookie(visitor: Visitor, data: st.DataObject) -> None:
    text, _ = codec.write(visitor)
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.integers(0, 255).filter(lambda byte: byte != text[place]))
    rejection(text[:place] + bytes([other]) + text[place + 1 :])


def test_a_cookie_cut_at_any_length_is_no_cookie() -> None:
    text, _ = codec.write(STATE)
    for length in range(len(text)):
        assert rejection(text[:length]) in (Rejection.SIGNATURE, Rejection.MALFORMED)
        assert rejection(text[length + 1 :]) in (Rejection.SIGNATURE, Rejection.MALFORMED, Rejection.VERSION)


@given(visitors(), st.binary(min_size=1, max_size=8))
def test_a_cookie_with_something_added_is_no_cookie(visitor: Visitor, more: bytes) -> None:
    text, _ = codec.write(visitor)
    rejection(text + more)
    if more + text != text:
        rejection(more + text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", Rejection.MALFORMED),
        (b"null", Rejection.MALFORMED),
        (b"{}", Rejection.MALFORMED),
        (b"1", Rejection.MALFORMED),
        (b".", Rejection.MALFORMED),
        (b"1.", Rejection.SIGNATURE),
        (b"1..", Rejection.SIGNATURE),
        (b"2.abc.def", Rejection.VERSION),
        (b"999.abc", Rejection.VERSION),
        (b"\x00" * 100, Rejection.MALFORMED),
        (b"1." + b"a" * BUDGET, Rejection.TOO_LONG),
        (b"1" * 2**20, Rejection.TOO_LONG),
    ],
)
def test_what_is_no_cookie_of_ours_is_rejected_with_the_reason(text: bytes, reason: Rejection) -> None:
    assert rejection(text) == reason


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda raw: b"1." + raw))
def test_arbitrary_bytes_are_rejected(text: bytes) -> None:
    rejection(text)


@given(st.binary(max_size=400))
def test_arbitrary_content_under_a_valid_signature_is_a_state_or_malformed(raw: bytes) -> None:
    try:
        visitor, _ = codec.read(signed(payload(raw)), NOW)
    except RejectedError as error:
        reason = error.reason
    else:
        assert len(visitor.triplets()) == len(visitor.experiments)
        return
    assert reason in (Rejection.MALFORMED, Rejection.FUTURE, Rejection.EXPIRED)


@pytest.mark.parametrize(
    "value",
    [
        b"1.",
        b"1.null",
        b"1.not base64 at all!",
        b"1.\xff\xfe",
        b"1.a",
        payload(json.dumps({"visitor": "somebody"}).encode()),
        payload(b"[" * 2000 + b"]" * 200),
        payload(b"\x04" + b"\xff" * 30),
        payload(b"\x08" + b"\xff\xff\xff\xff\xff" + b"\x00" * 24),
        payload(b"\x00" * 30),
        payload(b"\x07" + b"\x00" * 29),
    ],
)
def test_foreign_content_under_a_valid_signature_is_malformed(value: bytes) -> None:
    assert rejection(signed(value)) == Rejection.MALFORMED


def test_another_versions_content_is_told_apart_before_its_signature() -> None:
    assert rejection(signed(b"2." + payload(b"x")[2:])) == Rejection.VERSION


@pytest.mark.parametrize("key", [KEY, OLD_KEY])
def test_another_programs_signature_is_no_signature_of_ours(key: str) -> None:
    foreign = URLSafeTimedSerializer(key).dumps({"experiment": 11})
    assert rejection(foreign.encode()) == Rejection.MALFORMED
    assert rejection(b"1." + foreign.encode()) == Rejection.SIGNATURE
    text, _ = codec.write(STATE)
    assert rejection(Signer(key).sign(text.rpartition(b".")[0])) == Rejection.SIGNATURE


def test_what_is_signed_for_one_purpose_is_not_accepted_for_another() -> None:
    token = CookieCodec([KEY], YEAR, purpose="token")
    assert rejection(token.write(STATE)[0]) == Rejection.SIGNATURE
    assert rejection(codec.write(STATE)[0], reader=token) == Rejection.SIGNATURE


@pytest.mark.parametrize("offset", [0, 5, 3600, -5, -CLOCK_SKEW])
def test_a_cookie_of_a_clock_that_is_a_little_ahead_is_accepted(offset: int) -> None:
    assert codec.read(codec.write(STATE)[0], NOW + offset)[0] == STATE


@pytest.mark.parametrize("offset", [-CLOCK_SKEW - 1, -3600, -NOW])
def test_a_cookie_from_the_future_is_rejected(offset: int) -> None:
    assert rejection(codec.write(STATE)[0], NOW + offset) == Rejection.FUTURE


def test_a_cookie_is_accepted_until_its_life_is_over() -> None:
    text, _ = codec.write(STATE)
    for offset in (-5, 0, CLOCK_SKEW):
        assert codec.read(text, NOW + YEAR + offset)[0] == STATE
    for offset in (CLOCK_SKEW + 1, 3600 + CLOCK_SKEW, 50 * YEAR):
        assert rejection(text, NOW + YEAR + offset) == Rejection.EXPIRED


@pytest.mark.parametrize("now", [0, 2**31 - 1, 2**31, YEAR_2106 - 1, YEAR_2106, 2**40])
def test_cookies_work_in_any_year(now: int) -> None:
    visitor = Visitor(VISITOR_ID, now).present(11, 12, now + 5).reach(331, now + YEAR)
    assert codec.read(codec.write(visitor)[0], now + YEAR) == (visitor, False)


def test_times_further_apart_than_a_clock_can_be_wrong_are_kept() -> None:
    visitor = Visitor(VISITOR_ID, NOW).present(11, 12, NOW + 2**33).reach(331, NOW + 2**34)
    assert codec.read(codec.write(visitor)[0], NOW) == (visitor, False)


def test_a_life_that_starts_anew_does_not_make_the_visitor_younger() -> None:
    later = NOW + YEAR - 5
    text, _ = codec.write(STATE, later)
    assert codec.read(text, later + YEAR)[0].presented_at == STATE.presented_at
    assert codec.read(text, later + YEAR)[0].issued_at == STATE.issued_at
    assert rejection(text, later + YEAR + CLOCK_SKEW + 1) == Rejection.EXPIRED


def test_keys_are_rotated_step_by_step_without_losing_a_visitor() -> None:
    old, both, new = (CookieCodec(keys, YEAR) for keys in ([OLD_KEY], [NEW_KEY, OLD_KEY], [NEW_KEY]))
    first, _ = old.write(STATE)
    assert both.read(first, NOW) == (STATE, True)
    again, _ = both.write(STATE)
    assert both.read(again, NOW) == (STATE, False)
    assert new.read(again, NOW) == (STATE, False)
    assert rejection(first, reader=new) == Rejection.SIGNATURE
    assert rejection(again, reader=old) == Rejection.SIGNATURE


def test_every_previous_key_is_accepted_and_none_that_was_not_given() -> None:
    both = CookieCodec([KEY, NEW_KEY, OLD_KEY], YEAR)
    for number, key in enumerate((KEY, NEW_KEY, OLD_KEY)):
        assert both.read(CookieCodec([key], YEAR).write(STATE)[0], NOW) == (STATE, number > 0)
    assert rejection(CookieCodec([KEY[:-1]], YEAR).write(STATE)[0], reader=both) == Rejection.SIGNATURE


def test_text_and_bytes_of_one_key_are_the_same_key() -> None:
    assert CookieCodec([KEY.encode()], YEAR).read(codec.write(STATE)[0], NOW) == (STATE, False)


@given(st.binary(min_size=16, max_size=200), st.binary(max_size=300))
def test_a_signature_is_the_hmac_of_the_standard_library(key: bytes, value: bytes) -> None:
    expected = b64encode(hmac.digest(key, value, "sha256")).rstrip(b"=")

    assert _ALGORITHM.get_signature(key, value) == expected
