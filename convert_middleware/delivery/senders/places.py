"""Where hits go: each to the server of its own project, because projects may share an outbox.

It knows how a query string begins (:mod:`convert_middleware.wire`) and nothing of connections.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

PLACEHOLDER: Final = "{project_id}"
MOST: Final = 256  # projects remembered
_WHOSE: Final = re.compile(r"c=[0-9]{1,19}&p=([0-9]{1,19})(&|\Z)")
_NONE: Final = "\0"  # how no query string begins

Place = TypeVar("Place")


class Places(Generic[Place]):
    """Finds the place that a hit goes to; costs next to nothing as long as the project is the same.

    Args:
        endpoint: URL up to the ``?``; ``{project_id}`` in it stands for the hit's own project.
        find: Returns the place of an endpoint without placeholder.
    """

    def __init__(self, endpoint: str, find: Callable[[str], Place]) -> None:
        self._endpoint = endpoint
        self._find = find
        self._found: dict[str, Place] = {}
        self.close()

    def close(self) -> None:
        """Forget every place."""
        self._found.clear()
        self._head = _NONE  # how the query strings begin that go where the last one went
        self._here: Place | None = None

    def open(self) -> None:
        """Find the only place ahead, or try whether one can be found."""
        place = self._find(filled(self._endpoint, "1"))
        if PLACEHOLDER not in self._endpoint:
            self._head, self._here = "", place

    def of(self, text: str) -> Place | None:
        """Return the place of a query string; None if that names no project."""
        return self._here if text.startswith(self._head) else self._look_up(text)

    def _look_up(self, text: str) -> Place | None:
        if PLACEHOLDER not in self._endpoint:
            self.open()
            return self._here
        whose = _WHOSE.match(text)
        if whose is None:
            return None
        project = whose[1]
        place = self._found.get(project)
        if place is None:
            if len(self._found) >= MOST:
                self._found.clear()
            place = self._found[project] = self._find(filled(self._endpoint, project))
        if whose[2]:
            self._head, self._here = whose[0], place
        return place


def filled(endpoint: str, project: str) -> str:
    """Return the endpoint of a project."""
    return endpoint.replace(PLACEHOLDER, project)


def pattern(endpoint: str) -> re.Pattern[str]:
    """Return what the URLs of all projects begin with."""
    return re.compile(re.escape(endpoint).replace(re.escape(PLACEHOLDER), "[0-9]+"))
