"""The command line: what may be said, where the rest comes from, and complaints of one sentence."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import secrets
import sys
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

from convert_middleware.cli.outbox import carry_out
from convert_middleware.cli.output import complain
from convert_middleware.cli.worker import work
from convert_middleware.errors import ConvertError, SettingsError, shown
from convert_middleware.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_OPTIONS: Final = ("outbox", "endpoint", "sender", "on_ambiguous", "drain_timeout")
_VARIABLES: Final = {f"CONVERT_{name.upper()}" for name in _OPTIONS}
_SENDERS: Final = ("auto", "httptools", "pyreqwest", "httpx", "httpx2")  # what a word can say of the option


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: What follows the program's name; none: the command line of this process.

    Returns:
        The exit code: 0, 1 where not all that was asked was done, 2 if something about the options is wrong.
    """
    given = _parser().parse_args(arguments)
    try:
        settings = _settings(given)
        if given.command == "worker":
            with _log_to_stderr():
                return asyncio.run(work(settings, every=given.report, as_json=given.json))
        return asyncio.run(carry_out(given, str(settings.outbox)))
    except ConvertError as error:
        complain(str(error))
        return getattr(error, "code", 2)
    except KeyboardInterrupt:
        return 130


def _settings(given: argparse.Namespace) -> Settings:
    """Return what the command line says, and the environment where that is silent.

    Whose hits they are stands in the hits, and a worker signs nothing, so those options are made up.
    """
    environ = {name: text for name, text in os.environ.items() if name in _VARIABLES}
    chosen: dict[str, Any] = {name: getattr(given, name, None) for name in _OPTIONS}
    if given.outbox is None and "CONVERT_OUTBOX" not in environ:
        raise SettingsError("outbox", "is missing: pass --outbox or set CONVERT_OUTBOX")
    try:
        return Settings.from_env(
            environ, project_id=1, customer_id=1, secret_key=secrets.token_bytes(32), **chosen
        )
    except SettingsError as error:
        if error.option not in ("sender", "CONVERT_SENDER"):
            raise
        # A site may also pass a function; nobody can do that here.
        names = ", ".join(map(repr, _SENDERS))
        wrong = shown(given.sender or environ.get("CONVERT_SENDER"))
        raise SettingsError(error.option, f"must be one of {names}, not {wrong}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="convert-middleware",
        description="Sends tracking hits that wait in an outbox, and looks after them.",
        epilog="Options that are not given are read from CONVERT_<OPTION>.",
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--outbox", metavar="URL", help="where hits wait, such as sqlite:////var/lib/shop/outbox.db"
    )
    shared.add_argument(
        "--json", action="store_true", default=_wants_json(), help="write JSON instead of text"
    )
    _add_worker(commands.add_parser("worker", parents=[shared], help="send what waits, until told to stop"))
    tasks = commands.add_parser("outbox", help="inspect, replay or purge an outbox").add_subparsers(
        dest="task", required=True, metavar="TASK"
    )
    tasks.add_parser("status", parents=[shared], help="what it holds")
    _add_dead(tasks.add_parser("dead", parents=[shared], help="hits that Convert refused for good"))
    _add_replay(tasks.add_parser("replay", parents=[shared], help="put dead letters back in line"))
    _add_purge(tasks.add_parser("purge", parents=[shared], help="delete dead letters or waiting hits"))
    return parser


def _add_worker(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--endpoint",
        metavar="URL",
        help="where to send them, up to the ?; {project_id} stands for the project of each hit",
    )
    parser.add_argument("--sender", metavar="|".join(_SENDERS), help="HTTP client to use (default: auto)")
    parser.add_argument(
        "--on-ambiguous",
        metavar="drop|retry",
        help="what to do with hits that may have arrived (default: drop)",
    )
    parser.add_argument(
        "--drain-timeout",
        type=float,
        metavar="SECONDS",
        help="time to finish what is under way (default: 5)",
    )
    parser.add_argument(
        "--report",
        type=_period,
        default=os.environ.get("CONVERT_REPORT", "10"),
        metavar="SECONDS",
        help="time between reports (default: 10)",
    )


def _add_dead(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--number", type=_number, default=50, help="how many to show (default: 50)")
    parser.add_argument("--after", default="", metavar="KEY", help="continue after this letter")
    parser.add_argument(
        "--show-text", action="store_true", help="show the requests too, with what visitors did"
    )


def _add_replay(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("keys", nargs="*", metavar="KEY", help="a key that 'outbox dead' shows")
    parser.add_argument("--all", action="store_true", help="replay every dead letter there is now")


def _add_purge(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--dead", action="store_true", help="delete the dead letters")
    what.add_argument("--waiting", action="store_true", help="delete the hits that wait")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def _wants_json() -> bool:
    return os.environ.get("CONVERT_JSON", "").strip().lower() in ("1", "true", "yes", "on")


def _period(text: str) -> float:
    with suppress(ValueError):
        if 0.1 <= float(text) <= 86_400:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a time from 0.1 to 86400 seconds")


def _number(text: str) -> int:
    with suppress(ValueError):
        if 1 <= int(text) <= 10_000:
            return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 10000")


@contextmanager
def _log_to_stderr() -> Iterator[None]:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("convert_middleware")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def _version() -> str:
    try:
        return version("convert-middleware")
    except PackageNotFoundError:  # used from a source tree that was never installed
        return "0"
