"""A picture of runs: a line an arm, a dot a run, the mean with its 95% interval. SVG, the same bytes for the same runs on every machine."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from srt_masks.training.intervals import Interval

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # of Okabe and Ito: told apart by all eyes
LEFT, RIGHT, TOP, ROW, BOTTOM = 300, 30, 46, 30, 46
WIDTH = 860


def picture(title: str, axis: str, arms: Mapping[str, Sequence[float]], *, log: bool = False, zero: bool = True, mark: tuple[float, str] | None = None) -> str:
    """`arms` by what they are, in words: the figures of their runs. `axis` says what is counted; it begins at 0, or without `zero` near the least, or
    with `log`, for which all figures are more than 0, at a power of ten. `mark` is a number worth a line, and what it is."""
    means = {name: Interval.of(list(own)) for name, own in arms.items()}
    every = [value for own in arms.values() for value in own] + ([] if mark is None else [mark[0]])
    if not log:
        every += [end for found in means.values() for end in (found.mean + (found.half or 0.0), max(0.0, found.mean - (found.half or 0.0)))]
    ticks = _powers(min(every), max(every)) if log else _steps(min(every) if not zero else min(0.0, *every), max(every))
    bottom = TOP + ROW * len(arms)

    def x(value: float) -> float:
        low, high, here = (math.log10(v) for v in (ticks[0], ticks[-1], value)) if log else (ticks[0], ticks[-1], value)
        return LEFT + (WIDTH - LEFT - RIGHT) * min(1.0, max(0.0, (here - low) / (high - low)))

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + BOTTOM}" font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{bottom + BOTTOM}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="22" font-size="15" font-weight="bold">{escape(title)}</text>',
    ]
    for tick in ticks:
        parts.append(f'<line x1="{x(tick):.1f}" y1="{TOP - 8}" x2="{x(tick):.1f}" y2="{bottom}" stroke="#dddddd"/>')
        parts.append(f'<text x="{x(tick):.1f}" y="{bottom + 16}" text-anchor="middle" fill="#555555">{tick:g}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2:.1f}" y="{bottom + 36}" text-anchor="middle">{escape(axis)}</text>')
    if mark is not None:
        place, end = x(mark[0]), mark[0] > (ticks[0] + ticks[-1]) / 2
        parts.append(f'<line x1="{place:.1f}" y1="{TOP - 8}" x2="{place:.1f}" y2="{bottom}" stroke="#555555" stroke-dasharray="4 3"/>')
        parts.append(
            f'<text x="{place + (-4 if end else 4):.1f}" y="{TOP - 10}" text-anchor="{"end" if end else "start"}" fill="#555555">{escape(mark[1])}</text>'
        )
    for number, (name, own) in enumerate(arms.items()):
        colour, y, found = COLOURS[number % len(COLOURS)], TOP + ROW * (number + 0.5), means[name]
        parts.append(f'<text x="{LEFT - 12}" y="{y + 4:.1f}" text-anchor="end">{escape(name)}</text>')
        if found.half is not None:
            low, high = max(found.mean - found.half, ticks[0]), found.mean + found.half
            parts.append(f'<line x1="{x(low):.1f}" y1="{y:.1f}" x2="{x(high):.1f}" y2="{y:.1f}" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<line x1="{x(found.mean):.1f}" y1="{y - 8:.1f}" x2="{x(found.mean):.1f}" y2="{y + 8:.1f}" stroke="{colour}" stroke-width="3"/>')
        parts.extend(f'<circle cx="{x(value):.1f}" cy="{y:.1f}" r="4" fill="{colour}" fill-opacity="0.45"/>' for value in own)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _steps(low: float, high: float) -> list[float]:
    """From at most `low` to at least `high`, by 1, 2 or 5 times a power of ten; four to nine of them."""
    power = 10.0 ** math.floor(math.log10((high - low) or 1.0))
    step = next(s for s in (power / 10 * m for m in (2, 5, 10, 20, 50)) if (high - low) / s <= 7)
    return [round(n * step, 10) for n in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _powers(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    return [10.0**n for n in range(first, max(last, first + 1) + 1)]
