"""Reports of kind O: numbers that say another thing than they seem to, and errors that say nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from calls import ANY_BACKEND, BACKENDS, FEW, assert_near, call, qkv
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import srt_masks as srt
from srt_masks.compiler.density import Pairs, attended
from srt_masks.kernels import op

# ------------------------------------------------------------------------------------------------ O1: what is counted


@given(st.lists(st.integers(0, 40), min_size=1, max_size=6), st.sampled_from([16, 32, 64, 128]), st.integers(1, 3), st.booleans())
def test_O1_density_counts_pairs_and_not_tiles_or_padding(lengths: list[int], tile: int, heads: int, causal: bool):
    """At any length and tile: between 0 and 1, and the pairs that Python counts."""
    tokens = sum(lengths)
    text = "input doc: int per token\nattend same(doc)" + (" and causal" if causal else "")
    plan = srt.compile(srt.parse(text), tile=tile).plan(tokens, heads=heads, doc=srt.documents(lengths=lengths)["doc"])
    pairs = sum(n * (n + 1) // 2 if causal else n * n for n in lengths)
    assert attended(plan) == Pairs(heads * pairs, heads * tokens**2, True)
    assert 0 <= attended(plan).density <= 1


def test_O1_as_reported():
    doc = srt.documents(lengths=[10, 10, 20, 20, 20, 20])["doc"]
    plan = srt.compile(srt.parse("input doc: int per token\nattend causal and same(doc)")).plan(100, doc=doc)
    assert attended(plan) == Pairs(950, 10000, True) and 1 - attended(plan).density == pytest.approx(0.905)
    assert plan.active_tiles == 1 and "1 PARTIAL of 1" in str(plan)


# ------------------------------------------------------------------------------------------------ O3: what was wanted, and what came

Change = Callable[[Tensor], Any]
# What is wrong with one of q, k and v, and what the message says came.
WRONG: dict[str, tuple[Change, str]] = {
    "dtype": (lambda x: x.bfloat16(), "bfloat16"),
    "whole numbers": (lambda x: x.long(), "int64"),
    "bool": (lambda x: x > 0, "bool"),
    "device": (lambda x: x.to("meta"), "meta"),
    "three axes": (lambda x: x[0], r"shape \(2, 20, 8\)"),
    "five axes": (lambda x: x[None], r"shape \(1, 2, 2, 20, 8\)"),
    "batch": (lambda x: x[:1], "1"),
    "heads": (lambda x: torch.cat([x, x[:, :1]], 1), "3"),
    "tokens": (lambda x: x[:, :, :7], "7"),
    "sparse": (lambda x: x.to_sparse(), "sparse_coo"),
    "a list": (lambda x: x.tolist(), "list"),
    "None": (lambda x: None, "NoneType"),
}  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("wrong", WRONG)
def test_O3_a_tensor_that_does_not_fit_is_one_line_with_its_name_and_what_came(backend: str, place: int, wrong: str, monkeypatch):
    change, came = WRONG[wrong]
    tensors: list[Any] = [torch.randn(2, 2, 20, 8) for _ in range(3)]
    tensors[place] = change(tensors[place])
    monkeypatch.setattr(op, "attend", lambda *_: pytest.fail("it was launched"))
    with pytest.raises(srt.InputError) as refused:
        srt.compile(srt.parse("attend causal"), backend=backend)(*tensors)
    message = str(refused.value)
    assert "\n" not in message and len(message) < 300
    assert re.search(rf"\b{'qkv'[place]}\b", message) and re.search(came, message), message


@pytest.mark.parametrize("wrong", ["last axis of q", "last axis of k"])
def test_O3_head_dims_that_differ(wrong: str):
    q, k, v = (torch.randn(1, 2, 6, 8) for _ in range(3))
    q, k = (q[..., :4], k) if wrong.endswith("q") else (q, k[..., :4])
    with pytest.raises(srt.InputError, match=r"q has \d, k \d"):
        srt.compile(srt.parse("attend causal"))(q, k, v)


@pytest.mark.gpu
def test_O3_devices_that_differ():
    q = torch.randn(1, 2, 6, 8)
    with pytest.raises(srt.InputError, match=r"q on cpu, k on cuda"):
        srt.compile(srt.parse("attend causal"))(q, q.cuda(), q)


def spread(x: Tensor, order: tuple[int, ...], steps: tuple[int, ...], shift: int) -> Tensor:
    """The same numbers, in memory with the axes in another order, gaps between them, and a beginning somewhere in it."""
    shape = [n * s + shift for n, s in zip(x.shape, steps, strict=True)]
    room = torch.full([shape[i] for i in order], float("nan"), dtype=x.dtype)
    view = room.permute(*torch.tensor(order).argsort().tolist())[tuple(slice(shift, None, s) for s in steps)]
    view.copy_(x)
    return view


STRIDES = st.tuples(st.permutations(range(4)).map(tuple), st.tuples(*[st.integers(1, 3)] * 4), st.integers(0, 3))


@FEW
@given(ANY_BACKEND, st.lists(STRIDES, min_size=4, max_size=4), st.integers(1, 3))
def test_O3_what_is_not_contiguous_just_works(backend: str, strides: list, group: int):
    """q, k, v and the gradient of out, laid out in memory in any way. Sums may run in another order, and no more."""
    attend = srt.compile(srt.parse("attend causal and window(9)\nstop k where q.pos - k.pos > 3"), backend=backend, tile=16)
    tensors = qkv(21, batch=2, heads=2 * group, key_heads=2)
    assert_near(call(attend, [spread(x, *how) for x, how in zip(tensors, strides, strict=True)]), call(attend, tensors), 1e-12)
