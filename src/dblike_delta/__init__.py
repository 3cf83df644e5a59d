"""DBLike's library: rsync-style signatures, deltas and patches; versions and their merge; recipes.

>>> import io, dblike_delta
>>> old, new = b"a" * 5000 + b"tail", b"head" + b"a" * 5000 + b"tail"
>>> delta = dblike_delta.delta(dblike_delta.signature(io.BytesIO(old)), io.BytesIO(new))
>>> out = io.BytesIO()
>>> dblike_delta.patch(io.BytesIO(old), delta, out).size
5008
>>> out.getvalue() == new
True
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# The verbs are also names of modules: bound here, once, they stay functions whoever imports
# the modules later.  What else is public is imported when it is first asked for.
from dblike_delta.delta import Delta, DeltaEncoder, delta
from dblike_delta.patch import PatchResult, patch
from dblike_delta.reconcile import reconcile
from dblike_delta.signature import Signature, SignatureBuilder, choose_block_size, signature
from dblike_delta.trim import trim

if TYPE_CHECKING:
    from dblike_delta.commands import Copy, End, Literal
    from dblike_delta.errors import DeltaError
    from dblike_delta.formats import DeltaDecoder
    from dblike_delta.limits import Limits
    from dblike_delta.recipe import Extent, Recipe
    from dblike_delta.rolling import RollingChecksum
    from dblike_delta.tree_patch import patch_tree
    from dblike_delta.trees import TreeSignature, delta_tree, sign_tree
    from dblike_delta.versions import Version, VersionVector, merge

__all__ = [
    "Copy",
    "Delta",
    "DeltaDecoder",
    "DeltaEncoder",
    "DeltaError",
    "End",
    "Extent",
    "Limits",
    "Literal",
    "PatchResult",
    "Recipe",
    "RollingChecksum",
    "Signature",
    "SignatureBuilder",
    "TreeSignature",
    "Version",
    "VersionVector",
    "choose_block_size",
    "delta",
    "delta_tree",
    "merge",
    "patch",
    "patch_tree",
    "reconcile",
    "sign_tree",
    "signature",
    "trim",
]

_HOMES = {
    "Copy": "commands",
    "End": "commands",
    "Literal": "commands",
    "DeltaError": "errors",
    "DeltaDecoder": "formats",
    "Limits": "limits",
    "Extent": "recipe",
    "Recipe": "recipe",
    "RollingChecksum": "rolling",
    "TreeSignature": "trees",
    "delta_tree": "trees",
    "patch_tree": "tree_patch",
    "sign_tree": "trees",
    "Version": "versions",
    "VersionVector": "versions",
    "merge": "versions",
}


def __getattr__(name: str) -> Any:
    """Import the home of a public name when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
