"""What sites hold is told on, to those that do not hear it themselves.

A site tells those that it follows what it holds, and whom else it tells.  Who hears that passes it
on to those that it follows itself, if they wait for copies (`prompt`) and were not told.  So it
comes through chains, rings and stars; where all sites follow all others nothing is passed on.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Final, TypeVar

import msgspec

from dblike_delta.decoding import read_json
from dblike_srv.registers import HELD
from dblike_srv.replication import copies, journals
from dblike_srv.replication.messages import MOST_TOLD, Elsewhere, Held, Position
from dblike_srv.site import Site

_T = TypeVar("_T")

_FOLDERS: Final = 100
"""Folders in one notice: a datagram has its limits."""
POSITIONS: Final = 1000
"""Positions in one request."""


class _News(msgspec.Struct, frozen=True, array_like=True):
    """A notice: of whom more is known, in which folders, and who was told."""

    holder: bytes
    folders: list[bytes]
    told: list[bytes]


def take_in(site: Site, follower: bytes, said: Held) -> None:
    """What a follower holds, and what others hold of whom it heard.  Raises Ahead where it has more
    of our own journal than we do, or something else."""
    for known in said.doubted:
        journals.check_own(site, known)
    _note(site, follower, said.positions, said.told, relayed=False)
    for other in said.elsewhere:
        if other.site != site.id:
            _note(site, other.site, other.positions, [*other.told, follower], relayed=True)


def _note(
    site: Site, holder: bytes, positions: list[Position], told: list[bytes], *, relayed: bool
) -> None:
    more = copies.note_held(site, holder, positions, relayed=relayed)
    told = told[:MOST_TOLD]
    for some in _in_parts(more, _FOLDERS):
        news = _News(holder, list(some), told)
        site.notices.publish(HELD, msgspec.json.encode(news).decode())


class Outlet:
    """What is to be told to one site that is followed."""

    def __init__(self, site: Site, peer: bytes, wake: Callable[[], object]) -> None:
        self._site, self._peer, self._wake = site, peer, wake
        self._lock = threading.Lock()
        self._pending: dict[bytes, _Pending] = {}
        self._passed: dict[tuple[bytes, bytes], bytes] = {}

    @property
    def waiting(self) -> bool:
        """Whether there is anything."""
        return bool(self._pending)

    def add(self, holder: bytes, folders: Collection[bytes], told: set[bytes]) -> None:
        """More is known of a site; `told` are those that know it when it was passed on."""
        with self._lock:
            pending = self._pending.setdefault(holder, _Pending(set(), set(told)))
            pending.folders.update(folders)
            pending.told.intersection_update(told)
        self._wake()

    def look(self) -> None:
        """Add all that the site was not told since it is followed: notices may be lost."""
        for holder, folder, packed in copies.held_by(self._site):
            if holder != self._peer and self._passed.get((holder, folder)) != packed:
                self.add(holder, [folder], {self._site.id, self._peer})

    def take(self) -> Iterator[Elsewhere]:
        """What there is to say."""
        with self._lock:
            pending, self._pending = self._pending, {}
        for holder, each in pending.items():
            positions = []
            for _, folder, packed in copies.held_by(self._site, holder, each.folders):
                if self._passed.get((holder, folder)) != packed:
                    self._passed[holder, folder] = packed
                    positions.append(Position(folder, copies.cursor_of(self._site, folder, packed)))
            for some in _in_parts(positions, POSITIONS):
                yield Elsewhere(holder, list(some), sorted(each.told)[:MOST_TOLD])


class _Pending(msgspec.Struct):
    folders: set[bytes]
    told: set[bytes]


class Relay:
    """Knows whom this site follows now, and who of them is to be told what."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._lock = threading.Lock()
        self._outlets: dict[bytes, tuple[Outlet, bool]] = {}

    @contextlib.contextmanager
    def following(
        self, peer: bytes, wake: Callable[[], object], *, prompt: bool
    ) -> Iterator[Outlet]:
        """A site is followed from here on; it is told what others hold if it is `prompt`.  `wake`
        is called when there is something to say."""
        outlet = Outlet(self._site, peer, wake)
        with self._lock:
            self._outlets[peer] = outlet, prompt
        try:
            yield outlet
        finally:
            with self._lock:
                if self._outlets.get(peer, (None,))[0] is outlet:
                    del self._outlets[peer]

    def peers(self) -> list[bytes]:
        """Who hears from this site itself what it holds."""
        with self._lock:
            return sorted(self._outlets)[:MOST_TOLD]

    def hear(self, what: bytes, text: str) -> None:
        """A notice: pass on what it says to those that it names neither as holder nor as told."""
        if what != HELD:
            return
        news = read_json(text, _News)
        knowing = {*news.told, news.holder, self._site.id}
        with self._lock:
            deaf = {
                peer: outlet
                for peer, (outlet, prompt) in self._outlets.items()
                if prompt and peer not in knowing
            }
        for outlet in deaf.values():
            outlet.add(news.holder, news.folders, knowing | deaf.keys())


def _in_parts(items: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    return (items[at : at + size] for at in range(0, len(items), size))
