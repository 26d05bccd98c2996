"""Pictures as PNG, through matplotlib's canvas without a window: for places that take no SVG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from .picture import Mark, Picture, legend
from .svg import COLOURS, FAINT, INK

INCHES = 0.2  # of a cell
PER_ROW = 3  # pictures side by side


def png(pictures: Sequence[Picture]) -> bytes:
    """Every picture, on white, under one title and over one legend."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    columns = min(len(pictures), PER_ROW)
    rows = -(-len(pictures) // columns)
    side = max(2.5, INCHES * min(60, max(len(x) for p in pictures for x in (p.rows, p.columns))))
    figure = Figure(figsize=(columns * (side + 1), rows * (side + 1) + 1), dpi=150, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(_text(pictures[0].heading if len(pictures) == 1 else pictures[0].title), fontsize=9, parse_math=False)
    for axes, p in zip(figure.subplots(rows, columns, squeeze=False).flat, pictures, strict=False):
        _draw(axes, p, caption=p.which if len(pictures) > 1 else "")
    for axes in figure.axes[len(pictures) :]:
        axes.set_axis_off()
    marks = [Patch(facecolor=_rgba(m), edgecolor=INK, linewidth=0.3, label=m.words) for m in legend(pictures)]
    figure.legend(handles=marks, loc="outside lower center", ncols=len(marks), fontsize=7, frameon=False)
    out = io.BytesIO()
    canvas.print_png(out)
    return out.getvalue()


def _draw(axes: Any, p: Picture, caption: str) -> None:
    axes.imshow([[_rgba(m) for m in row] for row in p.cells] or [[(1, 1, 1, 0)]], interpolation="nearest", aspect="equal")
    axes.set_title(_text(caption), fontsize=8, parse_math=False)
    axes.xaxis.tick_top()
    for axis, names in ((axes.xaxis, p.columns), (axes.yaxis, p.rows)):
        every = range(0, len(names), -(-len(names) // 60) or 1)
        axis.set_ticks(list(every), [_text(names[i]) for i in every], fontsize=5, family="monospace", parse_math=False)
        axis.set_ticks([i - 0.5 for i in range(1, len(names))], minor=True)
        axis.set_tick_params(which="minor", length=0)
    axes.tick_params(axis="x", rotation=90)
    axes.grid(which="minor", color="white", linewidth=0.4)
    for edge in axes.spines.values():
        edge.set_visible(False)


def _rgba(mark: Mark) -> tuple[float, float, float, float]:
    red, green, blue = (int(COLOURS[mark][i : i + 2], 16) / 255 for i in (1, 3, 5))
    return red, green, blue, FAINT if mark is Mark.NOTHING else 1.0


def _text(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
