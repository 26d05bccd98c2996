"""`bench`: how long attention by a spec takes, forward and backward, beside torch's own with the same mask.

Sides take turns, so that a slow minute slows all of them, and the fastest turn of each is kept. What they give is compared before any is timed. No other
side knows gradient rules: they compute all gradients, whole.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from tqdm import tqdm

from .compiler.density import attended_by, total
from .compiler.plan import Plan
from .diagnostics import Error, InputError
from .kernels.attention import Attention
from .machine import card_memory, memory_here

OURS, MASKED, CAUSAL, WHOLE = "srt_masks", "SDPA, dense mask", "SDPA, causal", "SDPA, no mask"
MOST_DENSE = 4 * 2**30  # bytes of a dense mask that is made
LEAST_SECONDS = 0.2  # a side has more turns than were asked for, where they are short
MOST_TURNS = 50
APART = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}  # of outputs, of values ~ N(0, 1)

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds, of the fastest turn."""

    forward: float
    backward: float

    @property
    def both(self) -> float:
        return self.forward + self.backward

    def plain(self) -> dict[str, float]:
        return {"forward": self.forward, "backward": self.backward}


@dataclass(frozen=True, slots=True)
class Timed:
    """One size. `density` is the share of pairs that are attended, `planned` the seconds that its plan took, once; `left_out`, by side, why it was not timed."""

    queries: int
    keys: int
    batch: int
    backend: str
    tile: int
    planned: float
    density: float
    sides: Mapping[str, Times]
    left_out: Mapping[str, str]

    def plain(self) -> dict[str, Any]:
        about = {name: getattr(self, name) for name in ("queries", "keys", "batch", "backend", "tile", "planned", "density")}
        return {**about, "sides": {name: times.plain() for name, times in self.sides.items()}, "left_out": dict(self.left_out)}


def bench(
    attend: Attention, tokens: int | tuple[int, int], *, heads: int = 8, head_dim: int = 64, batch: int = 1, dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu", layer: int | None = None, repeat: int = 5, quiet: bool = False, **arguments: Any,
) -> Timed:  # fmt: skip
    """Time one size. `tokens` is what `attend.plan` takes; `arguments` are its inputs and `given`, with which the batch may be given, too. q, k and v are
    (batch, heads, tokens, head_dim), drawn from N(0, 1), and all three get gradients. Raises InputError where that is no call, or one too large for the
    memory there is, Error where two sides differ."""
    for name, value in (("heads", heads), ("batch", batch), ("head_dim", head_dim), ("repeat", repeat)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name} is a whole number, 1 or more; got {value!r}")
    device = torch.device(device)
    # Heads that are all alike are one: a dense mask is as large as it has to be.
    own = heads if attend.spec.checked.speaks_of_heads else 1
    plan = attend.plan(tokens, heads=own, layer=layer, dtype=dtype, head_dim=head_dim, **arguments)
    geometry = plan.geometry
    if not geometry.queries or not geometry.keys:
        raise InputError(f"there is nothing to time: a call on {geometry.queries} queries and {geometry.keys} keys. Give more steps=")
    batch = geometry.batch if geometry.batch > 1 else batch
    _check_memory((batch, heads, geometry.queries, geometry.keys, head_dim), dtype, device)
    generator = torch.Generator().manual_seed(0)

    def drawn(rows: int) -> Tensor:
        return torch.randn(batch, heads, rows, head_dim, generator=generator, dtype=torch.promote_types(dtype, torch.float32)).to(dtype).to(device)

    leaves = [drawn(rows).requires_grad_() for rows in (geometry.queries, geometry.keys, geometry.keys)]
    twins = {}
    if attend.spec.checked.has_hidden_rules:
        twins = {name: x.detach().clone().requires_grad_() for name, x in zip(("hidden_k", "hidden_v"), leaves[1:], strict=True)}
    found = attend.found(*leaves, layer=layer, **arguments)
    others, left_out, dense = _others(plan, dtype, device)
    sides: dict[str, Attend] = {OURS: lambda q, k, v: attend(q, k, v, layer=layer, **twins, **arguments), **others}
    outs: dict[str, Tensor] = {}
    with _bar(f"{geometry.queries:,} tokens, first calls", len(sides), "side", quiet) as bar:  # they plan, and compile
        for name, side in sides.items():
            outs[name] = side(*leaves).detach()
            bar.update()
    _compare(outs, dense, APART[dtype])
    times = _in_turns(sides, [*leaves, *twins.values()], len(leaves), drawn(geometry.queries), repeat, quiet)
    pairs = total(plan, [attended_by(group, plan.program.attend) for group in plan.groups])
    return Timed(geometry.queries, geometry.keys, batch, found.backend.name, found.own.plan.geometry.tile, plan.seconds, pairs.density, times, left_out)


def _check_memory(sizes: tuple[int, int, int, int, int], dtype: torch.dtype, device: torch.device) -> None:
    """Raises InputError where the tensors of one backward do not fit: q, k, v, the result, and a gradient of each."""
    batch, heads, queries, keys, head_dim = sizes
    takes = 4 * (queries + keys) * batch * heads * head_dim * torch.empty(0, dtype=dtype).element_size()
    has = card_memory(str(device)) or memory_here()
    if takes > has:
        raise InputError(
            f"q, k and v of batch {batch}, {heads} heads of {head_dim}, {queries:,} x {keys:,} tokens, the result, and their gradients take "
            f"{takes / 2**30:,.1f} GiB, and there are {has / 2**30:,.1f}: give fewer steps=, heads= or batch="
        )


def _others(plan: Plan, dtype: torch.dtype, device: torch.device) -> tuple[dict[str, Attend], dict[str, str], Tensor | None]:
    """What else can do this mask at all, why some cannot, and the mask, bool, (batch or 1, heads or 1, queries, keys)."""
    g = plan.geometry
    takes = g.batch * g.heads * g.queries * g.keys * torch.empty(0, dtype=dtype).element_size()
    if takes > MOST_DENSE:
        return {}, {MASKED: f"its mask alone takes {takes / 2**30:,.1f} GiB"}, None
    dense = plan.to_dense().to(device)
    mask = torch.zeros(dense.shape, dtype=dtype, device=device).masked_fill_(~dense, float("-inf"))
    found: dict[str, Attend] = {MASKED: lambda q, k, v: scaled_dot_product_attention(q, k, v, attn_mask=mask)}
    if bool(dense.all()):
        found[WHOLE] = scaled_dot_product_attention
    elif g.queries == g.keys and torch.equal(dense, torch.ones_like(dense).tril()):
        found[CAUSAL] = lambda q, k, v: scaled_dot_product_attention(q, k, v, is_causal=True)
    return found, {}, dense


def _compare(outs: Mapping[str, Tensor], dense: Tensor | None, apart: float) -> None:
    """Raises Error where two sides give other numbers; rows that attend to nothing are 0 here, and NaN in some of torch's."""
    for name, out in outs.items():
        if name != OURS and dense is not None:
            asks = dense.any(-1).expand(out.shape[:-1])
            off = (out - outs[OURS])[asks].abs()
            if off.numel() and not float(off.max()) <= apart:
                raise Error(f"{OURS} and {name} differ by {float(off.max()):.1e} on this mask, and nothing was timed: please report the spec and this line")


def _in_turns(sides: Mapping[str, Attend], leaves: Sequence[Tensor], own: int, dout: Tensor, repeat: int, quiet: bool) -> dict[str, Times]:
    """`own` of the leaves are handed over; all get gradients, where a side has any for them."""
    least = dict.fromkeys(sides, Times(float("inf"), float("inf")))
    begun, turns = time.perf_counter(), 0
    with _bar(f"{dout.shape[2]:,} tokens", repeat, "turn", quiet) as bar:
        while turns < repeat or (time.perf_counter() - begun < LEAST_SECONDS * len(sides) and turns < MOST_TURNS):
            for name, side in sides.items():
                times = _one_turn(side, leaves, own, dout)
                least[name] = Times(min(least[name].forward, times.forward), min(least[name].backward, times.backward))
            turns += 1
            bar.update()
    return least


def _bar(what: str, total: int, unit: str, quiet: bool) -> Any:
    """Progress, in a terminal."""
    return tqdm(total=total, desc=what, unit=unit, disable=quiet or None, file=sys.stderr, leave=False, dynamic_ncols=True)


def _one_turn(side: Attend, leaves: Sequence[Tensor], own: int, dout: Tensor) -> Times:
    begin = _now(dout.device)
    out = side(*leaves[:own])
    middle = _now(dout.device)
    torch.autograd.grad(out, leaves, dout, allow_unused=True)
    return Times(middle - begin, _now(dout.device) - middle)


def _now(device: torch.device) -> float:
    """When all that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()
