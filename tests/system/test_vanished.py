"""A server that is gone without a word, while a reply of it is waited for."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading

import pytest

from dblike_cli import connection
from dblike_cli.connection import Address, Connection, Timeouts, Wire
from dblike_cli.netlimit import TokenBucket
from dblike_delta.exchange import Request, Unreachable
from dblike_delta.seams import SystemClock
from rig.cluster import PATIENCE
from rig.networks import network, run

_SERVER = """
import socket, sys
with socket.create_server((sys.argv[1], 0)) as server:
    print(server.getsockname()[1], flush=True)
    client, _ = server.accept()
    client.recv(1 << 16)
    print("asked", flush=True)
    sys.stdin.read()
"""


def test_a_reply_that_never_comes_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after the sleep of a laptop: the system asks the other end, and nobody answers."""
    if os.geteuid():
        pytest.skip("namespaces need root")
    quick = {"TCP_KEEPIDLE": 1, "TCP_KEEPINTVL": 1, "TCP_KEEPCNT": 2}
    monkeypatch.setattr(connection, "_KEPT_ALIVE", quick)
    with network(1) as net:
        inside = ["ip", "netns", "exec", net.names[0]]
        command = [*inside, sys.executable, "-c", _SERVER, net.hosts[0]]
        pipe = subprocess.PIPE
        with (
            subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as server,
            contextlib.ExitStack() as exits,
        ):
            exits.callback(server.kill)
            assert server.stdout is not None
            port = int(server.stdout.readline())
            timeouts = Timeouts(head=10 * PATIENCE)
            unbounded = TokenBucket(0, SystemClock(), lambda _: None)
            wire = Wire(unbounded, unbounded, timeouts, None)
            line = Connection(Address(net.hosts[0], port, secure=False), wire)
            said: list[Unreachable] = []

            def ask() -> None:
                try:
                    line.exchange(Request("GET", "/v1/folders", {}))
                except Unreachable as error:
                    said.append(error)

            asking = threading.Thread(target=ask, daemon=True)
            asking.start()
            assert server.stdout.readline() == "asked\n"
            run(*inside, "iptables", "-w", "-A", "INPUT", "-i", "eth0", "-j", "DROP")
            asking.join(PATIENCE)
            line.close()
    assert [str(error).rpartition(": ")[2] for error in said] == ["timed out"]
