"""A refutation, run: does what it says really happen in a stack of reference layers? Nothing is said to be refuted that did not.

For what flows, the source's state is moved and the sink's output must change by a bit; for gradients, that of the sink's output into the source's
state must not be 0. In the same run nothing else may change, and no other gradient be other than 0, but where `search.reach` says that a path leads.
It stands on the reference alone, as `search` does, so that a mistake of the compiler or of z3 cannot confirm itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..grammar import checked as c
from ..grammar.checked import Checked
from ..grammar.syntax import Claim
from ..reference.masks import Row, pairs
from .limits import Budget
from .search import about, edges, reach
from .stack import Stack, stack
from .verdict import Hop, Path, World

SPARE_BITS = 40  # by which a change is larger where it arrives than it need be
MOST_BITS = 900  # of a change where it sets out
MOST_DEPTH = 64  # of the stacks in which a path is missed


@dataclass(frozen=True, slots=True)
class Replay:
    """Whether what was refuted really is, and what was run and seen."""

    confirmed: bool
    words: str


def replay(checked: Checked, claim: c.Claim, world: World, path: Path, budget: Budget | None = None) -> Replay:
    """Run the refutation of a claim: the call `world`, and what `search.refute` or a prover found there.

    Raises InputError for a call beyond what `search.edges` lays out, Undecided where the time is spent."""
    row = world.row(checked)
    if why := _unsound(row, claim, path):
        return Replay(False, why)
    gradients = claim.kind in (Claim.GRAD, Claim.NO_GRAD)
    match claim.kind:
        case Claim.PAIRS | Claim.CACHEABLE:
            return _pair(row, claim, path.hops[0])
        case Claim.EVERY_QUERY:
            return _dead_row(row, path.sink)
        case Claim.FLOW | Claim.GRAD:
            return _missing(row, path, gradients, budget)
        case Claim.NO_FLOW | Claim.NO_GRAD | Claim.NO_LEAK if not path.hops:
            return Replay(True, f"row {path.sink} reaches itself, by its own residual stream, in every model")
        case Claim.NO_FLOW | Claim.NO_GRAD | Claim.NO_LEAK:
            return _joined(row, path, gradients, budget)


# ------------------------------------------------------------------------------------------------ what was handed in


def _unsound(row: Row, claim: c.Claim, path: Path) -> str:
    """Why this cannot refute the claim, whatever runs: the claim does not speak of it, or its hops are no path. Nothing, if it may."""
    tokens, keys = len(row.own["pos"]), len(row.keys["pos"])
    if not (0 <= path.sink < tokens and 0 <= path.source < (tokens if claim.kind in (Claim.NO_LEAK, Claim.EVERY_QUERY) else keys)):
        return f"the call has no rows {path.sink} and {path.source}: it has {tokens} tokens and {keys} keys"
    if claim.kind is Claim.EVERY_QUERY:
        return "" if path.sink in row.queries["pos"] else f"row {path.sink} does not ask"
    if not bool(about(row, claim)[path.sink, path.source]):
        return f"the claim does not speak of rows {path.sink} and {path.source} in this call"
    if claim.kind in (Claim.FLOW, Claim.GRAD):
        return "a path that is there refutes no claim that there is one" if path.hops else ""
    is_of_pairs = claim.kind in (Claim.PAIRS, Claim.CACHEABLE)
    if not path.hops:
        by_itself = path.sink == path.source and not is_of_pairs and (row.checked.keys is None or claim.kind is Claim.NO_LEAK)
        return "" if by_itself else f"no hop leads from row {path.source} to row {path.sink}"
    return _broken(row, path, claim.kind is Claim.NO_GRAD, one=is_of_pairs or row.checked.keys is not None)


def _broken(row: Row, path: Path, gradients: bool, one: bool) -> str:
    """The first hop that is not there, or does not go on from the one before."""
    through = edges(row, gradients)
    at, layer = path.source, -1
    for hop in path.hops:
        where = f"row {hop.query} reads row {hop.key} in head {hop.head} of layer {hop.layer}"
        places = (row.queries["pos"] == hop.query).nonzero()
        if not len(places) or not (0 <= hop.head < row.heads and 0 <= hop.key < through.shape[-1]):
            return f"{where}: there is no such pair in this call"
        if row.checked.speaks_of_layers and not (0 <= hop.layer < row.layers):
            return f"{where}: this call has {row.layers} layers"
        if hop.key != at:
            return f"{where}: the path was at row {at}"
        if row.checked.speaks_of_layers and hop.layer <= layer:
            return f"{where}: the path is behind layer {layer} already"
        if not through[hop.layer if len(through) > 1 else 0, hop.head if through.shape[1] > 1 else 0, int(places[0]), hop.key]:
            return f"{where}: no, {'no gradient passes' if gradients else 'it is not attended'}"
        at, layer = hop.query, hop.layer
    if one and len(path.hops) > 1:
        return f"{len(path.hops)} hops, and one pair is spoken of"
    return "" if at == path.sink else f"the path ends at row {at}, not at row {path.sink}"


# ------------------------------------------------------------------------------------------------ what runs


def _joined(row: Row, path: Path, gradients: bool, budget: Budget | None) -> Replay:
    """A path that should not be: what it carries arrives, and where no path leads nothing does."""
    layers = stack(row, len(path.hops))
    depth = len(layers.layers)
    reached = reach(row, gradients, depth=depth, budget=budget)
    if gradients:
        reached, touched = reached[path.sink], _touched(layers, path.sink, budget)
        arrives = bool(touched[path.source])
        what = f"the gradient of row {path.sink}'s output into the state of row {path.source} is {'not ' if arrives else ''}0"
        else_, kept = "a gradient is not 0 where no path returns", "it is exactly 0"
    else:
        reached, touched = reached[:, path.source], _changed(layers, path.source, _bits(row, path), budget)
        arrives = bool(touched[path.sink])
        what = f"another state of row {path.source} changes {'' if arrives else 'no bit of '}the output of row {path.sink}"
        else_, kept = "a row changes that no path leads to", "nothing changes"
    through = f"through {depth} reference layer{'s' if depth > 1 else ''}"
    stray = (touched & ~reached).nonzero().flatten().tolist()
    if stray:
        return Replay(False, f"{through} {else_}: row {stray[0]}")
    others = int((~reached).sum())
    beside = f"; {kept} at the {others} row{'s' if others > 1 else ''} that no path joins" if others else ""
    return Replay(arrives, f"{what}, {through}{beside}")


def _missing(row: Row, path: Path, gradients: bool, budget: Budget | None) -> Replay:
    """A path that should be, and is not: nothing arrives, through as many layers as any path of this call has."""
    depth, every = 1, reach(row, gradients, budget=budget)
    while depth < MOST_DEPTH and not torch.equal(reach(row, gradients, depth=depth, budget=budget), every):
        depth *= 2
    layers = stack(row, depth)
    if gradients:
        arrives = bool(_touched(layers, path.sink, budget)[path.source])
        what = f"the gradient of row {path.sink}'s output into the state of row {path.source} is {'not' if arrives else 'exactly'} 0"
    else:
        arrives = bool(_changed(layers, path.source, SPARE_BITS, budget)[path.sink])
        what = f"another state of row {path.source} changes {'' if arrives else 'no bit of '}the output of row {path.sink}"
    number = len(layers.layers)
    return Replay(not arrives, f"{what}, through {number} reference layer{'s' if number > 1 else ''}")


def _changed(layers: Stack, source: int, bits: int, budget: Budget | None = None) -> Tensor:
    """Which tokens' outputs change by a bit when the state of one (a key, with two layouts) is another: bool (tokens,)."""
    own, other = layers.states()
    moved = other.clone()
    moved[source] += 2.0**bits * torch.linspace(-1, 1, layers.dim, dtype=torch.float64)
    after = layers.run(own if layers.row.checked.keys is not None else moved, moved, budget)
    return (layers.run(own, other, budget) != after).any(-1)


def _touched(layers: Stack, sink: int, budget: Budget | None = None) -> Tensor:
    """Into which states (the keys', with two layouts) the output of a token has a gradient that is not 0: bool (tokens,) or (keys,)."""
    own, other = layers.states()
    leaf = other.requires_grad_()
    out = layers.run(own if layers.row.checked.keys is not None else leaf, leaf, budget)[sink]
    (found,) = torch.autograd.grad(out @ torch.linspace(1, 2, layers.dim, dtype=torch.float64), leaf, allow_unused=True, materialize_grads=True)
    return (found != 0).any(-1)


def _bits(row: Row, path: Path) -> int:
    """How large a change has to be to arrive: each hop may be one of many keys' weights, and is a projection on one head."""
    attended = edges(row)
    lost = 0.0
    for hop in path.hops:
        place = int((row.queries["pos"] == hop.query).nonzero()[0])
        keys = attended[hop.layer if len(attended) > 1 else 0, hop.head if attended.shape[1] > 1 else 0, place].sum()
        lost += math.log2(int(keys)) + math.log2(row.heads) + 2
    return min(MOST_BITS, SPARE_BITS + math.ceil(lost))


def _pair(row: Row, claim: c.Claim, hop: Hop) -> Replay:
    """A pair that attends against a claim about pairs: the reference says so, and the key's value changes the query's output."""
    place = int((row.queries["pos"] == hop.query).nonzero()[0])
    words = row.words(hop.head, hop.layer, place, hop.key)
    if claim.where is not None and bool(words.value(claim.where)):
        return Replay(False, f"the claim holds of rows {hop.query} and {hop.key} in head {hop.head} of layer {hop.layer}")
    if not bool(pairs(row.checked, words, 1, 1)[0]):
        return Replay(False, f"row {hop.query} does not attend to row {hop.key} in head {hop.head} of layer {hop.layer}")
    layers = stack(row, 1)
    layer = layers.layers[hop.layer if row.checked.speaks_of_layers else 0]
    own, other = layers.states()
    moved = other.clone()
    moved[hop.key] *= 2.0**SPARE_BITS  # of the same direction: the key stays, the value is another
    outs = [layers.attention(layer, own, x)[0][0, hop.head, place] for x in (other, moved)]
    changes = not torch.equal(*outs)
    return Replay(changes, f"another value at row {hop.key} changes {'' if changes else 'no bit of '}what row {hop.query} reads, in the reference")


def _dead_row(row: Row, query: int) -> Replay:
    """A row that sees nothing in some head of some layer."""
    place = int((row.queries["pos"] == query).nonzero()[0])
    layers = stack(row, 1)
    for number, layer in enumerate(layers.layers):
        out, lse = layers.attention(layer, *layers.states())
        for head in (lse[0, :, place] == -math.inf).nonzero().flatten().tolist():
            if not bool(out[0, head, place].any()):
                return Replay(True, f"row {query} has lse = -inf and output 0 in head {head} of layer {number}, in the reference")
    return Replay(False, f"row {query} sees a key in every head of every layer, in the reference")
