"""What came of a folder's contents when a connection was cut: the next one brings the rest."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from typing import Final

from dblike_srv.identity import FolderRef
from dblike_srv.intake import Intake
from dblike_srv.site import Site
from dblike_srv.unfinished import Unfinished, remove_idle

_SAVE_EVERY: Final = 6 << 20
"""Bytes after which the state is written: it tells of every file of a run, which may be small."""


class Parts(Unfinished):
    """A folder's directory, in which one at a time takes in contents."""

    def __init__(self, site: Site, directory: Path, lock: int) -> None:
        self._lock = lock
        super().__init__(directory, site.store)
        self._saved = self.writer.size

    def save_at_times(self, intake: Intake) -> None:
        """Write the state where enough came since it was written last."""
        if intake.size - self._saved >= _SAVE_EVERY:
            self.save(intake)
            self._saved = intake.size

    def leave(self) -> None:
        """Let the next one go on."""
        self.close()
        os.close(self._lock)

    def forget(self) -> None:
        """There is nothing to go on with."""
        self.close()  # or the state could come after that
        shutil.rmtree(self._directory, ignore_errors=True)
        self.leave()


def take_parts(site: Site, folder: FolderRef) -> Parts | None:
    """The folder's; None where another one has them, in whatever process."""
    directory = _root(site) / folder.id.hex()
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_nlink:
            return Parts(site, directory, lock)
    except BlockingIOError:
        pass
    except BaseException:
        os.close(lock)
        raise
    os.close(lock)
    return None


def remove_idle_parts(site: Site) -> int:
    """Remove those that nobody goes on with; how many."""
    return remove_idle(_root(site).glob("*"), site.clock.now_ms())


def _root(site: Site) -> Path:
    return Path(site.config.data) / "arriving"
