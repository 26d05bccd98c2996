"""The experiments, shortened: each runs to its end, and its arms differ in what they say they differ in, and in nothing else."""

from __future__ import annotations

import json
import runpy
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

import srt_masks as srt
from experiments.insulation import page as insulation_page
from experiments.insulation import run as insulation
from experiments.language import page as language_page
from experiments.pages import Runs, filled, read_runs
from experiments.reasoning_tokens import page as reasoning_tokens_page
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


def quick(name: str, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the page says, but small."""
    monkeypatch.setattr(sys, "argv", ["run", "--quick", "--out", str(out)])
    monkeypatch.delitem(sys.modules, f"experiments.{name}.run", raising=False)
    runpy.run_module(f"experiments.{name}.run", run_name="__main__")


def check_page(page: ModuleType, runs: Runs, arms: Iterable[str]) -> None:
    """Runs as they are kept make a page with a place for each block, and a picture with a dot for each figure of each arm."""
    folder = Path(str(page.__file__)).parent
    found = page.blocks(runs)
    filled((folder / "README.md").read_text(encoding="utf-8"), found)
    seeds, threads = {run["seed"] for run in runs}, runs[0]["code"]["threads"]
    assert found["origin"].startswith(f"{len(runs)} runs, seeds {' and '.join(map(str, seeds))}, ") and f"threads of a run: {threads};" in found["origin"]
    drawn = page.pictures(runs)
    assert drawn and all(text.count("<circle") == len(runs) for text in drawn.values())
    for about in (page.ARMS[name] for name in arms):
        assert f"| {about} |" in found["table"] and all(f">{about}<" in text for text in drawn.values())


def test_the_figure_of_reasoning_tokens_is_that_of_their_rows_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    quick("reasoning_tokens", tmp_path, monkeypatch)
    runs = read_runs(tmp_path / "quick" / "runs.jsonl")
    assert [run["name"] for run in runs] == list(TRAINED)
    check_page(reasoning_tokens_page, runs, TRAINED)
    task = replace(reasoning_tokens.TASK, examples=16)
    variance = task.unseen(reasoning_tokens.TINY.words)["targets"].var(correction=0).item()
    for run in runs:
        assert run["held_out"] == pytest.approx(run["parts"]["reason"] / variance, rel=1e-5) != pytest.approx(run["parts"]["token"] / variance, rel=1e-5)


def test_a_backbone_is_the_same_with_own_weights_and_stopped_gates_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    runs = insulation.run(insulation.TINY, replace(insulation.TASK, examples=16), tmp_path / "quick", (0,))
    lines = {line["name"]: line for line in runs}
    quick("insulation", tmp_path, monkeypatch)  # of the runs that are there
    first_stage, _, second = capsys.readouterr().out.rpartition("Second stage, the expert on task B, from there:\n\n")
    table, _, where = second.partition("\n\nruns  ")
    assert "First stage, the backbone alone on task A:\n\n" in first_stage and table == insulation_page.blocks(runs)["table"]
    assert where == f"{tmp_path / 'quick'}\n"
    assert {name: line["bit_equal"] for name, line in lines.items()} == {"shared-open": False, "shared-stop": False, "own-open": False, "own-stop": True}
    assert lines["own-stop"]["a_after"] == lines["own-stop"]["a_before"] and lines["own-stop"]["b_after"] != lines["own-stop"]["b_before"]
    first = {run["name"]: run["seconds"] for run in read_runs(tmp_path / "quick" / "a" / "runs.jsonl")}
    assert [run["a_seconds"] for run in runs] == [first[run["name"].split("-")[0]] for run in runs]
    check_page(insulation_page, runs, lines)
    assert (
        f"2 runs of A, one for each seed and each kind of weights, of as many steps, {sum(first.values()) / 2:.0f} s a run"
        in insulation_page.blocks(runs)["origin"]
    )
    # Both that have weights of a kind begin where the same backbone ended.
    for weights in ("shared", "own"):
        assert lines[f"{weights}-open"]["a_before"] == lines[f"{weights}-stop"]["a_before"]


def test_language_runs_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    quick("language", tmp_path, monkeypatch)
    runs = read_runs(tmp_path / "quick" / "runs.jsonl")
    assert [(run["name"], run["work"]["rows"]) for run in runs] == [
        ("plain", 8), ("open-1", 16), ("stop-1", 16), ("open-4", 40), ("stop-4", 40), ("plain-work-of-1", 8), ("plain-work-of-4", 8),
    ]  # fmt: skip
    assert all(run["held_out"] < 8.1 for run in runs)
    check_page(language_page, runs, [run["name"] for run in runs])
    # What is kept is of another recipe: there is no flag to begin it anew.
    kept = tmp_path / "quick" / "comparison.json"
    about = json.loads(kept.read_text())
    kept.write_text(json.dumps({**about, "recipe": {**about["recipe"], "steps": 5}}))
    with pytest.raises(SystemExit, match=r"^error: .* another recipe \(steps = 5; here steps = 4\): give another --out$"):
        quick("language", tmp_path, monkeypatch)
