from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest

from convert_middleware.collector import Collector, create_collector
from convert_middleware.collector.faults import Fault
from convert_middleware.collector.serve import running

if TYPE_CHECKING:
    from collections.abc import Iterator

AGENT = "ConvertAgent/1.0 convert-middleware/test"
EXAMPLE = "c=2&p=1&e=11-12-331.33.34,21-22-33.331.341&ea=1&g=331,33,34,341,35&ga=3&t=35|ab12345|1599.99|10"


@pytest.fixture(scope="session")
def served() -> Iterator[tuple[str, Collector]]:
    app = create_collector()
    with running(app) as address:
        yield address, app.state.collector
    app.state.collector.close()


@pytest.fixture
def address(served: tuple[str, Collector]) -> str:
    return served[0]


@pytest.fixture
def collector(served: tuple[str, Collector]) -> Iterator[Collector]:
    collector = served[1]
    collector.clear()
    collector.faults.set(Fault())
    yield collector
    collector.faults.set(Fault())


@pytest.fixture
def client(address: str, collector: Collector) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, headers={"User-Agent": AGENT}, timeout=5, trust_env=False) as client:
        yield client
