"""``convert-middleware outbox``: what people ask of an outbox, and what they change in it."""

from __future__ import annotations

import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from convert_middleware.cli.output import (
    CommandError,
    age,
    number_of,
    printable,
    public,
    redacted,
    say,
    say_json,
)
from convert_middleware.delivery import Worth
from convert_middleware.delivery.upkeep import Upkeep, open_upkeep

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Coroutine, Iterator, Sequence

    from convert_middleware.delivery.upkeep import Letter, Status

PAGE: Final = 500  # dead letters read, or let wait again, at a time
_COLUMNS: Final = ["key", "died", "waited", "worth", "tried", "reason"]  # of the table of dead letters


async def carry_out(given: Namespace, outbox: str) -> int:
    """Carry out a command of the group and return the exit code.

    Args:
        given: The command line.
        outbox: URL of the outbox.

    Raises:
        ConvertError: It cannot be done; the message says why.
    """
    upkeep = open_upkeep(outbox)
    try:
        return await _COMMANDS[given.task](upkeep, given, outbox)
    finally:
        await upkeep.close()


async def _status(upkeep: Upkeep, given: Namespace, outbox: str) -> int:
    status = await upkeep.status()
    if given.json:
        say_json({"outbox": public(outbox), **facts_of(status, time.time())})
        return 0
    table = _table("", "")
    for what, number in _rows_of(status, time.time()):
        table.add_row(what, number)
    say(public(outbox))
    _show(table)
    return 0


def facts_of(status: Status, now: float) -> dict[str, Any]:
    """Return a status as JSON has it, with the age of the oldest hit in seconds."""
    facts = asdict(status)
    oldest = facts.pop("oldest")
    return {**facts, "oldest_age": None if oldest is None else round(max(0.0, now - oldest), 3)}


def _rows_of(status: Status, now: float) -> list[tuple[str, str]]:
    return [
        ("waiting", f"{status.waiting:,}"),
        ("  of these tried before", f"{status.retrying:,}"),
        ("  bytes", f"{status.bytes:,}"),
        ("  oldest", "-" if status.oldest is None else age(now - status.oldest)),
        ("in flight", f"{status.in_flight:,}"),
        ("dead letters", f"{status.dead:,}"),
        ("processes seen lately", f"{status.processes:,}"),
    ]


async def _dead(upkeep: Upkeep, given: Namespace, outbox: str) -> int:
    del outbox
    letters = await upkeep.dead(given.number, given.after)
    total = (await upkeep.status()).dead
    if given.json:
        shown = [_facts_of(letter, text=given.show_text) for letter in letters]
        say_json({"dead": total, "letters": shown})
        return 0
    if not letters:
        say("There are no dead letters." if not total else "There are no further dead letters.")
        return 0
    if given.show_text:
        _say_with_texts(letters)
    else:
        table = _table(*_COLUMNS)
        for letter in letters:
            table.add_row(*map(_plain, _cells_of(letter)))
        _show(table)
    if len(letters) == given.number and len(letters) < total:
        say(f"{len(letters)} of {total}; continue with --after {printable(letters[-1].key)}")
    return 0


def _facts_of(letter: Letter, *, text: bool) -> dict[str, Any]:
    facts = asdict(letter) | {"worth": _worth(letter.worth), "reason": redacted(letter.reason)}
    if not text:
        del facts["text"]
    return facts


def _say_with_texts(letters: Sequence[Letter]) -> None:
    """Write letters with their requests: those are too long for a column and have lines of their own."""
    rows = [_COLUMNS, *map(_cells_of, letters)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row, text in zip(rows, ["", *[printable(letter.text) for letter in letters]], strict=True):
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        if text:
            say(f"  {text}")


def _cells_of(letter: Letter) -> list[str]:
    return [
        printable(letter.key),
        datetime.fromtimestamp(letter.died_at, UTC).strftime("%Y-%m-%d %H:%M:%SZ"),
        age(letter.died_at - letter.accepted_at),
        _worth(letter.worth),
        f"{letter.attempts}",
        redacted(letter.reason),
    ]


def _worth(worth: int) -> str:
    try:
        return Worth(worth).name.lower()
    except ValueError:  # written by another version
        return str(worth)


async def _replay(upkeep: Upkeep, given: Namespace, outbox: str) -> int:
    del outbox
    if bool(given.keys) == given.all:
        raise CommandError("Name the keys of the letters to replay, or --all.", 2)
    # All are named before the first waits again, because who dies anew must not be replayed anew.
    keys = await _all_keys(upkeep) if given.all else list(dict.fromkeys(given.keys))
    replayed = 0
    with _progress(len(keys), hidden=given.json) as advance:
        for first in range(0, len(keys), PAGE):
            part = keys[first : first + PAGE]
            replayed += await upkeep.replay(part, time.time())
            advance(len(part))
    if given.json:
        say_json({"asked": len(keys), "replayed": replayed})
    else:
        verb = "waits" if replayed == 1 else "wait"
        say(f"{number_of('dead letter', replayed)} {verb} again.")
    if replayed < len(keys) and not given.all:
        raise CommandError(f"{number_of('key', len(keys) - replayed)} named no dead letter.")
    return 0


async def _all_keys(upkeep: Upkeep) -> list[str]:
    keys: list[str] = []
    while page := await upkeep.dead(PAGE, keys[-1] if keys else ""):
        keys += [letter.key for letter in page]
    return keys


async def _purge(upkeep: Upkeep, given: Namespace, outbox: str) -> int:
    status = await upkeep.status()
    what, number = ("dead letter", status.dead) if given.dead else ("waiting hit", status.waiting)
    question = f"Delete {number_of(what, number)} in {public(outbox)}?"
    if number and not given.yes and not _agreed(question):
        raise CommandError("Nothing was deleted; --yes deletes without asking.")
    purge = upkeep.purge_dead if given.dead else upkeep.purge_waiting
    deleted = await purge() if number else 0  # of what came since, nobody was asked
    if given.json:
        say_json({"deleted": deleted})
    else:
        say(f"{number_of(what, deleted)} deleted.")
    return 0


def _agreed(question: str) -> bool:
    """Ask whoever is there; nobody means no."""
    answer = ""
    # asyncio's own handler would let Ctrl-C wait for the answer.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        sys.stderr.write(f"{question} [y/N] ")
        sys.stderr.flush()
        answer = sys.stdin.readline()
    finally:
        signal.signal(signal.SIGINT, before)
        if not answer.endswith("\n"):  # nobody has ended the line
            sys.stderr.write("\n")
    return answer.strip().lower() in ("y", "yes")


_COMMANDS: Final[dict[str, Callable[[Upkeep, Namespace, str], Coroutine[Any, Any, int]]]] = {
    "status": _status,
    "dead": _dead,
    "replay": _replay,
    "purge": _purge,
}


def _table(*columns: str) -> Any:
    table = _rich("table").Table(show_header=any(columns))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _plain(text: str) -> Any:
    return _rich("text").Text(text)


def _show(table: Any) -> None:
    _rich("console").Console().print(table)


@contextmanager
def _progress(total: int, *, hidden: bool) -> Iterator[Callable[[int], object]]:
    """Show a bar on a terminal, and nothing elsewhere."""
    if hidden or not sys.stderr.isatty():
        yield lambda _: None
        return
    console = _rich("console").Console(stderr=True)
    with _rich("progress").Progress(console=console) as progress:
        task = progress.add_task("Replaying", total=total)
        yield lambda number: progress.advance(task, number)


def _rich(part: str) -> Any:
    """Return a part of rich, which is not always installed."""
    from importlib import import_module

    try:
        return import_module(f"rich.{part}")
    except ImportError as error:
        raise CommandError(
            "rich is missing. Install it with: pip install 'convert-middleware[cli]'; or add --json.", 2
        ) from error
