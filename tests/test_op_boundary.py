"""A call as torch's tools see it: compiled, exported, faked, checkpointed, transformed, copied, called from threads. Results are those of a plain
call to the bit, or an error of ours says what is not served."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from tooling import DOCUMENTS, Model, assert_same, results, tensors
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

import srt_masks as srt
from srt_masks.kernels import traced
from srt_masks.kernels.attention import Attention

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:torch.*", "ignore::UserWarning:torch.*", "ignore::UserWarning:copyreg.*")

NEAR = "layout repeat { token, reason * 4 }\nattend causal and (k is token or q.step - k.step <= 1)\nstop k, v where k is reason and q.step > k.step"


@pytest.fixture(autouse=True)
def _compiled_afresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


# ------------------------------------------------------------------------------------------------ torch.compile

# A text, how it is compiled, and for some steps: the tensors, and what else is given.
Draw = Callable[[int], tuple[list[Tensor], dict[str, Any]]]
CALLS: dict[str, tuple[str, dict[str, Any], Draw]] = {
    "static": ("attend causal\nstop k where q.pos - k.pos > 3", {}, lambda n: (tensors(n, 2 + n % 3), {})),
    "documents": (DOCUMENTS, {}, lambda n: (tensors(n), {"doc": torch.arange(n) // 11})),
    "documents of each row": (DOCUMENTS, {}, lambda n: (tensors(n), {"inputs": {"doc": torch.stack([torch.arange(n) // 11, torch.arange(n) // 7])}})),
    "params": (DOCUMENTS, {}, lambda n: (tensors(n), {"doc": torch.zeros(n, dtype=torch.int64), "far": n // 5, "w": 1 / n})),
    "params as tensors": (DOCUMENTS, {}, lambda n: (tensors(n), {"doc": torch.zeros(n, dtype=torch.int64), "far": torch.tensor(n // 5), "w": torch.tensor(0.3)})),
    "params of each row": (DOCUMENTS, {}, lambda n: (tensors(n), {"doc": torch.zeros(n, dtype=torch.int64), "far": torch.tensor([n // 5, 3])})),
    "layer": ("attend causal and window(layer + 2)", {"layers": 4}, lambda n: (tensors(n), {"layer": n % 3})),
    "lengths": ("attend causal or k.pos >= length - 2", {}, lambda n: (tensors(n), {"lengths": [n - 3, n // 2]})),
    "lengths as a tensor": ("attend causal or k.pos >= length - 2", {}, lambda n: (tensors(n), {"lengths": torch.tensor([n - 3, n // 2])})),
    "starts": ("attend causal and window(9)", {}, lambda n: (tensors(n, queries=4), {"queries": torch.tensor([n - 4, n // 2])})),
    "range": ("attend causal and window(9)", {}, lambda n: (tensors(n, queries=4), {"queries": range(20, 24)})),
    "lse": ("attend causal and q.pos > 3", {}, lambda n: (tensors(n), {"return_lse": True})),
    "twins": ("layout memory * 2, repeat { token }\nattend causal\nstop hidden where k is memory", {}, lambda n: (tensors(n), {"twins": True})),
    "head": ("attend causal and window(3 + head)\nstop v where head % 2 == 1 and q.pos > k.pos", {}, lambda n: (tensors(n), {})),
    "scale": ("attend causal", {}, lambda n: (tensors(n), {"scale": 1 / n})),
    "order": (NEAR, {"order": "by role"}, lambda n: (tensors(5 * (n // 2)), {"return_lse": True})),
    "given": (
        "layout given { a, b }\nattend causal and (k is a or q.step == k.step)",
        {},
        lambda n: (tensors(n), {"given": {"role": torch.arange(n) % 2, "step": torch.arange(n) // 3, "slot": torch.zeros(n, dtype=torch.int64)}}),
    ),
}  # fmt: skip


def _case(name: str, backend: str) -> tuple[Attention, Callable[..., Any], Draw]:
    """An attention, a plain function that calls it, and what to call it with."""
    text, options, draw = CALLS[name]
    attend = srt.compile(srt.parse(text), tile=16, backend=backend, **options)

    def call(q: Tensor, k: Tensor, v: Tensor, twins: bool = False, **beside: Any) -> Any:
        # Twins have the values of k and v, and gradients of their own.
        more = {"hidden_k": k.detach() + 0 * k, "hidden_v": v.detach() + 0 * v} if twins else {}
        return attend(q, k, v, **more, **beside)

    return attend, call, draw


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
def test_a_compiled_call_is_a_plain_one_to_the_bit(name: str, compiler: str):
    _, call, draw = _case(name, "tiled")
    compiled = torch.compile(call, backend=compiler, fullgraph=True, dynamic=True)
    for steps in (40, 51):
        data, beside = draw(steps)
        assert_same(results(lambda *x, b=beside: compiled(*x, **b), data), results(lambda *x, b=beside: call(*x, **b), data))


@pytest.mark.parametrize("name", ["documents", "order"])
def test_a_compiled_call_of_the_triton_backend_is_a_plain_one_to_the_bit(name: str):
    _, call, draw = _case(name, "triton")
    compiled = torch.compile(call, backend="aot_eager", fullgraph=True, dynamic=True)
    data, beside = draw(12)  # two tiles, and two heads of one key head: the interpreter is slow
    data = [x[:1, :heads].detach().requires_grad_() for x, heads in zip(data, (2, 1, 1), strict=True)]
    assert_same(results(lambda *x: compiled(*x, **beside), data), results(lambda *x: call(*x, **beside), data))


def test_inductor_compiles_a_call_and_what_stands_around_it():
    attend = srt.compile(srt.parse(DOCUMENTS), tile=16)

    def call(q: Tensor, k: Tensor, v: Tensor, doc: Tensor, w: float) -> Tensor:
        return attend(q * 2, k, v.transpose(-1, -2).transpose(-1, -2), doc=doc, w=w) + 1

    compiled = torch.compile(call, fullgraph=True, dynamic=True)
    for tokens, w in ((40, 0.5), (51, 0.25)):
        data, doc = tensors(tokens), torch.arange(tokens) // 11
        assert_same(results(lambda *x, d=doc, w=w: compiled(*x, d, w), data), results(lambda *x, d=doc, w=w: call(*x, d, w), data))


def test_a_new_length_batch_or_number_compiles_nothing():
    attend, counter = srt.compile(srt.parse(DOCUMENTS), tile=16), CompileCounterWithBackend("aot_eager")
    call = torch.compile(lambda q, k, v, doc, far, w: attend(q, k, v, doc=doc, far=far, w=w), backend=counter, fullgraph=True, dynamic=True)
    for tokens, batch, far, w in ((40, 3, 9, 0.5), (51, 5, 4, 0.25), (17, 7, 3, -0.0), (33, 6, 2, 1e300)):
        data, doc = tensors(tokens, batch), torch.arange(tokens) // 11
        assert_same(results(lambda *x, d=doc, f=far, w=w: call(*x, d, f, w), data), results(lambda *x, d=doc, f=far, w=w: attend(*x, doc=d, far=f, w=w), data))
    assert counter.frame_count == 1
    assert attend.plans.made == 4


def test_axes_marked_dynamic_are_not_fixed():
    attend, counter = srt.compile(srt.parse("attend causal"), tile=16), CompileCounterWithBackend("aot_eager")
    call = torch.compile(attend, backend=counter, fullgraph=True)
    for tokens, batch in ((40, 3), (51, 5)):
        data = tensors(tokens, batch)
        for x in data:
            torch._dynamo.mark_dynamic(x, 0)
            torch._dynamo.mark_dynamic(x, 2)
        assert_same(results(call, data), results(attend, data))
    assert counter.frame_count == 1


def test_a_graph_holds_one_operator_a_direction_and_no_planning():
    attend, counter = srt.compile(srt.parse(DOCUMENTS), tile=16), CompileCounterWithBackend("eager")
    call = torch.compile(lambda q, k, v, doc: attend(q, k, v, doc=doc), backend=counter, fullgraph=True)
    call(*tensors(40), torch.arange(40) // 11)
    called = [n.target for n in counter.graphs[0].graph.nodes if n.op == "call_function" and not any(x in str(n.target) for x in ("getitem", "getattr"))]
    assert list(map(str, called)) == ["srt_masks.attention"]


@pytest.mark.parametrize("rows", [[0.1, 1] * 4, [[0.1, 1] * 4, [1, 0.1] * 4]])
def test_floats_in_lists_keep_their_bits_beside_whole_numbers(rows: list[Any]):
    """0.1 in float32 is more than 0.1, and the key would not be seen."""
    attend = srt.compile(srt.parse("input g: float per token\nattend q.pos == k.pos or k.g <= 0.1"), tile=16)

    def call(*x: Tensor) -> Tensor:
        return attend(*x, g=rows)

    data = tensors(8)
    assert_same(results(torch.compile(call, backend="eager"), data), results(call, data))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "input": ({"doc": torch.zeros(39, dtype=torch.int64)}, r"input `doc` has the axes \(token 40\)"),
    "missing": ({}, "missing input `doc`"),
    "param": ({"doc": torch.zeros(40, dtype=torch.int64), "far": 2.5}, "param `far` is a whole number"),
    "unknown": ({"doc": torch.zeros(40, dtype=torch.int64), "dropout": 0.1}, "unknown argument `dropout`"),
    "lengths": ({"doc": torch.zeros(40, dtype=torch.int64), "lengths": [40, 41]}, "lengths counts the tokens"),
    "twice": ({"doc": torch.zeros(40, dtype=torch.int64), "inputs": {"doc": torch.zeros(40, dtype=torch.int64)}}, "`doc` is given twice"),
    "scale": ({"doc": torch.zeros(40, dtype=torch.int64), "scale": float("nan")}, "scale is a finite number"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_compiled_call_is_said_as_of_a_plain_one(name: str):
    beside, words = WRONG[name]
    attend, data = srt.compile(srt.parse(DOCUMENTS), tile=16), tensors(40)
    with pytest.raises(srt.InputError, match=words) as plain:
        attend(*data, **beside)
    with pytest.raises(srt.InputError, match=words) as compiled:
        torch.compile(lambda *x: attend(*x, **beside), backend="aot_eager", fullgraph=True)(*data)
    assert str(plain.value) == str(compiled.value)


@pytest.mark.parametrize("shapes", [((2, 4, 40, 8), (2, 3, 40, 8)), ((2, 40, 8), (2, 40, 8)), ((2, 4, 40, 8), (2, 4, 40, 6))])
def test_wrong_shapes_in_a_compiled_call_are_said_as_in_a_plain_one(shapes: tuple[tuple[int, ...], tuple[int, ...]]):
    attend, data = srt.compile(srt.parse("attend causal")), [torch.randn(shapes[0]), *[torch.randn(shapes[1])] * 2]
    with pytest.raises(srt.InputError) as plain:
        attend(*data)
    with pytest.raises(srt.InputError) as compiled:
        torch.compile(attend, backend="eager", fullgraph=True)(*data)
    assert str(plain.value) == str(compiled.value)


@pytest.mark.parametrize("place", range(1, 4))
def test_one_meta_tensor_in_a_graph_makes_no_numbers(place: int):
    data = [*tensors(40), torch.zeros(40, dtype=torch.int64)]
    attend = srt.compile(srt.parse("input doc: int per token\nattend causal and same(doc)"))
    data[place] = data[place].to("meta")
    with pytest.raises(Exception, match="meta"):
        attend(*data[:3], doc=data[3])
    with pytest.raises(Exception, match="is a meta tensor, which holds no numbers"):
        torch.compile(lambda q, k, v, doc: attend(q, k, v, doc=doc), backend="aot_eager", fullgraph=True)(*data)


def test_the_reference_is_kept_out_of_a_graph():
    attend = srt.compile(srt.parse("attend causal"), backend="reference")
    x = torch.randn(1, 1, 6, 4)
    assert torch.equal(torch.compile(lambda y: attend(y * 2, y, y), backend="eager")(x), attend(x * 2, x, x))
    with FakeTensorMode() as mode, pytest.raises(srt.BackendError, match="keep it out of"):
        attend(*[mode.from_tensor(x)] * 3)


def test_plans_made_in_a_graph_are_those_of_the_callable_and_die_with_it():
    attend = srt.compile(srt.parse(DOCUMENTS, params={"far": 1234}), tile=16)
    data, doc = tensors(40), torch.arange(40) // 11
    attend(*data, doc=doc)
    torch.compile(attend, backend="aot_eager", fullgraph=True)(*data, doc=doc).sum().backward()
    assert traced._ALIVE[attend.identity] is attend
    assert (attend.plans.made, attend.plans.found) == (1, 2)  # once more for the forward, and for the backward
    identity, attend = attend.identity, None
    torch._dynamo.reset()
    gc.collect()
    assert identity not in traced._ALIVE


# ------------------------------------------------------------------------------------------------ torch.export


@pytest.mark.parametrize("strict", [False, True])
def test_an_exported_model_runs_on_other_sizes_and_learns(strict: bool):
    model = Model(srt.compile(srt.parse(DOCUMENTS), tile=16))
    batch, tokens = torch.export.Dim("batch", max=64), torch.export.Dim("tokens", min=2, max=4096)
    exported = torch.export.export(model, (torch.randn(3, 40, 8), torch.arange(40) // 11), dynamic_shapes=({0: batch, 1: tokens}, {0: tokens}), strict=strict)
    file = io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    for program in (exported, torch.export.load(file)):
        for b, n in ((3, 40), (1, 77)):
            x, doc = torch.randn(b, n, 8, requires_grad=True), torch.arange(n) // 7
            assert_same(results(lambda y, p=program, d=doc: p.module()(y, d), [x]), results(lambda y, d=doc: model(y, d), [x]))


def test_an_exported_program_runs_where_its_mask_was_never_compiled(tmp_path):
    model = Model(srt.compile(srt.parse(DOCUMENTS, params={"w": 0.25}), tile=16))
    x, doc = torch.randn(1, 40, 8), torch.arange(40) // 11
    torch.export.save(torch.export.export(model, (x, doc)), tmp_path / "model.pt2")
    torch.save((x, doc, model(x, doc)), tmp_path / "data.pt")
    code = (
        "import sys, torch, srt_masks.kernels.traced; x, doc, out = torch.load(sys.argv[2]); "
        "assert torch.equal(torch.export.load(sys.argv[1]).module()(x, doc), out)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "model.pt2"), str(tmp_path / "data.pt")], check=True)


# ------------------------------------------------------------------------------------------------ fake tensors, and the operators themselves


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["documents", "order", "starts", "lse"])
def test_fake_tensors_have_the_shapes_dtypes_and_strides_of_real_ones(name: str, dtype: torch.dtype):
    attend, call, draw = _case(name, "tiled")
    data, beside = draw(40)
    data = [x.detach().to(dtype).transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for x in data]
    real = results(lambda *x: call(*x, **beside), data)
    made = attend.plans.made
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = results(lambda *x: call(*x, **beside), [mode.from_tensor(x) for x in data])
    for a, b in zip(fake, real, strict=True):
        assert (a.shape, a.dtype, a.stride(), a.device) == (b.shape, b.dtype, b.stride(), b.device)
    assert attend.plans.made == made


def test_opcheck(backend: str):
    attend = srt.compile(srt.parse(DOCUMENTS), tile=16, backend=backend)
    data, doc = tensors(18, batch=1, heads=1, key_heads=1), torch.arange(18) // 11
    beside = ([doc], [7], "doc=t far=i", attend.identity)
    torch.library.opcheck(torch.ops.srt_masks.attention.default, (*data, None, None, *beside))
    found = torch.ops.srt_masks.attention(*data, None, None, *beside)
    saved = [x.detach() for x in (*data, *found)]
    for needs in ([True, True, True, False, False], [False, True, False, False, False]):
        torch.library.opcheck(torch.ops.srt_masks.attention_backward.default, (torch.randn_like(found[0]), None, *saved, *beside, needs))
    twins = srt.compile(srt.parse(CALLS["twins"][0]), tile=16, backend=backend)
    own = [x.detach().clone().requires_grad_() for x in data[1:]]
    torch.library.opcheck(torch.ops.srt_masks.attention.default, (*data, *own, [], [], "", twins.identity))


# ------------------------------------------------------------------------------------------------ checkpointing, autocast, modes


def _must_save(_context: Any, operator: Any, *_: Any, **__: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operator is torch.ops.srt_masks.attention.default else CheckpointPolicy.PREFER_RECOMPUTE


def _recompute(*_: Any, **__: Any) -> CheckpointPolicy:
    return CheckpointPolicy.PREFER_RECOMPUTE


@pytest.mark.parametrize("name", ["documents", "order", "lse", "twins"])
def test_checkpointing_is_bit_equal(name: str):
    attend, call, draw = _case(name, "tiled")
    data, beside = draw(40)

    def model(*x: Tensor) -> Any:
        return call(*(y * 2 for y in x), **beside)

    plain = results(model, data)
    for options in ({"use_reentrant": False}, {"use_reentrant": False, "context_fn": lambda: create_selective_checkpoint_contexts(_recompute)}):
        assert_same(results(lambda *x, o=options: checkpoint(model, *x, **o), data), plain)
    attend.plans.found = 0
    saving = {"use_reentrant": False, "context_fn": lambda: create_selective_checkpoint_contexts(_must_save)}
    assert_same(results(lambda *x: checkpoint(model, *x, **saving), data), plain)
    assert attend.plans.found == 2 * (1 + (name == "twins"))  # the forward and the backward: nothing is run again
    x = [y.detach().clone().requires_grad_() for y in data]
    found = checkpoint(model, *x, use_reentrant=True)
    outputs = found if isinstance(found, tuple) else (found,)
    sum((n + 1) * y.float().nan_to_num(neginf=0.0).square().sum() for n, y in enumerate(outputs)).backward()  # type: ignore[union-attr]
    assert_same([*outputs, *(y.grad for y in x)], plain)


def test_autocast_reaches_the_call_compiled_or_not():
    attend, data = srt.compile(srt.parse("attend causal\nstop k where q.pos - k.pos > 3"), tile=16), tensors(40)
    compiled = torch.compile(attend, backend="aot_eager", fullgraph=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        plain, found = results(attend, data), results(compiled, data)
    assert plain[0].dtype is torch.bfloat16 and {x.dtype for x in plain[1:]} == {torch.float32}
    assert_same(found, plain)
    assert_same(results(lambda *x: attend(*(y.bfloat16() for y in x)), data), plain)


def test_anomaly_mode_inference_mode_and_hooks_on_what_is_saved():
    attend, data, doc = srt.compile(srt.parse(DOCUMENTS), tile=16), tensors(40), torch.arange(40) // 11
    plain = results(lambda *x: attend(*x, doc=doc), data)
    with torch.autograd.set_detect_anomaly(True):
        assert_same(results(lambda *x: attend(*x, doc=doc), data), plain)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            out = attend(*data, doc=doc)
        assert torch.equal(out, plain[0]) and not out.requires_grad
    with torch.inference_mode():
        made_here = attend(*[x.clone() for x in data], doc=doc.clone())
    assert torch.equal(made_here, plain[0])
    packed = []

    def pack(x: Tensor) -> Tensor:
        packed.append(x.shape)
        return x.double()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x.float()):
        assert_same(results(lambda *x: attend(*x, doc=doc), data), plain)
    assert len(packed) >= 7


@pytest.mark.parametrize("compiled", [False, True])
def test_a_graph_run_backward_twice_gives_the_same(compiled: bool):
    attend, data, doc = srt.compile(srt.parse(DOCUMENTS), tile=16), tensors(40), torch.arange(40) // 11
    call = torch.compile(attend, backend="aot_eager", fullgraph=True) if compiled else attend
    out = call(*data, doc=doc)
    first = torch.autograd.grad(out.square().sum(), data, retain_graph=True)
    for n in range(20):
        attend(*tensors(20 + n), doc=torch.zeros(20 + n, dtype=torch.int64))  # other plans come, and this one is forgotten
    assert_same(torch.autograd.grad(out.square().sum(), data), first)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("number", range(3))
def test_writing_to_what_the_backward_needs_is_refused(number: int, compiled: bool):
    attend = srt.compile(srt.parse("attend causal"), tile=16)
    data = tensors(20)
    mine = [x * 1 for x in data]
    call = torch.compile(attend, backend="aot_eager", fullgraph=True) if compiled else attend
    out = call(*mine)
    with torch.no_grad():
        mine[number].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


# ------------------------------------------------------------------------------------------------ copies and threads


def test_copies_keep_every_rule_and_no_plan():
    attend = srt.compile(srt.parse(DOCUMENTS, params={"far": 4}), tile=16, heads=4)
    data, doc = tensors(40), torch.arange(40) // 11
    plain = results(lambda *x: attend(*x, doc=doc), data)
    file = io.BytesIO()
    torch.save({"attend": attend}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=False)["attend"]
    module = copy.deepcopy(Model(attend)).to(torch.float64).attend
    for other in (copy.deepcopy(attend), copy.copy(attend), pickle.loads(pickle.dumps(attend)), saved, attend.to("cpu"), module):
        assert other.options == attend.options and (other is attend or len(other.plans) == 0)
        assert_same(results(lambda *x, f=other: f(*x, doc=doc), data), plain)
        assert_same(results(lambda *x, f=other: torch.compile(f, backend="aot_eager", fullgraph=True)(*x, doc=doc), data), plain)


def test_threads_call_plain_and_watched_at_once():
    attend = srt.compile(srt.parse(DOCUMENTS), tile=16)
    docs = [torch.arange(40) // (n + 3) for n in range(6)]
    data = tensors(40)
    alone = [results(lambda *x, d=d: srt.compile(srt.parse(DOCUMENTS), tile=16)(*x, doc=d), data) for d in docs]

    def work(n: int) -> list[Tensor]:
        if n % 2:
            return results(lambda *x: torch.ops.srt_masks.attention(*x, None, None, [docs[n % 6]], [], "doc=t", attend.identity)[0], data)
        return results(lambda *x: attend(*x, doc=docs[n % 6]), data)

    with ThreadPoolExecutor(4) as pool:
        for n, found in enumerate(pool.map(work, range(24))):
            assert_same(found, alone[n % 6])
