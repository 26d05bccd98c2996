"""Runs in processes of their own: what they learn is what one process would have learnt; however one ends, the others are saved, and nobody is left behind."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from conftest import ROOT
from runs import RECIPE, SPEC, lines
from safetensors.torch import load_file

import srt_masks as srt
from srt_masks.cli import main
from srt_masks.training import comparison, jobs, worker
from srt_masks.training.comparison import compare
from srt_masks.training.jobs import run_together
from srt_masks.training.loop import Report
from srt_masks.training.made import Numbers
from srt_masks.training.strategy import Alone
from srt_masks.training.worker import STOP, Ended, Failed, Job, Settings, Stopped, work

PLAIN = "layout repeat { token }\nattend causal\npredict token -> index + 1"
SPECS = {"plain": srt.parse(PLAIN), "near": srt.parse(PLAIN.replace("causal", "causal and window(3)"))}
SMALL = replace(RECIPE, steps=150, save_every=40)


class Late(Alone):
    """A process that breaks at the third step, with an error that does not travel."""

    def __init__(self) -> None:
        self.count = 0

    def clip(self, model: Any, most: float) -> float:
        self.count += 1
        if self.count == 3:
            raise Broken("a", "b")
        return super().clip(model, most)


class Broken(Exception):
    def __init__(self, one: str, other: str):
        super().__init__(f"{one} and {other}")


def compared(out: Path, count: int, **options: Any) -> Any:
    with patch("srt_masks.training.train.draw_loss"), patch("srt_masks.training.comparison.draw_comparison"):
        return compare(SPECS, SMALL, out, seeds=(0, 1), quiet=True, jobs=count, **options)


@contextmanager
def when_heard_of(names: Any, do: Callable[[comparison.Trial], None], seed: int = 0) -> Iterator[None]:
    """While it is entered, what a comparison does when it first hears of a step of such a run."""
    watch, done = comparison._Bars.watch, []

    def watched(self: Any, trial: comparison.Trial) -> Any:
        def seen(report: Report) -> None:
            watch(self, trial)(report)
            if not done and trial.name in names and trial.recipe.seed == seed:
                done.append(None)
                do(trial)

        return seen

    with patch.object(comparison._Bars, "watch", watched):
        yield


@pytest.fixture(autouse=True)
def hears_ctrl_c() -> Iterator[None]:
    """Whatever the shell says that began the tests: what runs in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By one process, one run after another."""
    out = tmp_path_factory.mktemp("whole")
    compared(out, 1)
    return out


def weights(out: Path) -> dict[str, torch.Tensor]:
    return {f"{run.parent.name}/{run.name}/{n}": t for run in out.glob("*/seed-*") for n, t in load_file(run / "training.safetensors").items()}


def same(one: Path, other: Path) -> bool:
    """Model, optimiser and random states of every run, to the bit, and what the logs say of them."""
    a, b = weights(one), weights(other)
    ends = [[e["held_out_bits_per_byte"] for run in sorted(out.glob("*/seed-*")) for e in lines(run)[-1:]] for out in (one, other)]
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a) and ends[0] == ends[1]


def ends(out: Path) -> list[str | None]:
    """What the logs of all runs say last, seed by seed."""
    return [lines(run)[-1].get("event") for seed in (0, 1) for name in SPECS if (run := out / name / f"seed-{seed}").exists()]


# ------------------------------------------------------------------------------------------------ all of it


def test_whatever_ends_them_runs_go_on_to_what_one_process_learns(whole: Path, tmp_path: Path):
    """First a process is killed, then there is Ctrl-C, as a terminal sends it, when two runs have ended; one process does the rest."""

    def kill(trial: comparison.Trial) -> None:
        multiprocessing.active_children()[0].kill()

    with when_heard_of(SPECS, kill), pytest.raises(srt.Error, match=r"(plain|near), seed 0: its process was ended from outside, by SIGKILL.*goes on"):
        compared(tmp_path, 2)
    assert not multiprocessing.active_children() and set(ends(tmp_path)) <= {"interrupted", None}

    def interrupt(trial: comparison.Trial) -> None:
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with when_heard_of(["near"], interrupt, seed=1), pytest.raises(KeyboardInterrupt):
        compared(tmp_path, 2)
    assert not multiprocessing.active_children() and ends(tmp_path).count("end") >= 2 and "interrupted" in ends(tmp_path)
    found = compared(tmp_path, 1)
    assert same(whole, tmp_path) and [(o.name, o.seed) for o in found.outcomes] == [(n, s) for s in (0, 1) for n in SPECS]
    assert [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()] == [o.plain() for o in found.outcomes]


def test_a_run_that_fails_ends_the_others_after_their_checkpoints(tmp_path: Path):
    good = {"spec": SPEC, "recipe": replace(RECIPE, steps=10**6, save_every=10**6), "files": (), "validation": ()}
    given = [Job.of("good, seed 3", out=tmp_path / "good", **good), Job.of("bad, seed 4", out=tmp_path / "bad", **good, strategy=Late())]
    seen: list[str] = []
    with pytest.raises(RuntimeError, match="Broken: a and b") as caught:
        run_together(given, 2, lambda job, report: seen.append(job.name), lambda job: pytest.fail(f"{job.name} ended"), quiet=True)
    (note,) = caught.value.__notes__
    assert "in the run bad, seed 4" in note and "in clip" in note and not multiprocessing.active_children()
    # It may have been stopped before its first step, while it was still beginning.
    assert not (tmp_path / "good" / "log.jsonl").exists() or lines(tmp_path / "good")[-1]["event"] == "interrupted"


def test_when_whoever_began_them_is_killed_processes_save_and_go(tmp_path: Path):
    run = "run_together([Job.of('a', spec=spec, recipe=recipe, out=out, files=())], 2, print, print)"
    process = subprocess.Popen(
        [sys.executable, script(tmp_path, f"if __name__ == '__main__':\n    {run}")], cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True
    )
    _until(lambda: (tmp_path / "out" / "log.jsonl").exists() and len(lines(tmp_path / "out")) > 3)
    process.kill()
    process.wait()
    _until(lambda: not _lives(process.pid))
    assert lines(tmp_path / "out")[-1]["event"] == "interrupted"
    assert load_file(tmp_path / "out" / "training.safetensors")


def test_a_script_that_would_begin_again_in_every_process_is_told_so(tmp_path: Path):
    run = "check_jobs(2)\nrun_together([Job.of('a', spec=spec, recipe=recipe, out=out, files=())], 2, print, print)"
    done = subprocess.run([sys.executable, script(tmp_path, run)], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1 and done.stderr.count("Traceback") == 1 and 'put what it does under `if __name__ == "__main__":`' in done.stderr


def script(folder: Path, run: str) -> Path:
    """That a user might have written."""
    path = folder / "script.py"
    path.write_text(
        "from pathlib import Path\nimport srt_masks as srt\nfrom srt_masks.training.jobs import check_jobs, run_together\n"
        "from srt_masks.training.recipe import Recipe\nfrom srt_masks.training.worker import Job\n"
        f"spec = srt.parse({PLAIN!r})\nrecipe = Recipe(dim=8, depth=1, heads=2, words=8, batch=4, steps=10**6, save_every=10**6)\n"
        f"out = Path({str(folder / 'out')!r})\n{run}\n"
    )
    return path


def _until(what: Any) -> None:
    deadline = time.time() + 60
    while not what():
        assert time.time() < deadline
        time.sleep(0.05)


def _lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


# ------------------------------------------------------------------------------------------------ what is refused before anything begins


def test_what_cannot_be_handed_over_is_refused_before_anything_is_written(tmp_path: Path):
    noise = Numbers(
        "noise",
        lambda count, words, generator: (torch.rand(count, words, 2, generator=generator), torch.rand(count, words, 1, generator=generator)),
        2,
        examples=16,
    )
    specs = {"plain": srt.parse("attend causal\npredict token -> index"), "near": srt.parse("attend causal and window(3)\npredict token -> index")}
    with pytest.raises(srt.InputError, match=r"plain, seed 0: jobs= hands every run to a process of its own.*no lambda"):
        compare(specs, SMALL, tmp_path / "out", task=noise, seeds=[0], quiet=True, jobs=2)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("count", [0, -1, True, 2.0, "2"])
def test_jobs_are_a_whole_number(count: Any, tmp_path: Path):
    with pytest.raises(srt.InputError, match="jobs is how many runs go on at once"):
        compared(tmp_path, count)


def test_the_command_takes_jobs(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "a.mask").write_text(PLAIN)
    (tmp_path / "b.mask").write_text(PLAIN)
    assert main(["compare", str(tmp_path / "a.mask"), str(tmp_path / "b.mask"), "--jobs", "0", "--out", str(tmp_path / "out")]) == 2
    assert "jobs is how many runs" in capsys.readouterr().err


def test_where_processes_cannot_begin_it_is_said():
    with patch.object(sys.modules["__main__"], "__spec__", None), patch.object(sys.modules["__main__"], "__file__", "<stdin>", create=True):
        with pytest.raises(srt.InputError, match="there is no file <stdin>"):
            jobs.check_jobs(2)
        jobs.check_jobs(1)
    with patch.dict(multiprocessing.current_process()._config, daemon=True), pytest.raises(srt.InputError, match="daemonic"):
        jobs.check_jobs(2)


# ------------------------------------------------------------------------------------------------ what a process does


@pytest.fixture
def pipe() -> Iterator[Any]:
    """To a worker that is this very process."""
    before = [(n, signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM)]
    here, there = multiprocessing.Pipe()
    yield here, lambda: work(there, Settings.shared(1))
    for number, handler in before:
        signal.signal(number, handler)


def job(out: Path, **options: Any) -> bytes:
    return Job.of("run", **{"spec": SPEC, "recipe": RECIPE, "out": out, "files": (), **options}).packed


def test_a_worker_does_run_after_run_and_tells_of_each(pipe: Any, tmp_path: Path):
    here, begin = pipe
    for name in "ab":
        here.send_bytes(job(tmp_path / name))
    # Nothing more is said while a run goes on: what it hears then is to stop.
    with patch("multiprocessing.connection.Connection.poll", lambda *_: False), patch.object(worker, "EVERY", 0.0), patch("srt_masks.training.train.draw_loss"):
        here.send_bytes(STOP)
        begin()
    reports = [here.recv() for _ in range(8)]
    assert [r.step for r in reports] == [*range(1, 9)] and isinstance(reports[0], Report) and here.recv() == Ended()
    assert lines(tmp_path / "b")[-1]["event"] == "end"


@pytest.mark.parametrize(("closes", "hears"), [(False, True), (True, True), (True, False)], ids=["word", "nobody", "nobody, found when it writes"])
def test_a_run_stops_at_a_word_and_when_nobody_listens_any_more(pipe: Any, tmp_path: Path, closes: bool, hears: bool):
    here, begin = pipe
    here.send_bytes(job(tmp_path))
    answers = iter([False])  # when the run begins

    def poll(*_: Any) -> bool:
        return next(answers, hears)

    if closes:
        here.close()
    else:
        here.send_bytes(STOP)
    with patch("multiprocessing.connection.Connection.poll", poll):
        begin()
    assert lines(tmp_path)[-1] == {"event": "interrupted", "step": 1, "checkpoint": str(tmp_path / "training.safetensors")}
    assert closes or here.recv() == Stopped()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # which a terminal would send to every process


def test_errors_travel(pipe: Any, tmp_path: Path):
    here, begin = pipe
    for packed in (job(tmp_path, recipe=replace(RECIPE, dim=7)), b"no pickle"):
        here.send_bytes(packed)
    with patch("multiprocessing.connection.Connection.poll", lambda *_: False):
        here.send_bytes(STOP)
        begin()
    failed, unread = here.recv(), here.recv()
    assert (
        isinstance(failed, Failed)
        and isinstance(failed.error, srt.InputError)
        and str(jobs.named("a, seed 1", failed.error, failed.trace)).startswith("a, seed 1: ")
    )
    assert isinstance(unread.error, srt.InputError) and "cannot be read in a process of its own" in str(unread.error)


def test_a_process_has_its_share_of_threads_and_what_torch_was_told():
    with patch.object(torch, "get_num_threads", lambda: 5), patch.object(torch, "get_default_dtype", lambda: torch.float64):
        settings = pickle.loads(pickle.dumps(Settings.shared(2)))
        assert (settings.threads, Settings.shared(8).threads) == (2, 1)
    before = Settings.shared(1)
    assert not (before.deterministic or before.warn_only)
    try:
        torch.use_deterministic_algorithms(True, warn_only=True)
        told = Settings.shared(1)
        torch.use_deterministic_algorithms(False)
        replace(settings, deterministic=told.deterministic, warn_only=told.warn_only).apply()
        assert (torch.get_num_threads(), torch.get_default_dtype()) == (2, torch.float64)
        assert torch.are_deterministic_algorithms_enabled() and torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        before.apply()
