"""What a crash may have left in `.dblike`, and who this installation is when it starts."""

from __future__ import annotations

import contextlib
import dataclasses

from dblike_cli.closed import close_directory
from dblike_cli.context import Context
from dblike_cli.device import become_new, marker_of
from dblike_cli.durable import sync_found
from dblike_cli.entries import PERMISSIONS, UNTRUSTED, entry_of, kind_of, remote_of, synced_of
from dblike_cli.fs import Rename, Stat
from dblike_cli.hashing import TEMPORARY, StillWriting, hash_file
from dblike_cli.incoming import STAGING
from dblike_cli.place import content_mark, discard
from dblike_cli.signatures import DIRECTORY as SIGNATURES
from dblike_cli.state import Known
from dblike_delta.messages import Record, said_ns
from dblike_delta.paths import ancestors
from dblike_delta.reconcile import same_content
from dblike_delta.versions import Kind


def prepare(context: Context) -> None:
    """The directories in `.dblike` that a cycle uses."""
    for directory in (TEMPORARY, STAGING, SIGNATURES):
        try:
            context.fs.mkdir(directory, 0o700)
        except FileExistsError:
            continue


def recover(context: Context) -> None:
    """Clear `.dblike` of what the last run left; what is the user's goes back to the folder."""
    for name, _ in context.fs.scandir(TEMPORARY):
        place = TEMPORARY + b"/" + name
        if _is_ours(context, name, place):
            discard(context.fs, place)
        else:
            _return(context, place)
    _agree_on_placed(context)
    for path, mode in context.state.tree.unfinished_directories():
        with contextlib.suppress(OSError):  # the scan says what is wrong there
            close_directory(context.fs, path, mode)
    wanted = {record.hash.hex().encode() for record in context.state.remote.all().values()}
    for name, _ in context.fs.scandir(STAGING):
        if name.removesuffix(b".part") not in wanted:
            discard(context.fs, STAGING + b"/" + name)
    context.state.recovered = True


def _agree_on_placed(context: Context) -> None:
    """Remember what had taken its place, or was gone, when the crash came.

    The news that it came by still says so.  Newer ones may replace that before the next look, and
    then it would be an edit or a delete of ours, made without knowledge of what it is.
    """
    records = context.state.remote.all().values()
    placed = [record for record in records if _is_placed(context, record)]
    missing = [record for record in records if _is_missing(context, record)]
    if not placed and not missing:
        return
    files = [record.path for record in placed if record.kind == Kind.FILE]
    sync_found(context, files, [record.path for record in (*placed, *missing)])
    with context.state.transaction():
        context.state.tree.record(
            Known(record.path, UNTRUSTED, synced_of(remote_of(record))) for record in placed
        )
        gone = [(record.path, _known_of(context, record)) for record in missing]
        context.state.tombs.bury(gone, context.clock.now_ms())
        context.state.remote.drop(record.path for record in placed)
        context.state.remote.drop(r.path for r in missing if r.kind == Kind.DELETED)


def _known_of(context: Context, record: Record) -> bytes:
    """What is known of a path where nothing is: where something is still to come, no more than was
    known before."""
    known = context.state.tree.get(record.path)
    return record.context if record.kind == Kind.DELETED or known is None else known.synced.context


def _is_missing(context: Context, record: Record) -> bool:
    """Whether nothing is at a path that was agreed on and is another one, or none, by the news."""
    known, entry = context.state.tree.get(record.path), entry_of(record)
    if known is None or known.synced.entry is None:
        return False
    if entry is not None and same_content(entry, known.synced.entry):
        return False  # nothing has to make way for that
    disk = context.fs.lstat(b"").st_dev
    try:
        for above in ancestors(record.path):
            if context.fs.lstat(above).st_dev != disk:
                return False  # what a mount covers is there
        context.fs.lstat(record.path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def _is_placed(context: Context, record: Record) -> bool:
    """Whether a path is already what the news say that it became."""
    try:
        st = context.fs.lstat(record.path)
        kind = kind_of(st)
        if kind is None or kind != record.kind:
            return False
        match kind:
            case Kind.FILE:
                return _is_file(context, record, st)
            case Kind.SYMLINK:
                return context.fs.readlink(record.path) == record.target
            case _:
                mode = record.mode & PERMISSIONS  # it gets what it lacks of it when all is in it
                return st.st_mode & PERMISSIONS in (mode, mode | 0o700)
    except (OSError, StillWriting):
        return False


def _is_file(context: Context, record: Record, st: Stat) -> bool:
    """Whether a file is what a record says, by its bytes."""
    if (st.st_size, said_ns(st.st_mtime_ns)) != (record.size, record.mtime_ns):
        return False
    digest, _ = hash_file(context.fs, record.path, context.config.read_size)
    return digest == record.hash


def identify(context: Context) -> Context:
    """The context with the device that this installation is.

    A state that belongs to another `.dblike` is a copy: its original goes on counting, so the copy
    has to be another device.  The same holds where there is no state any more.
    """
    meta = context.state.meta
    if not meta.device or meta.marker != marker_of(context):
        return dataclasses.replace(context, device=become_new(context))
    if meta.device != context.device.id:
        # The credential is written first: it is that of a device which never counted here.
        with context.state.transaction():
            meta.become(context.device.id, meta.marker)
    return context


def _is_ours(context: Context, name: bytes, place: bytes) -> bool:
    """Whether nothing is lost with a temporary file: see `place` for what the names say."""
    kind, *marks = name.split(b"-")[:-1]
    if kind not in (b"swap", b"old", b"move"):
        return True
    mark = content_mark(context.fs, place)
    return mark in marks and (kind != b"move" or _is_coming(context, mark))


def _is_coming(context: Context, mark: bytes) -> bool:
    """Whether the site brings a content: what the user gave another path is nowhere else here."""
    records = context.state.remote.all().values()
    return any(record.hash[:16].hex().encode() == mark for record in records)


def _return(context: Context, place: bytes) -> None:
    """The crash came when an edit had just been brought out of the way."""
    name = b"recovered " + context.random.bytes(4).hex().encode()
    context.fs.rename(place, name, Rename.KEEP)
