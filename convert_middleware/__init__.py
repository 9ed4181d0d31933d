"""Server-side tracking for Convert Experiments: one line of middleware, every number right."""

from convert_middleware.asgi import ConvertMiddleware
from convert_middleware.cookie import CookieOptions
from convert_middleware.delivery import MemoryOutbox, RedisOutbox, SqliteOutbox
from convert_middleware.errors import (
    ArgumentError,
    ArgumentTypeError,
    ConvertError,
    OutsideRequestError,
    SettingsError,
    TokenError,
    WireError,
)
from convert_middleware.recorder import Recorder, current
from convert_middleware.settings import Settings
from convert_middleware.tracker import Stats, Tracker
from convert_middleware.wsgi import ConvertWSGIMiddleware

__all__ = [
    "ArgumentError",
    "ArgumentTypeError",
    "ConvertError",
    "ConvertMiddleware",
    "ConvertWSGIMiddleware",
    "CookieOptions",
    "MemoryOutbox",
    "OutsideRequestError",
    "Recorder",
    "RedisOutbox",
    "Settings",
    "SettingsError",
    "SqliteOutbox",
    "Stats",
    "TokenError",
    "Tracker",
    "WireError",
    "current",
]
