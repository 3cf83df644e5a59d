"""Files whose bytes changed while everything else about them did not: damage, not an edit."""

from __future__ import annotations

import os

from blake3 import blake3

from dblike_cli.entries import stamp_of
from dblike_cli.session import Session
from dblike_delta.versions import Kind

_PIECE = 1 << 20


def damaged_files(session: Session) -> tuple[list[bytes], int]:
    """(paths that are damaged, number of files read)."""
    root = os.fsencode(session.root)
    found: list[bytes] = []
    read = 0
    for known in session.state.tree.rows():
        entry = known.synced.entry
        if entry is None or entry.kind is not Kind.FILE or not known.stamp:
            continue
        digest = _digest_if_same(os.path.join(root, known.path), known.stamp)
        read += digest is not None
        if digest not in (None, entry.hash):
            found.append(known.path)
    return found, read


def _digest_if_same(full: bytes, stamp: bytes) -> bytes | None:
    """The hash of a file, where its stamp says that nobody changed it, before and after reading."""
    try:
        if stamp_of(os.lstat(full)) != stamp:
            return None
        digest = blake3()
        with open(os.open(full, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
            while data := file.read(_PIECE):
                digest.update(data)
        return digest.digest() if stamp_of(os.lstat(full)) == stamp else None
    except OSError:
        return None
