"""Options: where they come from, what they must look like, and complaints that name the way out.

Settings are data. They are checked when they are made, and nobody below the tracker sees them.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypedDict
from urllib.parse import urlsplit

from convert_middleware.cookie import CookieOptions, check_keys
from convert_middleware.errors import ArgumentError, SettingsError, shown
from convert_middleware.model import Id, identifier
from convert_middleware.wire import ENDPOINT

if TYPE_CHECKING:
    from convert_middleware.browser import AskConsent, RequestFacts
    from convert_middleware.hooks import Hook

_PREFIX: Final = "CONVERT_"
_COOKIE_PREFIX: Final = "CONVERT_COOKIE_"
_MAX_ENDPOINT: Final = 1024  # bytes, so that a tracking URL stays under 4 096
_SENDERS: Final = ("auto", "pyreqwest", "httpx", "httpx2")
_DURABLE: Final = ("sqlite:", "redis:", "rediss:", "unix:")
_SWITCHES: Final = ("strict", "cache_guard", "deliver", "honour_gpc", "honour_dnt", "exclude_bots")
_MAX_DRAIN: Final = 300.0  # seconds
_SWITCH: Final = {"1": True, "true": True, "yes": True, "on": True} | dict.fromkeys(
    ("0", "false", "no", "off"), False
)


class Options(TypedDict, total=False):
    """The options of the middleware as keyword arguments; see :class:`Settings`."""

    project_id: Id | None
    customer_id: Id | None
    id_number: str | None
    secret_key: str | bytes | None
    previous_keys: Sequence[str | bytes]
    endpoint: str
    cookie: CookieOptions
    outbox: object
    sender: str | Callable[[], object]
    deliver: bool
    on_ambiguous: Literal["drop", "retry"]
    consent: AskConsent | None
    honour_gpc: bool
    honour_dnt: bool
    exclude: Callable[[RequestFacts], object] | None
    exclude_bots: bool
    browser_state: Literal["read", "ignore"]
    hooks: Sequence[Hook]
    strict: bool
    drain_timeout: float
    cache_guard: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be chosen, checked.

    Attributes:
        project_id: Convert's project id.
        customer_id: Convert's customer (account) id.
        id_number: Both at once as Convert's project settings show them: ``"<customer>_<project>"``.
        secret_key: Signs the cookie; at least 16 random bytes, the same on every server.
        previous_keys: Older keys that are still accepted.
        endpoint: Where tracking requests go, up to the ``?``; ``{project_id}`` in it is replaced.
        cookie: Attributes of the visitor cookie.
        outbox: Where hits wait: ``"memory://"``, ``"sqlite:///path"`` or ``"redis://host:port/db"``, with
            ``?max_hits=`` and ``&max_bytes=`` if wanted, for Redis also ``&prefix=``; or an outbox: a
            ``MemoryOutbox``, ``SqliteOutbox``, ``RedisOutbox`` or one of your own.
        sender: ``"auto"``: the fastest that is installed; ``"pyreqwest"``, ``"httpx"`` or ``"httpx2"``; or a
            function that returns an ``AsyncClient``.
        deliver: Whether this process sends; otherwise it only fills the outbox, which must outlive it, and
            ``convert-middleware worker`` sends.
        on_ambiguous: ``"drop"`` or ``"retry"`` hits of which nobody knows whether they arrived.
        consent: Takes a request and returns ``"granted"`` or True, ``"denied"`` or False, ``"unknown"`` or
            None; until granted nothing is kept or sent. None: nobody has to be asked.
        honour_gpc: Whether the header ``Sec-GPC: 1`` counts as denied.
        honour_dnt: Whether the header ``DNT: 1`` does.
        exclude: Takes a request and returns whether it is left out, such as a health check.
        exclude_bots: Whether known bots are left out, where the extra ``bots`` is installed.
        browser_state: ``"read"``: what Convert's script in the browser counted is not new, and goals are
            credited to its experiments; ``"ignore"``: pay no attention to its cookie.
        hooks: Callables that take events.
        strict: Whether a bad argument raises; otherwise it is logged and the page goes on.
        drain_timeout: Seconds to deliver what is left when the process ends, 0 to 300.
        cache_guard: Whether a response that is one visitor's own is kept out of shared caches.

    Raises:
        SettingsError: An option is missing or impossible; the error names it.
    """

    project_id: Id | None = None
    customer_id: Id | None = None
    id_number: str | None = None
    secret_key: str | bytes | None = field(default=None, repr=False)
    previous_keys: Sequence[str | bytes] = field(default=(), repr=False)
    endpoint: str = ENDPOINT
    cookie: CookieOptions = field(default_factory=CookieOptions)
    outbox: object = field(default="memory://", repr=False)  # its URL may hold a password
    sender: str | Callable[[], object] = "auto"
    deliver: bool = True
    on_ambiguous: Literal["drop", "retry"] = "drop"
    consent: AskConsent | None = None
    honour_gpc: bool = True
    honour_dnt: bool = False
    exclude: Callable[[RequestFacts], object] | None = None
    exclude_bots: bool = True
    browser_state: Literal["read", "ignore"] = "read"
    hooks: Sequence[Hook] = ()
    strict: bool = True
    drain_timeout: float = 5.0
    cache_guard: bool = True

    def __post_init__(self) -> None:
        customer_id, project_id = self._split_id_number()
        for name, value in (("project_id", project_id), ("customer_id", customer_id)):
            if value is None:
                raise SettingsError(name, f"is missing: pass {name}=, id_number= or {_PREFIX}{name.upper()}")
            object.__setattr__(self, name, _identifier(name, value))
        if self.secret_key is None:
            raise SettingsError(
                "secret_key", f"is missing: pass secret_key= or {_PREFIX}SECRET_KEY, 16 random bytes or more"
            )
        check_keys(self.secret_key, self.previous_keys)
        object.__setattr__(self, "previous_keys", tuple(self.previous_keys))
        _check_endpoint(self.endpoint)
        object.__setattr__(self, "hooks", _checked_hooks(self.hooks))
        self._check_choices()

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The signing key and the older ones."""
        return check_keys(self.secret_key, self.previous_keys)

    @property
    def ids(self) -> tuple[int, int]:
        """Customer id and project id as numbers."""
        return int(self.customer_id or 0), int(self.project_id or 0)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **options: Any) -> Self:
        """Return settings from the environment; ``options`` that are given and not None win.

        Args:
            environ: The variables ``CONVERT_<OPTION>`` and ``CONVERT_COOKIE_<ATTRIBUTE>``; None: the
                process's own. Several previous keys are separated by spaces.
            options: As for the class.

        Raises:
            SettingsError: An option or variable is missing, unknown or impossible.
        """
        known = {one.name for one in fields(cls)}
        for name in options:
            if name not in known:
                raise SettingsError(name, f"is no option{_did_you_mean(name, known)}")
        chosen = _from_environment(os.environ if environ is None else environ, known)
        chosen.update({name: value for name, value in options.items() if value is not None})
        return cls(**chosen)

    def _split_id_number(self) -> tuple[Id | None, Id | None]:
        number: object = self.id_number
        if number is None:
            return self.customer_id, self.project_id
        customer, underscore, project = number.partition("_") if isinstance(number, str) else ("", "", "")
        if not (underscore and customer and project):
            raise SettingsError("id_number", f"must look like '<customer>_<project>', not {shown(number)}")
        for name, given, part in (
            ("customer_id", self.customer_id, customer),
            ("project_id", self.project_id, project),
        ):
            if given is not None and _identifier(name, given) != _identifier("id_number", part):
                raise SettingsError(name, f"contradicts id_number={number!r}: give one of them")
        return customer, project

    def _check_choices(self) -> None:
        cookie: object = self.cookie
        if not isinstance(cookie, CookieOptions):
            raise SettingsError("cookie", f"must be CookieOptions(...), not {shown(cookie)}")
        if self.on_ambiguous not in ("drop", "retry"):
            raise SettingsError("on_ambiguous", f"must be 'drop' or 'retry', not {shown(self.on_ambiguous)}")
        if self.browser_state not in ("read", "ignore"):
            raise SettingsError(
                "browser_state", f"must be 'read' or 'ignore', not {shown(self.browser_state)}"
            )
        for name in ("consent", "exclude"):
            rule = getattr(self, name)
            if not (rule is None or callable(rule)) or iscoroutinefunction(rule):
                raise SettingsError(name, f"must be a plain function that takes a request, not {shown(rule)}")
        for name in _SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise SettingsError(name, f"must be True or False, not {shown(getattr(self, name))}")
        if not (callable(self.sender) or self.sender in _SENDERS):
            raise SettingsError(
                "sender",
                f"must be one of {', '.join(map(repr, _SENDERS))} or a function that returns an AsyncClient, "
                f"not {shown(self.sender)}",
            )
        if not self.deliver and not _outlives_the_process(self.outbox):
            raise SettingsError(
                "deliver",
                "is False, but what waits in memory can be sent by this process only; "
                "name an outbox such as 'sqlite:////var/lib/shop/outbox.db' or 'redis://host:6379/0', "
                "or give one whose attribute durable is True",
            )
        timeout: object = self.drain_timeout
        number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
        if not (number and math.isfinite(self.drain_timeout) and 0 <= self.drain_timeout <= _MAX_DRAIN):
            raise SettingsError(
                "drain_timeout", f"must be 0 to {_MAX_DRAIN:.0f} seconds, not {shown(timeout)}"
            )


def _outlives_the_process(outbox: object) -> bool:
    if isinstance(outbox, str):
        return outbox.startswith(_DURABLE)
    return getattr(outbox, "durable", False) is True


def _identifier(name: str, value: Id) -> int:
    try:
        return identifier(name, value)
    except ArgumentError as error:
        raise SettingsError(name, f"{error.reason}, not {shown(value)}") from None


def _check_endpoint(endpoint: object) -> None:
    if not isinstance(endpoint, str) or not endpoint.isascii() or len(endpoint) > _MAX_ENDPOINT:
        raise SettingsError("endpoint", f"must be an ASCII URL of at most {_MAX_ENDPOINT} characters")
    if any(character <= " " for character in endpoint) or "?" in endpoint or "#" in endpoint:
        raise SettingsError("endpoint", "must be a URL without query, fragment or white space")
    try:
        url = urlsplit(endpoint.replace("{project_id}", "1"))
        valid = (
            url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0 and "@" not in url.netloc
        )
    except ValueError:
        valid = False
    if not valid or "{" in endpoint.replace("{project_id}", "") or not url.path:
        raise SettingsError(
            "endpoint", "must look like 'https://host/path/'; {project_id} is the only placeholder"
        )


def _checked_hooks(hooks: object) -> tuple[Hook, ...]:
    if callable(hooks) or not isinstance(hooks, (list, tuple)):
        raise SettingsError("hooks", "must be a list or tuple of callables, such as [my_hook]")
    for hook in hooks:
        if not callable(hook):
            raise SettingsError("hooks", f"must hold callables; {shown(hook)} is none")
    return tuple(hooks)


def _did_you_mean(name: str, known: set[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(sorted(known))}"


def _from_environment(environ: Mapping[str, str], known: set[str]) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    cookie: dict[str, Any] = {}
    for variable, text in environ.items():
        if variable.startswith(_COOKIE_PREFIX):
            name = variable.removeprefix(_COOKIE_PREFIX).lower()
            if name in _COOKIE_READERS:
                cookie[name] = _COOKIE_READERS[name](variable, text)
                continue
        name = variable.removeprefix(_PREFIX).lower() if variable.startswith(_PREFIX) else ""
        if name in _READERS:
            chosen[name] = _READERS[name](variable, text)
        elif name:
            _warn_of_a_slip(variable, {f"{_PREFIX}{one.upper()}" for one in known})
    if cookie:
        chosen["cookie"] = CookieOptions(**cookie)
    return chosen


def _warn_of_a_slip(variable: str, known: set[str]) -> None:
    """Other programs may have variables of this prefix; only what looks like a slip is worth a line."""
    close = get_close_matches(variable, known, n=1, cutoff=0.8)
    if close:
        logging.getLogger("convert_middleware").warning(
            "The environment variable %s is no option; did you mean %s?", variable, close[0]
        )


def _text(_variable: str, text: str) -> str:
    return text


def _switch(variable: str, text: str) -> bool:
    try:
        return _SWITCH[text.strip().lower()]
    except KeyError:
        raise SettingsError(variable, f"must be true or false, not {shown(text)}") from None


def _seconds(variable: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SettingsError(variable, f"must be a number of seconds, not {shown(text)}") from None


def _whole_seconds(variable: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise SettingsError(variable, f"must be a whole number of seconds, not {shown(text)}") from None


def _secure(variable: str, text: str) -> bool | str:
    return "auto" if text.strip().lower() == "auto" else _switch(variable, text)


def _lower(_variable: str, text: str) -> str:
    return text.strip().lower()


def _keys(_variable: str, text: str) -> tuple[str, ...]:
    return tuple(text.split())


_Reader = Callable[[str, str], Any]
_READERS: Final[Mapping[str, _Reader]] = {
    **dict.fromkeys(
        ("project_id", "customer_id", "id_number", "secret_key", "endpoint", "outbox", "sender"), _text
    ),
    "previous_keys": _keys,
    "on_ambiguous": _lower,
    "browser_state": _lower,
    **dict.fromkeys(("honour_gpc", "honour_dnt", "exclude_bots"), _switch),
    "strict": _switch,
    "cache_guard": _switch,
    "deliver": _switch,
    "drain_timeout": _seconds,
}
_COOKIE_READERS: Final[Mapping[str, _Reader]] = {
    **dict.fromkeys(("name", "path", "domain"), _text),
    "max_age": _whole_seconds,
    "secure": _secure,
    "samesite": _lower,
    "partitioned": _switch,
    "sliding": _switch,
}
