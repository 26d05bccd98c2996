"""Recipes, files of choices, and schedules: what they mean, and what is refused."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from runs import RECIPE, SELF_REASONING, SPEC, learnt, run

import srt_masks as srt
from srt_masks.cli import main, training
from srt_masks.models import transformer
from srt_masks.training import recipe as recipe_module
from srt_masks.training.config import choices, read_config
from srt_masks.training.data import corpus
from srt_masks.training.loop import steps
from srt_masks.training.recipe import Recipe, check_recipe
from srt_masks.training.schedules import rate, read_schedule
from srt_masks.training.session import start
from srt_masks.training.strategy import Alone


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"words": 1}, "words is a whole number, 2 or more; got 1"),
        ({"steps": True}, "steps is a whole number, 1 or more; got True"),
        ({"steps": 2.5}, "whole number"),
        ({"validate_every": 0}, "validate_every"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**31}, "a seed is from 0 to 2147483647"),
        ({"schedules": "far=0@0"}, "schedules is a tuple of Schedule"),
        ({"schedules": ("far=0@0",)}, "schedules is a tuple of Schedule"),
        ({"learning_rate": 0.0}, "learning rate is more than 0 and at most 1"),
        ({"learning_rate": float("nan")}, "learning rate"),
        ({"clip": 0}, "clip"),
        ({"held_out": 1.0}, "held out"),
        ({"weight_decay": 1.0}, "weight decay"),
        ({"max_seconds": 0}, "max_seconds"),
        ({"autocast": "float16"}, "autocast is 'auto' or 'bfloat16' or 'off'"),
        ({"dtype": "bfloat16"}, "dtype"),
        ({"compile": 1}, "compile is true or false"),
        ({"batch": 6, "accumulate": 4}, "cannot be passed in 4 equal parts: give a batch= that is a multiple of 4"),
        ({"dim": 10**6}, "parameters, which train in"),
        ({"batch": 2**40, "accumulate": 2}, "at once are too large"),
    ],
)
def test_numbers_that_do_not_fit(change: dict, words: str):
    with pytest.raises(srt.InputError, match=words):
        check_recipe(replace(RECIPE, **change))


def test_a_batch_is_shared_by_processes():
    check_recipe(replace(RECIPE, batch=8, accumulate=2), shares=4)
    with pytest.raises(srt.InputError, match="on 4 processes: give a batch= that is a multiple of 8"):
        check_recipe(replace(RECIPE, batch=4, accumulate=2), shares=4)


LARGE = replace(RECIPE, batch=8, dim=1024, depth=20, heads=4, words=16)  # 0.9 GiB of weights, 3.8 to train


@pytest.mark.parametrize(
    ("processes", "has", "wanted"),
    [
        ({}, 3.9, None), ({}, 3.7, r"train in 3\.8 GiB; this machine has 3\.7"),
        # A batch that is divided makes no room for weights.
        ({"shares": 4}, 3.7, r"3\.8 GiB; this"), ({"shares": 4, "here": 4}, 15, r"train in 15\.2 GiB \(4 processes\); this machine has 15\.0"), ({"shares": 4, "here": 4}, 16, None),
        # Weights that are divided do, on machines of their own; all begin whole.
        ({"weight_shares": 4}, 1.1, None), ({"weight_shares": 8}, 0.8, r"in 0\.9 GiB"), ({"weight_shares": 4, "here": 4}, 4, None), ({"weight_shares": 4, "here": 4}, 3.7, r"3\.8 GiB"),
    ],
)  # fmt: skip
def test_memory_is_that_of_all_processes_on_a_machine(processes: dict, has: float, wanted: str | None, monkeypatch):
    monkeypatch.setattr(recipe_module, "memory_here", lambda: int(has * 2**30))
    with nullcontext() if wanted is None else pytest.raises(srt.InputError, match=rf"about 25\d,\d{{3}},\d{{3}} parameters, which .*{wanted}"):
        check_recipe(LARGE, **processes)


@pytest.mark.parametrize(
    ("processes", "machine", "card", "wanted"),
    [
        ({}, 1.1, 3.9, None), ({}, 1.1, 3.7, r"in 3\.8 GiB; a card has 3\.7"), ({"here": 4}, 3.7, 80, r"in 3\.8 GiB \(4 processes\); this machine has 3\.7"),
        ({"here": 4, "weight_shares": 4}, 4, 1.1, None), ({"here": 4, "weight_shares": 8}, 4, 0.4, r"in 0\.5 GiB.*; a card has 0\.4"),
    ],
)  # fmt: skip
def test_what_trains_on_a_card_is_to_fit_into_it(processes: dict, machine: float, card: float, wanted: str | None, monkeypatch):
    monkeypatch.setattr(recipe_module, "memory_here", lambda: int(machine * 2**30))
    monkeypatch.setattr(recipe_module, "card_memory", lambda device: int(card * 2**30))
    with nullcontext() if wanted is None else pytest.raises(srt.InputError, match=wanted):
        check_recipe(LARGE, **processes)


@pytest.mark.parametrize(("device", "found"), [("auto", 7), ("cuda", 7), ("cuda:0", 7), ("cpu", None)])
def test_the_memory_of_a_card_is_asked_where_one_is_meant(device: str, found: int | None, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: SimpleNamespace(total_memory=7))
    assert recipe_module.card_memory(device) == found
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert recipe_module.card_memory(device) is None


def test_flags_win_over_the_file_and_both_over_defaults(tmp_path: Path):
    path = tmp_path / "run.toml"
    path.write_text('dim = 32\nlearning_rate = 1\ntied = true\ndata = ["a", "b"]\n[schedules]\nhorizon = "0@0, 16@1000"\n')
    found = choices({"dim": None, "tied": None, "steps": 7, "learning_rate": 0.5, "data": None}, path)
    assert found.applied(Recipe()) == Recipe(dim=32, steps=7, learning_rate=0.5, tied=True, schedules=(read_schedule("horizon=0@0,16@1000"),))
    assert found.places == {"data": ["a", "b"]}
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))  # as an editor of Windows leaves it
    assert choices({}, path).places == {"data": ["a", "b"]}
    assert choices({"schedules": ["far=1@2"]}, path).applied(Recipe()).schedules == (read_schedule("far=1@2"),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dmi = 3", "a run has no `dmi`; did you mean `dim`"),
        ("dim = 'x'", "dim is int; got 'x'"),
        ("dim = true", "dim is int"),
        ("tied = 1", "tied is bool"),
        ("dim = ", "no TOML"),
        ("data = 'a'", "data is a list of files"),
        ("out = 3", "out is a path"),
        ("tensorboard = 'yes'", "tensorboard is true or false"),
        ("schedules = 3", "schedules is a table"),
        ("[schedules]\nhorizon = 'now'", "a schedule is NAME=VALUE@STEP"),
        ("\xff", "no TOML"),
    ],
)
def test_a_file_that_is_no_recipe(text: str, words: str, tmp_path: Path):
    path = tmp_path / "run.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(srt.InputError, match=words):
        choices({}, path)
    with pytest.raises(srt.InputError, match="cannot read"):
        read_config(tmp_path / "none.toml")


def test_the_file_reaches_the_command(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(training, "_report", lambda *_: None)
    config = tmp_path / "run.toml"
    config.write_text(f'dim = 8\ndepth = 1\nheads = 2\nwords = 8\nbatch = 2\nsteps = 50\nout = "{tmp_path / "run"}"\n')
    command = ["train", "examples/self_reasoning.mask", "--param", "reasons=1", "--config", str(config)]
    assert main([*command, "--steps", "2"]) == 0
    assert len(learnt(tmp_path / "run")) == 2
    assert main([*command, "--resume", "--steps", "3"]) == 0
    assert len(learnt(tmp_path / "run")) == 3
    assert main([*command, "--resume", "--heads", "1"]) == 2
    assert "heads = 2; here it is 1. Leave --heads out" in capsys.readouterr().err
    config.write_text("dmi = 8")
    assert main(command) == 2


# ------------------------------------------------------------------------------------------------ schedules


def test_the_rate_warms_up_and_falls_to_a_tenth():
    rates = [rate(step, 100, 10) for step in range(1, 101)]
    assert rates[:10] == [n / 10 for n in range(1, 11)] and max(rates) == 1.0
    assert rates[9:] == sorted(rates[9:], reverse=True) and abs(rates[-1] - 0.1) < 1e-12
    assert rate(1, 5, 40) == 1.0  # a short run warms up for a tenth of it at most


def test_a_param_goes_in_lines_from_point_to_point():
    schedule = read_schedule("horizon = 0@2, 4@10, 1@11")
    assert [schedule.at(n) for n in range(13)] == [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 1, 1]
    assert [read_schedule("far=0.0@0,1@4").at(n) for n in (0, 1, 4, 9)] == [0.0, 0.25, 1, 1]
    assert read_schedule(str(schedule)) == schedule
    assert [read_schedule("a=5@0,1@4").at(n) for n in range(5)] == [5, 4, 3, 2, 1]


@pytest.mark.parametrize(
    "text", ["horizon", "horizon=", "=1@2", "horizon=1", "horizon=1@2,3@2", "horizon=1@2,3@1", "horizon=1@-1", "horizon=x@1", "horizon=inf@1", "horizon=1@1.5"]
)
def test_what_is_no_schedule(text: str):
    with pytest.raises(srt.InputError, match="a schedule is NAME=VALUE@STEP"):
        read_schedule(text)


@pytest.mark.parametrize(
    ("schedules", "words"),
    [
        ("horizn=1@1", "no param `horizn`; did you mean `horizon`"),
        ("reasons=1@1", "the layout of this spec depends on `reasons`"),
        ("horizon=1@1 horizon=2@1", "`horizon` has two"),
        ("horizon=1@1,9@5", "horizon"),
        ("horizon=1.5@1", "horizon"),
    ],
)
def test_a_schedule_that_cannot_be_followed_is_refused_before_the_first_step(schedules: str, words: str, tmp_path: Path):
    spec = srt.parse(SELF_REASONING.replace("param horizon = 16", "param horizon = 2 given horizon < 5"), params={"reasons": 1})
    recipe = replace(RECIPE, schedules=tuple(map(read_schedule, schedules.split())))
    with pytest.raises(srt.InputError, match=words):
        run(tmp_path / "none", recipe=recipe, spec=spec)
    assert not (tmp_path / "none").exists()


def test_a_curriculum_is_what_the_model_is_called_with_and_compiles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    compiled, seen = [], []
    compile_spec, forward = transformer.compile_spec, transformer.SpecTransformer.forward
    monkeypatch.setattr(transformer, "compile_spec", lambda *a, **o: (compiled.append(1), compile_spec(*a, **o))[1])

    def watched(self, x, **options):
        if options.get("return_parts") and self.training:
            seen.append(options["inputs"]["horizon"])
        return forward(self, x, **options)

    monkeypatch.setattr(transformer.SpecTransformer, "forward", watched)
    run(tmp_path / "a", recipe=replace(RECIPE, accumulate=1, schedules=(read_schedule("horizon=0@1,7@8"),)))
    assert seen == list(range(8)) and compiled == [1]
    assert [line["params"] for line in learnt(tmp_path / "a")] == [{"horizon": n} for n in range(8)]


def test_a_constant_schedule_is_the_param_itself(tmp_path: Path):
    run(tmp_path / "a", recipe=replace(RECIPE, schedules=(read_schedule("horizon=1@1"),)))
    run(tmp_path / "b", spec=SPEC.with_params(horizon=1))
    run(tmp_path / "c")
    a, b, c = ([line["loss"] for line in learnt(tmp_path / x)] for x in "abc")
    assert a == b != c


# ------------------------------------------------------------------------------------------------ a step


def _session(recipe: Recipe):
    return start(SPEC, recipe, corpus([], recipe.words), Alone())


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_step_is_what_torch_says_it_is(accumulate: int):
    recipe = replace(RECIPE, accumulate=accumulate, dtype="float64", clip=0.5, weight_decay=0.3)
    session = _session(recipe)
    reports = list(islice(steps(session), 3))
    other = _session(recipe)
    optimiser = torch.optim.AdamW(other.model.parameters(), betas=(0.9, 0.98), weight_decay=0.3)
    for report in reports:
        optimiser.param_groups[0]["lr"] = 3e-3 * rate(report.step, recipe.steps, recipe.warm_up)
        loss = other.model(**other.task.draw(recipe.batch, recipe.words, other.generator), return_loss=True)
        optimiser.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(other.model.parameters(), 0.5)
        optimiser.step()
        assert abs(report.loss - loss.item()) < 1e-12 and abs(report.norm - norm.item()) < 1e-12 and norm > 0.5
    for a, b in zip(session.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_autocast_computes_in_bfloat16_and_keeps_weights():
    exact, rounded = _session(RECIPE), _session(replace(RECIPE, autocast="bfloat16"))
    a, b = next(steps(exact)), next(steps(rounded))
    assert a.loss != b.loss and abs(a.loss - b.loss) < 0.05
    assert {p.dtype for p in rounded.model.parameters()} == {torch.float32}


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # torch looks at it while it compiles
def test_compiled_blocks_take_the_same_steps(monkeypatch: pytest.MonkeyPatch):
    compiled = []
    plain = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: (compiled.append(self), plain(self, backend="eager"))[1])
    recipe = replace(RECIPE, compile=True, schedules=(read_schedule("horizon=1@1,3@3"),))
    session, other = _session(recipe), _session(replace(recipe, compile=False))
    for a, b in islice(zip(steps(session), steps(other), strict=True), 2):
        assert abs(a.loss - b.loss) < 1e-5
    assert compiled == list(session.model.blocks) and session.model.state_dict().keys() == other.model.state_dict().keys()


def test_a_loss_that_is_no_number_ends_the_run_before_it_reaches_the_weights():
    session = _session(RECIPE)
    with torch.no_grad():
        session.model.norm.weight.fill_(float("inf"))
    held = [p.clone() for p in session.model.blocks.parameters()]
    with pytest.raises(srt.InputError, match=r"the loss became nan at step 1: .*smaller learning_rate= than 0.003"):
        next(steps(session))
    assert session.step == 0 and all(torch.equal(a, b) for a, b in zip(held, session.model.blocks.parameters(), strict=True))


def test_a_device_that_is_not_here():
    with pytest.raises(srt.InputError, match=r"device is auto, or one that torch has here.*got 'abacus'"):
        _session(replace(RECIPE, device="abacus"))


def test_schedules_are_held_to_what_the_text_states_of_them_together(tmp_path: Path):
    spec = srt.parse(
        "param far = 4  param near = 2 given near <= far  layout repeat { token }  attend causal and q.pos - k.pos <= far  stop k where q.pos - k.pos < near\n"
        "predict token -> index + 1"
    )
    both = tuple(map(read_schedule, ("far=4@0,8@6", "near=2@0,8@6")))
    for place, schedules in enumerate((both, both[::-1])):  # near = 8 is right beside the far = 8 of its own step alone
        assert run(tmp_path / f"a{place}", spec=spec, recipe=replace(RECIPE, schedules=schedules)).steps == RECIPE.steps
    apart = tuple(map(read_schedule, ("far=4@0,1@6", "near=2@0,2@6")))  # near = 2 is right beside the text's own far = 4 alone
    with pytest.raises(srt.InputError, match="near"):
        run(tmp_path / "b", spec=spec, recipe=replace(RECIPE, schedules=apart))
    assert not (tmp_path / "b").exists()
