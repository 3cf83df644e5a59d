"""The server's process: gunicorn, started from here with the site's config."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication

from dblike_srv import gunicorn_conf, logs
from dblike_srv.config import Config, ConfigError
from dblike_srv.wsgi import make_app  # imported before the fork: once, and shared


class Server(BaseApplication):  # type: ignore[misc]
    """Gunicorn with DBLike in it.  `load_config` is run again on SIGHUP."""

    def __init__(self, read_config: Callable[[], Config], announce: Callable[[str], None]) -> None:
        self._read_config = read_config
        self._announce = announce
        super().__init__()

    def load_config(self) -> None:
        """Settings from our config and from `gunicorn_conf`."""
        config = self._read_config()
        logs.configure(form=config.log.format, level=config.log.level)
        for name in gunicorn_conf.SETTINGS:
            self.cfg.set(name, getattr(gunicorn_conf, name))
        self.cfg.set("bind", config.bind)
        self.cfg.set("workers", config.workers)
        self.cfg.set("threads", config.threads)
        self.cfg.set("post_worker_init", gunicorn_conf.post_worker_init)
        self.cfg.set("worker_exit", gunicorn_conf.worker_exit)
        self.cfg.set("when_ready", self._when_ready)

    def load(self) -> Flask:
        """The application; made in each worker after the fork, so that nothing is shared."""
        return make_app(self._read_config())

    def _when_ready(self, arbiter: Any) -> None:
        for listener in arbiter.LISTENERS:
            self._announce(_url(listener.getsockname()))


@contextlib.contextmanager
def alone(data: Path) -> Iterator[bool]:
    """Whether no other server runs on this data directory; none can start inside of this.

    A record lock is not inherited by the workers: it goes when the first process ends, however that
    comes about, so that a successor may start while they finish what was begun.
    """
    directory = data / "run"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (directory / "server").open("a") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def check_bind(bind: str) -> None:
    """Fail in one line where the address can't be had; raises ConfigError, OSError."""
    if bind.startswith(("unix:", "fd://")):
        return
    host, _, port = bind.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ConfigError(f"bind: {bind!r} is not HOST:PORT")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except socket.gaierror:
            raise ConfigError(f"bind: no such host {host!r}") from None
        except OSError as error:
            raise OSError(error.errno, f"{bind}: {_bind_fault(error)}") from None


def _bind_fault(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program listens on this port"
    return os.strerror(error.errno or 0)


def _url(name: Any) -> str:
    if isinstance(name, (str, bytes)):
        return f"unix:{os.fsdecode(name)}"
    host, port = name[0], name[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(read_config: Callable[[], Config], announce: Callable[[str], None]) -> int:
    """Serve until told to stop; the exit code."""
    with contextlib.suppress(AttributeError):
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    gunicorn_conf.hold_signals_while_forking()
    try:
        Server(read_config, announce).run()
    except SystemExit as ended:
        return int(ended.code or 0) if isinstance(ended.code, int | None) else 1
    return 0
