"""Small SVG plots, written by hand: readable on a light page and on a dark one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 210, 40, 52

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #333 }
.title { font-weight: 600; font-size: 14px }
.axis { stroke: #888; stroke-width: 1 }
.grid { stroke: #888; stroke-opacity: .25 }
.small { font-size: 11px }
@media (prefers-color-scheme: dark) { text { fill: #ddd } }
"""


@dataclass(frozen=True)
class Series:
    """Points joined by a line, or marks that stand alone.

    Attributes:
        name: What the legend says.
        colour: Of all of it.
        points: Pairs of x and y.
        joined: Whether a line joins them.
    """

    name: str
    colour: str
    points: Sequence[tuple[float, float]]
    joined: bool = True


def scatter(title: str, x_title: str, y_title: str, series: Sequence[Series], y_low: float) -> str:
    """Draw y from a lower bound to 1 over a logarithmic x."""
    xs = [x for one in series for x, _ in one.points]
    low, high = math.log10(min(xs)) - 0.1, math.log10(max(xs)) + 0.1

    def at(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (math.log10(x) - low) / (high - low) * (WIDTH - LEFT - RIGHT)
        return across, _height(y, y_low)

    parts = _frame(title, y_title, y_low)
    for power in range(math.floor(low), math.ceil(high) + 1):
        for step in (1, 2, 5):
            value = step * 10.0**power
            if low <= math.log10(value) <= high:
                across = at(value, y_low)[0]
                parts.append(_line(across, TOP, across, HEIGHT - BOTTOM, "grid"))
                parts.append(_text(across, HEIGHT - BOTTOM + 18, f"{value:g}", "middle", "small"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x_title, "middle"))
    for number, one in enumerate(series):
        places = [at(x, max(y, y_low)) for x, y in one.points]
        if one.joined:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{one.colour}" stroke-width="2"/>')
        shape = 'r="3"' if one.joined else 'r="7" fill-opacity=".75" stroke="#fff"'
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" fill="{one.colour}" {shape}/>' for x, y in places]
        parts += _legend(number, one.name, one.colour)
    return _document(parts)


def bars(title: str, y_title: str, groups: Sequence[str], series: Sequence[Series]) -> str:
    """Draw a group of bars, from 0 to 1, for each name; the x of a point is the number of its group."""
    span = (WIDTH - LEFT - RIGHT) / len(groups)
    thick = span * 0.8 / len(series)
    parts = _frame(title, y_title, 0.0)
    for number, name in enumerate(groups):
        parts += [
            _text(LEFT + span * (number + 0.5), HEIGHT - BOTTOM + 18 + 15 * line, part, "middle", "small")
            for line, part in enumerate(name.split(", "))
        ]
    for number, one in enumerate(series):
        for group, value in one.points:
            across, top = LEFT + span * (group + 0.1) + thick * number, _height(value, 0.0)
            size = f'width="{thick - 1:.1f}" height="{HEIGHT - BOTTOM - top:.1f}"'
            parts.append(f'<rect x="{across:.1f}" y="{top:.1f}" {size} fill="{one.colour}"/>')
        parts += _legend(number, one.name, one.colour)
    return _document(parts)


def _height(y: float, low: float) -> float:
    return HEIGHT - BOTTOM - (y - low) / (1 - low) * (HEIGHT - TOP - BOTTOM)


def _frame(title: str, y_title: str, low: float) -> list[str]:
    parts = [_text(LEFT, 22, title, "start", "title")]
    steps = 5
    for step in range(steps + 1):
        value = low + (1 - low) * step / steps
        down = _height(value, low)
        parts.append(_line(LEFT, down, WIDTH - RIGHT, down, "grid"))
        parts.append(_text(LEFT - 8, down + 4, f"{value:.2f}", "end", "small"))
    parts.append(_line(LEFT, TOP, LEFT, HEIGHT - BOTTOM, "axis"))
    parts.append(_line(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, "axis"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(f'<text transform="translate(18 {middle}) rotate(-90)" text-anchor="middle">{escape(y_title)}</text>')
    return parts


def _legend(number: int, name: str, colour: str) -> list[str]:
    down = TOP + 10 + number * 20
    mark = f'<rect x="{WIDTH - RIGHT + 16}" y="{down - 9}" width="10" height="10" fill="{colour}"/>'
    return [mark, _text(WIDTH - RIGHT + 32, down, name, "start", "small")]


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}>{escape(text)}</text>'


def _document(parts: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">'
    return "\n".join([head, f"<style>{STYLE}</style>", *parts, "</svg>\n"])
