"""Proxies and certificates of the environment, missing libraries, and a client that others close."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap

import httpx
import pytest

from convert_middleware.delivery import ClientSender, HttpxSender, Sender
from convert_middleware.delivery.policy import Outcome, Result
from convert_middleware.errors import SettingsError
from tests.servers import Authority, ForwardProxy, TrackingServer, close, refused_port
from tests.servers.listener import Listener, Peer

LIBRARIES = pytest.mark.parametrize("library", ["httpx", "httpx2"])


class BrokenProxy(Listener):
    """A proxy that is asked for a tunnel and makes none."""

    def __init__(self, end: str) -> None:
        super().__init__()
        self._end = end

    async def serve(self, peer: Peer) -> None:
        await peer.request(await peer.first_byte())
        if self._end == "resets":
            peer.reset()
        elif self._end == "talks nonsense":
            await peer.send(b"nonsense\r\n\r\n")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def send(sender: Sender, text: str = "c=2&p=1") -> Outcome:
    async def story() -> Outcome:
        await sender.open()
        try:
            return await sender.send(text)
        finally:
            await sender.close()

    return asyncio.run(story())


@LIBRARIES
def test_https_goes_through_the_proxy_of_the_environment(
    library: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with (
        TrackingServer(tls=authority.server("convert.example")) as server,
        ForwardProxy(server.port) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        outcome = send(HttpxSender("https://convert.example/track/", library))

        assert outcome.result is Result.DELIVERED
        assert [(seen.method, seen.target) for seen in proxy.requests] == [("CONNECT", "convert.example:443")]
        assert server.targets == ["/track/?c=2&p=1"]


@LIBRARIES
@pytest.mark.parametrize("spelling", ["http://127.0.0.1:{}", "127.0.0.1:{}"])
def test_plain_requests_go_through_the_proxy_with_the_user_agent_unchanged(
    library: str, spelling: str, tracking_server: TrackingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ForwardProxy(tracking_server.port) as proxy:
        monkeypatch.setenv("HTTP_PROXY", spelling.format(proxy.port))
        outcome = send(HttpxSender("http://convert.example/track/", library))

    assert outcome.result is Result.DELIVERED
    assert len(proxy.requests) == 1
    (seen,) = tracking_server.requests
    assert seen.all("User-Agent")[0].startswith("ConvertAgent/")


@LIBRARIES
def test_no_proxy_is_honoured(
    library: str, tracking_server: TrackingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ForwardProxy(tracking_server.port) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        outcome = send(HttpxSender(tracking_server.endpoint, library))

    assert outcome.result is Result.DELIVERED
    assert proxy.connections == 0


@LIBRARIES
@pytest.mark.parametrize("refuse", [403, 407, 502])
def test_a_tunnel_that_the_proxy_refuses_sent_nothing(
    library: str, refuse: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with refused_port() as closed, ForwardProxy(closed, refuse=refuse) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        outcome = send(HttpxSender("https://convert.example/track/", library))

    assert outcome.result is Result.NOT_SENT


@LIBRARIES
@pytest.mark.parametrize("end", ["hangs up", "resets", "talks nonsense"])
def test_a_tunnel_that_breaks_before_it_stands_sent_nothing(
    library: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BrokenProxy(end) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        outcome = send(HttpxSender("https://convert.example/track/", library))

    assert outcome.result is Result.NOT_SENT


@LIBRARIES
def test_a_request_that_left_through_a_tunnel_and_was_not_answered_is_in_doubt(
    library: str, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with (
        TrackingServer(tls=authority.server("convert.example"), default=close()) as server,
        ForwardProxy(server.port) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        outcome = send(HttpxSender("https://convert.example/track/", library))

    assert outcome.result is Result.AMBIGUOUS


@LIBRARIES
def test_a_proxy_that_wants_a_password_pauses_plain_requests_too(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with refused_port() as closed, ForwardProxy(closed, refuse=407) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        outcome = send(HttpxSender("http://convert.example/track/", library))

    assert outcome.result is Result.UNAUTHORISED


@LIBRARIES
def test_a_proxy_that_cannot_be_reached_was_sent_nothing(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with refused_port() as port:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        outcome = send(HttpxSender("https://convert.example/track/", library))

    assert outcome.result is Result.NOT_SENT


@LIBRARIES
@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "ftp://127.0.0.1:1", "http://[::1", "http://"])
def test_a_proxy_that_cannot_be_used_gets_a_clear_error(
    library: str, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy)

    with pytest.raises(SettingsError, match=r"proxy that the environment names"):
        send(HttpxSender("https://convert.example/track/", library))


def test_a_client_of_the_users_that_is_closed_under_us_is_made_anew(tracking_server: TrackingServer) -> None:
    clients: list[httpx.AsyncClient] = []

    def factory() -> httpx.AsyncClient:
        clients.append(httpx.AsyncClient(headers={"User-Agent": "site", "X-Visitor": "secret"}))
        return clients[-1]

    async def story() -> list[Outcome]:
        sender = ClientSender(tracking_server.endpoint, factory)
        await sender.open()
        outcomes = [await sender.send("n=1")]
        await clients[0].aclose()
        outcomes += await asyncio.gather(*[sender.send(f"n={number}") for number in range(2, 6)])
        await sender.close()
        return outcomes

    assert {outcome.result for outcome in asyncio.run(story())} == {Result.DELIVERED}
    assert len(clients) == 2
    assert all(client.is_closed for client in clients)
    assert not [seen for seen in tracking_server.requests if seen.all("X-Visitor")]


def test_a_client_that_cannot_be_made_anew_was_sent_nothing(tracking_server: TrackingServer) -> None:
    clients = [httpx.AsyncClient()]

    async def story() -> Outcome:
        sender = ClientSender(tracking_server.endpoint, clients.pop)
        await sender.open()
        await sender._client.aclose()
        return await sender.send("n=1")

    assert asyncio.run(story()).result is Result.NOT_SENT


BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Blocker())
import asyncio
from convert_middleware.delivery import HttpxSender
from convert_middleware.errors import SettingsError

async def main():
    try:
        sender = HttpxSender({endpoint!r}, {library!r})
    except SettingsError as error:
        return print(error)
    await sender.open()
    print((await sender.send("c=2&p=1")).result, sender._httpx.__name__)
    await sender.close()

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("blocked", "library", "said"),
    [
        ([], "auto", "delivered httpx2"),
        (["httpx2", "httpcore2"], "auto", "delivered httpx"),
        (["httpx", "httpcore"], "auto", "delivered httpx2"),
        (["httpx", "httpx2"], "auto", "sender needs httpx, which is not installed; run: pip install httpx."),
        (["httpx2"], "httpx2", "sender needs httpx2, which is not installed; run: pip install httpx2."),
    ],
    ids=["both", "httpx only", "httpx2 only", "neither", "another one"],
)
def test_whichever_library_is_there_is_used(
    blocked: list[str], library: str, said: str, tracking_server: TrackingServer
) -> None:
    script = textwrap.dedent(BLOCKED).format(
        blocked=set(blocked) or {""}, library=library, endpoint=tracking_server.endpoint
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=30, check=False
    )

    assert (done.stdout.strip(), done.stderr, done.returncode) == (said, "", 0)
