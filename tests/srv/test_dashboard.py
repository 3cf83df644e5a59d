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


def test_a_counter_is_exact_however_large(tmp_path: Path) -> None:
    """Else a rate is nothing, and then too much: of 1 TB six digits are steps of a megabyte."""
    counted = metrics.Metrics(tmp_path, {"dblike_sockets": lambda: 1_234_567})
    counted.count("dblike_content_bytes_total", 1_234_567_890_123)
    counted.count("dblike_content_bytes_total", 1)
    counted.request("/healthz", "GET", 200, 0.125)
    counted.save(2.0)
    lines = counted.render().splitlines()
    assert "dblike_content_bytes_total 1234567890124" in lines
    assert "dblike_sockets 1234567" in lines
    assert 'dblike_request_seconds_sum{endpoint="/healthz",method="GET"} 0.125' in lines
    assert 'dblike_requests_total{endpoint="/healthz",method="GET",status="200"} 1' in lines
