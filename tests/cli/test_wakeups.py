"""What the watching loop waits for, on a clock of the test's own."""

from __future__ import annotations

import itertools
import threading

import pytest

from dblike_cli.report import Hints
from dblike_cli.wakeups import LONGEST_SETTLE, Wakeups


class Clock:
    """Time that passes when the test says so."""

    now = 100.0

    def now_ms(self) -> int:
        return int(self.now * 1000)

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def wakeups(clock: Clock) -> Wakeups:
    return Wakeups(clock)


def paths(*names: bytes) -> Hints:
    return Hints(frozenset(names), everywhere=False, remote=False)


def test_nothing_happened(wakeups: Wakeups) -> None:
    assert wakeups.wait(0) is None


def test_what_is_settled_is_looked_at_at_once(wakeups: Wakeups) -> None:
    wakeups.touch(b"a", settled=True)
    wakeups.touch(b"b", settled=True)
    assert wakeups.wait(0) == paths(b"a", b"b")
    assert wakeups.wait(0) is None


def test_what_is_not_settled_waits_a_moment(wakeups: Wakeups, clock: Clock) -> None:
    wakeups.touch(b"a", settled=False)
    assert wakeups.wait(0) is None
    clock.now += 0.031
    assert wakeups.wait(0) == paths(b"a")


def test_closing_ends_the_moment(wakeups: Wakeups, clock: Clock) -> None:
    wakeups.touch(b"a", settled=False)
    wakeups.touch(b"a", settled=True)
    assert wakeups.wait(0) == paths(b"a")
    clock.now += 1
    assert wakeups.wait(0) is None


def test_a_file_that_never_rests_is_looked_at_less_and_less(wakeups: Wakeups, clock: Clock) -> None:
    looks = []
    for _ in range(60_000):
        wakeups.touch(b"log", settled=False)
        clock.now += 0.001
        if wakeups.wait(0):
            looks.append(clock.now)
    gaps = [b - a for a, b in itertools.pairwise(looks)]
    assert gaps == sorted(gaps, key=lambda gap: round(gap, 2))
    assert gaps[0] < 0.1
    assert LONGEST_SETTLE <= gaps[-1] < LONGEST_SETTLE + 0.01


def test_everywhere_and_remote_join_the_paths(wakeups: Wakeups) -> None:
    wakeups.touch(b"a", settled=True)
    wakeups.remote()
    assert wakeups.wait(0) == Hints(frozenset([b"a"]), everywhere=False, remote=True)
    wakeups.everywhere()
    assert wakeups.wait(0) == Hints(frozenset(), everywhere=True, remote=False)


def test_too_many_paths_are_everywhere(wakeups: Wakeups) -> None:
    for number in range(50_001):
        wakeups.touch(b"%d" % number, settled=True)
    hints = wakeups.wait(0)
    assert hints is not None
    assert hints.everywhere
    assert not hints.paths


def test_hints_that_were_not_used_come_again(wakeups: Wakeups) -> None:
    wakeups.again(Hints(frozenset([b"a"]), remote=True))
    wakeups.touch(b"b", settled=True)
    assert wakeups.wait(0) == Hints(frozenset([b"a", b"b"]), everywhere=False, remote=True)
    wakeups.again(None)
    assert wakeups.wait(0) == Hints(frozenset(), everywhere=True, remote=True)


@pytest.mark.parametrize("say", ["stop", "touch", "remote", "everywhere"])
def test_a_word_from_another_thread_ends_the_wait(say: str) -> None:
    wakeups = Wakeups(Clock())  # whose time never passes: only the word can end it
    words = {
        "stop": wakeups.stop,
        "touch": lambda: wakeups.touch(b"a", settled=True),
        "remote": wakeups.remote,
        "everywhere": wakeups.everywhere,
    }
    threading.Timer(0.01, words[say]).start()
    assert (wakeups.wait(1000) is None) == (say == "stop")


def test_no_wait_after_the_end(wakeups: Wakeups) -> None:
    wakeups.stop()
    wakeups.touch(b"a", settled=True)
    assert wakeups.wait(1000) is None
    wakeups.wait_until_back(1000)
    wakeups.pause(1000)


@pytest.mark.parametrize("late", [True, False])
def test_the_site_is_back(late: bool) -> None:
    """Whether the word comes while there is a wait for it, or just before."""
    wakeups = Wakeups(Clock())
    if late:
        threading.Timer(0.01, lambda: wakeups.remote(back=True)).start()
    else:
        wakeups.remote(back=True)
    wakeups.wait_until_back(1000)
    assert wakeups.wait(0) is not None
    threading.Timer(0.01, wakeups.stop).start()
    wakeups.wait_until_back(1000)  # that word was for the wait before
    assert wakeups.stopping
