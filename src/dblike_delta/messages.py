"""The typed messages of the protocol: what travels in requests, replies, notices and changesets.

Every message is a frozen msgspec Struct that travels as MessagePack between programs of ours and
as JSON for everyone else (`bytes` are base64 there).  Decoding is strict: a wrong type is an error
that names the field, never a guess.  Messages whose names end in `View` are made for people: ids
are hex, paths are text.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from dblike_delta.paths import FOLDER_NAME

DEVICE_BYTES = 16
HASH_BYTES = 32

DeviceId = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Counter = Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)]
EpochMs = Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
ContentHash = Annotated[bytes, msgspec.Meta(max_length=32)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]

CHANGESET_TYPE = "application/vnd.dblike.changeset"
MSGPACK_TYPE = "application/msgpack"
TIME_HEADER = "X-DBLike-Time"
PROTOCOL_HEADER = "X-DBLike-Protocol"
TAKES_HEADER = "X-DBLike-Takes"
"""What a site takes in requests beyond what every site of this protocol does."""
TAKES_SOURCES = "sources"
SOURCES_FIELD = "sources"
"""The field of a problem to which the same commit with hashes is the answer."""
PROTOCOL = 1


class Message(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Root of the requests: immutable, and unknown fields are errors."""


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """Root of the replies: an older device passes over what a newer site adds."""


# --- in a changeset -------------------------------------------------------------------------------

_FIRST_NS = -(2**63)
_LAST_NS = 2**63 - 1


def said_ns(time_ns: int) -> int:
    """The time of a file as a record can say it: of years before 1677 or after 2262 the nearest."""
    return max(_FIRST_NS, min(time_ns, _LAST_NS))


class Record(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A version as it travels, without its content.

    `context` is the sealed join of the heads' vectors: what a site handed out for this path, and
    what a device sends back with its next edit.  `base` names the content the body is a delta
    against (empty: against nothing).  `body` says whether a body follows; a file without one is
    found on the receiving side by its hash.  `hash` may be empty where it follows in the trailer,
    or where a source says it.  `vector` travels between sites only; a device's version gets its
    vector from `context`, and one that follows from several heads has those of all of them.
    """

    path: Annotated[bytes, msgspec.Meta(min_length=1, max_length=4096)]
    device: DeviceId
    counter: Counter
    time: EpochMs
    kind: Annotated[int, msgspec.Meta(ge=1, le=4)]
    hash: ContentHash = b""
    size: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0
    mode: Annotated[int, msgspec.Meta(ge=0, le=0o7777)] = 0
    mtime_ns: Annotated[int, msgspec.Meta(ge=_FIRST_NS, le=_LAST_NS)] = 0
    target: Annotated[bytes, msgspec.Meta(max_length=4096)] = b""
    author: Annotated[str, msgspec.Meta(max_length=64)] = ""
    context: Annotated[bytes, msgspec.Meta(max_length=65536)] = b""
    base: ContentHash = b""
    body: bool = False
    start: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0
    vector: Annotated[bytes, msgspec.Meta(max_length=4 << 20)] = b""
    key_id: Annotated[bytes, msgspec.Meta(max_length=64)] = b""


class Trailer(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Ends a body: the content hash and size of the whole file that the body makes."""

    hash: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    size: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Refusal(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A want that the site can't serve: which version, and why."""

    device: DeviceId
    counter: Counter
    status: str
    detail: str = ""


class CursorMark(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Ends a list of changes: `cursor` covers all before it; `more` follows or not."""

    cursor: str
    more: bool = False


class Sources(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Versions whose contents the file records after it hold, as many as have no hash and no body,
    in their order: runs of a device, its first counter, and how many.  `sum` is BLAKE3 over the
    hashes that were left out."""

    runs: Annotated[
        list[tuple[DeviceId, Counter, Annotated[int, msgspec.Meta(ge=1, le=100_000)]]],
        msgspec.Meta(max_length=100_000),
    ]
    sum: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


class JournalMark(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Between sites: the records that follow are this site's journal from `number` on, each the
    next one.  What lies between the last record and a mark is not kept any more."""

    site: DeviceId
    number: Counter


# --- sessions -------------------------------------------------------------------------------------


class LoginRequest(Message, frozen=True):
    """Credentials for a token.  `device_id` is hex and the device's own choice; without one the
    site picks it."""

    user: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    password: Annotated[str, msgspec.Meta(max_length=1024)]
    device: Name = "unnamed"
    device_id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}(?!\n)$")] | None = None


class LoginReply(Reply, frozen=True):
    """A bearer token for this device.  `time` is the site's epoch milliseconds, `servers` the URLs
    of all sites that it knows of."""

    token: str
    user: str
    device_id: str
    site_id: str
    time: int
    servers: list[str] = []


class PasswordChange(Message, frozen=True):
    """The old password and the new one; every other device's token ends."""

    old: Annotated[str, msgspec.Meta(max_length=1024)]
    new: Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]


class DeviceRequest(Message, frozen=True):
    """A new device in the name of the one that asks: its state was copied or set back, so that dots
    of its own may have been used already.  The token of the one that asks stays good."""

    device: Name = "unnamed"


class DeviceView(Reply, frozen=True):
    """A device of the user's.  Times are epoch milliseconds; 0 is never."""

    id: str
    name: str
    created: int
    last_seen: int = 0
    current: bool = False
    revoked: bool = False


class DeviceList(Reply, frozen=True):
    """The user's devices, oldest first."""

    devices: list[DeviceView]


class TimeReply(Reply, frozen=True):
    """The site's clock in epoch milliseconds."""

    time: int


class SiteView(Reply, frozen=True):
    """A site that holds the same data; `id` is hex.  `current` is the one that answers."""

    id: str
    name: str
    url: str
    current: bool = False


class SiteList(Reply, frozen=True):
    """All sites that this one knows of, itself among them."""

    sites: list[SiteView]


# --- folders --------------------------------------------------------------------------------------


class FolderCreate(Message, frozen=True):
    """A new folder's name, unique among the user's."""

    name: Annotated[str, msgspec.Meta(pattern=FOLDER_NAME)]


class FolderView(Reply, frozen=True):
    """A folder: where it stands and what it holds (live files and their bytes)."""

    id: str
    name: str
    cursor: str
    files: int = 0
    bytes: int = 0


class FolderList(Reply, frozen=True):
    """The folders that the user may use."""

    folders: list[FolderView]


class VersionView(Reply, frozen=True):
    r"""A version for people and scripts.

    `path` is text (bytes that are not UTF-8 are shown as \xNN); `path_b64` carries the exact bytes
    where the text does not.  `version` is what `?version=` takes: device hex, a dot, the counter.
    """

    path: str
    version: str
    kind: Literal["file", "directory", "symlink", "deleted"]
    time: int
    device: str
    size: int = 0
    hash: str = ""
    mode: int = 0
    mtime_ns: int = 0
    target: str = ""
    path_b64: str = ""
    current: bool = False


class ChangeList(Reply, frozen=True):
    """Changed paths, each with its present state, and the cursor that covers them."""

    changes: list[VersionView]
    cursor: str
    more: bool = False
    time: int = 0


class VersionList(Reply, frozen=True):
    """Versions, newest first."""

    versions: list[VersionView]
    more: bool = False


class TreeList(Reply, frozen=True):
    """What is live at and below a path now (or was at a time), sorted by path."""

    entries: list[VersionView]
    more: bool = False


class RestoreRequest(Message, frozen=True):
    """Bring back `path` (a file or a whole directory) as `version` or as it was `at` (epoch ms)."""

    path: str = ""
    path_b64: str = ""
    version: str = ""
    at: int | None = None
    to: str = ""


class RestoreReply(Reply, frozen=True):
    """What was brought back, and how many paths that made new versions of."""

    restored: int
    versions: list[VersionView] = []


# --- commit and fetch -----------------------------------------------------------------------------

CommitStatus = Literal[
    "accepted",  # new, and durable here
    "known",  # this dot with this content was here before: nothing changed
    "base-missing",  # the site lacks the delta's base: send it in full
    "content-missing",  # no content of that hash is usable here: send it in full
    "bad-content",  # the body does not make the hash that was said: read it again and send it again
    "dot-reused",  # this dot is known with other content: the device returned to an old state
    "refused",  # invalid or over a limit; `detail` says what and why
]


class CommitResult(msgspec.Struct, frozen=True, array_like=True):
    """What became of one version of a changeset, in the order in which they were sent.

    `context` is what the device may now say that it knows of the path, sealed.  `superseded` says
    that the path's winner is another version than this one (a conflict, or an edit that beat a
    delete): the device will hear of it as a change, and `context` is without it until then.
    `highest` is the device's highest known counter, with `dot-reused`; `superseded` says there that
    the dot is none that is here, but that later versions of the path know it, `context` what else.
    """

    device: bytes
    counter: int
    status: CommitStatus
    context: bytes = b""
    superseded: bool = False
    detail: str = ""
    highest: int = 0


class CommitReply(Reply, frozen=True):
    """One result a version.  A device whose cursor is `before` may step to `cursor` unread.

    `copies` sites held all of these versions durably when the reply was made, of `wanted`.  `site`
    is who took them, and `held` how many sites had all that it accepted before them; neither is
    said where there is no other site.  To whom asked to be brief, `accepted` results are left out:
    of versions that were just accepted, and whose context is what was sent with them and their own
    dot.
    """

    results: list[CommitResult]
    before: str
    cursor: str
    time: int
    copies: int = 1
    wanted: int = 1
    site: str = ""
    held: int = 0
    accepted: int = 0


class Want(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A version whose content is wanted, the contents (hashes) at hand to build it from, and the
    number of bytes of the result that are there already (an interrupted download)."""

    device: DeviceId
    counter: Counter
    have: Annotated[list[ContentHash], msgspec.Meta(max_length=8)] = []
    start: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0


class FetchRequest(Message, frozen=True):
    """What is wanted, in the order in which it shall come."""

    wants: Annotated[list[Want], msgspec.Meta(max_length=20_000)]


class UploadStatus(Reply, frozen=True):
    """How much of a resumable upload the site holds, in bytes of the changeset stream."""

    offset: int


class DamageReport(Message, frozen=True):
    """Contents that did not match their hash when they arrived: the site reads and checks them."""

    hashes: Annotated[list[ContentHash], msgspec.Meta(max_length=1000)]


class DamageReply(Reply, frozen=True):
    """Those of the contents that the site found damaged; any device that holds one may send it."""

    damaged: list[bytes]


# --- notices --------------------------------------------------------------------------------------


class Notice(Reply, frozen=True):
    """What a WebSocket carries: folder `folder` (hex) is at `cursor`.  A hint: losing it costs
    latency, never data."""

    folder: str
    cursor: str
    time: int = 0


class Problem(Reply, frozen=True):
    """RFC 9457 problem details, with the field that was wrong where there is one."""

    title: str
    status: int
    type: str = "about:blank"
    detail: str = ""
    field: str = ""
    instance: str = ""
