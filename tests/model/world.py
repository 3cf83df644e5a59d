"""A whole system in one process: a site and some devices, all that happens from one seed.

The model of what must be is small.  Every content that a user writes is unique.  It *must live*
from then on, somewhere, until a user who has it on disk overwrites or deletes it there.  When all
is quiet every device shows the same tree as the site, with every content that must live in it.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import sqlite3
import stat
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dblike_cli.context import Context, Device, Settings
from dblike_cli.cycle import run_cycle
from dblike_cli.fs import Rename
from dblike_cli.report import Direction, Report
from dblike_cli.state import State
from dblike_delta.exchange import Exchange, Request, Response, Unreachable
from dblike_delta.messages import LoginRequest
from dblike_delta.versions import Kind
from dblike_srv import accounts, history
from dblike_srv.app import create_app
from dblike_srv.config import decode_config
from dblike_srv.folders import find_folder
from dblike_srv.identity import FolderRef, Identity
from dblike_srv.site import open_site
from dblike_srv.store.mem import MemoryStore
from model.memfs import Inode, MemFS, walk
from rig.wsgi import WsgiTransport

USER, PASSWORD = "ada", "correct horse battery staple"
YEAR_MS = 365 * 24 * 3600 * 1000
NAMES = (b"a", b"b", b"A", b"d", b"e", "é".encode(), "e\u0301".encode(), b"\xff\xfe", b"f.txt")
"""Few, so that devices meet; case twins, Unicode twins, and one that is no UTF-8."""


class Crash(BaseException):
    """The process dies here."""


class SimClock:
    """The world's time with a device's error on it."""

    def __init__(self, world: World, skew_ms: int = 0) -> None:
        self._world = world
        self.skew_ms = skew_ms

    def now_ms(self) -> int:
        return self._world.now_ns // 1_000_000 + self.skew_ms

    def monotonic(self) -> float:
        return self._world.now_ns / 1e9


class SimRandom:
    """Randomness from the world's seed."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def bytes(self, n: int) -> bytes:
        return self._rng.randbytes(n)

    def uniform(self, a: float, b: float) -> float:
        return self._rng.uniform(a, b)


class SimTransport:
    """Carries requests to the application; `fault(number)` says what goes wrong with each."""

    def __init__(self, app: Any) -> None:
        self._inner = WsgiTransport(app)
        self.requests = 0
        self.fault: Callable[[int], str] = lambda _: ""

    def request(self, request: Request) -> Response:
        self.requests += 1
        body = request.body
        if body is not None and not isinstance(body, bytes):
            body = b"".join(body)
        request = Request(request.method, request.target, request.headers, body, request.length)
        match self.fault(self.requests):
            case "crash before":
                raise Crash
            case "unreachable":
                raise Unreachable("the network is away")
            case "lost reply":
                self._drain(request)
                raise Unreachable("the reply was lost")
            case "crash after":
                self._drain(request)
                raise Crash
            case "twice":
                self._drain(request)
            case "cut":
                return _Cut(self._inner.request(request))
            case "page":
                return _Page()
        return self._inner.request(request)

    def _drain(self, request: Request) -> None:
        response = self._inner.request(request)
        with contextlib.closing(response):
            for _ in response.chunks():
                pass


class _Cut:
    """A reply of which only the first half of the first piece arrives."""

    def __init__(self, inner: Response) -> None:
        self._inner = inner
        self.status, self.headers = inner.status, inner.headers

    def chunks(self) -> Iterator[bytes]:
        for chunk in self._inner.chunks():
            yield bytes(chunk[: len(chunk) // 2])
            break
        raise Unreachable("the reply was cut")

    def close(self) -> None:
        self._inner.close()


class _Page:
    """What a hotel's network answers in place of the site."""

    def __init__(self) -> None:
        self.status = 200
        self.headers = {"content-type": "text/html"}

    def chunks(self) -> Iterator[bytes]:
        yield b"<html>please log in</html>"

    def close(self) -> None:
        """Nothing to let go of."""


class SimDevice:
    """A device: its disk, its state on a real file, its connection."""

    def __init__(self, world: World, name: str, skew_ms: int) -> None:
        self.world, self.name = world, name
        self.fs = MemFS(world.disk_ns)
        self.fs.mkdir(b".dblike", 0o700)
        self.transport = SimTransport(world.app)
        self.exchange = Exchange(self.transport)
        self.clock = SimClock(world, skew_ms)
        self._path = world.directory / f"{name}.db"
        self.state: State | None = None
        reply = self.exchange.login(
            LoginRequest(USER, PASSWORD, name, world.rng.randbytes(16).hex())
        )
        self.device = Device(bytes.fromhex(reply.device_id), name)
        with self.open().transaction():
            self.open().meta.become(self.device.id, self.fs.lstat(b".dblike").st_ino)

    def open(self) -> State:
        """The state, as a process that starts finds it."""
        if self.state is None:
            self.state = State(self._path)
        return self.state

    def kill(self) -> None:
        """The process is gone: what was in no transaction is gone, too."""
        if self.state is not None:
            self.state.close()
            self.state = None

    def sync(self, direction: Direction = Direction.BOTH, **options: Any) -> Report:
        """One cycle."""
        context = Context(
            fs=self.fs,
            state=self.open(),
            exchange=self.exchange,
            folder="home",
            device=self.device,
            clock=self.clock,
            random=SimRandom(self.world.rng),
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

    def backup(self) -> tuple[bytes, Inode]:
        """State and disk as they are."""
        copy = sqlite3.connect(":memory:")
        with contextlib.closing(sqlite3.connect(self._path)) as source:
            source.backup(copy)
        return copy.serialize(), self.fs.snapshot()

    def roll_back(self, saved: tuple[bytes, Inode], *, same_inodes: bool) -> None:
        """State and disk as they were: a machine's snapshot, or a backup put onto a new disk."""
        self.kill()
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        self._path.write_bytes(saved[0])
        if same_inodes:
            self.fs.root = saved[1]
        else:
            self.fs.restore(saved[1])

    def lose_state(self) -> None:
        """The state's file is gone."""
        self.kill()
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

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


class World:
    """The site, the devices, the time, and what must live."""

    def __init__(self, seed: int, devices: int = 3, *, skews: bool = True) -> None:
        self.rng = random.Random(seed)
        self.now_ns = 1_800_000_000_000_000_000
        self.directory = Path(tempfile.mkdtemp(prefix="dblike-world-"))
        config = {"data": str(self.directory / "site"), "cluster_key": "k" * 64}
        self.site = open_site(
            decode_config({**config, "database": "sqlite://"}),
            clock=SimClock(self),
            random=SimRandom(self.rng),
            store=MemoryStore(),
        )
        accounts.create_user(self.site, USER, PASSWORD)
        self._application = create_app(self.site)
        self.app = self._application.wsgi_app
        self.must: set[bytes] = set()
        self.written = 0
        choices = (0, 0, 3_600_000, -3_600_000, 50 * YEAR_MS, -50 * YEAR_MS)
        self.devices = [
            SimDevice(self, f"dev{n}", self.rng.choice(choices) if skews else 0)
            for n in range(devices)
        ]

    def close(self) -> None:
        for device in self.devices:
            device.kill()
        self._application.extensions["dblike-hub"].stop(wait=5)
        self.site.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def disk_ns(self) -> int:
        """A disk's clock: it moves in ticks of 4 ms, as a kernel's does."""
        return self.now_ns // 4_000_000 * 4_000_000

    def tick(self) -> None:
        """Time passes: a moment, a while or long."""
        self.now_ns += self.rng.choice((0, 1_000_000, 7_000_000, 900_000_000, 90_000_000_000))

    # --- what users do

    def fresh(self) -> bytes:
        """A content that never was before; a few are long enough to travel as deltas."""
        self.written += 1
        mark = b"content %d." % self.written
        return mark * self.rng.choice((1, 1, 1, 2, 30, 120))

    def edited(self, old: bytes) -> bytes:
        """A new content that has much of an old one in it."""
        self.written += 1
        at = self.rng.randrange(len(old) + 1)
        return old[:at] + b"[%d]" % self.written + old[at:]

    @contextlib.contextmanager
    def by_user(self, device: SimDevice) -> Iterator[None]:
        """What a user removes from a disk, having it there, need not live any more: also where
        another path has it, since somebody else may remove that one likewise."""
        before = Counter(bytes(inode.data) for inode in device.files().values())
        yield
        after = Counter(bytes(inode.data) for inode in device.files().values())
        self.must -= (before - after).keys()
        self.must |= {data for data in after - before if data not in before}

    # --- quiet

    def settle(self) -> None:
        """Sync without faults until nothing happens any more; then check all that must be."""
        for device in self.devices:
            device.transport.fault = lambda _: ""
            device.fs.hook = lambda _: None
        for _ in range(40):
            reports = [self._settled(device) for device in self.devices]
            if not any(map(_did_something, reports)):
                break
        else:
            raise AssertionError(f"no end of it: {reports}")
        self.check()

    def _settled(self, device: SimDevice) -> Report:
        self.now_ns += 10_000_000_000
        return device.sync()

    def check(self) -> None:
        """The same tree everywhere, and all in it that must live."""
        first = self.devices[0].tree()
        for device in self.devices[1:]:
            assert device.tree() == first, _difference(first, device.tree())
        shown = {
            path: (kind, value[1] if kind is Kind.FILE else b"")
            for path, value in first.items()
            for kind in [value[0]]
        }
        assert shown.keys() == self.server_paths(), shown.keys() ^ self.server_paths()
        live = {value[1] for value in first.values() if value[0] is Kind.FILE}
        assert self.must <= live, sorted(self.must - live)

    def server_paths(self) -> set[bytes]:
        """What the site shows."""
        import base64

        listing = history.tree(self.site, self.folder(), limit=100_000)
        return {
            base64.b64decode(view.path_b64) if view.path_b64 else view.path.encode()
            for view in listing.entries
        }

    def folder(self) -> FolderRef:
        found = find_folder(self.site, Identity(1, USER, bytes(16), ""), "home")
        assert found is not None
        return found


def _did_something(report: Report) -> bool:
    done = report.uploaded or report.applied or report.adopted or report.deleted
    return bool(done or not report.in_sync)


def _difference(a: dict[bytes, Any], b: dict[bytes, Any]) -> list[Any]:
    return [
        (path, a.get(path), b.get(path))
        for path in sorted(a.keys() | b.keys())
        if a.get(path) != b.get(path)
    ]


# --- users' operations ----------------------------------------------------------------------------


def write(world: World, device: SimDevice) -> None:
    """Write a file, in place or by the detour that editors take."""
    path = _some_path(world, device, new=0.5)
    inode = device.files().get(path)
    data = world.edited(bytes(inode.data)) if inode and world.rng.random() < 0.7 else world.fresh()
    if inode is not None and world.rng.random() < 0.5:
        inode.data[:] = data
        device.fs.written(inode)
        return
    with contextlib.suppress(OSError):
        _parents(device, path)
        temporary = path.rpartition(b"/")[0] + b"/.tmp" if b"/" in path else b".tmp"
        file = device.fs.create(temporary, 0o644)
        file.write(data)
        try:
            device.fs.rename(temporary, path, Rename.REPLACE)
        except OSError:
            device.fs.unlink(temporary)


def delete(world: World, device: SimDevice) -> None:
    """Delete a file, a symlink or a whole directory."""
    _remove(device, _some_path(world, device))


def move(world: World, device: SimDevice) -> None:
    """Rename a file or directory, onto something or not."""
    source, target = _some_path(world, device), _some_path(world, device, new=0.7)
    if target.startswith(source + b"/") or source == target:
        return
    with contextlib.suppress(OSError):
        _parents(device, target)
        device.fs.rename(source, target, Rename.REPLACE)


def copy(world: World, device: SimDevice) -> None:
    """Copy a file."""
    files = device.files()
    if not files:
        return
    source = world.rng.choice(sorted(files))
    target = _some_path(world, device, new=0.8)
    with contextlib.suppress(OSError):
        _parents(device, target)
        device.fs.create(target, 0o644).write(bytes(files[source].data))


def make_directory(world: World, device: SimDevice) -> None:
    """Make a directory."""
    path = _some_path(world, device, new=1.0)
    with contextlib.suppress(OSError):
        _parents(device, path)
        device.fs.mkdir(path, 0o755)


def link(world: World, device: SimDevice) -> None:
    """Make a symlink, also one that leads out of the folder."""
    path = _some_path(world, device, new=1.0)
    with contextlib.suppress(OSError):
        _parents(device, path)
        device.fs.symlink(world.rng.choice((b"a", b"../..", b"/etc", b"d/e")), path)


def change_kind(world: World, device: SimDevice) -> None:
    """Replace a file by a directory with something in it, or the other way round."""
    path = _some_path(world, device)
    was_file = path in device.files()
    _remove(device, path)
    with contextlib.suppress(OSError):
        if was_file:
            device.fs.mkdir(path, 0o755)
            device.fs.create(path + b"/in", 0o644).write(world.fresh())
        else:
            device.fs.create(path, 0o644).write(world.fresh())


def change_mode(world: World, device: SimDevice) -> None:
    """Change permissions, or set a time."""
    path = _some_path(world, device)
    with contextlib.suppress(OSError):
        if world.rng.random() < 0.5:
            device.fs.chmod(path, world.rng.choice((0o644, 0o600, 0o755)))
        else:
            device.fs.utime(path, world.rng.choice((1, 1_700_000_000_123_456_789)))


OPERATIONS = (
    write, write, write, write, delete, delete, move, move, copy, make_directory, link,
    change_kind, change_mode,
)  # fmt: skip


def _some_path(world: World, device: SimDevice, new: float = 0.0) -> bytes:
    """A path that is there, or (with probability `new`) one that need not be."""
    there = sorted(device.tree())
    if there and world.rng.random() >= new:
        return world.rng.choice(there)
    depth = world.rng.choice((1, 1, 2, 3))
    return b"/".join(world.rng.choice(NAMES) for _ in range(depth))


def _parents(device: SimDevice, path: bytes) -> None:
    for n in range(path.count(b"/")):
        above = b"/".join(path.split(b"/")[: n + 1])
        with contextlib.suppress(FileExistsError):
            device.fs.mkdir(above, 0o755)


def _remove(device: SimDevice, path: bytes) -> None:
    with contextlib.suppress(OSError):
        for inner, inode in sorted(walk(device.fs._find(path), path), reverse=True):
            if inode.children is not None:
                device.fs.rmdir(inner)
            else:
                device.fs.unlink(inner)
