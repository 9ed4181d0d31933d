"""A real nginx on loopback with a cache in front of a site; all its files are in one folder."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from pathlib import Path

_PATIENCE: Final = 20.0  # seconds it gets to start or to end
_CONFIG: Final = """
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  proxy_temp_path {folder}/temp;
  proxy_cache_path {folder}/cache keys_zone=pages:1m;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass {site};
      proxy_cache pages;
      add_header X-Cache-Status $upstream_cache_status always;
      {more}
    }}
  }}
}}
"""


def _program() -> str:
    """Return where nginx is: a Debian user's PATH has no /usr/sbin."""
    path = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    assert path, "nginx is needed for these tests: on Debian, apt install nginx"
    return path


class Nginx:
    """A process with its own configuration.

    Args:
        folder: For its files.
        site: The address of the site behind it.
        more: Lines of the configuration for its one location.
    """

    def __init__(self, folder: Path, site: str, *more: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        config = folder / "nginx.conf"
        user = "user root;" if os.geteuid() == 0 else ""  # or its worker could not write into the folder
        text = _CONFIG.format(user=user, folder=folder, port=self._port, site=site, more="\n".join(more))
        config.write_text(text)
        self._errors = (folder / "stderr").open("w+")
        command = [_program(), "-c", str(config), "-p", str(folder), "-e", "stderr"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=self._errors)

    def __enter__(self) -> Self:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1.0).close()
            except ConnectionRefusedError:
                assert self._process.poll() is None, f"nginx has ended: {self._said()}"
                assert time.monotonic() < deadline, f"nginx never listened: {self._said()}"
                time.sleep(0.01)  # nginx does not tell when it listens
            else:
                return self

    def __exit__(self, *exception: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(_PATIENCE)
        finally:
            self._process.kill()
            self._errors.close()

    def _said(self) -> str:
        self._errors.seek(0)
        return self._errors.read()
