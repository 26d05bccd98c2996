"""A program -> the orders worth trying: stable sorts by what its mask compares, and curves through grids of it.

Input: a `Program`. Output: `Candidate`s, by the text alone. Non-goals: permutations (`order.py`), and which one is good (`choice.py`).

Attention commutes with permutations, so tokens may be visited in any order. A mask falls into few tiles where tokens that are treated alike lie
together, and what a mask treats alike it says itself: `k is reason`, `same(cluster)`, `(q.pos - k.pos) % stride == 0`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from ..grammar.checked import Type
from . import ir
from .ir import Apply, Const, Expr, Field, Op, Program, Side
from .leaves import Split
from .wording import wording

COMPARISONS = frozenset({Op.LT, Op.LE, Op.EQ, Op.NE})
MOST_CURVES = 3


@dataclass(frozen=True, slots=True)
class Candidate:
    """Sort the keys by `keys`, the first first, ties as they stood, and the queries by `queries`; or along a curve through them. No expression
    at all leaves a side as it is."""

    name: str
    keys: tuple[Expr, ...]
    queries: tuple[Expr, ...]
    curve: bool = False

    @property
    def is_symmetric(self) -> bool:
        """Whether queries are sorted by what keys are sorted by."""
        return tuple(ir.mirrored(x) for x in self.queries) == self.keys

    def then(self, other: Candidate) -> Candidate:
        """By this, and where it is equal by another."""
        return Candidate(f"{self.name}, then {other.name.removeprefix('by ')}", self.keys + other.keys, self.queries + other.queries)


def candidates(program: Program, split: Split) -> tuple[Candidate, ...]:
    """Sorts by one expression, then curves. `split` is that of the mask and the gates."""
    one_layout = program.keys is None
    found: dict[Candidate, None] = {}

    def sort(key: Expr, query: Expr | None = None, name: str = "") -> None:
        if query is None and one_layout:
            query = ir.about(key, Side.QUERY)
        found[Candidate(name or _name(key, query, program.roles), (key,), () if query is None else (query,))] = None

    leaves = [ir.mirrored(x) for x in split.query] if one_layout else []
    features = list(dict.fromkeys(f for leaf in (*split.key, *leaves) for f in _features(leaf)))
    if any(isinstance(n, Field) and n.name == "role" for n in ir.postorder(*features)):
        role = ir.attribute(Side.KEY, "role")
        sort(role, ir.attribute(Side.QUERY, "role"), "by role")
    for feature in features:
        sort(feature)
    for residue in _residues(split):
        if one_layout:
            sort(ir.mirrored(residue))
    compared = list(dict.fromkeys(_compared(split)))
    for query, key in compared:
        if ir.mirrored(query) is not key and _tells(query) and _tells(key):
            sort(key, query)
    if one_layout:
        both = {ir.mirrored(q) for q in map(_core, split.query)} & {_core(k) for k in split.key}
        axes = [x for x in features if x in both and x.type is Type.INT]
        for some in [c for count in (3, 2) for c in combinations(axes, count)][:MOST_CURVES]:
            name = f"Hilbert over ({', '.join(wording(x, program.roles) for x in some)})"
            found[Candidate(name, some, tuple(ir.about(x, Side.QUERY) for x in some), curve=True)] = None
    return tuple(found)


def _name(key: Expr, query: Expr | None, roles: tuple[str, ...]) -> str:
    if query is None or ir.mirrored(query) is key:
        return f"by {wording(key, roles)}"
    return f"by {wording(query, roles)} and {wording(key, roles)}"


def _features(leaf: Expr) -> Iterator[Expr]:
    """What of a leaf may be worth sorting by: the leaf, and the conditions it is made of."""
    seen: set[Expr] = set()
    stack = [leaf]
    while stack:
        part = stack.pop()
        if part in seen:
            continue
        seen.add(part)
        match part:
            case Apply(op=Op.NOT, args=args):
                stack += args
            case Apply(op=(Op.AND | Op.OR), args=args):
                yield part
                stack += reversed(args)
            case _:
                core = _core(part)
                if _tells(core):
                    yield core


def _core(leaf: Expr) -> Expr:
    """Without what keeps the order of its values, or turns it round: `clamp(k.x - 3, 0, 9)` sorts as `k.x` does."""
    while True:
        match leaf:
            case Apply(op=(Op.ADD | Op.SUB | Op.MIN | Op.MAX), args=(a, b)) if not ir.sides(b):
                leaf = a
            case Apply(op=(Op.ADD | Op.SUB | Op.MIN | Op.MAX), args=(a, b)) if not ir.sides(a):
                leaf = b
            case Apply(op=Op.NEG, args=(a,)):
                leaf = a
            case _:
                return leaf


def _tells(expr: Expr) -> bool:
    """Whether sorting by it may change anything: positions are sorted."""
    return bool(ir.sides(expr)) and not (isinstance(expr, Field) and expr.name == "pos")


def _residues(split: Split) -> Iterator[Expr]:
    """`a % m` for each side's `a` of an `(a - b) % m`."""
    for node in split.pairs:
        match node:
            case Apply(op=Op.MOD, args=(a, m)) if not ir.sides(m) and not (isinstance(m, Const) and m.value in (0, 1)):
                stack, seen = [a], set[Expr]()
                while stack:
                    part = stack.pop()
                    if part in seen:
                        continue
                    seen.add(part)
                    if len(ir.sides(part)) == 1:
                        yield ir.apply(Op.MOD, _core(part), m)
                    elif isinstance(part, Apply) and part.op in (Op.ADD, Op.SUB, Op.ABS, Op.NEG):
                        stack += part.args
            case _:
                pass


def _compared(split: Split) -> Iterator[tuple[Expr, Expr]]:
    """What of the query is compared with, or taken from, what of the key."""
    for node in split.pairs:
        if isinstance(node, Apply) and (node.op in COMPARISONS or node.op is Op.SUB):
            one, other = (ir.sides(a) for a in node.args)
            a, b = node.args
            if one == {Side.QUERY} and other == {Side.KEY}:
                yield _core(a), _core(b)
            elif one == {Side.KEY} and other == {Side.QUERY}:
                yield _core(b), _core(a)
