"""The plugins that the config names, asked in its order, and none of them trusted to work.

A plugin lets someone in, or it does not; one that raises, hangs or answers nonsense lets nobody in.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from dblike_srv.auth.base import GROUP, Authenticator, Credentials, Principal
from dblike_srv.errors import Busy
from dblike_srv.site import Site

DEADLINE: Final = 15.0
"""Seconds that a plugin may take; a thread that still hangs then is left to itself."""
HANGING: Final = 8
"""Calls of one plugin that may be under way; above that it is taken to be broken."""
OURS: Final = (
    EntryPoint("simple", "dblike_srv.auth.simple:SimpleAuth", GROUP),
    EntryPoint("htpasswd", "dblike_srv.auth.htpasswd:HtpasswdAuth", GROUP),
)
"""Known without an installation's metadata too, as when run from a checkout."""

log = logging.getLogger(__name__)


class Gate:
    """All ways to log in."""

    def __init__(self, plugins: Sequence[Authenticator], *, deadline: float = DEADLINE) -> None:
        self._guards = [_Guard(plugin, deadline) for plugin in plugins]

    def admit(self, credentials: Credentials) -> Principal | None:
        """Who it is by the first plugin that knows, or None.

        Raises Busy where nobody knew and a plugin could not be asked: the password may be right.
        """
        broken = False
        for guard in self._guards:
            answer = guard.ask(credentials)
            if isinstance(answer, Principal):
                return answer
            broken = broken or answer is not None
        if broken:
            raise Busy("logins can't be checked at the moment", retry_after=5)
        return None


class _Guard:
    """One plugin, called in a thread of its own for a limited time."""

    def __init__(self, plugin: Authenticator, deadline: float) -> None:
        self._plugin = plugin
        self._deadline = deadline
        self._slots = threading.BoundedSemaphore(HANGING)

    def ask(self, credentials: Credentials) -> Principal | Exception | None:
        """The plugin's answer; an Exception where it has none."""
        if not self._slots.acquire(timeout=self._deadline):
            return TimeoutError("all its calls hang")
        answers: list[Any] = []
        thread = threading.Thread(
            target=self._call, args=(credentials, answers), name="auth", daemon=True
        )
        thread.start()
        thread.join(self._deadline)
        answer = answers[0] if answers else TimeoutError(f"no answer in {self._deadline} s")
        if answer is None or isinstance(answer, Principal):
            return answer
        if isinstance(answer, Busy):
            raise answer
        log.error("auth plugin %s: %s", self._plugin.name, _told(answer))
        return answer if isinstance(answer, Exception) else TypeError("not a Principal")

    def _call(self, credentials: Credentials, answers: list[Any]) -> None:
        try:
            answers.append(self._plugin.authenticate(credentials))
        except BaseException as error:  # noqa: BLE001 - whatever it is, it lets nobody in
            answers.append(error)
        finally:
            self._slots.release()


def _told(answer: object) -> str:
    """What a log may say: an exception's text could hold the password."""
    if isinstance(answer, (TimeoutError, OSError)):
        return f"{type(answer).__name__}: {answer}"
    return f"raised or returned {type(answer).__name__}"


def load_gate(site: Site, configured: Sequence[Mapping[str, Any]]) -> Gate:
    """The gate of the config's `auth` list; raises ValueError with a line for its author."""
    known = {point.name: point for point in (*OURS, *entry_points(group=GROUP))}
    plugins = []
    for entry in configured:
        settings = {key: value for key, value in entry.items() if key != "plugin"}
        name = str(entry.get("plugin", ""))
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"auth: no plugin {name!r} is installed{hint}")
        plugins.append(known[name].load()(site, settings))
    if not plugins:
        raise ValueError("auth: no plugin is named, so nobody could log in")
    return Gate(plugins)
