"""Types of the compiled kernel; `_kernel_py` has the docstrings and is the definition."""

from typing import Final, TypeAlias

from dblike_delta.parameters import Parameters

_Data: TypeAlias = bytes | bytearray | memoryview
_Op: TypeAlias = tuple[int, int] | bytes

name: Final = "compiled"
instructions: Final[str]
CHAIN_LIMIT: Final[int]

def weak_sum(p: Parameters, data: _Data, value: int | None = None) -> int: ...
def weak_roll(p: Parameters, value: int, length: int, out: int, new: int) -> int: ...
def strong_sum(p: Parameters, data: _Data) -> bytes: ...
def selected_by(instructions: str, p: Parameters, data: _Data) -> int | None:
    """Which of the first 64 positions are selected, a bit each; None: not on this machine."""

def bad_place(p: Parameters, rows: bytes, size: int) -> int | None: ...

class Signer:
    def __init__(self, parameters: Parameters) -> None: ...
    def rows(self, data: _Data) -> bytes: ...

class Scanner:
    @property
    def matches(self) -> int: ...
    @property
    def alarms(self) -> int: ...
    @property
    def vain(self) -> int: ...
    def __init__(
        self,
        parameters: Parameters,
        rows: bytes,
        size: int | None,
        capacity: int,
        vain_limit: int | None = None,
    ) -> None: ...
    def feed(self, data: _Data) -> list[_Op]: ...
    def finish(self) -> list[_Op]: ...
