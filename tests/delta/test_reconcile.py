"""Reconcile: the whole table of cases, the order of a plan, and the paths around a path."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import msgspec
import pytest
from tests.strategies import DEVICES, cases, file

from dblike_delta.plan import (
    NO_MODE,
    UNKNOWN,
    Adopt,
    Apply,
    Entry,
    Forget,
    Held,
    Plan,
    Reason,
    Remote,
    Step,
    Synced,
    Upload,
)
from dblike_delta.reconcile import reconcile, same_content, same_entry
from dblike_delta.versions import Dot, Kind

OLD, NEW = Dot(DEVICES[0], 1), Dot(DEVICES[1], 1)
DIRECTORY = Entry(Kind.DIRECTORY, mode=0o755)
ONE, TWO, THREE = file(1), file(2), file(3)
TOUCHED = msgspec.structs.replace(ONE, mtime_ns=99)
LINK = Entry(Kind.SYMLINK, target=b"to")


def synced(entry: Entry | None) -> Synced:
    return Synced(entry, b"old context", OLD)


def remote(entry: Entry | None) -> Remote:
    return Remote(entry, NEW, b"new context")


def steps(plan: Plan) -> list[Step]:
    return [*plan.uploads, *plan.applies, *plan.adopts, *plan.forgets, *plan.held]


def upload(entry: Entry | None, base: Entry | None, context: str = "old") -> Upload:
    return Upload(b"f", entry, f"{context} context".encode() if context else b"", base)


def apply(entry: Entry | None, expected: Entry | None) -> Apply:
    return Apply(b"f", remote(entry), expected)


def adopt(there: Entry, here: Entry) -> Adopt:
    return Adopt(b"f", remote(there), here)


SAME = "same"
# What the path was; what it is here; what is heard of it (SAME: nothing); the one step.
TABLE: list[tuple[Entry | None, Entry | None, Entry | str | None, Step | None]] = [
    # Nobody heard of it before.
    (None, None, SAME, None),
    (None, None, None, None),
    (None, None, ONE, apply(ONE, None)),
    (None, ONE, SAME, upload(ONE, None, "")),
    (None, ONE, None, upload(ONE, None, "new")),
    (None, ONE, ONE, adopt(ONE, ONE)),
    (None, ONE, TOUCHED, adopt(TOUCHED, ONE)),
    (None, ONE, TWO, upload(ONE, None, "")),
    (None, ONE, DIRECTORY, upload(ONE, None, "")),
    (None, DIRECTORY, DIRECTORY, adopt(DIRECTORY, DIRECTORY)),
    (None, DIRECTORY, ONE, upload(DIRECTORY, None, "")),
    (None, LINK, LINK, adopt(LINK, LINK)),
    # The same here as when last agreed on.
    (ONE, ONE, SAME, None),
    (ONE, ONE, ONE, adopt(ONE, ONE)),
    (ONE, ONE, TOUCHED, adopt(TOUCHED, ONE)),
    (ONE, ONE, TWO, apply(TWO, ONE)),
    (ONE, ONE, DIRECTORY, apply(DIRECTORY, ONE)),
    (ONE, ONE, None, apply(None, ONE)),
    # Other mode or mtime here.
    (ONE, TOUCHED, SAME, upload(TOUCHED, ONE)),
    (ONE, TOUCHED, ONE, upload(TOUCHED, ONE, "new")),
    (ONE, TOUCHED, TOUCHED, adopt(TOUCHED, TOUCHED)),
    (ONE, TOUCHED, TWO, apply(TWO, TOUCHED)),
    (ONE, TOUCHED, LINK, apply(LINK, TOUCHED)),
    (ONE, TOUCHED, None, upload(TOUCHED, ONE)),
    # Other content here.
    (ONE, TWO, SAME, upload(TWO, ONE)),
    (ONE, TWO, ONE, upload(TWO, ONE, "new")),
    (ONE, TWO, TOUCHED, upload(TWO, ONE, "new")),
    (ONE, TWO, TWO, adopt(TWO, TWO)),
    (ONE, TWO, THREE, upload(TWO, ONE)),
    (ONE, TWO, DIRECTORY, upload(TWO, ONE)),
    (ONE, TWO, None, upload(TWO, ONE)),
    # Another kind here.
    (ONE, DIRECTORY, SAME, upload(DIRECTORY, ONE)),
    (ONE, DIRECTORY, TWO, upload(DIRECTORY, ONE)),
    (ONE, DIRECTORY, DIRECTORY, adopt(DIRECTORY, DIRECTORY)),
    (ONE, LINK, None, upload(LINK, ONE)),
    (DIRECTORY, ONE, DIRECTORY, upload(ONE, DIRECTORY, "new")),
    # Gone here.
    (ONE, None, SAME, upload(None, ONE)),
    (ONE, None, ONE, upload(None, ONE, "new")),
    (ONE, None, TOUCHED, apply(TOUCHED, None)),
    (ONE, None, TWO, apply(TWO, None)),
    (ONE, None, DIRECTORY, apply(DIRECTORY, None)),
    (ONE, None, None, Forget(b"f")),
]


def plan_for(base: Entry | None, here: Entry | None, there: Entry | str | None) -> Plan:
    return reconcile(
        {b"f": here},
        {b"f": synced(base)} if base else {},
        {} if isinstance(there, str) else {b"f": remote(there)},
    )


@pytest.mark.parametrize(("base", "here", "there", "step"), TABLE)
def test_each_case_has_its_step(
    base: Entry | None, here: Entry | None, there: Entry | str | None, step: Step | None
) -> None:
    plan = plan_for(base, here, there)
    assert steps(plan) == ([step] if step else [])
    assert plan.idle == (step is None)


STATES: tuple[Entry | None, ...] = (
    None,
    ONE,
    TOUCHED,
    TWO,
    THREE,
    LINK,
    Entry(Kind.SYMLINK, target=b"elsewhere"),
    DIRECTORY,
    Entry(Kind.DIRECTORY, mode=0o700),
)


def product() -> Iterator[tuple[Entry | None, Entry | None, Entry | str | None]]:
    return itertools.product(STATES, STATES, (SAME, *STATES))


def test_every_case_has_at_most_one_step_and_none_destroys_what_only_is_here() -> None:
    """The client never overwrites bytes that the server has not acknowledged."""
    for base, here, there in product():
        found = steps(plan_for(base, here, there))
        assert len(found) <= 1
        for step in found:
            if isinstance(step, Apply):
                assert same_entry(step.expected, here)
                if here is not None and here.kind != Kind.DIRECTORY:
                    agreed = base is not None and same_content(here, base)
                    assert agreed or (step.new and same_content(here, step.new))
            if isinstance(step, Adopt):
                assert here
                assert step.remote.entry
                assert same_content(here, step.remote.entry)


def test_no_delete_is_made_of_anything_but_an_absence_here() -> None:
    """No delete is ever derived from something being absent there."""
    for base, here, there in product():
        for step in steps(plan_for(base, here, there)):
            if isinstance(step, Upload) and step.entry is None:
                assert base is not None
                assert here is None
                assert there == SAME or same_entry(base, there)  # type: ignore[arg-type]
            if isinstance(step, Apply) and step.new is None:
                assert there is None


def test_nothing_known_of_the_other_side_is_as_last_agreed_on() -> None:
    assert reconcile({}, {b"f": synced(ONE)}, {}).idle
    assert reconcile({b"f": ONE}, {b"f": synced(ONE)}, {}).idle
    same = Remote(ONE, OLD, b"old context")
    assert reconcile({}, {b"f": synced(ONE)}, {b"f": same}).idle
    assert reconcile({b"f": ONE}, {}, {}).uploads == (upload(ONE, None, ""),)


def test_one_dot_is_one_version_whatever_this_disk_made_of_it() -> None:
    """A file system without modes does not make an edit of each download; what is said of them is
    taken, for a copy of the device may have said something else with the same dot."""
    here = msgspec.structs.replace(ONE, mode=0)
    known = Synced(here, b"old context", OLD)
    for context in (b"old context", b"new context"):
        there = Remote(ONE, OLD, context)
        plan = reconcile({}, {b"f": known}, {b"f": there})
        assert (plan.uploads, plan.applies, plan.adopts) == ((), (), (Adopt(b"f", there, here),))


@pytest.mark.parametrize("context", [b"old context", b"new context"])
@pytest.mark.parametrize("there", [TWO, DIRECTORY, LINK, None])
def test_a_dot_that_stands_for_another_content_there_is_news(
    there: Entry | None, context: bytes
) -> None:
    """A copied device used it twice: nothing of that was agreed on."""
    twin = Remote(there, OLD, context)
    (step,) = steps(reconcile({}, {b"f": synced(ONE)}, {b"f": twin}))
    assert step == Apply(b"f", twin, ONE)
    (step,) = steps(reconcile({b"f": THREE}, {b"f": synced(ONE)}, {b"f": twin}))
    assert step == upload(THREE, ONE)


def test_a_tombstone_that_is_remembered_gives_its_context_to_what_comes_after() -> None:
    known = synced(None)
    assert reconcile({b"f": ONE}, {b"f": known}, {}).uploads == (upload(ONE, None),)
    assert reconcile({b"f": None}, {b"f": known}, {}).idle
    assert reconcile({}, {b"f": known}, {b"f": remote(None)}).idle
    assert reconcile({}, {b"f": known}, {b"f": remote(ONE)}).applies == (apply(ONE, None),)


@pytest.mark.parametrize(
    ("a", "b", "entry", "content"),
    [
        (ONE, ONE, True, True),
        (ONE, TOUCHED, False, True),
        (ONE, msgspec.structs.replace(ONE, mode=0o600), False, True),
        (ONE, msgspec.structs.replace(ONE, size=2), False, False),
        (ONE, TWO, False, False),
        (ONE, DIRECTORY, False, False),
        (DIRECTORY, Entry(Kind.DIRECTORY, mode=0o700), False, True),
        (DIRECTORY, Entry(Kind.DIRECTORY, mode=0o755, mtime_ns=5), True, True),
        (LINK, Entry(Kind.SYMLINK, target=b"to", mode=0o777, mtime_ns=5), True, True),
        (LINK, Entry(Kind.SYMLINK, target=b"elsewhere"), False, False),
    ],
)
def test_what_counts_as_the_same(a: Entry, b: Entry, entry: bool, content: bool) -> None:
    assert same_entry(a, b) is same_entry(b, a) is entry
    assert same_content(a, b) is same_content(b, a) is content
    assert not same_entry(a, None)
    assert not same_entry(None, a)


# --- what can't be read ---------------------------------------------------------------------------


def test_unknown_is_never_deleted_and_covers_all_below() -> None:
    """EIO, EACCES and the like are unknown, never deleted."""
    before = {path: synced(ONE) for path in (b"d/f", b"d/e/g", b"dd", b"h")}
    there = {path: remote(TWO) for path in before}
    plan = reconcile({b"d": UNKNOWN, b"h": None}, before, there)
    assert [step.path for step in plan.applies] == [b"dd", b"h"]
    assert plan.held == tuple(Held(path, Reason.UNREADABLE) for path in (b"d", b"d/e/g", b"d/f"))


def test_an_unknown_root_holds_everything() -> None:
    plan = reconcile({b"": UNKNOWN, b"f": None}, {b"f": synced(ONE)}, {b"g": remote(ONE)})
    assert plan.idle
    assert [step.path for step in plan.held] == [b"", b"f", b"g"]


def test_a_directory_with_something_unknown_in_it_is_not_taken_away() -> None:
    before = {b"d": synced(DIRECTORY), b"d/f": synced(ONE)}
    plan = reconcile({b"d/f": UNKNOWN}, before, {b"d": remote(None), b"d/f": remote(None)})
    assert plan.idle
    for instead in (None, ONE):
        plan = reconcile({b"d": instead, b"d/f": UNKNOWN}, before, {})
        assert plan.idle
        assert plan.held == tuple(Held(path, Reason.UNREADABLE) for path in (b"d", b"d/f"))


# --- paths around a path --------------------------------------------------------------------------


def test_a_directory_stays_while_something_new_is_in_it() -> None:
    before = {b"d": synced(DIRECTORY), b"d/old": synced(ONE)}
    there = {b"d": remote(None), b"d/old": remote(None)}
    for gone in (None, TWO):
        there[b"d"] = remote(gone)
        plan = reconcile({b"d/new": ONE}, before, there)
        assert [step.path for step in plan.uploads] == [b"d/new"]
        assert [step.path for step in plan.applies] == [b"d/old"]
        assert plan.held == (Held(b"d", Reason.NOT_EMPTY),)


def test_the_delete_of_a_directory_is_forgotten_for_an_edit_in_it() -> None:
    """Edit in it ∥ delete of it: the edit, and what holds it."""
    before = {b"d": synced(DIRECTORY), b"d/e": synced(DIRECTORY), b"d/e/f": synced(ONE),
              b"d/g": synced(ONE)}  # fmt: skip
    plan = reconcile(dict.fromkeys(before), before, {b"d/e/f": remote(TWO)})
    assert plan.uploads == (Upload(b"d/g", None, b"old context", ONE),)
    assert [(step.path, step.expected) for step in plan.applies] == [
        (b"d", None),
        (b"d/e", None),
        (b"d/e/f", None),
    ]
    assert plan.applies[0].remote == Remote(DIRECTORY, OLD, b"old context")


def test_a_directory_that_nobody_knows_any_more_is_never_made() -> None:
    """The site went back in time, so what was agreed is not; then it tells what was in it."""
    nothing = Entry(Kind.DIRECTORY, mode=NO_MODE)
    before = {b"d": synced(nothing), b"d/f": synced(ONE)}
    plan = reconcile(dict.fromkeys(before), before, {b"d/f": remote(TWO)})
    assert plan.uploads == (Upload(b"d", None, b"old context", nothing),)
    assert plan.held == (Held(b"d/f", Reason.NO_PARENT),)
    # Next: the site has made the directory again.
    before[b"d"] = Synced(None, b"own context", OLD)
    plan = reconcile({b"d/f": None}, before, {b"d": remote(DIRECTORY), b"d/f": remote(TWO)})
    assert [(step.path, step.new) for step in plan.applies] == [(b"d", DIRECTORY), (b"d/f", TWO)]


def test_nothing_is_made_where_a_file_took_the_place_of_the_directory() -> None:
    before = {b"d": synced(DIRECTORY), b"d/f": synced(ONE)}
    plan = reconcile({b"d": TWO, b"d/f": None}, before, {b"d/f": remote(THREE)})
    assert plan.uploads == (Upload(b"d", TWO, b"old context", DIRECTORY),)
    assert plan.held == (Held(b"d/f", Reason.NO_PARENT),)
    # Next: the site has made a directory of it again, and a conflict copy of the file.
    before[b"d"] = Synced(TWO, b"own context", OLD)
    plan = reconcile({b"d/f": None}, before, {b"d": remote(DIRECTORY), b"d/f": remote(THREE)})
    assert [(step.path, step.expected) for step in plan.applies] == [(b"d", TWO), (b"d/f", None)]


def test_nothing_is_made_in_a_directory_that_is_known_to_be_none() -> None:
    news = {b"d/f": remote(ONE)}
    held = (Held(b"d/f", Reason.NO_PARENT),)
    assert reconcile({}, {b"d": synced(TWO)}, news).held == held
    assert reconcile({b"d": None}, {}, news).held == held
    assert reconcile({}, {b"d": synced(DIRECTORY)}, news).applies
    assert reconcile({}, {}, news).applies


# --- order ----------------------------------------------------------------------------------------


def uploaded(local: dict[bytes, Entry | None], before: dict[bytes, Entry]) -> list[str]:
    plan = reconcile(local, {path: synced(entry) for path, entry in before.items()}, {})
    return [f"{'+' if step.entry else '-'}{step.path.decode()}" for step in plan.uploads]


def applied(there: dict[bytes, Entry | None], before: dict[bytes, Entry]) -> list[str]:
    news = {path: remote(entry) for path, entry in there.items()}
    plan = reconcile({}, {path: synced(entry) for path, entry in before.items()}, news)
    return [f"{'+' if step.new else '-'}{step.path.decode()}" for step in plan.applies]


@pytest.mark.parametrize(
    ("before", "after", "order"),
    [
        pytest.param(
            {},
            {b"d/e/f": ONE, b"d": DIRECTORY, b"d-": ONE, b"d/e": DIRECTORY},
            ["+d", "+d-", "+d/e", "+d/e/f"],
            id="parents first",
        ),
        pytest.param(
            {b"d": DIRECTORY, b"d/e": DIRECTORY, b"d/e/f": ONE},
            {b"d": None, b"d/e": None, b"d/e/f": None},
            ["-d/e/f", "-d/e", "-d"],
            id="children first",
        ),
        pytest.param(
            {b"a": DIRECTORY, b"a/f": ONE},
            {b"a": None, b"a/f": None, b"b": DIRECTORY, b"b/f": ONE},
            ["+b", "+b/f", "-a/f", "-a"],
            id="a rename finds its content",
        ),
        pytest.param(
            {b"d": DIRECTORY, b"d/e": DIRECTORY, b"d/e/f": ONE, b"z": ONE},
            {b"d": ONE, b"d/e": None, b"d/e/f": None, b"z": None, b"a": TWO},
            ["-d/e/f", "-d/e", "+a", "+d", "-z"],
            id="a directory becomes a file",
        ),
        pytest.param(
            {b"d": ONE},
            {b"d": DIRECTORY, b"d/f": ONE},
            ["+d", "+d/f"],
            id="a file becomes a directory",
        ),
        pytest.param(
            {b"a": DIRECTORY, b"a/b": DIRECTORY, b"a/b/f": ONE},
            {b"b": DIRECTORY, b"b/a": DIRECTORY, b"b/a/f": ONE, b"a": None, b"a/b": None,
             b"a/b/f": None},
            ["+b", "+b/a", "+b/a/f", "-a/b/f", "-a/b", "-a"],
            id="a hierarchy upside down",
        ),
    ],
)  # fmt: skip
def test_a_plan_is_in_an_order_in_which_it_can_be_done(
    before: dict[bytes, Entry], after: dict[bytes, Entry | None], order: list[str]
) -> None:
    assert uploaded(after, before) == order
    assert applied(after, before) == order


def test_a_plan_does_not_depend_on_the_order_of_what_came_in() -> None:
    for rng in cases(500):
        paths = [b"a", b"a/b", b"a/b/c", b"a/d", b"e"]
        local = {path: rng.choice((*STATES, UNKNOWN)) for path in rng.sample(paths, 3)}
        before = {path: synced(rng.choice(STATES)) for path in rng.sample(paths, 3)}
        there = {path: remote(rng.choice(STATES)) for path in rng.sample(paths, 3)}
        plan = reconcile(local, before, there)
        turned = [dict(reversed(tree.items())) for tree in (local, before, there)]
        assert reconcile(*turned) == plan  # type: ignore[arg-type]
        touched = [step.path for step in steps(plan)]
        assert len(touched) == len(set(touched))


@pytest.mark.parametrize("here", [ONE, TOUCHED, DIRECTORY])
def test_an_old_copy_of_what_was_deleted_goes(here: Entry) -> None:
    """Bytes that a delete buried are taken for what was deleted, where nothing is agreed."""
    gone = Remote(None, NEW, b"new context", buried=DIRECTORY if here is DIRECTORY else ONE)
    nothing = synced(Entry(Kind.FILE, bytes(32), 0, 4096))  # after the site went back in time
    for agreed in ({}, {b"f": nothing}):
        assert steps(reconcile({b"f": here}, agreed, {b"f": gone})) == [Apply(b"f", gone, here)]
    # Other bytes are new, and so is what was made again where the delete is known.
    assert reconcile({b"f": TWO}, {}, {b"f": gone}).uploads == (upload(TWO, None, "new"),)
    made_again = reconcile({b"f": here}, {b"f": synced(None)}, {b"f": gone})
    assert made_again.uploads == (upload(here, None, "new"),)
