"""Notices reach every listener of the host, and nobody waits for one that is gone."""

from __future__ import annotations

import os
import queue
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from dblike_srv.notices import LARGEST, LocalNotices, MemoryNotices

FOLDER = bytes(range(16))
WAIT = 10.0


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory whose name is longer than a socket's address may be."""
    return tmp_path / ("d" * 120) / "notices"


@pytest.fixture
def two(directory: Path) -> Iterator[tuple[LocalNotices, LocalNotices]]:
    pair = LocalNotices(directory), LocalNotices(directory)
    yield pair
    for notices in pair:
        notices.close()


def test_memory_notices_are_delivered_before_publish_returns() -> None:
    heard: list[tuple[bytes, str]] = []
    notices = MemoryNotices()
    listener = lambda folder, cursor: heard.append((folder, cursor))  # noqa: E731
    notices.subscribe(listener)
    notices.publish(FOLDER, "c1")
    notices.unsubscribe(listener)
    notices.publish(FOLDER, "c2")
    assert heard == [(FOLDER, "c1")]


def test_a_failing_listener_disturbs_nobody() -> None:
    heard: list[str] = []
    notices = MemoryNotices()

    def fail(folder: bytes, cursor: str) -> None:
        raise RuntimeError(cursor)

    notices.subscribe(fail)
    notices.subscribe(lambda _, cursor: heard.append(cursor))
    notices.publish(FOLDER, "c1")
    assert heard == ["c1"]


def test_all_who_listen_hear_it_and_the_publisher_too(
    two: tuple[LocalNotices, LocalNotices],
) -> None:
    first, second = queue.SimpleQueue(), queue.SimpleQueue()
    two[0].subscribe(lambda *notice: first.put(notice))
    two[1].subscribe(lambda *notice: second.put(notice))
    two[0].publish(FOLDER, "cursor")
    assert first.get(timeout=WAIT) == (FOLDER, "cursor")
    assert second.get(timeout=WAIT) == (FOLDER, "cursor")
    assert first.empty()


def test_one_that_only_publishes_is_heard(two: tuple[LocalNotices, LocalNotices]) -> None:
    heard = queue.SimpleQueue()
    two[1].subscribe(lambda *notice: heard.put(notice))
    two[0].publish(FOLDER, "cursor")
    assert heard.get(timeout=WAIT) == (FOLDER, "cursor")


def test_the_socket_of_a_killed_process_is_removed(directory: Path) -> None:
    child = os.fork()
    if child == 0:
        LocalNotices(directory).subscribe(lambda *_: None)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert len(list(directory.iterdir())) == 1
    publisher = LocalNotices(directory)
    publisher.publish(FOLDER, "cursor")
    assert list(directory.iterdir()) == []


def test_a_file_that_is_no_socket_is_left_alone(directory: Path) -> None:
    directory.mkdir(parents=True)
    (directory / "readme").write_text("x")
    LocalNotices(directory).publish(FOLDER, "cursor")
    assert (directory / "readme").read_text() == "x"


def test_a_listener_that_does_not_read_blocks_nobody(directory: Path) -> None:
    directory.mkdir(parents=True)
    deaf = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    here = os.getcwd()
    os.chdir(directory)
    try:
        deaf.bind("deaf")
    finally:
        os.chdir(here)
    heard = queue.SimpleQueue()
    listening, publisher = LocalNotices(directory), LocalNotices(directory)
    listening.subscribe(lambda _, cursor: heard.put(cursor))
    for number in range(40):  # more than a queue of the deaf one holds is passed over
        publisher.publish(FOLDER, f"c{number}" + "x" * 8000)
    seen = [heard.get(timeout=WAIT)[:3] for _ in range(40)]
    assert seen[-1].startswith("c39")
    deaf.close()
    listening.close()


def test_a_notice_that_is_too_large_is_not_sent(two: tuple[LocalNotices, LocalNotices]) -> None:
    heard = queue.SimpleQueue()
    two[1].subscribe(lambda _, cursor: heard.put(cursor))
    two[0].publish(FOLDER, "x" * (LARGEST + 1))
    two[0].publish(FOLDER, "small")
    assert heard.get(timeout=WAIT) == "small"


def test_closing_removes_the_socket(directory: Path) -> None:
    notices = LocalNotices(directory)
    notices.subscribe(lambda *_: None)
    assert len(list(directory.iterdir())) == 1
    notices.close()
    assert list(directory.iterdir()) == []
