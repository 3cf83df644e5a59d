"""Packets that are lost without a word: no connection ends, nothing is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from rig.cluster import Cluster, User, eventually
from rig.networks import Network, network


@pytest.fixture
def parted(tmp_path: Path) -> Iterator[tuple[Cluster, Network, User]]:
    """Three sites, each in a namespace of its own, and the user ada."""
    if os.geteuid():
        pytest.skip("namespaces need root")
    try:
        with network(3) as net, Cluster(tmp_path, network=net) as cluster:
            cluster[0].add_user("ada")
            for site in cluster:
                eventually(lambda site=site: site.login("ada").token)
            yield cluster, net, cluster[0].login("ada")
    except OSError as error:
        pytest.skip(f"no namespaces here: {error}")


def test_split_brain_and_one_way(parted: tuple[Cluster, Network, User]) -> None:
    """Writes on both sides of a cut; then a cut in one direction, around which a way is left."""
    cluster, net, ada = parted
    far = cluster[2].at(ada.token)
    ada.put("both", b"before")
    cluster.converge(ada.token)
    for near in (0, 1):
        net.lose(2, near)
        net.lose(near, 2)
    ada.put("both", b"on the one side")
    far.put("both", b"on the other side")
    far.put("other", b"side")
    cluster.converge(ada.token, cluster.sites[:2])
    assert b"other" not in ada.tree()
    for near in (0, 1):
        net.heal(2, near)
        net.heal(near, 2)
    cluster.converge(ada.token)
    copies = [path for path in far.tree() if path.startswith(b"both")]
    assert len(copies) == 2
    net.lose(0, 2)  # what the first one says does not come; the second one passes it on
    ada.put("around", b"the cut")
    eventually(lambda: far.get("around"))
    net.heal(0, 2)
    far.put("and", b"back")
    cluster.converge(ada.token)
