"""A short run of the power cuts; the long one is `python tests/soak/power.py`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rig.disk import Disk
from soak.power import soak


@pytest.mark.slow
def test_nothing_is_lost_by_power_cuts(tmp_path: Path) -> None:
    """What was acknowledged is there, and nobody takes what a disk lost for an edit or a delete."""
    if os.geteuid():
        pytest.skip("disks of their own need root")
    probe = Disk(tmp_path, "probe", megabytes=16)
    try:
        probe.open()
    except OSError as error:
        pytest.skip(f"no disks of their own here: {error}")
    finally:
        probe.close()
    assert sum(soak(4, seed=2).values()) == 4
