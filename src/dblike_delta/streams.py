"""Binary file-like objects of any kind, read in pieces."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final, Protocol, TypeVar

from dblike_delta.errors import DeltaError, FormatError

PIECE: Final = 1 << 20
FIRST: Final = 64 << 10
"""What is read at first: for a small file the cost of a large buffer is the most of the work."""
_PIECES_ALONE = 8
"""A thread is worth its start for files over 8 MiB."""
_WORTH_A_THREAD = 256 << 10
_NO_BYTES = "the file gave no bytes: non-blocking files can't be read"
_T = TypeVar("_T")

Progress = Callable[[int], object]
"""Is told how many bytes are done, about once a MiB; what it raises (Cancelled) ends the work."""


class Readable(Protocol):
    """Anything with a binary `read`."""

    def read(self, size: int, /) -> bytes | None:
        """At most `size` bytes, none at the end."""


class Writable(Protocol):
    """Anything with a binary `write`."""

    def write(self, data: bytes | bytearray | memoryview, /) -> int | None:
        """Take the bytes, or as many as the result says."""


class Seekable(Readable, Protocol):
    """A base: it is read at any offset."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go there."""


def reader(file: Readable) -> Callable[[memoryview], int]:
    """A function that reads into a buffer: how many bytes, none at the end."""
    into: Callable[[memoryview], int | None] | None = getattr(file, "readinto", None)

    def read(view: memoryview) -> int:
        if into is None:
            data = _read(file, len(view))
            view[: len(data)] = data
            return len(data)
        got = into(view)
        if got is None:
            raise DeltaError(_NO_BYTES)
        return got

    return read


def read_pieces(file: Readable, size: int = PIECE) -> Iterator[memoryview]:
    """All of the file.  A piece is good until the next one is asked for."""
    if getattr(file, "readinto", None) is None:
        while piece := _read(file, size):
            yield memoryview(piece)
        return
    read, view = reader(file), memoryview(bytearray(min(size, FIRST)))
    for _ in range(2):
        got = read(view)
        if not got:
            return
        yield view[:got]
    view = memoryview(bytearray(size))
    while got := read(view):
        yield view[:got]


def read_ahead(file: Readable, use: Callable[[memoryview], object]) -> Iterator[memoryview]:
    """As `read_pieces`; `use` (a hash's update) sees each piece first.

    In a large file the next piece is read and used by a thread while the caller works on this one.
    """
    if getattr(file, "readinto", None) is None:
        for piece in read_pieces(file):
            use(piece)
            yield piece
        return
    read = reader(file)

    def fetch(view: memoryview) -> memoryview:
        piece = view[: read(view)]
        use(piece)
        return piece

    for size, turns in ((FIRST, 2), (PIECE, _PIECES_ALONE)):
        view = memoryview(bytearray(size))
        for _ in range(turns):
            piece = fetch(view)
            if not piece:
                return
            yield piece
    views = [memoryview(bytearray(PIECE)) for _ in range(2)]
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
        pending = pool.submit(fetch, views[0])
        for turn in itertools.cycle((1, 0)):
            piece = pending.result()
            if not piece:
                return
            pending = pool.submit(fetch, views[turn])
            yield piece


@contextmanager
def write_behind(use: Callable[[_T], object]) -> Iterator[Callable[[_T, int], object]]:
    """A function that hands a value, and about how many bytes it will write, to `use`, in order.

    Much is written by a thread while the caller works on.  All is written where the block ends; an
    error of `use` comes with the next value, or there.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="write-behind")
    pending: Future[object] | None = None

    def put(value: _T, size: int) -> None:
        nonlocal pending
        if pending is not None:
            pending.result()
            pending = None
        if size < _WORTH_A_THREAD:
            use(value)
        else:
            pending = pool.submit(use, value)

    with pool:
        yield put
        if pending is not None:
            pending.result()


def read_exactly(file: Readable, size: int, what: str, at: int) -> bytes:
    """`size` bytes, in pieces so that a false claim costs nothing; `at` is where they begin."""
    parts, missing = [], size
    while missing:
        part = _read(file, min(missing, PIECE))
        if not part:
            raise FormatError(f"{what} is cut short", offset=at + size - missing)
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def read_up_to(file: Readable, size: int) -> bytes:
    """`size` bytes, or all there are: pipes give less than they are asked for."""
    data = _read(file, size)
    while len(data) < size and (more := _read(file, size - len(data))):
        data += more
    return data


def write_all(file: Writable, data: bytes | bytearray | memoryview) -> None:
    """Write every byte, however few the file takes at once."""
    taken = file.write(data)
    while taken is not None and taken < len(data):
        data = memoryview(data)[taken:]
        taken = file.write(data)
    if taken is None and isinstance(file, io.RawIOBase):
        raise DeltaError("the file took no bytes: non-blocking files can't be written")


def size_of(file: Seekable) -> int:
    """How many bytes a seekable file has."""
    return moved(file, 0, 2)


def moved(file: Seekable, offset: int, whence: int) -> int:
    """Seek, and where that led."""
    at: int | None = file.seek(offset, whence)
    # An mmap's says nothing before Python 3.13.
    return file.tell() if at is None else at  # type: ignore[attr-defined]


def _read(file: Readable, size: int) -> bytes:
    data = file.read(size)
    if data is None:
        raise DeltaError(_NO_BYTES)
    return data
