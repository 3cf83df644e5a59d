"""SIGHUP with a config that can't be: the server says so, and goes on with the one that it had."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dblike_srv.__main__ import main
from dblike_srv.configfile import create_config
from rig.programs import wait_until

KEPT = "goes on with the config that it had"


def _set(data: Path, **values: Any) -> None:
    file = data / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_a_slip_of_the_pen_ends_no_server_that_runs(
    tmp_path: Path, spawn: Callable[..., Any]
) -> None:
    data, log = tmp_path / "data", tmp_path / "log"
    create_config(None, data, bind="127.0.0.1:0", workers=1)
    with log.open("wb") as errors, socket.create_server(("127.0.0.1", 0)) as other:
        server = spawn(
            *(sys.executable, "-m", "dblike_srv", "run", "--data", data),
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        url = server.stdout.readline().decode().split()[-1]
        right = (data / "config.json").read_text()
        slips: list[dict[str, Any]] = [
            {"bind": "127.0.0.1:http"},
            {"bind": f"127.0.0.1:{other.getsockname()[1]}"},
            {"bind": f"unix:{tmp_path}/absent/socket"},
            {"bind": f"unix:{data}/config.json"},
            {"auth": [{"plugin": "nope"}]},
            {"auth": [{"plugin": "htpasswd", "file": str(tmp_path / "absent")}]},
            {"cluster_key": "short"},
            {"cluster_key": "", "cluster_key_file": str(tmp_path / "absent")},
            {"store": "tape"},
            {"store": "file:/proc/none"},
            {"database": "none"},
            {"database": f"sqlite:///{tmp_path}/absent/db"},
            {"notify": "redis://127.0.0.1:http"},
        ]
        for count, slip in enumerate(slips, 1):
            _set(data, **slip)
            server.send_signal(signal.SIGHUP)
            wait_until(
                lambda count=count: (
                    log.read_text().count(KEPT) >= count or server.poll() is not None
                ),
                f"a word on {slip}",
            )
            assert server.poll() is None, (slip, log.read_text())
            (data / "config.json").write_text(right)
        urllib.request.urlopen(f"{url}/healthz").close()
        assert "Traceback" not in log.read_text()


@pytest.mark.parametrize("bind", ["here", ":8384", "127.0.0.1:99999", "127.0.0.1:http", "[::1]"])
def test_an_address_that_can_not_be_is_none_in_a_config(tmp_path: Path, bind: str) -> None:
    for command, data in (("init", tmp_path / "new"), ("run", tmp_path / "made")):
        done = CliRunner().invoke(main, [command, "--data", str(data), "--bind", bind])
        assert done.output == f"dblike-server: bind: {bind!r} is not HOST:PORT\n"
        assert done.exit_code == 2
    assert not (tmp_path / "new").exists()
