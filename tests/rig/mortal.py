"""A device that dies at its n-th contact with the world, and does nothing after that.

Every call of the file system, the state and the wire counts as one contact; death may come before
it or after it.  It leaves what a SIGKILL leaves: what was done is done, nothing is tidied up.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dblike_cli.fs import Making, NewFile, Ready, Stat
from dblike_cli.realfile import RealFile
from dblike_cli.realfs import RealFS
from dblike_cli.state import State
from dblike_delta.exchange import Request, Response, Transport


class Death(BaseException):
    """The process ends here."""


class Life:
    """Counts contacts; `at` is the one that it ends with, 0 for never.  Odd numbers end before the
    contact, even ones after it."""

    def __init__(self, at: int = 0) -> None:
        self.at = at
        self.count = 0
        self.dead = False

    @contextlib.contextmanager
    def contact(self) -> Iterator[None]:
        self._step()
        yield
        self._step()

    def _step(self) -> None:
        self.count += 1
        if self.dead or self.count == self.at:
            self.dead = True
            raise Death


class MortalFile(RealFile):
    """A file of a mortal."""

    __slots__ = ("life",)

    def __init__(self, fd: int, life: Life) -> None:
        super().__init__(fd)
        self.life = life

    def write(self, data: Any) -> None:
        if self.life.dead:
            raise Death
        half = len(data) // 2
        super().write(memoryview(data)[:half])
        with self.life.contact():
            super().write(memoryview(data)[half:])


class MortalFS(RealFS):
    """A file system of a mortal."""

    def __init__(self, directory: Any, life: Life) -> None:
        super().__init__(directory)
        self.life = life

    def create(self, path: bytes, mode: int = 0o600) -> MortalFile:
        with self.life.contact():
            return MortalFile(super().create(path, mode).fd, self.life)

    def make_many(self, directory: bytes, files: Sequence[NewFile]) -> Making:
        half = len(files) // 2
        with self.life.contact():
            made = super().make_many(directory, files[:half]).result()
        with self.life.contact():
            rest = super().make_many(directory, files[half:]).result()
        return Ready(None if made is None or rest is None else [*made, *rest])

    def move_many(
        self, source: bytes, target: bytes, names: Sequence[tuple[bytes, bytes]]
    ) -> Sequence[Stat | None]:
        half = len(names) // 2
        with self.life.contact():
            moved = super().move_many(source, target, names[:half])
        with self.life.contact():
            return [*moved, *super().move_many(source, target, names[half:])]

    def open_update(self, path: bytes) -> MortalFile:
        with self.life.contact():
            return MortalFile(super().open_update(path).fd, self.life)


def _mortal(name: str) -> Any:
    inner = getattr(RealFS, name)

    def call(self: MortalFS, *args: Any) -> Any:
        with self.life.contact():
            return inner(self, *args)

    return call


for _name in ("rename", "unlink", "mkdir", "rmdir", "symlink", "chmod", "utime"):
    setattr(MortalFS, _name, _mortal(_name))


class MortalState(State):
    """A state of a mortal: it may die before a transaction, in it, or when it is durable."""

    def __init__(self, path: Any, life: Life) -> None:
        super().__init__(path)
        self.life = life

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        if self.life.dead:
            raise Death
        with super().transaction():
            yield
            with self.life.contact():
                pass
        with self.life.contact():
            pass


class MortalWire:
    """The wire of a mortal: a request may never leave, or its reply never arrive."""

    def __init__(self, inner: Transport, life: Life) -> None:
        self._inner = inner
        self.life = life

    def request(self, request: Request) -> Response:
        with self.life.contact():
            reply = self._inner.request(request)
        return _MortalReply(reply, self.life)


class _MortalReply:
    def __init__(self, inner: Response, life: Life) -> None:
        self._inner = inner
        self._life = life
        self.status = inner.status
        self.headers: Mapping[str, str] = inner.headers

    def chunks(self) -> Iterator[bytes]:
        for chunk in self._inner.chunks():
            if self._life.dead:
                raise Death
            yield chunk

    def close(self) -> None:
        self._inner.close()
