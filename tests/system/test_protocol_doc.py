"""The sessions in the documents, typed into a real shell against a real server."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from srv.conftest import start_server

DOCS = Path(__file__).parents[2] / "docs"


def steps(page: str) -> list[tuple[str, str]]:
    """Each command of the page's sessions, with the output that it shows."""
    found: list[tuple[str, str]] = []
    text = (DOCS / page).read_text(encoding="utf-8")
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for line in block.splitlines(keepends=True):
            if line.startswith("$ "):
                found.append((line[2:], ""))
            else:
                found[-1] = (found[-1][0], found[-1][1] + line)
    return found


@pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("rdiff")),
    reason="needs curl and rdiff: apt-get install curl rdiff",
)
@pytest.mark.parametrize("page", ["protocol.md", "recipes.md"])
def test_the_page_says_what_happens(page: str, tmp_path: Path, spawn: Callable[..., Any]) -> None:
    """Every command ends well and prints what the page says."""
    server = start_server(spawn, tmp_path)
    work = tmp_path / "shell"
    work.mkdir()
    mark = "--- step"
    script = "set -e\n" + "".join(f"{command}echo '{mark}'\n" for command, _ in steps(page))
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=work,
        env={**os.environ, "URL": server.url},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    printed = done.stdout.split(f"{mark}\n")
    for (command, expected), output in zip(steps(page), printed, strict=False):
        # curl prints a body that ends without a newline right before the mark.
        assert output.rstrip("\n") == expected.rstrip("\n"), (
            command,
            done.stderr,
            server.log.read_text()[-2000:],
        )
    assert done.returncode == 0, (done.stdout[-500:], done.stderr, server.log.read_text()[-3000:])
