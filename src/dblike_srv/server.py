"""The server's process: gunicorn, started from here with the site's config."""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import fcntl
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from flask import Flask
from gunicorn.app.base import BaseApplication

from dblike_srv import gunicorn_conf, logs
from dblike_srv.config import Config, ConfigError, check_address
from dblike_srv.wsgi import make_app  # imported before the fork: once, and shared

_STDERR = 2

log = logging.getLogger(__name__)


class Server(BaseApplication):  # type: ignore[misc]
    """Gunicorn with DBLike in it.  `load_config` is run again on SIGHUP; `try_out` is given the
    config that is new then, and raises where no server could start with it."""

    def __init__(
        self,
        read_config: Callable[[], Config],
        try_out: Callable[[Config], None],
        announce: Callable[[str], None],
    ) -> None:
        self._read_config = read_config
        self._try_out = try_out
        self._last: Config | None = None
        self._announce = announce
        super().__init__()

    def load_config(self) -> None:
        """Settings from our config and from `gunicorn_conf`."""
        config = self._config()
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
        assert self._last is not None  # `load_config` was first
        return make_app(self._last)

    def _config(self) -> Config:
        """What the file says now, or said before where there is something wrong with it: a slip of
        the pen ends no server that runs.  Gunicorn ends itself where a worker does not start, or an
        address can't be had."""
        if self._last is None:
            self._last = self._read_config()
            return self._last
        try:
            config = self._read_config()
            if config.bind != self._last.bind:
                check_bind(config.bind)
            self._try_out(config)
        except Exception as error:  # noqa: BLE001 - whatever it is, the former config was right
            said = " ".join(str(error).split())
            log.warning("%s; the server goes on with the config that it had", said)
        else:
            self._last = config
        return self._last

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
    check_address(bind)
    if bind.startswith("unix:"):
        _check_socket(Path(bind.removeprefix("unix:").removeprefix("//")))
    if bind.startswith(("unix:", "fd://")):
        return
    host, _, port = bind.rpartition(":")
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


def _check_socket(file: Path) -> None:
    """Whether a socket may be made here, in the place of a former one."""
    if not file.parent.is_dir():
        raise ConfigError(f"bind: there is no directory {file.parent}")
    if file.exists() and not file.is_socket():
        raise ConfigError(f"bind: {file} is there, and is no socket")


def _bind_fault(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another program listens on this port"
    return os.strerror(error.errno or 0)


def _url(name: Any) -> str:
    if isinstance(name, (str, bytes)):
        return f"unix:{os.fsdecode(name)}"
    host, port = name[0], name[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(
    read_config: Callable[[], Config],
    try_out: Callable[[Config], None],
    announce: Callable[[str], None],
) -> int:
    """Serve until told to stop; the exit code."""
    with contextlib.suppress(AttributeError):
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    faulthandler.enable(_STDERR)  # where a library ends the process, the log says which
    gunicorn_conf.hold_signals_while_forking()
    try:
        Server(read_config, try_out, announce).run()
    except SystemExit as ended:
        return int(ended.code or 0) if isinstance(ended.code, int | None) else 1
    return 0
