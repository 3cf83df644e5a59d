"""The dashboard shows what the server really counts."""

from __future__ import annotations

import json
import re
from pathlib import Path

from dblike_srv import metrics, status

DASHBOARD = Path(__file__).parents[2] / "ansible" / "grafana" / "dblike.json"


def test_every_metric_of_the_dashboard_is_one_of_ours() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    used = {
        name
        for panel in panels
        for target in panel["targets"]
        for name in re.findall(r"dblike_\w+", target["expr"])
    }
    source = Path(metrics.__file__).read_text() + Path(status.__file__).read_text()
    source += (Path(metrics.__file__).parent / "app.py").read_text()
    assert len(used) > 8
    assert {name for name in used if name not in source} == set()
