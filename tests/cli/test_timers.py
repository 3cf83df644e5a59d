"""What the passing of time asks for."""

from __future__ import annotations

import itertools

import pytest

from dblike_cli.timers import BEAT, POLL, POLL_DEAF, RESCAN_BLIND, Due, Timers


class Clock:
    """Two clocks that the test moves."""

    now = 1000.0
    ahead = 0.0

    def now_ms(self) -> int:
        return int((self.now + self.ahead) * 1000)

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def timers(clock: Clock) -> Timers:
    return Timers(clock, 3600)


def ask(timers: Timers, *, blind: bool = False, deaf: bool = False) -> Due:
    return timers.due(blind=blind, deaf=deaf)


def test_nothing_is_due_at_first(timers: Timers) -> None:
    assert ask(timers) == Due()
    assert timers.seconds() == BEAT


def test_the_site_is_asked_every_minute(timers: Timers, clock: Clock) -> None:
    clock.now += POLL
    assert ask(timers) == Due(poll=True)
    assert ask(timers) == Due()


def test_more_often_while_it_can_not_tell(timers: Timers, clock: Clock) -> None:
    assert ask(timers, deaf=True) == Due()
    for _ in range(2):
        clock.now += POLL_DEAF
        assert ask(timers, deaf=True) == Due(poll=True)


def test_everything_is_looked_at_every_hour(timers: Timers, clock: Clock) -> None:
    clock.now += 3600
    assert ask(timers) == Due(rescan=True, poll=True)
    clock.now += 1
    assert ask(timers) == Due()


def test_and_every_minute_where_not_everything_is_watched(timers: Timers, clock: Clock) -> None:
    timers.soon()
    for _ in range(3):
        clock.now += RESCAN_BLIND
        assert ask(timers, blind=True).rescan


@pytest.mark.parametrize("seconds", [3600.0, -3600.0, 10.0])
def test_a_sleep_or_a_set_clock_means_everything(
    timers: Timers, clock: Clock, seconds: float
) -> None:
    clock.ahead += seconds
    assert ask(timers) == Due(rescan=True, poll=True, jumped=True)
    assert ask(timers) == Due()


def test_a_clock_that_drifts_means_nothing(timers: Timers, clock: Clock) -> None:
    for _ in range(50):
        clock.now += 1
        clock.ahead += 0.01
        assert not ask(timers).jumped


def test_what_is_pending_is_looked_at_less_and_less(timers: Timers, clock: Clock) -> None:
    paths = frozenset([b"a"])
    waits = []
    for _ in range(12):
        timers.retry(paths)
        start = clock.now
        while not ask(timers).retry:
            clock.now += 0.05
        waits.append(clock.now - start)
    assert waits == sorted(waits)
    assert waits[0] < 0.5
    assert 59 < waits[-1] < 61
    timers.retry(frozenset())
    clock.now += 10_000
    assert not ask(timers).retry


def test_one_that_waits_is_not_put_off_by_others(timers: Timers, clock: Clock) -> None:
    """Each has a time of its own, however often something else happens."""
    tried: list[float] = []
    start = clock.now
    for number in range(4000):
        timers.retry(frozenset([b"waits", b"other %d" % number]))
        clock.now += 0.1
        if b"waits" in ask(timers).retry:
            tried.append(clock.now - start)
    gaps = [after - before for before, after in itertools.pairwise(tried)]
    assert gaps == sorted(gaps)
    assert tried[0] < 0.5
    assert 59 < gaps[-1] < 61


def test_a_path_may_wait_for_ever(timers: Timers, clock: Clock) -> None:
    for _ in range(1100):
        timers.retry(frozenset([b"a"]))
        clock.now += 61
        assert ask(timers).retry == {b"a"}
