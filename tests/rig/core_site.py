"""A site without HTTP: its clock stands still, its store counts, and a commit is one line."""

from __future__ import annotations

import io
import random
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from blake3 import blake3
from sqlalchemy import insert, select

from dblike_delta.changeset import Body, Encoder, Part, decode
from dblike_delta.commands import Copy, Literal
from dblike_delta.formats import encode_commands
from dblike_delta.messages import (
    CommitReply,
    CommitResult,
    FetchRequest,
    Record,
    Refusal,
    Trailer,
    Want,
)
from dblike_delta.patch import patch
from dblike_delta.versions import Kind
from dblike_srv.changes import changes
from dblike_srv.commit import Commit
from dblike_srv.config import decode_config
from dblike_srv.fetch import fetch
from dblike_srv.folders import create_folder, find_folder
from dblike_srv.identity import FolderRef, Identity
from dblike_srv.models import devices, users
from dblike_srv.site import Site, open_site
from dblike_srv.store.base import PackStore, PackWriter
from dblike_srv.store.mem import MemoryStore

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


class StillClock:
    """A clock that moves when it is told to."""

    def __init__(self, now: int = 1_790_000_000_000) -> None:
        self.now = now

    def now_ms(self) -> int:
        return self.now

    def monotonic(self) -> float:
        return self.now / 1000

    def advance(self, milliseconds: int) -> None:
        self.now += milliseconds


class SeededRandom:
    """The same from a seed."""

    def __init__(self, seed: int = 1) -> None:
        self._source = random.Random(seed)

    def bytes(self, n: int) -> bytes:
        return self._source.randbytes(n)

    def uniform(self, a: float, b: float) -> float:
        return self._source.uniform(a, b)


class CountingStore:
    """A store that counts what is read from the one inside."""

    def __init__(self, inner: PackStore | None = None) -> None:
        self.inner = inner or MemoryStore()
        self.reads = 0
        self.bytes_read = 0

    def writer(self) -> PackWriter:
        return self.inner.writer()

    def adopt(self, path: Path, name: bytes) -> None:
        self.inner.adopt(path, name)

    def settle(self, name: bytes) -> None:
        self.inner.settle(name)

    def read(self, name: bytes, offset: int, length: int) -> bytes:
        self.reads += 1
        self.bytes_read += length
        return self.inner.read(name, offset, length)

    def size(self, name: bytes) -> int:
        return self.inner.size(name)

    def delete(self, name: bytes) -> None:
        self.inner.delete(name)

    def names(self) -> Iterator[bytes]:
        return self.inner.names()

    def check(self) -> None:
        self.inner.check()

    def tidy(self, before_ms: int) -> int:
        return self.inner.tidy(before_ms)


class CoreSite:
    """A site, one user, and that user's folder `home`."""

    def __init__(self, directory: Path, store: PackStore | None = None, **config: Any) -> None:
        self._open(directory, store, config)
        self.user = self.add_user(b"ada")
        self.laptop = self.device("laptop")
        self.folder: FolderRef = create_folder(self.site, self.laptop.identity, "home")

    @classmethod
    def again(cls, directory: Path, store: PackStore, **config: Any) -> CoreSite:
        """A site that is there, with the user and the laptop that are in it."""
        core = cls.__new__(cls)
        core._open(directory, store, config)
        query = select(devices.c.id, devices.c.user, devices.c.highest)
        query = query.where(devices.c.name == "laptop")
        device, core.user, counter = core.site.database.read(lambda c: c.execute(query).one())
        core.laptop = Device(core, Identity(core.user, "laptop", bytes(device), "laptop"))
        core.laptop.counter = counter
        folder = find_folder(core.site, core.laptop.identity, "home")
        assert folder is not None
        core.folder = folder
        return core

    def _open(self, directory: Path, store: PackStore | None, config: dict[str, Any]) -> None:
        self.clock = StillClock()
        self.random = SeededRandom()
        self.store = CountingStore(store)
        values = {"data": str(directory), "cluster_key": "k" * 32, **config}
        self.site: Site = open_site(
            decode_config(values), clock=self.clock, random=self.random, store=self.store
        )

    def add_user(self, name: bytes, quota: int = 0) -> int:
        """A user; the row's number."""
        values = {"uid": self.random.bytes(16), "name": name, "created": 0, "quota": quota}
        statement = insert(users).values(values)
        done = self.site.database.transact(lambda c: c.execute(statement).inserted_primary_key)
        assert done is not None
        return int(done[0])

    def device(self, name: str, user: int | None = None) -> Device:
        """A device of the user's."""
        device = self.random.bytes(16)
        owner = self.user if user is None else user
        row = {"id": device, "user": owner, "name": name, "created": 0}
        statement = insert(devices).values(row)
        self.site.database.transact(lambda c: c.execute(statement))
        return Device(self, Identity(owner, name, device, name))

    def count(self, table: Any) -> int:
        """Rows of a table."""
        return len(self.site.database.read(lambda c: c.execute(select(table)).all()))

    def records(self, cursor: str = "") -> dict[bytes, Record]:
        """What the site says changed since the cursor, by path."""
        found, _, _ = changes(self.site, self.folder, cursor, 20_000)
        return {record.path: record for record in found}

    def read(self, path: bytes, have: Mapping[bytes, bytes] | None = None, start: int = 0) -> bytes:
        """A path's content as a device fetches it; `have` are contents at hand, by hash."""
        record = self.records()[path]
        want = Want(record.device, record.counter, list(have or {}), start)
        [answer] = self.fetch([want], have or {})
        assert isinstance(answer, bytes), answer
        return answer

    def fetch(
        self, wants: list[Want], have: Mapping[bytes, bytes] | None = None
    ) -> list[bytes | Refusal]:
        """What the wants got, in order; each content is checked where it is whole."""
        return list(contents_of(self.fetched(wants), have or {}))

    def fetched(self, wants: list[Want]) -> list[Part]:
        """The stream of a fetch."""
        request = FetchRequest(wants)
        return list(fetch(self.site, self.laptop.identity, self.folder, request))


class Device:
    """A device that commits, and remembers its counter and what contexts it was given."""

    def __init__(self, core: CoreSite, identity: Identity) -> None:
        self.core, self.identity = core, identity
        self.counter = 0
        self.contexts: dict[bytes, bytes] = {}

    def record(self, path: bytes, kind: Kind = Kind.FILE, **fields: Any) -> Record:
        """The next record of this device."""
        self.counter += 1
        values = {
            "path": path, "device": self.identity.device, "counter": self.counter,
            "time": self.core.clock.now, "kind": int(kind), "mode": 0o644,
            "author": self.identity.device_name, "context": self.contexts.get(path, b""),
        }  # fmt: skip
        return Record(**{**values, **fields})

    def file(self, path: bytes, data: bytes, **fields: Any) -> tuple[Record, bytes]:
        """A record and its body: the whole content."""
        digest = blake3(data).digest()
        body = encode_commands([Literal(data)] if data else [])
        record = self.record(path, hash=digest, size=len(data), body=True, **fields)
        return record, body

    def commit(self, *items: Record | tuple[Record, bytes]) -> CommitReply:
        """Send records, some with bodies, as one changeset."""
        reply = send(self.core.site, self.identity, self.core.folder, stream(items))
        for result, item in zip(reply.results, items, strict=True):
            record = item if isinstance(item, Record) else item[0]
            if result.context:
                self.contexts[record.path] = result.context
        return reply

    def put(self, path: bytes, data: bytes, **fields: Any) -> CommitResult:
        """Commit one whole file."""
        return self.commit(self.file(path, data, **fields)).results[0]

    def edit(
        self, path: bytes, old: bytes, commands: list[Copy | Literal], **fields: Any
    ) -> CommitResult:
        """Commit a delta against `old`."""
        new = b"".join(
            bytes(c.data) if isinstance(c, Literal) else old[c.offset : c.offset + c.length]
            for c in commands
        )
        digest, base = blake3(new).digest(), blake3(old).digest()
        record = self.record(path, hash=digest, size=len(new), body=True, base=base, **fields)
        return self.commit((record, encode_commands(commands))).results[0]

    def delete(self, path: bytes) -> CommitResult:
        """Commit that a path is gone."""
        return self.commit(self.record(path, Kind.DELETED, mode=0)).results[0]

    def make(self, path: bytes) -> CommitResult:
        """Commit a directory."""
        return self.commit(self.record(path, Kind.DIRECTORY, mode=0o755)).results[0]


def stream(items: Iterable[Record | tuple[Record, bytes]], piece: int = 1 << 20) -> bytes:
    """A changeset of records and bodies."""
    encoder = Encoder(compress=0)
    parts: list[Part] = []
    for item in items:
        if isinstance(item, Record):
            parts += encoder.record(item)
            continue
        record, body = item
        parts += encoder.record(record)
        for at in range(0, len(body), piece):
            parts += encoder.data(body[at : at + piece])
        parts += encoder.trailer(Trailer(record.hash, record.size))
    return b"".join([*parts, *encoder.finish()])


def send(site: Site, identity: Identity, folder: FolderRef, data: bytes) -> CommitReply:
    """One commit of a whole stream."""
    running = Commit(site, identity, folder)
    try:
        for at in range(0, len(data), 1 << 16):
            running.receive(data[at : at + (1 << 16)])
        return running.finish()
    except BaseException:
        running.abort()
        raise


def contents_of(parts: Iterable[Part], have: Mapping[bytes, bytes]) -> Iterator[bytes | Refusal]:
    """The contents that a fetched changeset makes of what is at hand, and its refusals."""
    record: Record | None = None
    body = bytearray()
    for event in decode(parts):
        match event:
            case Refusal():
                yield event
                record = None
            case Record():
                record, body = event, bytearray()
            case Body():
                body += event.data
            case Trailer():
                assert record is not None
                base, out = io.BytesIO(have[record.base] if record.base else b""), io.BytesIO()
                patch(base, io.BytesIO(bytes(body)), out)
                made = out.getvalue()
                if not record.start:
                    assert (blake3(made).digest(), len(made)) == (event.hash, event.size)
                yield made
            case _:
                pass
