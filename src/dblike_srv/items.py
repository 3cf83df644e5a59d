"""One version of a changeset as it comes in, and what can't be one."""

from __future__ import annotations

import dataclasses

from dblike_delta.errors import PathError
from dblike_delta.messages import CommitStatus, Record
from dblike_delta.paths import check_path
from dblike_delta.recipe import Recipe
from dblike_delta.versions import Kind
from dblike_srv.contents import EMPTY_HASH

_NOTHING = Recipe()


@dataclasses.dataclass(slots=True)
class Item:
    """One version of a changeset: what was said, and what came.

    `status` is set where it can't be accepted.  `stored` says that content came with it, `checked`
    that its bytes were hashed here.
    """

    record: Record
    hash: bytes
    size: int
    recipe: Recipe = _NOTHING
    stored: bool = False
    checked: bool = False
    status: CommitStatus | None = None
    detail: str = ""

    def refuse(self, detail: str, status: CommitStatus = "refused") -> None:
        """Say why it can't be accepted; the first reason stays."""
        if self.status is None:
            self.status, self.detail = status, detail


def check_item(item: Item, file_limit: int) -> None:
    """Refuse what can't be a version, whatever else is known."""
    record = item.record
    try:
        check_path(record.path)
    except PathError as error:
        item.refuse(str(error))
    if record.key_id or record.vector or record.start:
        item.refuse("key_id, vector and start have no place in a device's commit")
    if record.kind == Kind.FILE:
        _check_file(item, file_limit)
    elif record.body or record.hash or record.size or record.base:
        item.refuse("only files have content")
    if (record.kind == Kind.SYMLINK) != bool(record.target) or b"\0" in record.target:
        item.refuse("a symlink has a target, and nothing else has")


def _check_file(item: Item, file_limit: int) -> None:
    record = item.record
    if record.size > file_limit:
        item.refuse(f"the file has {record.size} bytes; the limit is {file_limit}")
    if record.hash and len(record.hash) != len(EMPTY_HASH):
        item.refuse("the content hash must have 32 bytes")
    if not record.body and not record.hash:
        item.refuse("a file needs content or the hash of one")
    if record.base and not record.body:
        item.refuse("a base without a body")
