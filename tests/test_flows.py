"""`flow`: every row of the report against paths found pair by pair, known truths of the zoo, the words; what `explain` says of paths."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest
import torch
from conftest import ROOT
from hypothesis import given, settings

import srt_masks as srt
from srt_masks.flows.distances import Unit
from srt_masks.flows.report import FlowReport, Learning, Reading, Return, State
from srt_masks.surface import lay_out_one
from srt_masks.testing import Case, whole

RANK = {"rank": torch.tensor([3, 0, 4, 1, 2, 7, 5, 6])}
VALID = {"valid": torch.tensor([True, True, True, True, False, False])}
REPORTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "self-reasoning": ({}, {}),
    "knowledge-insulation": ({"images": 4, "words": 4, "spoken": 6, "actions": 5}, {}),
    "xlnet": ({}, {"inputs": RANK}),
    "encoder-decoder": ({"sources": 6}, {"inputs": VALID}),
    "transformer-xl": ({"kept": 6}, {}),
    "patient-heads": ({}, {"heads": 8}),
    "gemma-3": ({"span": 3}, {"layers": 6}),
    "sliding-window": ({"span": 3}, {"steps": 12}),
}


def report_of(name: str) -> FlowReport:
    params, named = REPORTS[name]
    return srt.flow(srt.zoo(name).with_params(**params), **named)


def flow(text: str, **named: Any) -> FlowReport:
    return srt.flow(srt.parse(text), **named)


def reads(report: FlowReport) -> set[tuple[str, str, str, str, str]]:
    return {r.cells() for r in report.reads}


def learns(report: FlowReport) -> set[tuple[str, ...]]:
    return {(r.reader, r.read, str(r.distances), r.directly, r.otherwise) for r in report.learns}


@pytest.mark.parametrize("name", REPORTS)
def test_tables(name: str, update_golden: bool):
    path = ROOT / "tests" / "golden" / f"{name.replace('-', '_')}.flow.txt"
    if update_golden:
        path.write_text(f"{report_of(name)}\n")
    assert path.read_text() == f"{report_of(name)}\n"


# ------------------------------------------------------------------------------------------------ against paths found pair by pair


class Truth:
    """One call, pair by pair: what is read and taught directly, and in how many hops, by walking."""

    def __init__(self, spec: srt.Spec, sizes: dict[str, Any]):
        self.masks = srt.dense(spec, **sizes)
        row = lay_out_one(spec, **{n: x for n, x in sizes.items() if n != "lengths"})
        self.queries, self.keys = row.queries, row.keys
        self.layers, self.heads, self.nq, self.nk = self.masks.attend.shape
        self.in_order = spec.checked.speaks_of_layers
        self.pairs = list(product(range(self.nq), range(self.nk)))
        m = self.masks
        several = m.attend.sum(-1, keepdim=True) > 1
        passes = m.attend & (((m.gate_k != 0) & several) | (m.gate_v != 0)) & (m.gate_hidden != 0)
        self.reads = self.walk(m.attend)
        self.taught = self.walk(passes)
        self.directly = m.attend.any(0).any(0).tolist()
        self.passes = passes.any(0).any(0).tolist()

    def walk(self, edges: torch.Tensor) -> dict[tuple[int, int], int]:
        """Hops by (row that asks, key), without rows that reach themselves."""
        by_layer = edges.any(1).tolist()
        place = {int(p): i for i, p in enumerate(self.queries["pos"])}
        found = {}
        for key in range(self.nk):
            hops = {key: 0}
            for layer in range(self.layers if self.in_order else self.nk):
                read = by_layer[layer if self.in_order else 0]
                hops = {
                    t: min([hops.get(t, 99), *(hops[m] + 1 for m in hops if t in place and read[place[t]][m])])
                    for t in range(self.nk)
                    if t in hops or (t in place and any(read[place[t]][m] for m in hops))
                }
            found |= {(place[t], key): h for t, h in hops.items() if t in place and t != key}
        return found

    def name(self, axis: dict[str, torch.Tensor], i: int, roles: tuple[str, ...]) -> str:
        role = roles[int(axis["role"][i])]
        sections = {int(s) for s, r in zip(axis["section"], axis["role"], strict=True) if r == axis["role"][i]}
        return role if len(sections) == 1 else f"{role} of section {int(axis['section'][i])}"

    def is_itself(self, i: int, j: int) -> bool:
        return int(self.queries["pos"][i]) == j


def chosen(truth: Truth, spec: srt.Spec, way: Reading | Learning) -> list[tuple[int, int]]:
    """The pairs that a line speaks of."""
    found = []
    for i, j in truth.pairs:
        if (truth.name(truth.queries, i, spec.roles), truth.name(truth.keys, j, spec.roles)) != (way.reader, way.read):
            continue
        column = {Unit.STEPS: "step", Unit.TOKENS: "pos", Unit.NONE: None}[way.distances.unit]
        distance = 0 if column is None else int(truth.queries[column][i] - truth.keys[column][j])
        if any(a <= distance <= b for a, b in way.distances.ranges):
            found.append((i, j))
    return found


def assert_true(spec: srt.Spec, report: FlowReport, truth: Truth) -> None:
    direct, through, learnt = set(), set(), set()
    for way in report.reads:
        pairs = chosen(truth, spec, way)
        if way.hops is not None:
            hops = [truth.reads[p] for p in pairs if p in truth.reads and not truth.directly[p[0]][p[1]]]
            assert (way.pairs, way.of, way.hops.fewest, way.hops.most) == (len(hops), len(pairs), min(hops), max(hops)), way
            through |= {p for p in pairs if p in truth.reads and not truth.directly[p[0]][p[1]]}
        elif not way.where:
            own = [p for p in pairs if truth.is_itself(*p)] if way.distances.is_itself else pairs
            seen = int(sum(truth.masks.attend[:, :, i, j].sum() for i, j in pairs))
            alike = truth.layers * truth.heads
            assert way.pairs * len(own) * alike == seen * way.of, way  # the same share
            direct |= {p for p in pairs if truth.directly[p[0]][p[1]]}
        else:
            direct |= {p for p in pairs if truth.directly[p[0]][p[1]]}
    assert direct == {p for p in truth.pairs if truth.directly[p[0]][p[1]]}
    assert through == {p for p in truth.reads if not truth.directly[p[0]][p[1]]}
    for way in report.learns:
        pairs = chosen(truth, spec, way)
        learnt |= {p for p in pairs if p in truth.reads}
        missing = [p for p in pairs if p in truth.reads and not truth.passes[p[0]][p[1]]]
        back = [truth.taught[p] for p in missing if p in truth.taught]
        wanted = Return.DIRECTLY if not missing else Return.NEVER if not back else Return.INDIRECTLY if len(back) == len(missing) else Return.PARTLY
        if way.where:
            assert way.returns in (wanted, Return.PARTLY, Return.DIRECTLY) or wanted is Return.PARTLY
            continue
        if way.returns is Return.NEVER:
            assert missing and not back, way
        assert (way.hops is None) == (way.returns in (Return.DIRECTLY, Return.NEVER))
        if wanted is way.returns and way.hops is not None:
            assert (way.hops.fewest, way.hops.most) == (min(back), max(back)), way
        for gate, state in (way.gates or {}).items():
            values = torch.cat([getattr(truth.masks, f"gate_{gate}")[:, :, i, j][truth.masks.attend[:, :, i, j]] for i, j in pairs])
            assert len(values)
            match state:
                case State.STOPPED:
                    assert bool((values == 0).all()), way
                case State.WHOLE:
                    assert bool((values == 1).all()), way
                case State.SCALED:
                    assert bool((values != 0).all()) and bool((values != 1).any()), way
                case State.MIXED:
                    assert bool((values == 0).any()) and bool((values != 0).any()), way
        if way.gates is None:
            assert not any(truth.directly[i][j] for i, j in pairs), way
    assert learnt == set(truth.reads)


@given(case=whole().filter(lambda c: c.batch == 1 and c.lengths is None and c.extents.tokens <= 14))
@settings(max_examples=25)
def test_random_texts_of_the_whole_language(case: Case):
    named = {n: x for n, x in case.sizes.items() if n != "lengths"}
    report = srt.flow(case.spec, **named)
    assert str(report) and json.loads(json.dumps(report.plain(), allow_nan=False))
    assert_true(case.spec, report, Truth(case.spec, named))
