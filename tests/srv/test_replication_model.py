"""What replication must not do, each found by the model: sites and devices in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, select

from dblike_delta.messages import LoginRequest
from dblike_srv import accounts
from dblike_srv.models import devices, sites, users
from dblike_srv.models import folders as folder_rows
from dblike_srv.registers import folder_uid, user_uid
from dblike_srv.replication import journals, shared
from dblike_srv.replication.copies import count_copies
from dblike_srv.replication.follower import Follower
from dblike_srv.replication.link import Link
from dblike_srv.replication.messages import (
    DeviceState,
    FolderState,
    SharedPage,
    SiteState,
    UserState,
)
from model.check import Holding
from model.device import SimDevice
from model.site import SimSite
from model.wires import Wire
from model.world import World

Worlds = Callable[..., World]


@pytest.fixture
def worlds() -> Iterator[Worlds]:
    made: list[World] = []

    def make(devices: int = 2, sites: int = 2) -> World:
        made.append(World(1, devices, sites))
        return made[-1]

    yield make
    for world in made:
        world.close()


def write(world: World, device: SimDevice, path: bytes, data: bytes) -> None:
    with world.by_user(device):
        inode = device.files().get(path)
        if inode is None:
            device.fs.create(path, 0o644).write(data)
        else:
            inode.data[:] = data
            device.fs.written(inode)
    world.now_ns += 1_000_000_000


def go(device: SimDevice, site: str) -> None:
    """Use that site from here on."""
    while device.wire.serving != site:
        device.wire.move()


def test_a_device_hears_at_one_site_what_that_lacked_when_it_came(worlds: Worlds) -> None:
    """It had heard of it elsewhere; what it took in here was made without it."""
    world = worlds(3)
    one, other, third = world.devices
    go(one, "s0")
    go(other, "s1")
    go(third, "s0")
    write(world, third, b"f", b"third's")
    third.sync()
    one.sync()
    write(world, other, b"f", b"other's")
    write(world, other, b"g", b"more")
    other.sync()
    go(one, "s1")
    one.sync()
    assert bytes(one.files()[b"f"].data) == b"third's", "a site that is behind took an edit away"
    world.follow("s1", "s0")
    one.sync()
    other.sync()
    assert one.tree() == other.tree()
    assert {b"third's", b"other's", b"more"} == one.contents()


def test_a_device_tells_a_site_what_another_one_had_alone(worlds: Worlds) -> None:
    """What met there is merged before the sites hear of each other, and stays so."""
    world = worlds()
    one, other = world.devices
    go(one, "s0")
    go(other, "s1")
    for device, data in ((one, b"one's"), (other, b"other's")):
        write(world, device, b"f", data)
        device.sync()
    go(one, "s1")
    for _ in range(2):
        one.sync()
        other.sync()
    assert one.tree() == other.tree()
    assert {b"one's", b"other's"} == one.contents()
    before = one.tree()
    world.settle()
    assert one.tree() == before


def test_a_cursor_goes_back_to_what_the_site_knows(worlds: Worlds) -> None:
    world = worlds()
    one, _ = world.devices
    go(one, "s0")
    write(world, one, b"f", b"first")
    one.sync()
    go(one, "s1")
    one.sync()
    behind = one.open().meta.cursor
    seal, folder = world.sites["s1"].site.seal, next(iter(world.sites["s1"].numbers()))
    here = world.sites["s0"].id_now()
    assert seal.open_cursor(folder, behind).get(here, 0) == 0
    assert seal.open_seen(folder, behind)[here] == 1


def test_what_two_copies_of_a_device_wrote_lives_at_all_sites(worlds: Worlds) -> None:
    """Both used the same dot, at sites that did not hear of each other."""
    world = worlds(3, 3)
    one, copy, third = world.devices
    go(one, "s0")
    one.sync()
    copy.clone(one.image())
    world.doubles.add(one.device.id)
    go(copy, "s1")
    for device, data in ((one, b"one's"), (copy, b"the copy's")):
        write(world, device, b"f", data)
        write(world, device, b"d-" + data, data + b" too")
        device.sync()
    go(third, "s2")
    for other in ("s1", "s0"):
        world.follow("s2", other, page=1)
        third.sync()
    world.settle()
    assert {b"one's", b"the copy's"} <= third.contents()


def test_a_device_whose_versions_came_first_can_send_one_again(worlds: Worlds) -> None:
    """The other site has its versions, and has not heard of its login yet."""
    world = worlds(1)
    (device,) = world.devices
    go(device, "s0")
    device.exchange.login(LoginRequest("ada", world.passwords["ada"][0], "new", "ab" * 16))
    token = device.exchange.token
    device.fs.create(b"f", 0o644).write(b"data")
    device.link("cd" * 16)
    device.sync()
    here = world.sites["s1"].site
    link = Link(here, "http://s0", Wire(world.network, "s1", ["s0"]))
    follower = Follower(here, link)
    follower.connect()
    for position in link.positions():
        follower.folder(position)
    for known in (token, device.exchange.token):
        accounts.identify(here, known)
    query = select(devices.c.highest).where(devices.c.id == device.device.id)
    assert here.database.read(lambda c: c.scalar(query)) >= 1


def test_a_site_that_went_back_in_time_is_another_one_before_its_first_answer(
    worlds: Worlds,
) -> None:
    world = worlds(1)
    (device,) = world.devices
    go(device, "s0")
    device.sync()
    site = world.sites["s0"]
    image, before = site.image(), site.id_now()
    write(world, device, b"f", b"after the backup")
    device.sync()
    world.follow("s1", "s0")
    site.restore(image)
    assert site.id_now() == before
    world.look_around("s0")
    assert site.id_now() != before
    world.settle()
    assert device.contents() == {b"after the backup"}


def test_a_new_site_sees_nothing_in_an_order_in_which_nobody_saw_it(worlds: Worlds) -> None:
    """At one site a directory takes a file's place, at the other one something is put into it:
    whoever heard of this first, and of the file next, would keep the file beside the directory."""
    world = worlds(2, 3)
    devices, sites = world.devices, ("s0", "s1")
    for device, site in zip(devices, sites, strict=True):
        go(device, site)
        path = site.encode()
        write(world, device, path, b"a file")
        device.sync()
        device.fs.unlink(path)
        device.fs.mkdir(path, 0o755)
        device.sync()
    meet(world, "s0", "s1")
    for device, other in zip(devices, ("s1", "s0"), strict=True):
        device.sync()
        write(world, device, other.encode() + b"/in", b"inside")
        device.sync()
    meet(world, "s0", "s1")
    before = Holding(world.sites["s0"], "ada")
    world.sites["s2"].replace()
    world.follow("s2", "s0", page=1)
    after = Holding(world.sites["s2"], "ada")
    assert after.versions == before.versions
    assert after.paths == before.paths


def test_what_came_by_way_of_another_site_is_held_all_the_same(worlds: Worlds) -> None:
    """Also where the one that has to know of it says nothing that is new any more."""
    world = worlds(1, 3)
    (device,) = world.devices
    go(device, "s0")
    write(world, device, b"f", b"data")
    device.sync()
    for one, other, copies in (("s1", "s0", 2), ("s2", "s1", 2), ("s2", "s0", 3)):
        world.follow(one, other)
        assert copies_of(world, "s0") == copies


def test_who_has_a_version_from_another_site_does_not_count_those_that_lack_it(
    worlds: Worlds,
) -> None:
    """All that it accepted itself, which is nothing, is everywhere."""
    world = worlds(1, 3)
    (device,) = world.devices
    go(device, "s0")
    write(world, device, b"f", b"data")
    device.sync()
    world.follow("s1", "s0")
    assert copies_of(world, "s1") == 1
    world.follow("s0", "s1")
    assert copies_of(world, "s1") == 2
    world.follow("s2", "s1")
    assert copies_of(world, "s1") == 3


def copies_of(world: World, name: str) -> int:
    """How many sites hold all that one does, as far as that knows."""
    site = world.sites[name].site
    cursors = {each.folder: each.cursor for each in journals.positions(site, b"").positions}
    folder = journals.folder_by_id(site, folder_uid(user_uid("ada"), "home"))
    assert folder is not None
    return count_copies(site, folder, cursors[folder.id], site.id)


def meet(world: World, one: str, other: str) -> None:
    """Both hear all of each other."""
    for here, there in ((one, other), (other, one), (one, other)):
        assert world.follow(here, there)


# --- journals: any pages, any relay


@settings(max_examples=10, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),
            st.sampled_from((b"a", b"b", b"c")),
            st.sampled_from((("s0", "s1"), ("s1", "s2"), ("s2", "s0"), ("s2", "s1"))),
            st.sampled_from((1, 2, 5000)),
        ),
        max_size=8,
    )
)
def test_journals_arrive_as_they_are(steps: list[tuple[int, bytes, tuple[str, str], int]]) -> None:
    """In pages of any size, through any relay: the same versions, numbers and paths everywhere."""
    world = World(1, 3, 3)
    try:
        for number, (who, path, (here, there), page) in enumerate(steps):
            device = world.devices[who]
            write(world, device, path, b"content %d" % number)
            device.sync()
            world.follow(here, there, page=page)
        for here, there in (("s1", "s0"), ("s2", "s1"), ("s1", "s2"), ("s0", "s1")) * 2:
            assert world.follow(here, there, page=1)
        held = [Holding(site, "ada") for site in world.sites.values()]
        held[0].check()
        for other in held[1:]:
            assert (other.versions, other.journal) == (held[0].versions, held[0].journal)
            assert other.paths == held[0].paths
    finally:
        world.close()


# --- rows that all sites share: any order, any repetition, through any relay

_USER, _OTHER = user_uid("eve"), user_uid("bob")
_FOLDER = folder_uid(_USER, "home")
_moments = st.integers(0, 3)
_pages = st.lists(
    st.one_of(
        st.builds(
            lambda password, at, disabled, disabled_at: UserState(
                _USER, b"eve", 1, password=password, password_at=at,
                disabled=disabled, disabled_at=disabled_at,
            ),
            st.sampled_from(("x", "y")), _moments, st.booleans(), _moments,
        ),
        st.builds(
            lambda which, user, token, at, revoked, parent: DeviceState(
                bytes([which]) * 16, user, "name", 1,
                token=token and token * 31 + bytes([which]), token_at=at, revoked=revoked,
                parent=bytes([parent]) * 16 if parent else b"",
            ),
            st.integers(1, 3), st.sampled_from((_USER, _USER, _OTHER)),
            st.sampled_from((b"", b"s", b"t")), _moments, _moments, st.integers(0, 3),
        ),
        st.builds(
            lambda url, at, gone: SiteState(b"s" * 16, "site", url, at, gone),
            st.sampled_from(("http://a", "http://b")), _moments, st.booleans(),
        ),
        st.just(FolderState(_FOLDER, _USER, b"home", 1)),
    ),
    max_size=5,
)  # fmt: skip


def _page_of(state: UserState | DeviceState | SiteState | FolderState) -> SharedPage:
    both = [UserState(_USER, b"eve", 1), UserState(_OTHER, b"bob", 1)]
    match state:
        case UserState():
            return SharedPage(1, users=[state])
        case DeviceState():
            return SharedPage(1, users=both, devices=[state])
        case SiteState():
            return SharedPage(1, sites=[state])
        case _:
            return SharedPage(1, users=both, folders=[state])


def _rows(site: SimSite) -> list[list[tuple[object, ...]]]:
    """What all sites share, without what only this one numbers."""

    def work(connection: Connection) -> list[list[tuple[object, ...]]]:
        local = {"id", "row", "user", "stamp", "used", "last_seen", "highest", "site_counter"}
        found = []
        for table in (users, devices, folder_rows, sites):
            columns = [c for c in table.c if c.name not in local or table in (devices, sites)]
            columns = [c for c in columns if c.name not in local - {"id"}]
            found.append(sorted(map(tuple, connection.execute(select(*columns))), key=repr))
        return found

    return site.database.read(work)


@settings(max_examples=20, deadline=None)
@given(_pages, st.data())
def test_shared_rows_are_the_same_in_any_order(states: list[object], data: st.DataObject) -> None:
    world = World(1, 0, 3)
    try:
        one, other, relay = world.sites.values()
        pages = [_page_of(state) for state in states]  # type: ignore[arg-type]
        again = data.draw(st.permutations(pages * 2))
        for page in pages:
            shared.take_in(one.site, page)
        for page in again:
            shared.take_in(other.site, page)
        shared.take_in(relay.site, shared.news(one.site, 0))
        shared.take_in(relay.site, shared.news(other.site, 0))
        # Whoever saw a device while it was the child of a revoked one says that it is revoked, too.
        for site in (one, other):
            shared.take_in(site.site, shared.news(relay.site, 0))
            shared.take_in(relay.site, shared.news(site.site, 0))
        shared.take_in(one.site, shared.news(relay.site, 0))
        assert _rows(one) == _rows(other) == _rows(relay)
        assert not shared.take_in(other.site, shared.news(relay.site, 0))
    finally:
        world.close()
