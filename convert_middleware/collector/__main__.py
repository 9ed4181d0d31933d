"""``python -m convert_middleware.collector``: the collector as a program."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from convert_middleware.collector.app import create_collector
from convert_middleware.collector.sentence import Names
from convert_middleware.errors import SettingsError


def main(arguments: list[str] | None = None) -> int:
    """Run the collector until it is interrupted.

    Args:
        arguments: The command line after the program's name; none: that of this process.

    Returns:
        0, or 2 if something about the options is wrong.
    """
    given = _parser().parse_args(arguments)
    try:
        from convert_middleware.collector.serve import Server
    except ImportError as error:
        return _complain(
            f"{error.name} is missing. Install it with: pip install 'convert-middleware[collector]'"
        )
    try:
        names = Names.read(given.catalogue) if given.catalogue else None
        app = create_collector(given.database, names)
        server = Server(app, given.host, given.port)
    except SettingsError as error:
        return _complain(str(error))
    except OSError as error:
        why = str(error.strerror or error).partition(" (")[0]  # the address is in what Python adds, once more
        return _complain(f"cannot listen on {given.host} port {given.port}: {why}")
    kept = "in memory" if given.database == ":memory:" else f"in {given.database}"
    print(f"The collector's page: {server.address}/\nSend tracking requests to: {server.address}/track/")  # noqa: T201 - a program's output
    print(f"Requests are kept {kept}. Ctrl-C ends it.", flush=True)  # noqa: T201 - a program's output
    try:
        server.listen()
    except KeyboardInterrupt:  # uvicorn raises it again once everything is closed
        pass
    finally:
        app.state.collector.close()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m convert_middleware.collector",
        description="A local stand-in for Convert: takes tracking requests and shows them on a live page.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=8070, help="0: any free one (default: %(default)s)")
    parser.add_argument("--database", default=":memory:", help="SQLite file (default: %(default)s)")
    parser.add_argument(
        "--catalogue", type=Path, help="JSON file with names of experiments, variations, goals"
    )
    return parser


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:6]) <= 65535):
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return int(text)


def _complain(reason: str) -> int:
    print(f"convert_middleware.collector: {reason}", file=sys.stderr)  # noqa: T201 - a program's output
    return 2


if __name__ == "__main__":
    raise SystemExit(main())
