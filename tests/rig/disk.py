"""A disk whose power can be cut: an ext4 in a file, and what was not made durable is gone."""

from __future__ import annotations

import fcntl
import os
import struct
import time
from pathlib import Path
from typing import Final

from rig.networks import run

_SHUTDOWN: Final = 0x8004587D
"""EXT4_IOC_SHUTDOWN, of the kernel's fs/ext4/ext4.h."""
_PATIENCE: Final = 10.0
_NO_LOG_FLUSH: Final = 2
"""Nothing more is written, not even the file system's own log."""


class Disk:
    """Mounted at `place` from `open` to `close`.  Raises OSError where that is not allowed."""

    def __init__(self, root: Path, name: str, megabytes: int = 256) -> None:
        self.place = root / name
        self._image = root / f"{name}.img"
        self._size = megabytes << 20

    def open(self) -> None:
        """A new one, with nothing on it."""
        self.place.mkdir()
        with self._image.open("wb") as image:
            image.truncate(self._size)
        run("mkfs.ext4", "-q", "-F", str(self._image))
        self._mount()

    def cut(self) -> None:
        """The power is gone.  Programs that use the disk see errors, and have to be ended."""
        root = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(root, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(root)

    def restart(self) -> None:
        """The power is back."""
        self._unmount()
        self._mount()

    def close(self) -> None:
        """Remove it."""
        if self.place.is_mount():
            self._unmount()
        self._image.unlink(missing_ok=True)

    def _unmount(self) -> None:
        """Who was killed may let go of it a moment after their end."""
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                run("umount", str(self.place))
                return
            except OSError:
                if time.monotonic() > until:
                    raise
            time.sleep(0.02)

    def _mount(self) -> None:
        run("mount", "-o", "loop", str(self._image), str(self.place))
