"""Whatever is wrong with a command line is said in one sentence, and nothing happened."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

import pytest

from convert_middleware.cli import main
from tests.cli.programs import command, fill, hits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run where there is a text, a database and a folder; afterwards there is nothing else."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("CONVERT_")]:
        monkeypatch.delenv(name)
    (tmp_path / "text").write_text("no database, but longer than the header of one would be " * 20)
    (tmp_path / "folder").mkdir()
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE hits (id)")
    yield
    left = {path.name for path in tmp_path.iterdir()}
    assert left - {"other.db.lock"} == {"folder", "other.db", "text"}  # who opens it needs the lock


OUTBOXES = [
    ("memory://", "only its own process can see it"),
    ("sqlite:///missing.db", "missing.db', and there is no such file"),
    ("sqlite:///nowhere/outbox.db", "there is no directory"),
    ("sqlite:///folder", "which is a directory"),
    ("sqlite:///text", "which is no outbox"),
    ("sqlite:///other.db", "which is no outbox"),
    ("sqlite://outbox.db", "with four slashes if absolute"),
    ("sqlite:///outbox.db?colour=red", "max_hits and max_bytes"),
    ("mongo://me:password@host/", "not one that begins with 'mongo'"),
    ("", "must be 'sqlite:///path/to/file'"),
]


@pytest.mark.parametrize(("url", "complaint"), OUTBOXES)
@pytest.mark.parametrize(
    "task",
    [["status"], ["dead"], ["replay", "--all"], ["purge", "--dead", "--yes"]],
    ids=lambda task: task[0],
)
def test_an_outbox_that_cannot_be_looked_into_is_named(
    task: list[str], url: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["outbox", *task, "--outbox", url]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("convert-middleware: outbox ")
    assert complaint in said.err
    assert said.err.count("\n") == 1
    assert "password" not in said.err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--outbox", "memory://"], "only its own process can see it"),
        (["--outbox", "sqlite:///nowhere/outbox.db"], "there is no directory"),
        (["--outbox", "sqlite:///other.db"], "a database of another program"),
        (["--outbox", "mongo://me:password@host/"], "must be"),
        (["--outbox", "sqlite:///o.db", "--endpoint", "https://{project}.example/"], "no other placeholder"),
        (
            ["--outbox", "sqlite:///o.db", "--sender", "curl"],
            "must be one of 'auto', 'httptools', 'pyreqwest', 'httpx', 'httpx2', not 'curl'.",
        ),
        (["--outbox", "sqlite:///o.db", "--on-ambiguous", "guess"], "must be 'drop' or 'retry'"),
        (["--outbox", "sqlite:///o.db", "--drain-timeout", "-1"], "must be 0 to 300 seconds"),
        ([], "is missing: pass --outbox or set CONVERT_OUTBOX"),
    ],
)
def test_a_worker_that_cannot_work_says_so_at_once(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["worker", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert complaint in said.err
    assert said.err.count("\n") == 1
    assert "password" not in said.err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "COMMAND"),
        (["outbox"], "TASK"),
        (["outbox", "burn"], "invalid choice: 'burn'"),
        (["outbox", "purge"], "one of the arguments --dead --waiting is required"),
        (["outbox", "purge", "--dead", "--waiting"], "not allowed with"),
        (["outbox", "dead", "--number", "0"], "is not a number from 1 to 10000"),
        (["outbox", "dead", "--number", "x"], "is not a number from 1 to 10000"),
        (["worker", "--report", "0"], "is not a time from 0.1 to 86400 seconds"),
        (["worker", "--report", "nan"], "is not a time from 0.1 to 86400 seconds"),
        (["worker", "--colour", "red"], "unrecognized arguments"),
    ],
)
def test_a_command_line_that_makes_no_sense_ends_with_2(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert complaint in capsys.readouterr().err


def test_a_variable_that_makes_no_sense_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CONVERT_OUTBOX", "sqlite:///o.db")
    monkeypatch.setenv("CONVERT_SENDER", "curl")
    assert main(["worker"]) == 2
    assert "'httpx2', not 'curl'." in capsys.readouterr().err
    monkeypatch.setenv("CONVERT_DRAIN_TIMEOUT", "soon")
    assert main(["worker"]) == 2
    assert "CONVERT_DRAIN_TIMEOUT must be a number of seconds, not 'soon'." in capsys.readouterr().err


def test_what_only_concerns_the_site_does_not_concern_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CONVERT_OUTBOX", "sqlite:///missing.db")
    monkeypatch.setenv("CONVERT_ID_NUMBER", "no number")
    monkeypatch.setenv("CONVERT_SECRET_KEY", "short")
    monkeypatch.setenv("CONVERT_COOKIE_SAMESITE", "nonsense")
    assert main(["outbox", "status"]) == 2
    assert "there is no such file" in capsys.readouterr().err


def test_a_missing_rich_is_named_and_json_works_without_it(tmp_path: Path) -> None:
    fill(tmp_path / "o.db", hits(range(1, 3)))
    code = (
        "import sys; sys.modules['rich'] = None\n"
        "from convert_middleware.cli import main\n"
        f"sys.exit(main(['outbox', 'status', '--outbox', 'sqlite:///{tmp_path}/o.db', *sys.argv[1:]]))"
    )
    table, facts = (
        subprocess.run(
            [sys.executable, "-c", code, *more], capture_output=True, text=True, timeout=30, check=False
        )
        for more in ([], ["--json"])
    )
    for path in tmp_path.glob("o.db*"):
        path.unlink()

    assert (table.returncode, table.stdout) == (2, "")
    assert "rich is missing" in table.stderr
    assert "pip install 'convert-middleware[cli]'" in table.stderr
    assert (facts.returncode, facts.stderr) == (0, "")
    assert '"waiting": 2' in facts.stdout


def test_the_command_is_installed_under_its_name_and_knows_its_version() -> None:
    done = command("--version")
    (script,) = entry_points(group="console_scripts", name="convert-middleware")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout[0].isdigit()
    assert script.load() is main
