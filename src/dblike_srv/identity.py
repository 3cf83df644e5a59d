"""Who asks, and for which folder: what authentication found out, and all that the core needs."""

from __future__ import annotations

import msgspec


class Identity(msgspec.Struct, frozen=True):
    """An authenticated device.  `user` is the user's row; `device` the device's 16-byte id."""

    user: int
    user_name: str
    device: bytes
    device_name: str


class FolderRef(msgspec.Struct, frozen=True):
    """A folder that the identity may use.  `row` is its key in the database."""

    row: int
    id: bytes
    name: str
    user: int
