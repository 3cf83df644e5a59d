"""Deltas: what makes the new file out of the old one, found with the old one's signature only."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import IO, Final, Self, cast

from blake3 import blake3

from dblike_delta import kernel
from dblike_delta.commands import Coalescer, Command, Copy, Data, End, Literal, bytes_of
from dblike_delta.errors import LimitError
from dblike_delta.formats import DELTA_MAGIC, END, DeltaDecoder, encode_copy, encode_literal_header
from dblike_delta.limits import DEFAULT_LIMITS, Limits
from dblike_delta.parameters import parameters
from dblike_delta.signature import Signature, SignatureBuilder
from dblike_delta.streams import (
    Progress,
    Readable,
    Writable,
    read_ahead,
    read_pieces,
    write_all,
    write_behind,
)

SPOOL: Final = 8 << 20
"""A delta of more bytes than this waits in a temporary file."""
_LARGE: Final = 64 << 10
"""A literal of this size is written as it is; smaller ones together."""
_ROOM: Final = 256 << 10
"""Of the search's buffer beyond the blocks that may still match: it stays in the L2 cache."""


class DeltaEncoder:
    """Finds the base's blocks in a file that streams through: `update` with its bytes, `finish`.

    Both give the commands that are settled, joined; literals have at most 1 MiB.  The buffer may be
    reused after `update` returns; the search runs without the GIL.  `vain_limit`: bytes that may be
    hashed in vain, against a signature that somebody prepared; over it, LimitError.  `signer`: is
    given the file to sign, whose bytes must then not change until `finish`; made with `signature`
    as the known one it need not hash what was found.
    """

    def __init__(
        self,
        signature: Signature,
        *,
        vain_limit: int | None = None,
        signer: SignatureBuilder | None = None,
    ) -> None:
        if signature.header.rows_size not in {None, len(signature.rows)}:
            raise ValueError("the signature has not as many rows as its size has blocks")
        capacity = 4 * signature.block_size + _ROOM
        numbers = parameters(signature.header)
        self._scanner = kernel.Scanner(
            numbers, signature.rows, signature.size, capacity, vain_limit
        )
        self._joined = Coalescer()
        self._ended = False
        self._signing = None if signer is None else _Signing(signer)

    def update(self, data: Data) -> list[Command]:
        """The file's next bytes; LimitError over `vain_limit`, ValueError after `finish`."""
        if self._ended:
            raise ValueError("the file has ended")  # the search keeps no place to go on from
        view = bytes_of(data)
        if self._signing is not None:
            self._signing.add(view)
        try:
            return self._join(self._scanner.feed(view))
        except OverflowError:
            raise self._too_much() from None

    def finish(self) -> list[Command]:
        """The file has ended: the rest of the commands; none when asked again."""
        if self._ended:
            return []
        try:
            ops = self._scanner.finish()
        except OverflowError:
            raise self._too_much() from None
        self._ended = True
        return self._join(ops) + self._joined.finish()

    @property
    def matches(self) -> int:
        """Blocks found so far."""
        return self._scanner.matches

    @property
    def alarms(self) -> int:
        """Weak sums that promised a block and lied."""
        return self._scanner.alarms

    @property
    def vain(self) -> int:
        """Bytes hashed for these."""
        return self._scanner.vain

    def _join(self, ops: list[tuple[int, int] | bytes]) -> list[Command]:
        for op in ops:
            if isinstance(op, tuple):
                self._joined.copy(*op)
            else:
                self._joined.literal(op)
        if self._signing is not None:
            self._signing.found(ops)
        return self._joined.take()

    def _too_much(self) -> LimitError:
        return LimitError("the signature's sums collide too often: more work than it is worth")


class _Signing:
    """Signs what was searched, as far as that has come: the rest waits."""

    def __init__(self, signer: SignatureBuilder) -> None:
        self._signer = signer
        self._waiting: deque[memoryview] = deque()

    def add(self, view: memoryview) -> None:
        self._waiting.append(view)

    def found(self, ops: list[tuple[int, int] | bytes]) -> None:
        for op in ops:
            if isinstance(op, tuple):
                self._sign(op[1], op[0])
            else:
                self._sign(len(op), None)

    def _sign(self, length: int, at: int | None) -> None:
        while length:
            piece = self._waiting.popleft()
            if len(piece) > length:
                self._waiting.appendleft(piece[length:])
                piece = piece[:length]
            self._signer.update(piece, at)
            length -= len(piece)
            at = None if at is None else at + len(piece)


class Delta:
    """Commands in librsync's format, and what is known about both files.

    Kept in memory up to 8 MiB, then in a temporary file.  `hash` is the BLAKE3-256 of the new file
    where known; `base_size` the old file's size where known.  Close it, or use it as a context
    manager, to be rid of the temporary file at once; else it goes with the object.
    """

    def __init__(self, *, base_size: int | None = None) -> None:
        # Delta owns the spool and closes it.
        import tempfile  # a client that only syncs never needs it

        self.spool = cast("IO[bytes]", tempfile.SpooledTemporaryFile(SPOOL))  # noqa: SIM115
        self.base_size = base_size
        self.hash = b""
        self.size = self.copied = self.literal = self.commands = self.encoded = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Command]:
        """The commands, literals in pieces."""
        decoder = DeltaDecoder(base_size=self.base_size)
        for piece in self.pieces():
            for event in decoder.feed(piece):
                if isinstance(event, Literal):
                    yield Literal(bytes(event.data))  # the decoder's view is of a reused buffer
                elif isinstance(event, Copy):
                    yield event
        decoder.finish()

    def __del__(self) -> None:
        # A small delta holds no file: forgetting to close it is no mistake to be warned of.
        self.close()

    def close(self) -> None:
        """Be rid of the temporary file; the totals stay."""
        self.spool.close()

    def pieces(self) -> Iterator[memoryview]:
        """The encoded bytes; a piece is good until the next one is asked for."""
        at = 0
        self.spool.seek(at)
        for piece in read_pieces(self.spool):
            at += len(piece)
            yield piece
            self.spool.seek(at)  # others may have read it meanwhile

    def dump(self, file: Writable) -> None:
        """Write the delta in librsync's format."""
        for piece in self.pieces():
            write_all(file, piece)

    @classmethod
    def load(cls, file: Readable, limits: Limits = DEFAULT_LIMITS) -> Delta:
        """Read and check a delta to the end of the file; FormatError or LimitError."""
        delta, decoder = cls(), DeltaDecoder(limits)
        try:
            for piece in read_pieces(file):
                for event in decoder.feed(piece):
                    if not isinstance(event, End):
                        delta.count(event)
                delta.spool.write(piece)
                delta.encoded += len(piece)
            decoder.finish()
        except BaseException:
            delta.close()
            raise
        return delta

    def count(self, command: Command) -> None:
        """Add a command to the totals."""
        self.commands += 1
        if isinstance(command, Copy):
            self.copied += command.length
            self.size += command.length
        else:
            self.literal += len(command.data)
            self.size += len(command.data)


class _DeltaWriter:
    """Writes commands as they come, and counts."""

    def __init__(self, delta: Delta, file: Writable) -> None:
        self._delta, self._file = delta, file
        self._put(DELTA_MAGIC)

    def write(self, commands: list[Command]) -> None:
        small = bytearray()
        for command in commands:
            self._delta.count(command)
            if isinstance(command, Copy):
                small += encode_copy(*command)
                continue
            small += encode_literal_header(len(command.data))
            if len(command.data) < _LARGE:
                small += command.data
            else:
                self._put(small)
                self._put(command.data)
                small = bytearray()
        self._put(small)

    def finish(self) -> None:
        self._put(END)

    def _put(self, data: Data) -> None:
        if data:
            write_all(self._file, data)
        self._delta.encoded += len(data)


def delta(
    signature: Signature,
    file: Readable,
    *,
    vain_limit: int | None = None,
    hash: bool = True,  # noqa: A002
    progress: Progress | None = None,
) -> Delta:
    """The delta that makes `file`, read once from where it stands, out of the signature's base.

    `vain_limit`: as for DeltaEncoder, LimitError over it.  `hash`: also the new file's BLAKE3, so
    that `patch` can tell whether it got the right base.  `progress`: is told the bytes read; what
    it raises ends the work.  A large file is read and hashed by a thread while this one searches.
    """
    result = Delta(base_size=signature.size)
    encoder = DeltaEncoder(signature, vain_limit=vain_limit)
    try:
        _write(result, result.spool, encoder, file, hash, progress)
    except BaseException:
        result.close()
        raise
    return result


def write_delta(
    signature: Signature,
    file: Readable,
    out: Writable,
    *,
    vain_limit: int | None = None,
    progress: Progress | None = None,
) -> Delta:
    """Like `delta`, but the encoded commands go to `out` (a pipe, if need be) at once.

    What is returned holds the counts and the hash only.
    """
    result = Delta(base_size=signature.size)
    _write(result, out, DeltaEncoder(signature, vain_limit=vain_limit), file, True, progress)
    result.close()
    return result


def _write(
    result: Delta,
    out: Writable,
    encoder: DeltaEncoder,
    file: Readable,
    hashed: bool,
    progress: Progress | None,
) -> None:
    writer, hasher, done = _DeltaWriter(result, out), blake3(), 0
    with write_behind(writer.write) as put:
        for piece in read_ahead(file, hasher.update if hashed else len):
            commands = encoder.update(piece)
            put(commands, sum(len(each.data) for each in commands if isinstance(each, Literal)))
            done += len(piece)
            if progress is not None:
                progress(done)
    writer.write(encoder.finish())
    writer.finish()
    result.hash = hasher.digest() if hashed else b""
