"""Bundles: a changeset in a file, to carry contents by hand instead of over a slow line.

A bundle holds versions with their whole contents.  Applying one is a pull that takes contents from
the bundle where it has them: which versions there are is still the server's word, so an old bundle
brings nothing back, and a false one nothing in; every content is verified as if it came from afar.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from dblike_cli.entries import stamp_of
from dblike_cli.state import Known, State
from dblike_delta import messages as m
from dblike_delta.changeset import UNBOUNDED, Body, Decoder, Encoder, Event
from dblike_delta.errors import IntegrityError
from dblike_delta.exchange import Exchange, Transport
from dblike_delta.trees import whole_body
from dblike_delta.versions import Dot, Kind

_PIECE = 1 << 20


class Written(msgspec.Struct, frozen=True):
    """What a new bundle holds, and the files that changed while they were read."""

    files: int
    size: int
    left_out: tuple[bytes, ...]


def write_bundle(
    target: BinaryIO, root: Path, state: State, paths: frozenset[bytes] | None, now_ms: int
) -> Written:
    """Write what both sides agreed on last (of `paths`, if given) as a changeset."""
    encoder = Encoder()
    files, size = 0, 0
    left_out: list[bytes] = []
    for known in state.tree.rows():
        if paths is not None and known.path not in paths:
            continue
        assert known.synced.entry is not None
        target.writelines(encoder.record(_record(known, now_ms)))
        if known.synced.entry.kind is not Kind.FILE:
            continue
        if _write_body(target, encoder, root, known):
            files, size = files + 1, size + known.synced.entry.size
        else:
            left_out.append(known.path)
    target.writelines(encoder.finish())
    return Written(files, size, tuple(left_out))


def _record(known: Known, now_ms: int) -> m.Record:
    entry, dot = known.synced.entry, known.synced.dot
    assert entry is not None
    return m.Record(
        path=known.path,
        device=dot.device,
        counter=dot.counter,
        time=now_ms,
        kind=int(entry.kind),
        hash=entry.hash,
        size=entry.size,
        mode=entry.mode,
        mtime_ns=entry.mtime_ns,
        target=entry.target,
        body=entry.kind is Kind.FILE,
    )


def _write_body(target: BinaryIO, encoder: Encoder, root: Path, known: Known) -> bool:
    """The content as a delta against nothing.  Without its trailer, where the file is not what was
    agreed on: a body that has none counts for nothing."""
    entry = known.synced.entry
    assert entry is not None
    try:
        full = os.path.join(os.fsencode(root), known.path)
        with open(os.open(full, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            if known.stamp and stamp_of(os.fstat(file.fileno())) != known.stamp:
                return False
            target.writelines(whole_body(encoder, file, entry.size, entry.hash))
    except (OSError, IntegrityError):
        return False
    return True


class _Place(NamedTuple):
    """Where a record stands: the block that holds it, and its number among the block's events."""

    block: int
    number: int


class Bundle:
    """A bundle's contents by their hashes.  Opening reads it once, and checks every block.

    Raises DeltaError for a file that is damaged or no bundle.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._places: dict[bytes, _Place] = {}
        last: tuple[m.Record, _Place] | None = None
        for place, event in _events(file, 0):
            match event:
                case m.Record():
                    last = (event, place)
                case m.Trailer() if last is not None and last[0].body and not last[0].base:
                    self._places[event.hash] = last[1]
                case _:
                    pass

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._places

    def __len__(self) -> int:
        return len(self._places)

    def read(self, digest: bytes) -> Iterator[m.Record | Body | m.Trailer]:
        """Record, body and trailer of a content."""
        wanted = self._places[digest]
        started = False
        for place, event in _events(self._file, wanted.block):
            if isinstance(event, m.Record):
                if started:
                    return
                started = place == wanted
            if started and isinstance(event, m.Record | Body | m.Trailer):
                yield event
            if started and isinstance(event, m.Trailer):
                return


def _events(file: BinaryIO, block: int) -> Iterator[tuple[_Place, Event]]:
    """The events from a block on, each with its place."""
    file.seek(block)
    decoder = Decoder(start=block, frames=UNBOUNDED)
    number, current = 0, -1
    while data := file.read(_PIECE):
        for event in decoder.receive(data):
            if decoder.boundary != current:
                number, current = 0, decoder.boundary
            yield _Place(current, number), event
            number += 1
    decoder.close()


class BundleExchange(Exchange):
    """The protocol with a site, taking contents from a bundle where it has them.

    Which content a version has is known from the state's news; `state` says which one is open now.
    """

    def __init__(
        self, transport: Transport, token: str, bundle: Bundle, state: Callable[[], State]
    ) -> None:
        super().__init__(transport, token)
        self._bundle = bundle
        self._state = state
        self._given: set[Dot] = set()

    def fetch(
        self, folder: str, wants: list[m.Want]
    ) -> Iterator[m.Record | Body | m.Trailer | m.Refusal]:
        """The contents: those that the bundle has, then the others from the site."""
        hashes = self._hashes()
        elsewhere: list[m.Want] = []
        for want in wants:
            dot = Dot(want.device, want.counter)
            digest = hashes.get(dot, b"")
            # One that was begun, or that came wrong from here, is the site's to finish.
            if digest not in self._bundle or want.start or dot in self._given:
                elsewhere.append(want)
                continue
            self._given.add(dot)
            yield from self._take(want, digest)
        if elsewhere:
            yield from super().fetch(folder, elsewhere)

    def _take(self, want: m.Want, digest: bytes) -> Iterator[m.Record | Body | m.Trailer]:
        for event in self._bundle.read(digest):
            if isinstance(event, m.Record):
                yield msgspec.structs.replace(event, device=want.device, counter=want.counter)
            else:
                yield event

    def _hashes(self) -> Mapping[Dot, bytes]:
        news = self._state().remote.all().values()
        return {Dot(record.device, record.counter): record.hash for record in news}
