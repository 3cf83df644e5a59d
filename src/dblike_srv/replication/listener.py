"""Hearing at once what is new at the site that is followed, and asking now and then anyway."""

from __future__ import annotations

import contextlib
import threading
from typing import Any, Final

import websocket

from dblike_delta.decoding import read_json
from dblike_delta.exchange import Unreachable
from dblike_delta.messages import Notice
from dblike_srv.registers import ACCOUNTS, INTERNAL
from dblike_srv.replication.follower import Follower
from dblike_srv.replication.link import ROOT, Link
from dblike_srv.replication.messages import Position
from dblike_srv.replication.relay import Outlet
from dblike_srv.replication.rows import EVERY
from dblike_srv.site import Site

ALL_EVERY: Final = 30.0
"""Seconds between questions that a lost notice would have answered."""
_CONNECT: Final = 5.0
_PING: Final = 10.0
_LARGEST: Final = 64 << 10
"""Bytes of a frame."""
_MANY: Final = 10_000


class Listener:
    """Follows until the connection ends.  Notices are hints: what is asked for is the truth."""

    def __init__(self, site: Site, link: Link, follower: Follower, ended: threading.Event) -> None:
        self._site, self._link, self._follower = site, link, follower
        self._ended = ended
        self._heard = threading.Condition()
        self._news: dict[bytes, str] = {}
        self._over = False
        self._all_at = 0.0

    def run(self) -> None:
        """Catch up, then react; raises what following raises."""
        assert self._link.peer is not None
        peer, prompt = self._link.peer.id, self._link.prompt
        client = self._connect()
        with (
            contextlib.ExitStack() as exits,
            self._follower.relay.following(peer, self._wake, prompt=prompt) as outlet,
        ):
            # One that is silent would be waited for: nobody needs its goodbye.  One that said it
            # has closed nothing yet.
            exits.callback(client.shutdown)
            exits.callback(client.close, timeout=0)
            self._follower.holding.outlet = outlet
            over = threading.Event()
            exits.callback(over.set)
            beside = self._follower.rows.take_beside
            threading.Thread(target=beside, args=(over,), daemon=True).start()
            threading.Thread(target=self._listen, args=(client,), daemon=True).start()
            self._catch_up()
            self._react(outlet)

    def _wake(self) -> None:
        with self._heard:
            self._heard.notify()

    def _connect(self) -> Any:
        """The socket; opened before catching up, so that nothing falls in between."""
        scheme, _, rest = self._link.url.partition("://")
        try:
            client = websocket.create_connection(
                f"{'wss' if scheme == 'https' else 'ws'}://{rest}{ROOT}/events",
                timeout=_CONNECT,
                header=[f"Authorization: Bearer {self._link.token}"],
                suppress_origin=True,
                redirect_limit=0,
                http_no_proxy=["*"],
                class_=_Socket,
                fire_cont_frame=True,
            )
        except (websocket.WebSocketException, OSError) as error:
            raise Unreachable(f"no notices: {error}") from None
        client.settimeout(_PING)
        return client

    def _listen(self, client: Any) -> None:
        """Until the connection ends; what is no notice ends it, too."""
        silent = False
        with contextlib.suppress(Exception):
            while not self._ended.is_set():
                try:
                    opcode, data = client.recv_data(control_frame=True)
                except websocket.WebSocketTimeoutException:
                    if silent:
                        break
                    silent = True
                    client.ping()
                    continue
                silent = False
                if opcode == websocket.ABNF.OPCODE_CLOSE:
                    break
                if opcode == websocket.ABNF.OPCODE_TEXT:
                    self._hear(read_json(data, Notice))
        with self._heard:
            self._over = True
            self._heard.notify()

    def _hear(self, notice: Notice) -> None:
        """Remember the last one of each folder; of too many, that there is much to look at."""
        folder = bytes.fromhex(notice.folder)
        if folder in INTERNAL:  # told by a process of a release that did not know what it was
            return
        with self._heard:
            self._news[folder] = notice.cursor
            if len(self._news) > _MANY:
                self._news.clear()
                self._all_at = 0.0
            self._heard.notify()

    def _react(self, outlet: Outlet) -> None:
        now = self._site.clock.monotonic
        asked_at = now()
        while not self._ended.is_set():
            folders = self._wait(outlet)
            if folders is None:
                return
            for folder, cursor in folders.items():
                if folder == ACCOUNTS:
                    self._follower.rows.take()
                else:
                    self._follower.folder(Position(folder, cursor))
            quiet = not folders and not outlet.waiting
            if outlet.waiting or (folders and self._link.prompt):
                self._follower.holding.acknowledge()
            if quiet or now() - asked_at > EVERY:  # news may come all the time
                self._follower.rows.take()
                self._follower.holding.acknowledge()
                self._follower.report()
                asked_at = now()
            if now() > min(self._all_at, self._follower.again_at()):
                self._catch_up()

    def _catch_up(self) -> None:
        self._follower.catch_up()
        self._all_at = self._site.clock.monotonic() + ALL_EVERY

    def _wait(self, outlet: Outlet) -> dict[bytes, str] | None:
        """What was heard since: folders and where they stand; None where the connection ended."""
        with self._heard:
            self._heard.wait_for(lambda: self._news or self._over or outlet.waiting, EVERY)
            if self._over:
                return None
            news, self._news = self._news, {}
        return news


class _Frames(websocket.frame_buffer):
    """Frames of bounded length: the other side announces it, and it is held in memory."""

    def recv_length(self) -> None:
        super().recv_length()
        if (self.length or 0) > _LARGEST:
            raise websocket.WebSocketProtocolException("a frame that is too large for a notice")


class _Socket(websocket.WebSocket):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.frame_buffer = _Frames(self._recv, options.get("skip_utf8_validation", False))
