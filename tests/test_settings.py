"""Every wrong option is refused when it is given, by its name, and no secret is ever shown."""

from __future__ import annotations

import copy
import logging
import pickle
import traceback
from dataclasses import FrozenInstanceError, fields
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from convert_middleware import ConvertMiddleware, CookieOptions, Settings, SettingsError, Tracker
from convert_middleware.settings import Options
from convert_middleware.wire import ENDPOINT

if TYPE_CHECKING:
    from convert_middleware.browser import RequestFacts

SECRET = "a secret of the shop, long enough"
OLD_SECRET = "the key it had before, long enough"
GIVEN: dict[str, Any] = {"project_id": "1", "customer_id": "2", "secret_key": SECRET}
PLAIN_SECRET = "the-shops-secret-without-a-space"
ENVIRON = {"CONVERT_PROJECT_ID": "1", "CONVERT_CUSTOMER_ID": "2", "CONVERT_SECRET_KEY": PLAIN_SECRET}


async def ask_a_server(request: RequestFacts) -> bool:
    raise AssertionError


class AsksAServer:
    async def __call__(self, request: RequestFacts) -> bool:
        raise AssertionError


def settings(**options: Any) -> Settings:
    return Settings(**{**GIVEN, **options})


def complaint(**options: Any) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        settings(**options)
    shown = "".join(traceback.format_exception(caught.value))
    assert not any(text in shown for text in ("the shop", "it had before", "short1"))
    return caught.value


def test_the_defaults_are_those_of_the_reference() -> None:
    chosen = settings()
    assert chosen.ids == (2, 1)
    assert (chosen.endpoint, chosen.outbox, chosen.sender) == (ENDPOINT, "memory://", "auto")
    assert (chosen.on_ambiguous, chosen.strict, chosen.drain_timeout) == ("drop", True, 5.0)
    assert (chosen.cookie, chosen.hooks, chosen.cache_guard) == (CookieOptions(), (), True)
    assert chosen.keys == (SECRET.encode(),)


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("project_id", [None, 0, -1, "", "1a", " 1", "1_2", True, 1.0, "9" * 40, b"1"]),
        ("customer_id", [None, 0, -1, "", "abc", "-2", False, 2.0, object()]),
        ("id_number", ["", "_", "1", "1_", "_2", "1-2", 12, b"1_2", True, ["1", "2"]]),
        ("secret_key", [None, "", b"", "short1" * 2, "x" * 15, 10**16, ["k" * 16], object(), True]),
        (
            "previous_keys",
            [OLD_SECRET, OLD_SECRET.encode(), None, 5, {OLD_SECRET}, {OLD_SECRET: 1}, [""], [b"short1"],
             [None], [SECRET], [SECRET.encode()], [OLD_SECRET, OLD_SECRET], (OLD_SECRET, 5),
             iter([OLD_SECRET])],
        ),
        (
            "endpoint",
            ["", "track", "/track/", "ftp://a/", "http://", "http:///track/", "https://a/?x=1", "https://a/#x",
             "https://a b/", "https://a/\n", "https://a/{customer}/", "https://{}/", "https://a:99999/",
             "https://a:x/", "https://a:0/", "https://u:p@a/", "https://bücher.example/", "https://[::1/",
             "https://a", f"https://{'a' * 64}.example/", "https://a..example/", "https://a/" + "b" * 1100,
             f"https://{'a' * 45}{{project_id}}.example/", None, b"https://a/", 5],
        ),
        ("cookie", [None, "convert", {"name": "a"}, CookieOptions, 5]),
        ("sender", ["", "requests", "HTTPX", None, 5, object(), ["httpx"]]),
        ("on_ambiguous", ["", "Drop", "ignore", None, True, 0, ["drop"]]),
        ("hooks", [None, print, "print", [None], [print, 5], {print}, iter([print]), [ask_a_server],
                   [AsksAServer()]]),
        ("consent", ["granted", True, 5, object(), ask_a_server, partial(ask_a_server), AsksAServer()]),
        ("exclude", ["/health", False, 5, object(), ask_a_server, partial(ask_a_server), AsksAServer()]),
        ("strict", [None, "true", 1, 0, "no"]),
        ("cache_guard", [None, "true", 1, 0]),
        ("exclude_bots", ["true", 1, 0, "auto"]),
        ("drain_timeout", [None, "5", -1, -0.1, 301, float("nan"), float("inf"), True, object()]),
    ],
)  # fmt: skip
def test_a_wrong_option_is_refused_by_its_name(option: str, values: list[Any]) -> None:
    for value in values:
        error = complaint(**{option: value})
        assert error.option == option, value
        assert str(error).startswith(f"{option} ")
        assert str(error).endswith(".")


@pytest.mark.parametrize(
    "outbox",
    ["", "memory", "memory:", "redis:/localhost", "redis://localhost:port",
     "redis://localhost?prefix=", "redis://localhost?max_hits=0", "sqlite:///x.db?size=5", "memory://host", "memory://?max_hits=0",
     "memory://?max_hits=-1", "memory://?max_hits=many", "memory://?max_hits", "memory://?size=5",
     "memory://?max_hits=999999999999999999", "memory://?max_hits=²", None, 5, []],
)  # fmt: skip
def test_a_wrong_outbox_is_refused_when_the_tracker_is_made(outbox: Any) -> None:
    with pytest.raises(SettingsError, match=r"^outbox "):
        Tracker(settings(outbox=outbox))


PASSWORDS = [
    "hunter2",
    "hunter/2",
    "hunter?2",
    "hunter#2",
    "hunter2:x",
    "hunter2@x",
    "2/hunter",
    "2?hunter&x",
]


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://shop:{}@host:port/0", "no URL that redis-py takes"),
        ("redis://:{}@host:6379/0?nonsense=1", "no URL that redis-py takes"),
        ("redis://:{}@host:6379/0?db=x", "no URL that redis-py takes"),
        ("redis://:{}@host/0?prefix={{a}}", "prefix"),
        ("redis:/:{}@host:6379/0", "must be 'memory://', 'sqlite:///path' or 'redis://host:port/db'"),
        ("redis:{}@host", "must be 'memory://', 'sqlite:///path' or 'redis://host:port/db'"),
        ("valkey://:{}@host", "must be 'memory://', 'sqlite:///path' or 'redis://host:port/db'"),
    ],
)
def test_what_is_wrong_with_an_outbox_is_said_without_its_password(
    url: str, said: str, password: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        Tracker(settings(outbox=url.format(password)))
    assert str(caught.value).startswith("outbox ")
    assert said in str(caught.value) or "no URL that redis-py takes" in str(caught.value)
    assert "hunter" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (
            "redis://host/0?nonsense=1",
            "'redis://host/0' with the options 'nonsense'; write it like 'redis://",
        ),
        ("redis://host:port", "'redis://…'; write it like 'redis://:password@host:6379/0', with every"),
        ("redis://host?prefix=", "has the prefix ''; name one without braces, such as 'shop'"),
        ("redis://host?prefix={shop}", "has the prefix '{shop}'; name one"),
        (
            "redis://host?max_hits=0",
            "has the option 'max_hits=0'; there are max_hits and max_bytes, whole numbers",
        ),
        ("sqlite:///x.db?prefix=shop", "has the option 'prefix=shop'; there are max_hits and max_bytes"),
    ],
)
def test_what_is_wrong_with_an_outbox_is_said_with_its_value_and_the_way_out(url: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Tracker(settings(outbox=url))
    assert said in str(caught.value)


def test_settings_for_a_tracker_are_settings() -> None:
    wrong: Any = GIVEN
    with pytest.raises(SettingsError, match=r"^settings must be Settings\(\.\.\.\), not dict\."):
        Tracker(wrong)


@pytest.mark.parametrize("name", ["project_id", "customer_id", "secret_key"])
def test_what_is_missing_is_named_with_the_ways_to_give_it(name: str) -> None:
    error = complaint(**{name: None})
    assert f"{name}=" in error.reason
    assert f"CONVERT_{name.upper()}" in error.reason


@pytest.mark.parametrize(
    "options",
    [
        {"id_number": "1111_2222"},
        {"id_number": "1111_2222", "customer_id": "1111"},
        {"id_number": "01111_2222", "customer_id": 1111, "project_id": 2222},
    ],
)
def test_the_id_number_gives_customer_and_project(options: dict[str, Any]) -> None:
    assert Settings(secret_key=SECRET, **options).ids == (1111, 2222)


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"id_number": "1111_2222", "customer_id": "2222"}, "customer_id"),
        ({"id_number": "1111_2222", "project_id": "1111"}, "project_id"),
        ({"id_number": "a_2222"}, "id_number"),
        ({"id_number": "1111_0"}, "id_number"),
        ({"id_number": "1111_2222_3"}, "id_number"),
        ({"id_number": "1111_b", "project_id": 5}, "id_number"),
    ],
)
def test_an_id_number_that_contradicts_or_is_none_is_refused(options: dict[str, Any], option: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings(secret_key=SECRET, **options)
    assert caught.value.option == option


def test_secret_and_previous_keys_in_the_wrong_order_of_arguments_cannot_go_unnoticed() -> None:
    wrong: Any = (OLD_SECRET, SECRET)
    assert complaint(secret_key=wrong).option == "secret_key"
    assert complaint(secret_key=SECRET, previous_keys=SECRET).option == "previous_keys"
    with pytest.raises(TypeError):
        Settings("1", "2", SECRET)  # type: ignore[call-arg]  # every option is given by name


def test_lists_that_change_later_change_no_settings() -> None:
    keys: list[str | bytes] = [OLD_SECRET]
    hooks: list[Any] = [print]
    chosen = settings(previous_keys=keys, hooks=hooks)
    keys.append("another key, that is long enough")
    hooks.clear()
    assert chosen.keys == (SECRET.encode(), OLD_SECRET.encode())
    assert chosen.hooks == (print,)
    with pytest.raises(FrozenInstanceError):
        setattr(chosen, "strict", False)  # noqa: B010 - a plain assignment would not pass the type check


def test_no_secret_is_in_a_repr_or_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    chosen = settings(previous_keys=[OLD_SECRET])
    tracker = Tracker(chosen)
    shown = f"{chosen!r} {chosen} {tracker!r} {tracker.stats()!r} {chosen.cookie!r} {caplog.text}"
    tracker.close(0)
    assert SECRET not in shown
    assert OLD_SECRET not in shown


@pytest.mark.parametrize(
    "outbox",
    ["redis://shop:a-password@host/0", "redis://host/0?password=a-password", "rediss://:a-password@host"],
)
def test_a_password_in_the_url_of_the_outbox_is_not_shown(outbox: str) -> None:
    chosen = settings(outbox=outbox)
    assert "a-password" not in f"{chosen!r} {chosen}"
    assert chosen.outbox == outbox


def test_settings_can_be_copied_and_pickled() -> None:
    chosen = settings(previous_keys=[OLD_SECRET])
    assert copy.copy(chosen) == pickle.loads(pickle.dumps(chosen)) == chosen


def test_the_typed_options_are_the_settings() -> None:
    assert list(Options.__annotations__) == [each.name for each in fields(Settings)]


def test_every_option_that_text_can_express_is_read_from_the_environment() -> None:
    chosen = Settings.from_env(
        {
            **ENVIRON,
            "CONVERT_ID_NUMBER": "2_1",
            "CONVERT_PREVIOUS_KEYS": f"{'o' * 16}  {'p' * 16}",
            "CONVERT_ENDPOINT": "http://127.0.0.1:8900/track/",
            "CONVERT_OUTBOX": "memory://?max_hits=5",
            "CONVERT_SENDER": "httpx",
            "CONVERT_ON_AMBIGUOUS": "Retry",
            "CONVERT_STRICT": "no",
            "CONVERT_CACHE_GUARD": "OFF",
            "CONVERT_DRAIN_TIMEOUT": "2.5",
            "CONVERT_COOKIE_NAME": "__Secure-v",
            "CONVERT_COOKIE_MAX_AGE": "3600",
            "CONVERT_COOKIE_PATH": "/shop",
            "CONVERT_COOKIE_DOMAIN": "example.com",
            "CONVERT_COOKIE_SECURE": "true",
            "CONVERT_COOKIE_SAMESITE": "None",
            "CONVERT_COOKIE_PARTITIONED": "1",
            "CONVERT_COOKIE_SLIDING": "yes",
            "PATH": "/usr/bin",
        }
    )
    assert chosen == settings(
        secret_key=PLAIN_SECRET,
        id_number="2_1",
        previous_keys=["o" * 16, "p" * 16],
        endpoint="http://127.0.0.1:8900/track/",
        outbox="memory://?max_hits=5",
        sender="httpx",
        on_ambiguous="retry",
        strict=False,
        cache_guard=False,
        drain_timeout=2.5,
        cookie=CookieOptions(
            name="__Secure-v",
            max_age=3600,
            path="/shop",
            domain="example.com",
            secure=True,
            samesite="none",
            partitioned=True,
            sliding=True,
        ),
    )


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("CONVERT_PROJECT_ID", "one"),
        ("CONVERT_SECRET_KEY", "short1"),
        ("CONVERT_SECRET_KEY", " "),
        ("CONVERT_SECRET_KEY", "short1 but with more words"),
        ("CONVERT_SECRET_KEY", "short1-but-of-two\u00a0lines"),
        ("CONVERT_PREVIOUS_KEYS", "short1"),
        ("CONVERT_ENDPOINT", "nowhere"),
        ("CONVERT_SENDER", "curl"),
        ("CONVERT_ON_AMBIGUOUS", "maybe"),
        ("CONVERT_STRICT", "maybe"),
        ("CONVERT_CACHE_GUARD", ""),
        ("CONVERT_DRAIN_TIMEOUT", "soon"),
        ("CONVERT_DRAIN_TIMEOUT", "nan"),
        ("CONVERT_COOKIE_MAX_AGE", "a year"),
        ("CONVERT_COOKIE_MAX_AGE", "0"),
        ("CONVERT_COOKIE_SECURE", "sometimes"),
        ("CONVERT_COOKIE_SAMESITE", "loose"),
        ("CONVERT_COOKIE_NAME", "a b"),
    ],
)
def test_a_wrong_variable_is_refused_by_name(variable: str, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({**ENVIRON, variable: text})
    assert caught.value.option == variable
    assert "short1" not in str(caught.value)


@pytest.mark.parametrize(
    "text", [PLAIN_SECRET, f" {PLAIN_SECRET}", f"{PLAIN_SECRET}\n", f"\t{PLAIN_SECRET}\r\n"]
)
def test_a_key_that_moves_from_one_variable_to_the_other_stays_the_same(text: str) -> None:
    before = Settings.from_env({**ENVIRON, "CONVERT_SECRET_KEY": text})
    after = Settings.from_env({**ENVIRON, "CONVERT_SECRET_KEY": "n" * 16, "CONVERT_PREVIOUS_KEYS": text})
    assert before.keys == after.keys[1:] == (PLAIN_SECRET.encode(),)


def test_an_option_given_wins_over_the_environment_and_none_does_not() -> None:
    chosen = Settings.from_env(ENVIRON, project_id=7, customer_id=None, strict=False)
    assert (chosen.ids, chosen.strict) == ((2, 7), False)


@pytest.mark.parametrize(
    "options",
    [{"id_number": "4_3"}, {"project_id": 3, "customer_id": "4"}, {"id_number": "4_3", "project_id": 3}],
)
@pytest.mark.parametrize(
    "environ", [ENVIRON, {"CONVERT_ID_NUMBER": "2_1"}, {"CONVERT_ID_NUMBER": "none at all"}]
)
def test_ids_that_are_given_win_over_those_of_the_environment_however_either_is_written(
    environ: dict[str, str], options: dict[str, Any]
) -> None:
    assert Settings.from_env(environ, **{"secret_key": SECRET, **options}).ids == (4, 3)


def test_half_of_the_ids_given_is_no_reason_to_overlook_a_contradiction() -> None:
    with pytest.raises(SettingsError, match=r"^project_id contradicts id_number='2_1'"):
        Settings.from_env({"CONVERT_ID_NUMBER": "2_1"}, secret_key=SECRET, project_id=3)


def test_a_variable_of_an_option_that_is_given_is_not_looked_at() -> None:
    environ = {**ENVIRON, "CONVERT_STRICT": "maybe", "CONVERT_COOKIE_SAMESITE": "loose"}
    chosen = Settings.from_env(environ, strict=False, cookie=CookieOptions(path="/shop"))
    assert (chosen.strict, chosen.cookie.path) == (False, "/shop")


def test_the_processs_own_environment_is_read_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, text in ENVIRON.items():
        monkeypatch.setenv(variable, text)
    assert Settings.from_env() == settings(secret_key=PLAIN_SECRET)


@pytest.mark.parametrize(
    ("name", "close"), [("secret", "secret_key"), ("projectid", "project_id"), ("hook", "hooks")]
)
def test_an_unknown_option_is_refused_with_the_one_meant(name: str, close: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{name} is no option; did you mean '{close}'\?$"):
        Settings.from_env(ENVIRON, **{name: SECRET})


def test_an_option_like_no_other_is_refused_with_all_there_are() -> None:
    with pytest.raises(SettingsError, match=r"zzz is no option; there are: browser_state, .*\.$"):
        Settings.from_env(ENVIRON, zzz=1)


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("CONVERT_SECRET_KEYS", "did you mean CONVERT_SECRET_KEY?"),
        ("CONVERT_EXCLUDE_BOT", "did you mean CONVERT_EXCLUDE_BOTS?"),
        ("CONVERT_strict", "did you mean CONVERT_STRICT?"),
        ("CONVERT_COOKIE_SAMESIT", "did you mean CONVERT_COOKIE_SAMESITE?"),
        ("CONVERT_COOKIE_SECUR", "did you mean CONVERT_COOKIE_SECURE?"),
        ("CONVERT_COOKIE_MAXAGE", "did you mean CONVERT_COOKIE_MAX_AGE?"),
        ("CONVERT_CONSENT", "consent cannot be set from the environment."),
        ("CONVERT_EXCLUDE", "exclude cannot be set from the environment."),
        ("CONVERT_HOOKS", "hooks cannot be set from the environment."),
        ("CONVERT_COOKIE", "cookie cannot be set from the environment."),
        ("CONVERT_IMAGES", None),
        ("CONVERT_SDK_KEY", None),
        ("CONVERT_COOKIE_JAR", None),
        ("CONVERTER", None),
    ],
)
def test_a_slip_in_a_variables_name_is_said_and_other_programs_variables_are_not(
    variable: str, hint: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    Settings.from_env({**ENVIRON, variable: "short1"})
    line = f"The environment variable {variable} is no option; {hint}"
    assert [record.getMessage() for record in caplog.records] == [line] * (hint is not None)


def test_the_middleware_refuses_the_same_as_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError

    for variable in ENVIRON:
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(SettingsError, match=r"^secret_key is too short"):
        ConvertMiddleware(app, **{**GIVEN, "secret_key": "x"})
    with pytest.raises(SettingsError, match=r"^project_id is missing"):
        ConvertMiddleware(app, secret_key=SECRET)


def test_a_key_that_is_no_valid_text_is_named_and_not_shown() -> None:
    with pytest.raises(SettingsError, match="secret_key") as caught:
        Settings(project_id=1, customer_id=2, secret_key="a long enough secret\udcff")
    assert "long enough" not in str(caught.value)
    assert caught.value.__cause__ is None
