"""What does not fit a call is one error, with what was wanted and what came, before a kernel is begun: a table of calls.

Ranges of queries have theirs in `test_query_ranges.py`, plans that are too large in `test_runtime.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import srt_masks as srt
from srt_masks.kernels import op

CAUSAL = "attend causal"
STEPS = "layout repeat { token, reason * 4 }\nattend causal"
DOCS = "input doc: int per token\nattend causal and same(doc)"
PREFIX = "input p: int per sequence\nattend causal or k.pos < p"
KEEP = "input keep: bool per head\nattend causal and keep"
PAIRS = "input seen: bool per query, key\nattend seen"
RANK = "layout repeat { a, b }\ninput rank: int per step\nattend k.rank <= q.rank"
TABLE = "input t: int[n, 3]\ninput u: float[n]\nattend causal and t[0, 0] > 0 and u[0] > 0.5"
LAYERS = "input kind: int per layer\nattend causal and kind == 1"
WEIGHT = "input w: float per key\nattend causal\nscale v by k.w"
GIVEN = "layout given { a, b }\nattend causal and k is a"
ROLES = {"role": ["a", "b"] * 5, "step": list(range(10)), "slot": [0] * 10}
CROSS = "queries layout repeat { a }\nkeys layout repeat { c, d }\nattend full"
FIXED = "layout sink * 4, repeat { b }\nattend causal"
ASKING = "queries where pos % 2 == 0\nattend causal"
FAR = "param far = 3\nparam n = 2\nlayout repeat { a * n }\nattend causal and window(far)"
HIDDEN = "attend causal\nstop hidden where q.pos > k.pos"


def ints(*shape: int) -> torch.Tensor:
    return torch.ones(shape, dtype=torch.int64)


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape)


# A text, the arguments of the call beside q and k = v of (3, 2, 10, 8), and what the error says.
ROWS: list[tuple[str, dict[str, Any], str]] = [
    # missing, unknown, given twice
    (DOCS, {}, r"missing input `doc`: give doc= \(doc: int per token\)"),
    (TABLE, {}, "missing inputs `t`, `u`: give t=, u="),
    (DOCS, {"docs": ints(10)}, "unknown argument `docs`: did you mean `doc`"),
    (DOCS, {"inputs": {"doc": ints(10), "mask": ints(10)}}, "unknown argument `mask`: declare it in the text"),
    (CAUSAL, {"attn_mask": ints(10, 10)}, "unknown argument `attn_mask`"),
    (DOCS, {"inputs": {"doc": ints(10), "start": ints(10)}}, "of what srt_masks.documents gives, this text declares doc: give that alone"),
    (CAUSAL, {"start": ints(10)}, "unknown argument `start`: this spec has no inputs"),
    (CAUSAL, {"tile": 64}, r"unknown argument `tile`: it belongs to srt_masks.compile\(spec, tile=...\)"),
    (CAUSAL, {"order": "natural"}, r"unknown argument `order`: it belongs to srt_masks.compile\(spec, order=...\)"),
    (CAUSAL, {"plan": None}, "unknown argument `plan`: a call makes its plan itself"),
    (CAUSAL, {"steps": 5}, "unknown argument `steps`: q says how many"),
    (CAUSAL, {"inputs": {"visited": ints(10)}}, "unknown argument `visited`: `visited=` is an argument of a call on q, k and v"),
    (f"input visited: int per token\n{DOCS} and same(visited)", {}, r"missing inputs `visited`, `doc`: give doc=, inputs=\{'visited': ...\}"),
    (DOCS, {"doc": ints(10), "inputs": {"doc": ints(10)}}, "`doc` is given twice"),
    (DOCS, {"inputs": [ints(10)]}, "inputs maps names to tensors; got list"),
    # shape
    (DOCS, {"doc": ints(9)}, r"\(token 10\).*int64 of shape \(9,\)"),
    (DOCS, {"doc": ints(11)}, r"\(token 10\).*int64 of shape \(11,\)"),
    (DOCS, {"doc": ints()}, r"\(token 10\), and may have a batch axis.*shape \(\)"),
    (DOCS, {"doc": ints(1, 1, 10)}, r"\(token 10\), and may have a batch axis"),
    (DOCS, {"doc": ints(3, 9)}, r"\(token 10\).*shape \(3, 9\)"),
    (PREFIX, {"p": ints(3, 1)}, r"shape \(3, 1\)"),
    (KEEP, {"keep": ints(3).bool()}, r"\(head 2\).*bool of shape \(3,\)"),
    (PAIRS, {"seen": ints(10, 9).bool()}, r"\(query 10, key 10\).*shape \(10, 9\)"),
    (RANK, {"rank": ints(10)}, r"\(step 5\).*shape \(10,\)"),
    (TABLE, {"t": ints(4, 2), "u": randn(4)}, r"\(size n, size 3\).*shape \(4, 2\)"),
    (TABLE, {"t": ints(4, 3), "u": randn(5)}, "size `n` is 4 in input `t` and 5 in `u`"),
    # dtype
    (DOCS, {"doc": randn(10)}, "declared int; got float32"),
    (DOCS, {"doc": ints(10).bool()}, "declared int; got bool"),
    (DOCS, {"doc": torch.ones(10, dtype=torch.complex64)}, "declared int; got complex64"),
    (KEEP, {"keep": ints(2)}, r"declared bool; got int64.*keep != 0 makes one"),
    (WEIGHT, {"w": ints(10)}, r"declared float; got int64.*w.float\(\) makes one"),
    (WEIGHT, {"w": randn(10).requires_grad_()}, "requires grad.*detach"),
    (WEIGHT, {"w": randn(10).to_sparse()}, "ordinary dense tensor; got layout sparse_coo"),
    (DOCS, {"doc": "0123456789"}, "input `doc` is a tensor or an array of numbers; got '0123456789'"),
    (DOCS, {"doc": [[1], [2, 3]]}, "input `doc` .*; got rows of different lengths: pad them to one"),
    (DOCS, {"doc": [[[1], [2]], [[3], [4, 5]]]}, "input `doc` .*; got rows of different lengths: pad them to one"),
    (DOCS, {"doc": ["a"] * 10}, r"input `doc` .*; got \['a', 'a'"),
    (DOCS, {"doc": None}, "input `doc` is a tensor or an array of numbers; got None"),
    (DOCS, {"doc": np.arange(10).astype(object)}, r"input `doc` .*; got an array of object and shape \(10,\)"),
    (DOCS, {"doc": torch.arange(10).to(torch.uint64)}, "input `doc`: whole numbers have 64 bits and a sign here; got uint64"),
    # device
    (DOCS, {"doc": ints(10).to("meta")}, "input `doc` lies on meta; q, k and v lie on cpu"),
    # batch
    (DOCS, {"doc": ints(2, 10)}, r"the batch axis is 1 or 3; got int64 of shape \(2, 10\)"),
    (PREFIX, {"p": ints(2)}, r"the batch axis is 1 or 3; got int64 of shape \(2,\)"),
    (FAR, {"far": ints(2)}, "one for each of the 3 rows of the batch; got int64 of shape"),
    (GIVEN, {"given": {**ROLES, "step": ints(2, 10)}}, "a batch axis of 1 or 3 if any; got int64 of shape"),
    # queries
    (CAUSAL, {"queries": [0, 10]}, r"wanted 3, got 2; for the positions from 0 up to 10, range\(0, 10\)"),
    (CAUSAL, {"queries": list(range(10))}, r"wanted 3, got 10; for these positions, range\(0, 10\)"),
    (CAUSAL, {"queries": [4, 1]}, "wanted 3, got 2$"),
    (CAUSAL, {"queries": slice(5, 10)}, r"write range\(5, 10\)"),
    (CAUSAL, {"queries": slice(-1, None)}, r"write range\(a, b\), of positions counted from 0"),
    (CAUSAL, {"queries": np.array(["3", "4", "5"])}, r"vector of whole numbers.*got an array of <U1 and shape \(3,\)"),
    (CAUSAL, {"queries": np.int64(5)}, r"range\(5, 6\)"),
    (CAUSAL, {"queries": [3.0, 4.0, 5.0]}, r"vector of whole numbers.*got \[3.0, 4.0, 5.0\]"),
    # lengths
    (CAUSAL, {"lengths": [10, 11, 3]}, "from 0 to 10; got 11"),
    (CAUSAL, {"lengths": [10, -1, 3]}, "from 0 to 10; got -1"),
    (CAUSAL, {"lengths": [10, 3]}, "wanted 3, got 2"),
    (CAUSAL, {"lengths": torch.tensor([10, 3, 4, 5])}, "wanted 3, got 4"),
    (CAUSAL, {"lengths": [10, 3.0, 3]}, "got 3.0"),
    (CAUSAL, {"lengths": [10, True, 3]}, "got True"),
    (CAUSAL, {"lengths": [10, torch.tensor(True), 3]}, r"got bool of shape \(\)"),
    (CAUSAL, {"lengths": [10, np.float64(3), 3]}, "got np.float64"),
    (CAUSAL, {"lengths": np.array([10, 3, 3], dtype=object)}, r"one a row; got an array of object and shape \(3,\)"),
    (CAUSAL, {"lengths": np.array(["10", "3", "3"])}, r"one a row; got an array of <U2 and shape \(3,\)"),
    (CAUSAL, {"lengths": torch.tensor([1.0, 2.0, 3.0])}, r"vector of whole numbers, one a row; got float32"),
    (CAUSAL, {"lengths": ints(3, 1)}, r"vector of whole numbers, one a row; got int64 of shape \(3, 1\)"),
    (CAUSAL, {"lengths": 10}, "vector of whole numbers, one a row; got 10"),
    (CAUSAL, {"lengths": "111"}, "vector of whole numbers, one a row; got '111'"),
    (STEPS, {"lengths": [10, 7, 0]}, r"7 of a row's tokens \(lengths\) is 1 steps and 2 tokens; this layout has 5 a step"),
    (FIXED, {"lengths": [10, 3, 4]}, r"3 of a row's tokens \(lengths\) given; the layout .* begins with 4"),
    (CROSS, {"lengths": [10, 8, 6]}, "this spec has two"),
    # layouts given, and layouts that do not fit
    (GIVEN, {}, "give given="),
    (CAUSAL, {"given": ROLES}, r"given= belongs to `layout given"),
    (GIVEN, {"given": {"role": ["a"] * 10, "step": [0] * 10}}, "got the keys role, step"),
    (GIVEN, {"given": {**ROLES, "role": ["a"] * 9}}, "describes 9 tokens; this call has 10"),
    (GIVEN, {"given": {**ROLES, "slot": [0] * 9}}, r"given\['slot'\] wants 10 tokens"),
    (GIVEN, {"given": {**ROLES, "role": ["a", "c"] * 5}}, "no role is called 'c'"),
    (GIVEN, {"given": {**ROLES, "role": ints(10) * 2}}, "from 0 to 1 .*; got 2 to 2"),
    (GIVEN, {"given": {**ROLES, "step": -ints(10)}}, r"given\['step'\] is from 0 to 2147483646; got -1"),
    (GIVEN, {"given": {**ROLES, "step": torch.full((10,), 2**31 - 1)}}, r"given\['step'\] is from 0 to 2147483646; got 2147483647"),
    (GIVEN, {"given": {**ROLES, "step": ints(10).to(torch.uint64)}}, r"given\['step'\]: whole numbers have 64 bits and a sign here; got uint64"),
    (GIVEN, {"given": {**ROLES, "step": ints(10).to_sparse()}}, r"given\['step'\] is an ordinary dense tensor; got layout sparse_coo"),
    (GIVEN, {"given": {**ROLES, "role": ints(10).to_sparse()}}, r"given\['role'\] is an ordinary dense tensor; got layout sparse_coo"),
    (GIVEN, {"given": {**ROLES, "slot": ints(10).to("meta")}}, r"given\['slot'\] is an ordinary dense tensor; got a meta tensor"),
    (GIVEN, {"given": {**ROLES, "step": [[0] * 9, [0] * 10]}}, r"given\['step'\] .*; got rows of different lengths: pad them to one"),
    (GIVEN, {"given": {**ROLES, "step": np.array(["0"] * 10)}}, r"given\['step'\] is a vector of whole numbers, one a token; got an array of <U1"),
    (GIVEN, {"given": {**ROLES, "role": [np.float64(0)] * 10}}, "no role is called np.float64"),
    (GIVEN, {"given": {**ROLES, "slot": randn(10)}}, "one whole number a token.*got float32"),
    ("layout a * 4\nattend causal", {}, "10 rows of q given; the layout `a \\* 4` has 4, always"),
    ("layout repeat { a * 3 }\nattend causal", {}, "10 rows of q is 3 steps and 1 tokens; this layout has 3 a step"),
    ("layout s * 12, repeat { a }\nattend causal", {}, "begins with 12 that are always there"),
    (ASKING, {}, "q has 10 rows, and 5 of the 10 tokens ask"),
    # params and options
    (FAR, {"far": 2.5}, "whole number"),
    (FAR, {"far": ints(1, 1)}, r"param `far` is one number; got int64 of shape \(1, 1\)"),
    (FAR, {"far": "3"}, "a number"),
    (FAR, {"n": 5}, r"spec.with_params\(n=5\)"),
    (LAYERS, {"kind": ints(4)}, "compiled without knowing how many"),
    (CAUSAL, {"layer": 1.5}, "layer is a whole number"),
    (CAUSAL, {"scale": float("nan")}, "scale is a finite number; got nan"),
    (HIDDEN, {}, "give hidden_k= and hidden_v="),
    (HIDDEN, {"hidden_k": randn(3, 2, 9, 8), "hidden_v": randn(3, 2, 10, 8)}, r"hidden_k is k once more.*\(3, 2, 10, 8\).*got \(3, 2, 9, 8\)"),
    (CAUSAL, {"hidden_v": randn(3, 2, 10, 8)}, "leave them out"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "options", "words"), ROWS, ids=[f"{n}: {row[2][:50]}" for n, row in enumerate(ROWS)])
def test_one_error_before_anything_is_launched(text: str, options: dict[str, Any], words: str, monkeypatch):
    def launched(*_: Any, **__: Any) -> None:
        raise AssertionError("a kernel was begun")

    monkeypatch.setattr(op, "attend", launched)
    q, k = randn(3, 2, 10, 8), randn(3, 2, 10, 8)
    for backend in ("tiled", "reference"):
        attend = srt.compile(srt.parse(text), backend=backend)
        with pytest.raises(srt.InputError, match=words) as error:
            attend(q, k, k, **options)
        assert error.value.__cause__ is None and len(attend.plans) == 0


@pytest.mark.parametrize("name", ["visited", "scale", "return_lse"])
def test_what_a_call_on_q_takes_is_not_taken_elsewhere(name: str):
    """By a plan, or by a model: said so, and nothing is asked back."""
    model = srt.build_model(srt.parse(f"{CAUSAL}\npredict token -> index + 1"), dim=8, depth=1, heads=1, num_tokens=3)
    words = rf"unknown argument `{name}`: `{name}=` is an argument of a call on q, k and v, as in srt_masks.compile\(spec\)\(q, k, v, {name}=...\)"
    for call in (lambda **o: srt.compile(srt.parse(CAUSAL)).plan(10, **o), lambda **o: model(ints(1, 10), **o)):
        with pytest.raises(srt.InputError, match=words):
            call(**{name: 1.0})


def test_numbers_of_other_libraries_are_numbers():
    q = randn(3, 2, 10, 8)
    attend: Any = srt.compile(srt.parse(DOCS))
    doc = torch.arange(10) // 3
    for form in (doc.numpy(), doc.tolist(), doc.to(torch.int16), doc.expand(3, 10), doc[None].numpy()):
        assert torch.equal(attend(q, q, q, doc=form), attend(q, q, q, doc=doc))
    for lengths in ([10, 4, 0], (10, 4, 0), np.array([10, 4, 0]), torch.tensor([10, 4, 0], dtype=torch.int32)):
        assert torch.equal(attend(q, q, q, doc=doc, lengths=lengths), attend(q, q, q, doc=doc, lengths=[10, 4, 0]))
    row = randn(3, 2, 1, 8)
    for starts in ([9, 3, 0], (9, 3, 0), np.array([9, 3, 0]), torch.tensor([9, 3, 0], dtype=torch.int16)):
        assert torch.equal(attend(row, q, q, doc=doc, queries=starts), attend(row, q, q, doc=doc, queries=[9, 3, 0]))


FORMS: dict[str, Callable[[list[int]], Any]] = {
    "backwards in memory": lambda numbers: np.array(numbers[::-1])[::-1],
    "with gaps": lambda numbers: np.repeat(np.array(numbers), 2)[::2],
    "foreign bytes": lambda numbers: np.array(numbers, dtype=">i4"),
    "not to be written": lambda numbers: np.broadcast_to(np.array(numbers), (len(numbers),)),
    "NumPy's one by one": lambda numbers: list(np.array(numbers)),
    "torch's one by one": lambda numbers: list(torch.tensor(numbers)),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("form", FORMS)
def test_whole_numbers_come_in_any_form(form: str):
    """Wherever a vector of them is taken."""
    q, row, of = randn(3, 2, 10, 8), randn(3, 2, 1, 8), FORMS[form]
    causal: Any = srt.compile(srt.parse(CAUSAL))
    assert torch.equal(causal(q, q, q, lengths=of([10, 4, 0])), causal(q, q, q, lengths=[10, 4, 0]))
    assert torch.equal(causal(row, q, q, queries=of([9, 3, 0])), causal(row, q, q, queries=[9, 3, 0]))
    assert causal.plan(10, queries=of([9, 3, 0])).geometry.batch == 3
    docs: Any = srt.compile(srt.parse(DOCS))
    doc = [n // 3 for n in range(10)]
    assert torch.equal(docs(q, q, q, doc=of(doc)), docs(q, q, q, doc=doc))
    given: Any = srt.compile(srt.parse(GIVEN))
    numbered = ROLES | {"role": [0, 1] * 5}
    assert torch.equal(given(q, q, q, given={name: of(column) for name, column in numbered.items()}), given(q, q, q, given=ROLES))
    for name, numbers in (("lengths", [3, 0, 2]), ("cu_seqlens", [0, 3, 3, 5])):
        found: Any = {name: of(numbers)}
        assert srt.documents(**found)["doc"].tolist() == [0, 0, 0, 2, 2]
    if isinstance(of([0]), np.ndarray):  # a list is one value
        far: Any = srt.compile(srt.parse(FAR))
        assert torch.equal(far(q, q, q, far=of([1, 2, 9])), far(q, q, q, far=torch.tensor([1, 2, 9])))


def test_roles_come_in_arrays_of_names():
    q = randn(2, 2, 10, 8)
    attend: Any = srt.compile(srt.parse(GIVEN))
    for names in (np.array(ROLES["role"]), np.array([ROLES["role"]] * 2), np.array(ROLES["role"], dtype=object)):
        assert torch.equal(attend(q, q, q, given={**ROLES, "role": names}), attend(q, q, q, given=ROLES))
    rows = {name: np.array([column] * 2) for name, column in (ROLES | {"role": [0, 1] * 5}).items()}
    assert srt.dense(srt.parse(GIVEN), given=rows).attend.shape[0] == 2


@pytest.mark.parametrize("of", [np.int64, np.uint8, np.array, torch.tensor], ids=["int64", "uint8", "array", "tensor"])
def test_a_whole_number_may_be_of_another_library(of: Callable[[int], Any]):
    spec, q = srt.parse("param n = 3\nattend causal and window(n) and layer < 2 and head < 5"), randn(1, 2, 10, 8)
    assert srt.parse(spec.text, params={"n": of(4)}) == spec.with_params(n=of(4)) == spec.with_params(n=4)
    attend: Any = srt.compile(spec, heads=of(2), layers=of(3), tile=of(64), plan_memory=2**20)
    plain: Any = srt.compile(spec, heads=2, layers=3, tile=64, plan_memory=2**20)
    assert attend.options == plain.options and torch.equal(attend(q, q, q, layer=of(1)), plain(q, q, q, layer=1))
    geometry = plain.plan(10, layer=1, heads=2, head_dim=8).geometry
    assert attend.plan(of(10), layer=of(1), heads=of(2), head_dim=of(8)).geometry == geometry
    assert torch.equal(srt.dense(spec, steps=of(4), heads=of(2), layers=of(3)).attend, srt.dense(spec, steps=4, heads=2, layers=3).attend)
    assert str(srt.explain(spec, of(3), of(1), head=of(1), layer=of(1), steps=4)) == str(srt.explain(spec, 3, 1, head=1, layer=1, steps=4))
    learnt: Any = torch.tensor(4.0, requires_grad=True)
    with pytest.raises(srt.InputError, match="param `n` requires grad"):
        spec.with_params(n=learnt)


@pytest.mark.parametrize(("name", "value", "words"), [
    ("q", randn(1, 2, 10, 8).numpy(), r"q is a tensor; got ndarray: give torch.from_numpy\(x\)"), ("q", [1.0], "q is a tensor; got list$"),
])  # fmt: skip
def test_what_is_no_tensor_of_four_axes(name: str, value: Any, words: str):
    x = randn(1, 2, 10, 8)
    attend: Any = srt.compile(srt.parse(CAUSAL))
    with pytest.raises(srt.InputError, match=words):
        attend(*({"q": x, "k": x, "v": x} | {name: value}).values())


@pytest.mark.parametrize(("changed", "words"), [
    ({"q": randn(2, 10, 8)}, r"q is \(batch, heads, tokens, head_dim\); got shape \(2, 10, 8\): q.unsqueeze\(0\) adds a batch of one, q.unsqueeze\(1\) one head$"),
    ({"q": randn(10, 8)}, r"got shape \(10, 8\)$"), ({"q": ints(3, 2, 10, 8)}, r"q is float16, .*; got int64: q.float\(\) makes one"),
    ({"q": randn(3, 2, 10, 8).to_sparse()}, r"ordinary dense tensor; got layout sparse_coo: give q.to_dense\(\)"), ({"k": randn(3, 2, 10, 8).to("meta")}, "k is .* which holds no numbers"),
    ({"v": randn(3, 2, 10, 8).half()}, r"q is float32, v float16: give v.to\(q.dtype\)"), ({"k": randn(1, 2, 10, 8)}, r"q has 3, k 1: give k.expand\(3, -1, -1, -1\)"),
    ({"k": randn(2, 2, 10, 8)}, "q has 3, k 2$"), ({"k": randn(3, 2, 10, 7)}, "one head_dim; q has 8, k 7"), ({"v": randn(3, 1, 10, 8)}, r"k is \(3, 2, 10, 8\), v \(3, 1, 10, 8\)"),
    ({"k": randn(3, 4, 10, 8), "v": randn(3, 4, 10, 8)}, r"q has 2, k 4; if they are \(batch, tokens, heads, head_dim\), give q.transpose\(1, 2\), and k and v so"),
    ({"q": randn(3, 3, 10, 8)}, "q has 3, k 2$"),
])  # fmt: skip
def test_tensors_that_do_not_fit(changed: dict[str, torch.Tensor], words: str):
    tensors = {name: randn(3, 2, 10, 8) for name in "qkv"} | changed
    with pytest.raises(srt.InputError, match=words):
        srt.compile(srt.parse(CAUSAL))(*tensors.values())


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_tensors(layout: torch.layout):
    x = randn(1, 2, 10, 8)
    nested = torch.nested.nested_tensor([randn(2, 10, 8)], layout=layout)
    for q, k, name in ((nested, x, "q"), (x, nested, "k")):
        with pytest.raises(srt.InputError, match=f"{name} is an ordinary dense tensor; got a nested one: pad it, and give lengths="):
            srt.compile(srt.parse(CAUSAL))(q, k, k)
    numbers = torch.nested.nested_tensor([ints(4), ints(6)], layout=layout)
    for text, inputs, name in ((DOCS, {"doc": numbers}, "input `doc`"), (FAR, {"far": numbers}, "param `far`")):
        for call in (lambda t=text, i=inputs: srt.compile(srt.parse(t))(x, x, x, **i), lambda t=text, i=inputs: srt.dense(srt.parse(t), steps=5, inputs=i)):
            with pytest.raises(srt.InputError, match=f"{name} is .*; got a nested one: pad it$"):
                call()
    for column in ("role", "step"):
        with pytest.raises(srt.InputError, match=r"got a nested one|describes 0 tokens"):
            srt.compile(srt.parse(GIVEN))(x, x, x, given={**ROLES, column: numbers})


def test_more_queries_than_keys_are_no_part_of_them():
    x = randn(1, 2, 10, 8)
    with pytest.raises(srt.InputError, match=r"q has 10 rows and k only 4, .* `queries layout` and a `keys layout`"):
        srt.compile(srt.parse(CAUSAL))(x, x[:, :, :4], x[:, :, :4])


def test_a_batch_of_one_says_so_once():
    x = randn(1, 2, 10, 8)
    with pytest.raises(srt.InputError, match="the batch axis is 1; got int64"):
        srt.compile(srt.parse(DOCS))(x, x, x, doc=ints(2, 10))


@pytest.mark.parametrize(("options", "words"), [
    ({"order": "by rol"}, "`auto`, `natural`, or of this text `by role`.*got 'by rol': did you mean `by role`"), ({"order": ["by role"]}, r"got \['by role'\]$"),
    ({"plan_memory": 1e9}, "a whole number of bytes, 1 or more; got 1000000000.0"), ({"tile": 100}, "tile is one of 16, 32, 64, 128, 256, 512 tokens; got 100"),
    ({"tile": 64.0}, "tile is one of .* tokens; got 64.0$"), ({"tile": True}, "tile is one of .* tokens; got True$"), ({"heads": 2.0}, "heads is a whole number, 1 or more; got 2.0"),
    ({"backend": "cuda"}, "backend is one of auto, reference, tiled, triton; got 'cuda'"),
])  # fmt: skip
def test_options_that_are_not_there(options: dict[str, Any], words: str):
    with pytest.raises(srt.InputError, match=words):
        srt.compile(srt.zoo("registers look ahead"), **options)


def test_a_path_a_text_and_a_spec_are_told_apart(tmp_path):
    compile: Any = srt.compile
    with pytest.raises(srt.InputError, match=r"for a file: srt_masks.load\(path\)"):
        compile("rules.mask")
    with pytest.raises(srt.InputError, match=r"cannot read attend causal: .*\. For a text: srt_masks.parse\(text\)"):
        srt.load("attend causal")
    with pytest.raises(srt.InputError, match=r"No such file or directory$"):
        srt.load(tmp_path / "rules.mask")


def test_a_plan_is_one_line_where_it_is_shown_and_a_table_where_it_is_printed():
    plan = srt.compile(srt.parse(CAUSAL)).plan(300)
    assert repr(plan) == "<Plan for batch 1, heads 1, 300 x 300 tokens, tile 128: 6 tiles visited; print() lists them>"
    assert "3 FULL + 3 PARTIAL" in str(plan) or "PARTIAL of 9" in str(plan)


def test_the_remedy_for_a_plan_that_is_too_large_is_one():
    attend = srt.compile(srt.parse(CAUSAL), plan_memory=100)
    with pytest.raises(srt.InputError, match=r"fewer tokens a call \(queries=range.*plan_memory=\d+\)"):
        attend.plan(10**6)
    with pytest.raises(srt.InputError, match=r"plan_memory allows 0.1 KiB: give srt_masks.compile"):
        attend.plan(10**6, queries=range(10**6 - 1, 10**6))


@pytest.mark.parametrize(("arguments", "options", "words"), [
    ((randn(1, 2, 10, 8),), {}, r"whole number of rows, 0 or more; got float32 of shape \(1, 2, 10, 8\)$"),
    ((-1,), {}, "tokens is a whole number of rows"), ((10.0,), {}, "tokens is a whole number of rows"), ((True,), {}, "tokens is a whole number of rows"),
    ((10,), {"queries": range(5, 12)}, "reaches position 11, and there are 10 tokens"), ((10,), {"queries": 5}, r"range\(5, 6\)"),
    ((10,), {"queries": torch.tensor(5)}, r"got int64 of shape \(\)"), ((10,), {"queries": [3, 10]}, "reaches position 10"),
    ((10,), {"queries": [3, 4], "lengths": [10, 10, 10]}, "wanted 3, got 2"),
])  # fmt: skip
def test_plans_that_are_asked_for_wrongly(arguments: tuple[Any, ...], options: dict[str, Any], words: str):
    with pytest.raises(srt.InputError, match=words):
        srt.compile(srt.parse(CAUSAL)).plan(*arguments, **options)
