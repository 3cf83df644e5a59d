"""Download: what arrives is what was sent, and a site is not trusted with the disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
import pytest
from blake3 import blake3

from dblike_cli.context import Settings
from dblike_cli.fs import Rename
from dblike_cli.realfile import RealFile
from dblike_cli.realfs import RealFS
from dblike_cli.report import Code
from dblike_cli.signatures import load_signature
from dblike_delta.changeset import Body, Encoder, Event, decode
from dblike_delta.commands import Copy
from dblike_delta.exchange import Request, Response, Transport, Unreachable
from dblike_delta.messages import CHANGESET_TYPE, CursorMark, Record, Refusal, Trailer
from edits import commands_for
from rig.devices import Laptop
from rig.permissions import permissions
from rig.wsgi import WsgiTransport

NewLaptop = Callable[..., Laptop]
STRANGER = b"s" * 16


class Reply:
    """A reply with other bytes in it."""

    def __init__(self, inner: Response, parts: list[Any], *, cut: bool = False) -> None:
        self.status = inner.status
        self.headers: Mapping[str, str] = inner.headers
        self._parts = parts
        self._cut = cut
        self._inner = inner

    def chunks(self) -> Iterator[bytes]:
        for part in self._parts:
            yield bytes(part)
        if self._cut:
            raise Unreachable("cut")

    def close(self) -> None:
        self._inner.close()


class Liar:
    """Rewrites the events of changesets on their way down."""

    def __init__(self, inner: Transport) -> None:
        self.inner = inner
        self.changes: Callable[[list[Event]], list[Event]] = lambda events: events
        self.contents: Callable[[list[Event]], list[Event]] = lambda events: events
        self.keep: int | None = None
        self.fetched = 0

    def request(self, request: Request) -> Response:
        reply = self.inner.request(request)
        fetch = request.target.endswith("/fetch")
        if reply.status != 200 or reply.headers.get("content-type") != CHANGESET_TYPE:
            return reply
        raw = b"".join(reply.chunks())
        if fetch:
            self.fetched += 1
            if self.keep is not None:
                kept, self.keep = raw[: self.keep], None
                return Reply(reply, [kept], cut=True)
        change = self.contents if fetch else self.changes
        return Reply(reply, _encode(change(list(decode([raw])))))


def _encode(events: list[Event]) -> list[Any]:
    encoder = Encoder(compress=0)
    parts: list[Any] = []
    for event in events:
        match event:
            case Record():
                parts += encoder.record(event)
            case Body():
                parts += encoder.data(event.data)
            case Trailer():
                parts += encoder.trailer(event)
            case Refusal():
                parts += encoder.refusal(event)
            case CursorMark():
                parts += encoder.cursor(event)
            case _:
                pass
    return [*parts, *encoder.finish()]


@pytest.fixture
def liar(wire: WsgiTransport) -> Liar:
    return Liar(wire)


def hostile(**fields: Any) -> Record:
    values = {"path": b"x", "device": STRANGER, "counter": 1, "time": 1, "kind": 1} | fields
    return Record(**values)


@pytest.mark.parametrize(
    "path",
    [
        b"../x", b"/abs", b"a/../../x", b"a//b", b"./a", b"a/.", b"a/", b".dblike/config.json",
        b".DBLike/state.db", b"nul\0x", b"x" * 256, b"..", b".",
    ],
)  # fmt: skip
def test_impossible_paths_are_refused_and_the_rest_goes_on(
    laptop: NewLaptop, liar: Liar, path: bytes
) -> None:
    """4.5."""
    one, two = laptop("one"), laptop("two", transport=liar)
    one.write("good", "good")
    one.sync()
    bad = hostile(path=path, hash=b"h" * 32, size=4)
    liar.changes = lambda events: [bad, *events]
    before = sorted(p.name for p in two.root.parent.iterdir())
    report = two.sync()
    assert report.applied == (b"good",)
    assert [item.path for item in report.refused] == [path]
    assert report.exit_code == 3
    assert sorted(p.name for p in two.root.parent.iterdir()) == before
    assert set(two.tree()) == {"good"}


@pytest.mark.parametrize(
    "record",
    [
        hostile(kind=1, hash=b"short"),
        hostile(kind=3, target=b""),
        hostile(kind=3, target=b"a\0b"),
        hostile(kind=1, hash=b"h" * 32, key_id=b"key"),
    ],
)
def test_impossible_records_are_refused(laptop: NewLaptop, liar: Liar, record: Record) -> None:
    two = laptop("two", transport=liar)
    liar.changes = lambda events: [record, *events]
    report = two.sync()
    assert [item.path for item in report.refused] == [b"x"]
    assert two.tree() == {}


def test_nothing_is_written_through_a_symlink_of_the_site(laptop: NewLaptop, liar: Liar) -> None:
    """4.5: a symlink, then a file through it, in one list of changes."""
    one, two = laptop("one"), laptop("two", transport=liar)
    outside = two.root.parent / "outside"
    outside.mkdir()
    one.write("seed", "evil")
    one.sync()
    link = hostile(path=b"a", kind=3, target=b"../outside")

    def through(events: list[Event]) -> list[Event]:
        seed = next(event for event in events if isinstance(event, Record))
        return [link, msgspec.structs.replace(seed, path=b"a/x"), *events]

    liar.changes = through
    two.sync()
    assert list(outside.iterdir()) == []
    assert two.place("a").is_symlink() or not two.place("a").exists()


@pytest.mark.parametrize("size", [100, 200_000, 5 << 20])
def test_wrong_bytes_are_asked_for_again_and_never_take_their_place(
    laptop: NewLaptop, liar: Liar, size: int
) -> None:
    """Invariant 6; exit 6, and the old file is kept."""
    one, two = laptop("one"), laptop("two", transport=liar)
    one.write("a", b"o" * size)
    one.sync()
    two.sync()
    one.write("a", os.urandom(size))
    one.write("b", "fine")
    one.sync()
    wrong = True

    def flip(events: list[Event]) -> list[Event]:
        if not wrong:
            return events
        hashes = [event.hash for event in events if isinstance(event, Record)]
        flipped: list[Event] = []
        fine = blake3(b"fine").digest()
        mine = True
        for event in events:
            if isinstance(event, Record):
                mine = event.hash != fine
            if isinstance(event, Body) and mine:
                data = bytearray(event.data)
                data[len(data) // 2] ^= 1
                flipped.append(Body(memoryview(data)))
            else:
                flipped.append(event)
        assert hashes
        return flipped

    liar.contents = flip
    report = two.sync()
    assert two.read("a") == b"o" * size
    assert two.read("b") == b"fine"
    assert [(item.path, item.code) for item in report.pending] == [(b"a", Code.DAMAGED)]
    assert report.exit_code == 6
    wrong = False
    assert two.sync().in_sync
    assert two.tree() == one.tree()
    own = two.root / ".dblike"
    assert [*(own / "tmp").iterdir(), *(own / "staging").iterdir()] == []


def test_once_wrong_then_right_costs_a_retry(laptop: NewLaptop, liar: Liar) -> None:
    one, two = laptop("one"), laptop("two", transport=liar)
    one.write("a", os.urandom(100_000))
    one.sync()
    two.sync()
    data = one.read("a")
    one.write("a", data[:50_000] + b"!" + data[50_000:])
    one.sync()

    def spoil(events: list[Event]) -> list[Event]:
        liar.contents = lambda events: events
        return [Body(memoryview(b"junk")) if isinstance(event, Body) else event for event in events]

    liar.contents = spoil
    liar.fetched = 0
    assert two.sync().in_sync
    assert liar.fetched == 2
    assert two.tree() == one.tree()


def test_a_signature_is_of_what_is_here_whatever_the_site_calls_it(
    laptop: NewLaptop, liar: Liar
) -> None:
    """Blocks that a delta copies are those of the file that they are copied from."""
    one, two = laptop("one"), laptop("two", transport=liar)
    for name in ("a", "b"):
        one.write(name, os.urandom(6 << 20))
    one.sync()
    two.sync()
    other = blake3(one.read("b")).digest()
    new = b"edited" + one.read("a")[6:]
    one.write("a", new)
    one.sync()
    liar.contents = lambda events: [
        msgspec.structs.replace(e, base=other) if isinstance(e, Record) and e.base else e
        for e in events
    ]
    two.sync()
    kept = load_signature(two.fs, blake3(new).digest())
    assert two.read("a") == new
    assert kept is not None
    assert commands_for(kept, new) == [Copy(0, len(new))]


def test_an_interrupted_download_goes_on_where_it_stopped(laptop: NewLaptop, liar: Liar) -> None:
    settings = Settings(durable=False, whole_below=100_000)
    one, two = laptop("one"), laptop("two", transport=liar, settings=settings)
    one.write("a", os.urandom(8 << 20))
    one.write("small", "x")
    one.sync()
    liar.keep = 6 << 20
    with pytest.raises(Unreachable):
        two.sync()
    two.restart()
    report = two.sync()
    assert report.in_sync
    assert report.bytes_received < 4 << 20
    assert two.tree() == one.tree()


def test_what_came_before_a_cut_is_kept(laptop: NewLaptop, liar: Liar) -> None:
    one, two = laptop("one"), laptop("two", transport=liar)
    for number in range(40):
        one.write(f"f{number:02}", os.urandom(100_000))
    one.sync()
    liar.keep = 2_500_000
    with pytest.raises(Unreachable):
        two.sync()
    assert len(two.tree()) >= 15
    report = two.sync()
    assert 0 < len(report.applied) <= 25
    assert two.tree() == one.tree()


def test_a_content_that_the_site_cannot_serve_is_listed(laptop: NewLaptop, liar: Liar) -> None:
    one, two = laptop("one"), laptop("two", transport=liar)
    one.write("a", "1")
    one.write("b", "2")
    one.sync()

    def refuse(events: list[Event]) -> list[Event]:
        first = next(event for event in events if isinstance(event, Record))
        rest = events[events.index(first) + 3 :]
        return [Refusal(first.device, first.counter, "unavailable", "the disk sleeps"), *rest]

    liar.contents = refuse
    report = two.sync()
    assert len(report.applied) == 1
    assert [(item.code, item.reason) for item in report.pending] == [
        (Code.UNAVAILABLE, "the disk sleeps")
    ]
    liar.contents = lambda events: events
    assert two.sync().in_sync


def test_a_name_that_was_planted_for_a_temporary_is_no_way_out(laptop: NewLaptop) -> None:
    """4.5, syncthing#3783: temporaries have names that nobody can guess, and are new files."""
    one, two = laptop("one"), laptop("two")
    outside = two.root.parent / "outside"
    outside.write_text("untouched")
    (two.root / ".dblike" / "staging").mkdir()
    data = os.urandom(5 << 20)
    one.write("a", data)
    one.sync()
    part = two.root / ".dblike" / "staging" / f"{blake3(data).hexdigest()}.part"
    part.symlink_to(outside)
    two.state.recovered = True
    two.sync()
    assert outside.read_text() == "untouched"


def test_the_end_when_a_large_file_has_its_mode_already_stops_nothing(laptop: NewLaptop) -> None:
    """Nobody may write to it then, and it has yet to get out of the way of the next download."""

    class Ending(RealFS):
        def rename(self, source: bytes, target: bytes, how: Rename) -> None:
            if source.endswith(b".part"):
                raise KeyboardInterrupt
            super().rename(source, target, how)

    one, two = laptop("one"), laptop("two")
    one.write("a", os.urandom(5 << 20), 0o444)
    one.sync()
    two.fs.close()
    two.fs = Ending(two.root)
    with permissions():
        with pytest.raises(KeyboardInterrupt):
            two.sync()
        two.restart()
        assert two.sync().in_sync
    assert two.tree() == one.tree()


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOENT])
def test_a_base_that_cannot_be_read_is_said_to_be_that(laptop: NewLaptop, code: int) -> None:
    """It was the site that had not sent it.  What is gone is no base: then all of it comes."""

    class Failing(RealFS):
        def open_read(self, path: bytes) -> RealFile:
            if path == b"a":
                raise OSError(code, os.strerror(code))
            return super().open_read(path)

    one, two = laptop("one"), laptop("two")
    data = os.urandom(5 << 20)
    os.utime(one.write("a", data), (1, 1))
    one.sync()
    two.sync()
    two.sync()
    one.write("a", data[:-10] + b"new")
    one.sync()
    two.fs.close()
    two.fs = Failing(two.root)
    report = two.sync()
    if code == errno.ENOENT:
        assert report.applied == (b"a",)
    else:
        assert [(item.code, item.reason) for item in report.pending] == [
            (Code.DISK, f"the disk says: {os.strerror(code)}")
        ]
