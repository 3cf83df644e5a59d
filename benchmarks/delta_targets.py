"""What the library is aimed at, and what came out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

Row = Mapping[str, Any]

KEPT, SENT = "dblike, signature kept", "dblike, signature sent"


class Target(NamedTuple):
    """An aim: `value` should be at least, or at most, `limit`.  `remark`: why it is missed."""

    name: str
    limit: float
    value: float
    remark: str = ""
    most: bool = False

    @property
    def met(self) -> bool:
        return self.value <= self.limit if self.most else self.value >= self.limit

    @property
    def aim(self) -> str:
        return f"at {'most' if self.most else 'least'} {self.limit:g}"


_WRITING = (
    "Unmatched data: the whole new file is written again as literals, and hashed by BLAKE3, which "
    "librsync does not do. Of the CPU time of 256 MiB (perf, blocks of 4 KiB, tmpfs) the system's "
    "write takes a half, BLAKE3 an eighth, reading a twelfth, the search a quarter. The search "
    "alone is some forty times as fast as librsync's."
)


def targets(rows: Sequence[Row]) -> Iterator[Target]:
    """All aims, by the results."""
    engines = {(row["corpus"], row["engine"]): row for row in rows if row["kind"] == "engine"}
    engines = {key: row for key, row in engines.items() if not row["failure"]}
    floors = {row["corpus"]: row for row in rows if row["kind"] == "floor"}
    yield from speeds(engines, floors)
    for row in rows:
        if row["kind"] == "kernel":
            speed = row["mib_per_second"]
            ratio = speed["signature"] / speed["xxh128"]
            yield Target("signature: speed in memory over xxh128's", 0.25, ratio)
    yield from sizes(engines)
    for row in rows:
        if row["kind"] == "memory":
            name = f"memory, {row['new'] >> 20:,} MiB: peak over 64 MiB + 32 bytes a block"
            yield Target(name, 1, row["peak"] / row["bound"], most=True)
        if row["kind"] == "growth":
            name = f"time for twice the size, {row['corpus']}"
            yield Target(name, 2.5, row["growth"], most=True)


def speeds(engines: Mapping[tuple[str, str], Row], floors: Mapping[str, Row]) -> Iterator[Target]:
    """Speed over that of a rival on the same pair, by CPU and by wall seconds."""

    def both(
        name: str, least: float, corpus: str, step: str, rival: str, remark: str = ""
    ) -> Iterator[Target]:
        if (corpus, KEPT) not in engines or (corpus, rival) not in engines:
            return
        for kind, words in (("cpu", "CPU"), ("seconds", "wall")):
            mine, theirs = engines[corpus, KEPT][kind], engines[corpus, rival][kind]
            other = theirs.get(step, theirs.get("sender", theirs.get("all")))
            yield Target(f"{name}, {words}", least, other / mine[step], remark)

    for corpus in ("identical", "200 edits"):
        yield from both(
            f"signature, {corpus}: speed over librsync's", 4, corpus, "signature", "librsync"
        )
    for corpus in (
        "identical",
        "200 edits",
        "appended",
        "inserted in front",
        "moved blocks",
        "zeros",
    ):
        yield from both(f"delta, {corpus}: speed over librsync's", 4, corpus, "delta", "librsync")
    name = "delta, unrelated: speed over librsync's"
    yield from both(name, 10, "unrelated", "delta", "librsync", _WRITING)
    name = "delta, unrelated: speed over rsync's sender"
    yield from both(name, 4, "unrelated", "delta", "rsync")
    for corpus in floors:
        if (corpus, KEPT) in engines:
            mine, floor = engines[corpus, KEPT]["cpu"], floors[corpus]["cpu"]
            ratio = floor["xxh128sum"] / mine["signature"]
            yield Target(f"signature, {corpus}: speed over xxh128sum's, CPU", 0.25, ratio)
            ratio = floor["cp"] / mine["patch"]
            yield Target(f"patch, {corpus}: speed over cp's, CPU", 0.5, ratio)


def sizes(engines: Mapping[tuple[str, str], Row]) -> Iterator[Target]:
    """Bytes of signature and delta together, over a rival's."""

    def over(name: str, most: float, corpus: str, mine: str, rival: str) -> Target:
        own, theirs = (sum(engines[corpus, who]["bytes"].values()) for who in (mine, rival))
        return Target(f"bytes, {corpus}: {name}", most, own / theirs, most=True)

    for corpus, engine in engines:
        if engine == "librsync":
            yield over("signature sent, over librsync's", 1, corpus, SENT, engine)
        if engine == "rsync" and " to " in corpus:
            yield over("signature kept, yet counted, over rsync's", 0.6, corpus, KEPT, engine)
