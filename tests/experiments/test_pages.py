"""The tables and pictures of experiments: what they say of known runs."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from experiments.pages import NOT_RUN, RESULTS, by_seed, filled, origin, paired, publish, read_runs, said
from experiments.picture import LEFT, RIGHT, WIDTH, picture
from srt_masks.models.work import Work
from srt_masks.training.outcomes import Outcome

CODE = {"srt_masks": "0.1", "commit": "abc", "python": "3.11", "torch": "2.13", "threads": 1}
RUNS = [
    Outcome(
        name, seed, value, parts={}, steps=600, seconds=30.0 + seed, tokens_per_second=1.0, parameters=1, work=Work(1, 1, 1, 1, 1, 1), spec="attend causal",
        params={}, changes={}, initial=None, code=CODE,
    ).plain()
    for seed, pair in ((4, (0.0521, 0.95)), (3, (0.0479, 0.93)))
    for name, value in zip(("open", "stop"), pair, strict=True)
]  # fmt: skip


def test_a_table_has_every_seed_and_the_interval_of_students_t():
    lines = by_seed(RUNS, "held_out", {"stop": "with a stop", "open": "without"}).splitlines()
    assert lines[0] == "|  | seed 3 | seed 4 | mean |"
    # Half of the interval of two numbers is 12.706 times half their difference.
    assert lines[2:] == ["| with a stop | 0.930 | 0.950 | **0.940 ± 0.127** |", "| without | 0.0479 | 0.0521 | **0.0500 ± 0.0267** |"]


def test_differences_are_paired_by_seed_and_say_whether_0_is_within():
    lines = paired(RUNS, "held_out", {("stop", "open"): "what the stop costs", ("open", "open"): "nothing", ("stop", "gone"): "of an arm that did not run"})
    # 0.8979 and 0.8821: mean 0.89, half 12.706 * 0.0079.
    assert lines.splitlines()[2:] == ["| what the stop costs | 0.890 ± 0.100 | no |", "| nothing | 0.0000 ± 0.0000 | yes |"]


def test_numbers_have_three_digits_or_so_after_they_are_rounded():
    numbers = (-0.00001, 0.04732, 0.09996, -0.4118, 0.9994, 0.9996, 1.0004, -9.996, 12.52, 99.96, 1234.5)
    assert [said(n) for n in numbers] == ["0.0000", "0.0473", "0.100", "-0.412", "0.999", "1.00", "1.00", "-10.0", "12.5", "100", "1234"]


def test_arms_that_have_not_run_have_no_table():
    assert by_seed(RUNS, "held_out", {"gone": "of an arm that did not run"}) == NOT_RUN
    assert paired(RUNS, "held_out", {("stop", "gone"): "of an arm that did not run"}) == NOT_RUN


def test_what_is_published_stands_beside_what_was(tmp_path: Path):
    (tmp_path / "README.md").write_text("<!-- origin -->\n<!-- /origin -->\n<!-- pictures -->\n<!-- /pictures -->\n")
    again = {**RUNS[1], "held_out": 0.5}
    for runs in (RUNS[:2], [again, RUNS[2]]):
        publish(tmp_path, runs, lambda runs: {"origin": f"{len(runs)} runs"}, lambda runs: {})
    assert read_runs(tmp_path / RESULTS) == [RUNS[0], again, RUNS[2]]
    assert "3 runs" in (tmp_path / "README.md").read_text()


def test_the_model_that_a_run_began_with_is_named_by_its_content(tmp_path: Path):
    (tmp_path / "README.md").write_text("<!-- pictures -->\n<!-- /pictures -->\n")
    publish(tmp_path, [RUNS[0] | {"initial": {"file": "/somewhere/model.safetensors", "sha256": "abc"}}], lambda runs: {}, lambda runs: {})
    assert read_runs(tmp_path / RESULTS)[0]["initial"] == {"sha256": "abc"}


def test_runs_say_where_they_come_from():
    gone_on = [*RUNS, RUNS[0] | {"code": RUNS[0]["code"] | {"threads": [1, 2]}}]
    assert "torch 2.13, threads of a run: 1 and 2; " in origin(gone_on)
    assert origin([run | {"seed": seed} for run, seed in zip(RUNS, (3, 4, 5, 6), strict=True)]).startswith("4 runs, seeds 3, 4, 5 and 6, 600 steps")
    assert origin(RUNS).startswith(
        "4 runs, seeds 3 and 4, 600 steps each; srt_masks 0.1 at abc, Python 3.11, torch 2.13, threads of a run: 1; 34 s a run (33 to 34)"
    )


def test_a_page_is_filled_between_its_marks_alone():
    page = "before\n<!-- table -->\nold\n<!-- /table -->\nafter\n"
    new = filled(page, {"table": "a\\1 | b"})
    assert new == "before\n<!-- table -->\na\\1 | b\n<!-- /table -->\nafter\n" and filled(new, {"table": "a\\1 | b"}) == new
    with pytest.raises(ValueError, match="0 places for the block 'figure'"):
        filled(page, {"figure": ""})


@pytest.mark.parametrize("log", [False, True])
def test_a_picture_has_a_dot_a_run_where_its_figure_is(log: bool):
    arms = {"a < b": [0.25, 0.3, 0.35], "one": [1.0]}
    found = ET.fromstring(picture("title", "error", arms, log=log, mark=(1.0, "knows nothing")))
    dots = [float(e.get("cx", "")) for e in found.iter() if e.tag.endswith("circle")]
    # From 0.1 to 1, or from 0 to 1.
    shares = [math.log10(10 * value) if log else value for own in arms.values() for value in own]
    assert dots == pytest.approx([LEFT + share * (WIDTH - LEFT - RIGHT) for share in shares], abs=0.1)
    assert {"title", "error", "a < b", "one", "knows nothing"} <= {e.text for e in found.iter()}
