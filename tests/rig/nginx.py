"""A real nginx with the configuration that the documentation has."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from conftest import end
from rig.cluster import eventually, free_ports, listens

CONFIG = Path(__file__).resolve().parents[2] / "docs" / "nginx.conf"
PROGRAM = shutil.which("nginx") or "/usr/sbin/nginx"

_FRAME = """
daemon off; worker_processes 1; pid {root}/nginx.pid; error_log {root}/error.log; {user}
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {root}/body; proxy_temp_path {root}/proxy; fastcgi_temp_path {root}/f;
    uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
    {config}
}}
"""


class Nginx:
    """In front of the servers at these ports, without TLS."""

    def __init__(self, root: Path, ports: Iterable[int]) -> None:
        self.port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = root / "error.log"
        servers = "".join(f"server 127.0.0.1:{port} max_fails=1 fail_timeout=2s;" for port in ports)
        text = re.sub(
            r"(?:    server 10\.\S+ max_fails=1 fail_timeout=2s;\n)+", servers, CONFIG.read_text()
        )
        text = re.sub(r"    ssl_\S+\s+\S+;\n", "", text)
        text = text.replace("listen 443 ssl;", f"listen 127.0.0.1:{self.port};")
        place = root / "nginx.conf"
        place.write_text(_FRAME.format(root=root, config=text, user="user root;"))
        command = [PROGRAM, "-p", str(root), "-e", str(self.log), "-c", str(place)]
        self._process = subprocess.Popen(command, start_new_session=True)
        eventually(lambda: listens(self.port), "nginx")

    def stop(self) -> None:
        """End it."""
        end(self._process)
