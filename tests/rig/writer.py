"""A device that only writes: changesets of whole files, with dots of its own."""

from __future__ import annotations

from blake3 import blake3

from dblike_delta.changeset import Encoder, Part
from dblike_delta.exchange import Exchange
from dblike_delta.formats import DELTA_MAGIC, END, encode_literal_header
from dblike_delta.messages import CommitReply, Record, Trailer
from dblike_delta.versions import Kind

TIME = 1_700_000_000_000


class Writer:
    """Writes through an exchange, in the name of the device with id `device`."""

    def __init__(self, exchange: Exchange, device: bytes, *, folder: str = "home") -> None:
        self.exchange = exchange
        self.device = device
        self.folder = folder
        self._counter = 0

    def write(self, files: dict[bytes, bytes]) -> CommitReply:
        """Commit these paths with these contents, in one changeset."""
        return self.exchange.commit(self.folder, self.changeset(files))

    def changeset(self, files: dict[bytes, bytes]) -> list[Part]:
        """The changeset of `write`."""
        encoder, parts = Encoder(), []
        for path, content in files.items():
            parts += encoder.record(self.record(path, content))
            parts += encoder.data(DELTA_MAGIC)
            if content:
                parts += encoder.data(encode_literal_header(len(content)))
                parts += encoder.data(content)
            parts += encoder.data(END)
            parts += encoder.trailer(Trailer(blake3(content).digest(), len(content)))
        return parts + encoder.finish()

    def record(self, path: bytes, content: bytes) -> Record:
        """The next version."""
        self._counter += 1
        return Record(
            path=path,
            device=self.device,
            counter=self._counter,
            time=TIME + self._counter,
            kind=Kind.FILE,
            hash=blake3(content).digest(),
            size=len(content),
            mode=0o644,
            mtime_ns=TIME * 10**6,
            author="laptop",
            body=True,
        )
