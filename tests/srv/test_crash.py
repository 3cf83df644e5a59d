"""A site that is killed at any moment has all that it acknowledged, and is sound."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dblike_srv.identity import Identity
from dblike_srv.maintenance import compact, gc, scrub
from dblike_srv.store.local import LocalStore
from rig.core_site import DAY_MS, CoreSite, SeededRandom

WRITER = """
import sys
from dblike_delta.seams import SystemRandom
from dblike_srv.config import decode_config
from dblike_srv.folders import find_folder
from dblike_srv.identity import Identity
from dblike_srv.maintenance import compact, gc
from dblike_srv.site import open_site
from rig.core_site import Device

data, device, first, tidies = sys.argv[1], bytes.fromhex(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
site = open_site(decode_config({"data": data, "cluster_key": "k" * 32, "retention": {"days": 0}}))
me = Identity(1, "ada", device, "laptop")

class Core:
    clock, folder = site.clock, find_folder(site, me, "home")
Core.site = site
Core.clock.now = site.clock.now_ms()
laptop = Device(Core, me)
laptop.counter = first
print("ready", flush=True)
for n in range(first, first + 1000):
    assert laptop.put(b"f%d" % (n % 5), b"content %d " % n * 500).status == "accepted"
    print(n, laptop.counter, flush=True)
    if tidies == "tidy":
        gc(site), compact(site)
"""


@pytest.mark.parametrize("tidies", ["plain", "tidy"])
def test_kill_9_at_any_moment(tmp_path: Path, tidies: str) -> None:
    data = tmp_path / "data"
    core = CoreSite(data, LocalStore(data, SeededRandom(2)), retention={"days": 0})
    random, counter = SeededRandom(len(tidies)), 0
    for _ in range(6):
        acknowledged = write_until_killed(data, core.laptop.identity, counter, tidies, random)
        newest = newest_of(core)
        assert scrub(core.site).sound
        for path, n in acknowledged.items():
            assert newest[path] >= n, f"{path!r}: {n} was acknowledged"
        counter += 2000
    core.clock.advance(400 * DAY_MS)  # later than any time in there
    gc(core.site)
    compact(core.site)
    core.clock.advance(2 * DAY_MS)
    gc(core.site)
    assert scrub(core.site).sound
    assert set(newest_of(core)) == set(core.records())


def write_until_killed(
    data: Path, identity: Identity, first: int, tidies: str, random: SeededRandom
) -> dict[bytes, int]:
    """Start a writer, kill it after some time; the newest number that it was told of each path."""
    command = [sys.executable, "-c", WRITER, str(data), identity.device.hex(), str(first), tidies]
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        told: dict[bytes, int] = {}
        stop = int(random.uniform(1, 12))
        for line in process.stdout:
            n = int(line.split()[0])
            told[b"f%d" % (n % 5)] = n
            if len(told) > 4 or n >= first + stop:
                break
        try:
            process.wait(random.uniform(0, 0.01))  # into the middle of the next one
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        rest, _ = process.communicate()
        for line in rest.splitlines(keepends=True):
            if line.endswith("\n"):
                n = int(line.split()[0])
                told[b"f%d" % (n % 5)] = n
    return told


def newest_of(core: CoreSite) -> dict[bytes, int]:
    """The number in each path's content."""
    return {
        path: int(core.read(path).split()[1])
        for path in core.records()
        if b"conflicted" not in path
    }
