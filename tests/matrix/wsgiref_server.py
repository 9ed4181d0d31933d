"""``python -m tests.matrix.wsgiref_server PORT MODULE:APP``: the standard library's server."""

from __future__ import annotations

import sys
from importlib import import_module
from wsgiref.simple_server import make_server

if __name__ == "__main__":
    module, _, name = sys.argv[2].partition(":")
    with make_server("127.0.0.1", int(sys.argv[1]), getattr(import_module(module), name)) as server:
        server.serve_forever()
