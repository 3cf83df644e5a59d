"""Work beside the caller: in order, bounded, and no error is lost."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor

import pytest

from dblike_cli.context import Inline
from dblike_delta.beside import ROOM, Beside


@pytest.fixture(params=[0, 1, 3], ids=["inline", "one thread", "three"])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    with ThreadPoolExecutor(request.param) if request.param else Inline() as executor:
        yield executor


def test_calls_are_made_in_their_order(executor: Executor) -> None:
    beside, got = Beside(executor), list[int]()
    for number in range(1000):
        beside.do(lambda number=number: got.append(number))  # type: ignore[misc]
    beside.settle()
    assert got == list(range(1000))


def test_several_share_an_executor(executor: Executor) -> None:
    many = [(Beside(executor), list[int]()) for _ in range(5)]
    for number in range(100):
        for beside, got in many:
            beside.do(lambda got=got, number=number: got.append(number))  # type: ignore[misc]
    for beside, got in many:
        beside.settle()
        assert got == list(range(100))


def test_the_caller_waits_when_too_many_are_waiting() -> None:
    let_go, done = threading.Event(), list[int]()
    with ThreadPoolExecutor(2) as executor:
        beside = Beside(executor)
        beside.do(let_go.wait)
        for _ in range(ROOM):
            beside.do(lambda: done.append(1))
        more = executor.submit(beside.do, lambda: done.append(2))
        assert not more.done()
        assert not done
        let_go.set()
        more.result(timeout=30)
        beside.settle()
    assert done == [1] * ROOM + [2]


def test_an_error_ends_it_and_is_heard(executor: Executor) -> None:
    beside, got = Beside(executor), list[int]()
    beside.do(lambda: got.append(1))
    with contextlib.suppress(ZeroDivisionError):  # here already, where calls are made at once
        beside.do(lambda: got.append(1 // 0))
        beside.do(lambda: got.append(2))
    for again in (beside.settle, lambda: beside.do(lambda: got.append(3))):
        with pytest.raises(ZeroDivisionError):
            again()
    assert got == [1]


def test_an_executor_that_takes_no_call_is_an_error_like_any_other() -> None:
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    beside = Beside(executor)
    with pytest.raises(RuntimeError, match="shutdown"):
        beside.do(print)
    for again in (lambda: beside.do(print), beside.settle):
        with pytest.raises(RuntimeError, match="shutdown"):
            again()


def test_settling_nothing_is_at_once(executor: Executor) -> None:
    Beside(executor).settle()
