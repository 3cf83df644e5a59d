"""The watching loop: what it says when it can't watch."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dblike_cli.output import Output
from dblike_cli.session import Session
from dblike_cli.treewatch import InotifyTree
from dblike_cli.wakeups import Wakeups
from dblike_cli.watch import Loop
from dblike_delta.seams import SystemClock

PATIENCE = 30


def test_where_watching_ends_it_is_said_and_all_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quiet is what nothing looks like, too."""

    def fail(*_: Any) -> None:
        raise RuntimeError("a surprise")

    root, clock, said = tmp_path / "root", SystemClock(), io.StringIO()
    (root / ".dblike").mkdir(parents=True)
    session = SimpleNamespace(
        root=root,
        own=root / ".dblike",
        clock=clock,
        config=SimpleNamespace(rescan=3600),
        transport=SimpleNamespace(),
        output=Output(stderr=said),
    )
    wakeups = Wakeups(clock)
    monkeypatch.setattr(InotifyTree, "_directory", fail)
    loop = Loop(cast("Session", session), wakeups, None)
    loop.take_root()
    loop._warn_of_blindness()
    assert not loop._is_blind
    (root / "new").mkdir()
    hints = wakeups.wait(PATIENCE)
    assert hints is not None
    assert hints.everywhere
    loop._warn_of_blindness()
    assert loop._is_blind
    assert "nothing is watched any more: a surprise" in said.getvalue()
    loop.leave_root()
