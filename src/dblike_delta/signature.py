"""Signatures: what a file looked like, block by block, in a few bytes each."""

from __future__ import annotations

import io
import math
import os
from typing import Final, cast

import msgspec
import xxhash
from blake3 import blake3

from dblike_delta import kernel
from dblike_delta.commands import Data, bytes_of
from dblike_delta.errors import FormatError, IntegrityError, LimitError
from dblike_delta.formats import (
    CHECK_BYTES,
    SEED_BYTES,
    STRONG_SIZES,
    XXH3_STRONG,
    XXH3_STRONG_MIN,
    Magic,
    SignatureHeader,
    pack_signature_header,
    signature_header_size,
    unpack_signature_header,
)
from dblike_delta.limits import DEFAULT_LIMITS, Limits
from dblike_delta.parameters import parameters
from dblike_delta.streams import (
    Progress,
    Readable,
    Seekable,
    Writable,
    moved,
    read_ahead,
    read_exactly,
    read_pieces,
    read_up_to,
    write_all,
)

BLOCK_MIN: Final = 512
BLOCK_MAX: Final = 1 << 20

_FORMATS: Final = {"xxh3": Magic.XXH3, "librsync": Magic.RK_BLAKE2}


def choose_block_size(file_size: int) -> int:
    """The block size for a signature that a device keeps: sqrt(file_size) / 8, a power of two.

    A signature costs r * size / B bytes (r: bytes of a row, about 22), each of E edits about B
    bytes of literal; the sum is least at B = sqrt(r * size / E).  rsync's sqrt(size) supposes two
    dozen edits.  As our signatures stay where they are, they may be larger: the eighth of it is
    right for 1,400 edits.  1 GiB: blocks of 4 KiB, a signature of 6 MB.

    >>> choose_block_size(1 << 30)
    4096
    """
    if file_size <= (8 * BLOCK_MIN) ** 2:
        return BLOCK_MIN
    return min(BLOCK_MAX, 1 << round(math.log2(file_size) / 2 - 3))


class Signature(msgspec.Struct, frozen=True):
    """A header and one row for each block: weak sum, place of the anchor, strong sum."""

    header: SignatureHeader
    rows: bytes

    @property
    def block_size(self) -> int:
        """Bytes of a block; the last one may be shorter."""
        return self.header.block_size

    @property
    def size(self) -> int | None:
        """Bytes of the base; librsync's signatures do not say."""
        return self.header.size

    @property
    def hash(self) -> bytes:
        """BLAKE3-256 of the base, where known; else empty."""
        return self.header.hash

    @property
    def blocks(self) -> int:
        """How many blocks: one for each row."""
        return len(self.rows) // self.header.row_size

    def pack(self) -> bytes:
        """The bytes that `load` reads."""
        out = io.BytesIO()
        self.dump(out)
        return out.getvalue()

    def dump(self, file: Writable) -> None:
        """Write the signature."""
        head = pack_signature_header(self.header)
        write_all(file, head)
        write_all(file, self.rows)
        if self.header.magic == Magic.XXH3:
            write_all(file, _check(head, self.rows))

    @classmethod
    def load(cls, file: Readable, limits: Limits = DEFAULT_LIMITS) -> Signature:
        """Read a signature to the end of the file; FormatError, LimitError or IntegrityError."""
        head = read_up_to(file, 12)
        size = signature_header_size(head)
        if len(head) == 12 and size > 12:
            head += read_exactly(file, size - 12, "the signature's header", 12)
        header = unpack_signature_header(head, limits)
        if header.rows_size is None:
            return cls(header, _read_rows(file, header, limits))
        return cls._load_own(file, head, header, limits)

    @classmethod
    def unpack(cls, data: Data, limits: Limits = DEFAULT_LIMITS) -> Signature:
        """The signature in `data`; errors as `load`."""
        return cls.load(io.BytesIO(data), limits)

    @classmethod
    def _load_own(
        cls, file: Readable, head: bytes, header: SignatureHeader, limits: Limits
    ) -> Signature:
        assert header.rows_size is not None
        if header.rows_size > limits.max_signature:
            raise LimitError(
                f"a signature of {header.rows_size} bytes", wanted=header.rows_size, offset=28
            )
        rows = read_exactly(file, header.rows_size, "the signature", len(head))
        at = len(head) + len(rows)
        check = read_exactly(file, CHECK_BYTES, "the signature", at)
        if file.read(1):
            raise FormatError("bytes after the end of the signature", offset=at + CHECK_BYTES)
        if check != _check(head, rows):
            raise IntegrityError("the signature does not match its own sum: it was damaged")
        _check_places(header, rows, len(head))
        return cls(header, rows)


class SignatureBuilder:
    """Signs a file while it streams through: `update` with its bytes, then `finish`.

    `seed`: 16 random bytes, so that nobody can prepare colliding blocks; drawn where not given.
    `strong_size`: bytes of a strong sum, 8 to 16, or 1 to 32 in rdiff's format; the most where not
    given.  `known`: a signature of the same block size and kind, of a file that this one has blocks
    of; its sums are used, and its seed.  ValueError for a size that can't be.
    """

    def __init__(
        self,
        block_size: int,
        seed: bytes | None = None,
        *,
        format: str = "xxh3",  # noqa: A002 - the name of the public promise
        strong_size: int | None = None,
        known: Signature | None = None,
    ) -> None:
        magic = _magic(format)
        if known is not None:
            seed = known.header.seed if seed is None else seed
            strong_size = known.header.strong_size if strong_size is None else strong_size
        elif magic == Magic.XXH3 and seed is None:
            seed = os.urandom(SEED_BYTES)
        self._header = SignatureHeader(
            magic=magic,
            block_size=_checked_block(block_size),
            strong_size=_checked_strong(magic, strong_size),
            seed=_checked_seed(magic, seed),
        )
        self._known = None if known is None else _Known(known, self._header)
        self._signer = kernel.Signer(parameters(self._header))
        self._rows = bytearray()
        self._rest = bytearray()
        self._last = b""
        self.size = 0

    def update(self, data: Data, at: int | None = None) -> None:
        """The file's next bytes; `at` is where the known file has the same ones, if it does."""
        view = bytes_of(data)
        if at is not None and self._known is not None:
            view = self._take_known(view, at)
        self._sum(view)

    def _take_known(self, view: memoryview, at: int) -> memoryview:
        """What is left of the bytes when the rows of the known blocks were taken."""
        block = self._header.block_size
        if (at - self.size) % block:
            return view
        begun = -self.size % block
        self._sum(view[:begun])
        assert self._known is not None
        rows = self._known.rows(at + begun, len(view) - begun)
        whole = len(rows) // self._header.row_size * block
        self._rows += rows
        self.size += whole
        return view[begun + whole :]

    def _sum(self, view: memoryview) -> None:
        block = self._header.block_size
        self.size += len(view)
        if view:
            self._last = b""
        if self._rest:
            room = block - len(self._rest)
            self._rest += view[:room]
            view = view[room:]
            if len(self._rest) < block:
                return
            self._rows += self._signer.rows(self._rest)
            self._rest = bytearray()
        whole = len(view) - len(view) % block
        if whole:
            self._rows += self._signer.rows(view[:whole])
        self._rest += view[whole:]

    def finish(self, content_hash: bytes = b"") -> Signature:
        """The signature; `content_hash` is the file's BLAKE3-256, where the caller has it.

        ValueError where that has not 32 bytes.  The file may go on after it.
        """
        if len(content_hash) not in {0, 32}:
            raise ValueError("a content hash has 32 bytes")
        if self._rest and not self._last:  # the signer chooses another anchor when asked again
            self._last = self._signer.rows(self._rest)
        header = self._header
        if header.magic == Magic.XXH3:
            header = msgspec.structs.replace(header, size=self.size, hash=content_hash)
        return Signature(header, b"".join((self._rows, self._last)))


class _Known:
    """The signature of a file that another one has blocks of."""

    def __init__(self, known: Signature, header: SignatureHeader) -> None:
        """ValueError where its sums are others than those of `header`."""
        size = known.header.size
        if msgspec.structs.replace(known.header, size=header.size, hash=header.hash) != header:
            raise ValueError("the known signature is of another kind or block size")
        # The last block may be a short one.
        whole = max(known.blocks - 1, 0) if size is None else size // header.block_size
        self._rows = memoryview(known.rows)[: whole * header.row_size]
        self._block, self._row = header.block_size, header.row_size

    def rows(self, offset: int, length: int) -> memoryview:
        """Those of the whole blocks from an offset on, which is where one begins."""
        first, count = offset // self._block, max(length, 0) // self._block
        return self._rows[first * self._row : (first + count) * self._row]


def signature(
    file: Readable,
    *,
    block_size: int | None = None,
    format: str = "xxh3",  # noqa: A002 - the name of the public promise
    strong_size: int | None = None,
    seed: bytes | None = None,
    hash: bool = False,  # noqa: A002 - the same
    progress: Progress | None = None,
) -> Signature:
    """The signature of a file, read once from where it stands.

    `block_size`: chosen by the file's size where that can be asked, else 2 KiB.  `format`: "xxh3",
    or "librsync" for rdiff's.  `strong_size`, `seed`: as for SignatureBuilder.  `hash`: also the
    file's BLAKE3, into the signature.  `progress`: is told the bytes done; what it raises ends the
    work.  A large file is read by a thread while this one signs.
    """
    if block_size is None:
        block_size = _default_block(file, format)
    builder = SignatureBuilder(block_size, seed, format=format, strong_size=strong_size)
    hasher = blake3()
    for piece in read_ahead(file, hasher.update if hash else len):
        builder.update(piece)
        if progress is not None:
            progress(builder.size)
    return builder.finish(hasher.digest() if hash else b"")


def _default_block(file: Readable, format: str) -> int:  # noqa: A002
    seekable = cast("Seekable", file)
    try:
        here = moved(seekable, 0, 1)
        size = moved(seekable, 0, 2) - here
        seekable.seek(here)
    except (AttributeError, OSError, ValueError):
        return 2048
    if _magic(format) == Magic.XXH3:
        return choose_block_size(size)
    # As librsync does since 2.2: the square root, a multiple of 128, at least 256.
    return max(256, math.isqrt(size) & ~127)


def _magic(name: str) -> Magic:
    if name not in _FORMATS:
        raise ValueError(f"unknown format {name!r}: must be xxh3 or librsync")
    return _FORMATS[name]


def _checked_block(block_size: int) -> int:
    if not 1 <= block_size <= DEFAULT_LIMITS.max_block_size:
        raise ValueError(f"block size {block_size}: must be 1 to {DEFAULT_LIMITS.max_block_size}")
    return block_size


def _checked_strong(magic: Magic, size: int | None) -> int:
    least, most = (XXH3_STRONG_MIN, XXH3_STRONG)
    if magic != Magic.XXH3:
        least, most = 1, STRONG_SIZES[magic]
    if size is not None and not least <= size <= most:
        raise ValueError(f"strong sums of {size} bytes: must be {least} to {most}")
    return most if size is None else size


def _checked_seed(magic: Magic, seed: bytes | None) -> bytes:
    if magic != Magic.XXH3:
        return b""
    if seed is None or len(seed) != SEED_BYTES:
        raise ValueError(f"a seed has {SEED_BYTES} bytes")
    return bytes(seed)


def _read_rows(file: Readable, header: SignatureHeader, limits: Limits) -> bytes:
    """Rows of librsync: as many as there are until the end."""
    rows = bytearray()
    for piece in read_pieces(file):
        rows += piece
        if len(rows) > limits.max_signature:
            raise LimitError(f"a signature of over {limits.max_signature} bytes", offset=12)
    extra = len(rows) % header.row_size
    if extra:
        raise FormatError("the signature's last row is cut short", offset=12 + len(rows) - extra)
    return bytes(rows)


def _check(head: bytes, rows: bytes) -> bytes:
    hasher = xxhash.xxh3_64(head)
    hasher.update(rows)
    return hasher.digest()


def _check_places(header: SignatureHeader, rows: bytes, at: int) -> None:
    assert header.size is not None
    bad = kernel.bad_place(parameters(header), rows, header.size)
    if bad is not None:
        offset = at + bad * header.row_size + 4
        raise FormatError("an anchor's place beyond its block", offset=offset)
