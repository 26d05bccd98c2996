"""The plan of a call: which tiles each consumer visits, for every group of rows of the batch and heads that share a mask."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..diagnostics import InputError
from ..grammar.checked import Layout
from . import ir
from .boxes import Boxes, classify
from .candidates import Candidate, candidates
from .choice import AUTO, LEAST_TILES, NOT_ASKED, PROBE_TILES, Choice, Heads, Ordered, Ordering, Search, reads_data
from .evaluate import Environment
from .flex import block_mask
from .intervals import Intervals, intervals
from .ir import Program
from .labels import PARTIAL
from .layout import attributes, steps_of
from .leaves import Leaves, Split, evaluate, same, split
from .order import NATURAL, Order, must_stay
from .questions import Questions, questions
from .runs import Consumer, Runs, emit
from .shard import Shard, shard

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

DENSE_BYTES = 2**31


@dataclass(frozen=True, slots=True)
class Geometry:
    """What a plan is for. `op.attend` refuses a plan whose geometry is not the call's."""

    batch: int
    heads: int
    queries: int  # rows of q: the tokens that ask
    keys: int
    tile: int
    lengths: tuple[int, ...] | None
    asking: tuple[range, ...] | None = None  # the positions that q holds, by row of the batch; None: all
    heads_per_key: int = 1  # query heads of a key head: those that share keys visit them in one order


@dataclass(frozen=True, eq=False)
class GroupPlan:
    """The rows of the batch and the heads that share one mask, that mask's boxes, and the runs of every consumer."""

    batch: tuple[int, ...]
    heads: tuple[int, ...]
    queries: int  # the group's own rows of q: those beyond them are padding
    keys: int
    tile: int
    boxes: Boxes
    leaves: Leaves  # in `order`, as boxes and runs are
    order: Order | None = None  # None: the caller's own, `natural`
    choice: Choice = NOT_ASKED
    emitted: dict[Consumer, Runs] = field(default_factory=dict)

    def runs(self, consumer: Consumer) -> Runs:
        """The runs of a consumer, emitted from the boxes when they are first asked for."""
        if consumer not in self.emitted:
            rows, cols = (-(-n // self.tile) for n in ((self.keys, self.queries) if consumer.key_major else (self.queries, self.keys)))
            self.emitted[consumer] = emit(self.boxes, consumer, rows, cols)
        return self.emitted[consumer]


@dataclass(frozen=True, eq=False, repr=False)
class Plan:
    """Everything a kernel needs to know of a mask. Nothing in it is queries x keys but inputs that were given so. Prints as a
    table."""

    geometry: Geometry
    program: Program
    groups: tuple[GroupPlan, ...]
    seconds: float

    @property
    def group_of(self) -> Tensor:
        """(batch, heads) int32: the number of the group of each."""
        table = torch.full((self.geometry.batch, self.geometry.heads), -1, dtype=torch.int32)
        for number, group in enumerate(self.groups):
            rows, heads = (torch.tensor(x, dtype=torch.int64) for x in (group.batch, group.heads))
            table[rows[:, None], heads] = number
        return table

    @property
    def orders(self) -> tuple[tuple[tuple[int, ...], tuple[int, ...], str], ...]:
        """Rows of the batch, heads and the name of their order, of every group: plans of one call that agree in these visit tokens alike."""
        return tuple((g.batch, g.heads, NATURAL if g.order is None else g.order.name) for g in self.groups)

    @property
    def numbered(self) -> frozenset[ir.Side]:
        """The sides whose rows are, in order, the positions from 0 on."""
        if any(g.order is not None for g in self.groups):
            return frozenset()
        all_ask = self.program.asks is ir.TRUE and self.geometry.asking is None
        return frozenset(ir.Side) if all_ask else frozenset({ir.Side.KEY})

    def tiles(self, consumer: Consumer) -> int:
        """Tiles a consumer visits, groups counted once."""
        return sum(g.runs(consumer).tiles for g in self.groups)

    @property
    def active_tiles(self) -> int:
        return self.tiles(Consumer.FORWARD)

    @property
    def inexact_tiles(self) -> int:
        """Tiles treated as PARTIAL that nobody evaluated: right, and perhaps slower than they need be."""
        return sum(g.boxes.inexact for g in self.groups)

    @property
    def nbytes(self) -> int:
        """Bytes of the runs of all consumers, as if all were asked for. The leaves come on top: 8 bytes or fewer a token, each."""
        return sum(g.runs(c).nbytes for g in self.groups for c in Consumer)

    def __repr__(self) -> str:
        g = self.geometry
        return (
            f"<Plan for batch {g.batch}, heads {g.heads}, {g.queries} x {g.keys} tokens, tile {g.tile}: {self.active_tiles} tiles visited; print() lists them>"
        )

    def to_dense(self) -> Tensor:
        """The attended pairs, bool (batch, heads, queries, keys), read off the plan's tiles and not off the text alone.

        Raises InputError beyond 2 GiB.
        """
        g = self.geometry
        if g.batch * g.heads * g.queries * g.keys > DENSE_BYTES:
            raise InputError(f"{g.batch} x {g.heads} x {g.queries} x {g.keys} pairs are too many for a dense mask")
        dense = torch.zeros(g.batch, g.heads, g.queries, g.keys, dtype=torch.bool)
        for group in self.groups:
            mask = torch.zeros(group.queries, group.keys, dtype=torch.bool)
            runs = group.runs(Consumer.FORWARD)
            ptr = runs.ptr.tolist()
            for row in range(len(ptr) - 1):
                q = slice(row * g.tile, min(group.queries, (row + 1) * g.tile))
                for i in range(ptr[row], ptr[row + 1]):
                    first, count = int(runs.first[i]), int(runs.count[i])
                    k = slice(first * g.tile, min(group.keys, (first + count) * g.tile))
                    mask[q, k] = group.leaves.pairs(q, k, self.program.attend)[0] if int(runs.kind[i]) & PARTIAL else True
            if group.order is not None:
                queries, keys = group.order.places
                mask = mask[queries][:, keys]
            rows, heads = torch.tensor(group.batch)[:, None], torch.tensor(group.heads)
            full = torch.zeros(g.queries, g.keys, dtype=torch.bool)
            full[: group.queries, : group.keys] = mask
            dense[rows, heads] = full
        return dense

    @cached_property
    def natural(self) -> Plan:
        """The same plan in the caller's order: itself, or with boxes of its own where another order was taken."""
        if all(group.order is None for group in self.groups):
            return self
        ask = questions(self.program)

        def unordered(group: GroupPlan) -> GroupPlan:
            if group.order is None:
                return group
            leaves = Order(NATURAL, *group.order.places).picked(group.leaves)
            boxes = classify(ask, Leaves(ask.split, leaves.values, leaves.tables), group.queries, group.keys, group.tile)
            return replace(group, boxes=boxes, leaves=leaves, order=None, choice=NOT_ASKED, emitted={})

        return replace(self, groups=tuple(unordered(group) for group in self.groups))

    def to_flex(self, *, device: Any = None, gradients: str = "refuse", compact: bool = False) -> BlockMask:
        """A FlexAttention `BlockMask` of the plan's tiles: for q, k and v of the plan's sizes in the caller's order, on `device` (the GPU, if there
        is one). Heads and rows of the batch that share a mask share its lists.

        A BlockMask has no gradient rules: a text with some is refused, unless `gradients="drop"` asks for its mask alone. `compact` makes lists
        only as wide as the fullest row: less memory at great lengths; not for the CPU, and not for the BlockMask's own `to_dense`.
        Raises InputError for that, for a tile that FlexAttention's GPU kernels do not take, for empty calls and beyond 8 GiB.
        """
        return block_mask(self.natural, device, gradients, compact)

    def intervals(self) -> tuple[Intervals, ...]:
        """The stretches of keys that each query attends, exact, int32, of every group, in the caller's order. Evaluates every PARTIAL tile: not
        for masks that are PARTIAL everywhere. Raises InputError beyond 67 million intervals."""
        return tuple(intervals(group, self.program) for group in self.natural.groups)

    def shard(self, rank: int, world: int) -> Shard:
        """The queries that one of `world` ranks owns, by whole tiles of the plan's order, and the keys it needs, so that ranks have equal work forward and backward.

        Ranks own equally many rows of tiles, give or take one, and the busiest and the idlest differ by at most the heaviest row.
        Raises InputError for a rank that is not there.
        """
        return shard(self, rank, world)

    def __str__(self) -> str:
        g = self.geometry
        lines = [
            f"plan for batch {g.batch}, heads {g.heads}, {g.queries} x {g.keys} tokens, tile {g.tile}: {len(self.groups)} group(s), {self.nbytes:,} bytes, {1000 * self.seconds:.1f} ms"
        ]
        for number, group in enumerate(self.groups):
            rows, cols = (-(-n // g.tile) for n in (group.queries, group.keys))
            lines.append(
                f"group {number}: batch rows {_span(group.batch)}, heads {_span(group.heads)}, {group.queries} x {group.keys} tokens, {rows} x {cols} tiles"
            )
            for consumer in (Consumer.FORWARD, Consumer.DQ, Consumer.DKV):
                runs = group.runs(consumer)
                partial = runs.partial_tiles
                text = f"  {consumer.value[0]:8} {runs.tiles - partial} FULL + {partial} PARTIAL of {rows * cols}"
                if consumer is Consumer.DKV:
                    text += f"; dK works on {runs.tiles_where('k')}, dV on {runs.tiles_where('v')}"
                lines.append(text)
            lines += [f"  {line}" for line in group.choice.lines((group.queries, group.keys))]
            if group.boxes.inexact:
                lines.append(f"  {group.boxes.inexact} tiles are called PARTIAL without having been evaluated")
        return "\n".join(lines)


def _span(numbers: tuple[int, ...]) -> str:
    if len(numbers) > 1 and numbers == tuple(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]}-{numbers[-1]}"
    return ",".join(map(str, numbers))


@dataclass(frozen=True, eq=False)
class Compiled:
    """A simplified program and what the planner and the kernels ask of it; made once a spec, and known by itself."""

    program: Program

    @cached_property
    def questions(self) -> Questions:
        return questions(self.program)

    @cached_property
    def split(self) -> Split:
        """The leaves that a kernel needs: those of the mask and the gates."""
        return split(*self.program.pair_roots)

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """The orders of tokens worth trying."""
        return () if self.must_stay else candidates(self.program, self.split)

    @cached_property
    def must_stay(self) -> str:
        """Why tokens can be visited in the caller's order alone; empty where they can in any."""
        return must_stay(self.program, self.questions.split)

    @cached_property
    def reads_data(self) -> bool:
        """Whether anything but the text and its numbers decides what an order is worth."""
        return reads_data(self.program, self.candidates)

    @cached_property
    def speaks_of_head(self) -> bool:
        return any(isinstance(n, ir.Scalar) and n.name == "head" for n in ir.postorder(*self.program.pair_roots))

    @cached_property
    def reads_length(self) -> bool:
        """Whether what is said of two tokens may change as others are added behind them: by `length`, `steps`, or a look at a position, which
        may lie beyond the end."""
        nodes = list(ir.postorder(*self.program.pair_roots, self.program.asks))
        return any(isinstance(n, ir.Gather) or (isinstance(n, ir.Scalar) and n.name in ("length", "steps")) for n in nodes)

    @cached_property
    def key(self) -> str:
        return ir.digest(*self.program.pair_roots, self.program.asks)


@dataclass(frozen=True)
class BatchRow:
    """What tells the rows of a batch apart: its length (None: all tokens), inputs, the layout given for it, params, and the positions that q
    holds of it (None: all)."""

    length: int | None
    inputs: Mapping[str, Tensor]
    layout: Mapping[str, Tensor]
    params: Mapping[str, int | float]
    asking: range | None = None


def make_plan(
    compiled: Compiled, geometry: Geometry, rows: Sequence[BatchRow], scalars: Mapping[str, int | float],
    ordering: Ordering | None = None, like: Plan | None = None,
) -> Plan:  # fmt: skip
    """Plan one call. `rows` has an entry for each row of the batch; equal ones share a plan. `scalars` are `heads`, `layer` and `layers`.
    Tokens are visited as `ordering` finds best, or as in a plan of the same call that this one is to be `like`; else in the caller's order.

    The plan keeps the tensors it is given, on the CPU: they must not change. Raises InputError if q has not as many rows as tokens ask.
    """
    begin = time.perf_counter()
    program = compiled.program
    check_asking(program, geometry, rows, scalars)
    groups: list[GroupPlan] = []
    for members, row in _batch_groups(rows):
        environment = lay_out(program, geometry, row, scalars)
        nq, nk = len(environment.queries), len(environment.keys)
        found = _head_groups(compiled, geometry.heads, environment)
        if like is not None:
            found, orders = _as_in(like, members[0], found)
        else:
            orders = _orders(compiled, geometry, ordering, len(members), found, row, scalars)
        for group, ordered in zip(found, orders, strict=True):
            leaves, order = group.leaves, ordered.order
            if order is not None:
                leaves = order.picked(leaves)
            boxes = ordered.boxes or classify(compiled.questions, leaves, nq, nk, geometry.tile)
            needed = Leaves(compiled.split, leaves.values, leaves.tables)
            made = GroupPlan(members, group.heads, nq, nk, geometry.tile, boxes, needed, order, ordered.choice)
            made.runs(Consumer.FORWARD)
            groups.append(made)
    return Plan(geometry, program, tuple(groups), time.perf_counter() - begin)


def _orders(
    compiled: Compiled, geometry: Geometry, ordering: Ordering | None, members: int, groups: Sequence[Heads], row: BatchRow,
    scalars: Mapping[str, int | float],
) -> list[Ordered]:  # fmt: skip
    """The order of each group of heads of one row of the batch."""
    program, first = compiled.program, groups[0].environment if groups else None
    if compiled.must_stay or not compiled.candidates:
        return [Ordered(None, Choice(NATURAL, compiled.must_stay or "no other order is worth a try"))] * len(groups)
    if ordering is None or ordering.wanted == NATURAL or first is None:
        return [Ordered(None, NOT_ASKED)] * len(groups)
    if row.asking is not None:
        return [Ordered(None, Choice(NATURAL, "keys are not moved for some rows of q alone"))] * len(groups)
    rows, cols = (-(-len(x) // geometry.tile) for x in (first.queries, first.keys))
    if ordering.wanted == AUTO and rows * cols < LEAST_TILES**2:
        return [Ordered(None, Choice(NATURAL, f"{rows} x {cols} tiles are too few to be worth a search"))] * len(groups)
    sizes = tuple(_shorter(layout, n, PROBE_TILES * geometry.tile) for layout, n in _axes(program, geometry, row))
    probe = replace(geometry, queries=sizes[0], keys=sizes[-1])
    numbers = (*sorted(scalars.items()), *sorted(row.params.items()))
    # What was found for a call of fewer tiles than are tried is found again for it alone.
    known = None if compiled.reads_data else (compiled.key, program.queries, program.keys, program.data, sizes, geometry.tile, numbers)
    search = Search(program, compiled.questions, compiled.candidates, geometry.tile, members, geometry.heads_per_key, ordering)

    def shorter() -> Environment:
        return lay_out(program, probe, replace(row, length=None if row.length is None else sizes[0]), scalars)

    return search.ordered(groups, shorter, known)


def _axes(program: Program, geometry: Geometry, row: BatchRow) -> list[tuple[Layout, int]]:
    """Each layout of a call, and its tokens."""
    if program.keys is None:
        return [(program.queries, geometry.keys if row.length is None else row.length)]
    return [(program.queries, geometry.queries), (program.keys, geometry.keys)]


def _shorter(layout: Layout, tokens: int, most: int) -> int:
    """Tokens of the layout, at most so many if it can have them."""
    if layout.given is not None:
        return min(tokens, most)
    if tokens <= most or not layout.rows_per_step or most < layout.tokens(1):
        return tokens
    return layout.tokens(layout.steps(most))


def _as_in(like: Plan, row: int, groups: Sequence[Heads]) -> tuple[list[Heads], list[Ordered]]:
    """The groups, parted where another plan's orders part them, and those orders."""
    found, orders = [], []
    for group in groups:
        for other in like.groups:
            heads = tuple(h for h in group.heads if h in other.heads)
            if heads and row in other.batch:
                found.append(replace(group, heads=heads))
                orders.append(Ordered(other.order, other.choice))
    return found, orders


def lay_out(program: Program, geometry: Geometry, row: BatchRow, scalars: Mapping[str, int | float]) -> Environment:
    """What the names mean in one row of the batch: its queries are the tokens that ask, at the positions that q holds."""
    tokens = _positions(program, geometry) if row.length is None else row.length
    own = attributes(program.queries, tokens, program.data, row.layout)
    keys = own if program.keys is None else attributes(program.keys, geometry.keys, program.data, row.layout)
    numbers = {**scalars, **row.params, "length": tokens, "steps": steps_of(program.queries, own)}
    environment = Environment(numbers, row.inputs, own, keys)
    start, stop = (0, tokens) if row.asking is None else (min(row.asking.start, tokens), min(row.asking.stop, tokens))
    if program.asks is not ir.TRUE:
        (asks,) = environment.evaluate(program.asks)
        where = asks.expand(tokens).clone()
        where[:start] = where[stop:] = False
        return replace(environment, queries=own.picked(where))
    return environment if row.asking is None else replace(environment, queries=own.between(start, stop))


def _positions(program: Program, geometry: Geometry) -> int:
    """Tokens of the axis that queries stand in, in a row of full length."""
    if program.keys is None:
        return geometry.keys
    if geometry.asking is None:
        return geometry.queries
    return max((r.stop for r in geometry.asking), default=0) if program.queries.rows_per_step else program.queries.fixed


def count_asking(program: Program, geometry: Geometry, rows: Sequence[BatchRow], scalars: Mapping[str, int | float]) -> int:
    """Rows that q has: as many as ask in a row of full length, or more if some row of the batch has more."""
    full = [replace(row, length=None) for row in rows]
    return max((len(lay_out(program, geometry, row, scalars).queries) for _, row in _batch_groups([*rows, *full])), default=0)


def check_asking(program: Program, geometry: Geometry, rows: Sequence[BatchRow], scalars: Mapping[str, int | float]) -> None:
    """Raises InputError if q has not as many rows as tokens ask."""
    if not rows or program.keys is not None:
        return
    everybody = geometry.keys if geometry.asking is None else max(len(r) for r in geometry.asking)
    asking = everybody if program.asks is ir.TRUE else count_asking(program, geometry, rows, scalars)
    if asking != geometry.queries:
        among = f"the {geometry.keys} tokens" if geometry.asking is None else f"the {everybody} tokens of queries="
        raise InputError(f"q has {geometry.queries} rows, and {asking} of {among} ask (`queries where`): q holds the rows of those, in order; k and v hold all")


def _head_groups(compiled: Compiled, heads: int, environment: Environment) -> list[Heads]:
    """Heads that share every leaf and table share a mask."""
    split = compiled.questions.split
    if not compiled.speaks_of_head:
        return [Heads(tuple(range(heads)), environment, evaluate(split, environment))]
    found: list[Heads] = []
    for head in range(heads):
        own = replace(environment, scalars={**environment.scalars, "head": head})
        leaves = evaluate(split, own)
        for number, known in enumerate(found):
            if same(known.leaves, leaves):
                found[number] = replace(known, heads=(*known.heads, head))
                break
        else:
            found.append(Heads((head,), own, leaves))
    return found


def _batch_groups(rows: Sequence[BatchRow]) -> list[tuple[tuple[int, ...], BatchRow]]:
    """Rows of the batch that share everything: length, positions asked for, params, and the values of every tensor."""
    found: dict[Any, list[list[int]]] = {}
    for number, row in enumerate(rows):
        tensors = (*row.inputs.values(), *row.layout.values())
        # Rows that may be alike have a few values in common: only those are compared.
        some = tuple(tuple(t.flatten()[:: max(1, t.numel() // 8)].tolist()) for t in tensors)
        alike = found.setdefault((row.length, row.asking, some, tuple(row.params.items())), [])
        for members in alike:
            if _equal(row, rows[members[0]]):
                members.append(number)
                break
        else:
            alike.append([number])
    return sorted(((tuple(members), rows[members[0]]) for alike in found.values() for members in alike), key=lambda group: group[0])


def _equal(one: BatchRow, other: BatchRow) -> bool:
    """Whether two rows were given the same values."""
    pairs = [*zip(one.inputs.values(), other.inputs.values(), strict=True), *zip(one.layout.values(), other.layout.values(), strict=True)]
    return all(a is b or a.data_ptr() == b.data_ptr() or torch.equal(a, b) for a, b in pairs)
