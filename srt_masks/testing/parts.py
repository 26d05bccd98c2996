"""Laws that compare a row with its parts alone: documents packed one behind the other, and a tree of continuations with each of its paths.

What the packed row is cut into follows from the case's seed; the inputs that say so have the names that texts usually give them, or come from
a function of yours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ..diagnostics import InputError
from ..kernels.attention import Attention
from ..packed import documents
from ..spec import Spec
from ..time_steps import each_axis
from .case import Case
from .keeping import keeps
from .laws import TOLERANCE, Broken, Condition, Law

Inputs = Callable[[list[int]], Mapping[str, Tensor]]

DOCUMENT = {"doc": "doc", "docs": "doc", "document": "doc", "segment": "doc", "segment_ids": "doc", "start": "start", "begin": "start"}
TREE = ("parent", "depth", "tin", "tout", "ancestor")


def packing_by(inputs: Inputs) -> Law:
    """Packing for a text with inputs of its own: `inputs(lengths)` gives them for documents of so many time steps each, packed in this order."""
    return _law("packing", "documents packed into a row are the documents alone", _cut, inputs, lambda spec: "")


def prefix_tree_by(inputs: Inputs) -> Law:
    """Prefix trees for a text with inputs of its own: `inputs(parents)` gives them for a tree, the parent of each time step (-1 for the first)."""
    return _law("prefix_tree", "a tree of continuations is every path alone", _grow, inputs, lambda spec: "")


def tree(parents: Sequence[int]) -> dict[str, Tensor]:
    """`parent`, `depth`, `tin` and `tout` (a node's descendants are those with tin <= theirs < tout), each (nodes,) int64, and `ancestor`
    (nodes, nodes) bool, itself included, of a tree given by the parent of each node, which comes before it."""
    count = len(parents)
    children: list[list[int]] = [[] for _ in parents]
    ancestor = torch.eye(count, dtype=torch.bool)
    depth = [0] * count
    for node, parent in enumerate(parents):
        if parent >= 0:
            children[parent].append(node)
            ancestor[node] |= ancestor[parent]
            depth[node] = depth[parent] + 1
    tin, tout, clock = [0] * count, [0] * count, 0
    stack = [(n, False) for n, parent in reversed(list(enumerate(parents))) if parent < 0]
    while stack:
        node, left = stack.pop()
        if left:
            tout[node] = clock
            continue
        tin[node], clock = clock, clock + 1
        stack += [(node, True), *((c, False) for c in reversed(children[node]))]
    columns = {"parent": list(parents), "depth": depth, "tin": tin, "tout": tout}
    return {n: torch.tensor(x, dtype=torch.int64) for n, x in columns.items()} | {"ancestor": ancestor}


# ------------------------------------------------------------------------------------------------ a row and its parts


@dataclass(frozen=True, slots=True)
class _Division:
    """How a packed row divides: the steps of every part, and what describes the whole and each part to the inputs' function."""

    whole: list[int]
    parts: list[list[int]]
    alone: list[list[int]]


def _cut(case: Case) -> _Division:
    """Documents: the row's steps, cut where the bits of the seed say, so that smaller seeds make fewer documents."""
    steps = each_axis(case.steps)[0] or 0
    ends = [0, *(i for i in range(1, steps) if case.seed >> (i - 1) % 16 & 1), steps]
    lengths = [b - a for a, b in pairwise(ends)]
    return _Division(lengths, [list(range(a, b)) for a, b in pairwise(ends)], [[n] for n in lengths])


def _grow(case: Case) -> _Division:
    """A tree: each step hangs on one of the four before it, as two bits of the seed say; its parts are the paths from the first to every leaf."""
    steps = each_axis(case.steps)[0] or 0
    parents = [-1 if i == 0 else max(0, i - 1 - (case.seed >> 2 * ((i - 2) % 8) & 3)) for i in range(steps)]
    paths = []
    for leaf in (i for i in range(steps) if i not in parents):
        path = [leaf]
        while parents[path[-1]] >= 0:
            path.append(parents[path[-1]])
        paths.append(path[::-1])
    return _Division(parents, paths, [list(range(-1, len(p) - 1)) for p in paths])


def _law(name: str, about: str, divide: Callable[[Case], _Division], inputs: Inputs | None, unfit: Callable[[Spec], str]) -> Law:
    def refuse(spec: Spec) -> str:
        checked = spec.checked
        if checked.keys is not None or checked.asks is not None or not checked.queries.is_single_repeat:
            return "the layout is no single `repeat`"
        return unfit(spec)

    def try_on(case: Case, backend: str) -> dict[Condition, bool] | None:
        if why := refuse(case.spec):
            raise InputError(f"the law `{name}` says nothing of this text: {why}")
        division = divide(case)
        rows = case.spec.checked.queries.rows_per_step
        describe = inputs or (lambda pieces: _by_names(case.spec, pieces, name))
        whole = replace(case, lengths=None, inputs={**case.inputs, **describe(division.whole)})
        ats = [(torch.tensor(steps, dtype=torch.int64)[:, None] * rows + torch.arange(rows)).flatten() for steps in division.parts]
        parts = [
            replace(whole, steps=len(steps), inputs={**_picked(case, steps, at), **describe(pieces)})
            for steps, pieces, at in zip(division.parts, division.alone, ats, strict=True)
        ]
        right = all(map(keeps, (whole, *parts)))
        stated = Condition(
            "no case had several parts whose inputs are, there and in the whole row, what the text says of them (`given`)",
            f"give inputs that are: srt_masks.testing.{name}_by",
        )
        met = {stated: right and len(parts) > 1} if case.spec.checked.facts else None
        if not right:
            return met
        q, k, v, dout = whole.tensors()
        attend = case.compile(backend)
        out, gradients = _run(whole, attend, q, k, v, dout)
        sums = [torch.zeros_like(g) for g in gradients]
        taken = torch.zeros(q.shape[2], dtype=torch.bool)
        for steps, part, at in zip(division.parts, parts, ats, strict=True):
            # A token of several parts takes its upstream gradient from the first of them.
            share = dout[:, :, at] * ~taken[at][:, None]
            taken[at] = True
            alone, own = _run(part, attend, q[:, :, at], k[:, :, at], v[:, :, at], share)
            if alone.numel() and not torch.allclose(out[:, :, at], alone, rtol=TOLERANCE, atol=TOLERANCE):
                worst = (out[:, :, at] - alone).abs().amax((0, 1, 3))
                raise Broken(f"{about}: not so for steps {steps} of {division.whole}: token {int(at[worst.argmax()])} differs by {worst.max():.2e}")
            for total, g in zip(sums, own, strict=True):
                total[:, :, at] += g
        for what, a, b in zip(("q", "k", "v"), gradients, sums, strict=True):
            if a.numel() and not torch.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE):
                raise Broken(f"{about}: not so for the gradient of {what}, with {division.whole}: it differs by {(a - b).abs().max():.2e}")
        return met

    def sets(spec: Spec) -> frozenset[str]:
        return frozenset(inputs([1]) if inputs else _by_names(spec, [1] if name == "packing" else [-1], name))

    return Law(name, about, try_on, refuse, of_every_text=False, batches=False, sets=sets)


def _by_names(spec: Spec, pieces: list[int], law: str) -> dict[str, Tensor]:
    """The inputs a text declares, of those that documents or trees are usually described by."""
    rows = spec.checked.queries.rows_per_step
    found = {}
    if law == "packing":
        by_step, by_token = documents(lengths=pieces), documents(lengths=[n * rows for n in pieces])
        for name, declared in spec.inputs.items():
            if name in DOCUMENT and declared.axes in (("token",), ("step",)) and not declared.sizes:
                found[name] = (by_token if declared.axes == ("token",) else by_step)[DOCUMENT[name]]
    else:
        for name, value in tree(pieces).items():
            if name in spec.inputs:
                found[name] = value.repeat_interleave(rows) if spec.inputs[name].axes == ("token",) else value
    return found


def _picked(case: Case, steps: list[int], at: Tensor) -> dict[str, Any]:
    """The case's inputs for some of its steps."""
    found = {}
    for name, value in case.inputs.items():
        for place, axis in enumerate(case.spec.inputs[name].axes if name in case.spec.inputs else ()):
            if axis in ("token", "query", "key"):
                value = value.index_select(place, at)
            elif axis == "step":
                value = value.index_select(place, torch.tensor(steps, dtype=torch.int64))
        found[name] = value
    return found


def _run(case: Case, attend: Attention, q: Tensor, k: Tensor, v: Tensor, dout: Tensor) -> tuple[Tensor, list[Tensor]]:
    leaves = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    out, _ = case.call(attend, *leaves)  # type: ignore[arg-type]
    return out.detach(), list(torch.autograd.grad((out * dout).sum(), leaves, allow_unused=True, materialize_grads=True))


def _no_documents(spec: Spec) -> str:
    told = any(n in DOCUMENT and i.axes in (("token",), ("step",)) and not i.sizes for n, i in spec.inputs.items())
    return "" if told else f"it declares none of {', '.join(DOCUMENT)}, per token or per step (packing_by takes others)"


def _no_tree(spec: Spec) -> str:
    told = ("tin" in spec.inputs and "tout" in spec.inputs) or "ancestor" in spec.inputs
    return "" if told else "it declares neither tin and tout nor ancestor (prefix_tree_by takes others)"


packing = _law("packing", "documents packed into a row are the documents alone", _cut, None, _no_documents)
prefix_tree = _law("prefix_tree", "a tree of continuations is every path alone", _grow, None, _no_tree)
