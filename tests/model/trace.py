"""What becomes of a content or path in a world, step by step: `run.py --seed N --trace WHAT`.

After each step it says what is different of the path, or of those that ever had the content: on the
disks, in the devices' states and at the sites.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sqlalchemy import select

from dblike_delta.errors import FormatError
from dblike_delta.paths import display
from dblike_delta.versions import Dot, VersionVector, vector_in
from dblike_srv.models import folders, paths, versions
from dblike_srv.tree import VERSION_COLUMNS, version_of
from model.check import digest_of
from model.device import SimDevice
from model.site import SimSite
from model.world import World


class Trace:
    """Looks at a world after each step."""

    def __init__(self, world: World, what: str, say: Callable[[str], object]) -> None:
        """`what` is a path, or the name that `digest_of` gives a content."""
        self._world, self._what, self._say = world, what, say
        self._paths: set[bytes] = set()
        self._seen: dict[str, str] = {}
        self._steps = 0

    def step(self, name: str) -> None:
        """A step was done; print what is different since the last one."""
        self._steps += 1
        self._find()
        now = dict(self._look()) if self._paths else {}
        changed = [key for key in sorted(now | self._seen) if now.get(key) != self._seen.get(key)]
        self._say(f"{self._steps} {self._world.actor} {name}")
        for key in changed:
            self._say(f"    {key}: {self._seen.get(key, '-')} => {now.get(key, '-')}")
        self._seen = now

    def _find(self) -> None:
        """More paths that have the content."""
        for device in self._world.devices:
            for path, inode in device.files().items():
                self._meet(path, digest_of(bytes(inode.data)))
        for site in self._world.sites.values():
            query = select(versions.c.path, versions.c.hash)
            for path, digest in site.database.read(lambda c, q=query: c.execute(q).all()):
                self._meet(bytes(path), bytes(digest).hex()[:8])

    def _meet(self, path: bytes, digest: str) -> None:
        if self._what in (display(path), digest):
            self._paths.add(path)

    def _look(self) -> Iterator[tuple[str, str]]:
        for device in self._world.devices:
            yield from _device(device, self._paths)
        for site in self._world.sites.values():
            yield from _site(site, self._paths)


def _device(device: SimDevice, wanted: set[bytes]) -> Iterator[tuple[str, str]]:
    yield f"{device.name}", f"is {device.device.id.hex()[:4]}, served by {device.wire.serving}"
    files, state = device.files(), device.open()
    for path in sorted(wanted):
        key = f"{device.name} {display(path)}"
        if path in files:
            yield f"{key} disk", digest_of(bytes(files[path].data))
        elif path in device.tree():
            yield f"{key} disk", "no file"
        known, tomb = state.tree.get(path), state.tombs.get(path)
        if known is not None and known.synced.entry is not None:
            entry, dot, context = known.synced.entry, known.synced.dot, known.synced.context
            yield f"{key} tree", f"{entry.hash.hex()[:8]} {_dot(dot)} {_known(context)}"
        if tomb is not None:
            yield f"{key} tomb", f"{_known(tomb.context)}{' doubtful' * tomb.doubtful}"
        record, sending = state.remote.get(path), state.outbox.get(path)
        if record is not None:
            dot = Dot(record.device, record.counter)
            yield f"{key} news", f"{record.hash.hex()[:8]} {_dot(dot)} {_known(record.context)}"
        if sending is not None:
            what = sending.entry.hash.hex()[:8] if sending.entry is not None else "deleted"
            yield f"{key} outbox", f"{what} .{sending.counter} {_known(sending.context)}"
        for offer in state.offers.all():
            if offer.path == path:
                what = offer.entry.hash.hex()[:8] if offer.entry is not None else "deleted"
                yield f"{key} offer", f"{what} .{offer.counter} {_known(offer.context)}"


def _site(site: SimSite, wanted: set[bytes]) -> Iterator[tuple[str, str]]:
    yield site.name, f"is {site.id_now().hex()[:4]}"
    query = select(folders.c.row, *VERSION_COLUMNS).join(
        versions, versions.c.folder == folders.c.row
    )
    for row in site.database.read(lambda c: c.execute(query).all()):
        version = version_of(row[1:])
        if version.path in wanted:
            key = f"{site.name} {display(version.path)} {_dot(version.dot)}"
            what = version.hash.hex()[:8] or version.kind.name
            yield key, f"{what} t{version.time} {_vector(version.vector)}"
    best = (paths.c.folder == versions.c.folder) & (paths.c.winner == versions.c.seq)
    won = select(*VERSION_COLUMNS).join(paths, best)
    for row in site.database.read(lambda c: c.execute(won).all()):
        version = version_of(row)
        if version.path in wanted:
            yield f"{site.name} {display(version.path)} winner", _dot(version.dot)


def _dot(dot: Dot) -> str:
    return f"{dot.device.hex()[:4]}.{dot.counter}"


def _vector(vector: VersionVector) -> str:
    return "{" + " ".join(_dot(dot) for dot in vector) + "}"


def _known(sealed: bytes) -> str:
    try:
        return _vector(vector_in(sealed))
    except FormatError:
        return "{?}"
