"""Can reasoning tokens do the preparing?

Trains a model of each text from every seed, on answers that can only be given by who has prepared. What is measured is the error of the reasoning rows.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import srt_masks as srt
from srt_masks.training.comparison import Arm
from srt_masks.training.made import Numbers
from srt_masks.training.outcomes import Comparison
from srt_masks.training.recipe import Recipe
from srt_masks.training.schedules import Schedule

from ..command import command
from ..pages import publish
from .data import make
from .page import blocks, pictures

HERE = Path(__file__).parent
HORIZONS = (1, 2, 4)
TASK = Numbers("sums of waves of the 5 steps before, each step twice", make, inputs=2, huber=1.0, part="reason")
RECIPE = Recipe(dim=64, depth=2, heads=2, words=48, batch=128, learning_rate=3e-3, warm_up=100, weight_decay=0.01)
TINY = replace(RECIPE, dim=8, depth=1, batch=4, words=8, steps=3)


def arms() -> dict[str, Arm]:
    """By letter; a value of `horizon` is a param of one text, which compiles once."""
    texts = {path.stem: srt.load(path) for path in sorted((HERE / "texts").glob("*.mask"))}
    found = {}
    for name, spec in texts.items():
        if "horizon" in spec.params:
            for horizon in HORIZONS:
                found[f"{name}-{horizon}"] = Arm(spec, changes={"schedules": (Schedule("horizon", ((1, horizon),)),)})
        else:
            found[name] = Arm(spec)
    return found


def run(recipe: Recipe, task: Numbers, out: Path, seeds: Sequence[int], jobs: int = 1) -> Comparison:
    return srt.compare(arms(), recipe, out, task=task, seeds=seeds, jobs=jobs)


def main(asked: argparse.Namespace) -> None:
    if asked.quick:
        print(run(TINY, replace(TASK, examples=16), asked.out, (0,), asked.jobs))
        return
    found = run(replace(RECIPE, steps=asked.steps), TASK, asked.out, asked.seeds, asked.jobs)
    print(found)
    if asked.publish:
        publish(HERE, [outcome.plain() for outcome in found.outcomes], blocks, pictures)


if __name__ == "__main__":
    command(main, str(__doc__), "reasoning_tokens", steps=600, seeds=(3, 7))
