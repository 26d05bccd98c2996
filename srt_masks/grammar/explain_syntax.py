"""What is wrong with a statement that does not parse: the place, what was expected there, and what to write.

Input: where the parser stopped, and the statement's tokens. Output: one diagnostic in the user's words. Non-goals: parsing
(`parser.py`), names and types (`check.py`).

Each rule below knows one kind of mistake and says nothing of others; the first that speaks is heard.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

from ..diagnostics import Diagnostic, Source, Span
from . import checked as c
from . import syntax as t
from .place import Place, is_name, short
from .suggest import ATTRIBUTES, SIDES, SIGNATURES, TARGETS, WORDS, closest, meant
from .tables import END, NAME, NUMBER, Token, Unexpected


def explain(error: Unexpected, source: Source, statement: list[Token]) -> Diagnostic:
    place = Place(source.text, statement, statement.index(error.token), error.expected)
    return next(said for rule in _RULES if (said := rule(place)))


def misspelt(statement: list[Token]) -> str:
    """The statement word that the first word of a statement was meant to be."""
    near = _first_word_meant(statement[0])
    return near if near in t.STATEMENTS else ""


# ------------------------------------------------------------------------------------------------ the statement's first word

_EVERY_STATEMENT = "one of param, input, layout, queries, keys, data, let, attend, stop, scale, position, predict, assert"
_GOES_ON = ("where", "weight", "by", "per", "given", "and", "or", "not", "implies", "if", "else")  # what begins the second line of a statement
_BY_SIGN = {"=": "let", ":": "input", "->": "predict"}
_BEGINNINGS = {
    "query": "queries", "key": "keys", "loss": "predict",
    **dict.fromkeys(("detach", "freeze", "stop_grad", "stop_gradient", "stopgrad", "no_grad"), "stop"),
}  # fmt: skip
_PRELUDE = {s.partition("(")[0]: s for s in SIGNATURES}


def _first_word_meant(first: Token) -> str:
    if not is_name(first):
        return ""
    near = closest(first.text, (*t.STATEMENTS, *_GOES_ON, *_PRELUDE), _BEGINNINGS)
    return "" if near in _PRELUDE else near


def _no_statement(p: Place) -> Diagnostic | None:
    if p.at or p.word in t.STATEMENTS:
        return None
    first, second = p.statement[0], p.ahead(1).text
    whole = p.quote(0, len(p.statement) - 1)
    shown = whole if whole != "..." else f"{short(first.text)} ..."
    label = "a statement begins with a word of the language"
    if first.text == "//":
        return p.says("comments begin with `#`", message="no statement begins with `//`", slug="not-a-statement")
    if near := _first_word_meant(first):
        label = f"did you mean `{near}`?"
    elif is_name(first) and (second in _BY_SIGN or (second == "(" and p.ahead(p.until_closed(1) + 1).text == "=")):
        label = f"write `{_BY_SIGN.get(second, 'let')} {shown}`"
    elif first.text in _PRELUDE or closest(first.text, _PRELUDE) or first.key in ("q", "k", "not", "any", "all", "("):
        label = f"write `attend {shown}`"
    return p.says(label, _EVERY_STATEMENT, message=f"no statement begins with `{short(first.text)}`", slug="not-a-statement")


def _sign_behind_the_word(p: Place) -> Diagnostic | None:
    """`attend = causal`, `attend: causal`, `stop (k, v)`, `param n: int = 3`"""
    sign = p.token.text
    if sign in ("(", "[", "{") and p.at == 1:
        closing = p.until_closed(1)
        rest = p.quote(closing + 1, len(p.statement) - 1) if closing + 2 < len(p.statement) else ""
        return p.says(f"no brackets here: write `{' '.join(filter(None, (p.word, p.quote(2, closing), rest)))}`")
    if sign not in ("=", ":"):
        return None
    if p.word in ("queries", "keys") and p.at == 1:
        return p.says(f"write `{p.word} layout {p.quote(2, len(p.statement) - 1)}`")
    if p.word not in ("let", "param", "input") and (p.at == 1 or (p.at == 2 and p.back(1).text == "layout")):
        return p.says(f"no sign here: write `{p.quote(0, p.at)} {p.quote(p.at + 1, len(p.statement) - 1)}`")
    if sign == ":" and p.word in ("param", "let"):
        equals = next((i for i in range(p.at, len(p.statement)) if p.statement[i].key == "="), -1)
        value = p.quote(max(equals, p.at) + 1, len(p.statement) - 1)
        return p.says(f"no type here: write `{p.quote(0, p.at)} = {value}`")
    return None


# --------------------------------------------------------------------------------------------------------------- signs

_INSTEAD = {
    "&": "write `and`", "&&": "write `and`", "∧": "write `and`", "|": "write `or`", "||": "write `or`", "∨": "write `or`",
    "~": "write `not`", "¬": "write `not`", "!": "write `not`, or `!=`",
    "=": "write `==` to compare", "===": "write `==`", "!==": "write `!=`", "=>": "write `>=`", "=<": "write `<=`", "<>": "write `!=`", ":=": "write `=`",
    "≤": "write `<=`", "≥": "write `>=`", "≠": "write `!=`", "∈": "write `in`", "∉": "write `not in`",
    "×": "write `*`", "·": "write `*`", "−": "write `-`", "÷": "write `//`",
    "^": "write `!=` between masks, `**` for powers", "xor": "write `!=` between masks",
    ";": "statements need no separator", ":": "a condition reads `where ...`; a choice reads `a if c else b`",
}  # fmt: skip
_OF_A_COUNT = ("+", "-", "*", "//", "%", "**")
_QUOTES = ('"', "'", "`", "“", "”", "‘", "’")
_ARROWS = ("=>", "=", ":", ":=", "→", "<-", ">")


def _foreign_sign(p: Place) -> Diagnostic | None:
    # Signs that are one elsewhere may be cut in two here, and the second may be the one that does not fit.
    for first, last in ((p.back(1), p.token), (p.token, p.ahead(1)), (p.token, p.token)):
        if END in (first.key, last.key) or (first is not last and first.end != last.start):
            continue
        span = Span(first.start, last.end)
        sign = p.text[span.start : span.end]
        if "->" in p.expected and sign in _ARROWS:
            instead = "write `->`"
        elif sign == "→" and "implies" in p.expected:
            instead = "write `implies`"
        elif sign == ";" and p.opened("{") >= 0:
            instead = "write `,`"
        elif sign == "=" and p.back(1).text == "=":
            instead = "one `=` is enough"
        elif sign == "=" and is_name(p.back(1)) and p.back(2).key in ("(", ",") and is_name(p.statement[max(p.opened("(") - 1, 0)]):
            value = p.quote(p.at + 1, p.argument_end())
            return p.says(f"arguments have no names here: write `{value}`", first=p.at - 1)
        elif sign == "|" and p.operand_wanted:
            instead = "write `abs(...)` for what stands between bars"
        elif sign in _INSTEAD and (sign not in ("=", "=>", "xor") or p.expected & {"+", "<"}):
            instead = _INSTEAD[sign]
        else:
            continue
        if sign == "=" and p.back(1).key in ("q", "k") and is_name(p.ahead(1)):
            instead = f"write `{p.back(1).text} is {p.ahead(1).text}`"
        return Diagnostic("syntax", f"`{sign}` is not written here", span, instead)
    return None


def _quotes(p: Place) -> Diagnostic | None:
    """`k is "thought"`"""
    if p.token.text not in _QUOTES:
        return None
    closing = next((i for i in range(p.at + 1, len(p.statement)) if p.statement[i].text in _QUOTES), -1)
    label = "names have no quotes"
    if closing > 0:
        text = p.text[p.token.end : p.statement[closing].start]
        label = f"names have no quotes: write `{text}`" if text.isidentifier() else label
        return Diagnostic("syntax", f"`{short(p.token.text)}` is not written here", Span(p.token.start, p.statement[closing].end), label)
    return p.says(label)


def _comment(p: Place) -> Diagnostic | None:
    """`attend causal // words`"""
    before = [i for i in range(1, p.at + 1) if p.statement[i].key == "//" and "\n" not in p.text[p.statement[i].start : p.token.start]]
    if before and NUMBER not in (p.back(1).key, p.token.key) and ((p.expected & {"+"} and is_name(p.token)) or p.token.key == "//"):
        span = Span(p.statement[before[0]].start, p.statement[before[0]].end)
        return Diagnostic("syntax", "`//` divides", span, "comments begin with `#`")
    return None


def _cut_number(p: Place) -> Diagnostic | None:
    """`.5`, `4.`, and `0..3`, which may be cut behind its first point"""
    begin = -1 if p.token.key == "." else 0
    low, *points, high = (p.ahead(begin + n) for n in range(4))
    if low.key == high.key == NUMBER and [x.key for x in points] == [".", "."]:
        return p.says(f"write `{short(low.text)} <= x < {short(high.text)}`, with what is asked about for `x`", first=p.at + begin)
    if p.token.key != ".":
        return None
    before, after = p.back(1), p.ahead(1)
    if p.expected >= {NUMBER} and after.key == NUMBER and after.start == p.token.end and after.text.isdecimal():
        return Diagnostic("syntax", f"`.{short(after.text)}` is not written here", Span(p.token.start, after.end), f"write `0.{after.text}`")
    if before.key == NUMBER and before.end == p.token.start and before.text.isdecimal() and after.key != NUMBER:
        return p.says(f"write `{before.text}.0`", message=f"`{short(before.text)}.` is not written here", first=p.at - 1)
    return None


def _letter_of_no_name(p: Place) -> Diagnostic | None:
    """`let größe = 3`, `q.pos < ٣`"""
    sign = p.token.text
    if sign.isascii() or unicodedata.category(sign[0])[0] not in "LMN":
        return None
    behind = p.back(1)
    first = p.at - (behind.key == NAME and behind.end == p.token.start)
    what = "numbers are written in 0-9" if unicodedata.category(sign[0])[0] == "N" else "names are made of a-z, A-Z, 0-9 and `_`"
    return p.says(what, first=first)


def _no_single_number(p: Place) -> Diagnostic | None:
    """`param n = 2 * 3`, `param n = m`"""
    if p.word != "param" or p.at < 3 or p.statement[2].key != "=":
        return None
    goes_on = p.back(1).key == NUMBER and p.token.key in ("+", "-", "*", "/", "//", "%", "**")
    if not goes_on and not (NUMBER in p.expected and p.token.key in (NAME, NUMBER, "(", "+", "-", "min", "max", "abs")):
        return None
    if p.token.key == "//" and p.ahead(1).key != NUMBER:
        return p.says("comments begin with `#`")
    end = next((i for i, x in enumerate(p.statement) if x.key == "given"), len(p.statement) - 1)
    value = p.quote(3, end)
    instead = "" if value == "..." else f", or `let {p.statement[1].text} = {value}`"
    return p.says(f"a param is one number: write it out{instead}")


# -------------------------------------------------------------------------------------------------------- in expressions


def _of_no_side(p: Place) -> Diagnostic | None:
    """`query.pos`, and a function's `x.pos`"""
    if p.token.key == "." and is_name(p.back(1)) and p.back(2).key != ".":
        owner, name = p.back(1).text, p.ahead(1).text
        side = SIDES.get(owner.lower())
        label = f"write `{side}.{name}`" if side else f"write `q.{name}` or `k.{name}`"
        return p.says(label, message=f"only `q` and `k` have attributes, not `{short(owner)}`", first=p.at - 1)
    if p.token.key in ("queries", "keys") and p.operand_wanted and p.ahead(1).key == ".":
        return p.says(f"write `{SIDES[p.token.text]}.{p.ahead(2).text}`", message=f"only `q` and `k` have attributes, not `{p.token.text}`")
    return None


def _behind_is(p: Place) -> Diagnostic | None:
    """`is` asks for the role of a token and nothing else."""
    no = p.back(1).key == "not" and p.back(2).key == "is"
    if not no and p.back(1).key != "is":
        return None
    start = p.at - 1 - no
    subject, found = p.operand_before(start), p.token.key
    comparison = "!=" if no else "=="
    if found in ("in", "{"):
        opening = p.at + (found == "in")
        members = p.quote(opening, p.until_closed(opening) + 1) if p.statement[opening].key == "{" else "{...}"
        return p.says(f"write `{subject} {'not ' if no else ''}in {members}`", first=start)
    if found in ("q", "k"):
        theirs = p.ahead(2).text if p.ahead(1).key == "." else ""
        mine = subject.partition(".")[2] if subject != "..." else ""
        left = f"{subject}.{theirs or 'role'}" if subject in ("q", "k") else subject
        right = f"{found}.{theirs or mine or 'role'}"
        label = f"write `{left} {comparison} {right}`"
        if left[2:] == right[2:] and left != right:
            label += f", or `{'not ' if no else ''}same({right[2:]})`"
        return p.says(label, message="`is` asks for a role by its name", first=start)
    if found in (NUMBER, "true", "false", "(", "-"):
        return p.says(f"write `{comparison}` to compare", message="`is` asks for a role by its name", first=start)
    if found in t.RESERVED and found not in ("is", "not"):
        return _no_role_called(p)
    return None


def _no_role_called(p: Place) -> Diagnostic:
    """`k is data`, `predict data -> ...`"""
    message = f"`{p.token.text}` is a word of the language, no role"
    return p.says("write the name that the layout gives to a role", message=message, slug="reserved-word")


def _brackets(p: Place) -> Diagnostic | None:
    """`k in [a, b]`, `any(... for i in 4)`, `repeat(a, b)`"""
    found = p.token.key
    if p.back(1).key == "in" and "{" in p.expected:
        if found in ("[", "("):
            members = p.quote(p.at + 1, p.until_closed(p.at))
            return p.says(f"a set stands in braces: `{{{members}}}`")
        if "range" in p.expected and found in (NUMBER, NAME) and not closest(p.token.text, ("range",)):
            return p.says(f"write `range({p.token.text})`")
        subject = p.operand_before(p.at - 1)
        if (table := _table_for_a_set(p)) is not None:
            return table
        if found == "range" and "range" not in p.expected and p.ahead(1).key == "(" and p.ahead(3).key == ")":
            return p.says(f"write `0 <= {subject} < {p.ahead(2).text}`")
        if found == NAME and subject in ("q", "k", "role"):
            return p.says(f"write `{subject} is {p.token.text}`, or a set in braces")
    if p.word in ("layout", "queries", "keys") and found == "*" and p.back(1).key == "repeat":
        return p.says(f"write `repeat {p.quote(p.at + 1, len(p.statement) - 1)}`", first=p.at - 1)
    if p.word in ("layout", "queries", "keys"):
        opening = p.opened("([")
        if opening < 0 and found in ("[", END) and "{" in p.expected:  # `repeat [...]`, and `repeat (a)`, which reads as a count
            opening = p.at if found == "[" else next((i for i in range(p.at) if p.statement[i].key == "(" and p.statement[i - 1].key == "repeat"), -1)
        if opening > 0 and p.statement[opening - 1].key == "repeat":
            span = Span(p.statement[opening].start, p.statement[opening].end)
            items = p.quote(opening + 1, p.until_closed(opening))
            return Diagnostic("syntax", "what repeats stands in braces", span, f"write `repeat {{ {items} }}`")
    return None


def _table_for_a_set(p: Place) -> Diagnostic | None:
    """`k.pos in q.picked`, `any(k.pos == x for x in q.picked)`: what a table holds is read by number."""
    of_a_side = p.token.key in ("q", "k") and p.ahead(1).key == "." and p.ahead(2).text not in c.ATTRIBUTES
    table = p.quote(p.at, p.at + 3) if of_a_side else p.token.text
    size = "`n` is the table's size: a number, or a param"
    if of_a_side and "range" in p.expected:
        variable = p.back(2).text
        return p.says(f"write `for {variable} in range(n)`, and `{table}[{variable}]` for `{variable}`", size)
    subject = p.operand_before(p.at - 1)
    if (of_a_side or p.token.key == NAME) and "range" not in p.expected and subject not in ("q", "k", "role"):
        return p.says(f"write `any({subject} == {table}[i] for i in range(n))`", size)
    return None


def _count(p: Place) -> Diagnostic | None:
    """`a * n + 1`, `4 * a`, `repeat { a } * 4`, `repeat 4 a`: a count stands behind a role, and behind `repeat`."""
    if p.word not in ("layout", "queries", "keys"):
        return None
    found, before, behind = p.token.key, p.back(1), p.ahead(1)
    if found == "+" and behind.key == "repeat":
        return p.says("write `,`")
    if found in _OF_A_COUNT and p.back(2).key == "*" and is_name(p.back(3)) and (behind.key in (NUMBER, "(") or is_name(behind)):
        return p.says(f"a count of several parts stands in brackets: write `{p.back(3).text} * ({p.quote(p.at - 1, p.argument_end())})`")
    if found == "*" and before.key == "}" and (behind.key == NUMBER or is_name(behind)):
        return p.says(f"write `repeat {behind.text} {{ ... }}`")
    if found == NUMBER and NAME in p.expected and behind.key == "*" and is_name(p.ahead(2)):
        return p.says(f"write `{p.ahead(2).text} * {p.token.text}`")
    if is_name(p.token) and "{" in p.expected and p.back(2).key == "repeat":
        return p.says(f"write `repeat {before.text} {{ {p.quote(p.at, p.argument_end())} }}`")
    return None


def _no_brackets(p: Place) -> Diagnostic | None:
    """`window 4`"""
    name = p.back(1)
    if p.token.key in (NUMBER, NAME) and name.key == NAME and "(" in _PRELUDE.get(name.text, "") and "(" in p.expected:
        return p.says(f"write `{name.text}({p.token.text})`")
    return None


def _empty_call(p: Place) -> Diagnostic | None:
    if p.token.key == ")" and p.back(1).key == "(" and is_name(p.back(2)):
        name = p.back(2).text
        label = f"write `{_PRELUDE[name]}`" if name in _PRELUDE else f"write `{name}`, or its arguments in the brackets"
        return p.says(label, message=f"nothing stands in the brackets of `{short(name)}`", first=p.at - 2)
    return None


# ---------------------------------------------------------------------------------------- words of the language as names


def _word_as_name(p: Place) -> Diagnostic | None:
    found = p.token.text
    if NAME not in p.expected or p.operand_wanted or p.token.key in (NAME, NUMBER) or not found.isidentifier():
        return None
    if "q" in p.expected:
        return no_target(p.token.text, Span(p.token.start, p.token.end))
    if p.word == "predict" and p.at == 1:
        return _no_role_called(p)
    said = f"`{found}` is a word of the language"
    if p.back(1).key == ".":
        side = p.back(2).text
        near = closest(found, c.ATTRIBUTES, ATTRIBUTES)
        help = f"attributes: {', '.join(c.ATTRIBUTES)}, inputs per token, and what `let` makes of them"
        return p.says(f"did you mean `{side}.{near}`?" if near else "no such attribute", help, message=f"{said}, no attribute", slug="reserved-word")
    if p.word == "input" and any(x.key == "per" for x in p.statement[: p.at]):
        axes = f"axes: {', '.join(c.INPUT_AXES)}"
        return p.says(meant(found, c.INPUT_AXES, {"queries": "query"}), axes, message=f"no axis is called `{found}`", slug="unknown-axis")
    if found in t.RESERVED:
        return p.says("choose another name", f"for example `my_{found}`", message=f"{said} and cannot be a name", slug="reserved-word")
    return None


def no_target(word: str, span: Span) -> Diagnostic:
    """`stop word`, where no gradient is called so."""
    label = meant(word, ("q", "k", "v", "hidden"), TARGETS) or "one of `q`, `k`, `v`, `hidden`"
    return Diagnostic("unknown-target", f"no gradient is called `{word}`", span, label, ("for example `stop k, v where ...`",))


# ------------------------------------------------------------------------------------------------ clauses and their order


def _fact(p: Place) -> Diagnostic | None:
    """`input rank: int where 0 <= rank`, `attend causal given ...`"""
    found, words = p.token.key, [x.key for x in p.statement[: p.at]]
    if p.word in ("input", "param") and found in ("where", "if") and not p.operand_wanted and "given" not in words and {":", "="} & {*words}:
        return p.says(f"write `given {p.quote(p.at + 1, len(p.statement) - 1)}`")
    if p.word == "input" and found == "per" and "given" in words:
        return p.says("`per` comes before `given`: `input doc: int per token given 0 <= doc`")
    if found != "given" or p.operand_wanted:
        return None
    if p.word == "input" and p.back(1).key == ",":
        return p.says("no comma before `given`", first=p.at - 1)
    if NAME in p.expected:
        return None
    if p.word not in ("input", "param"):
        return p.says("a fact is stated with an `input` or a `param`")
    return p.says("`given` comes last: " + ("`param n = 4 given 0 < n`" if p.word == "param" else "`input doc: int per token given 0 <= doc`"))


_WHERE_COMES_LAST = {
    "predict": "`predict ROLE -> EXPR weight EXPR where EXPR`: `where` comes last",
    "scale": "`scale k, v by EXPR where EXPR`: `where` comes last",
    "stop": "`stop k, v where EXPR`",
    "attend": "join with `and`",
    "let": "join with `and`",
    "queries": "join with `and`",
    "position": "a choice reads `a if CONDITION else b`",
    "assert": "`assert CONDITION implies EXPR`",
    "input": "`input doc: int per token`: `per` comes last",
}


def _clause(p: Place) -> Diagnostic | None:
    found = p.token.key
    if found not in ("where", "weight", "by", "per", "->") or found in p.expected or p.word not in _WHERE_COMES_LAST or p.back(1).key in ("where", "by"):
        return None
    if found == "where" and any(x.key == "where" for x in p.statement[: p.at]):
        return p.says("join with `and`")
    if p.word == "assert" and (claim := closest(p.back(1).text, ("no flow", "no grad", "flow", "grad")) if p.at == 2 else ""):
        span = Span(p.back(1).start, p.back(1).end)
        return Diagnostic("syntax", f"`{short(p.back(1).text)}` does not fit here", span, f"did you mean `{claim}`?")
    if p.word == "stop" and found in ("by", "weight"):
        return p.says("a factor is `scale`'s: `scale k by EXPR where EXPR`")
    return p.says(_WHERE_COMES_LAST[p.word])


def _misspelt_word(p: Place) -> Diagnostic | None:
    words = [w for w in p.expected if w.isalpha() and len(w) > 1]
    if p.token.text.isidentifier() and not p.operand_wanted:
        near = closest(p.token.text, words, {k: w for k, w in WORDS.items() if w in words})
        if near:
            return p.says(f"did you mean `{near}`?")
    if p.word == "assert" and p.token.key in ("flow", "grad", "leak") and p.back(1).key in ("assert", "not"):
        return p.says(f"write `no {p.token.key}`", first=p.at - (p.back(1).key == "not"))
    if p.word == "assert" and p.at == 2 and p.back(1).key == "all":
        return p.says("did you mean `every query attends`?", first=1)
    # `NOT causal`: the word was taken for a name, and what follows it does not fit.
    last = p.back(1)
    if last.key == NAME and last.text.lower() in t.RESERVED and p.expected & {"+", "="}:
        span = Span(last.start, last.end)
        return Diagnostic("syntax", f"`{last.text}` does not fit here", span, f"did you mean `{last.text.lower()}`?")
    return None


def _unfinished(p: Place) -> Diagnostic | None:
    if p.token.key != END:
        return None
    return p.says(f"expected {_wanted(p.expected)}", message=f"this `{p.word}` statement ends too early", slug="unfinished")


def _any_other(p: Place) -> Diagnostic:
    return p.says(f"expected {_wanted(p.expected)}")


_RULES: tuple[Callable[[Place], Diagnostic | None], ...] = (
    _no_statement,
    _sign_behind_the_word,
    _cut_number,
    _of_no_side,
    _behind_is,
    _brackets,
    _count,
    _no_brackets,
    _empty_call,
    _quotes,
    _comment,
    _foreign_sign,
    _letter_of_no_name,
    _no_single_number,
    _fact,
    _word_as_name,
    _clause,
    _misspelt_word,
    _unfinished,
    _any_other,
)

# --------------------------------------------------------------------------------------------------- what was expected

_PHRASES = {
    NAME: "a name",
    NUMBER: "a number",
    "int": "`bool`, `int` or `float`",
    "<": "a comparison",
    **{sign: f"`{sign}`" for sign in ("=", "(", ")", "{", "}", "[", "]", ",", ":", "*", "->", "by", "where", "weight", "per", "else", "for", "in")},
    "range": "`range(`",
    "layout": "`layout`",
    "repeat": "`repeat`",
    **{word: f"`{word}`" for word in ("flow", "grad", "leak")},
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
