"""The scope of an expression: what names stand for, what a checked expression is known to be, and the mistakes found.

Input: nothing. Output: `Value`, `Entry` and `Scope`, on which `names.py` and `expressions.py` stand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from ..diagnostics import Diagnostic, Source, Span
from . import checked as c
from . import syntax as t
from .checked import Kind, Op, Type
from .constants import fold, fold_floats
from .suggest import LONGEST, about_a_side, spelled

MAX_NODES = 50_000  # expression nodes of one spec, functions and ranges expanded
MAX_DEPTH = 150  # levels of one expression, calls and lets included; it keeps every recursive pass within Python's stack


@dataclass(frozen=True, slots=True)
class Value:
    """A checked expression and what is known of it."""

    expr: c.Expr
    type: Type
    kind: Kind
    span: Span
    bare: Span | None = None  # where a bare attribute stands, if one does: it has no side yet
    floats: t.Expr | None = None  # the float param or the `/` it rests on: only gates, weights and lets may use these
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

    def signature(self, name: str) -> str:
        return f"{name}({', '.join(p.text for p in self.parameters)})"


@dataclass(frozen=True, slots=True)
class Entry:
    """What a name stands for, and when it was defined."""

    what: int | c.Param | c.Input | Value | Function  # an int is a role
    order: int
    is_prelude: bool = False  # every spec starts with it

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


@dataclass(frozen=True, slots=True)
class Traced:
    """An expression of the tree, what it was checked to, and the expressions inside it that were checked on the way: the arguments of a call
    and the body behind it, every member of an `any`. Kept only for `explain`."""

    tree: t.Expr
    expr: c.Expr
    is_prelude: bool  # its spans are those of the prelude
    parts: tuple[Traced, ...]


NOUNS = {Type.BOOL: "true or false", Type.INT: "an integer", Type.FLOAT: "a float", Type.ROLE: "a role"}


@dataclass
class Scope:
    """Names in force, and the mistakes collected so far; it grows as statements define names."""

    mistakes: dict[tuple[str, Span], Diagnostic] = field(default_factory=dict)
    scope: dict[str, Entry] = field(default_factory=dict)
    prelude: dict[str, Entry] = field(default_factory=dict)
    structural: set[str] = field(default_factory=set)  # params that a layout, a range or a table size needs
    defined: frozenset[str] = frozenset()  # every name of the text, further down included
    let_bodies: dict[str, c.Expr] = field(default_factory=dict)
    let_texts: dict[str, t.Expr] = field(default_factory=dict)  # the bodies as the text has them
    _structural_lets: set[str] = field(default_factory=set)
    _let_values: dict[str, int | str | None] = field(default_factory=dict)
    two_axes: bool = False
    has_data: bool = True
    floats_allowed: bool = True
    _bound: dict[str, Value] = field(default_factory=dict)  # parameters and range variables in force
    _visible_before: int = 1 << 60  # inside a function, only names defined before it
    _variables: tuple[str, ...] = ()  # those of the `any` and `all` in force, the innermost last
    source: Source = field(default_factory=lambda: Source(""))  # of the text, to quote from
    _calls: tuple[tuple[Function, t.Call], ...] = ()  # the functions whose bodies are being checked for a call, the innermost last
    own_axes: frozenset[str] = frozenset()  # in a fact: of `query` and `key` those whose inputs are read of the token at hand
    _token_statement: tuple[str, t.Expr] | None = None  # in a statement about the token at hand: what the statement is called, and its expression
    roles_known: bool = True  # no layout is lost to a mistake
    _about_pairs: bool = False  # in a statement about a query and a key, where a bare attribute does not say whose it is
    _counting: str = ""  # inside a number of the layout or of a range: what it counts
    _depth: int = 0
    _nodes: int = 0
    _exhausted: bool = False
    defining: str = ""  # the name whose statement is being checked
    traced: list[list[Traced]] | None = None  # while tracing: the parts found so far of every expression being checked, outermost first

    # ------------------------------------------------------------------------------------------ mistakes

    def mistake(self, slug: str, message: str, span: Span, label: str = "", *help: str) -> Value:
        """Inside the body of a function that is checked for a call, the mistake is the call's: there it is reported, and the body is quoted."""
        if self._calls:
            help = (*help, *self._quoted(span, label))
            span = self._calls[0][1].span
            label = label if self._calls[0][0].is_prelude else "in this call"
        self.mistakes.setdefault((slug, span), Diagnostic(slug, message, span, label, tuple(h for h in help if h)))
        return POISON

    def once(self, words: Iterable[t.Word]) -> None:
        """Each word of a list stands in it once."""
        seen: set[str] = set()
        for word in words:
            if word.text in seen:
                self.mistake("said-twice", f"`{word.text}` stands twice", word.span)
            seen.add(word.text)

    def _quoted(self, span: Span, label: str) -> Iterator[str]:
        """The innermost function of the text that is being called, and what is wrong there."""
        own = [(function, call) for function, call in self._calls if not function.is_prelude]
        if not own or not self.source.text:
            return
        function, call = own[-1]
        if self._calls[-1][0].is_prelude:  # the prelude has other spans: the call from here stands for them
            span = next(call.span for function, call in self._calls if function.is_prelude)
        yield f"in `{call.name}`, line {self.source.place(function.body.span.start)[0]}: `{self._text(function.body.span)}`"
        if label:
            yield f"`{self._text(span)}`: {label}"

    def _text(self, span: Span) -> str:
        text = " ".join(self.source.text[span.start : span.end].split())
        return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"

    @contextmanager
    def _at_the_call(self) -> Iterator[None]:
        """For mistakes of an argument: they stand where the innermost function is called."""
        saved, self._calls = self._calls, self._calls[:-1]
        try:
            yield
        finally:
            self._calls = saved

    @property
    def in_prelude(self) -> bool:
        return bool(self._calls) and self._calls[-1][0].is_prelude

    def report(self, found: Diagnostic) -> None:
        """A mistake of a text, never of the prelude."""
        self.mistakes.setdefault((found.slug, found.span), found)

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
        if self._token_statement:
            return self.pair_here()
        return self.mistake("whose", "a bare attribute does not say whose it is", value.bare, "whose? `q.` for the query's, `k.` for the key's")

    def pair_here(self) -> Value:
        assert self._token_statement
        what, expr = self._token_statement
        span, said, bare = about_a_side(expr) or (expr.span, spelled(expr), "")
        label = "mentions `q.` or `k.`" if bare else "this is about a query and a key"
        help = f"write `{bare}`, not `{said}`" if bare else "write attributes of the token alone, for example `step`"
        return self.mistake("pair-here", f"{what} is about one token, not about a query and a key", span, label, help)

    def typed(self, value: Value, wanted: tuple[Type, ...], what: str, help: str = "") -> Value:
        if value is POISON or value.type in wanted:
            return value
        words = "a mask" if Type.BOOL in wanted else "a number" if Type.FLOAT in wanted else NOUNS[wanted[0]]
        hides = ""
        if isinstance(value.expr, c.ParamRef | c.LetRef) and value.expr.name in self.prelude and not self._calls:
            hides = f"your {self.scope[value.expr.name].noun.split()[-1]} `{value.expr.name}` hides the prelude's: give it another name"
        help = hides or help or self._compare_help(value, wanted)
        return self.mistake("type-mismatch", f"{what} needs {words}", value.span, f"this is {NOUNS[value.type]}", help)

    def _compare_help(self, value: Value, wanted: tuple[Type, ...]) -> str:
        if Type.BOOL in wanted and value.type is Type.INT:
            return f"compare it, for example `{self._text(value.span)} < 128`" if self._token_statement else "compare it, for example `q.pos - k.pos < 128`"
        if Type.BOOL in wanted and value.type is Type.ROLE:
            return "ask for it: `role is ROLE`" if self._token_statement else "ask for it: `k is ROLE`"
        return ""

    # ------------------------------------------------------------------------------------------ names

    def lookup(self, name: str) -> Entry | None:
        entry = self.scope.get(name)
        if entry is not None and entry.order < self._visible_before and not self.in_prelude:
            return entry
        return self.prelude.get(name)

    @contextmanager
    def _inside(self, function: Function, bound: dict[str, Value], call: t.Call | None) -> Iterator[None]:
        saved = self._bound, self._variables, self._visible_before, self._calls
        self._bound, self._variables, self._visible_before = bound, (), function.order
        self._calls = (*self._calls, (function, call)) if call else ()
        try:
            yield
        finally:
            self._bound, self._variables, self._visible_before, self._calls = saved

    # ------------------------------------------------------------------------------------------ wholes from parts

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
        return Value(
            POISON.expr,
            Type.BOOL,
            kind,
            span,
            bare=bare.bare if bare else None,
            floats=next((p.floats for p in parts if p.floats), None),
            depth=depth,
            size=size,
        )

    def _apply(self, op: Op, args: tuple[Value, ...] | list[Value], type: Type, span: Span) -> Value:
        joined = self._join(args, span)
        if joined is POISON:
            return POISON
        if op in (Op.FLOORDIV, Op.MOD, Op.TRUEDIV) and isinstance(args[1].expr, c.Literal) and args[1].expr.value == 0:
            return self.mistake("constant-arithmetic", "this divides by zero", span, "in this constant")
        if op is Op.POW and isinstance(args[1].expr, c.Literal) and args[1].expr.value < 0:
            return self.mistake("constant-arithmetic", "a whole number has no negative power", span, "in this constant")
        if all(isinstance(a.expr, c.Literal) for a in args) and type in (Type.INT, Type.FLOAT) and op is not Op.CHOOSE:
            folded = fold(op, [a.expr.value for a in args]) if type is Type.INT else fold_floats(op, [a.expr.value for a in args])  # type: ignore[union-attr]
            if isinstance(folded, str):
                return self.mistake("constant-arithmetic", folded, span, "in this constant")
            if folded is not None:
                return replace(joined, expr=c.Literal(folded, type), type=type)
        self._nodes += 1
        return replace(joined, expr=c.Apply(op, tuple(a.expr for a in args), type), type=type)
