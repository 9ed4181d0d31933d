"""The soak runs and tells what grows; whether anything does takes half an hour to say."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.soak import Sample, growths

if TYPE_CHECKING:
    from pathlib import Path


def test_a_short_soak_samples_the_site_and_loses_nothing(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.soak", "--minutes", "0.05", "--json", str(figures)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in (0, 1), done.stderr  # in so short a time memory still grows
    told = json.loads(figures.read_text())
    assert len(told["samples"]) >= 4
    assert all(sample["rss"] > 1 and sample["threads"] and sample["files"] for sample in told["samples"])
    account = told["account"]
    ends = account["delivered"] + account["dead"] + sum(account["dropped"].values())
    assert account["accepted"] == ends > 0
    assert account["server"]["taken"] == account["delivered"]


def test_what_grows_steadily_is_not_flat_and_what_wavers_is() -> None:
    samples = [
        Sample(minute, 60.0 + minute, 3, 30 + minute % 2, 10 * (minute % 3), 4.0, 500.0, 5.0)
        for minute in range(40)
    ]
    flat = {growth.what: growth.flat for growth in growths(samples)}
    assert flat == {"rss": False, "threads": True, "files": True, "waiting": True, "outbox": True}
    assert abs(growths(samples)[0].per_hour - 60) < 1e-6


def test_one_thread_more_is_growth() -> None:
    samples = [Sample(minute, 60.0, 3 + (minute > 29), 30, 0, 4.0, 500.0, 5.0) for minute in range(40)]
    assert [growth.what for growth in growths(samples) if not growth.flat] == ["threads"]
