"""What goes into reconcile and comes out of it: the entries of three trees, the steps of a plan."""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from dblike_delta.versions import Dot, Kind


class Entry(msgspec.Struct, frozen=True):
    """What is at a path: a file, a directory or a symlink.  Absence is None."""

    kind: Kind
    hash: bytes = b""
    size: int = 0
    mode: int = 0
    mtime_ns: int = 0
    target: bytes = b""


NO_MODE: Final = 0o10000
"""The mode of an entry that stands in the synced tree for what nobody knows any more: it is like
nothing that can be here or there, and is never made."""


class Unknown(enum.Enum):
    """The type of UNKNOWN."""

    UNKNOWN = "unknown"


UNKNOWN: Final = Unknown.UNKNOWN
"""What is here can't be read: it and all below is left alone, and never taken for deleted."""

Local = Entry | None | Unknown


class Synced(msgspec.Struct, frozen=True):
    """What both sides agreed on last, the sealed context that came with it, and its version."""

    entry: Entry | None
    context: bytes
    dot: Dot


class Remote(msgspec.Struct, frozen=True):
    """The present state at the site; `entry` is None where the path is deleted, and `buried` what
    was deleted then, where that could be brought back."""

    entry: Entry | None
    dot: Dot
    context: bytes
    buried: Entry | None = None


class Upload(msgspec.Struct, frozen=True):
    """Commit `entry` (None: a delete), made with knowledge of `context` only."""

    path: bytes
    entry: Entry | None
    context: bytes
    base: Entry | None

    @property
    def old(self) -> Entry | None:
        """What the path was."""
        return self.base

    @property
    def new(self) -> Entry | None:
        """What the path becomes."""
        return self.entry


class Apply(msgspec.Struct, frozen=True):
    """Make the path what it is at the site, if it still is what was `expected`."""

    path: bytes
    remote: Remote
    expected: Entry | None

    @property
    def old(self) -> Entry | None:
        """What the path was."""
        return self.expected

    @property
    def new(self) -> Entry | None:
        """What the path becomes."""
        return self.remote.entry


class Adopt(msgspec.Struct, frozen=True):
    """The content is the same on both sides: record that, and take the site's mode and mtime."""

    path: bytes
    remote: Remote
    local: Entry


class Forget(msgspec.Struct, frozen=True):
    """The path is gone on both sides."""

    path: bytes


class Reason(enum.Enum):
    """Why nothing is done about a path."""

    UNREADABLE = "can't be read here"
    NOT_EMPTY = "something below it stays"
    NO_PARENT = "its directory is not there yet"


class Held(msgspec.Struct, frozen=True):
    """Something is to be done about the path, but not now."""

    path: bytes
    reason: Reason


class Plan(msgspec.Struct, frozen=True):
    """What to do, each list in the order in which it can be done."""

    uploads: tuple[Upload, ...] = ()
    applies: tuple[Apply, ...] = ()
    adopts: tuple[Adopt, ...] = ()
    forgets: tuple[Forget, ...] = ()
    held: tuple[Held, ...] = ()

    @property
    def idle(self) -> bool:
        """Whether there is nothing that can be done."""
        return not (self.uploads or self.applies or self.adopts or self.forgets)


Step = Upload | Apply | Adopt | Forget | Held
