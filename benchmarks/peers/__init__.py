"""The programs that DBLike is measured beside, each behind the same few verbs."""

from benchmarks.peers.base import Bench, Peer
from benchmarks.peers.dblike import DBLike
from benchmarks.peers.lsyncd import Lsyncd
from benchmarks.peers.rsync import Rsync, RsyncDefault
from benchmarks.peers.syncthing import Syncthing
from benchmarks.peers.unison import Unison

ALL: tuple[type[Peer], ...] = (DBLike, Rsync, RsyncDefault, Unison, Syncthing, Lsyncd)
UNLESS_ASKED: frozenset[str] = frozenset({RsyncDefault.name})
"""Left out of a run that names no peers."""

__all__ = [
    "ALL",
    "UNLESS_ASKED",
    "Bench",
    "DBLike",
    "Lsyncd",
    "Peer",
    "Rsync",
    "Syncthing",
    "Unison",
]
