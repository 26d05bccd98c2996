"""How often the planner calls a tile PARTIAL that is EMPTY or FULL: less than once in 200 tiles that are PARTIAL, over the whole zoo.

Some schemes in the ordinary run, all of them with HYPOTHESIS_PROFILE=thorough; `benchmarks/planner.py` prints them one by one.
"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_zoo import SCHEMES, inputs_of, spec_of, steps_of
from zoo_case import AT_8K, Missed, missed

import srt_masks as srt
from srt_masks.compiler import exact
from srt_masks.compiler.boxes import classify
from srt_masks.compiler.compiled import Compiled
from srt_masks.compiler.order import Order
from srt_masks.compiler.plan import Plan
from srt_masks.compiler.summaries import Summaries

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
QUICK = ("causal", "sliding window", "bigbird", "packed documents", "documents in a graph", "transfusion", "self reasoning, stopped", "neighbourhood attention")
MOST_MISSED = 0.005


def test_tiles_called_partial_are_partial():
    schemes = [s for s in SCHEMES if s.name in AT_8K and (THOROUGH or s.name in QUICK)]
    found = {s.name: missed(s) for s in schemes}
    partial, wrong = sum(m.partial for m in found.values()), sum(m.empty + m.full for m in found.values())
    assert partial > 1000 and wrong <= MOST_MISSED * partial, found


def test_every_scheme_has_a_size_to_be_measured_at():
    assert {s.name for s in SCHEMES} - set(AT_8K) == {"three gates", "coconut"}


def shuffled(plan: Plan, compiled: Compiled, generator: torch.Generator) -> Plan:
    """The same plan, its tokens visited in any order."""
    groups = []
    for group in plan.groups:
        order = Order("any", torch.randperm(group.queries, generator=generator), torch.randperm(group.keys, generator=generator))
        leaves = order.picked(group.leaves)
        boxes = classify(compiled.questions, leaves, group.queries, group.keys, group.tile)
        groups.append(replace(group, boxes=boxes, leaves=leaves, order=order, emitted={}))
    return replace(plan, groups=tuple(groups))


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
def test_no_tile_of_any_size_lies(scheme, monkeypatch: pytest.MonkeyPatch):
    """Tiles of every size, tokens in order and in any other: what the plan says against the oracle, by bounds and samples alone."""
    monkeypatch.setattr(exact, "REFINE_PAIRS", 0)
    generator = torch.Generator().manual_seed(0)
    for case in scheme.large or scheme.cases:
        spec = spec_of(scheme, case)
        want = scheme.oracle(case)
        if spec.checked.keys is not None and spec.checked.keys.rows_per_step:
            continue  # a plan by itself cannot know the length of its keys
        found = srt.tokens(spec, steps=steps_of(spec, case), heads=case.heads, layers=case.layers, inputs=inputs_of(spec, case), given=case.given)
        for tile in (16, 64, 128, 256):
            compiled = srt.compile(spec, layers=case.layers, tile=tile, order="natural")
            for layer in range(case.layers):
                plan = compiled.plan(len(found.role), heads=case.heads, layer=layer, inputs=inputs_of(spec, case), given=case.given)
                attend = np.asarray(want["attend"])
                mask = np.broadcast_to(attend, (case.layers, case.heads, *attend.shape[2:]))[layer]
                mask = mask[:, want["asks"]] if "asks" in want and mask.shape[1] != plan.geometry.queries else mask
                for tried in (plan, shuffled(plan, compiled.compiled, generator)):
                    assert np.array_equal(tried.to_dense()[0].numpy(), mask), (tile, layer, tried is plan)


def test_what_is_missed_is_counted(monkeypatch: pytest.MonkeyPatch):
    """Without sets of values and without refinement, tiles of a random block mask are missed, and the count says so."""
    scheme = next(s for s in SCHEMES if s.name == "bigbird")
    monkeypatch.setattr(exact, "REFINE_PAIRS", 0)
    monkeypatch.setattr(Summaries, "disjoint", lambda *_: None)
    worse = missed(scheme)
    assert isinstance(worse, Missed) and worse.empty > 100
