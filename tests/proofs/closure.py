"""What a claim means at one call, in NumPy, from the reference's masks: a second opinion on verdicts, without a line of `srt_masks/proofs`' own search.

Read it with the definition beside it: a path takes one attended pair a layer, or stays where it is; a gradient passes a pair unless the hidden gate
is 0, or those of k and v are, or v's is and the query has no other key.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import product

import numpy as np

import srt_masks as srt
from srt_masks.compiler.front import front
from srt_masks.diagnostics import Source
from srt_masks.grammar import checked as c
from srt_masks.grammar.syntax import Claim
from srt_masks.proofs.claims import obligations
from srt_masks.proofs.verdict import Path, World
from srt_masks.reference.masks import Row, pairs, token_table

GRADIENTS = (Claim.GRAD, Claim.NO_GRAD)


def claim_of(spec: srt.Spec, place: int = -1) -> c.Claim:
    """One of the claims of a text, in the order of its verdicts: the last, or the one that its `predict` makes."""
    return obligations(spec.checked, front(spec.checked), Source(spec.text, spec.filename))[place].claim


class Closure:
    """One call, and what is asked of it."""

    def __init__(self, checked: c.Checked, world: World):
        self.checked, self.world = checked, world
        self.row: Row = world.row(checked)
        self.asks = self.row.queries["pos"].numpy()
        self.keys = len(self.row.keys["pos"])
        self.is_cross = checked.keys is not None
        self.rows = len(self.asks) if self.is_cross else len(self.row.own["pos"])
        for fact in checked.facts:
            holds = replace(self.row, queries=self.row.own)  # facts are of everybody, also of who does not ask
            assert all(holds.words(head, layer).value(fact.where).all() for layer, head in self.places()), f"the call is none: {fact.said} does not hold"

    def places(self) -> Iterator[tuple[int, int]]:
        return product(range(self.world.layers), range(self.world.heads))

    def spread(self, pairs: np.ndarray) -> np.ndarray:
        """Of (queries, keys) to (tokens, tokens): who does not ask reads nothing."""
        whole = np.zeros((self.rows, self.keys), dtype=bool)
        whole[self.asks if not self.is_cross else slice(None)] = pairs
        return whole

    def edges(self, layer: int, head: int, gradients: bool) -> np.ndarray:
        """Who reads whom, or learns from whom, there: bool (tokens, tokens)."""
        attend, _, k, v, hidden = (x.numpy() for x in pairs(self.checked, self.row.words(head, layer), len(self.asks), self.keys))
        if gradients:
            others = attend.sum(1, keepdims=True) - attend  # keys beside the one at hand
            attend = attend & (hidden != 0) & ((v != 0) | ((k != 0) & (others > 0)))
        return self.spread(attend)

    def reach(self, gradients: bool) -> np.ndarray:
        """Whose state (column) reaches whose output (row)."""
        layers = [np.zeros((self.rows, self.keys), dtype=bool) for _ in range(self.world.layers)]
        for layer, head in self.places():
            layers[layer] |= self.edges(layer, head, gradients)
        if self.is_cross:
            return np.logical_or.reduce(layers)
        found = np.eye(self.rows, dtype=bool)
        if self.checked.speaks_of_layers:
            for edge in layers:
                found = found | (edge.astype(np.float32) @ found.astype(np.float32) > 0)
            return found
        for _ in range(self.rows):  # as many layers as a path needs
            wider = found | (layers[0].astype(np.float32) @ found.astype(np.float32) > 0)
            if (wider == found).all():
                break
            found = wider
        return found

    def where(self, claim: c.Claim, layer: int, head: int) -> np.ndarray:
        assert claim.where is not None
        return self.spread(self.row.words(head, layer).value(claim.where).expand(len(self.asks), self.keys).numpy())

    def spoken(self, claim: c.Claim) -> np.ndarray:
        """The pairs that a claim about paths speaks of."""
        if claim.kind is Claim.NO_LEAK:
            table = token_table(self.row)
            is_data = np.array([self.checked.roles.index(r) in self.checked.data for r in table.role], dtype=bool)
            return (table.target.numpy()[:, None] == table.index.numpy()[None, :]) & is_data[None, :]
        return np.logical_or.reduce([self.where(claim, *place) for place in self.places()])

    def wrong(self, claim: c.Claim) -> set[tuple[int, int]]:
        """The pairs (sink, source) that refute a claim; of `every query attends`, rows beside themselves."""
        match claim.kind:
            case Claim.PAIRS:
                bad = [self.edges(*p, False) & self.spread(np.ones((len(self.asks), self.keys), dtype=bool)) & ~self.where(claim, *p) for p in self.places()]
                return _pairs(np.logical_or.reduce(bad))
            case Claim.CACHEABLE:
                made = list(zip(self.row.own["section"].tolist(), self.row.own["step"].tolist(), strict=True))
                return set() if self.is_cross else {(i, j) for p in self.places() for i, j in _pairs(self.edges(*p, False)) if made[j] > made[i]}
            case Claim.EVERY_QUERY:
                dead = [(~self.edges(*p, False).any(1)) for p in self.places()]
                asks = np.arange(self.rows) if self.is_cross else self.asks
                return {(i, i) for i in asks.tolist() if any(d[i] for d in dead)}
            case Claim.NO_LEAK if self.is_cross:
                return {(i, j) for i, j in _pairs(self.spoken(claim)) if i == j}  # keys of a layout of their own are no data that a row predicts
        joined, spoken = self.reach(claim.kind in GRADIENTS), self.spoken(claim)
        return _pairs(spoken & (~joined if claim.kind in (Claim.FLOW, Claim.GRAD) else joined))

    def check(self, claim: c.Claim, path: Path) -> None:
        """The path is one, hop by hop, and what it joins (or has no path to join) refutes the claim."""
        assert (path.sink, path.source) in self.wrong(claim), (path, claim.kind)
        at, layer = path.source, -1
        for hop in path.hops:
            assert hop.key == at, path
            assert not self.checked.speaks_of_layers or hop.layer > layer, path
            assert self.edges(hop.layer if self.checked.speaks_of_layers or claim.kind is Claim.PAIRS else 0, hop.head, claim.kind in GRADIENTS)[
                hop.query, hop.key
            ], path
            at, layer = hop.query, hop.layer
        joins_itself = path.sink == path.source
        assert at == path.sink or claim.kind in (Claim.FLOW, Claim.GRAD), path
        assert path.hops or joins_itself or claim.kind in (Claim.FLOW, Claim.GRAD), path
        assert not path.hops or claim.kind not in (Claim.FLOW, Claim.GRAD), path


def _pairs(where: np.ndarray) -> set[tuple[int, int]]:
    return {(i, j) for i, j in np.argwhere(where).tolist()}
