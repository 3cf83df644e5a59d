"""A path while its transaction lasts."""

from __future__ import annotations

import dataclasses

from dblike_delta.versions import Kind, Version, winner


@dataclasses.dataclass(slots=True, eq=False)
class Node:
    """A path: its heads, and where it stands in the database.  `row` is 0 for a new one."""

    path: bytes
    row: int = 0
    heads: tuple[Version, ...] = ()
    before: Version | None = None
    touched: bool = False

    @property
    def winner(self) -> Version | None:
        return winner(self.heads) if self.heads else None

    @property
    def is_directory(self) -> bool:
        return bool(self.heads) and winner(self.heads).kind == Kind.DIRECTORY

    @property
    def live(self) -> bool:
        return bool(self.heads) and winner(self.heads).live


def is_file(version: Version | None) -> int:
    """1 where it is a file, to be summed up."""
    return int(version is not None and version.kind == Kind.FILE)


def size_of(version: Version | None) -> int:
    """Bytes of a live file."""
    return version.size if version is not None and version.kind == Kind.FILE else 0
