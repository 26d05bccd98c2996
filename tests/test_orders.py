"""Orders of tokens: whatever order a plan visits them in, results are the caller's; and the order taken is the one that pays."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import srt_masks as srt
from srt_masks.kernels.attention import Attention
from srt_masks.testing.strategies import Case, cases

NEAR = "layout repeat { token, reason * 4 }\nattend causal and (k is token or q.step - k.step <= 16)"
STOP = "layout repeat { token, reason * 2 }\nlet soon = k is reason and 0 < q.step - k.step <= 3\nattend causal\nstop k, v where soon"


def orders_of(spec: srt.Spec) -> list[str]:
    """Every order that a caller may ask for: single sorts and curves, and a pair of them."""
    compiled = srt.compile(spec).compiled
    names = [c.name for c in compiled.candidates]
    sorts = [c for c in compiled.candidates if not c.curve]
    return names + [a.then(b).name for a, b in itertools.pairwise(sorts)]


def results(attend: Attention, q, k, v, dout, dlse, needs=(True, True, True), **options) -> list[torch.Tensor]:
    """out, lse, and the gradients of q, k and v and of their twins, with gradients into both out and lse."""
    leaves = [x.detach().clone().requires_grad_(need) for x, need in zip((q, k, v), needs, strict=True)]
    twins = [x.detach().clone().requires_grad_() for x in (k, v)] if attend.spec.checked.has_hidden_rules else []
    hidden = dict(zip(("hidden_k", "hidden_v"), twins, strict=True)) if twins else {}
    out, lse = attend(*leaves, return_lse=True, **hidden, **options)
    wanted = [x for x in leaves + twins if x.requires_grad]
    outputs = [(x, g) for x, g in ((out, dout), (lse, dlse)) if x.requires_grad and g is not None]
    grads = torch.autograd.grad([x for x, _ in outputs], wanted, [g for _, g in outputs], allow_unused=True, materialize_grads=True)
    return [out.detach(), lse.detach(), *grads]


def assert_equal(found: list[torch.Tensor], wanted: list[torch.Tensor], note: str = ""):
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, msg=lambda m: f"{note}: {m}")


def is_reordered(attend: Attention, tokens: int, **options) -> bool:
    return any(g.order is not None for g in attend.plan(tokens, **options).groups)


# ------------------------------------------------------------------------------------------------ results are the caller's


@pytest.mark.parametrize("backend", ["tiled", "triton"])
@given(cases(most_steps=6), st.data(), st.integers(0, 6), st.sampled_from([1, 2]), st.sampled_from(["both", "out", "lse", "sum"]))
def test_random_specs_in_every_order(backend: str, case: Case, data: st.DataObject, short: int, group: int, through: str):
    """Values, lse and all gradients, ragged lengths and grouped heads, against the pairwise reference."""
    names = orders_of(case.spec)
    if not names:
        return
    name = data.draw(st.sampled_from(names))
    layout = case.spec.checked.queries
    steps = case.steps or 0
    tokens = layout.tokens(steps)
    lengths = [tokens, layout.tokens(min(short, steps))]
    heads = case.heads * group
    inputs = {n: t.repeat(group, 1, 1) if n == "weights" else t for n, t in case.inputs.items()}
    q, k, v = (torch.randn(2, h, tokens, 8, dtype=torch.float64) for h in (heads, case.heads, case.heads))
    dout, dlse = torch.randn_like(q), torch.randn(q.shape[:3], dtype=torch.float64)
    if through == "sum":
        dout = torch.ones(1, 1, 1, 1, dtype=torch.float64).expand(q.shape)
    given = (None if through == "lse" else dout, dlse if through in ("both", "lse") else None)

    def found(**options) -> list[torch.Tensor]:
        attend = srt.compile(case.spec, heads=heads, tile=16, **options)
        grads = given
        if grads[1] is not None:
            lse = attend(q, k, v, lengths=lengths, return_lse=True, inputs=inputs)[1]
            grads = (given[0], torch.where(torch.isfinite(lse), dlse, 0.0))
        return results(attend, q, k, v, *grads, lengths=lengths, inputs=inputs)

    assert_equal(found(backend=backend, order=name), found(backend="reference"), name)


@given(cases(most_steps=10), st.data())
def test_plans_and_exports_are_in_the_callers_order(case: Case, data: st.DataObject):
    names = orders_of(case.spec)
    if not names:
        return
    tokens = case.spec.checked.queries.tokens(case.steps or 0)
    plan, natural = (
        srt.compile(case.spec, tile=16, order=order).plan(tokens, heads=case.heads, inputs=case.inputs)
        for order in (data.draw(st.sampled_from(names)), "natural")
    )
    masks = srt.dense(case.spec, steps=case.steps, heads=case.heads, inputs=case.inputs)
    assert torch.equal(plan.to_dense(), masks.attend) and torch.equal(natural.to_dense(), masks.attend)
    for found in plan.intervals():
        assert torch.equal(found.to_dense(), masks.attend[0, found.heads[0]])
    if tokens:
        flex, wanted = plan.to_flex(gradients="drop", device="cpu"), natural.to_flex(gradients="drop", device="cpu")
        assert torch.equal(flex.to_dense(), wanted.to_dense())
    for group, other in zip(plan.natural.groups, natural.groups, strict=True):
        assert group.order is None and all(torch.equal(group.leaves.values[x], other.leaves.values[x]) for x in other.leaves.split.leaves)
