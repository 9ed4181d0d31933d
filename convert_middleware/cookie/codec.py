"""Visitor ⇄ signed text, with key rotation.

The one module that knows itsdangerous. A value is ``1.<payload>.<signature>``; whatever a browser sends
instead is rejected with a reason and never fails a page. Time is handed in; keys are never shown.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING, Final

from itsdangerous import BadSignature, Signer
from itsdangerous.signer import SigningAlgorithm

from convert_middleware.cookie.payload import (
    BUDGET,
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


class _HMACSHA256(SigningAlgorithm):
    def get_signature(self, key: bytes, value: bytes) -> bytes:
        return hmac.digest(key, value, "sha256")


class CookieCodec:
    """Writes and reads signed states.

    Args:
        keys: Secret keys; the first one signs, all are accepted.
        max_age: Seconds a state is accepted after its ``issued_at``.
        purpose: Values written for one purpose are not accepted for another.

    Raises:
        SettingsError: A key is too short, or the keys are no sequence of keys.
    """

    def __init__(self, keys: Sequence[str | bytes], max_age: int, purpose: str = "cookie") -> None:
        salt = f"convert_middleware.{purpose}"
        # The keys are derived once; itsdangerous would derive them anew for every signature.
        self._signers = [
            Signer(
                Signer(key, salt=salt, key_derivation="hmac", digest_method=hashlib.sha256).derive_key(),
                salt=salt,
                key_derivation="none",
                algorithm=_HMACSHA256(),
            )
            for key in keys
        ]
        self._max_age = max_age

    def write(self, visitor: Visitor, issued_at: int | None = None) -> tuple[str, Evicted]:
        """Return the signed text of ``visitor``, at most 3 072 bytes long, and what had to go for that.

        Transaction ids go first, then the oldest experiments, then the oldest goals; the newest stay.

        Args:
            visitor: The state.
            issued_at: Seconds since the epoch from which its life counts; None: the first visit.
        """
        visitor, evicted = within_budget(visitor)
        payload = pack(visitor, visitor.issued_at if issued_at is None else issued_at)
        return self._signers[0].sign(b"1." + payload).decode(), evicted

    def read(self, text: str, now: float) -> tuple[Visitor, bool]:
        """Return the state in ``text`` and whether an old key had signed it.

        Args:
            text: What the browser sent.
            now: Seconds since the epoch.

        Raises:
            RejectedError: It is no valid state of ours; the error carries the reason.
        """
        if len(text) > BUDGET:
            raise RejectedError(Rejection.TOO_LONG)
        if not text.startswith("1."):
            future = re.match(r"[0-9]{1,3}\.", text)
            raise RejectedError(Rejection.VERSION if future else Rejection.MALFORMED)
        for number, signer in enumerate(self._signers):
            try:
                payload = signer.unsign(text)[2:]
            except (BadSignature, UnicodeEncodeError):
                continue
            visitor, issued_at = unpack(payload)
            if issued_at > now + CLOCK_SKEW:
                raise RejectedError(Rejection.FUTURE)
            if now > issued_at + self._max_age + CLOCK_SKEW:
                raise RejectedError(Rejection.EXPIRED)
            return visitor, number > 0
        raise RejectedError(Rejection.SIGNATURE)


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
        raw = key.encode() if isinstance(key, str) else bytes(key)
        if len(raw) < MIN_KEY_BYTES:
            raise SettingsError(
                name, f"is too short: at least {MIN_KEY_BYTES} random bytes are needed, {len(raw)} were given"
            )
        if raw in keys:
            raise SettingsError(name, "repeats a key: the signing key goes to secret_key, older ones here")
        keys.append(raw)
    return tuple(keys)
