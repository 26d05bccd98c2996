"""Whom does the future teach?

Trains a model of each text from every seed, on answers that can only be given by who has prepared for them. What is measured is the error on fresh
sequences, over the variance of the answers: 1 is to know nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
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
from .controls import publish_controls
from .data import make
from .page import HORIZONS, LONG, RULES, SHORT, TRICKLES, blocks, pictures

HERE = Path(__file__).parent
TASK = Numbers("sums of waves of the 5 steps before", make, inputs=2, huber=1.0)
RECIPE = Recipe(dim=64, depth=2, heads=2, words=24, batch=128, steps=SHORT, learning_rate=3e-3, warm_up=100, weight_decay=0.01)
TINY = replace(RECIPE, dim=8, depth=1, batch=4, words=8, steps=3)


def text(name: str) -> srt.Spec:
    return srt.load(HERE / "texts" / f"{name}.mask")


def of_values(name: str, arms: Iterable[str]) -> dict[str, Arm]:
    """Arms such as horizon_3: values of one param of one text, which are arguments of a call, for which nothing is compiled."""
    spec = text(name)
    number = type(spec.params[name])
    return {arm: Arm(spec, changes={"schedules": (Schedule(name, ((1, number(arm.removeprefix(f"{name}_"))),)),)}) for arm in arms}


def groups() -> dict[str, dict[str, Arm]]:
    """What is compared with one another: the shortest question, all rules, and the values of two params."""
    rules = {name: Arm(text(name)) for name in RULES}
    pair = {name: rules[name] for name in ("nothing", "stop_k_v")}
    return {"pair": pair, "rules": rules, "horizons": of_values("horizon", HORIZONS), "trickles": of_values("trickle", TRICKLES)}


def run(group: str, recipe: Recipe, task: Numbers, out: Path, seeds: Sequence[int], jobs: int = 1) -> Comparison:
    return srt.compare(groups()[group], recipe, out / f"{group}-{recipe.steps}", task=task, seeds=seeds, jobs=jobs)


def main(asked: argparse.Namespace) -> None:
    if asked.quick:
        for group in asked.only:
            print(run(group, TINY, replace(TASK, examples=16), asked.out, (0,), asked.jobs))
        return
    for group in asked.only:
        found = run(group, replace(RECIPE, steps=asked.steps), TASK, asked.out, asked.seeds, asked.jobs)
        print(found)
        if asked.publish:
            if group == "rules" and asked.steps == SHORT:
                publish_controls({name: asked.out / f"{group}-{asked.steps}" / name / f"seed-{asked.seeds[0]}" / "model.safetensors" for name in RULES})
            publish(HERE, [outcome.plain() for outcome in found.outcomes], blocks, pictures)


if __name__ == "__main__":
    command(main, str(__doc__), "precaching", steps=SHORT, longer={LONG: ("rules",)}, seeds=(3, 7), groups=("rules", "horizons", "trickles"), more=("pair",))
