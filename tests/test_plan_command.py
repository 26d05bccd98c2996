"""`srt-masks plan`: its numbers are those of the dense masks, and the same as text and as JSON."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import srt_masks as srt
from srt_masks.cli import main
from srt_masks.cli.parser import parser
from srt_masks.cli.planning import Report, gather
from srt_masks.compiler.density import Pairs, attended, attended_by
from srt_masks.kernels.tiled import TiledBackend
from srt_masks.testing.strategies import Case, cases
from srt_masks.view.tiles import MOST_ROWS, Shade, tile_map

TILE = 16
CONSUMERS = {"forward": "", "dQ": "q", "dK/dV": "kv", "dK": "k", "dV": "v"}


def report_of(spec: srt.Spec, *flags: str, inputs: Mapping[str, Any] | None = None) -> Report:
    """What the command gathers, for a spec and inputs that are already read: JSON has no word for (0, 0)."""
    options = parser().parse_args(["plan", "-", *flags])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("srt_masks.cli.planning.spec_of", lambda options: spec)
        patch.setattr("srt_masks.cli.planning.inputs_of", lambda spec, options: dict(inputs or {}))
        return gather(options)


def report_on(case: Case) -> Report:
    return report_of(case.spec, "--steps", str(case.steps), "--heads", str(case.heads), "--tile", str(TILE), inputs=case.inputs)


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["plan", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def dense_tiles(attend: torch.Tensor, gates: dict[str, torch.Tensor], consumer: str) -> dict[str, int]:
    """The tiles of one head, counted pair by pair: a tile is FULL if it lies inside and every pair attends."""
    found = {"full": 0, "partial": 0, "skipped": 0, "empty": 0, "of": 0}
    for i in range(0, attend.shape[0], TILE):
        for j in range(0, attend.shape[1], TILE):
            block = attend[i : i + TILE, j : j + TILE]
            works = not CONSUMERS[consumer] or any(bool((block & (gates[g][i : i + TILE, j : j + TILE] != 0)).any()) for g in CONSUMERS[consumer])
            kind = "empty" if not block.any() else "skipped" if not works else "full" if bool(block.all()) and block.numel() == TILE**2 else "partial"
            found[kind] += 1
            found["of"] += 1
    return found


@given(cases())
def test_every_number_is_that_of_the_dense_masks(case: Case):
    spec, dense = case.spec, srt.dense(case.spec, steps=case.steps, heads=case.heads, inputs=case.inputs)
    found = report_on(case).plain()
    (planned,) = found["plans"]
    assert sorted(h for g in planned["groups"] for h in g["heads"]) == list(range(case.heads))
    assert planned["pairs"]["attended"] == int(dense.attend.sum()) and planned["pairs"]["of"] == dense.attend.numel() and planned["pairs"]["exact"]
    for group in planned["groups"]:
        for head in group["heads"]:
            attend = dense.attend[0, head]
            gates = {"q": dense.gate_q[0, head], "k": dense.gate_k[0, head], "v": dense.gate_v[0, head]}
            assert group["pairs"]["attended"] == int(attend.sum()) and group["pairs"]["of"] == attend.numel()
            for consumer in CONSUMERS:
                assert group["tiles"][consumer] == dense_tiles(attend, gates, consumer), (consumer, str(spec))
            assert group["inexact_tiles"] == 0
            drawn = "".join(group["map"]["rows"])
            assert [drawn.count(c) for c in "#+."] == [group["tiles"]["forward"][k] for k in ("full", "partial", "empty")]


def numbers(text: str) -> list[list[int]]:
    """Every row of every table, and every pair of counts of pairs, in the order printed."""
    found = []
    for line in text.splitlines():
        if re.match(r"  (forward|dQ|dK/dV|dK|dV) ", line):
            found.append([int(n.replace(",", "")) for n in line.split()[1:]])
        elif pairs := re.search(r"([\d,]+) of ([\d,]+) pairs attended \((?:about )?([\d.e-]+)%\)", line):
            found.append([int(pairs[1].replace(",", "")), int(pairs[2].replace(",", ""))])
    return found


@given(cases())
def test_text_and_json_say_the_same(case: Case):
    report = report_on(case)
    wanted = []
    for planned in report.plain()["plans"]:
        wanted.append([planned["pairs"][n] for n in ("attended", "of")])
        for group in planned["groups"]:
            if case.heads > 1:
                wanted.append([group["pairs"][n] for n in ("attended", "of")])
            wanted += [list(group["tiles"][c].values()) for c in CONSUMERS]
    assert numbers(report.text(colour=False)) == wanted
    assert json.loads(json.dumps(report.plain())) == report.plain()


def test_json_has_the_documented_keys(capsys):
    code, out, _ = said(capsys, "zoo:gemma-3", "--layers", "3", "--steps", "40", "--format", "json")
    found = json.loads(out)
    page = (Path("docs") / "planning.md").read_text()
    keys: set[str] = set()

    def visit(value: Any) -> None:
        if isinstance(value, dict):
            keys.update(value)
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            visit(inner)

    visit({k: v for k, v in found.items() if k != "params"})
    assert code == 0 and not [k for k in keys if f"`{k}`" not in page]


def test_layers_of_one_mask_are_planned_once(capsys):
    text = "attend causal and (window(4) or layer % 3 == 2) and (head < 2 or window(9))"
    found = report_of(srt.parse(text), "--layers", "7", "--heads", "4", "--steps", "64", "--tile", "16").plain()
    assert [p["layers"] for p in found["plans"]] == [[0, 1, 3, 4, 6], [2, 5]]
    assert [[g["heads"] for g in p["groups"]] for p in found["plans"]] == [[[0, 1], [2, 3]]] * 2
    _, out, _ = said(capsys, "zoo:gemma-3", "--layers", "12", "--steps", "64")
    assert "2 masks among the layers" in out and "layers 0-4, 6-10: " in out and "layers 5, 11: " in out
    _, out, _ = said(capsys, "zoo:gemma-3", "--layers", "12", "--layer", "5", "--steps", "64")
    assert "layer 5: " in out and "masks among" not in out
    # A text without the word says nothing of layers, or the same of all.
    assert report_of(srt.parse("attend causal"), "--steps", "4").plans[0].layers == ()
    assert report_of(srt.parse("attend causal"), "--steps", "4", "--layers", "3").plans[0].layers == (0, 1, 2)


def test_gates_that_stop_work_are_seen(capsys):
    spec = srt.parse("attend causal\nstop q where k.pos < 32\nstop k where k.pos >= 32\nstop v")
    (group,) = report_of(spec, "--steps", "64", "--tile", "16").plain()["plans"][0]["groups"]
    skipped = {c: t["skipped"] for c, t in group["tiles"].items()}
    assert skipped == {"forward": 0, "dQ": 7, "dK/dV": 3, "dK": 3, "dV": 10}
    _, out, _ = said(capsys, "zoo:transformer-xl", "--steps", "8")
    assert "`stop hidden`" in out
    assert "hidden" not in said(capsys, "zoo:causal", "--steps", "8")[1]


def test_what_was_not_evaluated_is_said(capsys):
    _, out, _ = said(capsys, "zoo:registers-look-ahead", "--steps", "60000", "--tile", "16", "--order", "natural")
    inexact = int(re.search(r"([\d,]+) tiles are called PARTIAL without having been evaluated", out)[1].replace(",", ""))
    spec = srt.zoo("registers look ahead")
    plan = srt.compile(spec, tile=16, order="natural").plan(spec.checked.queries.tokens(60000))
    assert inexact == plan.inexact_tiles > 0


def test_orders_that_were_tried_are_said(capsys):
    flags = ("zoo:registers-look-ahead", "--steps", "600")
    (group,) = json.loads(said(capsys, *flags, "--format", "json")[1])["plans"][0]["groups"]
    order, out = group["order"], said(capsys, *flags)[1]
    taken = next(t for t in order["tried"] if t["name"] == order["name"])
    natural = next(t for t in order["tried"] if t["name"] == "natural")
    assert order["name"] != "natural" and taken["work"] < natural["work"] == 1 and order["tokens"] == [1200, 1200]
    assert taken["full"] == group["tiles"]["forward"]["full"] and taken["partial"] == group["tiles"]["forward"]["partial"]
    assert f"order: {order['name']} (" in out and order["reason"] in out
    for tried in order["tried"]:
        assert re.search(rf"{re.escape(tried['name'])} +{tried['full']} FULL \+ {tried['partial']} PARTIAL, {tried['work']:.2f} of the work", out)
    # Asked for by name, either is what is planned.
    for name, trial in ((order["name"], taken), ("natural", natural)):
        (group,) = json.loads(said(capsys, *flags, "--order", name, "--format", "json")[1])["plans"][0]["groups"]
        assert group["order"]["name"] == name and [group["tiles"]["forward"][k] for k in ("full", "partial")] == [trial["full"], trial["partial"]]
        assert group["pairs"]["attended"] == 361200
    assert said(capsys, *flags, "--order", "sideways")[0] == 2


def test_backends_and_what_they_take_a_tile_from(capsys, monkeypatch):
    for name in ("tiled", "reference", "triton"):
        code, out, _ = said(capsys, "zoo:causal", "--steps", "8", "--backend", name)
        assert code == 0 and f"(backend {name})" in out
    asked = []
    monkeypatch.setattr(TiledBackend, "tile", lambda self, compiled, operands: asked.append(operands) or 64)
    assert "tile 64 (backend auto)" in said(capsys, "zoo:causal", "--steps", "8", "--head-dim", "80", "--dtype", "bfloat16")[1]
    assert {(o.head_dim, o.dtype) for o in asked} == {(80, torch.bfloat16)}


def test_what_cannot_be_planned(capsys):
    for flags, words in (
        (["--backend", "cuda"], "--backend is one of|backend is one of"), (["--backend", "triton", "--head-dim", "999"], "999"), (["--head-dim", "0"], "1 or more"),
        (["--layer", "3", "--layers", "2"], "from 0 to 1"), (["--heads", "0"], "1 or more"), (["--steps", "-1"], "0 or more"), (["--tile", "100"], "tile is one of"),
    ):  # fmt: skip
        code, out, err = said(capsys, "zoo:gemma-3" if "--layer" in flags else "zoo:causal", *flags)
        assert code == 2 and not out and re.search(words, err), err
    # Outside of Triton's interpreter, and without a card, there is no tile to say.
    elsewhere = {**os.environ, "TRITON_INTERPRET": "0", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-m", "srt_masks", "plan", "zoo:causal", "--backend", "triton"], capture_output=True, text=True, env=elsewhere)
    assert done.returncode == 2 and "tiled" in done.stderr and not done.stdout and "Traceback" not in done.stderr


# ------------------------------------------------------------------------------------------------ density


@pytest.mark.parametrize(
    "text", ["attend causal", "attend causal and window(37)", "attend (q.pos * 7 + k.pos * 3) % 11 < 5", "attend causal and (k.pos % 3 == 0 or window(9))"]
)
def test_pairs_are_counted_exactly_within_the_budget_and_about_beyond_it(text: str):
    spec = srt.parse(text)
    plan = srt.compile(spec, tile=16).plan(500, heads=2)
    true = int(srt.dense(spec, steps=500, heads=2).attend.sum())
    assert attended(plan) == Pairs(true, 2 * 500 * 500, True)
    about = attended(plan, budget=40 * 16**2)
    assert not about.exact and abs(about.attended - true) < 0.25 * true
    assert about == attended(plan, budget=40 * 16**2)
    (group,) = plan.groups
    assert attended_by(group, plan.program.attend).attended * 2 == true


def test_the_budget_is_said(capsys, monkeypatch):
    monkeypatch.setattr("srt_masks.compiler.density.BUDGET", 20 * 16**2)
    _, out, _ = said(capsys, "zoo:causal", "--steps", "600", "--tile", "16")
    assert re.search(r"about [\d,]+ of 360,000 pairs attended \(about ", out)


def test_padding_is_no_attended_pair():
    plan = srt.compile(srt.parse("attend full"), tile=16).plan(50, lengths=torch.tensor([50, 20, 0]))
    assert attended(plan) == Pairs(50 * 50 + 20 * 20, 3 * 50 * 50, True)


# ------------------------------------------------------------------------------------------------ the map


@given(cases(most_steps=8), st.integers(1, 9))
def test_a_cell_is_full_or_empty_where_all_its_tiles_are(case: Case, most: int):
    plan = srt.compile(case.spec, heads=case.heads, tile=TILE).plan(case.spec.checked.queries.tokens(case.steps or 0), inputs=case.inputs)
    for group in plan.groups:
        fine, coarse = tile_map(group, 10**6), tile_map(group, most)
        assert fine.side == 1 and len(coarse.cells) <= most and all(len(row) <= most for row in coarse.cells)
        for i, row in enumerate(coarse.cells):
            for j, shade in enumerate(row):
                inner = {s for line in fine.cells[i * coarse.side : (i + 1) * coarse.side] for s in line[j * coarse.side : (j + 1) * coarse.side]}
                assert shade is (inner.pop() if len(inner) == 1 else Shade.PARTIAL)


def test_a_map_is_small_at_any_length(capsys):
    _, out, _ = said(capsys, "zoo:sliding-window", "--steps", "1000000")
    drawn = [line for line in out.splitlines() if re.fullmatch(r" *([#+.] ?)+", line)]
    assert len(drawn) <= MOST_ROWS and "a cell is 245 x 245 tiles" in out


def test_colours_only_in_a_terminal(capsys, monkeypatch):
    assert "\x1b" not in said(capsys, "zoo:causal", "--steps", "300")[1]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert Shade.FULL.colour in said(capsys, "zoo:causal", "--steps", "300")[1]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in said(capsys, "zoo:causal", "--steps", "300")[1]
