"""The synced tree as reconcile reads it: what was agreed on, deletes among it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from dblike_cli.state.tombs import Tomb, Tombs
from dblike_cli.state.tree import Tree
from dblike_delta.plan import Synced
from dblike_delta.versions import Dot

_ALL: Final = 500
_NO_DOT: Final = Dot(bytes(16), 0)


class View(Mapping[bytes, Synced]):
    """Reads the tables at once where most of them is asked for, else row by row.

    A deleted path is there with no entry while it has a tomb: whatever becomes of it is made in
    knowledge of what it was.
    """

    def __init__(self, tree: Tree, tombs: Tombs, paths: Iterable[bytes]) -> None:
        self._tree = tree
        self._tombs = tombs
        self._buried = not tombs.empty()
        wanted = sum(1 for _ in paths)
        self._whole = wanted > _ALL or tree.empty()
        self._seen: dict[bytes, Synced | None] = {}
        if self._whole:
            self._seen.update((path, _deleted(tomb)) for path, tomb in tombs.all().items())
            self._seen.update((known.path, known.synced) for known in tree.rows())

    def __getitem__(self, path: bytes) -> Synced:
        found = self.get(path)
        if found is None:
            raise KeyError(path)
        return found

    def get(self, path: bytes, default: Synced | None = None) -> Synced | None:  # type: ignore[override]
        """As of any mapping, without an exception on the way."""
        if not self._whole and path not in self._seen:
            self._seen[path] = self._read(path)
        return self._seen.get(path) or default

    def __contains__(self, path: object) -> bool:
        return isinstance(path, bytes) and self.get(path) is not None

    def __iter__(self) -> Iterator[bytes]:
        yield from (known.path for known in self._tree.rows())
        yield from self._tombs.all()

    def __len__(self) -> int:
        return self._tree.count() + len(self._tombs.all())

    def _read(self, path: bytes) -> Synced | None:
        known = self._tree.get(path)
        if known is not None:
            return known.synced
        tomb = self._tombs.get(path) if self._buried else None
        return _deleted(tomb) if tomb is not None else None


def _deleted(tomb: Tomb) -> Synced:
    return Synced(None, tomb.context, _NO_DOT)
