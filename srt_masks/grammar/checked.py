"""The checked tree: every name resolved, every expression typed, every layout counted.

Input: nothing. Output: the types that `check.py` builds, and that the reference and the compiler read. Non-goals: evaluation.

Functions and `any`/`all` are expanded; `let`s without parameters are kept and referred to, so shared work stays shared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

from ..diagnostics import Span
from . import syntax

ATTRIBUTES = ("pos", "section", "step", "slot", "role", "index")
GLOBALS = ("head", "heads", "layer", "layers", "steps", "length")
TARGETS = ("q", "k", "v", "hidden")  # what a gradient goes into
FUNCTIONS = {"min": 0, "max": 0, "abs": 1, "clamp": 3}  # name -> arguments, 0: any number
INPUT_AXES = ("token", "step", "query", "key", "head", "layer", "sequence")


class Type(Enum):
    BOOL = "bool"
    INT = "int"
    FLOAT = "float"
    ROLE = "role"


class Kind(Enum):
    """What an expression is about."""

    CONSTANT = "constant"
    TOKEN = "token"
    PAIR = "pair"


class Side(Enum):
    """Whose attribute: the query's, the key's, or the token's at hand (in `position`, `predict`, a token `let`)."""

    QUERY = "q"
    KEY = "k"
    OWN = "own"


class Op(Enum):
    """Operators. Integers are 64-bit and wrap; `//` and `%` floor, also for negatives; by zero they give 0; a negative
    integer power is 0."""

    NEG = "-x"
    ABS = "abs"
    NOT = "not"
    ADD = "+"
    SUB = "-"
    MUL = "*"
    TRUEDIV = "/"
    FLOORDIV = "//"
    MOD = "%"
    POW = "**"
    MIN = "min"
    MAX = "max"
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="
    EQ = "=="
    NE = "!="
    AND = "and"
    OR = "or"
    CHOOSE = "if"  # (condition, then, otherwise)


@dataclass(frozen=True, slots=True)
class Literal:
    """A number, a truth value, or a role (its number in `Checked.roles`)."""

    value: int | float | bool
    type: Type


@dataclass(frozen=True, slots=True)
class ParamRef:
    name: str
    type: Type


@dataclass(frozen=True, slots=True)
class Global:
    """`head heads layer layers steps length`"""

    name: str
    type: Type = Type.INT


@dataclass(frozen=True, slots=True)
class Attribute:
    """A built-in attribute of a token."""

    side: Side
    name: str
    type: Type


@dataclass(frozen=True, slots=True)
class LetRef:
    """A `let` without parameters; a token `let` of one side."""

    name: str
    side: Side
    type: Type


@dataclass(frozen=True, slots=True)
class Read:
    """An element of an input: one index for each axis of the declaration, in its order. Out of range: 0 or false."""

    input: str
    indices: tuple[Expr, ...]
    type: Type


@dataclass(frozen=True, slots=True)
class At:
    """A token expression at the position `index`: `role[pos + 1]`. Out of range: 0 or false (for a role: no role)."""

    value: Expr
    index: Expr
    type: Type


@dataclass(frozen=True, slots=True)
class Apply:
    op: Op
    args: tuple[Expr, ...]
    type: Type


Expr = Literal | ParamRef | Global | Attribute | LetRef | Read | At | Apply

# ------------------------------------------------------------------------------------------------ definitions


@dataclass(frozen=True, slots=True)
class Param:
    """A named number. Structural params size a layout, a range or a table; the others are arguments of every call."""

    name: str
    type: Type
    value: int | float
    structural: bool


def values_of(params: Iterable[Param]) -> dict[str, int | float]:
    """The text's values of those that a call may give others."""
    return {p.name: p.value for p in params if not p.structural}


@dataclass(frozen=True, slots=True)
class Input:
    """A tensor given at call time: its axes in tensor order, then its own sizes (a number, or a name read off the tensor)."""

    name: str
    type: Type
    axes: tuple[str, ...]
    sizes: tuple[int | str, ...]

    def __str__(self) -> str:
        sizes = f"[{', '.join(map(str, self.sizes))}]" if self.sizes else ""
        return f"{self.name}: {self.type.value}{sizes} per {', '.join(self.axes) or 'sequence'}"


@dataclass(frozen=True, slots=True)
class Let:
    name: str
    kind: Kind
    type: Type
    body: Expr


@dataclass(frozen=True, slots=True)
class Section:
    """One top-level item of a layout: `count` steps (None: as many as the tensor has) of the same rows, as (role, how many)."""

    count: int | None
    rows: tuple[tuple[int, int], ...]

    @property
    def rows_per_step(self) -> int:
        return sum(n for _, n in self.rows)


@dataclass(frozen=True)
class Layout:
    sections: tuple[Section, ...]
    given: tuple[int, ...] | None = None  # the roles of a `layout given`, which has no sections: role, step and slot come with the call

    @cached_property
    def fixed(self) -> int:
        """Tokens that are there whatever the number of steps."""
        return sum(s.count * s.rows_per_step for s in self.sections if s.count is not None)

    @cached_property
    def rows_per_step(self) -> int:
        """Tokens that one more step adds; 0 where the layout has one length."""
        return sum(s.rows_per_step for s in self.sections if s.count is None)

    @property
    def is_single_repeat(self) -> bool:
        return len(self.sections) == 1 and self.sections[0].count is None

    def tokens(self, steps: int) -> int:
        return self.fixed + steps * self.rows_per_step

    def steps(self, tokens: int) -> int:
        """Time steps of so many tokens, which the layout must be able to have; of a layout of one length, those of its longest section."""
        return (tokens - self.fixed) // self.rows_per_step if self.rows_per_step else self.longest(0)

    @property
    def ends_open(self) -> bool:
        """Whether the tokens of fewer steps are the first ones of more: the bare repeat, if there is one, comes last."""
        return all(s.count is not None for s in self.sections[:-1])

    def whole(self, tokens: int) -> int:
        """Tokens of the shortest layout that has so many, or more: what is laid out where a call ends in mid-step."""
        if self.given is not None or not self.rows_per_step:
            return max(tokens, self.fixed)
        return self.tokens(max(0, -((self.fixed - tokens) // self.rows_per_step)))

    def longest(self, steps: int) -> int:
        """Steps of the longest section: the length of an input `per step`."""
        return max((steps if s.count is None else s.count for s in self.sections), default=0)

    def describe(self, roles: tuple[str, ...]) -> str:
        """The layout as its text would say it: `repeat { token, reason * 4 }`."""
        if self.given is not None:
            return f"given {{ {', '.join(roles[r] for r in self.given)} }}"

        def rows(section: Section) -> str:
            return ", ".join(roles[r] if n == 1 else f"{roles[r]} * {n}" for r, n in section.rows)

        def item(section: Section) -> str:
            if section.count is None:
                return f"repeat {{ {rows(section)} }}"
            return rows(section) if section.count == 1 else f"repeat {section.count} {{ {rows(section)} }}"

        return ", ".join(item(s) for s in self.sections)


@dataclass(frozen=True, slots=True)
class Rule:
    """`stop` (factor None) or `scale`: the gate of each target is multiplied by 0, or by the factor, where the condition holds."""

    targets: tuple[str, ...]  # of q, k, v, hidden
    factor: Expr | None
    where: Expr


@dataclass(frozen=True, slots=True)
class Prediction:
    """The data token that the outputs of one role are trained to predict."""

    role: int
    target: Expr
    weight: Expr | None
    where: Expr | None


@dataclass(frozen=True, slots=True)
class Claim:
    """An `assert`: what it states, of which pairs, and where it stands in the text."""

    kind: syntax.Claim
    where: Expr | None
    span: Span = field(compare=False)


@dataclass(frozen=True, slots=True)
class Fact:
    """What is stated with an input or a param (`given`), and held to every call.

    `where` is about one token, of either side where there is one layout (`own`), else of the queries or of the keys, as the input is; or about a
    query and a key, where the input has an entry for each pair; or about numbers. `said` quotes it, with its line.
    """

    name: str
    where: Expr
    span: Span = field(compare=False)
    said: str = field(compare=False)


@dataclass(frozen=True)
class Checked:
    """A whole spec, checked. What every call asks of it is found once."""

    roles: tuple[str, ...]
    data: tuple[int, ...]
    queries: Layout
    keys: Layout | None  # None: one layout for both axes
    params: tuple[Param, ...]
    inputs: tuple[Input, ...]
    lets: tuple[Let, ...]
    attend: Expr
    rules: tuple[Rule, ...]
    position: Expr | None
    predictions: tuple[Prediction, ...]
    asks: Expr | None  # `queries where`: which tokens ask; None: all
    claims: tuple[Claim, ...]
    facts: tuple[Fact, ...] = ()

    @cached_property
    def has_hidden_rules(self) -> bool:
        return any("hidden" in r.targets for r in self.rules)

    @property
    def repeats(self) -> bool:
        """Whether an axis is as long as its tensor: `steps` has to be said where there is none."""
        return bool(self.queries.rows_per_step or (self.keys is not None and self.keys.rows_per_step))

    @cached_property
    def speaks_of_heads(self) -> bool:
        return self.mentions("head") or self.mentions("heads") or any("head" in i.axes for i in self.inputs)

    @cached_property
    def speaks_of_layers(self) -> bool:
        return self.mentions("layer") or self.mentions("layers") or any("layer" in i.axes for i in self.inputs)

    @cached_property
    def facts_of_params(self) -> tuple[Fact, ...]:
        return tuple(f for f in self.facts if f.name in {p.name for p in self.params})

    @cached_property
    def facts_of_inputs(self) -> tuple[Fact, ...]:
        return tuple(f for f in self.facts if f.name in {i.name for i in self.inputs})

    @property
    def token_roots(self) -> tuple[Expr, ...]:
        """The expressions about single tokens: who asks, positions, labels."""
        labels = (e for p in self.predictions for e in (p.target, p.weight, p.where))
        return tuple(e for e in (self.asks, self.position, *labels) if e is not None)

    def reads(self, *roots: Expr) -> frozenset[str]:
        """The inputs that some expressions read, through lets."""
        return frozenset(e.input for e in self._through_lets(roots) if isinstance(e, Read))

    def globals_in(self, *roots: Expr) -> frozenset[str]:
        """Those of `head heads layer layers steps length` that some expressions read, through lets; an input per head reads `head`."""
        return frozenset(e.name for e in self._through_lets(roots) if isinstance(e, Global))

    def _through_lets(self, roots: Iterable[Expr]) -> Iterator[Expr]:
        bodies = {let.name: let.body for let in self.lets}
        seen, stack = set(), list(roots)
        while stack:
            for node in walk(stack.pop()):
                yield node
                if isinstance(node, LetRef) and node.name not in seen:
                    seen.add(node.name)
                    stack.append(bodies[node.name])

    def mentions(self, name: str) -> bool:
        """Whether any expression but a claim reads a global such as `head` or `layer`, an input indexed by it included."""
        roots = [self.attend, *(let.body for let in self.lets), *(e for r in self.rules for e in (r.where, r.factor) if e)]
        roots += [e for p in self.predictions for e in (p.target, p.weight, p.where) if e] + ([self.position] if self.position else [])
        roots += [f.where for f in self.facts]
        return any(isinstance(e, Global) and e.name == name for root in roots for e in walk(root))

    def __str__(self) -> str:
        lines = [f"layout {self.queries.describe(self.roles)}" if self.keys is None else f"queries layout {self.queries.describe(self.roles)}"]
        lines += [f"keys layout {self.keys.describe(self.roles)}"] if self.keys else []
        lines += [f"data {', '.join(self.roles[r] for r in self.data)}"] if self.data else []
        given = {f.name: f" given {show(f.where, self.roles)}" for f in self.facts}
        lines += [f"param {p.name}: {p.type.value} = {p.value}{given.get(p.name, '')}{'  # structural' if p.structural else ''}" for p in self.params]
        lines += [f"input {i}{given.get(i.name, '')}" for i in self.inputs]
        lines += [f"queries where {show(self.asks, self.roles)}"] if self.asks else []
        lines += [f"let {x.name}: {x.kind.value} {x.type.value} = {show(x.body, self.roles)}" for x in self.lets]
        lines += [f"attend {show(self.attend, self.roles)}"]
        for r in self.rules:
            how = f"scale {', '.join(r.targets)} by {show(r.factor, self.roles)}" if r.factor else f"stop {', '.join(r.targets)}"
            lines.append(f"{how} where {show(r.where, self.roles)}")
        lines += [f"position {show(self.position, self.roles)}"] if self.position else []
        for p in self.predictions:
            weight = f" weight {show(p.weight, self.roles)}" if p.weight else ""
            where = f" where {show(p.where, self.roles)}" if p.where else ""
            lines.append(f"predict {self.roles[p.role]} -> {show(p.target, self.roles)}{weight}{where}")
        for claim in self.claims:
            link = " " if claim.kind is syntax.Claim.PAIRS else " where "
            lines.append(claim.kind.value + (link + show(claim.where, self.roles) if claim.where else ""))
        return "\n".join(lines)


def walk(root: Expr) -> Iterator[Expr]:
    """Every expression inside `root`, itself included (the bodies of lets are not)."""
    stack = [root]
    while stack:
        expr = stack.pop()
        yield expr
        match expr:
            case Read(indices=parts) | Apply(args=parts):
                stack.extend(parts)
            case At(value=value, index=index):
                stack += [value, index]


def bind(expr: Expr, side: Side) -> Expr:
    """A token expression as the query's or the key's."""
    match expr:
        case Attribute(side=Side.OWN, name=name, type=type):
            return Attribute(side, name, type)
        case LetRef(side=Side.OWN, name=name, type=type):
            return LetRef(name, side, type)
        case Read(input=name, indices=indices, type=type):
            return Read(name, tuple(bind(i, side) for i in indices), type)
        case At(value=value, index=index, type=type):
            return At(value, bind(index, side), type)
        case Apply(op=op, args=args, type=type):
            return Apply(op, tuple(bind(a, side) for a in args), type)
        case _:
            return expr


def show(expr: Expr, roles: tuple[str, ...] = ()) -> str:
    """An expression as text, every operator in parentheses."""
    match expr:
        case Literal(value=value, type=Type.ROLE):
            return roles[int(value)] if 0 <= value < len(roles) else f"role#{value}"
        case Literal(value=bool() as value):
            return str(value).lower()
        case Literal(value=value):
            return str(value)
        case ParamRef(name=name) | Global(name=name):
            return name
        case Attribute(side=side, name=name) | LetRef(side=side, name=name):
            return name if side is Side.OWN else f"{side.value}.{name}"
        case Read(input=name, indices=indices):
            return f"{name}[{', '.join(show(i, roles) for i in indices)}]"
        case At(value=value, index=index):
            return f"{show(value, roles)}[{show(index, roles)}]"
        case Apply(op=Op.NEG, args=(a,)):
            return f"(-{show(a, roles)})"
        case Apply(op=Op.NOT, args=(a,)):
            return f"(not {show(a, roles)})"
        case Apply(op=Op.CHOOSE, args=(c, a, b)):
            return f"({show(a, roles)} if {show(c, roles)} else {show(b, roles)})"
        case Apply(op=Op.ABS | Op.MIN | Op.MAX as op, args=args):
            return f"{op.value}({', '.join(show(a, roles) for a in args)})"
        case Apply(op=op, args=args):
            return "(" + f" {op.value} ".join(show(a, roles) for a in args) + ")"
