"""What the hub asks the database: where folders stand, and who may still listen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import Connection, select

from dblike_srv import accounts
from dblike_srv.contents import batches
from dblike_srv.hub_client import EVERYONE, Session
from dblike_srv.models import folders, journals
from dblike_srv.replication import keys
from dblike_srv.site import Site


class SiteDirectory:
    """A few queries, however many sockets there are."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def positions(self, users: Iterable[int]) -> Mapping[int, Mapping[bytes, str]]:
        """Each user's folders and their cursors."""
        found = self._site.database.read(lambda connection: _heads(connection, users))
        cursor = self._site.seal.cursor
        return {
            user: {folder: cursor(folder, numbers) for folder, numbers in mine.items()}
            for user, mine in found.items()
        }

    def alive(self, sessions: Iterable[Session]) -> set[Session]:
        """Those whose token is still good."""
        sites = {session for session in sessions if session.user == EVERYONE}
        return accounts.alive(self._site, set(sessions) - sites) | set(filter(self._open, sites))

    def _open(self, session: Session) -> bool:
        try:
            return keys.present_follower(self._site, session.token.decode()) == session.device
        except accounts.Unauthorized:
            return False


def _heads(
    connection: Connection, users: Iterable[int]
) -> dict[int, dict[bytes, dict[bytes, int]]]:
    found: dict[int, dict[bytes, dict[bytes, int]]] = {}
    for batch in batches(users):
        query = (
            select(folders.c.user, folders.c.id, journals.c.site, journals.c.head)
            .outerjoin(journals, journals.c.folder == folders.c.row)
            .where(folders.c.user.in_(batch))
        )
        for user, folder, site, head in connection.execute(query):
            numbers = found.setdefault(user, {}).setdefault(bytes(folder), {})
            if site is not None:
                numbers[bytes(site)] = head
    return found
