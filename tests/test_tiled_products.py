"""Gradients in plain products: every choice of gates and gradients against the formulas, memory that is used again, and numbers at the edges."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

import srt_masks as srt
from srt_masks.compiler.labels import State
from srt_masks.kernels import tiled_products, tiled_rectangles
from srt_masks.kernels.tiled_products import Asking, exp_, tile_products

CHOICES = [dict(zip("qkv", states, strict=True)) for states in product(State, repeat=3)]


def _numbers(*shapes: tuple[int, int]) -> list[Tensor]:
    """(batch, heads, ...), one for each shape, none of them like another."""
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, *shape, generator=generator, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("has_upstream", [False, True])
def test_gradients_of_a_tile_are_the_formulas_whatever_is_asked_for(is_masked: bool, has_upstream: bool):
    """No gradient's gate reaches another's, though what one is done with is another's memory: in memory that is used again, and in memory of its own."""
    rows, width = 7, 5
    queries, keys, values, upstream = _numbers((rows, 4), (width, 4), (width, 6), (rows, 6))
    delta, top, rest, *gates_of = _numbers(*3 * [(rows, 1)], *3 * [(rows, width)])
    mask = torch.arange(rows)[:, None] % 4 >= torch.arange(width) - 1
    every = {name: gate[0, 0] for name, gate in zip("qkv", gates_of, strict=True)}
    scores = queries @ keys.transpose(-1, -2) - top - rest
    weights = scores.exp() * (mask if is_masked else 1)
    dscores = weights * ((upstream @ values.transpose(-1, -2) if has_upstream else 0) - delta)
    asking, own = Asking(queries, upstream if has_upstream else None, delta, top, rest), mask if is_masked else None
    folded = asking.part(slice(None), slice(None), slice(None))
    room = torch.empty(300, dtype=torch.float64), torch.empty(300, dtype=torch.float64)
    for choice in CHOICES:
        flows = {n: s for n, s in choice.items() if s is not State.NONE}
        gates = {n: every[n] for n, s in flows.items() if s is State.MIXED}
        gated = {n: gates.get(n, torch.ones(rows, width, dtype=torch.float64)) for n in "qkv"}
        wanted = {"q": (dscores * gated["q"]) @ keys, "k": (dscores * gated["k"]).transpose(-1, -2) @ queries}
        wanted |= {"v": (weights * gated["v"]).transpose(-1, -2) @ upstream} if has_upstream else {}
        found = {n: a @ b for n, a, b in tile_products(asking, keys, values, own, flows, gates)}
        assert set(found) == flows.keys() & wanted.keys()
        for n, x in found.items():
            torch.testing.assert_close(x, wanted[n], rtol=1e-12, atol=1e-12)
        again = {n: a @ b for n, a, b in tile_products(folded, keys.flatten(0, 1), values.flatten(0, 1), own, flows, gates, room)}
        assert set(again) == set(found)
        for n, x in again.items():
            torch.testing.assert_close(x.view(wanted[n].shape), wanted[n], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exp_of_what_lies_at_the_edges(dtype: torch.dtype):
    """The exponential of a softmax: exact at 0 and for a pair that is not attended; where it matters, right to a few units of the last place of 1."""
    edges = torch.tensor([0.0, float("-inf"), -1e4, float("inf"), float("nan")], dtype=dtype)
    torch.testing.assert_close(exp_(edges.clone()), edges.exp(), rtol=0, atol=0, equal_nan=True)
    x = torch.linspace(-700 if dtype is torch.float64 else -87, 1, 10_001, dtype=dtype)
    truth = torch.tensor([float(y) for y in x], dtype=torch.float64).exp()
    assert float((exp_(x.clone()).double() - truth).abs().max()) <= 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_a_weight_may_be_anything_where_nothing_is_attended(number: float):
    attend = srt.compile(srt.parse("input w: float per query, key\nattend causal\nscale q, k, v by w"), backend="tiled", tile=16)
    leaves = [x.requires_grad_() for x in _numbers(*3 * [(40, 8)])]
    w = torch.rand(40, 40, generator=torch.Generator().manual_seed(0))
    seen = torch.ones(40, 40).tril().bool()
    clean, odd = (torch.autograd.grad(attend(*leaves, w=torch.where(seen, w, x)).sum(), leaves) for x in (0.0, number))
    assert all(torch.equal(a, b) for a, b in zip(clean, odd, strict=True))


def test_scores_beyond_all_numbers_are_nothing_where_nobody_attends():
    """The least of a score and minus infinity: an infinite score must not meet an infinity that is added."""
    x, column = torch.full((1, 1, 2, 1), 1e30), torch.zeros(1, 1, 2, 1)
    mask = torch.tensor([[True, False], [False, True]])
    keys = torch.tensor([0.0, 1e30]).view(1, 1, 2, 1)
    x[..., 1, :] = 0.0
    ((_, a, b),) = tile_products(Asking(x, x * 0 + 1, column, column, None), keys, keys * 0, mask, {"v": State.ALL}, {})
    assert (a @ b).flatten().tolist() == [1.0, 1.0]


def test_the_parts_of_lse_are_looked_at(monkeypatch: pytest.MonkeyPatch):
    """Rows whose lse lies in two parts need both of them, and rows whose second part is 0 are not asked to subtract it."""
    seen: list[bool] = []
    honest = tiled_products.tile_products
    monkeypatch.setattr(tiled_rectangles, "tile_products", lambda asking, *args: seen.append(asking.rest is None) or honest(asking, *args))
    text = "attend causal\nstop k, v where k.pos < q.pos"
    for size, is_whole in ((0.5, True), (40.0, False)):
        q, k, v, dout = (x.float() for x in _numbers(*4 * [(150, 8)]))
        leaves = [x.requires_grad_() for x in (q * size, k, v)]
        exact = [x.detach().double().requires_grad_() for x in leaves]
        grads = torch.autograd.grad(srt.compile(srt.parse(text), backend="tiled")(*leaves, scale=1.0), leaves, dout)
        truth = torch.autograd.grad(srt.compile(srt.parse(text), backend="reference")(*exact, scale=1.0), exact, dout.double())
        assert seen and all(x is is_whole for x in seen)
        seen.clear()
        for a, b in zip(grads, truth, strict=True):
            torch.testing.assert_close(a.double(), b, rtol=1e-3, atol=1e-5 * float(b.abs().max()))


@pytest.mark.parametrize("is_transposed", [False, True])
def test_members_of_several_batch_rows_are_one_axis(is_transposed: bool):
    """Half of the heads of every row: they lie at no even distance, in what is read and in what is added to."""
    attend, truth = (srt.compile(srt.parse("attend causal\nstop k, v where k.pos < q.pos and head < 2"), backend=b) for b in ("tiled", "reference"))
    generator = torch.Generator().manual_seed(0)
    shape = (3, 40, 4, 8) if is_transposed else (3, 4, 40, 8)
    numbers = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(4)]
    *leaves, dout = (x.transpose(1, 2) if is_transposed else x for x in numbers)
    leaves = [x.requires_grad_() for x in leaves]
    for a, b in zip(*(torch.autograd.grad(f(*leaves), leaves, dout) for f in (attend, truth)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)
