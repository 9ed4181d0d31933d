"""``python -m convert_middleware``: the command without its installed name."""

from convert_middleware.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
