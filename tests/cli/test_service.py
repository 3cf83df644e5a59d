"""The systemd unit."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dblike_cli import service
from dblike_cli.config import unit_directory
from dblike_cli.errors import NotLinked
from dblike_cli.session import find_root


def test_each_folder_has_a_unit_of_its_own() -> None:
    names = {service.unit_name(Path(p)) for p in ("/a/Files", "/b/Files", "/a/My Files", "/é", "/")}
    assert len(names) == 5
    assert all(name.startswith("dblike-") and name.endswith(".service") for name in names)
    assert all(name.isascii() and "/" not in name and " " not in name for name in names)


def test_the_unit_names_interpreter_and_folder() -> None:
    text = service.unit_text(Path('/a b/50% "$HOME" \\x'))
    line = next(line for line in text.splitlines() if line.startswith("ExecStart="))
    assert f'"{sys.executable}" "-m" "dblike_cli" "-C"' in line
    assert '"/a b/50%% \\"$$HOME\\" \\\\x" "watch"' in line
    assert "Restart=on-failure" in text


def test_the_units_of_strange_folders_have_no_second_line() -> None:
    text = service.unit_text(Path("/a\nExecStart=/bin/evil"))
    assert text.count("\nExecStart=") == 1


@pytest.mark.parametrize("name", ["My\u00a0Files", "a\u200bb", "\u00adc", "caf\udce9", "é", "a\nb"])
def test_the_unit_names_the_folder_byte_by_byte(name: str) -> None:
    """In a unit `\\xa0` is a byte, as in C; a no-break space has two of them."""
    text = service.unit_text(Path("/files") / name).encode()  # which a unit has to be: UTF-8
    line = next(line for line in text.splitlines() if line.startswith(b"ExecStart="))
    given = line.split(b'"')[-4]
    unescaped = re.sub(rb"\\x(..)", lambda found: bytes.fromhex(found[1].decode()), given)
    assert unescaped == os.fsencode(f"/files/{name}")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not here")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    file = tmp_path / "dblike-test.service"
    file.write_text(service.unit_text(tmp_path / "my files 100%"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", file], capture_output=True, text=True, check=False
    )
    assert "dblike-test.service" not in done.stderr, done.stderr


def test_where_units_are() -> None:
    assert unit_directory({"XDG_CONFIG_HOME": "/x"}) == Path("/x/systemd/user")
    assert unit_directory({}) == Path.home() / ".config/systemd/user"


def test_a_disk_that_is_not_mounted_yet_is_waited_for(tmp_path: Path) -> None:
    with pytest.raises(NotLinked) as caught:
        find_root(tmp_path)
    text = service.unit_text(tmp_path)
    never = next(line for line in text.splitlines() if line.startswith("RestartPrevent"))
    assert str(int(caught.value.exit_code)) not in never.partition("=")[2].split()
