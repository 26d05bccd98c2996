"""What an `assert` states, tried densely at one size: every pair, every path. A size that holds proves nothing of others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..diagnostics import Source
from ..grammar import checked as c
from ..grammar.syntax import Claim
from ..reference.masks import Row, pairs, token_table
from .case import Case


@dataclass(frozen=True, slots=True)
class Verdict:
    """A claim at one size: `wrong` says why it does not hold, or nothing; `tried` is false where nothing here could have refuted it."""

    claim: str
    wrong: str
    tried: bool


def judge(case: Case) -> list[Verdict]:
    """Every claim at this size, in words, with the first pair that refutes it."""
    spec, row = case.spec, case.row()
    source = Source(spec.text.removeprefix("\ufeff"), spec.filename)
    found = []
    for claim in spec.checked.claims:
        line, _ = source.place(claim.span.start)
        words = " ".join(source.text[claim.span.start : claim.span.end].split())
        found.append(Verdict(f"line {line}: `{words}`", *_refutation(row, claim)))
    return found


def _refutation(row: Row, claim: c.Claim) -> tuple[str, bool]:
    """Why a claim does not hold, or nothing; and whether its condition held for any pair."""
    tried = False
    match claim.kind:
        case Claim.PAIRS:
            for layer, head, attend, _, where in _every(row, claim):
                if bool((bad := attend & ~where).any()):
                    i, j = _first(bad)
                    return f"query {int(row.queries['pos'][i])} sees key {j}, in head {head} of layer {layer}", True
                # A pair that would refute it if it were attended.
                tried |= bool(attend.any()) and bool((~where).any())
            return "", tried
        case Claim.EVERY_QUERY:
            for layer, head, attend, _, _ in _every(row, claim):
                if bool((dead := ~attend.any(-1)).any()):
                    return f"query {int(row.queries['pos'][dead][0])} sees nothing, in head {head} of layer {layer}", True
            return "", bool(len(row.queries["pos"]))
        case Claim.CACHEABLE:
            if row.checked.keys is not None:
                return "", True  # keys of a layout of their own are there before any query
            # A sequence is made section by section and step by step; those of one step are made together.
            made = row.own["section"] * (1 + _most(row.own["step"])) + row.own["step"]
            later = made[row.keys["pos"]][None, :] > made[row.queries["pos"]][:, None]
            for layer, head, attend, _, _ in _every(row, claim):
                if bool((bad := attend & later).any()):
                    i, j = _first(bad)
                    return f"query {int(row.queries['pos'][i])} sees key {j}, which is made in a later step (head {head}, layer {layer})", True
            return "", bool(later.numel())
        case Claim.NO_LEAK:
            table = token_table(row)
            data = torch.isin(row.own["role"], torch.tensor(row.checked.data, dtype=torch.int64))
            trained = table.target[:, None] == torch.where(data, row.own["index"], -2)[None, :]
            return _path(_closure(row, claim, False) & trained, "is trained to predict", "and a path leads from it"), bool(trained.any())
        case Claim.NO_FLOW | Claim.NO_GRAD as kind:
            reach, about = _closure(row, claim, kind is Claim.NO_GRAD), _anywhere(row, claim)
            return _path(reach & about, "reaches", "against the claim" if kind is Claim.NO_FLOW else "with its gradient, against the claim"), bool(about.any())
        case Claim.FLOW | Claim.GRAD as kind:
            about = _anywhere(row, claim)
            return _path(about & ~_closure(row, claim, kind is Claim.GRAD), "does not reach", "through any number of layers"), bool(about.any())


def _every(row: Row, claim: c.Claim):
    """(layer, head, attended pairs, pairs that pass a gradient to a state, pairs the claim is about), each (queries, keys) bool."""
    for layer in range(row.layers):
        for head in range(row.heads):
            words = row.words(head, layer)
            shape = len(row.queries["pos"]), len(row.keys["pos"])
            attend, _, k, v, hidden = pairs(row.checked, words, *shape)
            where = words.value(claim.where).expand(shape) if claim.where is not None else torch.ones(shape, dtype=torch.bool)
            yield layer, head, attend, (attend & ((k != 0) | (v != 0)) & (hidden != 0)).expand(shape), where


def _closure(row: Row, claim: c.Claim, gradients: bool) -> Tensor:
    """Which token's state reaches which token's output, (tokens, tokens) bool, through any number of layers of any kind: its own does,
    by the residual stream. With two layouts there is one hop, (queries, keys)."""
    edges = None
    for _, _, attend, passes, _ in _every(row, claim):
        edge = passes if gradients else attend
        edges = edge if edges is None else edges | edge
    assert edges is not None
    if row.checked.keys is not None:
        return edges
    reach = torch.eye(len(row.own["pos"]), dtype=torch.bool)
    reach[row.queries["pos"]] |= edges
    while True:
        wider = (reach.double() @ reach.double()) > 0
        if torch.equal(wider, reach):
            return reach
        reach = wider


def _anywhere(row: Row, claim: c.Claim) -> Tensor:
    """The pairs a claim is about, in some head and layer, as (tokens, tokens)."""
    pairs_of = None
    for _, _, _, _, where in _every(row, claim):
        pairs_of = where if pairs_of is None else pairs_of | where
    assert pairs_of is not None
    if row.checked.keys is not None:
        return pairs_of
    whole = torch.zeros(len(row.own["pos"]), len(row.own["pos"]), dtype=torch.bool)
    whole[row.queries["pos"]] = pairs_of
    return whole


def _path(bad: Tensor, verb: str, rest: str) -> str:
    if not bool(bad.any()):
        return ""
    query, key = _first(bad)
    return f"token {query} {verb} token {key}, {rest}" if verb == "is trained to predict" else f"token {key} {verb} token {query}, {rest}"


def _first(where: Tensor) -> tuple[int, int]:
    i, j = where.nonzero()[0].tolist()
    return i, j


def _most(x: Tensor) -> int:
    return int(x.max()) if x.numel() else 0
