"""Every backend against the pairwise float64 reference: random specs, layouts, lengths, gates, dtypes, strides, requires_grad.

Without a card `triton` runs in Triton's interpreter, at 5 to 20 ms a tile: its cases are smaller.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from calls import spread_far
from hypothesis import given
from hypothesis import strategies as st

import srt_masks as srt
from srt_masks.reference.attention import attention
from srt_masks.testing import compare
from srt_masks.testing.strategies import Case, cases

STOP = "layout repeat { token, reason * 2 }\nlet soon = k is reason and 0 < q.step - k.step <= 3\nattend causal\nstop k, v where soon"


@given(cases(), st.sampled_from([16, 32, 128]), st.sampled_from([torch.float32, torch.float64]))
def test_random_specs(case: Case, tile: int, dtype: torch.dtype):
    for c in compare(case.spec, steps=case.steps, heads=case.heads, inputs=case.inputs, tile=tile, dtype=dtype):
        assert c.holds, f"{c}\n{case.spec}\n{case.spec.params}"


@given(cases(most_steps=6), st.sampled_from([16, 32]), st.sampled_from([torch.float32, torch.float64, torch.float16]))
def test_random_specs_in_triton(case: Case, tile: int, dtype: torch.dtype):
    for c in compare(case.spec, steps=case.steps, heads=case.heads, inputs=case.inputs, tile=tile, dtype=dtype, backend="triton"):
        assert c.holds, f"{c}\n{case.spec}\n{case.spec.params}"


def _strided(shape: tuple[int, ...], how: str) -> torch.Tensor:
    """Random numbers of a shape, laid out in memory as a caller might."""
    batch, heads, tokens, dim = shape
    match how:
        case "turned":
            return torch.randn(batch, tokens, heads, dim, dtype=torch.float64).transpose(1, 2)
        case "sliced":
            return torch.randn(batch, heads, tokens + 3, 2 * dim, dtype=torch.float64)[:, :, 1 : tokens + 1, ::2]
        case "expanded":
            return torch.randn(1, heads, 1, dim, dtype=torch.float64).expand(shape)
        case _:
            return torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize("backend", ["tiled", "triton"])
@given(
    cases(most_steps=5), st.lists(st.sampled_from(["plain", "turned", "sliced", "expanded"]), min_size=4, max_size=4), st.sets(st.sampled_from([0, 1, 2]), min_size=1),
    st.booleans(), st.sampled_from([1, 3]), st.integers(0, 5),
)  # fmt: skip
def test_calls_of_every_form(backend: str, case: Case, layouts: list[str], needs: set[int], through_lse: bool, group: int, short: int):
    """Ragged lengths, strides, grouped heads, and every choice of what requires grad, against the reference."""
    layout = case.spec.checked.queries
    steps = case.steps or 0
    tokens = layout.tokens(steps)
    lengths = [tokens, layout.tokens(min(short, steps))]
    heads = case.heads * group
    inputs = {n: t.repeat(group, 1, 1) if n == "weights" else t for n, t in case.inputs.items()}
    shapes = [(2, heads, tokens, 8), (2, case.heads, tokens, 8), (2, case.heads, tokens, 5), (2, heads, tokens, 5)]
    q, k, v, dout = (_strided(shape, how) for shape, how in zip(shapes, layouts, strict=True))

    def results(name: str) -> list[torch.Tensor]:
        leaves = [x.detach().requires_grad_(i in needs) for i, x in enumerate((q, k, v))]
        out, lse = srt.compile(case.spec, heads=heads, backend=name, tile=16)(*leaves, lengths=lengths, return_lse=True, inputs=inputs)
        reached = torch.isfinite(lse)
        objective = lse[reached].sum() if through_lse else (out * dout).sum()
        wanted = [x for x in leaves if x.requires_grad]
        if not objective.requires_grad:  # lse says nothing of v
            return [out, torch.where(reached, lse, 0), *(torch.zeros_like(x) for x in wanted)]
        grads = torch.autograd.grad(objective, wanted, allow_unused=True, materialize_grads=True)
        return [out, torch.where(reached, lse, 0), *grads]

    for a, b in zip(results(backend), results("reference"), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("text", [STOP, "attend causal and window(5)\nscale k by 0.5 where q.pos - k.pos > 2"])
def test_half_precision(text: str, dtype: torch.dtype, backend: str):
    for c in compare(srt.parse(text), steps=13, dtype=dtype, tile=16, backend=backend):
        assert c.holds, c


@pytest.mark.parametrize(("heads", "key_heads"), [(7, 1), (6, 2), (4, 4), (14, 2)])
def test_grouped_query_heads(heads: int, key_heads: int, backend: str):
    spec = srt.parse("attend causal and window(3 + head)\nstop k where head % 2 == 0 and k.pos < q.pos\nstop v where head == 1")
    for c in compare(spec, steps=20, heads=heads, key_heads=key_heads, tile=16, batch=2, backend=backend):
        assert c.holds, c


def _call(spec: srt.Spec, backend: str, q, k, v, dout, **options):
    attend = srt.compile(spec, backend=backend, tile=16)
    leaves = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    out, lse = attend(*leaves, return_lse=True, **options)
    return out, lse, *torch.autograd.grad((out * dout).sum(), leaves, allow_unused=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [3.0, 6.0, 30.0])
def test_large_logits(size: float, dtype: torch.dtype, backend: str):
    """Where lse is large, so is the rounding of it: P = exp(S - lse) would be wrong by as much."""
    for seed in range(2):
        for c in compare(srt.parse("attend causal\nstop k where k.pos == 2"), steps=40, dtype=dtype, tile=16, backend=backend, seed=seed, size=size):
            assert c.holds, c


@pytest.mark.parametrize(("scale", "size"), [(-0.7, 1), (-0.7, 400), (-0.0, 1), (0, 1), (0.01, 1), (3.0, 1), (3.0, 400)])
def test_any_scale(scale: float, size: int, backend: str):
    """Also one that turns the order of the scores around, or makes them all the same; at a size where a wrong maximum overflows."""
    spec = srt.parse("attend causal or k.pos < 20\nstop k where k.pos == 2")
    q, *others = (torch.randn(1, 2, 50, 8, dtype=torch.float64) for _ in range(4))
    for a, b in zip(*(_call(spec, name, q * size, *others, scale=scale) for name in (backend, "reference")), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10 if size == 1 else 1e-8)


def test_ragged_lengths_equal_rows_alone(backend: str):
    spec = srt.parse("layout repeat { a }, repeat { b }\nattend k is b or q is a and k.step <= q.step\nstop v where k is b")
    lengths = (20, 0, 6, 14)
    q, k, v, dout = (torch.randn(4, 2, 20, 8, dtype=torch.float64) for _ in range(4))
    k[1:, :, 14:] = float("nan")  # past the end of every shorter row
    whole = _call(spec, backend, q, k, v, dout, lengths=torch.tensor(lengths))
    for row, n in enumerate(lengths):
        alone = _call(spec, "reference", *(x[row : row + 1, :, :n] for x in (q, k, v, dout)))
        for together, single in zip(whole, alone, strict=True):
            torch.testing.assert_close(together[row : row + 1, :, :n], single, rtol=1e-12, atol=1e-12)
            rest = together[row, :, n:]
            assert bool((rest == (float("-inf") if together is whole[1] else 0)).all())


def test_empty_rows_are_zero_and_never_nan(backend: str):
    spec = srt.parse("attend k.pos < q.pos and q.pos < 5")
    q, k, v, dout = (torch.randn(1, 1, 7, 4) for _ in range(4))
    q[:, :, 5:] = dout[:, :, 5:] = float("nan")
    for name in ("reference", backend):
        out, lse, dq, dk, dv = _call(spec, name, q, k, v, dout.nan_to_num() if name == "reference" else dout)
        for row in (0, 5, 6):
            assert bool((out[0, 0, row] == 0).all()) and lse[0, 0, row] == float("-inf") and bool((dq[0, 0, row] == 0).all())
        assert all(bool(torch.isfinite(x).all()) for x in (out, dq, dk, dv))


def test_nothing_attended_is_all_zero(backend: str):
    spec = srt.parse("attend full and not full")
    for name in ("reference", backend):
        out, lse, *grads = _call(spec, name, *(torch.randn(1, 2, 4, 4) for _ in range(4)))
        assert bool((out == 0).all()) and bool((lse == float("-inf")).all())
        assert all(bool((g == 0).all()) for g in grads)


@pytest.mark.parametrize("n", [40, 64])
def test_keys_that_nobody_attends_may_be_nan(n: int, backend: str):
    spec = srt.parse("input keep: bool per token\nattend causal and k.keep\nstop k where k.pos < q.pos")
    keep = torch.rand(n) > 0.4
    keep[0] = True
    q, k, v, dout = (torch.randn(1, 2, n, 8) for _ in range(4))
    clean = _call(spec, backend, q, k, v, dout, keep=keep)
    k[:, :, ~keep] = float("nan")
    v[:, :, ~keep] = float("inf")
    for a, b in zip(clean, _call(spec, backend, q, k, v, dout, keep=keep), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(clean, _call(spec, "reference", q, k, v, dout, keep=keep), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("text", [STOP, "attend causal\nstop q, k, v"])
def test_the_eight_choices_of_requires_grad(text: str, backend: str):
    attend = srt.compile(srt.parse(text), tile=16, backend=backend)
    data = [torch.randn(1, 2, 33, 8) for _ in range(3)]
    whole = [x.clone().requires_grad_() for x in data]
    attend(*whole).sum().backward()
    for choice in itertools.product([False, True], repeat=3):
        mine = [x.clone().requires_grad_(need) for x, need in zip(data, choice, strict=True)]
        out = attend(*mine)
        assert out.requires_grad is any(choice)
        if any(choice):
            out.sum().backward()
        for x, w, need in zip(mine, whole, choice, strict=True):
            assert torch.equal(x.grad, w.grad) if need else x.grad is None


def test_strides_do_not_matter(backend: str):
    spec = srt.parse(STOP)
    attend = srt.compile(spec, tile=16, backend=backend)
    data = [torch.randn(2, 33, 3, 8) for _ in range(3)]
    plain = [x.transpose(1, 2).contiguous().requires_grad_() for x in data]
    strided = [x.clone().requires_grad_() for x in data]
    a, b = attend(*plain), attend(*(x.transpose(1, 2) for x in strided))
    assert torch.equal(a, b)
    a.sum().backward()  # an expanded, stride-0 gradient
    b.sum().backward()
    for x, y in zip(plain, strided, strict=True):
        assert torch.equal(x.grad, y.grad.transpose(1, 2))


def test_a_row_spread_beyond_32_bits_is_read_right(backend: str):
    """head_dim with a stride of more than 2**30 elements."""
    q = spread_far(torch.randn(1, 1, 4, 3).half(), 3)
    attend = srt.compile(srt.parse("attend causal"), backend=backend, tile=16)
    assert torch.equal(attend(q, q, q), attend(*[q.contiguous()] * 3))


def test_lse_is_differentiable(backend: str):
    spec = srt.parse("attend causal\nstop q where k.pos == 3\nscale k by 0.5 where q.pos - k.pos > 2")
    q, k, v = (torch.randn(1, 2, 50, 8, dtype=torch.float64) for _ in range(3))

    def grads(name):
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        _, lse = srt.compile(spec, backend=name, tile=16)(*leaves, return_lse=True)
        return torch.autograd.grad(lse.square().sum(), leaves, allow_unused=True, materialize_grads=True)

    for a, b in zip(grads(backend), grads("reference"), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_value_dim_may_differ_and_axes_may_be_empty(backend: str):
    spec = srt.parse("attend causal")
    attend = srt.compile(spec, tile=16, backend=backend)
    q, k, v = torch.randn(2, 2, 20, 8), torch.randn(2, 2, 20, 8), torch.randn(2, 2, 20, 5)
    expected, _ = attention(q, k, v, torch.ones(20, 20).tril().bool(), *[torch.ones(1, 1)] * 3)
    torch.testing.assert_close(attend(q, k, v), expected)
    for shape in ((0, 2, 20, 8), (2, 2, 0, 8)):
        leaves = [torch.randn(shape, requires_grad=True) for _ in range(3)]
        out = attend(*leaves)
        assert out.shape == shape
        out.sum().backward()
        assert all(x.grad is not None and x.grad.shape == shape for x in leaves)
    assert attend(torch.randn(1, 0, 4, 8), *[torch.randn(1, 1, 4, 8)] * 2).shape == (1, 0, 4, 8)
    for batch, heads in ((0, 2), (2, 0)):
        q = torch.randn(batch, heads, 4, 8)
        assert srt.stop_graddable_attn(q, q, q, causal=True, k_stop_grad_mask=torch.ones(4, 4).bool()).shape == q.shape if heads else True
    cross = srt.compile(srt.parse("queries layout repeat { a }\nkeys layout repeat { b }\nattend full"), backend=backend)
    out, lse = cross(torch.randn(1, 1, 3, 8), torch.randn(1, 1, 0, 8), torch.randn(1, 1, 0, 8), return_lse=True)
    assert bool((out == 0).all()) and bool((lse == float("-inf")).all())


def test_same_input_same_bits_and_batch_neighbours_do_not_matter(backend: str):
    attend = srt.compile(srt.parse(STOP), tile=16, backend=backend)
    q, k, v = (torch.randn(3, 2, 60, 8) for _ in range(3))
    assert torch.equal(attend(q, k, v), attend(q, k, v))
    torch.testing.assert_close(attend(q, k, v)[1:2], attend(q[1:2], k[1:2], v[1:2]), rtol=1e-5, atol=1e-6)


def test_the_second_order_raises_and_is_never_a_silent_zero(backend: str):
    attend = srt.compile(srt.parse("attend causal"), backend=backend)
    x = torch.randn(1, 1, 6, 4, dtype=torch.float64, requires_grad=True)

    def first() -> torch.Tensor:
        return torch.autograd.grad(attend(x, x, x).sum(), x, create_graph=True)[0]

    assert first().requires_grad
    for second in (
        lambda: first().sum().backward(),
        lambda: (attend(x, x, x).sum() + first().square().sum()).backward(),
        lambda: torch.autograd.grad(first().square().sum(), x),
        lambda: torch.autograd.functional.hessian(lambda y: attend(y, y, y).square().sum(), x.detach()),
        lambda: torch.func.grad(lambda y: torch.func.grad(lambda z: attend(z, z, z).square().sum())(y).square().sum())(x.detach()),
    ):
        with pytest.raises(srt.BackendError, match="double backward"):
            second()
    torch.testing.assert_close(torch.func.grad(lambda y: attend(y, y, y).square().sum())(x.detach()), torch.autograd.grad(attend(x, x, x).square().sum(), x)[0])


def test_forward_mode_raises(backend: str):
    attend = srt.compile(srt.parse("attend causal"), backend=backend)
    q, k, v = (torch.randn(1, 1, 5, 4) for _ in range(3))
    with pytest.raises(srt.BackendError, match="forward-mode differentiation"):
        torch.func.jvp(lambda x: attend(x, k, v), (q,), (torch.ones_like(q),))


def test_checkpointing_copies_and_pickles_keep_the_rule(backend: str):
    import copy
    import pickle

    from torch.utils.checkpoint import checkpoint

    spec = srt.parse(STOP)
    attend = srt.compile(spec, heads=2, backend=backend)
    q, k, v = (torch.randn(1, 2, 30, 8, requires_grad=True) for _ in range(3))
    plain = torch.autograd.grad(attend(q, k, v).square().sum(), (q, k, v))
    for other in (copy.deepcopy(attend), pickle.loads(pickle.dumps(attend)), attend.to("cpu")):
        for reentrant in (False, True):
            out = checkpoint(other, q, k, v, use_reentrant=reentrant)
            q.grad = k.grad = v.grad = None
            out.square().sum().backward()
            assert all(torch.equal(x.grad, g) for x, g in zip((q, k, v), plain, strict=True))


def test_a_plan_is_kept_while_its_inputs_are_unchanged():
    attend = srt.compile(srt.parse("input doc: int per token\nparam far = 9\nattend causal and same(doc) and window(far)"))
    doc = torch.tensor([0, 0, 1, 1])
    q = torch.randn(1, 1, 4, 4)
    first = attend.plan(4, doc=doc)
    assert attend.plan(4, doc=doc) is first
    assert attend.plan(4, doc=doc, far=1) is not first
    assert attend.plan(4, doc=doc.clone()) is first and attend.plan(4, doc=doc.int()) is not first
    before = attend(q, q, q, doc=doc)
    doc[2] = 0
    assert attend.plan(4, doc=doc) is not first
    assert not torch.equal(before, attend(q, q, q, doc=doc))


def test_an_input_that_changes_behind_our_back_is_seen():
    """`.data`, a DLPack export, NumPy and the storage itself change a tensor and not its version."""
    spec = srt.parse("input doc: int per token\nattend causal and same(doc)")
    q = torch.randn(1, 1, 6, 4)

    def storage(doc: torch.Tensor) -> None:
        doc.untyped_storage().copy_(torch.arange(6).untyped_storage())

    for change in (
        lambda d: d.data.copy_(torch.arange(6)),
        lambda d: torch.from_dlpack(d).copy_(torch.arange(6)),
        lambda d: np.copyto(d.numpy(), np.arange(6)),
        storage,
    ):
        attend, doc = srt.compile(spec), torch.zeros(6, dtype=torch.int64)
        attend(q, q, q, doc=doc)
        change(doc)
        assert torch.equal(attend(q, q, q, doc=doc), srt.compile(spec)(q, q, q, doc=torch.arange(6)))


def test_batched_inputs_plan_each_row(backend: str):
    spec = srt.parse("input doc: int per token\nattend causal and same(doc)\nstop k where k.doc == 1")
    doc = torch.randint(0, 3, (3, 40)).sort(1).values
    q, k, v, dout = (torch.randn(3, 2, 40, 8, dtype=torch.float64) for _ in range(4))
    for a, b in zip(_call(spec, backend, q, k, v, dout, doc=doc), _call(spec, "reference", q, k, v, dout, doc=doc), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_what_the_caller_does_to_inputs_before_the_backward_does_not_reach_it(backend: str):
    spec = srt.parse("input doc: int per token\ninput gate: float per query, key\nattend causal and same(doc)\nscale k by gate")
    attend = srt.compile(spec, tile=16, backend=backend)
    q, k, v = (torch.randn(1, 1, 40, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    inputs = {"doc": torch.arange(40) // 7, "gate": torch.rand(40, 40, dtype=torch.float64)}
    wanted = torch.autograd.grad(attend(q, k, v, **inputs).square().sum(), (q, k, v))
    mine = {n: t.clone() for n, t in inputs.items()}
    out = attend(q, k, v, **mine)
    for t in mine.values():
        t.zero_()
    for a, b in zip(torch.autograd.grad(out.square().sum(), (q, k, v)), wanted, strict=True):
        assert torch.equal(a, b)


def test_memory_that_others_own_is_never_trusted():
    import numpy as np

    attend = srt.compile(srt.parse("input doc: int per token\nattend same(doc)"), tile=16)
    shared = np.zeros(4, dtype=np.int64)
    for doc in (shared, torch.from_numpy(shared)):
        shared[:] = 0
        assert attend.plan(4, doc=doc).to_dense().all()
        shared[2:] = 1
        assert not attend.plan(4, doc=doc).to_dense().all()


def test_plans_die_with_their_inputs():
    import gc
    import weakref

    attend = srt.compile(srt.parse("input doc: int per token\nattend same(doc)"), tile=16)
    doc = torch.zeros(4, dtype=torch.int64)
    plan = weakref.ref(attend.plan(4, doc=doc))
    assert plan() is not None
    del doc
    attend.plan(4, doc=torch.zeros(4, dtype=torch.int64))
    gc.collect()
    assert plan() is None


def test_a_plan_for_another_call_is_refused(backend: str):
    from srt_masks.kernels import op
    from srt_masks.kernels.dispatch import backend_of

    attend = srt.compile(srt.parse("attend causal"))
    q = torch.randn(1, 1, 8, 4)
    with pytest.raises(srt.BackendError, match="64 x 64 tokens was given to"):
        op.attend(q, q, q, op.Planned(attend.plan(64), attend.compiled), backend_of(backend), 0.5)


def test_neither_autocast_nor_a_lower_matmul_precision_reaches_the_kernels(backend: str):
    attend = srt.compile(srt.parse(STOP), tile=16, backend=backend)
    data = [torch.randn(1, 2, 30, 8).bfloat16().requires_grad_() for _ in range(3)]

    def results():
        out, lse = attend(*data, return_lse=True)
        return out, lse, *torch.autograd.grad((out.float().sum() + lse.sum()), data)

    plain = results()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = results()
    torch.set_float32_matmul_precision("medium")
    try:
        low = results()
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    for a, b, c in zip(plain, cast, low, strict=True):
        assert torch.equal(a, b) and torch.equal(a, c)


def test_leaves_may_lie_on_another_device_than_q():
    """Masks and gates are put together where the plan is, then moved once."""
    from srt_masks.kernels import tiled_products as tiled

    attend = srt.compile(srt.parse(STOP), tile=16)
    leaves, program = attend.plan(21).groups[0].leaves, attend.compiled.program
    device = torch.device("meta")
    flows = {"k": tiled.State.MIXED}
    mask = tiled.mask_of(leaves, program, slice(0, 16), [tiled.Stretch(0, 16)], device)
    gates = tiled.gates_of(leaves, program, slice(0, 16), [tiled.Stretch(0, 16)], flows, mask, torch.empty(0, device=device))
    x, column = torch.empty(1, 2, 16, 8, device=device), torch.empty(1, 2, 16, 1, device=device)
    ((gate, factor, other),) = tiled.tile_products(tiled.Asking(x, x, column, column, column), x, x, mask, flows, gates)
    assert gate == "k" and mask.device == gates["k"].device == factor.device == other.device == device


def test_gates_and_params_that_ask_for_a_gradient_are_refused():
    q = torch.randn(1, 1, 4, 4)
    attend = srt.compile(srt.parse("param far = 2\nparam w = 0.5\nattend causal and window(far)\nscale k by w"))
    for options in ({"w": torch.tensor(0.5, requires_grad=True)}, {"scale": torch.tensor(0.5, requires_grad=True)}):
        with pytest.raises(srt.InputError, match="requires grad"):
            attend(q, q, q, **options)
    with pytest.raises(srt.InputError, match="k_stop_grad_mask requires grad"):
        srt.stop_graddable_attn(q, q, q, k_stop_grad_mask=torch.ones(4, 4, requires_grad=True))


@pytest.mark.parametrize("mend", ["nothing", "shrink", "no delta", "no gate"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_error_bound_sees_wrong_gradients(mend: str, dtype: torch.dtype, monkeypatch):
    """The judge, judged: each of these faults must be called WRONG, and none of them must."""
    from srt_masks.kernels import tiled_products, tiled_rectangles

    honest = tiled_products.tile_products

    def faulty(asking, keys, values, mask, flows, gates, room):
        if mend == "no delta":
            asking = tiled_products.Asking(asking.queries, asking.upstream, asking.delta * 0, asking.top, asking.rest)
        if mend == "no gate":
            gates = {}
        for gate, a, b in honest(asking, keys, values, mask, flows, gates, room):
            yield gate, (a * 0.9 if mend == "shrink" else a), b

    monkeypatch.setattr(tiled_rectangles, "tile_products", faulty)
    verdicts = {c.what: c.holds for c in compare(srt.parse(STOP), steps=30, dtype=dtype, tile=16)}
    wrong = {"nothing": set(), "shrink": {"dq", "dk", "dv"}, "no delta": {"dq", "dk"}, "no gate": {"dk", "dv"}}[mend]
    assert {n for n, holds in verdicts.items() if not holds} == wrong


def test_threads_share_a_callable(backend: str):
    from concurrent.futures import ThreadPoolExecutor

    attend = srt.compile(srt.parse("param far = 3\nattend causal and window(far)"), tile=16, backend=backend)
    q = torch.randn(1, 1, 30, 4)
    alone = [srt.compile(srt.parse(f"attend causal and window({far})"), tile=16, backend=backend)(q, q, q) for far in range(12)]
    with ThreadPoolExecutor(4) as pool:
        for far, out in zip(list(range(12)) * 5, pool.map(lambda far: attend(q, q, q, far=far), list(range(12)) * 5), strict=True):
            assert torch.equal(out, alone[far])


def test_interning_holds_under_threads():
    from concurrent.futures import ThreadPoolExecutor

    from srt_masks.compiler import ir

    def build(_):
        return [ir.apply(ir.Op.ADD, ir.scalar(f"x{i}"), ir.const(i)) for i in range(300)]

    with ThreadPoolExecutor(4) as pool:
        first, *others = pool.map(build, range(8))
    assert all(a is b for other in others for a, b in zip(first, other, strict=True))
