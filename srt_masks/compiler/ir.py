"""The mask IR: what is left of a spec once names, kinds and lets are gone. Nodes are interned: equal means identical.

    Const Scalar              the same for every token
    Field Load Gather         an attribute of a side; an element of an input; a token expression at a position
    Apply                     an operator

A `Program` is the whole spec in this form. No I/O, no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from enum import Enum
from hashlib import sha256
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from ..grammar.checked import Input, Layout, Param, Type


class Side(Enum):
    QUERY = "q"
    KEY = "k"


class Op(Enum):
    """The operators, each with its number of arguments. Integers are 64-bit and wrap; division by zero gives 0."""

    NEG = ("neg", 1)
    ABS = ("abs", 1)
    NOT = ("not", 1)
    ADD = ("add", 2)
    SUB = ("sub", 2)
    MUL = ("mul", 2)
    TRUEDIV = ("truediv", 2)
    FLOORDIV = ("floordiv", 2)
    MOD = ("mod", 2)
    POW = ("pow", 2)
    MIN = ("min", 2)
    MAX = ("max", 2)
    LT = ("lt", 2)
    LE = ("le", 2)
    EQ = ("eq", 2)
    NE = ("ne", 2)
    AND = ("and", 2)
    OR = ("or", 2)
    SELECT = ("select", 3)  # condition, then, otherwise

    @property
    def symbol(self) -> str:
        return self.value[0]


COMMUTES = frozenset({Op.ADD, Op.MUL, Op.MIN, Op.MAX, Op.EQ, Op.NE, Op.AND, Op.OR})
TRUTHS = frozenset({Op.NOT, Op.LT, Op.LE, Op.EQ, Op.NE, Op.AND, Op.OR})


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Const:
    value: int | float | bool
    type: Type


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Scalar:
    """A param, or one of `head heads layer layers steps length`: one number a call (and head, and row of the batch)."""

    name: str
    type: Type


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Field:
    """A built-in attribute of the query or the key."""

    side: Side
    name: str
    type: Type


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Load:
    """An element of an input; 0 or false where a subscript is out of range."""

    table: str
    indices: tuple[Expr, ...]
    type: Type


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Gather:
    """A token expression (written with `k` fields: the key axis has every token) at a position; out of range `filler`."""

    value: Expr
    index: Expr
    filler: int
    type: Type


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Apply:
    op: Op
    args: tuple[Expr, ...]
    type: Type


Expr = Const | Scalar | Field | Load | Gather | Apply

_LOCK = Lock()
_TABLE: WeakValueDictionary[tuple[Any, ...], Any] = WeakValueDictionary()


def _intern(cls: type, *fields: Any) -> Any:
    key = (cls, *(repr(f) if isinstance(f, int | float) else f for f in fields))
    with _LOCK:
        node = _TABLE.get(key)
        if node is None:
            node = _TABLE[key] = cls(*fields)
        return node


def const(value: int | float | bool, type: Type | None = None) -> Const:
    if type is None:
        type = Type.BOOL if isinstance(value, bool) else Type.INT if isinstance(value, int) else Type.FLOAT
    return _intern(Const, value, type)


def scalar(name: str, type: Type = Type.INT) -> Scalar:
    return _intern(Scalar, name, type)


def attribute(side: Side, name: str) -> Field:
    return _intern(Field, side, name, Type.ROLE if name == "role" else Type.INT)


def load(table: str, indices: tuple[Expr, ...], type: Type) -> Load:
    return _intern(Load, table, indices, type)


def gather(value: Expr, index: Expr) -> Expr:
    filler = -1 if value.type is Type.ROLE else 0
    if not sides(value):
        # One value for every token: all there is to ask is whether there is a token at that position.
        inside = apply(Op.AND, apply(Op.LE, const(0), index), apply(Op.LT, index, scalar("length")))
        return apply(
            Op.SELECT, inside, value, const(False) if value.type is Type.BOOL else const(float(filler) if value.type is Type.FLOAT else filler, value.type)
        )
    return _intern(Gather, value, index, filler, value.type)


def apply(op: Op, *args: Expr) -> Apply:
    """An operator applied; its type follows from its arguments."""
    assert len(args) == op.value[1], (op, args)
    if op in TRUTHS:
        type = Type.BOOL
    elif op is Op.TRUEDIV or any(a.type is Type.FLOAT for a in args[-2:]):
        type = Type.FLOAT
    else:
        type = args[-1].type
    return _intern(Apply, op, args, type)


TRUE, FALSE, ONE = const(True), const(False), const(1.0)


def children(node: Expr) -> tuple[Expr, ...]:
    match node:
        case Load(indices=parts) | Apply(args=parts):
            return parts
        case Gather(value=value, index=index):
            return (value, index)
        case _:
            return ()


def postorder(*roots: Expr, land: bool = True, but: Collection[Expr] = ()) -> Iterator[Expr]:
    """Every node once, children before parents, without recursion; not those of `but`, nor what is below them alone. Without `land`, not what a
    `Gather` reads of the token it lands on."""
    done: set[Expr] = set(but)
    stack = [(r, False) for r in reversed(roots)]
    while stack:
        node, ready = stack.pop()
        if node in done:
            continue
        if ready:
            done.add(node)
            yield node
        else:
            stack.append((node, True))
            below = (node.index,) if isinstance(node, Gather) and not land else children(node)
            stack += [(c, False) for c in reversed(below) if c not in done]


def sides(root: Expr) -> frozenset[Side]:
    """Whose attributes a node reads. What a `Gather` reads of the token it lands on counts for nobody."""
    if root not in _SIDES:
        for node in postorder(root):
            match node:
                case Field(side=side):
                    _SIDES[node] = frozenset({side})
                case Gather(index=index):
                    _SIDES[node] = _SIDES[index]
                case _:
                    _SIDES[node] = frozenset().union(*(_SIDES[c] for c in children(node)))
    return _SIDES[root]


_SIDES: WeakKeyDictionary[Expr, frozenset[Side]] = WeakKeyDictionary()


def scalars(root: Expr) -> tuple[str, ...]:
    """The scalars a node reads, anywhere below it."""
    if root not in _SCALARS:
        _SCALARS[root] = tuple(sorted({n.name for n in postorder(root) if isinstance(n, Scalar)}))
    return _SCALARS[root]


_SCALARS: WeakKeyDictionary[Expr, tuple[str, ...]] = WeakKeyDictionary()


def mirrored(root: Expr) -> Expr:
    """A leaf of either side as a leaf of the key: equal for what means the same of both."""
    if root not in _MIRRORED:
        found = about(root, Side.KEY)
        _MIRRORED[root] = None if found is root else found
    return _MIRRORED[root] or root


_MIRRORED: WeakKeyDictionary[Expr, Expr | None] = WeakKeyDictionary()  # None: itself, which a value must not keep alive


def about(root: Expr, side: Side) -> Expr:
    """The same expression about the tokens of one side. What a `Gather` reads of the token it lands on stays."""
    done: dict[Expr, Expr] = {}
    for node in postorder(root, land=False):
        match node:
            case Field(name=name):
                done[node] = attribute(side, name)
            case Gather(value=value, index=index):
                done[node] = gather(value, done[index])
            case _:
                done[node] = rebuilt(node, done.__getitem__)
    return done[root]


def rebuilt(node: Expr, child: Callable[[Expr], Expr]) -> Expr:
    """A node of the same kind over other children."""
    match node:
        case Load(table=table, indices=indices, type=type):
            return load(table, tuple(child(i) for i in indices), type)
        case Gather(value=value, index=index):
            return gather(child(value), child(index))
        case Apply(op=op, args=args):
            return apply(op, *(child(a) for a in args))
        case _:
            return node


@dataclass(frozen=True, slots=True)
class Gate:
    """The factor of a gradient at a pair: `weight` where `open`, else 0."""

    open: Expr = TRUE
    weight: Expr = ONE


@dataclass(frozen=True, slots=True)
class Label:
    """The data token that outputs of a role are trained to predict, where `where`, with a weight."""

    role: int
    target: Expr
    weight: Expr
    where: Expr


@dataclass(frozen=True, slots=True)
class Program:
    """A spec, lowered."""

    roles: tuple[str, ...]
    data: tuple[int, ...]
    queries: Layout
    keys: Layout | None
    params: tuple[Param, ...]
    inputs: tuple[Input, ...]
    attend: Expr
    gate_q: Gate
    gate_k: Gate
    gate_v: Gate
    gate_hidden: Gate  # of the state that a pair's key and value are made from
    position: Expr
    labels: tuple[Label, ...]
    asks: Expr  # which tokens have a row of q

    @property
    def gates(self) -> tuple[Gate, Gate, Gate]:
        return self.gate_q, self.gate_k, self.gate_v

    @property
    def pair_roots(self) -> tuple[Expr, ...]:
        """What attention itself needs: the mask, then open and weight of q, k and v."""
        return (self.attend, *(e for g in self.gates for e in (g.open, g.weight)))

    def __str__(self) -> str:
        roots = {"attend": self.attend}
        for name, gate in zip(("q", "k", "v", "hidden"), (*self.gates, self.gate_hidden), strict=True):
            if gate.open is not TRUE:
                roots[f"open {name}"] = gate.open
            if gate.weight is not ONE:
                roots[f"weight {name}"] = gate.weight
        if self.asks is not TRUE:
            roots["asks"] = self.asks
        roots["position"] = self.position
        for label in self.labels:
            roots[f"predict {self.roles[label.role]}"] = label.target
            if label.where is not TRUE:
                roots[f"predict {self.roles[label.role]} where"] = label.where
            if label.weight is not ONE:
                roots[f"predict {self.roles[label.role]} weight"] = label.weight
        return listing(roots)


def listing(roots: dict[str, Expr]) -> str:
    """Numbered lines, one an operator, then the roots by name."""
    names: dict[Expr, str] = {}
    lines = []
    for node in postorder(*roots.values()):
        parts = " ".join(names[c] for c in children(node))
        match node:
            case Const(value=value, type=type):
                names[node] = str(value).lower() if type is Type.BOOL else f"role#{value}" if type is Type.ROLE else str(value)
                continue
            case Scalar(name=name):
                names[node] = name
                continue
            case Field(side=side, name=name):
                names[node] = f"{side.value}.{name}"
                continue
            case Load(table=table):
                body = f"load {table} {parts}"
            case Gather():
                body = f"gather {parts}"
            case Apply(op=op):
                body = f"{op.symbol} {parts}"
        names[node] = f"%{len(lines)}"
        lines.append(f"{names[node]} = {body} : {node.type.value}")
    return "\n".join([*lines, *(f"{what}: {names[root]}" for what, root in roots.items())])


def digest(*roots: Expr) -> str:
    """A name for the meaning of some expressions: the hash of their listing, and of the types it leaves out."""
    scalars = sorted(f"{n.name}: {n.type.value}" for n in postorder(*roots) if isinstance(n, Scalar))
    return sha256("\n".join([listing({str(i): r for i, r in enumerate(roots)}), *scalars]).encode()).hexdigest()[:24]
