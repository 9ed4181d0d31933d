"""Visitor ⇄ signed text, with key rotation.

The one module that knows itsdangerous. A value is ``1.<payload>.<signature>``; whatever a browser sends
instead is rejected with a reason and never fails a page. Time is handed in; keys are never shown.
"""

from __future__ import annotations

import hashlib
import re
from binascii import b2a_base64
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from itsdangerous import Signer
from itsdangerous.signer import SigningAlgorithm

from convert_middleware.cookie.payload import (
    BUDGET,
    MAX_PAYLOAD,
    MAX_TRANSACTIONS,
    Evicted,
    RejectedError,
    Rejection,
    pack,
    unpack,
    within_budget,
)
from convert_middleware.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from convert_middleware.visitor import Visitor

CLOCK_SKEW: Final = 300  # seconds that two servers' clocks may differ
MIN_KEY_BYTES: Final = 16


_BLOCK: Final = 64  # bytes that SHA-256 takes at a time
_INNER: Final = bytes([byte ^ 0x36 for byte in range(256)])
_OUTER: Final = bytes([byte ^ 0x5C for byte in range(256)])


class _HMACSHA256(SigningAlgorithm):
    """HMAC as base64: its text is compared, so that a signature has one spelling only.

    The key's part of the work (RFC 2104, section 4) is done once a key; the standard library does it
    for every value or spends as much on copying.
    """

    def get_signature(self, key: bytes, value: bytes) -> bytes:
        inner, outer = _begun(key)
        inner, outer = inner.copy(), outer.copy()
        inner.update(value)
        outer.update(inner.digest())
        return b2a_base64(outer.digest(), newline=False)[:-1]


@lru_cache(maxsize=64)
def _begun(key: bytes) -> tuple[hashlib._Hash, hashlib._Hash]:
    """Return the two hashes of an HMAC as they stand before the first byte of a value."""
    padded = (key if len(key) <= _BLOCK else hashlib.sha256(key).digest()).ljust(_BLOCK, b"\0")
    return hashlib.sha256(padded.translate(_INNER)), hashlib.sha256(padded.translate(_OUTER))


_ALGORITHM: Final = _HMACSHA256()


class CookieCodec:
    """Writes and reads signed states.

    Args:
        keys: Secret keys; the first one signs, all are accepted.
        max_age: Seconds a state is accepted after its ``issued_at``.
        purpose: Values written for one purpose are not accepted for another.
    """

    def __init__(self, keys: Sequence[str | bytes], max_age: int, purpose: str = "cookie") -> None:
        salt = f"convert_middleware.{purpose}"
        # The keys are derived once; a Signer derives them anew for every signature.
        self._keys = [
            Signer(key, salt=salt, key_derivation="hmac", digest_method=hashlib.sha256).derive_key()
            for key in keys
        ]
        self._max_age = max_age

    def write(self, visitor: Visitor, issued_at: int | None = None) -> tuple[bytes, Evicted | None]:
        """Return the signed text of ``visitor``, at most 3 072 bytes long, and what had to go for that.

        Transaction ids go first, then the oldest experiments, then the oldest goals; the newest stay.

        Args:
            visitor: The state.
            issued_at: Seconds since the epoch from which its life counts; None: the first visit.
        """
        issued_at = visitor.issued_at if issued_at is None else issued_at
        evicted: Evicted | None = None
        if (
            len(visitor.transactions) > MAX_TRANSACTIONS
            or len(payload := pack(visitor, issued_at)) > MAX_PAYLOAD
        ):
            visitor, evicted = within_budget(visitor, issued_at)
            payload = pack(visitor, issued_at)
        value = b"1." + payload
        return b"%b.%b" % (value, _ALGORITHM.get_signature(self._keys[0], value)), evicted

    def read(self, text: bytes, now: float) -> tuple[Visitor, bool]:
        """Return the state in ``text`` and whether an old key had signed it.

        Args:
            text: What the browser sent.
            now: Seconds since the epoch.

        Raises:
            RejectedError: It is no valid state of ours; the error carries the reason.
        """
        if len(text) > BUDGET:
            raise RejectedError(Rejection.TOO_LONG)
        if not text.startswith(b"1."):
            future = re.match(rb"[0-9]{1,3}\.", text)
            raise RejectedError(Rejection.VERSION if future else Rejection.MALFORMED)
        value, _, signature = text.rpartition(b".")
        for number, key in enumerate(self._keys):
            if _ALGORITHM.verify_signature(key, value, signature):
                visitor, issued_at = unpack(value[2:])
                if issued_at > now + CLOCK_SKEW:
                    raise RejectedError(Rejection.FUTURE)
                if now > issued_at + self._max_age + CLOCK_SKEW:
                    raise RejectedError(Rejection.EXPIRED)
                return visitor, number > 0
        raise RejectedError(Rejection.SIGNATURE)


def text_of(visitor: Visitor) -> bytes:
    """Return a state as :meth:`CookieCodec.write` does, unsigned, of twice the size; for this process."""
    payload = pack(visitor, visitor.issued_at)
    if len(payload) > 2 * MAX_PAYLOAD:  # only forged cookies tell so much, and many would fill the memory
        payload = pack(within_budget(visitor, visitor.issued_at)[0], visitor.issued_at)
    return b"1.%b." % payload


def state_of(text: bytes) -> Visitor:
    """Return the state in a text that this process wrote or found valid, without another look at that."""
    return unpack(text[2 : text.rindex(b".")])[0]


def check_keys(secret_key: object, previous_keys: object) -> tuple[bytes, ...]:
    """Return the keys as bytes, the signing one first.

    Raises:
        SettingsError: A key is missing, no text or bytes, under 16 bytes, given twice, or the previous keys
            are a single string where a sequence was expected.
    """
    if isinstance(previous_keys, (str, bytes)) or not isinstance(previous_keys, (tuple, list)):
        raise SettingsError("previous_keys", "must be a tuple or list of keys, such as (old_key,)")
    keys = []
    for name, key in (("secret_key", secret_key), *(("previous_keys", old) for old in previous_keys)):
        if not isinstance(key, (str, bytes)):
            kind = type(key).__name__
            raise SettingsError(name, f"must hold text or bytes, not {kind}; pass a long random secret")
        try:
            raw = key.encode() if isinstance(key, str) else bytes(key)
        except UnicodeEncodeError:
            raise SettingsError(name, "is no valid text: it contains a lone surrogate") from None
        if len(raw) < MIN_KEY_BYTES:
            raise SettingsError(
                name, f"is too short: at least {MIN_KEY_BYTES} random bytes are needed, {len(raw)} were given"
            )
        if raw in keys:
            raise SettingsError(name, "repeats a key: the signing key goes to secret_key, older ones here")
        keys.append(raw)
    return tuple(keys)
