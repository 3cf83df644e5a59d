"""rsync: push to a daemon, then pull from it. With --fsync where the disk is a real one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from benchmarks.measure import Meter
from benchmarks.peers.base import Peer
from benchmarks.wire import Place, free_port

_PROMPT = "TCP_NODELAY"
"""Without it, here and in the daemon, every run waits twice 40 ms for a delayed acknowledgement."""

_EXACT = "--modify-window=-1"
"""Compare nanoseconds: without it an edit of the same size in the same second is missed."""


class Rsync(Peer):
    """`rsync -a --delete` both ways, its delta algorithm on, as always over a network."""

    name = "rsync"
    package = "rsync"
    program = "rsync"
    socket_options: ClassVar[str] = _PROMPT

    def open(self) -> None:
        self._port = serve_directory(self, "s", self.bench.s, self.socket_options)

    def up(self) -> Sequence[str]:
        return self._copy(f"{self.bench.a}/", self._remote("a"))

    def down(self) -> Sequence[str]:
        return self._copy(self._remote("b"), f"{self.bench.b}/")

    def check(self, meter: Meter) -> None:
        self.run(meter, "a", [*self._command(), "-n", f"{self.bench.a}/", self._remote("a")])

    def _copy(self, source: str, target: str) -> Sequence[str]:
        sure = ["--fsync"] if self.bench.durable else []
        return [*self._command(), *sure, source, target]

    def _command(self) -> list[str]:
        prompt = [f"--sockopts={self.socket_options}"] if self.socket_options else []
        return ["rsync", "-a", "--delete", _EXACT, *prompt]

    def _remote(self, client: Place) -> str:
        host, port = self.bench.wire.server(client, self._port)
        return f"rsync://{host}:{port}/folder/"


class RsyncDefault(Rsync):
    """The same with the system's socket defaults, for those who wonder; only when asked for."""

    name = "rsync-default"
    socket_options = ""


def serve_directory(
    peer: Peer, place: Place, directory: Path, socket_options: str = _PROMPT
) -> int:
    """An rsync daemon over a directory; the port it listens on."""
    port = free_port()
    config = peer.bench.work / "rsyncd.conf"
    lines = [
        *(["uid = 0", "gid = 0"] if os.geteuid() == 0 else []),
        "use chroot = no",
        "reverse lookup = no",
        *([f"socket options = {socket_options}"] if socket_options else []),
        f"port = {port}",
        f"address = {peer.bench.wire.listen()}",
        "[folder]",
        f"path = {directory}",
        "read only = no",
    ]
    config.write_text("\n".join(lines) + "\n")
    peer.start(place, ["rsync", "--daemon", "--no-detach", f"--config={config}"])
    peer.wait_for_port(place, port)
    return port
