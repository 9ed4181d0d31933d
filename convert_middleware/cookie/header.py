"""The cookie headers: finding ours in what a browser sends, and the attributes it is set with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal

from convert_middleware.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_AGE: Final = 395 * 86_400  # seconds; 13 months
_MAX_MAX_AGE: Final = 400 * 86_400  # RFC 6265bis, section 5.5: user agents cap a cookie's life at 400 days
_COOKIES_READ: Final = 8  # of our name in one request
_HEADER_READ: Final = 64 * 1024  # bytes of a Cookie header that are looked at
_BEFORE: Final = (b"; ", b"")  # what stands before a cookie as browsers write it


def find(header: bytes, name: bytes) -> list[bytes]:
    """Return the values of the cookies called ``name`` in a Cookie request header, in order.

    Any other cookie may be as odd as it likes; the standard library's parser gives up on those.

    Args:
        header: The raw header; its first 64 KiB are looked at.
        name: The name; cookie names are case-sensitive.
    """
    start = header.find(name)
    if start < 0:
        return []
    end = start + len(name)
    # As browsers write it: once, and nothing odd about it.
    usual = header.startswith(b"=", end) and header[max(0, start - 2) : start] in _BEFORE
    if usual and header.find(name, end) < 0 and len(header) <= _HEADER_READ:
        stop = header.find(b";", end)
        value = header[end + 1 :] if stop < 0 else header[end + 1 : stop]
        return [value.strip(b" \t").strip(b'"')]
    return list(islice(_values(header[:_HEADER_READ], name), _COOKIES_READ))


def _values(header: bytes, name: bytes) -> Iterator[bytes]:
    """Yield the values of the cookies called ``name``, looking only at pairs that hold the name."""
    first = 0  # where it is not known yet what is a pair
    while (start := header.find(name, first)) >= 0:
        first = max(first, header.rfind(b";", first, start) + 1)
        end = header.find(b";", start)
        pair = header[first:] if end < 0 else header[first:end]
        key, equals, value = pair.partition(b"=")
        if equals and key.strip(b" \t") == name:
            yield value.strip(b" \t").strip(b'"')
        if end < 0:
            return
        first = end + 1


_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,100}", re.ASCII)  # RFC 6265, section 4.1.1
_PATH: Final = re.compile(r"/[\x20-\x3a\x3c-\x7e]{0,500}", re.ASCII)
_DOMAIN: Final = re.compile(r"\.?[A-Za-z0-9]([A-Za-z0-9.\-]{0,250}[A-Za-z0-9])?", re.ASCII)
_SAME_SITE: Final = {"lax": "Lax", "strict": "Strict", "none": "None"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CookieOptions:
    """The attributes of the visitor cookie; it is always HttpOnly.

    Attributes:
        name: Its name.
        max_age: Its life in seconds, at most 400 days.
        path: Path it is sent to.
        domain: Domain it is shared with; None: this host only.
        secure: True, False, or "auto": Secure where the request came over https.
        samesite: "lax", "strict" or "none".
        partitioned: Whether it is kept apart per embedding site (CHIPS).
        sliding: Whether its life starts anew whenever it is written, instead of at the first visit.

    Raises:
        SettingsError: An attribute is impossible, or two of them are together.
    """

    name: str = "convert_visitor"
    max_age: int = MAX_AGE
    path: str = "/"
    domain: str | None = None
    secure: bool | Literal["auto"] = "auto"
    samesite: Literal["lax", "strict", "none"] = "lax"
    partitioned: bool = False
    sliding: bool = False

    def __post_init__(self) -> None:
        for option, broken, reason in self._rules():
            if broken:
                raise SettingsError(f"cookie.{option}", reason)

    def _rules(self) -> Iterable[tuple[str, bool, str]]:
        """Yield option, whether it breaks the rule, and the way out; RFC 6265bis, section 5.7."""
        yield "name", not _matches(_TOKEN, self.name), "must be 1 to 100 characters of an HTTP token"
        age: object = self.max_age
        alive = isinstance(age, int) and not isinstance(age, bool) and 0 < age <= _MAX_MAX_AGE
        yield "max_age", not alive, f"must be whole seconds, 1 to {_MAX_MAX_AGE}"
        yield "path", not _matches(_PATH, self.path), "must start with '/' and hold no ';'"
        bad_domain = self.domain is not None and (
            not _matches(_DOMAIN, self.domain)
            or ".." in self.domain
            or self.domain.rpartition(".")[2].isdigit()
        )
        yield "domain", bad_domain, "must be a host name such as 'example.com', or None"
        sure: object = self.secure
        yield "secure", not (isinstance(sure, bool) or sure == "auto"), "must be True, False or 'auto'"
        site: object = self.samesite
        known = isinstance(site, str) and site in _SAME_SITE
        yield "samesite", not known, "must be 'lax', 'strict' or 'none'"
        yield "partitioned", not _is_bool(self.partitioned), "must be True or False"
        yield "sliding", not _is_bool(self.sliding), "must be True or False"
        yield (
            "name",
            self.name.startswith("_conv_"),
            "must not begin like those of Convert's own script, _conv_",
        )
        unsure = self.secure is not True
        prefix = self.name.lower()
        yield (
            "samesite",
            self.samesite == "none" and unsure,
            ("'none' needs secure=True: browsers refuse such a cookie otherwise"),
        )
        yield "partitioned", self.partitioned and unsure, "needs secure=True: browsers refuse it otherwise"
        yield "name", prefix.startswith("__secure-") and unsure, "with the prefix __Secure- needs secure=True"
        host = prefix.startswith("__host-")
        yield "name", host and unsure, "with the prefix __Host- needs secure=True"
        yield "domain", host and self.domain is not None, "must be None with the name prefix __Host-"
        yield "path", host and self.path != "/", "must be '/' with the name prefix __Host-"
        yield "name", prefix.startswith("__http-") and unsure, "with the prefix __Http- needs secure=True"

    def attributes(self, https: bool) -> bytes:
        """Return the attributes of a Set-Cookie header after ``Max-Age``, with a leading semicolon.

        Args:
            https: Whether the request came over https.
        """
        parts = ["", f"Path={self.path}"]
        if self.domain is not None:
            parts.append(f"Domain={self.domain}")
        if self.secure is True or (self.secure == "auto" and https):
            parts.append("Secure")
        parts.append("HttpOnly")
        parts.append(f"SameSite={_SAME_SITE[self.samesite]}")
        if self.partitioned:
            parts.append("Partitioned")
        return "; ".join(parts).encode("ascii")


_PAST: Final = b"; Expires=Thu, 01 Jan 1970 00:00:00 GMT"


def set_cookie(name: bytes, value: bytes, max_age: int, attributes: bytes) -> bytes:
    """Return the value of a Set-Cookie header.

    Args:
        name: Name of the cookie.
        value: Its value; empty to delete it.
        max_age: Remaining life in seconds; 0 deletes it.
        attributes: See :meth:`CookieOptions.attributes`.
    """
    return b"%b=%b; Max-Age=%d%b%b" % (name, value, max_age, attributes, b"" if max_age > 0 else _PAST)


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_bool(value: object) -> bool:
    return isinstance(value, bool)
