"""What the fast senders take from their environment, and what they must not do to the process they run in."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import certifi
import httpx
import pytest

from convert_middleware.delivery import ClientSender, HttpxSender
from convert_middleware.delivery.policy import Outcome, Result
from convert_middleware.delivery.senders.choose import UnforkedSender, make_sender
from convert_middleware.delivery.senders.httptools_sender import HttptoolsSender
from convert_middleware.delivery.senders.pyreqwest_sender import PyreqwestSender
from convert_middleware.errors import SettingsError
from tests.servers import Authority, ForwardProxy, TrackingServer, answer_and_close, refused_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from convert_middleware.delivery import Sender

FAR = "https://convert.example/track/"
Fast = type[HttptoolsSender] | type[PyreqwestSender]
every_fast_sender = pytest.mark.parametrize("fast", [HttptoolsSender, PyreqwestSender])


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def send(sender: Sender, *texts: str) -> list[Outcome]:
    async def story() -> list[Outcome]:
        await sender.open()
        try:
            return [await sender.send(text) for text in texts or ("c=2&p=1",)]
        finally:
            await sender.close()

    return asyncio.run(story())


def result(fast: Fast, endpoint: str) -> Result:
    return send(fast(endpoint))[0].result


# --- the wire ---------------------------------------------------------------------------------------------


@every_fast_sender
def test_a_query_arrives_byte_for_byte_and_no_log_knows_it(
    fast: Fast, tracking_server: TrackingServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    text = "c=2&p=1&t=35%7Cab-1_2.3~%27%22%20%E2%82%AC%2F%7C1599.99%7C10&e=a,b"

    send(fast(tracking_server.endpoint), text)

    assert tracking_server.targets == [f"/track/?{text}"]
    assert "1599.99" not in caplog.text


@every_fast_sender
def test_no_request_is_repeated_when_the_server_closes_the_connection_in_the_same_moment(
    fast: Fast,
    tracking_server: TrackingServer,
) -> None:
    tracking_server.default = answer_and_close(announced=False)
    texts = [f"n={number}" for number in range(150)]

    outcomes = send(fast(tracking_server.endpoint), *texts)

    seen = tracking_server.targets
    assert len(set(seen)) == len(seen)
    for text, outcome in zip(texts, outcomes, strict=True):
        assert outcome.result in (Result.DELIVERED, Result.AMBIGUOUS)
        assert outcome.result is Result.AMBIGUOUS or f"/track/?{text}" in seen


@every_fast_sender
def test_a_handshake_that_is_never_answered_sent_nothing(fast: Fast) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert result(fast, f"https://127.0.0.1:{silent.getsockname()[1]}/track/") is Result.NOT_SENT


@every_fast_sender
def test_a_sender_that_is_not_open_sends_nothing(fast: Fast) -> None:
    outcome = asyncio.run(fast(FAR).send("c=2"))

    assert outcome.result is Result.NOT_SENT


# --- the environment --------------------------------------------------------------------------------------


@every_fast_sender
def test_https_goes_through_the_proxy_of_the_environment(
    fast: Fast, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with (
        TrackingServer(tls=authority.server("convert.example")) as server,
        ForwardProxy(server.port) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.replace("//", "//me:secret@"))

        assert result(fast, FAR) is Result.DELIVERED
        assert [(seen.method, seen.target) for seen in proxy.requests] == [("CONNECT", "convert.example:443")]
        assert proxy.requests[0].all("Proxy-Authorization") == ["Basic bWU6c2VjcmV0"]
        assert server.targets == ["/track/?c=2&p=1"]
        assert server.requests[0].all("Proxy-Authorization") == []


@every_fast_sender
@pytest.mark.parametrize(
    ("name", "spelling"), [("HTTP_PROXY", "http://127.0.0.1:{}"), ("ALL_PROXY", "127.0.0.1:{}")]
)
def test_plain_requests_go_through_the_proxy_with_the_user_agent_unchanged(
    fast: Fast, name: str, spelling: str, tracking_server: TrackingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ForwardProxy(tracking_server.port) as proxy:
        monkeypatch.setenv(name, spelling.format(proxy.port))

        assert result(fast, "http://convert.example/track/") is Result.DELIVERED
    assert len(proxy.requests) == 1
    (seen,) = tracking_server.requests
    assert seen.all("User-Agent")[0].startswith("ConvertAgent/")


@every_fast_sender
def test_no_proxy_is_honoured(
    fast: Fast, tracking_server: TrackingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ForwardProxy(tracking_server.port) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")

        assert result(fast, tracking_server.endpoint) is Result.DELIVERED
    assert proxy.connections == 0


@every_fast_sender
@pytest.mark.parametrize("refuse", [403, 407, 502])
def test_a_tunnel_that_the_proxy_refuses_sent_nothing(
    fast: Fast, refuse: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with refused_port() as closed, ForwardProxy(closed, refuse=refuse) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)

        assert result(fast, FAR) is Result.NOT_SENT
        assert [seen.method for seen in proxy.requests] == ["CONNECT"]


@every_fast_sender
def test_a_proxy_that_cannot_be_reached_was_sent_nothing(fast: Fast, monkeypatch: pytest.MonkeyPatch) -> None:
    with refused_port() as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")

        assert result(fast, FAR) is Result.NOT_SENT


@every_fast_sender
@pytest.mark.parametrize("proxy", ["ftp://127.0.0.1:1", "http://[::1", "http://"])
def test_a_proxy_that_cannot_be_used_gets_a_clear_error(
    fast: Fast, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)

    with pytest.raises(SettingsError, match=r"proxy that the environment names"):
        result(fast, FAR)


@every_fast_sender
@pytest.mark.parametrize("way", ["the last of a bundle", "a folder"])
def test_certificates_of_a_bundle_or_a_folder_are_trusted(
    fast: Fast, way: str, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates = tmp_path / "certificates"
    certificates.mkdir()
    other = tmp_path / "other"
    other.mkdir()
    bundle = certificates / "bundle.pem"
    bundle.write_bytes(Authority(other).file.read_bytes() + b"# mine\n" + authority.file.read_bytes())
    if way == "a folder":
        monkeypatch.setenv("SSL_CERT_DIR", str(certificates))
    else:
        monkeypatch.setenv("SSL_CERT_FILE", str(bundle))

    with TrackingServer(tls=authority.server()) as server:
        assert result(fast, server.endpoint) is Result.DELIVERED


@every_fast_sender
def test_the_certificates_that_httpx_brings_are_trusted_too(
    fast: Fast, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    monkeypatch.setattr(certifi, "where", lambda: str(authority.file))

    with TrackingServer(tls=authority.server()) as server:
        assert result(fast, server.endpoint) is Result.DELIVERED


@every_fast_sender
def test_certificates_that_cannot_be_read_get_a_clear_error(
    fast: Fast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "missing.pem"))

    with pytest.raises(SettingsError, match="SSL_CERT_FILE"):
        result(fast, FAR)


# --- the choice -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sender", "kind"),
    [
        ("auto", HttptoolsSender),
        ("httptools", HttptoolsSender),
        ("pyreqwest", UnforkedSender),
        ("httpx", HttpxSender),
        ("httpx2", HttpxSender),
        (httpx.AsyncClient, ClientSender),
    ],
    ids=["auto", "httptools", "pyreqwest", "httpx", "httpx2", "a factory"],
)
def test_the_sender_that_is_named_is_made_and_sends(
    sender: str | Callable[[], object], kind: type, tracking_server: TrackingServer
) -> None:
    make = make_sender(sender, tracking_server.endpoint)

    first, second = make(), make()

    assert type(first) is type(second) is kind
    assert first is not second
    assert send(first)[0].result is Result.DELIVERED


@pytest.mark.parametrize("name", ["requests", "", "HTTPX"])
def test_a_sender_of_another_name_gets_a_clear_error(name: str) -> None:
    with pytest.raises(SettingsError, match=r"'auto', 'httptools', 'pyreqwest', 'httpx', 'httpx2'"):
        make_sender(name, FAR)


def run(script: str, *arguments: str) -> tuple[str, str, int]:
    # From 3.12 on Python warns of every fork beside threads; here it is what is looked at.
    warnings = ["-W", "error", "-W", "ignore:This process:DeprecationWarning"]
    done = subprocess.run(
        [sys.executable, *warnings, "-c", textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout.strip(), done.stderr, done.returncode


WITHOUT = """
    import sys

    class Blocker:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] in ("httptools", "pyreqwest"):
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sys.meta_path.insert(0, Blocker())
    from convert_middleware.delivery.senders.choose import make_sender
    from convert_middleware.errors import SettingsError

    try:
        print(type(make_sender(sys.argv[1], "http://127.0.0.1/track/")()).__name__)
    except SettingsError as error:
        print(error)
"""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("auto", "HttpxSender"),
        (
            "httptools",
            "sender needs httptools, which is not installed; run: pip install convert-middleware[fast].",
        ),
        ("pyreqwest", "sender needs pyreqwest, which is not installed; run: pip install pyreqwest."),
    ],
)
def test_without_the_fast_ones_httpx_is_taken_unless_it_was_asked_for(name: str, said: str) -> None:
    assert run(WITHOUT, name) == (said, "", 0)


LOADED = """
    import sys
    from convert_middleware import Settings, Tracker

    tracker = Tracker(Settings(
        customer_id="1", project_id="2", secret_key="the site's own secret, long enough",
        endpoint="http://127.0.0.1:9/", sender="httpx", deliver=sys.argv[1] == "yes", outbox=sys.argv[2],
    ))
    print("httpcore" in sys.modules)
    tracker.close()
"""


def test_a_site_that_delivers_has_loaded_its_sender_before_the_first_hit(tmp_path: Path) -> None:
    assert run(LOADED, "yes", "memory://") == ("True", "", 0)
    assert run(LOADED, "no", f"sqlite:///{tmp_path}/outbox.db") == ("False", "", 0)


# --- the process ------------------------------------------------------------------------------------------

SENDING = """
    import asyncio, os, sys
    from convert_middleware.delivery.senders.choose import make_sender

    async def main(text):
        sender = make_sender(sys.argv[1], sys.argv[2])()
        await sender.open()
        print((await sender.send(text)).result, flush=True)
        return sender
"""
FORK = """
    async def once(text):
        await (await main(text)).close()

    with asyncio.Runner() as runner:
        kept = runner.run(main("parent=1"))  # its connection is open while the process forks
        child = os.fork()
        if child == 0:
            asyncio.run(once("child=1"))
            sys.stdout.flush()
            os._exit(0)  # the runner is the parent's to close
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print("child ended with", code)
        runner.run(kept.send("parent=2"))
        runner.run(kept.close())
"""
LEAVE = """
    sys.setswitchinterval(1)  # whoever wants the interpreter waits that long, or until it is let go

    async def once():
        await (await main("c=2")).close()

    asyncio.run(once())
"""


THREADS = """
    import asyncio, sys, threading

    def first():  # imports what the others use, and ends
        from convert_middleware.delivery.senders.choose import make_sender
        makers.append(make_sender("pyreqwest", sys.argv[1]))

    async def send():
        sender = makers[0]()
        await sender.open()
        results.append((await sender.send("c=2")).result)
        await sender.close()

    makers, results = [], []
    for target in (first, *[lambda: asyncio.run(send())] * 10):
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
    print(*results)
"""


def test_pyreqwest_may_first_be_asked_for_in_a_thread_that_ends(tracking_server: TrackingServer) -> None:
    assert run(THREADS, tracking_server.endpoint) == (" ".join(["delivered"] * 10), "", 0)


@pytest.mark.parametrize("name", ["auto", "pyreqwest"])
def test_a_forked_child_sends_and_its_parent_goes_on(name: str, tracking_server: TrackingServer) -> None:
    said, errors, code = run(SENDING + FORK, name, tracking_server.endpoint)

    assert (said.split("\n"), errors, code) == (["delivered", "delivered", "child ended with 0"], "", 0)
    assert tracking_server.targets == ["/track/?parent=1", "/track/?child=1", "/track/?parent=2"]


def test_a_process_that_ends_right_after_sending_ends_in_peace(tracking_server: TrackingServer) -> None:
    for _ in range(8):
        assert run(SENDING + LEAVE, "pyreqwest", tracking_server.endpoint) == ("delivered", "", 0)
