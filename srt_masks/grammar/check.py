"""Tree -> checked tree: one function a statement, in the order of the text.

Input: a `Tree`. Output: `Checked`, or every mistake of the text. Non-goals: evaluation, simplification.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..diagnostics import MOST_FOUND, Diagnostic, InputError, Source, Span, listing
from . import checked as c
from . import syntax as t
from .calls import NUMBERS
from .checked import Kind, Side, Type
from .constants import number_of, param_value
from .explain_syntax import no_target
from .expressions import Expressions
from .facts import Broken, fact_of_input, fact_of_param, holds
from .layouts import layout_of, role_of, roles_of
from .missing import NOTHING_MISSING, Missing
from .prelude import prelude, prelude_tree
from .scope import POISON, Entry, Function, Traced, Value
from .suggest import CLAIMS, closest, meant

MASK = (Type.BOOL,)
TRUE = c.Literal(True, Type.BOOL)


def check(
    tree: t.Tree, params: Mapping[str, int | float], missing: Missing = NOTHING_MISSING, source: Source | None = None
) -> tuple[c.Checked | None, list[Diagnostic]]:
    """The checked tree, or None and the mistakes. `params` replaces the values of the text's params; what is `missing` of the text is no
    mistake; from `source` mistakes quote.

    Raises InputError for a value of the wrong type.
    """
    checker = _Checker(dict(params), missing, source)
    checked = checker.run(tree)
    mistakes = list(checker.names.mistakes.values())
    return (None if mistakes else checked), mistakes


def trace(tree: t.Tree, params: Mapping[str, int | float]) -> tuple[list[tuple[t.Statement, tuple[Traced, ...]]], dict[str, Traced]]:
    """Every statement of a right text with what its expressions were checked to, in their order; and the bodies of the prelude's names."""
    checker = _Checker(dict(params))
    checker.names.traced = [[]]
    checker.begin(tree)
    found = []
    for statement in tree.statements:
        checker.names.traced[0].clear()
        checker.next(statement)
        found.append((statement, tuple(checker.names.traced[0])))
    names = Expressions(traced=[[]])
    bodies = {}
    for s in prelude_tree().statements:
        if isinstance(s, t.Let) and s.parameters is None:
            value = names.check(s.body)
            (last,) = names.traced[0][-1:]  # type: ignore[index]
            bodies[s.name.text] = replace(last, is_prelude=True)
            assert value is not POISON
    return found, bodies


class _Checker:
    def __init__(self, params: dict[str, int | float], missing: Missing = NOTHING_MISSING, source: Source | None = None):
        self.names = Expressions(prelude=prelude(), source=source or Source(""))
        self.missing = missing
        self.overrides = params
        self.roles: list[str] = []
        self.data: tuple[int, ...] = ()
        self.layouts: dict[str | None, c.Layout] = {}
        self.params: list[c.Param] = []
        self.inputs: list[c.Input] = []
        self.lets: list[c.Let] = []
        self.attend: c.Expr | None = None
        self.rules: list[c.Rule] = []
        self.position: c.Expr | None = None
        self.predictions: list[c.Prediction] = []
        self.asks: c.Expr | None = None
        self.claims: list[c.Claim] = []
        self.facts: list[c.Fact] = []
        self.order = 0
        self.predicts = False

    def run(self, tree: t.Tree) -> c.Checked | None:
        self.begin(tree)
        for statement in tree.statements:
            self.next(statement)
            if len(self.names.mistakes) >= MOST_FOUND:
                return None
        return self.result(tree)

    def begin(self, tree: t.Tree) -> None:
        self.names.defined = frozenset(s.name.text for s in tree.statements if isinstance(s, t.Param | t.Input | t.Let))
        self.predicts = any(isinstance(s, t.Predict) for s in tree.statements) or "predict" in self.missing.statements
        self.collect_roles(tree)
        for name in self.missing.names:
            self.names.scope.setdefault(name, Entry(POISON, 0))
        self.collect_data(tree)
        self.refuse_repeats(tree)

    def next(self, statement: t.Statement) -> None:
        self.order += 1
        self.names.defining = statement.name.text if isinstance(statement, t.Let | t.Input) else ""
        self.statement(statement)

    def result(self, tree: t.Tree) -> c.Checked | None:
        names = self.names
        if self.attend is None and "attend" not in self.missing.statements:
            end = tree.statements[-1].span.end if tree.statements else 0
            if self.missing != NOTHING_MISSING:
                end = len(names.source.text.rstrip())
            names.mistake("no-attend", "a spec says who attends to whom", Span(end, end), "no `attend` in this text", "for example `attend causal`")
        if "layout" in self.missing.statements:
            return None
        if not self.layouts:
            self.layouts[None] = c.Layout((c.Section(None, ((0, 1),)),))
        if (None in self.layouts) is ("queries" in self.layouts or "keys" in self.layouts) or ("queries" in self.layouts) is not ("keys" in self.layouts):
            layout = next(s for s in tree.statements if isinstance(s, t.Layout))
            names.mistake("two-axes", "two axes need both layouts", layout.span, "`queries layout ...` and `keys layout ...`, or one `layout ...` for both")
            return None
        if self.attend is None:
            return None
        queries = self.layouts.get(None) or self.layouts["queries"]
        params = tuple(c.Param(p.name, p.type, p.value, p.name in names.structural) for p in self.params)
        return c.Checked(
            tuple(self.roles), self.data, queries, self.layouts.get("keys"), params, tuple(self.inputs), tuple(self.lets),
            self.attend, tuple(self.rules), self.position, tuple(self.predictions), self.asks, tuple(self.claims), tuple(self.facts),
        )  # fmt: skip

    # -------------------------------------------------------------------------------------- before the statements

    def collect_roles(self, tree: t.Tree) -> None:
        """Roles may be named before the layout that lists them: they depend on nothing."""
        words = [w for s in tree.statements if isinstance(s, t.Layout) for w in roles_of(s.items)]
        lost = "layout" in self.missing.statements
        self.names.roles_known = not lost
        for word in words or ([] if lost else [t.Word(Span(0, 0), "token")]):
            if role_of(self.names, word) is not None:
                continue
            if self.taken(word):
                self.names.scope.setdefault(word.text, Entry(POISON, 0))
                continue
            self.names.scope[word.text] = Entry(len(self.roles), 0, is_prelude=not words)
            self.roles.append(word.text)
        self.names.two_axes = any(isinstance(s, t.Layout) and s.axis for s in tree.statements)

    def no_role(self, word: t.Word) -> None:
        if not self.names.roles_known or (word.text in self.names.scope and self.names.scope[word.text].what is POISON):
            return
        known = f"roles here: {listing(self.roles)}"
        self.names.mistake("unknown-role", f"no role is called `{word.text}`", word.span, meant(word.text, self.roles), known)

    def collect_data(self, tree: t.Tree) -> None:
        stated = [s for s in tree.statements if isinstance(s, t.Data)]
        for word in stated[0].roles if stated else ():
            if role_of(self.names, word) is None:
                self.no_role(word)
        if stated:
            self.names.once(word for word in stated[0].roles if role_of(self.names, word) is not None)
        chosen = stated[0].roles if stated else (t.Word(Span(0, 0), "token"),)
        self.data = tuple(dict.fromkeys(r for w in chosen if (r := role_of(self.names, w)) is not None))
        self.names.has_data = bool(self.data) or not self.missing.statements.isdisjoint(("data", "layout"))

    def refuse_repeats(self, tree: t.Tree) -> None:
        seen: dict[object, Span] = {}
        for s in tree.statements:
            match s:
                case t.Attend() | t.Data() | t.Position():
                    key: object = type(s).__name__.lower()
                case t.QueriesWhere():
                    key = "queries where"
                case t.Layout(axis=axis):
                    key = f"{axis} layout" if axis else "layout"
                case _:
                    continue
            if key in seen:
                self.names.mistake("said-twice", f"a spec has one `{key}`", s.span, "this is another one")
            seen[key] = s.span

    # -------------------------------------------------------------------------------------- statements

    def statement(self, s: t.Statement) -> None:
        self.names.floats_allowed = isinstance(s, t.Rule | t.Let | t.Param)
        match s:
            case t.Param():
                self.param(s)
            case t.Input():
                self.input(s)
            case t.Layout():
                self.layouts[s.axis] = layout_of(self.names, s)
            case t.Let():
                self.let(s)
            case t.Attend(where=where):
                self.attend = self.names.pair(where, MASK, "`attend`").expr
            case t.Rule():
                self.rule(s)
            case t.Position(value=expr):
                self.position = self.names.token(expr, (Type.INT,), "`position`").expr
            case t.Predict():
                self.predict(s)
            case t.Assert():
                self.claim(s)
            case t.QueriesWhere():
                self.queries_where(s)
            case t.Data():
                pass  # collected before

    def claim(self, s: t.Assert) -> None:
        names, kind, where = self.names, s.claim, s.where
        if kind is t.Claim.NO_LEAK and not self.predicts:
            names.mistake("no-predict", "nothing can leak: no output is trained", s.span, "needs a `predict`", "for example `predict token -> index + 1`")
        if isinstance(where, t.Name) and names.is_unknown(where.name) and (near := closest(where.name, CLAIMS)):
            names.mistake("unknown-name", f"nothing is called `{where.name}`", where.span, f"did you mean `{near}`?")
            return
        value = names.pair(where, MASK, f"`{kind.value}`") if where else None
        self.claims.append(c.Claim(kind, value.expr if value else None, s.span))

    def taken(self, word: t.Word) -> bool:
        name = word.text
        if name in c.ATTRIBUTES or name in c.GLOBALS:
            self.names.mistake(
                "name-taken", f"`{name}` is {'an attribute of every token' if name in c.ATTRIBUTES else 'known everywhere'}", word.span, "choose another name"
            )
            return True
        entry = self.names.scope.get(name)
        if entry is not None and not (entry.what is POISON and entry.order == 0):  # what was to define it is lost, or was refused
            noun = "the role of every token, in a text without `layout`" if entry.is_prelude else f"already {entry.noun}"
            self.names.mistake("name-taken", f"`{name}` is {noun}", word.span, "roles, params, inputs and lets share one set of names")
            return True
        return False

    def define(self, word: t.Word, what: c.Param | c.Input | Value | Function) -> None:
        if not self.taken(word):
            self.names.scope[word.text] = Entry(what, self.order)

    def param(self, s: t.Param) -> None:
        name = s.name.text
        value = number_of(s.value)
        if value is None:
            self.names.mistake(
                "constant-arithmetic", "a number has at most 64 bits", Span(s.span.end - len(s.value.lstrip("+-")), s.span.end), "this one is larger"
            )
            value = 1
        type = Type.INT if isinstance(value, int) else Type.FLOAT
        if name in self.overrides:
            value = param_value(name, type, self.overrides[name])
        param = c.Param(name, type, value, structural=False)
        self.define(s.name, param)
        self.params.append(param)
        if s.given is not None and (fact := fact_of_param(self.names, s.given, param)) is not None:
            self.facts.append(fact)
            self.hold(fact)

    def hold(self, fact: c.Fact) -> None:
        """Of the values of this text; one from outside is no mistake of the text."""
        values = {p.name: p.value for p in self.params}
        if holds(fact, values, self.names.let_bodies):
            return
        broken = Broken(fact, (((), values[fact.name]),))
        if not self.overrides.keys().isdisjoint(values):
            raise InputError(f"param {broken}: give another value, or change the text")
        self.names.mistake("fact-broken", f"`{fact.name}` is {values[fact.name]}, against what is stated with it", fact.span, "this does not hold")

    def input(self, s: t.Input) -> None:
        before = len(self.names.mistakes)
        axes = []
        for axis in s.axes:
            if axis.text not in c.INPUT_AXES:
                near = "no axis: the batch may stand in front of any input" if axis.text in ("batch", "row") else meant(axis.text, c.INPUT_AXES)
                self.names.mistake("unknown-axis", f"no axis is called `{axis.text}`", axis.span, near, f"axes: {', '.join(c.INPUT_AXES)}")
            elif axis.text in axes:
                self.names.mistake("said-twice", f"`{axis.text}` stands twice", axis.span)
            elif axis.text in ("token", "step") and self.names.two_axes:
                self.names.mistake("two-axes", f"with two layouts, `per {axis.text}` of which?", axis.span, "write `per query` or `per key`")
            elif axis.text == "sequence" and len(s.axes) > 1:
                self.names.mistake("unknown-axis", "`per sequence` means no axis", axis.span, "leave it out")
            else:
                axes.append(axis.text)
        if "token" in axes and "step" in axes:
            self.names.mistake("said-twice", "a token has one step: give the input per token", s.span)
        sizes: list[int | str] = []
        for size in s.sizes:
            if isinstance(size, t.Name) and self.names.lookup(size.name) is None and size.name not in (*c.GLOBALS, *c.ATTRIBUTES, *self.names.defined):
                sizes.append(size.name)
            else:
                number = self.names.structural_int(size, "a size", least=0)
                sizes.append(number if number is not None else 0)
        declared = c.Input(s.name.text, Type(s.type), tuple(a for a in axes if a != "sequence"), tuple(sizes))
        right = len(self.names.mistakes) == before
        self.define(s.name, declared if right else POISON)
        self.inputs.append(declared)
        if s.given is not None and right:
            self.names.floats_allowed = True
            if (fact := fact_of_input(self.names, s.given, declared)) is not None:
                self.facts.append(fact)

    def let(self, s: t.Let) -> None:
        if s.parameters is not None:
            known = self.parameters(s.parameters)
            function = Function(s.parameters, s.body, self.order, is_prelude=False)
            right = known and self.names.check_body(function)
            self.define(s.name, function if right else POISON)
            return
        value = self.names.check(s.body)
        if value is POISON:
            self.define(s.name, POISON)
            return
        ref = c.LetRef(s.name.text, Side.OWN, value.type)
        self.define(
            s.name,
            Value(ref, value.type, value.kind, s.name.span, bare=s.name.span if value.kind is Kind.TOKEN else None, floats=value.floats, depth=value.depth + 1),
        )
        self.names.let_bodies[s.name.text] = value.expr
        self.names.let_texts[s.name.text] = s.body
        self.lets.append(c.Let(s.name.text, value.kind, value.type, value.expr))

    def parameters(self, words: tuple[t.Word, ...]) -> bool:
        """Whether no parameter is taken."""
        before = len(self.names.mistakes)
        for i, p in enumerate(words):
            entry = self.names.scope.get(p.text)
            if p.text in c.ATTRIBUTES or p.text in c.GLOBALS or p.text in [w.text for w in words[:i]]:
                self.names.mistake("name-taken", f"`{p.text}` is taken", p.span, "choose another name for the parameter")
            elif entry is not None and not entry.is_prelude and entry.what is not POISON:
                self.names.mistake("name-taken", f"`{p.text}` is already {entry.noun}", p.span, "choose another name for the parameter")
        return len(self.names.mistakes) == before

    def rule(self, s: t.Rule) -> None:
        targets = []
        for target in s.targets:
            if target.text not in ("q", "k", "v", "hidden"):
                self.names.report(no_target(target.text, target.span))
            elif target.text in targets:
                self.names.mistake("said-twice", f"`{target.text}` stands twice", target.span)
            else:
                targets.append(target.text)
        factor = None
        if s.factor is not None:
            factor = self.names.pair(s.factor, NUMBERS, "`by`", "a condition goes behind `where`").expr
        where = TRUE
        if s.where is not None:
            where = self.names.pair(s.where, MASK, "`where`").expr
        self.rules.append(c.Rule(tuple(targets), factor, where))

    def predict(self, s: t.Predict) -> None:
        role = role_of(self.names, s.role)
        if role is None:
            self.no_role(s.role)
            return
        if not self.data:
            if self.names.has_data:  # which roles it is, is lost
                return
            self.names.no_data("`predict` needs data tokens to predict", s.span)
            return
        target = self.names.token(s.target, (Type.INT,), "`predict`")
        where = self.names.token(s.where, MASK, "`where`") if s.where else None
        self.names.floats_allowed = True
        weight = self.names.token(s.weight, NUMBERS, "`weight`") if s.weight else None
        self.predictions.append(c.Prediction(role, target.expr, weight.expr if weight else None, where.expr if where else None))

    def queries_where(self, s: t.QueriesWhere) -> None:
        if self.names.two_axes:
            self.names.mistake("two-axes", "with two layouts, every query asks", s.span, "one axis only", "leave the silent tokens out of `queries layout`")
        value = self.names.token(s.where, MASK, "`queries where`")
        reads = self.names.run_time_reads(value.expr)
        if reads:
            self.names.mistake(
                "not-static", "who asks is decided by the layout alone: q holds just those rows", value.span, f"this rests on {listing(reads)}",
                "use role, step, slot, section, pos, index and params",
            )  # fmt: skip
        self.asks = value.expr
