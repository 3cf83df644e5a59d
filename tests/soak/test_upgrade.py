"""A short upgrade; the long one, also from older commits, is `python tests/soak/upgrade.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from rig.releases import next_release
from soak.upgrade import soak


@pytest.mark.slow
def test_the_next_release_comes_while_this_one_goes_on(tmp_path: Path, mariadb: str) -> None:
    """It migrates the database under the hosts of this one, and serves beside them: writers see no
    error, and a host of this release starts again on the newer database."""
    assert soak(tmp_path, mariadb, None, next_release(tmp_path / "next"), short=True)
