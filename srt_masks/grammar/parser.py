"""Text -> tree, one statement at a time, so that one run reports every statement that does not parse.

Input: a `Source`. Output: a `Tree` and the diagnostics met on the way. Non-goals: names, types, meaning (`check.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache
from importlib import resources
from typing import Any

from lark import Lark, Token
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, UnexpectedToken
from lark.utils import TextSlice

from ..diagnostics import MOST_FOUND, Diagnostic, Source, Span, SpecError, did_you_mean
from . import syntax as t

MAX_TEXT = 1_000_000  # characters
MAX_NAME = 100  # characters
MAX_NESTING = 100  # levels of parentheses, operators and calls in one expression


def parse(source: Source) -> tuple[t.Tree, list[Diagnostic]]:
    """The tree of a text, without the statements that do not parse, and one diagnostic for each of those.

    Raises SpecError where the text cannot be cut into statements at all (too long, too deep, not text).
    """
    _refuse_what_is_no_text(source)
    statements: list[t.Statement] = []
    mistakes: list[Diagnostic] = []
    for span in _cut(source.text):
        try:
            tree = _lark().parse(TextSlice(source.text, span.start, span.end))
            statements.append(_build(tree, source))
        except UnexpectedInput as error:
            mistakes.append(_explain(error, source, span))
        except _TooDeep as error:
            mistakes.append(_too_deep(error.span))
        if len(mistakes) >= MOST_FOUND:
            break
    return t.Tree(tuple(statements)), mistakes


def grammar() -> str:
    """`mask.lark`, every word in quotes made a terminal that ends where the word ends: `attendcausal` is no `attend causal`."""
    text = resources.files("srt_masks.grammar").joinpath("mask.lark").read_text(encoding="utf-8")
    words = sorted(set(re.findall(r'"([a-z]+)"', text)))
    text = re.sub(r'"([a-z]+)"', lambda m: f"_{m[1].upper()}", text)
    return text + "".join(f"\n_{w.upper()}: /{w}(?![A-Za-z0-9_])/" for w in words)


@cache
def _lark() -> Lark:
    return Lark(grammar(), parser="lalr", lexer="contextual", propagate_positions=True, maybe_placeholders=False)


# --------------------------------------------------------------------------------------------- cutting into statements

_PIECES = re.compile(r"#[^\n]*|[A-Za-z_][A-Za-z0-9_]*|[0-9][A-Za-z0-9_.]*|\s+|->|//|\*\*|[<>=!]=|[^\w\s]|.", re.DOTALL)

# After one of these on the same line a statement word stands where a name or an expression should: it begins no statement.
_CONNECTING_WORDS = ("let", "param", "input", "data", "predict", "is", "not", "in", "for", "per", "and", "or", "implies", "if", "else", "where", "by", "repeat")
_CONNECTORS = frozenset([*_CONNECTING_WORDS, *",([{.=+-*/%<>", "->", "//", "**", "==", "!=", "<=", ">="])


def _cut(text: str) -> Iterator[Span]:
    """Spans of the statements. Each begins at a statement word; text before the first is a statement that cannot parse."""
    starts: list[int] = []
    ends: list[int] = []
    last, end, depth, fresh_line = "", 0, 0, True
    for piece in _PIECES.finditer(text):
        word = piece.group()
        if word.isspace() or word.startswith("#"):
            fresh_line = fresh_line or "\n" in word
            continue
        inside = not fresh_line and (last in _CONNECTORS or depth > 0)
        if not starts or (word in t.STATEMENTS and not inside and not (word == "layout" and last in ("queries", "keys"))):
            if starts:
                ends.append(end)
            starts.append(piece.start())
            depth = 0
        depth = max(0, depth + (word in "([{") - (word in ")]}"))
        last, end, fresh_line = word, piece.end(), False
    if starts:
        ends.append(end)
    return (Span(a, b) for a, b in zip(starts, ends, strict=True))


def _refuse_what_is_no_text(source: Source) -> None:
    text = source.text
    if len(text) > MAX_TEXT:
        short = Source(text[:80], source.filename)
        raise SpecError([Diagnostic("text-too-long", f"a spec has at most {MAX_TEXT:,} characters; this one has {len(text):,}", Span(0, 1))], short)
    bad = re.search("[\x00-\x08\x0b\x0e-\x1f\x7f\ud800-\udfff]", text)
    if bad:
        place = Span(bad.start(), bad.end())
        raise SpecError([Diagnostic("not-text", f"a spec is plain text; this one holds the character {ord(bad.group()):#04x}", place, "here")], source)
    long = re.search(rf"[A-Za-z_][A-Za-z0-9_]{{{MAX_NAME},}}", text)
    if long:
        place = Span(long.start(), long.end())
        raise SpecError([Diagnostic("name-too-long", f"a name has at most {MAX_NAME} characters; this one has {len(long.group()):,}", place)], source)
    depth = 0
    for piece in re.finditer(r"#[^\n]*|[()\[\]{}]", text):
        depth += {"(": 1, "[": 1, "{": 1}.get(piece.group()[0], -1 if piece.group()[0] in ")]}" else 0)
        depth = max(depth, 0)
        if depth > MAX_NESTING:
            raise SpecError([_too_deep(Span(piece.start(), piece.end()))], source)


class _TooDeep(Exception):
    def __init__(self, span: Span):
        self.span = span


def _too_deep(span: Span) -> Diagnostic:
    help = ("give parts of it a name: `let part = ...`",)
    return Diagnostic("nested-too-deeply", f"an expression nests at most {MAX_NESTING} levels", span, "deeper than that here", help)


# -------------------------------------------------------------------------------------------- lark's tree -> our nodes


def _build(tree: Any, source: Source) -> t.Statement:
    """Bottom-up and without recursion, so that no text can exhaust Python's stack."""
    built: dict[int, Any] = {}
    depth: dict[int, int] = {}
    node: Any = None
    for branch in tree.iter_subtrees():
        span = Span(branch.meta.start_pos, branch.meta.end_pos)
        children: list[Any] = [_word(c) if isinstance(c, Token) else built[id(c)] for c in branch.children]
        depth[id(branch)] = 1 + max((depth[id(c)] for c in branch.children if not isinstance(c, Token)), default=0)
        if depth[id(branch)] > MAX_NESTING:
            raise _TooDeep(span)
        if branch.data == "start":
            return children[0]
        node = built[id(branch)] = _NODES[branch.data](span, *children)
    return node


def _word(token: Token) -> t.Word:
    return t.Word(Span(token.start_pos or 0, token.end_pos or 0), str(token))


class _Where(tuple):
    """The expression of a trailing `where` or `weight`, kept apart from the expressions before it."""


class _Weight(tuple):
    pass


def _rule(span: Span, targets: tuple, *rest: Any, scaled: bool) -> t.Rule:
    where = next((r[0] for r in rest if isinstance(r, _Where)), None)
    return t.Rule(span, targets, rest[0] if scaled else None, where)


def _predict(span: Span, role: t.Word, target: t.Expr, *rest: Any) -> t.Predict:
    weight = next((r[0] for r in rest if isinstance(r, _Weight)), None)
    where = next((r[0] for r in rest if isinstance(r, _Where)), None)
    return t.Predict(span, role, target, weight, where)


def _input(span: Span, name: t.Word, type: t.Word, *rest: Any) -> t.Input:
    sizes = next((r[1] for r in rest if r[0] == "shape"), ())
    axes = next((r[1] for r in rest if r[0] == "per"), ())
    return t.Input(span, name, type.text, sizes, axes)


def _let(span: Span, name: t.Word, *rest: Any) -> t.Let:
    parameters = rest[0] if len(rest) == 2 else None
    return t.Let(span, name, parameters, rest[-1])


def _layout(span: Span, *rest: Any) -> t.Layout:
    return t.Layout(span, rest[0] if len(rest) == 2 else None, rest[-1])


def _repeat(span: Span, *rest: Any) -> t.Repeat:
    return t.Repeat(span, rest[0] if len(rest) == 2 else None, rest[-1])


def _path(span: Span, *rest: Any) -> t.Assert:
    words = [w.text for w in rest[:-1]]
    return t.Assert(span, t.Claim("assert " + " ".join(words)), rest[-1])


def _chain(span: Span, first: t.Expr, *rest: Any) -> t.Chain:
    return t.Chain(span, first, tuple((op.text, operand) for op, operand in zip(rest[::2], rest[1::2], strict=True)))


def _quantify(span: Span, word: t.Word, body: t.Expr, variable: t.Word, domain: tuple) -> t.Quantify:
    kind, members = domain
    return t.Quantify(span, word.text, body, variable, members, kind == "range")


_NODES: dict[str, Callable[..., Any]] = {
    "param": lambda s, name, value: t.Param(s, name, value),
    "signed": lambda s, *parts: "".join(p.text for p in parts),
    "input": _input,
    "shape": lambda s, *sizes: ("shape", sizes),
    "per": lambda s, *axes: ("per", axes),
    "data": lambda s, roles: t.Data(s, roles),
    "layout": _layout,
    "side": lambda s, word: word.text,
    "queries": lambda s, _, where: t.QueriesWhere(s, where),
    "items": lambda s, *items: items,
    "one": lambda s, role: t.Rows(s, role, None),
    "many": lambda s, role, count: t.Rows(s, role, count),
    "repeat": _repeat,
    "given": lambda s, roles: t.Given(s, roles),
    "names": lambda s, *names: names,
    "parameters": lambda s, names: names,
    "let": _let,
    "attend": lambda s, where: t.Attend(s, where),
    "stop": lambda s, targets, *rest: _rule(s, targets, *rest, scaled=False),
    "scale": lambda s, targets, *rest: _rule(s, targets, *rest, scaled=True),
    "targets": lambda s, *targets: targets,
    "target": lambda s, word: word,
    "where": lambda s, expr: _Where((expr,)),
    "weight": lambda s, expr: _Weight((expr,)),
    "position": lambda s, value: t.Position(s, value),
    "predict": _predict,
    "assert_all": lambda s, where: t.Assert(s, t.Claim.PAIRS, where),
    "assert_path": _path,
    "assert_no_leak": lambda s, *_: t.Assert(s, t.Claim.NO_LEAK, None),
    "assert_cacheable": lambda s: t.Assert(s, t.Claim.CACHEABLE, None),
    "assert_every": lambda s: t.Assert(s, t.Claim.EVERY_QUERY, None),
    "choose": lambda s, then, condition, otherwise: t.Choose(s, then, condition, otherwise),
    "implies": lambda s, a, b: t.Logic(s, "implies", (a, b)),
    "or_": lambda s, *operands: t.Logic(s, "or", operands),
    "and_": lambda s, *operands: t.Logic(s, "and", operands),
    "not_": lambda s, operand: t.Not(s, operand),
    "chain": _chain,
    "is_": lambda s, subject, role: t.Is(s, subject, role, False),
    "is_not": lambda s, subject, role: t.Is(s, subject, role, True),
    "in_": lambda s, subject, members: t.In(s, subject, members[1], False),
    "not_in": lambda s, subject, members: t.In(s, subject, members[1], True),
    "set": lambda s, *members: ("set", members),
    "range": lambda s, args: ("range", args),
    "binary": lambda s, left, op, right: t.Binary(s, op.text, left, right),
    "sign": lambda s, op, operand: t.Sign(s, op.text, operand),
    "number": lambda s, word: t.Number(s, word.text),
    "true": lambda s: t.Truth(s, True),
    "false": lambda s: t.Truth(s, False),
    "subject": lambda s, word: t.Subject(s, word.text),
    "name": lambda s, word: t.Name(s, word.text),
    "call": lambda s, name, args: t.Call(s, name, args),
    "subscript": lambda s, name, index: t.Subscript(s, t.Name(name.span, name.text), index),
    "attribute": lambda s, side, name: t.Attribute(s, side.text, name),
    "attribute_subscript": lambda s, side, name, index: t.Subscript(s, t.Attribute(side.span.to(name.span), side.text, name), index),
    "quantify": _quantify,
    "index": lambda s, *indices: indices,
    "args": lambda s, *args: args,
}

# ------------------------------------------------------------------------------------------ lark's error -> our words

_INSTEAD = {
    "&": "write `and`",
    "|": "write `or`",
    "~": "write `not`",
    "!": "write `not`, or `!=`",
    "=": "write `==` to compare",
    "=>": "write `>=`",
    ":=": "write `=`",
    "^": "write `!=` between masks, `**` for powers",
    "xor": "write `!=` between masks",
    ";": "statements need no separator",
    ":": "a condition reads `where ...`; a choice reads `a if c else b`",
}


def _explain(error: UnexpectedInput, source: Source, statement: Span) -> Diagnostic:
    """One diagnostic in the user's words: lark's names of terminals never appear."""
    text = source.text
    expected: set[str] = set()
    match error:
        case UnexpectedToken(token=token) if token.type != "$END" and (token.end_pos or 0) > (token.start_pos or 0):
            span, expected = Span(token.start_pos or 0, token.end_pos or 0), {str(x) for x in error.accepts or error.expected}
        case UnexpectedCharacters():
            start = error.pos_in_stream
            word = re.compile(r"[A-Za-z_]\w*|&&|\|\||:=|=>|.", re.DOTALL).match(text, start)
            span, expected = Span(start, word.end() if word else start + 1), {str(x) for x in error.allowed or ()}
        case UnexpectedToken():
            span, expected = Span(statement.end, statement.end), {str(x) for x in error.accepts or error.expected}
        case UnexpectedEOF():
            span, expected = Span(statement.end, statement.end), {str(x) for x in error.expected}
        case _:
            span = statement
    found = text[span.start : span.end]
    wanted = _wanted(expected)
    opening = re.match(r"[A-Za-z_]\w*", text[statement.start : statement.end])
    first = opening.group() if opening else ""
    if span.start == statement.start and first not in t.STATEMENTS:
        words = "param, input, layout, data, let, attend, stop, scale, position, predict, assert"
        label = did_you_mean(found, t.STATEMENTS) or "a statement begins with a word of the language"
        return Diagnostic("not-a-statement", f"no statement begins with `{_short(found)}`", span, label, (f"one of {words}",))
    if found in t.RESERVED and "NAME" in expected and not expected & {"NUMBER", "SUBJECT"}:
        return Diagnostic(
            "reserved-word", f"`{found}` is a word of the language and cannot be a name", span, "choose another name", (f"for example `my_{found}`",)
        )
    operator_wanted = "ADD" in expected or "MUL" in expected or "COMPARE" in expected
    pair = text[span.start : span.start + 2]
    for key in (pair, found, found[:1]):
        if key in _INSTEAD and (operator_wanted or key not in ("=", "=>")):
            return Diagnostic("syntax", f"`{found}` is not written here", span, _INSTEAD[key])
    if not found:
        return Diagnostic("unfinished", f"this `{first}` statement ends too early", span, f"expected {wanted}")
    line_start = not text[: span.start].rpartition("\n")[2].strip()
    meant = did_you_mean(found, t.STATEMENTS) if line_start and re.fullmatch(r"[A-Za-z_]\w*", found) else ""
    return Diagnostic("syntax", f"`{_short(found)}` does not fit here", span, meant or f"expected {wanted}")


_PHRASES = {
    "NAME": "a name",
    "NUMBER": "a number",
    "TYPE": "`bool`, `int` or `float`",
    "COMPARE": "a comparison",
    "EQUAL": "`=`",
    "LPAR": "`(`",
    "RPAR": "`)`",
    "LBRACE": "`{`",
    "RBRACE": "`}`",
    "LSQB": "`[`",
    "RSQB": "`]`",
    "COMMA": "`,`",
    "COLON": "`:`",
    "STAR": "`*`",
    "__ANON_0": "`->`",
    "_BY": "`by`",
    "_WHERE": "`where`",
    "_WEIGHT": "`weight`",
    "_PER": "`per`",
    "_ELSE": "`else`",
    "_FOR": "`for`",
    "_IN": "`in`",
    "_RANGE": "`range(`",
    "_LAYOUT": "`layout`",
    "_REPEAT": "`repeat`",
    "FLOW_GRAD": "`flow` or `grad`",
    "_LEAK": "`leak`",
    "_QUERY": "`query attends`",
    "_ATTENDS": "`attends`",
    "_EVERY": "`every query attends`",
}
_OPERATORS = {"ADD", "MUL", "POW", "COMPARE", "_AND", "_OR", "_IMPLIES", "_IF", "_IS", "_NOT", "_IN"}


def _wanted(expected: set[str]) -> str:
    expected = expected - {"COMMENT", "$END"}
    if {"NUMBER", "NAME"} <= expected:
        return "an expression"
    phrases = []
    if {"ADD", "MUL"} <= expected or {"_AND", "_OR"} <= expected:
        phrases.append("an operator")
        expected = expected - _OPERATORS
    if "SUBJECT" in expected and "NAME" in expected:
        phrases.append("`q`, `k`, `v` or `hidden`")
        expected = expected - {"SUBJECT", "NAME"}
    phrases += [_PHRASES[e] for e in _PHRASES if e in expected]
    phrases = phrases or ["the end of the statement"]
    return phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " or " + phrases[-1]


def _short(text: str) -> str:
    return text if len(text) <= 24 else text[:20] + "…"
