"""What a plugin of authentication is.

A plugin is a class registered in the entry-point group `dblike.auth` and named in the server's
config: `"auth": [{"plugin": "simple"}, {"plugin": "htpasswd", "file": "/etc/dblike/htpasswd"}]`.
The plugins are asked in that order, and the first that knows the credentials decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from dblike_srv.site import Site

GROUP = "dblike.auth"


class Credentials(msgspec.Struct, frozen=True):
    """What someone who wants in has shown.  `address` is where the request came from."""

    user: str
    password: str
    address: str = ""

    def __repr__(self) -> str:
        return f"Credentials({self.user!r})"  # a password never reaches a log


class Principal(msgspec.Struct, frozen=True):
    """Who it is: the user's name at this site.

    `create` lets the user's row be made on the first login; without it an unknown name is refused.
    """

    user: str
    create: bool = False


class Authenticator(Protocol):
    """One way to check credentials.

    `authenticate` returns None where it doesn't know them, whatever the reason; it spends the same
    time on an unknown user as on a wrong password.  It raises only where it can't tell (a directory
    that doesn't answer): then this plugin lets nobody in.  It may be called from several threads.
    """

    name: str

    def authenticate(self, credentials: Credentials) -> Principal | None:
        """Who has these credentials, or None."""


class Factory(Protocol):
    """What an entry point names: makes a plugin from its part of the config.

    Unknown or missing settings raise ValueError with a line for the person who wrote the config.
    """

    def __call__(self, site: Site, settings: Mapping[str, Any]) -> Authenticator:
        """The plugin for `site`; `settings` is its config without `plugin`."""
