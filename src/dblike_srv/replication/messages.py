"""What sites say to each other beside changesets.  Times are epoch milliseconds."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

Uid = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]
Nonce = Annotated[bytes, msgspec.Meta(min_length=1, max_length=64)]
Moment = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Natural = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class _Said(msgspec.Struct, frozen=True, omit_defaults=True):
    """A newer site may say more than this one understands."""


class SiteState(_Said, frozen=True):
    """A site of the cluster; `gone` says that it left."""

    id: Uid
    name: Annotated[str, msgspec.Meta(max_length=64)]
    url: Annotated[str, msgspec.Meta(max_length=512)]
    changed: Moment
    gone: bool = False


class UserState(_Said, frozen=True):
    """An account; what may change has the time of its change beside it."""

    uid: Uid
    name: Annotated[bytes, msgspec.Meta(min_length=1, max_length=255)]
    created: Moment
    password: Annotated[str, msgspec.Meta(max_length=255)] = ""
    password_at: Moment = 0
    disabled: bool = False
    disabled_at: Moment = 0
    quota: Natural = 0
    quota_at: Moment = 0


class DeviceState(_Said, frozen=True):
    """A device and the hash of its token (empty: none).  `revoked` is for good."""

    id: Uid
    user: Uid
    name: Annotated[str, msgspec.Meta(max_length=64)]
    created: Moment
    token: Annotated[bytes, msgspec.Meta(max_length=32)] = b""
    token_at: Moment = 0
    revoked: Moment = 0
    parent: Annotated[bytes, msgspec.Meta(max_length=16)] = b""


class FolderState(_Said, frozen=True):
    """A folder of a user's."""

    id: Uid
    user: Uid
    name: Annotated[bytes, msgspec.Meta(min_length=1, max_length=64)]
    created: Moment


class SharedPage(_Said, frozen=True):
    """What changed of the rows that all sites share, up to the change of number `upto`."""

    upto: Natural
    more: bool = False
    users: list[UserState] = []
    devices: list[DeviceState] = []
    folders: list[FolderState] = []
    sites: list[SiteState] = []


class Hello(_Said, frozen=True):
    """A site that wants to follow another one."""

    site: Uid
    nonce: Nonce


class HelloReply(_Said, frozen=True):
    """The other one's proof that it has the cluster's key, and what to prove now."""

    site: Uid
    nonce: Nonce
    proof: bytes
    protocol: int


class Opening(_Said, frozen=True):
    """The follower's proof, and where it can be reached itself."""

    site: SiteState
    nonce: Nonce
    proof: bytes


class OpeningReply(_Said, frozen=True):
    """A token for the requests that follow.

    `prompt`: say at once what came to be held.  `left`: the follower is no site of the cluster any
    more, and gets no token.
    """

    token: str
    site: SiteState
    prompt: bool = False
    left: bool = False


class Position(msgspec.Struct, frozen=True, array_like=True):
    """Where a folder stands at a site: a sealed cursor."""

    folder: Uid
    cursor: Annotated[str, msgspec.Meta(max_length=8192)]


class Positions(_Said, frozen=True):
    """Where folders stand; `more` follow after the last one."""

    positions: list[Position]
    more: bool = False


_Held = Annotated[list[Position], msgspec.Meta(max_length=2000)]
MOST_TOLD: Final = 256
"""Sites that are named as knowing something; to tell one more of them does no harm."""
_Told = Annotated[list[Uid], msgspec.Meta(max_length=MOST_TOLD)]


class Elsewhere(_Said, frozen=True):
    """What another site holds, as the follower heard; `told` are sites that know."""

    site: Uid
    positions: _Held
    told: _Told = []


class Known(_Said, frozen=True):
    """The version that the follower has under a number of a site's journal."""

    site: Uid
    folder: Uid
    number: Natural
    device: Uid
    counter: Natural


class Held(_Said, frozen=True):
    """What the follower holds durably, and others of whom it heard.  `told`: whom else it tells of
    itself.  `doubted`: entries of the other one's journal that are others there."""

    positions: _Held
    told: _Told = []
    elsewhere: Annotated[list[Elsewhere], msgspec.Meta(max_length=256)] = []
    doubted: Annotated[list[Known], msgspec.Meta(max_length=256)] = []
