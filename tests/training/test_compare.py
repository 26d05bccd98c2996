"""Comparisons: the runs are those of `train`, gone on with where they were stopped; what they say is a mean, an interval, and paired differences."""

from __future__ import annotations

import json
import math
import shutil
from contextlib import nullcontext
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from runs import run

import srt_masks as srt
from srt_masks.cli import main
from srt_masks.models.checkpoint import save_model
from srt_masks.models.work import work_of
from srt_masks.training import comparison, worker
from srt_masks.training.code_here import code_here
from srt_masks.training.comparison import Arm, compare
from srt_masks.training.data import corpus
from srt_masks.training.intervals import Interval, quantile
from srt_masks.training.kept_runs import refuse_another
from srt_masks.training.loop import Report
from srt_masks.training.outcomes import Comparison
from srt_masks.training.recipe import Recipe
from srt_masks.training.session import start
from srt_masks.training.strategy import Alone
from srt_masks.training.trials import FORMAT

PLAIN = "layout repeat { token }\nattend causal\npredict token -> index + 1"
SPECS = {
    "plain": srt.parse(PLAIN),
    "reasons": srt.parse("layout repeat { token, reason }\nattend causal and window(3)\npredict token -> index + 1\npredict reason -> index + 1"),
}
SPAN = srt.parse("param span = 3\nlayout repeat { token }\nattend causal and window(span)\npredict token -> index + 1")
MANY = srt.parse("layout repeat { token, reason * 8 }\nattend causal\npredict token -> index + 1")
RECIPE = Recipe(dim=8, depth=2, heads=2, words=8, batch=4, steps=6, save_every=2, warm_up=2)


def compared(out: Path, specs: Any = SPECS, recipe: Recipe = RECIPE, **options: Any) -> Comparison:
    with patch("srt_masks.training.train.draw_loss"), patch("srt_masks.training.comparison.draw_comparison"):
        return compare(specs, recipe, out, quiet=True, **{"seeds": (0, 1), **options})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Comparison]:
    out = tmp_path_factory.mktemp("whole")
    return out, compared(out)


def bits(found: Comparison) -> dict[tuple[str, int], float]:
    return {(o.name, o.seed): o.held_out for o in found.outcomes}


# ------------------------------------------------------------------------------------------------ numbers


def test_intervals_are_those_of_student():
    """Quantiles as tables print them."""
    for freedom, wanted in ((1, 12.706), (2, 4.303), (4, 2.776), (9, 2.262), (30, 2.042), (120, 1.980)):
        assert abs(quantile(freedom) - wanted) < 6e-4
    found = Interval.of([1.0, 2.0, 3.0])
    assert found.mean == 2 and found.half is not None and abs(found.half - quantile(2) / math.sqrt(3)) < 1e-12
    alone = Interval.of([4.0])
    assert alone.half is None and str(alone) == "4.0000"


def test_work_is_counted():
    """Pairs against the dense masks, multiplications against torch's own count of the layers that see rows."""
    from torch.utils.flop_counter import FlopCounterMode

    hidden = srt.parse(PLAIN + "\nstop hidden where k.pos < q.pos")
    for spec in (*SPECS.values(), hidden):
        model = start(spec, RECIPE, corpus((), 8), Alone()).model
        work = work_of(model, 8)
        masks = srt.dense(spec, steps=8, heads=2, layers=2)
        pairs = int(masks.attend.expand(1, 2, 2, *masks.attend.shape[-2:]).sum())
        assert (work.rows, work.pairs) == (len(masks.position[0]) if masks.position.ndim > 1 else len(masks.position), pairs)
        assert (work.tiles, work.tiles_of) == (4, 4)  # one of each head of each layer
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 8, dtype=torch.int64), return_loss=True)
        linear = sum(n for op, n in counter.get_flop_counts()["Global"].items() if "mm" in str(op) and "bmm" not in str(op))
        assert work.multiplications == linear // 2 + 2 * pairs * model.config.dim_head


# ------------------------------------------------------------------------------------------------ runs


def test_every_run_is_that_of_train_alone(whole: tuple[Path, Comparison], tmp_path: Path):
    out, found = whole
    assert set(bits(found)) == {("plain", 0), ("plain", 1), ("reasons", 0), ("reasons", 1)}
    alone = run(tmp_path, recipe=replace(RECIPE, seed=1), spec=SPECS["reasons"])
    assert bits(found)["reasons", 1] == alone.held_out
    kept = [json.loads(line) for line in (out / "runs.jsonl").read_text().splitlines()]
    assert kept == [o.plain() for o in found.outcomes] and all(
        k["steps"] == 6 and k["code"]["torch"] == torch.__version__ and k["spec_sha256"] == sha256(SPECS[k["name"]].text.encode()).hexdigest() for k in kept
    )


def test_the_table_says_mean_and_spread_and_what_is_paired(whole: tuple[Path, Comparison]):
    _, found = whole
    by = bits(found)
    assert found.held_out("plain") == Interval.of([by["plain", 0], by["plain", 1]])
    differences = [by["reasons", s] - by["plain", s] for s in (0, 1)]
    assert found.than_first("reasons") == Interval.of(differences)
    plain, reasons = (line.split() for line in str(found).splitlines()[1:3])
    assert plain[:3] == ["plain", *str(found.held_out("plain")).split()] and reasons[0] == "reasons" and reasons[3].lstrip("+") == f"{sum(differences) / 2:.4f}"
    assert "95% by Student's t over 2 seeds" in str(found)
    assert json.loads(json.dumps(found.plain(), allow_nan=False))["specs"]["reasons"]["than_first"]["mean"] == found.than_first("reasons").mean


def test_what_is_done_is_not_done_again_and_seeds_may_be_added(whole: tuple[Path, Comparison], tmp_path: Path):
    import shutil

    out = tmp_path / "copy"
    shutil.copytree(whole[0], out)
    with patch.object(worker, "train", side_effect=AssertionError):
        assert bits(compared(out)) == bits(whole[1])
    (out / "runs.jsonl").unlink()
    with patch.object(worker, "train", wraps=worker.train) as trained:
        more = compared(out, seeds=(0, 1, 2))
    assert [call.kwargs["out"] for call in trained.call_args_list] == [out / "plain" / "seed-2", out / "reasons" / "seed-2"]
    assert {k: v for k, v in bits(more).items() if k[1] < 2} == bits(whole[1]) and len((out / "runs.jsonl").read_text().splitlines()) == 6
    assert set(bits(compared(out, seeds=(2,)))) == {("plain", 2), ("reasons", 2)}
    kept = [json.loads(line) for line in (out / "runs.jsonl").read_text().splitlines()]
    assert [(k["name"], k["seed"]) for k in kept] == [(n, s) for s in (0, 1, 2) for n in SPECS]


def test_a_run_that_was_stopped_goes_on_bit_for_bit(whole: tuple[Path, Comparison], tmp_path: Path):
    watch = comparison._Bars.watch

    def stopping(self: Any, trial: comparison.Trial) -> Any:
        def seen(report: Report) -> None:
            watch(self, trial)(report)
            if trial.name == "reasons" and report.step == 5:
                raise KeyboardInterrupt

        return seen

    with patch.object(comparison._Bars, "watch", stopping), pytest.raises(KeyboardInterrupt):
        compared(tmp_path)
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == 1
    steps = []
    with patch.object(comparison._Bars, "watch", lambda self, trial: lambda report: steps.append((trial.name, trial.recipe.seed, report.step))):
        assert bits(compared(tmp_path)) == bits(whole[1])
    assert [s for n, seed, s in steps if (n, seed) == ("reasons", 0)] == [5, 6] and ("plain", 0, 1) not in steps


def test_equal_work_gives_the_larger_spec_fewer_steps(tmp_path: Path):
    found = compared(tmp_path, seeds=(0,), equal="work")
    plain, reasons = (found.of(n)[0] for n in SPECS)
    assert plain.steps == 6 and reasons.steps == round(6 * plain.work.multiplications / reasons.work.multiplications) == 3
    assert "nothing is known of the spread" in str(found)
    with pytest.raises(srt.InputError, match="reasons: a single step of it is more work than 1 step"):
        compared(tmp_path / "b", {**SPECS, "reasons": MANY}, replace(RECIPE, steps=1), equal="work")


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"spec": SPECS["reasons"]}, r"another spec: line 1 is `layout repeat { token, reason }` there and `param span = 3` here"), ({"spec": SPAN.with_params(span=2)}, "span = 2; here it is 3"), ({"recipe": {"dim": 16}}, "dim = 16; here it is 8"),
        ({"recipe": {"seed": 1}}, "seed = 1; here it is 0"), ({"recipe": {"steps": 2}}, "steps = 2; here it is 6"),
        ({"files": True}, "other data: .*text, of another size or content"), ({"initial": True}, "weights that began as those of .*model.safetensors; here they begin fresh"),
        ({"recipe": {"max_seconds": 1e-9}}, "max_seconds = 1e-09; here it is None"),
    ],
)  # fmt: skip
def test_a_run_of_something_else_is_not_taken_for_one_that_is_done(options: dict[str, Any], words: str, tmp_path: Path):
    given = dict(options)
    if "files" in options:
        (tmp_path / "text").write_text("some other text, " * 100)
        given["files"] = [tmp_path / "text"]
    if "initial" in options:
        save_model(start(SPAN, RECIPE, corpus((), 8), Alone()).model, tmp_path / "model.safetensors")
        given["initial"] = tmp_path / "model.safetensors"
    run(tmp_path / "a" / "seed-0", **{"spec": SPAN, **given, "recipe": replace(RECIPE, **options.get("recipe", {}))})
    with pytest.raises(srt.InputError, match=rf"seed-0 holds a run of {words}\. Give another out="):
        compared(tmp_path, {"a": SPAN, "b": SPECS["plain"]}, seeds=(0,))
    assert not (tmp_path / "comparison.json").exists() and not (tmp_path / "b").exists()


def test_a_run_that_fails_is_named(tmp_path: Path):
    with (
        patch.object(worker, "train", side_effect=srt.InputError("the loss became nan")),
        pytest.raises(srt.InputError, match=r"^plain, seed 0: the loss became nan"),
    ):
        compared(tmp_path / "a")
    with patch.object(worker, "train", side_effect=OSError("no room")), pytest.raises(OSError, match="no room") as caught:
        compared(tmp_path / "b")
    assert caught.value.__notes__ == ["in the run plain, seed 0"]


def test_a_run_says_by_what_code_it_was_made_each_time_that_it_was_gone_on_with(tmp_path: Path):
    def leave(report: Report) -> None:
        if report.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "plain" / "seed-0", recipe=RECIPE, spec=SPECS["plain"], watch=leave)
    here = code_here()
    with patch("srt_masks.training.train.code_here", lambda: here | {"threads": here["threads"] + 7}):
        first, second = (compared(tmp_path, seeds=(0,)).of(name)[0].code for name in SPECS)
    assert first == here | {"threads": [here["threads"], here["threads"] + 7]} and second == here | {"threads": here["threads"] + 7}


def test_another_comparison_is_refused_and_nothing_of_it_lost(whole: tuple[Path, Comparison], tmp_path: Path):
    out, found = whole
    other = {**SPECS, "reasons": SPECS["plain"]}
    data = tmp_path / "data"
    data.write_bytes(b"some other text, " * 100)
    for options, words in (
        ({"specs": other}, r"other specs \(reasons: line \d+ is `.*` there and `.*` here\): give another"),
        ({"specs": {"a": SPAN, "plain": SPECS["plain"]}}, r"other specs \(plain, reasons; here a, plain\)"),
        ({"recipe": replace(RECIPE, steps=7)}, r"steps = 6; here steps = 7"), ({"equal": "work"}, "another budget"),
        ({"files": [data]}, r"other data \(Python's reference.*, of another size or content than .*data has now\)"),
    ):  # fmt: skip
        with pytest.raises(srt.InputError, match=words):
            compared(out, **options)
    assert bits(compared(out)) == bits(found)


def test_another_value_of_a_param_is_said(tmp_path: Path):
    path, spec = tmp_path / "comparison.json", {"text": "param n = 2\nattend window(n)", "params": {"n": 2}}
    about = {"format": FORMAT, "specs": {"a": spec}, "recipe": {}, "equal": "steps", "data": "a text", "fingerprint": "f"}
    path.write_text(json.dumps(about))
    refuse_another(path, about)
    for arm, words in (({**spec, "params": {"n": 3}}, r"a: n = 2; here n = 3"), ({**spec, "changes": {"steps": 3}}, r"a: changes, None; here {'steps': 3}")):
        with pytest.raises(srt.InputError, match=words):
            refuse_another(path, {**about, "specs": {"a": arm}})


def test_another_comment_is_no_other_comparison(whole: tuple[Path, Comparison], tmp_path: Path):
    out, found = whole
    told = {name: srt.parse(f"# {name}\n{spec.text}  # as ever", params=spec.params) for name, spec in SPECS.items()}
    again = shutil.copytree(out, tmp_path / "again")
    with patch.object(worker, "train", side_effect=AssertionError):
        assert bits(compared(again, told)) == bits(found)


def test_to_begin_anew_takes_away_the_comparison_and_nothing_else(tmp_path: Path):
    compared(tmp_path, seeds=(0,))
    (tmp_path / "plain" / "notes.txt").write_text("mine")
    (tmp_path / "mine").write_text("mine")
    again = compared(tmp_path, recipe=replace(RECIPE, steps=2), seeds=(3,), restart=True)
    assert set(bits(again)) == {("plain", 3), ("reasons", 3)}
    assert (tmp_path / "plain" / "notes.txt").exists() and (tmp_path / "mine").exists() and not (tmp_path / "plain" / "seed-0").exists()


def test_nothing_is_removed_for_a_comparison_that_cannot_be(tmp_path: Path):
    found = compared(tmp_path, seeds=(0,))
    with pytest.raises(srt.InputError, match="cannot read"):
        compared(tmp_path, seeds=(0,), restart=True, files=[tmp_path / "typo.txt"])
    with patch.object(worker, "train", side_effect=AssertionError):
        assert bits(compared(tmp_path, seeds=(0,))) == bits(found)


@pytest.mark.parametrize("ends", [True, False])
def test_a_run_of_something_else_is_refused_before_a_comparison_is_removed(tmp_path: Path, ends: bool):
    def leave(report: Report) -> None:
        if report.step == 3 and not ends:
            raise KeyboardInterrupt

    found = compared(tmp_path, seeds=(0,))
    with nullcontext() if ends else pytest.raises(KeyboardInterrupt):
        run(tmp_path / "other" / "seed-0", spec=SPAN, recipe=RECIPE, watch=leave)
    for restart in (True, False):
        with pytest.raises(srt.InputError, match="seed-0 holds a run of another spec" if restart else "other specs"):
            compared(tmp_path, {**SPECS, "other": MANY}, seeds=(0,), restart=restart)
    assert (tmp_path / "other" / "seed-0" / "training.safetensors").exists()
    with patch.object(worker, "train", side_effect=AssertionError):
        assert bits(compared(tmp_path, seeds=(0,))) == bits(found)
    # Where it would be trained after others.
    with pytest.raises(srt.InputError, match="seed-0 holds a run of another spec"):
        compared(tmp_path, {"first": MANY, "other": MANY}, seeds=(0,), restart=True)
    assert not (tmp_path / "first").exists()


def test_asked_to_stop_in_the_last_moments_of_a_run_no_other_is_begun(tmp_path: Path):
    train = worker.train
    with patch.object(worker, "train", lambda *a, **named: replace(train(*a, **named), asked=2)), pytest.raises(KeyboardInterrupt):
        compared(tmp_path)
    assert len((tmp_path / "runs.jsonl").read_text().splitlines()) == 1 and not (tmp_path / "reasons").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"specs": {"a": SPECS["plain"]}}, "two specs or more"), ({"specs": {"a": SPECS["plain"], "b": PLAIN}}, "two specs or more"),
        ({"specs": {"a": SPECS["plain"], "../b": SPECS["plain"]}}, "a name is letters"),
        ({"specs": {"a": SPECS["plain"], "A": SPECS["plain"]}}, "one but for case"), ({"equal": "seconds"}, "'steps' or 'work'"), ({"seeds": ()}, "seeds are"),
        ({"seeds": (1, 1)}, "each once"), ({"seeds": (0, 2**31)}, "from 0 to 2147483647"),
        ({"specs": {"a": SPECS["plain"], "b": Arm(SPECS["plain"], initial="m")}}, "b: initial says by seed .* initial=lambda seed: 'm'"),  # pyright: ignore[reportArgumentType]
        ({"specs": {"a": SPECS["plain"], "b": Arm(SPECS["plain"], initial=lambda seed: None)}}, "b: initial of seed 0 is None, .*give initial=lambda seed"),  # pyright: ignore[reportArgumentType]
        ({"specs": {"a": SPECS["plain"], "b": Arm(SPECS["plain"], None)}}, "b: the changes of an Arm are a mapping"),  # pyright: ignore[reportArgumentType]
        ({"specs": {"a": SPECS["plain"], "b": Arm(PLAIN)}}, "b: the spec of an Arm is what"),  # pyright: ignore[reportArgumentType]
        ({"specs": {"a": SPECS["plain"], "b": Arm(SPECS["plain"], {"schedules": "far=0@0"})}}, "b: schedules is a tuple of Schedule.*read_schedule"),
        ({"seeds": 3}, "seeds are"), ({"recipe": replace(RECIPE, max_seconds=3.0)}, "give steps="),
        ({"specs": {"a": SPECS["plain"], "b": srt.parse("attend causal")}}, "b: .*predict"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared(options: dict[str, Any], words: str, tmp_path: Path):
    with pytest.raises(srt.InputError, match=words):
        compared(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------ the command


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("a.mask").write_text(PLAIN)
    Path("b.mask").write_text("param span = 3\nlayout repeat { token }\nattend causal and window(span)\npredict token -> index + 1")
    sizes = ["--seeds", "1", "--steps", "2", "--dim", "8", "--depth", "1", "--heads", "2", "--words", "8", "--batch", "2", "--param", "span=2"]
    assert main(["compare", "a.mask", "b.mask", *sizes]) == 0
    printed = capsys.readouterr()
    assert "than a" in printed.out and "runs.jsonl" in printed.out and "all runs" in printed.err
    assert (tmp_path / "runs" / "compare" / "comparison.png").stat().st_size > 5000
    assert main(["compare", "a.mask", "b.mask", *sizes, "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["specs"]["b"]["work"]["pairs"] == 2 * 15
    Path("c.toml").write_text('tokenizer = "t.json"')
    assert main(["compare", "a.mask", "b.mask", *sizes, "--seed", "5", "--out", "other"]) == 0
    assert (tmp_path / "other" / "a" / "seed-5").is_dir() and capsys.readouterr()
    for wrong, words in (
        (["a.mask", "a.mask"], "rename one file"), (["a.mask", "b.mask", "--param", "sapn=2"], "no spec here has such a param"),
        (["a.mask", "b.mask", "--config", "c.toml"], "tokenizer belongs to a run of `train`"),
    ):  # fmt: skip
        assert main(["compare", *wrong]) == 2
        assert words in capsys.readouterr().err
