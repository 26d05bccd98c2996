"""Training on bytes: a progress bar, a log in JSON lines, a checkpoint that is never half written, a plot of the loss."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..diagnostics import InputError
from ..spec import Spec
from .builder import build_model
from .checkpoint import save_model
from .data import Corpus, corpus
from .transformer import SpecTransformer

BITS = 1 / math.log(2)  # bits in a nat
MOST_BYTES = 2**33  # parameters, gradients and the optimiser's state


@dataclass(frozen=True, slots=True)
class Recipe:
    """A training run. Sizes of the model, of a batch (`batch` windows of `words` bytes), and of the run."""

    dim: int = 128
    depth: int = 3
    heads: int = 4
    words: int = 64
    batch: int = 8
    steps: int = 1300
    learning_rate: float = 3e-3
    warm_up: int = 40
    seed: int = 0
    save_every: int = 100
    max_seconds: float | None = None  # stop early, with what was learnt so far


@dataclass(frozen=True, slots=True)
class Result:
    model: SpecTransformer
    corpus: Corpus
    held_out_bits: float  # bits per byte of the last predicting row
    steps: int
    words: int  # bytes in a training sequence
    seconds: float
    checkpoint: Path
    log: Path
    plot: Path


def train(spec: Spec, recipe: Recipe, out: str | Path, files: Sequence[str | Path] = (), quiet: bool = False) -> Result:
    """Train a transformer built from a spec on bytes, and write checkpoint, log and plot into the folder `out`.

    Raises InputError for data that cannot be read, a folder that cannot be written, or sizes that do not fit. Nothing is written
    before the spec, the data and the sizes have been tried. On Ctrl-C it raises KeyboardInterrupt; the last checkpoint is whole.
    """
    _check_recipe(recipe)
    data = corpus(files, recipe.words)
    torch.manual_seed(recipe.seed)
    model = build_model(spec, dim=recipe.dim, depth=recipe.depth, heads=recipe.heads, num_tokens=256, max_positions=max(2048, recipe.words))
    # One pass before anything is written: a spec that cannot train must not cost an older checkpoint.
    with torch.no_grad():
        model(data.train[None, : recipe.words].long(), return_loss=True)
    out = _folder(out)
    checkpoint, log, plot = out / "model.safetensors", out / "log.jsonl", out / "loss.png"
    if plot.is_dir() or checkpoint.is_dir():
        raise InputError(f"cannot write {plot if plot.is_dir() else checkpoint}: it is a folder")
    begin = time.perf_counter()
    with _open(log) as lines:
        _write(lines, _header(spec, recipe, data, model))
        try:
            steps, history = _loop(model, data, recipe, lines, checkpoint, quiet)
        except KeyboardInterrupt:
            _write(lines, {"event": "interrupted", "checkpoint": str(checkpoint)})
            raise
        save_model(model, checkpoint)
        bits = held_out_bits(model, data, recipe.words)
        seconds = time.perf_counter() - begin
        _write(lines, {"event": "end", "steps": steps, "held_out_bits_per_byte": bits, "seconds": seconds})
    draw_loss(history, bits, data.name, plot)
    return Result(model, data, bits, steps, recipe.words, seconds, checkpoint, log, plot)


def _check_recipe(recipe: Recipe) -> None:
    for name, least in (("words", 2), ("batch", 1), ("steps", 1), ("save_every", 1), ("dim", 1), ("depth", 1), ("heads", 1)):
        if getattr(recipe, name) < least:
            raise InputError(f"{name} is {least} or more; got {getattr(recipe, name)}")
    if not 0 < recipe.learning_rate < 1:
        raise InputError(f"the learning rate lies between 0 and 1; got {recipe.learning_rate}")
    if recipe.max_seconds is not None and not recipe.max_seconds > 0:
        raise InputError(f"max_seconds is more than 0; got {recipe.max_seconds}")
    if not 0 <= recipe.seed < 2**63:
        raise InputError(f"a seed is from 0 to 2**63 - 1; got {recipe.seed}")
    parameters = 12 * recipe.depth * recipe.dim**2 + recipe.dim * (recipe.words + 2048 + 512)
    if 16 * parameters > MOST_BYTES:
        raise InputError(f"dim {recipe.dim} and depth {recipe.depth} make about {parameters:,} parameters; this trainer holds {MOST_BYTES // 16:,} at most")
    if recipe.batch * recipe.words * recipe.dim * recipe.depth * 64 > 16 * MOST_BYTES:
        raise InputError(f"a batch of {recipe.batch} sequences of {recipe.words} is too large for this trainer: give a smaller --batch or --words")


def _loop(model: SpecTransformer, data: Corpus, recipe: Recipe, lines: Any, checkpoint: Path, quiet: bool) -> tuple[int, list[tuple[int, float, float]]]:
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    generator = torch.Generator().manual_seed(recipe.seed)
    history: list[tuple[int, float, float]] = []
    begin = time.perf_counter()
    step = 0
    with tqdm(total=recipe.steps, desc="training", unit="step", disable=quiet, file=sys.stderr, dynamic_ncols=True) as bar:
        for step in range(1, recipe.steps + 1):
            for group in optimiser.param_groups:
                group["lr"] = recipe.learning_rate * _schedule(step, recipe)
            x = data.batch(recipe.batch, recipe.words, generator)
            parts = model(x, return_parts=True)
            optimiser.zero_grad(set_to_none=True)
            parts.loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            loss, bits = parts.loss.item(), parts.last.item() * BITS
            if not math.isfinite(loss):
                raise InputError(f"the loss became {loss} at step {step}: try a smaller learning rate than {recipe.learning_rate}")
            history.append((step, loss, bits))
            seconds = time.perf_counter() - begin
            speed = step * recipe.batch * recipe.words / seconds
            _write(lines, {"step": step, "loss": loss, "bits_per_byte": bits, "tokens_per_second": speed, "seconds": seconds})
            bar.set_postfix_str(f"loss {loss:.3f}, {bits:.3f} bits/byte, {speed:,.0f} tokens/s")
            bar.update()
            if step == 1 or step % recipe.save_every == 0:
                save_model(model, checkpoint)
            if recipe.max_seconds is not None and seconds > recipe.max_seconds:
                break
    return step, history


def _schedule(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine down to a tenth."""
    warm = min(recipe.warm_up, max(1, recipe.steps // 10))
    if step < warm:
        return step / warm
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - warm) / max(1, recipe.steps - warm)))


@torch.no_grad()
def held_out_bits(model: SpecTransformer, data: Corpus, words: int, most: int = 64) -> float:
    """Bits per byte on held-out windows: of the last row that predicts each byte, never the mean over rows."""
    windows = data.held_out_windows(words, most)
    model.eval()
    total = 0.0
    for batch in windows.split(16):
        total += model(batch, return_parts=True).last.item() * len(batch)
    model.train()
    return total / len(windows) * BITS


def draw_loss(history: list[tuple[int, float, float]], held_out: float, name: str, path: Path) -> None:
    """Bits per byte by step, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    steps = [h[0] for h in history]
    axes.plot(steps, [h[2] for h in history], color="#8fb8de", linewidth=1, label="training, each step")
    axes.plot(steps, _smooth([h[2] for h in history]), color="#1f5f99", linewidth=2, label="training, smoothed")
    axes.axhline(held_out, color="#c0504d", linestyle="--", label=f"held out: {held_out:.3f}")
    axes.set(xlabel="step", ylabel="bits per byte, last row of each word", title=name if len(name) < 70 else name[:67] + "...")
    axes.legend()
    axes.grid(alpha=0.3)
    try:
        figure.savefig(path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None


def _smooth(values: list[float], keep: float = 0.95) -> list[float]:
    smooth, total, weight = [], 0.0, 0.0
    for value in values:
        total, weight = keep * total + (1 - keep) * value, keep * weight + 1 - keep
        smooth.append(total / weight)
    return smooth


def _header(spec: Spec, recipe: Recipe, data: Corpus, model: SpecTransformer) -> dict[str, Any]:
    return {
        "event": "begin", "spec": spec.text, "params": spec.params, "recipe": asdict(recipe), "data": data.name,
        "bytes": len(data.train), "parameters": sum(p.numel() for p in model.parameters()),
        "torch": torch.__version__, "threads": torch.get_num_threads(),
    }  # fmt: skip


def _write(lines: Any, entry: dict[str, Any]) -> None:
    lines.write(json.dumps(entry) + "\n")
    lines.flush()


def _open(path: Path) -> Any:
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None


def _folder(path: str | Path) -> Path:
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {path}: {error.strerror or error}") from None
    return path
