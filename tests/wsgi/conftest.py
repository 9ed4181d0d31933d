"""A WSGI site with our door in front and Convert behind."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.asgi.conftest import SECRET, Convert

if TYPE_CHECKING:
    from tests.servers import TrackingServer


@pytest.fixture
def convert(tracking_server: TrackingServer, caplog: pytest.LogCaptureFixture) -> Iterator[Convert]:
    """Convert; afterwards every hit is accounted for and no log line tells a secret."""
    caplog.set_level("DEBUG")
    convert = Convert(tracking_server)
    yield convert
    convert.check_accounts()
    assert SECRET not in caplog.text
    for target in tracking_server.targets:
        assert target not in caplog.text
