"""Whatever is put in the place of a part keeps its mouth shut too."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def discreet(nothing_is_told: None) -> None:
    """After each test no log line has told a secret."""
