"""Knowledge insulation in small: is a backbone the same after an expert that reads it has been trained?

Trains a backbone on task A, then an action expert on task B from there: with the backbone's weights or its own, reading the backbone with or without
training it. What is measured is the error of each task before and after, and whether what the backbone says is the same, to the bit.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import srt_masks as srt
from srt_masks.training.comparison import Arm
from srt_masks.training.made import Numbers
from srt_masks.training.recipe import Recipe
from srt_masks.training.schedules import Schedule

from ..command import command
from ..pages import publish
from .data import ACTIONS, BACKBONE, Errors, make
from .page import blocks, pictures

HERE = Path(__file__).parent
TASK = Numbers("A at the backbone, B at the actions", make, inputs=1)
# Weight decay moves weights that learn nothing, and would move the backbone's.
RECIPE = Recipe(dim=48, depth=2, heads=4, words=BACKBONE + ACTIONS, batch=128, learning_rate=2e-3, warm_up=40, weight_decay=0.0)
TINY = replace(RECIPE, dim=8, heads=2, depth=1, batch=4, steps=3)
WEIGHTS = {"shared": (), "own": ("action",)}


def trained_on(task: str) -> tuple[Schedule, ...]:
    """Params that weigh one task alone, at every step."""
    return tuple(Schedule(name, ((1, float(name == task)),)) for name in ("a", "b"))


def run(recipe: Recipe, task: Numbers, out: Path, seeds: Sequence[int], jobs: int = 1) -> list[dict[str, Any]]:
    """A line for each run of the second stage."""
    texts = {gates: srt.load(HERE / "texts" / f"{gates}.mask") for gates in ("open", "stop")}
    # Nothing of B is trained here, so that which of its gradients are stopped is of no account.
    first = {weights: Arm(texts["open"], changes={"schedules": trained_on("a"), "own_weights": own}) for weights, own in WEIGHTS.items()}
    begun = srt.compare(first, recipe, out / "a", task=task, seeds=seeds, jobs=jobs)
    print(f"First stage, the backbone alone on task A:\n\n{begun}\n")
    seconds = {(outcome.name, outcome.seed): outcome.seconds for outcome in begun.outcomes}

    def before(weights: str, seed: int) -> Path:
        return out / "a" / weights / f"seed-{seed}"

    then = {
        f"{weights}-{gates}": Arm(spec, changes={"schedules": trained_on("b"), "own_weights": own}, initial=lambda seed, weights=weights: before(weights, seed))
        for weights, own in WEIGHTS.items()
        for gates, spec in texts.items()
    }
    found = srt.compare(then, recipe, out / "b", task=task, seeds=seeds, jobs=jobs)
    unseen = task.unseen(recipe.words)
    lines = []
    for outcome in found.outcomes:
        weights, _, _ = outcome.name.partition("-")
        folders = (before(weights, outcome.seed), out / "b" / outcome.name / f"seed-{outcome.seed}")
        old, new = (Errors.of(srt.load_model(folder / "model.safetensors"), unseen["numbers"], unseen["targets"]) for folder in folders)
        same = torch.equal(old.backbone, new.backbone)
        errors = {"a_before": old.a, "a_after": new.a, "b_before": old.b, "b_after": new.b, "bit_equal": same}
        lines.append({**outcome.plain(), "a_seconds": seconds[weights, outcome.seed], **errors})
    return lines


def main(asked: argparse.Namespace) -> None:
    if asked.quick:
        lines = run(TINY, replace(TASK, examples=16), asked.out, (0,), asked.jobs)
    else:
        lines = run(replace(RECIPE, steps=asked.steps), TASK, asked.out, asked.seeds, asked.jobs)
    print(f"Second stage, the expert on task B, from there:\n\n{blocks(lines)['table']}")
    if asked.publish:
        publish(HERE, lines, blocks, pictures)


if __name__ == "__main__":
    command(main, str(__doc__), "insulation", steps=800, seeds=(3, 7))
