"""What only a card can show: the kernels on it, against the float64 reference. `pytest -m gpu`; skipped where there is none."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import srt_masks as srt
from srt_masks.testing import compare
from srt_masks.testing.comparing import compare_case
from srt_masks.testing.strategies import Case, cases

pytestmark = pytest.mark.gpu

STOP = "layout repeat { token, reason * 4 }\nlet soon = k is reason and 0 < q.step - k.step <= 16\nattend causal\nstop k, v where soon"
APART = "input doc: int per token\nattend causal and same(doc)\nstop k where q.pos - k.pos >= 40\nscale v by 0.5 where (q.pos - k.pos) % 4 == 0"
HALF = [torch.float16, torch.bfloat16]


@pytest.mark.parametrize("chunk", range(16))
def test_random_specs(chunk: int):
    """Each spec is five kernels to compile, so the chunks run side by side."""

    @seed(chunk)
    @settings(max_examples=6, deadline=None, derandomize=False, database=None, suppress_health_check=list(HealthCheck))
    @given(cases(most_steps=40), st.sampled_from([*HALF, torch.float32]), st.sampled_from([None, 32, 128]))
    def check(case: Case, dtype: torch.dtype, tile: int | None):
        for c in compare_case(replace(case, tile=tile), dtype=dtype, backend="triton", device="cuda"):
            assert c.holds, f"{c}\n{case.spec}\n{case.spec.params}"

    check()


# float32 has no matrix unit: its products are unrolled, and take a minute to compile.
DIMS = [(d, dtype) for dtype in HALF for d in (8, 40, 64, 96, 128, 256)] + [(64, torch.float32)]


def test_float32_has_no_config_for_256():
    with pytest.raises(srt.BackendError, match="spill"):
        compare(srt.parse(STOP), steps=100, dtype=torch.float32, head_dim=256, backend="triton", device="cuda")


@pytest.mark.parametrize(("head_dim", "dtype"), DIMS)
@pytest.mark.parametrize("text", [STOP, APART, "attend causal and window(100)"])
def test_head_dims_and_dtypes(text: str, head_dim: int, dtype: torch.dtype):
    inputs = {"doc": torch.arange(500) // 77} if "doc" in text else None
    for c in compare(srt.parse(text), steps=100 if "reason" in text else 500, dtype=dtype, head_dim=head_dim, inputs=inputs, backend="triton", device="cuda"):
        assert c.holds, c


@pytest.mark.parametrize(("heads", "key_heads"), [(7, 1), (6, 2), (14, 2)])
def test_grouped_query_heads(heads: int, key_heads: int):
    spec = srt.parse("attend causal and window(30 + head)\nstop k where head % 2 == 0 and k.pos < q.pos\nstop v where head == 1")
    for c in compare(spec, steps=300, heads=heads, key_heads=key_heads, batch=2, dtype=torch.bfloat16, backend="triton", device="cuda"):
        assert c.holds, c


def test_nan_in_dead_keys_and_dead_rows():
    spec = srt.parse("input keep: bool per token\nattend causal and k.keep and q.pos > 50\nstop k where k.pos < q.pos - 9")
    keep = torch.rand(700, device="cuda") > 0.4
    keep[0] = True
    attend = srt.compile(spec, backend="triton")

    def results(q, k, v, dout):
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        out = attend(*leaves, keep=keep)
        return out, *torch.autograd.grad((out * dout)[:, :, 51:].sum(), leaves)

    q, k, v, dout = (torch.randn(1, 2, 700, 64, device="cuda", dtype=torch.bfloat16) for _ in range(4))
    clean = results(q, k, v, dout)
    k[:, :, ~keep], v[:, :, ~keep], q[:, :, :51] = float("nan"), float("inf"), float("nan")
    for a, b in zip(clean, results(q, k, v, dout), strict=True):
        assert torch.equal(a, b)


def test_offsets_beyond_32_bits():
    """A batch stride of more than 2**31 elements."""
    spec = srt.parse("attend causal and window(64)")
    big = torch.zeros(2, 1, 2**24 + 300, 128, device="cuda", dtype=torch.bfloat16)
    q = big[:, :, -256:]
    q.copy_(torch.randn(q.shape, device="cuda"))
    attend = srt.compile(spec, backend="triton")
    assert torch.equal(attend(q, q, q), attend(*[q.contiguous()] * 3))


def test_same_bits_every_time():
    attend = srt.compile(srt.parse(STOP), backend="triton")
    leaves = [torch.randn(2, 4, 2000, 64, device="cuda", dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
    first, again = (torch.autograd.grad(attend(*leaves).square().sum(), leaves) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_more_programs_than_one_grid_axis_takes_elsewhere():
    """70,000 (batch, head) pairs: axes 1 and 2 of a grid end at 65,535."""
    q = torch.randn(7000, 10, 16, 16, device="cuda", dtype=torch.float16)
    attend = srt.compile(srt.parse("attend causal"), backend="triton")
    torch.testing.assert_close(attend(q, q, q)[-1:], attend(*[q[-1:]] * 3))


def test_auto_is_triton_where_it_was_measured():
    attend, q = srt.compile(srt.parse(STOP)), torch.randn(1, 2, 500, 64, device="cuda", dtype=torch.bfloat16)
    assert torch.equal(attend(q, q, q), srt.compile(srt.parse(STOP), backend="triton")(q, q, q))
    with pytest.warns(UserWarning, match="runs this on `tiled`.*float64"):
        attend(*[q.double()] * 3)
