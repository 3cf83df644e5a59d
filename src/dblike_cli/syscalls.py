"""The system calls that Python does not offer."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final

NOREPLACE: Final = 1
EXCHANGE: Final = 2

_libc = ctypes.CDLL(None, use_errno=True)
_renameat2 = getattr(_libc, "renameat2", None)
if _renameat2 is not None:
    _renameat2.argtypes = (
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_uint,
    )


def renameat2(old: int, source: bytes, new: int, target: bytes, flags: int) -> None:
    """Renameat with NOREPLACE or EXCHANGE; ENOSYS where this libc lacks it."""
    if _renameat2 is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if _renameat2(old, source, new, target, flags):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
