"""The cycle: look at both sides, decide, act, remember.

`run_cycle` is what push, pull, sync and watch have in common.  A round is a straight line; another
one follows only where something was edited under our hands, or became possible by what was done.
"""

from __future__ import annotations

import dataclasses
import stat
from collections.abc import Collection, Mapping

import msgspec

from dblike_cli.answers import DotReused, Uploads
from dblike_cli.apply import apply
from dblike_cli.context import Context, Device, Inline, Settings
from dblike_cli.device import become_new
from dblike_cli.entries import remote_of
from dblike_cli.errors import Failed
from dblike_cli.ignore import load_ignore
from dblike_cli.ledger import Ledger
from dblike_cli.offer import offer, offer_large
from dblike_cli.outcomes import Applied
from dblike_cli.recover import identify, prepare, recover
from dblike_cli.remote import has_to_hear, hear, overhear
from dblike_cli.report import Code, Direction, Hints, Pending, Report
from dblike_cli.safety import Limit, check_root, hold_deletes, limit_of, note_fewer
from dblike_cli.scan import Look, Scan, scan
from dblike_cli.state import Sending, said_plainly
from dblike_cli.upload import upload
from dblike_delta.messages import Record
from dblike_delta.paths import ancestors, is_below
from dblike_delta.plan import UNKNOWN, Plan
from dblike_delta.reconcile import reconcile
from dblike_delta.vectors import said_after
from dblike_delta.versions import Dot, Kind

__all__ = ["Context", "Device", "Direction", "Hints", "Inline", "Report", "Settings", "run_cycle"]

_RESTING = (Code.DISK, Code.NO_SPACE)
"""Trouble of which a small change tells nothing: to try again can cost a whole transfer."""
_IN_THE_WAY = (Code.HELD, Code.OCCUPIED)
_MANY = 500
_WORTH = 8
"""A place by itself costs so many times what a path of a directory does that is read anyway."""


def run_cycle(
    context: Context,
    direction: Direction,
    *,
    hints: Hints | None = None,
    paths: tuple[bytes, ...] = (),
    dry_run: bool = False,
    max_delete: str | None = None,
    checksum: bool = False,
) -> Report:
    """Bring this folder and the site's together, as far as `direction` goes.

    `hints` says where it is worth looking (None: everywhere); `paths` restricts the cycle to these
    and what lies below them; `max_delete` is a number or a percentage ("500", "80%").  Raises what
    the exchange raises, Stopped, and StateDamaged; what was done until then is remembered.
    """
    limit = limit_of(context, max_delete)
    wish = _Wish(direction, hints or Hints(everywhere=True), paths, dry_run, limit, checksum)
    check_root(context.fs)
    prepare(context)
    with said_plainly(context.state.check):
        return _run(context, wish)


def _start(context: Context) -> Context:
    """Clear away what a crash left, and be who this installation is."""
    if not context.state.recovered:
        recover(context)
    return identify(context)


def _run(context: Context, wish: _Wish) -> Report:
    ledger, received, before = Ledger(), context.exchange.received, context.device
    context = context if wish.dry_run else _start(context)
    again: Hints | None = wish.hints
    new = False
    while again is not None and ledger.rounds < context.config.max_rounds:
        wish = dataclasses.replace(wish, hints=again)
        ledger.rounds += 1
        context.fs.forget()  # the round before may have been a long one
        try:
            again = _round(context, wish, ledger)
        except DotReused:
            if new:
                raise Failed("the site does not take this device's versions") from None
            context, new = dataclasses.replace(context, device=become_new(context)), True
    if not wish.dry_run:
        ledger.remember(context, wish.paths)
        if ledger.caught_up:
            with context.state.transaction():
                context.state.meta.have_looked()
    ledger.new_device = context.device != before
    return ledger.report(context, context.exchange.received - received)


@dataclasses.dataclass(frozen=True)
class _Wish:
    """What a round is asked."""

    direction: Direction
    hints: Hints
    paths: tuple[bytes, ...]
    dry_run: bool
    limit: Limit
    checksum: bool

    def concerns(self, path: bytes) -> bool:
        """Whether the path is among those that were asked for, or leads to one."""
        if not self.paths:
            return True
        return any(
            path == place or is_below(path, place) or is_below(place, path) for place in self.paths
        )


def _round(context: Context, wish: _Wish, ledger: Ledger) -> Hints | None:
    """Once through; where to look in another round, if one is worth it."""
    news = _offer_and_hear(context, wish)
    resting = _resting(context, wish, ledger)
    look = _look(context, wish, news, resting)
    if look.paths is None and wish.direction.up:
        ledger.caught_up = context.state.meta.unseen
    found = scan(context, load_ignore(context.fs, context.config.ignore), news, look)
    found.local.update(dict.fromkeys(resting, UNKNOWN))
    ledger.looked(look, found, resting)
    plan, brake = hold_deletes(context, _decide(context, found, news), found, wish.limit)
    ledger.brake = brake or ledger.brake  # another round may look elsewhere
    if not wish.direction.up:
        ledger.unsent(plan, news)
    if wish.dry_run:
        ledger.held(plan)
        ledger.plan(plan, up=wish.direction.up, down=wish.direction.down)
        return None
    _remember_same(context, found)
    _take_back(context, look, plan)
    _give_up(context, look, found, news)
    if wish.direction.up and plan.uploads:
        # What may be taken by now, as that of a larger quota, is not asked at every small change.
        again = wish.hints.everywhere
        sent = upload(context, plan.uploads, found.stamps, found.tick, again=again)
        ledger.sent(sent)
        note_fewer(context, "local", wish.limit, plan.uploads, sent.done)
        found = _after(found, sent)
        news = _hear_again(context, wish, sent)
        plan, brake = hold_deletes(context, _decide(context, found, news), found, wish.limit)
        ledger.brake = ledger.brake or brake
    if not wish.direction.down:
        plan = msgspec.structs.replace(plan, applies=())
    taken = apply(context, plan, found.stamps, found.tick)
    ledger.took(taken)
    done = {*taken.applied, *taken.deleted}
    note_fewer(context, "remote", wish.limit, plan.applies, done)
    ledger.held(plan)
    offer_large(context)
    if ledger.brake is None:  # what a brake holds is not in the plan, and is far from idle
        _drop_idle(context, wish, news, plan)
    if wish.direction.up and not wish.paths and not ledger.caught_up and context.state.meta.unseen:
        return Hints(everywhere=True, remote=False)  # it was heard when the look was over
    return _again(plan, taken, resting)


def _offer_and_hear(context: Context, wish: _Wish) -> dict[bytes, Record]:
    """The news, once the site was told what it may lack of ours: it can't be news of a time before
    that, which would take the place of what is here."""
    if wish.dry_run or context.state.offers.empty():
        return _hear(context, wish)
    offer(context)
    news = _hear(context, wish)
    return _hear(context, wish) if offer(context) else news  # another site may have answered


def _hear(context: Context, wish: _Wish) -> dict[bytes, Record]:
    """The news of the paths that the cycle is about."""
    if wish.dry_run:
        return _concerned(wish, overhear(context))
    if wish.hints.remote or has_to_hear(context):
        context.state.offset = hear(context)
    return _concerned(wish, context.state.remote.all())


def _hear_again(context: Context, wish: _Wish, sent: Uploads) -> dict[bytes, Record]:
    """The news after an upload: our own versions, and what the site's merge made of them."""
    if not sent.heard:
        hear(context)
    return _concerned(wish, context.state.remote.all())


def _concerned(wish: _Wish, news: dict[bytes, Record]) -> dict[bytes, Record]:
    if not wish.paths:
        return news
    return {path: record for path, record in news.items() if wish.concerns(path)}


def _resting(context: Context, wish: _Wish, ledger: Ledger) -> dict[bytes, Pending]:
    """What there was no room for, or the disk said no to, with all below: until it is time to try
    it again, which is a hint."""
    if wish.hints.everywhere:
        return {}
    noted = ledger.pending.values() if ledger.rounds > 1 else context.state.notes.pending()
    items = {item.path: item for item in noted}
    tops = {
        path
        for path, item in items.items()
        if item.code in _RESTING
        and wish.hints.paths.isdisjoint((*ancestors(path), path))
        and not _is_directory(context, path)  # what is in one goes on
    }
    return {
        path: item
        for path, item in items.items()
        if tops and not tops.isdisjoint((*ancestors(path), path))
    }


def _is_directory(context: Context, path: bytes) -> bool:
    try:
        return stat.S_ISDIR(context.fs.lstat(path).st_mode)
    except OSError:
        return False


def _look(
    context: Context, wish: _Wish, news: Mapping[bytes, Record], resting: Collection[bytes]
) -> Look:
    """Where to look: at the hints, at what is news, and at what was left undone."""
    places: frozenset[bytes] | None = frozenset(wish.paths) or None
    if places is None and not wish.hints.everywhere and not context.state.meta.unseen:
        pending = context.state.notes.pending()
        left = {item.path for item in pending if item.code != Code.RULE}
        left.update(item.path for item in context.state.outbox.all())
        places = wish.hints.paths.union(news, left.difference(resting))
    elif places is not None:
        places = places.union(news)
    if not wish.paths and places is not None and _is_most(context, len(places)):
        places = None
    return Look(places, wish.checksum, defer=not wish.dry_run, only=bool(wish.paths))


def _is_most(context: Context, places: int) -> bool:
    """Whether to look everywhere costs less than to look at so many places."""
    return places > _MANY and not context.state.tree.has_more_than(_WORTH * places)


def _decide(context: Context, found: Scan, news: Mapping[bytes, Record]) -> Plan:
    """What to do about what was found."""
    remote = {path: remote_of(record) for path, record in news.items()}
    synced = context.state.view({*found.local, *remote})
    return reconcile(found.local, synced, remote)


def _remember_same(context: Context, found: Scan) -> None:
    """Contents that were looked at and are what was agreed need not be looked at again."""
    if found.same:
        with context.state.transaction():
            context.state.tree.restamp(found.same.items())


def _take_back(context: Context, look: Look, plan: Plan) -> None:
    """What the site refused is refused no more where it is gone, or as agreed.  What was refused
    of the site's own, which no entry here stands for, is left."""
    notes = context.state.notes
    refused = [item.path for item in notes.refused() if not notes.refusal(item.path, None)]
    if not refused:
        return
    left = {step.path for steps in (plan.uploads, plan.held) for step in steps}
    over = [path for path in refused if path not in left and look.covers(path)]
    if over:
        with context.state.transaction():
            notes.unrefuse(over)


def _give_up(context: Context, look: Look, found: Scan, news: Collection[bytes]) -> None:
    """What went before it was known whether the site has it waits no more, and is deleted: should a
    site say one day that it took it in, it is told."""
    state = context.state
    waiting = [item for item in state.outbox.all() if look.covers(item.path)]
    if not waiting:
        return
    unknown = {path for path, entry in found.local.items() if entry is UNKNOWN}
    gone = [
        item
        for item in waiting
        if not (item.path in found.local or item.path in news or state.tree.get(item.path))
        and unknown.isdisjoint((b"", *ancestors(item.path)))
    ]
    if not gone:
        return
    made = [item for item in gone if item.entry is not None]
    with state.transaction():
        # As if by a delete that was never sent: it comes after what was.
        dot = Dot(context.device.id, state.meta.take_counters(1))
        known = [(item.path, said_after(_known_of(context, item), dot)) for item in made]
        state.tombs.bury(known, context.clock.now_ms(), doubtful=True)
        state.outbox.drop(item.path for item in gone)


def _known_of(context: Context, item: Sending) -> bytes:
    """What is known of a path where nothing is, but for what waits for its answer."""
    tomb = context.state.tombs.get(item.path)
    return tomb.context if tomb is not None else item.context


def _after(found: Scan, sent: Uploads) -> Scan:
    """What is here after the uploads: what was sent is agreed, what was not read is unknown."""
    local = {path: entry for path, entry in found.local.items() if path not in sent.done}
    local.update(dict.fromkeys(sent.waiting, UNKNOWN))
    return msgspec.structs.replace(found, local=local, stamps={**found.stamps, **sent.stamps})


def _drop_idle(context: Context, wish: _Wish, news: Mapping[bytes, Record], plan: Plan) -> None:
    """Forget news that need nothing done: deletes of what was never here."""
    if not wish.direction.down or not news:
        return
    busy = {
        step.path
        for steps in (plan.uploads, plan.applies, plan.adopts, plan.held)
        for step in steps
    }
    idle = [path for path in context.state.remote.all() if path in news and path not in busy]
    if idle:
        gone = [(path, news[path].context) for path in idle if news[path].kind == Kind.DELETED]
        with context.state.transaction():
            context.state.remote.drop(idle)
            context.state.tombs.bury(gone, context.clock.now_ms())


def _again(plan: Plan, taken: Applied, resting: Collection[bytes]) -> Hints | None:
    """Look again at what changed under our hands, and at what was held while there was progress."""
    moved = taken.applied or taken.deleted
    held = {step.path for step in plan.held if step.path not in resting}
    paths = taken.again | (held if moved else set())
    if taken.deleted:  # a name that the disk takes for that of what came, say
        paths.update(p for p, item in taken.pending.items() if item.code in _IN_THE_WAY)
    paths.discard(b"")
    return Hints(frozenset(paths), remote=False) if paths else None
