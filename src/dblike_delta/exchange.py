"""The protocol's steps, once: a device, a peer site and a LAN peer differ only in their transport.

An `Exchange` turns the steps (log in, hear of changes, commit, fetch) into requests and their
replies into values.  What carries a request is a `Transport`: HTTP, a WSGI application in the same
process, a connection on the LAN.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Final, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from dblike_delta import messages as m
from dblike_delta import zstd
from dblike_delta.changeset import UNBOUNDED, Body, Decoder, Event, Part
from dblike_delta.errors import FormatError
from dblike_delta.transport import (
    ExchangeError,
    Refused,
    Request,
    Response,
    Transport,
    Unreachable,
    read_message,
    refusal,
)

__all__ = [
    "Changes", "Exchange", "ExchangeError", "Refused", "Request", "Response", "Transport",
    "Unreachable",
]  # fmt: skip
_T = TypeVar("_T")
_DIGITS: Final = 20
"""Of a number in a header: those below 2^63 have fewer."""
_OF_A_FETCH: Final = (m.Record, Body, m.Trailer, m.Refusal)


class Changes(msgspec.Struct, frozen=True):
    """Changed paths as records without bodies, and the cursor that covers them.  With `sources`
    some of the records leave their contents to these (see `dblike_delta.sources`)."""

    records: tuple[m.Record, ...]
    cursor: str
    more: bool
    sources: m.Sources | None = None


class Exchange:
    """The steps of the protocol over a transport, in the name of `token`."""

    def __init__(
        self,
        transport: Transport,
        token: str = "",
        *,
        agent: str = "dblike",
        root: str = "/v1",
    ) -> None:
        """`root` is what all targets begin with: sites ask each other below another one."""
        self._transport = transport
        self._agent = agent
        self._root = root
        self.token = token
        self.trace = ""
        """An id that goes with every request and into the logs of both sides."""
        self.server_time: int | None = None
        self.takes_sources = False
        """Whether the site that answered last takes commits with sources."""
        self.received = 0
        """Bytes of changesets that came, as they were on the wire."""

    # --- sessions and folders

    def login(self, request: m.LoginRequest) -> m.LoginReply:
        """Credentials for a token, which this exchange uses from here on."""
        reply = self._call("POST", "/v1/login", request, m.LoginReply)
        self.token = reply.token
        return reply

    def logout(self) -> None:
        """End this device's token."""
        self._send("POST", "/v1/logout").close()

    def change_password(self, change: m.PasswordChange) -> None:
        """Set a new password; all tokens but this one end."""
        self._send("POST", "/v1/password", _pack(change)).close()

    def devices(self) -> list[m.DeviceView]:
        """The user's devices."""
        return self._call("GET", "/v1/devices", None, m.DeviceList).devices

    def new_device(self, name: str) -> m.LoginReply:
        """Become a new device, with a token of its own, which this exchange uses from here on."""
        reply = self._call("POST", "/v1/devices", m.DeviceRequest(name), m.LoginReply)
        self.token = reply.token
        return reply

    def sites(self) -> list[m.SiteView]:
        """The sites that hold the same data."""
        return self._call("GET", "/v1/sites", None, m.SiteList).sites

    def revoke(self, device_id: str) -> None:
        """End another device's token."""
        self._send("DELETE", f"/v1/devices/{quote(device_id, safe='')}").close()

    def folders(self) -> list[m.FolderView]:
        """The folders that the user may use."""
        return self._call("GET", "/v1/folders", None, m.FolderList).folders

    def create_folder(self, name: str) -> m.FolderView:
        """A new folder."""
        return self._call("POST", "/v1/folders", m.FolderCreate(name), m.FolderView)

    def time(self) -> int:
        """The site's epoch milliseconds."""
        return self._call("GET", "/v1/time", None, m.TimeReply).time

    # --- follow

    def changes(
        self,
        folder: str,
        cursor: str = "",
        *,
        limit: int = 10_000,
        buried: bool = False,
        brief: bool = False,
    ) -> Changes:
        """What changed since `cursor` (empty: everything), at most about `limit` paths.

        With `buried` records of deleted paths come from the first look on, with hash and size of
        the file that was deleted.  With `brief` there may be sources.
        """
        options = {"deleted": buried, "brief": brief}
        asked = {name: 1 for name, wish in options.items() if wish}
        query = urlencode({"cursor": cursor, "limit": limit, **asked})
        records: list[m.Record] = []
        mark: m.CursorMark | None = None
        sources: m.Sources | None = None
        for event in self._stream("GET", f"{self._folder(folder)}/changes?{query}"):
            match event:
                case m.Record():
                    records.append(event)
                case m.CursorMark():
                    mark = event
                case m.Sources():
                    sources = event
                case _:
                    pass
        if mark is None:
            raise FormatError("a list of changes without a cursor", offset=0)
        return Changes(tuple(records), mark.cursor, mark.more, sources)

    def journal(
        self, folder: str, cursor: str, *, limit: int = 10_000
    ) -> tuple[list[tuple[bytes, int, m.Record]], m.CursorMark]:
        """Between sites: the versions beyond `cursor`, each with the site that accepted it first
        and its number in that one's journal; and the cursor that covers them."""
        query = urlencode({"cursor": cursor, "limit": limit})
        entries: list[tuple[bytes, int, m.Record]] = []
        at: m.JournalMark | None = None
        for event in self._stream("GET", f"{self._folder(folder)}/journal?{query}"):
            match event:
                case m.JournalMark():
                    at = event
                case m.Record() if at is not None and len(entries) < limit:
                    entries.append((at.site, at.number, event))
                    at = m.JournalMark(at.site, at.number + 1)
                case m.CursorMark():
                    return entries, event
                case _:
                    break
        raise FormatError("a journal without marks", offset=0)

    # --- commit

    def commit(self, folder: str, parts: list[Part], *, brief: bool = False) -> m.CommitReply:
        """A whole changeset that is at hand.  Repeating it changes nothing.  With `brief` results
        of which there is nothing to say may be left out."""
        target = f"{self._folder(folder)}/commit{'?brief=1' if brief else ''}"
        return self._commit("POST", target, parts, {})

    def upload_offset(self, folder: str, upload: str) -> int:
        """How far a resumable upload came; 0 where the site knows nothing of it."""
        try:
            reply = self._send("HEAD", f"{self._folder(folder)}/uploads/{upload}")
        except Refused as refused:
            if refused.status == 404:
                return 0
            raise
        with contextlib.closing(reply):
            offset = _number(reply.headers.get("upload-offset", "0"))
        if offset is None:
            raise Unreachable("the reply does not say how far the upload came")
        return offset

    def upload(
        self, folder: str, upload: str, offset: int, parts: list[Part], *, complete: bool
    ) -> m.CommitReply | m.UploadStatus:
        """Append to a resumable upload of a changeset; the last append commits it.

        `upload` is 32 hex digits that the device chose.  409 (Refused) where `offset` is not where
        the site stands: ask `upload_offset` and go on from there.
        """
        headers = {"Upload-Offset": str(offset), "Upload-Complete": "?1" if complete else "?0"}
        target = f"{self._folder(folder)}/uploads/{upload}"
        if complete:
            return self._commit("PUT", target, parts, headers)
        reply = self._send("PUT", target, parts, headers, content_type=m.CHANGESET_TYPE)
        return read_message(reply, m.UploadStatus)

    def abandon(self, folder: str, upload: str) -> None:
        """Give up a resumable upload."""
        self._send("DELETE", f"{self._folder(folder)}/uploads/{upload}").close()

    # --- fetch

    def fetch(
        self, folder: str, wants: list[m.Want]
    ) -> Iterator[m.Record | Body | m.Trailer | m.Refusal]:
        """The contents of versions, as deltas against what is at hand.

        Events come as the bytes do.  A stream that is cut raises Unreachable after the last whole
        block; ask again for what is not finished.
        """
        for event in self._stream("POST", f"{self._folder(folder)}/fetch", m.FetchRequest(wants)):
            if isinstance(event, _OF_A_FETCH):
                yield event

    def report_damage(self, folder: str, hashes: list[bytes]) -> list[bytes]:
        """Say which contents came wrong; the answer is those that the site found to be damaged."""
        report = m.DamageReport(hashes)
        return self._call("POST", f"{self._folder(folder)}/damage", report, m.DamageReply).damaged

    # --- people's endpoints

    def get(self, target: str, kind: type[_T]) -> _T:
        """A JSON or MessagePack view below /v1/folders/…, decoded as `kind`."""
        return self._call("GET", target, None, kind)

    def post(self, target: str, message: msgspec.Struct, kind: type[_T]) -> _T:
        """Send a message, decode the reply as `kind`."""
        return self._call("POST", target, message, kind)

    def tell(self, target: str, message: msgspec.Struct) -> None:
        """Send a message to which there is no reply."""
        self._send("POST", target, _pack(message)).close()

    def read(self, target: str) -> Iterator[bytes]:
        """A whole file as it comes.  What is no file is Refused, as a site does with a symlink."""
        reply = self._send("GET", target, accept="*/*")
        media = reply.headers.get("content-type", "")
        with contextlib.closing(reply):
            if media == "application/json":  # the list of a directory
                detail = "only files have content"
                raise Refused(m.Problem("not a file", 422, detail=detail, field="path"))
            if media != "application/octet-stream":
                raise Unreachable(f"the reply is {media or 'of no type'}, not a file")
            yield from reply.chunks()

    # --- inside

    def _call(self, method: str, target: str, message: msgspec.Struct | None, kind: type[_T]) -> _T:
        body = None if message is None else _pack(message)
        return read_message(self._send(method, target, body), kind)

    def _commit(
        self, method: str, target: str, parts: list[Part], headers: dict[str, str]
    ) -> m.CommitReply:
        reply = self._send(method, target, parts, headers, content_type=m.CHANGESET_TYPE)
        return read_message(reply, m.CommitReply)

    def _stream(
        self, method: str, target: str, message: m.Message | None = None
    ) -> Iterator[Event]:
        body = None if message is None else _pack(message)
        reply = self._send(method, target, body, accept=m.CHANGESET_TYPE)
        media = reply.headers.get("content-type", "")
        with contextlib.closing(reply):
            if media != m.CHANGESET_TYPE:
                raise Unreachable(f"the reply is {media or 'of no type'}, not a changeset")
            decoder = Decoder(frames=UNBOUNDED)
            for chunk in reply.chunks():
                self.received += len(chunk)
                yield from decoder.receive(chunk)
            if not decoder.finished:
                raise Unreachable("the reply was cut short")

    def _send(
        self,
        method: str,
        target: str,
        body: bytes | list[Part] | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        accept: str = m.MSGPACK_TYPE,
        content_type: str = m.MSGPACK_TYPE,
    ) -> Response:
        head = {"Accept": accept, "User-Agent": self._agent, m.PROTOCOL_HEADER: str(m.PROTOCOL)}
        # Changesets have a compression of their own.
        head["Accept-Encoding"] = zstd.ENCODING if accept == m.MSGPACK_TYPE else "identity"
        head |= headers or {}
        if self.trace:
            head["X-Request-Id"] = self.trace
        length = None
        if body is not None:
            head["Content-Type"] = content_type
            length = len(body) if isinstance(body, bytes) else sum(map(len, body))
        if self.token:
            head["Authorization"] = f"Bearer {self.token}"
        reply = self._transport.request(Request(method, target, head, body, length))
        self._note_head(reply)
        if reply.status >= 300:
            raise refusal(reply)
        return reply

    def _folder(self, folder: str) -> str:
        return f"{self._root}/folders/{quote(folder, safe='')}"

    def _note_head(self, reply: Response) -> None:
        """What every reply says of its site."""
        takes = reply.headers.get(m.TAKES_HEADER.lower(), "")
        self.takes_sources = m.TAKES_SOURCES in takes.replace(",", " ").split()
        stamp = _number(reply.headers.get(m.TIME_HEADER.lower(), ""))
        if stamp is not None:
            self.server_time = stamp


def _number(text: str) -> int | None:
    """A number of a header; None for what is none that can be meant."""
    return int(text) if text.isdecimal() and len(text) < _DIGITS else None


def _pack(message: msgspec.Struct) -> bytes:
    return msgspec.msgpack.encode(message)
