"""``python -m tests.matrix.uwsgi_server …``: uWSGI, whose wheels carry it as a module."""

from __future__ import annotations

import sys

import pyuwsgi  # type: ignore[import-not-found]  # an extension module, without types

if __name__ == "__main__":
    pyuwsgi.run(["--home", sys.prefix, *sys.argv[1:]])
