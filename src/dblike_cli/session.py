"""A linked folder, opened for a command: config, credential, connection, and a cycle's context."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

import msgspec

from dblike_cli import __version__
from dblike_cli.config import Config, read_config
from dblike_cli.credentials import Credential, read_credential, write_credential
from dblike_cli.errors import NotLinked, Usage
from dblike_cli.eventlog import EventLog
from dblike_cli.learned import read_learned, write_learned
from dblike_cli.options import Common
from dblike_cli.output import CycleReporter, Output
from dblike_delta.errors import DeltaError, PathError
from dblike_delta.paths import check_path, display
from dblike_delta.seams import SystemClock, SystemRandom

if TYPE_CHECKING:
    from dblike_cli.context import Context, Device
    from dblike_cli.http import HttpTransport
    from dblike_cli.report import Reporter
    from dblike_cli.state import State
    from dblike_delta.exchange import Exchange

SITES = "sites"
"""The file of the sites that a site named."""
BESIDE = "beside"
"""The name of the threads that send, hash and write beside the cycle."""
_THREADS = 3
"""How many of them: a large file keeps two cores busy."""
_KEPT = 64 << 20
"""Bytes of memory: two appends of an upload come and go."""
PATIENCE = 2
"""Rounds over all servers before a command gives up; `watch` never does."""


class Session:
    """What a command in a linked folder works with.  Connection and state open when first used."""

    def __init__(self, common: Common, root: Path, *, rates: tuple[int, int] | None = None) -> None:
        self.common = common
        self.output: Output = common.output()
        self.root = root
        self.own = root / ".dblike"
        self.config: Config = read_config(self.own / "config.json")
        self.clock = SystemClock()
        self.random = SystemRandom()
        self.log = EventLog(self.own / "log", self.clock)
        self.pause: Callable[[float], object] = time.sleep
        self._rates = rates or (self.config.limits.up, self.config.limits.down)
        self._credential: Credential | None = None
        self._transport: HttpTransport | None = None
        self._exchange: Exchange | None = None
        self._state: State | None = None
        self._fewer: dict[str, list[tuple[float, int]]] = {"local": [], "remote": []}
        self._exits = contextlib.ExitStack()
        self._work = contextlib.ExitStack()

    # --- the site

    @property
    def credential(self) -> Credential:
        """Who this device is; raises LoggedOut."""
        if self._credential is None:
            self._credential = read_credential(self.own / "credential")
            if self._credential.folder != self.config.folder:
                raise Usage(
                    f"this directory is linked to the folder {self._credential.folder!r}; for "
                    f"{self.config.folder!r} `dblike init` another directory"
                )
        return self._credential

    @property
    def transport(self) -> HttpTransport:
        """The connection to the servers of the config, and to the sites that they named."""
        if self._transport is None:
            transport = open_transport(self.config, self.pause, self._rates)
            self._transport = self._exits.enter_context(contextlib.closing(transport))
            transport.learn(read_learned(self.own / SITES, self.config))
        return self._transport

    def learn(self) -> None:
        """Ask which sites there are, and remember that, as far as either can be done now."""
        from dblike_delta.exchange import Refused, Unreachable

        file = self.own / SITES
        try:
            urls = [view.url for view in self.exchange.sites() if view.url]
        except Refused:  # a site of a release that can't say
            urls = read_learned(file, self.config)
        except (Unreachable, DeltaError):
            return
        with contextlib.suppress(OSError):
            self.transport.learn(write_learned(file, urls, self.config))

    @property
    def exchange(self) -> Exchange:
        """The protocol, in this device's name."""
        if self._exchange is None:
            from dblike_delta.exchange import Exchange

            self.transport.issuer = self.credential.issuer
            agent = f"dblike/{__version__}"
            self._exchange = Exchange(self.transport, self.credential.token, agent=agent)
        return self._exchange

    def target(self, what: str) -> str:
        """The URL path of something of this folder's."""
        return f"/v1/folders/{self.credential.folder_id}/{what}"

    def query(self, what: str, **values: str | int | bytes | None) -> str:
        """The same with a query; paths go in byte for byte."""
        given = {key: value for key, value in values.items() if value not in (None, b"", "")}
        pairs = (f"{key}={quote(_raw(value), safe='/')}" for key, value in given.items())
        return f"{self.target(what)}?{'&'.join(pairs)}" if given else self.target(what)

    # --- the cycle

    @property
    def state(self) -> State:
        """What is remembered of this folder; raises StateDamaged."""
        if self._state is None:
            from dblike_cli.state import State

            self._state = State(self.own / "state.db")
            self._state.fewer = self._fewer
            self._work.callback(self._state.close)
        return self._state

    @contextlib.contextmanager
    def reporter(self) -> Iterator[CycleReporter]:
        """Hears a cycle: progress on the terminal, outcomes in the log."""
        reporter = CycleReporter(self.output, self.log)
        try:
            yield reporter
        finally:
            reporter.close()
            self.log.flush()

    def context(self, reporter: Reporter, exchange: Exchange | None = None) -> Context:
        """All that a cycle needs; `exchange` stands in for the plain one.  Raises Stopped where the
        folder is not there: nothing is opened then, for what is missing would seem damaged."""
        from dblike_cli.context import Context, Settings
        from dblike_cli.safety import check_root, open_root
        from dblike_delta.system import keep_memory

        keep_memory(_KEPT)
        config = self.config
        filesystem = self._work.enter_context(contextlib.closing(open_root(self.root)))
        check_root(filesystem)
        executor = ThreadPoolExecutor(_THREADS, BESIDE)
        # Nobody waits for a request that hangs; what is in it will be sent again with the same dot.
        self._work.callback(executor.shutdown, wait=False, cancel_futures=True)
        return Context(
            fs=filesystem,
            state=self.state,
            exchange=exchange or self.exchange,
            folder=self.credential.folder_id,
            device=self.device,
            clock=self.clock,
            random=self.random,
            config=Settings(max_delete=config.max_delete, ignore=tuple(config.ignore)),
            reporter=reporter,
            executor=executor,
            renew=self.renew,
            place=lambda: self.transport.find().name,
        )

    @property
    def device(self) -> Device:
        """Who this installation is."""
        from dblike_cli.context import Device

        return Device(bytes.fromhex(self.credential.device_id), self.config.device)

    def renew(self) -> Device:
        """Become a new device, in the name of the old one; remembered before it is used."""
        reply = self.exchange.new_device(self.config.device)
        self._credential = msgspec.structs.replace(
            self.credential,
            token=reply.token,
            device_id=reply.device_id,
            issuer=self.transport.find().url,
        )
        self.transport.issuer = self._credential.issuer
        write_credential(self.own / "credential", self._credential)
        self.output.warn("this copy of the folder goes on as a new device")
        return self.device

    def reset(self) -> None:
        """Open what the cycle needs anew when it is next asked for: a folder that was mounted, a
        credential that was renewed.  What the brake counts stays."""
        self._work.close()
        self._credential = self._exchange = self._state = None

    # --- paths

    def path(self, given: str) -> bytes:
        """A path as the user typed it: relative to the -C directory, and inside the folder.

        Raises Usage.  The folder itself is b"".
        """
        return inside(self.root, working_directory(self.common.directory), given)

    # --- closing

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give everything back."""
        self._work.close()
        self._exits.close()
        self.log.flush()


def open_session(common: Common, *, rates: tuple[int, int] | None = None) -> Session:
    """The linked folder that the command was called in; raises NotLinked."""
    return Session(common, find_root(common.directory), rates=rates)


def find_root(start: Path) -> Path:
    """The linked folder at or above `start`; raises NotLinked."""
    where = working_directory(start)
    shown = display(bytes(where))
    if not where.is_dir():
        raise NotLinked(f"there is no directory {shown}")
    for directory in (where, *where.parents):
        if (directory / ".dblike" / "config.json").is_file():
            return directory
    raise NotLinked(f"{shown} is not in a linked folder; `dblike init` or `dblike clone` makes one")


def working_directory(given: Path) -> Path:
    """The directory of -C, which is the current one without it; symlinks in it stay.  Raises
    NotLinked."""
    try:
        return Path(os.path.normpath(given.absolute()))
    except FileNotFoundError:
        raise NotLinked("the current directory is not there any more") from None


def open_transport(
    config: Config, pause: Callable[[float], object], rates: tuple[int, int]
) -> HttpTransport:
    """A connection to a config's servers."""
    from dblike_cli.http import HttpTransport, Tries

    try:
        return HttpTransport(
            config.servers,
            clock=SystemClock(),
            random=SystemRandom(),
            pause=pause,
            rates=rates,
            ca=config.tls.ca,
            tries=Tries(rounds=PATIENCE),
        )
    except OSError as error:  # ssl's errors are OSErrors, without a file's name
        raise Usage(f"tls.ca {config.tls.ca!r}: {error.strerror or error}") from None


def inside(root: Path, start: Path, given: str) -> bytes:
    """The folder's path for what a user typed at `start`; raises Usage."""
    if not given:
        raise Usage("a path is empty; the folder itself is .")
    # Not resolved: a symlink in the folder is a path of its own, not what it points to.
    full = os.path.normpath(os.path.join(os.fsencode(start), os.fsencode(given)))
    top = os.fsencode(root)
    if full == top:
        return b""
    if not full.startswith(os.path.join(top, b"")):
        raise Usage(f"{given} is not in the linked folder {root}")
    try:
        return check_path(full[len(os.path.join(top, b"")) :])
    except PathError as error:
        raise Usage(f"{given}: {error}") from None


def _raw(value: str | int | bytes | None) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()
