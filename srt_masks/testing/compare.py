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
    plain = results(lambda *x: attention(*x, *masks), dtype)
    found = []
    for what, a, b, t in zip(NAMES, mine, plain, truth, strict=True):
        unit = torch.finfo(torch.float32 if what == "lse" and dtype is not torch.float64 else dtype).eps
        errors = [(x.double() - t).abs().max().item() if t.numel() else 0.0 for x in (a, b)]
        largest = t.abs().max().item() if t.numel() else 0.0
        # Sums of gradients cancel: the largest term is at least of the size of the numbers that go in.
        allowed = 2 * errors[1] + 4 * unit * max(largest, 1.0)
        found.append(Comparison(what, errors[0] if errors[0] == errors[0] else float("inf"), errors[1], allowed))
    return found


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
