"""A device of a world: its disk, its state, its connection."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from typing import Any

import msgspec

from dblike_cli.context import Context, Device, Settings
from dblike_cli.cycle import run_cycle
from dblike_cli.report import Direction, Report
from dblike_cli.state import State
from dblike_delta.exchange import Exchange, Refused
from dblike_delta.messages import LoginReply, LoginRequest
from dblike_delta.versions import Kind
from model.memfs import Inode, MemFS, walk
from model.sim import SimClock, SimRandom
from model.wires import Wire

UNAUTHORIZED = 401


class Image(msgspec.Struct):
    """A machine's snapshot."""

    state: bytes
    disk: Inode
    device: Device
    token: str


class SimDevice:
    """An installation of the client.  `passwords` are its user's, in the order to try them."""

    def __init__(
        self,
        name: str,
        user: str,
        passwords: list[str],
        clock: SimClock,
        random: SimRandom,
        wire: Wire,
        fs: MemFS,
    ) -> None:
        self.name, self.user, self._passwords = name, user, passwords
        self.fs = fs
        self.fs.mkdir(b".dblike", 0o700)
        self.wire = wire
        self.exchange = Exchange(wire)
        self.clock, self._random = clock, random
        self.state: State | None = None
        self._stored = b""
        self.device = Device(bytes(16), name)
        self.link(random.bytes(16).hex())

    def link(self, wanted: str = "") -> None:
        """Log in as this device; as another one where it may not be that any more."""
        reply = self._log_in(wanted or self.device.id.hex())
        device = Device(bytes.fromhex(reply.device_id), self.name)
        if device.id != self.device.id:
            self._become(device)
        self.device = device

    def _log_in(self, device: str) -> LoginReply:
        last: Refused | None = None
        for password in tuple(self._passwords):
            for wanted in (device, self._random.bytes(16).hex()):
                try:
                    return self.exchange.login(LoginRequest(self.user, password, self.name, wanted))
                except Refused as refused:
                    last = refused
                    if refused.status == UNAUTHORIZED:
                        # Another one first from here on: after some that are wrong there is a wait
                        # before each, and the right one would never have its turn.
                        self._passwords.remove(password)
                        self._passwords.append(password)
                        break
        assert last is not None
        raise last

    def _become(self, device: Device) -> None:
        self.device = device
        with self.open().transaction():
            self.open().meta.become(device.id, self.fs.lstat(b".dblike").st_ino)

    def open(self) -> State:
        """The state, as a process that starts finds it.  It lies in memory: what a disk does to it
        at a power cut is not the model's, and a file costs as much as all that is asked of it."""
        if self.state is None:
            self.state = State(":memory:")
            if self._stored:
                self.state._connection.deserialize(self._stored)
        return self.state

    def kill(self) -> None:
        """The process is gone: what was in no transaction is gone, too."""
        if self.state is not None:
            self._stored = self._serialized()
            self.state.close()
            self.state = None

    def _serialized(self) -> bytes:
        connection = self.open()._connection
        connection.rollback()
        return connection.serialize()

    def sync(self, direction: Direction = Direction.BOTH, **options: Any) -> Report:
        """One cycle."""
        state = self.open()
        state.site = self.wire.serving
        context = Context(
            fs=self.fs,
            state=state,
            exchange=self.exchange,
            folder="home",
            device=self.device,
            clock=self.clock,
            random=self._random,
            config=Settings(
                signature_from=64,
                whole_below=256,
                segment=512,
                batch_bytes=2048,
                batch_records=7,
                brake_from=10_000,
                fetch_wants=5,
                changes_limit=6,
                apply_batch=4,
                read_size=128,
            ),
            renew=self._renew,
        )
        return run_cycle(context, direction, **options)

    def _renew(self) -> Device:
        reply = self.exchange.new_device(self.name)
        self.device = Device(bytes.fromhex(reply.device_id), self.name)
        return self.device

    def image(self) -> Image:
        """State, disk and credentials as they are."""
        return Image(self._serialized(), self.fs.snapshot(), self.device, self.exchange.token)

    def roll_back(self, image: Image, *, same_inodes: bool) -> None:
        """State and disk as they were: a machine's snapshot, or a backup put onto a new disk."""
        self.lose_state()
        self._stored = image.state
        self.device, self.exchange.token = image.device, image.token
        if same_inodes:
            self.fs.return_to(image.disk)
        else:
            self.fs.restore(image.disk)

    def clone(self, image: Image) -> None:
        """Be a machine that was copied from another one."""
        self.roll_back(image, same_inodes=True)

    def lose_state(self) -> None:
        """The state's file is gone."""
        self.kill()
        self._stored = b""

    def contents(self) -> set[bytes]:
        """All contents of files on the disk."""
        return {bytes(inode.data) for inode in self.files().values()}

    def files(self) -> dict[bytes, Inode]:
        """Regular files that are the user's."""
        return {p: i for p, i in self._user() if stat.S_ISREG(i.mode)}

    def tree(self) -> dict[bytes, tuple[Any, ...]]:
        """What the user sees."""
        seen: dict[bytes, tuple[Any, ...]] = {}
        for path, inode in self._user():
            mode = stat.S_IMODE(inode.mode)
            if inode.children is not None:
                seen[path] = (Kind.DIRECTORY, mode)
            elif stat.S_ISLNK(inode.mode):
                seen[path] = (Kind.SYMLINK, inode.target)
            else:
                seen[path] = (Kind.FILE, bytes(inode.data), mode, inode.mtime_ns)
        return seen

    def _user(self) -> Iterator[tuple[bytes, Inode]]:
        for path, inode in walk(self.fs.root):
            if path and path.split(b"/")[0] != b".dblike":
                yield path, inode
