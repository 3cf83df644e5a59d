"""A real Galera cluster of three MariaDB nodes on this machine."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import time
from pathlib import Path

import pymysql

from rig.mariadb import PASSWORD, PATIENCE, USER, MariaDB, free_ports, own
from rig.mariadb import missing as mariadb_missing

PROVIDER = Path("/usr/lib/galera/libgalera_smm.so")
_POSITION = re.compile(r"Recovered position: [0-9a-f-]+:(\d+)")
ACCOUNT = "mysql"
"""Nodes fetch each other's state by rsync, whose daemon gives up root's rights."""


def missing() -> str:
    """What this machine lacks; empty where nothing."""
    if not PROVIDER.exists():
        return "no Galera: apt-get install galera-4"
    if shutil.which("rsync") is None:
        return "no rsync: apt-get install rsync"
    if os.geteuid() != 0:
        return "a Galera cluster is started as root, and runs as mysql"
    try:
        pwd.getpwnam(ACCOUNT)
    except KeyError:
        return "no account mysql: apt-get install mariadb-server"
    return mariadb_missing()


class Galera:
    """Nodes by number; the first one begins.  The account must be able to reach `directory`."""

    def __init__(self, directory: Path, count: int = 3) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        own(directory, ACCOUNT)
        ports = free_ports(3 * count)
        self._groups, self._states, self._increments = (ports[n::3] for n in range(3))
        self.nodes = [self._node(number) for number in range(count)]

    def _node(self, number: int) -> MariaDB:
        group = self._groups[number]
        options = (
            f"base_port={group};gmcast.listen_addr=tcp://127.0.0.1:{group};"
            f"ist.recv_addr=127.0.0.1:{self._increments[number]};gcache.size=32M;pc.recovery=true;"
            "evs.suspect_timeout=PT2S;evs.inactive_timeout=PT4S;evs.inactive_check_period=PT0.5S;"
            "evs.keepalive_period=PT0.5S"
        )
        node = MariaDB(self.directory / str(number), user=ACCOUNT)
        node.options = (
            "--binlog-format=ROW", "--default-storage-engine=InnoDB", "--wsrep-on=ON",
            "--innodb-autoinc-lock-mode=2", f"--wsrep-provider={PROVIDER}",
            "--innodb-flush-log-at-trx-commit=2",
            "--wsrep-cluster-name=t", f"--wsrep-cluster-address=gcomm://{self._members()}",
            f"--wsrep-node-name=n{number}", f"--wsrep-node-address=127.0.0.1:{group}",
            f"--wsrep-node-incoming-address=127.0.0.1:{node.port}", "--wsrep-sst-method=rsync",
            f"--wsrep-sst-receive-address=127.0.0.1:{self._states[number]}",
            f"--wsrep-provider-options={options}",
        )  # fmt: skip
        return node

    def _members(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port in self._groups)

    def start(self) -> None:
        """All nodes, and the account."""
        first, *others = self.nodes
        first.install()
        first.start("--wsrep-new-cluster")
        first.add_account()
        for node in others:
            (node.directory / "data").mkdir(exist_ok=True)
            own(node.directory / "data", ACCOUNT)
            node.start(wait=False)
        self.heal()

    def heal(self) -> None:
        """Start the nodes that are dead, and wait until all have the same."""
        for node in self.nodes:
            if node.process is None:
                node.start(wait=False)
        for node in self.nodes:
            self.wait(node)

    def begin_again(self) -> None:
        """All nodes are dead: the one that has the most begins, the others take it from there."""
        had = [int(_POSITION.findall(node.recover())[-1]) for node in self.nodes]
        first = self.nodes[had.index(max(had))]
        grastate = first.directory / "data" / "grastate.dat"
        text = grastate.read_text().replace("safe_to_bootstrap: 0", "safe_to_bootstrap: 1")
        grastate.write_text(text)
        for node in self.nodes:
            (node.directory / "data" / "gvwstate.dat").unlink(missing_ok=True)
        first.start("--wsrep-new-cluster")
        self.heal()

    def wait(self, node: MariaDB) -> None:
        """Until the node has what the others have."""
        deadline = time.monotonic() + PATIENCE
        while state(node) != "Synced":
            assert node.process is not None
            said = node.log.read_text(errors="replace")[-4000:]
            assert node.process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.05)

    def create(self, name: str) -> None:
        """A new database, on all nodes."""
        self.nodes[0].root(f"CREATE DATABASE {name}")

    def url(self, name: str, first: int = 0) -> str:
        """A database, by all nodes, of which this one is tried first."""
        nodes = self.nodes[first:] + self.nodes[:first]
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        return f"mysql+pymysql://{USER}:{PASSWORD}@{hosts}/{name}"

    def kill(self) -> None:
        """SIGKILL to all nodes."""
        for node in self.nodes:
            node.kill()


def state(node: MariaDB) -> str:
    """What the node says of itself."""
    try:
        [(_, said)] = node.root("SHOW STATUS LIKE 'wsrep_local_state_comment'")
    except (OSError, pymysql.Error, ValueError):
        return ""
    return str(said)
