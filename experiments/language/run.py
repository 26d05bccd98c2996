"""Language, as an open question: do reasoning tokens, and the rule that the next step does not train them, help to say the next byte?

Trains models of Python's own reference documentation, byte by byte: without reasoning tokens, with one and with four behind every byte, each with and without
the rule, all for as many steps; and without reasoning tokens for as much work as one and four of them take.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import srt_masks as srt
from srt_masks.models.work import work_of
from srt_masks.training.comparison import Arm
from srt_masks.training.outcomes import Comparison
from srt_masks.training.recipe import Recipe

from ..command import command
from ..pages import publish
from .page import blocks, pictures

HERE = Path(__file__).parent
REASONS = (1, 4)
RECIPE = Recipe(dim=128, depth=3, heads=4, words=64, batch=8, learning_rate=3e-3, warm_up=100, weight_decay=0.01)
TINY = replace(RECIPE, dim=8, heads=2, depth=1, words=8, batch=2, steps=4)


def arms(recipe: Recipe) -> dict[str, Arm]:
    """All of one recipe, but for the steps of the baselines of equal work."""

    def spec(name: str, **params: int) -> srt.Spec:
        return srt.load(HERE / "texts" / f"{name}.mask", params=params)

    def work(spec: srt.Spec) -> int:
        return work_of(srt.build_model(spec, **recipe.sizes, num_tokens=256), recipe.words).multiplications

    plain = spec("plain")
    found = {"plain": Arm(plain)}
    for reasons in REASONS:
        found |= {f"{name}-{reasons}": Arm(spec(name, reasons=reasons)) for name in ("open", "stop")}
    for reasons in REASONS:
        steps = round(recipe.steps * work(found[f"open-{reasons}"].spec) / work(plain))
        found[f"plain-work-of-{reasons}"] = Arm(plain, changes={"steps": steps})
    return found


def run(recipe: Recipe, out: Path, seeds: Sequence[int], jobs: int = 1) -> Comparison:
    return srt.compare(arms(recipe), recipe, out, seeds=seeds, jobs=jobs)


def main(asked: argparse.Namespace) -> None:
    if asked.quick:
        print(run(TINY, asked.out, (0,), asked.jobs))
        return
    found = run(replace(RECIPE, steps=asked.steps), asked.out, asked.seeds, asked.jobs)
    print(found)
    if asked.publish:
        publish(HERE, [outcome.plain() for outcome in found.outcomes], blocks, pictures)


if __name__ == "__main__":
    command(main, str(__doc__), "language", steps=1300, seeds=(3, 5))
