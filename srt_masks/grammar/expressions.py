"""Expressions: names resolved, kinds and types inferred, functions and ranges expanded, constants folded.

Input: an expression of the tree and a scope. Output: a `Value`, or POISON once a mistake has been reported, so that one
mistake is reported once. Non-goals: statements (`check.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import reduce
from typing import assert_never

from ..diagnostics import Diagnostic, Span, did_you_mean, listing
from . import checked as c
from . import syntax as t
from .checked import Kind, Op, Side, Type

MAX_NODES = 50_000  # expression nodes of one spec, functions and ranges expanded
MAX_DEPTH = 150  # levels of one expression, calls and lets included; it keeps every recursive pass within Python's stack
MAX_RANGE = 1024  # steps of one `any` or `all`
INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True)
class Value:
    """A checked expression and what is known of it."""

    expr: c.Expr
    type: Type
    kind: Kind
    span: Span
    bare: Span | None = None  # where a bare attribute stands, if one does: it has no side yet
    floats: bool = False  # rests on a float param or on `/`, which only gates, weights and lets may use
    depth: int = 1  # levels of `expr`, the bodies of lets included
    size: int = 1  # nodes of `expr` when it is written out: arguments of functions stand as often as they are used


POISON = Value(c.Literal(False, Type.BOOL), Type.BOOL, Kind.CONSTANT, Span(0, 0))


@dataclass(frozen=True, slots=True)
class Function:
    """A `let` with parameters. Its body is checked anew at every call, among the names defined before it."""

    parameters: tuple[t.Word, ...]
    body: t.Expr
    order: int
    is_prelude: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """What a name stands for, and when it was defined."""

    what: int | c.Param | c.Input | Value | Function  # an int is a role
    order: int
    is_prelude: bool = False

    @property
    def noun(self) -> str:
        match self.what:
            case int():
                return "a role"
            case c.Param():
                return "a param"
            case c.Input():
                return "an input"
            case Function():
                return "a function"
            case Value():
                return "a let"


NOUNS = {Type.BOOL: "true or false", Type.INT: "an integer", Type.FLOAT: "a float", Type.ROLE: "a role"}
ATTRIBUTE_TYPES = dict.fromkeys(c.ATTRIBUTES, Type.INT) | {"role": Type.ROLE}
INTEGER_OPS = {"+": Op.ADD, "-": Op.SUB, "*": Op.MUL, "//": Op.FLOORDIV, "%": Op.MOD, "**": Op.POW, "/": Op.TRUEDIV}
COMPARISONS = {"<": Op.LT, "<=": Op.LE, ">": Op.GT, ">=": Op.GE, "==": Op.EQ, "!=": Op.NE}
FOREIGN = {
    "q_idx": "q.pos", "query_idx": "q.pos", "kv_idx": "k.pos", "k_idx": "k.pos", "key_idx": "k.pos", "i": "q.pos", "j": "k.pos",
    "True": "true", "False": "false", "h": "head", "len": "length", "seq_len": "length",
}  # fmt: skip


@dataclass
class Expressions:
    """The checker of expressions: its scope grows as statements define names, its mistakes are collected."""

    mistakes: dict[tuple[str, Span], Diagnostic] = field(default_factory=dict)
    scope: dict[str, Entry] = field(default_factory=dict)
    prelude: dict[str, Entry] = field(default_factory=dict)
    structural: set[str] = field(default_factory=set)  # params that a layout, a range or a table size needs
    defined: frozenset[str] = frozenset()  # every name of the text, further down included
    let_bodies: dict[str, c.Expr] = field(default_factory=dict)
    _structural_lets: set[str] = field(default_factory=set)
    _let_values: dict[str, int | str | None] = field(default_factory=dict)
    two_axes: bool = False
    has_data: bool = True
    floats_allowed: bool = True
    _bound: dict[str, Value] = field(default_factory=dict)  # parameters and range variables in force
    _visible_before: int = 1 << 60  # inside a function, only names defined before it
    _prelude_call: Span | None = None  # mistakes inside the prelude are reported at the user's call
    _depth: int = 0
    _nodes: int = 0
    _exhausted: bool = False

    # ------------------------------------------------------------------------------------------ the four doors

    def pair(self, expr: t.Expr, what: str) -> Value:
        """A condition or number about a query and a key."""
        value = self.check(expr)
        return self._whose(value) if value.kind is Kind.TOKEN else value

    def token(self, expr: t.Expr, what: str) -> Value:
        """An expression about the token at hand: bare attributes only."""
        value = self.check(expr)
        if value.kind is Kind.PAIR:
            return self.mistake(
                "pair-here",
                f"`{what}` is about one token, not about a query and a key",
                value.span,
                "mentions `q.` or `k.`",
                "write the bare attribute: `step`, not `q.step`",
            )
        return value

    def typed(self, value: Value, wanted: tuple[Type, ...], what: str, help: str = "") -> Value:
        if value is POISON or value.type in wanted:
            return value
        words = " or ".join(NOUNS[w] for w in wanted if w is not Type.FLOAT or len(wanted) == 1) if Type.BOOL not in wanted else "a mask"
        return self.mistake("type-mismatch", f"{what} needs {words}", value.span, f"this is {NOUNS[value.type]}", help or _compare_help(value, wanted))

    def structural_int(self, expr: t.Expr, what: str, least: int = 0) -> int | None:
        """A number known when the text is read: made of literals and integer params, which become structural."""
        value = self.check(expr)
        if value is POISON:
            return None
        if value.type is not Type.INT or value.kind is not Kind.CONSTANT:
            self.mistake(
                "not-constant",
                f"{what} is a number known when the text is read",
                value.span,
                f"this is {NOUNS[value.type]}" if value.type is not Type.INT else "this depends on the token",
                "use numbers and integer params",
            )
            return None
        self._make_structural(value.expr)
        result = self._constant(value.expr)
        if result is None:
            self.mistake(
                "not-constant",
                f"{what} is a number known when the text is read",
                value.span,
                "this is known at run time only",
                "use numbers and integer params",
            )
        elif isinstance(result, str):
            self.mistake("constant-arithmetic", result, value.span, "in this constant")
        elif result < least:
            self.mistake("out-of-range", f"{what} is at least {least}; this is {result}", value.span)
        else:
            return result
        return None

    def _make_structural(self, expr: c.Expr) -> None:
        for node in c.walk(expr):
            match node:
                case c.ParamRef(name=name):
                    self.structural.add(name)
                case c.LetRef(name=name) if name in self.let_bodies and name not in self._structural_lets:
                    self._structural_lets.add(name)
                    self._make_structural(self.let_bodies[name])

    # ------------------------------------------------------------------------------------------ mistakes

    def mistake(self, slug: str, message: str, span: Span, label: str = "", *help: str) -> Value:
        span = self._prelude_call or span
        self.mistakes.setdefault((slug, span), Diagnostic(slug, message, span, label, tuple(h for h in help if h)))
        return POISON

    def _too_deep(self, span: Span) -> Value:
        return self.mistake("nested-too-deeply", f"an expression nests at most {MAX_DEPTH} levels, calls and lets included", span, "deeper than that here")

    def _too_large(self, span: Span) -> Value:
        if self._exhausted:
            return POISON
        self._exhausted = True
        message = f"the spec grows beyond {MAX_NODES:,} operations when its functions and ranges are expanded"
        return self.mistake("too-large", message, span, "while expanding this", "give shared parts a name: `let part = ...`")

    def _whose(self, value: Value) -> Value:
        if value is POISON or value.bare is None:
            return value
        return self.mistake("whose", "a bare attribute does not say whose it is", value.bare, "whose? `q.` for the query's, `k.` for the key's")

    # ------------------------------------------------------------------------------------------ expressions

    def check(self, expr: t.Expr) -> Value:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            return self._too_large(expr.span)
        if self._depth >= MAX_DEPTH:
            return self._too_deep(expr.span)
        self._depth += 1
        try:
            value = self._dispatch(expr)
        finally:
            self._depth -= 1
        return value if value is POISON else replace(value, span=expr.span)

    def _dispatch(self, expr: t.Expr) -> Value:
        match expr:
            case t.Number():
                return self._number(expr)
            case t.Truth(value=value):
                return Value(c.Literal(value, Type.BOOL), Type.BOOL, Kind.CONSTANT, expr.span)
            case t.Name():
                return self._name(expr)
            case t.Subject(side=side):
                return self.mistake("bare-subject", f"`{side}` is a token, not a number", expr.span, f"write `{side}.pos`, or `{side} is ROLE`")
            case t.Attribute():
                return self._attribute(expr)
            case t.Subscript():
                return self._subscript(expr)
            case t.Call():
                return self._call(expr)
            case t.Sign(op=op, operand=operand):
                value = self.typed(self.check(operand), (Type.INT, Type.FLOAT), f"`{op}`")
                return value if op == "+" or value is POISON else self._apply(Op.NEG, (value,), value.type, expr.span)
            case t.Binary():
                return self._binary(expr)
            case t.Chain():
                return self._chain(expr)
            case t.Is(subject=subject, role=role, negated=negated):
                return self._is(subject, role, negated, expr.span)
            case t.In():
                return self._in(expr)
            case t.Not(operand=operand):
                value = self.typed(self.check(operand), (Type.BOOL,), "`not`")
                return value if value is POISON else self._apply(Op.NOT, (value,), Type.BOOL, expr.span)
            case t.Logic(op=op, operands=operands):
                values = [self.typed(self.check(o), (Type.BOOL,), f"`{op}`") for o in operands]
                return self._logic(op, values, expr.span)
            case t.Choose(then=then, condition=condition, otherwise=otherwise):
                return self._choose(self.check(then), self.typed(self.check(condition), (Type.BOOL,), "`if`"), self.check(otherwise), expr.span)
            case t.Quantify():
                return self._quantify(expr)
            case _:
                assert_never(expr)

    def _number(self, expr: t.Number) -> Value:
        number = number_of(expr.text)
        if number is None:
            return self.mistake("constant-arithmetic", "a number has at most 64 bits", expr.span, "this one is larger")
        type = Type.INT if isinstance(number, int) else Type.FLOAT
        return Value(c.Literal(number, type), type, Kind.CONSTANT, expr.span)

    def lookup(self, name: str) -> Entry | None:
        entry = self.scope.get(name)
        if entry is not None and entry.order < self._visible_before and self._prelude_call is None:
            return entry
        return self.prelude.get(name)

    def _name(self, expr: t.Name) -> Value:
        name, span = expr.name, expr.span
        if name in self._bound:
            value = self._bound[name]
            return value if value is POISON else replace(value, bare=span if value.bare else None)
        if name in c.ATTRIBUTES:
            return self._builtin(Side.OWN, name, span)
        if name in c.GLOBALS:
            if self.two_axes and name in ("steps", "length"):
                return self.mistake("two-axes", f"with two layouts, `{name}` of which?", span, "ambiguous here")
            return Value(c.Global(name), Type.INT, Kind.CONSTANT, span)
        entry = self.lookup(name)
        match entry.what if entry else None:
            case None:
                return self._unknown(name, span)
            case int() as role:
                return Value(c.Literal(role, Type.ROLE), Type.ROLE, Kind.CONSTANT, span)
            case c.Param(type=type):
                if type is Type.FLOAT and not self.floats_allowed:
                    return self._no_floats(span, f"`{name}` is a float param")
                return Value(c.ParamRef(name, type), type, Kind.CONSTANT, span, floats=type is Type.FLOAT)
            case c.Input() as declared:
                return self._read(declared, None, (), span)
            case Value() as value if value is POISON:
                return POISON
            case Value() as value:
                if value.floats and not self.floats_allowed:
                    return self._no_floats(span, f"`{name}` rests on a float param or on `/`")
                return replace(value, bare=span if value.kind is Kind.TOKEN else None)
            case Function(parameters=parameters):
                call = f"{name}({', '.join(p.text for p in parameters)})"
                return self.mistake("needs-arguments", f"`{name}` is a function", span, f"write `{call}`")

    def _no_floats(self, span: Span, why: str) -> Value:
        return self.mistake("float-here", "float params and `/` belong in `by`, `weight` and the rules of gradients", span, why, "write // for whole numbers")

    def _unknown(self, name: str, span: Span) -> Value:
        if name in FOREIGN:
            return self.mistake("unknown-name", f"nothing is called `{name}`", span, f"write `{FOREIGN[name]}`")
        if name in self.defined and self._prelude_call is None:
            return self.mistake(
                "used-before", f"`{name}` is defined further down", span, "used before its definition", "move the definition up: names are defined before use"
            )
        known = [*self.scope, *self.prelude, *c.ATTRIBUTES, *c.GLOBALS, *self._bound]
        return self.mistake(
            "unknown-name", f"nothing is called `{name}`", span, did_you_mean(name, known), f"your own names: {listing(self.scope)}" if self.scope else ""
        )

    def _builtin(self, side: Side, name: str, span: Span) -> Value:
        if name == "index" and not self.has_data:
            return self.mistake(
                "no-data",
                "`index` counts data tokens, and no role holds data",
                span,
                "needs `data`",
                "say which roles are data: `data ROLE` (the default is the role `token`)",
            )
        type = ATTRIBUTE_TYPES[name]
        kind = Kind.TOKEN if side is Side.OWN else Kind.PAIR
        return Value(c.Attribute(side, name, type), type, kind, span, bare=span if side is Side.OWN else None)

    def _attribute(self, expr: t.Attribute) -> Value:
        side = Side(expr.side)
        name = expr.name.text
        if name in c.ATTRIBUTES:
            return self._builtin(side, name, expr.span)
        value = self._bound.get(name)
        entry = self.lookup(name)
        if value is None and entry is not None:
            match entry.what:
                case c.Input() as declared:
                    return self._read(declared, side, (), expr.span)
                case Value() as found:
                    value = found
        if value is None:
            return self._no_attribute(side, expr.name, entry)
        if value is POISON:
            return POISON
        if value.kind is not Kind.TOKEN:
            if name in self._bound:
                return self.mistake(
                    "not-an-attribute",
                    f"`{expr.side}.{name}` needs an attribute of a token",
                    value.span,
                    "this is no attribute",
                    "for example `same(doc)` or `same(pos // 128)`",
                )
            return self.mistake(
                "not-an-attribute",
                f"`{name}` is no attribute of a token",
                expr.name.span,
                f"it is the same for every token: write `{name}`" if value.kind is Kind.CONSTANT else f"it is about a pair: write `{name}`",
            )
        if value.floats and not self.floats_allowed:
            return self._no_floats(expr.span, f"`{name}` rests on a float param or on `/`")
        return Value(c.bind(value.expr, side), value.type, Kind.PAIR, expr.span, floats=value.floats, depth=value.depth, size=value.size)

    def _no_attribute(self, side: Side, name: t.Word, entry: Entry | None) -> Value:
        who = "query" if side is Side.QUERY else "key"
        mine = [
            n
            for n, e in self.scope.items()
            if (isinstance(e.what, Value) and e.what.kind is Kind.TOKEN) or (isinstance(e.what, c.Input) and is_attribute(e.what, side))
        ]
        known = [*c.ATTRIBUTES, *mine]
        if entry is not None:
            label = f"`{name.text}` is {entry.noun}: write `{name.text}`" if not isinstance(entry.what, int) else f"write `{side.value} is {name.text}`"
            return self.mistake("unknown-attribute", f"{who} has no attribute `{name.text}`", name.span, label)
        return self.mistake(
            "unknown-attribute",
            f"{who} has no attribute `{name.text}`",
            name.span,
            did_you_mean(name.text, known),
            f"attributes of a {who} here: {', '.join(known)}",
        )

    # ------------------------------------------------------------------------------------------ inputs

    def _read(self, declared: c.Input, side: Side | None, subscripts: tuple[Value, ...], span: Span) -> Value:
        """A read of an input: `doc`, `q.doc`, `table[i]`, `q.picked[k.block]`, with one index an axis in tensor order."""
        name, axes = declared.name, declared.axes
        if any(s is POISON for s in subscripts):
            return POISON
        if len(subscripts) != len(declared.sizes):
            wanted = f"{len(declared.sizes)} in brackets" if declared.sizes else "none"
            shape = ", ".join(map(str, declared.sizes))
            return self.mistake(
                "wrong-subscripts", f"`{name}` takes {wanted}; this has {len(subscripts)}", span, f"write `{name}[{shape}]`" if shape else f"write `{name}`"
            )
        for s in subscripts:
            self.typed(s, (Type.INT,), "a subscript")
        if side is not None and not is_attribute(declared, side):
            other = "k" if side is Side.QUERY else "q"
            if is_attribute(declared, Side(other)):
                return self.mistake("unknown-attribute", f"`{name}` is given {'per query' if other == 'q' else 'per key'}", span, f"write `{other}.{name}`")
            return self.mistake(
                "not-an-attribute", f"`{name}` is no attribute of a token", span, f"it is given per {', '.join(axes) or 'sequence'}: write `{name}`"
            )
        own = side or Side.OWN
        indices: list[c.Expr] = []
        for axis in axes:
            match axis:
                case "token" | "step":
                    indices.append(c.Attribute(own, "pos" if axis == "token" else "step", Type.INT))
                case "query":
                    indices.append(c.Attribute(Side.QUERY, "pos", Type.INT))
                case "key":
                    indices.append(c.Attribute(Side.KEY, "pos", Type.INT))
                case "head" | "layer":
                    indices.append(c.Global(axis))
        is_token = side is None and ("token" in axes or "step" in axes)
        if side is None and not is_token and ("query" in axes) != ("key" in axes):
            which = "q" if "query" in axes else "k"
            return self.mistake("whose", f"`{name}` is an attribute of the {'query' if which == 'q' else 'key'}", span, f"write `{which}.{name}`")
        mine = Kind.TOKEN if is_token else Kind.PAIR if {"query", "key"} & {*axes} or side else Kind.CONSTANT
        base = Value(c.Literal(0, Type.INT), declared.type, mine, span, bare=span if is_token else None)
        joined = self._join([base, *subscripts], span)
        if joined is POISON:
            return POISON
        return replace(joined, expr=c.Read(name, (*indices, *(s.expr for s in subscripts)), declared.type), type=declared.type)

    def _subscript(self, expr: t.Subscript) -> Value:
        indices = tuple(self.check(i) for i in expr.indices)
        match expr.base:
            case t.Attribute(side=side, name=word):
                entry = self.lookup(word.text)
                if entry is not None and isinstance(entry.what, c.Input):
                    return self._read(entry.what, Side(side), indices, expr.span)
                return self.mistake(
                    "wrong-subscripts", f"`{side}.{word.text}` is one value", expr.span, f"write `{side}.{word.text}`, or `{word.text}[POSITION]`"
                )
            case t.Name(name=name):
                entry = self.lookup(name)
                if (
                    name not in self._bound
                    and entry is not None
                    and isinstance(entry.what, c.Input)
                    and not (not entry.what.sizes and is_attribute(entry.what, Side.QUERY))
                ):
                    return self._read(entry.what, None, indices, expr.span)
                return self._at(expr, self.check(expr.base), indices)

    def _at(self, expr: t.Subscript, value: Value, indices: tuple[Value, ...]) -> Value:
        """`role[pos + 1]`: an attribute of the token at a position."""
        if value is POISON or any(i is POISON for i in indices):
            return POISON
        if value.kind is not Kind.TOKEN:
            return self.mistake("not-a-table", "only attributes and tables take subscripts", expr.span, "this is neither")
        if self.two_axes:
            return self.mistake("two-axes", "with two layouts, a position names no token", expr.span, "of which layout?")
        if len(indices) != 1:
            return self.mistake("wrong-subscripts", f"an attribute takes one position; this has {len(indices)}", expr.span)
        index = self.typed(indices[0], (Type.INT,), "a position")
        if index is POISON:
            return POISON
        depth = 1 + max(index.depth, value.depth)
        if depth > MAX_DEPTH:
            return self._too_deep(expr.span)
        return replace(
            index,
            expr=c.At(value.expr, index.expr, value.type),
            type=value.type,
            floats=index.floats or value.floats,
            depth=depth,
            size=index.size + value.size,
        )

    # ------------------------------------------------------------------------------------------ calls

    def _call(self, expr: t.Call) -> Value:
        name = expr.name.text
        args = [self.check(a) for a in expr.args]
        if name in ("min", "max", "abs", "clamp") and self.lookup(name) is None:
            return self._arithmetic_call(name, args, expr)
        entry = self.lookup(name)
        if entry is None:
            return self._unknown_function(expr)
        if not isinstance(entry.what, Function):
            hides = f", which hides the prelude's `{name}(...)`" if isinstance(self.prelude.get(name, entry).what, Function) else ""
            return self.mistake(
                "not-a-function",
                f"`{name}` takes no arguments: it is {entry.noun}{hides}",
                expr.name.span,
                "called here",
                f"did you mean `{name} and (...)`?" if not hides else f"give {entry.noun.split()[-1]} `{name}` another name",
            )
        function = entry.what
        if len(args) != len(function.parameters):
            signature = f"{name}({', '.join(p.text for p in function.parameters)})"
            return self.mistake("wrong-arguments", f"`{signature}` takes {len(function.parameters)}; this call has {len(args)}", expr.span)
        if any(a is POISON for a in args):
            return POISON
        with self._inside(function, dict(zip((p.text for p in function.parameters), args, strict=True)), expr.span):
            return self.check(function.body)

    @contextmanager
    def _inside(self, function: Function, bound: dict[str, Value], call: Span) -> Iterator[None]:
        saved = self._bound, self._visible_before, self._prelude_call
        self._bound, self._visible_before = bound, function.order
        if function.is_prelude:
            self._prelude_call = self._prelude_call or call
        try:
            yield
        finally:
            self._bound, self._visible_before, self._prelude_call = saved

    def _unknown_function(self, expr: t.Call) -> Value:
        functions = [n for n, e in {**self.prelude, **self.scope}.items() if isinstance(e.what, Function)]
        known = [*functions, "min", "max", "abs", "clamp"]
        if expr.name.text in self.defined:
            return self._unknown(expr.name.text, expr.name.span)
        if expr.name.text in (*c.ATTRIBUTES, *c.GLOBALS):
            return self.mistake(
                "not-a-function", f"`{expr.name.text}` is no function", expr.name.span, f"write `{expr.name.text}`, or `{expr.name.text}[POSITION]`"
            )
        return self.mistake(
            "unknown-name",
            f"no function is called `{expr.name.text}`",
            expr.name.span,
            did_you_mean(expr.name.text, known),
            f"functions here: {listing(known)}",
        )

    def _arithmetic_call(self, name: str, args: list[Value], expr: t.Call) -> Value:
        args = [self.typed(a, (Type.INT, Type.FLOAT), f"`{name}`") for a in args]
        if any(a is POISON for a in args):
            return POISON
        wanted = {"abs": 1, "clamp": 3}.get(name)
        if wanted is not None and len(args) != wanted:
            form = "abs(x)" if name == "abs" else "clamp(x, least, most)"
            return self.mistake("wrong-arguments", f"`{form}` takes {wanted}; this call has {len(args)}", expr.span)
        type = _wider(args)
        match name:
            case "abs":
                return self._apply(Op.ABS, args, type, expr.span)
            case "clamp":
                return self._apply(Op.MIN, (self._apply(Op.MAX, args[:2], type, expr.span), args[2]), type, expr.span)
            case _:
                op = Op.MIN if name == "min" else Op.MAX
                return reduce(lambda a, b: self._apply(op, (a, b), type, expr.span), args)

    # ------------------------------------------------------------------------------------------ operators

    def _join(self, parts: list[Value] | tuple[Value, ...], span: Span) -> Value:
        """The kind of a whole from its parts; a bare attribute beside `q.` or `k.` is a mistake."""
        if any(p is POISON for p in parts):
            return POISON
        kinds = {p.kind for p in parts}
        bare = next((p for p in parts if p.kind is Kind.TOKEN), None)
        if bare is not None and Kind.PAIR in kinds:
            return self._whose(bare)
        kind = Kind.PAIR if Kind.PAIR in kinds else Kind.TOKEN if Kind.TOKEN in kinds else Kind.CONSTANT
        size = 1 + sum(p.size for p in parts)
        depth = 1 + max((p.depth for p in parts), default=0)
        if size > MAX_NODES:
            return self._too_large(span)
        if depth > MAX_DEPTH:
            return self._too_deep(span)
        return Value(POISON.expr, Type.BOOL, kind, span, bare=bare.bare if bare else None, floats=any(p.floats for p in parts), depth=depth, size=size)

    def _apply(self, op: Op, args: tuple[Value, ...] | list[Value], type: Type, span: Span) -> Value:
        joined = self._join(args, span)
        if joined is POISON:
            return POISON
        if all(isinstance(a.expr, c.Literal) for a in args) and type is Type.INT:
            folded = fold(op, [int(a.expr.value) for a in args])  # type: ignore[union-attr]
            if isinstance(folded, str):
                return self.mistake("constant-arithmetic", folded, span, "in this constant")
            if folded is not None:
                return replace(joined, expr=c.Literal(folded, Type.INT), type=Type.INT)
        self._nodes += 1
        return replace(joined, expr=c.Apply(op, tuple(a.expr for a in args), type), type=type)

    def _binary(self, expr: t.Binary) -> Value:
        needs = (Type.INT, Type.FLOAT)
        left, right = (self.typed(self.check(side), needs, f"`{expr.op}`") for side in (expr.left, expr.right))
        if left is POISON or right is POISON:
            return POISON
        op = INTEGER_OPS[expr.op]
        if op is Op.TRUEDIV:
            if not self.floats_allowed:
                return self._no_floats(expr.span, "`/` is float division")
            value = self._apply(op, (left, right), Type.FLOAT, expr.span)
            return value if value is POISON else replace(value, floats=True)
        if op in (Op.FLOORDIV, Op.MOD, Op.POW):
            for side in (left, right):
                if side.type is not Type.INT:
                    return self.mistake(
                        "type-mismatch",
                        f"`{expr.op}` needs whole numbers",
                        side.span,
                        "this is a float",
                        "`/` is float division, in `by` and `weight`" if expr.op == "//" else "",
                    )
            if op is Op.POW and right.kind is not Kind.CONSTANT:
                return self.mistake("type-mismatch", "an exponent is the same for every token", right.span, "this depends on the token")
        return self._apply(op, (left, right), _wider([left, right]), expr.span)

    def _chain(self, expr: t.Chain) -> Value:
        values = [self.check(expr.first), *(self.check(e) for _, e in expr.rest)]
        if any(v is POISON for v in values):
            return POISON
        links = []
        for (symbol, _), a, b in zip(expr.rest, values, values[1:], strict=False):
            numbers = a.type in (Type.INT, Type.FLOAT) and b.type in (Type.INT, Type.FLOAT)
            if not numbers and (a.type is not b.type or symbol not in ("==", "!=")):
                if a.type is b.type:
                    return self.mistake(
                        "type-mismatch",
                        f"`{symbol}` compares numbers",
                        a.span.to(b.span),
                        f"these are {'masks' if a.type is Type.BOOL else 'roles'}",
                        "`==` and `!=` compare these",
                    )
                return self.mistake("type-mismatch", f"`{symbol}` compares like with like", a.span.to(b.span), f"{NOUNS[a.type]} against {NOUNS[b.type]}")
            links.append(self._apply(COMPARISONS[symbol], (a, b), Type.BOOL, expr.span))
        return self._logic("and", links, expr.span) if len(links) > 1 else links[0]

    def _role_of_subject(self, expr: t.Expr) -> Value:
        """`k in {a, b}` and `k is a` speak of the token's role; elsewhere a bare `k` is a mistake."""
        return self._builtin(Side(expr.side), "role", expr.span) if isinstance(expr, t.Subject) else self.check(expr)

    def _is(self, subject: t.Expr, word: t.Word, negated: bool, span: Span) -> Value:
        value = self._role_of_subject(subject)
        entry = self.lookup(word.text)
        roles = [n for n, e in self.scope.items() if isinstance(e.what, int)]
        if entry is None or not isinstance(entry.what, int):
            label = did_you_mean(word.text, roles) or (f"this is {entry.noun}" if entry else "")
            return self.mistake("unknown-role", f"no role is called `{word.text}`", word.span, label, f"roles here: {listing(roles)}")
        if value is POISON:
            return POISON
        if value.type is not Type.ROLE:
            return self.mistake(
                "type-mismatch", "`is` asks for the role of a token", value.span, f"this is {NOUNS[value.type]}", "`k is ROLE`, or `==` for numbers"
            )
        role = Value(c.Literal(entry.what, Type.ROLE), Type.ROLE, Kind.CONSTANT, word.span)
        return self._apply(Op.NE if negated else Op.EQ, (value, role), Type.BOOL, span)

    def _in(self, expr: t.In) -> Value:
        subject = self._role_of_subject(expr.subject)
        members = [self.check(m) for m in expr.members]
        if subject is POISON or any(m is POISON for m in members):
            return POISON
        tests = []
        for member in members:
            numbers = (Type.INT, Type.FLOAT)
            if not (member.type is subject.type or (member.type in numbers and subject.type in numbers)):
                return self.mistake("type-mismatch", "`in` compares like with like", member.span, f"{NOUNS[member.type]} in a set for {NOUNS[subject.type]}")
            tests.append(self._apply(Op.EQ, (subject, member), Type.BOOL, expr.span))
        value = self._logic("or", tests, expr.span)
        return self._apply(Op.NOT, (value,), Type.BOOL, expr.span) if expr.negated and value is not POISON else value

    def _logic(self, op: str, values: list[Value], span: Span) -> Value:
        if any(v is POISON for v in values):
            return POISON
        if op == "implies":
            return self._apply(Op.OR, (self._apply(Op.NOT, (values[0],), Type.BOOL, span), values[1]), Type.BOOL, span)
        if len(values) == 1:
            return values[0]
        return self._apply(Op.AND if op == "and" else Op.OR, values, Type.BOOL, span)

    def _choose(self, then: Value, condition: Value, otherwise: Value, span: Span) -> Value:
        if any(v is POISON for v in (then, condition, otherwise)):
            return POISON
        numbers = {then.type, otherwise.type} <= {Type.INT, Type.FLOAT}
        if then.type is not otherwise.type and not numbers:
            return self.mistake("type-mismatch", "both sides of `else` are of one type", span, f"{NOUNS[then.type]} or {NOUNS[otherwise.type]}")
        return self._apply(Op.CHOOSE, (condition, then, otherwise), _wider([then, otherwise]) if numbers else then.type, span)

    def _quantify(self, expr: t.Quantify) -> Value:
        """`any` and `all` are written out: one copy of the body for each value."""
        name = expr.variable.text
        if name in c.ATTRIBUTES or name in c.GLOBALS or name in self._bound:
            return self.mistake("name-taken", f"`{name}` is taken", expr.variable.span, "choose another name for the variable")
        if expr.is_range:
            ends = [self.structural_int(e, "a range", least=-(2**31)) for e in expr.domain]
            if any(e is None for e in ends):
                return POISON
            if len(ends) > 2:
                return self.mistake("wrong-arguments", "a range has one or two ends", expr.span)
            numbers = range(*ends)  # type: ignore[arg-type]
            if len(numbers) > MAX_RANGE:
                return self.mistake("too-large", f"a range has at most {MAX_RANGE} steps; this has {len(numbers)}", expr.domain[-1].span)
            members = [Value(c.Literal(n, Type.INT), Type.INT, Kind.CONSTANT, expr.variable.span) for n in numbers]
        else:
            members = [self.check(m) for m in expr.domain]
        saved, bodies = self._bound, []
        for member in members:
            if member is POISON:
                return POISON
            self._bound = {**saved, name: member}
            bodies.append(self.typed(self.check(expr.body), (Type.BOOL,), f"`{expr.word}`"))
            if bodies[-1] is POISON:
                break
        self._bound = saved
        if not bodies:
            return Value(c.Literal(expr.word == "all", Type.BOOL), Type.BOOL, Kind.CONSTANT, expr.span)
        return self._logic("or" if expr.word == "any" else "and", bodies, expr.span)

    def _constant(self, expr: c.Expr) -> int | str | None:
        """The value of a structural expression; a string says what is wrong with it; None means it is known at run time only."""
        match expr:
            case c.Literal(value=value):
                return int(value)
            case c.ParamRef(name=name):
                entry = self.scope[name].what
                return int(entry.value) if isinstance(entry, c.Param) and entry.type is Type.INT else None
            case c.LetRef(name=name):
                if name not in self._let_values:
                    self._let_values[name] = self._constant(self.let_bodies[name]) if name in self.let_bodies else None
                return self._let_values[name]
            case c.Apply(op=Op.CHOOSE):
                return None
            case c.Apply(op=op, args=args):
                values = [self._constant(a) for a in args]
                wrong = next((v for v in values if not isinstance(v, int)), 0)
                return wrong if not isinstance(wrong, int) else fold(op, values)  # type: ignore[arg-type]
            case _:
                return None


# ------------------------------------------------------------------------------------------------ helpers


def is_attribute(declared: c.Input, side: Side) -> bool:
    """Whether `q.NAME` (or `k.NAME`) can be written for an input."""
    axes = set(declared.axes)
    if {"query", "key"} <= axes:
        return False
    return bool(axes & {"token", "step"}) or ("query" if side is Side.QUERY else "key") in axes


def fold(op: Op, args: list[int]) -> int | str | None:
    """Constant integer arithmetic; a string says what is wrong; None where the operator does not give an integer."""
    match op, args:
        case Op.NEG, [a]:
            result = -a
        case Op.ABS, [a]:
            result = abs(a)
        case Op.ADD, [a, b]:
            result = a + b
        case Op.SUB, [a, b]:
            result = a - b
        case Op.MUL, [a, b]:
            result = a * b
        case ((Op.FLOORDIV | Op.MOD), [_, 0]):
            return "this divides by zero"
        case Op.FLOORDIV, [a, b]:
            result = a // b
        case Op.MOD, [a, b]:
            result = a % b
        case Op.POW, [_, b] if b < 0:
            return "a whole number has no negative power"
        case Op.POW, [a, b]:
            if abs(a) > 1 and b > 63:
                return "this constant needs more than 64 bits"
            result = a ** (b if abs(a) > 1 else 1 + (b - 1) % 2 if b else 0)
        case Op.MIN, [a, b]:
            result = min(a, b)
        case Op.MAX, [a, b]:
            result = max(a, b)
        case _:
            return None
    return result if result in INT64 else "this constant needs more than 64 bits"


def number_of(text: str) -> int | float | None:
    """The value of a number as written; None if it does not fit 64 bits."""
    digits = text.replace("_", "")
    if set(digits) <= set("-+0123456789"):
        if len(digits) > 21:
            return None
        return int(digits) if int(digits) in INT64 else None
    value = float(digits)
    return value if abs(value) != float("inf") else None


def _wider(values: list[Value]) -> Type:
    return Type.FLOAT if any(v.type is Type.FLOAT for v in values) else Type.INT


def _compare_help(value: Value, wanted: tuple[Type, ...]) -> str:
    if Type.BOOL in wanted and value.type is Type.INT:
        return "compare it, for example `q.pos - k.pos < 128`"
    if Type.BOOL in wanted and value.type is Type.ROLE:
        return "ask for it, for example `k is reason`"
    return ""
