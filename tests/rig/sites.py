"""Two sites of one cluster in this process, that hear of each other only when a test says so."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import msgspec
from flask import Flask

from dblike_delta.exchange import Request, Response, Unreachable
from dblike_delta.messages import CommitReply, Record
from dblike_srv import accounts
from dblike_srv.app import create_app
from dblike_srv.changes import changes
from dblike_srv.config import decode_config
from dblike_srv.folders import find_folder
from dblike_srv.replication.copies import note_held
from dblike_srv.replication.journals import positions
from dblike_srv.replication.sites import announce, part_with, welcome
from dblike_srv.site import Site, open_site
from rig.wsgi import WsgiTransport

KEY = "k" * 64


class Sites:
    """Site `a`, and site `b` that holds what `a` held when it was split off.

    A device's transport goes to `serving`; `copies` and `wanted` are what a commit's reply says.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.a = self._open("a")
        accounts.create_user(self.a, "ada", "correct horse")
        self.b: Site | None = None
        self._apps = {"a": self._serve(self.a)}
        self.serving = "a"
        self.copies = self.wanted = 1
        self.lose: Callable[[Request], bool] = lambda _: False
        """Whether the reply to a request is lost."""
        self.seen: list[str] = []

    def split(self) -> None:
        """Let there be site `b`, with a journal of its own."""
        source, target = self._directory / "a", self._directory / "b"
        shutil.copytree(source, target)
        (target / "dblike.db").unlink(missing_ok=True)
        with (
            sqlite3.connect(source / "dblike.db") as old,
            sqlite3.connect(target / "dblike.db") as new,
        ):
            old.backup(new)
            with sqlite3.connect(self._directory / "backup.db") as kept:
                old.backup(kept)
            new.execute("UPDATE meta SET value = ? WHERE key = 'site'", (b"b" * 16,))
        self.b = self._open("b")
        self._apps["b"] = self._serve(self.b)

    def introduce(self) -> None:
        """Let each know that there is the other."""
        assert self.b is not None
        for here, other in ((self.a, self.b), (self.b, self.a)):
            welcome(here, announce(other))

    def lose_a(self) -> None:
        """Let `a` have left for good, as `b` was told."""
        assert self.b is not None
        part_with(self.b, announce(self.a))

    def hold(self, name: str) -> None:
        """Let a site hear that the other one has all that it took."""
        here, other = (self.a, self.b) if name == "a" else (self.b, self.a)
        assert here is not None
        assert other is not None
        place = positions(here, b"").positions
        note_held(here, other.id, place)

    def swap(self) -> None:
        """Let `b` answer by `a`'s name."""
        self._apps |= {"a": self._apps["b"], "lost": self._apps["a"]}

    def roll_back(self) -> None:
        """Let site `a` be what it was when `b` was split off: its disk came from a backup."""
        self._apps["a"].extensions["dblike-hub"].stop(wait=5)
        self.a.close()
        with (
            sqlite3.connect(self._directory / "backup.db") as old,
            sqlite3.connect(self._directory / "a" / "dblike.db") as new,
        ):
            old.backup(new)
        self.a = self._open("a")
        self._apps["a"] = self._serve(self.a)

    def request(self, request: Request) -> Response:
        """As a transport does; the reply to a commit says how many sites hold it."""
        self.seen.append(f"{request.method} {request.target.partition('?')[0].split('/')[-1]}")
        reply = WsgiTransport(self._apps[self.serving].wsgi_app).request(request)
        if self.lose(request):
            _drain(reply)
            raise Unreachable("the reply was lost")
        if "/commit" not in request.target and "/uploads/" not in request.target:
            return reply
        return _Copies(reply, self.copies, self.wanted)

    def records(self, name: str) -> dict[bytes, Record]:
        """What a site has, by path."""
        site = self.a if name == "a" else self.b
        assert site is not None
        identity = accounts.administrator(site, "ada")
        folder = find_folder(site, identity, "home")
        assert folder is not None
        found, _, _ = changes(site, folder, "", 20_000)
        return {record.path: record for record in found}

    def close(self) -> None:
        for app in self._apps.values():
            app.extensions["dblike-hub"].stop(wait=5)
        self.a.close()
        if self.b is not None:
            self.b.close()

    def _open(self, name: str) -> Site:
        return open_site(decode_config({"data": str(self._directory / name), "cluster_key": KEY}))

    def _serve(self, site: Site) -> Flask:
        return create_app(site)


class _Copies:
    """A reply to a commit that says how many sites hold it."""

    def __init__(self, inner: Response, copies: int, wanted: int) -> None:
        self.status = inner.status
        self.headers: Mapping[str, str] = inner.headers
        self._body = _drain(inner)
        if self.status == 200 and b"results" in self._body:
            reply = msgspec.msgpack.decode(self._body, type=CommitReply)
            reply = msgspec.structs.replace(reply, copies=copies, wanted=wanted)
            self._body = msgspec.msgpack.encode(reply)

    def chunks(self) -> Iterator[bytes]:
        yield self._body

    def close(self) -> None:
        """Nothing to let go of."""


def _drain(reply: Response) -> bytes:
    body = b"".join(reply.chunks())
    reply.close()
    return body
