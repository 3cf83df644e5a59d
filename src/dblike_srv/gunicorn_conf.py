"""How gunicorn runs DBLike: settings, the worker, and what happens around it.

`dblike-server run` uses it; so may one's own gunicorn:
`DBLIKE_CONFIG=… gunicorn -c python:dblike_srv.gunicorn_conf dblike_srv.wsgi:app`.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import threading
import time
from contextlib import nullcontext
from typing import Any, Final

from gunicorn import util
from gunicorn.http import message

from dblike_delta.system import keep_memory
from dblike_srv.heads import HeadWorker
from dblike_srv.housekeeping import Housekeeping
from dblike_srv.replication.supervisor import Supervisor
from dblike_srv.slots import waiting

# Two paths of 4,096 bytes may have each of them escaped.
limit_request_line = message.MAX_REQUEST_LINE = 32 << 10

bind = "127.0.0.1:8384"
workers = 2
threads = 16
worker_class = "dblike_srv.gunicorn_conf.Worker"
worker_connections = 2000
backlog = 2048
keepalive = 75
timeout = 120
graceful_timeout = 20
control_socket_disable = True
forwarder_headers = ""
umask = 0o077
accesslog = None
errorlog = "-"
logger_class = "dblike_srv.logs.GunicornLogger"
proc_name = "dblike-server"

SETTINGS: Final = (
    "worker_class",
    "worker_connections",
    "backlog",
    "keepalive",
    "timeout",
    "graceful_timeout",
    "limit_request_line",
    "control_socket_disable",
    "forwarder_headers",
    "umask",
    "accesslog",
    "errorlog",
    "logger_class",
    "proc_name",
)
"""What of the above holds whatever the server's config says."""


class Worker(HeadWorker):
    """Threads for requests, the hub for sockets.

    Of gunicorn's worker classes this one keeps SQLite, fsync and hashing off each other's way; what
    it is bad at, a thread for each WebSocket, it is not asked to do.
    """

    def init_signals(self) -> None:
        """From here on signals mean what they mean to a worker; those held since the fork come."""
        super().init_signals()
        _release()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM, also after SIGHUP: sockets go now, requests may finish."""
        _hub_of(self).stop()
        super().handle_exit(sig, frame)

    def is_parent_alive(self) -> bool:
        """Where the first process was killed, end as if told to: what listens on the port, and
        serves nobody new, would keep its successor from starting."""
        if not super().is_parent_alive():
            self.handle_exit(signal.SIGTERM, None)
        return bool(self.alive)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Where this worker ends, serve who is connected already, and let the port go: as long as
        any worker held it, others would connect, wait for the drain, and be cut."""
        super().set_accept_enabled(enabled and self.alive)
        if self.alive:
            return
        for listener in self.sockets:
            # It is closed already where the end came before the first connection could.
            while listener.sock is not None and select.select([listener], [], [], 0)[0]:
                self.accept(listener)
            listener.close()

    def handle_quit(self, sig: int, frame: Any) -> None:
        """SIGQUIT or SIGINT: now."""
        _hub_of(self).stop()
        super().handle_quit(sig, frame)


_KEPT: Final = 16 << 20
"""Bytes of memory that a worker keeps beyond what it uses: a few pieces of a body."""
_HELD: Final = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}


def hold_signals_while_forking() -> None:
    """A worker that is told to end before it listens would miss it, and be waited for."""
    os.register_at_fork(
        before=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, _HELD),
        after_in_parent=_release,
    )


def _release() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD)


_SMALL: Final = 64 << 10
_LEAST_RATE: Final = 1 << 10
"""Bytes in each second that have to be taken of a piece, beyond the patience for silence."""


def _send(connection: Any, data: bytes, flags: int = 0) -> None:
    """All of it; what may take a while without a slot."""
    with waiting() if len(data) >= _SMALL else nullcontext():
        _send_all(connection, data, flags)


def _send_all(connection: Any, data: bytes, flags: int) -> None:
    """`sendall` has one patience for the whole: a megabyte, or a long list, was cut for whoever
    could not take it within that, each time anew."""
    patience = connection.gettimeout()
    if patience is None or type(connection) is not socket.socket:
        connection.sendall(data, flags)
        return
    left, until = memoryview(data), time.monotonic() + patience + len(data) / _LEAST_RATE
    while left:
        left = left[connection.send(left, flags) :]
        if left and time.monotonic() > until:
            raise TimeoutError("the reply is taken too slowly")


def _write(connection: Any, data: bytes, chunked: bool = False) -> None:
    """A piece of a reply."""
    if chunked:
        util.write_chunk(connection, data)
    else:
        _send(connection, data)


def _write_chunk(connection: Any, data: bytes) -> None:
    """A chunk of a reply.  Gunicorn joins it with its frame: a copy of all that is sent."""
    if len(data) < _SMALL or type(connection) is not socket.socket:
        _write_small_chunk(connection, data)
        return
    connection.sendall(b"%X\r\n" % len(data), socket.MSG_MORE)
    _send(connection, data, socket.MSG_MORE)
    connection.sendall(b"\r\n")


_write_small_chunk: Final = util.write_chunk
util.write_chunk = _write_chunk
util.write = _write


class _NoHub:
    def stop(self, **_: Any) -> None:
        pass


def _hub_of(worker: Any) -> Any:
    return getattr(getattr(worker, "wsgi", None), "extensions", {}).get("dblike-hub") or _NoHub()


_background: list[Housekeeping | Supervisor] = []


def post_worker_init(worker: Any) -> None:
    """The application is loaded: keep house and follow other sites, where no other worker does."""
    # Python looks for cycles each 700 allocations; a commit of 10,000 files makes many objects and
    # no cycles, and took 0.75 s of CPU with that, 0.55 s without.
    keep_memory(_KEPT)
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    site = worker.wsgi.extensions.get("dblike")
    if site is not None:
        for name, work in (("housekeeping", Housekeeping(site)), ("following", Supervisor(site))):
            _background.append(work)
            threading.Thread(target=work.run, name=name, daemon=True).start()


def worker_exit(server: Any, worker: Any) -> None:  # noqa: ARG001 - gunicorn names them
    """The worker ends: let go of sockets, files and connections."""
    for work in _background:
        work.stop()
    _hub_of(worker).stop(wait=2.5)
    site = getattr(getattr(worker, "wsgi", None), "extensions", {}).get("dblike")
    if site is not None:
        site.close()
