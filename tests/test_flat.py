"""What a call is given beside q, k and v, where torch compiles or watches it: it gets there as it came, so that results and errors are a plain call's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tooling import DOCUMENTS, assert_same, results, tensors
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import srt_masks as srt
from srt_masks.kernels.attention import Attention
from srt_masks.kernels.flat import flatten, unflatten, unflatten_unread

TOKENS, HUGE = 8, 2**70
GIVEN = "layout given { a, b }\nattend causal and (k is a or q.step == k.step)"
ROLES = {"role": ["a", "b"] * 4, "step": [0, 0, 1, 1, 2, 2, 3, 3], "slot": [0] * TOKENS}

# A text, and what one of its arguments may be given, rightly or not.
ARGUMENTS: dict[str, tuple[str, list[Any]]] = {
    "w": (
        "param w = 0.5\nattend causal\nscale k by w where q.pos > k.pos",
        [0.25, [0.25], [0.25, 0.5], (0.25, 0.5), [[0.25]], [], [True], True, "x", ["x"], HUGE, -(2**63), [HUGE], math.inf, {"a": 1}, {}, b"x",
         torch.tensor(0.25), torch.tensor([0.25, 0.5]), torch.tensor([0.25]), [torch.tensor(0.25)], np.array([0.25, 0.5])],
    ),
    "far": ("param far = 5\nattend causal and window(far)", [2, [2], [2, 3], [[2]], 2.5, 2.0, [2.5], HUGE, -HUGE, 2**63, 2**63 - 1, -(2**63), True, [True]]),
    "g": (
        "input g: int per token\nattend causal and same(g)",
        [[0] * 8, [0, 0, 1, 1] * 2, [[0] * 8], [[0] * 8, [1] * 8], [0] * 7, [[0] * 7], [[0] * 8, [0] * 7], [], [[]], [[], []], [[[0] * 8] * 2], [[0, 1]], (0,) * 8,
         ([0] * 8, (1,) * 8), [0.5] * 8, [True] * 8, ["a"] * 8, [["a"] * 8], [0] * 7 + [True], [0] * 7 + [0.5], [0] * 7 + [HUGE], [[0] * 7 + [HUGE]], [0] * 7 + [None],
         [0] * 7 + [[0]], [0] * 7 + ["a"], 5, 0.5, None, "abc", range(8), [range(8)], [torch.tensor(0)] * 8, np.arange(8) // 3, HUGE],
    ),
    "f": ("input f: float per token\nattend causal and k.f < 1.0", [[0.5] * 8, [0] * 8, [0.5] * 7 + [1], [[0.5] * 8, [1] * 8], [HUGE] * 8, [0.5] * 7 + [HUGE], [True] * 8, [math.nan] * 8, [[0.5] * 8, [0.5] * 7]]),
    "b": ("input b: bool per token\nattend causal and k.b", [[True] * 8, [True, False] * 4, [[True] * 8, [False] * 8], [True] * 7 + [0], [True] * 7, [0] * 8]),
    "n": ("input n: int per sequence\nattend causal or k.pos < n", [3, [3], [3, 4], [[3]], [[3], [4]], 3.0, [3.0], True, HUGE, [HUGE, 1]]),
    "lengths": ("attend causal", [[8, 4], (8, 4), [8], [[8, 4]], [[8], [4]], [8.0, 4], [8.0, 4.0], [True, 8], [], "ab", ["a", "b"], [8, HUGE], 8, [None, 1], range(2), range(4, 6), torch.tensor([8, 4])]),
    "queries": ("attend causal", [range(8), [0, 0], (0, 0), [[0, 0]], [0], [0.0, 0.0], [True, False], 0, range(0, 8, 2), "x", [HUGE, 0], [None, 0], range(HUGE), {0, 1}, slice(0, 8)]),
    "scale": ("attend causal", [0.5, 1, -1, [0.5], [1], HUGE, 10**400, True, "x", math.inf, math.nan, (), torch.tensor(0.5), torch.tensor([0.5])]),
    "visited": ("attend causal", [torch.arange(8).flip(0), torch.arange(8), torch.zeros(8, dtype=torch.int64), torch.arange(7), torch.arange(8.0), list(range(8)), None, 8, np.arange(8)[::-1].copy()]),
    "layer": ("attend causal and window(layer + 2)", [0, 1, [0], 2, HUGE, True, 0.5, None, "x", torch.tensor(1)]),
    "given": (
        GIVEN,
        [{**ROLES, **other} for other in (
            {}, {"role": [["a", "b"] * 4]}, {"role": [["a", "b"] * 4] * 2}, {"role": [[]]}, {"role": []}, {"role": [0, 1] * 4}, {"role": [["a"] * 8, ["a"] * 7]},
            {"role": ["a"] * 7 + [1]}, {"role": ["c"] * 8}, {"role": ["a"] * 7 + [True]}, {"role": ["a"] * 7 + [None]}, {"role": ["a b"] * 8}, {"role": [""] * 8},
            {"role": ["a/b"] * 8}, {"role": ["it's; %39;"] * 8}, {"role": "abababab"}, {"role": ("a", "b") * 4}, {"role": [("a", "b") * 4] * 2}, {"role": [["a"] * 8, "b"]},
            {"role": ["a"] * 7 + [["a"]]}, {"step": [0.5] * 8}, {"step": [[0] * 8]}, {"step": [[0] * 8, [0] * 7]}, {"step": 0}, {"step": []}, {"slot": [0] * 7 + [HUGE]},
            {"step": range(8)}, {"x": 1}, {3: 1}, {"role": torch.arange(8) % 2},
        )] + [{"role": ["a"] * 8}, {}, [1], "x", None, 5],
    ),
    "inputs": ("input g: int per token\nattend causal and same(g)", [{"g": [0] * 8}, {"g": [[0] * 8] * 2}, {"g": [0] * 7}, {"g": None}, {1: 2}, {"g h": [0] * 8}, {"g": [0] * 8, "z": 1}, {}, [1], "x", 5]),
}  # fmt: skip
UNSERVED = (bytes, set, slice)  # what nobody takes is said in words of its own
CASES = [(name, n) for name, (_, values) in ARGUMENTS.items() for n in range(len(values))]


class Watcher(TorchDispatchMode):
    """It looks on, so a call is one operator, and does nothing."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))


def attention(name: str) -> Attention:
    return srt.compile(srt.parse(ARGUMENTS[name][0]), tile=16, layers=2 if name == "layer" else None)


def outcome(call: Any) -> list[Tensor] | tuple[type, str]:
    """Results with gradients, or the error."""
    torch.manual_seed(0)
    data = [torch.randn(2, 1, TOKENS, 4, requires_grad=True) for _ in range(3)]
    try:
        return results(call, data)
    except (srt.InputError, srt.BackendError) as error:
        return type(error), str(error)


def assert_alike(found: Any, wanted: Any) -> None:
    if isinstance(wanted, tuple):
        assert found == wanted
    else:
        assert isinstance(found, list)
        assert_same(found, wanted)


@pytest.mark.parametrize(("name", "number"), CASES)
def test_a_watched_call_judges_what_it_is_given_as_a_plain_one(name: str, number: int):
    attend, value = attention(name), ARGUMENTS[name][1][number]
    plain = outcome(lambda *x: attend(*x, **{name: value}))
    with Watcher():
        watched = outcome(lambda *x: attend(*x, **{name: value}))
    if isinstance(value, UNSERVED):
        assert isinstance(plain, tuple) and plain[0] is watched[0] is srt.InputError and f"got {type(value).__name__}" in watched[1]
        return
    assert_alike(watched, plain)


COMPILED = {"w": (0, 1, 2, 4, 8, 10, 11, 12), "far": (1, 7, 10), "g": (2, 3, 6, 8, 11, 13, 17, 19, 20, 22, 27, 31), "f": (2, 4), "lengths": (0, 7, 11), "queries": (10, 12, 13),
            "scale": (6, 8), "visited": (0, 2), "given": (2, 3, 7, 11, 14, 25), "inputs": (4, 5)}  # fmt: skip


@pytest.mark.parametrize("name", COMPILED)
def test_a_compiled_call_judges_what_it_is_given_as_a_plain_one(name: str):
    attend = attention(name)
    for number in COMPILED[name]:
        value = ARGUMENTS[name][1][number]
        torch._dynamo.reset()
        compiled = torch.compile(lambda *x, value=value: attend(*x, **{name: value}), backend="eager", fullgraph=True)
        plain = outcome(lambda *x, value=value: attend(*x, **{name: value}))
        found = outcome(compiled)
        if isinstance(value, UNSERVED):
            assert isinstance(found, tuple) and found[0] is srt.InputError and f"got {type(value).__name__}" in found[1]
        else:
            assert_alike(found, plain)


def test_numbers_and_lists_that_change_compile_nothing():
    """Numbers, those in lists too, are passed from call to call: only how many there are, and of which kind, is compiled."""
    counter = torch._dynamo.testing.CompileCounterWithBackend("eager")
    attend = srt.compile(
        srt.parse("param far = 5\nparam w = 0.5\ninput n: int per sequence\nattend causal and window(far) or k.pos < n\nscale k by w"), tile=16
    )
    torch._dynamo.reset()
    call = torch.compile(lambda *x, far, w, n: attend(*x, far=far, w=w, n=n), backend=counter, fullgraph=True, dynamic=True)
    for far, w, n in ((4, 0.5, [2, 3]), (7, 0.25, [4, 6]), (3, -2.0, [5, 7])):
        assert_alike(
            outcome(lambda *x, a=(far, w, n): call(*x, far=a[0], w=a[1], n=a[2])), outcome(lambda *x, a=(far, w, n): attend(*x, far=a[0], w=a[1], n=a[2]))
        )
    assert counter.frame_count == 1


# ------------------------------------------------------------------------------------------------ there and back

leaves = (
    st.none() | st.booleans() | st.integers(-(2**66), 2**66) | st.floats(allow_nan=False) | st.text(max_size=5) | st.builds(range, *[st.integers(-9, 9)] * 2)
)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.lists(inner, max_size=4).map(tuple) | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3), max_leaves=12
)  # fmt: skip


def typed(value: Any) -> Any:
    """A value with all its types: True is 1, and -0.0 is 0.0, to ==."""
    match value:
        case list() | tuple():
            return type(value), [typed(x) for x in value]
        case dict():
            return dict, [(typed(key), typed(x)) for key, x in value.items()]
        case _:
            return type(value), str(value)


@given(st.dictionaries(st.text(max_size=4), values, max_size=4))
def test_arguments_come_back_as_they_were(arguments: dict[str, Any]):
    form, tensors, whole = flatten(arguments)
    assert all(isinstance(x, Tensor) for x in tensors) and all(type(n) is int and -(2**63) <= n < 2**63 for n in whole)
    optional = ("layer", "lengths", "queries", "given", "scale", "visited", "inputs")
    wanted = {name: value for name, value in arguments.items() if value is not None or name not in optional}
    assert typed(unflatten(form, tensors, whole)) == typed(wanted)
    again = flatten(unflatten_unread(form, tensors, whole))  # as vmap does, which looks at no float
    assert typed(unflatten(*again)) == typed(wanted)


def test_tensors_come_back_themselves():
    a, b = torch.zeros(3), torch.zeros(())
    found = unflatten(*flatten({"a": a, "more": [b, 0.5, a], "f": 0.5}))
    assert found["a"] is a and found["more"][0] is b and found["more"][2] is a and found["f"] == 0.5 and isinstance(found["f"], float)


# ------------------------------------------------------------------------------------------------ fake tensors


@pytest.mark.parametrize("inside", [False, True])
def test_fake_tensors_beside_real_ones_are_refused_by_name(inside: bool):
    attend, (q, k, v), doc = srt.compile(srt.parse(DOCUMENTS), tile=16), tensors(40), torch.arange(40) // 11

    def call(mode: FakeTensorMode, *data: Any, **beside: Any) -> Any:
        if not inside:
            return attend(*data, **beside)
        with mode:
            return attend(*data, **beside)

    mode = FakeTensorMode()
    fq, fk, fv, fdoc = (mode.from_tensor(x) for x in (q, k, v, doc))
    assert call(mode, fq, fk, fv, doc=fdoc, w=0.25, far=3).shape == call(mode, fq, fk, fv, doc=[0] * 40).shape == (2, 4, 40, 6)
    for data, own, words in (
        ((fq, k, fv), fdoc, "q is a fake tensor.* and k a real one"),
        ((fq, fk, fv), doc, "q is a fake tensor.* and an input a real one"),
    ):
        with pytest.raises(srt.InputError, match=words):
            call(mode, *data, doc=own)
    open_mode = FakeTensorMode(allow_non_fake_inputs=True)
    assert call(open_mode, open_mode.from_tensor(q), k, v, doc=doc).shape == (2, 4, 40, 6)


@pytest.mark.parametrize("backend", ["tiled", "reference"])
def test_a_real_q_has_no_fake_tensors_beside_it(backend: str):
    """Without a mode nothing watches such a call, and what it reads of the fake ones would be torch's own error, somewhere inside."""
    attend, (q, k, v), doc = srt.compile(srt.parse(DOCUMENTS), tile=16, backend=backend), tensors(40), torch.arange(40) // 11
    mode = FakeTensorMode()
    fk, fv, fdoc, reach = (mode.from_tensor(x) for x in (k, v, doc, torch.tensor(3)))
    wrong: list[tuple[str, Any]] = [
        ("k", lambda: attend(q, fk, v, doc=doc)),
        ("v", lambda: attend(q, k, fv, doc=doc)),
        ("k", lambda: attend(q, fk, fv, doc=doc)),
        ("doc", lambda: attend(q, k, v, doc=fdoc)),
        ("doc", lambda: attend(q, k, v, inputs={"doc": fdoc})),
        ("far", lambda: attend(q, k, v, doc=doc, far=reach)),
        ("lengths", lambda: attend(q, k, v, doc=doc, lengths=reach)),
        ("doc", lambda: attend.plan(40, doc=fdoc)),
        ("far", lambda: attend.plan(40, doc=doc, far=reach)),
    ]
    for name, call in wrong:
        with pytest.raises(srt.InputError, match=f"^{name} is a fake tensor, which holds no numbers"):
            call()
    twins = srt.compile(srt.parse("attend causal\nstop hidden where k.pos < q.pos"), backend=backend)
    with pytest.raises(srt.InputError, match=r"^hidden_v is a fake tensor"):
        twins(q, k, v, hidden_k=k, hidden_v=fv)


def test_a_plan_of_lists_is_known_again():
    """By what they hold and of which types: the backward of a watched call looks for the plan once more."""
    attend = srt.compile(srt.parse("input g: int per token\nattend causal and same(g)"), tile=16)
    with Watcher():
        assert isinstance(outcome(lambda *x: attend(*x, g=[0, 0, 1, 1] * 2)), list)
    assert (attend.plans.made, attend.plans.found) == (1, 1)
    outcome(lambda *x: attend(*x, g=[0, 0, 1, 1] * 2))
    assert (attend.plans.made, attend.plans.found) == (1, 2)
    wanted = outcome(lambda *x: attend(*x, g=torch.tensor([0, 0, 1, 2] * 2)))
    assert_alike(outcome(lambda *x: attend(*x, g=[0, 0, 1, 2] * 2)), wanted)
    refused = outcome(lambda *x: attend(*x, g=[False, False, True, 2] * 2))
    assert_alike(refused, outcome(lambda *x: srt.compile(attend.spec, tile=16)(*x, g=[False, False, True, 2] * 2)))
