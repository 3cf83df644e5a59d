"""What every test may use: profiles of randomness, free ports, programs that end with the test."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from rig import mariadb as mariadb_rig
from rig import seaweed as seaweed_rig
from rig.seaweed import SeaweedFS

# No deadline: the machine is shared, and a slow example is not a wrong one. ./test repeats the same
# examples, so that it fails for a change and not for luck; `--hypothesis-profile=search` looks on.
hypothesis.settings.register_profile("default", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.register_profile(
    "fast", hypothesis.settings.get_profile("default"), max_examples=10
)
hypothesis.settings.register_profile(
    "search", deadline=None, max_examples=10_000, print_blob=True, derandomize=False
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# Whoever starts the tests in the background may have switched Ctrl-C off for all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A program that a library's fault ends says where it was.
os.environ.setdefault("PYTHONFAULTHANDLER", "1")

# What starts real programs, or tries histories by the dozen: `./test fast` leaves these out.
SLOW = (
    *("bench/", "fuzz/", "model/", "soak/", "system/"),
    *("cli/test_cycle_crash.py", "srv/test_api_files.py", "srv/test_crash.py", "srv/test_hub.py"),
    *("srv/test_openapi.py", "srv/test_server_cli.py", "srv/test_tree.py", "srv/test_ws.py"),
)
TESTS = Path(__file__).resolve().parent


SERVERS = {"empty_mariadb", "galera", "mariadb", "mariadb_server", "redis", "s3", "seaweed"}
"""Fixtures, and values of parameters, that start a server of somebody else's."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow by where it is, so that nobody has to think of it test by test; and let it
    come first in each third of the tests, which is what each of three processes begins with: the
    last ones, of which one process has some more to do than the others, are short then."""
    files = {path: at for at, path in enumerate(dict.fromkeys(item.path for item in items))}
    for item in items:
        assert isinstance(item, pytest.Function)
        chosen = item.callspec.params.values() if hasattr(item, "callspec") else ()
        wanted = {*item.fixturenames, *(each for each in chosen if isinstance(each, str))}
        if str(item.path.relative_to(TESTS)).startswith(SLOW) or wanted & SERVERS:
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: (files[item.path] % 3, item.get_closest_marker("slow") is None))


Spawn = Callable[..., "subprocess.Popen[bytes]"]
GRACE = 10.0  # seconds between SIGTERM and SIGKILL


@pytest.fixture
def free_port() -> int:
    """A port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def mariadb_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[mariadb_rig.MariaDB]:
    """A MariaDB that all tests of this process use; nobody kills it."""
    absent = mariadb_rig.missing()
    if absent:
        pytest.skip(absent)
    server = mariadb_rig.MariaDB(tmp_path_factory.mktemp("m"), *mariadb_rig.QUICK)
    try:
        server.begin()
        yield server
    finally:
        server.kill()


@pytest.fixture
def mariadb(mariadb_server: mariadb_rig.MariaDB) -> Iterator[str]:
    """The URL of a database without rows on it."""
    url = mariadb_server.borrow()
    yield url
    mariadb_server.give_back(url)


@pytest.fixture
def empty_mariadb(mariadb_server: mariadb_rig.MariaDB) -> Iterator[str]:
    """The URL of a database without tables."""
    url = mariadb_server.create()
    yield url
    mariadb_server.drop(url)


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """An S3 that all tests of this process use; nobody kills it."""
    absent = seaweed_rig.missing()
    if absent:
        pytest.skip(absent)
    os.environ.update(seaweed_rig.KEYS)
    server = SeaweedFS(tmp_path_factory.mktemp("s3"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    """Start a program, as Popen does, in a session of its own that ends with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*command: Any, **options: Any) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [os.fspath(part) for part in command], start_new_session=True, **options
        )
        started.append(process)
        return process

    yield start
    for process in reversed(started):
        end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ask it to end, wait, then kill it with all that it left in its session."""
    with process:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
