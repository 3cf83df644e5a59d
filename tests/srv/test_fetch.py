"""The read path: contents as deltas against what is at hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from dblike_delta import recipe
from dblike_delta.changeset import decode
from dblike_delta.commands import Copy, Literal
from dblike_delta.messages import Record, Refusal, Want
from dblike_delta.recipe import Extent, Recipe
from dblike_srv import fetch as fetching
from dblike_srv.folders import create_folder
from dblike_srv.store.local import LocalStore
from dblike_srv.store.mem import MemoryStore
from rig.core_site import CoreSite, Device, SeededRandom, contents_of

BLOB = SeededRandom(11).bytes(1 << 20)


def hash_of(data: bytes) -> bytes:
    return blake3(data).digest()


@pytest.fixture
def core(tmp_path: Path, core_site: Callable[..., CoreSite]) -> CoreSite:
    return core_site(tmp_path)


@pytest.fixture
def laptop(core: CoreSite) -> Device:
    return core.laptop


def want(core: CoreSite, path: bytes, *have: bytes, start: int = 0) -> Want:
    record = core.records()[path]
    return Want(record.device, record.counter, list(have), start)


@pytest.mark.parametrize("size", [0, 1, 100, 1 << 18, (1 << 18) + 1, 1 << 20])
def test_a_file_comes_whole(core: CoreSite, laptop: Device, size: int) -> None:
    laptop.put(b"a", BLOB[:size])
    assert core.read(b"a") == BLOB[:size]


def test_only_the_edit_is_sent_between_any_two_versions(core: CoreSite, laptop: Device) -> None:
    """The delta of any two versions is the difference of two recipes, for no extra space."""
    made = [BLOB]
    laptop.put(b"a", BLOB)
    for n in range(6):
        at = 100_000 * n + 5
        commands = [Copy(0, at), Literal(b"edit %d" % n), Copy(at, len(made[-1]) - at)]
        laptop.edit(b"a", made[-1], commands)
        made.append(made[-1][:at] + b"edit %d" % n + made[-1][at:])
    for old in made[:-1]:
        have = {hash_of(old): old}
        parts = core.fetched([want(core, b"a", *have)])
        assert sum(map(len, parts)) < 1000
        assert list(contents_of(parts, have)) == [made[-1]]


def test_the_best_of_several_haves_is_chosen(core: CoreSite, laptop: Device) -> None:
    laptop.put(b"other", b"no help")
    laptop.put(b"a", BLOB)
    laptop.edit(b"a", BLOB, [Copy(0, len(BLOB)), Literal(b"tail")])
    haves = {hash_of(b"no help"): b"no help", hash_of(BLOB): BLOB, b"u" * 32: b"unknown"}
    parts = core.fetched([want(core, b"a", *haves)])
    [record] = [event for event in decode(parts) if isinstance(event, Record)]
    assert record.base == hash_of(BLOB)
    assert list(contents_of(parts, haves)) == [BLOB + b"tail"]


def test_a_have_that_does_not_help_is_not_used(core: CoreSite, laptop: Device) -> None:
    laptop.put(b"other", b"no help")
    laptop.put(b"a", b"fresh")
    assert core.read(b"a", {hash_of(b"no help"): b"no help"}) == b"fresh"


def test_having_the_content_sends_none_of_it(core: CoreSite, laptop: Device) -> None:
    laptop.put(b"a", BLOB)
    core.store.bytes_read = 0
    assert core.read(b"a", {hash_of(BLOB): BLOB}) == BLOB
    assert core.store.bytes_read == 0


@pytest.mark.parametrize("start", [0, 1, 5000, len(BLOB) - 1, len(BLOB)])
def test_an_interrupted_download_goes_on(core: CoreSite, laptop: Device, start: int) -> None:
    laptop.put(b"a", BLOB)
    laptop.edit(b"a", BLOB, [Copy(0, 3000), Literal(b"xy"), Copy(3000, len(BLOB) - 3002)])
    whole = BLOB[:3000] + b"xy" + BLOB[3000:-2]
    assert core.read(b"a", start=start) == whole[start:]
    assert core.read(b"a", {hash_of(BLOB): BLOB}, start=start) == whole[start:]


def test_ten_small_files_are_read_at_once(core: CoreSite, laptop: Device) -> None:
    files = {b"f%d" % n: BLOB[n * 100 : n * 100 + 90] for n in range(10)}
    laptop.commit(*[laptop.file(path, data) for path, data in files.items()])
    core.store.reads = 0
    assert core.fetch([want(core, path) for path in files]) == list(files.values())
    assert core.store.reads == 1


def test_old_versions_can_be_had(core: CoreSite, laptop: Device) -> None:
    laptop.put(b"a", b"first")
    laptop.put(b"a", b"second")
    assert core.fetch([Want(laptop.identity.device, 1)]) == [b"first"]


def refused(answer: bytes | Refusal) -> str:
    assert isinstance(answer, Refusal)
    return answer.status


def test_what_can_not_be_served_is_refused_in_its_place(core: CoreSite, laptop: Device) -> None:
    laptop.put(b"a", b"fine")
    laptop.make(b"d")
    device = laptop.identity.device
    wants = [
        Want(b"x" * 16, 1),
        Want(device, 99),
        Want(device, 2),
        want(core, b"a", start=5),
        want(core, b"a"),
    ]
    answers = core.fetch(wants)
    assert [refused(answer) for answer in answers[:4]] == ["unknown"] * 3 + ["invalid"]
    assert answers[4] == b"fine"


def test_a_version_is_served_once(core: CoreSite, laptop: Device) -> None:
    """Also where it is wanted again by then; the rest of it is another want."""
    laptop.put(b"a", b"fine")
    laptop.put(b"b", b"other")
    wants = [want(core, b"a"), want(core, b"b"), want(core, b"a", b"h" * 32)] * fetching.AT_ONCE
    first, second, *more = core.fetch([*wants, want(core, b"a", start=3)])
    assert (first, second, more.pop()) == (b"fine", b"other", b"e")
    assert {refused(answer) for answer in more} == {"invalid"}


def scattered(laptop: Device, path: bytes, pieces: int) -> bytes:
    """A file of so many extents of BLOB, put at a path."""
    new = b"".join(BLOB[at : at + 1] for at in range(2 * pieces, 0, -2))
    laptop.edit(path, BLOB, [Copy(at, 1) for at in range(2 * pieces, 0, -2)])
    return new


def test_what_is_compared_for_a_request_is_bounded(
    core: CoreSite, laptop: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each have once; what comes after that much work is sent in full."""
    calls: list[int] = []

    def difference(have: Recipe, wanted: Recipe) -> list[Copy | Extent]:
        calls.append(len(have) + len(wanted))
        return recipe.difference(have, wanted)

    monkeypatch.setattr(fetching, "difference", difference)
    monkeypatch.setattr(fetching, "COMPARED", 10_000)
    laptop.put(b"blob", BLOB)
    many = scattered(laptop, b"many", 500)
    haves = {hash_of(many): many, hash_of(BLOB): BLOB}
    assert core.read(b"many", {hash_of(BLOB): BLOB}) == many
    wants = [want(core, b"many", *[hash_of(BLOB)] * 8, start=start) for start in range(100)]
    calls.clear()
    assert core.fetch(wants, haves) == [many[start:] for start in range(100)]
    assert len(calls) < 100
    assert fetching.COMPARED <= sum(calls) < fetching.COMPARED + 501


def test_a_long_recipe_is_compared_all_the_same(
    core: CoreSite, laptop: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "COMPARED", 1000)
    laptop.put(b"blob", BLOB)
    laptop.put(b"a", b"aside")
    many = scattered(laptop, b"many", 5000)
    parts = core.fetched([want(core, b"a", hash_of(BLOB)), want(core, b"many", hash_of(BLOB))])
    assert [e.base for e in decode(parts) if isinstance(e, Record)] == [b"", hash_of(BLOB)]
    assert list(contents_of(parts, {hash_of(BLOB): BLOB})) == [b"aside", many]


def test_versions_of_another_users_folder_are_unknown(core: CoreSite, laptop: Device) -> None:
    laptop.put(b"a", b"secret")
    stolen = want(core, b"a", hash_of(b"secret"))
    eve = core.device("eve", core.add_user(b"eve"))
    core.folder, core.laptop = create_folder(core.site, eve.identity, "home"), eve
    assert [refused(answer) for answer in core.fetch([stolen])] == ["unknown"]


def test_another_users_content_is_no_base(core: CoreSite, laptop: Device) -> None:
    """Else the size of the answer would say whether someone else has a file."""
    laptop.put(b"a", BLOB)
    eve = core.device("eve", core.add_user(b"eve"))
    core.folder, core.laptop = create_folder(core.site, eve.identity, "home"), eve
    eve.put(b"b", b"mine" + BLOB[:1000])
    sizes = {
        sum(map(len, core.fetched([want(core, b"b", have)])))
        for have in (hash_of(BLOB), hash_of(b"nobody's"))
    }
    assert len(sizes) == 1


@pytest.mark.parametrize("size", [1000, 2 << 20])
def test_where_the_packs_lie_is_not_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, size: int
) -> None:
    """But to the log."""
    core = CoreSite(tmp_path, LocalStore(tmp_path, SeededRandom()))
    core.laptop.put(b"a", (BLOB * 2)[:size])
    packs = tmp_path / "packs"
    for pack in packs.glob("??/*"):
        pack.unlink()
    answer = core.fetch([want(core, b"a")])[-1]
    assert refused(answer) == "unavailable"
    assert str(packs) not in answer.detail
    assert str(packs) in caplog.text


@pytest.mark.parametrize("size", [1000, 2 << 20])
def test_a_store_that_fails_refuses_that_want_only(tmp_path: Path, size: int) -> None:
    store = MemoryStore()
    core = CoreSite(tmp_path, store)
    core.laptop.put(b"a", (BLOB * 2)[:size])
    broken = set(store.packs)
    core.laptop.put(b"b", b"fine")
    for name in broken:
        store.packs[name] = store.packs[name][: size // 2]
    answers = core.fetch([want(core, b"a"), want(core, b"b")])
    assert refused(answers[0]) == "unavailable"
    assert answers[1] == b"fine"


edits = st.lists(
    st.lists(
        st.one_of(
            st.tuples(st.integers(0, 600), st.integers(1, 300)),
            st.binary(min_size=1, max_size=80),
        ),
        min_size=1,
        max_size=6,
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=60)
@given(edits)
def test_any_version_from_any_other(history: list) -> None:  # type: ignore[type-arg]
    """Whatever deltas made the versions, each can be had from each."""
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        core = CoreSite(Path(directory), database="sqlite://")
        made = [BLOB[:500]]
        core.laptop.put(b"a", made[0])
        for edit in history:
            old = made[-1]
            commands = list(commands_of(edit, len(old)))
            assert core.laptop.edit(b"a", old, commands).status == "accepted"
            made.append(applied(old, commands))
        device = core.laptop.identity.device
        for number, new in enumerate(made, 1):
            for old in (made[0], made[-1]):
                have = {hash_of(old): old}
                assert core.fetch([Want(device, number, list(have))], have) == [new]
        core.site.close()


def commands_of(edit: list, size: int):  # type: ignore[no-untyped-def, type-arg]
    for part in edit:
        if isinstance(part, bytes):
            yield Literal(part)
        elif size:
            offset = part[0] % size
            yield Copy(offset, min(part[1], size - offset))


def applied(old: bytes, commands: list[Copy | Literal]) -> bytes:
    return b"".join(
        bytes(c.data) if isinstance(c, Literal) else old[c.offset : c.offset + c.length]
        for c in commands
    )
