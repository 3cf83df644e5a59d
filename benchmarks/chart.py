"""Bar charts as SVG, drawn without a plotting library so that a benchmark can make its own."""

from __future__ import annotations

import math
from typing import Any
from xml.sax.saxutils import escape

_WIDTH, _LEFT, _BAR, _GAP = 860, 250, 13, 12
_COLOURS = {
    "dblike, signature kept": "#1b6ca8",
    "dblike, signature sent": "#6aa9d8",
    "librsync": "#c0803a",
    "rdiff": "#8a6a4a",
    "rsync": "#7a7a7a",
}


def bars(rows: list[dict[str, Any]]) -> str:
    """Speed of the delta step (rsync: of everything) by corpus and engine, logarithmic."""
    found: dict[str, list[tuple[str, float]]] = {}
    for row in rows:
        if row.get("engine") in _COLOURS and isinstance(row.get("mib_per_second"), dict):
            speeds = row["mib_per_second"]
            value = max(1.0, speeds.get("delta", speeds.get("all", 1)))
            found.setdefault(row["corpus"], []).append((row["engine"], value))
    most = max((value for group in found.values() for _, value in group), default=10)
    scale = (_WIDTH - _LEFT - 90) / math.log10(most)
    parts, y = [_legend()], 46
    for corpus, group in found.items():
        parts.append(f'<text x="10" y="{y + 11}">{escape(corpus)}</text>')
        for engine, value in group:
            width = max(1.0, scale * math.log10(value))
            box = f'x="{_LEFT}" y="{y}" width="{width:.0f}" height="{_BAR - 2}"'
            parts.append(f'<rect {box} fill="{_COLOURS[engine]}"/>')
            parts.append(f'<text x="{_LEFT + width + 5:.0f}" y="{y + 10}">{value:,.0f}</text>')
            y += _BAR
        y += _GAP
    style = "<style>text{font:11px sans-serif;fill:#222}</style>"
    style += '<rect width="100%" height="100%" fill="#fff"/>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}">{style}'
    return "\n".join([head, *parts, "</svg>\n"])


def _legend() -> str:
    parts = ['<text x="10" y="16">delta, MiB/s, logarithmic; longer is better</text>']
    for place, (engine, colour) in enumerate(_COLOURS.items()):
        x = 10 + 165 * place
        parts.append(f'<rect x="{x}" y="24" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{x + 14}" y="33">{escape(engine)}</text>')
    return "\n".join(parts)
