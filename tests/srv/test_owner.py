"""What root makes in the data directory of another user is that user's, who serves with it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from dblike_srv.__main__ import main
from dblike_srv.configfile import change_config
from dblike_srv.store.local import LocalStore
from rig.core_site import SeededRandom

OWNER = 65_534
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes what is another's")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A restored backup that is the server's user's, as everything in it."""
    made = tmp_path / "data"
    assert CliRunner().invoke(main, ["init", "--data", str(made)]).exit_code == 0
    (made / "dblike.db-queue").unlink()
    for path in everything(made):
        os.chown(path, OWNER, OWNER)
    return made


def everything(below: Path) -> Iterator[Path]:
    yield below
    yield from below.rglob("*")


def test_what_root_makes_is_the_owners(data: Path) -> None:
    words = ["user", "add", "ada", "--password-stdin", "--data", str(data)]
    assert CliRunner().invoke(main, words, input="correct horse\n").exit_code == 0
    writer = LocalStore(data, SeededRandom()).writer()  # as compact and scrub --repair have it
    writer.write(b"content")
    writer.commit(b"\1" * 32)
    change_config(None, data, workers=3)
    assert (data / "dblike.db-queue").exists()
    others = [path for path in everything(data) if path.lstat().st_uid != OWNER]
    assert others == []


def test_a_directory_that_was_made_for_the_server_stays_its_own(tmp_path: Path) -> None:
    os.chown(tmp_path, OWNER, OWNER)
    for words in (["init"], ["user", "add", "ada", "--password-stdin"]):
        done = CliRunner().invoke(main, [*words, "--data", str(tmp_path)], input="correct horse\n")
        assert done.exit_code == 0, done.output
    assert [path for path in everything(tmp_path) if path.lstat().st_uid != OWNER] == []


def test_a_config_that_is_changed_keeps_who_may_read_it(data: Path) -> None:
    config = data / "config.json"
    os.chown(config, 0, OWNER)
    config.chmod(0o640)
    change_config(None, data, workers=3)
    status = config.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, OWNER, 0o640)
