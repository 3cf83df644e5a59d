"""What users do to their files."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from dblike_cli.fs import Rename
from model.device import SimDevice
from model.memfs import walk

if TYPE_CHECKING:
    from model.world import World

NAMES = (b"a", b"b", b"A", b"d", b"e", "é".encode(), "e\u0301".encode(), b"\xff\xfe", b"f.txt")
"""Few, so that devices meet; case twins, Unicode twins, and one that is no UTF-8."""


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
