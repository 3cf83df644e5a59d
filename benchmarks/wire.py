"""The network between the two clients and the server, with every byte counted the same way.

`Namespaces` (root, Linux) gives each client its own virtual cable to the server and reads the
kernel's interface counters: exact, headers included, and free. `Proxies` works for everyone: a
counting TCP relay on loopback, payload only. Both name the places "a", "b" (clients) and "s"
(server).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Protocol

Place = Literal["a", "b", "s"]
CLIENTS: tuple[Place, Place] = ("a", "b")
_CLONE_NEWNET = 0x40000000
_PIPE = 1 << 20
_CHUNK = 1 << 20


class Wire(Protocol):
    """What a benchmark asks of the network."""

    kind: str

    def inside(self, place: Place) -> contextlib.AbstractContextManager[None]:
        """While it lasts, processes and sockets made by this thread belong to the place."""
        ...

    def listen(self) -> str:
        """The address a server binds."""
        ...

    def server(self, client: Place, port: int) -> tuple[str, int]:
        """Where a client finds the server's port."""
        ...

    def count(self) -> dict[Place, int]:
        """Bytes over each client's cable so far, both directions."""
        ...

    def close(self) -> None: ...


def open_wire(kind: str = "auto") -> Wire:
    """The exact one where permitted, else the one that always works."""
    if kind == "proxy" or (kind == "auto" and not _may_have_namespaces()):
        return Proxies()
    return Namespaces()


def _may_have_namespaces() -> bool:
    return os.geteuid() == 0 and shutil.which("ip") is not None and Namespaces.works()


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# --- network namespaces ---------------------------------------------------------------------------


class Namespaces:
    """Three network namespaces: a ─veth─ s ─veth─ b."""

    kind = "interface counters"

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._names = {place: f"bench-{os.getpid()}-{place}" for place in ("a", "b", "s")}
        self._address: dict[Place, str] = {}
        _forget_the_dead()
        try:
            for name in self._names.values():
                _ip("netns", "add", name)
                _ip("-n", name, "link", "set", "lo", "up")
            for number, client in enumerate(CLIENTS):
                self._cable(client, number)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def works() -> bool:
        """Whether this machine lets us make one (containers often do not)."""
        name = f"bench-{os.getpid()}-try"
        if subprocess.run(
            ["ip", "netns", "add", name], capture_output=True, check=False
        ).returncode:
            return False
        return not subprocess.run(["ip", "netns", "del", name], check=False).returncode

    def _cable(self, client: Place, number: int) -> None:
        near, far = self._names[client], self._names["s"]
        end = f"to-{client}"
        _ip("-n", near, "link", "add", "eth0", "type", "veth", "peer", "name", end, "netns", far)
        for name, device, host in ((near, "eth0", 2), (far, end, 1)):
            with self._entered(name):
                # Neighbour discovery would count as traffic of whoever is measured.
                Path(f"/proc/sys/net/ipv6/conf/{device}/disable_ipv6").write_text("1")
            _ip("-n", name, "addr", "add", f"10.77.{number}.{host}/24", "dev", device)
            _ip("-n", name, "link", "set", device, "up")
        self._address[client] = f"10.77.{number}.1"

    def inside(self, place: Place) -> contextlib.AbstractContextManager[None]:
        return self._entered(self._names[place])

    @contextlib.contextmanager
    def _entered(self, name: str) -> Iterator[None]:
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        target = os.open(f"/run/netns/{name}", os.O_RDONLY)
        try:
            self._set(target)
            try:
                yield
            finally:
                self._set(home)
        finally:
            os.close(target)
            os.close(home)

    def _set(self, descriptor: int) -> None:
        if self._libc.setns(descriptor, _CLONE_NEWNET):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), "setns")

    def listen(self) -> str:
        return "0.0.0.0"

    def server(self, client: Place, port: int) -> tuple[str, int]:
        return self._address[client], port

    def count(self) -> dict[Place, int]:
        return {client: self._traffic(client) for client in CLIENTS}

    def _traffic(self, client: Place) -> int:
        with self.inside(client):
            lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
        fields = next(line.split() for line in lines if line.strip().startswith("eth0:"))
        return int(fields[1]) + int(fields[9])

    def close(self) -> None:
        for name in self._names.values():
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _forget_the_dead() -> None:
    """Remove the namespaces of runs that were killed: their processes are gone."""
    for path in Path("/run/netns").glob("bench-*-*"):
        pid = path.name.split("-")[1]
        if pid.isdecimal() and not Path("/proc", pid).exists():
            subprocess.run(["ip", "netns", "del", path.name], capture_output=True, check=False)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


# --- counting relay -------------------------------------------------------------------------------


class Proxies:
    """Everything on loopback; each client reaches the server through a relay of its own."""

    kind = "counting relay"

    def __init__(self) -> None:
        self._relays: dict[tuple[Place, int], Relay] = {}

    def inside(self, place: Place) -> contextlib.AbstractContextManager[None]:
        del place
        return contextlib.nullcontext()

    def listen(self) -> str:
        return "127.0.0.1"

    def server(self, client: Place, port: int) -> tuple[str, int]:
        if (client, port) not in self._relays:
            self._relays[client, port] = Relay(port)
        return "127.0.0.1", self._relays[client, port].port

    def count(self) -> dict[Place, int]:
        return {
            client: sum(relay.bytes for (who, _), relay in self._relays.items() if who == client)
            for client in CLIENTS
        }

    def close(self) -> None:
        for relay in self._relays.values():
            relay.close()


class Relay:
    """One listening port whose connections are carried to another, counted."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._counts: list[list[int]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def bytes(self) -> int:
        return sum(count[0] for count in self._counts)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    near.close()
                    continue
                for source, sink in ((near, far), (far, near)):
                    count = [0]
                    self._counts.append(count)
                    arguments = (source, sink, count)
                    threading.Thread(target=_carry, args=arguments, daemon=True).start()

    def close(self) -> None:
        self._listener.close()


def _carry(source: socket.socket, sink: socket.socket, count: list[int]) -> None:
    """Move one direction of a connection; its end is passed on as an end."""
    source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    move = _spliced if hasattr(os, "splice") else _copied
    with contextlib.suppress(OSError):
        move(source, sink, count)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def _spliced(source: socket.socket, sink: socket.socket, count: list[int]) -> None:
    """Through a kernel pipe: the bytes never enter this process."""
    outlet, inlet = os.pipe()
    try:
        while moved := os.splice(source.fileno(), inlet, _PIPE):
            count[0] += moved
            while moved:
                moved -= os.splice(outlet, sink.fileno(), moved)
    finally:
        os.close(outlet)
        os.close(inlet)


def _copied(source: socket.socket, sink: socket.socket, count: list[int]) -> None:
    buffer = memoryview(bytearray(_CHUNK))
    while moved := source.recv_into(buffer):
        count[0] += moved
        sink.sendall(buffer[:moved])
