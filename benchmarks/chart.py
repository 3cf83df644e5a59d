"""Charts as SVG, drawn without a plotting library so that a benchmark can make its own."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

_WIDTH, _LEFT, _BAR, _GAP = 860, 230, 13, 12
_HEIGHT, _MARGIN = 420, 60
_PALETTE = ("#1b6ca8", "#6aa9d8", "#c0803a", "#8a6a4a", "#7a7a7a", "#4f9d69", "#a05195", "#d45087")


def bars(title: str, groups: Mapping[str, Mapping[str, float]], floors: Mapping[str, float]) -> str:
    """For each group a bar of each member, logarithmic; a line through a group is its floor."""
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    colours = dict(zip(names, _PALETTE, strict=False))
    values = [value for group in groups.values() for value in group.values()]
    least = 10 ** math.floor(math.log10(min(values, default=1)))
    most = max([*values, *floors.values(), 10 * least])
    scale = (_WIDTH - _LEFT - 90) / math.log10(most / least)
    parts, y = [_text(10, 18, title), *_legend(colours)], 66
    for group, members in groups.items():
        parts.append(_text(10, y + 10, group))
        top = y
        for name, value in members.items():
            width = max(1.0, scale * math.log10(value / least))
            box = f'x="{_LEFT}" y="{y}" width="{width:.0f}" height="{_BAR - 2}"'
            parts.append(f'<rect {box} fill="{colours[name]}"/>')
            parts.append(_text(_LEFT + width + 5, y + 9, short(value)))
            y += _BAR
        if group in floors:
            x = _LEFT + scale * math.log10(floors[group] / least)
            parts.append(_line(x, top - 2, x, y, "#222"))
        y += _GAP
    return _svg(parts, y)


class Curve(NamedTuple):
    """Points of a plot, from left to right; `marked` are drawn large."""

    name: str
    points: Sequence[tuple[float, float]]
    marked: Sequence[float] = ()


def curves(title: str, across: str, up: str, drawn: Sequence[Curve]) -> str:
    """A plot, logarithmic both ways, with powers of two across and of ten upwards."""
    every = [point for curve in drawn for point in curve.points]
    left, right = (pick(math.log2(x) for x, _ in every) for pick in (min, max))
    low, high = (pick(math.log10(max(1, y)) for _, y in every) for pick in (min, max))

    def place(x: float, y: float) -> tuple[float, float]:
        wide = (math.log2(x) - left) / max(1e-9, right - left)
        tall = (math.log10(max(1, y)) - low) / max(1e-9, high - low)
        room = _HEIGHT - 2 * _MARGIN
        return _MARGIN + wide * (_WIDTH - 2 * _MARGIN), _HEIGHT - _MARGIN - tall * room

    parts = [_text(10, 18, title), _text(_WIDTH / 2, _HEIGHT - 12, across), _text(10, 56, up)]
    for log in range(math.ceil(left), math.floor(right) + 1):
        x, _ = place(2.0**log, 10**low)
        parts.append(_line(x, _MARGIN, x, _HEIGHT - _MARGIN, "#ddd"))
        parts.append(_text(x - 12, _HEIGHT - _MARGIN + 16, f"{2**log:,}"))
    for step in range(math.floor(low), math.ceil(high) + 1):
        for value in (10**step, 2 * 10**step, 5 * 10**step):
            if low <= math.log10(value) <= high:
                _, y = place(2**left, value)
                parts.append(_line(_MARGIN, y, _WIDTH - _MARGIN, y, "#ddd"))
                parts.append(_text(8, y + 4, short(value)))
    colours = dict(zip((curve.name for curve in drawn), _PALETTE, strict=False))
    for curve in drawn:
        at = [place(*point) for point in curve.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in at)
        colour = colours[curve.name]
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for (value, _), (x, y) in zip(curve.points, at, strict=True):
            radius = 6 if value in curve.marked else 2
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}"/>')
    return _svg([*parts, *_legend(colours, 26)], _HEIGHT)


def short(value: float) -> str:
    """A number in a few characters."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= limit:
            scaled = value / (1e3 if unit == "k" else limit)
            return f"{scaled:.3g}{unit}"
    return f"{value:,.3g}" if value < 1000 else f"{value:,.0f}"


def _svg(parts: Iterable[str], height: float) -> str:
    style = "<style>text{font:11px sans-serif;fill:#222}</style>"
    style += '<rect width="100%" height="100%" fill="#fff"/>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:.0f}">{style}'
    return "\n".join([head, *parts, "</svg>\n"])


def _text(x: float, y: float, words: str) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}">{escape(words)}</text>'


def _line(x: float, y: float, to_x: float, to_y: float, colour: str) -> str:
    ends = f'x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}"'
    return f'<line {ends} stroke="{colour}"/>'


def _legend(colours: Mapping[str, str], y: int = 28) -> list[str]:
    parts = []
    for place, (name, colour) in enumerate(colours.items()):
        x, top = 10 + 210 * (place % 4), y + 15 * (place // 4)
        parts.append(f'<rect x="{x}" y="{top}" width="10" height="10" fill="{colour}"/>')
        parts.append(_text(x + 14, top + 9, name))
    return parts
