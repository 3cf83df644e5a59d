"""Packs on a real S3, with a line in between that fails as networks and stores do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from dblike_delta.messages import Refusal, Want
from dblike_srv.maintenance import gc, scrub
from dblike_srv.readiness import check_ready
from dblike_srv.store import s3
from dblike_srv.store.base import Away
from dblike_srv.store.s3 import S3Store
from rig.core_site import DAY_MS, CoreSite, SeededRandom
from rig.proxy import FINE, Fault, Proxy
from rig.seaweed import BUCKET, SeaweedFS

NAME = b"\1" * 32
BLOB = SeededRandom(7).bytes(300_000)


def error(status: int, code: str) -> Fault:
    """A store that answers so, and hangs up."""
    body = f"<Error><Code>{code}</Code><Message>not now</Message></Error>"
    head = f"HTTP/1.1 {status} No\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    return Fault(answer=f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())


SLOW_DOWN = error(503, "SlowDown")
PASSING = {
    "500": error(500, "InternalError"),
    "503": SLOW_DOWN,
    "refused": Fault(refuse=True),
    "cut in the request": Fault(cut_request=5_000),
    "cut in the reply": Fault(cut_reply=100),
    "lost reply of a PUT": Fault(lose_reply_to=(b"PUT /", BLOB[-50:])),
}


@pytest.fixture
def proxy(seaweed: SeaweedFS) -> Iterator[Proxy]:
    """In front of the S3 gateway."""
    made = Proxy(("127.0.0.1", seaweed.port))
    yield made
    made.close()


@pytest.fixture
def store(tmp_path: Path, proxy: Proxy) -> S3Store:
    """A store that is reached through it."""
    return S3Store(f"s3://{BUCKET}/{tmp_path.name}", proxy.url, tmp_path / "tmp", SeededRandom())


@pytest.fixture
def core(tmp_path: Path, store: S3Store) -> Iterator[CoreSite]:
    """A site on it."""
    made = CoreSite(tmp_path / "data", store)
    yield made
    made.site.close()


def fail(proxy: Proxy, fault: Fault, *, first: int = 1) -> None:
    """The next connections have this fault, those that are open end."""
    start = proxy.connections
    proxy.plan = lambda number: fault if number - start < first else FINE
    proxy.drop_all()


def put(store: S3Store, data: bytes, name: bytes = NAME) -> None:
    writer = store.writer()
    writer.write(data)
    writer.commit(name)


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_what_passes_is_tried_again(
    store: S3Store, proxy: Proxy, tmp_path: Path, fault: Fault
) -> None:
    fail(proxy, fault)
    put(store, BLOB)
    assert list((tmp_path / "tmp").iterdir()) == []
    fail(proxy, fault)
    assert store.read(NAME, 100, 1000) == BLOB[100:1100]
    fail(proxy, fault)
    assert list(store.names()) == [NAME]
    fail(proxy, fault)
    store.delete(NAME)
    assert list(store.names()) == []


@pytest.mark.parametrize("cut", [0, 150, 5_000, 150_000])
def test_a_reply_that_is_cut_is_never_taken_for_the_whole(
    store: S3Store, proxy: Proxy, cut: int
) -> None:
    put(store, BLOB)
    fail(proxy, Fault(cut_reply=cut), first=2)
    assert store.read(NAME, 0, len(BLOB)) == BLOB


def test_large_packs_go_in_parts(
    store: S3Store, proxy: Proxy, seaweed: SeaweedFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "SINGLE", 5 << 20)
    data = SeededRandom(8).bytes(12 << 20)
    name = blake3(data).digest()
    fail(proxy, SLOW_DOWN, first=2)
    put(store, data, name)
    assert store.size(name) == len(data)
    assert store.read(name, (5 << 20) - 10, 20) == data[(5 << 20) - 10 :][:20]
    put(store, data, name)  # again, which sends nothing


def test_parts_that_were_never_completed_go(store: S3Store, seaweed: SeaweedFS) -> None:
    client, key = seaweed.client(), store._key(NAME)
    began = client.create_multipart_upload(Bucket=BUCKET, Key=key)
    which = {"Bucket": BUCKET, "Key": key, "UploadId": began["UploadId"]}
    client.upload_part(**which, PartNumber=1, Body=BLOB)
    assert list(store.names()) == []
    assert store.tidy(0) == 0
    assert store.tidy(1 << 60) == 1
    found = client.list_multipart_uploads(Bucket=BUCKET, Prefix=key).get("Uploads", [])
    assert found == []
    client.close()


def test_a_torn_object_of_the_same_name_is_replaced(store: S3Store, seaweed: SeaweedFS) -> None:
    """No S3 leaves one; somebody's copying tool may have."""
    client = seaweed.client()
    client.put_object(Bucket=BUCKET, Key=store._key(NAME), Body=BLOB[:1000])
    client.close()
    put(store, BLOB)
    assert store.read(NAME, 0, len(BLOB)) == BLOB


@pytest.mark.parametrize("single", [s3.SINGLE, 5 << 20])
def test_a_damaged_object_is_replaced_by_who_has_the_content(
    core: CoreSite, store: S3Store, seaweed: SeaweedFS, monkeypatch: pytest.MonkeyPatch, single: int
) -> None:
    """The pack that brings it has the very same name, and the same size."""
    monkeypatch.setattr(s3, "SINGLE", single)
    data = SeededRandom(8).bytes(6 << 20)
    core.laptop.put(b"a", data)
    name = blake3(data).digest()
    client = seaweed.client()
    client.put_object(Bucket=BUCKET, Key=store._key(name), Body=b"x" + data[1:])
    client.close()
    assert scrub(core.site).damaged_packs == (name.hex(),)
    assert core.device("phone").put(b"b", data).status == "accepted"
    assert scrub(core.site).sound
    assert core.read(b"a") == data


def test_an_absent_bucket_is_not_an_absent_pack(tmp_path: Path, seaweed: SeaweedFS) -> None:
    """Else all that is in it would be taken for lost."""
    store = S3Store("s3://nosuchbucket/x", seaweed.url, tmp_path / "tmp", SeededRandom())
    for ask in (
        store.check,
        lambda: store.size(NAME),
        lambda: store.read(NAME, 0, 1),
        lambda: list(store.names()),
    ):
        with pytest.raises(Away):
            ask()  # type: ignore[operator]


# --- a site on it


def test_a_site_on_s3(core: CoreSite) -> None:
    core.laptop.put(b"a", BLOB)
    core.laptop.put(b"b", b"small")
    assert core.read(b"a") == BLOB
    assert core.read(b"b") == b"small"
    assert scrub(core.site).sound
    assert check_ready(core.site) == ""
    core.laptop.delete(b"a")
    core.clock.advance(31 * DAY_MS)
    gc(core.site)
    core.clock.advance(2 * DAY_MS)
    assert gc(core.site).packs == 1
    assert core.read(b"b") == b"small"


def test_a_store_that_is_away_changes_nothing(core: CoreSite, proxy: Proxy) -> None:
    """Neither what is there is taken for damaged, nor does a version come without its bytes."""
    core.laptop.put(b"a", BLOB)
    record, body = core.laptop.file(b"b", b"more" + BLOB)
    fail(proxy, SLOW_DOWN, first=1000)
    with pytest.raises(Away):
        core.laptop.commit((record, body))
    with pytest.raises(Away):
        scrub(core.site)
    version = core.records()[b"a"]
    [refusal] = core.fetch([Want(version.device, version.counter)])
    assert isinstance(refusal, Refusal)
    assert refusal.status == "unavailable"
    assert check_ready(core.site) == "the store can't be reached"
    fail(proxy, FINE)
    assert list(core.records()) == [b"a"]
    assert core.read(b"a") == BLOB
    assert core.laptop.commit((record, body)).results[0].status == "accepted"
    assert core.read(b"b") == b"more" + BLOB
    assert scrub(core.site).sound


def test_a_crash_between_store_and_database_leaves_what_gc_collects(core: CoreSite) -> None:
    class Crash(Exception):
        pass

    def crash(_: object) -> None:
        raise Crash

    core.laptop.put(b"a", b"kept")
    transact, core.site.database.transact = core.site.database.transact, crash  # type: ignore[method-assign,assignment]
    with pytest.raises(Crash):
        core.laptop.put(b"b", BLOB)
    core.site.database.transact = transact  # type: ignore[method-assign]
    assert len(list(core.store.names())) == 2
    gc(core.site)
    core.clock.advance(2 * DAY_MS)
    assert gc(core.site).packs == 1
    assert len(list(core.store.names())) == 1
    assert scrub(core.site).sound
