"""The cache of signatures: one for each synced content that is worth it, named by its hash.

None is kept before the content is agreed on, or about to be: nobody would drop it again.
With it an edit goes up as a delta without a question to the site.  Losing one costs a whole upload;
each carries its own sum, so none needs to be durable.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from dblike_cli.context import Context
from dblike_cli.fs import OWN, FileSystem, Rename
from dblike_cli.hashing import TEMPORARY
from dblike_delta.errors import DeltaError
from dblike_delta.formats import SEED_BYTES
from dblike_delta.signature import Signature, SignatureBuilder, choose_block_size

DIRECTORY: Final = OWN + b"/signatures"
_LARGEST: Final = 1 << 30


def new_builder(
    context: Context, size: int, known: Signature | None = None
) -> SignatureBuilder | None:
    """What signs a file of that size while it streams by; None for one that is not worth it.

    `known` is the signature of a content that it may have blocks of.
    """
    if size < context.config.signature_from:
        return None
    block = choose_block_size(size)
    if known is not None and known.block_size == block:
        return SignatureBuilder(block, known=known)
    return SignatureBuilder(block, context.random.bytes(SEED_BYTES))


def load_signature(fs: FileSystem, digest: bytes) -> Signature | None:
    """The signature of a content, where there is a good one."""
    try:
        file = fs.open_read(_place(digest))
    except OSError:
        return None
    try:
        # The system makes room for all that is asked for, however little there is to read.
        found = Signature.unpack(file.read(min(file.stat().st_size, _LARGEST)))
    except (OSError, DeltaError):
        return None
    finally:
        file.close()
    return found if found.hash == digest else None


def sign(context: Context, data: bytes, digest: bytes) -> None:
    """Keep the signature of a content that is in memory, where it is worth one."""
    builder = new_builder(context, len(data))
    if builder is not None:
        builder.update(data)
        save_signature(context, digest, builder)


def save_signature(context: Context, digest: bytes, builder: SignatureBuilder) -> None:
    """Keep the signature of a content; without room for it the next edit goes up whole."""
    fs, place = context.fs, _place(digest)
    temporary = TEMPORARY + b"/sig-" + context.random.bytes(8).hex().encode()
    try:
        _make_directory(fs, place)
        file = fs.create(temporary)
        try:
            file.write(builder.finish(digest).pack())
        finally:
            file.close()
        fs.rename(temporary, place, Rename.REPLACE)
    except OSError:
        _unlink(fs, temporary)


def drop_signatures(context: Context, digests: Iterable[bytes]) -> None:
    """Forget the signatures of contents that no synced path has any more."""
    for digest in set(digests):
        if digest and not context.state.tree.find_content(digest):
            _unlink(context.fs, _place(digest))


def _make_directory(fs: FileSystem, place: bytes) -> None:
    for directory in (DIRECTORY, place.rpartition(b"/")[0]):
        try:
            fs.mkdir(directory, 0o700)
        except FileExistsError:
            continue


def _unlink(fs: FileSystem, path: bytes) -> None:
    try:
        fs.unlink(path)
    except OSError:
        return


def _place(digest: bytes) -> bytes:
    name = digest.hex().encode()
    return b"/".join((DIRECTORY, name[:2], name))
