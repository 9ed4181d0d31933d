"""The local stand-in for Convert: takes tracking requests, keeps them, shows them on a live page."""

from convert_middleware.collector.app import create_collector
from convert_middleware.collector.collector import Collector
from convert_middleware.collector.store import Record

__all__ = ["Collector", "Record", "create_collector"]
