"""A short run of the killing; the long one is `python tests/soak/kill.py`."""

from __future__ import annotations

import pytest

from soak.kill import soak


@pytest.mark.slow
def test_nothing_is_lost_by_killing() -> None:
    """Client and server are killed at random moments; everything written arrives everywhere."""
    assert sum(soak(8, seed=3).values()) == 8
