from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx
import pytest

from convert_middleware.collector.__main__ import main

from .conftest import AGENT, EXAMPLE

if TYPE_CHECKING:
    from pathlib import Path


def test_the_program_serves_until_interrupted_and_keeps_what_it_got(tmp_path: Path) -> None:
    names, database = tmp_path / "names.json", tmp_path / "hits.db"
    names.write_text(json.dumps({"experiments": {"11": "Headline"}}), "utf-8")
    command = [sys.executable, "-m", "convert_middleware.collector", "--port", "0"]
    command += ["--database", str(database), "--catalogue", str(names)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert address is not None
        transport = httpx.HTTPTransport(retries=3)
        with httpx.Client(base_url=address[0], transport=transport, timeout=10) as client:
            client.get(f"/track/?{EXAMPLE}", headers={"User-Agent": AGENT})
            summary = client.get("/api/summary").json()
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=10)
    assert summary["experiments"]["11"]["name"] == "Headline"
    assert (process.returncode, complaints) == (0, "")
    again = create_and_sum(database)
    assert again == summary["totals"]


def create_and_sum(database: Path) -> object:
    from convert_middleware.collector import create_collector

    collector = create_collector(str(database)).state.collector
    totals = collector.summary()["totals"]
    collector.close()
    return totals


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--port", "65536"], "is not a port"),
        (["--port", "x"], "is not a port"),
        (["--colour", "red"], "unrecognized arguments"),
    ],
)
def test_a_wrong_argument_ends_with_2(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert complaint in capsys.readouterr().err


def test_files_that_cannot_be_used_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "names.json"
    bad.write_text("{", "utf-8")
    assert main(["--port", "0", "--catalogue", str(tmp_path / "missing.json")]) == 2
    assert "missing.json: No such file" in capsys.readouterr().err
    assert main(["--port", "0", "--catalogue", str(bad)]) == 2
    assert "is no JSON text" in capsys.readouterr().err
    assert main(["--port", "0", "--database", str(tmp_path / "no" / "hits.db")]) == 2
    assert "database cannot be opened" in capsys.readouterr().err


def test_an_address_in_use_is_named(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    port = address.rpartition(":")[2]
    assert main(["--port", port]) == 2
    said = capsys.readouterr().err
    assert said.endswith(f"cannot listen on 127.0.0.1 port {port}: Address already in use\n")


def test_a_missing_uvicorn_is_named_with_the_way_to_get_it() -> None:
    code = (
        "import sys; sys.modules['uvicorn'] = None\n"
        "from convert_middleware.collector.__main__ import main\n"
        "raise SystemExit(main([]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert "uvicorn is missing" in done.stderr
    assert "convert-middleware[collector]" in done.stderr
