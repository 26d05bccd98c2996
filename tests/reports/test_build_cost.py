"""Reports of kind K: what it takes to make a plan."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from calls import BLOCK_SPARSE, FEW, qkv
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint
from watching import Largest

import srt_masks as srt
from srt_masks.compiler.runs import Consumer

DOCUMENTS = "input doc: int per token\nattend causal and same(doc)"


def cut(tokens: int, count: int, seed: int = 0) -> torch.Tensor:
    """The document of every token: `count` of them, or a few less, of random lengths."""
    ends = torch.randint(tokens, (count - 1,), generator=torch.Generator().manual_seed(seed)).sort().values
    return torch.searchsorted(ends, torch.arange(tokens), right=True)


@FEW
@given(st.sampled_from([4096, 8192, 32768]), st.integers(1, 4000), st.integers(0, 2**16))
def test_K1_a_plan_is_as_small_as_its_runs(tokens: int, count: int, seed: int):
    """However many documents: a few runs for each row of tiles, and nothing on the way of queries x keys."""
    doc, attend = cut(tokens, count, seed), srt.compile(srt.parse(DOCUMENTS), tile=128)
    with Largest() as seen:
        plan = attend.plan(tokens, doc=doc)
        for consumer in Consumer:
            plan.tiles(consumer)
    rows = tokens // 128
    # What is looked at pair by pair is some tiles at once, whatever the length.
    assert seen.elements <= max(4 * tokens, 2**21) < tokens**2
    for consumer in Consumer:
        runs = plan.groups[0].runs(consumer)
        assert len(runs.kind) <= 3 * rows and runs.nbytes == 9 * len(runs.kind) + 4 * (rows + 1)
    assert plan.groups[0].boxes.evaluated <= 64 * rows


@pytest.mark.parametrize("backend", BLOCK_SPARSE)
def test_K1_a_call_makes_nothing_of_queries_x_keys(backend: str):
    tokens = 8192 if backend == "tiled" else 512
    doc, attend = cut(tokens, tokens // 8), srt.compile(srt.parse(DOCUMENTS + "\nstop k where q.pos - k.pos > 3"), backend=backend, tile=32)
    q, k, v = (x.requires_grad_() for x in qkv(tokens, heads=1, dtype=torch.float32)[:3])
    with Largest() as seen:
        attend(q, k, v, doc=doc).sum().backward()
    assert seen.elements <= tokens**2 // 8


def test_K1_as_reported():
    """4000 documents in 32,768 tokens: under a twentieth of one forward of 8 heads. Time of the process, on one thread."""
    tokens, spec, doc = 32768, srt.parse(DOCUMENTS), cut(32768, 4000)
    q, k, v = qkv(tokens, heads=8, dim=64, dtype=torch.float32)[:3]
    attend = srt.compile(spec, backend="tiled")
    attend(q[:, :, :256], k[:, :, :256], v[:, :, :256], doc=doc[:256])
    assert best_of(3, lambda: srt.compile(spec).plan(tokens, heads=8, doc=doc)) < 0.05 * best_of(1, lambda: attend(q, k, v, doc=doc))


def best_of(times: int, act: Callable[[], object]) -> float:
    found = []
    for _ in range(times):
        begin = time.process_time()
        act()
        found.append(time.process_time() - begin)
    return min(found)


# ------------------------------------------------------------------------------------------------ K3: one plan for equal layers


@FEW
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=12),
    st.sampled_from(["window(2 + kind)", "(kind > 0 or window(3))", "same(pos // (kind + 1))"]),
    st.booleans(),
)
def test_K3_a_step_of_training_makes_as_many_plans_as_there_are_rules(kinds: list[int], rule: str, recomputed: bool):
    """Whichever layers are alike; the second step, and the forwards that checkpointing repeats, make none."""
    spec = srt.parse(f"input kind: int per layer\nattend causal and {rule}\nstop k where q.pos - k.pos > kind")
    attend, kind = srt.compile(spec, layers=len(kinds), tile=16), torch.tensor(kinds)
    for step in range(2):
        q, k, v = (x.requires_grad_() for x in qkv(40, seed=step)[:3])
        total = torch.zeros((), dtype=torch.float64)
        for layer in range(len(kinds)):

            def one(q: torch.Tensor, layer: int = layer, k: torch.Tensor = k, v: torch.Tensor = v) -> torch.Tensor:
                return attend(q, k, v, layer=layer, kind=kind)

            total = total + (checkpoint(one, q, use_reentrant=False) if recomputed else one(q)).square().sum()
        total.backward()
        assert attend.plans.made == len(set(kinds))


@pytest.mark.parametrize(
    ("mask", "plans"), [("attend causal", 1), ("attend causal and (window(4) or layer % 6 == 5)", 2), ("attend causal and window(layer + 1)", 12)]
)
def test_K3_as_reported(mask: str, plans: int):
    """12 layers of a model, forward and backward, twice."""
    model = srt.build_model(srt.parse(f"{mask}\npredict token -> index + 1"), dim=8, depth=12, heads=2, num_tokens=7)
    for _ in range(2):
        model(torch.randint(0, 7, (2, 30)), return_loss=True).backward()
    assert model.attend.plans.made == plans
