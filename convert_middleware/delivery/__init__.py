"""Delivery: what waits, what is tried again, how it leaves and who does the work."""

from convert_middleware.delivery.entry import Entry, Worth
from convert_middleware.delivery.ledger import Ledger, Recent
from convert_middleware.delivery.opening import open_outbox, shared_ledger_of
from convert_middleware.delivery.outbox import Counts, MemoryOutbox, Outbox
from convert_middleware.delivery.policy import Policy
from convert_middleware.delivery.receipt import EXPOSURE, GOAL, TRANSACTION, Receipt
from convert_middleware.delivery.redis_streams import RedisOutbox
from convert_middleware.delivery.senders import Sender
from convert_middleware.delivery.senders.httpx_sender import ClientSender, HttpxSender
from convert_middleware.delivery.sheltered import ShelteredOutbox
from convert_middleware.delivery.sqlite import SqliteOutbox
from convert_middleware.delivery.thread import Delivery

__all__ = [
    "EXPOSURE",
    "GOAL",
    "TRANSACTION",
    "ClientSender",
    "Counts",
    "Delivery",
    "Entry",
    "HttpxSender",
    "Ledger",
    "MemoryOutbox",
    "Outbox",
    "Policy",
    "Receipt",
    "Recent",
    "RedisOutbox",
    "Sender",
    "ShelteredOutbox",
    "SqliteOutbox",
    "Worth",
    "open_outbox",
    "shared_ledger_of",
]
