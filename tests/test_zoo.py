"""Published schemes against oracles written without looking at the texts: masks, gates, positions, labels; plans; both backends."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from zoo_case import SCHEMES, Scheme

import srt_masks as srt


def spec_of(scheme: Scheme, case: SimpleNamespace) -> srt.Spec:
    return srt.parse(scheme.text, params=case.params)


def inputs_of(spec: srt.Spec, case: SimpleNamespace) -> dict[str, torch.Tensor]:
    dtypes = {"bool": torch.bool, "int": torch.int64, "float": torch.float64}
    return {i.name: torch.as_tensor(case.inputs[i.name]).to(dtypes[i.type.value]) for i in spec.checked.inputs}


def steps_of(spec: srt.Spec, case: SimpleNamespace) -> int | None:
    axes = [spec.checked.queries, *([spec.checked.keys] if spec.checked.keys else [])]
    return case.steps if any(axis.rows_per_step for axis in axes) else None


def sizes_of(spec: srt.Spec, case: SimpleNamespace) -> dict:
    """The arguments of `dense` and `tokens` for a case."""
    return {"steps": steps_of(spec, case), "heads": case.heads, "layers": case.layers, "inputs": inputs_of(spec, case), "given": case.given}


def asking(want: dict, rows: np.ndarray) -> np.ndarray:
    """The rows of an oracle's array (..., queries, keys) that have a row of q."""
    return rows[..., want["asks"], :] if "asks" in want else rows


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
def test_masks_gates_and_labels(scheme: Scheme):
    for case in (*scheme.cases, *scheme.large):
        spec = spec_of(scheme, case)
        want = scheme.oracle(case)
        found = srt.dense(spec, **sizes_of(spec, case))
        attend = np.broadcast_to(asking(want, want["attend"]), found.attend.shape)
        assert np.array_equal(found.attend.numpy(), attend)
        for name, gate in zip(("q", "k", "v", "hidden"), (found.gate_q, found.gate_k, found.gate_v, found.gate_hidden), strict=True):
            gates = np.broadcast_to(asking(want, np.asarray(want[name])) if name in want else 1.0, attend.shape)
            assert np.allclose(gate.numpy()[attend], gates[attend]), name
        for name in ("position", "target", "weight"):
            if name in want:
                assert np.allclose(getattr(found, name).numpy(), want[name]), name
        table = srt.tokens(spec, **sizes_of(spec, case))
        assert np.array_equal(table.asks.numpy(), want.get("asks", np.ones(len(table.role), bool)))
        assert torch.equal(table.position, found.position) and torch.equal(table.target[table.asks], found.target)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
def test_plans_are_the_masks(scheme: Scheme):
    for case in (*scheme.cases, *scheme.large):
        spec = spec_of(scheme, case)
        want, found = scheme.oracle(case), srt.dense(spec, **sizes_of(spec, case))
        attend = np.broadcast_to(asking(want, want["attend"]), found.attend.shape)
        if spec.checked.keys is not None and spec.checked.keys.rows_per_step:
            continue  # a plan by itself cannot know the length of its keys
        for tile in (16, 128):
            compiled = srt.compile(spec, layers=case.layers, tile=tile)
            for layer in range(case.layers):
                plan = compiled.plan(len(found.position), heads=case.heads, layer=layer, inputs=inputs_of(spec, case), given=case.given)
                assert np.array_equal(plan.to_dense()[0].numpy(), attend[layer]), (tile, layer)


def results(spec: srt.Spec, case: SimpleNamespace, backend: str, layer: int, data: list[torch.Tensor]) -> list[torch.Tensor]:
    """out, lse and the gradients into q, k and v, and into the twins of k and v where the text has `stop hidden`."""
    leaves = [x.detach().clone().requires_grad_() for x in data[:3]]
    twins = [x.detach().clone().requires_grad_() for x in data[1:3]] if spec.checked.has_hidden_rules else []
    attend = srt.compile(spec, layers=case.layers, backend=backend, tile=16)
    hidden = dict(zip(("hidden_k", "hidden_v"), twins, strict=bool(twins))) if twins else {}
    out, lse = attend(*leaves, layer=layer, return_lse=True, inputs=inputs_of(spec, case), given=case.given, **hidden)
    reached = torch.isfinite(lse)
    objective = (out * data[3]).sum() + lse[reached].sum()
    grads = torch.autograd.grad(objective, leaves + twins, allow_unused=True, materialize_grads=True)
    return [out, torch.where(reached, lse, 0.0), *grads]


@pytest.mark.parametrize("backend", ["tiled", "triton"])
@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
def test_outputs_and_gradients(scheme: Scheme, backend: str):
    """At the small cases: forward, lse and the gradients against the pairwise reference, in float64."""
    for case in scheme.cases:
        spec = spec_of(scheme, case)
        shape = srt.dense(spec, **sizes_of(spec, case)).attend.shape
        for layer in range(shape[0]):
            data = [torch.randn(1, case.heads, n, 8, dtype=torch.float64) for n in (shape[-2], shape[-1], shape[-1], shape[-2])]
            for a, b in zip(results(spec, case, backend, layer, data), results(spec, case, "reference", layer, data), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
