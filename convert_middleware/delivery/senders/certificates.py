"""Which certificates are trusted where a sender has to say so itself."""

from __future__ import annotations

import importlib
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

_CERTIFICATE: Final = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def named_certificates() -> list[bytes] | None:
    """Return the certificates, as PEM, that the environment names; None if it names none.

    Folders that are not there are passed over, as OpenSSL does.

    Raises:
        OSError: The file cannot be read.
        ValueError: There is no certificate where they should be.
    """
    file, folders = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if not (file or folders):
        return None
    found = _found_in([Path(file)]) if file else []
    for folder in folders.split(os.pathsep) if folders else ():
        with suppress(OSError):
            for path in sorted(Path(folder).iterdir()):
                with suppress(OSError):  # a folder in it, or not ours to read
                    found += _found_in([path])
    if not found:
        raise ValueError("no certificate")
    return found


def certifi_certificates() -> list[bytes]:
    """Return those that certifi brings, as PEM: a bare container has none, and httpx trusts these too."""
    with suppress(ModuleNotFoundError):
        return _found_in([Path(importlib.import_module("certifi").where())])
    return []


def _found_in(files: list[Path]) -> list[bytes]:
    return [found for path in files for found in _CERTIFICATE.findall(path.read_bytes())]
