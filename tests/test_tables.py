"""The tables that texts are read by are what the grammar says, and the automaton reads as lark does."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lark import Lark
from lark.exceptions import UnexpectedInput
from test_fuzz import SOURCES, mutated, statements

from srt_masks.diagnostics import Source, SpecError
from srt_masks.grammar import tables
from srt_masks.grammar.formatter import format_text
from srt_masks.grammar.parser import cut


def test_the_tables_are_what_the_grammar_gives():
    made = tables.make()
    assert tables.load() == made, "the grammar has changed: python -m srt_masks.grammar.tables > tables.json && mv tables.json srt_masks/grammar/"


def test_reading_needs_no_parser_generator(tmp_path: Path):
    """What makes the start-up short; benchmarks/language.py measures it."""
    code = "import sys; from srt_masks.cli import main; main(sys.argv[1:]); assert not {'lark', 'torch', 'numpy', 'z3'} & set(sys.modules)"
    path = tmp_path / "whole.mask"
    path.write_text(format_text(Source(SOURCES[1])))
    for words in (["check"], ["fmt", "--check"], ["emit", "--stage", "ir"]):
        subprocess.run([sys.executable, "-c", code, *words, str(path)], check=True, capture_output=True)


@pytest.fixture(scope="module")
def lark() -> Lark:
    return Lark(tables.grammar(), parser="lalr", lexer="contextual", propagate_positions=True, maybe_placeholders=False)


def test_the_automaton_reads_what_lark_reads(lark: Lark):
    """The same trees with the same places, and the same refusals, for texts right and wrong. lark is the judge."""
    r = random.Random(0)
    read = refused = 0
    while read < 1000 or refused < 300:
        text = r.choice([mutated, statements])(r)
        if len(text) > 2000 or not text.strip():
            continue
        for tokens in _statements_of(text):
            ours = _shape(lambda t=tokens: tables.run(tables.load(), t, lambda token: token.text, lambda *node: node, 10_000))
            blanked = re.sub(r"[^\n]", " ", text[: tokens[0].start]) + text[tokens[0].start : tokens[-1].end]  # lark counts places from its start
            theirs = _shape(lambda t=blanked: _plain(lark.parse(t).children[0]))
            assert ours == theirs, f"{blanked.strip()!r}:\n{ours}\n{theirs}"
            read, refused = read + bool(ours), refused + (not ours)


def _statements_of(text: str) -> list[list[tables.Token]]:
    try:
        return list(cut(Source(text), tables.load()))
    except SpecError:
        return []


def _shape(read: Callable[[], Any]) -> str:
    try:
        return repr(read())
    except (UnexpectedInput, tables.Unexpected):
        return ""


def _plain(tree: Any) -> Any:
    if not hasattr(tree, "children"):
        return str(tree)
    return str(tree.data), tree.meta.start_pos, tree.meta.end_pos, [_plain(c) for c in tree.children]
