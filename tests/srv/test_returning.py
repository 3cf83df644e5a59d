"""What a site asks the others before its first answer, and what that leaves behind."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from rig.cluster import RealSite, eventually, free_ports
from rig.processes import has_ended


@pytest.fixture
def asking(tmp_path: Path) -> Iterator[tuple[RealSite, socket.socket]]:
    """A site that has just asked another one, which takes the question and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        peer = f"http://127.0.0.1:{silent.getsockname()[1]}"
        config = {"cluster_key": "k" * 32, "peers": [{"url": peer}]}
        site = RealSite(tmp_path / "a", free_ports(1)[0], config)
        site.start(wait=False)
        try:
            asked, _ = silent.accept()
            with asked:
                yield site, asked
        finally:
            site.stop()


def child_of(site: RealSite) -> psutil.Process:
    """The process that asks."""
    assert site.process is not None
    (child,) = psutil.Process(site.process.pid).children()
    return child


def test_nothing_is_left_of_asking_a_site_that_says_nothing(
    asking: tuple[RealSite, socket.socket],
) -> None:
    """Workers are forked from a process of one thread: another's locks would be taken in them."""
    site, asked = asking
    assert asked.recv(1 << 16).startswith(b"POST /v1/peer/")
    child = child_of(site)
    site.ready()
    assert has_ended(child)


def test_a_site_that_is_killed_while_it_asks_leaves_nobody_who_asks(
    asking: tuple[RealSite, socket.socket],
) -> None:
    site, _ = asking
    child = child_of(site)
    assert site.process is not None
    site.process.kill()
    eventually(lambda: has_ended(child))
