"""Published schemes against oracles written without looking at the texts: masks, gates, positions, labels; plans; both backends."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import srt_masks as srt

sys.path.insert(0, str(Path(__file__).parent / "zoo"))

from zoo import SCHEMES, Scheme

# What these texts need and the error that says it is not served yet: a scheme that comes to be served fails this list.
NOT_YET = {
    scheme.name: words
    for scheme in SCHEMES
    for words in ("queries where", "layout given", "stop hidden")
    if words in scheme.text or (words == "stop hidden" and any(line.lstrip().startswith("stop") and "hidden" in line for line in scheme.text.splitlines()))
}
SERVED = [s for s in SCHEMES if s.name not in NOT_YET]


def without_asserts(text: str) -> str:
    """Claims are proved later; until then a text that makes one is refused, and here they are left out."""
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("assert"))


def spec_of(scheme: Scheme, case: SimpleNamespace) -> srt.Spec:
    return srt.parse(without_asserts(scheme.text), params=case.params)


def inputs_of(spec: srt.Spec, case: SimpleNamespace) -> dict[str, torch.Tensor]:
    dtypes = {"bool": torch.bool, "int": torch.int64, "float": torch.float64}
    return {i.name: torch.as_tensor(case.inputs[i.name]).to(dtypes[i.type.value]) for i in spec.checked.inputs}


def steps_of(spec: srt.Spec, case: SimpleNamespace) -> int | None:
    axes = [spec.checked.queries, *([spec.checked.keys] if spec.checked.keys else [])]
    return case.steps if any(axis.rows_per_step for axis in axes) else None


@pytest.mark.parametrize("scheme", [s for s in SCHEMES if s.name in NOT_YET], ids=lambda s: s.name)
def test_what_is_not_served_is_refused_by_name(scheme: Scheme):
    with pytest.raises(srt.SpecError) as error:
        srt.parse(without_asserts(scheme.text))
    assert any(NOT_YET[scheme.name].split()[0] in d.message and "not served" in d.message for d in error.value.diagnostics), error.value.report


@pytest.mark.parametrize("scheme", SERVED, ids=lambda s: s.name)
def test_masks_gates_and_labels(scheme: Scheme):
    for case in (*scheme.cases, *scheme.large):
        spec = spec_of(scheme, case)
        want = scheme.oracle(case)
        found = srt.dense(spec, steps=steps_of(spec, case), heads=case.heads, layers=case.layers, inputs=inputs_of(spec, case))
        attend = np.broadcast_to(want["attend"], found.attend.shape)
        assert np.array_equal(found.attend.numpy(), attend)
        for name, gate in zip("qkv", (found.gate_q, found.gate_k, found.gate_v), strict=True):
            gates = np.broadcast_to(want.get(name, 1.0), attend.shape)
            assert np.allclose(gate.numpy()[attend], gates[attend]), name
        for name in ("position", "target", "weight"):
            if name in want:
                assert np.allclose(getattr(found, name).numpy(), want[name]), name


@pytest.mark.parametrize("scheme", SERVED, ids=lambda s: s.name)
def test_plans_are_the_masks(scheme: Scheme):
    for case in (*scheme.cases, *scheme.large):
        spec = spec_of(scheme, case)
        inputs = inputs_of(spec, case)
        attend = np.broadcast_to(
            scheme.oracle(case)["attend"], srt.dense(spec, steps=steps_of(spec, case), heads=case.heads, layers=case.layers, inputs=inputs).attend.shape
        )
        if spec.checked.keys is not None and spec.checked.keys.rows_per_step:
            continue  # a plan by itself cannot know the length of its keys
        for tile in (16, 128):
            compiled = srt.compile(spec, layers=case.layers, tile=tile)
            for layer in range(case.layers):
                dense = compiled.plan(attend.shape[-2], heads=case.heads, layer=layer, inputs=inputs).to_dense()
                assert np.array_equal(dense[0].numpy(), attend[layer]), (tile, layer)


def results(spec: srt.Spec, case: SimpleNamespace, backend: str, layer: int, data: list[torch.Tensor]) -> list[torch.Tensor]:
    leaves = [x.detach().clone().requires_grad_() for x in data[:3]]
    out, lse = srt.compile(spec, layers=case.layers, backend=backend, tile=16)(*leaves, layer=layer, return_lse=True, inputs=inputs_of(spec, case))
    reached = torch.isfinite(lse)
    objective = (out * data[3]).sum() + lse[reached].sum()
    grads = torch.autograd.grad(objective, leaves, allow_unused=True, materialize_grads=True)
    return [out, torch.where(reached, lse, 0.0), *grads]


@pytest.mark.parametrize("backend", ["tiled", "triton"])
@pytest.mark.parametrize("scheme", SERVED, ids=lambda s: s.name)
def test_outputs_and_gradients(scheme: Scheme, backend: str):
    """At the small cases: forward, lse and three gradients against the pairwise reference, in float64."""
    for case in scheme.cases:
        spec = spec_of(scheme, case)
        shape = srt.dense(spec, steps=steps_of(spec, case), heads=case.heads, layers=case.layers, inputs=inputs_of(spec, case)).attend.shape
        for layer in range(shape[0]):
            data = [torch.randn(1, case.heads, n, 8, dtype=torch.float64) for n in (shape[-2], shape[-1], shape[-1], shape[-2])]
            for a, b in zip(results(spec, case, backend, layer, data), results(spec, case, "reference", layer, data), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
