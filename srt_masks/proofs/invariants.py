"""Transitive claims for any depth: a relation that every path keeps to.

A relation between rows is inductive if a row has it to itself, and if a hop keeps it: where `a` reads `b`, and `b` has it to `c`, `a` has it to `c`
(or, hop by hop from the other end, `a` to `b` and `b` reads `c`). Along a path of any length it then holds from end to end. Candidates are taken
from the text: its own comparisons, orders of positions, steps and of what rows are compared by, each also for some roles alone, and the denial of
what the claim forbids. Whatever a hop breaks is dropped until nothing is (Flanagan and Leino, Houdini, FME 2001): what is left is inductive, and
if it excludes what the claim forbids, the claim is proved.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from itertools import islice

import z3

from ..compiler import ir
from ..compiler.ir import Apply, Expr, Op, Program, Side
from ..grammar.checked import Type
from .pairs import Pairs, is_local
from .paths import Subject
from .solve import Solver
from .tokens import Token
from .values import Term, Truth

MOST_ATOMS = 60
MOST_LAYERS = 3  # named in a text
MOST_ROLES = 5  # beyond, a candidate speaks of the role of one row at most
MOST_CANDIDATES = 4000


class End(Enum):
    """At which end of a path the hop is added."""

    SINK = "sink"
    SOURCE = "source"


@dataclass(frozen=True, slots=True)
class Candidate:
    """Between a query of some role and a key of some role (None: any), what may hold along every path; through layers up to one, or with more."""

    query: int | None
    key: int | None
    atom: Expr
    through: int | None = None
    beyond: int | None = None


def inductive(subject: Subject, where: Expr, candidates: list[Candidate], end: End, exact: bool = False) -> list[Candidate] | None:
    """The candidates that every path keeps to, if together they exclude `where`; else None. `exact`: products of unknowns as they are. Raises
    Undecided."""
    pairs = subject.pairs(exact=exact)
    solver = Solver(pairs.call, subject.budget)
    # A path from c to b, or b to a, that keeps to the candidates, and one hop more; it went through so many layers.
    a, b, c = pairs.query(), pairs.query(), pairs.query()
    hop, rest = ((a, b), (b, c)) if end is End.SINK else ((b, c), (a, b))
    edge = pairs.edge(*hop)
    depth = edge.place.layer.term
    used = {x: z3.Bool(f"used {i}") for i, x in enumerate(candidates)}
    step, goal = z3.Bool("step"), z3.Bool("goal")
    # What the claim speaks of is a path behind the last layer, which no hop is.
    held = _relations(pairs, candidates, *rest, z3.If(goal, pairs.call.layers.term, depth))
    solver.add(*(z3.Implies(used[x], held[x]) for x in candidates))
    solver.add(z3.Implies(step, edge.holds), z3.Implies(goal, pairs.says(where, *rest)))
    left = _kept(solver, candidates, _relations(pairs, candidates, a, a, z3.IntVal(0)), {})
    after = _relations(pairs, candidates, a, c, depth + 1)
    if any(x.through is not None or x.beyond is not None for x in candidates):
        # A row goes on to the next layer, whatever it reads there.
        stays = _relations(pairs, candidates, *rest, depth + 1)
        after = {x: z3.And(z3.Implies(step, after[x]), stays[x]) for x in candidates}
        left = _kept(solver, left, after, used, z3.Not(goal))
    else:
        left = _kept(solver, left, after, used, step, z3.Not(goal))
    if solver.model(goal, *(used[x] for x in left)) is not None:
        return None
    # Those that the conclusion rests on, for people: the rest only keep them inductive.
    core = {str(x) for x in solver.solver.unsat_core()}
    return [x for x in left if str(used[x]) in core]


def _kept(solver: Solver, candidates: list[Candidate], holds: Relations, used: dict[Candidate, Truth], *when: Truth) -> list[Candidate]:
    """The candidates that nothing breaks, if all of them that are left held before."""
    left = list(candidates)
    while left:
        broken = z3.Bool(solver.call.fresh("broken"))
        solver.add(z3.Implies(broken, z3.Not(z3.And([holds[x] for x in left]))))
        model = solver.model(*when, broken, *(used[x] for x in left if x in used))
        if model is None:
            return left
        left = [x for x in left if not z3.is_false(model.eval(holds[x], model_completion=True))]
    return left


Relations = dict[Candidate, Truth]


def _relations(pairs: Pairs, candidates: list[Candidate], query: Token, key: Token, depth: Term) -> Relations:
    """What each candidate says of two rows that a path through so many layers joins."""
    asked = {*((query, x.query) for x in candidates), *((key, x.key) for x in candidates)}
    other_role = {(token, role): token.fields["role"].term != role for token, role in asked if role is not None}
    found = {}
    for x in candidates:
        pairs.call.check_time()
        unless = [other_role[token, role] for token, role in ((query, x.query), (key, x.key)) if role is not None]
        unless += [] if x.through is None else [depth > x.through]
        unless += [] if x.beyond is None else [depth <= x.beyond]
        atom = pairs.says(x.atom, query, key)
        found[x] = z3.Or(*unless, atom) if unless else atom
    return found


def simple(where: Expr) -> list[Candidate]:
    """The first to try: the claim itself, and the order of positions and steps."""
    orders = [ir.apply(Op.LE, *(ir.attribute(side, name) for side in (Side.KEY, Side.QUERY))) for name in ("pos", "step")]
    return [Candidate(None, None, x) for x in (ir.apply(Op.NOT, where), *orders)]


def all_of(program: Program, where: Expr) -> list[Candidate]:
    """Everything that the text suggests, for every pair of roles."""
    atoms = list(dict.fromkeys(_atoms(program, where)))[:MOST_ATOMS]
    roles = sorted({r for layout in (program.queries,) for s in layout.sections for r, _ in s.rows} | set(program.queries.given or ()))
    own: list[int | None] = [None] if len(roles) < 2 else [None, *roles]
    guards = ((q, k) for q in own for k in own if len(roles) <= MOST_ROLES or q is None or k is None)
    return [Candidate(None, None, ir.apply(Op.NOT, where)), *islice((Candidate(q, k, atom) for q, k in guards for atom in atoms), MOST_CANDIDATES)]


def by_layer(program: Program, where: Expr) -> list[Candidate]:
    """All of them once more for paths that end before a layer the text names, and behind it."""
    named = sorted({int(x.value) for x in _beside_layer(program) if isinstance(x, ir.Const)})[:MOST_LAYERS]
    candidates = all_of(program, where)
    return candidates + [replace(x, **{side: n}) for n in named for side in ("through", "beyond") for x in candidates]


def _beside_layer(program: Program) -> Iterator[Expr]:
    """What `layer` is compared with."""
    gates = (program.gate_k, program.gate_v, program.gate_hidden)
    for node in ir.postorder(program.attend, *(e for g in gates for e in (g.open, g.weight)), land=False):
        if isinstance(node, Apply) and node.op in (Op.EQ, Op.NE, Op.LT, Op.LE) and ir.scalar("layer") in node.args:
            yield from node.args


def _atoms(program: Program, where: Expr) -> Iterator[Expr]:
    roots = (program.attend, *(g.open for g in (program.gate_k, program.gate_v, program.gate_hidden)), where)
    yield ir.apply(Op.NE, ir.attribute(Side.QUERY, "pos"), ir.attribute(Side.QUERY, "pos"))  # never: no path between such rows
    yield same_row()
    for leaf in dict.fromkeys((*(ir.attribute(Side.KEY, n) for n in ("pos", "step", "section", "slot")), *_leaves(*roots))):
        q, k = ir.about(leaf, Side.QUERY), ir.about(leaf, Side.KEY)
        if leaf.type is Type.BOOL:
            yield ir.apply(Op.EQ, q, k)
            yield from (or_same_row(x) for x in (q, k, ir.apply(Op.NOT, q), ir.apply(Op.NOT, k)))
            continue
        yield ir.apply(Op.LE, k, q)
        yield ir.apply(Op.LE, q, k)
        yield ir.apply(Op.EQ, q, k)
        yield or_same_row(ir.apply(Op.LT, k, q))
        yield or_same_row(ir.apply(Op.LT, q, k))
    for node in ir.postorder(*roots, land=False):
        if node.type is Type.BOOL and len(ir.sides(node)) == 2 and not is_local(node):
            yield or_same_row(node)
            yield or_same_row(ir.apply(Op.NOT, node))


def _leaves(*roots: Expr) -> Iterator[Expr]:
    """What rows are compared by: the largest parts that speak of one side, as of the key."""
    for node in ir.postorder(*roots, land=False):
        if len(ir.sides(node)) == 2:
            for child in ir.children(node):
                if len(ir.sides(child)) == 1 and child.type in (Type.INT, Type.BOOL) and not is_local(child) and not _asks_role(child):
                    yield ir.about(child, Side.KEY)


def _asks_role(node: Expr) -> bool:
    """`k is reason`: candidates speak of roles anyway."""
    return isinstance(node, Apply) and node.op in (Op.EQ, Op.NE) and node.args[0].type is Type.ROLE


def same_row() -> Expr:
    return ir.apply(Op.EQ, ir.attribute(Side.QUERY, "pos"), ir.attribute(Side.KEY, "pos"))


def or_same_row(atom: Expr) -> Expr:
    """A row reaches itself, by its residual stream, whatever else holds."""
    return ir.apply(Op.OR, same_row(), atom)
