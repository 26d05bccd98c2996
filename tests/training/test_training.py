"""Training runs: what they write, that they are repeated and resumed bit for bit, and what is refused before anything is lost."""

from __future__ import annotations

import io
import json
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT

import srt_masks as srt
from srt_masks.cli import main
from srt_masks.cli.parser import parser
from srt_masks.training.data import corpus
from srt_masks.training.recipe import Recipe
from srt_masks.training.train import train

SELF_REASONING = (ROOT / "examples" / "self_reasoning.mask").read_text()


def test_training_writes_what_it_promises(tmp_path: Path):
    recipe = Recipe(dim=16, depth=1, heads=2, words=12, batch=4, steps=30, save_every=10, warm_up=2)
    result = train(srt.parse(SELF_REASONING, params={"reasons": 1}), recipe, tmp_path / "run", quiet=True)
    lines = [json.loads(x) for x in result.log.read_text().splitlines()]
    assert [x["event"] for x in lines if "event" in x] == ["begin", "end"]
    losses = [x["loss"] for x in lines if "loss" in x]
    assert len(losses) == 30 and losses[-1] < losses[0] - 0.5
    assert lines[-1]["held_out_bits_per_byte"] == result.held_out < 7.5
    assert result.plot.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    written = srt.sample(srt.load_model(result.checkpoint), b"The ", 20, words=12, seed=3)
    assert written == srt.sample(result.model, b"The ", 20, words=12, seed=3) and len(written) == 20
    again = train(srt.parse(SELF_REASONING, params={"reasons": 1}), recipe, tmp_path / "again", quiet=True)
    assert [x["loss"] for x in map(json.loads, again.log.read_text().splitlines()) if "loss" in x] == losses


@pytest.mark.parametrize(
    "text",
    ["attend causal", "input d: int per token\nattend causal and q.d == k.d\npredict token -> index + 1", "assert no flow where k.pos > q.pos\nattend causal"],
)
def test_a_spec_that_cannot_train_costs_no_older_checkpoint(text: str, tmp_path: Path):
    files = {tmp_path / name: f"precious {name}".encode() for name in ("model.safetensors", "log.jsonl", "loss.png")}
    for path, content in files.items():
        path.write_bytes(content)
    with pytest.raises((srt.InputError, srt.SpecError)):
        train(srt.parse(text), Recipe(dim=16, depth=1, heads=2, words=12, batch=2, steps=2), tmp_path, quiet=True)
    assert {path: path.read_bytes() for path in files} == files and len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("name", ["model.safetensors", "training.safetensors", "loss.png"])
def test_a_folder_in_the_place_of_a_file_is_said_before_the_first_step(name: str, tmp_path: Path):
    (tmp_path / name).mkdir()
    with pytest.raises(srt.InputError, match=f"{name}: it is a folder"):
        train(srt.parse(SELF_REASONING), Recipe(dim=16, depth=1, heads=2, words=12, batch=2, steps=2), tmp_path, quiet=True)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_ctrl_c_before_the_first_checkpoint_says_that_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("srt_masks.training.train.train", interrupted)
    assert main(["train", "examples/self_reasoning.mask", "--out", str(tmp_path / "none")]) == 130
    assert capsys.readouterr().err.strip() == "stopped before the first step: nothing was saved"


def test_ctrl_c_leaves_the_last_checkpoint_whole(tmp_path: Path):
    command = [
        sys.executable,
        "-m",
        "srt_masks",
        "train",
        "examples/self_reasoning.mask",
        "--param",
        "reasons=2",
        "--out",
        str(tmp_path),
        "--steps",
        "100000",
        "--words",
        "8",
        "--batch",
        "2",
        "--dim",
        "16",
        "--depth",
        "1",
        "--heads",
        "2",
    ]
    # A run that a shell put into the background is deaf to Ctrl-C, and its children inherit that.
    hears = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **hears)
    log = tmp_path / "log.jsonl"
    deadline = time.time() + 60
    while time.time() < deadline and not (log.exists() and log.read_text().count("\n") > 5):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130 and "Traceback" not in said and "The last checkpoint is whole" in said
    told = said.partition("go on: ")[2].splitlines()[0]
    assert told == f"srt-masks train examples/self_reasoning.mask --param reasons=2 --out {tmp_path} --resume"
    srt.load_model(tmp_path / "model.safetensors")
    stopped = json.loads(log.read_text().splitlines()[-1])
    assert stopped["event"] == "interrupted"
    # What was told is enough: sizes are kept.
    assert main([*shlex.split(told)[1:], "--steps", str(stopped["step"] + 1)]) == 0
    assert srt.load_model(tmp_path / "model.safetensors").config.dim == 16


def test_the_command_keeps_a_run_by_the_name_of_its_spec_and_writes_over_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = "layout repeat { token }\nattend causal\npredict token -> index + 1"
    Path("mine.mask").write_text(text)
    sizes = ["--steps", "1", "--dim", "8", "--depth", "1", "--heads", "2", "--words", "8", "--batch", "2"]
    for spec, name in (("mine.mask", "mine"), ("zoo:self reasoning", "self-reasoning"), ("-", "stdin")):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))
        assert main(["train", spec, *sizes]) == 0
        assert (Path("runs") / name / "model.safetensors").exists()
    said = capsys.readouterr().out
    assert "prompt:\nThe \n\nwhat it writes after that:\n" in said
    held = Path("runs/mine/log.jsonl").read_bytes()
    assert main(["train", "mine.mask", *sizes]) == 2
    assert "begin anew all the same (--restart)" in capsys.readouterr().err and Path("runs/mine/log.jsonl").read_bytes() == held
    assert main(["demo", "mine.mask", "--quick", "--out", "runs/mine"]) == 2
    assert "(--restart)" in capsys.readouterr().err and Path("runs/mine/log.jsonl").read_bytes() == held
    assert main(["train", "mine.mask", *sizes, "--restart"]) == 0
    assert Path("runs/mine/log.jsonl").read_bytes() != held


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("layout repeat { think * 2, token }\nattend causal\nposition step\npredict think -> index + 1", ""),  # rows in front of a word, in its own step
        ("attend k.pos // 3 <= q.pos // 3\npredict token -> index + 3", ""),  # rows that look at later ones
        ("attend causal\npredict token -> index + 1 where step < 2", r"\(nothing: no row of this spec predicts the token that comes next"),
    ],
)
def test_a_run_ends_with_what_the_model_writes_or_why_it_writes_nothing(text: str, written: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    spec = tmp_path / "some.mask"
    spec.write_text(text)
    sizes = ["--steps", "1", "--dim", "8", "--depth", "1", "--heads", "2", "--words", "8", "--batch", "2"]
    assert main(["train", str(spec), *sizes, "--out", str(tmp_path / "run")]) == 0
    said = re.search(r"what it writes after that:\n(.*)\n\ncheckpoint .*model.safetensors\n", capsys.readouterr().out, re.DOTALL)
    assert said is not None
    assert re.match(written, said[1]) if written else len(said[1]) > 50 and not said[1].startswith("(nothing: ")


def test_what_is_usual_is_said_by_the_recipe():
    parsers = next(a.choices for a in parser()._actions if isinstance(a.choices, dict))
    for command in ("train", "compare"):
        said = {a.dest: a.help or "" for a in parsers[command]._actions}
        assert all(said.values())
        for field in fields(Recipe):
            if field.name in said and isinstance(field.default, int | float | str) and not isinstance(field.default, bool) and field.name != "device":
                assert (
                    f"(default {field.default:g})" in said[field.name] if isinstance(field.default, float) else f"(default {field.default})" in said[field.name]
                )


def test_data_is_read_or_refused(tmp_path: Path):
    (tmp_path / "bytes").write_bytes(bytes(range(256)) * 20)
    data = corpus([tmp_path / "bytes"], 16)
    assert len(data.train) == 4608 and len(data.held_out) == 512
    batch = data.draw(3, 16, torch.Generator().manual_seed(0))["x"]
    assert batch.shape == (3, 16) and bool(((batch[:, 1:] - batch[:, :-1]) % 256 == 1).all())
    assert len(corpus([], 16).train) > 100_000
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "short").write_bytes(b"abc")
    for name, words in (("empty", "empty"), ("short", "too few"), ("missing", "cannot read"), (".", "cannot read")):
        with pytest.raises(srt.InputError, match=words):
            corpus([tmp_path / name], 16)
