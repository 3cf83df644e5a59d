"""Notices between hosts: heard at once while Redis is there, and nobody waits for it."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dblike_delta.seams import SystemRandom
from dblike_srv.config import ConfigError, decode_config
from dblike_srv.redis_notices import RedisNotices
from rig.programs import wait_until
from rig.redis import Redis, missing

FOLDER = bytes(range(16))
KEY = b"k" * 32
WAIT = 20.0

Heard = queue.SimpleQueue[tuple[bytes, str]]
Open = Callable[..., tuple[RedisNotices, Heard]]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    """A Redis of the test's own."""
    if missing():
        pytest.skip(missing())
    server = Redis(tmp_path / "redis")
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def open_notices(tmp_path: Path, redis: Redis) -> Iterator[Open]:
    """The notices of a process on a host that is called so, and what it hears."""
    made: list[RedisNotices] = []

    def open_them(host: str, key: bytes = KEY) -> tuple[RedisNotices, Heard]:
        notices = RedisNotices(redis.url, key, tmp_path / host, SystemRandom())
        made.append(notices)
        heard: Heard = queue.SimpleQueue()
        notices.subscribe(lambda *notice: heard.put(notice))
        return notices, heard

    yield open_them
    for notices in made:
        notices.close()


def say_until_heard(notices: RedisNotices, heard: Heard, word: str) -> None:
    """Nobody waits for a subscription to begin, so the first words may be lost."""

    def said() -> bool:
        notices.publish(FOLDER, word)
        try:
            return heard.get(timeout=0.05) == (FOLDER, word)
        except queue.Empty:
            return False

    wait_until(said)


def drain(heard: Heard) -> list[str]:
    """All that was heard, up to now."""
    found = []
    while not heard.empty():
        found.append(heard.get()[1])
    return found


def test_every_process_of_every_host_hears_it_once(open_notices: Open) -> None:
    one, heard_by_itself = open_notices("one")
    _, heard_beside = open_notices("one")
    other, heard_elsewhere = open_notices("other")
    say_until_heard(one, heard_elsewhere, "hello")
    say_until_heard(other, heard_by_itself, "hello")
    say_until_heard(other, heard_beside, "hello")
    say_until_heard(one, heard_by_itself, "begin")
    say_until_heard(other, heard_elsewhere, "begin")
    everyone = (heard_by_itself, heard_beside, heard_elsewhere)
    said = ["c1", "c2", "c3", "end"]
    for word in said:
        one.publish(FOLDER, word)
    for heard in everyone:
        words = list[str]()
        while "end" not in words:
            words.append(heard.get(timeout=WAIT)[1])
        # Words of the beginning were said several times, and may come late by the other way.
        assert [word for word in words if word in said] == said


def test_clusters_that_share_a_redis_do_not_hear_each_other(open_notices: Open) -> None:
    one, heard = open_notices("one")
    other, others_heard = open_notices("other", b"x" * 32)
    third, thirds_heard = open_notices("third")
    say_until_heard(third, heard, "hello")
    say_until_heard(one, thirds_heard, "end")
    assert drain(others_heard) == []
    other.publish(FOLDER, "mine")
    say_until_heard(third, heard, "end")
    assert "mine" not in drain(thirds_heard)


def test_redis_is_killed_and_comes_back(open_notices: Open, redis: Redis) -> None:
    one, _ = open_notices("one")
    beside, heard_beside = open_notices("one")
    _, heard = open_notices("other")
    say_until_heard(one, heard, "before")
    redis.kill()
    for number in range(300):  # more than may wait: what can't be sent is dropped
        one.publish(FOLDER, f"lost {number}")
    say_until_heard(beside, heard_beside, "meanwhile")  # this host needs no Redis
    redis.start()
    say_until_heard(one, heard, "after")


def test_what_is_no_notice_is_passed_over(open_notices: Open, redis: Redis) -> None:
    one, _ = open_notices("one")
    other, heard = open_notices("other")
    say_until_heard(one, heard, "begin")
    for junk in (b"", b"short", b"h" * 24, b"h" * 40_000, b"\xff" * 30):
        one._redis.publish(one._channel, junk)
    say_until_heard(one, heard, "end")
    assert one._threads["notices-in"].is_alive()
    assert other._threads["notices-in"].is_alive()


def test_what_notify_may_be() -> None:
    for good in ("local", "redis://h:1", "rediss://:p@h/0", "unix:///run/redis.sock"):
        assert decode_config({"notify": good}).notify == good
    with pytest.raises(ConfigError, match="notify"):
        decode_config({"notify": "amqp://h"})
