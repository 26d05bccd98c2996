"""What was measured, as pictures: of one run by step, and of several side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..diagnostics import InputError
from .outcomes import Comparison
from .task import Measure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # of Okabe and Ito: told apart by all eyes


def draw_loss(history: Sequence[tuple[int, float]], held_out: float, measure: Measure, name: str, path: Path) -> None:
    """(step, what was measured) of every step, and where the run ended on held-out data, as a PNG. Raises InputError where it cannot be written."""
    figure, axes = _figure((7, 4))
    steps, found = [h[0] for h in history], [h[1] for h in history]
    axes.plot(steps, found, color="#8fb8de", linewidth=1, label="training, each step")
    axes.plot(steps, _smooth(found), color="#1f5f99", linewidth=2, label="training, smoothed")
    axes.axhline(held_out, color="#c0504d", linestyle="--", label=f"held out: {held_out:.3f}")
    axes.set(
        xlabel="step",
        ylabel=f"{measure.name}, {'last row of each word' if measure.part is None else measure.part}",
        title=name if len(name) < 70 else name[:67] + "...",
    )
    axes.legend()
    _save(figure, (axes,), path)


def _smooth(values: Sequence[float], keep: float = 0.95) -> list[float]:
    smooth, total, weight = [], 0.0, 0.0
    for value in values:
        total, weight = keep * total + (1 - keep) * value, keep * weight + 1 - keep
        smooth.append(total / weight)
    return smooth


def draw_comparison(found: Comparison, curves: Mapping[tuple[str, int], Sequence[tuple[int, float]]], path: Path) -> None:
    """What was measured by step, the mean over seeds with the least and the most, and where each run ended on held-out data, as a PNG. `curves` are (step,
    what was measured) of every run, by name and seed. Raises InputError where it cannot be written."""
    figure, (left, right) = _figure((10, 4.2), 2)
    for place, name in enumerate(found.names):
        colour = COLOURS[place % len(COLOURS)]
        own = [curves[name, o.seed] for o in found.of(name)]
        steps = [s for s, _ in own[0]]
        smooth = [_smooth([b for _, b in curve]) for curve in own]
        by_step = list(zip(*smooth, strict=True))
        left.plot(steps, [sum(b) / len(b) for b in by_step], color=colour, linewidth=2, label=name)
        left.fill_between(steps, [min(b) for b in by_step], [max(b) for b in by_step], color=colour, alpha=0.2, linewidth=0)
        ends, held_out = [o.held_out for o in found.of(name)], found.held_out(name)
        right.scatter([place] * len(ends), ends, color=colour, s=22, zorder=3)
        right.errorbar([place + 0.2], [held_out.mean], yerr=[held_out.half or 0.0], color=colour, capsize=4, marker="_", markersize=12)
    for a, b in zip(found.names, found.names[1:], strict=False):
        for one, other in zip(found.of(a), found.of(b), strict=True):
            places = [found.names.index(a), found.names.index(b)]
            right.plot(places, [one.held_out, other.held_out], color="#999999", linewidth=0.8, zorder=1)
    left.set(xlabel="step", ylabel=f"{found.measure.name} in training, smoothed", title="mean over seeds, least and most")
    left.legend()
    right.set(
        ylabel=f"held-out {found.measure.name}", title="each seed, and the mean with its 95% interval", xticks=range(len(found.names)), xticklabels=found.names
    )
    _save(figure, (left, right), path)


def _figure(size: tuple[float, float], columns: int = 1) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns)


def _save(figure: Any, axes: Sequence[Any], path: Path) -> None:
    for each in axes:
        each.grid(alpha=0.3)
    try:
        figure.savefig(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None
