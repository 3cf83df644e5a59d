"""What is to be known of a large content that streams by: its hash, and its signature."""

from __future__ import annotations

from blake3 import blake3

from dblike_cli.context import Context
from dblike_cli.signatures import new_builder, save_signature
from dblike_delta.beside import Beside
from dblike_delta.commands import Data


class Noting:
    """Hashes and signs beside the caller, who reads and sends, or receives and writes."""

    def __init__(self, context: Context, size: int) -> None:
        self._context = context
        self._hasher = blake3()
        self._builder = new_builder(context, size)
        self._beside = Beside(context.executor)

    def update(self, data: Data) -> None:
        """The next bytes, in memory that does not change any more."""
        self._beside.do(lambda: self._note(data))

    def digest(self) -> bytes:
        """The content hash, when all of it was here."""
        self._beside.settle()
        return self._hasher.digest()

    def keep(self, digest: bytes) -> None:
        """Keep the signature, where the content is worth one."""
        if self._builder is not None:
            save_signature(self._context, digest, self._builder)

    def _note(self, data: Data) -> None:
        self._hasher.update(data)
        if self._builder is not None:
            self._builder.update(data)
