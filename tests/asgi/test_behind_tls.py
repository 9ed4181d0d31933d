"""Sites behind a proxy that ends TLS: what the proxy says decides whether a cookie goes with https only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from .drive import ask, converse, page

if TYPE_CHECKING:
    from typing import Any

    from .conftest import Convert

PROXY = ("192.0.2.7", 40000)


@pytest.mark.parametrize(
    ("trusted", "told", "secure"),
    [
        ("192.0.2.7", "https", True),
        ("192.0.2.7", "http", False),
        ("192.0.2.7", "", False),
        ("198.51.100.1", "https", False),  # anybody may say so
    ],
)
def test_a_cookie_goes_with_https_only_where_a_trusted_proxy_ended_tls(
    convert: Convert, trusted: str, told: str, secure: bool
) -> None:
    inner: Any = convert.door(page(lambda recorder: recorder.goal(331)))
    site: Any = ProxyHeadersMiddleware(inner, trusted_hosts=trusted)

    answer = ask(site, sent={"x-forwarded-proto": told} if told else {}, client=PROXY)

    (line,) = answer.cookies()
    assert ("Secure" in line.split("; ")) == secure
    assert len(convert.hits()) == 1


def test_a_socket_behind_such_a_proxy_gets_a_secure_cookie(convert: Convert) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["state"]["convert"].goal(331)
        await send({"type": "websocket.accept", "headers": []})
        await send({"type": "websocket.close"})

    site: Any = ProxyHeadersMiddleware(convert.door(app), trusted_hosts="192.0.2.7")
    headers = [(b"host", b"shop.example"), (b"x-forwarded-proto", b"https")]
    answer = converse(site, headers=headers, client=PROXY)

    (accept,) = answer.of("websocket.accept")
    ((_, cookie),) = accept["headers"]
    assert b"; Secure" in cookie
    assert len(convert.hits()) == 1
