"""Two hosts of one site: the same database and the same store, and data of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dblike_delta.messages import CommitReply, UploadStatus
from dblike_srv.errors import Conflict
from dblike_srv.store.s3 import S3Store
from dblike_srv.uploads import append_upload
from rig.core_site import CoreSite, SeededRandom, stream
from rig.seaweed import BUCKET, SeaweedFS

BLOB = SeededRandom(11).bytes(6 << 20)
UPLOAD = "ab" * 16


@pytest.fixture
def hosts(tmp_path: Path, mariadb: str, seaweed: SeaweedFS) -> Iterator[tuple[CoreSite, CoreSite]]:
    """The second one finds what the first one made."""
    one, two = tmp_path / "one", tmp_path / "two"

    def store(directory: Path, seed: int) -> S3Store:
        where = f"s3://{BUCKET}/{tmp_path.name}"
        return S3Store(where, seaweed.url, directory / "tmp", SeededRandom(seed))

    first = CoreSite(one, store(one, 1), database=mariadb)
    second = CoreSite.again(two, store(two, 2), database=mariadb)
    yield first, second
    first.site.close()
    second.site.close()


def append(
    core: CoreSite, offset: int, data: bytes, *, complete: bool = False
) -> UploadStatus | CommitReply:
    identity = core.laptop.identity
    return append_upload(
        core.site, identity, core.folder, UPLOAD, offset, lambda _: [data], complete
    )


def test_what_one_takes_the_other_serves(hosts: tuple[CoreSite, CoreSite]) -> None:
    one, two = hosts
    assert one.site.id == two.site.id
    assert one.laptop.put(b"a", BLOB).status == "accepted"
    assert two.read(b"a") == BLOB
    two.laptop.counter, two.laptop.contexts = one.laptop.counter, one.laptop.contexts
    assert two.laptop.put(b"a", b"new").status == "accepted"
    assert one.read(b"a") == b"new"


def test_an_upload_belongs_to_the_host_that_began_it(hosts: tuple[CoreSite, CoreSite]) -> None:
    """Another one knows nothing of it and says so: the device begins anew there, and what it sends
    is one version, whichever host it came to."""
    one, two = hosts
    data = stream([one.laptop.file(b"large", BLOB)])
    first = append(one, 0, data[: 5 << 20])
    assert isinstance(first, UploadStatus)
    assert first.offset > 1 << 20
    with pytest.raises(Conflict) as refused:
        append(two, first.offset, data[first.offset :], complete=True)
    assert refused.value.offset == 0
    reply = append(two, 0, data, complete=True)
    assert isinstance(reply, CommitReply)
    assert [result.status for result in reply.results] == ["accepted"]
    again = append(one, first.offset, data[first.offset :], complete=True)
    assert isinstance(again, CommitReply)
    assert [result.status for result in again.results] == ["known"]
    assert one.read(b"large") == two.read(b"large") == BLOB
