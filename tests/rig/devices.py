"""Devices in this process: real folders, a real state, and the engine between them and a site."""

from __future__ import annotations

import os
import stat
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from dblike_cli.context import Context, Device, Inline, Settings
from dblike_cli.cycle import run_cycle
from dblike_cli.fs import FileSystem
from dblike_cli.realfs import RealFS
from dblike_cli.report import Direction, Outcome, Pending, Progress, Report
from dblike_cli.state import State
from dblike_delta.exchange import Exchange, Transport
from dblike_delta.messages import LoginRequest
from dblike_delta.seams import Clock, Random, SystemClock, SystemRandom

BOTH, PUSH, PULL = Direction.BOTH, Direction.PUSH, Direction.PULL


class Heard:
    """A reporter that remembers what was said, but for the progress."""

    def __init__(self) -> None:
        self.events: list[Outcome | Pending] = []

    def progress(self, event: Progress | Outcome | Pending) -> None:
        if not isinstance(event, Progress):
            self.events.append(event)


class Laptop:
    """A device with the folder `root`, linked to ada's folder at a site."""

    def __init__(
        self,
        root: Path,
        transport: Transport,
        *,
        name: str = "laptop",
        user: str = "ada",
        password: str = "correct horse",
        clock: Clock | None = None,
        random: Random | None = None,
        executor: Executor | None = None,
        settings: Settings | None = None,
        fs: FileSystem | None = None,
    ) -> None:
        self.root = root
        self.name = name
        self.transport = transport
        self.clock = clock or SystemClock()
        self.random = random or SystemRandom()
        self.executor = executor or Inline()
        self.settings = settings or Settings(durable=False)
        self.heard = Heard()
        own = root / ".dblike"
        own.mkdir(parents=True, exist_ok=True)
        self.exchange = Exchange(transport)
        reply = self.exchange.login(LoginRequest(user=user, password=password, device=name))
        self.folder = self.exchange.folders()[0].id
        self.device = Device(bytes.fromhex(reply.device_id), name)
        self.fs: FileSystem = fs or RealFS(root)
        self.state = State(own / "state.db")
        if not self.state.meta.device:
            with self.state.transaction():
                self.state.meta.become(self.device.id, own.stat().st_ino)

    # --- the engine

    @property
    def context(self) -> Context:
        return Context(
            fs=self.fs,
            state=self.state,
            exchange=self.exchange,
            folder=self.folder,
            device=self.device,
            clock=self.clock,
            random=self.random,
            config=self.settings,
            reporter=self.heard,
            executor=self.executor,
            renew=self.renew,
            place=lambda: getattr(self.transport, "serving", ""),
        )

    def renew(self) -> Device:
        reply = self.exchange.new_device(self.name)
        self.device = Device(bytes.fromhex(reply.device_id), self.name)
        return self.device

    def sync(self, direction: Direction = BOTH, **wishes: Any) -> Report:
        return run_cycle(self.context, direction, **wishes)

    def push(self, **wishes: Any) -> Report:
        return self.sync(PUSH, **wishes)

    def pull(self, **wishes: Any) -> Report:
        return self.sync(PULL, **wishes)

    def restart(self) -> None:
        """As after the end of the process: nothing but the disk is left."""
        self.state.close()
        self.fs.close()
        self.fs = RealFS(self.root)
        self.state = State(self.root / ".dblike" / "state.db")

    def close(self) -> None:
        self.state.close()
        self.fs.close()

    # --- the user's files

    def write(self, path: str | bytes, data: bytes | str = b"", mode: int | None = None) -> Path:
        """Make or replace a file as most editors do: another inode takes the name."""
        place = self.place(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = place.with_name(f".{self.random.bytes(4).hex()}.draft")
        draft.write_bytes(data if isinstance(data, bytes) else data.encode())
        if mode is not None:
            draft.chmod(mode)
        draft.replace(place)
        return place

    def read(self, path: str | bytes) -> bytes:
        return self.place(path).read_bytes()

    def place(self, path: str | bytes) -> Path:
        return self.root / (os.fsdecode(path) if isinstance(path, bytes) else path)

    def tree(self, *, times: bool = True) -> dict[str, tuple[Any, ...]]:
        """What a user sees: path to kind, content, permissions and mtime."""
        found: dict[str, tuple[Any, ...]] = {}
        for directory, names, files in os.walk(self.root):
            if Path(directory) == self.root:
                names.remove(".dblike")
            for name in (*names, *files):
                place = Path(directory) / name
                found[str(place.relative_to(self.root))] = _look(place, times=times)
        return found


def _look(place: Path, *, times: bool) -> tuple[Any, ...]:
    st = place.lstat()
    if stat.S_ISLNK(st.st_mode):
        return ("link", os.readlink(place))
    if stat.S_ISDIR(st.st_mode):
        return ("directory", stat.S_IMODE(st.st_mode))
    when = (st.st_mtime_ns,) if times else ()
    return ("file", place.read_bytes(), stat.S_IMODE(st.st_mode), *when)
