"""The watching loop: what it says when it can't watch."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import io
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO, cast
from unittest.mock import Mock

import pytest

from dblike_cli import watch
from dblike_cli.exits import Exit
from dblike_cli.output import Output
from dblike_cli.report import Hints
from dblike_cli.session import Session
from dblike_cli.treewatch import InotifyTree
from dblike_cli.wakeups import Wakeups
from dblike_cli.watch import Loop
from dblike_delta.exchange import Unreachable
from dblike_delta.seams import SystemClock
from rig.devices import Laptop
from rig.wsgi import WsgiTransport

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


class Slept(SystemClock):
    """The wall's clock went on while this machine did not."""

    ahead = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead


def test_after_a_sleep_no_connection_is_believed_to_be_there(tmp_path: Path) -> None:
    """A request on one that nobody knows any more would be waited for for two minutes."""
    clock, transport = Slept(), Mock()
    session = SimpleNamespace(
        root=tmp_path,
        own=tmp_path / ".dblike",
        clock=clock,
        config=SimpleNamespace(rescan=3600),
        transport=transport,
    )
    loop = Loop(cast("Session", session), Wakeups(clock), None)
    loop._due(None)
    assert not transport.refresh.called
    clock.ahead = 3600_000
    hints = loop._due(None)
    assert hints is not None
    assert hints.everywhere
    assert transport.refresh.called


def test_the_grace_ends_what_is_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the steps of the end itself, and however often it is asked for."""

    left, closed = [], threading.Event()

    def run(_: Loop) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
            left.append(signal.getitimer(signal.ITIMER_REAL)[0])

    def close(_: Loop) -> None:
        time.sleep(PATIENCE)
        closed.set()

    monkeypatch.setattr(watch, "_GRACE", 1)
    monkeypatch.setattr(Loop, "run", run)
    monkeypatch.setattr(Loop, "close", close)
    (tmp_path / ".dblike").mkdir()
    session = SimpleNamespace(
        root=tmp_path,
        own=tmp_path / ".dblike",
        clock=SystemClock(),
        config=SimpleNamespace(rescan=3600),
        transport=SimpleNamespace(),
    )
    assert watch.watch_folder(cast("Session", session), None) is Exit.DONE
    assert left[0] > left[1] > 0
    assert not closed.is_set()


def test_what_a_full_disk_does_not_take_of_what_is_said_ends_nothing(tmp_path: Path) -> None:
    """Where both streams go to a file on the disk that is full."""
    with open("/dev/full", "w") as full:
        output = Output(as_json=True, stdout=full, stderr=full)
        session = SimpleNamespace(output=output, clock=SystemClock())
        reporter = watch.WatchReporter(cast("Session", session), Wakeups(SystemClock()))
        for _ in range(1000):
            reporter.trouble({"event": "paused"}, "the disk is full; waiting")
            output.note("no room for it")
        with contextlib.suppress(OSError):
            full.close()
    with pytest.raises(BrokenPipeError):
        Output(stderr=cast("TextIO", Gone())).note("nobody listens")


class Gone(io.StringIO):
    """A pipe whose reader has ended."""

    def write(self, _: str) -> int:
        raise BrokenPipeError


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def loop(tmp_path: Path, said: io.StringIO) -> Iterator[Loop]:
    (tmp_path / "root" / ".dblike").mkdir(parents=True)
    clock = Slept()
    session = SimpleNamespace(
        root=tmp_path / "root",
        own=tmp_path / "root" / ".dblike",
        clock=clock,
        config=SimpleNamespace(rescan=3600),
        transport=Mock(),
        output=Output(stderr=said),
    )
    made = Loop(cast("Session", session), Wakeups(clock), None)
    yield made
    made.leave_root()


def linked(loop: Loop, wire: WsgiTransport) -> Laptop:
    """Let the loop's folder be that of a device."""
    session = cast("Any", loop._session)
    one = Laptop(session.root, wire)
    session.context = lambda reporter: dataclasses.replace(one.context, reporter=reporter)
    session.reset, session.learn, session.log = one.restart, Mock(), Mock()
    return one


def test_what_took_the_folders_place_is_looked_at_whenever_the_site_fails(
    loop: Loop, wire: WsgiTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what happened there before it was watched nothing was heard."""
    one = linked(loop, wire)
    loop._step(Hints(everywhere=True))
    loop.leave_root()
    one.write("f", "x")
    with monkeypatch.context() as away:
        away.setattr(one.exchange, "changes", Mock(side_effect=Unreachable("no way to it")))
        loop._step(Hints())
        assert loop._failures == 1
    loop._step(Hints())
    assert loop._failures == 0
    assert one.state.tree.get(b"f") is not None
    one.close()


def test_nothing_is_in_sync_while_a_brake_holds(
    loop: Loop, said: io.StringIO, wire: WsgiTransport
) -> None:
    """What is held is not looked at again when something else is saved."""
    one = linked(loop, wire)
    for number in range(60):
        one.write(f"d/{number}", f"{number}")
    loop._step(Hints(everywhere=True))
    assert loop._in_sync
    kept = one.root.parent / "kept"
    one.place("d").rename(kept)
    loop._step(Hints(frozenset({b"d"})))
    assert "60 of 60 files disappeared" in said.getvalue()
    one.write("f", "x")
    loop._step(Hints(frozenset({b"f"})))
    assert one.state.tree.get(b"f") is not None
    assert not loop._in_sync
    kept.rename(one.place("d"))
    loop._step(Hints(everywhere=True))
    assert loop._in_sync
    one.close()


def look_everywhere(loop: Loop) -> None:
    """As a look each minute does, of one that is blind."""
    cast("Slept", loop._session.clock).ahead += 3600_000
    hints = loop._due(None)
    assert hints is not None
    assert hints.everywhere
    loop._warn_of_blindness()


def test_watching_begins_once_a_program_more_may_watch(
    loop: Loop, said: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is said of it names the limit that was reached."""

    def refuse(*_: Any) -> None:
        raise OSError(errno.EMFILE, "inotify instance limit reached")

    with monkeypatch.context() as few:
        few.setattr(InotifyTree, "__init__", refuse)
        loop.take_root()
        loop._warn_of_blindness()
        assert "fs.inotify.max_user_instances=" in said.getvalue()
        look_everywhere(loop)
        assert loop._is_blind
    look_everywhere(loop)
    assert not loop._is_blind
    assert said.getvalue().endswith("dblike: everything is watched again\n")
    (loop._session.root / "new").mkdir()
    hints = loop._wakeups.wait(PATIENCE)
    assert hints is not None
    assert hints.paths == {b"new"}


def test_a_limit_that_was_raised_counts(
    loop: Loop, said: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The remedy that is told helps: without a new start of watch."""
    limit = 1

    def watch_some(self: InotifyTree, path: bytes) -> None:
        if len(self._watches) < limit:
            watch_all(self, path)
        else:
            self._unseen.add(path)

    watch_all = InotifyTree._watch
    monkeypatch.setattr(InotifyTree, "_watch", watch_some)
    monkeypatch.setattr(watch, "watch_limit", lambda: limit)
    (loop._session.root / "sub").mkdir()
    loop.take_root()
    loop._warn_of_blindness()
    assert "1 directory can't be watched" in said.getvalue()
    tree = loop._tree
    look_everywhere(loop)
    assert loop._tree is tree, "it would be in vain"
    limit = 10
    look_everywhere(loop)
    assert not loop._is_blind
    assert said.getvalue().endswith("dblike: everything is watched again\n")
