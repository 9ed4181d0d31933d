"""The real browser: where it is, and what it is started with."""

from __future__ import annotations

import os
import shutil
from typing import Final

SWITCHES: Final = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium_path() -> str:
    """Return where Chromium is."""
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    assert path, "Chromium is needed for these tests: on Debian, apt install chromium"
    return path
