"""Who of several hosts on one database does what only one of them may do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dblike_srv.config import decode_config
from dblike_srv.leases import take_lease
from dblike_srv.replication.followed import note, taken_in
from dblike_srv.replication.supervisor import Supervisor
from dblike_srv.site import Site, open_site
from rig.core_site import StillClock


def open_in(data: Path, clock: StillClock, **config: Any) -> Site:
    values = {"data": str(data), "cluster_key": "k" * 32, **config}
    return open_site(decode_config(values), clock=clock)


def host_of(site: Site) -> bytes:
    """As a process finds it that starts."""
    with (Path(site.config.data) / "following").open("a+b", buffering=0) as turn:
        return Supervisor(site)._host(turn)


def test_a_lease_is_its_hosts_through_all_its_processes(tmp_path: Path) -> None:
    """One that was killed is followed by another one, which waits for no lease to end."""
    clock = StillClock()
    site, other = open_in(tmp_path / "here", clock), open_in(tmp_path / "there", clock)
    host = host_of(site)
    assert host_of(site) == host
    assert host_of(other) != host
    assert take_lease(site, "following", host, 15_000)
    assert take_lease(site, "following", host_of(site), 15_000)
    assert not take_lease(site, "following", host_of(other), 15_000)
    clock.advance(15_000)
    assert take_lease(site, "following", host_of(other), 15_000)
    assert not take_lease(site, "following", host, 15_000)
    site.close()
    other.close()


def test_hosts_whose_clocks_differ(tmp_path: Path, mariadb: str) -> None:
    """One of them follows all the same, and the other one forgets nothing of whom only that one's
    config names."""
    one, two = StillClock(), StillClock()
    two.advance(16_000)
    url = "https://three.example"
    here = open_in(tmp_path / "here", one, database=mariadb, peers=[{"url": url}])
    other = open_in(tmp_path / "there", two, database=mariadb)
    for _ in range(3):
        assert take_lease(here, "following", host_of(here), 15_000)
        assert not take_lease(other, "following", host_of(other), 15_000)
    note(here, url, stamp=12345)
    supervisor = Supervisor(other)
    with (tmp_path / "there" / "following").open("a+b", buffering=0) as turn:
        assert supervisor._is_needed()
        assert not supervisor._lease(turn)
    assert taken_in(here, url) == 12345
    here.close()
    other.close()


def test_a_mark_that_can_not_be_written_keeps_nobody_from_following(tmp_path: Path) -> None:
    """As on a full disk: this process is the same to the end, and the next one another."""
    site = open_in(tmp_path, StillClock())
    (tmp_path / "following").touch()
    with (tmp_path / "following").open("rb", buffering=0) as turn:
        supervisor = Supervisor(site)
        host = supervisor._host(turn)
        assert supervisor._host(turn) == host
        assert Supervisor(site)._host(turn) != host
    site.close()


def test_half_a_mark_is_none(tmp_path: Path) -> None:
    """A power cut may leave it."""
    site = open_in(tmp_path, StillClock())
    (tmp_path / "following").write_bytes(b"half")
    host = host_of(site)
    assert host_of(site) == host
    assert len((tmp_path / "following").read_bytes()) == 16
    site.close()
