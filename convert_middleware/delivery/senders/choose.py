"""Which sender is made: what the settings name, what is installed, and what works in this process."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from convert_middleware.delivery.senders.httpx_sender import ClientSender, HttpxSender
from convert_middleware.errors import SettingsError, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from convert_middleware.delivery.policy import Outcome
    from convert_middleware.delivery.senders import Sender

NAMES: Final = ("auto", "pyreqwest", "httpx", "httpx2")


def make_sender(sender: str | Callable[[], object], endpoint: str) -> Callable[[], Sender]:
    """Return what makes the sender; to be called where it will be used.

    Args:
        sender: "auto" for the fastest one installed, "pyreqwest", "httpx" or "httpx2", or a function that
            returns an ``AsyncClient``.
        endpoint: URL up to the ``?``; ``{project_id}`` in it stands for the hit's own project.

    Raises:
        SettingsError: There is no sender of that name, or pyreqwest is asked for and not installed.
    """
    if callable(sender):
        return partial(ClientSender, endpoint, sender)
    if sender not in NAMES:
        raise SettingsError("sender", f"must be one of {', '.join(map(repr, NAMES))}, not {shown(sender)}")
    if sender in ("auto", "pyreqwest"):
        fast = _load_fast(must=sender == "pyreqwest")
        if fast is not None:
            return partial(FastSender, endpoint, fast)
    return partial(HttpxSender, endpoint, "auto" if sender == "pyreqwest" else sender)


class FastSender:
    """Sends through pyreqwest, or through httpx in a forked process.

    Its threads do not survive a fork, and once they ran in the parent it cannot start in the child.

    Args:
        endpoint: URL up to the ``?``; ``{project_id}`` in it stands for the hit's own project.
        make: Returns the sender to try first.
    """

    def __init__(self, endpoint: str, make: Callable[[str], Sender]) -> None:
        self._endpoint = endpoint
        self._sender = make(endpoint)

    async def open(self) -> None:
        """See :class:`Sender`."""
        try:
            await self._sender.open()
        except RuntimeError:
            self._sender = HttpxSender(self._endpoint)
            await self._sender.open()

    def send(self, text: str) -> Coroutine[Any, Any, Outcome]:
        """See :class:`Sender`."""
        return self._sender.send(text)

    async def close(self) -> None:
        """See :class:`Sender`."""
        await self._sender.close()


def _load_fast(*, must: bool) -> Callable[[str], Sender] | None:
    try:
        from convert_middleware.delivery.senders.pyreqwest_sender import PyreqwestSender
    except (SettingsError, ImportError):
        if must:
            raise
        return None
    return PyreqwestSender
