"""./quickstart as people run it; scripts/check-fresh-debian runs it on a bare system."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "quickstart.py"


def once(directory: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), str(directory), "--once", *more]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def processes_of(directory: Path) -> list[str]:
    """Command lines of all processes that name the directory."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or ())
        if str(directory) in line:
            found.append(line)
    return found


def test_a_file_travels_both_ways_and_the_same_directory_works_again(tmp_path: Path) -> None:
    for _ in range(2):
        done = once(tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        assert len(re.findall(r"→ on the disk of \w+ +[\d.]+ ms", done.stdout)) == 4
        laptop, desktop = (tmp_path / name for name in ("laptop", "desktop"))
        for name in ("hello from laptop.txt", "hello from desktop.txt"):
            assert (laptop / name).read_bytes() == (desktop / name).read_bytes()
        assert processes_of(tmp_path) == []


def test_it_keeps_running_until_interrupted(tmp_path: Path, spawn: Any) -> None:
    quickstart = spawn(sys.executable, SCRIPT, tmp_path, stdout=subprocess.PIPE)
    shown = read_until(quickstart, "Ctrl-C stops everything")
    assert "hello" not in shown
    assert len(processes_of(tmp_path)) > 3
    second = once(tmp_path)
    assert second.returncode == 1
    assert "running in" in second.stderr
    quickstart.send_signal(signal.SIGINT)
    assert quickstart.wait(60) == 0
    assert processes_of(tmp_path) == []


def read_until(process: subprocess.Popen[bytes], words: str) -> str:
    assert process.stdout is not None
    shown = ""
    for line in process.stdout:
        shown += line.decode()
        if words in shown:
            return shown
    pytest.fail(f"it ended before it said {words!r}: {shown}")


def test_a_taken_port_is_said(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = once(tmp_path, "--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "is taken" in done.stderr


def test_the_port_of_the_last_time_may_be_taken(tmp_path: Path) -> None:
    """The folders are linked to one address; the server may have to move to another."""
    assert once(tmp_path).returncode == 0
    port = json.loads((tmp_path / "quickstart.json").read_text())["port"]
    with socket.socket() as taken:
        # The server's last connections may still linger on that port.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        done = once(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_lost_password_is_replaced(tmp_path: Path) -> None:
    assert once(tmp_path).returncode == 0
    (tmp_path / "quickstart.json").unlink()
    done = once(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_server_that_does_not_start_is_shown_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "server").write_text("in the way")
    done = once(tmp_path)
    assert done.returncode == 1
    assert "server.log" in done.stderr
