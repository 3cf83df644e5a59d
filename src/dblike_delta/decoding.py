"""Decoders of messages, of which only one is made at a time.

msgspec plans how a type is decoded where that is first asked for, and keeps the plan at the class
before it is whole.  A second thread that decodes the type at that moment reads what is not there,
and the process ends with a segmentation fault (seen with msgspec 0.22).  So nothing else in these
packages makes a decoder, or decodes without one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

_T = TypeVar("_T")

_making = threading.RLock()
_packed: dict[Any, msgspec.msgpack.Decoder[Any]] = {}
_json: dict[Any, msgspec.json.Decoder[Any]] = {}

if hasattr(os, "register_at_fork"):  # else the child would have a plan that nobody ends
    os.register_at_fork(
        before=_making.acquire,
        after_in_parent=_making.release,
        after_in_child=_making.release,
    )


def unpacker(kind: Any) -> Callable[[bytes | bytearray | memoryview], Any]:
    """What decodes this type from MessagePack; raises msgspec.DecodeError, ValidationError."""
    decoder: msgspec.msgpack.Decoder[Any] = _decoder(_packed, msgspec.msgpack.Decoder, kind)
    return decoder.decode


def unpack(raw: bytes | bytearray | memoryview, kind: type[_T]) -> _T:
    """A value of this type from MessagePack; raises msgspec.DecodeError, ValidationError."""
    found: _T = _decoder(_packed, msgspec.msgpack.Decoder, kind).decode(raw)
    return found


def read_json(raw: bytes | bytearray | memoryview | str, kind: type[_T]) -> _T:
    """A value of this type from JSON; raises msgspec.DecodeError, ValidationError."""
    found: _T = _decoder(_json, msgspec.json.Decoder, kind).decode(raw)
    return found


def convert(value: object, kind: type[_T]) -> _T:
    """A value of this type from dicts, lists and the like; raises msgspec.ValidationError."""
    _decoder(_json, msgspec.json.Decoder, kind)  # the plan is the same
    return msgspec.convert(value, kind)


def _decoder(made: dict[Any, Any], make: Callable[[Any], Any], kind: Any) -> Any:
    decoder = made.get(kind)
    if decoder is None:
        with _making:
            decoder = made.get(kind) or made.setdefault(kind, make(kind))
    return decoder
