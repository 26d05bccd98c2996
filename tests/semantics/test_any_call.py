"""Calls of any form: tensors as they lie in memory, sizes down to 0 and 1, shorter than a tile, every number of heads a key head."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from calls import ANY_BACKEND, ANY_BLOCK_SPARSE, BACKENDS, BLOCK_SPARSE, FEW, Results, assert_near, call, differentiate, qkv
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

import srt_masks as srt
from srt_masks.testing import compare
from srt_masks.testing.strategies import Case, cases

TEXT = "attend causal and window(9)\nstop k where q.pos - k.pos > 3\nscale v by 0.5 where head == 1"

# ------------------------------------------------------------------------------------------------ in memory


@st.composite
def layouts_in_memory(draw: st.DrawFn, axes: int) -> tuple[tuple[int, ...], tuple[int, ...], int, frozenset[int]]:
    """The order of axes in memory, the step of each, where in memory it begins, and which axes are one number seen many times (stride 0)."""
    order = tuple(draw(st.permutations(range(axes))))
    steps = tuple(draw(st.lists(st.integers(1, 3), min_size=axes, max_size=axes)))
    return order, steps, draw(st.integers(0, 3)), draw(st.frozensets(st.integers(0, axes - 1), max_size=axes))


def laid_out(x: Tensor, order: tuple[int, ...], steps: tuple[int, ...], shift: int, same: frozenset[int]) -> Tensor:
    """Numbers of x in such memory, with NaN between them."""
    for axis in same:
        x = x.narrow(axis, 0, 1)
    shape = [n * s + shift for n, s in zip(x.shape, steps, strict=True)]
    room = torch.full([shape[i] for i in order], float("nan"), dtype=x.dtype)
    view = room.permute(*torch.tensor(order).argsort().tolist())[tuple(slice(shift, None, s) for s in steps)]
    return view.copy_(x)


@FEW
@given(ANY_BACKEND, st.tuples(*[layouts_in_memory(4)] * 4, layouts_in_memory(3)), st.integers(1, 3))
@example("triton", tuple(((*range(n),), (1,) * n, 0, frozenset(range(n))) for n in (4, 4, 4, 4, 3)), 2)
@example("tiled", tuple(((*range(n),), (1,) * n, 0, frozenset(range(n))) for n in (4, 4, 4, 4, 3)), 2)
def test_strides_offsets_and_stride_0_of_every_tensor(backend: str, layouts: tuple, group: int):
    """q, k, v and the gradients of out and of lse: transposed, sliced, shifted, one number seen many times. Sums may run in another order, and no more."""
    tensors = qkv(19, batch=2, heads=2 * group, key_heads=2)
    inputs = [*tensors, tensors[3].sum(-1)]
    views = [laid_out(x, *how).expand(x.shape) for x, how in zip(inputs, layouts, strict=True)]
    attend = srt.compile(srt.parse(TEXT), backend=backend, tile=16)
    plain = [x.clone(memory_format=torch.contiguous_format) for x in views]
    assert_near(differentiate(attend, views[:4], views[4]), differentiate(attend, plain[:4], plain[4]), 1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_q_k_and_v_in_one_tensor(backend: str):
    """As one projection leaves them: views of (batch, tokens, 3, heads, head_dim). Its gradient is that of the three, in place."""
    attend = srt.compile(srt.parse(TEXT), backend=backend, tile=16)
    packed = torch.randn(2, 19, 3, 2, 8, dtype=torch.float64, requires_grad=True)
    attend(*packed.permute(2, 0, 3, 1, 4)).square().sum().backward()
    apart = [x.detach().contiguous().requires_grad_() for x in packed.permute(2, 0, 3, 1, 4)]
    attend(*apart).square().sum().backward()
    assert packed.grad is not None
    torch.testing.assert_close(packed.grad.permute(2, 0, 3, 1, 4), torch.stack([x.grad for x in apart if x.grad is not None]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_tensor_as_q_k_and_v(backend: str):
    """Its gradient is the sum of three."""
    attend, x = srt.compile(srt.parse(TEXT), backend=backend, tile=16), torch.randn(1, 2, 19, 8, dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(attend(x, x, x).square().sum(), x)
    apart = [x.detach().clone().requires_grad_() for _ in range(3)]
    torch.testing.assert_close(found, sum(torch.autograd.grad(attend(*apart).square().sum(), apart)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_came_is_not_written_to(backend: str):
    tensors = qkv(19)
    before, dlse = [x.clone() for x in tensors], tensors[3].sum(-1)
    attend = srt.compile(srt.parse(TEXT), backend=backend, tile=16)
    for scale in (None, -0.5):
        differentiate(attend, tensors, dlse, scale=scale)
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True)) and torch.equal(dlse, tensors[3].sum(-1))


# ------------------------------------------------------------------------------------------------ sizes

FEW_OF = st.integers(0, 3)


@given(ANY_BACKEND, FEW_OF, st.integers(1, 2), FEW_OF, st.sampled_from([1, 2, 3, 16, 17]), st.sampled_from([1, 3, 16]), st.sampled_from([16, 64, 256, None]))
def test_axes_of_no_one_and_few(backend: str, batch: int, heads: int, tokens: int, dim: int, value_dim: int, tile: int | None):
    """Shorter than a tile by far: against the reference, in values and in shapes."""
    text = "attend k.pos < q.pos or k.pos == 1\nstop k where k.pos == 0"
    tensors = qkv(tokens, batch=batch, heads=heads, dim=dim, value_dim=value_dim)
    found, wanted = (call(srt.compile(srt.parse(text), backend=name, tile=tile), tensors) for name in (backend, "reference"))
    assert [x.shape for x in found] == [(batch, heads, tokens, value_dim), (batch, heads, tokens), *(x.shape for x in tensors[:3])]
    assert_near(found, wanted)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("batch, heads, tokens", [(0, 2, 5), (1, 0, 5), (2, 2, 0)])
def test_where_there_is_nothing_all_that_came_learns_zeros(backend: str, batch: int, heads: int, tokens: int):
    """Twins of k and v too: a gradient of zeros from either of out and lse, and not none."""
    attend = srt.compile(srt.parse("attend causal\nstop hidden where k.pos == 0\nstop k where q.pos == k.pos"), backend=backend, tile=16)
    q, k, v = (torch.randn(batch, n, tokens, 8).requires_grad_() for n in (heads, max(1, heads), max(1, heads)))
    twins = [x.detach().clone().requires_grad_() for x in (k, v)]
    out, lse = attend(q, k, v, hidden_k=twins[0], hidden_v=twins[1], return_lse=True)
    for found, learning in ((out, (q, k, v, *twins)), (lse, (q, k, twins[0]))):
        for x, gradient in zip(learning, torch.autograd.grad(found.sum(), learning, retain_graph=True), strict=True):
            assert torch.equal(gradient, torch.zeros_like(x))


@given(ANY_BACKEND, FEW_OF, FEW_OF, st.sampled_from(["full", "k.pos <= q.pos", "k.pos == 2"]), st.sampled_from([16, 128]))
@example("triton", 0, 3, "full", 16)
@example("triton", 1, 0, "full", 16)
def test_two_axes_of_no_one_and_few(backend: str, queries: int, keys: int, mask: str, tile: int):
    text = f"queries layout repeat {{ a }}\nkeys layout repeat {{ b }}\nattend {mask}\nscale q, k by 0.5 where k.pos == 0"
    tensors = qkv(queries, keys=keys)
    found, wanted = (call(srt.compile(srt.parse(text), backend=name, tile=tile), tensors) for name in (backend, "reference"))
    assert_near(found, wanted)


@FEW
@given(ANY_BLOCK_SPARSE, cases(most_steps=4), st.sampled_from([32, 64, 128, 512]))
def test_any_tile_gives_the_same(backend: str, case: Case, tile: int):
    """Larger than the sequence, or many a sequence."""
    tile = min(tile, 64) if backend == "triton" else tile  # what is interpreted is slow where nothing is, too
    tensors, options = case.tensors(), {"inputs": dict(case.inputs)}
    assert_near(call(replace(case, tile=tile).compile(backend), tensors, **options), call(case.compile("reference"), tensors, **options))


@pytest.mark.parametrize("group", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("backend", BLOCK_SPARSE)
def test_any_number_of_query_heads_a_key_head(backend: str, group: int):
    """Gated before they are summed: within the bound, in half precision too."""
    apart = srt.parse("attend causal and window(3 + head)\nstop k where head % 2 == 0 and k.pos < q.pos\nscale v by 0.5 where head == 1")
    alike = srt.parse("attend causal\nstop k where q.pos - k.pos > 3")  # heads that share a plan are summed in one go
    for spec, dtype in ((apart, torch.float32), (alike, torch.float32), (alike, torch.float16)):
        for c in compare(spec, steps=18 if backend == "tiled" else 9, heads=2 * group, key_heads=2, tile=16, backend=backend, dtype=dtype):
            assert c.holds, (c, dtype)


@FEW
@given(ANY_BACKEND, cases(most_steps=5), st.data())
def test_some_rows_only_are_those_rows(backend: str, case: Case, data: st.DataObject):
    """`queries=`: out and lse to the bit of nothing else, dQ of those rows, dK and dV of their losses alone."""
    tokens = case.extents.tokens
    first = data.draw(st.integers(0, tokens))
    rows = slice(first, data.draw(st.integers(first, tokens)))
    q, k, v, dout = case.tensors()
    options = {"inputs": dict(case.inputs)}
    part = call(case.compile(backend), [q[:, :, rows], k, v, dout[:, :, rows]], queries=range(rows.start, rows.stop), **options)
    upstream = torch.zeros_like(dout)
    upstream[:, :, rows] = dout[:, :, rows]
    whole = call(case.compile("reference"), [q, k, v, upstream], **options)
    assert_near(part, Results(whole.out[:, :, rows], whole.lse[:, :, rows], whole.dq[:, :, rows], whole.dk, whole.dv))


@pytest.mark.parametrize("backend", BLOCK_SPARSE)
def test_one_row_at_a_time_is_the_whole(backend: str):
    """As decoding asks: each row against the keys so far, with NaN in the room that a cache still has."""
    tensors = qkv(20)
    q, k, v, _ = tensors
    attend = srt.compile(srt.parse(TEXT), backend=backend, tile=16)
    out, lse = attend(q, k, v, return_lse=True)
    for row in range(20):
        room = [x.clone() for x in (k, v)]
        for x in room:
            x[:, :, row + 1 :] = float("nan")
        found = attend(q[:, :, row : row + 1], *room, queries=range(row, row + 1), return_lse=True)
        assert_nearly(found, (out[:, :, row : row + 1], lse[:, :, row : row + 1]))


def assert_nearly(found: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor]) -> None:
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)
