"""Messages are decoded by many threads, each from its first message on."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_MANY_THREADS = """
import sys, threading, types
import msgspec
from dblike_delta import decoding

sys.setswitchinterval(1e-6)
SOURCE = '''
from __future__ import annotations
import msgspec
class Inner(msgspec.Struct):
    x: int = 0
    y: str | None = None
    z: list[bytes] = []
class Outer(msgspec.Struct):
    a: Inner
    b: dict[str, Inner]
    c: tuple[Inner, ...] = ()
    d: bytes = b""
'''
PLAIN = {"a": {"x": 1}, "b": {"k": {"x": 2}}, "c": [{"x": 3}], "d": b""}
PACKED, TEXT = msgspec.msgpack.encode(PLAIN), msgspec.json.encode(PLAIN)

def fresh_type(number):
    module = sys.modules[f"m{number}"] = types.ModuleType(f"m{number}")
    exec(SOURCE, vars(module))
    return module.Outer

for number in range(300):
    kind, together, found = fresh_type(number), threading.Barrier(3), []

    def decode(work):
        together.wait()
        found.append(work())

    works = (
        lambda: decoding.unpack(PACKED, kind),
        lambda: decoding.read_json(TEXT, kind),
        lambda: decoding.convert(PLAIN, kind),
    )
    threads = [threading.Thread(target=decode, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [found[0]] * 3 and found[0].c[0].x == 3, found
"""
_FORK = """
import os, sys, threading, time
import msgspec
from dblike_delta import decoding

class Kind(msgspec.Struct):
    x: int

planning, go_on = threading.Event(), threading.Event()

def plan(kind):
    planning.set()
    go_on.wait()
    return msgspec.msgpack.Decoder(kind)

def decode():
    decoding._decoder(decoding._packed, plan, Kind)

threading.Thread(target=decode).start()
planning.wait()
threading.Timer(0.2, go_on.set).start()
child = os.fork()
if not child:
    assert decoding.unpack(b"\\x81\\xa1x\\x07", Kind).x == 7
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize("program", [_MANY_THREADS, _FORK], ids=["many threads", "a fork"])
def test_the_first_messages_of_a_kind_come_at_once(program: str) -> None:
    """msgspec by itself ends the process then, so that it is tried out in one of its own."""
    run = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", program],
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr.decode()[-3000:]
