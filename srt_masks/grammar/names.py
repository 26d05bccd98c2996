"""Names, attributes, inputs and subscripts: whatever an expression reads.

Input: such an expression of the tree. Output: a `Value`. Non-goals: operators and calls (`expressions.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from math import ceil

from ..diagnostics import Span, listing
from . import checked as c
from . import suggest
from . import syntax as t
from .checked import Kind, Side, Type
from .scope import MAX_DEPTH, POISON, Entry, Function, Scope, Value
from .suggest import closest, meant, spelled

ATTRIBUTE_TYPES = dict.fromkeys(c.ATTRIBUTES, Type.INT) | {"role": Type.ROLE}


class Names(Scope, ABC):
    """What can be read, and what is said of a name that cannot."""

    @abstractmethod
    def check(self, expr: t.Expr, wants: tuple[Type, ...] = ()) -> Value:
        """Any expression; `expressions.py` has it."""

    def roles(self) -> list[str]:
        return [n for n, e in self.scope.items() if isinstance(e.what, int)]

    def _name(self, expr: t.Name, wants: tuple[Type, ...]) -> Value:
        name, span = expr.name, expr.span
        if name in self._bound:
            value = self._bound[name]
            if value is POISON or name in self._variables:  # a variable's member stands in this text; an argument, where the call is
                return value
            return replace(value, bare=span if value.bare else None)
        if name in c.ATTRIBUTES:
            return self._builtin(Side.OWN, name, span)
        if name in c.GLOBALS:
            if self.two_axes and name in ("steps", "length"):
                return self.mistake("two-axes", f"with two layouts, `{name}` of which?", span, "ambiguous here")
            return Value(c.Global(name), Type.INT, Kind.CONSTANT, span)
        entry = self.lookup(name)
        match entry.what if entry else None:
            case None:
                return self._unknown(name, span, wants)
            case int() as role:
                return Value(c.Literal(role, Type.ROLE), Type.ROLE, Kind.CONSTANT, span)
            case c.Param(type=type):
                if type is Type.FLOAT and not self.floats_allowed:
                    return self._no_floats(expr)
                return Value(c.ParamRef(name, type), type, Kind.CONSTANT, span, floats=expr if type is Type.FLOAT else None)
            case c.Input() as declared:
                return self._read(declared, None, (), span)
            case Value() as value if value is POISON:
                return POISON
            case Value() as value:
                if value.floats and not self.floats_allowed:
                    return self._no_floats(value.floats, name)
                return replace(value, bare=span if value.kind is Kind.TOKEN else None)
            case Function() as function:
                return self.mistake("needs-arguments", f"`{name}` is a function", span, f"write `{function.signature(name)}`")

    def _no_floats(self, cause: t.Expr, reader: str = "") -> Value:
        """A float param or a `/` stands, or is read through the let `reader`, where whole numbers are wanted. Marked is the cause."""
        label, help = "`/` is float division", "write `//` for whole numbers"
        match cause:
            case t.Name(name=name):
                declared = self.scope[name].what if name in self.scope else None
                value = declared.value if isinstance(declared, c.Param) else 1
                label, help = f"`{name}` is a float param", f"whole numbers are wanted here: write `param {name} = {ceil(value)}`"
            case t.Binary(left=left, right=right) if "..." not in (spelled(left), spelled(right)):
                help = f"write `{spelled(t.Binary(cause.span, '//', left, right))}` for whole numbers"
        through = f"`{reader}` rests on it, which is read where whole numbers are wanted" if reader else ""
        message = "float params and `/` belong in `by`, `weight` and the rules of gradients"
        return self.mistake("float-here", message, cause.span, label, help, through)

    def _unknown(self, name: str, span: Span, wants: tuple[Type, ...] = ()) -> Value:
        what = f"nothing is called `{name}`"
        if name == self.defining:
            return self.mistake(
                "used-before", f"`{name}` cannot use itself", span, "used in its own definition", "names are defined before use: nothing recurs"
            )
        if name in self.defined and not self.in_prelude:
            return self.mistake(
                "used-before", f"`{name}` is defined further down", span, "used before its definition", "move the definition up: names are defined before use"
            )
        if (of := self._of_size(name)) is not None:
            return self.mistake(
                "unknown-name", f"`{name}` is a size of `{of.name}`, which no expression can read", span, "read off the tensor, and known only at the call",
                f"a param of that name makes it a number of the text: write `param {name} = 4` above `input {of.name}`",
            )  # fmt: skip
        if self._variables and len(name) == 1:
            return self.mistake("unknown-name", what, span, f"the variable here is `{self._variables[-1]}`")
        if name in suggest.NAMES:
            return self.mistake("unknown-name", what, span, f"write `{suggest.NAMES[name]}`")
        near = closest(name, self._fitting(wants))
        number_wanted = Type.INT in wants and Type.BOOL not in wants
        if near and self._about_pairs and self._is_bare(near):
            label = f"did you mean `q.{near}` or `k.{near}`?"
        elif near:
            label = f"did you mean `{near}`?"
        else:
            label = f"write `param {name} = 4` above it" if self._counting and number_wanted else ""
        own = [n for n, e in self.scope.items() if not e.is_prelude]
        return self.mistake("unknown-name", what, span, label, f"your own names: {listing(own)}" if own else "")

    def _of_size(self, name: str) -> c.Input | None:
        """The input that gives a size this name."""
        return next((e.what for e in self.scope.values() if isinstance(e.what, c.Input) and name in e.what.sizes), None)

    def is_unknown(self, name: str) -> bool:
        return self.lookup(name) is None and name not in (*self._bound, *self.defined, *c.ATTRIBUTES, *c.GLOBALS)

    def _fitting(self, wants: tuple[Type, ...]) -> list[str]:
        """The names that stand for such a type; all names, if any type will do. What a function of the text gives is known at its calls only."""
        entries = {**self.prelude, **self.scope}
        known = [*self._bound, *(["true", "false"] if Type.BOOL in wants else [])]
        if self._counting:
            return known + [n for n, e in entries.items() if isinstance(e.what, c.Param) and e.what.type is Type.INT]
        types = {**ATTRIBUTE_TYPES, **dict.fromkeys(c.GLOBALS, Type.INT)}
        known += [n for n, type in types.items() if not wants or type in wants]
        for name, entry in entries.items():
            match entry.what:
                case int():
                    type = Type.ROLE
                case Function(is_prelude=True):
                    type = Type.BOOL
                case Function():
                    type = None
                case Value() as value if value is POISON:
                    type = None
                case what:
                    type = what.type
            if not wants or type is None or type in wants:
                known.append(name)
        return known

    def _is_bare(self, name: str) -> bool:
        entry = self.lookup(name)
        return name in c.ATTRIBUTES or (entry is not None and self._is_own(entry, Side.KEY))

    def _is_own(self, entry: Entry, side: Side) -> bool:
        """Whether `q.NAME` (or `k.NAME`) can be written."""
        what = entry.what
        return (isinstance(what, Value) and what.kind is Kind.TOKEN) or (isinstance(what, c.Input) and is_attribute(what, side))

    def no_data(self, what: str, span: Span) -> Value:
        """Said once of a text."""
        if any(slug == "no-data" for slug, _ in self.mistakes):
            return POISON
        help = "say which roles are data: `data ROLE` (the default is the role `token`)"
        return self.mistake("no-data", f"{what}, and no role holds data", span, "needs `data`", help)

    def _builtin(self, side: Side, name: str, span: Span) -> Value:
        if name == "index" and not self.has_data:
            return self.no_data("`index` counts data tokens", span)
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
                return self._no_attribute_given(name, value)
            return self.mistake(
                "not-an-attribute",
                f"`{name}` is no attribute of a token",
                expr.name.span,
                f"it is the same for every token: write `{name}`" if value.kind is Kind.CONSTANT else f"it is about a pair: write `{name}`",
            )
        if value.floats and not self.floats_allowed:
            return self._no_floats(value.floats, f"{expr.side}.{name}")
        return Value(c.bind(value.expr, side), value.type, Kind.PAIR, expr.span, floats=value.floats, depth=value.depth, size=value.size)

    def _no_attribute(self, side: Side, name: t.Word, entry: Entry | None) -> Value:
        who = "query" if side is Side.QUERY else "key"
        what = f"{who} has no attribute `{name.text}`"
        known = [*c.ATTRIBUTES, *(n for n, e in self.scope.items() if self._is_own(e, side))]
        if name.text in c.GLOBALS:
            return self.mistake("unknown-attribute", what, name.span, f"it is the same for every token: write `{name.text}`")
        if entry is not None:
            match entry.what:
                case int():
                    label = f"write `{side.value} is {name.text}`"
                case Function() as function:
                    label = f"`{name.text}` is a function: write `{function.signature(name.text)}`"
                case _:
                    label = f"`{name.text}` is {entry.noun}: write `{name.text}`"
            return self.mistake("unknown-attribute", what, name.span, label)
        role = name.text.removeprefix("is_")
        label = f"write `{side.value} is {role}`" if role != name.text and role in self.roles() else meant(name.text, known, suggest.ATTRIBUTES)
        return self.mistake("unknown-attribute", what, name.span, label, f"attributes of a {who} here: {', '.join(known)}")

    def _no_attribute_given(self, parameter: str, value: Value) -> Value:
        """A call gives something else for a parameter that the function reads as `q.PARAMETER`."""
        if not self._calls:
            return POISON
        function, call = self._calls[-1]
        given = call.args[[p.text for p in function.parameters].index(parameter)]
        label, help = "this is the same for every token", "for example `pos // 128`, or an input per token"
        body = self.let_texts.get(given.name) if isinstance(given, t.Name) and given.name not in self._bound else None
        if value.kind is Kind.PAIR:
            label, help = "this is about a query and a key", "give the bare attribute, for example `pos // 128`"
            if body is not None:
                label = f"`{spelled(given)}` is about a pair"
                if suggest.one_sided(body) and (bare := spelled(body, bare=True)) != "...":
                    help = f"write `let {spelled(given)} = {bare}`"
            elif suggest.one_sided(given):
                args = ", ".join(spelled(a, bare=a is given) for a in call.args)
                help = f"write `{call.name}({args})`"
        with self._at_the_call():
            return self.mistake("not-an-attribute", f"`{function.signature(call.name.text)}` needs an attribute of a token", given.span, label, help)

    # ------------------------------------------------------------------------------------------ inputs and subscripts

    def _read(self, declared: c.Input, side: Side | None, subscripts: tuple[Value, ...], span: Span) -> Value:
        """A read of an input: `doc`, `q.doc`, `table[i]`, `q.picked[k.block]`, with one index an axis in tensor order."""
        name, axes = declared.name, declared.axes
        if any(s is POISON for s in subscripts):
            return POISON
        if side is not None and not is_attribute(declared, side):
            other = "k" if side is Side.QUERY else "q"
            if is_attribute(declared, Side(other)):
                return self.mistake(
                    "unknown-attribute", f"`{name}` is given {'per query' if other == 'q' else 'per key'}", span, f"write `{read_as(declared, Side(other))}`"
                )
            return self.mistake(
                "not-an-attribute",
                f"`{name}` is no attribute of a token",
                span,
                f"it is given per {', '.join(axes) or 'sequence'}: write `{read_as(declared, None, self._places(declared, subscripts), side.value)}`",
            )
        if len(subscripts) != len(declared.sizes):
            wanted = f"{len(declared.sizes)} in brackets" if declared.sizes else "none"
            shape = ", ".join(map(str, declared.sizes))
            return self.mistake(
                "wrong-subscripts",
                f"`{name}` takes {wanted}; this has {len(subscripts)}",
                span,
                f"one for each of its sizes: {shape}" if shape else f"write `{name}`",
                f"for example `{read_as(declared, side or own_side(declared))}`" if shape else "",
                _per_axes(declared),
            )
        for s in subscripts:
            self.typed(s, (Type.INT,), "a subscript")
        own = side or Side.OWN
        mine = self.own_axes.intersection(axes) if side is None and not {"query", "key"} <= {*axes} else frozenset()
        indices: list[c.Expr] = []
        for axis in axes:
            match axis:
                case "token" | "step":
                    indices.append(c.Attribute(own, "pos" if axis == "token" else "step", Type.INT))
                case "query" | "key":
                    of = Side.OWN if axis in mine else Side.QUERY if axis == "query" else Side.KEY
                    indices.append(c.Attribute(of, "pos", Type.INT))
                case "head" | "layer":
                    indices.append(c.Global(axis))
        is_token = side is None and ("token" in axes or "step" in axes or bool(mine))
        if side is None and not is_token and ("query" in axes) != ("key" in axes):
            which = "q" if "query" in axes else "k"
            return self.mistake("whose", f"`{name}` is an attribute of the {'query' if which == 'q' else 'key'}", span, f"write `{which}.{name}`")
        mine = Kind.TOKEN if is_token else Kind.PAIR if {"query", "key"} & {*axes} or side else Kind.CONSTANT
        base = Value(c.Literal(0, Type.INT), declared.type, mine, span, bare=span if is_token else None)
        joined = self._join([base, *subscripts], span)
        if joined is POISON:
            return POISON
        return replace(joined, expr=c.Read(name, (*indices, *(s.expr for s in subscripts)), declared.type), type=declared.type)

    def _places(self, declared: c.Input, subscripts: tuple[Value, ...]) -> str:
        """The subscripts as written, where there are as many as there should be."""
        return ", ".join(self._text(s.span) for s in subscripts) if len(subscripts) == len(declared.sizes) and not self._calls else ""

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
                    and not (not entry.what.sizes and (is_attribute(entry.what, Side.QUERY) or self.own_axes.intersection(entry.what.axes)))
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


def read_as(declared: c.Input, side: Side | None, places: str = "", asking: str = "q") -> str:
    """How an input is read: `table[q.pos]`, `k.picked[q.pos]`."""
    sides = (asking, "k" if asking == "q" else "q")
    places = places or ", ".join(f"{sides[i % 2]}.pos" for i in range(len(declared.sizes)))
    return (f"{side.value}." if side in (Side.QUERY, Side.KEY) else "") + declared.name + (f"[{places}]" if places else "")


def _per_axes(declared: c.Input) -> str:
    """What to write where axes were meant, and stand among the sizes."""
    meant = [str(s) for s in declared.sizes if s in c.INPUT_AXES]
    sizes = ", ".join(str(s) for s in declared.sizes if s not in meant)
    axes = ", ".join((*declared.axes, *meant))
    return f"axes stand behind `per`: `input {declared.name}: {declared.type.value}{f'[{sizes}]' if sizes else ''} per {axes}`" if meant else ""


def own_side(declared: c.Input) -> Side | None:
    """The side that must stand before an input that is given per query, or per key."""
    of = {"query", "key"} & {*declared.axes} if not {"token", "step"} & {*declared.axes} else set()
    return None if len(of) != 1 else Side.QUERY if "query" in of else Side.KEY


def is_attribute(declared: c.Input, side: Side) -> bool:
    """Whether `q.NAME` (or `k.NAME`) can be written for an input."""
    axes = set(declared.axes)
    if {"query", "key"} <= axes:
        return False
    return bool(axes & {"token", "step"}) or ("query" if side is Side.QUERY else "key") in axes
