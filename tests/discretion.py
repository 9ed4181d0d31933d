"""What no log line tells, at any level: signing keys, states, visitors, orders and queries."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

KEYS: Final = (
    "a secret of ", "another of at least 16 bytes", "a long enough secret", "the shop's own secret", "k" * 16,
)  # fmt: skip
TELLING: Final = {
    "a signing key": re.compile("|".join(map(re.escape, KEYS))),
    "a visitor's state": re.compile(r"\b1\.[\w+/=-]{16,}\.[\w+/=-]{40,}"),
    "a visitor's id": re.compile(r"(?<![0-9a-fA-F])[0-9a-f]{32}(?![0-9a-fA-F])"),
    "a query": re.compile(r"c=\d+&p=\d+|\b(?:e|ea|g|ga|t)=\d"),
    "an order": re.compile(r"(?<!\d)1599[.]99(?!\d)|ab12345|secret-order"),
}


def told(text: str) -> Iterator[str]:
    """Yield what the text tells, and where."""
    for what, pattern in TELLING.items():
        if found := pattern.search(text):
            yield f"{what}: {text[max(0, found.start() - 80) : found.end() + 20]!r}"


def assert_discreet(texts: Iterable[str]) -> None:
    """None of the texts tells anything."""
    found = [what for text in texts for what in told(text)]
    assert not found, f"{len(found)} log lines tell too much, such as {found[0]}"


class _Kept(logging.Handler):
    """Keeps every log line as it would be written, with its traceback."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@contextmanager
def overheard() -> Iterator[list[str]]:
    """Yield the lines that all loggers of this process write, down to DEBUG."""
    root, handler = logging.getLogger(), _Kept()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield handler.lines
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
