"""What a claim means in one row, exactly: pairs as edges, paths as their product. Dense, for small sizes.

    row --edges--> who reads whom, by layer and head --reach--> whose state is in whose output --refute--> the shortest path against a claim

An edge: the query, which asks, attends to the key. A gradient *may pass* it unless the gates of both k and v, or the hidden gate, are 0 there; it
*passes* unless besides k alone is open and the query sees no other key: its weight is 1, whatever the key says. The gate of q cuts no path.

A path takes one edge a layer, or stays where it is by the residual stream. Where the text speaks of layers each is taken once, in order; where it
does not, there are as many as a path needs. With two layouts a path is one edge, from one axis to the other. A token that does not ask reads
nothing, and no claim is about what it reads.

All of it stands on the reference alone. What holds in one row says nothing of others; `exhaust.py` tries all that are small.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise, repeat

import torch
from torch import Tensor

from ..diagnostics import InputError
from ..grammar import checked as c
from ..grammar.syntax import Claim
from ..reference.masks import Row, pairs, token_table
from .limits import Budget, check
from .verdict import Hop, Path

MOST_TOKENS = 4096
MOST_PAIRS = 2**28  # of all heads and layers that differ


# ------------------------------------------------------------------------------------------------ edges


def edges(row: Row, gradients: bool = False, *, may: bool = False) -> Tensor:
    """Who reads whom: bool (layers, heads, queries, keys), with one layer or head where the text does not speak of them. With `gradients`, the
    pairs that pass one to the state of the key; with `may` also those that would if the query saw another key.

    Raises InputError beyond MOST_TOKENS and MOST_PAIRS.
    """
    checked = row.checked
    layers, heads = row.layers if checked.speaks_of_layers else 1, row.heads if checked.speaks_of_heads else 1
    _check_size(row, layers, heads)
    found = [_edges_of(row, head, layer, gradients, may) for layer in range(layers) for head in range(heads)]
    return torch.stack(found).unflatten(0, (layers, heads))


def _check_size(row: Row, layers: int = 1, heads: int = 1) -> None:
    queries, keys = len(row.queries["pos"]), len(row.keys["pos"])
    if max(len(row.own["pos"]), keys) > MOST_TOKENS or layers * heads * queries * keys > MOST_PAIRS:
        raise InputError(
            f"paths are searched among at most {MOST_TOKENS:,} tokens and {MOST_PAIRS:,} pairs; this row has {max(len(row.own['pos']), keys):,} tokens, "
            f"and {layers} x {heads} x {queries:,} x {keys:,} pairs of layers, heads, queries and keys: give fewer steps, heads or layers"
        )


def _edges_of(row: Row, head: int, layer: int, gradients: bool, may: bool) -> Tensor:
    shape = len(row.queries["pos"]), len(row.keys["pos"])
    attend, _, k, v, hidden = pairs(row.checked, row.words(head, layer), *shape)
    if not gradients:
        return attend
    by_key = k != 0
    if not may:
        by_key = by_key & (attend.sum(-1, keepdim=True) > 1)  # else P = 1 and dS = 0
    return attend & (by_key | (v != 0)) & (hidden != 0)


def _between_tokens(row: Row, by_head: Tensor) -> Tensor:
    """Edges as (layers, tokens, tokens), in any head; with two layouts as (layers, queries, keys)."""
    found = by_head.any(1)
    if row.checked.keys is not None:
        return found
    whole = found.new_zeros(len(found), *2 * row.own["pos"].shape)
    whole[:, row.queries["pos"]] = found
    return whole


# ------------------------------------------------------------------------------------------------ paths


def reach(row: Row, gradients: bool = False, *, may: bool = False, depth: int | None = None, budget: Budget | None = None) -> Tensor:
    """Whose state (column) reaches whose output (row), or its gradient returns there: bool (tokens, tokens); with two layouts (queries, keys).

    `depth`: through so many layers, where the text does not speak of them; as many as it takes, unless given. Raises InputError as `edges` does, and
    Undecided where the time is spent.
    """
    layers = _between_tokens(row, edges(row, gradients, may=may))
    if row.checked.keys is not None:
        return layers.any(0)
    found = _itself(layers)
    if row.checked.speaks_of_layers:
        for layer in layers:
            check(budget)
            found = found | _then(layer, found)
    elif depth is not None:
        for _ in range(depth):
            check(budget)
            found = found | _then(layers[0], found)
    else:
        wider = found | layers[0]
        while not torch.equal(wider, found):
            check(budget)
            found, wider = wider, _then(wider, wider)
    return found


def shortest_path(
    row: Row, source: int, sink: int, gradients: bool = False, *, may: bool = False, budget: Budget | None = None
) -> Path | None:  # fmt: skip
    """The path with the fewest hops from the state of the token at position `source` (a key, with two layouts) to the output of the one at `sink`;
    of several the one in the earliest layers, then of the first keys, then heads. Without hops from a token to itself; None where there is none.

    Raises InputError as `edges` does, and Undecided where the time is spent.
    """
    by_head = edges(row, gradients, may=may)
    layers = _between_tokens(row, by_head)

    def hop(query: int, key: int, layer: int) -> Hop:
        place = int((row.queries["pos"] == query).nonzero()[0])
        return Hop(query, key, int(by_head[layer, :, place, key].nonzero()[0]), layer)

    if row.checked.keys is not None:
        seen = layers[:, sink, source].nonzero()
        return Path(source, sink, (hop(sink, source, int(seen[0])),)) if len(seen) else None
    tokens, in_order = layers.shape[-1], row.checked.speaks_of_layers
    fewest = torch.full((tokens,), tokens)  # hops to each token: at most tokens - 1
    fewest[source] = 0
    after = [fewest]
    for layer in layers if in_order else repeat(layers[0], tokens):
        if not in_order and after[-1][sink] < tokens:
            break
        check(budget)
        after.append(torch.minimum(after[-1], torch.where(layer, after[-1] + 1, tokens).amin(-1)))
    if after[-1][sink] == tokens:
        return None
    hops: list[Hop] = []
    token = sink
    for number in range(len(after) - 1, 0, -1):
        left = int(after[number][token])
        if left < after[number - 1][token]:  # else it was there already
            layer = number - 1 if in_order else 0
            key = int((layers[layer, token] & (after[number - 1] == left - 1)).nonzero()[0])
            hops.append(hop(token, key, layer))
            token = key
    return Path(source, sink, tuple(reversed(hops)))


def fewest_hops(row: Row, gradients: bool = False) -> Tensor:
    """The hops of the shortest path from each token's state (column) to each token's output (row), int64 (tokens, tokens), with two layouts
    (queries, keys): 0 from a token to itself, -1 where there is none.

    Raises InputError as `edges` does.
    """
    layers = _between_tokens(row, edges(row, gradients))
    if row.checked.keys is not None:
        return torch.where(layers.any(0), 1, -1)
    hops = torch.where(_itself(layers), 0, -1)
    if row.checked.speaks_of_layers:
        for number, found in enumerate(_in_order(layers)):
            hops[found & (hops < 0)] = number
        return hops
    by_sink, counts = layers[0].T.nonzero()[:, 1], layers[0].sum(0)
    flat, tokens = hops.flatten(), len(hops)
    number, new = 0, (flat == 0).nonzero()[:, 0]  # those that were reached last, as places in `flat`
    while len(new):
        number, after = number + 1, _readers(layers[0], by_sink, counts, new)
        new = after[flat[after] < 0].unique()
        flat[new] = number
    return flat.view(tokens, tokens)


def _in_order(layers: Tensor) -> list[Tensor]:
    """Whom each token reaches through layers that are taken once, in order, in at most 0, 1, 2 ... hops."""
    within = [_itself(layers)] * (len(layers) + 1)
    for layer in layers:
        within = [within[0], *(more | _then(layer, fewer) for fewer, more in pairwise(within))]
    return within


def _then(last: Tensor, first: Tensor) -> Tensor:
    """Two relations in a row, (tokens, tokens) each."""
    return last.float() @ first.float() > 0


def _readers(edge: Tensor, by_sink: Tensor, counts: Tensor, reached: Tensor) -> Tensor:
    """Who reads what has been reached: of pairs (sink, source), as places in a flat (tokens, tokens), the pairs (reader of the sink, source).
    `by_sink` are the readers of the first token, then those of the second, and so on; `counts`, how many each has."""
    tokens = len(edge)
    sinks, sources = reached // tokens, reached % tokens
    each = counts[sinks]
    if int(each.sum()) > tokens**2:
        whole = torch.zeros(tokens**2, dtype=torch.bool)
        whole[reached] = True
        return _then(edge, whole.view(tokens, tokens)).flatten().nonzero()[:, 0]
    # One by one where they are few: a chain of a thousand short hops would be a thousand products.
    within = torch.arange(int(each.sum())) - (each.cumsum(0) - each).repeat_interleave(each)
    first = (counts.cumsum(0) - counts)[sinks].repeat_interleave(each)
    return by_sink[first + within] * tokens + sources.repeat_interleave(each)


def _nearest(row: Row, wanted: Tensor, gradients: bool) -> tuple[int, int] | None:
    """Of the pairs (sink, source) in `wanted`, (tokens, tokens) bool, no token with itself, one that the fewest hops join: the first by sink, then
    by source."""
    layers = _between_tokens(row, edges(row, gradients))
    nothing = _itself(layers)
    if row.checked.speaks_of_layers:
        return next((_first(found & wanted) for found in _in_order(layers) if bool((found & wanted).any())), None)
    doubled = [nothing | layers[0]]  # in at most 1, 2, 4 ... hops
    while not bool((doubled[-1] & wanted).any()):
        if torch.equal(wider := _then(doubled[-1], doubled[-1]), doubled[-1]):
            return None
        doubled.append(wider)
    found = nothing  # the most hops that do not yet join any
    for more in reversed(doubled[:-1]):
        if not bool(((wider := _then(more, found)) & wanted).any()):
            found = wider
    return _first(_then(doubled[0], found) & wanted)


# ------------------------------------------------------------------------------------------------ claims


def about(row: Row, claim: c.Claim) -> Tensor:
    """The pairs that a claim speaks of, in some head of some layer: bool (tokens, tokens), with two layouts (queries, keys). Those that may not
    attend (`assert EXPR`, `cacheable`), that no path may join or that one has to (`flow`, `grad`, and negated), the data tokens that each row is
    trained to predict (`no leak`, of the queries' layout alone), all (`every query attends`)."""
    _check_size(row)
    found = torch.stack([_spoken_of(row, claim, head, layer) for layer, head in _places(row, claim)]).any(0)
    if claim.kind is Claim.NO_LEAK or row.checked.keys is not None:
        return found
    whole = found.new_zeros(2 * row.own["pos"].shape)
    whole[row.queries["pos"]] = found
    return whole


def refute(row: Row, claim: c.Claim) -> Path | None:
    """What refutes a claim in this row: the path with the fewest hops, of several the one to the first query, from the first key. A row's own
    residual stream, a path without hops, only where nothing else does. For `flow` and `grad` a pair without a path, and for `every query attends`
    a row, neither with hops. None where the claim holds.

    Raises InputError as `edges` does.
    """
    gradients = claim.kind in (Claim.GRAD, Claim.NO_GRAD)
    match claim.kind:
        case Claim.PAIRS | Claim.CACHEABLE:
            _check_size(row)
            for layer, head in _places(row, claim):
                bad = _edges_of(row, head, layer, False, False) & _spoken_of(row, claim, head, layer)
                if bool(bad.any()):
                    place, key = _first(bad)
                    query = int(row.queries["pos"][place])
                    return Path(key, query, (Hop(query, key, head, layer),))
            return None
        case Claim.EVERY_QUERY:
            dead = row.queries["pos"][~edges(row).any(-1).all((0, 1))]
            return Path(int(dead[0]), int(dead[0])) if len(dead) else None
        case Claim.FLOW | Claim.GRAD:
            missing = about(row, claim) & ~reach(row, gradients)
            if not bool(missing.any()):
                return None
            sink, source = _first(missing)
            return Path(source, sink)
        case Claim.NO_FLOW | Claim.NO_GRAD | Claim.NO_LEAK:
            pair = _joined(row, about(row, claim), claim.kind, gradients)
            if pair is None:
                return None
            sink, source = pair
            # Of the data tokens of two layouts none is read: a row has its own alone.
            return Path(source, sink) if claim.kind is Claim.NO_LEAK and source == sink else shortest_path(row, source, sink, gradients)


def _joined(row: Row, wanted: Tensor, kind: Claim, gradients: bool) -> tuple[int, int] | None:
    """Of the pairs (sink, source) in `wanted` one that a path joins, by the fewest hops; without hops, only if there is no other."""
    if row.checked.keys is not None:
        # A path leads from one layout to the other; within that of the queries there is the residual stream alone.
        found = wanted & (_itself(wanted) if kind is Claim.NO_LEAK else reach(row, gradients))
        return _first(found) if bool(found.any()) else None
    if pair := _nearest(row, wanted & ~_itself(wanted), gradients):
        return pair
    residual = wanted & _itself(wanted)
    return _first(residual) if bool(residual.any()) else None


def _itself(pairs: Tensor) -> Tensor:
    return torch.eye(pairs.shape[-1], dtype=torch.bool)


def _places(row: Row, claim: c.Claim) -> Iterator[tuple[int, int]]:
    """Every (layer, head) in which the text or the claim may say something of its own."""
    if claim.kind is Claim.NO_LEAK:
        return iter([(0, 0)])  # what a row is trained to predict is no matter of heads
    told = {n.name for n in c.walk(claim.where) if isinstance(n, c.Global)} if claim.where is not None else set()
    layers = row.layers if row.checked.speaks_of_layers or told & {"layer", "layers"} else 1
    heads = row.heads if row.checked.speaks_of_heads or told & {"head", "heads"} else 1
    return ((layer, head) for layer in range(layers) for head in range(heads))


def _spoken_of(row: Row, claim: c.Claim, head: int, layer: int) -> Tensor:
    """`about`, in one head of one layer: bool (queries, keys), for `no leak` (tokens, tokens)."""
    shape = len(row.queries["pos"]), len(row.keys["pos"])
    match claim.kind:
        case Claim.NO_LEAK:
            data = torch.isin(row.own["role"], torch.tensor(row.checked.data, dtype=torch.int64))
            return token_table(row).target[:, None] == torch.where(data, row.own["index"], -2)[None, :]
        case Claim.CACHEABLE if row.checked.keys is not None:
            return torch.zeros(shape, dtype=torch.bool)  # keys of a layout of their own are there before any query
        case Claim.CACHEABLE:
            # A sequence is made section by section and step by step; those of one step are made together.
            made = row.own["section"] * (1 + row.own["step"].amax() if len(row.own["step"]) else 1) + row.own["step"]
            return made[None, :] > made[row.queries["pos"]][:, None]
        case _ if claim.where is None:
            return torch.ones(shape, dtype=torch.bool)
        case _:
            where = row.words(head, layer).value(claim.where).expand(shape)
            return ~where if claim.kind is Claim.PAIRS else where


def _first(where: Tensor) -> tuple[int, int]:
    i, j = where.nonzero()[0].tolist()
    return i, j
