"""Dots and version vectors: which versions someone knew of."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from dblike_delta.errors import FormatError
from dblike_delta.varints import put_varint, take_varint

DEVICE_BYTES: Final = 16
MAX_COUNTER: Final = 2**63 - 1
SEAL_BYTES: Final = 16
"""What a site puts before a packed vector so that nobody else can make one up."""


class Dot(NamedTuple):
    """A version's identity."""

    device: bytes
    counter: int


class VersionVector:
    """Device id → counter, immutable: all versions of a path that someone knew of.

    `a <= b` says that b knows all that a knows; neither way round means concurrent.
    """

    __slots__ = ("_counters", "_hash", "_packed")

    def __init__(self) -> None:
        self._counters: dict[bytes, int] = {}
        self._hash: int | None = None
        self._packed: bytes | None = None

    @classmethod
    def of(cls, counters: Mapping[bytes, int]) -> VersionVector:
        """The vector of these counters; ValueError for what can't be one."""
        for device, counter in counters.items():
            if len(device) != DEVICE_BYTES or not 1 <= counter <= MAX_COUNTER:
                raise ValueError(f"no entry of a version vector: {device!r}: {counter}")
        return cls._make(dict(counters))

    @classmethod
    def _make(cls, counters: dict[bytes, int], packed: bytes | None = None) -> VersionVector:
        vector = cls()
        vector._counters, vector._packed = counters, packed
        return vector

    def get(self, device: bytes) -> int:
        """The device's counter; 0 where nothing of it is known."""
        return self._counters.get(device, 0)

    def knows(self, dot: Dot) -> bool:
        """Whether the version of this dot is known."""
        return self._counters.get(dot.device, 0) >= dot.counter

    def items(self) -> list[tuple[bytes, int]]:
        """Device and counter, sorted by device."""
        return sorted(self._counters.items())

    def join(self, other: VersionVector) -> VersionVector:
        """What both together know."""
        if other <= self:
            return self
        counters = dict(self._counters)
        for device, counter in other._counters.items():
            if counters.get(device, 0) < counter:
                counters[device] = counter
        return self._make(counters)

    def with_dot(self, dot: Dot) -> VersionVector:
        """The same, and the version of that dot."""
        if self.knows(dot):
            return self
        return self._make({**self._counters, dot.device: dot.counter})

    def pack(self) -> bytes:
        """As bytes: their number, then each device and its counter, sorted by device."""
        if self._packed is None:
            if len(self._counters) == 1:
                ((device, counter),) = self._counters.items()
                self._packed = _pack_one(device, counter)
                return self._packed
            out = bytearray()
            put_varint(out, len(self._counters))
            for device, counter in self.items():
                out += device
                put_varint(out, counter)
            self._packed = bytes(out)
        return self._packed

    @classmethod
    def unpack(cls, data: bytes) -> VersionVector:
        """The vector that packs to exactly `data`; else FormatError."""
        counters, at = _take_counters(data, 0)
        if at != len(data):
            raise FormatError("bytes after the end of a version vector", offset=at)
        return cls._make(counters, data)

    @classmethod
    def take(cls, data: bytes, at: int) -> tuple[VersionVector, int]:
        """The vector that begins at `at`, and where it ends; else FormatError."""
        counters, at = _take_counters(data, at)
        return cls._make(counters), at

    def __le__(self, other: VersionVector) -> bool:
        theirs = other._counters
        if len(self._counters) > len(theirs):
            return False
        for device, counter in self._counters.items():  # noqa: SIM110 - all() costs twice as much
            if theirs.get(device, 0) < counter:
                return False
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VersionVector) and self._counters == other._counters

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(frozenset(self._counters.items()))
        return self._hash

    def __len__(self) -> int:
        return len(self._counters)

    def __bool__(self) -> bool:
        return bool(self._counters)

    def __iter__(self) -> Iterator[Dot]:
        return (Dot(device, counter) for device, counter in self.items())

    def __repr__(self) -> str:
        inside = ", ".join(f"{device.hex()[:8]}: {counter}" for device, counter in self.items())
        return f"VersionVector({{{inside}}})"


def _take_counters(data: bytes, at: int) -> tuple[dict[bytes, int], int]:
    """The counters that begin at `at`, and where they end; else FormatError."""
    number, at = take_varint(data, at)
    counters: dict[bytes, int] = {}
    last = b""
    for _ in range(number):
        device = data[at : at + DEVICE_BYTES]
        if len(device) < DEVICE_BYTES or device <= last:
            raise FormatError("a version vector's devices are cut or not sorted", offset=at)
        counter, end = take_varint(data, at + DEVICE_BYTES)
        if not 1 <= counter <= MAX_COUNTER:
            raise FormatError("a version vector's counter is out of range", offset=at)
        counters[device], last, at = counter, device, end
    return counters, at


def _pack_one(device: bytes, counter: int) -> bytes:
    """A packed vector of one entry, as those of most versions are."""
    out = bytearray(b"\x01" + device)
    put_varint(out, counter)
    return bytes(out)


def is_behind(cursor: str) -> bool:
    """Whether a sealed cursor says that its owner has heard of more than the site that gave it."""
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        return bool(raw) and VersionVector.take(raw, SEAL_BYTES)[1] < len(raw)
    except (ValueError, FormatError):
        return False


def vector_in(sealed: bytes) -> VersionVector:
    """What a sealed context says is known; none for an empty one, FormatError for what is none.

    Only a site can tell whether the seal is good: this is for comparing what sites handed out, and
    what `said_after` made of it.
    """
    if not sealed:
        return VersionVector()
    if len(sealed) <= SEAL_BYTES:
        raise FormatError("a sealed context is cut", offset=len(sealed))
    vector, at = VersionVector.take(sealed, SEAL_BYTES)
    return vector if at == len(sealed) else vector.join(VersionVector.unpack(sealed[at:]))


def said_after(context: bytes, dot: Dot) -> bytes:
    """The context of a version that its own device made in knowledge of `context`.

    No seal goes with the dot: to whom it is sent back, the device's next dot says the same.
    """
    return (handed_out(context) or _NOTHING_SEALED) + _pack_one(dot.device, dot.counter)


def handed_out(context: bytes) -> bytes:
    """What a site handed out of a context, to be sent back to one: all but what `said_after`
    added."""
    if not context or context.startswith(_NOTHING_SEALED):
        return b""
    try:
        return context[: VersionVector.take(context, SEAL_BYTES)[1]]
    except FormatError:
        return context  # whatever it is, a site gave it


_NOTHING_SEALED: Final = bytes(SEAL_BYTES) + VersionVector().pack()
