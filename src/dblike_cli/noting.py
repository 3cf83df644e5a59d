"""What is to be known of a large content that streams by: its hash, and its signature."""

from __future__ import annotations

from blake3 import blake3

from dblike_cli.context import Context
from dblike_cli.signatures import new_builder, save_signature
from dblike_delta.beside import Beside
from dblike_delta.commands import Data
from dblike_delta.signature import Signature


class Noting:
    """Hashes and signs beside the caller, who reads and sends, or receives and writes.

    `known` is the signature of a content that this one may have blocks of.
    """

    def __init__(self, context: Context, size: int, known: Signature | None = None) -> None:
        self._context = context
        self._hasher = blake3()
        self.builder = new_builder(context, size, known)
        self._beside = Beside(context.executor)

    def update(self, data: Data, at: int | None = None) -> None:
        """The next bytes, in memory that does not change any more; `at` is where the known content
        has the same ones, if it does."""
        self._beside.do(lambda: self._note(data, at))

    def hash(self, data: Data) -> None:
        """The next bytes, where somebody else has `builder` sign them."""
        self._beside.do(lambda: self._hasher.update(data))

    def digest(self) -> bytes:
        """The content hash, when all of it was here."""
        self._beside.settle()
        return self._hasher.digest()

    def keep(self, digest: bytes) -> None:
        """Keep the signature, where the content is worth one."""
        if self.builder is not None:
            save_signature(self._context, digest, self.builder)

    def _note(self, data: Data, at: int | None) -> None:
        self._hasher.update(data)
        if self.builder is not None:
            self.builder.update(data, at)
