"""What a cycle is asked, what it says while it runs, and what came of it."""

from __future__ import annotations

import enum
from typing import Literal, Protocol

import msgspec

from dblike_cli.exits import Exit


class Direction(enum.Enum):
    """Which way changes travel."""

    PUSH = "push"
    PULL = "pull"
    BOTH = "both"

    @property
    def up(self) -> bool:
        """Whether local changes go to the site."""
        return self is not Direction.PULL

    @property
    def down(self) -> bool:
        """Whether the site's changes come here."""
        return self is not Direction.PUSH


class Hints(msgspec.Struct, frozen=True):
    """Where it is worth looking; never what happened there.

    `paths` are looked at, and what lies below them; `everywhere` looks at the whole folder;
    `remote` asks the site.
    """

    paths: frozenset[bytes] = frozenset()
    everywhere: bool = False
    remote: bool = True


class Code(enum.StrEnum):
    """Why a path is not in sync, for programs."""

    WRITING = "writing"  # it changed while it was read: still being written
    UNREADABLE = "unreadable"  # permission, I/O error, a mount gone stale
    SPECIAL = "special"  # FIFO, socket or device: never synced
    NAME = "name"  # the name can't be a path of a folder
    HELD = "held"  # the disk takes its name for that of another path
    CHANGED = "changed"  # it changed here, too, before it would have been replaced
    KEPT = "kept"  # a directory that stays because of what is in it
    OCCUPIED = "occupied"  # something of another kind that is not synced lies in its way
    NO_SPACE = "no-space"
    DISK = "disk"  # the disk said no
    DAMAGED = "damaged"  # the content that came is not what its hash says
    UNAVAILABLE = "unavailable"  # the site can't serve the content now
    REFUSED = "refused"  # the site does not take it
    BRAKE = "brake"  # held by the mass-delete brake
    RULE = "rule"  # something in .dblikeignore is no rule


class Pending(msgspec.Struct, frozen=True):
    """A path that is not in sync, and why."""

    path: bytes
    reason: str
    code: Code

    @property
    def over_quota(self) -> bool:
        """Whether the site did not take it because the user's space is used up."""
        return self.code is Code.REFUSED and self.reason.startswith("over quota")


class Brake(msgspec.Struct, frozen=True):
    """A mass delete that was not carried out: `count` of `total` files, symlinks among them, seen
    on `side`; `also` is that of the other side, where both had one."""

    side: Literal["local", "remote"]
    count: int
    total: int
    examples: tuple[bytes, ...] = ()
    also: Brake | None = None

    @property
    def message(self) -> str:
        """One line for a person."""
        said, most = self.held, self.count
        if self.also is not None:
            said, most = f"{said}, and {self.also.held}", max(most, self.also.count)
        return f"{said}; if that is right, go on with --max-delete {most}"

    @property
    def held(self) -> str:
        """What was held on its side."""
        where = "disappeared from this folder" if self.side == "local" else "were deleted remotely"
        return f"{self.count} of {self.total} files {where}"


Action = Literal["upload", "delete-remote", "download", "delete-local", "adopt"]


class Planned(msgspec.Struct, frozen=True):
    """A step that a dry run would have taken."""

    action: Action
    path: bytes
    size: int = 0


class Report(msgspec.Struct, frozen=True):
    """What came of a cycle.

    `uploaded`, `applied` and `adopted` are live paths that went up, came down, and were found equal
    on both sides; `deleted` went away on one side because it had on the other; `conflicts` are
    conflict copies that arrived.  `in_sync` says that nothing is left to do in the directions that
    were asked for.  `new_device`: this installation became another device.  `short` is the number
    of versions that fewer sites hold than should.
    """

    uploaded: tuple[bytes, ...] = ()
    applied: tuple[bytes, ...] = ()
    adopted: tuple[bytes, ...] = ()
    deleted: tuple[bytes, ...] = ()
    conflicts: tuple[bytes, ...] = ()
    pending: tuple[Pending, ...] = ()
    refused: tuple[Pending, ...] = ()
    planned: tuple[Planned, ...] = ()
    bytes_sent: int = 0
    bytes_received: int = 0
    brake: Brake | None = None
    in_sync: bool = True
    rounds: int = 0
    scanned: int = 0
    new_device: bool = False
    short: int = 0

    @property
    def exit_code(self) -> Exit:
        """The exit code that says all this."""
        if self.brake is not None or any(item.over_quota for item in self.refused):
            return Exit.BRAKE
        if any(item.code is Code.DAMAGED for item in self.pending):
            return Exit.INTEGRITY
        if self.hindered or self.conflicts or not self.in_sync:
            return Exit.PENDING
        return Exit.DONE

    @property
    def hindered(self) -> bool:
        """Whether there is a path that something keeps from being synced: not by being what never
        is."""
        return bool(self.refused) or any(item.code is not Code.SPECIAL for item in self.pending)


Phase = Literal["scan", "changes", "upload", "download", "apply"]


class Progress(msgspec.Struct, frozen=True):
    """How far a phase is; totals are 0 where they are not known.  Calls may be frequent."""

    phase: Phase
    done: int = 0
    total: int = 0
    bytes_done: int = 0
    bytes_total: int = 0
    path: bytes = b""


class Outcome(msgspec.Struct, frozen=True):
    """What became of one path, said when it is durable."""

    action: Action | Literal["conflict"]
    path: bytes
    size: int = 0


class Reporter(Protocol):
    """Hears what happens while it happens; never called from two threads at once."""

    def progress(self, event: Progress | Outcome | Pending) -> None:
        """Take note of an event; must return soon."""


class Silent:
    """A reporter that says nothing."""

    def progress(self, event: Progress | Outcome | Pending) -> None:
        """Drop the event."""
