"""A cluster of databases that dies or stops: `python tests/soak/galera.py --rounds 3`.

One site of two hosts has three Galera nodes as its database, each host with another one first.
Four clients write all the time.  In each round the node that is used is stopped (SIGSTOP) for some
seconds, then all nodes are, then all are killed at once and the cluster is begun again from the one
that has the most, as its documentation says.  After each of these all go on by themselves: hosts
are ready, no write was refused, and no version that was acknowledged is lost.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import urllib3

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rig.cluster import RealSite, eventually, free_ports
from rig.galera import Galera
from soak.sites import Client, check_versions

WRITERS = 4
STOPPED = 20.0
"""Seconds for which databases are stopped."""
_READY = urllib3.PoolManager(retries=False, timeout=10)


class Rig:
    """The nodes, the hosts on them, and the clients."""

    def __init__(self, root: Path) -> None:
        self.galera = Galera(root / "nodes")
        self.galera.start()
        self.galera.create("dblike")
        shared = {"cluster_key": "k" * 64, "store": f"file:{root / 'store'}"}
        self.hosts = []
        for number, port in enumerate(free_ports(2)):
            url = self.galera.url("dblike", number)
            self.hosts.append(RealSite(root / "xy"[number], port, {**shared, "database": url}))
            self.hosts[-1].start()
        self.hosts[0].add_user("ada")
        self.clients = [self._client(number) for number in range(WRITERS)]
        self._token = self.hosts[0].login("ada", "reader").token
        self.versions = 0
        for client in self.clients:
            client.start()

    def _client(self, number: int) -> Client:
        user = self.hosts[0].at("")
        device = user.login("ada", f"writer {number}")
        turned = self.hosts[number % 2 :] + self.hosts[: number % 2]
        return Client(number, turned, user.token, device)

    def stop_one(self) -> None:
        """The node that the first host uses says nothing."""
        self._stop(1)

    def stop_all(self) -> None:
        """None says anything."""
        self._stop(3)

    def _stop(self, count: int) -> None:
        victims = [node.process for node in self.galera.nodes[:count] if node.process]
        for process in victims:
            process.send_signal(signal.SIGSTOP)
        time.sleep(STOPPED)
        for process in victims:
            process.send_signal(signal.SIGCONT)
        for node in self.galera.nodes:
            self.galera.wait(node)

    def kill_all(self) -> None:
        """All nodes are gone at once, and are begun again."""
        self.galera.kill()
        self.galera.begin_again()

    def point(self, trouble: Callable[[], None]) -> str:
        """Some trouble, and what came of it."""
        for client in self.clients:
            client.silence = 0.0
        self._await_writes()
        began = time.monotonic()
        trouble()
        whole = time.monotonic()
        self._await_writes()
        back = time.monotonic() - whole
        for host in self.hosts:
            eventually(lambda host=host: _READY.request("GET", f"{host.url}/readyz").status == 200)
        self._check()
        silence = max(client.silence for client in self.clients)
        return (
            f"{trouble.__name__}: {whole - began:.0f} s, all write again {back:.1f} s after that; "
            f"the longest silence of a writer {silence:.1f} s"
        )

    def _await_writes(self) -> None:
        """Until each of them wrote once more."""
        written = [len(client.written) for client in self.clients]
        eventually(
            lambda: all(len(c.written) > n for c, n in zip(self.clients, written, strict=True))
        )

    def _check(self) -> None:
        for client in self.clients:
            client.pause()
        for host in self.hosts:
            check_versions(host.at(self._token), self.clients, set())
        for client in self.clients:
            assert not client.failed, client.failed
            self.versions += len(client.written)
            client.written.clear()
            client.go_on()

    def close(self) -> None:
        for client in self.clients:
            client.ending = True
        for host in self.hosts:
            host.stop()
        self.galera.kill()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="dblike-galera-"))
    root.chmod(0o755)
    rig = Rig(root)
    try:
        for _ in range(options.rounds):
            for trouble in (rig.stop_one, rig.stop_all, rig.kill_all):
                print(rig.point(trouble), flush=True)
        print(f"{rig.versions} acknowledged versions, 0 lost, 0 refused")
    finally:
        rig.close()
        shutil.rmtree(root, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
