"""What a view takes and gives, said beside it; /v1/openapi.json is made of this."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec

_View = TypeVar("_View", bound=Callable[..., Any])

BINARY: Final = "application/octet-stream"


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """A view's face.  Types are messages; what is no message is named by its media type."""

    takes: tuple[type | str, ...] = ()
    gives: tuple[type | str, ...] = ()
    status: int = 200
    query: Mapping[str, Mapping[str, Any]] = {}
    headers: Mapping[str, Mapping[str, Any]] = {}
    public: bool = False
    also: tuple[int, ...] = ()


TEXT: Final = {"type": "string"}
INTEGER: Final = {"type": "integer", "format": "int64"}
FLAG: Final = {"type": "boolean"}


def operation(
    *takes: type | str,
    gives: type | str | tuple[type | str, ...] = (),
    **more: Any,
) -> Callable[[_View], _View]:
    """Describe a view: what it takes, what it gives, and the rest of `Operation`."""
    given = gives if isinstance(gives, tuple) else (gives,)

    def describe(view: _View) -> _View:
        view.operation = Operation(takes=takes, gives=given, **more)  # type: ignore[attr-defined]
        return view

    return describe
