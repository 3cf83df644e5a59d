"""DBLike itself: a server with two workers, two linked folders, `push` and `pull` or `watch`."""

from __future__ import annotations

import compileall
import functools
import importlib.util
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.measure import Meter
from benchmarks.peers.base import Peer
from benchmarks.wire import CLIENTS, Place, free_port

_WORKERS = 2
_PASSWORD = "correct horse battery staple"


def _program(name: str) -> str:
    """The one beside this Python first: the benchmarks measure the tree they are in."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else name


@functools.cache
def _compile_as_installed() -> None:
    """Byte code beside the sources, as pip leaves it: a checkout may not have it yet."""
    for package in ("dblike_delta", "dblike_cli", "dblike_srv"):
        found = importlib.util.find_spec(package)
        for directory in (found.submodule_search_locations or ()) if found else ():
            compileall.compile_dir(directory, quiet=2)


class DBLike(Peer):
    """As a user runs it; only the password comes from a pipe."""

    name = "dblike"
    program = _program("dblike")

    @classmethod
    def missing(cls) -> str:
        if shutil.which(cls.program) and shutil.which(_program("dblike-server")):
            return ""
        return "dblike is not installed in this Python: skipped (to include it: pip install -e .)"

    def open(self) -> None:
        _compile_as_installed()
        self._port = free_port()
        server, data = _program("dblike-server"), f"--data={self.bench.s}"
        self.setup("s", [server, "init", data])
        self.setup(
            "s", [server, "user", "add", "bench", "--password-stdin", data], _PASSWORD + "\n"
        )
        bind = f"{self.bench.wire.listen()}:{self._port}"
        self.start("s", [server, "run", data, "--bind", bind, "--workers", str(_WORKERS)])
        self.wait_for_port("s", self._port)
        for client in CLIENTS:
            self._link(client)

    def _link(self, client: Place) -> None:
        host, port = self.bench.wire.server(client, self._port)
        where = str(self._folder(client))
        link = (
            "init",
            f"http://{host}:{port}",
            where,
            "--user",
            "bench",
            "--password-stdin",
            "--insecure",
        )
        self.setup(client, [self.program, *link, "--device", client], _PASSWORD + "\n")

    def _folder(self, client: Place) -> Path:
        return self.bench.a if client == "a" else self.bench.b

    def environment(self, place: Place) -> Mapping[str, str]:
        home = self.bench.work / f"home-{place}"
        own = {f"XDG_{name}_HOME": str(home / name.lower()) for name in ("CONFIG", "DATA", "STATE")}
        return {**super().environment(place), **own}

    def up(self) -> Sequence[str]:
        return self._command("a", "push")

    def down(self) -> Sequence[str]:
        return self._command("b", "pull")

    def check(self, meter: Meter) -> None:
        self.run(meter, "a", self._command("a", "sync"))

    def watch(self) -> None:
        for client in CLIENTS:
            self.start(client, self._command(client, "watch"))

    def _command(self, client: Place, verb: str) -> Sequence[str]:
        return [self.program, "-C", str(self._folder(client)), "--no-progress", verb]
