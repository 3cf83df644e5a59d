"""What commit, changes and fetch cost the server, without HTTP.

    python -m benchmarks.server_core [--files 10000] [--size 10000] [--large 1024] [--in DIR]

Measures CPU and wall time of: many small files in one commit, all of them in one fetch, one large
file (MiB) in and out, 200 scattered edits of it in and out.  Each result is checked.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from blake3 import blake3
from sqlalchemy import insert

from dblike_delta.changeset import Encoder, Part
from dblike_delta.commands import Copy, Literal
from dblike_delta.formats import DELTA_MAGIC, END, encode_commands, encode_literal_header
from dblike_delta.messages import FetchRequest, Record, Trailer, Want
from dblike_srv.changes import changes
from dblike_srv.commit import Commit
from dblike_srv.config import decode_config
from dblike_srv.fetch import fetch
from dblike_srv.folders import create_folder
from dblike_srv.identity import Identity
from dblike_srv.models import devices, users
from dblike_srv.site import open_site

DEVICE = b"d" * 16
MIB = 1 << 20


class Bench:
    """A site of its own, and a device that counts up."""

    def __init__(self, directory: Path) -> None:
        self.site = open_site(decode_config({"data": str(directory), "cluster_key": "k" * 32}))
        user = {"uid": b"u" * 16, "name": b"u", "created": 0}
        device = {"id": DEVICE, "user": 1, "name": "bench", "created": 0}
        self.site.database.transact(lambda c: c.execute(insert(users).values(user)))
        self.site.database.transact(lambda c: c.execute(insert(devices).values(device)))
        self.me = Identity(1, "u", DEVICE, "bench")
        self.folder = create_folder(self.site, self.me, "home")
        self.counter = 0
        self.contexts: dict[bytes, bytes] = {}

    def record(self, path: bytes, digest: bytes, size: int, base: bytes = b"") -> Record:
        self.counter += 1
        return Record(
            path, DEVICE, self.counter, 1_700_000_000_000, 1, digest, size, 0o644, 1,
            author="bench", context=self.contexts.get(path, b""), base=base, body=True,
        )  # fmt: skip

    def commit(self, stream: list[Part]) -> None:
        running = Commit(self.site, self.me, self.folder)
        for part in stream:
            running.receive(part)
        reply = running.finish()
        assert {result.status for result in reply.results} == {"accepted"}
        records, _, _ = changes(self.site, self.folder, reply.before, 20_000)
        self.contexts.update((record.path, record.context) for record in records)

    def fetch(self, wants: list[Want]) -> int:
        stream = fetch(self.site, self.me, self.folder, FetchRequest(wants))
        return sum(map(len, stream))


@contextmanager
def measured(name: str, amount: int = 0) -> Iterator[Callable[[int], None]]:
    """Print what the block costs; it may say how many bytes went out."""
    wire: list[int] = []
    cpu, wall = time.process_time(), time.perf_counter()
    yield wire.append
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    rate = f"{amount / cpu / 1e6:8.0f} MB/s of CPU" if amount else ""
    sent = f"{wire[0]:12,} bytes out" if wire else ""
    print(f"{name:34} {cpu:7.3f} s CPU {wall:7.3f} s wall {rate} {sent}")


def whole(bench: Bench, encoder: Encoder, path: bytes, data: bytes) -> list[Part]:
    """A file in full, as it goes into a changeset."""
    record = bench.record(path, blake3(data).digest(), len(data))
    body = b"".join((DELTA_MAGIC, encode_literal_header(len(data)), data, END))
    parts = encoder.record(record) + encoder.data(body)
    return parts + encoder.trailer(Trailer(record.hash, record.size))


def small_files(bench: Bench, count: int, size: int) -> None:
    """Many small files in, listed, and out."""
    encoder, parts = Encoder(), list[Part]()
    for n in range(count):
        parts += whole(bench, encoder, b"d%d/f%d" % (n % 100, n), os.urandom(size))
    stream = [b"".join(parts + encoder.finish())]
    pieces = [stream[0][at : at + MIB] for at in range(0, len(stream[0]), MIB)]
    with measured(f"{count} files of {size} bytes, commit", count * size):
        bench.commit(pieces)
    with measured(f"{count} files, all changes"):
        records, _, _ = changes(bench.site, bench.folder, "", 20_000)
    wants = [Want(record.device, record.counter) for record in records if record.kind == 1]
    with measured(f"{count} files, fetch", count * size) as note:
        note(bench.fetch(wants))


def large_file(bench: Bench, size: int) -> None:
    """One large file in and out, then edits of it."""
    block, hasher = os.urandom(MIB), blake3()
    for _ in range(size // MIB):
        hasher.update(block)
    encoder = Encoder()
    old = hasher.digest()
    parts = encoder.record(bench.record(b"large", old, size))
    parts += encoder.data(DELTA_MAGIC + encode_literal_header(size))
    for _ in range(size // MIB):
        parts += encoder.data(block)
    parts += encoder.data(END) + encoder.trailer(Trailer(old, size)) + encoder.finish()
    with measured(f"{size // MIB} MiB, commit", size):
        bench.commit(parts)
    with measured(f"{size // MIB} MiB, fetch", size) as note:
        note(bench.fetch([Want(DEVICE, bench.counter)]))
    edits(bench, old, block, size)


def edits(bench: Bench, old: bytes, block: bytes, size: int) -> None:
    """200 edits of 100 bytes each, as a delta, and its way out again."""
    places = sorted(random.Random(1).sample(range(0, size - 200, 200), 200))
    commands: list[Copy | Literal] = []
    hasher, at = blake3(), 0
    for place in places:
        text = os.urandom(100)
        commands += [Copy(at, place - at), Literal(text)]
        hash_copies(hasher, block, at, place)
        hasher.update(text)
        at = place + 100
    commands.append(Copy(at, size - at))
    hash_copies(hasher, block, at, size)
    record = bench.record(b"large", hasher.digest(), size, old)
    encoder = Encoder()
    parts = encoder.record(record) + encoder.data(encode_commands(commands))
    parts += encoder.trailer(Trailer(record.hash, size)) + encoder.finish()
    with measured("200 edits of it, commit"):
        bench.commit(parts)
    with measured("200 edits of it, fetch") as note:
        note(bench.fetch([Want(DEVICE, bench.counter, [old])]))


def hash_copies(hasher: blake3, block: bytes, start: int, end: int) -> None:  # type: ignore[valid-type]
    """Bytes of the large file, which repeats one block."""
    while start < end:
        inside = start % MIB
        taken = min(MIB - inside, end - start)
        hasher.update(block[inside : inside + taken])  # type: ignore[attr-defined]
        start += taken


def main() -> None:
    """Run all of it."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--files", type=int, default=10_000)
    options.add_argument("--size", type=int, default=10_000)
    options.add_argument("--large", type=int, default=1024, help="MiB")
    options.add_argument("--in", dest="directory", default="/dev/shm")
    chosen = options.parse_args()
    gc.freeze()  # as gunicorn's workers do
    gc.set_threshold(100_000, 50, 100)

    def run() -> None:
        with tempfile.TemporaryDirectory(dir=chosen.directory) as directory:
            bench = Bench(Path(directory))
            small_files(bench, chosen.files, chosen.size)
            large_file(bench, chosen.large * MIB)
            bench.site.close()

    # In a thread, as a worker's requests are: memory comes from another arena there, which does
    # not go back to the system after each block, and a commit of 1 GiB costs half as much CPU.
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


if __name__ == "__main__":
    main()
