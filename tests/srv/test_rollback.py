"""A site whose disk went back in time: it is told by the others, and undoes nobody."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dblike_delta.exchange import Exchange, Unreachable
from dblike_delta.messages import LoginRequest
from dblike_srv import accounts
from dblike_srv.app import create_app
from dblike_srv.config import SiteConfig, decode_config
from dblike_srv.replication import journals
from dblike_srv.replication.arrival import Fault
from dblike_srv.replication.copies import count_copies
from dblike_srv.replication.follower import Follower, healing
from dblike_srv.replication.link import Link
from dblike_srv.replication.sites import announce, begin
from dblike_srv.site import Ahead, open_site
from dblike_srv.status import peers_of
from rig.liar import Liar
from rig.writer import Writer
from rig.wsgi import WsgiTransport

PASSWORD = "correct horse"


class Member:
    """A site with a disk that can be copied and put back."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.compared: dict[tuple[bytes, bytes], int] = {}
        self.open()

    def open(self) -> None:
        self.site = open_site(decode_config({"data": str(self.data), "cluster_key": "k" * 64}))
        begin(self.site)
        self.app = create_app(self.site)

    def close(self) -> None:
        self.app.extensions["dblike-hub"].stop()
        self.site.close()

    def back_up(self) -> None:
        self.close()
        shutil.copytree(self.data, self.data.with_suffix(".old"))
        self.open()

    def restore(self) -> None:
        self.close()
        shutil.rmtree(self.data)
        self.data.with_suffix(".old").rename(self.data)
        self.open()

    def exchange(self) -> Exchange:
        return Exchange(WsgiTransport(self.app.wsgi_app))

    def follow(self, other: Member) -> bool:
        """A round; False where it turned out that our disk went back."""
        try:
            with healing(self.site):
                link = Link(self.site, "http://x", Liar(other.app.wsgi_app))
                follower = Follower(self.site, link, compared=self.compared)
                follower.connect()
                if error := follower.catch_up():
                    raise error
        except Unreachable:
            return False
        return True

    def seen(self, token: str) -> tuple[str, dict[bytes, Any]]:
        """Where the folder stands, and what is in it."""
        exchange = self.exchange()
        exchange.token = token
        records = exchange.changes("home").records
        tree = {r.path: (r.device, r.counter, r.hash) for r in records}
        return exchange.folders()[0].cursor, tree


Pair = tuple[Member, Member, Callable[[Member, int], None], str]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    """Two sites, and a way to write some files at one of them."""
    one, other = Member(tmp_path / "one"), Member(tmp_path / "other")
    accounts.create_user(one.site, "ada", PASSWORD)
    other.follow(one)
    login = one.exchange()
    device = login.login(LoginRequest(user="ada", password=PASSWORD)).device_id
    writer, count = Writer(login, bytes.fromhex(device)), iter(range(1000))

    def write(member: Member, files: int) -> None:
        writer.exchange = member.exchange()
        writer.exchange.token = login.token
        for _ in range(files):
            name = b"%d" % next(count)
            writer.write({name: name})

    yield one, other, write, login.token
    one.close()
    other.close()


@pytest.mark.parametrize("meanwhile", [0, 3, 5, 12])
def test_a_restored_backup(pair: Pair, meanwhile: int) -> None:
    """However much was written before the other site is met: all of it is kept, on both."""
    one, other, write, token = pair
    write(one, 5)
    one.back_up()
    write(one, 5)
    assert other.follow(one)
    one.restore()
    old = one.site.id
    write(one, meanwhile)
    assert not one.follow(other)
    assert one.site.id != old
    for _ in range(2):
        assert one.follow(other)
        assert other.follow(one)
    assert one.seen(token) == other.seen(token)
    assert len(one.seen(token)[1]) == 10 + meanwhile


def test_another_site_that_forgot_what_is_ours_is_followed(pair: Pair) -> None:
    """It had heard of our versions, which were compared with ours."""
    one, other, write, token = pair
    other.back_up()
    write(one, 3)
    assert other.follow(one)
    assert one.follow(other)
    other.restore()
    assert one.follow(other)
    assert other.follow(one)
    assert one.seen(token) == other.seen(token)


def test_copies_of_what_came_back_are_counted(pair: Pair) -> None:
    """Also in a folder in which nothing was written since the site has another id."""
    one, other, write, token = pair
    one.back_up()
    write(one, 3)
    assert other.follow(one)
    one.restore()
    before = one.site.id
    assert not one.follow(other)
    assert one.follow(other)
    assert other.follow(one)
    (place,) = journals.positions(one.site, b"").positions
    folder = journals.folder_by_id(one.site, place.folder)
    assert folder is not None
    assert count_copies(one.site, folder, place.cursor, one.site.id) == 2
    assert count_copies(one.site, folder, place.cursor, before) == 1, "numbers were used twice"
    assert one.seen(token) == other.seen(token)


def test_used_numbers_are_noticed(pair: Pair) -> None:
    """The other one asks first: it does not mix two journals that have the same numbers, and says
    what it has."""
    one, other, write, token = pair
    write(one, 5)
    one.back_up()
    write(one, 5)
    assert other.follow(one)
    one.restore()
    old = one.site.id
    write(one, 40)
    with pytest.raises(Fault, match="another version than before"):
        other.follow(one)
    assert one.site.id != old
    for _ in range(2):
        assert one.follow(other)
        assert other.follow(one)
    assert one.seen(token) == other.seen(token)
    assert len(one.seen(token)[1]) == 50


@pytest.mark.parametrize("meanwhile", [0, 3, 6, 12])
def test_a_backup_of_which_only_a_follower_knows(pair: Pair, meanwhile: int) -> None:
    """One that can't be followed itself: it tells what it has of the restored site's journal, and
    goes on with what that is from then on."""
    one, other, write, token = pair
    write(one, 5)
    one.back_up()
    write(one, 5)
    assert other.follow(one)
    one.restore()
    old = one.site.id
    write(one, meanwhile)
    with contextlib.suppress(Fault):
        other.follow(one)
    assert one.site.id != old
    assert other.follow(one)
    assert len(other.seen(token)[1]) == 10 + meanwhile


def test_what_changed_of_accounts_since_a_backup_comes_to_all(pair: Pair) -> None:
    """Also where the restored site has made more such changes than the other one had heard of
    before the two met: their numbers must not be those that it knows."""
    one, other, write, token = pair
    one.back_up()
    accounts.create_user(one.site, "bob", PASSWORD)
    accounts.set_quota(one.site, "bob", 1 << 30)
    assert other.follow(one)
    one.restore()
    accounts.create_user(one.site, "eve", PASSWORD)
    for quota in range(3):
        accounts.set_quota(one.site, "ada", quota)
    assert other.follow(one)
    assert accounts.find_user(other.site, "eve")
    assert one.follow(other)
    assert accounts.find_user(one.site, "bob").quota == 1 << 30
    write(one, 1)
    assert other.follow(one)
    assert one.seen(token) == other.seen(token)


def test_all_is_well(pair: Pair) -> None:
    """Two sites that know each other's journals take no new ids."""
    one, other, write, token = pair
    for _ in range(3):
        write(one, 30)
        write(other, 2)
        assert other.follow(one)
        assert one.follow(other)
    assert one.seen(token) == other.seen(token)


@pytest.fixture
def twin(pair: Pair) -> Iterator[Member]:
    """A copy of the first site that runs beside it, with the same id."""
    one, other, write, _ = pair
    write(one, 5)
    assert other.follow(one)
    one.back_up()
    made = Member(one.data.with_suffix(".old"))
    yield made
    made.close()


def test_a_copy_that_runs_is_noticed(pair: Pair, twin: Member) -> None:
    """It has used a number for another version while this site, which was compared before, had used
    more of them."""
    one, other, write, token = pair
    follower = Follower(one.site, Link(one.site, "http://x", Liar(other.app.wsgi_app)))
    follower.connect()
    follower.catch_up()
    write(twin, 3)
    assert other.follow(twin)
    write(one, 5)
    with pytest.raises(Ahead):
        follower.catch_up()
    assert not one.follow(other)
    for _ in range(2):
        assert one.follow(other)
        assert other.follow(one)
    assert one.seen(token) == other.seen(token)
    assert len(one.seen(token)[1]) == 13


def test_a_copy_at_another_url_is_told(
    pair: Pair, twin: Member, caplog: pytest.LogCaptureFixture
) -> None:
    """In the log, and in what `status` says; a URL of our own that changed is no copy."""
    one, other, _, _ = pair
    for member, url in ((one, "http://one"), (one, "http://new"), (twin, "http://copy")):
        part = SiteConfig(url=url)
        member.site.config = msgspec.structs.replace(member.site.config, site=part)
        announce(member.site)
        assert other.follow(member)
        assert one.follow(other)
        said = [peer.problem for peer in peers_of(one.site) if peer.contact]
        assert ("http://copy" in said[0]) == (member is twin), said
    assert "another server has this site's id, at http://copy" in caplog.text
