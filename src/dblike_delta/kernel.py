"""Chooses the kernel: the compiled one, or its plain-Python twin where DBLIKE_KERNEL asks for it.

Who names a kernel gets that one or an error, never quietly another.
"""

from __future__ import annotations

import os
import warnings
from importlib import import_module
from typing import TYPE_CHECKING

from dblike_delta.errors import KernelError

_CHOICE = os.environ.get("DBLIKE_KERNEL", "")

if TYPE_CHECKING or _CHOICE == "python":
    from dblike_delta import _kernel_py as chosen
elif _CHOICE in {"", "compiled"}:
    try:
        chosen = import_module("dblike_delta._kernel")
    except ImportError as error:
        if _CHOICE:
            raise KernelError(f"DBLIKE_KERNEL=compiled, but there is none: {error}") from None
        chosen = import_module("dblike_delta._kernel_py")
        warnings.warn(
            "dblike_delta runs without its compiled kernel, a hundred times slower; "
            "DBLIKE_KERNEL=python says that this is meant",
            RuntimeWarning,
            stacklevel=2,
        )
else:
    raise KernelError(f"DBLIKE_KERNEL={_CHOICE}: must be compiled or python")

name: str = chosen.name
Signer = chosen.Signer
Scanner = chosen.Scanner
weak_sum = chosen.weak_sum
weak_roll = chosen.weak_roll
bad_place = chosen.bad_place
strong_sum = chosen.strong_sum
