"""Texts with one thing changed that a claim may rest on: a rule dropped, a bound moved by one, k and v of a `stop` parted.

Input: a text. Output: its mutants, each with what was written in the place of a statement. Claims and layouts stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from srt_masks.diagnostics import Source
from srt_masks.grammar import syntax as t
from srt_masks.grammar.parser import parse

SHIFTED = {"<=": "<", "<": "<=", ">=": ">", ">": ">=", "==": "<="}
CAUSAL = ("k.pos < q.pos", "k.pos <= q.pos + 1")


def mutants(text: str) -> Iterator[tuple[str, str]]:
    """(what was written, the text with it); of a rule that was dropped `without RULE`."""
    tree, mistakes = parse(Source(text))
    assert not mistakes
    for statement in tree.statements:
        begin, end = statement.span.start, statement.span.end
        own = text[begin:end]
        for new in _changes(statement, own):
            yield " ".join((new or f"without {own}").split()), text[:begin] + new + text[end:]


def _changes(statement: t.Statement, own: str) -> Iterator[str]:
    """What may stand in the place of a statement; nothing, if it is dropped."""
    match statement:
        case t.Rule():
            yield ""
            if re.match(r"stop k, v\b", own):
                yield own.replace("stop k, v", "stop k", 1)
                yield own.replace("stop k, v", "stop v", 1)
            yield from _shifts(own, 0)
        case t.Attend() | t.Let() | t.Predict():
            yield from _shifts(own, 0)
        case t.Input() | t.Param() if " given " in own:
            yield own.partition(" given ")[0]
            yield from _shifts(own, own.find(" given "))  # its value is any


def _shifts(own: str, since: int) -> Iterator[str]:
    """Every comparison and every number behind a place, by one."""
    for found in re.finditer(r"(?<![<>=!-])(<=|>=|==|<|>)(?!=)", own):
        if found.start() >= since:
            yield own[: found.start()] + SHIFTED[found[0]] + own[found.end() :]
    for found in re.finditer(r"(?<![\w.])\d+(?![\w.])", own):
        if found.start() >= since:
            for by in (-1, 1):
                yield f"{own[: found.start()]}{_number(int(found[0]) + by)}{own[found.end() :]}"
    for found in re.finditer(r"\bcausal\b", own):
        yield from (f"{own[: found.start()]}({other}){own[found.end() :]}" for other in CAUSAL)


def _number(value: int) -> str:
    return str(value) if value >= 0 else f"({value})"
