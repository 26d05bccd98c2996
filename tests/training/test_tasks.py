"""What a run is trained on: numbers that are made, and what results are said in; arms of a comparison."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import srt_masks as srt
from srt_masks.training.code_here import code_here, commit, commit_of
from srt_masks.training.comparison import Arm
from srt_masks.training.evaluate import score
from srt_masks.training.loop import Report
from srt_masks.training.made import Numbers
from srt_masks.training.recipe import Recipe
from srt_masks.training.schedules import read_schedule
from srt_masks.training.task import Tally, equal_parts, parts_of
from srt_masks.training.train import train

ROWS = srt.parse("param far = 1\nlayout repeat { word, reason }\ndata word, reason\nattend causal\nstop k, v where q.pos - k.pos > far\nposition step\n"
                 "predict word -> index\npredict reason -> index weight 1 / 4")  # fmt: skip
RECIPE = Recipe(dim=8, depth=1, heads=2, words=8, batch=6, steps=3, seed=2, learning_rate=1e-2)


def make(count: int, words: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The number of a row, and twice it, less one."""
    x = torch.randn(count, words, 2, generator=generator)
    return x, 2 * x[..., :1] - 1


TASK = Numbers("twice a number", make, inputs=2, huber=0.5, examples=20)


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_run_on_numbers_is_judged_by_error_over_variance(tmp_path: Path):
    result = train(ROWS, RECIPE, tmp_path, quiet=True, task=TASK)
    unseen = TASK.unseen(8)
    with torch.no_grad():
        values = result.model(numbers=unseen["numbers"], return_values=True)
    error = (values - unseen["targets"]).square().mean() / unseen["targets"].var(correction=0)
    assert abs(result.held_out - error.item()) < 1e-5
    log = lines(tmp_path)
    assert log[-1]["held_out_error_over_variance"] == result.held_out and "error_over_variance" in log[1] and "bits_per_byte" not in str(log)
    assert set(log[-1]["held_out_parts"]) == {"word", "reason"}


def test_a_step_on_numbers_is_what_torch_says_it_is(tmp_path: Path):
    seen = []
    recipe = replace(RECIPE, dtype="float64", accumulate=3, clip=100.0, steps=1)
    train(ROWS, recipe, tmp_path, quiet=True, task=TASK, watch=seen.append)
    torch.manual_seed(2)
    model = srt.build_model(ROWS, dim=8, depth=1, heads=2, max_positions=2048, numbers=2, regression=1).double()
    numbers, targets = make(6, 8, torch.Generator().manual_seed(2))
    wrong = (model(numbers=numbers, return_values=True), targets.double())
    huber = torch.nn.functional.huber_loss(*wrong, reduction="none", delta=0.5)[..., 0]
    weight = torch.tensor([1.0, 0.25], dtype=torch.float64).repeat(4)
    loss = (huber * weight).sum() / (weight.sum() * 6)
    assert abs(seen[0].loss - loss.item()) < 1e-6
    variance = TASK.unseen(8)["targets"].double().var(correction=0)
    assert abs(seen[0].measured - ((wrong[0] - wrong[1]).square().mean() / variance).item()) < 1e-6
    loss.backward()
    norm = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm()
    assert abs(seen[0].norm - norm.item()) < 1e-6


def test_results_may_be_those_of_some_rows(tmp_path: Path):
    one, both = replace(TASK, part="reason"), TASK
    model = train(ROWS, RECIPE, tmp_path / "a", quiet=True, task=one).model
    found = {task.part: score(model, [task.unseen(8)], task.measure(8)) for task in (one, both)}
    assert abs(found["reason"].measured - lines(tmp_path / "a")[-1]["held_out_error_over_variance"]) < 1e-6
    assert found["reason"].parts == found[None].parts  # the same rows are looked at
    scale = one.measure(8).scale
    assert abs(found["reason"].measured - found[None].parts["reason"] * scale) < 1e-6
    assert abs(found[None].measured - sum(found[None].parts.values()) / 2 * scale) < 1e-6 and abs(found["reason"].measured - found[None].measured) > 1e-3
    with pytest.raises(srt.InputError, match=r"those of 'thought', and no row called so is trained: those that are are word, reason"):
        train(ROWS, RECIPE, tmp_path / "b", quiet=True, task=replace(TASK, part="thought"))
    assert not (tmp_path / "b").exists()


def test_what_a_run_is_judged_by_is_never_trained_on():
    unseen = TASK.unseen(8)["numbers"]
    for seed in (0, 6, 7, 8):
        drawn = TASK.draw(20, 8, torch.Generator().manual_seed(seed))["numbers"]
        assert not bool((drawn[:, None] == unseen[None]).all(-1).all(-1).any())
    assert torch.equal(unseen, TASK.unseen(8)["numbers"]) and not torch.equal(unseen, replace(TASK, seed=8).unseen(8)["numbers"])


@pytest.mark.parametrize(
    "made, said",
    [
        (lambda n, w, g: torch.zeros(n, w, 2), "make gives two tensors, numbers and targets; got Tensor"),
        (lambda n, w, g: (torch.zeros(n, w, 3), torch.zeros(n, w, 1)), r"make gives numbers \(4, 8, 2\), floating; got float32 of shape \(4, 8, 3\)"),
        (lambda n, w, g: (torch.zeros(n, w, 2), torch.zeros(n, w)), r"make gives targets \(4, 8, 1\), floating; got float32 of shape \(4, 8\)"),
        (lambda n, w, g: (torch.zeros(n, w, 2), torch.full((n, w, 1), torch.nan)), "make gives targets of which some are NaN"),
        (lambda n, w, g: (torch.zeros(n, w, 2).long(), torch.zeros(n, w, 1)), "got int64"),
    ],
)
def test_what_is_made_is_looked_at(made, said: str):
    with pytest.raises(srt.InputError, match=f"odd: .*{said}"):
        Numbers("odd", made, inputs=2).fingerprint(8)


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"examples": 0}, "examples is a whole number, 1 or more; got 0"), ({"seed": -1}, "seed is a whole number, 0 to 2147483647; got -1"), ({"inputs": 1.5}, "inputs is"),
        ({"huber": 0}, "huber is a number above 0"), ({"variance": "1"}, "variance is a number above 0"), ({"make": 3}, "make is a function of"),
    ],
)  # fmt: skip
def test_what_a_task_of_numbers_may_be(fields: dict, said: str):
    with pytest.raises(srt.InputError, match=f"twice a number: {said}"):
        replace(TASK, **fields)


def test_a_teacher_may_be_a_network_and_numbers_are_those_of_the_generator():
    teacher = torch.nn.Linear(2, 1)
    task = replace(TASK, make=lambda n, w, g: ((x := torch.randn(n, w, 2, generator=g)), teacher(x)))
    assert not task.unseen(8)["targets"].requires_grad and len(task.fingerprint(8)) == 64
    with pytest.raises(srt.InputError, match="other numbers from the same generator"):
        replace(TASK, make=lambda n, w, g: (torch.randn(n, w, 2), torch.zeros(n, w, 1))).measure(8)
    assert replace(TASK, variance=2.0).measure(8).scale == 0.5 and replace(TASK, variance=2.0).fingerprint(8) != TASK.fingerprint(8)
    with pytest.raises(srt.InputError, match=r"a task is one such as .*; got function"):
        train(ROWS, RECIPE, "nowhere", quiet=True, task=make)  # pyright: ignore[reportArgumentType]


def test_a_param_that_is_called_as_an_argument_of_a_model_is_the_rule_s(tmp_path: Path):
    reports = {}
    for name in ("far", "huber"):
        seen = reports[name] = []
        spec = srt.parse(ROWS.text.replace("far", name))
        recipe = replace(RECIPE, schedules=(read_schedule(f"{name}=0@1"),), steps=2)
        train(spec, recipe, tmp_path / name, quiet=True, task=TASK, watch=seen.append)
    assert [r.loss for r in reports["far"]] == [r.loss for r in reports["huber"]]


def test_taught_runs_are_not_taken_for_fresh_ones(tmp_path: Path):
    train(ROWS, RECIPE, tmp_path / "first", quiet=True, task=TASK)
    arms = {"fresh": ROWS, "taught": Arm(ROWS, initial=lambda seed: tmp_path / "first")}
    found = srt.compare(arms, RECIPE, tmp_path / "out", task=TASK, seeds=(0,), quiet=True)
    kept = [json.loads(line) for line in (tmp_path / "out" / "runs.jsonl").read_text().splitlines()]
    assert kept[0]["initial"] is None and kept[1]["initial"]["file"].endswith("first/model.safetensors") and len(kept[1]["initial"]["sha256"]) == 64
    assert found.outcomes[0].held_out != found.outcomes[1].held_out
    with pytest.raises(srt.InputError, match="a comparison of other specs"):
        srt.compare({**arms, "taught": Arm(ROWS)}, RECIPE, tmp_path / "out", task=TASK, seeds=(0, 1), quiet=True)


def test_targets_that_are_all_alike_are_refused():
    with pytest.raises(srt.InputError, match="all targets are alike"):
        Numbers("flat", lambda n, w, g: (torch.zeros(n, w, 2), torch.ones(n, w, 1)), inputs=2).measure(8)


def test_another_task_is_not_gone_on_with(tmp_path: Path):
    train(ROWS, replace(RECIPE, steps=2), tmp_path, quiet=True, task=TASK)
    for other in (replace(TASK, huber=0.6), replace(TASK, make=lambda n, w, g: (make(n, w, g)[0], make(n, w, g)[1] * 1.5))):
        with pytest.raises(srt.InputError, match="of a run on other data: twice a number"):
            train(ROWS, RECIPE, tmp_path, quiet=True, task=other, begin="resume")
    with pytest.raises(srt.InputError, match="is of a run on twice a number: give its task= again"):
        train(ROWS, RECIPE, tmp_path, quiet=True, begin="resume")
    with pytest.raises(srt.InputError, match="in place of files"):
        train(ROWS, RECIPE, tmp_path, ["a"], quiet=True, task=TASK)


def test_a_run_on_numbers_goes_on_bit_for_bit(tmp_path: Path):
    def crash(report: Report) -> None:
        if report.step == 2:  # one is saved
            raise RuntimeError

    whole = train(ROWS, RECIPE, tmp_path / "whole", quiet=True, task=TASK).model.state_dict()
    with pytest.raises(RuntimeError):
        train(ROWS, RECIPE, tmp_path / "parts", quiet=True, task=TASK, watch=crash)
    again = train(ROWS, RECIPE, tmp_path / "parts", quiet=True, task=TASK, begin="resume").model.state_dict()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_arms_have_something_of_the_recipe_to_themselves(tmp_path: Path):
    arms = {
        "near": Arm(ROWS, {"schedules": (read_schedule("far=0@0"),)}),
        "far": ROWS,
        "own": Arm(ROWS, {"own_weights": ("reason",), "steps": 2}),
    }  # fmt: skip
    found = srt.compare(arms, RECIPE, tmp_path, task=TASK, seeds=(3, 4), quiet=True)
    alone = train(ROWS, replace(RECIPE, seed=4, schedules=(read_schedule("far=0@0"),)), tmp_path / "alone", quiet=True, task=TASK)
    by = {(o.name, o.seed): o for o in found.outcomes}
    assert by["near", 4].held_out == alone.held_out != by["far", 4].held_out
    assert by["own", 3].steps == 2 and by["own", 3].parameters > by["far", 3].parameters
    kept = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()]
    assert kept[0]["changes"] == {"schedules": ["far=0@0"]} and kept[0]["spec"] == ROWS.text and kept[0]["params"] == {"far": 1}
    assert kept[0]["code"]["commit"] == commit() and kept[0]["parts"].keys() == {"word", "reason"} and kept[1]["changes"] == {}
    assert "error/variance" in str(found) and "Held-out error over variance of the last row" in str(found)
    assert "\nSteps as given for each; " in str(found) and "Equal" not in str(found)
    assert found.plain()["specs"]["far"]["held_out_error_over_variance"]["runs"] == 2
    again = srt.compare(arms, RECIPE, tmp_path, task=TASK, seeds=(3, 4), quiet=True)
    assert again.outcomes == found.outcomes
    with pytest.raises(srt.InputError, match="a comparison of other specs"):
        srt.compare(arms | {"near": Arm(ROWS, {"schedules": (read_schedule("far=1@0"),)})}, RECIPE, tmp_path, task=TASK, seeds=(3, 4), quiet=True)


def test_what_an_arm_may_not_change(tmp_path: Path):
    for change, equal, said in (("sed", "steps", "has no `sed`; did you mean `seed`"), ("seed", "steps", "one for all"), ("steps", "work", "one for all")):
        with pytest.raises(srt.InputError, match=f"b: .*{said}"):
            srt.compare({"a": ROWS, "b": Arm(ROWS, {change: 1})}, RECIPE, tmp_path / "x", task=TASK, equal=equal)
    with pytest.raises(srt.InputError, match="in place of files"):
        srt.compare({"a": ROWS, "b": ROWS}, RECIPE, tmp_path / "x", ["text"], task=TASK)
    assert not (tmp_path / "x").exists()


def test_parts_of_a_batch():
    batch = {"x": torch.arange(6)[:, None], "huber": 0.5}
    assert [p["x"].flatten().tolist() for p in equal_parts(batch, 3)] == [[0, 1], [2, 3], [4, 5]] and all(p["huber"] == 0.5 for p in equal_parts(batch, 3))
    assert [p["x"].flatten().tolist() for p in parts_of(batch, [4, 2])] == [[0, 1, 2, 3], [4, 5]]
    assert Tally.of(TASK.measure(8)).sums.tolist() == [0.0] * 4


def test_the_code_that_made_a_run_is_named():
    found = code_here()
    assert found["torch"] == torch.__version__ and found["threads"] == torch.get_num_threads()
    assert found["commit"] is None or len(found["commit"].rstrip("+")) == 12


def test_files_that_differ_from_the_commit_are_noticed(tmp_path: Path):
    def git(*words: str) -> None:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    assert commit_of(tmp_path) is None
    names = ("srt_masks/a.py", "experiments/one/run.py", "experiments/one/README.md", "experiments/one/results/runs.jsonl", "README.md")
    paths = [write(name, "1") for name in names]
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "one")
    clean = commit_of(tmp_path)
    assert clean is not None and len(clean) == 12
    for path, differs in zip(paths, (True, True, False, False, False), strict=True):
        path.write_text("2")
        assert commit_of(tmp_path) == clean + "+" * differs, path
        path.write_text("1")
    for name, differs in (("srt_masks/b.py", True), ("experiments/two/run.py", True), ("experiments/one/notes.txt", False), ("c.py", False)):
        path = write(name, "")
        assert commit_of(tmp_path) == clean + "+" * differs, path
        path.unlink()
