"""Folders, changes, commit, uploads and fetch, through the protocol's own steps."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import ClassVar

import msgspec
import pytest
from flask import Flask

from dblike_delta import zstd
from dblike_delta.changeset import Body, Encoder
from dblike_delta.exchange import Exchange, Refused, Request, Unreachable
from dblike_delta.messages import (
    CHANGESET_TYPE,
    MSGPACK_TYPE,
    ChangeList,
    CommitReply,
    FolderView,
    Record,
    Trailer,
    TreeList,
    UploadStatus,
    VersionList,
    Want,
)
from dblike_delta.versions import Dot, Kind, vector_in
from dblike_srv.site import Site
from rig.writer import Writer

DEVICE = bytes.fromhex("a1" * 16)


@pytest.fixture
def writer(exchange: Exchange) -> Writer:
    return Writer(exchange, DEVICE)


def headers(exchange: Exchange, **more: str) -> dict[str, str]:
    given = {name.replace("_", "-"): value for name, value in more.items()}
    return {"Authorization": f"Bearer {exchange.token}", **given}


def test_everyone_starts_with_home_and_may_make_more(exchange: Exchange) -> None:
    assert [folder.name for folder in exchange.folders()] == ["home"]
    made = exchange.create_folder("work")
    assert (made.name, made.files, len(made.id)) == ("work", 0, 32)
    assert [folder.name for folder in exchange.folders()] == ["home", "work"]
    assert exchange.get("/v1/folders/work", FolderView) == made
    with pytest.raises(Refused) as caught:
        exchange.create_folder("work")
    assert (caught.value.status, caught.value.problem.field) == (409, "name")


@pytest.mark.parametrize("name", ["", "a/b", "..", "-x", "x" * 65, "f" * 32, "a\n"])
def test_names_that_no_folder_has(exchange: Exchange, name: str) -> None:
    with pytest.raises(Refused) as caught:
        exchange.create_folder(name)
    assert (caught.value.status, caught.value.problem.field) == (422, "name")


def test_a_commit_is_heard_of_as_a_change(exchange: Exchange, writer: Writer) -> None:
    before = exchange.changes("home")
    reply = writer.write({b"a": b"one", b"d/b\xff": b"two"})
    assert [result.status for result in reply.results] == ["accepted"] * 2
    assert before.cursor == reply.before
    after = exchange.changes("home", before.cursor)
    assert {record.path for record in after.records} == {b"a", b"d", b"d/b\xff"}
    assert after.cursor == reply.cursor
    assert exchange.changes("home", after.cursor).records == ()


def test_a_delete_leaves_a_context(exchange: Exchange, writer: Writer) -> None:
    """A device needs it to tell what is older than the delete, at a site that is behind."""
    (made,) = writer.write({b"a": b"one"}).results
    record = Record(b"a", DEVICE, 100, 1, int(Kind.DELETED), context=made.context)
    for status in ("accepted", "known"):
        encoder = Encoder()
        (gone,) = exchange.commit("home", [*encoder.record(record), *encoder.finish()]).results
        assert gone.status == status
        assert vector_in(gone.context) == vector_in(made.context).with_dot(Dot(DEVICE, 100))


def test_large_messages_are_compressed_for_those_who_read_that(
    app: Flask, exchange: Exchange, writer: Writer
) -> None:
    reply = writer.write({b"f%d" % n: b"x" for n in range(50)})
    target, client = "/v1/folders/home/tree", app.test_client()
    plain = client.get(target, headers=headers(exchange, Accept=MSGPACK_TYPE))
    assert "Content-Encoding" not in plain.headers
    packed = client.get(
        target, headers=headers(exchange, Accept=MSGPACK_TYPE, Accept_Encoding="gzip, zstd")
    )
    assert packed.headers["Content-Encoding"] == "zstd"
    assert len(packed.data) < len(plain.data) // 2
    assert zstd.unpack(packed.data, 1 << 20) == plain.data
    json_too = client.get(target, headers=headers(exchange, Accept_Encoding="zstd"))
    assert "Content-Encoding" not in json_too.headers
    assert exchange.get(target, TreeList) == msgspec.msgpack.decode(plain.data, type=TreeList)
    assert len(reply.results) == 50


def test_a_reply_that_claims_to_be_enormous_is_no_answer(exchange: Exchange) -> None:
    class Liar:
        status = 200
        headers: ClassVar = {"content-type": MSGPACK_TYPE, "content-encoding": "zstd"}

        def request(self, _: Request) -> Liar:
            return self

        def chunks(self) -> Iterator[bytes]:
            yield zstd.pack(bytes((64 << 20) + 1))

        def close(self) -> None:
            pass

    with pytest.raises(Unreachable):
        Exchange(Liar()).time()


def test_changes_come_in_pages(exchange: Exchange, writer: Writer) -> None:
    writer.write({b"f%d" % n: b"x" for n in range(25)})
    cursor, seen, pages = "", set(), 0
    while True:
        page = exchange.changes("home", cursor, limit=10)
        seen.update(record.path for record in page.records)
        cursor, pages = page.cursor, pages + 1
        if not page.more:
            break
    assert (len(seen), pages) == (25, 3)


def test_changes_for_people(app: Flask, exchange: Exchange, writer: Writer) -> None:
    writer.write({"größe".encode(): b"one", b"\xff": b"two"})
    reply = app.test_client().get("/v1/folders/home/changes", headers=headers(exchange))
    assert reply.content_type == "application/json"
    found = msgspec.json.decode(reply.data, type=ChangeList)
    by_path = {view.path: view for view in found.changes}
    assert by_path["größe"].path_b64 == ""
    assert by_path["\\xff"].path_b64 == "/w=="
    assert by_path["größe"].kind == "file"
    since = app.test_client().get(
        f"/v1/folders/home/changes?since={2**50}", headers=headers(exchange)
    )
    assert json.loads(since.data)["changes"] == []


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ("limit=0", 400, "limit"),
        ("limit=-1", 400, "limit"),
        ("limit=1000000000", 400, "limit"),
        ("limit=1e3", 400, "limit"),
        ("limit=", 400, "limit"),
        ("limit=%D9%A3", 400, "limit"),
        ("since=NaN", 400, "since"),
        ("since=1e400", 400, "since"),
        (f"since={10**30}", 400, "since"),
        ("cursor=x", 410, "cursor"),
        ("cursor=%00", 410, "cursor"),
        ("cursor=AAAAAAAAAAAAAAAAAAAAAAAA", 410, "cursor"),
    ],
)
def test_what_is_no_query(
    app: Flask, exchange: Exchange, query: str, status: int, field: str
) -> None:
    reply = app.test_client().get(f"/v1/folders/home/changes?{query}", headers=headers(exchange))
    assert (reply.status_code, reply.json["field"]) == (status, field)


def test_what_was_committed_is_fetched(exchange: Exchange, writer: Writer) -> None:
    content = os.urandom(3_000_000)
    writer.write({b"big": content, b"small": b"s"})
    events = list(exchange.fetch("home", [Want(DEVICE, 1), Want(DEVICE, 2), Want(DEVICE, 99)]))
    assert [event.path for event in events if isinstance(event, Record)] == [b"big", b"small"]
    body = b"".join(bytes(event.data) for event in events if isinstance(event, Body))
    assert content in body
    assert [event.size for event in events if isinstance(event, Trailer)] == [3_000_000, 1]


def test_an_upload_goes_on_where_it_was_cut(exchange: Exchange, writer: Writer) -> None:
    stream = b"".join(writer.changeset({b"big": os.urandom(5_000_000), b"s": b"x"}))
    name = "0f" * 16
    assert exchange.upload_offset("home", name) == 0
    part = exchange.upload("home", name, 0, [stream[:2_500_000]], complete=False)
    assert isinstance(part, UploadStatus)
    assert 0 < part.offset <= 2_500_000
    assert exchange.upload_offset("home", name) == part.offset
    with pytest.raises(Refused) as caught:
        exchange.upload("home", name, part.offset + 7, [b"x"], complete=False)
    assert caught.value.status == 409
    done = exchange.upload("home", name, part.offset, [stream[part.offset :]], complete=True)
    assert isinstance(done, CommitReply)
    assert [result.status for result in done.results] == ["accepted"] * 2
    assert exchange.upload_offset("home", name) == 0


def test_an_upload_is_the_devices_own(app: Flask, exchange: Exchange, writer: Writer) -> None:
    stream = b"".join(writer.changeset({b"big": os.urandom(3_000_000)}))
    name = "0f" * 16
    exchange.upload("home", name, 0, [stream[:2_000_000]], complete=False)
    exchange.abandon("home", name)
    assert exchange.upload_offset("home", name) == 0
    client = app.test_client()
    for bad in ("x", "0F" * 16, "0f" * 17):
        reply = client.get(f"/v1/folders/home/uploads/{bad}", headers=headers(exchange))
        assert reply.status_code == 404
    reply = client.put(
        f"/v1/folders/home/uploads/{name}",
        headers=headers(exchange, Upload_Offset="-1", Content_Type=CHANGESET_TYPE),
    )
    assert (reply.status_code, reply.json["field"]) == (400, "Upload-Offset")


def test_a_commit_that_is_no_changeset_changes_nothing(app: Flask, exchange: Exchange) -> None:
    client, before = app.test_client(), exchange.changes("home")
    target = "/v1/folders/home/commit"
    for body in (b"", b"x", b"DBLC\x01\0\0\0", b"DBLC\x02\0\0\0" + bytes(100), os.urandom(5000)):
        reply = client.post(
            target, data=body, headers=headers(exchange, Content_Type=CHANGESET_TYPE)
        )
        assert (reply.status_code, reply.content_type) == (422, "application/problem+json")
    wrong = client.post(target, data=b"{}", headers=headers(exchange, Content_Type="text/plain"))
    assert (wrong.status_code, wrong.json["field"]) == (415, "Content-Type")
    assert exchange.changes("home") == before


def test_a_commit_that_is_cut_changes_nothing(exchange: Exchange, writer: Writer) -> None:
    before = exchange.changes("home")
    stream = b"".join(writer.changeset({b"a": os.urandom(100_000)}))
    for length in range(0, len(stream), 9973):
        with pytest.raises(Refused) as caught:
            exchange.commit("home", [stream[:length]])
        assert caught.value.status == 422
    assert exchange.changes("home") == before


def test_json_for_commit_too(app: Flask, exchange: Exchange, writer: Writer) -> None:
    stream = b"".join(writer.changeset({b"a": b"x"}))
    reply = app.test_client().post(
        "/v1/folders/home/commit",
        data=stream,
        headers=headers(exchange, Content_Type=CHANGESET_TYPE),
    )
    assert msgspec.json.decode(reply.data, type=CommitReply).results[0].status == "accepted"


def test_history_tree_and_restore(app: Flask, exchange: Exchange, writer: Writer) -> None:
    writer.write({b"d/a": b"one", b"d/b": b"two"})
    tree = exchange.get("/v1/folders/home/tree?path=d", TreeList)
    assert [view.path for view in tree.entries] == ["d", "d/a", "d/b"]
    page = exchange.get("/v1/folders/home/tree?limit=1&after=d", TreeList)
    assert ([view.path for view in page.entries], page.more) == (["d/a"], True)
    client = app.test_client()
    assert client.delete("/v1/folders/home/files/d", headers=headers(exchange)).status_code == 204
    assert exchange.get("/v1/folders/home/tree", TreeList).entries == []
    versions = exchange.get("/v1/folders/home/files/d/a/versions", VersionList).versions
    assert [view.kind for view in versions] == ["deleted", "file"]
    restored = client.post("/v1/folders/home/files/d/restore", json={}, headers=headers(exchange))
    assert restored.json["restored"] == 3
    one = client.get("/v1/folders/home/files/d/a", headers=headers(exchange))
    assert one.data == b"one"
    log = exchange.get("/v1/folders/home/log?limit=2", VersionList)
    assert (len(log.versions), log.more) == (2, True)


def test_damage_that_is_none(exchange: Exchange, writer: Writer) -> None:
    reply = writer.write({b"a": b"one"})
    assert reply.results[0].status == "accepted"
    (record,) = exchange.changes("home").records
    assert exchange.report_damage("home", [record.hash, bytes(32)]) == []


def test_over_the_quota_is_said_per_version(site: Site, exchange: Exchange, writer: Writer) -> None:
    from dblike_srv import accounts

    accounts.set_quota(site, "ada", 1000)
    reply = writer.write({b"a": os.urandom(5000)})
    assert reply.results[0].status == "refused"
    assert "quota" in reply.results[0].detail


def test_a_list_of_wants_has_a_limit(app: Flask, exchange: Exchange) -> None:
    wants = [[DEVICE, 1]] * 20_001
    reply = app.test_client().post(
        "/v1/folders/home/fetch",
        data=msgspec.msgpack.encode({"wants": wants}),
        headers=headers(exchange, Content_Type="application/msgpack"),
    )
    assert (reply.status_code, reply.json["field"]) == (422, "wants")


def test_an_empty_changeset_is_one(exchange: Exchange) -> None:
    assert exchange.commit("home", Encoder().finish()).results == []


@pytest.mark.parametrize("exact", ["x", "\u00b3%", "a===", "Lg==", "AA=="])
def test_restoring_what_is_no_path(app: Flask, exchange: Exchange, exact: str) -> None:
    reply = app.test_client().post(
        "/v1/folders/home/restore", json={"path_b64": exact}, headers=headers(exchange)
    )
    assert (reply.status_code, reply.json["field"]) == (422, "path_b64")
