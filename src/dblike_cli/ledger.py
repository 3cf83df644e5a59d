"""The ledger of a cycle: what came of each round, and the report that it adds up to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from dblike_cli.answers import Uploads
from dblike_cli.context import Context
from dblike_cli.entries import entry_of
from dblike_cli.outcomes import Applied
from dblike_cli.report import Action, Brake, Code, Pending, Planned, Report
from dblike_cli.scan import Look, Scan
from dblike_delta.messages import Record
from dblike_delta.paths import is_below
from dblike_delta.plan import Entry, Plan, Reason
from dblike_delta.reconcile import same_entry
from dblike_delta.versions import Kind

_HELD = {
    Reason.UNREADABLE: Code.UNREADABLE,
    Reason.NOT_EMPTY: Code.KEPT,
    Reason.NO_PARENT: Code.OCCUPIED,
}
_BOTH = "it changed on both sides: `dblike sync` or `push` sends what is here"
_HARMLESS = (Code.SPECIAL,)


class Ledger(msgspec.Struct):
    """Filled in round by round; what is pending is what the last look at the path said."""

    uploaded: dict[bytes, None] = {}
    applied: dict[bytes, None] = {}
    adopted: dict[bytes, None] = {}
    deleted: dict[bytes, None] = {}
    conflicts: dict[bytes, None] = {}
    pending: dict[bytes, Pending] = {}
    planned: list[Planned] = []
    brake: Brake | None = None
    bytes_sent: int = 0
    scanned: int = 0
    rounds: int = 0
    new_device: bool = False
    caught_up: bool = False
    """Whether all was looked at, as had to be whatever was hinted."""

    def looked(self, look: Look, found: Scan, resting: Mapping[bytes, Pending]) -> None:
        """What a scan left; it replaces what was said before of the paths that it looked at, but
        for those that rest."""
        kept = {path: item for path, item in self.pending.items() if not look.covers(path)}
        self.pending = {**kept, **resting, **found.pending}
        self.scanned += found.looked

    def sent(self, result: Uploads) -> None:
        """What came of uploads."""
        self.uploaded.update(dict.fromkeys(result.uploaded))
        self.deleted.update(dict.fromkeys(result.deleted))
        self.pending.update(result.waiting)
        self.bytes_sent += result.bytes_sent

    def took(self, result: Applied) -> None:
        """What came of the site's changes."""
        self.applied.update(dict.fromkeys(result.applied))
        self.deleted.update(dict.fromkeys(result.deleted))
        self.adopted.update(dict.fromkeys(result.adopted))
        self.conflicts.update(dict.fromkeys(result.conflicts))
        self.pending.update(result.pending)

    def held(self, plan: Plan) -> None:
        """What a plan could not do anything about."""
        for step in plan.held:
            if step.path and step.path not in self.pending:
                code = _HELD[step.reason]
                self.pending[step.path] = Pending(step.path, step.reason.value, code)

    def unsent(self, plan: Plan, news: Mapping[bytes, Record]) -> None:
        """What a pull leaves as it is here: an edit of what is another one at the site by now."""
        for step in plan.uploads:
            record = news.get(step.path)
            if record is not None and not same_entry(entry_of(record), step.base):
                self.pending[step.path] = Pending(step.path, _BOTH, Code.CHANGED)

    def plan(self, plan: Plan, *, up: bool, down: bool) -> None:
        """What a dry run would have done."""
        if up:
            for upload in plan.uploads:
                action: Action = "delete-remote" if upload.new is None else "upload"
                self.planned.append(Planned(action, upload.path, _size(upload.new)))
        if down:
            for step in plan.applies:
                action = "delete-local" if step.new is None else "download"
                self.planned.append(Planned(action, step.path, _size(step.new)))
        self.planned += [Planned("adopt", step.path) for step in plan.adopts]

    def report(self, context: Context, received: int) -> Report:
        """All of it."""
        refused = context.state.notes.refused()
        pending = [self.pending[path] for path in sorted(self.pending)]
        notable = [item for item in pending if item.code not in _HARMLESS]
        return Report(
            uploaded=tuple(self.uploaded),
            applied=tuple(self.applied),
            adopted=tuple(self.adopted),
            deleted=tuple(self.deleted),
            conflicts=tuple(self.conflicts),
            pending=tuple(pending),
            refused=tuple(refused),
            planned=tuple(self.planned),
            bytes_sent=self.bytes_sent,
            bytes_received=received,
            brake=self.brake,
            in_sync=not (notable or refused or self.planned or self.brake),
            rounds=self.rounds,
            scanned=self.scanned,
            new_device=self.new_device,
            short=context.state.offers.short(),
        )

    def remember(self, context: Context, within: Iterable[bytes]) -> None:
        """Keep what is pending for `status`; outside of `within` (all, if empty) it stays."""
        places = tuple(within)
        before = context.state.notes.pending()
        kept = [item for item in before if places and not _is_in(item.path, places)]
        found = [*kept, *(self.pending[path] for path in sorted(self.pending))]
        if found != before:
            with context.state.transaction():
                context.state.notes.set_pending(found)


def _is_in(path: bytes, places: tuple[bytes, ...]) -> bool:
    return any(path == place or is_below(path, place) for place in places)


def _size(entry: Entry | None) -> int:
    return entry.size if entry is not None and entry.kind is Kind.FILE else 0
