"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from dblike_delta.system import sync_path


@contextlib.contextmanager
def whole(
    target: Path, *, staging: Path | None = None, durable: bool = False
) -> Iterator[BinaryIO]:
    """A new content for the file `target`, which takes its place when the block ends.

    Until then it lies in `staging`, a directory of the same file system, or beside the target; an
    error in the block leaves all as it was.  What is no plain file, such as a device or a pipe, is
    written to, not replaced; of a symlink it is the file that this leads to.  `durable`: it is on
    the disk before it takes its place.
    """
    there = target.exists()
    meant = Path(os.path.realpath(target)) if target.is_symlink() else target
    if there and not (target.is_file() and meant.exists()):
        with target.open("wb") as file:  # no file, or one that has no name any more
            yield file
        return
    target = meant
    with in_the_name_of(target):
        handle, temporary = tempfile.mkstemp(
            prefix=f".{target.name[:32]}.", dir=staging or target.parent
        )
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        with in_the_name_of(target):
            Path(temporary).chmod(_mode(target))
            Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    if durable:
        sync_path(target.parent)


@contextlib.contextmanager
def in_the_name_of(target: Path) -> Iterator[None]:
    """Let errors name the file that the user knows of."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(target)) from error


def _mode(target: Path) -> int:
    """That of the file to be replaced, or what a new file gets."""
    if target.exists():
        return target.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
