"""Calls: the functions of the text and of the prelude, written out at each call; `min`, `max`, `abs`, `clamp`.

Input: a call of the tree. Output: a `Value`. Non-goals: operators (`expressions.py`).
"""

from __future__ import annotations

from abc import ABC

from ..diagnostics import Span, listing
from . import checked as c
from . import syntax as t
from .checked import Kind, Op, Type
from .names import Names, own_side, read_as
from .scope import NOUNS, POISON, Entry, Function, Value
from .suggest import meant, spelled, walk

NUMBERS = (Type.INT, Type.FLOAT)


class Calls(Names, ABC):
    """The checker of calls."""

    def check_body(self, function: Function) -> bool:
        """Reports the mistakes of a function that need no call to be seen, and says whether it has none: what rests on its parameters is
        left to the calls."""
        before = len(self.mistakes)
        with self._inside(function, {p.text: POISON for p in function.parameters}, None):
            self.check(function.body)
        return len(self.mistakes) == before

    def _call(self, expr: t.Call) -> Value:
        name = expr.name.text
        entry = self.lookup(name)
        if entry is not None and entry.what is POISON:
            return POISON
        if entry is not None and not isinstance(entry.what, Function):
            return self._no_function(expr, entry)
        if entry is None and name not in c.FUNCTIONS:
            return self._unknown_function(expr)
        saved, self._about_pairs = self._about_pairs, False  # an argument may be an attribute
        args = [self.check(a) for a in expr.args]
        self._about_pairs = saved
        if entry is None:
            return self._arithmetic_call(name, args, expr)
        function = entry.what
        assert isinstance(function, Function)
        if len(args) != len(function.parameters):
            said = f"`{function.signature(name)}` takes {len(function.parameters)}; this call has {len(args)}"
            one_each = len(function.parameters) == 1 and args and all(isinstance(a, t.Name) for a in expr.args)
            help = f"for each of them: `{' and '.join(f'{name}({spelled(a)})' for a in expr.args)}`" if one_each else ""
            return self.mistake("wrong-arguments", said, expr.span, "", help)
        if function.is_prelude:
            args = [self._argument(arg, p.text, function, name) for arg, p in zip(args, function.parameters, strict=True)]
        if any(a is POISON for a in args):
            return POISON
        with self._inside(function, dict(zip((p.text for p in function.parameters), args, strict=True)), expr):
            return self.check(function.body)

    def _argument(self, arg: Value, parameter: str, function: Function, name: str) -> Value:
        """An argument of a function of the prelude, whose body the user did not write. What it reads as `q.PARAMETER` is an attribute: the
        body says so; all others are numbers, those behind `%` whole ones."""
        if arg is POISON or any(isinstance(node, t.Attribute) and node.name.text == parameter for node in walk(function.body)):
            return arg
        whole = any(isinstance(n, t.Binary) and n.op == "%" and isinstance(n.right, t.Name) and n.right.name == parameter for n in walk(function.body))
        wanted, noun = ((Type.INT,), "an integer") if whole else (NUMBERS, "a number")
        if arg.type not in wanted:
            message = f"`{function.signature(name)}`: `{parameter}` is {noun}"
            return self.mistake("type-mismatch", message, arg.span, f"this is {NOUNS[arg.type]}")
        return self._whose(arg)

    def _no_function(self, expr: t.Call, entry: Entry) -> Value:
        name = expr.name.text
        hidden = self.prelude[name].what if name in self.prelude and entry is not self.prelude[name] else None
        if isinstance(hidden, Function) or name in c.FUNCTIONS:
            whose = "the prelude's" if hidden else "the built-in"
            hides = f", which hides {whose} `{name}(...)`"
            help = f"give the {entry.noun.split()[-1]} `{name}` another name"
        else:
            hides, help = "", self._instead_of_call(expr, entry)
        return self.mistake("not-a-function", f"`{name}` takes no arguments: it is {entry.noun}{hides}", expr.name.span, "called here", help)

    def _instead_of_call(self, expr: t.Call, entry: Entry) -> str:
        name = expr.name.text
        args = ", ".join(spelled(a) for a in expr.args)
        about_pairs = any(isinstance(a, t.Subject) for a in expr.args)  # `causal(q, k)`
        match entry.what:
            case int():
                return f"write `k is {name}`"
            case c.Input(sizes=sizes) as declared if sizes:
                return f"write `{read_as(declared, own_side(declared), args if len(sizes) == len(expr.args) and not about_pairs else '')}`"
            case c.Input(axes=axes) if {"token", "step"} & {*axes} and not about_pairs:
                return f"write `{name}[{args}]`"
            case Value(kind=Kind.TOKEN) if not about_pairs:
                return f"write `{name}[{args}]`"
            case Value(type=Type.BOOL) | c.Input(type=Type.BOOL) if len(expr.args) == 1 and not about_pairs:
                return f"did you mean `{name} and ({args})`?"
            case _:
                return f"write `{name}`"

    def _unknown_function(self, expr: t.Call) -> Value:
        functions = [n for n, e in {**self.prelude, **self.scope}.items() if isinstance(e.what, Function)]
        known = [*functions, "min", "max", "abs", "clamp"]
        if expr.name.text in self.defined:
            return self._unknown(expr.name.text, expr.name.span)
        name = expr.name.text
        if name in (*c.ATTRIBUTES, *c.GLOBALS):
            label = f"write `{name}`" + (f", or `{name}[POSITION]`" if name in c.ATTRIBUTES else "")
            return self.mistake("not-a-function", f"`{name}` is no function", expr.name.span, label)
        for arg in expr.args:
            if not isinstance(arg, t.Subject):
                self.check(arg)
        return self.mistake(
            "unknown-name",
            f"no function is called `{expr.name.text}`",
            expr.name.span,
            meant(expr.name.text, known),
            f"functions here: {listing(known)}",
        )

    def _arithmetic_call(self, name: str, args: list[Value], expr: t.Call) -> Value:
        args = [self.typed(a, NUMBERS, f"`{name}`") for a in args]
        if any(a is POISON for a in args):
            return POISON
        wanted = {"abs": 1, "clamp": 3}.get(name)
        if wanted is not None and len(args) != wanted:
            form = "abs(x)" if name == "abs" else "clamp(x, least, most)"
            return self.mistake("wrong-arguments", f"`{form}` takes {wanted}; this call has {len(args)}", expr.span)
        type = wider(args)
        match name:
            case "abs":
                return self._apply(Op.ABS, args, type, expr.span)
            case "clamp":
                return self._apply(Op.MIN, (self._apply(Op.MAX, args[:2], type, expr.span), args[2]), type, expr.span)
            case _:
                op = Op.MIN if name == "min" else Op.MAX
                return self._balanced(op, args, type, expr.span)

    def _balanced(self, op: Op, args: list[Value], type: Type, span: Span) -> Value:
        """Many arguments are no deep expression."""
        if len(args) == 1:
            return args[0]
        half = len(args) // 2
        return self._apply(op, (self._balanced(op, args[:half], type, span), self._balanced(op, args[half:], type, span)), type, span)


def wider(values: list[Value]) -> Type:
    return Type.FLOAT if any(v.type is Type.FLOAT for v in values) else Type.INT
