"""`bench`: who is timed beside whom, on what, and that nothing is timed that computes something else."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT

import srt_masks as srt
from srt_masks import timing
from srt_masks.cli import main
from srt_masks.timing import CAUSAL, MASKED, OURS, WHOLE, Times, bench


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "LEAST_SECONDS", 0.0)


def timed(text: str, tokens: int = 40, **options: Any) -> timing.Timed:
    return bench(
        srt.compile(srt.parse(text), layers=options.pop("layers", None)), tokens, **{"heads": 2, "head_dim": 16, "repeat": 1, "quiet": True, **options}
    )


@pytest.mark.parametrize(
    ("text", "options", "others"),
    [
        ("attend causal", {}, {MASKED, CAUSAL}), ("attend full", {}, {MASKED, WHOLE}), ("attend causal and window(5)", {}, {MASKED}),
        ("attend k.pos < q.pos", {}, {MASKED}),  # the first row attends to nothing
        ("attend causal\nstop k, v where k.pos < q.pos", {"batch": 3}, {MASKED, CAUSAL}), ("attend causal\nstop hidden where k.pos < q.pos", {}, {MASKED, CAUSAL}),
        ("attend causal and (head == 0 or window(3))", {}, {MASKED}), ("attend causal and (layer == 0 or window(3))", {"layers": 2, "layer": 0}, {MASKED, CAUSAL}),
        ("input doc: int per token\nattend causal and same(doc)", {"inputs": {"doc": torch.arange(40) // 7}}, {MASKED}),
        ("input doc: int per token\nattend causal and same(doc)", {"inputs": {"doc": torch.arange(80).view(2, 40) // 7}}, {MASKED}),
        ("attend causal", {"dtype": torch.float64}, {MASKED, CAUSAL}), ("attend causal and window(5)", {"dtype": torch.bfloat16}, {MASKED}),
    ],
)  # fmt: skip
def test_beside_whom(text: str, options: dict[str, Any], others: set[str]):
    found = timed(text, **options)
    assert set(found.sides) == {OURS, *others} and not found.left_out
    assert all(times.forward > 0 and times.backward > 0 for times in found.sides.values())
    assert (found.queries, found.keys, found.backend) == (40, 40, "tiled")
    doc = options.get("inputs", {}).get("doc")
    assert found.batch == (2 if doc is not None and doc.ndim == 2 else options.get("batch", 1))


def test_how_full_a_mask_is():
    assert timed("attend causal").density == pytest.approx(41 / 80)
    assert timed("attend full").density == 1


def test_a_mask_of_two_layouts_and_one_where_few_ask():
    two = timed("queries layout latent * 4\nkeys layout token * 24\nattend full", 4)
    assert (two.queries, two.keys) == (4, 24) and set(two.sides) == {OURS, MASKED, WHOLE}
    few = timed("layout repeat { token, reason }\nqueries where role is reason\nattend causal")
    assert (few.queries, few.keys) == (20, 40) and set(few.sides) == {OURS, MASKED}


def test_a_dense_mask_that_is_too_large_is_left_out(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(timing, "MOST_DENSE", 40 * 40 * 4 - 1)
    found = timed("attend causal")
    assert set(found.sides) == {OURS} and found.left_out == {MASKED: "its mask alone takes 0.0 GiB"}
    monkeypatch.setattr(timing, "MOST_DENSE", 40 * 40 * 4)
    assert MASKED in timed("attend causal").sides


def test_what_gives_other_numbers_is_not_timed(monkeypatch: pytest.MonkeyPatch):
    plain = timing.scaled_dot_product_attention
    monkeypatch.setattr(timing, "scaled_dot_product_attention", lambda q, k, v, **named: plain(q, k, v, **named) + 1e-3)
    with pytest.raises(srt.Error, match=r"srt_masks and SDPA, dense mask differ by 1\.0e-03 on this mask, and nothing was timed"):
        timed("attend causal")


def test_the_fastest_turn_of_each_counts():
    """By a clock of its own: a side's forward, then its backward, turn after turn."""
    taken = iter([3, 10, 1, 40, 2, 20, 5, 30])  # two sides, two turns
    now = count()
    clock = [0]

    def tick(device: torch.device) -> float:
        if next(now) % 3:
            clock[0] += next(taken)
        return clock[0]

    leaves = [torch.ones(1, 1, 2, 1, requires_grad=True) for _ in range(3)]
    sides = {"one": lambda q, k, v: q + k + v, "other": lambda q, k, v: q * k * v}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "_now", tick)
        assert timing._in_turns(sides, leaves, 3, torch.ones(1, 1, 2, 1), 2, quiet=True) == {"one": Times(2, 10), "other": Times(1, 30)}


def test_short_calls_have_more_turns(monkeypatch: pytest.MonkeyPatch):
    turns: list[str] = []
    monkeypatch.setattr(timing, "_one_turn", lambda side, *_: turns.append(side) or Times(1.0, 1.0))
    monkeypatch.setattr(timing, "LEAST_SECONDS", 60.0)
    timing._in_turns({"one": "one", "other": "other"}, [], 0, torch.ones(1, 1, 2, 1), 3, quiet=True)  # type: ignore[dict-item]  -- a name in place of a call
    assert len(turns) == 2 * timing.MOST_TURNS and turns[:2] == ["one", "other"]


@pytest.mark.parametrize(("options", "said"), [({"batch": 0}, "batch"), ({"head_dim": 0}, "head_dim"), ({"repeat": True}, "repeat"), ({"heads": 0}, "heads")])
def test_sizes_that_are_none(options: dict[str, Any], said: str):
    with pytest.raises(srt.InputError, match=f"^{said} is a whole number, 1 or more; got"):
        timed("attend causal", **options)


def test_what_does_not_fit_is_refused_before_it_is_made(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Four rows of each query and four of each key: 4 x 2 x 64 x 2 heads of 16 numbers of 4 bytes are 64 KiB."""
    monkeypatch.setattr(timing, "memory_here", lambda: 2**16)
    assert timed("attend causal", tokens=64).queries == 64
    monkeypatch.setattr(timing, "memory_here", lambda: 2**16 - 1)
    monkeypatch.setattr(torch, "randn", None)
    assert main(["bench", "zoo:causal", "--steps", "64", "--heads", "2", "--head-dim", "16", "--device", "cpu"]) == 2
    assert (
        "64 x 64 tokens, the result, and their gradients take 0.0 GiB, and there are 0.0: give fewer --steps, --heads or --batch\n" in capsys.readouterr().err
    )


def test_the_command_prints_a_table_and_json(capsys: pytest.CaptureFixture[str]):
    small = ["--heads", "2", "--head-dim", "16", "--repeat", "1", "--device", "cpu"]
    assert main(["bench", "zoo:causal", "--steps", "32", "48", "32", *small]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert not said.err and lines[0] == "zoo:causal" and lines[1].startswith("batch 1, 2 heads of 16, float32, cpu (")
    assert [line.split("  ")[0] for line in lines[4:] if line.startswith(("3", "4"))] == ["32 x 32", "48 x 48"]
    assert sum(CAUSAL in line for line in lines) == 2 and "gradient rules" not in said.out
    assert main(["bench", str(ROOT / "examples" / "self_reasoning.mask"), "--steps", "8", "--format", "json", "--dtype", "float64", *small]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["dtype"], found["heads"], found["sizes"][0]["queries"]) == ("float64", 2, 40) and set(found["sizes"][0]["sides"]) == {OURS, MASKED, CAUSAL}
    assert main(["bench", str(ROOT / "examples" / "self_reasoning.mask"), "--steps", "8", *small]) == 0
    assert "No side but srt_masks has the gradient rules" in capsys.readouterr().out


def test_the_length_is_that_of_the_inputs_or_of_the_layout(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for text, given, size in (
        ("input doc: int per token\nattend causal and same(doc)", ["--input", "doc=[0, 0, 1]"], "3 x 3"), ("layout word * 3, note\nattend full", [], "4 x 4"),
        ("attend causal and (layer == 1 or window(2))", ["--layers", "2", "--steps", "9"], "9 x 9"),
    ):  # fmt: skip
        (tmp_path / "a.mask").write_text(text)
        assert main(["bench", str(tmp_path / "a.mask"), "--repeat", "1", "--device", "cpu", *given]) == 0
        assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()[4:5]] == [size]
