"""What one site says to another that it follows: what it holds of it by now."""

from __future__ import annotations

from dblike_srv.replication.link import Link
from dblike_srv.replication.messages import Held, Position
from dblike_srv.replication.relay import POSITIONS, Outlet, Relay
from dblike_srv.site import Site


class Holding:
    """What is to be said, and was said already; numbers are those of cursors, by site."""

    def __init__(self, site: Site, link: Link, relay: Relay) -> None:
        self.outlet: Outlet | None = None
        self._site, self._link, self._relay = site, link, relay
        self._held: dict[bytes, str] = {}
        self._told: dict[bytes, tuple[int, int]] = {}  # of its own journal, of all of them

    def own(self, folder: bytes, there: dict[bytes, int], here: dict[bytes, int]) -> None:
        """Its own versions are all here, wherever they came from: that is to be said, once."""
        if self._told.get(folder, (-1, 0))[0] != there.get(self._peer, 0):
            self._tell(folder, there, here)

    def all(self, folder: bytes, there: dict[bytes, int], here: dict[bytes, int]) -> None:
        """So is all that it has of others, which may be ours: that can wait for a look at all."""
        if self._told.get(folder, (0, -1))[1] != sum(there.values()):
            self._tell(folder, there, here)

    def page(self, folder: bytes, reached: dict[bytes, int]) -> None:
        """What came just now is here."""
        self._held[folder] = self._site.seal.cursor(folder, reached)

    def acknowledge(self) -> None:
        """Say what is held here now, and what of others it has to be told."""
        held, self._held = self._held, {}
        positions = [Position(folder, cursor) for folder, cursor in held.items()]
        told = self._relay.peers()
        for at in range(0, len(positions), POSITIONS):
            self._link.held(Held(positions[at : at + POSITIONS], told))
        if self.outlet is not None:
            for other in self.outlet.take():
                self._link.held(Held([], elsewhere=[other]))

    @property
    def _peer(self) -> bytes:
        return self._link.peer.id if self._link.peer is not None else b""

    def _tell(self, folder: bytes, there: dict[bytes, int], here: dict[bytes, int]) -> None:
        self._told[folder] = there.get(self._peer, 0), sum(there.values())
        self.page(folder, here)
