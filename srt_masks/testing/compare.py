"""A backend against the dense reference: output, lse and the three gradients, in the units of the error bound.

The bound, for every dtype: at most twice the error of dense attention in the same dtype plus 4 units in the last place of the
largest term, both against float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..kernels.attention import compile_spec
from ..reference.attention import attention
from ..spec import Spec
from ..surface import dense

NAMES = ("out", "lse", "dq", "dk", "dv")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Largest errors against float64: of the backend, of dense attention in the same dtype, and what is allowed."""

    what: str
    error: float
    dense_error: float
    allowed: float

    @property
    def holds(self) -> bool:
        return self.error <= self.allowed

    def __str__(self) -> str:
        return f"{self.what:4} error {self.error:.2e}  (dense attention {self.dense_error:.2e}, allowed {self.allowed:.2e})  {'ok' if self.holds else 'WRONG'}"


def compare(
    spec: Spec, *, steps: int | None = None, heads: int = 2, key_heads: int | None = None, layers: int | None = None, layer: int = 0, head_dim: int = 16,
    batch: int = 1, dtype: torch.dtype = torch.float32, backend: str = "tiled", tile: int | None = None, seed: int = 0, inputs: Mapping[str, Any] | None = None,
) -> list[Comparison]:  # fmt: skip
    """Compare one call on random q, k, v. Returns one `Comparison` each for out, lse, dq, dk and dv."""
    checked = spec.checked
    masks = dense(spec, steps=steps if checked.queries.rows_per_step else None, heads=heads, layers=layers, inputs=inputs)
    masks = [(m if m.ndim > 4 else m[None])[:, layer] for m in (masks.attend, masks.gate_q, masks.gate_k, masks.gate_v)]
    queries, keys = masks[0].shape[-2:]
    generator = torch.Generator().manual_seed(seed)
    shapes = [(batch, heads, queries, head_dim), *[(batch, key_heads or heads, keys, head_dim)] * 2, (batch, heads, queries, head_dim)]
    q, k, v, dout = (torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in shapes)
    dlse = torch.randn(shapes[0][:3], generator=generator, dtype=torch.float64)
    attend = compile_spec(spec, heads=heads, layers=layers, backend=backend, tile=tile)

    def results(run, dtype: torch.dtype) -> list[Tensor]:
        leaves = [x.detach().to(dtype).requires_grad_() for x in (q, k, v)]
        out, lse = run(*leaves)
        reached = torch.isfinite(lse)
        objective = (out.double() * dout.double()).sum() + (lse.double()[reached] * dlse[reached]).sum()
        grads = torch.autograd.grad(objective, leaves) if objective.requires_grad else [torch.zeros_like(x) for x in leaves]
        return [out, torch.where(reached, lse, 0), *grads]

    mine = results(lambda *x: attend(*x, layer=layer if layers else None, return_lse=True, inputs=inputs), dtype)
    truth = results(lambda *x: attention(*x, *masks), torch.float64)
    # float64 has no better judge than itself: its own error is that of float32, scaled by the two precisions.
    narrow = torch.float32 if dtype is torch.float64 else dtype
    finer = torch.finfo(dtype).eps / torch.finfo(narrow).eps
    plain = results(lambda *x: attention(*x, *masks), narrow)
    terms = _largest_terms(*(x.double() for x in (q, k, v, dout)), dlse, *masks)
    found = []
    for what, a, b, t in zip(NAMES, mine, plain, truth, strict=True):
        unit = torch.finfo(torch.float32 if what == "lse" and dtype is not torch.float64 else dtype).eps
        errors = [(x.double() - t).abs().max().item() if t.numel() else 0.0 for x in (a, b)]
        errors[1] *= finer
        allowed = 2 * errors[1] + 4 * unit * terms[what]
        found.append(Comparison(what, errors[0] if errors[0] == errors[0] else float("inf"), errors[1], allowed))
    return found


def _largest_terms(q: Tensor, k: Tensor, v: Tensor, dout: Tensor, dlse: Tensor, attend: Tensor, *gates: Tensor) -> dict[str, float]:
    """The largest term that is added up anywhere on the way to each result: sums cancel, their terms do not."""
    scale = q.shape[-1] ** -0.5
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    scores = torch.where(attend, scale * q @ k.transpose(-1, -2), float("-inf"))
    weights = torch.where(attend.any(-1, keepdim=True), scores.softmax(-1), 0.0).nan_to_num()
    upstream = dout.abs() @ v.abs().transpose(-1, -2)
    delta = (dout.abs() * (weights @ v.abs())).sum(-1, keepdim=True)
    pairs = weights * (upstream + delta + dlse.abs()[..., None]) * scale

    def most(*factors: Tensor) -> float:
        return max((1.0, *(f.abs().max().item() for f in factors if f.numel()))) if factors else 1.0

    sizes = [most(x) for x in (q, k, v, dout)]
    reach = [most(torch.where(attend, pairs * g.abs(), 0.0)) for g in gates[:2]]
    return {
        "out": sizes[2], "lse": most(torch.where(attend, scale * q.abs() @ k.abs().transpose(-1, -2), 0.0)),
        "dq": reach[0] * sizes[1], "dk": reach[1] * sizes[0], "dv": most(torch.where(attend, weights * gates[2].abs(), 0.0)) * sizes[3],
    }  # fmt: skip


def check(spec: Spec, *, steps: tuple[int, ...] = (1, 2, 7), inputs: Mapping[str, Any] | None = None, **options: Any) -> None:
    """Compare `tiled` with the reference at several sizes and tiles. Raises AssertionError with the smallest case that differs."""
    sizes: tuple[int | None, ...] = steps if spec.checked.queries.rows_per_step else (None,)
    for size in sizes:
        for tile in (16, 128):
            for seed in (0, 1):
                wrong = [c for c in compare(spec, steps=size, tile=tile, seed=seed, inputs=inputs, **options) if not c.holds]
                if wrong:
                    lines = "\n".join(map(str, wrong))
                    raise AssertionError(f"the backend differs from the reference at steps={size}, tile={tile}, seed={seed}:\n{lines}\n{spec.text}")
