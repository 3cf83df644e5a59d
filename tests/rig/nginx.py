"""A real nginx with the configuration that the Ansible role makes, and the documentation has."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import trustme
import yaml

from conftest import end
from rig.cluster import eventually, free_ports, listens

ROLE = Path(__file__).resolve().parents[2] / "ansible" / "roles" / "nginx"
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


def render(**values: Any) -> str:
    """The configuration with the role's defaults, but for these values."""
    defaults = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
    text = (ROLE / "templates" / "dblike.conf.j2").read_text()
    # As Ansible has it: lines of the template alone leave none behind.
    template = jinja2.Template(text, trim_blocks=True, keep_trailing_newline=True)
    return template.render(defaults | values)


class Identity(NamedTuple):
    """A server's certificate and its key, as files."""

    certificate: Path
    key: Path


class Authority:
    """One that nobody but those who name its file trust."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._authority = trustme.CA()
        self.file = directory / "authority.pem"
        self._authority.cert_pem.write_to_path(str(self.file))

    def certify(self, name: str) -> Identity:
        """A certificate for a host's name or address."""
        made = self._authority.issue_cert(name)
        identity = Identity(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        identity.certificate.write_bytes(b"".join(c.bytes() for c in made.cert_chain_pems))
        made.private_key_pem.write_to_path(str(identity.key))
        return identity


class Nginx:
    """In front of the servers at these ports; without TLS where there is no certificate."""

    def __init__(self, root: Path, ports: Iterable[int], identity: Identity | None = None) -> None:
        self.port = free_ports(1)[0]
        self.url = f"{'https' if identity else 'http'}://127.0.0.1:{self.port}"
        self.log = root / "error.log"
        text = render(
            dblike_servers=[f"127.0.0.1:{port}" for port in ports],
            dblike_listen=f"127.0.0.1:{self.port}",
            dblike_certificate=str(identity.certificate) if identity else "",
            dblike_certificate_key=str(identity.key) if identity else "",
        )
        place = root / "nginx.conf"
        place.write_text(_FRAME.format(root=root, config=text, user="user root;"))
        self._command = [PROGRAM, "-p", str(root), "-e", str(self.log), "-c", str(place)]
        self.start()

    def start(self) -> None:
        """Serve."""
        self._process = subprocess.Popen(self._command, start_new_session=True)
        eventually(lambda: listens(self.port), "nginx")

    def stop(self) -> None:
        """End it."""
        end(self._process)
