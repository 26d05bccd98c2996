"""Which order pays: candidates are tried on at most PROBE_TILES rows of tiles, and the work of their tiles is counted, forward and backward.

Input: the groups of heads of one row of the batch, laid out. Output: an `Order` for each, or None for the caller's, and the `Choice`: what was tried.
It depends on the call alone, never on time or on earlier calls: the same call gives the same order. Groups that share a key head share its keys, so
they are given one order of keys, or none.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from threading import Lock

import numpy as np
import torch

from . import ir
from .boxes import Boxes, classify
from .candidates import Candidate
from .evaluate import Environment
from .ir import Apply, Expr, Load, Op, Program
from .labels import PARTIAL, State, state
from .leaves import Leaves, evaluate
from .order import NATURAL, Order, arrange
from .questions import Questions
from .runs import Consumer, emit
from .wording import brief

AUTO = "auto"
PROBE_TILES = 64  # along an axis
LEAST_TILES = 8  # along an axis, or as many tiles in another shape: a smaller plan is not worth a search
MOST_TRIED = 24
TRIAL_PAIRS = 200_000  # evaluated in a trial to settle tiles: a tenth of what a plan may
# Operators of the mask, each counted once for every tile that a trial finds PARTIAL, after which no other begins: some tenths of a second on one core.
# A mask of many operators that is PARTIAL nearly everywhere would otherwise be tried for ten times as long as it takes to plan.
MOST_LOOKED_AT = 600_000
GAIN = 0.95  # of the natural order's work: what saves less is not taken
CHOICES_KEPT = 256


@dataclass(frozen=True, slots=True)
class Costs:
    """What a backend's work costs, in units of the forward of one FULL tile for one head."""

    partial: float  # the products of a PARTIAL tile
    operator: float  # one operator of the mask on the pairs of a tile, for all heads that share it
    start: float  # a row of tiles that has work, for all heads that share it, in each direction
    row: float  # the same, for each head
    run: float  # a run, for each head, in each direction
    token: float  # one row of q, k, v, out or a gradient, gathered or scattered
    # Of the backward: the gradients that each launch works out, from an S of its own, and for q and k from a dP of its own.
    launches: tuple[str, ...] = ("qkv",)


@dataclass(frozen=True, slots=True)
class Ordering:
    """How a caller wants tokens ordered: `auto`, `natural`, or a candidate by name."""

    wanted: str
    costs: Costs


@dataclass(frozen=True, slots=True)
class Trial:
    """An order that was tried: its tiles, and its work as a share of the natural order's."""

    name: str
    full: int
    partial: int
    work: float

    @property
    def tiles(self) -> int:
        return self.full + self.partial


@dataclass(frozen=True, slots=True)
class Choice:
    """Why a group of heads has the order it has."""

    name: str
    reason: str
    tokens: tuple[int, int] = (0, 0)  # queries and keys that the candidates were tried on
    trials: tuple[Trial, ...] = ()  # the natural order first
    seconds: float = 0.0

    @property
    def trial(self) -> Trial | None:
        """The trial of the order that was taken."""
        return next((t for t in self.trials if t.name == self.name), None)

    def lines(self, tokens: tuple[int, int]) -> list[str]:
        """What was taken of what was tried, and why, for a plan of so many queries and keys; nothing where nothing was tried."""
        natural, taken = next((t for t in self.trials if t.name == NATURAL), None), self.trial
        if natural is None or taken is None:
            return [f"order: {self.name}, {self.reason}"] if self.name != NATURAL else []
        where = "" if tokens == self.tokens else f" of {self.tokens[0]} x {self.tokens[1]} tokens"
        against = "" if taken is natural else f" against {natural.tiles} natural; predicted {taken.work:.2f} of the work"
        tried = f"{len(self.trials)} orders tried in {1000 * self.seconds:.0f} ms"
        lines = [f"order: {self.name} ({taken.tiles} tiles{where}{against}; {self.reason}; {tried})"]
        width = max(len(brief(t.name)) for t in self.trials)
        for t in sorted(self.trials, key=lambda t: t.work):
            lines.append(f"  {brief(t.name):{width}}  {t.full} FULL + {t.partial} PARTIAL, {t.work:.2f} of the work")
        return lines


NOT_ASKED = Choice(NATURAL, "no other was asked for")


@dataclass(frozen=True, slots=True)
class Heads:
    """Heads that share a mask, and the leaves of its questions over the whole call."""

    heads: tuple[int, ...]
    environment: Environment
    leaves: Leaves


@dataclass(frozen=True, slots=True)
class Ordered:
    """The order of one group of heads (None: natural); its boxes, where the whole call was tried."""

    order: Order | None
    choice: Choice
    boxes: Boxes | None = None


@dataclass(frozen=True, slots=True)
class Search:
    """What is the same for all groups of a row of the batch."""

    program: Program
    questions: Questions
    candidates: tuple[Candidate, ...]
    tile: int
    rows: int  # of the batch that share the plan
    heads_per_key: int
    ordering: Ordering

    def ordered(self, groups: Sequence[Heads], shorter: Callable[[], Environment], known: Hashable | None) -> list[Ordered]:
        """One for each group. `shorter` lays the call out on fewer tokens, as many as are tried; `known` names the call, where its text and its
        numbers are all that decides."""
        found: dict[int, Ordered] = {}
        parts = _sharing_keys(groups, self.heads_per_key)
        for number, together in enumerate(parts):
            some = [groups[i] for i in together]
            key = None if known is None else (known, number, len(parts), tuple(g.heads for g in some), self.rows, self.heads_per_key, self.ordering)
            found.update(zip(together, self._together(some, shorter, MOST_LOOKED_AT // len(parts), key), strict=True))
        return [found[i] for i in range(len(groups))]

    def _together(self, groups: Sequence[Heads], shorter: Callable[[], Environment], most: int, key: Hashable | None) -> list[Ordered]:
        tried = self._wanted() if key is None or self.ordering.wanted != AUTO else _KNOWN.get(key)
        if tried is None:
            tried = self._tried(_Probe.of(self, groups, shorter), most)
            if key is not None:
                # Boxes and permutations are made anew: a name is all that is kept.
                _KNOWN.put(key, replace(tried, boxes=None))
        choice, candidate = tried.choice, tried.candidate
        if candidate is None:
            return [Ordered(None, choice, None if tried.boxes is None else tried.boxes[i]) for i in range(len(groups))]
        orders = [arrange(candidate, self.program, g.environment) for g in groups]
        if not any(orders):
            choice = replace(choice, name=NATURAL, reason=f"`{choice.name}` is the order the tokens have")
        if not _one_order_of_keys(orders):
            return [Ordered(None, replace(choice, name=NATURAL, reason=f"heads that share keys disagree about `{choice.name}`"))] * len(groups)
        return [Ordered(o, choice, None if tried.boxes is None else tried.boxes[i]) for i, o in enumerate(orders)]

    def _wanted(self) -> _Tried | None:
        """What the caller asked for by name."""
        if self.ordering.wanted == AUTO:
            return None
        wanted = next(c for c in every_candidate(self.candidates) if c.name == self.ordering.wanted)
        return _Tried(Choice(wanted.name, "as asked for"), wanted, None)

    def _tried(self, probe: _Probe, most: int) -> _Tried:
        """All candidates, or as many as `most` operators on PARTIAL tiles allow: one in any case, unless it alone could take more than all may."""
        begin = time.perf_counter()
        operators = sum(_operators(self.questions))
        if operators * probe.tiles(self.tile) > MOST_LOOKED_AT:
            return _Tried(Choice(NATURAL, f"a mask of {operators} operators is not worth a search"), None, None)
        staying: tuple[Order | None, ...] = (None,) * len(probe.groups)
        attempts: dict[str, _Attempt] = {}
        by_name: dict[str, Candidate] = {}

        def attempt(some: Iterable[Candidate]) -> None:
            for candidate in some:
                # Sorting costs as well: what will not be tried is not arranged.
                if len(attempts) > MOST_TRIED or operators * sum(a.partial for a in attempts.values()) >= most:
                    return
                orders = probe.arranged(candidate)
                # Many a candidate is the order of another, or that of the tokens.
                if orders is None or any(_alike(orders, a.orders) for a in attempts.values()):
                    continue
                if not attempts:
                    attempts[NATURAL] = probe.attempt(staying)
                attempts[candidate.name], by_name[candidate.name] = probe.attempt(orders), candidate

        attempt(self.candidates)
        if not attempts:
            return _Tried(Choice(NATURAL, "no other order is worth a try"), None, None)
        natural, first = attempts[NATURAL], by_name[min(by_name, key=lambda n: attempts[n].work)]
        if not first.curve:
            attempt(pair for c in self.candidates if c is not first and not c.curve for pair in (first.then(c), c.then(first)))
        best = min(attempts, key=lambda n: attempts[n].work)
        name = best if attempts[best].work < GAIN * natural.work else NATURAL
        trials = tuple(Trial(n, a.full, a.partial, a.work / natural.work if natural.work else 1.0) for n, a in attempts.items())
        reason = "least work" if name == best else "nothing else saves 5% of its work"
        choice = Choice(name, reason, probe.tokens, trials, time.perf_counter() - begin)
        # What a trial left open, the plan looks at again.
        boxes = attempts[name].boxes
        return _Tried(choice, by_name.get(name), boxes if probe.is_whole and not any(b.inexact for b in boxes) else None)


def every_candidate(candidates: tuple[Candidate, ...]) -> list[Candidate]:
    """With all pairs: what a caller may ask for by name."""
    sorts = [c for c in candidates if not c.curve]
    return [*candidates, *(a.then(b) for a in sorts for b in sorts if a is not b)]


# --------------------------------------------------------------------------------------------------- trials


@dataclass(frozen=True, slots=True)
class _Tried:
    choice: Choice
    candidate: Candidate | None
    boxes: tuple[Boxes, ...] | None


@dataclass(frozen=True, slots=True)
class _Attempt:
    """All groups of a probe under one candidate."""

    orders: tuple[Order | None, ...]
    boxes: tuple[Boxes, ...]
    full: int
    partial: int
    work: float


def _alike(some: Sequence[Order | None], others: Sequence[Order | None]) -> bool:
    return all((a is None and b is None) or (a is not None and a.is_like(b)) for a, b in zip(some, others, strict=True))


@dataclass(frozen=True, slots=True)
class _Probe:
    """The call, or its beginning where it is long."""

    search: Search
    groups: tuple[Heads, ...]
    tokens: tuple[int, int]
    is_whole: bool

    @staticmethod
    def of(search: Search, groups: Sequence[Heads], shorter: Callable[[], Environment]) -> _Probe:
        most = PROBE_TILES * search.tile
        queries, keys = len(groups[0].environment.queries), len(groups[0].environment.keys)
        if max(queries, keys) <= most:
            return _Probe(search, tuple(groups), (queries, keys), True)
        short = shorter()
        made = []
        for group in groups:
            environment = replace(short, scalars={**short.scalars, "head": group.heads[0]})
            leaves = evaluate(search.questions.split, environment)
            # A layout of one length, or one given, is not laid out shorter: its first tokens are looked at.
            first = short.queries.between(0, min(most, len(short.queries)))
            last = first if short.keys is short.queries else short.keys.between(0, min(most, len(short.keys)))
            made.append(Heads(group.heads, environment, leaves.over(first, last)))
        return _Probe(search, tuple(made), (min(most, len(short.queries)), min(most, len(short.keys))), False)

    def tiles(self, tile: int) -> int:
        return -(-self.tokens[0] // tile) * -(-self.tokens[1] // tile)

    def arranged(self, candidate: Candidate) -> tuple[Order | None, ...] | None:
        """Its order of every group; None where that is the natural one, or heads that share keys disagree."""
        orders = tuple(arrange(candidate, self.search.program, g.environment, max(self.tokens)) for g in self.groups)
        return orders if any(orders) and _one_order_of_keys(orders) else None

    def attempt(self, orders: tuple[Order | None, ...]) -> _Attempt:
        """The work of all groups in these orders."""
        search = self.search
        found = []
        for group, order in zip(self.groups, orders, strict=True):
            leaves = group.leaves if order is None else order.picked(group.leaves)
            found.append(classify(search.questions, leaves, *self.tokens, search.tile, TRIAL_PAIRS))
        counts = [_Count.of(boxes, *self.tokens, search.tile, search.ordering.costs.launches) for boxes in found]
        work = 0.0
        for group, order, count in zip(self.groups, orders, counts, strict=True):
            members = search.rows * len(group.heads)
            work += count.work(search.ordering.costs, members, _operators(search.questions))
            if order is not None:
                work += self._copies(members) * search.ordering.costs.token
        return _Attempt(orders, tuple(found), sum(c.full for c in counts), sum(c.partial for c in counts), work)

    def _copies(self, members: int) -> float:
        """Rows gathered and scattered: q, dq, out and dout; and k, v, dk and dv of each key head."""
        queries, keys = self.tokens
        return 4 * members * (queries + keys / self.search.heads_per_key)


@dataclass(frozen=True, slots=True)
class _Count:
    """What the tiles of some boxes come to."""

    full: int
    partial: int
    products: float  # of FULL tiles; two are a forward
    partial_products: float
    mixed: int  # tiles where a gate is evaluated
    rows: int
    runs: int

    @staticmethod
    def of(boxes: Boxes, queries: int, keys: int, tile: int, launches: tuple[str, ...]) -> _Count:
        rows, cols = -(-queries // tile), -(-keys // tile)
        level, label = boxes.level.astype(np.int64), boxes.label
        tiles = np.ones(len(label), np.int64)
        for place, count in ((boxes.row, rows), (boxes.col, cols)):
            tiles = tiles * (np.minimum((place + 1) << level, count) - (place << level))
        flows = {g: state(label, g) != State.NONE for g in "qkv"}
        products = 2 + sum(_products(flows, launch) for launch in launches)  # S and O forward
        mixed = np.zeros(len(label), bool)
        for gate in "qkv":
            mixed |= state(label, gate) == State.MIXED
        is_partial = label & PARTIAL == PARTIAL
        runs = emit(boxes, Consumer.FORWARD, rows, cols)
        return _Count(
            int(tiles[~is_partial].sum()), int(tiles[is_partial].sum()), float((tiles * products)[~is_partial].sum()),
            float((tiles * products)[is_partial].sum()), int(tiles[mixed].sum()), int((runs.ptr.diff() > 0).sum()), len(runs.kind),
        )  # fmt: skip

    def work(self, costs: Costs, members: int, operators: tuple[int, int]) -> float:
        once = costs.operator * (2 * operators[0] * self.partial + operators[1] * self.mixed) + 2 * costs.start * self.rows
        each = (self.products + costs.partial * self.partial_products) / 2 + 2 * (costs.row * self.rows + costs.run * self.runs)
        return once + members * each


def _products(flows: dict[str, np.ndarray], launch: str) -> np.ndarray:
    """Products of blocks that a launch of the backward takes in each box: one for each gradient that flows there, one for S where any does, and
    one for dP where that of q or k does."""
    found = [flows[g] for g in launch]
    through_scores = [flows[g] for g in launch if g in "qk"]
    return np.sum(found, 0) + np.any(found, 0) + (np.any(through_scores, 0) if through_scores else 0)


DIVISION = 12  # operators that a division or a remainder counts for: it floors, and asks about zero (measured)


def _operators(questions: Questions) -> tuple[int, int]:
    """How many operators the mask has between leaves and root, and how many the gates. That there is a mask at all counts for one."""

    def count(*roots: Expr) -> int:
        inside = set(ir.postorder(*roots))
        nodes = [n for n in questions.split.pairs if n in inside]
        return sum(DIVISION if isinstance(n, Apply) and n.op in (Op.FLOORDIV, Op.MOD, Op.POW) else 1 for n in nodes)

    return 1 + count(questions.attend), 1 + count(*questions.roots[1:])


# --------------------------------------------------------------------------------------------------- heads that share keys


def _sharing_keys(groups: Sequence[Heads], heads_per_key: int) -> list[list[int]]:
    """Groups joined by the key heads they share."""
    parts: list[tuple[set[int], list[int]]] = []
    for number, group in enumerate(groups):
        keys, members = {h // heads_per_key for h in group.heads}, [number]
        apart = []
        for other in parts:
            if keys & other[0]:
                keys, members = keys | other[0], other[1] + members
            else:
                apart.append(other)
        parts = [*apart, (keys, members)]
    return [sorted(members) for _, members in parts]


def _one_order_of_keys(orders: Sequence[Order | None]) -> bool:
    first = orders[0]
    return all((a is None) == (first is None) and (a is None or first is None or torch.equal(a.keys, first.keys)) for a in orders[1:])


# --------------------------------------------------------------------------------------------------- what the text decides


def reads_data(program: Program, candidates: tuple[Candidate, ...]) -> bool:
    """Whether anything but the text and its numbers decides what an order is worth."""
    roots = (*program.pair_roots, program.asks, *(e for c in candidates for e in c.keys + c.queries))
    return program.queries.given is not None or any(isinstance(n, Load) for n in ir.postorder(*roots))


class _Known:
    """Choices by the content of what decided them, the longest unused forgotten first."""

    def __init__(self) -> None:
        self._lock, self._kept = Lock(), OrderedDict[Hashable, _Tried]()

    def get(self, key: Hashable) -> _Tried | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()

    def put(self, key: Hashable, tried: _Tried) -> None:
        with self._lock:
            self._kept[key] = tried
            while len(self._kept) > CHOICES_KEPT:
                self._kept.popitem(last=False)


_KNOWN = _Known()


def forget() -> None:
    """Every choice that is kept: the next call makes its own."""
    _KNOWN.clear()
