"""Contents named by versions: only those of the folder, only files, and only what they are here."""

from __future__ import annotations

import msgspec
import pytest
from flask import Flask

from dblike_delta.changeset import Encoder, Part
from dblike_delta.commands import Literal
from dblike_delta.exchange import Exchange, Refused
from dblike_delta.formats import encode_commands
from dblike_delta.messages import (
    TAKES_HEADER,
    CommitReply,
    LoginRequest,
    Record,
    Sources,
    Trailer,
    UploadStatus,
)
from dblike_delta.sources import name_sources, without_content
from dblike_delta.vectors import vector_in
from dblike_delta.versions import Dot, Kind
from rig.writer import Writer
from rig.wsgi import WsgiTransport

pytestmark = pytest.mark.usefixtures("database_url")
USER, PASSWORD = "ada", "correct horse"
ONE, TWO = bytes.fromhex("a1" * 16), bytes.fromhex("b2" * 16)


class Mover(Writer):
    """A writer that names what moves, and remembers what it knows of paths."""

    def moved(self, path: bytes, content: bytes) -> Record:
        return without_content(msgspec.structs.replace(self.record(path, content), body=False))

    def deleted(self, path: bytes, context: bytes) -> Record:
        record = msgspec.structs.replace(self.record(path, b""), kind=Kind.DELETED, body=False)
        return msgspec.structs.replace(
            record, hash=b"", size=0, mode=0, mtime_ns=0, context=context
        )

    def send(self, *events: Record | Sources, brief: bool = False) -> CommitReply:
        return self.exchange.commit(self.folder, stream(*events), brief=brief)

    def refused(self, *events: Record | Sources) -> tuple[int, str]:
        """Status and field of the problem; nothing is changed by it."""
        before = self.exchange.changes(self.folder)
        with pytest.raises(Refused) as caught:
            self.send(*events)
        assert self.exchange.changes(self.folder) == before
        return caught.value.status, caught.value.problem.field


def stream(*events: Record | Sources, encoder: Encoder | None = None) -> list[Part]:
    encoder = encoder or Encoder()
    parts: list[Part] = []
    for event in events:
        add = encoder.sources if isinstance(event, Sources) else encoder.record
        parts += add(event)  # type: ignore[operator]
    return parts + encoder.finish()


def of(*versions: tuple[Dot, bytes]) -> Sources:
    """Sources that name these versions with these contents."""
    writer = Writer(Exchange(WsgiTransport(lambda *_: [])), ONE)
    return name_sources((dot, writer.record(b"x", content).hash) for dot, content in versions)


@pytest.fixture
def mover(exchange: Exchange) -> Mover:
    return Mover(exchange, ONE)


@pytest.fixture
def phone(app: Flask) -> Mover:
    other = Exchange(WsgiTransport(app.wsgi_app))
    other.login(LoginRequest(user=USER, password=PASSWORD, device="phone", device_id=TWO.hex()))
    return Mover(other, TWO)


def test_a_site_says_that_it_takes_them(app: Flask, exchange: Exchange) -> None:
    assert exchange.takes_sources
    assert app.test_client().get("/v1/nothing").headers[TAKES_HEADER] == "sources"


def test_files_get_the_contents_that_are_named(mover: Mover) -> None:
    mover.write({b"a": b"one", b"b": b"two", b"c": b""})
    named = of(
        (Dot(ONE, 1), b"one"), (Dot(ONE, 2), b"two"), (Dot(ONE, 3), b""), (Dot(ONE, 1), b"one")
    )
    records = [mover.moved(b"d/%d" % n, b"?") for n in range(4)]
    said = msgspec.structs.replace(mover.record(b"said", b"two"), body=False)
    reply = mover.send(named, records[0], said, *records[1:])
    assert [result.status for result in reply.results] == ["accepted"] * 5
    found = {record.path: record for record in mover.exchange.changes("home").records}
    assert [found[b"d/%d" % n].size for n in range(4)] == [3, 3, 0, 3]
    assert found[b"d/0"].hash == found[b"d/3"].hash == found[b"a"].hash
    assert found[b"said"].hash == found[b"d/1"].hash == found[b"b"].hash
    again = mover.send(named, records[0], said, *records[1:])
    assert [result.status for result in again.results] == ["known"] * 5


def test_what_can_not_be_named(mover: Mover, phone: Mover) -> None:
    """Unknown dots, deletes, other contents, versions of another folder: send the hashes."""
    (result,) = mover.write({b"a": b"one"}).results
    mover.send(mover.deleted(b"a", result.context))
    mover.exchange.create_folder("work")
    Mover(mover.exchange, ONE, folder="work").write({b"a": b"one"})
    phone.folder = "work"
    record = mover.moved(b"d", b"one")
    conflict = (409, "sources")
    assert mover.refused(of((Dot(ONE, 99), b"one")), record) == conflict
    assert mover.refused(of((Dot(TWO, 1), b"one")), record) == conflict
    assert mover.refused(of((Dot(ONE, 2), b"one")), record) == conflict
    assert mover.refused(of((Dot(ONE, 1), b"other")), record) == conflict
    assert phone.refused(of((Dot(ONE, 2), b"one")), phone.moved(b"d", b"one")) == conflict
    assert mover.send(of((Dot(ONE, 1), b"one")), record).results[0].status == "accepted"


def test_where_sources_have_no_place(mover: Mover) -> None:
    mover.write({b"a": b"one"})
    named, record = of((Dot(ONE, 1), b"one")), mover.moved(b"d", b"one")
    invalid = (422, "sources")
    assert mover.refused(named, named, record) == invalid
    assert mover.refused(record, named) == invalid
    assert mover.refused(named) == invalid
    endless = Sources([(ONE, 1, 100_000), (ONE, 1, 100_000)], bytes(32))
    assert mover.refused(endless, record) == (413, "")
    (result,) = mover.send(named, record, mover.moved(b"e", b"one")).results[1:]
    assert (result.status, result.detail) == ("refused", "a file needs content or the hash of one")


def test_an_upload_takes_no_sources_and_loses_nothing(mover: Mover) -> None:
    """What came in requests before stays; the same versions with their hashes are taken."""
    mover.write({b"a": b"one"})
    content = bytes(1 << 20)
    large, bare = mover.record(b"large", content), mover.moved(b"d", b"one")
    spelled = msgspec.structs.replace(bare, hash=mover.record(b"d", b"one").hash, size=3)

    def upload(*events: Record | Sources) -> tuple[bytes, bytes]:
        """A large file, and the events after it."""
        encoder = Encoder(compress=0)
        body = encode_commands([Literal(content)])
        first = encoder.whole(large, [body], Trailer(large.hash, large.size))
        return b"".join(first), b"".join(stream(*events, encoder=encoder))

    exchange, name = mover.exchange, "0f" * 16
    first, rest = upload(of((Dot(ONE, 1), b"one")), bare)
    status = exchange.upload("home", name, 0, [first], complete=False)
    assert status == UploadStatus(len(first))
    with pytest.raises(Refused) as caught:
        exchange.upload("home", name, len(first), [rest], complete=True)
    assert (caught.value.status, caught.value.problem.field) == (409, "sources")
    assert exchange.upload_offset("home", name) == len(first)
    reply = exchange.upload("home", name, len(first), [upload(spelled)[1]], complete=True)
    assert isinstance(reply, CommitReply)
    assert [result.status for result in reply.results] == ["accepted", "accepted"]


def test_what_moved_is_named_to_whom_the_cursor_says_holds_it(mover: Mover) -> None:
    """Not what its owner has yet to hear of, and nothing to whoever does not ask."""
    exchange = mover.exchange
    first = mover.write({b"a": b"one", b"b": b"two"}).results
    heard = exchange.changes("home").cursor
    (edited,) = mover.send(
        msgspec.structs.replace(mover.record(b"b", b"one"), body=False, context=first[1].context)
    ).results
    moves = of((Dot(ONE, 1), b"one")), mover.moved(b"a2", b"one")
    mover.send(
        moves[0],
        moves[1],
        mover.deleted(b"a", first[0].context),
        mover.deleted(b"b", edited.context),
    )
    page = exchange.changes("home", heard, brief=True)
    assert page.sources == of((Dot(ONE, 1), b"one"))
    hashes = {record.path: record.hash for record in page.records}
    assert hashes == {b"a": b"", b"a2": b"", b"b": b""}
    spelled = exchange.changes("home", heard)
    assert spelled.sources is None
    assert {len(record.hash) for record in spelled.records if record.path == b"a2"} == {32}
    assert exchange.changes("home", "", brief=True).sources is None
    assert (page.cursor, page.more) == (spelled.cursor, spelled.more)


def test_a_brief_reply_tells_only_what_is_to_be_told(mover: Mover, phone: Mover) -> None:
    """Of a version that was just accepted the device knows all; conflicts and refusals it hears."""
    phone.write({b"taken": b"theirs"})
    bad = msgspec.structs.replace(mover.record(b"bad", b""), kind=Kind.FILE, body=False, hash=b"")
    late = msgspec.structs.replace(mover.record(b"taken", b"ours"), body=False)
    mover.write({b"kept": b"ours"})
    records = [mover.moved(b"new", b"ours"), late, bad]
    records[0] = msgspec.structs.replace(records[0], hash=late.hash, size=late.size)
    reply = mover.send(*records, brief=True)
    assert reply.accepted == 1
    assert [result.counter for result in reply.results] == [late.counter, bad.counter]
    assert [result.status for result in reply.results] == ["accepted", "refused"]
    again = mover.send(*records, brief=True)
    assert (again.accepted, len(again.results)) == (0, 3)
    # Nothing was kept back: what the site knows of the path is what the device can tell itself.
    assert vector_in(again.results[0].context).items() == [(ONE, records[0].counter)]


def test_no_run_goes_beyond_the_last_counter(mover: Mover) -> None:
    """Nobody holds such a version: it is as one that is not here, not a failure of the database."""
    mover.write({b"a": b"one"})
    beyond = Sources([(ONE, 2**63 - 1, 3)], bytes(32))
    records = [mover.moved(b"d/%d" % n, b"?") for n in range(3)]
    assert mover.refused(beyond, *records) == (409, "sources")
