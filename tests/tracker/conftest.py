"""An engine with Convert behind it; after every test the accounts are checked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.asgi.conftest import Convert

if TYPE_CHECKING:
    from tests.servers import TrackingServer


@pytest.fixture
def convert(tracking_server: TrackingServer, nothing_is_told: None) -> Iterator[Convert]:
    """Convert; afterwards every hit is accounted for and no log line tells a secret."""
    convert = Convert(tracking_server)
    yield convert
    convert.check_accounts()
