"""Convert's tracking endpoint, following a script."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.servers.behaviour import GIF, Behaviour, answer
from tests.servers.listener import Listener, Peer, Seen

if TYPE_CHECKING:
    import ssl

Choice = Behaviour | Callable[[Seen], Behaviour]
PIXEL = answer(200, {"Content-Type": "image/gif"}, GIF)


class TrackingServer(Listener):
    """Answers requests in the order they arrive: from the script as long as it lasts, then the default.

    Args:
        *script: Behaviours for the first requests.
        default: What happens to the others; a function decides by the request.
        tls: Speak HTTPS with this context; see :class:`tests.servers.Authority`.
        port: Where to listen; 0 for any free port.
    """

    def __init__(
        self,
        *script: Behaviour,
        default: Choice = PIXEL,
        tls: ssl.SSLContext | None = None,
        port: int = 0,
    ) -> None:
        super().__init__(tls, port)
        self.default = default
        self._script = deque(script)
        self._seen: list[Seen] = []

    @property
    def requests(self) -> list[Seen]:
        """Every complete request so far."""
        with self._changed:
            return list(self._seen)

    @property
    def targets(self) -> list[str]:
        """The targets of every complete request so far."""
        return [seen.target for seen in self.requests]

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def endpoint(self) -> str:
        """What to give as the ``endpoint`` option."""
        return f"{self.origin}/track/"

    def script(self, *behaviours: Behaviour) -> None:
        """Say what happens to the next requests, after those the script already has."""
        with self.change():
            self._script.extend(behaviours)

    @property
    def unplayed(self) -> int:
        """How many behaviours of the script have not had their turn."""
        with self._changed:
            return len(self._script)

    def until_requests(self, number: int) -> list[Seen]:
        """Block until so many requests have arrived and return them."""
        self.until(lambda: len(self._seen) >= number)
        return self.requests

    def resets_next(self) -> bool:
        return self._take(at_accept=True) is not None

    async def serve(self, peer: Peer) -> None:
        while True:
            beginning = await peer.first_byte()
            chosen = self._take(at_accept=True)
            if chosen is None:
                seen = await peer.request(beginning)
                with self.change():
                    self._seen.append(seen)
                chosen = self._take() or (
                    self.default if isinstance(self.default, Behaviour) else self.default(seen)
                )
            else:
                peer.began = False  # begun and never looked at
            await chosen.play(peer)
            if "close" in [value.lower() for value in seen.all("connection")]:
                return

    def _take(self, *, at_accept: bool | None = None) -> Behaviour | None:
        """Take the behaviour whose turn it is, if it is of that kind."""
        with self.change():
            if self._script:
                fits = at_accept is None or self._script[0].at_accept == at_accept
                return self._script.popleft() if fits else None
            if isinstance(self.default, Behaviour) and self.default.at_accept and at_accept:
                return self.default
            return None
