"""Text -> tree, one statement at a time, so that one run reports every statement that does not parse.

Input: a `Source`. Output: a `Tree` and the diagnostics met on the way. Non-goals: what is said of a statement that does
not parse (`explain_syntax.py`); names, types, meaning (`check.py`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..diagnostics import MOST_FOUND, Diagnostic, Source, Span, SpecError
from . import syntax as t
from .explain_syntax import explain, misspelt
from .missing import NOTHING_MISSING, Missing, missing_with
from .tables import END, NAME, NUMBER, PIECES, Tables, Token, TooDeep, Unexpected, load, run

MAX_TEXT = 1_000_000  # characters
MAX_NAME = 100  # characters
MAX_NESTING = 100  # levels of parentheses, operators and calls in one expression


@dataclass(frozen=True, slots=True)
class Reading:
    """The statements that parse, one diagnostic for each other, and what those others would have said."""

    tree: t.Tree
    mistakes: list[Diagnostic]
    missing: Missing
    whole: bool  # not ended by too many mistakes


def parse(source: Source) -> tuple[t.Tree, list[Diagnostic]]:
    """The tree of a text, without the statements that do not parse, and one diagnostic for each of those.

    Raises SpecError where the text cannot be cut into statements at all (too long, not text).
    """
    reading = read(source)
    return reading.tree, reading.mistakes


def read(source: Source) -> Reading:
    """As `parse`, with what the statements that do not parse leave open."""
    _refuse_what_is_no_text(source)
    tables = load()
    statements: list[t.Statement] = []
    mistakes: list[Diagnostic] = []
    missing = NOTHING_MISSING
    too_long: set[str] = set()  # each such name is told of once
    for tokens in cut(source, tables):
        statement, mistake = _statement(tokens, source, tables)
        if statement is not None:
            statements.append(statement)
        else:
            missing |= missing_with(tokens, _word_of(tokens))
        if mistake is not None and (said := source.text[mistake.span.start : mistake.span.end]) not in too_long:
            mistakes.append(mistake)
            if mistake.slug == "name-too-long":
                too_long.add(said)
                missing |= Missing(frozenset([said[:MAX_NAME]]))
            if len(mistakes) >= MOST_FOUND:
                break
    return Reading(t.Tree(tuple(statements)), mistakes, missing, whole=len(mistakes) < MOST_FOUND)


def _statement(tokens: list[Token], source: Source, tables: Tables) -> tuple[t.Statement | None, Diagnostic | None]:
    """A statement, or what it was meant to be, or none; and what is wrong with it."""
    beyond = _beyond_the_limits(tokens)
    if beyond and beyond.slug == "nested-too-deeply":
        return None, beyond
    if beyond:  # a name too long is read on, as its beginning
        tokens = [token._replace(text=token.text[:MAX_NAME]) for token in tokens]
    try:
        return run(tables, tokens, _word, _node, MAX_NESTING), beyond
    except Unexpected as error:
        if beyond:
            return None, beyond
        return _as_meant(tokens, tables) if error.token is tokens[0] else None, explain(error, source, tokens)
    except TooDeep as error:
        return None, _too_deep(Span(error.start, error.end))


def _word_of(tokens: list[Token]) -> str:
    return tokens[0].text if tokens[0].text in t.STATEMENTS else misspelt(tokens)


def _beyond_the_limits(tokens: list[Token]) -> Diagnostic | None:
    """The first name that is too long, or the first bracket inside too many others."""
    depth = 0
    for token in tokens:
        if len(token.text) > MAX_NAME and token.key == NAME:
            message = f"a name has at most {MAX_NAME} characters; this one has {len(token.text):,}"
            return Diagnostic("name-too-long", message, Span(token.start, token.end))
        if token.key in ("(", "[", "{"):
            depth += 1
            if depth > MAX_NESTING:
                return _too_deep(Span(token.start, token.end))
        elif token.key in (")", "]", "}"):
            depth = max(0, depth - 1)
    return None


def _as_meant(tokens: list[Token], tables: Tables) -> t.Statement | None:
    """A statement whose first word is misspelt, read with the word that was meant: that it is missing would be no second mistake."""
    word = misspelt(tokens)
    try:
        return run(tables, [tokens[0]._replace(key=word, text=word), *tokens[1:]], _word, _node, MAX_NESTING) if word else None
    except (Unexpected, TooDeep):
        return None


# --------------------------------------------------------------------------------------------- cutting into statements

# After one of these on the same line a statement word stands where a name or an expression should: it begins no statement.
_CONNECTING_WORDS = ("is", "not", "no", "in", "for", "per", "and", "or", "implies", "if", "else", "where", "by", "weight", "given", "repeat", "all")
_CONNECTORS = t.STATEMENTS - {"queries", "keys"} | {*_CONNECTING_WORDS, *",([{.=+-*/%<>", "->", "//", "**", "==", "!=", "<=", ">="}
# Behind one of the first, one of the second at the begin of a line continues nothing: it is a statement without its word.
_ENDS = frozenset([NAME, NUMBER, "true", "false", "q", "k", "bool", "int", "float", "query", "leak", "cacheable", "attends", *")]}"])
_BEGINNINGS = frozenset([NAME, NUMBER, "true", "false", "q", "k", "any", "all", "query", *")]}\"'`@$\\?"])


def cut(source: Source, tables: Tables) -> Iterator[list[Token]]:
    """The tokens of each statement, and END. A statement begins at a statement word; text before the first is one that cannot parse."""
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
        key = NUMBER if kind == "number" else NAME if kind == "word" and text not in words else text
        if tokens and not glued and _begins(key, tokens, last, fresh_line, depth):
            yield [*tokens, Token(END, end, end, "")]
            tokens, depth = [], 0
        if key in ("(", "[", "{"):
            depth += 1
        elif key in (")", "]", "}"):
            depth = max(0, depth - 1)
        last, end, fresh_line = "" if glued and text == "." else text, piece.end(), False
        tokens.append(Token(key, start, end, text))
    if tokens:
        yield [*tokens, Token(END, end, end, "")]


def _begins(key: str, tokens: list[Token], last: str, fresh_line: bool, depth: int) -> bool:
    """Whether a token behind these begins a statement."""
    if key not in t.STATEMENTS:
        return fresh_line and depth == 0 and key in _BEGINNINGS and tokens[-1].key in _ENDS
    if not fresh_line and (last in _CONNECTORS or depth > 0):
        return False
    if key == "layout":
        misspelt_side = len(tokens) == 1 and tokens[0].key in (NAME, "query") and not fresh_line  # as in `queires layout`
        return last not in ("queries", "keys") and not misspelt_side
    claim = [x.key for x in tokens[:3]] if len(tokens) == 3 and not fresh_line else []
    return not (key == "attend" and claim in (["assert", "every", "query"], ["assert", "all", "queries"]))


# Halves of characters are none, control characters move a terminal's cursor, and of these a reader sees nothing, or another text than is read.
_NO_TEXT = re.compile(
    "\r(?!\n|\\Z)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028\u2029\u202a-\u202e\u2060\u2066-\u2069\ufeff\ud800-\udfff]"
)
_LINE_ENDS = {"\r": "a carriage return without a line feed", "\x0b": "a vertical tab", "\x0c": "a form feed", "\x85": "a next line"}
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def _refuse_what_is_no_text(source: Source) -> None:
    text = source.text
    if len(text) > MAX_TEXT:
        short = Source(text[:80], source.filename)
        raise SpecError([Diagnostic("text-too-long", f"a spec has at most {MAX_TEXT:,} characters; this one has {len(text):,}", Span(0, 1))], short)
    if bad := _NO_TEXT.search(text):
        found = bad.group()
        name = _LINE_ENDS.get(found, unicodedata.name(found, "").lower())
        label = "delete it"
        if found in _LINE_ENDS or found in "\u2028\u2029":
            label = "some editors show a new line here, where none is read: end lines with a line feed"
        elif found in _DIRECTIONS:
            label = "it changes the order in which the text is shown: delete it"
        message = f"a spec is plain text; this one holds U+{ord(found):04X}" + (f", {name}" if name else "")
        raise SpecError([Diagnostic("not-text", message, Span(bad.start(), bad.end()), label)], source)


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
    given = next((r[1] for r in rest if r[0] == "fact"), None)
    return t.Input(span, name, type.text, sizes, axes, given)


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
    "param": lambda s, name, value, *rest: t.Param(s, name, value, rest[0][1] if rest else None),
    "signed": lambda s, *parts: "".join(p.text for p in parts),
    "input": _input,
    "shape": lambda s, *sizes: ("shape", sizes),
    "per": lambda s, *axes: ("per", axes),
    "fact": lambda s, expr: ("fact", expr),
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
