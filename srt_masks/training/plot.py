"""Bits per byte by step, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..diagnostics import InputError


def draw_loss(history: Sequence[tuple[int, float]], held_out: float, name: str, path: Path) -> None:
    """(step, bits per byte) of every step, and where the held-out text ended, as a PNG. Raises InputError where it cannot be written."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    steps, bits = [h[0] for h in history], [h[1] for h in history]
    axes.plot(steps, bits, color="#8fb8de", linewidth=1, label="training, each step")
    axes.plot(steps, _smooth(bits), color="#1f5f99", linewidth=2, label="training, smoothed")
    axes.axhline(held_out, color="#c0504d", linestyle="--", label=f"held out: {held_out:.3f}")
    axes.set(xlabel="step", ylabel="bits per byte, last row of each word", title=name if len(name) < 70 else name[:67] + "...")
    axes.legend()
    axes.grid(alpha=0.3)
    try:
        figure.savefig(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None


def _smooth(values: Sequence[float], keep: float = 0.95) -> list[float]:
    smooth, total, weight = [], 0.0, 0.0
    for value in values:
        total, weight = keep * total + (1 - keep) * value, keep * weight + 1 - keep
        smooth.append(total / weight)
    return smooth
