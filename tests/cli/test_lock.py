"""One instance for each folder."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from conftest import Spawn
from dblike_cli import lock
from dblike_cli.errors import Locked, StateDamaged


def test_the_second_hears_who_the_first_is(tmp_path: Path) -> None:
    file = tmp_path / "lock"
    with (
        lock.hold(file, "watch"),
        pytest.raises(Locked, match=f"dblike watch, process {os.getpid()},"),
        lock.hold(file, "push"),
    ):
        pass
    with lock.hold(file, "push"):
        pass


def test_a_dead_holder_holds_nothing(tmp_path: Path, spawn: Spawn) -> None:
    file = tmp_path / "lock"
    program = (
        "import sys, pathlib; from dblike_cli import lock\n"
        "with lock.hold(pathlib.Path(sys.argv[1]), 'watch'): print('held', flush=True); input()"
    )
    holder = spawn(sys.executable, "-c", program, file, stdin=-1, stdout=-1)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    assert lock.holder(file) == f"dblike watch, process {holder.pid},"
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert lock.holder(file) is None
    with lock.hold(file, "push"):
        pass


def test_asking_for_the_holder_keeps_nobody_out(tmp_path: Path, spawn: Spawn) -> None:
    file = tmp_path / "lock"
    program = (
        "import sys, pathlib; from dblike_cli import lock\n"
        "print('asking', flush=True)\n"
        "while True: lock.holder(pathlib.Path(sys.argv[1]))"
    )
    asking = spawn(sys.executable, "-c", program, file, stdout=-1)
    assert asking.stdout is not None
    assert asking.stdout.readline() == b"asking\n"
    for _ in range(500):
        with lock.hold(file, "watch"):
            pass
    assert asking.poll() is None


def test_a_lock_is_no_way_to_another_file(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("data")
    (tmp_path / "lock").symlink_to(target)
    with pytest.raises(StateDamaged), lock.hold(tmp_path / "lock", "push"):
        pass
    assert target.read_text() == "data"
