"""What a site asks the others before its first answer, and what that leaves behind."""

from __future__ import annotations

import socket
from pathlib import Path

import psutil

from conftest import end
from rig.cluster import RealSite, free_ports


def test_nothing_is_left_of_asking_a_site_that_says_nothing(tmp_path: Path) -> None:
    """Workers are forked from a process of one thread: another's locks would be taken in them."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        peer = f"http://127.0.0.1:{silent.getsockname()[1]}"
        config = {"cluster_key": "k" * 32, "peers": [{"url": peer}]}
        site = RealSite(tmp_path / "a", free_ports(1)[0], config)
        site.start(wait=False)
        try:
            asked, _ = silent.accept()
            with asked:
                assert asked.recv(1 << 16).startswith(b"POST /v1/peer/")
                assert site.process is not None
                (asking,) = psutil.Process(site.process.pid).children()
                site.ready()
                assert not asking.is_running()
        finally:
            site.stop()


def test_a_site_that_is_killed_while_it_asks_leaves_nobody_who_asks(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        peer = f"http://127.0.0.1:{silent.getsockname()[1]}"
        config = {"cluster_key": "k" * 32, "peers": [{"url": peer}]}
        site = RealSite(tmp_path / "a", free_ports(1)[0], config)
        site.start(wait=False)
        assert site.process is not None
        asked, _ = silent.accept()
        with asked:
            (asking,) = psutil.Process(site.process.pid).children()
            site.process.kill()
            psutil.wait_procs([asking], timeout=60)
            assert not asking.is_running()
        end(site.process)
