"""Every error that the library raises on purpose.

ValueError
└── DeltaError              the root: whatever came in was not usable
    ├── FormatError         bytes that are not what they should be, and where (offset)
    ├── LimitError          a size, count or cost above the limit
    ├── IntegrityError      well-formed, but the content is not what was promised
    │   └── BaseMismatch    the base is not the file that the delta was made against
    ├── PathError           not a path of a folder
    ├── BaseMissing         a delta against content that is not here
    ├── KernelError         the kernel asked for by DBLIKE_KERNEL can't be had
    └── Cancelled           the caller asked to stop
"""

from __future__ import annotations


class DeltaError(ValueError):
    """Root of the library's errors; its text is one line meant for a person."""


class FormatError(DeltaError):
    """Bytes that do not follow their format; `offset` is where the bad field begins."""

    def __init__(self, message: str, *, offset: int = 0) -> None:
        super().__init__(f"{message} (at byte {offset})")
        self.reason = message
        self.offset = offset


class LimitError(DeltaError):
    """A size, a count or an amount of work above its limit."""

    def __init__(
        self,
        message: str,
        *,
        wanted: int | None = None,
        available: int | None = None,
        offset: int | None = None,
    ) -> None:
        super().__init__(message)
        self.wanted = wanted
        self.available = available
        self.offset = offset


class IntegrityError(DeltaError):
    """Content that is not what its hash or its size promised."""


class BaseMismatch(IntegrityError):
    """The base is not the file that the delta was made against."""


class PathError(DeltaError):
    """Bytes that can't be a path of a folder."""

    def __init__(self, message: str, *, path: bytes = b"") -> None:
        super().__init__(message)
        self.path = path


class BaseMissing(DeltaError):
    """A delta against content that is not here."""

    def __init__(self, message: str, *, base: bytes = b"") -> None:
        super().__init__(message)
        self.base = base


class KernelError(DeltaError):
    """The kernel that DBLIKE_KERNEL names is unknown or absent."""


class Cancelled(DeltaError):
    """The caller asked to stop."""
