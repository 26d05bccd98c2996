"""torch.func over a call: its gradients, vmap over whatever a call takes, and what is not served, which says so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tooling import DOCUMENTS, Model, assert_same, tensors
from torch import Tensor
from watching import Largest

import srt_masks as srt

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:torch.*", "ignore::UserWarning:torch.*", "ignore::UserWarning:copyreg.*")


def test_transforms_of_torch_func(backend: str):
    torch._dynamo.reset()
    attend = srt.compile(srt.parse(DOCUMENTS), tile=16, backend=backend)
    data, doc = tensors(20, batch=1), torch.arange(20) // 6
    own = [x.detach() for x in data]

    def loss(*x: Tensor) -> Tensor:
        return attend(*x, doc=doc).square().sum()

    plain = torch.autograd.grad(loss(*data), data)
    assert_same(torch.func.grad(loss, (0, 1, 2))(*own), plain)
    value, pull = torch.func.vjp(loss, *own)
    assert torch.equal(value, loss(*own))
    assert_same(pull(torch.ones(())), plain)
    assert_same(torch.compile(torch.func.grad(loss, (0, 1, 2)), backend="aot_eager", fullgraph=True)(*own), plain)


MAPPED: dict[str, tuple[str, dict[str, Any], dict[str, int | None]]] = {  # a text, what is given beside q, k and v, and the axis that is mapped of it
    "nothing": ("attend causal and window(5)\nstop v where q.pos % 3 == 1", {}, {}),
    "documents": (DOCUMENTS, {"doc": torch.arange(60).reshape(3, 20) // 7}, {"doc": 0}),
    "documents of each row": (DOCUMENTS, {"doc": torch.arange(120).reshape(2, 20, 3) // 17}, {"doc": 2}),
    "the same documents": (DOCUMENTS, {"doc": torch.arange(20) // 7, "far": 4, "w": 0.25}, {"doc": None, "far": None, "w": None}),
    "the same documents in a list": (DOCUMENTS, {"doc": [0] * 9 + [1] * 11}, {"doc": None}),
    "the same documents of each row, in lists": (DOCUMENTS, {"doc": [[0] * 9 + [1] * 11, [0] * 13 + [1] * 7]}, {"doc": None}),
    "the same documents of each row": (DOCUMENTS, {"doc": torch.arange(40).reshape(2, 20) // 7}, {"doc": None}),
    "numbers": (DOCUMENTS, {"doc": torch.arange(20) // 7, "far": torch.tensor([2, 5, 9]), "w": torch.tensor([0.5, 1.0, -2.0])}, {"doc": None, "far": 0, "w": 0}),
    "numbers of each row": (DOCUMENTS, {"doc": torch.arange(20) // 7, "far": torch.tensor([[2, 5], [9, 3], [1, 4]])}, {"doc": None, "far": 0}),
    "the same numbers of each row": (DOCUMENTS, {"doc": torch.arange(20) // 7, "far": torch.tensor([2, 5])}, {"doc": None, "far": None}),
    "lengths": ("attend causal or k.pos >= length - 2", {"lengths": torch.tensor([[3, 20], [9, 7], [20, 0]])}, {"lengths": 0}),
    "the same lengths": ("attend causal or k.pos >= length - 2", {"lengths": [20, 13]}, {"lengths": None}),
    "prefix": ("input n: int per sequence\nattend causal or k.pos < n", {"n": torch.tensor([2, 19, 7])}, {"n": 0}),
    "pairs": ("input t: bool per query, key\nattend t or k.pos == q.pos", {"t": torch.arange(1200).reshape(3, 20, 20) % 7 < 3}, {"t": 0}),
    "head": ("input n: int per head\nattend causal and window(n)", {"n": torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8], [9, 9, 2, 2]])}, {"n": 0}),
    "given": (
        "layout given { a, b }\nattend causal and (k is a or q.step == k.step)",
        {"given": {"role": ["a", "b"] * 10, "step": torch.arange(60).reshape(3, 20) % 20 // 3, "slot": [0] * 20}},
        {"given": {"role": None, "step": 0, "slot": None}},  # type: ignore[dict-item]
    ),
}  # fmt: skip


def _picked(value: Any, axis: Any, index: int) -> Any:
    if isinstance(value, dict):
        return {n: _picked(x, axis[n], index) for n, x in value.items()}
    return value if axis is None else value.select(axis, index)


@pytest.mark.parametrize("name", MAPPED)
def test_vmap_is_a_call_for_each(name: str):
    text, beside, axes = MAPPED[name]
    attend: Any = srt.compile(srt.parse(text), tile=16)
    q, k, v = (torch.randn(3, *x.shape) for x in tensors(20))
    fixed = {n: x for n, x in beside.items() if isinstance(axes[n], type(None))}
    moving = {n: x for n, x in beside.items() if n not in fixed}
    dims = {n: axes[n] if n != "given" else {"role": None, "step": 0, "slot": None} for n in moving}
    if "given" in moving:  # words cannot be mapped: they are closed over
        words = {n: x for n, x in moving["given"].items() if not isinstance(x, Tensor)}
        moving["given"], dims["given"] = {"step": moving["given"]["step"]}, {"step": 0}  # type: ignore[assignment]
    else:
        words = {}

    def loss(q: Tensor, k: Tensor, v: Tensor, own: dict[str, Any]) -> tuple[Tensor, Tensor]:
        own = {n: {**x, **words} if n == "given" else x for n, x in own.items()}
        out, lse = attend(q, k, v, **fixed, **own, return_lse=True)
        return out.square().sum() + lse.nan_to_num(neginf=0.0).sum(), out

    # k is the same for all, v is mapped along another axis.
    found = torch.vmap(torch.func.grad(loss, (0, 1, 2), has_aux=True), (0, None, 2, dims))(q, k[0], v.movedim(0, 2), moving)
    for n in range(3):
        own = {m: _picked(x, dims[m], n) for m, x in moving.items()}
        grads, out = torch.func.grad(loss, (0, 1, 2), has_aux=True)(q[n], k[0], v[n], own)
        assert torch.equal(found[1][n], out)
        for a, b in zip(found[0], grads, strict=True):
            torch.testing.assert_close(a[n], b, rtol=1e-6, atol=1e-6)


def test_vmap_over_nothing_is_nothing():
    attend, x, docs = (
        srt.compile(srt.parse("input doc: int per token\nattend causal and same(doc)")),
        torch.randn(0, 2, 3, 20, 8),
        torch.zeros(0, 20, dtype=torch.int64),
    )

    def loss(x: Tensor, doc: Tensor) -> tuple[Tensor, Tensor]:
        out = attend(x, x, x, doc=doc)
        return out.square().sum(), out

    grads, out = torch.vmap(torch.func.grad(loss, has_aux=True))(x, docs)
    assert grads.shape == out.shape == (0, 2, 3, 20, 8)


def test_jacobians_by_rows_and_gradients_for_each_sample():
    attend, doc = srt.compile(srt.parse(DOCUMENTS), tile=16), torch.arange(6) // 4
    q = torch.randn(1, 2, 6, 4, dtype=torch.float64)
    found = torch.func.jacrev(lambda x: attend(x, x, x, doc=doc))(q)
    torch.testing.assert_close(found, torch.autograd.functional.jacobian(lambda x: attend(x, x, x, doc=doc), q))
    model, x, docs = Model(attend), torch.randn(3, 1, 20, 8), torch.arange(60).reshape(3, 20) // 7
    parameters = dict(model.named_parameters())

    def loss(weights: dict[str, Tensor], x: Tensor, doc: Tensor) -> Tensor:
        return torch.func.functional_call(model, weights, (x, doc)).square().sum()

    each = torch.vmap(torch.func.grad(loss), (None, 0, 0))(parameters, x, docs)
    for n in range(3):
        alone = torch.autograd.grad(loss(parameters, x[n], docs[n]), list(parameters.values()))
        for a, b in zip(each.values(), alone, strict=True):
            torch.testing.assert_close(a[n], b, rtol=1e-5, atol=1e-6)


def test_gradients_pass_through_transforms_that_lie_within():
    """A level of torch.func that has nothing to do with the call must not cut the gradient of one that has."""
    attend, reference = (srt.compile(srt.parse("attend causal"), backend=b) for b in ("tiled", "reference"))
    x, w = torch.randn(1, 1, 6, 4, dtype=torch.float64), torch.tensor(2.0, dtype=torch.float64)
    leaf = x.clone().requires_grad_()

    def outer(f: Any) -> Tensor:
        return torch.func.grad(lambda y: torch.func.grad(lambda w: (w * f(y, x, x)).square().sum())(w))(x)

    def outside(f: Any) -> Tensor:
        return torch.autograd.grad(torch.func.grad(lambda w: (w * f(leaf, x, x)).square().sum())(w), leaf)[0]

    def unrecorded(f: Any) -> Tensor:
        def inner(y: Tensor) -> Tensor:
            with torch.no_grad():
                out = f(y, x, x)
            return (out * y).sum()

        return torch.func.grad(inner)(x)

    for each in (outer, outside, unrecorded):
        torch.testing.assert_close(each(attend), each(reference))
        assert each(attend).abs().sum() > 0
    for second in (
        lambda: torch.func.grad(lambda w: torch.func.grad(lambda y: (w * attend(y, x, x)).square().sum())(x).sum())(w),
        lambda: torch.func.grad(lambda z: attend(z, x, x).square().sum())(leaf).sum().backward(),
    ):
        with pytest.raises(srt.BackendError, match="double backward"):
            second()


def test_what_is_not_served_says_so(backend: str):
    attend = srt.compile(srt.parse("param far = 5\nattend causal and window(far)"), backend=backend)
    x = torch.randn(1, 1, 6, 4)

    def call(y: Tensor) -> Tensor:
        return attend(y, x, x)

    for forward_mode in (lambda: torch.func.jvp(call, (x,), (x,)), lambda: torch.func.jacfwd(call)(x), lambda: torch.func.hessian(lambda y: call(y).sum())(x)):
        with pytest.raises(srt.BackendError, match=r"forward-mode differentiation .* is not served; reverse mode is"):
            forward_mode()
    with torch.autograd.forward_ad.dual_level(), pytest.raises(srt.BackendError, match="forward-mode"):
        call(torch.autograd.forward_ad.make_dual(x, x))
    leaf = x.clone().requires_grad_()
    (first,) = torch.autograd.grad(call(leaf).square().sum(), leaf, create_graph=True)
    for second in (lambda: first.sum().backward(), lambda: torch.func.grad(lambda y: torch.func.grad(lambda z: call(z).square().sum())(y).sum())(x)):
        with pytest.raises(srt.BackendError, match="double backward"):
            second()
    for row in (call(leaf), attend(leaf, x, x, return_lse=True)[1]):
        with pytest.raises(srt.BackendError, match=r"many gradients of the output at once .* is not served; a loop over them is, and so are torch.func.jacrev"):
            torch.autograd.grad(row, leaf, torch.randn(3, *row.shape), is_grads_batched=True)
    with Largest():
        watched = call(leaf)
    for many in (
        lambda: torch.autograd.grad(watched, leaf, torch.randn(3, *x.shape), is_grads_batched=True),
        lambda: torch.autograd.functional.jacobian(call, x, vectorize=True),
    ):
        with pytest.raises(srt.BackendError, match="many gradients"):
            many()
    with pytest.raises(srt.BackendError, match="scale= is mapped over by vmap"):
        torch.vmap(lambda s: attend(x, x, x, scale=s))(torch.tensor([0.5, 1.0]))
    with pytest.raises(srt.BackendError, match="visited= is mapped over by vmap, and is one order"):
        torch.vmap(lambda order: attend(x, x, x, visited=order))(torch.stack([torch.arange(6), torch.arange(6).flip(0)]))
    with pytest.raises(srt.BackendError, match=r"torch.jit.trace would fix the plan .* torch.export"):
        torch.jit.trace(lambda y: call(y), (x,))


CONSTANTS = {"scale": torch.tensor(0.5), "w": torch.tensor(0.25), "u": torch.rand(6, 6), "reach": torch.tensor([0.5, 0.25])}


@pytest.mark.parametrize("name", CONSTANTS)
@pytest.mark.parametrize("backend", ["tiled", "triton", "reference"])
def test_a_gradient_into_a_constant_of_the_backward_is_refused_and_is_no_silent_zero(backend: str, name: str):
    """Into scale, a param, inputs, one of the numbers in a list: as plain autograd's, so that of any level of torch.func."""
    text = "param w = 0.5\ninput reach: float per head\ninput u: float per query, key\nattend causal\nscale k by w * u\nscale v by reach"
    attend, x = srt.compile(srt.parse(text), backend=backend, tile=16), torch.randn(1, 2, 6, 4)
    asked, both = CONSTANTS[name], torch.stack([x, x])

    def loss(value: Any, y: Tensor = x) -> Tensor:
        return attend(y, y, y, **{**CONSTANTS, name: value}).square().sum()

    def by_name(value: Tensor) -> Tensor:
        scale, *rest = {**CONSTANTS, name: value}.items()
        return attend(x, x, x, **dict([scale]), inputs=dict(rest)).square().sum()

    asking = [
        lambda: loss(asked.clone().requires_grad_()),
        lambda: torch.func.grad(loss)(asked),
        lambda: torch.func.grad(by_name)(asked),
        lambda: torch.func.grad(lambda value: torch.func.grad(loss, 1)(value, x).sum())(asked),
        lambda: torch.func.grad(lambda value: torch.vmap(lambda y: loss(value, y))(both).sum())(asked),
        lambda: torch.vmap(torch.func.grad(loss))(torch.stack([asked, asked])),
    ]
    if backend == "reference":  # which has forward mode, into q, k and v
        asking.append(lambda: torch.func.jvp(loss, (asked,), (asked,)))
    if name == "reach":
        asking += [lambda: loss([0.5, asked[1].clone().requires_grad_()]), lambda: torch.func.grad(lambda value: loss([value, 0.5]))(asked[0])]
    for ask in asking:
        with pytest.raises(srt.InputError, match=rf"{name}`? requires grad"):
            ask()
    with torch.autograd.forward_ad.dual_level(), pytest.raises(srt.InputError, match=rf"{name}`? requires grad"):
        loss(torch.autograd.forward_ad.make_dual(asked, asked))
    learning = asked.clone().requires_grad_()
    assert bool((torch.func.grad(lambda y: loss(learning.detach(), y))(x) != 0).any())
