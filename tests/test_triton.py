"""The Triton backend beside its values (`test_backends.py`): what is emitted, how a plan is packed, what is refused, what is compiled."""

from __future__ import annotations

import os
import py_compile
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import srt_masks as srt
from srt_masks.compiler.labels import PARTIAL, State, state
from srt_masks.compiler.plan import Plan
from srt_masks.compiler.runs import Consumer
from srt_masks.kept import folder
from srt_masks.testing import compare
from srt_masks.testing.strategies import Case, cases

triton = pytest.importorskip("triton")

import triton.language as tl  # noqa: E402

from srt_masks.kernels import dispatch, fit, launch, packing, predicates, target  # noqa: E402
from srt_masks.kernels.backend import Operands  # noqa: E402
from srt_masks.kernels.buffers import buffers, needs_wide, schedule  # noqa: E402
from srt_masks.kernels.call import Call  # noqa: E402
from srt_masks.kernels.configs import Kind  # noqa: E402
from srt_masks.kernels.emit import emit  # noqa: E402

GOLDEN = Path(__file__).parent / "golden"
ROOT = Path(__file__).parent.parent


# ------------------------------------------------------------------------------------------------ what is emitted means what the IR means


@triton.jit
def _everywhere(
    out, facts, numbers, ints, flags, reals, CONSTANTS: tl.constexpr, QUERIES: tl.constexpr, KEYS: tl.constexpr, ROOT: tl.constexpr,
    AXIS: tl.constexpr, WEIGHTED: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """One root at every pair of N queries and N keys; turned where AXIS is 0."""
    n = tl.arange(0, N)
    c = CONSTANTS(facts, numbers)
    own = QUERIES(c, ints, flags, reals, n, n < tl.load(facts))
    other = KEYS(c, ints, flags, reals, n, n < tl.load(facts + 1))
    result = ROOT(c, own, other, ints, flags, reals, AXIS)
    if WEIGHTED:
        result = tl.zeros([N, N], tl.float64) + result
    else:
        result = tl.where(result, tl.full([N, N], 1.0, tl.float64), tl.zeros([N, N], tl.float64))
    if AXIS == 1:
        tl.store(out + n[:, None] * N + n[None, :], result)
    else:
        tl.store(out + n[None, :] * N + n[:, None], result)


def agree(plan: Plan, compiled, wide: bool | None = None) -> None:
    """Mask and gates of every group, as emitted, equal those the planner evaluates; in both orientations."""
    wide = needs_wide(plan) if wide is None else wide
    source = emit(compiled, wide, plan.numbered)
    module = predicates.module_of(source)
    made = buffers(plan, source.columns, wide)
    for number, group in enumerate(plan.groups):
        size = max(16, 1 << (max(group.queries, group.keys) - 1).bit_length())
        attend, *gates = group.leaves.pairs(slice(None), slice(None), *compiled.program.pair_roots)
        wanted = [attend, *(torch.where(o, w, 0.0) for o, w in zip(gates[::2], gates[1::2], strict=True))]
        roots = [module.attended, module.gate_q, module.gate_k, module.gate_v]
        for name, root, weighted, want in zip("aqkv", roots, (False, *source.weighted), wanted, strict=True):
            for axis in (0, 1):
                out = torch.zeros(size, size, dtype=torch.float64)
                _everywhere[(1,)](
                    out, made.facts[number], made.numbers[number], made.ints, made.flags, made.reals, module.constants, module.queries, module.keys,
                    root, axis, weighted, size,
                )  # fmt: skip
                found = out[: group.queries, : group.keys]
                assert torch.equal(found, want.double().expand_as(found)), (name, axis, wide)


@given(cases(most_steps=6))
def test_what_is_emitted_is_what_is_planned(case: Case):
    attend = srt.compile(case.spec, heads=case.heads, tile=16)
    plan = attend.plan(case.spec.checked.queries.tokens(case.steps or 0), inputs=case.inputs)
    if plan.geometry.queries:
        agree(plan, attend.compiled)
        agree(plan, attend.compiled, wide=True)


PAIRS = "(q.a - k.a)"
TOTAL = [
    f"{PAIRS} // 3 == -1", f"{PAIRS} % 3 == 2", f"{PAIRS} // (-3) == 1", f"{PAIRS} % (-3) == -2", "q.a // k.a == 0", "q.a % k.a == 1", "q.a // (k.a - k.a + q.a - q.a) == 0",
    f"{PAIRS} ** 2 > 9",
    f"{PAIRS} ** level == 4", f"{PAIRS} ** 3 > 7", f"{PAIRS} ** (level - 3) == 0", f"{PAIRS} ** (level - 2) == 1", f"abs{PAIRS} < 4", f"-{PAIRS} < 4", "min(q.a, k.a) == max(q.a, k.a) - 1", f"clamp({PAIRS}, -1, 2) == 2",
    "(q.a if k.flag else k.a) > 0", "not (k.flag == q.flag)", "(k.flag and q.pos > k.pos) != q.flag", "k.flag implies q.a < k.a",
    "pairs[q.pos, k.pos] > 0", f"pairs[{PAIRS}, k.pos + 1] >= 0 and {PAIRS} > 0", "pairs[q.pos - 40, k.pos] == 0", "truths[q.pos, k.a]", f"not truths[{PAIRS}, 0]", f"doc[{PAIRS}] == q.doc", "flag[k.pos - q.pos]",
    f"role[{PAIRS}] is b", f"role[{PAIRS}] is not b", "step[q.pos + k.pos] == 2", f"pos[{PAIRS}] == 3", "heat < 0.5 and seen", "heat + q.warm <= heat * 2", "max(q.warm, k.warm) > min(q.warm, k.warm) + 0.25",
    f"any({PAIRS} == s * s for s in range(4))", f"all({PAIRS} != s for s in range(5))", "far[k.pos] > q.far", "q.far + k.far < 0", "q.far * k.far > 0", "q.by_head > k.a", f"level > {PAIRS} and {PAIRS} > -level", "full", "not full", "k.flag", "head == 1",
]  # fmt: skip


@pytest.mark.parametrize("rule", TOTAL)
def test_every_operator_is_total_as_the_language_says(rule: str):
    rule = rule.replace("q.a", "q.num").replace("k.a", "k.num")
    text = f"""
        param level = 2
        layout repeat {{ a, b * 2 }}
        input num: int per token
        input flag: bool per token
        input doc: int per step
        input pairs: int[n, n]
        input truths: bool[n, n]
        input seen: bool per query, key
        input heat: float per query, key
        input warm: float per token
        input far: int per token
        input by_head: int per head, step
        attend {rule}
        scale k by heat where {rule}
    """
    n, steps = 21, 7
    generator = torch.Generator().manual_seed(1)
    inputs = {
        "num": torch.randint(-4, 5, (n,), generator=generator), "flag": torch.rand(n, generator=generator) > 0.5, "doc": torch.arange(steps) // 2,
        "pairs": torch.randint(-1, 2, (n, n), generator=generator), "truths": torch.rand(n, n, generator=generator) > 0.5, "seen": torch.rand(n, n, generator=generator) > 0.5, "heat": torch.rand(n, n, generator=generator, dtype=torch.float64),
        "warm": torch.rand(n, generator=generator), "far": torch.randint(-(2**62), 2**62, (n,), generator=generator), "by_head": torch.randint(-4, 5, (2, steps), generator=generator),
    }  # fmt: skip
    attend = srt.compile(srt.parse(text), heads=2)
    plan = attend.plan(n, inputs=inputs)
    if "far" in rule:
        assert needs_wide(plan)
    else:
        agree(plan, attend.compiled, wide=False)
    agree(plan, attend.compiled, wide=True)
    dense = srt.dense(srt.parse(text), steps=steps, heads=2, inputs=inputs).attend[0]
    assert torch.equal(plan.to_dense()[0], dense)


def test_numbers_are_wide_only_where_they_may_be_large():
    def wide(text: str, tokens: int = 32, **inputs) -> bool:
        return needs_wide(srt.compile(srt.parse(text)).plan(tokens, **inputs))

    assert not wide("attend q.pos - k.pos < 100") and not wide("attend causal and (q.pos * k.pos) % 7 == 1")
    assert wide("attend q.pos * k.pos * 100000000 < 100", 2000) and wide("attend q.pos - k.pos < 5000000000")
    text = "input x: int per token\nattend q.x + k.x > 0"
    assert not wide(text, x=torch.full((32,), 2**30 - 1)) and wide(text, x=torch.full((32,), 2**30)) and wide(text, x=torch.full((32,), -(2**31)))


def test_no_name_of_the_user_is_in_the_source():
    text = "param secret = 3\nlayout repeat { hush, quiet * 2 }\ninput whisper: int per token\nlet murmur = pos // 2\ndata hush\nattend q.murmur >= k.murmur and whisper[q.pos - k.pos] < secret and (k is hush)\nstop k where q.whisper > k.whisper"
    source = emit(srt.compile(srt.parse(text)).compiled, False).text
    assert not any(word in source for word in ("secret", "hush", "quiet", "whisper", "murmur"))


def test_the_source_is_as_before(update_golden):
    """Tables, floats, floor division and a weighted gate; `test_compiler` has the source of the example."""
    text = "input doc: int per token\ninput heat: float per head, query, key\nparam far = 9\nattend same(doc) and heat > 0.5 and (q.pos - k.pos) // 3 < far\nscale v by 0.25 where doc[q.pos - k.pos] == 1"
    source = emit(srt.compile(srt.parse(text), heads=2).compiled, False).text
    path = GOLDEN / "documents.triton.txt"
    if update_golden:
        path.write_text(source)
    assert source == path.read_text()


# ------------------------------------------------------------------------------------------------ how a plan is packed

STOP = "layout repeat { token, reason * 2 }\nlet soon = k is reason and 0 < q.step - k.step <= 3\nattend causal\nstop k, v where soon"


@given(cases(most_steps=12), st.sampled_from([16, 32, 64]))
def test_a_schedule_visits_what_the_plan_says(case: Case, tile: int):
    attend = srt.compile(case.spec, heads=case.heads, tile=tile)
    plan = attend.plan(case.spec.checked.queries.tokens(case.steps or 0), inputs=case.inputs)
    g = plan.geometry
    for consumer, section, sections in (
        (Consumer.FORWARD, packing.forward_section, 2), (Consumer.DQ, packing.query_section, 2), (Consumer.DKV, packing.key_section, 6),
    ):  # fmt: skip
        found = schedule(plan, consumer, section, sections, 16)
        rows = -(-(g.keys if consumer.key_major else g.queries) // tile)
        assert sorted(found.order.tolist()) == list(range(rows))
        work = found.size[:-1].view(len(plan.groups), rows, sections).sum((0, 2))[found.order.long()]
        assert work.tolist() == sorted(work.tolist(), reverse=True)  # longest first
        wanted: list[list[int]] = []
        mine: list[list[int]] = []
        for number, group in enumerate(plan.groups):
            runs = group.runs(consumer)
            loops = group.queries if consumer.key_major else group.keys
            for row in range(len(runs.ptr) - 1):
                for i in range(runs.ptr[row], runs.ptr[row + 1]):
                    part = int(section(runs.kind[i : i + 1].long()))
                    for small in range(int(runs.first[i]) * tile // 16, min(int(runs.first[i] + runs.count[i]) * tile // 16, -(-loops // 16))):
                        wanted.append([number, row, part, small])
            for row in range(rows):
                for part in range(sections):
                    entry = (number * rows + row) * sections + part
                    run, left = int(found.ptr[entry]), int(found.size[entry])
                    while left:
                        for small in range(int(found.first[run]), int(found.stop[run])):
                            mine.append([number, row, part, small])
                            left -= 1
                        run += 1
        assert sorted(mine) == sorted(wanted)


def test_sections_say_what_is_stopped():
    def kind(partial: bool, q: State, k: State, v: State) -> torch.Tensor:
        return torch.tensor([partial * PARTIAL | q << 1 | k << 3 | v << 5])

    none, mixed, all = State.NONE, State.MIXED, State.ALL
    for partial, k, v, section in (
        (False, all, all, 0), (True, all, all, 1), (False, mixed, all, 1), (False, all, mixed, 1), (False, all, none, 2), (True, all, none, 3), (False, mixed, none, 3),
        (False, none, all, 4), (True, none, all, 5), (False, none, mixed, 5),
    ):  # fmt: skip
        assert packing.key_section(kind(partial, all, k, v)).tolist() == [section]
    assert [packing.query_section(kind(p, q, all, all)).item() for p, q in ((False, all), (True, all), (False, mixed), (True, mixed))] == [0, 1, 1, 1]
    assert state(kind(True, mixed, all, none), "k").item() == all


def test_only_sections_that_a_text_can_reach_are_compiled():
    def sections(text: str, want_k: bool = True, want_v: bool = True) -> str:
        return f"{packing.key_sections(srt.compile(srt.parse(text)).compiled, want_k, want_v):06b}"

    assert sections("attend causal") == "000011" == sections("attend causal\nstop k, v where q.pos > k.pos + 3")
    assert sections("attend causal\nstop v where q.pos > k.pos + 3") == "001111"
    assert sections("attend causal\nstop k where q.pos > k.pos + 3") == "110011"
    both = "attend causal\nstop k where q.pos > k.pos + 3\nstop v where q.pos > k.pos + 5"
    assert sections(both) == "111111" and sections(both, want_v=False) == "001111" and sections(both, want_k=False) == "110011"


def test_groups_share_what_they_have_in_common():
    plan = srt.compile(srt.parse("input doc: int per token\nattend causal and same(doc) and window(3 + head)"), heads=4).plan(
        64, heads=4, doc=torch.arange(64) // 9
    )
    assert len(plan.groups) == 4
    made = buffers(
        plan, emit(srt.compile(srt.parse("input doc: int per token\nattend causal and same(doc) and window(3 + head)")).compiled, False).columns, False
    )
    assert len(made.ints) == 2 * 64 + 1  # doc of queries and of keys, once


def test_dead_keys_are_found():
    spec = srt.parse("input keep: bool per token\nattend causal and k.keep and q.pos < 50")
    keep = torch.rand(80) > 0.4
    plan = srt.compile(spec, tile=32).plan(80, keep=keep)
    attend = srt.compile(spec, tile=32)
    q = torch.randn(1, 1, 80, 16)
    packed = packing.Packed.of(launch.TritonBackend().pack(plan, attend.compiled, Operands.of(q, q, q)))
    assert torch.equal(packed.live[:-1].bool(), plan.to_dense()[0, 0].any(0))


@pytest.fixture
def launches_apart(monkeypatch) -> Iterator[list[tuple[bool, bool]]]:
    """dK and dV take a launch each, whatever was found for like calls before; what each launch of theirs is asked for, in order."""
    asked: list[tuple[bool, bool]] = []
    launched = Call.key_gradient

    def seen(call: Call, dout: Tensor, rows: dict[str, Tensor], dk: Tensor, dv: Tensor, want_k: bool, want_v: bool) -> None:
        asked.append((want_k, want_v))
        launched(call, dout, rows, dk, dv, want_k, want_v)

    monkeypatch.setattr(Call, "key_gradient", seen)
    monkeypatch.setattr(fit, "splits", lambda capability, head_dim: True)
    fit._start.cache_clear()
    yield asked
    fit._start.cache_clear()


def test_dk_and_dv_in_a_launch_each(launches_apart):
    """As on cards where both do not fit the registers."""
    spec = srt.parse("attend causal\nstop k where q.pos - k.pos >= 20\nscale v by 0.5 where (q.pos - k.pos) % 4 == 0")
    for c in compare(spec, steps=40, tile=16, backend="triton"):
        assert c.holds, c
    assert launches_apart[:2] == [(True, False), (False, True)] and set(launches_apart) == {(True, False), (False, True)}


def test_what_weighs_on_registers_is_read_off_the_text():
    def kind(text: str) -> Kind:
        return target.kind_of(srt.compile(srt.parse(text)).compiled)

    assert kind("attend causal\nstop k, v where q.pos > k.pos + 3") is Kind.PLAIN and kind("attend causal\nstop v") is Kind.APART
    assert kind("input seen: bool per query, key\nattend seen") is Kind.LOOKUPS and kind("input d: int per token\nattend d[q.pos - k.pos] > 0") is Kind.LOOKUPS
    assert kind("input d: int per token\nattend d[q.pos + 1] > k.d") is Kind.PLAIN


# ------------------------------------------------------------------------------------------------ the folder of emitted files


def _write(folder: str) -> str:
    os.environ["SRT_MASKS_CACHE"] = folder
    os.environ["TRITON_INTERPRET"] = "1"
    from srt_masks.kernels import predicates
    from srt_masks.kernels.emit import emit

    source = emit(srt.compile(srt.parse(STOP)).compiled, True)
    predicates.module_of(source)
    return (Path(folder) / f"srt_masks_predicate_{source.key}.py").read_text()


def test_many_writers_leave_one_whole_file(tmp_path: Path):
    import multiprocessing

    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:
        texts = set(pool.map(_write, [str(tmp_path / "cache")] * 8))
    assert len(texts) == 1 and texts.pop().endswith("return x10\n")
    assert [p.suffix for p in (tmp_path / "cache").iterdir() if p.is_file()] == [".py"]
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0


def test_a_folder_that_others_can_write_is_refused(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("SRT_MASKS_CACHE", str(tmp_path))
    tmp_path.chmod(0o777)
    with pytest.raises(srt.BackendError, match=r"others can write.*chmod go-w"):
        folder()
    monkeypatch.setenv("SRT_MASKS_CACHE", "/proc/nowhere")
    with pytest.raises(srt.BackendError, match="SRT_MASKS_CACHE"):
        folder()


def test_a_file_that_was_changed_is_written_again(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("SRT_MASKS_CACHE", str(tmp_path))
    source = emit(srt.compile(srt.parse("attend causal and window(77)")).compiled, False)
    path = tmp_path / f"srt_masks_predicate_{source.key}.py"
    path.write_text("raise SystemExit('not ours')")
    assert predicates.module_of(source).attended is not None and path.read_text() == source.text


def test_a_compiled_module_that_lies_beside_is_not_trusted(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("SRT_MASKS_CACHE", str(tmp_path))
    source = emit(srt.compile(srt.parse("attend causal and window(78)")).compiled, False)
    path = tmp_path / f"srt_masks_predicate_{source.key}.py"
    path.write_text(source.text)
    stamp = path.stat()
    path.write_text("raise SystemExit('not ours')".ljust(stamp.st_size))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    py_compile.compile(str(path), doraise=True)
    path.write_text(source.text)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert predicates.module_of(source).attended is not None


# ------------------------------------------------------------------------------------------------ what is refused, with its remedy


def _python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | environment
    return subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=env, timeout=250, cwd=ROOT)


def test_without_a_card_the_error_names_the_remedies():
    done = _python("""
        import torch, srt_masks as srt
        attend = srt.compile(srt.parse("attend causal"), backend="triton")
        for call in (lambda: attend(*[torch.randn(1, 1, 4, 8)] * 3), lambda: attend.plan(4)):
            try:
                call()
            except srt.BackendError as error:
                print(error)
    """)
    assert done.stdout.count('backend="tiled"') == done.stdout.count("TRITON_INTERPRET=1") == 2, done.stdout + done.stderr


def test_calls_that_the_kernels_cannot_do_are_refused(monkeypatch):
    attend = srt.compile(srt.parse("attend causal"), backend="triton")
    with pytest.raises(srt.BackendError, match=r"up to 256; got 257.*tiled"):
        attend(*[torch.randn(1, 1, 4, 257)] * 3)
    monkeypatch.setattr(target, "INTERPRETED", False)
    monkeypatch.setattr(target, "_capability", lambda *_: 90)
    with pytest.raises(srt.BackendError, match=r"float64.*tiled"):
        target.target_of(attend.compiled, Operands(torch.float64, 64, 64, 1, torch.device("cuda")))
    long = "attend " + " or ".join(f"q.pos - k.pos == {i * i}" for i in range(2100))
    with pytest.raises(srt.BackendError, match=r"operations.*tiled"):
        target.target_of(srt.compile(srt.parse(long)).compiled, Operands(torch.float32, 64, 64, 1, torch.device("cuda")))


# ------------------------------------------------------------------------------------------------ what is compiled


def test_auto_says_once_why_a_card_runs_tiled():
    """`triton` is chosen where a card has shown that it is right and faster; elsewhere the reason is told, once."""
    attend = srt.compile(srt.parse("attend causal"))
    long = srt.compile(srt.parse("attend " + " or ".join(f"q.pos - k.pos == {i * i}" for i in range(2100))))
    cases = [
        (90, attend, torch.bfloat16, None),
        (90, attend, torch.float32, "float32"),
        (80, attend, torch.bfloat16, "sm_80"),
        (90, long, torch.bfloat16, "operations"),
    ]
    for card, compiled, dtype, why in cases:
        operands = Operands(dtype, 64, 64, 1, torch.device("cuda"), card)
        dispatch.why_tiled.cache_clear(), dispatch._warn.cache_clear()
        if why is None:
            assert dispatch.pick("auto", compiled.predicates, operands).name == "triton"
            continue
        with pytest.warns(UserWarning, match=f"tiled.*({why})") as said:
            assert dispatch.pick("auto", compiled.predicates, operands).name == "tiled"
        assert said[0].filename == __file__, "it points at the call"
        assert dispatch.pick("auto", compiled.predicates, operands).name == "tiled"  # and says no more of it: a warning is an error here
    dispatch.why_tiled.cache_clear(), dispatch._warn.cache_clear()
    assert dispatch.pick("auto", attend.predicates, Operands(torch.float32, 64, 64, 1, torch.device("cpu"))).name == "tiled"


def test_float_predicates_round_as_the_planner_does():
    """A fused multiply-add rounds once where the planner rounds twice; a * b - b * a would not be 0."""
    done = _python("""
        import torch, srt_masks as srt
        from srt_masks.kernels.offline import offline
        found = {}
        spec = srt.parse("input a: float per token\\ninput b: float per token\\nattend causal and q.a * k.b - k.a * q.b == 0.0")
        q, k, v = (torch.randn(1, 1, 64, 64, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
        with offline(90, lambda name, config, compiled: found.__setitem__(name, compiled.asm["ptx"])):
            srt.compile(spec, backend="triton")(q, k, v, a=torch.randn(64), b=torch.randn(64)).sum().backward()
        print(len(found), sum("mul" in x and ".f64" in x for x in found.values()), sum("fma.rn.f64" in x for x in found.values()))
    """)
    assert done.stdout.split() == ["5", "4", "0"], done.stdout + done.stderr


def test_two_variants_where_head_dim_is_no_multiple_of_16_or_numbers_are_wide():
    done = _python("""
        import torch, srt_masks as srt
        from srt_masks.kernels.offline import offline
        kernels = {}
        def count(text, dim, lengths, **inputs):
            kernels.clear()
            attend = srt.compile(srt.parse(text), backend="triton")
            with offline(90, lambda name, config, compiled: kernels.setdefault(name, set()).add(compiled.hash)):
                for n in lengths:
                    attend(*(torch.randn(2, 2, n, dim, dtype=torch.bfloat16) for _ in range(3)))
            return len(kernels["forward_kernel"])
        print(count("attend causal", 40, (64, 63, 66, 80, 31, 128)), count("attend causal and q.pos * k.pos * 100000 >= 9", 64, (64, 256, 90, 300)))
    """)
    assert done.stdout.split() == ["2", "2"], done.stdout + done.stderr


def test_gradients_that_nobody_needs_launch_nothing():
    done = _python("""
        import torch, srt_masks as srt
        from srt_masks.kernels.offline import offline
        attend = srt.compile(srt.parse("attend causal\\nstop v where q.pos > k.pos + 20"), backend="triton")
        for needs in ((True, False, False), (False, True, False), (False, False, True)):
            found = []
            with offline(90, lambda name, config, compiled: found.append(name.removesuffix("_kernel"))):
                q, k, v = (torch.randn(1, 2, 64, 64, dtype=torch.bfloat16, requires_grad=need) for need in needs)
                out = attend(q, k, v)
                found.clear()
                out.sum().backward()
            print(*found)
    """)
    assert done.stdout.splitlines() == ["prepare query_gradient", "prepare key_gradient", "prepare key_gradient"], done.stdout + done.stderr


def test_a_new_length_batch_or_param_compiles_nothing():
    """Compile keys by the launcher's own binder, with a driver that only names a target."""
    done = _python("""
        import torch, srt_masks as srt
        from srt_masks.kernels.offline import offline
        kernels = {}
        spec = srt.parse("param far = 9\\ninput doc: int per token\\nlayout repeat { token, reason * 2 }\\nattend causal and same(doc)\\nstop k, v where q.step - k.step > far")
        attend = srt.compile(spec, backend="triton")
        with offline(90, lambda name, config, compiled: kernels.setdefault(name, set()).add(compiled.hash)):
            for steps, batch, heads, far in ((1, 1, 2, 1), (11, 2, 4, 0), (43, 3, 2, 2), (128, 1, 1, -1), (200, 5, 2, 1000), (341, 1, 16, 77)):
                q, k, v = (torch.randn(batch, heads, 3 * steps, 64, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
                attend(q, k, v, doc=torch.arange(3 * steps) // 7, far=far).sum().backward()
            q, k, v = (torch.randn(2, 4, 33, 64, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
            for i in range(100):
                far = (i - 7, torch.tensor(3 * i), torch.tensor([i, 1000 * i]))[i % 3]
                attend(q, k, v, doc=torch.arange(33) // 7, far=far).sum().backward()
        print({name: len(found) for name, found in kernels.items()})
    """)
    wanted = {"live_kernel": 1, "forward_kernel": 1, "prepare_kernel": 1, "query_gradient_kernel": 1, "key_gradient_kernel": 1}
    assert done.stdout.strip().splitlines()[-1:] == [str(wanted)], done.stdout + done.stderr
