"""What a cycle works with: each contact to the world is a field, to be replaced at will."""

from __future__ import annotations

import dataclasses
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any

import msgspec

from dblike_cli.report import Reporter, Silent
from dblike_delta.seams import Clock, Random, SystemClock, SystemRandom

if TYPE_CHECKING:
    from collections.abc import Callable

    from dblike_cli.fs import FileSystem
    from dblike_cli.state import State
    from dblike_delta.exchange import Exchange


class Device(msgspec.Struct, frozen=True):
    """An installation of the client: the id in its versions' dots, and its name for people."""

    id: bytes
    name: str


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a cycle goes about it.  The defaults keep a push below 150 MB of memory."""

    signature_from: int = 64 << 10
    """Files of at least so many bytes get a signature, and travel as deltas."""
    whole_below: int = 4 << 20
    """Smaller files are read into memory at once; larger ones are streamed."""
    batch_bytes: int = 8 << 20
    """Content of one commit of small files."""
    batch_records: int = 5_000
    segment: int = 32 << 20
    """Larger changesets are sent in resumable appends of this size."""
    read_size: int = 1 << 20
    fetch_wants: int = 10_000
    changes_limit: int = 2_500
    """Paths of a page of the site's news; the next page is on its way while one is taken in."""
    apply_batch: int = 2_000
    """Files that share their barriers and their state transaction."""
    apply_after: float = 30.0
    """Seconds of a download after which fewer files do, too: so much of it can a crash cost, and
    a barrier in that time costs nothing beside it, whatever the speed."""
    compress: int = 1
    """zstd level of uploads; 0 is never."""
    max_delete: str = "50%"
    """The brake, where no command says otherwise."""
    brake_from: int = 50
    """Fewer deletes than this need no brake, whatever their share."""
    max_rounds: int = 16
    ignore: tuple[str, ...] = ()
    """Patterns of this device, beside .dblikeignore."""
    durable: bool = True
    """Whether files are synced to disk before they count; only tests say no."""


class Inline(Executor):
    """Runs what is submitted at once, in the caller: the deterministic executor."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """The finished future of `fn(*args, **kwargs)`."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - the future carries it to whoever asks
            future.set_exception(error)
        return future


@dataclasses.dataclass(frozen=True, kw_only=True)
class Context:
    """The parameters of a cycle.

    `folder` is the folder's id or name as the site knows it.  `executor` carries what can run
    beside the cycle (one upload while the next is prepared).  `renew` makes this installation a new
    device at the site and returns it; it is called when the site says that the device's counter was
    used before (a restored backup, a copied folder).  `place` is the name of the site that serves.
    """

    fs: FileSystem
    state: State
    exchange: Exchange
    folder: str
    device: Device
    clock: Clock = dataclasses.field(default_factory=SystemClock)
    random: Random = dataclasses.field(default_factory=SystemRandom)
    config: Settings = dataclasses.field(default_factory=Settings)
    reporter: Reporter = dataclasses.field(default_factory=Silent)
    executor: Executor = dataclasses.field(default_factory=Inline)
    renew: Callable[[], Device] | None = None
    place: Callable[[], str] = lambda: ""
