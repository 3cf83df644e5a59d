"""From one release to the next under clients: `python tests/soak/upgrade.py --from REV`.

A site of two hosts on one MariaDB, and a site of its own that follows it, begin with the programs
of a commit of this repository; without `--from` those are this release, and what they become is a
copy of it with one more revision of the database.  The database is migrated while its hosts go on,
then the hosts and the other site are replaced one by one; one host goes back to the old release and
forth again.  Writers and two real clients, one of each release, go on all the while: no write may
fail, nothing that was acknowledged be lost, and all must be the same in the end.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from conftest import end
from rig import mariadb
from rig.cluster import RealSite, eventually, free_ports
from rig.programs import Program, Watch, wait_until, wait_until_same
from rig.releases import next_release, release_of
from rig.servers import PASSWORD
from soak.sites import Client, check_versions

KEY = "k" * 64
PAUSE = 1.0
"""Seconds of writing between two steps."""


class Upgrade:
    """The hosts, and the clients on them; `short`: without the other site and the real clients."""

    def __init__(
        self, root: Path, database: str, old: Path | None, new: Path | None, *, short: bool
    ) -> None:
        self._root, self._old, self._new, self._short = root, old, new, short
        source = old or Path(__file__).resolve().parent.parent.parent / "src"
        self._alone = short or not (source / "dblike_srv" / "replication").exists()
        ports = free_ports(3)
        self.hosts = [self._host(root / n, port) for n, port in zip("xyz", ports, strict=True)]
        if self._alone:
            self.hosts.pop()
        for host in self.hosts[:2]:
            host.config |= {"database": database, "store": f"file:{root / 'store'}"}
        self._link()
        self.clients: list[Client] = []
        self.programs: list[tuple[Program, Watch]] = []
        self.steps, self._token = 0, ""

    def _host(self, data: Path, port: int) -> RealSite:
        host = RealSite(data, port, {"cluster_key": KEY})
        host.release = self._old
        return host

    def _link(self) -> None:
        """The two sites follow each other; the first one's hosts are one of them."""
        if self._alone:
            for host in self.hosts:
                host.config.pop("site")
            return
        x, y, z = self.hosts
        y.config["site"] = x.config["site"]
        for host, other in ((x, z), (y, z), (z, x)):
            host.config["peers"] = [{"url": other.url}]

    def begin(self) -> None:
        running = self.hosts[:1] if self._short else self.hosts
        for host in running:
            host.start()
        first = self.hosts[0]
        first.add_user("ada")
        for host in running:
            eventually(lambda host=host: host.login("ada"))
        for number in range(2):
            user = first.at("")
            device = user.login("ada", f"writer {number}")
            self._token = user.token
            order = self.hosts[number:] + self.hosts[:number]
            self.clients.append(Client(number, order, user.token, device))
            self.clients[-1].start()
        releases = (("old", self._old), ("new", self._new))
        for name, release in () if self._short else releases:
            self.programs.append(self._watch(name, release))

    def _watch(self, name: str, release: Path | None) -> tuple[Program, Watch]:
        urls = ",".join(host.url for host in self.hosts)
        program = Program.link(self._root / name, urls, "ada", PASSWORD, start, release)
        return program, program.watch()

    def run(self) -> None:
        """Every step of an upgrade, and one back."""
        x, y, *others = self.hosts
        x.release = self._new
        self.step("migrated", lambda: x.command("migrate"))
        assert self._short or "nothing to do" in x.command("migrate")
        x.release = self._old
        old, new = self._old, self._new
        both = ((y, new), (x, old))
        for host, release in both if self._short else (*both, (y, old), (x, new), (y, new)):
            self.step(host.name, lambda host=host, release=release: self._replace(host, release))
        for host in others:
            self.step(host.name, lambda host=host: self._replace(host, self._new, migrate=True))

    def _replace(self, host: RealSite, release: Path | None, *, migrate: bool = False) -> None:
        host.stop()
        host.release = release
        if migrate:
            host.command("migrate")
        host.start()

    def step(self, what: str, act: Callable[[], object]) -> None:
        """One step, and what is saved by both clients after it."""
        act()
        self.steps += 1
        for program, _ in self.programs:
            program.write(f"{program.root.name}-{self.steps}", f"{what} {self.steps}")
        wait_until(self._is_everywhere, f"what was saved after {what}")
        if not self._short:
            time.sleep(PAUSE)  # the writers go on

    def _is_everywhere(self) -> bool:
        roots = [program.root for program, _ in self.programs]
        return all((root / f"{by.name}-{self.steps}").exists() for root in roots for by in roots)

    def check(self) -> int:
        """Nothing failed, nothing is lost, all is the same; how many versions were written."""
        for client in self.clients:
            client.pause()
        eventually(lambda: len({host.at(self._token).cursor() for host in self.hosts}) == 1)
        for host in self.hosts:
            check_versions(host.at(self._token), self.clients, set())
        wait_until_same(*(program for program, _ in self.programs))
        for program, watch in self.programs:
            assert watch.process.poll() is None, "a client gave up"
            assert watch.end() == 0
            said = (self._root / f"{program.root.name}.log").read_text()
            assert "Traceback" not in said, said
            assert program.json("status")["in_sync"]
        for client in self.clients:
            assert not client.failed, client.failed
        return sum(len(client.written) for client in self.clients)

    def close(self) -> None:
        for client in self.clients:
            client.ending = True
        for _, watch in self.programs:
            end(watch.process)
        for host in self.hosts:
            host.stop()


def start(*command: object, **options: object) -> subprocess.Popen[bytes]:
    """A program in a session of its own."""
    words = [str(word) for word in command]
    return subprocess.Popen(words, start_new_session=True, **options)  # type: ignore[call-overload,no-any-return]


@contextlib.contextmanager
def database(root: Path) -> Iterator[str]:
    """A MariaDB's."""
    server = mariadb.MariaDB(root / "mariadb")
    try:
        server.begin()
        yield server.create()
    finally:
        server.kill()


def soak(root: Path, url: str, old: Path | None, new: Path | None, *, short: bool = False) -> str:
    """Upgrade once; what was seen."""
    upgrade = Upgrade(root, url, old, new, short=short)
    try:
        upgrade.begin()
        upgrade.run()
        written = upgrade.check()
        silence = max(client.silence for client in upgrade.clients)
    finally:
        upgrade.close()
    return (
        f"{upgrade.steps} steps: {written} acknowledged versions, 0 lost, 0 failed writes; the "
        f"longest silence of a writer {silence:.2f} s"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--from", dest="old", metavar="REV", default="")
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="dblike-upgrade-"))
    try:
        old = release_of(options.old, root / "old release") if options.old else None
        new = None if options.old else next_release(root / "new release")
        with database(root) as url:
            print(soak(root, url, old, new))
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
