"""Contents on their way between sites that are cut: what came is not sent again."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from blake3 import blake3
from sqlalchemy import func, select

from dblike_delta.changeset import Encoder
from dblike_delta.exchange import Request, Unreachable
from dblike_delta.formats import DELTA_MAGIC, END, encode_copy, encode_literal_header
from dblike_delta.messages import Trailer
from dblike_srv.models import packs
from dblike_srv.replication.arrival import Unfinished
from dblike_srv.replication.follower import Follower
from dblike_srv.replication.link import Link
from dblike_srv.replication.parts import remove_idle_parts
from rig.members import Member, run
from rig.wsgi import WsgiTransport

MIB = 1 << 20
BLOCK = MIB + (128 << 10)
"""What a cut may cost: a block of the stream, and what is around it."""


class Cutter:
    """Carries requests to a site; answers with contents are cut after `allowed` bytes."""

    def __init__(self, member: Member, allowed: int = 2 * BLOCK) -> None:
        self._inner = WsgiTransport(member.app.wsgi_app)
        self._allowed = allowed
        self.passed = 0

    def request(self, request: Request) -> Any:
        reply = self._inner.request(request)
        return _Cut(self, reply) if request.target.endswith("/fetch") else reply

    def cut(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        left = self._allowed
        for chunk in chunks:
            piece = chunk[:left]
            left -= len(piece)
            self.passed += len(piece)
            yield piece
            if len(piece) < len(chunk):
                raise Unreachable("the reply was cut")

    def close(self) -> None:
        """Nothing is held."""


class _Cut:
    def __init__(self, cutter: Cutter, inner: Any) -> None:
        self._cutter, self._inner = cutter, inner
        self.status, self.headers = inner.status, inner.headers

    def chunks(self) -> Iterator[bytes]:
        return self._cutter.cut(self._inner.chunks())

    def close(self) -> None:
        self._inner.close()


def follow(here: Member, cutter: Cutter, *, tries: int = 20) -> int:
    """Until it is all here; how often it was cut."""
    for cuts in range(tries):
        try:
            run(here.site, cutter)
        except Unreachable:
            continue
        return cuts
    raise AssertionError("it never ends")


def contents(member: Member) -> dict[bytes, bytes]:
    """What a device that asks for them gets."""
    exchange = member.writer("reader").exchange
    records = exchange.changes("home").records
    return {r.path: b"".join(exchange.read(f"/v1/folders/home/files/{r.path.decode()}"))
            for r in records}  # fmt: skip


@pytest.fixture
def there(members: list[Member]) -> Member:
    """A site that `members[0]` is to follow."""
    return members[1]


def left_over(member: Member) -> list[Path]:
    return list((Path(member.site.config.data) / "arriving").glob("*/pack"))


def test_a_new_file_comes_once(members: list[Member], there: Member) -> None:
    """Cut again and again, a file and those beside it come, each byte about once."""
    large = random.Random(1).randbytes(7 * MIB)
    files = {b"a": b"a" * 9000, b"large": large, b"z": large[:MIB]}
    there.writer("laptop").write(files)
    cutter = Cutter(there)
    cuts = follow(members[0], cutter)
    assert cuts >= 3
    assert cutter.passed < 8 * MIB + (cuts + 1) * BLOCK
    assert contents(members[0]).items() >= files.items()
    assert not left_over(members[0])


def test_an_edit_goes_on_as_an_edit(members: list[Member], there: Member) -> None:
    """The rest of a delta is a delta, too."""
    rng, writer = random.Random(2), there.writer("laptop")
    old = rng.randbytes(12 * MIB)
    writer.write({b"large": old})
    members[0].follow(there)
    delta, new = [DELTA_MAGIC], []
    for at in range(0, len(old), MIB):
        fresh = rng.randbytes(MIB // 2)
        delta += [encode_copy(at, MIB), encode_literal_header(len(fresh)), fresh]
        new += [old[at : at + MIB], fresh]
    content, encoder = b"".join(new), Encoder()
    record = msgspec.structs.replace(writer.record(b"large", content), base=blake3(old).digest())
    parts = encoder.record(record) + encoder.data(b"".join([*delta, END]))
    parts += encoder.trailer(Trailer(record.hash, record.size)) + encoder.finish()
    writer.exchange.commit("home", parts)
    cutter = Cutter(there)
    cuts = follow(members[0], cutter)
    assert cuts >= 2
    assert cutter.passed < 6 * MIB + (cuts + 1) * BLOCK
    assert contents(members[0])[b"large"] == content


def test_another_site_brings_the_rest(members: list[Member], there: Member) -> None:
    """It does not matter who sent the beginning."""
    large = random.Random(3).randbytes(5 * MIB)
    there.writer("laptop").write({b"large": large})
    members[2].follow(there)
    first, second = Cutter(there), Cutter(members[2], 100 * MIB)
    with pytest.raises(Unreachable):
        run(members[0].site, first)
    run(members[0].site, second)
    assert second.passed < 4 * MIB
    assert contents(members[0])[b"large"] == large


@pytest.mark.parametrize(("whole", "first"), [
    (0, 1), (0, 3 * MIB), (0, 20 * MIB), (2 * MIB, 1), (2 * MIB, 3 * MIB)
])  # fmt: skip
def test_another_site_brings_the_rest_later(
    members: list[Member], there: Member, whole: int, first: int
) -> None:
    """It has other versions to tell first: the beginning is kept for so long, unless those are
    worth more; then it takes no room."""
    rng = random.Random(6)
    files = {b"large": rng.randbytes(6 * MIB)}
    if whole:
        files = {b"before": rng.randbytes(whole)} | files
    members[2].follow(there)
    others = {b"one": rng.randbytes(first), b"two": b"2"}
    members[2].writer("phone").write(others)
    there.writer("laptop").write(files)
    members[2].follow(there)
    with pytest.raises(Unreachable):
        run(members[0].site, Cutter(there, 5 * MIB))
    second = Cutter(members[2], 100 * MIB)
    follower = Follower(members[0].site, Link(members[0].site, "http://c", second), page=2)
    follower.connect()
    assert follower.catch_up() is None
    files |= others
    assert contents(members[0]).items() >= files.items()
    begun = 5 * MIB - whole - BLOCK if first < 20 * MIB else 0
    assert second.passed < first + whole + 6 * MIB - begun + 2 * BLOCK
    query = select(func.sum(packs.c.size))
    kept = members[0].site.database.read(lambda connection: connection.scalar(query))
    assert kept < sum(map(len, files.values())) + whole + MIB


def test_a_beginning_that_is_wrong(members: list[Member], there: Member) -> None:
    """It is forgotten, and all of it comes anew; the site that brings the rest is not blamed."""
    large = random.Random(4).randbytes(5 * MIB)
    there.writer("laptop").write({b"large": large})
    with pytest.raises(Unreachable):
        run(members[0].site, Cutter(there))
    (pack,) = left_over(members[0])
    with pack.open("r+b") as file:
        file.write(b"another")
    whole = Cutter(there, 100 * MIB)
    with pytest.raises(Unfinished):
        run(members[0].site, whole)
    run(members[0].site, whole)
    assert contents(members[0])[b"large"] == large


def test_what_nobody_goes_on_with_is_removed(members: list[Member], there: Member) -> None:
    """A day later; not before."""
    there.writer("laptop").write({b"large": random.Random(5).randbytes(5 * MIB)})
    with pytest.raises(Unreachable):
        run(members[0].site, Cutter(there))
    assert remove_idle_parts(members[0].site) == 0
    (pack,) = left_over(members[0])
    os.utime(pack.parent, (0, 0))
    assert remove_idle_parts(members[0].site) == 1
    assert not left_over(members[0])
