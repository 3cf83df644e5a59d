"""Notices between the hosts of a site, by Redis; between the processes of one host as without it.

They stay hints.  While Redis is away nobody waits for it: what would have been said is dropped, and
whoever listens on another host hears of it at the next look at the database.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from pathlib import Path
from typing import Any, Final

import redis
from blake3 import blake3
from redis.backoff import NoBackoff
from redis.retry import Retry

from dblike_delta.seams import Random
from dblike_srv.notices import FOLDER_BYTES, LARGEST, Listener, LocalNotices

WAITING: Final = 200
"""Notices that wait to be sent; above that they are dropped."""
AGAIN: Final = 0.1
"""Seconds in which a Redis that is away is left alone by those who publish."""
LOOK: Final = 0.5
"""Seconds between looks whether to stop."""
LONGEST: Final = 2.0
"""Seconds between tries to reach a Redis that is away."""
HOST_BYTES: Final = 8

log = logging.getLogger(__name__)


class RedisNotices(LocalNotices):
    """Publishes to a channel of the cluster's, and delivers what other hosts publish there.

    `run` is the host's directory for what its processes share.
    """

    def __init__(self, url: str, key: bytes, run: Path, random: Random) -> None:
        super().__init__(run / "notices")
        name = blake3(key, derive_key_context="dblike 2026 notices").hexdigest()[:32]
        self._channel = f"dblike:{name}"
        self._random = random
        self._host = _host_name(run, random)
        self._redis = redis.Redis.from_url(
            url,
            socket_connect_timeout=2,
            socket_timeout=5,
            health_check_interval=20,
            retry=Retry(NoBackoff(), 1),  # a connection that ended while nobody used it
        )
        self._outbox: queue.Queue[bytes | None] = queue.Queue(WAITING)
        self._closed = threading.Event()
        self._threads: dict[str, threading.Thread] = {}
        self._away: dict[str, bool] = {}

    def subscribe(self, listener: Listener) -> None:
        super().subscribe(listener)
        self._start("notices-in", self._listen)

    def publish(self, folder: bytes, cursor: str) -> None:
        super().publish(folder, cursor)
        message = self._host + folder + cursor.encode("ascii", "replace")
        if len(message) > LARGEST or self._closed.is_set():
            return
        self._start("notices-out", self._send)
        with contextlib.suppress(queue.Full):
            self._outbox.put_nowait(message)

    def close(self) -> None:
        super().close()
        self._closed.set()
        with contextlib.suppress(queue.Full):
            self._outbox.put_nowait(None)
        for thread in self._threads.values():
            thread.join(2 * LOOK)
        self._redis.close()

    def _start(self, name: str, work: Any) -> None:
        with self._lock:
            if name not in self._threads:
                self._threads[name] = threading.Thread(target=work, name=name, daemon=True)
                self._threads[name].start()

    # --- out

    def _send(self) -> None:
        while (message := self._outbox.get()) is not None and not self._closed.is_set():
            try:
                self._redis.publish(self._channel, message)
            except (redis.RedisError, OSError) as error:
                self._say("send", error)
                self._closed.wait(AGAIN)
                self._drop()
            else:
                self._say("send", None)

    def _drop(self) -> None:
        """What was said meanwhile is old by now."""
        with contextlib.suppress(queue.Empty):
            while not self._closed.is_set():
                self._outbox.get_nowait()

    # --- in

    def _listen(self) -> None:
        wait = 0.05
        while not self._closed.is_set():
            try:
                with contextlib.closing(self._redis.pubsub()) as channel:  # type: ignore[no-untyped-call]
                    channel.subscribe(self._channel)
                    self._hear(channel)
            except (redis.RedisError, OSError) as error:
                wait = min(2 * wait, LONGEST)
                self._say("hear", error)
                self._closed.wait(self._random.uniform(wait / 2, wait))
            else:
                wait = 0.05

    def _hear(self, channel: Any) -> None:
        while not self._closed.is_set():
            message = channel.get_message(timeout=LOOK)
            if message is not None:
                self._say("hear", None)
            if message is not None and message["type"] == "message":
                self._take(bytes(message["data"]))

    def _take(self, message: bytes) -> None:
        host, rest = message[:HOST_BYTES], message[HOST_BYTES:]
        if host != self._host and FOLDER_BYTES < len(rest) <= LARGEST:
            self._deliver(rest[:FOLDER_BYTES], rest[FOLDER_BYTES:].decode("ascii", "replace"))

    def _deliver(self, folder: bytes, cursor: str) -> None:
        """To the listeners of this process; the other ones of the host hear it for themselves."""
        super(LocalNotices, self).publish(folder, cursor)

    def _say(self, what: str, error: Exception | None) -> None:
        """Log that Redis went or came, once each."""
        if self._away.get(what, False) == (error is not None):
            return
        self._away[what] = error is not None
        if error is not None:
            log.warning("notices to and from other hosts are late, Redis is away: %s", error)
        else:
            log.info("Redis is there again")


def _host_name(run: Path, random: Random) -> bytes:
    """What tells this host's own notices from the others': all its processes have the same."""
    run.mkdir(mode=0o700, parents=True, exist_ok=True)
    path, mine = run / "host", run / f"host.{random.bytes(8).hex()}"
    mine.write_bytes(random.bytes(HOST_BYTES))
    with contextlib.suppress(FileExistsError):
        path.hardlink_to(mine)  # whole, or not at all
    mine.unlink()
    return path.read_bytes()
