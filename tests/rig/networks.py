"""Sites in network namespaces of their own, between which packets can be lost without a word."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator


class Network:
    """Hosts on one bridge.  The machine itself reaches all of them whatever is cut."""

    def __init__(self, count: int) -> None:
        self._mark = f"dbl{os.getpid() % 100_000}"
        self._prefix = f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}"
        self.names = [f"{self._mark}n{number}" for number in range(count)]
        self.hosts = [f"{self._prefix}.{number + 10}" for number in range(count)]

    def open(self) -> None:
        """Make it; raises where that is not allowed."""
        run("ip", "link", "add", self._mark, "type", "bridge")
        run("ip", "addr", "add", f"{self._prefix}.1/24", "dev", self._mark)
        run("ip", "link", "set", self._mark, "up")
        for number, (name, host) in enumerate(zip(self.names, self.hosts, strict=True)):
            near = f"{self._mark}v{number}"
            run("ip", "netns", "add", name)
            run("ip", "link", "add", near, "type", "veth", "peer", "name", "eth0", "netns", name)
            run("ip", "link", "set", near, "master", self._mark, "up")
            run("ip", "-n", name, "addr", "add", f"{host}/24", "dev", "eth0")
            run("ip", "-n", name, "link", "set", "eth0", "up")
            run("ip", "-n", name, "link", "set", "lo", "up")

    def close(self) -> None:
        """Remove all of it."""
        for name in self.names:
            with contextlib.suppress(OSError):
                run("ip", "netns", "del", name)
        with contextlib.suppress(OSError):
            run("ip", "link", "del", self._mark)

    def lose(self, sender: int, receiver: int) -> None:
        """From now on nothing that one sends comes to the other."""
        self._rule("-A", sender, receiver)

    def heal(self, sender: int, receiver: int) -> None:
        """It comes again."""
        self._rule("-D", sender, receiver)

    def _rule(self, what: str, sender: int, receiver: int) -> None:
        rule = ("INPUT", "-s", self.hosts[sender], "-j", "DROP")
        run("ip", "netns", "exec", self.names[receiver], "iptables", "-w", what, *rule)


def run(*words: str) -> None:
    """A command of the system's; raises OSError where it fails."""
    done = subprocess.run(words, capture_output=True, check=False)
    if done.returncode:
        raise OSError(f"{words}: {done.stderr.decode()}")


@contextlib.contextmanager
def network(count: int) -> Iterator[Network]:
    """A network that ends with the block."""
    made = Network(count)
    try:
        made.open()
        yield made
    finally:
        made.close()
