"""Random expressions about pairs, random axes, every box of every size: what the planner says of a box holds for all its pairs.

Every term of an expression is judged, on the pairs that meet its guards, against its evaluation pair by pair; a leaf's bounds must be exact besides.
100,000 boxes from fixed seeds in the ordinary run, a million from fresh ones with HYPOTHESIS_PROFILE=thorough. A case is known by its seed:
`judge(Problem.of(seed))` tells what is wrong with it.
"""

from __future__ import annotations

import os
import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

import srt_masks as srt
from srt_masks.compiler import exact, ir
from srt_masks.compiler.bounds import Bound, Interval, Truth
from srt_masks.compiler.boxes import _bounds, classify
from srt_masks.compiler.evaluate import Environment
from srt_masks.compiler.ir import Expr, Gate, Op, Side
from srt_masks.compiler.labels import PARTIAL, State, state
from srt_masks.compiler.layout import Attributes, attributes
from srt_masks.compiler.leaves import evaluate, split
from srt_masks.compiler.questions import Questions, _question
from srt_masks.compiler.summaries import Summaries
from srt_masks.compiler.terms import Term, steps, term
from srt_masks.grammar.checked import Type

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
PARTS = 4
BOXES = 1_000_000 if THOROUGH else 100_000
FIRST = random.SystemRandom().randrange(2**32) if THOROUGH else 0

LEAST, MOST = -(2**63), 2**63 - 1
LAYOUTS = (
    "repeat { word }", "repeat { word, note * 2 }", "sink * 5, repeat { word, note }, note * 3", "word * 7, note * 20, word, repeat 3 { sink, word * 2 }, repeat { note }",
    "repeat 2 { word * 9 }, repeat { word, note * 3, word }",
)  # fmt: skip
ROLES = 3

# ------------------------------------------------------------------------------------------------ expressions


@dataclass(frozen=True)
class Draw:
    """Expressions, the deeper the larger `depth`."""

    r: random.Random

    def constant(self) -> Expr:
        return ir.const(self.r.choice([0, 1, 2, 3, 4, 7, 20, -1, -3, 60]) if self.r.random() < 0.93 else self.r.choice([2**62, LEAST, MOST, 2**32]))

    def number(self, side: Side, depth: int) -> Expr:
        """A whole number about one side."""
        r = self.r
        if depth == 0 or r.random() < 0.3:
            field = ir.attribute(side, r.choice(["pos", "pos", "step", "step", "slot", "index", "section"]))
            return r.choice([field, field, field, ir.load("doc", (ir.attribute(side, "pos"),), Type.INT), ir.load("rank", (field,), Type.INT)])
        a = self.number(side, depth - 1)
        match r.randrange(9):
            case 0:
                return ir.apply(r.choice([Op.NEG, Op.ABS]), a)
            case 1:
                return ir.apply(Op.SELECT, self.mask(side, depth - 1), a, self.number(side, depth - 1))
            case 2:
                return ir.gather(self.number(Side.KEY, depth - 1), a)
            case 3 | 4:
                return ir.apply(r.choice([Op.FLOORDIV, Op.MOD]), a, self.constant())
            case _:
                b = self.constant() if r.random() < 0.6 else self.number(side, depth - 1)
                return ir.apply(r.choice([Op.ADD, Op.SUB, Op.MUL, Op.MIN, Op.MAX]), *r.sample([a, b], 2))

    def mask(self, side: Side, depth: int) -> Expr:
        """A mask about one side."""
        r = self.r
        match r.randrange(6 if depth else 3):
            case 0:
                return ir.apply(r.choice([Op.EQ, Op.NE]), ir.attribute(side, "role"), ir.const(r.randrange(ROLES), Type.ROLE))
            case 1:
                return ir.load("open", (ir.attribute(side, "pos"),), Type.BOOL)
            case 2 | 3:
                return ir.apply(r.choice([Op.LT, Op.LE, Op.EQ, Op.NE]), *r.sample([self.number(side, depth), self.constant()], 2))
            case 4:
                return ir.apply(Op.NOT, self.mask(side, depth - 1))
            case _:
                return ir.apply(r.choice([Op.AND, Op.OR]), self.mask(side, depth - 1), self.mask(side, depth - 1))

    def pair_number(self, depth: int) -> Expr:
        r = self.r
        q, k = self.number(Side.QUERY, 1), self.number(Side.KEY, 1)
        if r.random() < 0.1:
            return ir.load("edge", (ir.attribute(Side.QUERY, "pos"), ir.attribute(Side.KEY, "pos")), Type.INT)
        if depth == 0 or r.random() < 0.4:
            return ir.apply(r.choice([Op.SUB, Op.SUB, Op.ADD, Op.MUL, Op.MIN, Op.MAX]), *r.sample([q, k], 2))
        a = self.pair_number(depth - 1)
        match r.randrange(8):
            case 0:
                return ir.apply(r.choice([Op.NEG, Op.ABS]), a)
            case 1:
                return ir.apply(Op.SELECT, self.pair_mask(depth - 1), a, r.choice([q, k, self.constant()]))
            case 6:
                return ir.load("rank", (a,), Type.INT)
            case 7:
                return ir.apply(Op.POW, self.constant(), a)
            case 2:
                return ir.apply(Op.MOD, ir.apply(Op.SUB, *r.sample([q, k], 2)), self.constant())
            case 3:
                return ir.apply(r.choice([Op.FLOORDIV, Op.MOD]), a, self.constant())
            case _:
                return ir.apply(r.choice([Op.ADD, Op.SUB, Op.MUL, Op.MIN, Op.MAX]), a, r.choice([q, k, self.constant()]))

    def real(self, side: Side) -> Expr:
        score = ir.load("score", (ir.attribute(side, "pos"),), Type.FLOAT)
        return score if self.r.random() < 0.7 else ir.apply(Op.MUL, score, ir.const(-2.0))

    def pair_mask(self, depth: int) -> Expr:
        r = self.r
        compare = r.choice([Op.LT, Op.LE, Op.EQ, Op.NE])
        match r.randrange(12 if depth else 5):
            case 0:
                return ir.apply(compare, *r.sample([self.number(Side.QUERY, 2), self.number(Side.KEY, 2)], 2))
            case 1:
                same = [ir.load("doc", (ir.attribute(side, "pos"),), Type.INT) for side in Side]
                return ir.apply(r.choice([Op.EQ, Op.NE]), *(same if r.random() < 0.7 else [ir.attribute(side, "role") for side in Side]))
            case 2:
                return ir.apply(compare, self.pair_number(depth), self.constant())
            case 3:
                whole = [ir.attribute(Side.QUERY, "pos"), ir.attribute(Side.KEY, "pos")]
                match r.randrange(6):
                    case 0 | 1:
                        index = whole
                    case 2:
                        index = r.sample([self.pair_number(max(0, depth - 1)), r.choice([self.constant(), *whole])], 2)
                    case 3:
                        return ir.load("some", (self.pair_number(max(0, depth - 1)),), Type.BOOL)
                    case _:
                        index = [ir.load("doc", (w,), Type.INT) for w in whole]
                return ir.load("seen", tuple(index), Type.BOOL)
            case 4:
                return ir.apply(compare, self.real(Side.QUERY), self.real(Side.KEY))
            case 5:
                return ir.apply(Op.NOT, self.pair_mask(depth - 1))
            case 6:
                return ir.apply(Op.SELECT, self.pair_mask(depth - 1), self.pair_mask(depth - 1), self.pair_mask(depth - 1))
            case 7:
                return ir.apply(r.choice([Op.AND, Op.OR]), self.pair_mask(depth - 1), self.pair_mask(depth - 1))
            case _:
                links = [self.pair_mask(depth - 1)] + [self.mask(side, 1) for side in r.choice([[Side.QUERY], [Side.KEY], [Side.QUERY, Side.KEY]])]
                r.shuffle(links)
                op = r.choice([Op.AND, Op.OR])
                found = links[0]
                for link in links[1:]:
                    found = ir.apply(op, found, link)
                return found


# ------------------------------------------------------------------------------------------------ problems


@dataclass(frozen=True)
class Problem:
    """A mask, a gate, and what their names mean."""

    seed: int
    mask: Expr
    open: Expr
    environment: Environment
    tile: int

    @staticmethod
    def of(seed: int) -> Problem:
        r = random.Random(seed)
        checked = srt.parse(f"layout {r.choice(LAYOUTS)}\ndata word\nattend full").checked
        layout = checked.queries
        tokens = layout.tokens(r.randrange(1, 60 // layout.rows_per_step + 30 // layout.rows_per_step + 2))
        own = attributes(layout, tokens, checked.data, {})
        g = torch.Generator().manual_seed(seed)
        doc = torch.randint(r.choice([3, 9, 70]), (tokens,), generator=g) * r.choice([1, 1, 64])
        score = torch.randint(-4, 5, (tokens,), generator=g) / 2
        for special in r.sample([float("nan"), float("inf"), float("-inf")], r.choice([0, 0, 1, 2])):
            score[r.randrange(tokens)] = special
        inputs = {
            "doc": doc.sort().values if r.random() < 0.3 else doc, "rank": torch.randint(-5, 30, (r.randrange(1, tokens + 2),), generator=g), "score": score.double(),
            "open": torch.rand(tokens, generator=g) < r.choice([0.05, 0.5, 0.95]), "seen": torch.rand(9, tokens, generator=g) < r.choice([0.02, 0.5, 0.98]),
        }  # fmt: skip
        some = torch.rand(r.randrange(1, 2 * tokens + 2), generator=g) < r.choice([0.05, 0.5, 0.95])
        inputs |= {"edge": torch.randint(-2, r.choice([3, 9]), (tokens, tokens), generator=g), "some": some}
        queries, keys = (_axis(own, r, g) for _ in range(2))
        if r.random() < 0.5:
            queries = keys
        everyone = None if keys is own else own
        draw = Draw(r)
        environment = Environment({"length": tokens}, inputs, queries, keys, everyone)
        return Problem(seed, draw.pair_mask(r.choice([1, 2, 3])), draw.pair_mask(1), environment, r.choice([2, 4, 4, 8, 16]))


def _axis(own: Attributes, r: random.Random, g: torch.Generator) -> Attributes:
    """The tokens in order, some of them, or all of them in any order."""
    match r.randrange(5):
        case 0:
            return own.at(torch.randperm(len(own), generator=g))
        case 1:
            return own.at((torch.arange(len(own)) % 3).argsort(stable=True))
        case 2:
            some = own.picked(torch.rand(len(own), generator=g) < 0.8)
            return some if len(some) else own
        case _:
            return own


# ------------------------------------------------------------------------------------------------ judging them


def _ends(values: Tensor, met: Tensor, rows: int, cols: int) -> tuple[Tensor, Tensor, Tensor]:
    """Least and most of the values (queries, keys) that are met, in boxes of some tokens, and where there are any."""
    lo, hi = (float("-inf"), float("inf")) if values.is_floating_point() else (LEAST, MOST)
    high, wide = -(-values.shape[0] // rows), -(-values.shape[1] // cols)
    boxes = lambda x: x.view(high, rows, wide, cols).permute(0, 2, 1, 3).flatten(2)  # noqa: E731
    whole = torch.zeros(high * rows, wide * cols, dtype=torch.bool)
    whole[: met.shape[0], : met.shape[1]] = met
    padded = torch.zeros(whole.shape, dtype=values.dtype)
    padded[: met.shape[0], : met.shape[1]] = values
    return torch.where(boxes(whole), boxes(padded), hi).amin(2), torch.where(boxes(whole), boxes(padded), lo).amax(2), boxes(whole).any(2)


def judge(problem: Problem) -> tuple[str, int]:
    """What is said of some box and is not so; empty if nothing. And how many boxes were judged."""
    environment, tile = problem.environment, problem.tile
    found = steps(term(problem.mask), term(problem.open))
    terms = [s.term for s in found]
    whole = split(*dict.fromkeys(t.node for t in terms), *dict.fromkeys(g for t in terms for g in (t.query, t.key)))
    leaves = evaluate(whole, environment)
    shape = len(environment.queries), len(environment.keys)
    values = dict(zip(whole.roots, (x.expand(shape) for x in leaves.pairs(slice(None), slice(None), *whole.roots)), strict=True))
    summaries = Summaries(leaves, tile)
    judged, level = 0, 0
    while True:
        high, wide = (-(-n // (tile << level)) for n in shape)
        row, col = np.arange(high).repeat(wide), np.tile(np.arange(wide), high)
        with np.errstate(all="ignore"):
            of = _bounds(found, summaries, level, row, col)
        for t in terms:
            value = values[t.node]
            least, most, any = _ends(value.long() if value.dtype is torch.bool else value, values[t.query] & values[t.key], tile << level, tile << level)
            if why := _wrong(t, of[t], least, most, any):
                return f"{why}\nlevel {level}, tile {tile}, {shape} tokens, guards {_shown(t.query)} | {_shown(t.key)}:\n{_shown(t.node)}", judged
        judged += high * wide
        if high == wide == 1:
            return _judge_boxes(problem), judged
        level += 1


def _shown(node: Expr) -> str:
    return ir.listing({"expr": node})


def _wrong(t: Term, said: Bound, least: Tensor, most: Tensor, any: Tensor) -> str:
    ends = (said.must.astype(int), said.may.astype(int)) if isinstance(said, Truth) else (said.lo, said.hi)
    lo, hi = (torch.tensor(x).expand(any.numel()).view(any.shape) for x in ends)
    unordered = any & (least.isnan() | most.isnan())
    lies = any & ((lo > least) | (hi < most)) | unordered & ((lo != float("-inf")) | (hi != float("inf")))
    if bool(lies.any()):
        i, j = lies.nonzero()[0].tolist()
        return f"a lie: box {i}, {j} holds {least[i, j].item()} .. {most[i, j].item()}; said: {lo[i, j].item()} .. {hi[i, j].item()}"
    if t.is_leaf and bool((any & ~unordered & ((lo != least) | (hi != most))).any()):
        return "a leaf is not bounded exactly"
    return ""


def _judge_boxes(problem: Problem) -> str:
    """The boxes as the planner makes them, by bounds and samples alone: mask and gate."""
    environment, tile = problem.environment, max(16, problem.tile)
    ask = Questions(problem.mask, (_question(problem.mask, Gate(problem.open), "k"),), 0)
    leaves = evaluate(ask.split, environment)
    queries, keys = len(environment.queries), len(environment.keys)
    boxes = classify(ask, leaves, queries, keys, tile)
    attend, open = (x.expand(queries, keys) for x in leaves.pairs(slice(None), slice(None), problem.mask, problem.open))
    covered = torch.zeros(queries, keys, dtype=torch.bool)
    for level, row, col, label in zip(boxes.level.tolist(), boxes.row.tolist(), boxes.col.tolist(), boxes.label, strict=True):
        side = tile << level
        box = slice(row * side, (row + 1) * side), slice(col * side, (col + 1) * side)
        covered[box] = True
        pairs, on = attend[box], open[box]
        if not label & PARTIAL and not pairs.all():
            return f"box {level}, {row}, {col} is called FULL:\n{_shown(problem.mask)}"
        match State(int(state(label, "k"))):
            case State.ALL if not on[pairs].all():
                return f"box {level}, {row}, {col} is called open:\n{_shown(problem.mask)}\n{_shown(problem.open)}"
            case State.NONE if on[pairs].any():
                return f"box {level}, {row}, {col} is called shut:\n{_shown(problem.mask)}\n{_shown(problem.open)}"
    return f"a box that is called EMPTY is not:\n{_shown(problem.mask)}" if (attend & ~covered).any() else ""


@pytest.mark.parametrize("part", range(PARTS))
def test_what_is_said_of_a_box_holds_for_its_pairs(part: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(exact, "REFINE_PAIRS", 0)
    judged, seed = 0, FIRST + (part << 40)
    while judged < BOXES // PARTS:
        why, count = judge(Problem.of(seed))
        assert not why, f"{why}\n\n    from test_planner_fuzz import Problem, judge\n    print(judge(Problem.of({seed}))[0])\n"
        judged, seed = judged + count, seed + 1


@pytest.mark.parametrize("part", range(2))
def test_leaves_are_summed_up_exactly_from_few_tokens(part: int):
    """Sums of fields that rise at different rates, by every kind of axis; and a leaf over chosen tokens is that leaf over all, at these."""
    read_few = 0
    for seed in range(FIRST + (part << 40), FIRST + (part << 40) + (1000 if THOROUGH else 100)):
        problem = Problem.of(seed)
        r, environment = random.Random(seed), problem.environment
        axis, own = environment.keys, environment.everyone or environment.keys
        natural = Environment(environment.scalars, environment.inputs, own, own)
        tile = r.choice([8, 16])
        draw = Draw(r)
        for _ in range(20):
            leaf = _scaled(r) if r.random() < 0.7 else draw.number(Side.KEY, 2)
            summaries = Summaries(evaluate(split(leaf), environment), tile)
            bound = summaries.bound(term(leaf), 0)
            assert isinstance(bound, Interval)
            read_few += summaries._witnesses(term(leaf), axis) is not None
            whole = natural.vector(leaf)[axis["pos"]]
            assert torch.equal(environment.vector(leaf), whole), (seed, _shown(leaf))
            tiles = whole.split(tile)
            assert bound.lo.tolist() == [int(t.min()) for t in tiles] and bound.hi.tolist() == [int(t.max()) for t in tiles], (seed, tile, _shown(leaf))
    assert read_few > 200


def _scaled(r: random.Random) -> Expr:
    names = r.choices(["pos", "step", "index", "slot", "section"], k=2)
    a, b = (ir.apply(Op.MUL, ir.attribute(Side.KEY, name), ir.const(r.choice([1, 1, 1, 2, 3, 3, -1]))) for name in names)
    found = ir.apply(r.choice([Op.SUB, Op.SUB, Op.SUB, Op.ADD, Op.MIN, Op.MAX]), a, b)
    match r.randrange(5):
        case 0:
            return ir.apply(r.choice([Op.FLOORDIV, Op.MOD]), found, ir.const(r.choice([2, 5, 100])))
        case 1:
            return ir.apply(r.choice([Op.ABS, Op.NEG]), found)
        case 2:
            return ir.apply(Op.SELECT, ir.apply(Op.EQ, ir.attribute(Side.KEY, "role"), ir.const(1, Type.ROLE)), found, r.choice([a, ir.const(3)]))
        case _:
            return found


def test_the_cases_are_of_every_kind():
    """Bounds that decide and that do not, guards that a tile meets nowhere, axes in order and not."""
    seen = {"must": 0, "may not": 0, "open": 0, "bottom": 0, "guarded": 0, "sets": 0, "shuffled": 0}
    for seed in range(120):
        problem = Problem.of(seed)
        found = steps(term(problem.mask))
        summaries = Summaries(evaluate(split(problem.mask), problem.environment), problem.tile)
        rows, cols = (-(-len(axis) // problem.tile) for axis in (problem.environment.queries, problem.environment.keys))
        row, col = np.arange(rows).repeat(cols), np.tile(np.arange(cols), rows)
        with np.errstate(all="ignore"):
            of = _bounds(found, summaries, 0, row, col)
        root = of[term(problem.mask)]
        assert isinstance(root, Truth)
        seen["must"] += int(root.must.sum() > 0)
        seen["may not"] += int((~root.may).sum() > 0)
        seen["open"] += int((root.may & ~root.must).sum() > 0)
        seen["guarded"] += any(t.query is not ir.TRUE or t.key is not ir.TRUE for t in of)
        seen["bottom"] += any(bool(b.bottom.any()) for t, b in of.items() if t.is_leaf and isinstance(b, Truth | Interval))
        seen["sets"] += any(summaries.telling.values())
        seen["shuffled"] += not problem.environment.keys.stretches
    assert min(seen.values()) > 5, seen
