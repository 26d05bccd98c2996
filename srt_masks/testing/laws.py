"""The laws a spec is held to, each by name. A law is tried on a `Case`, and raises `Broken` where it does not hold.

agrees_with_reference   out, lse and every gradient are those of the dense reference, within the error bound
perturbation            what no path leads to does not change by a bit; what no gradient reaches is exactly 0
batch_invariance        a row's results do not depend on its neighbours
permutation             attention does not see the order of keys, heads and rows of the batch, but through the text
formatting              the canonical layout is the same text
claims                  every `assert` holds at this size
packing                 documents packed into a row are the documents alone          (texts that declare doc, start or position)
prefix_tree             a tree of continuations is every path alone                  (texts that declare tin and tout, or ancestor)
opinion                 the text says what a function in Python says                 (`check(spec, opinion=...)`)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..diagnostics import InputError, Source, did_you_mean
from ..grammar import syntax
from ..grammar.formatter import format_text
from ..grammar.parser import parse as parse_tree
from ..reference.attention import attention
from ..spec import Spec
from .case import Case
from .claims import violations
from .comparing import compare_case

TOLERANCE = 1e-9  # float64


class Broken(AssertionError):
    """A law that does not hold: what was compared, where, and by how much."""


Try = Callable[[Case, str], None]


@dataclass(frozen=True, slots=True)
class Law:
    """`try_on(case, backend)` raises Broken; `unfit(spec)` says why the law says nothing of a spec, or is empty."""

    name: str
    about: str
    try_on: Try
    unfit: Callable[[Spec], str] = lambda spec: ""
    of_every_text: bool = True  # else it says what some texts are meant to be, and is tried where it is asked for
    batches: bool = True  # whether it is tried on several rows of a batch with inputs of their own
    sets: Callable[[Spec], frozenset[str]] = lambda spec: frozenset()  # inputs that it gives itself

    def __call__(self, case: Case, backend: str = "auto") -> None:
        """Try the law on one case. Raises Broken."""
        self.try_on(case, backend)


# ------------------------------------------------------------------------------------------------ backend and reference


def _agrees(case: Case, backend: str) -> None:
    dtype = (torch.float32, torch.float64)[case.seed % 2]
    for layer in range(case.depth):
        wrong = [c for c in compare_case(case, backend=backend, dtype=dtype, layer=layer) if not c.holds]
        if wrong:
            lines = "\n".join(f"  {c}" for c in wrong)
            raise Broken(f"backend {backend!r} differs from the reference in {str(dtype).removeprefix('torch.')}, layer {layer}:\n{lines}")


def _permutation(case: Case, backend: str) -> None:
    q, k, v, _ = case.tensors()
    masks, attend = case.masks(), case.compile(backend)
    generator = torch.Generator().manual_seed(case.seed + 1)
    rows, columns = (torch.randperm(n, generator=generator) for n in masks.attend.shape[-2:])
    for layer in range(case.depth):
        out, _ = case.call(attend, q, k, v, layer)
        seen = masks.attend[:, layer][..., rows, :][..., columns]
        ones = torch.ones_like(seen, dtype=torch.float64)
        shuffled, _ = attention(q[:, :, rows], k[:, :, columns], v[:, :, columns], seen, ones, ones, ones)
        _same("rows and keys in another order give the same rows in that order", out[:, :, rows], shuffled, layer)
        if not _speaks_of_heads(case.spec):
            turn = torch.arange(q.shape[1]).view(k.shape[1], -1).flip(0)
            again, _ = case.call(attend, q[:, turn.flatten()], k.flip(1), v.flip(1), layer)
            _same("heads in another order give the same heads in that order", again, out[:, turn.flatten()], layer)


def _batch_invariance(case: Case, backend: str) -> None:
    q, k, v, _ = case.tensors()
    attend = case.compile(backend)
    others = case.tensors(seed=case.seed + 1)
    for layer in range(case.depth):
        out, _ = case.call(attend, q, k, v, layer)
        mixed = [torch.cat([x[:1], y[1:]]) for x, y in zip((q, k, v), others, strict=False)]
        beside, _ = case.call(attend, *mixed, layer=layer)  # type: ignore[arg-type]
        if not torch.equal(out[:1], beside[:1]):
            raise Broken(f"row 0 of the batch changes with its neighbours (layer {layer}): by {(out[:1] - beside[:1]).abs().max():.2e}")
        again, _ = case.call(attend, q, k, v, layer)
        if not torch.equal(out, again):
            raise Broken(f"the same call gives other bits the second time (layer {layer})")


# ------------------------------------------------------------------------------------------------ paths and gradients


def _perturbation(case: Case, backend: str) -> None:
    masks, attend = case.masks(), case.compile(backend)
    q, k, v, dout = case.tensors()
    if not k.shape[2] or not q.shape[2] or not q.shape[0]:
        return
    generator = torch.Generator().manual_seed(case.seed + 1)
    key, query = (int(torch.randint(n, (1,), generator=generator)) for n in (k.shape[2], q.shape[2]))
    for layer in range(case.depth):
        seen = masks.attend[:, layer].expand(q.shape[0], -1, -1, -1)
        out, _ = case.call(attend, q, k, v, layer)
        moved = [x.clone() for x in (k, v)]
        for x in moved:
            x[:, :, key] = 3 - 2 * x[:, :, key]
        other, _ = case.call(attend, q, *moved, layer=layer)
        changed = (out != other).any(-1) & ~seen[..., key]
        if bool(changed.any()):
            raise Broken(f"key {key} changes {_place(changed)} which does not see it (layer {layer})")
        _check_reach_of_gradients(case, attend, masks, [q, k, v, dout], query, layer)
    if case.spec.checked.keys is None and case.spec.checked.asks is None and case.lengths is None:
        _check_stack(case, attend, masks, key)


def _check_reach_of_gradients(case: Case, attend: Any, masks: Any, tensors: list[Tensor], query: int, layer: int) -> None:
    """A loss on one row moves only its own query, and only keys and values that it sees and that no gate stops."""
    leaves = [x.clone().requires_grad_() for x in tensors[:3]]
    out, _ = case.call(attend, *leaves, layer=layer)  # type: ignore[arg-type]
    found = torch.autograd.grad((out[:, :, query] * tensors[3][:, :, query]).sum(), leaves, allow_unused=True, materialize_grads=True)
    batch, heads = tensors[0].shape[:2]
    gates = [g[:, layer].expand(batch, heads, -1, -1)[:, :, query] for g in (masks.gate_k * masks.gate_hidden, masks.gate_v * masks.gate_hidden)]
    seen = masks.attend[:, layer].expand(batch, heads, -1, -1)[:, :, query]
    if bool((found[0][:, :, torch.arange(found[0].shape[2]) != query] != 0).any()):
        raise Broken(f"a loss on row {query} reaches other queries (layer {layer})")
    for name, grad, gate in (("key", found[1], gates[0]), ("value", found[2], gates[1])):
        open_pairs = (seen & (gate != 0)).unflatten(1, (tensors[1].shape[1], -1)).any(2)
        reached = (grad != 0).any(-1) & ~open_pairs
        if bool(reached.any()):
            raise Broken(f"a loss on row {query} reaches the {name} of {_place(reached)}, which it does not see or whose gradient is stopped (layer {layer})")


def _check_stack(case: Case, attend: Any, masks: Any, key: int) -> None:
    """Through three layers (or those of the text): what no path leads to does not change by a bit."""
    start, depth = case.tensors()[0], case.layers or 3
    group = case.heads // (case.key_heads or case.heads)

    def run(state: Tensor) -> Tensor:
        for layer in range(depth):
            keys = state[:, ::group]  # a group of heads reads the state of its first
            state = state + case.call(attend, state, keys, keys, layer % case.depth)[0]
        return state

    moved = start.clone()
    moved[:, :, key] = 3 - 2 * moved[:, :, key]
    edges = masks.attend.unflatten(2, (-1, group)).any(3, keepdim=True).expand(-1, -1, -1, group, -1, -1).flatten(2, 3).double()
    step = torch.eye(start.shape[2], dtype=torch.float64) + edges
    reach = step[:, 0]
    for layer in range(1, depth):
        reach = (step[:, layer % case.depth] @ reach).clamp(max=1)
    changed = (run(start) != run(moved)).any(-1) & (reach[..., key] == 0)
    if bool(changed.any()):
        raise Broken(f"the state of token {key} changes {_place(changed)} after {depth} layers, and no path leads there")


# ------------------------------------------------------------------------------------------------ texts


def _formatting(case: Case, backend: str) -> None:
    text = case.spec.text.removeprefix("\ufeff")
    done = format_text(Source(text))
    trees = [syntax.show(parse_tree(Source(x))[0].statements) for x in (text, done)]
    if trees[0] != trees[1]:
        raise Broken("the formatter changes what the text says")
    if format_text(Source(done)) != done:
        raise Broken("formatting twice is not formatting once")


def _claims(case: Case, backend: str) -> None:
    found = violations(case)
    if found:
        raise Broken("\n".join(found))


def _same(what: str, a: Tensor, b: Tensor, layer: int) -> None:
    if a.numel() and not torch.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE):
        raise Broken(f"not so: {what} (layer {layer}); they differ by {(a - b).abs().max():.2e}")


def _place(where: Tensor) -> str:
    """The first place of a (batch, heads, tokens) mask, in words."""
    batch, head, token = where.nonzero()[0].tolist()
    return f"token {token} (head {head}" + (f", row {batch} of the batch)" if where.shape[0] > 1 else ")")


def _speaks_of_heads(spec: Spec) -> bool:
    return spec.checked.speaks_of_heads


def _no_claims(spec: Spec) -> str:
    return "" if spec.checked.claims else "the text makes no claim"


agrees_with_reference = Law("agrees_with_reference", "out, lse and every gradient are those of the dense reference, within the error bound", _agrees)
perturbation = Law("perturbation", "what no path leads to does not change by a bit; what no gradient reaches is exactly 0", _perturbation)
batch_invariance = Law("batch_invariance", "a row's results do not depend on its neighbours in the batch", _batch_invariance)
permutation = Law("permutation", "the order of keys, heads and rows matters through the text alone", _permutation)
formatting = Law("formatting", "the canonical layout is the same text", _formatting)
claims = Law("claims", "every `assert` holds at the sizes tried", _claims, _no_claims, batches=False)


@dataclass(frozen=True, slots=True)
class Pair:
    """One side of a pair, as an opinion in Python sees it: `q.pos`, `q.role == "reason"`, `k.doc`."""

    pos: int
    step: int
    slot: int
    section: int
    index: int
    role: str
    inputs: Mapping[str, Any]

    def __getattr__(self, name: str) -> Any:
        try:
            return self.inputs[name]
        except KeyError:
            raise AttributeError(f"a token has no {name!r} here; it has pos, step, slot, section, index, role, {', '.join(self.inputs)}") from None


Opinion = Callable[..., Any]


def opinion(judge: Opinion | Mapping[str, Opinion]) -> Law:
    """The law that the text says what a function in Python says: `judge(q, k)` or `judge(q, k, world)`, true where q sees k.

    A mapping judges gates too: {"attend": f, "k": g}, where g gives the factor of that gradient (True and False are 1 and 0). `world` has head,
    heads, layer, layers, steps, length, the params, and the inputs that belong to no token.
    """
    judges = dict(judge) if isinstance(judge, Mapping) else {"attend": judge}
    known = ("attend", "q", "k", "v", "hidden")
    for name in judges:
        if name not in known:
            raise InputError(f"an opinion is about attend, q, k, v or hidden; got {name!r}: {did_you_mean(str(name), known)}".rstrip(": "))
    from .opinions import differences

    def try_on(case: Case, backend: str) -> None:
        found = differences(case, judges)
        if found:
            raise Broken(found)

    return Law("opinion", "the text says what a function in Python says", try_on, batches=False)


def built_in() -> dict[str, Law]:
    """Every law by its name; those of packing with the inputs that texts usually declare."""
    from .parts import packing, prefix_tree

    every = (agrees_with_reference, perturbation, batch_invariance, permutation, formatting, claims, packing, prefix_tree)
    return {law.name: law for law in every}


__all__ = ["Broken", "Law", "agrees_with_reference", "batch_invariance", "built_in", "claims", "formatting", "opinion", "permutation", "perturbation"]
