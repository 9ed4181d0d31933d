"""Options: where they come from, what they must look like, and complaints that name the way out.

Settings are data. They are checked when they are made, and nobody below the tracker sees them.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches
from inspect import iscoroutinefunction, signature
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypedDict
from urllib.parse import urlsplit

from convert_middleware.cookie import CookieOptions, check_keys
from convert_middleware.errors import ArgumentError, SettingsError, shown
from convert_middleware.model import MAX_ID, Id, identifier
from convert_middleware.wire import ENDPOINT

if TYPE_CHECKING:
    from convert_middleware.browser import AskConsent, RequestFacts
    from convert_middleware.hooks import Hook

_PREFIX: Final = "CONVERT_"
_MAX_LABEL: Final = 63  # characters of a part of a host name (RFC 1035, section 2.3.4)
_MAX_ENDPOINT: Final = 1024  # bytes, so that a tracking URL stays under 4 096
_LIKE: Final = "it looks like 'https://host/path/'"
_SENDERS: Final = ("auto", "httptools", "pyreqwest", "httpx", "httpx2")
_DURABLE: Final = ("sqlite:", "redis:", "rediss:", "unix:")
_MAX_DRAIN: Final = 300.0  # seconds
_WORDS: Final = {"1": True, "true": True, "yes": True, "on": True} | dict.fromkeys(
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
    exclude_bots: bool | None
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
        sender: ``"auto"``: the fastest that is installed; ``"httptools"``, ``"pyreqwest"``, ``"httpx"`` or
            ``"httpx2"``; or a function that returns an ``AsyncClient``.
        deliver: Whether this process sends; otherwise it only fills the outbox, which must outlive it, and
            ``convert-middleware worker`` sends.
        on_ambiguous: ``"drop"`` or ``"retry"`` hits of which nobody knows whether they arrived.
        consent: Takes a request and returns ``"granted"`` or True, ``"denied"`` or False, ``"unknown"`` or
            None; until granted nothing is kept or sent. None: nobody has to be asked.
        honour_gpc: Whether the header ``Sec-GPC: 1`` counts as denied.
        honour_dnt: Whether the header ``DNT: 1`` does.
        exclude: Takes a request and returns whether it is left out, such as a health check.
        exclude_bots: Whether known bots are left out, which takes the extra ``bots``. None: where it is
            installed.
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
    exclude_bots: bool | None = None
    browser_state: Literal["read", "ignore"] = "read"
    hooks: Sequence[Hook] = ()
    strict: bool = True
    drain_timeout: float = 5.0
    cache_guard: bool = True

    def __post_init__(self) -> None:
        customer_id, project_id = self._split_id_number()
        for name, value in (("project_id", project_id), ("customer_id", customer_id)):
            if value is None:
                raise SettingsError(
                    name,
                    f"is missing: pass {name}= or id_number=, or set {_PREFIX}{name.upper()} or "
                    f"{_PREFIX}ID_NUMBER for those who read the environment",
                )
            object.__setattr__(self, name, _identifier(name, value))
        if self.secret_key is None:
            raise SettingsError(
                "secret_key", f"is missing: pass secret_key= or {_PREFIX}SECRET_KEY, 16 random bytes or more"
            )
        check_keys(self.secret_key, self.previous_keys)
        object.__setattr__(self, "previous_keys", tuple(self.previous_keys))
        _check_endpoint(self.endpoint)
        object.__setattr__(self, "hooks", _checked_hooks(self.hooks))
        for name, rule in _RULES.items():
            if not rule.allows(getattr(self, name)):
                raise SettingsError(name, f"must be {rule.must}, not {shown(getattr(self, name))}")
        if not self.deliver and not _outlives_the_process(self.outbox):
            raise SettingsError(
                "deliver",
                "is False, but what waits in memory can be sent by this process only; "
                "name an outbox such as 'sqlite:////var/lib/shop/outbox.db' or 'redis://host:6379/0', "
                "or give one whose attribute durable is True",
            )

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
        for name in options:
            if name not in _RULES:
                raise SettingsError(name, f"is no option{_did_you_mean(name)}")
        given = {name: value for name, value in options.items() if value is not None}
        decided = set(given)
        if "id_number" in given or {"customer_id", "project_id"} <= decided:
            decided |= {
                "customer_id",
                "project_id",
                "id_number",
            }  # the environment's may be another project's
        read = _from_environment(os.environ if environ is None else environ, decided)
        with _naming_variables("", read):
            return cls(**read, **given)

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
            number_of_part = _identifier("id_number", part)
            if given is not None and _identifier(name, given) != number_of_part:
                raise SettingsError(name, f"contradicts id_number={number!r}: give one of them")
        return customer, project


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
        longest = urlsplit(endpoint.replace("{project_id}", str(MAX_ID))).hostname or ""
        named = bool(url.hostname) and url.port != 0
    except ValueError:  # brackets that do not match, or a port that is none
        raise SettingsError(
            "endpoint", f"must name a host, and a port from 1 to 65535 if any; {_LIKE}"
        ) from None
    labels = longest.removesuffix(".").split(".")
    for broken, rule in (
        ("{" in endpoint.replace("{project_id}", ""), "may hold {project_id} and no other placeholder"),
        (url.scheme not in ("http", "https"), "must begin with https:// or http://"),
        ("@" in url.netloc, "must hold no user name or password"),
        (not named, "must name a host, and a port from 1 to 65535 if any"),
        (
            not all(0 < len(label) <= _MAX_LABEL for label in labels),
            f"must name a host whose parts between dots have 1 to {_MAX_LABEL} characters",
        ),
        (not url.path, "must have a path; the published one is /track/"),
    ):
        if broken:
            raise SettingsError("endpoint", f"{rule}; {_LIKE}")


def _checked_hooks(hooks: object) -> tuple[Hook, ...]:
    if callable(hooks) or not isinstance(hooks, (list, tuple)):
        raise SettingsError("hooks", "must be a list or tuple of callables, such as [my_hook]")
    for hook in hooks:
        if not callable(hook):
            raise SettingsError("hooks", f"must hold callables; {shown(hook)} is none")
        if not _is_plain(hook):
            raise SettingsError(
                "hooks", f"must hold plain functions that take an event, unlike {shown(hook)}"
            )
    return tuple(hooks)


def _did_you_mean(name: str) -> str:
    close = get_close_matches(name, _RULES, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; there are: {', '.join(sorted(_RULES))}"


def _from_environment(environ: Mapping[str, str], decided: set[str]) -> dict[str, Any]:
    """Return what the variables say of options that are not decided yet."""
    chosen: dict[str, Any] = {}
    cookie: dict[str, Any] = {}
    for variable, text in environ.items():
        if variable in _VARIABLES:
            option, attribute, read = _VARIABLES[variable]
            if option not in decided:
                (cookie if attribute else chosen)[attribute or option] = read(variable, text)
        elif variable.startswith(_PREFIX):
            _warn_of_a_slip(variable)
    if cookie:
        with _naming_variables("cookie.", cookie):
            chosen["cookie"] = CookieOptions(**cookie)
    return chosen


@contextmanager
def _naming_variables(kind: str, read: Mapping[str, object]) -> Iterator[None]:
    """Have an error name the variable that an option was read from."""
    try:
        yield
    except SettingsError as error:
        option = error.option.removeprefix(kind)
        variable = f"{_PREFIX}{kind.replace('.', '_').upper()}{option.upper()}"
        if option in read and variable in _VARIABLES:
            raise SettingsError(variable, error.reason) from None
        raise


def _warn_of_a_slip(variable: str) -> None:
    """Other programs may have variables of this prefix; only what looks like a slip is worth a line."""
    name = variable.removeprefix(_PREFIX)
    known = {each.removeprefix(_PREFIX): each for each in _VARIABLES}
    close = get_close_matches(name.upper(), known, n=1, cutoff=0.8)
    if name.lower() in _RULES and name.upper() not in known:
        reason = f"{name.lower()} cannot be set from the environment."
    elif close:
        reason = f"did you mean {known[close[0]]}?"
    else:
        return
    logging.getLogger("convert_middleware").warning(
        "The environment variable %s is no option; %s", variable, reason
    )


def _text(_variable: str, text: str) -> str:
    return text


def _switch(variable: str, text: str) -> bool:
    try:
        return _WORDS[text.strip().lower()]
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


def _key(variable: str, text: str) -> str:
    """Return the key as :func:`_keys` would once it is an older one, so that rotation finds the same."""
    pieces = text.split()
    if len(pieces) > 1:
        raise SettingsError(
            variable, f"holds white space, which separates keys in {_PREFIX}PREVIOUS_KEYS: take one without"
        )
    return "".join(pieces)


def _keys(_variable: str, text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _is_timeout(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= _MAX_DRAIN


def _is_plain(value: object) -> bool:
    if not callable(value):
        return value is None
    return not (iscoroutinefunction(value) or iscoroutinefunction(value.__call__)) and _takes_one(value)


def _takes_one(function: Callable[..., object]) -> bool:
    """Tell whether a function can be called with one argument, as far as it says what it takes."""
    try:
        signature(function).bind(None)
    except TypeError:
        return False
    except ValueError:  # some that are written in C do not say
        return True
    return True


_Reader = Callable[[str, str], Any]


@dataclass(frozen=True, slots=True)
class _Rule:
    """How an option is read from the environment, if it can be, and what it must be beyond other checks."""

    read: _Reader | None = None
    allows: Callable[[object], bool] = lambda _value: True
    must: str = ""


_TEXT: Final = _Rule(_text)
_SWITCH: Final = _Rule(_switch, lambda value: isinstance(value, bool), "True or False")
_FUNCTION: Final = _Rule(None, _is_plain, "a plain function that takes a request")
_RULES: Final[Mapping[str, _Rule]] = {
    "project_id": _TEXT,
    "customer_id": _TEXT,
    "id_number": _TEXT,
    "secret_key": _Rule(_key),
    "previous_keys": _Rule(_keys),
    "endpoint": _TEXT,
    "cookie": _Rule(None, lambda value: isinstance(value, CookieOptions), "CookieOptions(...)"),
    "outbox": _TEXT,
    "sender": _Rule(
        _text,
        lambda value: callable(value) or value in _SENDERS,
        f"one of {', '.join(map(repr, _SENDERS))} or a function that returns an AsyncClient",
    ),
    "deliver": _SWITCH,
    "on_ambiguous": _Rule(_lower, lambda value: value in ("drop", "retry"), "'drop' or 'retry'"),
    "consent": _FUNCTION,
    "honour_gpc": _SWITCH,
    "honour_dnt": _SWITCH,
    "exclude": _FUNCTION,
    "exclude_bots": _Rule(_switch, lambda value: isinstance(value, bool | None), "True, False or None"),
    "browser_state": _Rule(_lower, lambda value: value in ("read", "ignore"), "'read' or 'ignore'"),
    "hooks": _Rule(),
    "strict": _SWITCH,
    "drain_timeout": _Rule(_seconds, _is_timeout, f"0 to {_MAX_DRAIN:.0f} seconds"),
    "cache_guard": _SWITCH,
}
_COOKIE_READERS: Final[Mapping[str, _Reader]] = {
    **dict.fromkeys(("name", "path", "domain"), _text),
    "max_age": _whole_seconds,
    "secure": _secure,
    "samesite": _lower,
    "partitioned": _switch,
    "sliding": _switch,
}
# Variable -> option, attribute if it is one of the cookie's, and how it is read.
_VARIABLES: Final[Mapping[str, tuple[str, str, _Reader]]] = {
    **{f"{_PREFIX}{name.upper()}": (name, "", rule.read) for name, rule in _RULES.items() if rule.read},
    **{f"{_PREFIX}COOKIE_{name.upper()}": ("cookie", name, read) for name, read in _COOKIE_READERS.items()},
}
