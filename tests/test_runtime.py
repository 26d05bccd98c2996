"""What a call is given at run time: plans kept while it is unchanged, shared by what is alike, made anew when it changes, refused where too large."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import srt_masks as srt
from srt_masks.compiler import boxes
from srt_masks.kernels import op, planning
from srt_masks.testing import Case
from srt_masks.testing.comparing import compare_case

# ------------------------------------------------------------------------------------------------ plans that are shared

LAYERS = [  # a text, its inputs, and the plans that 12 layers need
    ("attend causal", {}, 1),
    ("attend causal and (layer % 2 == 0 or window(9))", {}, 2),  # Gemma 2
    ("attend causal and window(64 if layer % 6 == 5 else 8)", {}, 2),  # Gemma 3
    ("attend causal and (layer % 4 == 3 or same(pos // 16))", {}, 2),  # Llama 4
    ("param far = 9\nattend causal and window(far * (1 + layer // 4))", {}, 3),
    ("input kind: int per layer\nattend causal and (kind == 1 or same(pos // 16))", {"kind": torch.tensor([1, 0, 0, 0] * 3)}, 2),
    ("input kind: int per layer\nattend causal and window(kind + layer % 2)", {"kind": torch.tensor([4, 5, 4, 4] * 3)}, 3),
    ("attend causal and window(layer + 1)", {}, 12),
    ("attend causal and (head + layer) % 2 == 0", {}, 12),
    ("attend causal\nstop k where layer > 8", {}, 2),
    ("attend causal\nscale v by 0.5 where layer == 3 or layer == 7", {}, 2),
    ("param far = 9\nattend window(max(far, 2) if layers == 12 and heads == 2 else 1)", {}, 1),
]  # fmt: skip


@pytest.mark.parametrize(("text", "inputs", "wanted"), LAYERS, ids=[row[0][:60] for row in LAYERS])
def test_layers_with_equal_rules_share_a_plan(text: str, inputs: dict[str, Tensor], wanted: int):
    attend: Any = srt.compile(srt.parse(text), layers=12, tile=16)
    q = torch.randn(1, 2, 48, 8, dtype=torch.float64)
    reference: Any = srt.compile(srt.parse(text), layers=12, backend="reference")
    for layer in [*range(12), 3, 7]:
        torch.testing.assert_close(attend(q, q, q, layer=layer, **inputs), reference(q, q, q, layer=layer, **inputs))
    assert (attend.plans.made, attend.plans.found) == (wanted, 14 - wanted)


def test_an_input_with_a_batch_axis_per_layer_shares_nothing_wrongly():
    text = "input kind: int per layer\nattend causal and (kind == 1 or same(pos // 16))"
    attend, reference = (srt.compile(srt.parse(text), layers=2, backend=b) for b in ("tiled", "reference"))
    kind, q = torch.tensor([[1, 0], [0, 0], [0, 1]]), torch.randn(3, 1, 40, 8, dtype=torch.float64)
    for layer in (0, 1, 0):
        torch.testing.assert_close(attend(q, q, q, layer=layer, kind=kind), reference(q, q, q, layer=layer, kind=kind))


def test_params_that_come_to_the_same_share_a_plan():
    attend = srt.compile(srt.parse("param far = 9\nparam unused = 1\nattend causal and window(far // 4)"))
    first = attend.plan(64)
    assert attend.plan(64, far=8) is first and attend.plan(64, unused=7) is first and attend.plan(64, far=12) is not first
    weighted = srt.compile(srt.parse("param w = 0.5\nattend causal\nscale k by w"))
    q = torch.randn(1, 1, 8, 4, dtype=torch.float64, requires_grad=True)
    one, other = (torch.autograd.grad(weighted(q, q, q, w=w).sum(), q)[0] for w in (0.25, 0.5))
    assert not torch.equal(one, other) and weighted.plans.made == 2


def test_rows_of_the_batch_with_equal_values_share_a_group():
    doc = torch.arange(64) // 7
    attend = srt.compile(srt.parse("input doc: int per token\nparam far = 9\nattend causal and same(doc) and window(far)"), tile=16)
    rows = torch.stack([doc, doc + 1, doc.clone(), doc.flip(0)])
    assert [g.batch for g in attend.plan(64, doc=rows).groups] == [(0, 2), (1,), (3,)]
    assert [g.batch for g in attend.plan(64, doc=rows, far=torch.tensor([9, 9, 8, 9])).groups] == [(0,), (1,), (2,), (3,)]
    assert [g.batch for g in attend.plan(64, doc=rows, lengths=[64, 64, 64, 9]).groups] == [(0, 2), (1,), (3,)]
    near = torch.stack([doc, doc, doc])
    near[1, 33] += 1  # not one of the values that are looked at first
    assert [g.batch for g in attend.plan(64, doc=near).groups] == [(0, 2), (1,)]


def test_heads_with_equal_rules_share_a_group():
    heads = srt.compile(srt.parse("attend causal and (head % 2 == 0 or window(5))")).plan(64, heads=8)
    assert [g.heads for g in heads.groups] == [(0, 2, 4, 6), (1, 3, 5, 7)]


# ------------------------------------------------------------------------------------------------ plans that are kept


def test_the_cache_is_bounded_in_plans_and_in_bytes():
    attend = srt.compile(srt.parse("input doc: int per token\nattend causal and same(doc)"))
    docs = [torch.arange(200) // (n + 2) for n in range(40)]
    for n, doc in enumerate(docs):
        attend.plan(200 - n, doc=doc[n:])
    assert attend.plans.made == 40 and len(attend.plans) <= 16
    room = srt.compile(srt.parse("attend causal"), plan_memory=300_000)
    for n in range(10):
        room.plan(5000 + n)
    assert 1 <= len(room.plans) < 10 and room.plans.nbytes <= 300_000
    last = room.plan(5009)
    assert room.plan(5009) is last and room.plans.found >= 1
    assert "made" in repr(room.plans)


def test_an_address_used_again_is_not_trusted():
    """A tensor dies, and another takes its place in memory, its number and its version with it."""
    attend = srt.compile(srt.parse("input doc: int per token\nattend same(doc)"), tile=16)
    seen, again = set(), 0
    for n in range(500):
        doc = torch.full((64,), n)
        doc[32 + n % 8 :] = -1
        again += (id(doc), doc.data_ptr()) in seen
        seen.add((id(doc), doc.data_ptr()))
        assert int(attend.plan(64, doc=doc).to_dense().sum()) == (32 + n % 8) ** 2 + (32 - n % 8) ** 2
        del doc
        gc.collect()
        if again == 5:
            break
    assert again, "no address came back: this tests nothing"


# ------------------------------------------------------------------------------------------------ inputs, by kind


def _documents(g: torch.Generator) -> dict[str, Any]:
    return {"inputs": {"doc": torch.randint(0, 2, (3, 40), generator=g).cumsum(-1)}}


def _table(*shape: int, least: int = 0, most: int = 2) -> Callable[[torch.Generator], dict[str, Any]]:
    return lambda g: {"inputs": {"t": torch.randint(least, most, shape, generator=g)}}


def _given(g: torch.Generator) -> dict[str, Any]:
    role = torch.randint(0, 2, (3, 40), generator=g)
    return {"given": {"role": role, "step": role.cumsum(-1), "slot": torch.randint(0, 3, (3, 40), generator=g)}}


def _lengths(g: torch.Generator) -> dict[str, Any]:
    return {"lengths": tuple((2 * torch.randint(0, 21, (3,), generator=g)).tolist())}


KINDS: dict[str, tuple[str, Callable[[torch.Generator], dict[str, Any]]]] = {
    "documents": ("input doc: int per token\nattend causal and same(doc)\nstop k where q.doc == 3", _documents),
    "prefix": ("input t: int per sequence\nattend causal or k.pos < t\nstop v where k.pos < t", _table(3, least=-3, most=30)),
    "ranks": ("input t: int per token\nattend k.t < q.t or k.pos == q.pos\nstop q where k.t == 0", _table(3, 40, most=40)),
    "per step": ("layout repeat { a, b }\ninput t: int per step\nattend causal and q.t >= k.t", _table(3, 20, most=5)),
    "per head": ("input t: int per head\nattend causal and window(t)", _table(3, 2, most=20)),
    "table of pairs": ("input t: int per query, key\nattend causal and t == 1 or k.pos == q.pos\nscale k by 0.5 where t == 0", _table(3, 40, 40)),
    "table looked up": ("input doc: int per token\ninput t: int[m, m]\nattend t[q.pos // 8, k.pos // 8] == 1 and q.doc >= k.doc", lambda g: {"inputs": {**_documents(g)["inputs"], **_table(3, 5, 5)(g)["inputs"]}}),
    "layout given": ("layout given { a, b }\nattend causal and (k is a or q.step == k.step or q.slot == 5)\nstop k where k is b and q.slot == 1", _given),
    "lengths": ("layout repeat { a, b }\nattend causal or k.pos >= length - 2\nstop v where k is b", _lengths),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_of_every_kind_row_by_row(kind: str, backend: str):
    text, draw = KINDS[kind]
    spec = srt.parse(text)
    for seed in range(4 if backend == "tiled" else 1):
        generator = torch.Generator().manual_seed(seed)
        steps = 40 // spec.checked.queries.rows_per_step if spec.checked.repeats else None
        case = Case(spec, steps, heads=2, key_heads=1, batch=3, seed=seed, **draw(generator))
        for found in compare_case(case, backend=backend):
            assert found.holds, f"{found} {case!r}"


def _edits() -> dict[str, Callable[[Tensor], Any]]:
    def by_numpy(x: Tensor) -> None:
        x.numpy()[..., 5:] += 3

    def by_data(x: Tensor) -> None:
        x.data[..., 5:] += 3

    def by_index(x: Tensor) -> None:
        x[..., 5:] += 3

    def by_view(x: Tensor) -> None:
        x.view(-1)[x.numel() // 2 :].add_(3)

    return {"index": by_index, "data": by_data, "numpy": by_numpy, "view": by_view}


@pytest.mark.parametrize("kind", ["documents", "ranks", "table of pairs", "layout given"])
@pytest.mark.parametrize("edit", _edits())
def test_what_is_edited_in_place_is_planned_again(kind: str, edit: str):
    text, draw = KINDS[kind]
    spec = srt.parse(text)
    options = draw(torch.Generator().manual_seed(1))
    attend, reference = (srt.compile(spec, tile=16, backend=b) for b in ("triton" if (kind, edit) == ("documents", "data") else "tiled", "reference"))
    q, k, v = (torch.randn(3, 2, 40, 8) for _ in range(3))

    def call(f: Any) -> Tensor:
        return f(q, k, v, given=options.get("given"), inputs=options.get("inputs"))

    before = call(attend)
    made = attend.plans.made
    assert torch.equal(call(attend), before) and attend.plans.made == made
    for tensor in options.get("inputs", {"slot": options.get("given", {}).get("slot")}).values():
        _edits()[edit](tensor)
    after = call(attend)
    assert attend.plans.made == made + 1
    torch.testing.assert_close(after, call(reference), rtol=1e-5, atol=1e-6)
    assert not torch.equal(after, before)


def test_run_time_inputs_through_copies_pickles_threads_and_checkpoints(backend: str):
    spec = srt.parse(KINDS["documents"][0])
    attend = srt.compile(spec, tile=16, backend=backend)
    docs = [torch.arange(40) // (n + 3) for n in range(6)]
    q, k, v = (torch.randn(1, 2, 40, 8, requires_grad=True) for _ in range(3))
    alone = [torch.autograd.grad(srt.compile(spec, tile=16, backend=backend)(q, k, v, doc=d).square().sum(), (q, k, v)) for d in docs]

    def gradients(f: Any, doc: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(f(q, k, v, doc=doc).square().sum(), (q, k, v)))

    with ThreadPoolExecutor(4) as pool:
        for n, found in zip(list(range(6)) * 4, pool.map(lambda d: gradients(attend, d), docs * 4), strict=True):
            assert all(torch.equal(a, b) for a, b in zip(found, alone[n], strict=True))
    for other in (copy.deepcopy(attend), pickle.loads(pickle.dumps(attend))):
        assert other.options == attend.options and len(other.plans) == 0
        for reentrant in (False, True):
            doc = docs[0].clone()
            x = [t.detach().clone().requires_grad_() for t in (q, k, v)]
            out = checkpoint(lambda *t, f=other, d=doc: f(*t, doc=d), *x, use_reentrant=reentrant)
            out.square().sum().backward()
            assert all(a.grad is not None and torch.equal(a.grad, b) for a, b in zip(x, alone[0], strict=True))


# ------------------------------------------------------------------------------------------------ plans that are too large


def test_a_plan_beyond_the_budget_is_refused_before_memory_is_taken(monkeypatch):
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("it was begun")

    for name in ("make_plan", "count_asking"):
        monkeypatch.setattr(planning, name, never)
    monkeypatch.setattr(boxes, "classify", never)
    huge = torch.zeros(1, 1, 1, 1).expand(1, 1, 2**29, 1)
    for text, words in (
        ("attend causal", r"536,870,912 x 536,870,912 tokens would take about [5-9]\.\d GiB \(attributes 4\.0 GiB.*plan_memory allows 4\.0 GiB.*plan_memory=8589934592"),
        ("queries where pos % 2 == 0\nattend causal", "plan_memory allows"),
        ("attend window(9)\nstop k where q.pos % 3 == 1", r"leaves \d"),
    ):  # fmt: skip
        with pytest.raises(srt.InputError, match=words):
            srt.compile(srt.parse(text)).plan(2**29)
        if "where pos" not in text:
            with pytest.raises(srt.InputError, match=words):
                srt.compile(srt.parse(text))(huge, huge, huge)
    with pytest.raises(srt.InputError, match=r"allows 1\.0 MiB"):
        srt.compile(srt.parse("attend causal"), plan_memory=2**20).plan(200_000)
    for wrong in (0, -1, 1.5, True, "1G"):
        with pytest.raises(srt.InputError, match="plan_memory is a whole number of bytes"):
            srt.compile(srt.parse("attend causal"), plan_memory=wrong)  # type: ignore[arg-type]


def test_the_budget_it_asks_for_is_enough():
    spec = srt.parse("input doc: int per token\nattend causal and same(doc)\nstop k where q.doc == 3")
    doc = torch.arange(3000) // 7
    with pytest.raises(srt.InputError, match="plan_memory=") as error:
        srt.compile(spec, plan_memory=10_000).plan(3000, doc=doc)
    wanted = int(str(error.value).rpartition("plan_memory=")[2].rstrip(")"))
    assert srt.compile(spec, plan_memory=wanted).plan(3000, doc=doc).active_tiles > 0


# ------------------------------------------------------------------------------------------------ what a call costs in Python


CALLS = {  # a text; rows of q and k, batch; what else is given; how many functions may be called before the kernels
    "known": ("attend causal\nstop k where q.pos < 3", 50, 50, 1, {}, 105),
    "documents": ("input docs: int per token\nattend causal and q.docs == k.docs", 50, 50, 1, {"docs": torch.zeros(50, dtype=torch.int64)}, 115),
    "batch": ("attend causal", 50, 50, 16, {}, 110),
    "range": ("attend causal", 10, 50, 16, {"queries": range(40, 50)}, 140),
}


def _calls(monkeypatch: pytest.MonkeyPatch, call: Callable[[], Any]) -> int:
    """How many Python functions run before the kernels do."""
    monkeypatch.setattr(op._Attend, "apply", lambda q, *_: (q, q, None, None))
    count = 0

    def note(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("name", CALLS)
def test_a_call_on_a_known_plan_runs_little_python(name: str, monkeypatch: pytest.MonkeyPatch):
    text, queries, keys, batch, given, most = CALLS[name]
    attend: Any = srt.compile(srt.parse(text))
    q, k = torch.randn(batch, 2, queries, 8), torch.randn(batch, 2, keys, 8)
    attend(q, k, k, **given)
    assert _calls(monkeypatch, lambda: attend(q, k, k, **given)) <= most


def test_a_step_of_decoding_runs_little_python(monkeypatch: pytest.MonkeyPatch):
    attend: Any = srt.compile(srt.parse("attend causal\nstop k where q.pos < 3"))
    q, k = torch.randn(1, 2, 1, 8), torch.randn(1, 2, 200, 8)
    attend(q, k[:, :, :150], k[:, :, :150], queries=range(149, 150))
    attend(q, k[:, :, :151], k[:, :, :151], queries=range(150, 151))
    assert _calls(monkeypatch, lambda: attend(q, k[:, :, :152], k[:, :, :152], queries=range(151, 152))) <= 145


def test_a_call_kept_out_of_torch_compile_follows_its_params():
    attend: Any = srt.compile(srt.parse("param reach = 5\nattend causal and window(reach)"))
    apart: Any = torch.compiler.disable(attend)
    x = torch.randn(1, 1, 12, 8)

    def model(x: torch.Tensor, reach: int) -> torch.Tensor:
        return apart(x * 2, x, x, reach=reach)

    compiled = torch.compile(model, backend="eager")
    for reach in (5, 3, 9):
        assert torch.equal(compiled(x, reach), model(x, reach))
