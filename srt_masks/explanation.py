"""`explain`: does this token see that one, and does it learn from it, directly or through others? In words and values, by the reference.

    text -> tree --trace--> every expression and what it was checked to --evaluate at one pair--> a tree of texts and values

Values come from the reference's evaluator, so that an explanation cannot follow a mistake of the compiler.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor

from .default_device import on_the_cpu
from .diagnostics import InputError, Source
from .flows.ways import Ways, ways
from .grammar import checked as c
from .grammar import syntax as t
from .grammar.check import trace
from .grammar.checked import Layout, Side, Type
from .grammar.parser import parse
from .grammar.prelude import prelude_text
from .grammar.scope import Traced
from .reference.masks import Evaluator, Row, TokenTable, pairs, token_table
from .spec import Spec
from .surface import lay_out_one
from .time_steps import Steps, joined
from .values import counted

MOST_ROWS = 200  # of a line's tree
MOST_MEMBERS = 3  # of an `any` or `all` that are shown when none decides
GATES = ("q", "k", "v", "hidden")

Value = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Node:
    """An expression at this pair. `decides`: it alone makes what it stands in what it is."""

    text: str
    value: Value
    note: str  # what it compares, with numbers in place of names
    decides: bool
    is_prelude: bool  # its text is the prelude's, not the user's
    parts: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """A statement of the text and where it begins: its condition (None: always), and for a rule the factor (None: 0) of some gradients."""

    number: int
    text: str
    where: Node | None
    factor: Node | None = None
    targets: tuple[str, ...] = ()

    @property
    def applies(self) -> bool:
        return self.where is None or self.where.value is True

    @property
    def stops(self) -> bool:
        return self.applies and (self.factor is None or self.factor.value == 0)


@dataclass(frozen=True, slots=True)
class Token:
    """A row: which token it is. `position` is its position id."""

    pos: int
    role: str
    section: int
    step: int
    slot: int
    index: int
    position: int
    asks: bool

    def __str__(self) -> str:
        where = f"step {self.step}, slot {self.slot}" + (f", section {self.section}" if self.section else "")
        return f"{self.pos}: {self.role} ({where}; index {self.index}, position id {self.position})"


@dataclass(frozen=True, slots=True)
class Explanation:
    """What `explain` found; prints as text. `gates` are the factors of the gradients into query, key, value and hidden state;
    `ways` lead from one row to the other through any heads, layers and rows."""

    query: Token
    key: Token
    head: int
    layer: int
    sees: bool
    attend: Line
    rules: tuple[Line, ...]
    silent: Line | None  # the `queries where` that the query does not meet
    gates: Mapping[str, float]
    alone: bool  # the query sees no other key: it has all the weight, whatever q and k say
    ways: Ways

    def plain(self) -> dict[str, Any]:
        """As nested dicts and lists, for JSON, which has no word for infinity and NaN: those are strings."""
        return plain_values(asdict(self))

    def __str__(self) -> str:
        where = f"head {self.head}, layer {self.layer}"
        parts = [f"query {self.query}", f"key   {self.key}", ""]
        if self.silent is not None:
            parts += [f"No: the query does not ask.{_reason(self.silent.where)}", "", *_drawn(self.silent)]
            return "\n".join([*parts, "", *self._indirectly()])
        verdict = "Yes: the query sees the key" if self.sees else "No: the query does not see the key"
        parts += [f"{verdict} ({where}).{_reason(self.attend.where)}", "", *_drawn(self.attend)]
        for rule in self.rules:
            parts += ["", *_drawn(rule, "applies" if rule.applies else "does not apply")]
        if self.sees:
            parts += ["", "What this pair teaches:", *(f"  {name:6}  {self._lesson(name)}" for name in GATES if self._is_spoken_of(name))]
            if self.gates["q"] != 1 or self.gates["k"] != 1 or self.gates["v"] != 1:
                parts.append("Gates act on what attention reads of q, k and v; the asking row's output projection and feed-forward learn all the same.")
        else:
            parts += ["", "A pair that is not attended teaches nothing."]
        return "\n".join([*parts, "", *self._indirectly()])

    def _indirectly(self) -> Iterator[str]:
        teaches = ((self.gates["k"] != 0 and not self.alone) or self.gates["v"] != 0) and self.gates["hidden"] != 0
        return self.ways.lines(self.sees, self.sees and teaches)

    def _is_spoken_of(self, gate: str) -> bool:
        return gate != "hidden" or any(gate in rule.targets for rule in self.rules)

    def _lesson(self, gate: str) -> str:
        factor, rules = self.gates[gate], [r for r in self.rules if r.applies and gate in r.targets]
        # Where something stops a gradient, what scales it beside has no say.
        numbers = [str(r.number) for r in rules if r.stops or not any(x.stops for x in rules)]
        by = f" by line{'s' if len(numbers) > 1 else ''} {', '.join(numbers)}" if numbers else ""
        if self.alone and gate in ("q", "k") and factor != 0:
            return f"no gradient from the output: it is the only key that the query sees, whose weight is 1 whatever {gate} is"
        if factor == 1:
            return "the whole gradient" + (f" (scaled by 1{by})" if by else "")
        return f"no gradient: stopped{by}" if factor == 0 else f"{factor:g} of the gradient: scaled{by}"


@on_the_cpu
def explain(
    spec: Spec, query: int, key: int, *, head: int = 0, layer: int = 0, steps: Steps | None = None, heads: int | None = None, layers: int | None = None,
    inputs: Mapping[str, Any] | None = None, given: Any = None,
) -> Explanation:  # fmt: skip
    """Whether the token at position `query` sees the one at `key`, why, and which gradients the pair passes.

    `steps` is as small as the two positions allow, unless given. Raises InputError for a position, head or layer that is not there.
    """
    if not isinstance(spec, Spec):
        raise InputError(f"explain takes a Spec; got {type(spec).__name__}. For a text: srt_masks.parse(text)")
    query, key, head, layer = (counted(name, n, 0) for name, n in (("query", query), ("key", key), ("head", head), ("layer", layer)))
    # A head or layer that is asked for is there, however many there are.
    heads = head + 1 if heads is None and head else heads
    layers = layer + 1 if layers is None and layer else layers
    row = lay_out_one(spec, steps=_steps(spec, query, key) if steps is None else steps, heads=heads, layers=layers, inputs=inputs, given=given)
    for name, value, axis in (("query", query, row.own), ("key", key, row.keys)):
        if value >= (tokens := len(axis["pos"])):
            more = "give more steps=" if spec.checked.repeats else f"this layout has {tokens} tokens"
            raise InputError(f"{name} {value} is beyond the last position, {tokens - 1}: {more}")
    for name, value, count in (("head", head, row.heads), ("layer", layer, row.layers)):
        if value >= count:
            raise InputError(f"{name} is from 0 to {count - 1}; got {value}: give {name}s= for more")
    return _Explainer(spec, row, head, layer).explain(query, key)


def _steps(spec: Spec, query: int, key: int) -> Steps | None:
    """The fewest time steps with both positions."""

    def fewest(layout: Layout, position: int) -> int | None:
        return max(0, -(-(position + 1 - layout.fixed) // layout.rows_per_step)) if layout.rows_per_step else None

    queries, keys = spec.checked.queries, spec.checked.keys
    return fewest(queries, max(query, key)) if keys is None else joined(fewest(queries, query), fewest(keys, key))


class _Explainer:
    def __init__(self, spec: Spec, row: Row, head: int, layer: int):
        self.spec, self.row, self.head, self.layer = spec, row, head, layer
        self.shown: set[tuple[str, Side]] = set()  # lets that the line at hand has written out
        self.token: int | None = None  # the one token that bare attributes are about, in `queries where`
        self.source, self.prelude = Source(spec.text, spec.filename), Source(prelude_text(), "prelude")
        tree, _ = parse(self.source)
        self.statements, self.bodies = trace(tree, spec.params)
        self.lets = {s.name.text: parts[0] for s, parts in self.statements if isinstance(s, t.Let) and s.parameters is None and parts}

    def explain(self, query: int, key: int) -> Explanation:
        checked = self.spec.checked
        tokens = token_table(self.row)
        asker = _token(tokens, query)
        seen = _token(tokens, key) if checked.keys is None else _key_token(self.row, key)
        self.token = query
        silent = next((self.line(s, parts, self.row.words(self.head, self.layer)) for s, parts in self.statements if isinstance(s, t.QueriesWhere)), None)
        self.token = None
        place = int((self.row.queries["pos"] < query).sum())
        # A query that does not ask has no row: the pair is asked about as if it had one.
        words = (self.row if asker.asks else replace(self.row, queries=self.row.own)).words(self.head, self.layer, place if asker.asks else query, key)
        attend = next(self.line(s, parts, words) for s, parts in self.statements if isinstance(s, t.Attend))
        rules = tuple(self.line(s, parts, words) for s, parts in self.statements if isinstance(s, t.Rule))
        attended, *gates = pairs(checked, words, 1, 1)
        factors = {name: float(gate.flatten()[0]) for name, gate in zip(GATES, gates, strict=True)}
        sees = bool(attended[0, 0]) and asker.asks
        alone = sees and int(pairs(checked, self.row.words(self.head, self.layer, place), 1, len(self.row.keys["pos"]))[0].sum()) == 1
        silent = None if asker.asks else silent
        return Explanation(asker, seen, self.head, self.layer, sees, attend, rules, silent, factors, alone, ways(self.row, query, key))

    def line(self, statement: t.Statement, parts: tuple[Traced, ...], words: Evaluator) -> Line:
        number, _ = self.source.place(statement.span.start)
        self.shown.clear()
        text, nodes = _text(self.source, statement), [self.node(p, words, Side.OWN, self.source) for p in parts]
        match statement:
            case t.Rule(factor=factor, where=where):
                targets = tuple(word.text for word in statement.targets)
                return Line(number, text, nodes[-1] if where is not None else None, nodes[0] if factor is not None else None, targets)
            case _:
                return Line(number, text, nodes[0])

    # ------------------------------------------------------------------------------------------ nodes

    def node(self, traced: Traced, words: Evaluator, side: Side, source: Source, label: str = "") -> Node | None:
        """The expression at this pair; None where it has no single value, as a bare attribute handed to a function has."""
        source = self.prelude if traced.is_prelude else source
        is_prelude = source is self.prelude
        value = self.value(traced.expr, words, side)
        if value is None:
            return None
        parts = self.parts(traced, words, side, source)
        text, note = _text(source, traced.tree), self.role_of_subject(traced, words, side) or _note(traced.tree, parts)
        return Node(label + text, value, note if note != text else "", False, is_prelude, _deciding(traced, value, parts))

    def role_of_subject(self, traced: Traced, words: Evaluator, side: Side) -> str:
        """What `k is a` and `k in {a, b}` ask about, in words."""
        match traced.tree:
            case t.Is(subject=t.Subject(side=who)) | t.In(subject=t.Subject(side=who)):
                role = self.value(c.Attribute(Side(who), "role", Type.ROLE), words, side)
                return f"{who} is {role}"
            case _:
                return ""

    def value(self, expr: c.Expr, words: Evaluator, side: Side) -> Value | None:
        found: Tensor = words.value(expr if side is Side.OWN else c.bind(expr, side))
        if self.token is not None and found.ndim:
            found = found[self.token]
        if found.numel() != 1:
            return None
        value = found.item()
        if expr.type is Type.ROLE:
            return self.spec.roles[int(value)] if 0 <= value < len(self.spec.roles) else "no role"
        return value

    def parts(self, traced: Traced, words: Evaluator, side: Side, source: Source) -> tuple[Node, ...]:
        match traced.tree:
            case t.Number() | t.Truth():
                return ()
            case t.Quantify():
                return self.members(traced, words, side, source)
            case t.Name() | t.Attribute():
                return self.body(traced, words, side)
        found = (self.node(p, words, side, source) for p in traced.parts if not _is_literal(p))
        return tuple(n for n in found if n is not None)

    def body(self, traced: Traced, words: Evaluator, side: Side) -> tuple[Node, ...]:
        """What a name stands for: a `let` of the text, or one of the prelude."""
        match traced.tree, traced.expr:
            case _, c.LetRef(name=name, side=own) if name in self.lets:
                side = side if own is Side.OWN else own
                if (name, side) in self.shown:
                    return ()  # once a line is enough: lets of lets would grow without end
                self.shown.add((name, side))
                inner = self.node(self.lets[name], words, side, self.source)
            case t.Name(name=name), expr if name in self.bodies and expr == self.bodies[name].expr:
                inner = self.node(self.bodies[name], words, side, self.prelude)
            case _:
                return ()
        return () if inner is None else (inner,)

    def members(self, traced: Traced, words: Evaluator, side: Side, source: Source) -> tuple[Node, ...]:
        """The members of an `any` or `all` that decide it, or the first few."""
        quantify = traced.tree
        assert isinstance(quantify, t.Quantify)
        domain, bodies = traced.parts[: len(quantify.domain)], traced.parts[len(quantify.domain) :]
        ends = [self.value(p.expr, words, side) for p in domain]
        if quantify.is_range:
            numbers = list(range(*(int(e) for e in ends if e is not None)))
        else:
            numbers = ends
        wanted = quantify.word == "any"
        values = [self.value(b.expr, words, side) for b in bodies]
        chosen = [i for i, v in enumerate(values) if v == wanted][:1] or list(range(len(bodies)))[:MOST_MEMBERS]
        nodes = [self.node(bodies[i], words, side, source, f"{quantify.variable.text} = {numbers[i]}: ") for i in chosen]
        shown = [n for n in nodes if n is not None]
        rest = len(bodies) - len(shown)
        if rest and all(v != wanted for v in values):
            shown.append(Node(f"and {rest} more, all {str(not wanted).lower()}", not wanted, "", False, False, ()))
        return tuple(shown)


def _token(table: TokenTable, pos: int) -> Token:
    numbers = {n: int(getattr(table, n)[pos]) for n in ("pos", "section", "step", "slot", "index", "position")}
    return Token(role=table.role[pos], asks=bool(table.asks[pos]), **numbers)


def _key_token(row: Row, pos: int) -> Token:
    """A token of a layout of keys alone; it has no position id of its own but its step."""
    numbers = {n: int(row.keys[n][pos]) for n in ("pos", "section", "step", "slot", "index")}
    return Token(role=row.checked.roles[int(row.keys["role"][pos])], position=numbers["step"], asks=False, **numbers)


# ------------------------------------------------------------------------------------------------ texts


def _text(source: Source, node: Any) -> str:
    """An expression or statement as written, on one line, without comments."""
    written = re.sub(r"#[^\n]*", "", source.text[node.span.start : node.span.end])
    return " ".join(written.split())


def _note(tree: t.Expr, parts: tuple[Node, ...]) -> str:
    """A comparison with values in place of names."""
    match tree:
        case t.Chain(first=first, rest=rest):
            values = iter(parts)

            def said(operand: t.Expr) -> str:
                return operand.text if isinstance(operand, t.Number) else _said(next(values).value) if parts else "?"

            constants = sum(isinstance(x, t.Number | t.Truth) for x in (first, *(e for _, e in rest)))
            if constants + len(parts) != 1 + len(rest):
                return ""
            return said(first) + "".join(f" {op} {said(operand)}" for op, operand in rest)
        case _:
            return ""


def _is_literal(traced: Traced) -> bool:
    return isinstance(traced.tree, t.Number | t.Truth)


def _deciding(traced: Traced, value: Value, parts: tuple[Node, ...]) -> tuple[Node, ...]:
    """The parts, marked where one of them alone makes the whole what it is."""
    match traced.tree:
        case t.Logic(op="and") if value is False:
            marked = [p.value is False for p in parts]
        case t.Logic(op="or") if value is True:
            marked = [p.value is True for p in parts]
        case t.Logic(op="implies") if value is True:
            marked = [p.value is (i > 0) for i, p in enumerate(parts)]
        case t.Quantify(word=word):
            marked = [p.value is (word == "any") or len(parts) == 1 for p in parts]
        case t.Call(args=args):
            # The body stands behind the arguments, unless it is a literal and not shown.
            body = len(traced.parts) > len(args) and not _is_literal(traced.parts[-1])
            marked = [body and i == len(parts) - 1 for i in range(len(parts))]
        case t.Not() | t.Name() | t.Attribute():
            marked = [True] * len(parts)
        case _:
            marked = [False] * len(parts)
    return tuple(replace(p, decides=m) for p, m in zip(parts, marked, strict=True))


def _said(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _reason(node: Node | None) -> str:
    """The smallest expression of the text that alone decides; what the prelude says inside one gives its numbers only."""
    if node is None:
        return ""
    note = node.note
    inner = node
    while deciding := [p for p in inner.parts if p.decides]:
        inner = deciding[0]
        node, note = (node, note or inner.note) if inner.is_prelude else (inner, inner.note)
    return f" `{_cut(node.text, 60)}` is {_said(node.value)}{': ' + note if note else ''}."


def _drawn(line: Line, effect: str = "") -> list[str]:
    """A statement and, below it, the tree of its expressions with their values in one column."""
    rows: list[tuple[str, str]] = []

    def draw(nodes: tuple[Node, ...], indent: str) -> None:
        for i, node in enumerate(nodes):
            last = i == len(nodes) - 1
            rows.append((indent + ("└ " if last else "├ ") + node.text, _said(node.value) + (f"   {node.note}" if node.note else "")))
            draw(node.parts, indent + ("  " if last else "│ "))

    draw(tuple(n for n in (line.factor, line.where) if n is not None), "  ")
    if len(rows) > MOST_ROWS:
        rows[MOST_ROWS:] = [(f"  … and {len(rows) - MOST_ROWS} more", "")]
    width = min(64, max((len(text) for text, _ in rows), default=0))
    head = f"line {line.number}: {_cut(line.text, 100)}" + (f"   ({effect})" if effect else "")
    return [head, *(f"{_cut(text, width):{width}}  {value}" for text, value in rows)]


def plain_values(value: Any) -> Any:
    """Nested dicts and lists for JSON, which has no word for infinity and NaN: they are \"inf\", \"-inf\" and \"nan\"."""
    match value:
        case dict():
            return {k: plain_values(v) for k, v in value.items()}
        case list() | tuple():
            return [plain_values(v) for v in value]
        case float() if not math.isfinite(value):
            return str(value)
        case _:
            return value


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
