"""Hearing at once what is new at the site that is followed, and asking now and then anyway."""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import Any, Final

import msgspec
import websocket

from dblike_delta.messages import Notice
from dblike_srv.registers import ACCOUNTS
from dblike_srv.replication.follower import Follower
from dblike_srv.replication.link import ROOT, Link
from dblike_srv.replication.messages import Position
from dblike_srv.site import Site

SHARED_EVERY: Final = 2.0
ALL_EVERY: Final = 30.0
"""Seconds between questions that a lost notice would have answered."""
_CONNECT: Final = 5.0
_PING: Final = 10.0


class Listener:
    """Follows until the connection ends.  Notices are hints: what is asked for is the truth."""

    def __init__(self, site: Site, link: Link, follower: Follower, ended: threading.Event) -> None:
        self._site, self._link, self._follower = site, link, follower
        self._ended = ended
        self._heard: queue.SimpleQueue[Notice | None] = queue.SimpleQueue()

    def run(self) -> None:
        """Catch up, then react; raises what following raises."""
        with contextlib.closing(self._connect()) as client:
            threading.Thread(target=self._listen, args=(client,), daemon=True).start()
            self._follower.catch_up()
            self._react()

    def _connect(self) -> Any:
        """The socket; opened before catching up, so that nothing falls in between."""
        scheme, _, rest = self._link.url.partition("://")
        client = websocket.create_connection(
            f"{'wss' if scheme == 'https' else 'ws'}://{rest}{ROOT}/events",
            timeout=_CONNECT,
            header=[f"Authorization: Bearer {self._link.token}"],
            suppress_origin=True,
            redirect_limit=0,
            http_no_proxy=["*"],
        )
        client.settimeout(_PING)
        return client

    def _listen(self, client: Any) -> None:
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
                    self._heard.put(msgspec.json.decode(data, type=Notice))
        self._heard.put(None)

    def _react(self) -> None:
        now = self._site.clock.monotonic
        all_at = now() + ALL_EVERY
        while not self._ended.is_set():
            folders = self._news()
            if folders is None:
                return
            for folder, cursor in folders.items():
                if folder == ACCOUNTS:
                    self._follower.shared()
                else:
                    self._follower.folder(Position(folder, cursor))
            if not folders:
                self._follower.shared()
                self._follower.acknowledge()
                self._follower.report()
            if now() > all_at:
                self._follower.catch_up()
                all_at = now() + ALL_EVERY

    def _news(self) -> dict[bytes, str] | None:
        """What was heard since: folders and where they stand; None where the connection ended."""
        heard: dict[bytes, str] = {}
        with contextlib.suppress(queue.Empty):
            notice = self._heard.get(timeout=SHARED_EVERY)
            while True:
                if notice is None:
                    return None
                heard[bytes.fromhex(notice.folder)] = notice.cursor
                notice = self._heard.get_nowait()
        return heard
