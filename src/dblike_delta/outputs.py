"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
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
    the disk, and in its place there, when the block has ended.
    """
    replaced = target.exists()
    meant = Path(os.path.realpath(target)) if target.is_symlink() else target
    if replaced and not (target.is_file() and meant.exists()):
        with target.open("wb") as file:  # no file, or one that has no name any more
            yield file
        return
    target = meant
    import tempfile  # most commands of a client never come here

    with in_the_name_of(target):
        handle, temporary = tempfile.mkstemp(
            prefix=f".{target.name[:32]}.", dir=staging or target.parent
        )
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            if durable or replaced:  # else a power cut may leave neither content
                file.flush()
                os.fsync(file.fileno())
        with in_the_name_of(target):
            _dress(Path(temporary), target)
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


def _dress(made: Path, target: Path) -> None:
    """Mode and owner of the file to be replaced, or what a new file gets."""
    if not target.exists():
        mask = os.umask(0)
        os.umask(mask)
        made.chmod(0o666 & ~mask)
        return
    was, now = target.stat(), made.stat()
    mode = was.st_mode & 0o777
    if (now.st_uid, now.st_gid) != (was.st_uid, was.st_gid) and not _give(made, was):
        mode &= 0o707  # what one group may do is nothing for another one
    made.chmod(mode)


def _give(made: Path, was: os.stat_result) -> bool:
    """Give a file to the owner and group of another one as far as may be; whether to the group."""
    for owner in (was.st_uid, -1):
        with contextlib.suppress(OSError):
            os.chown(made, owner, was.st_gid)
            return True
    return made.stat().st_gid == was.st_gid
