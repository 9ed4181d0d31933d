"""What can go wrong, whose fault it is, and the evidence.

Every error is a sentence with the way out and carries its facts as attributes. One root, few leaves.
This module knows no other part of the package.
"""

from __future__ import annotations

import re

_OPTION = re.compile(r"\?\w+=.*", re.DOTALL)  # begins the options even if an @ follows
_OPTIONS = re.compile(r"[?#].*", re.DOTALL)
_AT = re.compile("@|%40")  # as it is written, and as it is written in options
_SHOWN = 80  # characters of a foreign value that an error message repeats


def shown(value: object) -> str:
    """Return ``value`` as an error message may show it: its repr, cut in the middle to 80 characters."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a foreign __repr__ may raise anything
        text = f"<{type(value).__name__}>"
    if len(text) <= _SHOWN:
        return text
    end = _SHOWN // 2  # a path tells most at its end
    return f"{text[: _SHOWN - end - 1]}…{text[-end:]}"


def public(url: str) -> str:
    """Return a URL without credentials, whatever characters they hold, and without options."""
    scheme, _, rest = url.partition("://")
    without = _OPTION.sub("", rest)
    place = _OPTIONS.sub("", _AT.split(without)[-1])
    server = place.partition("/")[0]
    _, colon, port = server.rpartition(":")
    number = port.isdigit() and not _AT.search(rest, len(without))
    certain = not colon or number or server.endswith("]")  # else it may be a name and its password
    return f"{scheme}://{place if certain else '…'}"


class ConvertError(Exception):
    """The root of every error this package raises."""


class ArgumentError(ConvertError, ValueError):
    """The caller passed a value that cannot be recorded.

    Attributes:
        argument: Name of the argument.
        value: What was passed.
        reason: The rule it breaks, as the end of a sentence.
    """

    def __init__(self, argument: str, value: object, reason: str) -> None:
        super().__init__(f"{argument}={shown(value)} {reason}.")
        self.argument = argument
        self.value = value
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, object, str]]:
        return type(self), (self.argument, self.value, self.reason)


class ArgumentTypeError(ArgumentError, TypeError):
    """The caller passed a value of a type that cannot be recorded; also a ``TypeError``."""


class SettingsError(ConvertError, ValueError):
    """An option is missing, unknown or impossible; raised when the middleware is built.

    Attributes:
        option: Name of the option, or of the environment variable it was read from.
        reason: What is wrong with it and how to mend it. A secret's value is never repeated.
    """

    def __init__(self, option: str, reason: str) -> None:
        super().__init__(f"{option} {reason}" if reason.endswith("?") else f"{option} {reason}.")
        self.option = option
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.option, self.reason)


class WireError(ConvertError, ValueError):
    """A tracking request does not follow the published structure.

    Attributes:
        parameter: Name of the query parameter at fault, or ``"query"`` for the request as a whole.
        text: The offending text.
        reason: The rule it breaks.
    """

    def __init__(self, parameter: str, text: str, reason: str) -> None:
        super().__init__(f"Parameter {parameter!r} {reason}; got {shown(text)}.")
        self.parameter = parameter
        self.text = text
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return type(self), (self.parameter, self.text, self.reason)


class TokenError(ConvertError, ValueError):
    """A visitor token cannot be resumed.

    Attributes:
        reason: Why, as a :class:`~convert_middleware.cookie.Rejection` value such as ``"signature"``.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"The visitor token was refused ({reason}). Pass the text that Recorder.token() returned, "
            "unchanged, to a tracker with the same secret_key."
        )
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return type(self), (self.reason,)


class OutboxError(ConvertError):
    """An outbox that outlives the process cannot work at the moment; what was asked of it did not happen.

    Attributes:
        path: Its file, or its URL without name and password.
        doing: What was tried.
        reason: What went wrong, such as ``"SQLITE_FULL"``; nothing of what was stored.
    """

    def __init__(self, path: str, doing: str, reason: str) -> None:
        super().__init__(f"The outbox {shown(path)} failed to {doing}: {reason}.")
        self.path = path
        self.doing = doing
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str, str]]:
        return type(self), (self.path, self.doing, self.reason)


class UnreachableError(OutboxError):
    """An outbox could not be reached, so that what was asked of it did not happen."""


class LockedError(UnreachableError):
    """Another process keeps an outbox to itself."""


class UnansweredError(UnreachableError):
    """An outbox could be reached no more, and nobody knows yet whether what was asked of it happened."""


class OutsideRequestError(ConvertError, LookupError):
    """``current()`` was called where no request is being served."""

    def __init__(self) -> None:
        super().__init__(
            "There is no current request to record on. Call current() inside a request that passes "
            "ConvertMiddleware, and start threads with contextvars.copy_context().run; outside requests use "
            "Tracker.resume(token)."
        )

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return type(self), ()
