"""One instance for each linked folder: a lock that the kernel gives back when its holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from dblike_cli.errors import Locked, StateDamaged

_TRIES: Final = 100
_MOMENT: Final = 0.001


@contextlib.contextmanager
def hold(file: Path, purpose: str) -> Iterator[None]:
    """Hold the lock while the block runs; raises Locked, naming who has it.

    The file holds pid and purpose for that message only: what counts is the kernel's lock, so a
    file that a crash left behind stops nobody.
    """
    descriptor = _open(file)
    try:
        if not _take(descriptor):
            raise Locked(f"{_holder(file)} is at work in {file.parent.parent}")
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()} {purpose}\n".encode(), 0)
        yield
    finally:
        # Closing gives the lock back.  The file stays: removing it would let two processes lock
        # two different files of this name.
        os.close(descriptor)


def _take(descriptor: int) -> bool:
    """Whether the lock could be had.  Who only asks for its holder has it for a moment, too."""
    for _ in range(_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_MOMENT)
        else:
            return True
    return False


def holder(file: Path) -> str | None:
    """Who holds the lock now ("dblike watch, process 123"), or None."""
    try:
        descriptor = _open(file)
    except StateDamaged:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(file)
    finally:
        os.close(descriptor)
    return None


def _open(file: Path) -> int:
    try:
        return os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateDamaged(f"{file}: {error.strerror}") from None


def _holder(file: Path) -> str:
    pid, _, purpose = file.read_text("utf-8", "replace").strip().partition(" ")
    return f"dblike {purpose}, process {pid}," if pid else "another instance"
