"""Reports of kinds H, I and J: what numbers are computed in, what is too large for an index, a grid or a card, what is compiled anew."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import textwrap
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from calls import ANY_BLOCK_SPARSE, BACKENDS, BLOCK_SPARSE, FEW, assert_near, assert_same_bits, call, qkv, run, spread_far
from hypothesis import given
from hypothesis import strategies as st
from watching import Products

import srt_masks as srt
from srt_masks.compiler.labels import PARTIAL, SHIFTS, State
from srt_masks.compiler.plan import GroupPlan
from srt_masks.compiler.runs import Consumer
from srt_masks.kernels import dispatch
from srt_masks.kernels.backend import Operands
from srt_masks.testing import compare
from srt_masks.testing.comparing import compare_case
from srt_masks.testing.strategies import Case, cases

ROOT = Path(__file__).parent.parent.parent
KERNELS = sorted((ROOT / "srt_masks" / "kernels").glob("triton_*.py"))


def calls_of(name: str) -> list[ast.Call]:
    """Every call of `tl.NAME` in the sources of the kernels."""
    nodes = [n for path in KERNELS for n in ast.walk(ast.parse(path.read_text()))]
    return [n for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) and n.func.attr == name]


# ------------------------------------------------------------------------------------------------ H1: float32 is float32


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_H1_float32_is_not_computed_in_less(backend: str, precision: str):
    """Whatever precision is set for the products of the rest of the model. Twice the error of dense float32 is far from one bit of TF32."""
    torch.set_float32_matmul_precision(precision)
    try:
        for c in compare(srt.parse("attend causal\nstop k where q.pos - k.pos > 5"), steps=40, heads=1, head_dim=64, tile=16, backend=backend):
            assert c.holds and c.allowed < 2e-5, c
    finally:
        torch.set_float32_matmul_precision("highest")


def test_H1_products_of_tiled_are_worked_out_in_full():
    """Whatever the processor would make of a lower precision: inside, the highest is set, and nothing is cast."""
    torch.set_float32_matmul_precision("medium")
    try:
        with Products() as seen:
            q, k, v, dout = (x.requires_grad_() for x in qkv(40, heads=1, dtype=torch.float32))
            out = srt.compile(srt.parse("attend causal"), backend="tiled", tile=16)(q, k, v)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                out.backward(dout.detach())
    finally:
        torch.set_float32_matmul_precision("highest")
    assert seen.precisions == {"torch.float32 highest"} and seen.count > 0


def test_H1_no_product_of_a_kernel_is_left_to_triton(monkeypatch: pytest.MonkeyPatch):
    """A dot that does not name its precision is computed in TF32: there is one, which does, and every launch says IEEE."""
    (dot,) = calls_of("dot")
    assert [ast.unparse(k.value) for k in dot.keywords if k.arg == "input_precision"] == ["PRECISION"]
    from srt_masks.kernels import call

    said, honest = [], call.run

    def spy(*args: Any, **named: Any) -> None:
        said.append(named.get("PRECISION"))
        honest(*args, **named)

    monkeypatch.setattr(call, "run", spy)
    run("attend causal", "triton", qkv(20, heads=1, dtype=torch.float32))
    assert [x for x in said if x] == ["ieee"] * 3  # forward, dQ, dK and dV


# ------------------------------------------------------------------------------------------------ H3: FULL or PARTIAL


def all_partial(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tile is called PARTIAL, and every gate of it MIXED: the predicate and the gates are evaluated everywhere."""
    honest = GroupPlan.runs

    def runs(self: GroupPlan, consumer: Consumer) -> Any:
        found = honest(self, consumer)
        kind = found.kind | PARTIAL
        for gate in consumer.gates:
            kind = kind & ~(3 << SHIFTS[gate]) | State.MIXED << SHIFTS[gate]
        return replace(found, kind=kind)

    monkeypatch.setattr(GroupPlan, "runs", runs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
@pytest.mark.parametrize("backend", BLOCK_SPARSE)
@pytest.mark.parametrize("text", ["attend causal", "attend causal or k.pos < 20\nstop k where q.pos - k.pos > 17\nstop v where k.pos < 16"])
def test_H3_a_tile_that_is_called_partial_gives_the_same(backend: str, text: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    """FULL tiles forced PARTIAL. Sums may run in another order (`tiled` keeps FULL and PARTIAL keys apart), so within the bound, and not to the bit."""
    tokens = 70 if backend == "tiled" else 40
    assert srt.compile(srt.parse(text), tile=16).plan(tokens).groups[0].runs(Consumer.FORWARD).is_partial.tolist().count(False) > 0
    tensors = qkv(tokens, heads=1, dim=16, dtype=dtype)
    normal = run(text, backend, tensors)
    assert_same_bits(run(text, backend, tensors), normal)
    all_partial(monkeypatch)
    assert bool(srt.compile(srt.parse(text), tile=16).plan(tokens).groups[0].runs(Consumer.FORWARD).is_partial.all())
    forced = run(text, backend, tensors)
    assert_near(forced, normal, {torch.float64: 1e-13, torch.float32: 1e-5, torch.float16: 4e-3}[dtype])
    for c in compare(srt.parse(text), steps=tokens, heads=1, dtype=dtype, tile=16, backend=backend):
        assert c.holds, c


@FEW
@given(ANY_BLOCK_SPARSE, cases(most_steps=5))
def test_H3_so_it_is_for_any_text(backend: str, case: Case):
    tensors, options = case.tensors(), {"inputs": dict(case.inputs)}
    normal = call(case.compile(backend), tensors, **options)
    with pytest.MonkeyPatch.context() as patch:
        all_partial(patch)
        assert_near(call(case.compile(backend), tensors, **options), normal, 1e-11)


# ------------------------------------------------------------------------------------------------ I1: offsets beyond 32 bits


@pytest.mark.parametrize("axis", [0, 1, 2], ids=["batch", "heads", "tokens"])
@pytest.mark.parametrize("backend", BLOCK_SPARSE)
def test_I1_strides_beyond_32_bits(backend: str, axis: int):
    """q, k, v and the gradient of out as views with the tokens (or heads, or batch) that far apart: forward and backward."""
    sizes = [3 if axis == other else 1 for other in range(2)]
    text, tensors = "attend causal\nstop k where q.pos - k.pos > 1", qkv(3, batch=sizes[0], heads=sizes[1], dtype=torch.float16)
    assert_same_bits(run(text, backend, [spread_far(x, axis) for x in tensors]), run(text, backend, tensors))


@pytest.mark.gpu
def test_I1_as_reported():
    """K and V as views of tokens x batch x head_dim, of more than 2**31 numbers."""
    batch = 720
    k = torch.randn(24000, batch, 128, device="cuda", dtype=torch.bfloat16).permute(1, 0, 2)[:, None]
    assert k.numel() > 2**31
    attend = srt.compile(srt.parse("attend causal and window(64)"), backend="triton")
    q = torch.randn(1, 1, 24000, 128, device="cuda", dtype=torch.bfloat16).expand(k.shape)
    for one in (slice(0, 1), slice(batch - 1, batch)):
        few = [x[one].contiguous().requires_grad_() for x in (q, k, k)]
        many = [q, k.detach().requires_grad_(), k.detach().requires_grad_()]
        wanted = torch.autograd.grad(attend(*few).sum(), few[1:])
        found = torch.autograd.grad(attend(*many).sum(), many[1:])
        assert all(torch.equal(a[one], b) for a, b in zip(found, wanted, strict=True))
        del few, many, wanted, found


# ------------------------------------------------------------------------------------------------ I4: large batches

BATCH, HEADS = 10923, 6


@pytest.mark.parametrize("backend", ["tiled", "reference"])
def test_I4_more_than_65535_rows_and_heads(backend: str):
    tensors = qkv(3, batch=BATCH, heads=HEADS, dim=4, dtype=torch.float32)
    found = run("attend causal", backend, tensors)
    for row in (0, BATCH // 2, BATCH - 1):
        assert_near(found.members(row), run("attend causal", "reference", [x[row : row + 1] for x in tensors]), 1e-5)


def test_I4_a_grid_has_one_axis():
    """The only one that may be longer than 65,535: every kernel takes its program from axis 0, and every launch has no other."""
    axes = calls_of("program_id")
    assert len(axes) >= 5 and all(ast.unparse(call.args[0]) == "0" for call in axes)
    source = ast.parse((ROOT / "srt_masks" / "kernels" / "run.py").read_text())
    grids = [n.slice for n in ast.walk(source) if isinstance(n, ast.Subscript) and ast.unparse(n.value) == "kernel"]
    grids += [k.value for n in ast.walk(source) if isinstance(n, ast.Call) for k in n.keywords if k.arg == "grid"]
    assert len(grids) == 3 and all(ast.unparse(grid) == "(programs,)" for grid in grids)


@pytest.mark.gpu
def test_I4_as_reported():
    tensors = [x.cuda() for x in qkv(32, batch=BATCH, heads=HEADS, dim=16, dtype=torch.float16)]
    found = run("attend causal", "triton", tensors, tile=None)
    for row in (0, BATCH - 1):
        assert_near(found.members(row), run("attend causal", "triton", [x[row : row + 1] for x in tensors], tile=None), 1e-3)


# ------------------------------------------------------------------------------------------------ I5, I7: every head_dim


@pytest.mark.parametrize(("dim", "value_dim"), [(8, 8), (16, 16), (24, 24), (31, 31), (80, 80), (96, 1), (160, 33), (192, 256), (256, 192), (1, 7)])
@pytest.mark.parametrize("backend", BLOCK_SPARSE)
def test_I5_any_head_dim(backend: str, dim: int, value_dim: int):
    """Also where k and v differ in it. What pads a row to a power of 2 lies beside other numbers, here NaN, and neither is seen."""
    tokens = 70 if backend == "tiled" else 20
    text = "attend causal\nscale k by 0.5 where q.pos - k.pos > 3"
    tensors = qkv(tokens, heads=1, dim=dim, value_dim=value_dim, dtype=torch.float32)
    wide = [torch.full((*x.shape[:-1], x.shape[-1] + 9), float("nan")) for x in tensors]
    for room, x in zip(wide, tensors, strict=True):
        room[..., 4 : 4 + x.shape[-1]] = x
    found = run(text, backend, [room[..., 4 : 4 + x.shape[-1]] for room, x in zip(wide, tensors, strict=True)])
    assert_near(found, run(text, backend, tensors), 1e-5)
    assert [x.shape[-1] for x in (found.out, found.dq, found.dk, found.dv)] == [value_dim, dim, dim, value_dim]
    assert_near(found, run(text, "reference", tensors), 2e-5)


@pytest.mark.parametrize("dim", [160, 256])
@pytest.mark.parametrize("card", [86, 89, 120])
def test_I7_a_card_with_little_shared_memory_is_served_or_told(card: int, dim: int):
    """Cards whose blocks have 99 KB: `auto` is `tiled` there, and says so once, or the kernels fit. What fits is compiled by `make kernels-report`."""
    compiled = srt.compile(srt.parse("attend causal")).compiled
    operands = Operands(torch.bfloat16, dim, dim, 1, torch.device("cuda"), card)
    dispatch.why_tiled.cache_clear(), dispatch._warn.cache_clear()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        names = {dispatch.pick("auto", (compiled,), operands).name for _ in range(3)}
    assert names == {"tiled"} and len(told) == 1 and f"sm_{card}" in str(told[0].message)


# ------------------------------------------------------------------------------------------------ J: what is compiled anew


def compiles(code: str) -> dict[str, int]:
    """How many variants of each kernel `code` compiles for an sm_90, by the launcher's own binder."""
    head = """
        import json, torch, srt_masks as srt
        from srt_masks.kernels.offline import offline
        kernels = {}
        def attend(spec, tokens, batch=1, heads=1, dim=16, **inputs):
            q, k, v = (torch.zeros(batch, heads, tokens, dim, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
            with offline(90, lambda name, config, compiled: kernels.setdefault(name.removesuffix("_kernel"), set()).add(compiled.hash)):
                spec(q, k, v, **inputs).sum().backward()
    """
    source = textwrap.dedent(head) + textwrap.dedent(code) + "\nprint(json.dumps({name: len(found) for name, found in kernels.items()}))"
    env = {n: x for n, x in os.environ.items() if n != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, env=env, timeout=250, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


ONE_EACH = {"live": 1, "forward": 1, "prepare": 1, "query_gradient": 1, "key_gradient": 1}


def test_J1_no_length_and_no_batch_compiles_anything():
    """1 and multiples of 16 among them, for which Triton would make variants of their own; and the number of heads, and of documents."""
    found = compiles("""
        causal = srt.compile(srt.parse("input doc: int per token\\nparam far = 9\\nattend causal and same(doc)\\nstop k where q.pos - k.pos > far"), backend="triton")
        for tokens in (1, 3, 16, 17, 128, 129, 4096):
            for batch in (1, 2, 16):
                attend(causal, tokens, batch if tokens < 4096 else 1, 1 + batch, dim=64, doc=torch.arange(tokens) // 20, far=batch)
    """)
    assert found == ONE_EACH


def test_J3_no_size_of_a_table_compiles_anything():
    found = compiles("""
        table = srt.compile(srt.parse("input T: int[n]\\ninput S: bool[m, n]\\nattend causal and (T[q.pos - k.pos] > 0 or S[k.pos, q.pos])"), backend="triton")
        for n in (5, 9, 16, 1, 0, 32):
            for m in (1, 16, 3):
                attend(table, 40, T=torch.ones(n, dtype=torch.int64), S=torch.ones(m, n) > 0)
    """)
    assert found == ONE_EACH


@pytest.mark.parametrize("backend", BLOCK_SPARSE)
def test_J3_each_size_of_a_table_is_read_right(backend: str):
    text, tensors = "input T: int[n]\nattend causal and T[q.pos - k.pos] != 0", qkv(20, heads=1)
    attend = srt.compile(srt.parse(text), backend=backend, tile=16)
    for n in (5, 9, 16, 1, 0, 40):
        table = torch.arange(n) % 3
        assert_near(call(attend, tensors, T=table), run(text, "reference", tensors, T=table))


# ------------------------------------------------------------------------------------------------ every dtype


@given(cases(most_steps=8), st.sampled_from([16, 32, 128]), st.sampled_from([torch.float16, torch.bfloat16]))
def test_H1_half_precision_of_any_text(case: Case, tile: int, dtype: torch.dtype):
    """float32 and float64 are those of `test_backends.py`."""
    for c in compare_case(replace(case, tile=tile), dtype=dtype, backend="tiled"):
        assert c.holds, f"{c}\n{case.spec}\n{case.spec.params}"
