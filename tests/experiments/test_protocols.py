"""The experiments, shortened: each runs to its end, and its arms differ in what they say they differ in, and in nothing else."""

from __future__ import annotations

import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import srt_masks as srt
from experiments.reasoning_tokens import run as reasoning_tokens

STEPS = 8  # of two rows each
# Whose hidden states a later step trains: of words, of reasoning tokens; and how many steps back that begins.
TRAINED = {
    "a_nobody": (False, False, 1),
    "b_reasons": (False, True, 1),
    "c_all": (True, True, 1),
    "d_unread": (False, False, 1),
    "e_not_soon-1": (False, True, 2),
    "e_not_soon-2": (False, True, 3),
    "e_not_soon-4": (False, True, 5),
    "f_words": (True, False, 1),
}


@pytest.mark.parametrize("name", TRAINED)
def test_later_steps_train_whom_the_page_says(name: str):
    arm = reasoning_tokens.arms()[name]
    values = {schedule.name: schedule.at(1) for schedule in arm.changes.get("schedules", ())}
    torch.manual_seed(0)
    model = srt.build_model(arm.spec, dim=16, depth=3, heads=2, **reasoning_tokens.TASK.sizes)
    numbers, _ = reasoning_tokens.make(2, 2 * STEPS, torch.Generator().manual_seed(0))
    numbers.requires_grad_()
    said = model(numbers=numbers, return_values=True, **values)
    said[:, -1].sum().backward()
    assert numbers.grad is not None
    reached = numbers.grad.abs().sum((0, 2)).reshape(STEPS, 2) > 0
    words, reasons, back = TRAINED[name]
    # The last step's reasoning row has itself; whether it has the word beside it is another matter of each text.
    assert reached[-1, 1]
    assert reached[: STEPS - back].tolist() == [[words, reasons]] * (STEPS - back)
    assert not reached[STEPS - back : -1].any()


def test_the_forward_pass_is_the_same_for_all_that_read_alike():
    numbers, _ = reasoning_tokens.make(2, 2 * STEPS, torch.Generator().manual_seed(0))
    said = {}
    for name, arm in reasoning_tokens.arms().items():
        torch.manual_seed(0)
        said[name] = srt.build_model(arm.spec, dim=16, depth=2, heads=2, **reasoning_tokens.TASK.sizes)(numbers=numbers, return_values=True)
    other = {name for name in said if not torch.equal(said[name], said["c_all"])}
    assert other == {"d_unread"}


def test_the_figure_of_reasoning_tokens_is_that_of_their_rows_alone(tmp_path: Path):
    task = replace(reasoning_tokens.TASK, examples=16)
    found = reasoning_tokens.run(reasoning_tokens.TINY, task, tmp_path, (0,))
    variance = task.unseen(reasoning_tokens.TINY.words)["targets"].var(correction=0).item()
    assert [o.name for o in found.outcomes] == list(TRAINED)
    for outcome in found.outcomes:
        assert outcome.held_out == pytest.approx(outcome.parts["reason"] / variance, rel=1e-5) != pytest.approx(outcome.parts["token"] / variance, rel=1e-5)


@pytest.mark.parametrize("name", ["reasoning_tokens", "language"])
def test_every_experiment_runs_as_its_page_says(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(sys, "argv", ["run", "--quick", "--out", str(tmp_path)])
    monkeypatch.delitem(sys.modules, f"experiments.{name}.run")
    runpy.run_module(f"experiments.{name}.run", run_name="__main__")
    assert list(tmp_path.glob("quick/**/runs.jsonl"))
    assert "active tiles" in capsys.readouterr().out
