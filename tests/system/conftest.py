"""A real server and real clients on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import Spawn
from rig.programs import Program
from rig.servers import PASSWORD, Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for the tests of a file; each test has a user of its own."""
    made = Server(tmp_path_factory.mktemp("server"), "--workers", "2")
    yield made
    made.stop()


@pytest.fixture
def user(server: Server) -> str:
    """A user without files."""
    return server.add_user()


@pytest.fixture
def link(tmp_path: Path, server: Server, user: str, spawn: Spawn) -> Callable[[str], Program]:
    """Link a new device of the user's by its name."""

    def make(name: str) -> Program:
        return Program.link(tmp_path / name, server.url, user, PASSWORD, spawn)

    return make


@pytest.fixture
def laptop(link: Callable[[str], Program]) -> Program:
    """A device."""
    return link("laptop")


@pytest.fixture
def desktop(link: Callable[[str], Program]) -> Program:
    """Another device of the same user."""
    return link("desktop")
