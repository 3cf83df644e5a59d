"""Following one site: open a session, take in what is new, listen for more.

The steps are the same however far behind we are.  One lock for each folder, shared by all followers
of a process, keeps two of them from fetching the same versions at once.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Final

from dblike_delta.errors import DeltaError
from dblike_delta.exchange import Refused, Unreachable
from dblike_delta.messages import CursorMark
from dblike_delta.versions import Dot
from dblike_srv.errors import Conflict, Gone, SiteError
from dblike_srv.identity import FolderRef
from dblike_srv.replication import arrival, journals, sites
from dblike_srv.replication.arrival import Damaged, Fault, Unfinished
from dblike_srv.replication.aside import Aside, is_of_a_folder
from dblike_srv.replication.followed import note, remember
from dblike_srv.replication.holding import Holding
from dblike_srv.replication.link import Left, Link
from dblike_srv.replication.messages import Held, Known, Position
from dblike_srv.replication.relay import Relay
from dblike_srv.replication.rows import Rows
from dblike_srv.replication.runs import Answer, Page, Question, Run, check_order, in_runs
from dblike_srv.replication.turns import Locks, Turn
from dblike_srv.site import Ahead, Site, renew

PAGE: Final = 5000
RUN_BYTES: Final = 256 << 20
"""Versions in one answer; bytes of files whose versions are written together."""
REPORT: Final = 2.0
CONTACT: Final = 10.0
"""Seconds between notes of how far behind we are; that it answers, where that stays the same."""
LAST: Final = 20
"""Entries of our own journal that are compared with what another site has of it."""
REPORTED: Final = 1000
"""Contents in one report of damage."""
LARGEST: Final = 2**53
"""No journal has as many versions."""

log = logging.getLogger(__name__)


class Untold(Fault):
    """A folder of which the rows that all sites share know nothing there."""


class Follower:
    """All that one site knows and this one does not, step by step."""

    def __init__(
        self,
        site: Site,
        link: Link,
        locks: Locks | None = None,
        compared: dict[tuple[bytes, bytes], int] | None = None,
        aside: Aside | None = None,
        *,
        page: int = PAGE,
        early: bool = False,
        relay: Relay | None = None,
    ) -> None:
        """`compared` is how far journals of ours (site, folder) went there when their ends were
        looked at, `aside` which folders there wait.  With `early` what comes next is asked for,
        in a thread, while something is written.  `relay` knows who else hears what is held here."""
        self.relay = relay or Relay(site)
        self.holding = Holding(site, link, self.relay)
        self.rows = Rows(site, link)
        self._site = site
        self._link = link
        self._locks = locks or Locks()
        self._limit, self._early = page, early
        self._compared = compared if compared is not None else {}
        self._aside = aside or Aside()
        self._continued: set[bytes] = set()
        self._behind: dict[bytes, int] = {}
        self._said = -1
        self._said_at = -math.inf

    def connect(self) -> None:
        """Open a session.  Raises Unreachable, Refused, Fault, and Conflict where it left."""
        mine = sites.announce(self._site)
        try:
            peer = self._link.open(mine)
        except Left:
            sites.part_with(self._site, mine)  # nobody else tells us
            raise
        if sites.has_left(self._site, peer.id):
            raise Conflict("it left the cluster: take it out of `peers`")
        assert self._link.peer is not None
        remember(self._site, self._link.url, self._link.peer.id)

    def catch_up(self) -> Exception | None:
        """Shared rows, then every folder.  What one of them failed with, where one did."""
        self.rows.take()
        wanted = self.look_back()
        self._behind = {position.folder: missing for position, missing in wanted}
        failures = [self.folder(position) for position, _ in wanted]
        if self.holding.outlet is not None and self._link.prompt:
            self.holding.outlet.look()
        self.holding.acknowledge()
        self.report(force=True)
        self._note(problem=self.rows.double or self._aside.words() or self._link.clocks)
        return next(filter(None, failures), None)

    def look_back(self) -> list[tuple[Position, int]]:
        """Where folders stand there of which there is something new, and how many versions that is.

        Raises Ahead where our disk turns out to have gone back in time: our own journals have more
        entries there, or others.
        """
        positions, wanted, waiting = list(self._link.positions()), [], set[bytes]()
        numbers = journals.all_numbers(self._site)  # after the positions: ours only grow
        for position in positions:
            there = self._opened(position.folder, position.cursor)
            here = numbers.get(position.folder, {})
            missing = sum(max(0, number - here.get(origin, 0)) for origin, number in there.items())
            if missing:
                wanted.append((position, missing))
            else:
                self.holding.all(position.folder, there, here)
            self._check_ahead(there, here)
            failed = self._apart(position.folder, partial(self._compare, position.folder, there))
            if missing or failed:
                waiting.add(position.folder)
        self._aside.keep(waiting)
        return wanted

    def _compare(self, uid: bytes, there: dict[bytes, int]) -> None:
        """Whether the last entries of our own journal there are ours: a disk that went back, and
        was written to before any other site was met, has used their numbers for other versions; so
        has a copy of this site that runs, and whose entries go there as well."""
        own = self._site.id
        if not there.get(own) or self._compared.get((own, uid)) == there[own]:
            return
        folder = journals.folder_by_id(self._site, uid)
        if folder is None:
            return
        after = max(0, there[own] - LAST)
        cursor = self._site.seal.cursor(uid, {**dict.fromkeys(there, LARGEST), own: after})
        entries, _ = self._link.journal(uid, cursor, LAST)
        ours = journals.dots_of(self._site, folder, own, after, LAST)
        for origin, number, record in entries:
            dot = Dot(record.device, record.counter)
            if origin == own and ours.get(number, dot) != dot:
                raise Ahead(own)
        self._compared[own, uid] = there[own]

    def report(self, *, force: bool = False) -> None:
        """Write down, now and then, that the site answers and how far behind we are."""
        behind, now = sum(self._behind.values()), self._site.clock.monotonic()
        if force or now - self._said_at > (CONTACT if behind == self._said else REPORT):
            self._said, self._said_at = behind, now
            self._note(behind=behind, contact=self._site.clock.now_ms())

    def folder(self, position: Position) -> Exception | None:
        """What is new of a folder, given where it stands there; nothing where it waits.  What that
        failed with, where it is to wait now while the others go on."""
        if self._aside.holds(position.folder, self._site.clock.monotonic()):
            return None
        error = self._apart(position.folder, partial(self._folder, position))
        if error is None:
            self._aside.forgive(position.folder)
        return error

    def _apart(self, folder: bytes, step: Callable[[], None]) -> Exception | None:
        """Do something with a folder.  Where that fails with this one alone, it waits, and the
        session goes on: however much is new there, it keeps none of the others from coming."""
        try:
            step()
        except Exception as error:
            if not is_of_a_folder(error):
                raise
            log.warning("%s: folder %s waits: %s", self._link.url, folder.hex(), error)
            self._aside.put(folder, self._site.clock.monotonic(), error)
            self._note(problem=self._aside.words())
            if isinstance(error, Untold):
                raise  # there may be any number of these
            return error
        return None

    def again_at(self) -> float:
        """When one of the folders that wait is to be asked again."""
        return self._aside.first()

    def _folder(self, position: Position) -> None:
        with self._locks.of(position.folder) as turn:
            folder = journals.folder_by_id(self._site, position.folder)
            if folder is None:
                self.rows.take()
                folder = journals.folder_by_id(self._site, position.folder)
            if folder is None:
                raise Untold("a folder that it does not tell about")
            self._follow(folder, position.cursor, turn)

    def _opened(self, folder: bytes, cursor: str) -> dict[bytes, int]:
        """The numbers of a cursor that it told."""
        try:
            numbers = self._site.seal.open_cursor(folder, cursor)
        except Gone:
            raise Fault("a cursor that no site of the cluster made") from None
        if max(numbers.values(), default=0) > LARGEST:
            raise Fault("a journal with an impossible number")
        return numbers

    def _follow(self, folder: FolderRef, cursor: str, turn: Turn) -> None:
        there = self._opened(folder.id, cursor)
        here = journals.numbers_of(self._site, folder)
        self._check_ahead(there, here)
        if any(number > here.get(origin, 0) for origin, number in there.items()):
            self._follow_runs(folder, here, turn)
            here = journals.numbers_of(self._site, folder)
        self.holding.own(folder.id, there, here)
        self._behind.pop(folder.id, None)

    def _follow_runs(self, folder: FolderRef, here: dict[bytes, int], turn: Turn) -> None:
        """Take in one run after the other.  What is all here is written whatever fails after it."""
        front: Run | None = None
        try:
            for entries, end in self._runs(folder, here):
                coming = self._run(folder, entries, front, end)
                if end is not None and end.following and self._early:
                    end.following.ask(beside=True)
                done, front = front, None
                try:
                    again = done is not None and self._write(folder, done, turn)
                except BaseException:
                    coming.drop()
                    raise
                if again:  # this one was asked for as if all of that had come
                    coming.drop()
                    coming = self._run(folder, entries, None, end)
                self._take(coming, turn)
                front = coming
        finally:
            if front is not None:
                self._write(folder, front, turn)

    def _runs(
        self, folder: FolderRef, here: dict[bytes, int]
    ) -> Iterator[tuple[Sequence[arrival.Entry], Page | None]]:
        """The next versions, page after page; the last run of a page comes with its end."""
        question: Question[Answer] | None = self._question(folder, here)
        while question:
            self.report()
            trace = self._link.begin()
            entries, mark = question.answer()
            reached = self._opened(folder.id, mark.cursor)
            check_order(entries, here)
            if any(number > reached.get(origin, 0) for origin, number, _ in entries):
                raise Fault("a journal that goes beyond its end")
            if any(reached.get(origin, 0) < number for origin, number in here.items()):
                raise Fault("a journal that goes back")
            if mark.more and reached == here:
                raise Fault("a journal that does not end")
            question = self._question(folder, reached) if mark.more else None
            *runs, last = in_runs(entries, RUN_BYTES)
            yield from ((run, None) for run in runs)
            yield last, Page(reached, len(entries), trace, question)
            here = reached

    def _question(self, folder: FolderRef, here: dict[bytes, int]) -> Question[Answer]:
        return Question(lambda: self._ask(folder, here))

    def _run(
        self,
        folder: FolderRef,
        entries: Sequence[arrival.Entry],
        front: Run | None,
        end: Page | None,
    ) -> Run:
        early = self._early and front is not None  # else there is nothing to do meanwhile
        return Run(self._site, self._link, folder, entries, front, end, early=early)

    def _take(self, run: Run, turn: Turn) -> None:
        for size in run.take():
            turn.moved += size

    def _write(self, folder: FolderRef, run: Run, turn: Turn) -> bool:
        """Write a run of versions; whether it had to be asked for again.  Where a content is
        damaged there, or its disk can't read it, it says so when it is told to look, and the
        version comes without; where it stays with what it sent, it is a Fault."""
        again = False
        try:
            run.write()
        except (Damaged, Unfinished) as lacking:
            if not self._are_damaged(folder, lacking.hashes):
                raise
            second, again = Run(self._site, self._link, folder, run.entries), True
            self._take(second, turn)
            second.write()
        if run.end is not None:
            self._end(folder, run.end)
        return again

    def _are_damaged(self, folder: FolderRef, hashes: Sequence[bytes]) -> bool:
        """Whether it finds, now that it is told to look, that it has none of these any more."""
        found = set[bytes]()
        try:
            for at in range(0, len(hashes), REPORTED):
                found.update(self._link.report_damage(folder.id, list(hashes[at : at + REPORTED])))
        except Unreachable:
            return False  # it reads for long; to ask again at once would make it read twice
        return bool(hashes) and found.issuperset(hashes)

    def _end(self, folder: FolderRef, page: Page) -> None:
        """All of a page is here."""
        journals.reach(self._site, folder, page.reached)
        log.info(
            "%d versions of folder %s came from %s", page.count, folder.id.hex(),
            self._link.url, extra={"request_id": page.trace},
        )  # fmt: skip
        self._behind[folder.id] = max(0, self._behind.get(folder.id, 0) - page.count)
        self.holding.page(folder.id, page.reached)
        if self._link.prompt:
            self.holding.acknowledge()

    def _ask(
        self, folder: FolderRef, here: dict[bytes, int]
    ) -> tuple[list[arrival.Entry], CursorMark]:
        """The next entries.  The first time the last one of its own that is here is asked for with
        them: it is another one where its disk went back in time and it does not know that yet."""
        peer = self._link.peer.id if self._link.peer is not None else b""
        last = here.get(peer, 0)
        if not last or folder.id in self._continued:
            cursor = self._site.seal.cursor(folder.id, here)
            return self._link.journal(folder.id, cursor, self._limit)
        asked = self._site.seal.cursor(folder.id, {**here, peer: last - 1})
        entries, mark = self._link.journal(folder.id, asked, self._limit + 1)
        ours = journals.dots_of(self._site, folder, peer, last - 1, 1)
        for origin, number, record in entries:
            dot = Dot(record.device, record.counter)
            if (origin, number) == (peer, last) and ours.get(number, dot) != dot:
                # It finds that out by itself, but where it can't follow us.
                self._link.held(Held([], doubted=[Known(peer, folder.id, last, *ours[last])]))
                raise Fault("its journal has another version than before under the same number")
        reached = self._opened(folder.id, mark.cursor)
        if reached.get(peer, 0) >= last or not mark.more:
            self._continued.add(folder.id)
        if reached.get(peer, 0) == last - 1:
            mark = CursorMark(self._site.seal.cursor(folder.id, {**reached, peer: last}), mark.more)
        return [e for e in entries if e[:2] != (peer, last)], mark

    def _check_ahead(self, there: dict[bytes, int], here: dict[bytes, int]) -> None:
        if there.get(self._site.id, 0) > here.get(self._site.id, 0):
            raise Ahead(self._site.id)

    def _note(self, **values: object) -> None:
        note(self._site, self._link.url, **values)


FAILURES: Final = (Unreachable, Refused, Fault, Unfinished, DeltaError, SiteError, OSError)
"""What may end a round of following; the next one begins where it stood."""


@contextlib.contextmanager
def healing(site: Site) -> Iterator[None]:
    """Where it turns out that our disk went back in time, go on under a new id."""
    try:
        yield
    except Ahead as ahead:
        renew(site, ahead.site)
        sites.announce(site)
        raise Unreachable("this site goes on under a new id") from None
