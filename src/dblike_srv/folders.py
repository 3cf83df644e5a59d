"""Folders: the unit of sync, access and journal; and where each stands."""

from __future__ import annotations

import re

from sqlalchemy import Connection, bindparam, insert, select
from sqlalchemy.exc import IntegrityError

from dblike_delta.messages import FolderView
from dblike_srv.errors import Conflict, Invalid, NotFound
from dblike_srv.identity import FolderRef, Identity
from dblike_srv.models import folders, journals, users
from dblike_srv.registers import ACCOUNTS, folder_uid, next_stamp
from dblike_srv.site import Site

HOME = "home"
"""The folder that every user starts with."""

_ID = re.compile(r"[0-9a-f]{32}")

# Asked by every request: to build a statement anew takes longer than to run it.
_JOURNALS = select(journals.c.site, journals.c.head).where(journals.c.folder == bindparam("folder"))
_FOLDER = select(folders.c.row, folders.c.id, folders.c.name, folders.c.user).where(
    folders.c.user == bindparam("user")
)
_BY_NAME = _FOLDER.where(folders.c.name == bindparam("wanted"))
_BY_ID = _FOLDER.where(folders.c.id == bindparam("wanted"))


def create_folder(site: Site, identity: Identity, name: str) -> FolderRef:
    """A new folder; Conflict where the user has one of that name."""
    if not name or len(name.encode()) > 64 or _ID.fullmatch(name):
        raise Invalid(
            "a folder's name has 1 to 64 bytes, and does not look like an id", field="name"
        )
    now = site.clock.now_ms()

    def work(connection: Connection) -> None:
        owner = select(users.c.uid).where(users.c.id == identity.user)
        uid = folder_uid(bytes(connection.execute(owner).scalar_one()), name)
        # A COMMIT whose outcome was unknown may have made it already.
        mine = (folders.c.id == uid, folders.c.created == now)
        if not connection.scalar(select(folders.c.row).where(*mine)):
            insert_folder(connection, identity.user, uid, name, now)

    try:
        site.database.transact(work)
    except IntegrityError:
        raise Conflict(f"there is a folder named {name} already", field="name") from None
    site.notices.publish(ACCOUNTS, "changed")
    found = find_folder(site, identity, name)
    if found is None:
        raise NotFound("no such folder", field="folder")
    return found


def insert_folder(connection: Connection, user: int, uid: bytes, name: str, now: int) -> None:
    """The row of a new folder; IntegrityError where there is one."""
    row = {"id": uid, "user": user, "name": name.encode(), "created": now}
    connection.execute(insert(folders).values(**row, stamp=next_stamp(connection)))


def find_folder(site: Site, identity: Identity, name_or_id: str) -> FolderRef | None:
    """The user's folder of that name or hex id."""
    query, wanted = _BY_NAME, name_or_id.encode("utf-8", "surrogateescape")
    if _ID.fullmatch(name_or_id):
        query, wanted = _BY_ID, bytes.fromhex(name_or_id)
    values = {"user": identity.user, "wanted": wanted}
    row = site.database.read(lambda connection: connection.execute(query, values).first())
    return None if row is None else FolderRef(row[0], bytes(row[1]), bytes(row[2]).decode(), row[3])


def list_folders(site: Site, identity: Identity) -> list[FolderView]:
    """All of the user's folders, by name."""
    query = select(folders).where(folders.c.user == identity.user).order_by(folders.c.name)

    def work(connection: Connection) -> list[FolderView]:
        rows = connection.execute(query).mappings().all()
        return [
            FolderView(
                id=bytes(row["id"]).hex(),
                name=bytes(row["name"]).decode(),
                cursor=site.seal.cursor(bytes(row["id"]), journal_numbers(connection, row["row"])),
                files=row["files"],
                bytes=row["bytes"],
            )
            for row in rows
        ]

    return site.database.read(work)


def journal_numbers(connection: Connection, folder: int) -> dict[bytes, int]:
    """The last number of each site's journal of the folder that is here."""
    rows = connection.execute(_JOURNALS, {"folder": folder})
    return {bytes(site): head for site, head in rows}


def cursor_of(site: Site, folder: FolderRef) -> str:
    """The cursor that covers all that is here of the folder."""
    numbers = site.database.read(lambda connection: journal_numbers(connection, folder.row))
    return site.seal.cursor(folder.id, numbers)
