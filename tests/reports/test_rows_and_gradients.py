"""Reports of kinds A, B, E, G and L: rows without a key, gradients, conventions, heads, caches and trees."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from calls import ANY_BACKEND, BACKENDS, BLOCK_SPARSE, FEW, Results, assert_near, assert_nothing, assert_same_bits, qkv, run
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor
from watching import Products, launches

import srt_masks as srt
from srt_masks.testing import Broken, check, compare
from srt_masks.testing.parts import tree

# ------------------------------------------------------------------------------------------------ A: rows without a key

EMPTY_ROWS = ["causal and k.pos < a and q.pos < b", "k.pos < q.pos - a", "causal and q.pos >= a and k.pos >= b", "window(a) and k.pos > q.pos + b"]


@given(ANY_BACKEND, st.sampled_from(EMPTY_ROWS), st.integers(0, 40), st.integers(0, 40), st.integers(1, 40))
def test_A2_a_row_without_a_key_is_exactly_nothing(backend: str, mask: str, a: int, b: int, tokens: int):
    text = f"param a = 0\nparam b = 0\nattend {mask}\nstop k where q.pos - k.pos > 2"
    seen = srt.dense(srt.parse(text, params={"a": a, "b": b}), steps=tokens).attend[0, 0]
    found = run(text, backend, qkv(tokens, heads=1), a=a, b=b)
    for x, dead in ((found.out, ~seen.any(1)), (found.dq, ~seen.any(1)), (found.dk, ~seen.any(0)), (found.dv, ~seen.any(0))):
        assert bool((x[:, :, dead] == 0).all()) and bool(torch.isfinite(x).all())
    assert bool(((found.lse == float("-inf")) == ~seen.any(1)).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("backend", BLOCK_SPARSE)
def test_A3_an_empty_last_row(backend: str, dtype: torch.dtype):
    tokens = 393 if backend == "tiled" else 41
    found = run(f"attend causal and q.pos < {tokens - 1}", backend, qkv(tokens, heads=1, dtype=dtype))
    assert bool((found.out[:, :, -1] == 0).all()) and bool((found.lse[:, :, -1] == float("-inf")).all()) and bool((found.dq[:, :, -1] == 0).all())
    assert all(bool(torch.isfinite(x).all()) for x in (found.out, found.dq, found.dk, found.dv))


@given(
    ANY_BACKEND, st.sampled_from([-1e4, -1e9, -1e20, -1e30]), st.lists(st.booleans(), min_size=1, max_size=40), st.sampled_from([torch.float32, torch.float64])
)
def test_A3_no_finite_number_stands_for_what_is_not_attended(backend: str, low: float, keep: list[bool], dtype: torch.dtype):
    """Scores far below any number that might stand for minus infinity: the keys kept alone matter, beside others whose scores are 0."""
    kept = torch.tensor(keep)
    q, k, v = torch.ones(1, 1, 3, 8, dtype=dtype), torch.zeros(1, 1, len(keep), 8, dtype=dtype), torch.randn(1, 1, len(keep), 8, dtype=dtype)
    k[:, :, kept] = low
    text = "queries layout repeat { a }\nkeys layout repeat { b }\ninput keep: bool per key\nattend k.keep"
    found = run(text, backend, [q, k, v, torch.ones(1, 1, 3, 8, dtype=dtype)], keep=kept)
    wanted = v[:, :, kept].mean(2, keepdim=True).expand(q.shape) if any(keep) else torch.zeros_like(q)
    torch.testing.assert_close(found.out, wanted)
    assert bool((found.dv[:, :, ~kept] == 0).all()) and bool(torch.isfinite(found.dq).all())


@pytest.mark.parametrize("backend", BACKENDS)
def test_A5_a_first_row_that_sees_nothing_needs_no_patch(backend: str):
    """And a claim names it: `assert every query attends`, tried at small sizes and proved or refuted for all."""
    text, tokens = "attend k.pos < q.pos", 130 if backend == "tiled" else 33
    found = run(text, backend, qkv(tokens))
    assert all(bool((x[:, :, 0] == 0).all()) for x in (found.out, found.dq)) and bool((found.lse[:, :, 0] == float("-inf")).all())
    assert bool((found.dk[:, :, :-1] != 0).any(-1).all()) and bool((found.out[:, :, 1:] != 0).all())
    assert_near(found, run(text, "reference", qkv(tokens)))
    with pytest.raises(Broken, match="query 0 sees nothing"):
        check(srt.parse(text + "\nassert every query attends"), laws=["claims"])
    (refuted,) = srt.prove(srt.parse(text + "\nassert every query attends"))
    assert refuted.outcome == "refuted" and "row 0 (token, step 0) attends to nothing" in str(refuted)
    patched = srt.parse("attend k.pos < q.pos or k.pos == 0\nassert every query attends")
    check(patched, laws=["claims"])
    assert [v.outcome for v in srt.prove(patched)] == ["proved"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("text", ["attend full and not full", "attend causal and q.pos < k.pos", "attend k.pos < 0", "attend head < 0"])
def test_A6_a_mask_of_nothing_is_nothing(backend: str, text: str):
    assert_nothing(run(text, backend, qkv(20)))
    assert bool((run("attend full", backend, qkv(20)).out != 0).all())


# ------------------------------------------------------------------------------------------------ B: gradients


@FEW
@given(ANY_BACKEND, st.integers(1, 70), st.integers(1, 30), st.sampled_from(["attend causal", "attend causal\nscale k by 0.5 where q.pos - k.pos > 3"]))
def test_B2_keys_sliced_out_of_a_longer_tensor(backend: str, tokens: int, rest: int, text: str):
    q, k, v, dout = qkv(tokens, keys=tokens + rest)
    attend = srt.compile(srt.parse(text), backend=backend, tile=16)

    def grads(cut) -> list[torch.Tensor]:
        big = [x.clone().requires_grad_() for x in (k, v)]
        (attend(q, *(cut(x[:, :, :tokens]) for x in big)) * dout).sum().backward()
        return [x.grad for x in big]

    for a, b in zip(grads(lambda x: x), grads(lambda x: x.contiguous()), strict=True):
        assert torch.equal(a, b) and bool((a[:, :, tokens:] == 0).all())


@pytest.mark.parametrize(
    ("backend", "tokens", "tile"), [("tiled", 1025, 128), ("tiled", 255, 128), ("tiled", 129, 128), *[("triton", n, 16) for n in (33, 31, 17)]]
)
def test_B4_mask_and_rule_in_the_last_tile(backend: str, tokens: int, tile: int):
    for c in compare(srt.parse("attend causal\nscale k by 1 / 2 where q.pos - k.pos > 3"), steps=tokens, heads=1, tile=tile, backend=backend):
        assert c.holds, c


SIZE = st.sampled_from([1, 2, 3, 5, 8, 8, 8])


@FEW
@given(ANY_BACKEND, st.integers(1, 3), SIZE, SIZE, SIZE, SIZE)
@example("tiled", 2, 3, 5, 16, 16)
@example("triton", 2, 3, 5, 16, 16)
@example("reference", 8, 8, 8, 8, 8)
@example("tiled", 8, 8, 8, 8, 8)
@example("triton", 8, 8, 8, 8, 8)
def test_B6_no_axis_is_taken_for_another(backend: str, batch: int, heads: int, tokens: int, dim: int, value_dim: int):
    """Also where they are of one size. Written out, with autograd as the judge."""
    tensors = qkv(tokens, batch=batch, heads=heads, dim=dim, value_dim=value_dim)
    leaves = [x.clone().requires_grad_() for x in tensors[:3]]
    scores = (leaves[0] @ leaves[1].transpose(-1, -2) * dim**-0.5).masked_fill(~torch.ones(tokens, tokens).tril().bool(), float("-inf"))
    out, lse = scores.softmax(-1) @ leaves[2], scores.logsumexp(-1)
    loss = (out * tensors[3]).sum() + (lse * tensors[3].sum(-1)).sum()
    assert_near(run("attend causal", backend, tensors), Results(out.detach(), lse.detach(), *torch.autograd.grad(loss, leaves)))


NEEDS = list(itertools.product([False, True], repeat=3))
NEEDED = ["attend causal\nstop k where q.pos - k.pos > 9", "attend causal\nscale q, v by 0.5 where k.pos % 2 == 0", "attend causal\nstop q, k, v"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("text", NEEDED)
def test_B7_any_of_q_k_v_may_need_no_gradient(backend: str, text: str):
    """And any of out and lse may have none: the values are those of the run that needs all."""
    tokens = 70 if backend == "tiled" else 18
    attend, tensors = srt.compile(srt.parse(text), backend=backend, tile=16), qkv(tokens, heads=1)
    parts: list[Callable[[Tensor, Tensor], Tensor]] = [
        lambda out, lse: (out * tensors[3]).sum() + (lse * tensors[3].sum(-1)).sum(), lambda out, lse: (out * tensors[3]).sum(), lambda out, lse: lse.square().sum(),
    ]  # fmt: skip
    for loss in parts if text is NEEDED[0] else parts[:1]:
        whole = [x.clone().requires_grad_() for x in tensors[:3]]
        out, lse = attend(*whole, return_lse=True)
        loss(out, lse).backward()
        for needs in NEEDS:
            leaves = [x.clone().requires_grad_(need) for x, need in zip(tensors, needs, strict=False)]
            mine = attend(*leaves, return_lse=True)
            assert torch.equal(mine[0], out) and torch.equal(mine[1], lse) and mine[0].requires_grad is any(needs)
            if (objective := loss(*mine)).requires_grad:
                objective.backward()
            for x, w, need in zip(leaves, whole, needs, strict=True):
                # What the loss does not reach has None, as in torch, or exact zeros.
                zero = x.grad is None and (w.grad is None or not bool(w.grad.any()))
                assert x.grad is None if not need else zero or torch.equal(x.grad, torch.zeros_like(x) if w.grad is None else w.grad)


@pytest.mark.parametrize("needs", NEEDS)
def test_B7_kernels_of_gradients_that_nobody_needs_are_not_launched(needs: tuple[bool, bool, bool]):
    want = ["forward"] + ["prepare"] * any(needs) + ["query_gradient"] * needs[0] + ["key_gradient"] * (needs[1] or needs[2])
    attend, tensors = srt.compile(srt.parse(NEEDED[0]), backend="triton", tile=16), qkv(20)
    leaves = [x.requires_grad_(need) for x, need in zip(tensors, needs, strict=False)]
    attend.plan(20, heads=2)
    with launches() as found:
        out = attend(*leaves)
        if any(needs):
            out.backward(tensors[3])
    assert [name for name in found if name != "live"] == want


@pytest.mark.parametrize("needs", NEEDS)
def test_B7_products_that_nobody_needs_are_not_worked_out(needs: tuple[bool, bool, bool]):
    """On `tiled`: nothing where a rule stops all that is needed, and for fewer gradients no more than for all."""

    def products(text: str, needs: tuple[bool, ...]) -> int:
        attend, tensors = srt.compile(srt.parse(text), backend="tiled", tile=16), qkv(70)
        out = attend(*(x.requires_grad_(need) for x, need in zip(tensors, needs, strict=False)))
        if not any(needs):
            assert not out.requires_grad
            return 0
        with Products() as seen:
            out.backward(tensors[3])
        return seen.count

    assert products("attend causal", needs) <= products("attend causal", (True, True, True))
    stopped = ", ".join(name for name, need in zip("qkv", needs, strict=True) if need)
    if any(needs):
        assert products("attend causal", needs) > 0 == products(f"attend causal\nstop {stopped}", needs)
        far = f"attend causal\nstop {stopped} where q.pos - k.pos > 20"
        assert products(f"attend causal and window(21)\nstop {stopped} where k.pos > q.pos", needs) <= products(far, needs)


@pytest.mark.parametrize("backend", BACKENDS)
def test_B9_more_queries_than_keys(backend: str):
    text = "queries layout repeat { a }\nkeys layout repeat { b }\ninput last: int per key\nattend q.pos == k.last"
    lengths = torch.tensor([76, 34, 146])
    last = lengths.cumsum(0) - 1
    found = run(text, backend, qkv(256, keys=3, heads=1), last=last)
    others = torch.ones(256, dtype=torch.bool)
    others[last] = False
    assert int(others.sum()) == 253 and bool((found.out[:, :, others] == 0).all()) and bool((found.dq[:, :, others] == 0).all())
    assert_near(found, run(text, "reference", qkv(256, keys=3, heads=1), last=last))


# ------------------------------------------------------------------------------------------------ E: conventions


@given(ANY_BACKEND, st.lists(st.booleans(), min_size=1, max_size=40))
def test_E2_true_means_kept_everywhere(backend: str, keep: list[bool]):
    text, kept = "input keep: bool per token\nattend k.keep", torch.tensor(keep)
    tensors = qkv(len(keep), heads=1)
    found = run(text, backend, tensors, keep=kept)
    without = torch.nn.functional.scaled_dot_product_attention(tensors[0], tensors[1][:, :, kept], tensors[2][:, :, kept])
    torch.testing.assert_close(found.out, without if any(keep) else torch.zeros_like(without), rtol=1e-9, atol=1e-9)


@FEW
@given(ANY_BACKEND, st.integers(1, 60), st.integers(1, 70))
@example("triton", 20, 20)
@example("tiled", 8, 8)
def test_E4_a_window_counts_its_own_token(backend: str, tokens: int, span: int):
    spec = srt.parse("param span = 1\nattend causal and window(span)")
    dense = srt.compile(spec, tile=16).plan(tokens, span=span).to_dense()[0, 0]
    for i, row in enumerate(dense.tolist()):
        assert [j for j, sees in enumerate(row) if sees] == list(range(max(0, i - span + 1), i + 1))
    if span >= tokens:
        tensors = qkv(tokens, heads=1)
        assert_same_bits(run(spec, backend, tensors, span=span), run("attend causal", backend, tensors))


@pytest.mark.parametrize("backend", BACKENDS)
def test_E4_as_reported(backend: str):
    """By what moves: a key outside the window changes no bit of query 5, each key inside does; a window of one token is the token's own value."""
    q, k, v, _ = qkv(8, heads=1)
    attend = srt.compile(srt.parse("attend causal and window(3)"), backend=backend, tile=16)
    before = attend(q, k, v)[0, 0, 5]
    moved = []
    for key in range(8):
        other = v.clone()
        other[:, :, key] += 1
        moved.append(not torch.equal(attend(q, k, other)[0, 0, 5], before))
    assert [key for key, has in enumerate(moved) if has] == [3, 4, 5]
    for text in ("attend window(1)", "attend diagonal"):
        assert torch.equal(srt.compile(srt.parse(text), backend=backend)(q, k, v), v)


@given(ANY_BACKEND, st.integers(1, 40), st.data())
def test_E6_rows_stand_where_they_are_said_to(backend: str, keys: int, data: st.DataObject):
    """Some queries against all keys: the rows of the whole, at the positions given, and no alignment is guessed."""
    first = data.draw(st.integers(0, keys))
    last = data.draw(st.integers(first, keys))
    q, k, v, dout = qkv(keys, heads=1)
    text = "attend causal\nstop v where q.pos - k.pos > 4"
    part = run(text, backend, [q[:, :, first:last], k, v, dout[:, :, first:last]], queries=range(first, last))
    upstream = torch.zeros_like(dout)
    upstream[:, :, first:last] = dout[:, :, first:last]
    whole = run(text, "reference", [q, k, v, upstream])
    assert_near(part, Results(whole.out[:, :, first:last], whole.lse[:, :, first:last], whole.dq[:, :, first:last], whole.dk, whole.dv))
    if last - first < keys:
        with pytest.raises(srt.InputError, match="which rows does q hold"):
            run(text, backend, [q[:, :, first:last], k, v, dout[:, :, first:last]])


@pytest.mark.parametrize("backend", BACKENDS)
def test_E6_as_reported(backend: str):
    text = "param offset = 0\nqueries layout repeat { a }\nkeys layout repeat { b }\nattend k.pos <= q.pos + offset"
    for queries, keys, offset, rows in ((2, 5, 0, [1, 2]), (2, 5, 3, [4, 5]), (5, 2, -3, [0, 0, 0, 1, 2])):
        tensors = qkv(queries, keys=keys, heads=1)
        found = run(text, backend, tensors, offset=offset)
        for row, n in enumerate(rows):
            q, k, v, _ = (x[:, :, row : row + 1] if i == 0 else x[:, :, :n] for i, x in enumerate(tensors))
            torch.testing.assert_close(found.out[:, :, row : row + 1], torch.nn.functional.scaled_dot_product_attention(q, k, v) if n else torch.zeros_like(q))


@pytest.mark.parametrize("backend", BLOCK_SPARSE)
def test_E8_lse_in_a_loss(backend: str):
    """Under gates on q and k, against the pairwise reference, with out left out of the loss."""
    text = "attend causal\nstop q where k.pos % 3 == 1\nscale k by 0.25 where q.pos - k.pos > 2"
    tensors = qkv(70 if backend == "tiled" else 35)

    def grads(name: str) -> tuple[torch.Tensor, ...]:
        leaves = [x.clone().requires_grad_() for x in tensors[:2]]
        _, lse = srt.compile(srt.parse(text), backend=name, tile=16)(*leaves, tensors[2], return_lse=True)
        return torch.autograd.grad(lse.square().sum(), leaves)

    for a, b in zip(grads(backend), grads("reference"), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)
        assert bool((a != 0).any())


# ------------------------------------------------------------------------------------------------ G: heads


@FEW
@given(ANY_BACKEND, st.integers(1, 8), st.integers(1, 3), st.integers(1, 40))
def test_G1_heads_that_share_a_key_head(backend: str, group: int, key_heads: int, tokens: int):
    """Every row, and gradients of a key head summed over its group: those of keys repeated for each query head."""
    text = "attend causal and window(2 + head)\nstop k where (q.pos + head) % 3 == 0"
    q, k, v, dout = qkv(tokens, heads=group * key_heads, key_heads=key_heads)
    found = run(text, backend, [q, k, v, dout])
    wide = run(text, "reference", [q, *(x.repeat_interleave(group, 1) for x in (k, v)), dout])
    summed = [x.unflatten(1, (key_heads, group)).sum(2) for x in (wide.dk, wide.dv)]
    assert_near(found, Results(wide.out, wide.lse, wide.dq, *summed))


@pytest.mark.parametrize(("backend", "tokens"), [("tiled", 300), ("triton", 30)])
def test_G4_heads_of_one_mask_share_a_plan(backend: str, tokens: int):
    spec = srt.parse("attend causal and dilated(40, 1 + head % 4)")
    plan = srt.compile(spec, tile=16, backend=backend).plan(tokens, heads=8)
    assert [g.heads for g in plan.groups] == [(0, 4), (1, 5), (2, 6), (3, 7)]
    for c in compare(spec, steps=tokens, heads=8, tile=16, backend=backend):
        assert c.holds, c


# ------------------------------------------------------------------------------------------------ L: chunks and trees


@FEW
@given(ANY_BACKEND, st.lists(st.integers(1, 12), min_size=1, max_size=4), st.sampled_from(["attend causal", "attend causal and (window(5) or first(2))"]))
def test_L1_chunks_of_a_prompt_are_the_prompt(backend: str, chunks: list[int], text: str):
    """Each chunk against the keys so far: what a cache holds."""
    tokens = sum(chunks)
    q, k, v, _ = qkv(tokens)
    attend, whole = srt.compile(srt.parse(text), backend=backend, tile=16), srt.compile(srt.parse(text), backend="reference")(q, k, v)
    for end, size in zip(itertools.accumulate(chunks), chunks, strict=True):
        rows = range(end - size, end)
        out = attend(q[:, :, rows.start : end], k[:, :, :end], v[:, :, :end], queries=rows)
        torch.testing.assert_close(out, whole[:, :, rows.start : end], rtol=1e-9, atol=1e-9)


TREE = "input tin: int per token\ninput tout: int per token\nattend k.tin <= q.tin and q.tin < k.tout"


@given(ANY_BACKEND, st.lists(st.integers(0, 10**6), max_size=40))
def test_L5_a_tree_is_its_ancestors(backend: str, choices: list[int]):
    """A node sees itself and those above it, and nothing because it merely came before."""
    parents = [-1, *(c % (i + 1) for i, c in enumerate(choices))]
    found = tree(parents)
    named = {n: found[n] for n in ("tin", "tout")}
    wanted = []
    for node in range(len(parents)):
        seen, at = set(), node
        while at >= 0:
            seen.add(at)
            at = parents[at]
        wanted.append([j in seen for j in range(len(parents))])
    assert srt.compile(srt.parse(TREE), tile=16).plan(len(parents), **named).to_dense()[0, 0].tolist() == wanted
    tensors = qkv(len(parents), heads=1)
    assert_near(run(TREE, backend, tensors, **named), run(TREE, "reference", tensors, **named))


def test_L5_as_reported():
    named = {n: x for n, x in tree([-1, 0, 0, 1, 2]).items() if n in ("tin", "tout")}
    dense = srt.compile(srt.parse(TREE)).plan(5, **named).to_dense()[0, 0]
    assert [row.nonzero().flatten().tolist() for row in dense] == [[0], [0, 1], [0, 2], [0, 1, 3], [0, 2, 4]]
