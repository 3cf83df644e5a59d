"""What must be true of a world in which all is quiet."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from blake3 import blake3
from sqlalchemy import Connection, select

from dblike_delta.exchange import Exchange, Refused
from dblike_delta.versions import (
    Dot,
    Kind,
    Version,
    conflict_copy,
    context,
    dominates,
    heads,
    is_conflict_copy,
    same_content,
    winner,
)
from dblike_srv import accounts
from dblike_srv.contents import find_contents
from dblike_srv.folders import find_folder
from dblike_srv.models import journal, paths, versions
from dblike_srv.tree import VERSION_COLUMNS, version_of
from model.device import UNAUTHORIZED
from model.site import SimSite
from model.wires import Wire

if TYPE_CHECKING:
    from model.world import World

Shown = dict[bytes, tuple[Any, ...]]


class Holding:
    """All that a site holds of a user's folder."""

    def __init__(self, site: SimSite, user: str) -> None:
        self._site = site
        self._folder = find_folder(site.site, accounts.administrator(site.site, user), "home")
        assert self._folder is not None, f"{site.name} has no folder of {user}"
        site.database.read(self._read)

    def _read(self, connection: Connection) -> None:
        assert self._folder is not None
        row = self._folder.row
        query = select(*VERSION_COLUMNS).where(versions.c.folder == row)
        by_seq = {r[0]: version_of(r) for r in connection.execute(query)}
        self.versions = {version.dot: version for version in by_seq.values()}
        query = select(paths.c.path, paths.c.winner, paths.c.context, paths.c.live)
        self.paths = {
            bytes(path): (by_seq[best].dot, bytes(context), live)
            for path, best, context, live in connection.execute(query.where(paths.c.folder == row))
        }
        query = select(journal.c.site, journal.c.number, journal.c.seq)
        self.journal = {
            (bytes(origin), number): by_seq[seq].dot
            for origin, number, seq in connection.execute(query.where(journal.c.folder == row))
        }
        hashes = {v.hash for v in by_seq.values() if v.kind is Kind.FILE}
        held = find_contents(connection, self._folder.user, hashes)
        self.absent = {digest for digest in hashes if digest not in held}

    def check(self) -> None:
        """Whether the paths are what follows from the versions, and their contents are here."""
        of_path: defaultdict[bytes, list[Version]] = defaultdict(list)
        for version in self.versions.values():
            of_path[version.path].append(version)
        assert of_path.keys() == self.paths.keys()
        for path, mine in of_path.items():
            left = heads(mine)
            dot, known, live = self.paths[path]
            best = winner(left)
            assert (dot, known) == (best.dot, context(left).pack()), (path, dot, left)
            assert live == best.live
        assert not self.absent, f"{self._site.name} lacks contents: {self.absent}"

    def shown(self) -> Shown:
        """What a user would see."""
        live = {path: self.versions[dot] for path, (dot, _, live) in self.paths.items() if live}
        return {path: _face(version) for path, version in live.items()}


def _face(version: Version) -> tuple[Any, ...]:
    match version.kind:
        case Kind.FILE:
            return Kind.FILE, version.size
        case Kind.SYMLINK:
            return Kind.SYMLINK, version.target
        case _:
            return (version.kind,)


def digest_of(content: bytes) -> str:
    """How a content is called."""
    return blake3(content).hexdigest()[:8]


def check(world: World) -> None:
    """Everything."""
    live, copied, replaced = set[bytes](), set[bytes](), set[bytes]()
    for user, devices in world.groups():
        if not devices:
            continue
        first = devices[0].tree()
        for device in devices[1:]:
            assert device.tree() == first, difference(first, device.tree())
        held = {name: Holding(site, user) for name, site in world.sites.items()}
        _check_alike(held)
        one = next(iter(held.values()))
        one.check()
        shown = {path: _seen(value) for path, value in first.items()}
        assert shown == one.shown(), difference(shown, one.shown())
        if not world.doubles:
            _check_copies(one.versions)
        files = {path: value[1] for path, value in first.items() if value[0] is Kind.FILE}
        live |= set(files.values())
        copied |= {data for path, data in files.items() if is_conflict_copy(path)}
        replaced |= _replaced_by_a_double(one.versions, world.doubles)
    # A site that hears of a conflict before it hears how one side of it ended keeps a copy of that
    # side, for whoever made the end may not have known what they had: a crash hides from a device
    # what it had taken, and it says of the next edit there that it replaced what it did not.
    lost, back = world.must - live, (world.dead & live) - copied
    unseen = {data for data in lost if blake3(data).digest() in replaced}
    lost -= unseen
    assert not lost, f"lost: {sorted(map(digest_of, lost))}"
    world.must -= unseen
    world.unseen |= unseen
    assert not back, f"came back: {sorted(map(digest_of, back))}"
    world.dead = world.contents - live
    _check_ended(world)


def _seen(value: tuple[Any, ...]) -> tuple[Any, ...]:
    match value[0]:
        case Kind.FILE:
            return Kind.FILE, len(value[1])
        case Kind.SYMLINK:
            return Kind.SYMLINK, value[1]
        case _:
            return (value[0],)


def _check_alike(held: dict[str, Holding]) -> None:
    """The same versions, journals and paths at all sites."""
    (first, one), *rest = held.items()
    for name, other in rest:
        for what in ("versions", "paths", "journal"):
            mine, theirs = getattr(one, what), getattr(other, what)
            assert mine == theirs, (first, name, what, difference(mine, theirs))
        assert not other.absent, f"{name} lacks contents: {other.absent}"


def _check_copies(known: dict[Dot, Version]) -> None:
    """Conflict copies are of versions that somebody else's contradicts."""
    of_path: defaultdict[bytes, list[Version]] = defaultdict(list)
    for version in known.values():
        of_path[version.path].append(version)
    for loser in known.values():
        if loser.kind not in (Kind.FILE, Kind.SYMLINK):
            continue
        if conflict_copy(loser).dot in known:
            others = of_path[loser.path]
            assert any(_conflict(loser, other) for other in others), (loser, others)


def _replaced_by_a_double(known: dict[Dot, Version], doubles: set[bytes]) -> set[bytes]:
    """Contents of versions that are in the history only, because another copy of their device used
    a greater number for the path before the two were told apart (docs/sync-rules.md)."""
    latest: defaultdict[tuple[bytes, bytes], int] = defaultdict(int)
    for version in known.values():
        for device, counter in version.vector.items():
            at = version.path, device
            latest[at] = max(latest[at], counter)
    return {
        v.hash
        for v in known.values()
        if v.dot.device in doubles and v.dot.counter < latest[v.path, v.dot.device]
    }


def _conflict(loser: Version, other: Version) -> bool:
    """Whether the two contradict each other, or the one had to make room for a directory."""
    if other.kind is Kind.DIRECTORY:
        return True
    apart = not dominates(loser, other) and not dominates(other, loser)
    return (
        apart
        and loser.dot.device != other.dot.device
        and not (loser.kind is other.kind and same_content(loser, other))
    )


def _check_ended(world: World) -> None:
    """Tokens that were ended anywhere are good nowhere."""
    for token in world.ended:
        for name in world.sites:
            exchange = Exchange(Wire(world.network, "thief", [name]))
            exchange.token = token
            assert _answer(exchange) == UNAUTHORIZED, f"a token that was ended, at {name}"


def _answer(exchange: Exchange) -> int:
    """The status that a request gets."""
    try:
        exchange.devices()
    except Refused as refused:
        return refused.status
    return 200


def difference(a: dict[Any, Any], b: dict[Any, Any]) -> list[Any]:
    """What two mappings do not agree on."""
    keys = sorted(a.keys() | b.keys())
    return [(key, a.get(key), b.get(key)) for key in keys if a.get(key) != b.get(key)]
