"""`Session`: a training run between two steps. What `loop` moves on, `state` keeps in a file and brings back, and `evaluate` looks at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..default_device import on_the_cpu
from ..diagnostics import InputError
from ..models.builder import build_model
from ..models.transformer import SpecTransformer
from ..spec import Spec
from .initial import Initial, begin_with
from .recipe import Recipe, check_recipe
from .schedules import check_schedules
from .strategy import Strategy
from .task import Measure, Task, parts_of, sequences


@dataclass(slots=True)
class Session:
    """`step` steps have been done, in `seconds` (of this run and those it resumes). `module` is the model as the processes share it: what a step calls."""

    spec: Spec
    recipe: Recipe
    task: Task
    measure: Measure
    strategy: Strategy
    model: SpecTransformer
    module: Any
    optimiser: torch.optim.Optimizer
    generator: torch.Generator  # its state is the position in the data
    device: torch.device
    initial: Initial | None = None  # what it began with; None: fresh weights
    step: int = 0
    seconds: float = 0.0

    @property
    def fingerprint(self) -> str:
        """What tells the data from others."""
        return self.task.fingerprint(self.recipe.words)

    def values(self, step: int) -> Mapping[str, int | float]:
        """The params that follow a schedule, at a step."""
        return {s.name: s.at(step) for s in self.recipe.schedules}

    def autocast(self) -> Any:
        """The context in which the model computes."""
        kind = self.recipe.autocast
        on = kind == "bfloat16" or (kind == "auto" and self.device.type == "cuda" and self.recipe.dtype == "float32")
        return torch.autocast(self.device.type, torch.bfloat16, enabled=on)


@on_the_cpu
def start(spec: Spec, recipe: Recipe, task: Task, strategy: Strategy, initial: str | Path | None = None) -> Session:
    """A run before its first step: the same weights for the same seed, or those of the model `initial`. Everything that a step needs is tried once; nothing is written.

    Raises InputError for sizes, schedules or a device that do not fit, or a spec that cannot train; SpecError for a claim that does not hold."""
    check_recipe(recipe, strategy.shares, strategy.weight_shares, strategy.here)
    if not hasattr(task, "unseen"):
        raise InputError(f"a task is one such as srt_masks.training.made.Numbers(name, make, inputs=1); got {type(task).__name__}")
    check_schedules(spec, recipe.schedules)
    device = device_of(recipe.device)
    torch.manual_seed(recipe.seed)
    model = build_model(spec, **recipe.sizes, **task.sizes).to(getattr(torch, recipe.dtype))
    began = None if initial is None else begin_with(model, initial)
    measure, seen = task.measure(recipe.words), task.unseen(recipe.words)
    one = parts_of(seen, [1, sequences(seen) - 1])[0] if sequences(seen) > 1 else seen
    model.eval()
    with torch.no_grad():
        measure.error(model(**one, return_parts=True, inputs={s.name: s.at(1) for s in recipe.schedules}))
        # What the text states of its params is held wherever a schedule turns, together, before the first step and not at the thousandth.
        turns = {min(max(step, 1), recipe.steps) for schedule in recipe.schedules for step, _ in schedule.points}
        for step in sorted(turns):
            model(**one, return_parts=True, inputs={schedule.name: schedule.at(step) for schedule in recipe.schedules})
    model.train()
    module = strategy.wrap(model, device)
    if recipe.compile:
        for block in model.blocks:
            block.compile()
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay)
    generator = torch.Generator().manual_seed(recipe.seed)
    return Session(spec, recipe, task, measure, strategy, model, module, optimiser, generator, device, began)


def device_of(name: str) -> torch.device:
    """Raises InputError for a device that is not here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"device is auto, or one that torch has here, such as cpu or cuda; got {name!r} ({reason})") from None
