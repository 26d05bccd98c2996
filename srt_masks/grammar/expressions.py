"""Expressions: kinds and types inferred, functions and ranges expanded, constants folded.

Input: an expression of the tree. Output: a `Value`, or POISON once a mistake has been reported, so that one mistake is reported
once. Non-goals: statements (`check.py`), calls (`calls.py`), names (`names.py`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from ..diagnostics import Span, listing
from . import checked as c
from . import syntax as t
from .calls import NUMBERS, Calls, wider
from .checked import Kind, Op, Side, Type
from .constants import fold, number_of
from .scope import MAX_DEPTH, MAX_NODES, NOUNS, POISON, Traced, Value
from .suggest import meant, walk

MAX_RANGE = 1024  # steps of one `any` or `all`
INTEGER_OPS = {"+": Op.ADD, "-": Op.SUB, "*": Op.MUL, "//": Op.FLOORDIV, "%": Op.MOD, "**": Op.POW, "/": Op.TRUEDIV}
_WITH_FLOATS = {  # what to write where one side is a float
    "//": "`/` is float division, in `by` and `weight`",
    "**": "powers of a float come as a table: `input power: float[n]`, then `power[q.pos - k.pos]`",
}
COMPARISONS = {"<": Op.LT, "<=": Op.LE, ">": Op.GT, ">=": Op.GE, "==": Op.EQ, "!=": Op.NE}


class Expressions(Calls):
    """The checker of expressions."""

    def pair(self, expr: t.Expr, wants: tuple[Type, ...], what: str, help: str = "") -> Value:
        """A condition or number about a query and a key."""
        self._about_pairs = True
        value = self.check(expr, wants)
        self._about_pairs = False
        return self.typed(self._whose(value) if value.kind is Kind.TOKEN else value, wants, what, help)

    def token(self, expr: t.Expr, wants: tuple[Type, ...], what: str) -> Value:
        """An expression about the token at hand: bare attributes only."""
        self._token_statement = (what, expr)
        value = self.check(expr, wants)
        value = self.pair_here() if value.kind is Kind.PAIR else self.typed(value, wants, what)
        self._token_statement = None
        return value

    def typed_part(self, expr: t.Expr, wants: tuple[Type, ...], what: str) -> Value:
        return self.typed(self.check(expr, wants), wants, what)

    def structural_int(self, expr: t.Expr, what: str, least: int = 0) -> int | None:
        """A number known when the text is read: made of literals and integer params, which become structural."""
        saved, self._counting = self._counting, what
        value = self.check(expr, (Type.INT,))
        self._counting = saved
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
                "a choice is not for a count" if any(isinstance(n, t.Choose) for n in walk(expr)) else "this is known at run time only",
                "use numbers and integer params",
            )
        elif isinstance(result, str):
            self.mistake("constant-arithmetic", result, value.span, "in this constant")
        elif result < least:
            self.mistake("out-of-range", f"{what} is at least {least}; this is {result}", value.span)
        else:
            return result
        return None

    def run_time_reads(self, expr: c.Expr) -> list[str]:
        """What an expression reads that only a call, a head or a layer decides: inputs by name, `head`, `heads`, `layer`, `layers`."""
        found: dict[str, None] = {}
        stack, seen = [expr], set()
        while stack:
            for node in c.walk(stack.pop()):
                match node:
                    case c.Read(input=name):
                        found[f"input `{name}`"] = None
                    case c.Global(name="head" | "heads" | "layer" | "layers" as name):
                        found[f"`{name}`"] = None
                    case c.LetRef(name=name) if name in self.let_bodies and name not in seen:
                        seen.add(name)
                        stack.append(self.let_bodies[name])
        return list(found)

    def _make_structural(self, expr: c.Expr) -> None:
        for node in c.walk(expr):
            match node:
                case c.ParamRef(name=name):
                    self.structural.add(name)
                case c.LetRef(name=name) if name in self.let_bodies and name not in self._structural_lets:
                    self._structural_lets.add(name)
                    self._make_structural(self.let_bodies[name])

    # ------------------------------------------------------------------------------------------ any expression

    def check(self, expr: t.Expr, wants: tuple[Type, ...] = ()) -> Value:
        """An expression where one of such types is wanted: what is said of an unknown name depends on it."""
        self._nodes += 1
        if self._nodes > MAX_NODES:
            return self._too_large(expr.span)
        if self._depth >= MAX_DEPTH:
            return self._too_deep(expr.span)
        self._depth += 1
        if self.traced is not None:
            self.traced.append([])
        try:
            value = self._dispatch(expr, wants)
        finally:
            self._depth -= 1
        if self.traced is not None:
            parts = tuple(self.traced.pop())
            self.traced[-1].append(Traced(expr, value.expr, self.in_prelude, parts))
        return value if value is POISON else replace(value, span=expr.span)

    def _dispatch(self, expr: t.Expr, wants: tuple[Type, ...]) -> Value:
        match expr:
            case t.Number():
                return self._number(expr)
            case t.Truth(value=value):
                return Value(c.Literal(value, Type.BOOL), Type.BOOL, Kind.CONSTANT, expr.span)
            case t.Name():
                return self._name(expr, wants)
            case t.Subject():
                return self._bare_subject(expr)
            case t.Attribute():
                return self._attribute(expr)
            case t.Subscript():
                return self._subscript(expr)
            case t.Call():
                return self._call(expr)
            case t.Sign(op=op, operand=t.Number() as number):
                return self._number(number, op)  # the least number has a sign: without it, it is none of 64 bits
            case t.Sign(op=op, operand=operand):
                value = self.typed_part(operand, NUMBERS, f"`{op}`")
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
                value = self.typed_part(operand, (Type.BOOL,), "`not`")
                return value if value is POISON else self._apply(Op.NOT, (value,), Type.BOOL, expr.span)
            case t.Logic(op=op, operands=operands):
                values = [self.typed_part(o, (Type.BOOL,), f"`{op}`") for o in operands]
                return self._logic(op, values, expr.span)
            case t.Choose(then=then, condition=condition, otherwise=otherwise):
                return self._choose(self.check(then, wants), self.typed_part(condition, (Type.BOOL,), "`if`"), self.check(otherwise, wants), expr.span)
            case t.Quantify():
                return self._quantify(expr)
            case _:
                assert_never(expr)

    def _number(self, expr: t.Number, sign: str = "") -> Value:
        number = number_of(sign + expr.text)
        if number is None:
            return self.mistake("constant-arithmetic", "a number has at most 64 bits", expr.span, "this one is larger")
        type = Type.INT if isinstance(number, int) else Type.FLOAT
        return Value(c.Literal(number, type), type, Kind.CONSTANT, expr.span)

    def _bare_subject(self, expr: t.Subject) -> Value:
        side = expr.side
        if self._counting:
            message = f"{self._counting} is a number known when the text is read"
            return self.mistake("not-constant", message, expr.span, f"`{side}` is a token", "give the number a name: `param n = 4`, and write `n`")
        return self.mistake(
            "bare-subject", f"`{side}` is a token, not a number", expr.span, f"write `{side}.pos`, or `{side} is {next(iter(self.roles()), 'ROLE')}`"
        )

    # ------------------------------------------------------------------------------------------ operators

    def _binary(self, expr: t.Binary) -> Value:
        left = self.check(expr.left)
        if expr.op == "//" and left is not POISON and left.type is Type.BOOL:
            return self.mistake("type-mismatch", "`//` needs a number", left.span, "this is true or false", "`//` divides; comments begin with `#`")
        left, right = self.typed(left, NUMBERS, f"`{expr.op}`"), self.typed_part(expr.right, NUMBERS, f"`{expr.op}`")
        if left is POISON or right is POISON:
            return POISON
        op = INTEGER_OPS[expr.op]
        if op is Op.TRUEDIV:
            if not self.floats_allowed:
                return self._no_floats(expr)
            value = self._apply(op, (left, right), Type.FLOAT, expr.span)
            return value if value is POISON else replace(value, floats=expr)
        if op in (Op.FLOORDIV, Op.MOD, Op.POW):
            for side in (left, right):
                if side.type is not Type.INT:
                    return self.mistake(
                        "type-mismatch",
                        f"`{expr.op}` needs whole numbers",
                        side.span,
                        "this is a float",
                        _WITH_FLOATS.get(expr.op, ""),
                    )
        return self._apply(op, (left, right), wider([left, right]), expr.span)

    def _chain(self, expr: t.Chain) -> Value:
        if (mistake := self._compares_a_token(expr)) is not None:
            return mistake
        wants = () if all(symbol in ("==", "!=") for symbol, _ in expr.rest) else NUMBERS
        values = [self.check(expr.first, wants), *(self.check(e, wants) for _, e in expr.rest)]
        if any(v is POISON for v in values):
            return POISON
        links = []
        for (symbol, _), a, b in zip(expr.rest, values, values[1:], strict=False):
            numbers = a.type in NUMBERS and b.type in NUMBERS
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

    def _compares_a_token(self, expr: t.Chain) -> Value | None:
        """`k == thought`"""
        for (symbol, right), left in zip(expr.rest, (expr.first, *(e for _, e in expr.rest)), strict=False):
            subject, role = (left, right) if isinstance(left, t.Subject) else (right, left)
            if symbol not in ("==", "!=") or not isinstance(subject, t.Subject):
                continue
            if isinstance(role, t.Subject):
                label = f"write `q.pos {symbol} k.pos`, or `q.role {symbol} k.role`"
                return self.mistake("bare-subject", "`q` and `k` are tokens, not numbers", left.span.to(right.span), label)
            if isinstance(role, t.Name) and role.name in self.roles():
                instead = f"{subject.side} is {'not ' if symbol == '!=' else ''}{role.name}"
                return self.mistake("bare-subject", f"`{subject.side}` is a token, not a role", subject.span, f"write `{instead}`")
        return None

    def _role_of_subject(self, expr: t.Expr) -> Value:
        """`k in {a, b}` and `k is a` speak of the token's role; elsewhere a bare `k` is a mistake."""
        return self._builtin(Side(expr.side), "role", expr.span) if isinstance(expr, t.Subject) else self.check(expr)

    def _is(self, subject: t.Expr, word: t.Word, negated: bool, span: Span) -> Value:
        value = self._role_of_subject(subject)
        entry = self.lookup(word.text)
        roles = self.roles()
        lost = entry.what is POISON if entry is not None else not self.roles_known
        if lost:
            return POISON
        if word.text in self._variables and isinstance(subject, t.Subject):
            label = f"`{word.text}` is the variable: write `{subject.side}.role {'!=' if negated else '=='} {word.text}`"
            return self.mistake("unknown-role", f"no role is called `{word.text}`", word.span, label)
        if entry is None or not isinstance(entry.what, int):
            label = meant(word.text, roles) or (f"this is {entry.noun}" if entry else "")
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
            if not (member.type is subject.type or (member.type in NUMBERS and subject.type in NUMBERS)):
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
        return self._apply(Op.CHOOSE, (condition, then, otherwise), wider([then, otherwise]) if numbers else then.type, span)

    def _quantify(self, expr: t.Quantify) -> Value:
        """`any` and `all` are written out: one copy of the body for each value."""
        name, saved = expr.variable.text, (self._bound, self._variables)
        entry = self.lookup(name)
        if name in c.ATTRIBUTES or name in c.GLOBALS or name in self._bound:
            return self.mistake("name-taken", f"`{name}` is taken", expr.variable.span, "choose another name for the variable")
        if entry is not None and not entry.is_prelude and entry.what is not POISON:
            return self.mistake("name-taken", f"`{name}` is already {entry.noun}", expr.variable.span, "choose another name for the variable")
        members, first = self._members(expr)
        if members is None:
            return POISON
        # Without members the body still says what kind the whole is, and has its mistakes: it is checked for the number that would be the first.
        dummy = [] if members else [first]
        traced = len(self.traced[-1]) if self.traced is not None else 0
        self._variables = (*self._variables, name)
        bodies = []
        for member in members or dummy:
            self._bound = {**saved[0], name: member}
            bodies.append(POISON if member is POISON else self.typed_part(expr.body, (Type.BOOL,), f"`{expr.word}`"))
            if bodies[-1] is POISON:
                break
        self._bound, self._variables = saved
        if not dummy or bodies[0] is POISON:
            return self._logic("or" if expr.word == "any" else "and", bodies, expr.span)
        if self.traced is not None:
            del self.traced[-1][traced:]
        return replace(bodies[0], expr=c.Literal(expr.word == "all", Type.BOOL), depth=1, size=1)

    def _members(self, expr: t.Quantify) -> tuple[list[Value] | None, Value]:
        """The members, or None behind a mistake; and the number with which the range begins, or would."""
        if not expr.is_range:
            return [self.check(m) for m in expr.domain], POISON
        span = expr.domain[0].span.to(expr.domain[-1].span)
        if len(expr.domain) > 2:
            return None, self.mistake("wrong-arguments", "a range has one or two ends", span, f"these are {len(expr.domain)}")
        ends = [end for e in expr.domain if (end := self.structural_int(e, "a range", least=-(2**31))) is not None]
        if len(ends) < len(expr.domain):
            return None, POISON
        numbers = range(*ends)  # type: ignore[arg-type]
        if len(numbers) > MAX_RANGE:
            instead = "more alternatives come as a table of truth values: `input seen: bool[n] per query`, then `q.seen[k.pos]`"
            return None, self.mistake("too-large", f"a range has at most {MAX_RANGE} steps; this has {len(numbers)}", span, "", instead)
        members = [Value(c.Literal(n, Type.INT), Type.INT, Kind.CONSTANT, expr.variable.span) for n in (numbers or [numbers.start])]
        return members if numbers else [], members[0]

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
