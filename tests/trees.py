"""A site and its devices as plain values: whole histories of a folder in microseconds.

The rules are the product's own (`versions`, `reconcile`); what is modelled here is only who knows
what, and a file system that refuses what a real one refuses.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping

import msgspec

from dblike_delta import paths
from dblike_delta.plan import UNKNOWN, Apply, Entry, Local, Plan, Remote, Synced, Upload
from dblike_delta.reconcile import reconcile, same_content, same_entry
from dblike_delta.versions import (
    Dot,
    Kind,
    Version,
    VersionVector,
    context,
    merge,
    settle,
    winner,
)

Tree = dict[bytes, Entry]
DIRECTORY = Entry(Kind.DIRECTORY, mode=0o755)


def entry_of(version: Version) -> Entry | None:
    """What a path is by this version."""
    if not version.live:
        return None
    return Entry(
        version.kind, version.hash, version.size, version.mode, version.mtime_ns, version.target
    )


class Site:
    """Heads of every path; all versions that ever came, in the order in which they did."""

    def __init__(self) -> None:
        self.heads: dict[bytes, tuple[Version, ...]] = {}
        self.seen: dict[Dot, Version] = {}
        self.settled = 0

    def add(self, versions: Iterable[Version]) -> None:
        """Take versions in, and all that follows from them."""
        touched: list[bytes] = []
        for version in versions:
            if self._take(version):
                touched += (version.path, *paths.ancestors(version.path))
        while touched:
            path = touched.pop()
            self.settled += 1
            for derived in settle(path, self.heads.get(path, ()), self.has_live_children(path)):
                if self._take(derived):
                    touched += (derived.path, *paths.ancestors(derived.path))

    def _take(self, version: Version) -> bool:
        if version.dot in self.seen:
            return False
        self.seen[version.dot] = version
        merged = merge(self.heads.get(version.path, ()), version)
        self.heads[version.path] = merged.heads
        return merged.added

    def has_live_children(self, path: bytes) -> bool:
        """Whether something lives right below the path."""
        return any(
            paths.parent(other) == path and winner(heads).live
            for other, heads in self.heads.items()
        )

    def tree(self) -> Tree:
        """What lives."""
        entries = {path: entry_of(winner(heads)) for path, heads in self.heads.items()}
        return {path: entry for path, entry in sorted(entries.items()) if entry}

    def remote(self, path: bytes) -> Remote:
        """A path's present state."""
        heads = self.heads[path]
        best = winner(heads)
        return Remote(entry_of(best), best.dot, context(heads).pack())


class Device:
    """A folder on a machine, and what is remembered of the last agreement."""

    def __init__(self, device: bytes, author: str) -> None:
        self.id = device
        self.author = author
        self.counter = 0
        self.local: Tree = {}
        self.synced: dict[bytes, Synced] = {}
        self.clock = 0

    # --- what a user does -------------------------------------------------------------------------

    def write(self, path: bytes, entry: Entry) -> None:
        """Put it there; whatever is in the way goes, directories that lack are made."""
        for above in paths.ancestors(path):
            if self.local.get(above, DIRECTORY).kind != Kind.DIRECTORY:
                del self.local[above]
            self.local.setdefault(above, DIRECTORY)
        if entry.kind != Kind.DIRECTORY:
            self.remove(path)
        elif self.local.get(path, entry).kind != Kind.DIRECTORY:
            del self.local[path]
        self.local[path] = entry

    def remove(self, path: bytes) -> None:
        """Delete it, with all below."""
        for gone in [other for other in self.local if other == path or paths.is_below(other, path)]:
            del self.local[gone]

    def rename(self, old: bytes, new: bytes) -> None:
        """Move it, with all below; nothing happens where a file system would refuse."""
        if old not in self.local or paths.is_below(new, old) or paths.is_below(old, new):
            return
        moved = {
            new + path[len(old) :]: entry
            for path, entry in self.local.items()
            if path == old or paths.is_below(path, old)
        }
        if old == new or any(len(path) > paths.MAX_PATH for path in moved):
            return
        self.remove(old)
        self.remove(new)
        for path in sorted(moved):
            self.write(path, moved[path])

    # --- what the client does ---------------------------------------------------------------------

    def plan(
        self, site: Site, *, unknown: Iterable[bytes] = (), deaf: Iterable[bytes] = ()
    ) -> Plan:
        """The plan of this moment.  `unknown` can't be read here; nothing is heard of `deaf`."""
        local: dict[bytes, Local] = {}
        for path in {*self.local, *self.synced}:
            synced = self.synced.get(path)
            if not same_entry(self.local.get(path), synced.entry if synced else None):
                local[path] = self.local.get(path)
        for path in unknown:
            # Whoever can't read a directory does not see what is in it.
            for below in [other for other in local if paths.is_below(other, path)]:
                del local[below]
            local[path] = UNKNOWN
        return reconcile(local, self.synced, self.news(site, set(deaf)))

    def news(self, site: Site, deaf: set[bytes]) -> Mapping[bytes, Remote]:
        """What differs there from what is remembered."""
        news = {}
        for path in site.heads.keys() - deaf:
            remote, synced = site.remote(path), self.synced.get(path)
            if not synced or (synced.dot, synced.context) != (remote.dot, remote.context):
                news[path] = remote
        return news

    def upload(self, site: Site, uploads: Iterable[Upload]) -> list[Version]:
        """Commit.  Remembered is what this device knows by it, not all that the site does."""
        made = []
        for step in uploads:
            self.counter += 1
            dot = Dot(self.id, self.counter)
            known = VersionVector.unpack(step.context) if step.context else VersionVector()
            version = self._version(step.path, step.entry, dot, known.with_dot(dot))
            site.add([version])
            made.append(version)
            self.synced[step.path] = Synced(step.entry, version.vector.pack(), dot)
        return made

    def _version(
        self, path: bytes, entry: Entry | None, dot: Dot, vector: VersionVector
    ) -> Version:
        fields = msgspec.structs.asdict(entry) if entry else {"kind": Kind.DELETED}
        return Version(
            path=path, dot=dot, vector=vector, time=self.clock, author=self.author, **fields
        )

    def apply(self, step: Apply) -> bool:
        """Carry it out if the path is as expected; a file system's refusals are failures."""
        path, new = step.path, step.new
        if not same_entry(self.local.get(path), step.expected):
            return False
        if new is not None:
            above = paths.parent(path)
            assert not above or self.local[above].kind == Kind.DIRECTORY, f"{path!r}: no parent"
        if new is None or new.kind != Kind.DIRECTORY:
            assert not any(paths.is_below(other, path) for other in self.local), f"{path!r}: full"
        if new is None:
            self.local.pop(path, None)
        else:
            self.local[path] = new
        self.synced[path] = Synced(new, step.remote.context, step.remote.dot)
        return True

    def settle_state(self, plan: Plan) -> None:
        """Record what both sides agree on without any transfer."""
        for step in plan.adopts:
            if same_entry(self.local.get(step.path), step.local) and step.remote.entry:
                assert same_content(step.local, step.remote.entry)
                self.local[step.path] = step.remote.entry
                self.synced[step.path] = Synced(
                    step.remote.entry, step.remote.context, step.remote.dot
                )
        for forgotten in plan.forgets:
            self.synced.pop(forgotten.path, None)

    def cycle(self, site: Site) -> Plan:
        """One whole round."""
        plan = self.plan(site)
        self.upload(site, plan.uploads)
        for step in plan.applies:
            self.apply(step)
        self.settle_state(plan)
        return plan


def act(rng: random.Random, device: Device, names: list[bytes], contents: Iterable[Entry]) -> None:
    """One thing that a user does, anywhere in a small folder."""
    path = b"/".join(rng.choice(names) for _ in range(rng.randint(1, 3)))
    pool = list(contents)
    existing = sorted(device.local)
    match rng.randrange(8):
        case 0 | 1 | 2:
            device.write(path, rng.choice(pool))
        case 3:
            device.write(path, DIRECTORY)
        case 4:
            device.write(path, Entry(Kind.SYMLINK, target=rng.choice(names)))
        case 5 if existing:
            device.remove(rng.choice(existing))
        case 6 if existing:
            device.rename(rng.choice(existing), path)
        case 7 if existing:
            touched = rng.choice(existing)
            if device.local[touched].kind != Kind.SYMLINK:
                mode = rng.choice((0o600, 0o700, 0o755))
                entry = msgspec.structs.replace(device.local[touched], mode=mode)
                device.local[touched] = entry
