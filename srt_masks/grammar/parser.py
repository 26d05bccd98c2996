"""Text -> tree, one statement at a time, so that one run reports every statement that does not parse.

Input: a `Source`. Output: a `Tree` and the diagnostics met on the way. Non-goals: names, types, meaning (`check.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from ..diagnostics import MOST_FOUND, Diagnostic, Source, Span, SpecError, did_you_mean
from . import syntax as t
from .tables import END, NAME, NUMBER, PIECES, Tables, Token, TooDeep, Unexpected, load, run

MAX_TEXT = 1_000_000  # characters
MAX_NAME = 100  # characters
MAX_NESTING = 100  # levels of parentheses, operators and calls in one expression


def parse(source: Source) -> tuple[t.Tree, list[Diagnostic]]:
    """The tree of a text, without the statements that do not parse, and one diagnostic for each of those.

    Raises SpecError where the text cannot be cut into statements at all (too long, too deep, not text).
    """
    _refuse_what_is_no_text(source)
    tables = load()
    statements: list[t.Statement] = []
    mistakes: list[Diagnostic] = []
    for tokens in cut(source, tables):
        try:
            statements.append(run(tables, tokens, _word, _node, MAX_NESTING))
        except Unexpected as error:
            mistakes.append(_explain(error, source, tokens))
        except TooDeep as error:
            mistakes.append(_too_deep(Span(error.start, error.end)))
        if len(mistakes) >= MOST_FOUND:
            break
    return t.Tree(tuple(statements)), mistakes


# --------------------------------------------------------------------------------------------- cutting into statements

# After one of these on the same line a statement word stands where a name or an expression should: it begins no statement.
_CONNECTING_WORDS = ("let", "param", "input", "data", "predict", "is", "not", "in", "for", "per", "and", "or", "implies", "if", "else", "where", "by", "repeat")
_CONNECTORS = frozenset([*_CONNECTING_WORDS, *",([{.=+-*/%<>", "->", "//", "**", "==", "!=", "<=", ">="])


def cut(source: Source, tables: Tables) -> Iterator[list[Token]]:
    """The tokens of each statement, and END. A statement begins at a statement word; text before the first is one that cannot parse.

    Raises SpecError at a name too long, and where too many brackets are open.
    """
    words = tables.soft.union(t.RESERVED)
    tokens: list[Token] = []
    last, end, depth, fresh_line = "", 0, 0, True
    for piece in PIECES.finditer(source.text):
        kind = piece.lastgroup
        text = piece.group()
        if kind is None:
            fresh_line = fresh_line or "\n" in text
            continue
        start = piece.start()
        glued = start == end and bool(tokens) and tokens[-1].key in (NUMBER, ".")  # as in `3attend`, `0.`
        if kind == "word":
            if text in t.STATEMENTS and tokens and not glued and _begins(text, last, fresh_line, depth):
                yield [*tokens, Token(END, end, end, "")]
                tokens, depth = [], 0
            elif len(text) > MAX_NAME:
                message = f"a name has at most {MAX_NAME} characters; this one has {len(text):,}"
                raise SpecError([Diagnostic("name-too-long", message, Span(start, piece.end()))], source)
            key = text if text in words else NAME
        elif kind == "number":
            key = NUMBER
        else:
            key = text
            if text in "([{":
                depth += 1
                if depth > MAX_NESTING:
                    raise SpecError([_too_deep(Span(start, start + 1))], source)
            elif text in ")]}":
                depth = max(0, depth - 1)
        last, end, fresh_line = "" if glued and text == "." else text, piece.end(), False
        tokens.append(Token(key, start, end, text))
    if tokens:
        yield [*tokens, Token(END, end, end, "")]


def _begins(word: str, last: str, fresh_line: bool, depth: int) -> bool:
    """Whether a statement word behind others begins a statement."""
    inside = not fresh_line and (last in _CONNECTORS or depth > 0)
    return not inside and not (word == "layout" and last in ("queries", "keys"))


# Control characters move a terminal's cursor, those of direction show a reader another text than is read, and halves of characters are none.
_NO_TEXT = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def _refuse_what_is_no_text(source: Source) -> None:
    text = source.text
    if len(text) > MAX_TEXT:
        short = Source(text[:80], source.filename)
        raise SpecError([Diagnostic("text-too-long", f"a spec has at most {MAX_TEXT:,} characters; this one has {len(text):,}", Span(0, 1))], short)
    bad = _NO_TEXT.search(text)
    if bad:
        place = Span(bad.start(), bad.end())
        raise SpecError([Diagnostic("not-text", f"a spec is plain text; this one holds the character {ord(bad.group()):#04x}", place, "here")], source)


def _too_deep(span: Span) -> Diagnostic:
    help = ("give parts of it a name: `let part = ...`",)
    return Diagnostic("nested-too-deeply", f"an expression nests at most {MAX_NESTING} levels", span, "deeper than that here", help)


# -------------------------------------------------------------------------------------------- the grammar's nodes -> ours


def _node(name: str, start: int, end: int, children: list[Any]) -> Any:
    return _NODES[name](Span(start, end), *children)


def _word(token: Token) -> t.Word:
    return t.Word(Span(token.start, token.end), token.text)


class _Where(tuple):
    """The expression of a trailing `where`, kept apart from the expressions before it."""


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

# ------------------------------------------------------------------------------------------ what does not fit -> our words

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


def _explain(error: Unexpected, source: Source, statement: list[Token]) -> Diagnostic:
    """One diagnostic in the user's words."""
    token, expected = error.token, error.expected
    text = source.text
    pair = text[token.start : token.start + 2]
    span = Span(token.start, token.start + 2 if pair in _NOT_ONE_SIGN else token.end)
    found = text[span.start : span.end]
    wanted = _wanted(expected)
    first = statement[0]
    if token is first and token.text not in t.STATEMENTS:
        words = "param, input, layout, data, let, attend, stop, scale, position, predict, assert"
        label = did_you_mean(found, t.STATEMENTS) or "a statement begins with a word of the language"
        return Diagnostic("not-a-statement", f"no statement begins with `{_short(found)}`", span, label, (f"one of {words}",))
    if found in t.RESERVED and NAME in expected and not expected & {NUMBER, "q"}:
        return Diagnostic(
            "reserved-word", f"`{found}` is a word of the language and cannot be a name", span, "choose another name", (f"for example `my_{found}`",)
        )
    operator_wanted = "+" in expected or "<" in expected
    for key in (pair, found, found[:1]):
        if key in _INSTEAD and (operator_wanted or key not in ("=", "=>")):
            return Diagnostic("syntax", f"`{found}` is not written here", span, _INSTEAD[key])
    if token.key == END:
        return Diagnostic("unfinished", f"this `{first.text}` statement ends too early", span, f"expected {wanted}")
    line_start = not text[: span.start].rpartition("\n")[2].strip()
    meant = did_you_mean(found, t.STATEMENTS) if line_start and found.isidentifier() else ""
    return Diagnostic("syntax", f"`{_short(found)}` does not fit here", span, meant or f"expected {wanted}")


_NOT_ONE_SIGN = ("&&", "||", ":=", "=>")  # written as one elsewhere, two here
_PHRASES = {
    NAME: "a name",
    NUMBER: "a number",
    "int": "`bool`, `int` or `float`",
    "<": "a comparison",
    **{sign: f"`{sign}`" for sign in ("=", "(", ")", "{", "}", "[", "]", ",", ":", "*", "->", "by", "where", "weight", "per", "else", "for", "in")},
    "range": "`range(`",
    "layout": "`layout`",
    "repeat": "`repeat`",
    "flow": "`flow` or `grad`",
    "leak": "`leak`",
    "query": "`query attends`",
    "attends": "`attends`",
    "every": "`every query attends`",
}
_OPERATORS = frozenset([*"+-*/%<>", "//", "**", "<=", ">=", "==", "!=", "and", "or", "implies", "if", "is", "not", "in"])


def _wanted(expected: frozenset[str]) -> str:
    if {NUMBER, NAME} <= expected:
        return "an expression"
    phrases = []
    if {"+", "*"} <= expected or {"and", "or"} <= expected:
        phrases.append("an operator")
        expected = expected - _OPERATORS
    if "q" in expected and NAME in expected:
        phrases.append("`q`, `k`, `v` or `hidden`")
        expected = expected - {"q", NAME}
    phrases += [phrase for key, phrase in _PHRASES.items() if key in expected]
    phrases = phrases or ["the end of the statement"]
    return phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " or " + phrases[-1]


def _short(text: str) -> str:
    return text if len(text) <= 24 else text[:20] + "…"
