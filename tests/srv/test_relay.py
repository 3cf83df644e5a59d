"""What sites hold is told to those that do not hear it themselves, and to nobody else."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from dblike_srv.replication import copies, journals, relay
from dblike_srv.replication.messages import Elsewhere, Held, Position
from dblike_srv.replication.relay import Outlet, Relay
from dblike_srv.replication.sites import announce, welcome
from rig.members import Member

OTHERS = "bcd"


@pytest.fixture
def members(tmp_path: Path) -> Iterator[dict[str, Member]]:
    """Four sites that know each other, and a folder of ada's at the first."""
    made = {name: Member(tmp_path / name) for name in "abcd"}
    made["a"].add_ada()
    made["a"].writer("laptop").write({b"first": b"of all"})
    for one, other in itertools.permutations(made.values(), 2):
        welcome(one.site, announce(other.site))
    yield made
    for member in made.values():
        member.close()


def uid(members: dict[str, Member], name: str) -> bytes:
    return members[name].site.id


def position(members: dict[str, Member]) -> Position:
    """Where the folder stands at the first site."""
    (found,) = journals.positions(members["a"].site, b"").positions
    return found


@pytest.fixture
def outlets(members: dict[str, Member]) -> Iterator[dict[str, Outlet]]:
    """The first site follows b and c, which wait for copies, and d, which does not."""
    here, made = Relay(members["a"].site), {}
    members["a"].site.notices.subscribe(here.hear)
    with ExitStack() as exits:
        for name in OTHERS:
            following = here.following(uid(members, name), lambda: None, prompt=name != "d")
            made[name] = exits.enter_context(following)
        yield made
    assert here.peers() == []


def said(outlets: dict[str, Outlet]) -> dict[str, list[Elsewhere]]:
    return {name: found for name, each in outlets.items() if (found := list(each.take()))}


def tell(members: dict[str, Member], holder: str, *told: str) -> None:
    here = members["a"].site
    relay.take_in(here, uid(members, holder), Held([position(members)], _uids(members, *told)))


def _uids(members: dict[str, Member], *names: str) -> list[bytes]:
    return sorted(uid(members, name) for name in names)


def test_it_goes_to_those_that_wait_for_copies_once(
    members: dict[str, Member], outlets: dict[str, Outlet]
) -> None:
    """Not back to the holder, nor again where nothing is new."""
    told = _uids(members, "a", "b", "c")
    expected = {"c": [Elsewhere(uid(members, "b"), [position(members)], told)]}
    tell(members, "b", "a")
    assert said(outlets) == expected
    tell(members, "b", "a")
    assert said(outlets) == {}


def test_where_all_follow_all_nothing_is_passed_on(
    members: dict[str, Member], outlets: dict[str, Outlet]
) -> None:
    tell(members, "b", "a", "c", "d")
    assert not any(outlet.waiting for outlet in outlets.values())


def test_what_was_passed_on_goes_on(members: dict[str, Member], outlets: dict[str, Outlet]) -> None:
    """Of d, which b heard of: to c, not back to b, and nothing of ourselves."""
    there = position(members)
    others = [Elsewhere(uid(members, "d"), [there]), Elsewhere(uid(members, "a"), [there])]
    relay.take_in(members["a"].site, uid(members, "b"), Held([], elsewhere=others))
    assert [(name, found[0].site) for name, found in said(outlets).items()] == [
        ("c", uid(members, "d"))
    ]
    assert {site for site, _, _ in copies.held_by(members["a"].site)} == {uid(members, "d")}


def test_what_no_notice_said_is_found_by_looking(
    members: dict[str, Member], outlets: dict[str, Outlet]
) -> None:
    copies.note_held(members["a"].site, uid(members, "b"), [position(members)])
    assert said(outlets) == {}
    for _ in range(2):
        outlets["c"].look()
        outlets["b"].look()
    assert said(outlets).keys() == {"c"}
    outlets["c"].look()
    assert said(outlets) == {}


def test_what_is_passed_on_late_takes_nothing_back(members: dict[str, Member]) -> None:
    here, holder = members["a"].site, uid(members, "d")
    before = position(members)
    members["a"].writer("phone").write({b"second": b"file"})
    after = position(members)
    assert copies.note_held(here, holder, [after], relayed=True) == [after.folder]
    assert copies.note_held(here, holder, [before], relayed=True) == []
    folder = journals.folder_by_id(here, after.folder)
    assert folder is not None
    assert copies.count_copies(here, folder, after.cursor, here.id) == 2
    assert copies.note_held(here, holder, [before]) == [after.folder]  # it says so itself
    assert copies.count_copies(here, folder, after.cursor, here.id) == 1


def test_a_folder_that_nobody_has_is_passed_over(members: dict[str, Member]) -> None:
    here = members["a"].site
    there = Position(b"n" * 16, here.seal.cursor(b"n" * 16, {here.id: 1}))
    assert copies.note_held(here, uid(members, "b"), [there], relayed=True) == []
