"""Write docs/library.md from what the library's public names say themselves.

Usage: .venv/bin/python scripts/document_library.py
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import dblike_delta
from dblike_delta import errors, librsync
from dblike_delta.delta import write_delta
from dblike_delta.limits import Limits
from dblike_delta.recipe import apply_delta, difference, literal_bytes

PAGE = Path(__file__).resolve().parent.parent / "docs" / "library.md"
HEADING = """\
# The library

Every public name of `dblike_delta`, as it says itself; `scripts/document_library.py` writes this
page. Sizes, offsets and lengths are bytes; times are epoch milliseconds; paths and hashes
(BLAKE3-256) are `bytes`. A *file* is any binary object with `read`, and one that is read at any
place has `seek` too; nothing is closed that was handed in. What is wrong with data raises a
`DeltaError`, what is wrong with a call a `ValueError` or `TypeError`; errors of files come through.
"""

MORE: dict[str, dict[str, Any]] = {
    "dblike_delta.delta": {"write_delta": write_delta},
    "dblike_delta.recipe": {
        "apply_delta": apply_delta,
        "difference": difference,
        "literal_bytes": literal_bytes,
    },
    "dblike_delta.librsync": {
        name: getattr(librsync, name) for name in ("signature", "delta", "patch")
    },
}


def main() -> int:
    PAGE.write_text(page())
    return 0


def page() -> str:
    parts = [HEADING, "## dblike_delta\n"]
    for name in sorted(dblike_delta.__all__, key=str.casefold):
        parts += described(name, getattr(dblike_delta, name))
    for home, names in MORE.items():
        parts.append(f"## {home}\n")
        if home == librsync.__name__:
            parts.append(f"{inspect.cleandoc(librsync.__doc__ or '')}\n")
        for name, value in names.items():
            parts += described(name, value)
    parts += ["## dblike_delta.errors\n", f"```text\n{errors.__doc__}```\n"]
    for name, value in own(errors, type):
        parts.append(f"- `{name}`: {said(value)}")
    return "\n".join(parts) + "\n"


def described(name: str, value: Any) -> Iterator[str]:
    """A name with its signature, what it says, and what it has."""
    yield f"### `{name}{signature_of(value)}`\n"
    for paragraph in (inspect.getdoc(value) or "").split("\n\n"):
        example = paragraph.startswith(">>>")
        yield f"```python\n{paragraph}\n\n```\n" if example else f"{paragraph}\n"
    lines = [f"- `{member}`: {words}" for member, words in members(value)]
    if lines:
        yield "\n".join(lines) + "\n"


def members(kind: Any) -> Iterator[tuple[str, str]]:
    """The public methods, properties and fields of a class."""
    for name, value in vars(kind).items() if isinstance(kind, type) else ():
        if name.startswith("_"):
            continue
        if isinstance(value, property):
            yield name, said(value)
        elif isinstance(value, classmethod):
            yield f"{name}{signature_of(value.__func__)}", said(value)
        elif inspect.isfunction(value):
            yield f"{name}{signature_of(value)}", said(value)


def signature_of(value: Any) -> str:
    """The parameters, without the first of a method, and what comes out."""
    try:
        found = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    shown, star = [], False
    for one in found.parameters.values():
        if one.kind is one.KEYWORD_ONLY and not star:
            shown.append("*")
            star = True
        if one.name not in {"self", "cls"}:
            shown.append(parameter(one))
    result = name_of(found.return_annotation)
    arrow = "" if isinstance(value, type) or result in {"None", ""} else f" -> {result}"
    return f"({', '.join(shown)}){arrow}"


def parameter(one: inspect.Parameter) -> str:
    """A name, its type, and its default."""
    default = "DEFAULT_LIMITS" if isinstance(one.default, Limits) else repr(one.default)
    text = f"{one.name}: {name_of(one.annotation)}"
    return text if one.default is one.empty else f"{text} = {default}"


def name_of(annotation: Any) -> str:
    """A type as it is written."""
    if annotation is inspect.Parameter.empty:
        return ""
    written = getattr(annotation, "__forward_arg__", annotation)
    if isinstance(written, type) and not hasattr(written, "__args__"):
        return written.__name__
    return re.sub(r"\b(?:\w+\.)+(?=\w)", "", str(written))


def said(value: Any) -> str:
    return " ".join((inspect.getdoc(value) or "").split())


def own(module: ModuleType, kind: type) -> Iterator[tuple[str, Any]]:
    """What a module defines itself."""
    for name, value in vars(module).items():
        if isinstance(value, kind) and getattr(value, "__module__", "") == module.__name__:
            yield name, value


def undocumented() -> list[str]:
    """Public names, and functions of public classes, that say nothing."""
    found = []
    for name in dblike_delta.__all__:
        value = getattr(dblike_delta, name)
        if not said(value):
            found.append(name)
        for member, function in vars(value).items() if isinstance(value, type) else ():
            kinds = (property, classmethod, FunctionType)
            public = isinstance(function, kinds) and not member.startswith("_")
            if public and not said(function):
                found.append(f"{name}.{member}")
    return found


if __name__ == "__main__":
    sys.exit(main())
