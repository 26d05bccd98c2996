"""Texts with one thing changed that a claim may rest on: a rule dropped, a bound moved by one, k and v of a `stop` parted.

Input: a text. Output: its mutants, each with a few words that say what was changed. Claims, predictions and layouts stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from srt_masks.diagnostics import Source
from srt_masks.grammar import syntax as t
from srt_masks.grammar.parser import parse

SHIFTED = {"<=": "<", "<": "<=", ">=": ">", ">": ">=", "==": "<="}


def mutants(text: str) -> Iterator[tuple[str, str]]:
    """(what was changed, the text with it)."""
    tree, mistakes = parse(Source(text))
    assert not mistakes
    for statement in tree.statements:
        begin, end = statement.span.start, statement.span.end
        own = text[begin:end]

        def changed(new: str, begin: int = begin, end: int = end) -> str:
            return text[:begin] + new + text[end:]

        match statement:
            case t.Rule():
                yield f"without `{own}`", changed("")
                if re.match(r"stop k, v\b", own):
                    yield f"`{own}` of k alone", changed(own.replace("stop k, v", "stop k", 1))
                    yield f"`{own}` of v alone", changed(own.replace("stop k, v", "stop v", 1))
            case t.Input() | t.Param() if " given " in own:
                yield f"nothing given in `{own}`", changed(own.partition(" given ")[0])
        if isinstance(statement, t.Rule | t.Attend | t.Let | t.Input | t.Param):
            yield from ((f"`{own}` as `{new}`", changed(new)) for new in _shifts(own, params=isinstance(statement, t.Param | t.Input)))


def _shifts(own: str, params: bool) -> Iterator[str]:
    """Every comparison and every number by one. Of a param or an input only what is given of it: its value is any."""
    since = own.find(" given ") if params else 0
    if since < 0:
        return
    for found in re.finditer(r"(?<![<>=!-])(<=|>=|==|<|>)(?!=)", own):
        if found.start() >= since:
            yield own[: found.start()] + SHIFTED[found[0]] + own[found.end() :]
    for found in re.finditer(r"(?<![\w.])\d+(?![\w.])", own):
        if found.start() >= since:
            for by in (-1, 1):
                yield f"{own[: found.start()]}{_number(int(found[0]) + by)}{own[found.end() :]}"


def _number(value: int) -> str:
    return str(value) if value >= 0 else f"({value})"
