"""A short run of the killing of sites; the long one is `python tests/soak/sites.py`."""

from __future__ import annotations

import pytest

from soak.sites import soak


@pytest.mark.slow
def test_nothing_is_lost_by_killing_two_of_three_sites() -> None:
    """Any two are killed at random moments; every version that was acknowledged is everywhere."""
    result = soak(4, seed=5)
    assert result.points == 4
    assert result.versions
