"""Runs that are broken off go on bit for bit; what cannot be gone on with is refused in words, and the last checkpoint is whole whatever happens."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import RECIPE, SELF_REASONING, SPEC, learnt, lines, run
from safetensors.torch import load_file, safe_open, save_file

import srt_masks as srt
from srt_masks.models import tensor_files
from srt_masks.training.schedules import read_schedule
from srt_masks.training.stop import Stop

CURRICULUM = replace(RECIPE, schedules=(read_schedule("horizon=1@1,4@8"),))


class Break(Exception):
    """A run that ends in the middle."""


def break_at(step: int, action=None):
    def watch(report):
        if report.step == step:
            if action is None:
                raise Break
            action()

    return watch


def interrupt(number: int):
    return lambda: os.kill(os.getpid(), number)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole")
    run(out, recipe=CURRICULUM)
    return out


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> Path:
    """Broken off after step 5, when step 3 was the last that was saved."""
    out = tmp_path_factory.mktemp("broken")
    with pytest.raises(Break):
        run(out, recipe=CURRICULUM, watch=break_at(5))
    return out


@pytest.fixture
def cut(broken: Path, tmp_path: Path) -> Path:
    """The same, to be written to."""
    for file in broken.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.fixture(autouse=True)
def in_the_foreground() -> Iterator[None]:
    """As in a terminal: where these tests themselves run in a shell's background, they are deaf to Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def assert_same(out: Path, whole: Path) -> None:
    for name in ("model.safetensors", "training.safetensors"):
        a, b = load_file(out / name), load_file(whole / name)
        assert a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a), name
    assert learnt(out) == learnt(whole)
    assert lines(out)[-1]["held_out_bits_per_byte"] == lines(whole)[-1]["held_out_bits_per_byte"]


def test_a_run_that_crashed_goes_on_bit_for_bit(cut: Path, whole: Path):
    assert [x["step"] for x in learnt(cut)] == [1, 2, 3, 4, 5]
    torch.manual_seed(123)  # what is random comes from the file
    run(cut, recipe=CURRICULUM, begin="resume")
    assert_same(cut, whole)
    assert [x["event"] for x in lines(cut) if "event" in x] == ["begin", "resume", "end"]


@pytest.mark.parametrize(("number", "left"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_run_that_is_asked_to_stop_saves_and_goes_on(number: int, left: type[BaseException], tmp_path: Path, whole: Path):
    before = signal.getsignal(number)
    with pytest.raises(left) as stopped:
        run(tmp_path, recipe=CURRICULUM, watch=break_at(4, interrupt(number)))
    assert signal.getsignal(number) is before
    assert left is KeyboardInterrupt or stopped.value.code == 143
    assert said(tmp_path / "training.safetensors")["step"] == 4
    assert lines(tmp_path)[-1] == {"event": "interrupted", "step": 4, "checkpoint": str(tmp_path / "training.safetensors")}
    run(tmp_path, recipe=CURRICULUM, begin="resume")
    assert_same(tmp_path, whole)


def test_what_is_random_goes_on_where_it_was(tmp_path: Path):
    """torch's own random numbers, which a module of somebody else's may draw, beside those of the data."""
    drawn: dict[str, list[float]] = {"whole": [], "cut": []}

    def watch(name: str, last: int):
        return lambda report: (drawn[name].append(torch.rand(()).item()), break_at(last)(report))

    run(tmp_path / "whole", watch=watch("whole", 0))
    with pytest.raises(Break):
        run(tmp_path / "cut", watch=watch("cut", 3))
    with pytest.raises(Break):  # step 3 was not saved, as the run broke before
        run(tmp_path / "cut", begin="resume", watch=watch("cut", 2))
    assert drawn["cut"] == [*drawn["whole"][:3], drawn["whole"][1]]


def test_asked_to_stop_in_the_last_step_a_run_ends(tmp_path: Path):
    run(tmp_path, watch=break_at(RECIPE.steps, interrupt(signal.SIGINT)))
    assert lines(tmp_path)[-1]["event"] == "end"


@pytest.mark.parametrize("says", [False, True])
def test_a_second_ctrl_c_stops_at_once(says: bool, capfd):
    with Stop(says=says) as stop:
        interrupt(signal.SIGINT)()
        assert stop.asked == signal.SIGINT
        assert ("stopping when this step is done" in capfd.readouterr().err) == says
        with pytest.raises(KeyboardInterrupt):
            interrupt(signal.SIGINT)()


def test_a_run_that_is_deaf_to_ctrl_c_stays_so():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Stop() as stop:
            interrupt(signal.SIGINT)()
            assert stop.asked is None
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_state_holds_everything_that_a_step_changes(whole: Path):
    names = set(load_file(whole / "training.safetensors"))
    model = {n.removeprefix("model.") for n in names if n.startswith("model.")}
    assert model == set(srt.load_model(whole / "model.safetensors").state_dict())
    moments = {f"optimiser.{n}.{m}" for n in model for m in ("step", "exp_avg", "exp_avg_sq")}
    assert names == {f"model.{n}" for n in model} | moments | {"random.torch", "random.data", "random.cuda"}
    assert srt.load_model(whole / "model.safetensors").spec.params["horizon"] == 4  # that of the last step
    with pytest.raises(srt.InputError, match="its model lies beside it"):
        srt.load_model(whole / "training.safetensors")


def test_more_steps_and_another_rate_may_be_asked_for(cut: Path):
    result = run(cut, recipe=replace(CURRICULUM, steps=10, learning_rate=1e-3, save_every=5, accumulate=4), begin="resume")
    assert result.steps == 10 and [x["step"] for x in learnt(cut)] == list(range(1, 11))


def test_a_run_that_has_not_ended_is_not_written_over(cut: Path):
    held = (cut / "training.safetensors").read_bytes()
    with pytest.raises(srt.InputError, match=r"step 3 of 8.*go on with it \(resume=\)"):
        run(cut, recipe=CURRICULUM, begin="new")
    assert (cut / "training.safetensors").read_bytes() == held
    run(cut, recipe=CURRICULUM, begin="over")
    assert len(learnt(cut)) == 8


@pytest.mark.parametrize("left", ["all", "model.safetensors"])
def test_a_run_that_has_ended_is_not_written_over(left: str, whole: Path, tmp_path: Path):
    kept = shutil.copytree(whole, tmp_path / "kept", ignore=lambda _, names: [] if left == "all" else [n for n in names if n != left])
    held = {p.name: p.read_bytes() for p in kept.iterdir()}
    with pytest.raises(srt.InputError, match=r"kept holds a (run that ended at step 8|model), .*begin anew all the same \(restart=\)"):
        run(kept, recipe=CURRICULUM, begin="new")
    assert {p.name: p.read_bytes() for p in kept.iterdir()} == held
    run(kept, recipe=replace(CURRICULUM, steps=4), begin="over")
    assert len(learnt(kept)) == 4


# ------------------------------------------------------------------------------------------------ what is refused


def changed(path: Path, **about: str) -> None:
    """The same tensors under other texts."""
    with safe_open(path, "pt") as file:
        texts = {**file.metadata(), **about}
    save_file(load_file(path), path, texts)


def said(path: Path) -> dict:
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["run"])


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def a_pickle(path: Path) -> None:
    torch.save({"x": torch.zeros(3)}, path)


def a_bare_pickle(path: Path) -> None:
    import pickle

    path.write_bytes(pickle.dumps(print))


def a_model(path: Path) -> None:
    path.write_bytes((path.parent / "model.safetensors").read_bytes())


def lacking(path: Path) -> None:
    with safe_open(path, "pt") as file:
        texts = file.metadata()
    save_file({n: t for n, t in load_file(path).items() if not n.endswith("norm.weight.exp_avg")}, path, texts)


def misshapen(path: Path) -> None:
    with safe_open(path, "pt") as file:
        texts = file.metadata()
    save_file({n: t.double() if n == "model.norm.weight" else t for n, t in load_file(path).items()}, path, texts)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda p: p.unlink(), "no such file"),
        (cut_short, "it is broken"),
        (a_pickle, "it is a pickle"),
        (a_bare_pickle, "it is a pickle"),
        (lambda p: p.write_bytes(b""), "it is broken"),
        (a_model, "no checkpoint of a run"),
        (lambda p: save_file({"x": torch.zeros(1)}, p), "no checkpoint of srt_masks"),
        (lambda p: changed(p, format="srt_masks training 2"), "says `srt_masks training 2`; this version reads `srt_masks training 1`"),
        (lambda p: changed(p, run="{"), "cannot read"),
        (lambda p: changed(p, run="[]"), "cannot read"),
        (lambda p: changed(p, run=json.dumps({**said(p), "recipe": {"dim\x1b[2J": 1}})), "cannot read"),
        (lacking, "lacks optimiser"),
        (misshapen, r"model.norm.weight is torch.float64 .* this run has torch.float32"),
    ],
)
def test_a_file_that_is_no_checkpoint_of_this_run(damage, words: str, cut: Path):
    damage(cut / "training.safetensors")
    held = {p.name: p.read_bytes() for p in cut.iterdir()}
    with pytest.raises(srt.InputError, match=words) as error:
        run(cut, recipe=CURRICULUM, begin="resume")
    assert "training.safetensors" in str(error.value) and "\x1b" not in str(error.value)
    assert {p.name: p.read_bytes() for p in cut.iterdir()} == held


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"spec": srt.parse(SELF_REASONING.replace("attend causal", "attend causal and window(9)"), params={"reasons": 1})},
            "another spec: line 20 is `attend causal` there",
        ),
        (
            {
                "spec": srt.parse(
                    "# changed\n" + SELF_REASONING.replace("attend causal", "attend causal  # as ever") + "\nassert no leak", params={"reasons": 1}
                )
            },
            "another spec: line 31 is `nothing` there and `assert no leak` here",
        ),
        ({"spec": SPEC.with_params(horizon=3)}, "horizon = 16; here it is 3. Give --param horizon=16"),
        ({"recipe": replace(CURRICULUM, batch=8)}, "batch = 4; here it is 8. Leave batch= out"),
        ({"recipe": RECIPE}, r"schedules = horizon=1@1,4@8; here it is none"),
        ({"recipe": replace(CURRICULUM, steps=2)}, "step 3, beyond the 2"),
        ({"files": [Path("README.md"), Path("docs/language.md")]}, "other data: Python's reference"),
    ],
)
def test_another_run_is_told_apart(change: dict, words: str, cut: Path):
    held = {p.name: p.read_bytes() for p in cut.iterdir()}
    with pytest.raises(srt.InputError, match=words):
        run(cut, **{"recipe": CURRICULUM, **change}, begin="resume")
    assert {p.name: p.read_bytes() for p in cut.iterdir()} == held


def test_a_run_is_gone_on_with_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its files are kept by the names they were given, and a relative one may be of no file there."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    for folder in (home, elsewhere):
        folder.mkdir()
    (home / "a text").write_text("A short text, said again and again. " * 20)
    monkeypatch.chdir(home)
    run(Path("run"), [Path("a text")], replace(RECIPE, steps=1))
    monkeypatch.chdir(elsewhere)
    with pytest.raises(srt.InputError, match=r"a run with data from a text, a name that was given in another folder.* or give data= again"):
        run(home / "run", recipe=replace(RECIPE, steps=2), begin="resume")
    assert run(home / "run", [home / "a text"], replace(RECIPE, steps=2), begin="resume").steps == 2
    monkeypatch.chdir(home)
    assert run(Path("run"), recipe=replace(RECIPE, steps=3), begin="resume").steps == 3  # and by its new name, wherever one is


def test_another_comment_is_no_other_spec(cut: Path, whole: Path):
    text = "# why not\n\n" + SELF_REASONING.replace("attend causal", "attend\n  causal  # of course")
    run(cut, recipe=CURRICULUM, spec=srt.parse(text, params={"reasons": 1}), begin="resume")
    assert learnt(cut) == learnt(whole)


# ------------------------------------------------------------------------------------------------ a full disk


def test_what_a_killed_run_left_half_written_is_cleared(cut: Path):
    (cut / ".training.safetensors.123.part").write_bytes(b"half of it")
    run(cut, recipe=replace(CURRICULUM, steps=4), begin="resume")
    assert not list(cut.glob(".*"))


def test_a_full_disk_costs_no_checkpoint(cut: Path, whole: Path, monkeypatch: pytest.MonkeyPatch):
    held = {name: (cut / name).read_bytes() for name in ("model.safetensors", "training.safetensors")}

    def full(tensors, path, metadata):
        Path(path).write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tensor_files, "save_file", full)
        with pytest.raises(srt.InputError, match=r"cannot write .*training.safetensors, of .* MiB: .*No space left.*before is whole. Make room"):
            run(cut, recipe=CURRICULUM, begin="resume")
    assert {name: (cut / name).read_bytes() for name in held} == held
    assert not [p.name for p in cut.iterdir() if p.name.endswith(".part")]
    run(cut, recipe=CURRICULUM, begin="resume")
    assert_same(cut, whole)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_log_that_cannot_be_written_says_so(tmp_path: Path):
    (tmp_path / "log.jsonl").symlink_to("/dev/full")
    with pytest.raises(srt.InputError, match=r"log.jsonl: No space left on device.*make room"):
        run(tmp_path)


def test_what_stops_a_file_being_written_leaves_no_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "x.safetensors"
    tensor_files.write_tensors(path, {"x": torch.ones(2)}, {})
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        tensor_files.write_tensors(path, {"x": torch.zeros(2)}, {})
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"] and torch.equal(load_file(path)["x"], torch.ones(2))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize("closed", (0o022, 0o027, 0o077))
def test_a_file_is_open_to_whom_any_other_is(closed: int, tmp_path: Path):
    """save_file's own is its owner's alone: a colleague could read the log of a run, and not its model."""
    before = os.umask(closed)
    try:
        tensor_files.write_tensors(tmp_path / "x.safetensors", {"x": torch.ones(2)}, {})
    finally:
        os.umask(before)
    assert (tmp_path / "x.safetensors").stat().st_mode & 0o777 == 0o666 & ~closed


def test_a_checkpoint_holds_the_same_tensors_wherever_it_was_written(whole: Path):
    """So that a run may go on with a GPU that began without, or without one."""
    found = load_file(whole / "training.safetensors")
    assert found["random.cuda"].shape == (16,) and found["random.cuda"].dtype is torch.uint8 and not bool(found["random.cuda"].any())


def test_a_folder_is_said_to_be_that_of_several_processes(tmp_path: Path):
    (tmp_path / "training.safetensors").mkdir()
    with pytest.raises(srt.InputError, match="FSDP2 keeps its checkpoint in one: go on with it under torchrun"):
        run(tmp_path, begin="resume")
