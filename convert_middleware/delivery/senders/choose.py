"""Which sender is made: what the settings name, what is installed, and what works in this process."""

from __future__ import annotations

import importlib
import sys
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from convert_middleware.delivery.senders.httpx_sender import ClientSender, HttpxSender, load
from convert_middleware.errors import SettingsError, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from convert_middleware.delivery.policy import Outcome
    from convert_middleware.delivery.senders import Sender

NAMES: Final = ("auto", "httptools", "pyreqwest", "httpx", "httpx2")

_PYREQWEST: Final = "convert_middleware.delivery.senders.pyreqwest_sender"


def make_sender(
    sender: str | Callable[[], object], endpoint: str, project_id: int | None = None, *, soon: bool = True
) -> Callable[[], Sender]:
    """Return what makes the sender; to be called where it will be used.

    Args:
        sender: "auto" for httptools if that is installed and else httpx; "httptools", "pyreqwest", "httpx" or
            "httpx2"; or a function that returns an ``AsyncClient``.
        endpoint: URL up to the ``?``; ``{project_id}`` in it stands for the hit's own project.
        project_id: To whose server a connection is opened ahead, where the library can.
        soon: Whether it will be used at all. Then the library is loaded now: in the delivery thread that
            would slow down the first pages, and their hits would wait for it.

    Raises:
        SettingsError: There is no sender of that name, or what is asked for is not installed.
    """
    if callable(sender):
        return partial(ClientSender, endpoint, sender)
    if sender not in NAMES:
        raise SettingsError("sender", f"must be one of {', '.join(map(repr, NAMES))}, not {shown(sender)}")
    if sender == "pyreqwest":
        return partial(UnforkedSender, endpoint, _load_pyreqwest())
    if sender in ("auto", "httptools"):
        fast = _load_httptools(must=sender == "httptools")
        if fast is not None:
            return partial(fast, endpoint, project_id)
    if soon:
        load(sender)
    return partial(HttpxSender, endpoint, sender)


class UnforkedSender:
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


def _load_httptools(*, must: bool) -> Callable[[str, int | None], Sender] | None:
    try:
        from convert_middleware.delivery.senders.httptools_sender import HttptoolsSender
    except (SettingsError, ImportError):
        if must:
            raise
        return None
    return HttptoolsSender


def _load_pyreqwest() -> Callable[[str], Sender]:
    """Import pyreqwest in a thread that lives on: what it keeps of the first one is used by all others."""
    if _PYREQWEST not in sys.modules and threading.current_thread() is not threading.main_thread():
        imported = threading.Event()
        with suppress(RuntimeError):  # no thread can be started
            threading.Thread(target=_import_and_stay, args=(imported,), daemon=True).start()
            imported.wait()
    from convert_middleware.delivery.senders.pyreqwest_sender import PyreqwestSender

    return PyreqwestSender


def _import_and_stay(imported: threading.Event) -> None:
    with suppress(SettingsError, ImportError):  # raised again where it is heard
        importlib.import_module(_PYREQWEST)
    imported.set()
    threading.Event().wait()
