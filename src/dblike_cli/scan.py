"""Scan: what changed in the folder since both sides agreed.

Only what lstat says is different is read.  What can't be looked at is UNKNOWN, with all below it;
only what was synced, and is missing from a directory that could be read, is gone.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Collection, Iterable, Mapping

import msgspec

from dblike_cli.context import Context
from dblike_cli.durable import Flush
from dblike_cli.entries import (
    directory_entry,
    entry_of,
    file_entry,
    kind_of,
    special,
    stamp_of,
    symlink_entry,
    trusted_stamp,
)
from dblike_cli.fs import OWN, Stat
from dblike_cli.hashing import StillWriting, disk_time, hash_file, seen_as
from dblike_cli.ignore import IGNORE_FILE, Ignore
from dblike_cli.place import has_name
from dblike_cli.report import Code, Pending, Progress
from dblike_cli.signatures import new_builder, save_signature
from dblike_delta.errors import PathError
from dblike_delta.messages import Record
from dblike_delta.paths import ancestors, check_path, parent
from dblike_delta.plan import UNKNOWN, Entry, Local
from dblike_delta.reconcile import same_entry
from dblike_delta.versions import Kind

_NOTHING = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_DAMAGED = (
    "its bytes differ from what was synced, though nothing wrote to it; "
    "`dblike restore` brings it back, `touch` says that they are right"
)

_RULED = "a rule keeps what is here from going up, and the server has another one by now"


class Scan(msgspec.Struct, frozen=True):
    """What was found.

    `local` holds the paths that may have changed, for reconcile; `stamps` what lstat said of them.
    `same` are paths whose content turned out to be the same, each with its new stamp.  `gone` has
    the stamps of what went away, for the brake to see what only moved.  `tick` is the disk's time
    before all that, `looked` counts the paths.
    """

    local: dict[bytes, Local]
    stamps: dict[bytes, bytes]
    same: dict[bytes, bytes]
    pending: dict[bytes, Pending]
    gone: dict[bytes, bytes]
    tick: int = 0
    looked: int = 0


class Look(msgspec.Struct, frozen=True):
    """How to look: `paths` None is everywhere; `checksum` reads every file; `defer` leaves new
    content unread where whoever uploads it reads it anyway; `only`: at nothing but these, though
    the rules for all others may be among them."""

    paths: Collection[bytes] | None = None
    checksum: bool = False
    defer: bool = True
    only: bool = False

    @property
    def everywhere(self) -> bool:
        """Whether the whole folder is looked at."""
        if self.paths is None or b"" in self.paths:
            return True
        return IGNORE_FILE in self.paths and not self.only

    def covers(self, path: bytes) -> bool:
        """Whether the path is looked at."""
        if self.paths is None or self.everywhere:
            return True
        return not {*ancestors(path), path}.isdisjoint(self.paths)


def scan(context: Context, ignore: Ignore, news: Mapping[bytes, Record], look: Look) -> Scan:
    """Look at the folder; `news` are the paths whose state at the site is another one."""
    scanner = _Scanner(context, ignore, news, look)
    if look.paths is None or look.everywhere:
        scanner.everything()
    else:
        for path in sorted(set(look.paths)):
            scanner.place(path)
    return scanner.result()


class _Scanner:
    def __init__(
        self, context: Context, ignore: Ignore, news: Mapping[bytes, Record], look: Look
    ) -> None:
        self._context, self._fs = context, context.fs
        self._ignore, self._news, self._look = ignore, news, look
        self._sizes = {r.size for r in news.values() if r.kind == Kind.FILE}
        self._tick = disk_time(context)
        self._disk = context.fs.lstat(b"").st_dev
        self._flush = Flush(context)
        self._unknown: set[bytes] = set()
        self._covered: set[bytes] = set()
        self._looked = 0
        self._found = Scan({}, {}, {}, {}, {})

    def result(self) -> Scan:
        """All that was found."""
        if self._ignore.wrong:
            self._note(IGNORE_FILE, Code.RULE, self._ignore.wrong)
        return msgspec.structs.replace(self._found, tick=self._tick, looked=self._looked)

    def everything(self) -> None:
        """The whole folder."""
        before = self._context.state.tree.stamps()
        self._walk(b"", before)
        self._miss(before)

    def place(self, path: bytes) -> None:
        """A path and what is below it, or what has taken the place of a directory above it."""
        for above in ancestors(path):
            st = self._directory(above)
            if st is None:
                path = above
                break
            if st.st_dev != self._disk:
                self._mounted(above)
                return
            if not self._is_tracked(above) and not self._take_in(above):
                return
        if not self._covered.isdisjoint((*ancestors(path), path)):
            return
        self._covered.add(path)
        before = self._context.state.tree.stamps(path)
        try:
            st = self._fs.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            self._miss(before)
            return
        except OSError as error:
            self._cannot(path, error)
            return
        if self._entry(path, st, before):
            self._walk(path, before)
        self._miss(before)

    def _is_tracked(self, path: bytes) -> bool:
        return path in self._covered or self._context.state.tree.get(path) is not None

    def _take_in(self, path: bytes) -> bool:
        """A new directory above a place, by itself; whether it is worth going into."""
        try:
            return self._entry(path, self._fs.lstat(path), {})
        except OSError as error:
            self._cannot(path, error)
            return False

    def _directory(self, path: bytes) -> Stat | None:
        try:
            st = self._fs.lstat(path)
        except OSError:
            return None
        return st if stat.S_ISDIR(st.st_mode) else None

    def _walk(self, top: bytes, before: dict[bytes, bytes]) -> None:
        """All below a directory; paths that are found are taken out of `before`."""
        directories = [top]
        checksum, pop = self._look.checksum, before.pop
        while directories:
            directory = directories.pop()
            try:
                entries = self._fs.scandir(directory)
            except OSError as error:
                self._cannot(directory, error)
                continue
            self._looked += len(entries)
            self._context.reporter.progress(Progress("scan", done=self._looked, path=directory))
            prefix = directory + b"/" if directory else b""
            for name, st in entries:
                path = prefix + name
                if st is None:
                    self._cannot(path, None)
                elif stat.S_ISDIR(st.st_mode):
                    if path != OWN and self._entry(path, st, before):
                        directories.append(path)
                elif checksum or before.get(path) != stamp_of(st):
                    self._entry(path, st, before)
                else:
                    pop(path)

    def _entry(self, path: bytes, st: Stat, before: dict[bytes, bytes]) -> bool:
        """Take in one path; whether it is a directory worth going into."""
        old = before.pop(path, None)
        kind = kind_of(st)
        if st.st_dev != self._disk:
            self._mounted(path)
            return False
        if old is None and not self._may_be_new(path, kind):
            return False
        if old is not None and old != stamp_of(st) and self._ignored(path, kind):
            if path in self._news:
                self._ruled(path)
            return kind is Kind.DIRECTORY
        match kind:
            case Kind.DIRECTORY:
                if old != stamp_of(st):
                    self._compare(path, directory_entry(st), st, stamp_of(st))
            case Kind.SYMLINK:
                self._symlink(path, st)
            case Kind.FILE:
                self._file(path, st, old)
            case _ if old is None:
                self._note(path, Code.SPECIAL, special(st))
            case _:
                self._leave(path, Code.SPECIAL, special(st))
        return kind is Kind.DIRECTORY

    def _may_be_new(self, path: bytes, kind: Kind | None) -> bool:
        if path == OWN or self._ignored(path, kind):
            return False
        if b"/.dblike/" in path + b"/":  # there is a credential in it
            if path.endswith(OWN):
                self._note(path, Code.SPECIAL, "what links another folder is not synced")
            return False
        try:
            check_path(path)
        except PathError as error:
            self._note(path, Code.NAME, str(error))
            return False
        return True

    def _ignored(self, path: bytes, kind: Kind | None) -> bool:
        return self._ignore.matches(path, directory=kind is Kind.DIRECTORY)

    def _ruled(self, path: bytes) -> None:
        """What a rule names since it was synced, and is another one by lstat: no word of it goes
        up, and what the site has replaces it where its bytes are as agreed."""
        try:
            st = seen_as(self._context, path, self._synced_entry(path))
        except OSError as error:
            self._cannot(path, error)
            return
        if st is not None:
            self._found.stamps[path] = stamp_of(st)
        elif self._news[path].kind == Kind.DELETED:
            self._found.local[path] = None  # from now on it is a file of this device alone
        else:
            self._leave(path, Code.CHANGED, _RULED)

    def _symlink(self, path: bytes, st: Stat) -> None:
        try:
            target = self._fs.readlink(path)
        except OSError as error:
            self._cannot(path, error)
            return
        self._compare(path, symlink_entry(target), st, trusted_stamp(st, self._tick))

    def _file(self, path: bytes, st: Stat, old: bytes | None) -> None:
        stamp = stamp_of(st)
        if old != stamp and self._can_wait(path, st, old):
            self._found.local[path] = file_entry(st, b"")
            self._found.stamps[path] = stamp
            return
        try:
            digest, st = self._hash(path, st, sign=old != stamp and self._look.defer)
        except StillWriting:
            self._leave(path, Code.WRITING, "it is still being written")
            return
        except OSError as error:
            self._cannot(path, error)
            return
        if old == stamp_of(st) and not self._is_agreed(path, digest):
            self._leave(path, Code.DAMAGED, _DAMAGED)
            return
        self._compare(path, file_entry(st, digest), st, trusted_stamp(st, self._tick))

    def _hash(self, path: bytes, st: Stat, *, sign: bool) -> tuple[bytes, Stat]:
        """The content's hash; on the way its signature, for where it is agreed on next."""
        news = self._news.get(path)
        there = news.hash if sign and news is not None else b""
        builder = new_builder(self._context, st.st_size) if there else None
        seen = builder.update if builder is not None else lambda _: None
        digest, st = hash_file(self._fs, path, self._context.config.read_size, seen, self._flush)
        if builder is not None and digest == there:
            save_signature(self._context, digest, builder)
        return digest, st

    def _can_wait(self, path: bytes, st: Stat, old: bytes | None) -> bool:
        """Whether the content may be read by the upload, at once with sending it."""
        if not self._look.defer or path in self._news:
            return False
        if old is not None or st.st_size < self._context.config.whole_below:
            return True
        # A large new file may be a copy of one, and then it needs no sending at all.
        return st.st_size not in self._sizes and not self._context.state.tree.has_size(st.st_size)

    def _is_agreed(self, path: bytes, digest: bytes) -> bool:
        known = self._context.state.tree.get(path)
        return (
            known is not None
            and known.synced.entry is not None
            and (known.synced.entry.hash == digest)
        )

    def _compare(self, path: bytes, entry: Entry, st: Stat, trusted: bytes) -> None:
        """Sort a path whose content is known: as agreed, or not."""
        known = self._context.state.tree.get(path)
        if known is not None and same_entry(known.synced.entry, entry):
            if known.stamp != trusted:
                self._found.same[path] = trusted
            self._found.stamps[path] = stamp_of(st)
            return
        self._found.local[path] = entry
        self._found.stamps[path] = stamp_of(st)

    def _miss(self, before: Mapping[bytes, bytes]) -> None:
        """What is left of the agreed tree is gone, where it would have been seen."""
        staying = self._staying(before)
        for path, stamp in before.items():
            above = (b"", *ancestors(path))
            if self._unknown and not self._unknown.isdisjoint((*above, path)):
                continue
            if path in staying or not self._is_gone(path):
                continue
            self._found.local[path] = None
            self._found.gone[path] = stamp

    def _is_gone(self, path: bytes) -> bool:
        """Whether nothing is at a path that no list of its directory named.

        A list is made while programs write: some disks leave out what is just being replaced.
        """
        above = parent(path)
        there = self._found.local.get(above)
        if above in self._found.gone or (
            isinstance(there, Entry) and there.kind is not Kind.DIRECTORY
        ):
            return True
        try:
            self._fs.lstat(path)
            if not has_name(self._fs, path):
                return True  # the disk takes this name for another one
        except OSError as error:
            if error.errno in _NOTHING:
                return True
            self._cannot(path, error)
        else:
            self._leave(path, Code.WRITING, "it was replaced while it was looked at")
        return False

    def _staying(self, gone: Iterable[bytes]) -> set[bytes]:
        """Those of which no word goes up: what a rule names, and the directories that hold it.

        What became something else at the site is not kept from here by that: it comes again.
        """
        if not self._ignore.lines:
            return set()
        found = {path for path in gone if self._ignored(path, self._synced_kind(path))}
        edited = {path for path in found & self._news.keys() if self._is_edited(path)}
        made = [path for path in edited if entry_of(self._news[path]) is not None]
        again = edited.union(*map(ancestors, made))
        return found.union(*map(ancestors, found)) - again

    def _is_edited(self, path: bytes) -> bool:
        """Whether the site has something else there than was agreed on."""
        return not same_entry(entry_of(self._news[path]), self._synced_entry(path))

    def _synced_kind(self, path: bytes) -> Kind | None:
        entry = self._synced_entry(path)
        return entry.kind if entry is not None else None

    def _synced_entry(self, path: bytes) -> Entry | None:
        known = self._context.state.tree.get(path)
        return known.synced.entry if known is not None else None

    def _cannot(self, path: bytes, error: OSError | None) -> None:
        why = f": {error.strerror}" if error is not None and error.strerror else ""
        self._leave(path, Code.UNREADABLE, f"it can't be read{why}")

    def _mounted(self, path: bytes) -> None:
        self._leave(path, Code.UNREADABLE, "another disk is mounted here")

    def _leave(self, path: bytes, code: Code, reason: str) -> None:
        """Nothing is known of the path and all below it."""
        self._unknown.add(path)
        self._found.local[path] = UNKNOWN
        self._note(path, code, reason)

    def _note(self, path: bytes, code: Code, reason: str) -> None:
        self._found.pending[path] = Pending(path, reason, code)
