"""A short run of the model; the long one is `python tests/model/run.py`."""

from __future__ import annotations

import pytest

from model.run import run_world


@pytest.mark.parametrize("seed", range(8))
def test_a_world_of_one_site_keeps_every_promise(seed: int) -> None:
    """Convergence, no loss and a fixed point, whatever goes wrong on the way."""
    run_world(seed, 150, devices=2 + seed % 3, sites=1)


@pytest.mark.parametrize("seed", range(12))
def test_a_world_of_three_sites_keeps_every_promise(seed: int) -> None:
    """The same, and every site the same, wherever the devices went."""
    run_world(seed, 150)


def test_the_same_seed_does_the_same() -> None:
    """A failure can be replayed."""
    assert run_world(99, 120) == run_world(99, 120)
