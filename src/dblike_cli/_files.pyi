"""Types of what is compiled."""

from collections.abc import Sequence
from typing import TypeAlias

from dblike_delta.commands import Data

_Seen: TypeAlias = tuple[int, int, int, int, int, int]
"""st_mode, st_size, st_mtime_ns, st_ctime_ns, st_ino, st_dev."""

class Making:
    """New files in the directory of that descriptor, by (name, content, mode, mtime_ns), made
    while the caller goes on.  Raises OSError, OverflowError."""

    def __init__(self, directory: int, files: Sequence[tuple[bytes, Data, int, int]]) -> None: ...
    def done(self) -> bool:
        """Whether `result` need not wait."""

    def result(self) -> list[_Seen]:
        """What fstat says of them.  Raises OSError where one can't be made: then there is none."""

def move_files(old: int, new: int, names: Sequence[tuple[bytes, bytes]]) -> list[_Seen | None]:
    """Rename from one directory to names that are free in another, by (source, target).

    None for what stays where it is, zeros for what could not be looked at in its new place.
    """
