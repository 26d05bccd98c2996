"""A run that begins with the weights of another: those it has, what does not fit is named, and it goes on without being told again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from runs import RECIPE, SPEC, lines, run
from safetensors.torch import load_file

import srt_masks as srt
from srt_masks.cli import main
from srt_masks.models.checkpoint import save_model
from srt_masks.training.comparison import Arm, compare
from srt_masks.training.data import corpus
from srt_masks.training.loop import Report
from srt_masks.training.made import Numbers
from srt_masks.training.session import start
from srt_masks.training.strategy import Alone

# The same roles, and another rule.
OTHER = srt.parse("layout repeat { token, reason }\nattend causal\nstop k, v where k is reason\npredict token -> index + 1\npredict reason -> index + 1")
SHORT = replace(RECIPE, steps=2)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("first")
    run(out)
    return out


@pytest.mark.parametrize("named", ["folder", "file"])
def test_a_run_begins_with_the_weights_of_another_and_an_optimiser_of_its_own(first: Path, named: str):
    given = first if named == "folder" else first / "model.safetensors"
    begun = start(OTHER, replace(RECIPE, seed=5), corpus((), 8), Alone(), given)
    wanted = load_file(first / "model.safetensors")
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in begun.model.state_dict().items()) and len(wanted) == len(begun.model.state_dict())
    fresh = start(OTHER, replace(RECIPE, seed=5), corpus((), 8), Alone())
    assert torch.equal(begun.generator.get_state(), fresh.generator.get_state()) and not begun.optimiser.state
    doubled = start(OTHER, replace(RECIPE, dtype="float64"), corpus((), 8), Alone(), given).model.state_dict()
    assert all(t.dtype is torch.float64 and torch.equal(t.float(), wanted[n]) for n, t in doubled.items())


def test_it_is_kept_and_need_not_be_named_again(first: Path, tmp_path: Path):
    whole, broken, other, moved = tmp_path / "whole", tmp_path / "broken", tmp_path / "other", tmp_path / "model.safetensors"
    moved.write_bytes((first / "model.safetensors").read_bytes())
    run(whole, initial=moved)
    run(other, recipe=SHORT)
    for step, options in ((5, {"initial": moved}), (7, {"initial": first, "begin": "resume"})):  # the same weights, wherever they lie
        with pytest.raises(KeyboardInterrupt):
            run(broken, watch=leave_at(step), **options)
    with pytest.raises(srt.InputError, match=r"began with other weights, of .*model.safetensors, and not with those that .* has now. Leave initial= out"):
        run(broken, initial=other, begin="resume")
    moved.unlink()
    run(broken, begin="resume")
    assert lines(broken)[0]["initial"]["file"] == str(moved)
    a, b = (load_file(out / "training.safetensors") for out in (whole, broken))
    assert all(torch.equal(a[n], b[n]) for n in a)
    with pytest.raises(srt.InputError, match="began with fresh weights"):
        run(other, recipe=replace(SHORT, steps=3), initial=first, begin="resume")


def leave_at(step: int) -> Callable[[Report], None]:
    def leave(report: Report) -> None:
        if report.step == step:
            raise KeyboardInterrupt

    return leave


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dim": 16}, "is a model of dim = 8; here it is 16. Give dim=8"), ({"heads": 4}, "heads = 2; here it is 4"), ({"depth": 2}, "depth = 1"),
        ({"own_weights": ("reason",)}, "own_weights = none; here it is reason"), ({"words": 4096, "batch": 2}, r"position_embedding.weight \(2048x8 there, 4096x8 here\)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(first: Path, changes: dict[str, Any], words: str):
    with pytest.raises(srt.InputError, match=words):
        start(SPEC, replace(RECIPE, **changes), corpus((), 8), Alone(), first)


def test_roles_are_those_of_the_model(first: Path, tmp_path: Path):
    other = srt.parse("layout repeat { token, thought }\nattend causal\npredict token -> index + 1\npredict thought -> index + 1")
    with pytest.raises(srt.InputError, match="weights of the roles token, reason, and this spec has token, thought"):
        run(tmp_path / "out", spec=other, initial=first)
    with pytest.raises(srt.InputError, match="no such file"):
        run(tmp_path / "out", initial=tmp_path / "none.safetensors")
    assert not (tmp_path / "out").exists()


def test_what_no_recipe_says_has_a_remedy_in_the_task(first: Path, tmp_path: Path):
    made = Numbers("noise", lambda count, words, generator: (torch.rand(count, words, 2), torch.rand(count, words, 1)), 2, examples=16)
    spec = srt.parse("layout repeat { token, reason }\nattend causal\npredict token -> index")
    with pytest.raises(srt.InputError, match=r"num_tokens = 256; here it is None. Train on a task of the same tokens .*256: files of bytes"):
        start(spec, RECIPE, made, Alone(), first)
    save_model(srt.build_model(SPEC, num_tokens=256, dim=8, depth=1, heads=2, dim_head=8), tmp_path / "wide.safetensors")
    with pytest.raises(srt.InputError, match=r"dim_head = 8; here it is 4. Here it is dim / heads: give both"):
        start(SPEC, RECIPE, corpus((), 8), Alone(), tmp_path / "wide.safetensors")


def test_an_arm_begins_with_a_model_by_seed(first: Path, tmp_path: Path):
    asked: list[int] = []

    def initial(seed: int) -> Path:
        asked.append(seed)
        return first

    def compared(arm: Arm) -> Any:
        with patch("srt_masks.training.train.draw_loss"), patch("srt_masks.training.comparison.draw_comparison"):
            return compare({"fresh": SPEC, "taught": arm}, SHORT, tmp_path, seeds=(0, 3), quiet=True)

    compared(Arm(OTHER, initial=initial))
    assert asked == [0, 3] and [lines(tmp_path / n / "seed-3")[0].get("initial", {}).get("file") for n in ("fresh", "taught")] == [
        None,
        str(first / "model.safetensors"),
    ]
    with pytest.raises(srt.InputError, match="began with other weights"):
        compared(Arm(OTHER, initial=lambda seed: tmp_path / "taught" / "seed-0"))


def test_the_command(first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.mask").write_text(OTHER.text)
    assert main(["train", str(tmp_path / "a.mask"), "--initial", str(first), "--out", str(tmp_path / "out"), "--dim", "16"]) == 2
    assert "is a model of dim = 8; here it is 16" in capsys.readouterr().err
