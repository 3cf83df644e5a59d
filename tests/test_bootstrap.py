"""scripts/bootstrap, as far as it can be seen on a system that has everything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import bootstrap
import system_packages
from system_packages import Need

NEEDS = (
    Need("a thing", lambda: False, ("libthing-dev", "thing"), "things are slow"),
    Need("another", lambda: True, ("another",), "nothing is lost"),
)


def test_only_what_is_missing_is_asked_for() -> None:
    absent = system_packages.missing(NEEDS)
    assert [need.name for need in absent] == ["a thing"]
    command = system_packages.command_for(absent)
    assert command.endswith("install -y --no-install-recommends libthing-dev thing")


def test_without_apt_nothing_is_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not system_packages.can_install()


def test_what_is_lost_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    bootstrap.warn_about(system_packages.missing(NEEDS))
    said = capsys.readouterr().err
    assert "a thing: things are slow" in said
    assert "libthing-dev" in said
    assert "another" not in said


def test_the_fingerprint_tells_the_modes_apart() -> None:
    assert bootstrap.fingerprint(tests=True) != bootstrap.fingerprint(tests=False)
    assert bootstrap.fingerprint(tests=True) == bootstrap.fingerprint(tests=True)


@pytest.mark.skipif(not bootstrap.is_current(tests=True), reason="not set up by scripts/bootstrap")
def test_a_second_run_does_and_says_nothing() -> None:
    before = bootstrap.STAMP.stat()
    command = [sys.executable, bootstrap.__file__, "--tests"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""
    assert bootstrap.STAMP.stat() == before
