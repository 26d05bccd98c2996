"""Small runs that tests of training share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

from conftest import ROOT

import srt_masks as srt
from srt_masks.training.recipe import Recipe
from srt_masks.training.train import Result, train

SELF_REASONING = (ROOT / "examples" / "self_reasoning.mask").read_text()
SPEC = srt.parse(SELF_REASONING, params={"reasons": 1})
RECIPE = Recipe(dim=8, depth=1, heads=2, words=8, batch=4, accumulate=2, steps=8, save_every=3, warm_up=2)


def run(out: Path, files: list[Path] | None = None, recipe: Recipe = RECIPE, spec: srt.Spec = SPEC, **options: Any) -> Result:
    """Without the plot, which takes longer than all of the rest."""
    with patch("srt_masks.training.train.draw_loss"):
        return train(spec, recipe, out, files or [], quiet=True, **options)


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def learnt(out: Path) -> list[dict[str, Any]]:
    """What the log says of every step, but for how long it took."""
    return [{k: v for k, v in line.items() if k not in ("seconds", "tokens_per_second")} for line in lines(out) if "loss" in line]
