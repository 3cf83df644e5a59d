"""A real MariaDB server in a directory of its own, which can be killed and started again."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pymysql

PATIENCE = 60.0
"""Seconds after which a server that is not there is not going to be."""
USER, PASSWORD = "dblike", "correct-horse"
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
SETTINGS = (
    "--innodb-buffer-pool-size=64M",
    "--innodb-log-file-size=16M",
    "--skip-log-bin",
    "--skip-ssl",  # since 11.4 it has a certificate by itself, and a proxy could see no COMMIT
    "--character-set-server=utf8mb4",
    "--collation-server=utf8mb4_general_ci",  # what a server has where nobody thought of it
)
QUICK = (
    "--innodb-flush-log-at-trx-commit=2",
    "--innodb-flush-method=nosync",
    "--skip-innodb-doublewrite",
    "--sync-frm=0",
)
"""Survives a kill of the server, though no power cut, and is faster."""


def missing() -> str:
    """What of MariaDB this machine lacks; empty where nothing."""
    wanted = ("mariadbd", "mariadb-install-db")
    absent = [name for name in wanted if shutil.which(name, path=PATH) is None]
    return f"no {' and no '.join(absent)}: apt-get install mariadb-server" if absent else ""


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def own(directory: Path, user: str) -> None:
    """Give a directory to the user that the server runs as."""
    if user and user != "root":
        shutil.chown(directory, user, user)


class MariaDB:
    """`mariadbd` on a free port, with an account for DBLike."""

    def __init__(self, directory: Path, *options: str, user: str = "") -> None:
        self.directory = directory
        self.user = user or ("root" if os.geteuid() == 0 else "")
        [self.port] = free_ports(1)
        self.socket = directory / "s"
        self.log = directory / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.options = options
        self._numbers = itertools.count(1)
        self._idle: list[str] = []
        directory.mkdir(parents=True, exist_ok=True)
        own(directory, self.user)

    def begin(self) -> None:
        """From nothing to a server that answers and has the account."""
        self.install()
        self.start()
        self.add_account()

    def install(self) -> None:
        """Make the tables of an empty server, and an account that may do anything."""
        program = shutil.which("mariadb-install-db", path=PATH)
        assert program
        command = [
            program, "--no-defaults", f"--datadir={self.directory / 'data'}", "--skip-test-db",
            f"--tmpdir={self.directory}",  # one that begins at the same time removes ours in /tmp
            "--auth-root-authentication-method=normal", *self._as(),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr + done.stdout

    def start(self, *options: str, wait: bool = True) -> None:
        """Serve, on the same port as before."""
        program = shutil.which("mariadbd", path=PATH)
        assert program
        command = [
            program, "--no-defaults", f"--datadir={self.directory / 'data'}", *self._as(),
            f"--socket={self.socket}", f"--port={self.port}", "--bind-address=127.0.0.1",
            f"--pid-file={self.directory / 'pid'}",
            f"--tmpdir={self.directory}",  # a server that starts removes what others have in /tmp
            *SETTINGS, *self.options, *options,
        ]  # fmt: skip
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True
            )
        if wait:
            self.wait()

    def recover(self) -> str:
        """What a start would find, without serving; what the server said."""
        self.start("--wsrep-recover", "--skip-networking", wait=False)
        assert self.process is not None
        self.process.wait(PATIENCE)
        self.process = None
        return self.log.read_text(errors="replace")

    def wait(self) -> None:
        """Until it answers."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.root("SELECT 1")
                return
            except (OSError, pymysql.Error):
                assert self.process is not None
                said = self.log.read_text(errors="replace")[-4000:]
                assert self.process.poll() is None, said
                assert time.monotonic() < deadline, said
                time.sleep(0.02)

    def root(self, *statements: str, database: str = "") -> list[Sequence[Any]]:
        """Run statements as root; the rows of the last one."""
        connection = pymysql.Connection(
            user="root", database=database or None, autocommit=True, read_timeout=20,
            defer_connect=True,
        )  # fmt: skip
        with socket.socket(socket.AF_UNIX) as way:
            way.connect(str(self.socket))
            connection.connect(way)
            with connection, connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                return list(cursor.fetchall())

    def connect(self) -> pymysql.Connection[Any]:
        """A connection of DBLike's account that does nothing."""
        return pymysql.connect(host="127.0.0.1", port=self.port, user=USER, password=PASSWORD)

    def end_all_but(self, spared: Sequence[int]) -> None:
        """End the account's other connections."""
        query = f"SELECT id FROM information_schema.processlist WHERE user = '{USER}'"
        for (number,) in self.root(query):
            if number not in spared:
                with contextlib.suppress(pymysql.Error):  # it ended meanwhile
                    self.root(f"KILL {number}")

    def add_account(self) -> None:
        """The account that the URLs name."""
        self.root(
            f"CREATE USER {USER}@127.0.0.1 IDENTIFIED BY '{PASSWORD}'",
            f"GRANT ALL ON `dblike%`.* TO {USER}@127.0.0.1",
        )

    def create(self) -> str:
        """A new database; its URL."""
        name = f"dblike{next(self._numbers)}"
        self.root(f"CREATE DATABASE {name}")
        return self.url(name)

    def borrow(self) -> str:
        """A database without rows; one that was given back has its tables, which saves much."""
        return self._idle.pop() if self._idle else self.create()

    def give_back(self, url: str) -> None:
        """It may be borrowed again."""
        name = url.rpartition("/")[2]
        tables = self.root(
            f"SELECT table_name FROM information_schema.tables WHERE table_schema = '{name}'"
        )
        self.root("SET foreign_key_checks = 0", *(f"DELETE FROM {name}.{t}" for (t,) in tables))
        self._idle.append(url)

    def drop(self, url: str) -> None:
        """Forget a database that `create` made."""
        self.root(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]}")

    def url(self, name: str, port: int = 0) -> str:
        """The URL of a database on this server, by way of another port if one is given."""
        return f"mysql+pymysql://{USER}:{PASSWORD}@127.0.0.1:{port or self.port}/{name}"

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end, wait."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self.process is not None:
            with self.process:
                self.process.send_signal(number)
                try:
                    self.process.wait(PATIENCE)
                except subprocess.TimeoutExpired:
                    self.process.kill()
            self.process = None

    def _as(self) -> list[str]:
        return [f"--user={self.user}"] if self.user else []
