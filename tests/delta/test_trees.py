"""A tree's signature, changeset and patch: whatever two trees there are, one becomes the other."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import xxhash
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from dblike_delta import TreeSignature, delta_tree, patch_tree, sign_tree, tree_patch
from dblike_delta.changeset import Encoder
from dblike_delta.errors import Cancelled, DeltaError, FormatError, IntegrityError, LimitError
from dblike_delta.formats import DELTA_MAGIC, END, encode_literal_header
from dblike_delta.messages import Record, Trailer
from dblike_delta.trees import NOBODY, record_of, walk, whole_body
from dblike_delta.versions import Kind
from edits import noise

NAMES = st.sampled_from(["a", "b", "c\udcff", "x.y"])
FILES = st.tuples(
    st.sampled_from([b"", b"small", noise(1, 3000), noise(2, 3000)]), st.integers(6, 7)
)
LINKS = st.sampled_from(["a", "../outside", "/etc"])
TREES = st.recursive(
    FILES | LINKS, lambda inner: st.dictionaries(NAMES, inner, max_size=4), max_leaves=8
).map(lambda tree: tree if isinstance(tree, dict) else {"a": tree})


def grow(root: Path, tree: dict[str, object]) -> Path:
    """Make a tree: a dictionary is a directory, a text a symlink, a pair content and mode."""
    root.mkdir(exist_ok=True)
    for name, what in tree.items():
        path = root / name
        if isinstance(what, dict):
            grow(path, what)
        elif isinstance(what, str):
            path.symlink_to(what)
        else:
            assert isinstance(what, tuple)
            path.write_bytes(what[0])
            path.chmod(what[1] << 6)
            os.utime(path, ns=(10**18, 10**18 + len(what[0])))
    return root


def seen(root: Path) -> dict[bytes, object]:
    """All that counts of a tree."""
    found: dict[bytes, object] = {}
    for path, status in walk(root):
        full = root / os.fsdecode(path)
        if stat.S_ISREG(status.st_mode):
            found[path] = full.read_bytes(), status.st_mode, status.st_mtime_ns
        elif stat.S_ISLNK(status.st_mode):
            found[path] = os.readlink(full)
        else:
            found[path] = status.st_mode
    return found


def changeset(old: Path, new: Path) -> bytes:
    out = io.BytesIO()
    delta_tree(TreeSignature.unpack(sign_tree(old).pack()), new, out)
    return out.getvalue()


@settings(max_examples=60)
@given(TREES, TREES)
def test_one_tree_becomes_the_other(old: dict[str, object], new: dict[str, object]) -> None:
    with tempfile.TemporaryDirectory() as place:
        one, other = grow(Path(place, "old"), old), grow(Path(place, "new"), new)
        made = changeset(one, other)
        for _ in range(2):  # again does no harm
            patch_tree(one, io.BytesIO(made))
            assert seen(one) == seen(other)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    body = noise(3, 200_000)
    old = grow(tmp_path / "old", {"d": {"big": (body, 6)}, "gone": (b"x", 6), "kept": (b"k", 6)})
    edited = body[:90_000] + b"edit" + body[90_000:]
    new = grow(tmp_path / "new", {"d": {"big": (edited, 6)}, "kept": (b"k", 6), "e": {"l": "d"}})
    return old, new


def test_an_edit_travels_as_a_delta_and_a_move_as_a_hash(pair: tuple[Path, Path]) -> None:
    old, new = pair
    (old / "moves").write_bytes(noise(4, 50_000))
    shutil.copy(old / "moves", new / "d" / "moved")
    signed, out = sign_tree(old), io.BytesIO()
    result = delta_tree(signed, new, out)
    assert (result.changed, result.deleted) == (4, 2)
    assert result.literal < 2000
    assert len(out.getvalue()) < 4000
    out.seek(0)
    assert patch_tree(old, out).deleted == 2
    assert seen(old) == seen(new)


def test_a_file_of_a_year_that_no_record_can_say_travels(pair: tuple[Path, Path]) -> None:
    one, other = pair
    os.utime(other / "kept", ns=(2**63, 2**63 + 10**18))
    patch_tree(one, io.BytesIO(changeset(one, other)))
    assert (one / "kept").stat().st_mtime_ns == 2**63 - 1


def test_equal_trees_have_an_empty_changeset(pair: tuple[Path, Path]) -> None:
    out = io.BytesIO()
    assert delta_tree(sign_tree(pair[0]), pair[0], out).changed == 0
    assert len(out.getvalue()) < 64


def test_a_cut_or_damaged_changeset_changes_nothing(pair: tuple[Path, Path]) -> None:
    old, new = pair
    made, before = changeset(old, new), seen(old)
    for at in range(0, len(made), 97):
        damaged = bytearray(made)
        damaged[at] ^= 1
        for wrong in (made[:at], bytes(damaged)):
            with pytest.raises(DeltaError):
                patch_tree(old, io.BytesIO(wrong))
            assert seen(old) == before


def test_another_base_is_refused(pair: tuple[Path, Path]) -> None:
    old, new = pair
    made = changeset(old, new)
    (old / "d" / "big").write_bytes(noise(9, 200_000))
    before = seen(old)
    with pytest.raises(IntegrityError):
        patch_tree(old, io.BytesIO(made))
    assert seen(old) == before


def test_contents_are_on_the_disk_before_the_old_ones_go(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What moved is deleted at its old path, and a power cut may take what was only written."""
    old, new = pair
    made, before = changeset(old, new), seen(old)
    synced: list[tuple[str, bool]] = []

    def note(descriptor: int) -> None:
        place = os.readlink(f"/proc/self/fd/{descriptor}")
        untouched = {path: what for path, what in seen(old).items() if b".patch-" not in path}
        synced.append((Path(place).name[:7], untouched == before))

    monkeypatch.setattr(tree_patch, "syncfs", note)
    patch_tree(old, io.BytesIO(made))
    assert synced == [(".patch-", True)]
    assert seen(old) == seen(new)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory in which who is not root can be somebody."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def as_anybody(root: Path) -> Iterator[None]:
    """Root may write anywhere."""
    former = os.geteuid()
    if former == 0:
        for each in (root, *root.rglob("*")):
            os.chown(each, 65534, -1, follow_symlinks=False)
    os.seteuid(former or 65534)
    try:
        yield
    finally:
        os.seteuid(former)


def test_a_directory_keeps_what_is_no_permission(tmp_path: Path) -> None:
    """Its mode is what travels, not that what is made in it belongs to its group."""
    old = grow(tmp_path / "old", {"d": {"a": (b"x", 4)}})
    new = grow(tmp_path / "new", {"d": {"a": (b"w", 4)}})
    (old / "d").chmod(0o3775)
    (new / "d").chmod(0o750)
    patch_tree(old, io.BytesIO(changeset(old, new)))
    assert stat.S_IMODE((old / "d").stat().st_mode) == 0o3750


@pytest.mark.parametrize("mode", [0o555, 0o750])
def test_directories_that_nobody_may_write_to_are_patched_too(mode: int, place: Path) -> None:
    """As those of Go's module cache; and what can't be done leaves them as they were."""
    old = grow(place / "old", {"d": {"a": (b"x", 4), "e": {"b": (b"y", 4), "c": (b"z", 4)}}})
    new = grow(place / "new", {"d": {"a": (b"w", 4), "e": {"c": (b"v", 4), "n": {}}}})
    grow(new / "d" / "e" / "n", {"f": (b"u", 4)})
    for name in ("d/e", "d"):
        (old / name).chmod(0o555)
        (new / name).chmod(mode)
    made = changeset(old, new)
    with as_anybody(old):
        patch_tree(old, io.BytesIO(made))
    assert seen(old) == seen(new)
    in_the_way = Record(b"d/e", NOBODY, 1, 0, Kind.SYMLINK, target=b"x")
    with as_anybody(old), pytest.raises(OSError):  # noqa: PT011
        patch_tree(old, written(in_the_way))
    assert seen(old) == seen(new)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what is another's")
@pytest.mark.parametrize("mode", [0o555, 0o777])
def test_a_directory_of_somebody_else_keeps_no_other_open(mode: int, place: Path) -> None:
    """It can't be written to, or can't be given its new mode; each other one has its own again."""
    old = grow(place / "old", {"a": {"f": (b"x", 4)}, "b": {"f": (b"x", 4)}})
    new = grow(place / "new", {"a": {"f": (b"w", 4)}, "b": {"f": (b"w", 4)}})
    (new / "b").chmod(0o750)
    made = changeset(old, new)
    old.chmod(0o777)
    (old / "a").chmod(0o555)
    (old / "b").chmod(mode)
    (old / "b" / "f").chmod(0o444)
    with as_anybody(old / "a"), pytest.raises(PermissionError, match="old/b'"):
        patch_tree(old, io.BytesIO(made))
    assert stat.S_IMODE((old / "a").stat().st_mode) == 0o555


def test_what_is_not_spoken_of_stays(pair: tuple[Path, Path]) -> None:
    old, new = pair
    made = changeset(old, new)
    shutil.rmtree(new / "d")
    patch_tree(old, io.BytesIO(made))
    gone = changeset(old, new)
    (old / "d" / "mine").write_bytes(b"mine")
    patch_tree(old, io.BytesIO(gone))
    assert [path.name for path in (old / "d").iterdir()] == ["mine"]


def enough(_: int) -> None:
    raise Cancelled("enough")


def test_progress_is_told_and_may_end_the_work(pair: tuple[Path, Path]) -> None:
    old, new = pair
    made, before = changeset(old, new), seen(old)
    with pytest.raises(Cancelled):
        sign_tree(old, progress=enough)
    with pytest.raises(Cancelled):
        delta_tree(sign_tree(old), new, io.BytesIO(), progress=enough)
    with pytest.raises(Cancelled):
        patch_tree(old, io.BytesIO(made), progress=enough)
    assert seen(old) == before
    told: list[list[int]] = [[], [], []]
    signed = sign_tree(old, progress=told[0].append)
    delta_tree(signed, new, io.BytesIO(), progress=told[1].append)
    patch_tree(old, io.BytesIO(made), progress=told[2].append)
    assert [done[-1] for done in told] == [200_002, 200_005, len(made)]
    assert all(done == sorted(done) for done in told)


def record(path: bytes, content: bytes = b"content", kind: Kind = Kind.FILE) -> Record:
    size, digest = len(content), blake3(content).digest()
    return Record(path, NOBODY, 1, 0, kind, digest, size, 0o644, body=kind is Kind.FILE)


def written(*records: Record, content: bytes = b"content") -> io.BytesIO:
    encoder, out = Encoder(), io.BytesIO()
    for each in records:
        out.writelines(encoder.record(each))
        if each.body:
            digest = blake3(content).digest()
            out.writelines(whole_body(encoder, io.BytesIO(content), len(content), digest))
    out.writelines(encoder.finish())
    out.seek(0)
    return out


@pytest.mark.parametrize("path", [b"../x", b"/x", b"a//x", b"a/../x", b".dblike/x", b"a\0"])
def test_a_path_that_leads_out_is_refused(path: bytes, tmp_path: Path) -> None:
    root = grow(tmp_path / "root", {"a": {}})
    with pytest.raises(DeltaError):
        patch_tree(root, written(record(path)))
    assert os.listdir(tmp_path) == ["root"]


def test_no_symlink_is_followed(tmp_path: Path) -> None:
    outside = grow(tmp_path / "outside", {"x": (b"theirs", 6)})
    root = grow(tmp_path / "root", {"link": str(outside)})
    link = Record(b"new", NOBODY, 1, 0, Kind.SYMLINK, target=os.fsencode(outside))
    gone = Record(b"link/x", NOBODY, 1, 0, Kind.DELETED)
    for stream in (written(record(b"link/x")), written(link, record(b"new/x"))):
        with pytest.raises(DeltaError):
            patch_tree(root, stream)
    patch_tree(root, written(gone))
    assert (outside / "x").read_bytes() == b"theirs"
    assert os.listdir(root) == ["link"]


@pytest.mark.parametrize(
    "records",
    [
        pytest.param([record(b"a"), record(b"a")], id="a path twice"),
        pytest.param([record(b"a"), record(b"a/b")], id="a file in a file"),
        pytest.param([record(b"none/a")], id="in a directory that is not here"),
        pytest.param([record(b"a", b"other")], id="another content than was said"),
    ],
)
def test_what_can_be_no_tree_is_refused(records: list[Record], tmp_path: Path) -> None:
    with pytest.raises(DeltaError):
        patch_tree(tmp_path, written(*records))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("target", [b"", b"a\0b"])
def test_a_symlink_that_leads_nowhere_changes_nothing(target: bytes, tmp_path: Path) -> None:
    """It is refused before the deletes, not by the system after them."""
    root = grow(tmp_path / "root", {"a": (b"x", 6)})
    gone = Record(b"a", NOBODY, 1, 0, Kind.DELETED)
    link = Record(b"b", NOBODY, 1, 0, Kind.SYMLINK, target=target)
    with pytest.raises(FormatError):
        patch_tree(root, written(gone, link))
    assert os.listdir(root) == ["a"]


def test_a_body_without_a_record_or_a_trailer_is_refused(tmp_path: Path) -> None:
    encoder = Encoder()
    stray = [*encoder.trailer(Trailer(bytes(32), 0)), *encoder.finish()]
    with pytest.raises(FormatError):
        patch_tree(tmp_path, io.BytesIO(b"".join(stray)))
    encoder = Encoder()
    unfinished = [*encoder.record(record(b"a")), *encoder.finish()]
    with pytest.raises(FormatError, match="no trailer"):
        patch_tree(tmp_path, io.BytesIO(b"".join(unfinished)))


def test_a_body_has_no_more_bytes_than_its_content_can_need(tmp_path: Path) -> None:
    """A few bytes of zstd make any number of them, and they would all be kept till the trailer."""
    encoder = Encoder()
    parts = encoder.record(record(b"a"))
    parts += encoder.data(DELTA_MAGIC + encode_literal_header(1 << 40))
    for _ in range(3):
        parts += encoder.data(bytes(1 << 20))
    parts += encoder.flush()
    with pytest.raises(LimitError):
        patch_tree(tmp_path, io.BytesIO(b"".join(parts)))


def test_a_body_of_the_longest_commands_is_taken(tmp_path: Path) -> None:
    """Copies of one byte with numbers of eight."""
    root, again = grow(tmp_path / "root", {"a": (b"abc", 6)}), blake3(b"cba")
    copies = b"".join(b"\x54" + at.to_bytes(8, "big") + (1).to_bytes(8, "big") for at in (2, 1, 0))
    encoder = Encoder()
    parts = encoder.record(
        Record(b"a", NOBODY, 1, 0, 1, again.digest(), 3, 0o644, base=bytes(32), body=True)
    )
    parts += encoder.data(DELTA_MAGIC + copies + END)
    parts += encoder.trailer(Trailer(again.digest(), 3))
    patch_tree(root, io.BytesIO(b"".join([*parts, *encoder.finish()])))
    assert (root / "a").read_bytes() == b"cba"


def test_a_tree_signature_is_checked(tmp_path: Path) -> None:
    signed = sign_tree(grow(tmp_path / "t", {"a": (b"x", 6), "d": {"l": "a"}}))
    packed = signed.pack()
    assert TreeSignature.unpack(packed) == signed
    for at in range(len(packed)):
        with pytest.raises(DeltaError):
            TreeSignature.unpack(packed[:at])
        with pytest.raises(DeltaError):
            TreeSignature.unpack(packed[:at] + bytes([packed[at] ^ 255]) + packed[at + 1 :])
    entry = signed.entries[b"a"]
    with pytest.raises(DeltaError):
        TreeSignature.unpack(TreeSignature({b"../a": entry}, {}).pack())
    assert record_of(b"a", entry).hash == blake3(b"x").digest()


def test_a_tree_signature_without_end_is_none() -> None:
    deep = b"\xa4more" + b"\x91" * 100_000 + b"\xc0"
    body = b"DBLT\x01\x83\xa7entries\x80\xaasignatures\x80" + deep
    with pytest.raises(FormatError):
        TreeSignature.unpack(body + xxhash.xxh3_64_digest(body))
