"""A session that hears what a test tells it."""

from __future__ import annotations

import queue
import threading

import msgspec
from websocket import ABNF

from dblike_delta.messages import Notice
from dblike_srv.replication import journals
from dblike_srv.replication.follower import Follower
from dblike_srv.replication.link import Link
from dblike_srv.replication.listener import Listener
from dblike_srv.site import Site
from rig.members import Member


class Notices:
    """The socket of a session, on which a test says what is new."""

    def __init__(self) -> None:
        self.said = queue.SimpleQueue[tuple[int, bytes]]()

    def tell(self, there: Member) -> None:
        for place in journals.positions(there.site, b"").positions:
            notice = msgspec.json.encode(Notice(place.folder.hex(), place.cursor))
            self.said.put((ABNF.OPCODE_TEXT, notice))

    def recv_data(self, control_frame: bool) -> tuple[int, bytes]:
        return self.said.get()

    def shutdown(self) -> None:
        self.said.put((ABNF.OPCODE_CLOSE, b""))

    def close(self, timeout: int) -> None:
        """Nothing is held."""


class Hearing(Listener):
    """Follows a site as it is followed for real, but for the socket."""

    def __init__(self, site: Site, link: Link, follower: Follower, notices: Notices) -> None:
        super().__init__(site, link, follower, threading.Event())
        self._notices = notices

    def _connect(self) -> Notices:
        return self._notices
