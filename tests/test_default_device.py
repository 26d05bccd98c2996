"""Torch's default device speaks of the caller's tensors: under one that holds no numbers, everything public does what it does without."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from torch import Tensor

import srt_masks as srt
from srt_masks.training.made import Numbers
from srt_masks.training.recipe import Recipe
from srt_masks.training.train import train

STEPS = 70
SPEC = srt.parse("""
param reach = 9
input doc: int per token
input share: float per query, key
layout repeat { token, reason }
attend causal and same(doc)
stop v where q.pos - k.pos > reach
scale k by share
predict token -> index + 1
""")
REASONING = srt.parse("""
param horizon = 2
layout repeat { token, reason }
attend causal
stop k, v where k is reason and 0 < q.step - k.step <= horizon
position step
predict token -> index + 1
predict reason -> index + 1
assert no flow where k.step > q.step
""")
EARLIER = srt.parse("attend k.pos <= q.pos and q.pos - k.pos < 5")


def inputs() -> dict[str, Tensor]:
    generator = torch.Generator("cpu").manual_seed(0)
    return {"doc": torch.arange(2 * STEPS, device="cpu") // 50, "share": torch.rand(2 * STEPS, 2 * STEPS, generator=generator, device="cpu")}


def drawn(*sizes: int) -> Tensor:
    return torch.randn(*sizes, generator=torch.Generator("cpu").manual_seed(1), device="cpu")


def words() -> Tensor:
    return torch.randint(0, 50, (2, 9), generator=torch.Generator("cpu").manual_seed(2), device="cpu")


def _called(backend: str) -> list[Tensor]:
    tensors = [drawn(2, 2, 2 * STEPS, 8).requires_grad_() for _ in range(3)]
    out, lse = srt.compile(SPEC, backend=backend)(*tensors, lengths=[100, 140], return_lse=True, inputs=inputs())
    (out.sum() + lse.isfinite().sum()).backward()
    return [out, lse, *(x.grad for x in tensors if x.grad is not None)]


def _decoded() -> list[Tensor]:
    attend, q, k = srt.compile(EARLIER), drawn(2, 2, 3, 8), drawn(2, 2, 60, 8)
    return [attend(q, k, k, queries=range(50, 53)), attend(q, k, k, queries=[20, 57])]


def _planned() -> list[Any]:
    plan = srt.compile(SPEC).plan(2 * STEPS, inputs=inputs())
    found = plan.intervals()[0]
    flex = plan.to_flex(gradients="drop")
    i, j = (torch.arange(2 * STEPS, device="cpu").reshape(shape) for shape in ((-1, 1), (1, -1)))
    zero = torch.zeros((), dtype=torch.int64, device="cpu")
    return [plan.to_dense(), plan.active_tiles, found, plan.shard(0, 2), flex.kv_num_blocks, flex.mask_mod(zero, zero, i, j)]


def _dense() -> list[Any]:
    masks = srt.dense(SPEC, steps=STEPS, inputs=inputs())
    return [masks.attend, masks.gate_k, masks.gate_v, str(srt.tokens(REASONING, steps=3))]


def _proved() -> list[Any]:
    false = srt.parse("attend full\nassert no flow where k.pos > q.pos")
    lower = torch.ones(6, 6, dtype=torch.bool, device="cpu").tril()
    same = srt.equivalent(srt.parse("attend causal"), lambda b, h, i, j: j <= i, steps=6)
    return [
        srt.prove(REASONING)[0].outcome, srt.prove(false)[0].outcome, same.outcome, srt.from_dense(lower).spec.text,
        str(srt.explain(REASONING, 4, 1, steps=3)), str(srt.flow(REASONING, steps=4)), srt.documents(lengths=[3, 4])["start"],
    ]  # fmt: skip


def _modelled(**options: Any) -> list[Any]:
    torch.manual_seed(0)
    with torch.device("cpu"):
        model = srt.build_model(REASONING, dim=16, depth=2, heads=2, num_tokens=256, **options)
    loss = model(words(), return_loss=True)
    loss.backward()
    ragged = model(words(), lengths=[5, 9], padding="left")
    written = srt.sample(model, [b"abc", b"a"], 4, seed=1, top_k=3)
    return [loss, *(p.grad for p in model.parameters() if p.grad is not None), ragged, model.log_probs(words()), model.next_logits(words()), written]


def _stopped() -> list[Tensor]:
    x = [drawn(1, 2, 6, 8) for _ in range(3)]
    return [srt.stop_graddable_attn(*x, causal=True, k_stop_grad_mask=torch.ones(6, 6, dtype=torch.bool, device="cpu"))]


DOORS: dict[str, Callable[[], list[Any]]] = {
    "attend": lambda: _called("tiled"),
    "reference": lambda: _called("reference"),
    "queries": _decoded,
    "plan": _planned,
    "dense": _dense,
    "proofs": _proved,
    "model": _modelled,
    "rotary, own weights": lambda: _modelled(positions="rotary", own_weights={"reason"}),
    "stop_graddable_attn": _stopped,
}


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return a.device == b.device and a.dtype == b.dtype and torch.equal(a.nan_to_num(7), b.nan_to_num(7))
    return a == b if isinstance(a, str | int | list | bool) else str(a) == str(b)


@pytest.mark.parametrize("name", DOORS)
def test_everything_public_does_what_it_does_without_a_default_device(name: str):
    before = DOORS[name]()
    with torch.device("meta"):
        found = DOORS[name]()
        assert torch.empty(1).is_meta  # the caller's own is as it was
    assert len(found) == len(before)
    for number, (a, b) in enumerate(zip(before, found, strict=True)):
        assert _same(a, b), f"result {number}: {b}"


def test_laws_are_tried():
    with torch.device("meta"):
        srt.testing.check(srt.parse("param n = 3  attend causal and window(n)  stop v where q.pos > k.pos"), examples=3)


def test_a_run_is_that_of_a_run_without(tmp_path: Path):
    task = Numbers("sums", lambda count, words, generator: (x := torch.randn(count, words, 1, generator=generator), x.cumsum(1)), inputs=1, examples=8)
    recipe = Recipe(dim=8, depth=1, heads=1, words=6, batch=2, steps=3)
    spec = srt.parse("attend causal\npredict token -> index")
    before = train(spec, recipe, tmp_path / "a", task=task, quiet=True).held_out
    with torch.device("meta"):
        assert train(spec, recipe, tmp_path / "b", task=task, quiet=True).held_out == before


def test_one_that_is_set_for_good_is_kept_too():
    """In a process of its own: it is set for all that follows."""
    code = """
import torch, srt_masks as srt
torch.set_default_device("meta")
q = torch.randn(1, 2, 40, 8, device="cpu", requires_grad=True)
attend = srt.compile(srt.parse("attend causal"))
attend(q, q, q).sum().backward()
print(attend(q, q, q).device, q.grad.device, torch.arange(3).device, torch.get_default_device())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.split() == ["cpu", "cpu", "meta", "meta"]
