"""The weak sum as a value: of a window that moves by a byte at a time."""

from __future__ import annotations

from typing import Final

from dblike_delta import kernel
from dblike_delta.commands import Data
from dblike_delta.parameters import POLYNOMIAL, RABIN_KARP, ROLLSUM, XXH3, Parameters

MULTIPLIER: Final = 0x2C1B3C6D
"""The multiplier where none is given; signatures have a random one each."""

_KINDS: Final = {"polynomial": POLYNOMIAL, "rabin-karp": RABIN_KARP, "rollsum": ROLLSUM}
_RK_MULTIPLIER: Final = 0x08104225


class RollingChecksum:
    """A sum of the bytes in a window that can be moved on without adding all of them again.

    `kind` is "polynomial" (ours, keyed by `multiplier`), or librsync's "rabin-karp" or "rollsum".

    >>> window = RollingChecksum(b"abcd")
    >>> window.roll(ord("a"), ord("e"))
    >>> window.digest() == RollingChecksum(b"bcde").digest()
    True
    """

    def __init__(
        self, data: Data = b"", *, kind: str = "polynomial", multiplier: int = MULTIPLIER
    ) -> None:
        if kind not in _KINDS:
            raise ValueError(f"unknown kind of sum {kind!r}: must be one of {', '.join(_KINDS)}")
        if not 1 < multiplier < 1 << 30:
            raise ValueError("the multiplier must be between 1 and 2^30")
        factor = _RK_MULTIPLIER if kind == "rabin-karp" else multiplier
        self._parameters = Parameters(1, 1, 0, _KINDS[kind], XXH3, factor)
        self._length = 0
        self._value = kernel.weak_sum(self._parameters, b"")
        self.update(data)

    def __len__(self) -> int:
        return self._length

    def update(self, data: Data) -> None:
        """Make the window longer by `data`."""
        self._value = kernel.weak_sum(self._parameters, data, self._value)
        self._length += len(data)

    def roll(self, out: int, new: int) -> None:
        """Move the window on: `out` is its first byte, `new` the byte after it.

        ValueError for what is no byte, and where the window is empty.
        """
        if not self._length or not 0 <= out <= 255 or not 0 <= new <= 255:
            raise ValueError(f"a window of {self._length} bytes can't go from {out} to {new}")
        self._value = kernel.weak_roll(self._parameters, self._value, self._length, out, new)

    def digest(self) -> int:
        """The sum: 32 bits, 31 for the polynomial."""
        return self._value
