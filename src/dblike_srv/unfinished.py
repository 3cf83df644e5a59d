"""What came of contents so far, kept in a directory so that a cut costs little.

`pack` holds the literals, `state` how far the stream came and what is known of its versions.  The
state is replaced now and then, and where a stream ends; who did not see the beginning reads the
pack once to go on.  Before the pack goes into the store the state says its name there, so that the
stream need not come again where what follows fails.  Nothing here needs to survive a power cut:
what is of another boot is forgotten, and sent again.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from dblike_delta.decoding import unpacker
from dblike_srv.intake import Intake, Suspended
from dblike_srv.packs import Pack
from dblike_srv.store.base import PackStore
from dblike_srv.store.spool import SpoolWriter

SAVE_EVERY: Final = 2 << 20
"""Bytes after which the state is written also while more come."""
NO_STATE: Final = -1
"""In place of the descriptor of one."""
IDLE_MS: Final = 24 * 3600 * 1000
"""What nobody went on with for so long may be removed."""


class State(msgspec.Struct, frozen=True, array_like=True):
    """How far a stream came, and how long the pack was then.

    `complete` says that it came to its end, `name` what the pack is called in the store.
    """

    boot: str
    offset: int
    size: int
    intake: Suspended
    complete: bool = False
    name: bytes = b""


_decode = unpacker(State)


class Unfinished:
    """An intake's pack and state in `directory`; those that are there already are gone on with."""

    def __init__(self, directory: Path, store: PackStore) -> None:
        self._directory = directory
        self._state = state = read_state(directory, store)
        self.offset = 0 if state is None else state.offset
        """Where the stream stood when the state was written last."""
        self.complete = state is not None and state.complete
        """Whether that was its end."""
        self.adopted: Pack | None = None
        """The pack, where it is in the store already; then nothing may be written."""
        size: int | None = 0 if state is None else state.size
        if state is not None and not _is_here(directory, state):
            self.adopted, size = Pack(state.name, state.size), None
        self.writer = SpoolWriter(directory / "pack", store.adopt, size=size)

    def restore(self, intake: Intake) -> bool:
        """Bring an intake on our writer to where the last one stood; whether there was one."""
        state, self._state = self._state, None
        if state is not None:
            intake.resume(state.intake)
        return state is not None

    def save(
        self, intake: Intake, offset: int = 0, *, complete: bool = False, name: bytes = b""
    ) -> None:
        """Write the state, beside the caller, when the pack has what it says; see `settle`."""
        suspended = intake.suspend()
        state = State(_boot(), offset, self.writer.size, suspended, complete, name)
        self.writer.then(functools.partial(self._write, msgspec.msgpack.encode(state)))
        self.offset = offset

    def settle(self) -> None:
        """Wait until it is written."""
        self.writer.settle()

    def _write(self, state: bytes) -> None:
        temporary = self._directory / "state.new"
        temporary.write_bytes(state)
        os.replace(temporary, self._directory / "state")

    def close(self) -> None:
        """Let go of the files, and leave them."""
        self.writer.close()


def read_state(directory: Path, store: PackStore) -> State | None:
    """How far it came; None where there is nothing to go on with.  Raises Away."""
    state = _read(directory)
    if state is None or _is_here(directory, state) or _is_stored(store, state):
        return state
    return None


def _is_here(directory: Path, state: State) -> bool:
    """Whether the pack's bytes lie beside the state."""
    try:
        return (directory / "pack").stat().st_size >= state.size
    except FileNotFoundError:
        return not state.size


def _is_stored(store: PackStore, state: State) -> bool:
    try:
        return bool(state.name) and store.size(state.name) == state.size
    except FileNotFoundError:
        return False


def _read(directory: Path) -> State | None:
    """The state, where it is of this boot."""
    try:
        state = _decode((directory / "state").read_bytes())
    except (OSError, msgspec.DecodeError):
        return None
    return state if state.boot == _boot() else None


def open_state(directory: Path) -> int:
    """A descriptor of the state that is there now, or NO_STATE."""
    try:
        return os.open(directory / "state", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return NO_STATE


def close_state(descriptor: int, directory: Path) -> bool:
    """Let go of a state; whether it is the one that is there."""
    try:
        there = (directory / "state").stat()
        return descriptor != NO_STATE and os.path.samestat(os.fstat(descriptor), there)
    except FileNotFoundError:
        return descriptor == NO_STATE
    finally:
        if descriptor != NO_STATE:
            os.close(descriptor)


def remove_idle(directories: Iterable[Path], now_ms: int) -> int:
    """Remove those of another boot, and those that nobody goes on with; how many."""
    removed = 0
    for directory in directories:
        state = directory / "state"
        with contextlib.suppress(OSError):
            young = directory.stat().st_mtime_ns // 1_000_000 >= now_ms - IDLE_MS
            if young and (not state.exists() or _read(directory) is not None):
                continue
            shutil.rmtree(directory, ignore_errors=True)
            removed += 1
    return removed


@functools.cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
