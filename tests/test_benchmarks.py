"""The benchmarks run; what they measure is for `make bench` to say, never for a test."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def test_every_row_can_be_measured_and_is_written_down(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--json", str(figures)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr
    lines = json.loads(figures.read_text())["lines"]
    assert {line["row"] for line in lines} == {"1", "2", "3", "4", "5", "6", "7", "8"}
    assert all(line["ratio"] > 0 for line in lines)


def test_an_unknown_row_is_named() -> None:
    command = [sys.executable, "-m", "benchmarks", "99"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "99" in done.stderr
