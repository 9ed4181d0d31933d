"""A process knows whether it is a child that nobody told so."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import TYPE_CHECKING

import pytest

from convert_middleware.delivery import forks

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.skipif(sys.platform != "linux", reason="only there the C library needs no name")
@pytest.mark.parametrize("make", [forks._make_mark, forks._Number])
def test_what_marks_a_process_is_gone_in_its_child_and_stays_in_the_parent(
    make: Callable[[], forks._Number],
) -> None:
    mark = make()
    mark[0] = 1
    child = ctypes.PyDLL(None).fork()
    if not child:
        before = mark[0]
        mark[0] = 1
        os._exit(10 * before + mark[0])

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert mark[0] == 1
