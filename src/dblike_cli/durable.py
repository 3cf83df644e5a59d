"""Making what is on the disk durable, before it is remembered as agreed.

What the state says was here is taken for a user's edit or delete where the disk has it otherwise.
So nothing may be remembered that a power cut could still take from the disk: not what was made
here, and not what a program saved here without making it durable.

What is read here is made durable before, not after: what a program stores through a map of a file
moves the time of that only where the page had been written out since the last store.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Collection, Iterable
from typing import Final

from dblike_cli.context import Context
from dblike_cli.fs import File
from dblike_delta.paths import parent

_FEW: Final = 16
"""So many files or directories are made durable one by one; more, with all else on the disk."""
_GONE: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.EINVAL)
"""It is not there any more, or something else: the next look finds that out."""


def sync_contents(context: Context, places: Collection[bytes]) -> None:
    """Make the contents of our own files durable.  An error means that they are not."""
    if not context.config.durable or not places:
        return
    if len(places) > _FEW:
        context.fs.sync_all()
        return
    for place in places:
        try:
            _sync_file(context, place)
        except PermissionError:  # it has the mode of its version by now
            context.fs.sync_all()
            return


def sync_names(context: Context, paths: Iterable[bytes]) -> None:
    """Make it durable that these paths are where they are, or gone."""
    if not context.config.durable:
        return
    directories = {parent(path) for path in paths}
    if len(directories) > _FEW:
        context.fs.sync_all()
        return
    for directory in directories:
        _sync_directory(context, directory)


def _sync_directory(context: Context, directory: bytes) -> None:
    """Of one that is gone, too, the name is missing in the next one above it."""
    while True:
        try:
            return context.fs.sync_directory(directory)
        except PermissionError:  # what can't be opened can't be made durable by itself
            return context.fs.sync_all()
        except OSError as error:
            if error.errno not in _GONE or not directory:
                raise
        directory = parent(directory)


def sync_found(context: Context, files: Collection[bytes], paths: Collection[bytes]) -> None:
    """Make what programs left here durable: the contents of `files`, and where `paths` are or that
    they are gone."""
    _sync(context, files, paths, _sync_found)


def sync_seen(context: Context, files: Collection[bytes], paths: Collection[bytes]) -> None:
    """The same for what is to be read: of what can't be opened the reader says why."""
    _sync(context, files, paths, _sync_seen)


def _sync(
    context: Context,
    files: Collection[bytes],
    paths: Collection[bytes],
    sync_one: Callable[[Context, bytes], None],
) -> None:
    if not context.config.durable:
        return
    if len(files) > _FEW:
        context.fs.sync_all()
        return
    for path in files:
        sync_one(context, path)
    sync_names(context, paths)


def _sync_found(context: Context, path: bytes) -> None:
    try:
        _sync_file(context, path)
    except PermissionError:
        context.fs.sync_all()
    except OSError as error:
        if error.errno not in _GONE:
            raise


def _sync_seen(context: Context, path: bytes) -> None:
    try:
        file = context.fs.open_read(path)
    except OSError:
        return
    _sync_and_close(file)


class Flush:
    """Makes files durable that are read one by one: the first few by themselves, then all there
    are.  What is written after that can't be trusted by the time at which the reading began."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._done = 0

    def __call__(self, file: File) -> None:
        """Before a file is read."""
        if not self._context.config.durable or self._done > _FEW:
            return
        self._done += 1
        if self._done > _FEW:
            self._context.fs.sync_all()
        else:
            file.sync()


def _sync_file(context: Context, place: bytes) -> None:
    _sync_and_close(context.fs.open_read(place))


def _sync_and_close(file: File) -> None:
    try:
        file.sync()
    finally:
        file.close()
