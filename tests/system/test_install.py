"""What an installation has to be: the kernel compiled where it can be, the commands in place."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest

from dblike_delta import kernel


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler (apt-get install gcc)")
@pytest.mark.skipif(
    not Path(sysconfig.get_path("include"), "Python.h").exists(),
    reason="no headers of Python (apt-get install python3-dev)",
)
def test_the_kernel_is_compiled_where_it_can_be() -> None:
    assert kernel.name == "compiled"


@pytest.mark.parametrize("package", ["dblike_cli", "dblike_delta", "dblike_srv"])
def test_type_checkers_may_read_the_packages(package: str) -> None:
    files = metadata.packages_distributions()[package]
    assert set(files) == {"dblike"}
    (found,) = __import__(package).__path__
    assert Path(found, "py.typed").exists()


@pytest.mark.parametrize("program", ["dblike", "dblike-server"])
def test_the_version_is_one(program: str) -> None:
    command = [Path(sys.executable).parent / program, "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"{program} {metadata.version('dblike')}\n"
