"""Disks of sites: full, and with flipped bits."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Spawn
from rig.cluster import Cluster, eventually
from rig.programs import Program
from rig.servers import PASSWORD

MIB = 1 << 20


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A directory on a disk of its own, of 16 MiB."""
    if os.geteuid():
        pytest.skip("mounting needs root")
    place = tmp_path / "b"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no mounts here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_site_with_a_full_disk(small: Path, tmp_path: Path, spawn: Spawn) -> None:
    """It answers reads, says what is wrong, and follows again as soon as there is room.  A device
    that has too much for it goes to the other one, in the same command."""
    with Cluster(tmp_path, 2) as cluster:
        cluster[0].add_user("ada")
        eventually(lambda: cluster[1].login("ada"))
        ada = cluster[0].login("ada")
        ada.put("small", b"it fits")
        cluster.converge(ada.token)
        large = random.Random(1).randbytes(20 * MIB)
        ada.put("large", large)
        ada.put("later", b"behind it")

        def problem() -> str:
            return cluster[1].command("status")

        eventually(lambda: "space" in problem(), problem)
        full = cluster[1].at(ada.token)
        assert full.get("small") == b"it fits"
        assert "large" not in map(bytes.decode, full.tree())
        urls = f"{cluster[1].url},{cluster[0].url}"
        laptop = Program.link(tmp_path / "laptop", urls, "ada", PASSWORD, spawn)
        assert laptop.json("status", code=3)["server"] in cluster[1].url
        for name, size in (("much", 20), ("more", 3), ("most", 3)):
            laptop.write(name, large[: size * MIB] + name.encode())
        laptop.ok("push")
        # What there was room for comes here by way of the full one.
        eventually(lambda: {b"much", b"more", b"most"} <= ada.tree().keys())
        remount = ["mount", "-o", "remount,size=128m", str(small)]
        subprocess.run(remount, check=True)
        cluster.converge(ada.token)
        assert full.get("large") == large
        assert full.get("later") == b"behind it"
        assert cluster[1].following()


def test_a_flipped_bit_stops_nobody(tmp_path: Path) -> None:
    """A content that is damaged at the site that is followed: all else comes."""
    with Cluster(tmp_path, 2) as cluster:
        a, b = cluster
        a.add_user("ada")
        eventually(lambda: b.login("ada"))
        ada = a.login("ada")
        b.stop()
        ada.put("good", b"g" * 5000)
        before = set(_packs(a.data))
        ada.put("bad", b"b" * 5000)
        (pack,) = set(_packs(a.data)) - before
        data = bytearray(pack.read_bytes())
        data[100] ^= 1
        pack.chmod(0o600)
        pack.write_bytes(data)
        ada.put("last", b"l" * 5000)
        b.start()
        cluster.converge(ada.token)
        there = b.at(ada.token)
        assert there.get("good") == b"g" * 5000
        assert there.get("last") == b"l" * 5000


def _packs(data: Path) -> list[Path]:
    return [path for path in (data / "packs").rglob("*") if path.is_file()]
