"""``python -m tests.frameworks.waitress_server module:app``: waitress, which SIGTERM ends as Ctrl-C does.

By itself it has no handler for that signal, and a process that dies of one runs no exit handlers.
"""

from __future__ import annotations

import signal
import sys

from waitress.runner import run

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    run(["waitress", "--listen=127.0.0.1:0", *sys.argv[1:]])
