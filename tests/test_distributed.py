"""Two processes against one: training with every rank's own sequences, with shared ones, with shared weights. What they do stands in `ranks.py`.

They are started once for the whole session, whichever worker comes first."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ranks as cases
from conftest import ROOT
from filelock import FileLock

import srt_masks as srt
from srt_masks.cli import main
from srt_masks.distributed.ranks import LAUNCHED, start, watched

pytestmark = pytest.mark.timeout(600)  # two processes, beside whatever else the machine does
Found = list[dict[str, Any]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What each rank found, by case."""
    # The folder that all workers of a run have in common, if there are workers.
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "ranks"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / "lock"):
        if not (folder / "done").exists():
            run(folder)
            (folder / "done").touch()
    return [json.loads((folder / f"rank{r}.json").read_text()) for r in range(2)]


def run(folder: Path) -> None:
    with socket.socket() as first, socket.socket() as second, socket.socket() as third:
        for free in (first, second, third):
            free.bind(("127.0.0.1", 0))
        ports = {"MASTER_PORT": str(first.getsockname()[1]), "NEXT_PORT": str(second.getsockname()[1]), "THIRD_PORT": str(third.getsockname()[1])}
    shared = {**os.environ, **ports, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, str(ROOT / "tests" / "ranks.py"), str(folder)], env={**shared, "RANK": str(r), "LOCAL_RANK": str(r)}, cwd=folder,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for r in range(2)
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=450)[0] for process in started]
    finally:
        for process in started:
            process.kill()
            process.communicate()
    for r, output in enumerate(outputs):
        assert (folder / f"rank{r}.json").exists(), output


def of(found: Found, case: str) -> list[dict[str, Any]]:
    """What each rank found in a case."""
    both = [rank[case] for rank in found]
    for one in both:
        assert "error" not in one, one["error"]
    return both


@pytest.mark.parametrize("context", [1, 2])
@pytest.mark.parametrize("wrap", ["data_parallel", "fully_sharded"])
@pytest.mark.parametrize("name", cases.TEXTS)
def test_twenty_steps_are_those_of_one_process(found: Found, name: str, wrap: str, context: int):
    for one in of(found, f"{name}, {wrap}, context {context}"):
        assert one["losses"] < cases.MOST and one["weights"] < cases.MOST < 1e-2 < one["moved"]


def test_M2_a_window_on_two_ranks_is_that_of_one(found: Found):
    for one in of(found, "window"):
        assert one["apart"] < 1e-12 and one["from causal"] > 1e-3


def test_weights_that_a_call_does_not_ask_for_are_not_waited_for(found: Found):
    for one in of(found, "embedded"):
        assert one["apart"] < 1e-12 and one["fell"] > 1e-3


def test_a_rank_keeps_its_own_rows_alone(found: Found):
    both = of(found, "own rows")
    assert sum(one["rows"] for one in both) == 90 and both[0]["work"] == both[1]["work"]
    for one in both:
        assert 0 < one["rows"] < 90 and max(one["kept"]) < 90 and one["rows"] in one["kept"]


@pytest.mark.parametrize("case", ["run, ddp", "run, fsdp, shared"])
def test_a_run_is_that_of_one_process_and_goes_on_bit_for_bit(found: Found, case: str):
    for one in of(found, case):
        assert one["steps"] == one["clipped"] == cases.RECIPE.steps
        assert max(one["weights"], one["reports"], one["held out"]) < cases.MOST
        assert one["resumed"] == 0.0
        assert one["taught"] < cases.MOST < 1e-3 < one["taught, not fresh"]


def test_a_checkpoint_is_gone_on_with_by_ranks_that_have_other_parts(found: Found):
    for one in of(found, "cut otherwise"):
        assert max(one.values()) < cases.MOST


def test_what_cannot_be_written_or_read_is_said_on_every_rank(found: Found):
    both = of(found, "refused")
    assert both[0] == both[1]
    one = both[0]
    assert "on rank 1: [Errno 28] No space left on device; the checkpoint that was there before is whole" in one["full"] and one["step before"] == 2
    assert "whole" not in one, "the older checkpoint could not be gone on with"
    assert "is of a run with horizon = 3; here it is 4" in one["another spec"]
    assert "shard-00002" in one["broken"] and "it is broken" in one["broken"]
    assert "latest.json: it is no JSON" in one["no json"]


def test_a_rank_that_does_not_come_is_not_waited_for(found: Found):
    one, _ = of(found, "late")
    assert one["said"].startswith("rank 0 lost another rank: it has died, or did not answer in time") and "Start again. (torch says" in one["said"]
    assert 1.5 < one["seconds"] < 20


def test_a_rank_that_is_killed_leaves_an_error_and_the_last_checkpoint(found: Found):
    assert "dies" not in found[1]
    one = found[0]["dies"]
    assert "error" not in one and "rank 0 lost another rank" in one["said"] and "Go on with it." in one["said"]
    assert one["step"] == 2 and one["seconds"] < 60


def test_the_command_runs_under_torchrun_and_one_rank_speaks(found: Found):
    first, second = of(found, "command")
    assert first["code"] == second["code"] == 0 and first["left"] and second["left"]
    assert "held out" in first["printed"] and not second["printed"]


def test_several_processes_are_started_by_torchrun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.delenv("RANK", raising=False)
    arguments = ["train", str(ROOT / "examples" / "self_reasoning.mask"), "--out", str(tmp_path), "--parallel", "ddp"]
    assert main(arguments) == 2
    assert "several processes are started by torchrun, which sets RANK" in capsys.readouterr().err and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("context", "words"), [(0, "1 or more; got 0"), (True, "got True"), (3, "3 processes share each sequence, and 2 are no multiple of that")]
)
def test_processes_that_cannot_be_divided(context: Any, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    for name in LAUNCHED:
        monkeypatch.setenv(name, "2" if name == "WORLD_SIZE" else "0")
    with pytest.raises(srt.InputError, match=words):
        start(context)
    if context is not True:
        arguments = ["train", str(ROOT / "examples" / "self_reasoning.mask"), "--out", str(tmp_path), "--context-parallel", str(context)]
        assert main(arguments) == 2 and words in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_other_errors_are_no_lost_rank():
    with pytest.raises(RuntimeError, match="out of luck"), watched("Start again."):
        raise RuntimeError("out of luck")
    with pytest.raises(srt.BackendError), watched("Start again."):
        raise srt.BackendError("a connection reset by one of ours")
