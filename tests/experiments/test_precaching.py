"""Whom the future teaches: the answers, the models before they train, and the shortest run that tells nothing from `stop k, v`."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import srt_masks as srt
from experiments.pages import NOT_RUN, read_runs
from experiments.precaching import page
from experiments.precaching.controls import difference, gradients, untrained, values_of
from experiments.precaching.data import make
from experiments.precaching.run import RECIPE, TASK, groups, run, text

ARMS = {name: arm for group in groups().values() for name, arm in group.items()}
SMALL = {"dim": 16, "heads": 2}


def model_of(name: str) -> srt.Transformer:
    """Before its first step, with the value that the arm has of a param."""
    arm = ARMS[name]
    values = {s.name: s.at(1) for s in arm.changes.get("schedules", ())}
    return untrained(arm.spec.with_params(**values), **SMALL)


def test_answers_are_sums_of_earlier_waves():
    numbers, answers = make(3, 9, torch.Generator().manual_seed(0))
    x, y = numbers[..., 0], answers[..., 0]
    wanted = torch.stack([sum((torch.sin(3 * x[:, t - s]) for s in range(1, 6) if t >= s), torch.zeros(3)) for t in range(9)], 1)
    torch.testing.assert_close(y, wanted)
    assert torch.equal(numbers[..., 1], torch.ones(3, 9))


def test_no_rule_changes_the_forward_pass():
    plain = values_of(model_of("nothing"))
    for name in ARMS:
        assert torch.equal(values_of(model_of(name)), plain), name


@pytest.fixture(scope="module")
def taught() -> dict[str, dict[str, torch.Tensor]]:
    return {name: gradients(model_of(name).double()) for name in (*ARMS,)}


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[n] - other[n]).abs().max()) for n in other)


def test_the_ends_of_the_dials_are_rules(taught):
    for dial, rule in (("horizon_0", "nothing"), ("trickle_1", "nothing"), ("trickle_0", "stop_k_v")):
        assert apart(taught[dial], taught[rule]) < 1e-12, dial
    whole = untrained(text("horizon").with_params(horizon=23), **SMALL)
    assert apart(gradients(whole.double()), taught["stop_k_v"]) < 1e-12


def test_all_other_gradients_differ(taught):
    names = [n for n in ARMS if n not in ("horizon_0", "trickle_1", "trickle_0")]
    for place, name in enumerate(names):
        for other in names[:place]:
            assert apart(taught[name], taught[other]) > 1e-6, (name, other)


@pytest.mark.parametrize("name", ["stop_v", "stop_hidden"])
def test_gradients_of_the_reference_are_those_of_tiled(name, tmp_path):
    srt.save_model(model_of(name), tmp_path / "model.safetensors")
    found, largest = difference(tmp_path / "model.safetensors")
    assert found < 1e-12 < largest


def test_the_shortest_run_tells_the_rules_apart(tmp_path):
    """Two texts, one seed, a smaller model, fewer steps; and what has to hold of gradients holds where the run ended."""
    recipe = replace(RECIPE, **SMALL, words=10, batch=64, steps=250)
    found = run("pair", recipe, replace(TASK, examples=256), tmp_path, (0,))
    assert found.held_out("nothing").mean < 0.6 < 0.9 < found.held_out("stop_k_v").mean
    for name in found.names:
        off, largest = difference(tmp_path / "pair-250" / name / "seed-0" / "model.safetensors")
        assert off < 1e-12 < 1e-3 < largest
    kept = read_runs(tmp_path / "pair-250" / "runs.jsonl")
    made = page.blocks([{**line, "steps": page.SHORT} for line in kept])
    assert made["origin"].startswith("2 runs, seeds 0, 600 steps each; ")
    assert all(f"| {page.RULES[name]} |" in made["rules"] for name in found.names) and f"| {page.PAIRS['stop_k_v', 'nothing']} |" in made["rules_differences"]
    assert {name for name, text in made.items() if text == NOT_RUN} == {
        name for group in ("longer", "horizons", "trickles") for name in (group, f"{group}_differences")
    }
    assert page.pictures([{**line, "steps": page.SHORT} for line in kept])["rules.svg"].count("<circle") == 2
    # Runs of other steps than the page speaks of stand in no table.
    assert not page.pictures(kept) and page.blocks(kept)["rules"] == NOT_RUN
