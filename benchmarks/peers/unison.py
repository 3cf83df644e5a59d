"""unison: each client with the server's replica over a socket; `-repeat` when watching."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence

from benchmarks.peers.base import Peer
from benchmarks.wire import CLIENTS, Place, free_port

_QUIET = (
    "-ui",
    "text",
    "-batch",
    "-auto",
    "-times",
    "-confirmbigdel=false",
    "-contactquietly",
    "-silent",
    "-prefer",
    "newer",
)


class Unison(Peer):
    """Two pairs of replicas, A with the server and B with the server: a server process for each."""

    name = "unison"
    package = "unison"
    program = "unison"

    @classmethod
    def version(cls) -> str:
        said = subprocess.run(["unison", "-version"], capture_output=True, text=True, check=False)
        return said.stdout.strip()

    def open(self) -> None:
        self._ports: dict[Place, int] = {}
        for client in CLIENTS:
            port = self._ports[client] = free_port()
            listen = self.bench.wire.listen()
            self.start("s", ["unison", "-socket", str(port), "-listen", listen])
            self.wait_for_port("s", port)

    def environment(self, place: Place) -> Mapping[str, str]:
        archive = self.bench.work / f"unison-{place}"
        archive.mkdir(exist_ok=True)
        return {**super().environment(place), "UNISON": str(archive)}

    def up(self) -> Sequence[str]:
        return self._pair("a", str(self.bench.a))

    def down(self) -> Sequence[str]:
        return self._pair("b", str(self.bench.b))

    def watch(self) -> None:
        """By events where its file monitor is installed (Debian ships none), else every second."""
        how = "watch" if shutil.which("unison-fsmonitor") else "1"
        self.start("a", [*self._pair("a", str(self.bench.a)), "-repeat", how])
        self.start("b", [*self._pair("b", str(self.bench.b)), "-repeat", how])

    def _pair(self, client: Place, root: str) -> Sequence[str]:
        host, port = self.bench.wire.server(client, self._ports[client])
        return ["unison", root, f"socket://{host}:{port}/{self.bench.s}", *_QUIET]
