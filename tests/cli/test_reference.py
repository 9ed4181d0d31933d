"""The reference names every option of the commands, and no other."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator

from convert_middleware.cli.command import _parser
from tests.cli.programs import ROOT

PAGE = (ROOT / "docs/reference/commands.md").read_text("utf-8")


def options_of(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from (name for name in action.option_strings if name.startswith("--"))
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from options_of(each)


def test_every_option_is_in_the_reference_and_no_other() -> None:
    assert set(options_of(_parser())) - {"--version"} == set(re.findall(r"--[a-z][a-z-]*", PAGE))


def test_every_task_has_a_section() -> None:
    assert re.findall(r"^## `(.+)`$", PAGE, re.MULTILINE) == [
        "worker", "outbox status", "outbox dead", "outbox replay", "outbox purge",
    ]  # fmt: skip
