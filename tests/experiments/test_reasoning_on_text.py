"""The experiment on language, shortened: stops differ in gradients alone, and baselines take as much work."""

from __future__ import annotations

from dataclasses import replace

import torch

import srt_masks as srt
from experiments.language import run as language
from srt_masks.models.work import work_of


def test_language_stops_gradients_alone_and_gives_baselines_as_much_work():
    recipe = replace(language.TINY, steps=100)
    arms = language.arms(recipe)
    x = torch.randint(256, (2, recipe.words), generator=torch.Generator().manual_seed(0))
    for reasons in language.REASONS:
        said, learnt = [], []
        for name in (f"open-{reasons}", f"stop-{reasons}"):
            torch.manual_seed(0)
            model = srt.build_model(arms[name].spec, **recipe.sizes, num_tokens=256)
            said.append(model(x))
            model(x, return_loss=True).backward()
            learnt.append(model.blocks[0].attention.to_qkv.weight.grad)  # type: ignore[union-attr]
            work = work_of(model, recipe.words).multiplications * recipe.steps
        assert torch.equal(*said) and not torch.equal(*learnt)
        baseline = arms[f"plain-work-of-{reasons}"]
        one = work_of(srt.build_model(baseline.spec, **recipe.sizes, num_tokens=256), recipe.words).multiplications
        assert abs(baseline.changes["steps"] * one - work) <= one / 2
