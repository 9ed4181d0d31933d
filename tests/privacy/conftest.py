"""A site behind each door in turn, with Convert behind it; after every test the accounts are checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from tests.asgi.conftest import Convert
from tests.privacy.doors import DOORS, Request

if TYPE_CHECKING:
    from convert_middleware import Tracker
    from tests.privacy.doors import Answer, Door, Record
    from tests.servers import TrackingServer


@pytest.fixture
def convert(tracking_server: TrackingServer, nothing_is_told: None) -> Iterator[Convert]:
    """Convert; afterwards every hit is accounted for and no log line tells a secret."""
    convert = Convert(tracking_server)
    yield convert
    convert.check_accounts()


@dataclass(frozen=True)
class Browser:
    """Asks one site for pages, behind one kind of door."""

    convert: Convert
    tracker: Tracker
    door: Door

    def get(self, record: Record, **request: Any) -> Answer:
        """Ask for a page that records this."""
        return self.door(self.tracker, record, Request(**request))


class Sites:
    """Opens sites behind one kind of door."""

    def __init__(self, convert: Convert, door: Door) -> None:
        self.convert = convert
        self.door = door

    def open(self, **options: Any) -> Browser:
        """Return a browser in front of a site with these options."""
        return Browser(self.convert, self.convert.tracker(**options), self.door)


@pytest.fixture(params=sorted(DOORS))
def sites(request: pytest.FixtureRequest, convert: Convert) -> Sites:
    """Sites behind each door in turn."""
    return Sites(convert, DOORS[str(request.param)])
