"""Requests as a door runs them, without the door: cookies in, records, cookies out, news sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from convert_middleware import Recorder
from convert_middleware.page import Page

if TYPE_CHECKING:
    from convert_middleware import Tracker


class Visit:
    """One request. :meth:`respond` is the moment its response leaves.

    Args:
        tracker: The engine.
        cookies: The values of the visitor cookies that the browser sends.
    """

    def __init__(self, tracker: Tracker, *cookies: bytes) -> None:
        self.tracker = tracker
        self.page = Page(tracker, lambda: tracker.load(cookies))
        self.convert = Recorder(self.page)
        self.cookie = cookies[0] if cookies else b""  # as the browser has it
        self.wrote = False

    def respond(self, *, lost: bool = False) -> bytes:
        """Send the response and its news, and return the cookie the browser has then.

        Args:
            lost: A parallel response wrote its cookie last.
        """
        page = self.page
        saved = page.to_save()
        if saved is not None:
            text, _, whole = self.tracker.write_cookie(saved)
            self.wrote = True
            if not lost:
                self.cookie = text
            page.saved(saved, text if whole else None)
        page.shown = True
        if page.used:
            self.tracker.send_news(page)
        page.ended = True
        return self.cookie
