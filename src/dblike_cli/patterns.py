"""One rule of an ignore file as a regular expression that no name makes slow.

pathspec's expressions try all ways in which the stars of a rule could share a name: hours, for one
with many stars and a long name.  But what lies between two stars may stand where it fits first,
for what follows can only gain by that.  So that is never tried a second time.
"""

from __future__ import annotations

import re
from typing import Any, Final

from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

_STAR: Final = "[^/]*"
_ANY_ABOVE: Final = "^(?:.+/)?"
_ANY_BETWEEN: Final = "(?:/.+)?"
_FIXED: Final = r"(?:\\.|\[(?!\^/\]\*)\^?\]?[^\]]*\]|[^\\\[(/])*"
_NOT_LAST: Final = re.compile(rf"\[\^/\]\*({_FIXED})(?=\[\^/\]\*)", re.DOTALL)
"""A star that another one follows in the same name, with what stands between the two."""


class Pattern(GitIgnoreSpecPattern):
    """A rule; the stars in it are matched one after the other."""

    __slots__ = ()

    @classmethod
    def pattern_to_regex(cls, pattern: Any) -> tuple[Any, bool | None]:
        """The expression, and whether what it matches is ignored."""
        expression, include = super().pattern_to_regex(pattern)
        # A name may hold line breaks, too.
        return expression and f"(?s){_bounded(expression)}", include


def _bounded(expression: str) -> str:
    """The same without choices that need not be tried."""
    first, *rest = _NOT_LAST.sub(r"(?>[^/]*?\1)", expression).split(_ANY_BETWEEN)
    if not rest:
        return first
    if first.startswith(_ANY_ABOVE):
        first = f"^(?>(?:.+?/)??{first.removeprefix(_ANY_ABOVE)}(?=/))"
    middle = [f"(?>(?:/.+?)??{part}(?=/))" for part in rest[:-1]]
    return first + "".join(middle) + _ANY_BETWEEN + rest[-1]
