"""kill -9 of any two of three sites under writers: `python tests/soak/sites.py --points 100`.

Three real sites follow each other, and four clients write all the time, going on at another site by
themselves.  At random moments two of the three are killed without a word and come back: in either
order or both at once, now and then with an older copy of their disk, or with an empty one.  At each
point all three must end up with the same tree, with no conflict copy, and with every version that
was acknowledged; the one that is left must have answered all the while.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import urllib3

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from blake3 import blake3

from dblike_delta.changeset import Encoder, Part
from dblike_delta.exchange import ExchangeError, Refused
from dblike_delta.formats import DELTA_MAGIC, END, encode_literal_header
from dblike_delta.messages import CommitReply, Record, Trailer, VersionList
from dblike_delta.versions import Kind
from rig.cluster import Cluster, RealSite, User, eventually

COPIES = 2
WRITERS = 4
FILES = 5
AWAY = (OSError, ExchangeError, urllib3.exceptions.HTTPError)


@dataclasses.dataclass(frozen=True)
class Written:
    """A version that was acknowledged: by which site, and how many held it then."""

    path: str
    version: str
    site: str
    copies: int


class Client(threading.Thread):
    """A device that edits its own files, one site after the other."""

    def __init__(self, number: int, sites: list[RealSite], token: str, device: bytes) -> None:
        super().__init__(daemon=True)
        self._random = random.Random(number)
        self._users = [site.at(token) for site in sites]
        self._at, self._number, self._device = 0, number, device
        self._counter = 0
        self._contexts: dict[str, bytes] = {}
        self._pause, self._idle, self.ending = threading.Event(), threading.Event(), False
        self.written: list[Written] = []
        self.failed: list[str] = []
        self.silence = 0.0

    def run(self) -> None:
        last = time.monotonic()
        while not self.ending:
            if self._pause.is_set():
                self._idle.set()
                time.sleep(0.01)  # it is told to pause
                last = time.monotonic()
                continue
            self._idle.clear()
            self._write()
            now = time.monotonic()
            self.silence, last = max(self.silence, now - last), now

    def pause(self) -> None:
        """Finish what was begun, and wait."""
        self._pause.set()
        eventually(self._idle.is_set, "a writer that never ends its write")

    def go_on(self) -> None:
        self._pause.clear()
        self._idle.clear()

    def _write(self) -> None:
        """One version; where its site is away the same one is sent to the next.  Now and then the
        device moves by itself, so that also those that came back are written to."""
        if self._random.random() < 0.1:
            self._at = self._random.randrange(len(self._users))
        path = f"{self._number}/{self._random.randrange(FILES)}"
        self._counter += 1
        parts = self._changeset(path)
        while not self.ending:
            user = self._users[self._at]
            try:
                reply = user.exchange.commit("home", parts)
            except Refused as refused:
                if not refused.temporary:
                    self.failed.append(f"{path} at {user.site.name}: {refused}")
                    return
            except AWAY:
                pass
            else:
                self._note(path, user, reply)
                return
            self._at = (self._at + 1) % len(self._users)
            time.sleep(0.01)  # no busy loop where nobody is there

    def _note(self, path: str, user: User, reply: CommitReply) -> None:
        result = reply.results[0]
        version = f"{self._device.hex()}.{self._counter}"
        if result.status not in ("accepted", "known") or result.superseded:
            self.failed.append(f"{path} at {user.site.name}: {result}")
            return
        self._contexts[path] = result.context
        self.written.append(Written(path, version, user.site.name, reply.copies))

    def _changeset(self, path: str) -> list[Part]:
        content = b"%d.%d " % (self._number, self._counter) * self._random.choice((1, 100, 5000))
        record = Record(
            path=path.encode(),
            device=self._device,
            counter=self._counter,
            time=int(time.time() * 1000),
            kind=Kind.FILE,
            hash=blake3(content).digest(),
            size=len(content),
            mode=0o644,
            mtime_ns=time.time_ns(),
            author="soak",
            context=self._contexts.get(path, b""),
            body=True,
        )
        encoder = Encoder()
        parts = [*encoder.record(record), *encoder.data(DELTA_MAGIC)]
        parts += [*encoder.data(encode_literal_header(len(content))), *encoder.data(content)]
        parts += [
            *encoder.data(END),
            *encoder.trailer(Trailer(blake3(content).digest(), len(content))),
        ]
        return parts + encoder.finish()


class Watch(threading.Thread):
    """Asks the site that is left, all the while; the longest answer and what failed."""

    def __init__(self, site: RealSite, token: str) -> None:
        super().__init__(daemon=True)
        self._user, self._ending = site.at(token), threading.Event()
        self.slowest, self.failed = 0.0, ""

    def run(self) -> None:
        while not self._ending.wait(0.05):
            start = time.monotonic()
            try:
                self._user.exchange.folders()
            except AWAY as error:
                self.failed = str(error)
            self.slowest = max(self.slowest, time.monotonic() - start)

    def end(self) -> None:
        self._ending.set()
        self.join()


@dataclasses.dataclass
class Result:
    """What came of a run."""

    points: int = 0
    versions: int = 0
    single: int = 0
    silence: float = 0.0
    slowest: float = 0.0
    converged: float = 0.0
    kinds: Counter[str] = dataclasses.field(default_factory=Counter)

    def __str__(self) -> str:
        return (
            f"{self.points} points {dict(self.kinds)}: {self.versions} acknowledged versions "
            f"({self.single} by one site alone), 0 lost, 0 self-conflicts; the longest silence of "
            f"a writer {self.silence:.2f} s, the slowest answer of one left {self.slowest:.2f} s, "
            f"the longest time until all were equal again {self.converged:.1f} s"
        )


def check_versions(user: User, clients: list[Client], lost: set[str]) -> None:
    """Every acknowledged version but the lost ones is at a site, and no conflict copy."""
    copies = [path for path in user.tree() if b"conflict" in path]
    assert not copies, f"self-conflicts at {user.site.name}: {copies}"
    for client in clients:
        for path in {written.path for written in client.written}:
            target = f"/v1/folders/home/files/{path}/versions?limit=1000"
            there = {v.version for v in user.exchange.get(target, VersionList).versions}
            mine = {w.version for w in client.written if w.path == path}
            assert not mine - there - lost, f"lost at {user.site.name}: {mine - there}"


class Rig:
    """Three sites, the clients on them, and copies of disks."""

    def __init__(self, root: Path, rng: random.Random) -> None:
        self.root, self.rng = root, rng
        rules = {"copies": COPIES, "wait_ms": 500}
        self.cluster = Cluster(root, replication=rules, log={"level": "warning"})
        self.cluster.start()
        self.cluster[0].add_user("ada")
        for site in self.cluster:
            eventually(lambda site=site: site.login("ada"))
        self.clients = [self._client(number) for number in range(WRITERS)]
        self.token = self.clients[0]._users[0].token
        self.lost: set[str] = set()
        self.result = Result()
        for client in self.clients:
            client.start()

    def _client(self, number: int) -> Client:
        user = self.cluster[0].at("")
        device = user.login("ada", f"writer {number}")
        sites = [self.cluster.sites[(number + i) % 3] for i in range(3)]
        return Client(number, sites, user.token, device)

    def point(self) -> None:
        """Kill two, let the third one serve alone, bring them back, and look at everything."""
        time.sleep(self.rng.uniform(0.1, 1.5))  # the random moment
        left, *victims = self.rng.sample(self.cluster.sites, 3)
        kind = self.rng.choice(("first first", "last first", "together", "backup", "empty"))
        for site in victims:
            site.kill()
            if self.rng.random() < 0.5:
                time.sleep(self.rng.uniform(0, 0.3))  # the other random moment
        watch = Watch(left, self.token)
        watch.start()
        time.sleep(self.rng.uniform(0.0, 1.0))  # it serves alone
        kind = self._age(victims[0], kind)
        self._return(victims, kind)
        watch.end()
        assert not watch.failed, f"{left.name} did not answer: {watch.failed}"
        self.result.slowest = max(self.result.slowest, watch.slowest)
        self.result.kinds[kind] += 1
        self._check()

    def _age(self, site: RealSite, kind: str) -> str:
        """Give the site an older disk or none, where that is this point's kind."""
        old = self.root / f"{site.name}.old"
        if kind == "backup" and old.exists():
            shutil.rmtree(site.data)
            old.rename(site.data)
        elif kind == "empty":
            shutil.rmtree(site.data)
        elif kind == "backup":
            kind = "first first"
        if kind in ("backup", "empty"):
            self._forget(site)
        if not old.exists() and site.data.exists():
            shutil.copytree(site.data, old, ignore=lambda *_: {"run"})
        return kind

    def _forget(self, site: RealSite) -> None:
        """What only this disk held may be lost: the clients were told so."""
        for client in self.clients:
            alone = [w for w in client.written if w.site == site.name and w.copies < COPIES]
            self.lost |= {written.version for written in alone}

    def _return(self, victims: list[RealSite], kind: str) -> None:
        order = victims[::-1] if kind == "last first" else victims
        if kind == "together":
            self.cluster.start()
        for site in order:
            if not site.running:
                site.start()

    def _check(self) -> None:
        for client in self.clients:
            client.pause()
        start = time.monotonic()
        self.cluster.converge(self.token)
        self.result.converged = max(self.result.converged, time.monotonic() - start)
        for site in self.cluster:
            check_versions(site.at(self.token), self.clients, self.lost)
        for client in self.clients:
            assert not client.failed, client.failed
            self.result.versions += len(client.written)
            self.result.single += sum(w.copies < COPIES for w in client.written)
            self.result.silence = max(self.result.silence, client.silence)
            client.written.clear()
            client.go_on()
        self.lost.clear()
        self.result.points += 1

    def close(self) -> None:
        for client in self.clients:
            client.ending = True
        self.cluster.__exit__()


def soak(points: int, seed: int) -> Result:
    """Kill at so many points; what was seen."""
    root = Path(tempfile.mkdtemp(prefix="dblike-sites-"))
    rig = Rig(root, random.Random(seed))
    try:
        for _ in range(points):
            rig.point()
    finally:
        rig.close()
    shutil.rmtree(root, ignore_errors=True)
    return rig.result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    start = time.monotonic()
    result = soak(options.points, options.seed)
    print(f"{result}; {time.monotonic() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
