"""The hub: every WebSocket of a worker, held by one thread.

A request thread does the handshake and the authentication, then hands the socket over and is free
again; so idle devices cost a descriptor and a few kilobytes, never a thread.  The hub's thread is
the only one that touches its clients.  A second thread, the backstop, asks the database every few
seconds where the folders stand and who may still listen: what a lost notice would have said.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import selectors
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

import msgspec
from wsproto.connection import Connection, ConnectionType

from dblike_delta.messages import Notice
from dblike_delta.seams import Clock
from dblike_srv.hub_client import (
    EVERYONE,
    GOING_AWAY,
    RESTARTING,
    REVOKED,
    Client,
    Session,
)

log = logging.getLogger(__name__)

READ: Final = selectors.EVENT_READ
WRITE: Final = selectors.EVENT_WRITE


class HubSettings(msgspec.Struct, frozen=True):
    """How the hub keeps its clients; seconds where nothing else is said."""

    ping: float = 25.0
    """Between pings; a client that was silent through a whole such time is dropped."""
    stall: float = 20.0
    """How long a client may leave what was sent to it unread."""
    backstop: float = 2.5
    """Between looks at the database."""
    per_user: int = 200
    """Sockets that one user may hold at this worker."""
    tick: float = 0.5
    """Between looks at the clients' times."""


class Directory(Protocol):
    """What the backstop asks the database."""

    def positions(self, users: Iterable[int]) -> Mapping[int, Mapping[bytes, str]]:
        """Each user's folders, by id, and the cursors at which they are."""

    def alive(self, sessions: Iterable[Session]) -> set[Session]:
        """Those of the sessions that may still listen."""


class Hub:
    """Adopts WebSockets and tells each of the folders that its user has."""

    def __init__(
        self, directory: Directory, clock: Clock, settings: HubSettings | None = None
    ) -> None:
        self._directory = directory
        self._clock = clock
        self._settings = settings or HubSettings()
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._clients: set[Client] = set()
        self._by_user: dict[int, set[Client]] = {EVERYONE: set()}
        self._listeners: dict[bytes, set[Client]] = {}
        self._cursors: dict[bytes, str] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._look = threading.Event()
        self._selector: selectors.BaseSelector | None = None
        self._wake: socket.socket | None = None

    # --- called from any thread

    def __len__(self) -> int:
        return len(self._clients)

    def room_for(self, session: Session) -> bool:
        """Whether the user may open one more socket here."""
        return len(self._by_user.get(session.user, ())) < self._settings.per_user

    def adopt(self, sock: socket.socket, session: Session, received: bytes = b"") -> None:
        """Take over a socket after its handshake, with what was already read from it."""
        sock.setblocking(False)
        connection = Connection(ConnectionType.SERVER)
        client = Client(sock, connection, session, self._clock.monotonic)
        self._start()
        self._order(lambda: self._admit(client, received))

    def notify(self, folder: bytes, cursor: str) -> None:
        """A notice came: pass it on.  This is what is subscribed to `Notices`."""
        if self._thread is not None:
            self._order(lambda: self._spread(folder, cursor))

    def stop(self, *, wait: float = 0.0) -> None:
        """Tell all clients to come back later (1012), and end; safe in a signal handler."""
        self._stopping.set()
        self._look.set()
        self._prod()
        if wait and self._thread is not None:
            self._thread.join(wait)

    def _order(self, order: Callable[[], None]) -> None:
        self._orders.put(order)
        self._prod()

    def _prod(self) -> None:
        if self._wake is not None:
            with contextlib.suppress(OSError):
                self._wake.send(b"\0")

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            waking, self._wake = socket.socketpair()
            waking.setblocking(False)
            self._wake.setblocking(False)
            self._selector = selectors.DefaultSelector()
            self._selector.register(waking, READ, None)
            self._thread = threading.Thread(
                target=self._run, args=(self._selector, waking), name="hub", daemon=True
            )
            self._thread.start()
            threading.Thread(target=self._watch, name="hub-backstop", daemon=True).start()

    # --- the hub's thread

    def _run(self, selector: selectors.BaseSelector, waking: socket.socket) -> None:
        next_tick = self._clock.monotonic()
        while not self._stopping.is_set():
            timeout = max(0.0, next_tick - self._clock.monotonic())
            self._turn(selector, waking, timeout)
            if self._clock.monotonic() >= next_tick:
                self._tick()
                next_tick = self._clock.monotonic() + self._settings.tick
        self._farewell(selector, waking)

    def _turn(
        self, selector: selectors.BaseSelector, waking: socket.socket, timeout: float
    ) -> None:
        """Wait for something to happen, and deal with it."""
        for key, mask in selector.select(timeout):
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    waking.recv(4096)
                continue
            client: Client = key.data
            if mask & READ:
                client.read()
            self._settle(client)
        with contextlib.suppress(queue.Empty):
            while True:
                self._obey(self._orders.get_nowait())

    def _obey(self, order: Callable[[], None]) -> None:
        try:
            order()
        except Exception:
            log.exception("an order to the hub failed")

    def _admit(self, client: Client, received: bytes) -> None:
        mine = self._by_user.setdefault(client.session.user, set())
        if len(mine) >= self._settings.per_user:
            client.close(GOING_AWAY, "too many sockets of one user")
        mine.add(client)
        self._clients.add(client)
        self._look.set()  # it wants to know where its folders stand
        assert self._selector is not None
        self._selector.register(client.sock, READ, client)
        if received:
            client.receive(received)
        self._settle(client)

    def _settle(self, client: Client) -> None:
        """Write what can be written, and wait for what can't; let go of it when it is over."""
        assert self._selector is not None
        client.write()
        if client.gone:
            self._drop(client)
            return
        wanted = READ | WRITE if client.waiting else READ
        if wanted != client.mask:
            client.mask = wanted
            self._selector.modify(client.sock, wanted, client)

    def _drop(self, client: Client) -> None:
        assert self._selector is not None
        if client not in self._clients:
            return
        self._clients.discard(client)
        self._selector.unregister(client.sock)
        client.sock.close()
        mine = self._by_user[client.session.user]
        mine.discard(client)
        if not mine and client.session.user != EVERYONE:
            del self._by_user[client.session.user]
        for folder in client.folders:
            self._forget(folder, client)

    def _forget(self, folder: bytes, client: Client) -> None:
        listeners = self._listeners.get(folder, set())
        listeners.discard(client)
        if not listeners:
            self._listeners.pop(folder, None)
            self._cursors.pop(folder, None)

    def _spread(self, folder: bytes, cursor: str) -> None:
        listeners = self._listeners.get(folder, set())
        sites = self._by_user[EVERYONE]
        if not listeners and not sites:
            return  # nobody's here; or it is newer than the last look, and the next one finds it
        if listeners:
            self._cursors[folder] = cursor
        text = self._notice(folder, cursor)
        for client in (*listeners, *sites):
            client.tell(folder, text)
            self._settle(client)

    def _notice(self, folder: bytes, cursor: str) -> str:
        notice = Notice(folder=folder.hex(), cursor=cursor, time=self._clock.now_ms())
        return msgspec.json.encode(notice).decode()

    def _tick(self) -> None:
        for client in tuple(self._clients):
            client.check(ping=self._settings.ping, stall=self._settings.stall)
            self._settle(client)

    def _farewell(self, selector: selectors.BaseSelector, waking: socket.socket) -> None:
        """Tell everyone to reconnect, and give them a moment to have heard it."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._obey(self._orders.get_nowait())
        for client in tuple(self._clients):
            client.close(RESTARTING, "the server restarts")
            self._settle(client)
        deadline = self._clock.monotonic() + 2.0
        while self._clients and self._clock.monotonic() < deadline:
            self._turn(selector, waking, 0.1)
        for client in tuple(self._clients):
            self._drop(client)
        selector.close()
        waking.close()
        if self._wake is not None:
            self._wake.close()

    # --- the backstop's thread

    def _watch(self) -> None:
        while not self._stopping.is_set():
            self._look.wait(self._settings.backstop)
            self._look.clear()
            sessions = {client.session for client in tuple(self._clients)}
            if sessions and not self._stopping.is_set():
                self._look_up(sessions)
            # Many who connect at once must not become as many queries.
            self._stopping.wait(min(0.2, self._settings.backstop))

    def _look_up(self, sessions: set[Session]) -> None:
        try:
            alive = self._directory.alive(sessions)
            positions = self._directory.positions({session.user for session in alive})
        except Exception:
            log.exception("the hub can't look at the database")
            return
        self._order(lambda: self._refresh(sessions - alive, positions))

    def _refresh(self, ended: set[Session], positions: Mapping[int, Mapping[bytes, str]]) -> None:
        for client in tuple(self._clients):
            if client.session in ended:
                client.close(REVOKED, "this device may not listen any more")
                self._settle(client)
        moved = {
            folder: cursor
            for folders in positions.values()
            for folder, cursor in folders.items()
            if self._cursors.get(folder) != cursor
        }
        for user, folders in positions.items():
            for client in tuple(self._by_user.get(user, ())):
                self._assign(client, folders, moved)
        self._cursors.update(
            (folder, cursor) for folder, cursor in moved.items() if folder in self._listeners
        )

    def _assign(
        self, client: Client, folders: Mapping[bytes, str], moved: Mapping[bytes, str]
    ) -> None:
        """Let the client listen to exactly these folders, and tell it where the new ones stand."""
        for folder in client.folders - folders.keys():
            client.folders.discard(folder)
            self._forget(folder, client)
        for folder, cursor in folders.items():
            if folder not in client.folders:
                client.folders.add(folder)
                self._listeners.setdefault(folder, set()).add(client)
            elif folder not in moved:
                continue
            client.tell(folder, self._notice(folder, cursor))
        self._settle(client)


def leave(sock: socket.socket) -> socket.socket:
    """Take a connection out of a socket object that somebody else will shut down and close.

    What is returned is the connection; the object keeps its descriptor number, which now belongs to
    a socket that leads nowhere.
    """
    taken = sock.dup()
    with socket.socket(taken.family, taken.type) as nowhere:
        os.dup2(nowhere.fileno(), sock.fileno())
    return taken
