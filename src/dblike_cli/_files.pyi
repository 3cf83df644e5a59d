"""Types of what is compiled."""

from collections.abc import Sequence

from dblike_delta.commands import Data

def create_files(
    directory: int, files: Sequence[tuple[bytes, Data, int, int]]
) -> list[tuple[int, int, int, int, int, int]]:
    """New files in the directory of that descriptor, by (name, content, mode, mtime_ns).

    For each (st_mode, st_size, st_mtime_ns, st_ctime_ns, st_ino, st_dev).  Raises OSError where one
    can't be made: then there is none of them.
    """
