"""The watching loop: wait for a hint, run a cycle, say what came of it; survive everything else.

Hints come from the watched tree, from the site's WebSocket, and from the passing of time.  The loop
decides only when to look, and what to do about a failure: wait, and try again.
"""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

from dblike_cli import lock
from dblike_cli.context import Context
from dblike_cli.cycle import run_cycle
from dblike_cli.events import Events
from dblike_cli.exits import Exit
from dblike_cli.failure import describe
from dblike_cli.output import outcome_line, path_fields, plural, taken_or_not
from dblike_cli.report import Code, Direction, Hints, Outcome, Pending, Progress, Report
from dblike_cli.run import pending_document, unsettled, unsettled_line
from dblike_cli.safety import check_root
from dblike_cli.session import Session
from dblike_cli.timers import Timers, pause_of
from dblike_cli.treewatch import TreeWatch, instance_limit, watch_limit, watch_tree
from dblike_cli.wakeups import Wakeups
from dblike_delta.exchange import Refused, Unreachable

_GRACE: Final = 5
"""Seconds that a step may take to its end after the end of all was asked for."""
_LEARN: Final = 3600.0
"""Seconds between two questions which sites there are; each new connection asks, too."""
_ENDS: Final = frozenset({Exit.USAGE, Exit.STATE_DAMAGED, Exit.PROTOCOL})
"""Failures that no waiting mends."""
_PASSING: Final = frozenset(
    {
        Code.WRITING,
        Code.UNREADABLE,
        Code.CHANGED,
        Code.NO_SPACE,
        Code.DISK,
        Code.DAMAGED,
        Code.UNAVAILABLE,
    }
)
"""Reasons that may pass by themselves; the others wait for an event or a look at everything."""


class Ending(BaseException):
    """The end was asked for while a cycle was at work; what it finished stays finished."""


def watch_folder(session: Session, max_delete: str | None) -> Exit:
    """Keep the folder in sync until SIGTERM or Ctrl-C."""
    # Threads that wait for the interpreter get it sooner: a save waits for them.
    sys.setswitchinterval(0.001)
    wakeups = Wakeups(session.clock)
    session.pause = wakeups.pause
    with contextlib.suppress(Ending), contextlib.ExitStack() as exits:
        loop = Loop(session, wakeups, max_delete)
        exits.callback(loop.leave_root)
        loop.take_root()
        exits.enter_context(_signals(wakeups))
        exits.enter_context(contextlib.closing(loop))
        loop.run()
    return Exit.DONE


@contextlib.contextmanager
def _signals(wakeups: Wakeups) -> Iterator[None]:
    """SIGTERM and Ctrl-C end the loop between two steps, or after a grace in the middle of one."""

    def end(_number: int, _frame: object) -> None:
        if not wakeups.stopping:  # who asks again does not want to wait for longer
            signal.alarm(_GRACE)
        wakeups.stop()

    def end_now(_number: int, _frame: object) -> None:
        raise Ending

    handlers: dict[int, Callable[[int, object], None]] = {
        signal.SIGTERM: end,
        signal.SIGINT: end,
        signal.SIGALRM: end_now,
    }
    former = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        signal.alarm(0)
        for number, handler in former.items():
            signal.signal(number, handler)


class WatchReporter:
    """Hears the cycles: a line for each outcome, and a way out of a long cycle."""

    def __init__(self, session: Session, wakeups: Wakeups) -> None:
        self._session = session
        self._wakeups = wakeups

    def progress(self, event: Progress | Outcome | Pending) -> None:
        """Take note of an event; raises Ending between two steps."""
        match event:
            case Outcome():
                self._session.log.write(event.action, event.path)
                fields = {"event": event.action, **path_fields(event.path), "size": event.size}
                self.say(fields, outcome_line(event))
            case Pending():
                self._session.log.write(event.code, event.path, event.reason)
            case Progress():
                pass
        if self._wakeups.stopping:
            raise Ending

    def say(self, fields: dict[str, Any], line: str | None) -> None:
        """An event: JSON for a program, a line for a person who is not to be left in quiet."""
        output = self._session.output
        document = {"time": self._session.clock.now_ms(), **fields}
        with taken_or_not():
            output.item(document, line if output.verbosity >= 0 else None)

    def trouble(self, fields: dict[str, Any], line: str) -> None:
        """Something that a person should know."""
        output = self._session.output
        if output.as_json:
            self.say(fields, None)
        output.warn(line)


class Loop:
    """The loop, and what it remembers from one cycle to the next."""

    def __init__(self, session: Session, wakeups: Wakeups, max_delete: str | None) -> None:
        self._session = session
        self._wakeups = wakeups
        self._tree: TreeWatch | None = None
        self._limit: int | None = None
        self._root: tuple[int, int] | None = None
        self._taken = contextlib.ExitStack()
        self._max_delete = max_delete
        self._reporter = WatchReporter(session, wakeups)
        self._timers = Timers(session.clock, session.config.rescan)
        self._events = Events(session, self._hear, self._lose)
        self._context: Context | None = None
        self._heard = ""
        self._failures = 0
        self._trouble = ""
        self._unsettled: frozenset[str] = frozenset()
        self._blind = 0
        self._in_sync: bool | None = None
        self._braked = False
        self._learn_at = 0.0
        self._site = ""
        session.transport.moved = self._events.reconnect

    def run(self) -> None:
        """Until the end is asked for."""
        self._warn_of_blindness()
        self._events.start()
        self._wakeups.again(None)
        while not self._wakeups.stopping:
            hints = self._due(self._wakeups.wait(self._timers.seconds()))
            self._session.transport.go_home(self._wakeups.remote)
            if hints is not None and not self._wakeups.stopping:
                self._step(hints)

    def close(self) -> None:
        """Stop listening."""
        self._events.close()
        self._session.log.flush()

    # --- the directory

    def take_root(self) -> None:
        """Lock and watch the directory that has the folder's name now; raises Locked."""
        self.leave_root()
        root = self._session.root.stat()
        self._taken.enter_context(lock.hold(self._session.own / "lock", "watch"))
        self._watch()
        self._root = (root.st_dev, root.st_ino)

    def leave_root(self) -> None:
        """Give it back."""
        self._root = self._tree = None
        self._taken.close()

    def _watch(self) -> None:
        """Watch it, as far as the system lets us."""
        if self._tree is not None:
            self._tree.close()
        self._limit = watch_limit()
        self._tree = watch_tree(self._session.root, self._wakeups)
        if self._tree is not None:
            self._taken.callback(self._tree.close)

    def _watch_again(self) -> None:
        """Try again where that may help, before all is looked at."""
        held = self._root is not None
        if held and (self._tree is None or self._tree.trouble or watch_limit() != self._limit):
            self._watch()

    def _open(self) -> Context:
        """The context of a cycle.  Where the folder's name leads to another directory than before,
        as after a mount, all that was opened and watched belongs to the one that is gone."""
        if self._context is not None:
            check_root(self._context.fs)
            if self._is_other(self._context):
                self._session.reset()
                self._context = None
        if self._context is None:
            context = self._session.context(self._reporter)
            if self._is_other(context):
                with context.state.transaction():  # of what happened there nothing was heard
                    context.state.meta.look_everywhere()
                self.take_root()
            self._context = context
        return self._context

    def _is_other(self, context: Context) -> bool:
        """Whether the folder's name leads elsewhere than to what is watched."""
        lost = self._tree is not None and self._tree.lost
        return lost or context.fs.identity() != self._root

    # --- when to look

    def _hear(self, cursor: str) -> None:
        """The site says where the folder stands there; called by the thread that listens."""
        self._heard = cursor
        if not cursor:
            self._learn_at = 0.0
        self._wakeups.remote(back=not cursor)

    def _lose(self) -> None:
        """There is no word from the site, and no way to it: asking says why, to the person too."""
        self._heard = ""
        self._wakeups.remote()

    def _due(self, hints: Hints | None) -> Hints | None:
        """The hints with what the time asks for; None where there is nothing to do."""
        due = self._timers.due(blind=self._is_blind, deaf=not self._events.connected)
        if due.jumped:
            self._session.transport.refresh()
            self._events.reconnect()
        if due.rescan and self._is_blind:
            self._watch_again()
        asked = hints or Hints(remote=False)
        remote = due.poll or (asked.remote and self._is_news())
        everywhere = due.rescan or asked.everywhere
        paths = asked.paths | due.retry
        if not (paths or everywhere or remote):
            return None
        return Hints(paths, everywhere, remote)

    def _is_news(self) -> bool:
        """Whether what was heard of the site is more than what is here: our own commits are not."""
        if self._context is None or not self._heard:
            return True
        try:
            return self._heard != self._context.state.meta.cursor
        except sqlite3.Error:
            return True  # the cycle says what is wrong

    @property
    def _elsewhere(self) -> bool:
        return self._session.transport.has_choice

    @property
    def _is_blind(self) -> bool:
        return self._tree is None or self._tree.blind > 0 or bool(self._tree.trouble)

    # --- a cycle and what comes of it

    def _step(self, hints: Hints) -> None:
        try:
            report = self._cycle(hints)
        except Exception as error:  # noqa: BLE001 - whatever it is, watching goes on
            self._fail(error, hints)
        else:
            self._succeed(report, hints)
        self._session.log.flush()
        self._warn_of_blindness()

    def _cycle(self, hints: Hints) -> Report:
        return run_cycle(self._open(), Direction.BOTH, hints=hints, max_delete=self._max_delete)

    def _succeed(self, report: Report, hints: Hints) -> None:
        if self._failures:
            self._reporter.trouble({"event": "resumed"}, "syncing again")
        self._failures, self._trouble, self._max_delete = 0, "", None
        if self._session.clock.monotonic() >= self._learn_at:
            self._learn_at = self._session.clock.monotonic() + _LEARN
            self._session.learn()
        if report.new_device:
            self._session.reset()
            self._context = None
            self._events.reconnect()
        self._timers.retry(frozenset(item.path for item in report.pending if item.code in _PASSING))
        self._show_unsettled(report)
        self._show_site()
        braked = report.brake is not None and report.brake.side == "local"
        if braked or hints.everywhere:  # else nobody looked at what is held
            self._braked = braked
        in_sync = report.in_sync and not self._braked
        if in_sync != self._in_sync:
            self._in_sync = in_sync
            line = "in sync" if in_sync else None
            self._reporter.say({"event": "status", "in_sync": in_sync}, line)

    def _show_site(self) -> None:
        """Which site serves, where it is another one than before."""
        site = self._session.transport.site
        if site is not None and site.name != self._site:
            line = f"goes on at {site.name}" if self._site else None
            self._site = site.name
            self._reporter.say({"event": "site", "server": site.name}, line)

    def _show_unsettled(self, report: Report) -> None:
        """Each path that is not in sync, once for as long as it stays so for that reason."""
        found = dict.fromkeys(unsettled(report), None) | {
            unsettled_line(item): pending_document(item)
            for item in (*report.pending, *report.refused)
        }
        output = self._session.output
        for line, document in found.items():
            if line in self._unsettled:
                continue
            output.note(line)
            if output.as_json and document is not None:
                self._reporter.say({"event": "pending", **document}, None)
        self._unsettled = frozenset(found)

    def _fail(self, error: Exception, hints: Hints) -> None:
        """Say so once, wait, and keep the hints; raises what no waiting mends."""
        text, code = describe(error)
        if code in _ENDS:
            raise error
        self._session.reset()
        self._context = None
        self._wakeups.again(hints)
        self._failures += 1
        self._in_sync = None
        if text != self._trouble:
            self._trouble = text
            fields = {"event": "paused", "exit_code": int(code), "reason": text}
            self._reporter.trouble(fields, f"{text}; waiting")
        if self._failures == 1 and isinstance(error, Unreachable) and self._elsewhere:
            return  # it died in the middle of something: at another site that goes on at once
        longest = pause_of(self._failures)
        wait = self._session.random.uniform(longest / 2, longest)
        if isinstance(error, Refused) and error.retry_after:
            wait = max(wait, error.retry_after)
        self._wakeups.wait_until_back(wait)

    def _warn_of_blindness(self) -> None:
        """Say, with the remedy, that some changes here are found late."""
        trouble = self._tree.trouble if self._tree is not None else ""
        blind = -1 if self._tree is None or trouble else self._tree.blind
        if blind == self._blind:
            return
        self._blind = blind
        self._timers.soon()
        limit = watch_limit() or 0
        fields = {"event": "blind", "directories": blind, "limit": limit}
        self._reporter.trouble(fields, _blindness(blind, trouble, limit))


def _blindness(blind: int, trouble: str, limit: int) -> str:
    """What is not watched (-1 directories: nothing is), why, and the remedy."""
    if not blind:
        return "everything is watched again"
    if trouble:
        return (
            f"nothing is watched any more: {trouble}; changes are found by a look every minute, "
            "and with each it is tried again"
        )
    more = f"fs.inotify.max_user_watches={max(524_288, limit * 2)}"
    if blind < 0:
        few = instance_limit() or 0
        return (
            f"nothing can be watched: the limit of inotify watches ({limit}), or of the programs "
            f"that watch ({few}), is reached; changes are found by a look every minute; `sudo "
            f"sysctl {more} fs.inotify.max_user_instances={max(1024, few * 2)}` raises both"
        )
    return (
        f"{plural(blind, 'directory', 'directories')} can't be watched: the limit of inotify "
        f"watches ({limit}) is reached; changes there are found by a look every minute; `sudo "
        f"sysctl {more}` raises it"
    )
