"""Resumable uploads: cut anywhere, continued by anyone, and never mixed."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec
import pytest
from blake3 import blake3
from sqlalchemy import update

from dblike_delta.commands import Copy, Literal
from dblike_delta.errors import DeltaError
from dblike_delta.formats import encode_commands
from dblike_delta.messages import CommitReply, UploadStatus
from dblike_srv import uploads
from dblike_srv.errors import Conflict, QuotaExceeded, TooLarge
from dblike_srv.models import users
from dblike_srv.store import local
from dblike_srv.store.base import Away
from dblike_srv.store.local import LocalStore
from rig.core_site import CoreSite, Device, SeededRandom, stream

BLOB = SeededRandom(17).bytes(3 << 20)
NAME = "5" * 32


@pytest.fixture
def core(tmp_path: Path, core_site: Callable[..., CoreSite]) -> CoreSite:
    return core_site(tmp_path / "data", LocalStore(tmp_path / "data", SeededRandom(2)))


def append(
    core: CoreSite, offset: int, data: bytes, *, complete: bool = False, name: str = NAME,
    device: Device | None = None,
) -> CommitReply | UploadStatus:  # fmt: skip
    def chunks(_: object) -> Iterable[bytes]:
        return (data[at : at + 70_000] for at in range(0, len(data), 70_000))

    identity = (device or core.laptop).identity
    return uploads.append_upload(core.site, identity, core.folder, name, offset, chunks, complete)


def status(core: CoreSite) -> int | None:
    return uploads.upload_status(core.site, core.laptop.identity, core.folder, NAME)


def another_worker() -> None:
    """Forget what this process holds, as a worker that never saw the upload."""
    uploads._registry = uploads._Registry()


def upload_all(core: CoreSite, data: bytes, cuts: Iterable[int], *, hop: bool) -> CommitReply:
    """Send in pieces, each from where the site says that it stands."""
    for cut in cuts:
        at = status(core) or 0
        append(core, at, data[at:cut])
        if hop:
            another_worker()
    at = status(core) or 0
    reply = append(core, at, data[at:], complete=True)
    assert isinstance(reply, CommitReply)
    return reply


def three_files(core: CoreSite) -> bytes:
    """A changeset of two whole files and one delta."""
    laptop = core.laptop
    laptop.put(b"base", BLOB[:900_000])
    old = BLOB[:900_000]
    commands = [Copy(0, 400_000), Literal(b"in between" * 9000), Copy(400_000, 500_000)]
    new = old[:400_000] + b"in between" * 9000 + old[400_000:]
    delta = laptop.record(
        b"base", hash=blake3(new).digest(), size=len(new), body=True, base=blake3(old).digest()
    )
    first, last = laptop.file(b"first", BLOB), laptop.file(b"last", b"small")
    return stream([first, (delta, encode_commands(commands)), last], piece=100_000)


@pytest.mark.parametrize("hop", [False, True], ids=["same-worker", "other-workers"])
@pytest.mark.parametrize("parts", [1, 3, 17])
def test_a_cut_upload_goes_on(core: CoreSite, parts: int, hop: bool) -> None:
    data = three_files(core)
    cuts = [len(data) * n // parts + n for n in range(1, parts)]
    reply = upload_all(core, data, cuts, hop=hop)
    assert {result.status for result in reply.results} == {"accepted"}
    assert core.read(b"first") == BLOB
    assert core.read(b"base") == BLOB[:400_000] + b"in between" * 9000 + BLOB[400_000:900_000]
    assert core.read(b"last") == b"small"
    assert status(core) is None
    assert not list(Path(core.site.config.data).glob("uploads/*/*"))


def test_a_worker_sees_that_others_went_on_in_between(core: CoreSite) -> None:
    """However often: a file system gives the number of a file that went to the next one."""
    data = stream([core.laptop.file(b"long", SeededRandom(3).bytes(8 << 20))])
    first, others = uploads._registry, uploads._Registry()
    append(core, 0, data[: 2 << 20])
    for end in (4, 6):
        uploads._registry = others
        append(core, status(core) or 0, data[status(core) : end << 20])
    uploads._registry = first
    reply = append(core, status(core) or 0, data[status(core) :], complete=True)
    assert isinstance(reply, CommitReply)
    assert reply.results[0].status == "accepted"


def test_at_most_a_block_is_sent_again(core: CoreSite) -> None:
    data = three_files(core)
    got = append(core, 0, data[: len(data) - 100])
    assert isinstance(got, UploadStatus)
    assert len(data) - 100 - got.offset <= 8 << 20
    assert got.offset == status(core)
    assert got.offset > len(data) // 2


def test_a_worker_that_dies_within_a_long_request_loses_at_most_8_mib(core: CoreSite) -> None:
    data = stream([core.laptop.file(b"long", SeededRandom(3).bytes(20 << 20))])
    missing = []

    def chunks(_: object) -> Iterable[bytes]:
        for at in range(0, len(data), 1 << 20):
            missing.append(at - (status(core) or 0))
            yield data[at : at + (1 << 20)]

    identity = core.laptop.identity
    uploads.append_upload(core.site, identity, core.folder, NAME, 0, chunks, complete=True)
    assert max(missing) <= 8 << 20


def test_a_wrong_offset_says_the_right_one(core: CoreSite) -> None:
    data = three_files(core)
    with pytest.raises(Conflict) as caught:
        append(core, 5, data[5:])
    assert caught.value.offset == 0
    stands = append(core, 0, data[:2_500_000])
    for wrong in (0, 2_500_000, 1 << 40):
        with pytest.raises(Conflict) as caught:
            append(core, wrong, data[:100])
        assert caught.value.offset == stands.offset  # type: ignore[union-attr]


def test_a_worker_that_was_killed_leaves_nothing_wrong(core: CoreSite) -> None:
    """It wrote to the pack after it wrote the state: what is too much is cut off."""
    data = three_files(core)
    append(core, 0, data[:2_000_000])
    another_worker()
    [pack] = Path(core.site.config.data).glob("uploads/*/*/pack")
    with pack.open("ab") as file:
        file.write(b"half a block that nobody knows of")
    reply = upload_all(core, data, [], hop=False)
    assert {result.status for result in reply.results} == {"accepted"}
    assert core.read(b"first") == BLOB


def test_an_upload_of_another_boot_is_forgotten(core: CoreSite) -> None:
    """Nothing of it was synced: what the file says may not be what it holds."""
    data = three_files(core)
    append(core, 0, data[:2_000_000])
    another_worker()
    [state] = Path(core.site.config.data).glob("uploads/*/*/state")
    told = msgspec.msgpack.decode(state.read_bytes())
    state.write_bytes(msgspec.msgpack.encode(["another boot", *told[1:]]))
    assert status(core) is None
    reply = upload_all(core, data, [], hop=False)
    assert {result.status for result in reply.results} == {"accepted"}


@pytest.mark.parametrize("damage", [b"", b"\x93\x01", json.dumps({}).encode()])
def test_a_state_that_is_torn_is_no_state(core: CoreSite, damage: bytes) -> None:
    data = three_files(core)
    append(core, 0, data[:2_000_000])
    another_worker()
    [state] = Path(core.site.config.data).glob("uploads/*/*/state")
    state.write_bytes(damage)
    reply = upload_all(core, data, [], hop=False)
    assert {result.status for result in reply.results} == {"accepted"}


def test_a_lost_reply_is_sent_again_from_the_start_and_known(core: CoreSite) -> None:
    data = three_files(core)
    upload_all(core, data, [], hop=False)
    with pytest.raises(Conflict) as caught:
        append(core, len(data), b"", complete=True)
    assert caught.value.offset == 0
    again = append(core, 0, data, complete=True)
    assert isinstance(again, CommitReply)
    assert {result.status for result in again.results} == {"known"}


def test_a_wrong_stream_ends_the_upload(core: CoreSite) -> None:
    with pytest.raises(DeltaError):
        append(core, 0, b"no changeset at all")
    assert status(core) is None


def test_an_unfinished_stream_can_not_be_completed(core: CoreSite) -> None:
    data = three_files(core)
    with pytest.raises(DeltaError):
        append(core, 0, data[:-30], complete=True)
    assert b"first" not in core.records()


def test_wrong_content_is_found_after_a_change_of_workers(core: CoreSite) -> None:
    laptop = core.laptop
    record = laptop.record(b"bad", hash=blake3(b"x").digest(), size=len(BLOB), body=True)
    data = stream([(record, encode_commands([Literal(BLOB)])), laptop.file(b"good", b"y")])
    reply = upload_all(core, data, [1_500_000, 2_500_000], hop=True)
    assert [result.status for result in reply.results] == ["bad-content", "accepted"]
    assert core.read(b"good") == b"y"


def test_uploads_of_two_devices_never_mix(core: CoreSite) -> None:
    phone = core.device("phone")
    mine, theirs = three_files(core), stream([phone.file(b"phone", BLOB[::-1])])
    append(core, 0, mine[:1_200_000])
    append(core, 0, theirs[:1_200_000], device=phone)
    upload_all(core, mine, [2_400_000], hop=False)
    assert core.read(b"first") == BLOB


def test_abandoned_uploads_leave_nothing(core: CoreSite) -> None:
    append(core, 0, three_files(core)[:2_000_000])
    uploads.abandon_upload(core.site, core.laptop.identity, core.folder, NAME)
    uploads.abandon_upload(core.site, core.laptop.identity, core.folder, NAME)
    assert status(core) is None
    assert not list(Path(core.site.config.data).glob("uploads/*/*"))


def test_who_waited_for_an_upload_that_is_over_is_told_so(
    core: CoreSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request before it took the directory away."""
    data = three_files(core)
    append(core, 0, data[:100_000])
    (lock,) = (Path(core.site.config.data) / "uploads").glob("*/*/lock")
    flock = fcntl.flock

    def wait(descriptor: int, operation: int) -> None:
        if os.path.samestat(os.fstat(descriptor), lock.stat()):
            shutil.rmtree(lock.parent)
        flock(descriptor, operation)

    monkeypatch.setattr(uploads.fcntl, "flock", wait)
    with pytest.raises(Conflict, match="just finished") as raised:
        append(core, 100_000, data[100_000:])
    assert raised.value.offset == 0
    monkeypatch.undo()
    upload_all(core, data, [], hop=False)


def test_too_many_unfinished_uploads(tmp_path: Path) -> None:
    core = CoreSite(tmp_path, limits={"uploads_per_user": 2})
    data = stream([core.laptop.file(b"a", BLOB)])
    for n in range(2):
        append(core, 0, data[:1_200_000], name=f"{n:032x}")
    with pytest.raises(TooLarge):
        append(core, 0, data[:1_200_000], name="f" * 32)


def test_a_full_disk_keeps_what_was_there(core: CoreSite, monkeypatch: pytest.MonkeyPatch) -> None:
    data = three_files(core)

    def chunks(_: object) -> Iterable[bytes]:
        yield data[:1_500_000]
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        uploads.append_upload(
            core.site, core.laptop.identity, core.folder, NAME, 0, chunks, complete=False
        )
    assert 0 < (status(core) or 0) <= 1_500_000
    reply = upload_all(core, data, [], hop=False)
    assert {result.status for result in reply.results} == {"accepted"}
    assert core.read(b"first") == BLOB


def test_a_write_that_failed_is_not_counted(core: CoreSite) -> None:
    """The disk has no room for a while; then the upload goes on, and every byte is there once."""
    data = three_files(core)
    append(core, 0, data[:1_200_000])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, hard))
    try:
        with pytest.raises(OSError, match="large"):
            append(core, status(core) or 0, data[status(core) or 0 :], complete=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    reply = upload_all(core, data, [], hop=False)
    assert {result.status for result in reply.results} == {"accepted"}
    assert core.read(b"first") == BLOB


class StoreAway(LocalStore):
    """A store that can't be asked once: for the next `adopt`, or for the `size` after that."""

    fails = ""

    def adopt(self, path: Path, name: bytes) -> None:
        self._fail("adopt")
        super().adopt(path, name)

    def size(self, name: bytes) -> int:
        self._fail("size")
        return super().size(name)

    def _fail(self, what: str) -> None:
        if self.fails == what:
            self.fails = ""
            raise Away("not now")


@pytest.mark.parametrize("fails", ["adopt", "size"], ids=["before-the-pack-moves", "after"])
def test_a_commit_that_failed_is_tried_again_without_the_bytes(
    tmp_path: Path, core_site: Callable[..., CoreSite], fails: str
) -> None:
    store = StoreAway(tmp_path / "data", SeededRandom(2))
    core = core_site(tmp_path / "data", store)
    data = three_files(core)
    store.fails = fails
    open_files = len(os.listdir("/proc/self/fd"))
    with pytest.raises(Away):
        append(core, 0, data, complete=True)
    assert len(os.listdir("/proc/self/fd")) <= open_files
    assert status(core) == len(data)
    reply = append(core, len(data), b"", complete=True)
    assert isinstance(reply, CommitReply)
    assert {result.status for result in reply.results} == {"accepted"}
    assert core.read(b"first") == BLOB
    assert not list(Path(core.site.config.data).glob("uploads/*/*"))


def test_a_pack_that_was_renamed_and_not_synced_is_synced_before_it_counts(
    core: CoreSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk fails, or the process ends, between the two: a power cut could undo the rename."""
    data = three_files(core)

    def fail(path: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    before = set(core.store.names())
    monkeypatch.setattr(local, "sync_path", fail)
    packs = Path(core.site.config.data) / "packs"
    for number in range(256):
        (packs / f"{number:02x}").mkdir(exist_ok=True)
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output"):
            append(core, status(core) or 0, data[status(core) or 0 :], complete=True)
        assert status(core) == len(data)
    synced: list[Path] = []
    monkeypatch.setattr(local, "sync_path", synced.append)
    reply = append(core, len(data), b"", complete=True)
    assert isinstance(reply, CommitReply)
    [name] = set(core.store.names()) - before
    assert {packs, packs / name.hex()[:2]} <= set(synced)


def test_what_was_over_quota_is_not_sent_again_when_there_is_room(core: CoreSite) -> None:
    data = three_files(core)

    def quota(size: int) -> None:
        change = update(users).where(users.c.id == core.user).values(quota=size)
        core.site.database.transact(lambda connection: connection.execute(change))

    def chunks(_: object) -> Iterable[bytes]:
        yield data
        quota(1 << 20)  # while the last bytes come

    identity = core.laptop.identity
    with pytest.raises(QuotaExceeded):
        uploads.append_upload(core.site, identity, core.folder, NAME, 0, chunks, complete=True)
    for _ in range(2):
        assert status(core) == len(data)
        with pytest.raises(QuotaExceeded):
            append(core, len(data), b"", complete=True)
        with pytest.raises(Conflict) as caught:
            append(core, 0, data, complete=True)
        assert caught.value.offset == len(data)
    quota(0)
    reply = append(core, len(data), b"", complete=True)
    assert isinstance(reply, CommitReply)
    assert {result.status for result in reply.results} == {"accepted"}
    assert core.read(b"first") == BLOB


def test_an_adopted_pack_that_is_gone_begins_anew(
    tmp_path: Path, core_site: Callable[..., CoreSite]
) -> None:
    """HEAD and PUT say the same."""
    store = StoreAway(tmp_path / "data", SeededRandom(2))
    core = core_site(tmp_path / "data", store)
    data = three_files(core)
    store.fails = "size"
    with pytest.raises(Away):
        append(core, 0, data, complete=True)
    for name in list(store.names()):
        store.delete(name)
    assert status(core) is None
    with pytest.raises(Conflict) as caught:
        append(core, len(data), b"", complete=True)
    assert caught.value.offset == 0


def test_an_upload_that_is_whole_is_completed_by_another_worker(core: CoreSite) -> None:
    data = three_files(core)
    assert append(core, 0, data) == UploadStatus(len(data))
    another_worker()
    assert status(core) == len(data)
    reply = append(core, len(data), b"", complete=True)
    assert isinstance(reply, CommitReply)
    assert core.read(b"first") == BLOB


KILLED = """
import os, sys
from pathlib import Path
from dblike_delta.seams import SystemRandom
from dblike_srv import uploads
from dblike_srv.store.local import LocalStore
from rig.core_site import CoreSite

class Deadly(LocalStore):
    def adopt(self, path, name):
        if sys.argv[3] == "before":
            os._exit(9)
        super().adopt(path, name)
        os._exit(9)

data = Path(sys.argv[1])
core = CoreSite.again(data, Deadly(data, SystemRandom()), database=sys.argv[4])
stream = Path(sys.argv[2]).read_bytes()
uploads.append_upload(
    core.site, core.laptop.identity, core.folder, "5" * 32, 0, lambda _: [stream], complete=True
)
"""


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_process_that_is_killed_as_it_commits_costs_nothing(
    tmp_path: Path, core: CoreSite, when: str
) -> None:
    data = stream([core.laptop.file(b"first", BLOB)])
    (tmp_path / "stream").write_bytes(data)
    database = core.site.config.database
    arguments = [str(tmp_path / "data"), str(tmp_path / "stream"), when, database]
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], env=environment, check=False)
    assert done.returncode == 9
    assert status(core) == len(data)
    reply = append(core, len(data), b"", complete=True)
    assert isinstance(reply, CommitReply)
    assert {result.status for result in reply.results} == {"accepted"}
    assert core.read(b"first") == BLOB
