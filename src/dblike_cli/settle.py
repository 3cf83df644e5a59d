"""Settling a conflict: ordinary edits of the user's, which drop only what the server has.

A file that goes is first brought out of the way and looked at, as when the site's changes are
applied: whoever saves to it at that moment loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from dblike_cli.context import Context
from dblike_cli.entries import UNTRUSTED, stamp_of, trusted_stamp
from dblike_cli.errors import Failed
from dblike_cli.hashing import disk_time, seen_as
from dblike_cli.place import (
    Displaced,
    Expected,
    Trouble,
    drop_displaced,
    move_file,
    numbered,
    put_back,
    take_directory,
    take_file,
)
from dblike_delta.paths import display, name
from dblike_delta.versions import Kind

Choice = Literal["ours", "theirs", "both"]
_LONGEST = 32
"""Bytes of an extension; what is longer is part of the name."""
Agreed = Mapping[bytes, Expected | None]
"""What both sides have at some paths; None where nothing is here."""


def look_at(context: Context, paths: Iterable[bytes]) -> Agreed:
    """What is at these paths; raises Failed where it is not what the server has."""
    tick = disk_time(context)
    return {path: _agreed(context, path, tick) for path in paths}


def settle(context: Context, agreed: Agreed, winner: bytes, copy: bytes, choice: Choice) -> None:
    """Make of a winner and its copy what was chosen; raises Failed where one was just edited."""
    try:
        match choice:
            case "ours":
                _drop(context, _take(context, copy, agreed[copy]))
            case "theirs":
                _replace(context, agreed, winner, copy)
            case "both":
                _move(context, agreed, copy, _free_name(context, winner))
    except Trouble as trouble:
        raise Failed(f"{display(copy)} is not settled: {trouble.reason}") from trouble


def _replace(context: Context, agreed: Agreed, winner: bytes, copy: bytes) -> None:
    former = _take(context, winner, agreed[winner])
    try:
        _move(context, agreed, copy, winner)
    except (Trouble, OSError):
        if former is not None:
            put_back(context, former)
        raise
    _drop(context, former)


def _move(context: Context, agreed: Agreed, source: bytes, target: bytes) -> None:
    expected = agreed[source]
    if expected is not None:
        move_file(context, source, target, expected)


def _take(context: Context, path: bytes, expected: Expected | None) -> Displaced | None:
    """Bring what is to go out of the way."""
    if expected is None or expected.entry is None:
        return None
    if expected.entry.kind is Kind.DIRECTORY:
        take_directory(context, path)
        return None
    return take_file(context, path, expected)


def _drop(context: Context, displaced: Displaced | None) -> None:
    if displaced is not None:
        drop_displaced(context, displaced)


def _agreed(context: Context, path: bytes, tick: int) -> Expected | None:
    known = context.state.tree.get(path)
    entry = None if known is None else known.synced.entry
    try:
        st = seen_as(context, path, entry)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if st is None:
        raise Failed(f"{display(path)} has changes that the server lacks; `dblike sync` first")
    return Expected(entry, stamp_of(st), doubtful=trusted_stamp(st, tick) == UNTRUSTED)


def _free_name(context: Context, winner: bytes) -> bytes:
    """`report (2).txt`, or the first number that is free."""
    stem, dot, extension = name(winner).rpartition(b".")
    known = dot + extension if stem and len(extension) < _LONGEST else b""
    number = 2
    while True:
        free = numbered(winner, b" (%d)" % number, known)
        try:
            context.fs.lstat(free)
        except FileNotFoundError:
            return free
        number += 1
