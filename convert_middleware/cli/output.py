"""How the commands speak: lines for people, JSON for programs, and nothing that a terminal would obey.

What is said of hits here holds no visitor, no amount and no URL.
"""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import suppress
from typing import Final

from convert_middleware.errors import ConvertError

_LONGEST: Final = 80  # characters of a reason
_TELLING: Final = re.compile(r"\S*(?:://|[=|%?])\S*")  # what a URL or a part of one would look like

_CREDENTIALS: Final = re.compile(r"(?<=://).*@")


class CommandError(ConvertError):
    """A command did not do all that was asked; the message is the sentence that says why.

    Attributes:
        code: The exit code: 1, or 2 if the command line or the installation is at fault.
    """

    def __init__(self, sentence: str, code: int = 1) -> None:
        super().__init__(sentence)
        self.code = code


def say(line: str) -> None:
    """Write a line to the standard output; whoever reads it may be gone."""
    try:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    except BrokenPipeError:  # from now on it goes nowhere, also what Python itself writes at the end
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError:  # as where the log's disk is full; the work goes on
        pass


def say_json(what: object) -> None:
    """Write one line of JSON."""
    say(json.dumps(what))


def complain(sentence: str) -> None:
    """Write a sentence to the standard error output."""
    with suppress(OSError):
        sys.stderr.write(f"convert-middleware: {sentence}\n")


def printable(text: str) -> str:
    """Return text as a terminal may show it: control characters could move its cursor."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )


def redacted(reason: str) -> str:
    """Return a reason without what could be a part of a request."""
    return printable(_TELLING.sub("…", reason))[:_LONGEST]


def public(url: str) -> str:
    """Return the URL of an outbox without a password."""
    return printable(_CREDENTIALS.sub("", url).partition("?")[0])


def age(seconds: float) -> str:
    """Return a span of time as people say it, such as ``"2 h 5 min"``."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def number_of(what: str, number: int) -> str:
    """Return ``"1 hit"`` or ``"2 hits"``."""
    return f"{number} {what}{'' if number == 1 else 's'}"
