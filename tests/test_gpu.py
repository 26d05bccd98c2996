"""What only a card can show: the kernels on it, against the float64 reference. `pytest -m gpu`; skipped where there is none.

Every test is short: a spec is five kernels to compile. `pytest -m gpu --interpreted tests/test_gpu.py` tries the tests themselves, smaller, in Triton's interpreter.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from torch import Tensor

import srt_masks as srt
from srt_masks.testing import compare
from srt_masks.testing.comparing import compare_case
from srt_masks.testing.strategies import Case, cases

pytestmark = pytest.mark.gpu

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
HALF = [torch.float16, torch.bfloat16]
STOP = "layout repeat { token, reason * 4 }\nlet soon = k is reason and 0 < q.step - k.step <= 16\nattend causal\nstop k, v where soon"
APART = "input doc: int per token\nattend causal and same(doc)\nstop k where q.pos - k.pos >= 40\nscale v by 0.5 where (q.pos - k.pos) % 4 == 0"


def size(on_a_card: int, interpreted: int) -> int:
    return interpreted if INTERPRETED else on_a_card


def randn(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.randn(*shape, device=DEVICE, dtype=dtype)


def gradients(attend, q: Tensor, k: Tensor, v: Tensor, dout: Tensor, **how) -> list[Tensor]:
    """out, dq, dk, dv."""
    leaves = [x.detach().requires_grad_() for x in (q, k, v)]
    out = attend(*leaves, **how)
    return [out.detach(), *torch.autograd.grad(out, leaves, dout)]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# ------------------------------------------------------------------------------------------------ right within TOL


@pytest.mark.parametrize("chunk", range(size(16, 2)))
def test_random_specs(chunk: int):
    """Each spec is five kernels to compile, so the chunks run side by side."""

    @seed(chunk)
    @settings(max_examples=size(6, 2), deadline=None, derandomize=False, database=None, suppress_health_check=list(HealthCheck))
    @given(cases(most_steps=size(40, 6)), st.sampled_from([*HALF, torch.float32]), st.sampled_from([None, 32, 128]))
    def check(case: Case, dtype: torch.dtype, tile: int | None):
        for c in compare_case(replace(case, tile=tile), dtype=dtype, backend="triton", device=DEVICE):
            assert c.holds, f"{c}\n{case.spec}\n{case.spec.params}"

    check()


# float32 has no matrix unit: its products are unrolled, and take a minute to compile.
DIMS = [(d, dtype) for dtype in HALF for d in (8, 40, 64, 96, 128, 256)] + [(64, torch.float32)]


@pytest.mark.parametrize(("head_dim", "dtype"), DIMS)
@pytest.mark.parametrize("text", [STOP, APART, "attend causal and window(100)"])
def test_head_dims_and_dtypes(text: str, head_dim: int, dtype: torch.dtype):
    tokens = size(500, 40)
    inputs = {"doc": torch.arange(tokens) // 77} if "doc" in text else None
    for c in compare(srt.parse(text), steps=tokens // 5 if "reason" in text else tokens, dtype=dtype, head_dim=head_dim, inputs=inputs, backend="triton", device=DEVICE):  # fmt: skip
        assert c.holds, c


@pytest.mark.parametrize(("heads", "key_heads"), [(7, 1), (6, 2), (14, 2)])
def test_grouped_query_heads_with_a_mask_each(heads: int, key_heads: int):
    spec = srt.parse("attend causal and window(30 + head)\nstop k where head % 2 == 0 and k.pos < q.pos\nstop v where head == 1")
    for c in compare(spec, steps=size(300, 40), heads=heads, key_heads=key_heads, batch=2, dtype=torch.bfloat16, backend="triton", device=DEVICE):
        assert c.holds, c


def test_hidden_twins():
    """`stop hidden`: the keys and values once more, whose gradients are those of the stopped pairs."""
    spec = srt.parse("layout repeat { token, memory }\nattend causal\nstop hidden where k is memory and q.step > k.step\nstop v where q.step - k.step > 9")
    for c in compare(spec, steps=size(150, 15), dtype=torch.bfloat16, backend="triton", device=DEVICE):
        assert c.holds, c


def test_a_heavy_predicate_steps_down():
    """Sixteen looks at a table for every pair: the configs of the table spill, so others are compiled until one does not, or the call is refused by name."""
    n = size(200, 20)
    spec = srt.parse("input seen: int[m, m]\nattend causal and any(seen[q.pos - s, k.pos + s] > 0 for s in range(16))")
    seen = torch.randint(-9, 2, (n, n))
    try:
        found = compare(spec, steps=n, inputs={"seen": seen}, dtype=torch.bfloat16, backend="triton", device=DEVICE)
    except srt.BackendError as error:
        assert "no config for the" in str(error) and not INTERPRETED
        return
    assert all(c.holds for c in found), found


# ------------------------------------------------------------------------------------------------ nothing of a dead key or row


def test_nan_in_dead_keys_and_dead_rows():
    n = size(700, 90)
    spec = srt.parse("input keep: bool per token\nattend causal and k.keep and q.pos > 50\nstop k where k.pos < q.pos - 9")
    keep = torch.rand(n, device=DEVICE) > 0.4
    keep[0] = True
    attend = srt.compile(spec, backend="triton")

    q, k, v, dout = (randn(1, 2, n, 64) for _ in range(4))
    dout[:, :, :51] = 0
    clean = gradients(attend, q, k, v, dout, keep=keep)
    k[:, :, ~keep], v[:, :, ~keep], q[:, :, :51] = float("nan"), float("inf"), float("nan")
    assert same(clean, gradients(attend, q, k, v, dout, keep=keep))
    assert all(bool(x.isfinite().all()) for x in clean)


def test_nan_past_the_end_of_each_row():
    n = size(300, 40)
    attend = srt.compile(srt.parse("attend causal\nstop v where q.pos - k.pos > 20"), backend="triton")
    lengths = [n // 3, n]
    q, k, v, dout = (randn(2, 2, n, 64) for _ in range(4))
    clean = gradients(attend, q, k, v, dout, lengths=lengths)
    for x in (q, k, v, dout):
        x[0, :, n // 3 :] = float("nan")
    assert same(clean, gradients(attend, q, k, v, dout, lengths=lengths))
    assert all(bool((x[0, :, n // 3 :] == 0).all()) for x in clean)


def test_memory_that_is_filled_with_nan():
    """What a kernel does not write would show: torch fills every new tensor."""
    attend = srt.compile(srt.parse(APART), backend="triton")
    n = size(300, 40)
    q, k, v, dout = (randn(1, 2, n, 64) for _ in range(4))
    doc = torch.arange(n, device=DEVICE) // 77
    clean = gradients(attend, q, k, v, dout, doc=doc)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        filled = gradients(srt.compile(srt.parse(APART), backend="triton"), q, k, v, dout, doc=doc)
    finally:
        torch.use_deterministic_algorithms(False)
    assert same(clean, filled)


# ------------------------------------------------------------------------------------------------ large


def test_offsets_beyond_32_bits_between_rows_of_the_batch():
    spec = srt.parse("attend causal and window(64)")
    big = torch.zeros(2, 1, size(2**24 + 300, 400), 128, device=DEVICE, dtype=torch.bfloat16)
    n = size(256, 64)
    q = big[:, :, -n:]
    q.copy_(randn(*q.shape))
    attend, dout = srt.compile(spec, backend="triton"), randn(*q.shape)
    assert same(gradients(attend, q, q, q, dout), gradients(attend, *[q.contiguous()] * 3, dout))


def test_offsets_beyond_32_bits_between_tokens():
    """Rows 2**24 numbers apart: from the 128th on they lie beyond 2**31."""
    n, apart = size(200, 40), size(2**24, 2**10)
    big = torch.empty(n * apart, device=DEVICE, dtype=torch.bfloat16)
    q = big.as_strided((1, 1, n, 64), (n * apart, n * apart, apart, 1))
    q.copy_(randn(*q.shape))
    attend, dout = srt.compile(srt.parse("attend causal"), backend="triton"), randn(*q.shape)
    assert same(gradients(attend, q, q, q, dout), gradients(attend, *[q.contiguous()] * 3, dout))


def test_more_programs_than_one_grid_axis_takes_elsewhere():
    """70,000 (batch, head) pairs: axes 1 and 2 of a grid end at 65,535."""
    q = randn(size(7000, 7), 10, 16, 16, dtype=torch.float16)
    attend, dout = srt.compile(srt.parse("attend causal"), backend="triton"), randn(*q.shape, dtype=torch.float16)
    for found, alone in zip(gradients(attend, q, q, q, dout), gradients(attend, *[q[-1:]] * 3, dout[-1:]), strict=True):
        torch.testing.assert_close(found[-1:], alone)


# ------------------------------------------------------------------------------------------------ whole calls


def test_same_bits_every_time():
    attend = srt.compile(srt.parse(STOP), backend="triton")
    n = size(2000, 60)
    q, k, v, dout = (randn(2, 4, n, 64) for _ in range(4))
    assert same(gradients(attend, q, k, v, dout), gradients(attend, q, k, v, dout))


def test_another_order_of_tokens_gives_the_same():
    """Reasoning tokens seen by the next steps alone: visited by role. The reference knows no order."""
    text = "layout repeat { token, reason * 3 }\nattend causal and (k is token or q.step - k.step <= 2)\nstop v where q.step - k.step > 9"
    n = size(1200, 80)
    q, k, v, dout = (randn(1, 2, n, 64, dtype=torch.float16) for _ in range(4))
    attend = srt.compile(srt.parse(text), backend="triton", tile=16)
    orders = [c.name for c in attend.compiled.candidates]
    assert orders
    judge = gradients(srt.compile(srt.parse(text), backend="reference"), q, k, v, dout)
    for found, wanted in zip(gradients(srt.compile(srt.parse(text), backend="triton", tile=16, order=orders[0]), q, k, v, dout), judge, strict=True):
        torch.testing.assert_close(found, wanted, rtol=2e-3, atol=2e-2)


def test_some_queries_only():
    """A step of decoding and a chunk, cut out of one plan, are the rows of the whole call."""
    n = size(500, 64)
    attend = srt.compile(srt.parse("attend causal and window(40)\nstop k where q.pos - k.pos > 7"), backend="triton")
    q, k, v = (randn(2, 2, n, 64) for _ in range(3))
    whole = attend(q, k, v)
    for rows in (range(n - 1, n), range(n // 2, n // 2 + 20)):
        torch.testing.assert_close(attend(q[:, :, rows.start : rows.stop], k, v, queries=rows), whole[:, :, rows.start : rows.stop], rtol=2e-2, atol=2e-2)


def test_lse_and_its_gradient_alone():
    n = size(300, 40)
    spec = srt.parse("attend causal and window(30)")
    q, k, v = (randn(1, 2, n, 64, dtype=torch.float32).requires_grad_() for _ in range(3))
    found, wanted = (
        torch.autograd.grad(srt.compile(spec, backend=backend)(q, k, v, return_lse=True)[1].square().sum(), (q, k), allow_unused=True)
        for backend in ("triton", "reference")
    )
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_torch_compile_round_a_call():
    """Under torch.compile a call does what it does without, whether it is traced or told to stay out."""
    n = size(256, 32)
    attend = srt.compile(srt.parse("attend causal\nstop k where q.pos - k.pos > 9"), backend="triton")
    q, k, v, dout = (randn(1, 2, n, 64) for _ in range(4))

    def layer(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(q * 2, k, v) + 1

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = gradients(torch.compile(layer, backend="aot_eager" if INTERPRETED else "inductor"), q, k, v, dout)
    for found, wanted in zip(compiled, gradients(layer, q, k, v, dout), strict=True):
        torch.testing.assert_close(found, wanted, rtol=2e-2, atol=2e-2)


@pytest.mark.skipif(INTERPRETED, reason="`auto` is `tiled` on a CPU")
def test_auto_is_triton_where_it_was_measured():
    attend, q = srt.compile(srt.parse(STOP)), randn(1, 2, 500, 64)
    if torch.cuda.get_device_capability() == (9, 0):
        assert torch.equal(attend(q, q, q), srt.compile(srt.parse(STOP), backend="triton")(q, q, q))
    with pytest.warns(UserWarning, match="runs this on `tiled`.*float64"):
        attend(*[q.double()] * 3)
