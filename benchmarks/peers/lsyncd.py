"""lsyncd: watches A and runs rsync to a daemon for each batch of events. One way, one hop."""

from __future__ import annotations

from benchmarks.corpora import Change
from benchmarks.measure import Meter
from benchmarks.peers.base import Peer
from benchmarks.peers.rsync import serve_directory

_CONFIG = """\
settings {{ nodaemon = true, inotifyMode = "CloseWrite or Modify", maxProcesses = 1 }}
sync {{
    default.rsync, source = "{source}", target = "{target}", delete = true, delay = {delay},
    rsync = {{
        archive = true,
        _extra = {{ "--whole-file", "--sockopts=TCP_NODELAY", "--modify-window=-1" }}
    }}
}}
"""


class Lsyncd(Peer):
    """A straight to B's daemon, with the shortest delay it takes: its best case."""

    name = "lsyncd"
    package = "lsyncd"
    program = "lsyncd"
    one_way = True

    def open(self) -> None:
        self._port = serve_directory(self, "s", self.bench.b)

    def transfer(self, meter: Meter, change: Change) -> None:
        del meter
        self.arrived(change)

    def watch(self) -> None:
        host, port = self.bench.wire.server("a", self._port)
        config = self.bench.work / "lsyncd.lua"
        target = f"rsync://{host}:{port}/folder/"
        config.write_text(_CONFIG.format(source=self.bench.a, target=target, delay=0))
        self.start("a", ["lsyncd", "-nodaemon", str(config)])
