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

    Raises:
        OSError: They cannot be read.
    """
    file, folders = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    if not (file or folders):
        return None
    files = [Path(file)] if file else []
    for folder in folders.split(os.pathsep) if folders else ():
        files += [path for path in Path(folder).iterdir() if path.is_file()]
    return _found_in(files)


def certifi_certificates() -> list[bytes]:
    """Return those that certifi brings, as PEM: a bare container has none, and httpx trusts these too."""
    with suppress(ModuleNotFoundError):
        return _found_in([Path(importlib.import_module("certifi").where())])
    return []


def _found_in(files: list[Path]) -> list[bytes]:
    return [found for path in files for found in _CERTIFICATE.findall(path.read_bytes())]
