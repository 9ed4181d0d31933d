"""Run every pair and write down what came of it: ``python -m tests.matrix``."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from .page import PAGE, page
from .servers import SERVERS


class Outcomes:
    """A pytest plugin that remembers which tests passed."""

    def __init__(self) -> None:
        self.passed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.passed.add(report.nodeid.partition("[")[2].rstrip("]"))


def main() -> int:
    outcomes = Outcomes()
    code = pytest.main([str(Path(__file__).parent)], plugins=[outcomes])
    PAGE.write_text(page(lambda server, name: f"{server.name}-{name}" in outcomes.passed))
    wrong = [
        server.name
        for server in SERVERS
        if server.delivers is not None and server.name not in outcomes.passed
    ]
    if wrong:
        print(f"These servers do not shut down as the page says: {'; '.join(wrong)}", file=sys.stderr)
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
