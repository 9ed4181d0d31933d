"""A Cookie header bent in any way is read without an error and in bounded time."""

from __future__ import annotations

import subprocess
import sys
from time import thread_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from convert_middleware.browser import VISITOR_COOKIE, read_state
from convert_middleware.cookie import CookieCodec, RejectedError, find
from convert_middleware.visitor import Visitor
from tests.histories import NOW, visitors

NAME = b"convert_visitor"
CODEC = CookieCodec(["a key for the tests only"], 395 * 86_400)
BROWSERS_OWN = b"_conv_v=vi:1*sc:2*exp:{11.{v.12-g.{331.1-33.1}}-21.{v.22-g.{}}}*seg:{}"

_junk = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [b"{", b"}", b"*exp:{", b"11.{v.12-g.{", b"%7B", b"%", b"=", b";", b'"', b"1.", b"\x00"]
    ).flatmap(lambda piece: st.integers(1, 200).map(lambda times: piece * times)),
)


@st.composite
def bent_headers(draw: st.DrawFn) -> bytes:
    """Draw a Cookie header that was whole, with parts taken out and junk put in."""
    ours = NAME + b"=" + CODEC.write(draw(visitors()))[0]
    header = b"; ".join(draw(st.permutations([ours, BROWSERS_OWN, b"a=1", b'b={"c": "d=e"}'])))
    for _ in range(draw(st.integers(0, 4))):
        first = draw(st.integers(0, len(header)))
        last = draw(st.integers(first, min(len(header), first + 40)))
        header = header[:first] + draw(_junk) + header[last:]
    return header


@given(bent_headers())
def test_a_bent_header_is_a_state_or_no_state(header: bytes) -> None:
    begun = thread_time()
    for text in find(header, NAME):
        try:
            visitor, _ = CODEC.read(text, NOW)
        except RejectedError:
            continue
        assert isinstance(visitor, Visitor)
    state = read_state(find(header, VISITOR_COOKIE))
    assert len(state.exposures) <= 150
    assert thread_time() - begun < 0.25


def test_many_bent_headers_are_read_and_the_figures_are_told() -> None:
    command = [sys.executable, "-m", "benchmarks.fuzz_cookies", "--headers", "2000", "--seed", "7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("failed 0") == 2


@pytest.mark.parametrize("name", [NAME, VISITOR_COOKIE])
@pytest.mark.parametrize(
    "unit",
    [b";", b"; ", b" ", b"\t;", b"=", b'"', b"a", b";NAME", b"; NAME =", b"NAME= ;", b"NAME \t", b";NAME="],
)
def test_no_header_costs_much_more_than_its_length(name: bytes, unit: bytes) -> None:
    unit = unit.replace(b"NAME", name)
    header = b"a=1; " + unit * (2**20 // len(unit)) + b"; " + name + b"=1"
    begun = thread_time()
    find(header, name)
    assert thread_time() - begun < 0.1  # 64 KiB of it are looked at
