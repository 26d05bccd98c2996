"""The laws a spec is held to, each by name. A law is tried on a `Case`, and raises `Broken` where it does not hold.

agrees_with_reference   out, lse and every gradient are those of the dense reference, within the error bound
perturbation            what no path leads to does not change by a bit; what no gradient reaches is exactly 0
batch_invariance        a row's results do not depend on its neighbours
permutation             attention does not see the order of keys, heads and rows of the batch, but through the text
poison                  what nobody attends, and what lies past a row's length, may hold anything
reuse                   an attention that was called before gives what a new one does
formatting              the canonical layout is the same text
claims                  every `assert` holds at this size
packing                 documents packed into a row are the documents alone          (texts that declare doc, start or position)
prefix_tree             a tree of continuations is every path alone                  (texts that declare tin and tout, or ancestor)
opinion                 the text says what a function in Python says                 (`check(spec, opinion=...)`)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..diagnostics import Source
from ..grammar import syntax
from ..grammar.formatter import format_text
from ..grammar.parser import parse as parse_tree
from ..kernels.attention import Attention
from ..reference.attention import attention
from ..reference.masks import DenseMasks
from ..spec import Spec
from .case import Case
from .claims import judge
from .comparing import Strides, compare_case, varied

TOLERANCE = 1e-9  # float64


class Broken(AssertionError):
    """A law that does not hold: what was compared, where, and by how much."""


class NotTried(Broken):
    """A law that no case put to the test: nothing at the sizes tried could have broken it."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What some case has to meet, for a law to have been tried at all: what to say if none does, and the remedy, where it is not cases of other sizes."""

    words: str
    remedy: str = ""


Try = Callable[[Case, str], Mapping[Condition, bool] | None]


@dataclass(frozen=True, slots=True)
class Law:
    """`try_on(case, backend)` raises Broken; `unfit(spec)` says why the law says nothing of a spec, or is empty.

    What `try_on` returns, if anything, are conditions, and whether this case met them.
    """

    name: str
    about: str
    try_on: Try
    unfit: Callable[[Spec], str] = lambda spec: ""
    of_every_text: bool = True  # else it says what some texts are meant to be, and is tried where it is asked for
    batches: bool = True  # whether it is tried on several rows of a batch with inputs and lengths of their own
    sets: Callable[[Spec], frozenset[str]] = lambda spec: frozenset()  # inputs that it gives itself
    most_tokens: int = 40  # of the usual cases
    beyond: bool = False  # whether half of the cases reach beyond the numbers in the text
    sized: bool = True  # else it is about the text alone, and one case is all there are

    def __call__(self, case: Case, backend: str = "auto") -> Mapping[Condition, bool]:
        """Try the law on one case: the conditions it met. Raises Broken."""
        return self.try_on(case, backend) or {}


# ------------------------------------------------------------------------------------------------ backend and reference


def _agrees(case: Case, backend: str) -> None:
    """dtype, strides, and who asks for a gradient are as the bits of the seed say."""
    how = varied(case.seed)
    for layer in range(case.depth):
        wrong = [c for c in compare_case(case, backend=backend, layer=layer, **how) if not c.holds]
        if wrong:
            lines = "\n".join(f"  {c}" for c in wrong)
            said = f"{str(how['dtype']).removeprefix('torch.')}, {_words(how)}layer {layer}"
            raise Broken(f"backend {backend!r} differs from the reference in {said}:\n{lines}")


def _words(how: Mapping[str, object]) -> str:
    needs, strides = how["needs"], how["strides"]
    some = "" if needs == (True, True, True) else f"gradients of {', '.join(n for n, need in zip('qkv', needs, strict=True) if need)} alone, "  # type: ignore[call-overload]
    return some + ("" if strides is Strides.PLAIN else f"strides {strides.name.lower()}, ")  # type: ignore[attr-defined]


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
        if not case.spec.checked.speaks_of_heads:
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


def _check_reach_of_gradients(case: Case, attend: Attention, masks: DenseMasks, tensors: list[Tensor], query: int, layer: int) -> None:
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


def _check_stack(case: Case, attend: Attention, masks: DenseMasks, key: int) -> None:
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
    text = case.spec.text
    done = format_text(Source(text))
    trees = [syntax.show(parse_tree(Source(x))[0].statements) for x in (text, done)]
    if trees[0] != trees[1]:
        raise Broken("the formatter changes what the text says")
    if format_text(Source(done)) != done:
        raise Broken("formatting twice is not formatting once")


def _claims(case: Case, backend: str) -> dict[Condition, bool]:
    found = judge(case)
    if wrong := [f"{x.claim} does not hold: {x.wrong}" for x in found if x.wrong]:
        raise Broken("\n".join(wrong))
    return {Condition(f"{x.claim}: its condition held for no pair", x.remedy): x.tried for x in found}


def _same(what: str, a: Tensor, b: Tensor, layer: int) -> None:
    if a.numel() and not torch.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE):
        raise Broken(f"not so: {what} (layer {layer}); they differ by {(a - b).abs().max():.2e}")


def _place(where: Tensor) -> str:
    """The first place of a (batch, heads, tokens) mask, in words."""
    batch, head, token = where.nonzero()[0].tolist()
    return f"token {token} (head {head}" + (f", row {batch} of the batch)" if where.shape[0] > 1 else ")")


def _no_claims(spec: Spec) -> str:
    return "" if spec.checked.claims else "the text makes no claim"


agrees_with_reference = Law("agrees_with_reference", "out, lse and every gradient are those of the dense reference, within the error bound", _agrees)
perturbation = Law("perturbation", "what no path leads to does not change by a bit; what no gradient reaches is exactly 0", _perturbation)
batch_invariance = Law("batch_invariance", "a row's results do not depend on its neighbours in the batch", _batch_invariance)
permutation = Law("permutation", "the order of keys, heads and rows matters through the text alone", _permutation)
formatting = Law("formatting", "the canonical layout is the same text", _formatting, sized=False)
claims = Law("claims", "every `assert` holds at the sizes tried", _claims, _no_claims, batches=False, most_tokens=12, beyond=True)


def built_in() -> dict[str, Law]:
    """Every law by its name; those of packing with the inputs that texts usually declare."""
    from .calls import poison, reuse
    from .parts import packing, prefix_tree

    every = (agrees_with_reference, perturbation, batch_invariance, permutation, poison, reuse, formatting, claims, packing, prefix_tree)
    return {law.name: law for law in every}
