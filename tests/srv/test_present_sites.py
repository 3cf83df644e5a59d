"""Which sites are there: a site that lost its disk, or was set back, is one and not two."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from dblike_srv import accounts
from dblike_srv.folders import cursor_of, find_folder
from dblike_srv.replication.copies import count_copies
from dblike_srv.replication.sites import (
    announce,
    has_left,
    known_sites,
    part_with,
    welcome,
)
from dblike_srv.site import renew
from dblike_srv.status import peer_gauges, peers_of, survey
from rig.core_site import DAY_MS, StillClock
from rig.members import Member


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Member]:
    """A site with some files."""
    made = Member(tmp_path / "here")
    made.add_ada()
    made.writer("phone").write({b"one": b"1", b"two": b"2"})
    yield made
    made.close()


def copies(member: Member) -> int:
    """How many sites hold all that is there."""
    folder = find_folder(member.site, accounts.administrator(member.site, "ada"), "home")
    assert folder is not None
    return count_copies(member.site, folder, cursor_of(member.site, folder), member.site.id)


def test_a_site_that_lost_its_disk(here: Member, tmp_path: Path) -> None:
    """What the lost disk held counts for nothing, and only the new one is listed."""
    lost = Member(tmp_path / "there")
    lost.follow(here)
    assert copies(here) == 2
    lost.close()
    empty = Member(tmp_path / "there")
    welcome(here.site, announce(empty.site))
    assert copies(here) == 1
    empty.follow(here)
    assert copies(here) == 2
    ids = {here.site.id, empty.site.id}
    assert {state.id for state in known_sites(here.site)} == ids
    assert [peer.site_id for peer in peers_of(here.site)] == [empty.site.id.hex()]
    series = [line.split()[0] for line in peer_gauges(here.site) if line[0] != "#"]
    assert len(series) == len(set(series)) == 4
    empty.close()


def test_a_site_that_lost_its_disk_and_got_a_slash(here: Member, tmp_path: Path) -> None:
    """The same URL, written in another way when it joined again."""
    lost = Member(tmp_path / "there")
    lost.follow(here)
    lost.close()
    empty = Member(tmp_path / "there")
    part = msgspec.structs.replace(empty.site.config.site, url="http://there/")
    empty.site.config = msgspec.structs.replace(empty.site.config, site=part)
    welcome(here.site, announce(empty.site))
    assert copies(here) == 1
    assert {state.id for state in known_sites(here.site)} == {here.site.id, empty.site.id}
    empty.close()


def test_a_site_whose_clock_was_fast_lost_its_disk(here: Member, tmp_path: Path) -> None:
    """What it was called before seems to be of next year, and is as lost all the same."""
    clock = StillClock(here.site.clock.now_ms() + 365 * DAY_MS)
    lost = Member(tmp_path / "there", clock=clock)
    lost.follow(here)
    lost.close()
    empty = Member(tmp_path / "there")
    welcome(here.site, announce(empty.site))
    for _ in range(2):
        empty.follow(here)
        here.follow(empty)
    ids = {here.site.id, empty.site.id}
    for member in (here, empty):
        assert {state.id for state in known_sites(member.site)} == ids
    before = [state.changed for state in known_sites(here.site)]
    empty.follow(here)
    here.follow(empty)
    assert [state.changed for state in known_sites(here.site)] == before
    assert copies(here) == 2
    empty.close()


def test_a_disk_that_was_lost_and_found(here: Member, tmp_path: Path) -> None:
    """Another site was at its URL meanwhile, and is no more: it is a site and a copy again."""
    clock = StillClock(here.site.clock.now_ms())
    found = Member(tmp_path / "there", clock=clock)
    found.follow(here)
    empty = Member(tmp_path / "there")
    welcome(here.site, announce(empty.site))
    empty.follow(here)
    empty.close()
    assert copies(here) == 2
    here.writer("laptop").write({b"three": b"3"})
    clock.advance(DAY_MS)
    for _ in range(2):
        found.follow(here)
        here.follow(found)
    assert copies(here) == 2
    for member in (here, found):
        assert {s.id for s in known_sites(member.site)} == {here.site.id, found.site.id}
    found.close()


def test_two_that_are_called_alike_take_turns(here: Member, tmp_path: Path) -> None:
    """A mistake in a config makes no flood of news."""
    one, other = Member(tmp_path / "there"), Member(tmp_path / "there")
    for _ in range(3):
        for member in (one, other):
            member.follow(here)
            here.follow(member)
    said = {state.changed for member in (one, other) for state in [announce(member.site)]}
    for member in (one, other, one, other):
        welcome(here.site, announce(member.site))
        member.follow(here)
    assert said == {announce(member.site).changed for member in (one, other)}
    for member in (one, other):
        member.close()


def test_a_site_that_left_stays_out_under_another_name(here: Member) -> None:
    part_with(here.site, announce(here.site))
    moved = msgspec.structs.replace(here.site.config.site, name="another", url="http://moved")
    here.site.config = msgspec.structs.replace(here.site.config, site=moved)
    assert announce(here.site).gone
    assert has_left(here.site, here.site.id)


def test_a_former_id_of_this_site(here: Member, tmp_path: Path) -> None:
    """Also where it was known at another URL: it is no peer, and devices are not sent there."""
    other = Member(tmp_path / "there")
    other.follow(here)
    part = here.site.config.site
    moved = msgspec.structs.replace(part, url="http://moved")
    here.site.config = msgspec.structs.replace(here.site.config, site=moved)
    renew(here.site, here.site.id)
    announce(here.site)
    assert {state.id for state in known_sites(here.site)} == {here.site.id, other.site.id}
    assert [peer.site_id for peer in peers_of(here.site)] == [other.site.id.hex()]
    assert copies(here) == 1
    other.follow(here)
    assert copies(here) == 2
    other.close()


def test_copies_that_no_commit_can_have(here: Member, tmp_path: Path) -> None:
    """A site hears what those hold that follow it themselves: `status` warns of more copies."""
    near, far = Member(tmp_path / "near"), Member(tmp_path / "far")
    near.follow(here)
    far.follow(near)
    rules = msgspec.structs.replace(here.site.config.replication, copies=3)
    here.site.config = msgspec.structs.replace(here.site.config, replication=rules)
    assert copies(here) == 2
    report = survey(here.site)
    assert report.warning.endswith("3 copies are wanted, 1 sites follow this one")
    assert report.warning in list(report.lines())
    far.follow(here)
    assert copies(here) == 3
    assert not survey(here.site).warning
    for member in (near, far):
        member.close()
