"""Highlighting: every word of the language has a kind, and both highlighters are made of one table."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from conftest import ROOT
from pygments.lexers import get_lexer_by_name, get_lexer_for_filename
from pygments.token import Error
from test_grammar import WHOLE_LANGUAGE

import srt_masks as srt
from srt_masks import highlight
from srt_masks.grammar import checked, syntax
from srt_masks.highlight import Kind
from srt_masks.highlight_pygments import TOKENS, MaskLexer

sys.path.insert(0, str(Path(__file__).parent / "zoo"))

from zoo import SCHEMES

TEXTS = {"whole language": WHOLE_LANGUAGE, **{scheme.name: scheme.text for scheme in SCHEMES}}
KINDS = {token: kind for kind, token in TOKENS.items()}


def pygments_kinds(text: str) -> Iterator[tuple[str, Kind]]:
    """Every character but white space, and its kind."""
    for _, token, piece in MaskLexer().get_tokens_unprocessed(text):
        assert token is not Error, (piece, text)
        yield from ((c, KINDS[token]) for c in piece if not c.isspace())


def textmate_kinds(text: str) -> Iterator[tuple[str, Kind]]:
    """The same as an editor finds it: line by line, the first match, of the patterns that begin there the first."""
    grammar = json.loads((ROOT / "editors" / "mask.tmLanguage.json").read_text())
    patterns = [(re.compile(p["match"]), p["captures"]) for p in grammar["patterns"]]
    for line in text.split("\n"):
        at = 0
        while found := [(m.start(), i, m, captures) for i, (pattern, captures) in enumerate(patterns) if (m := pattern.search(line, at))]:
            _, _, match, captures = min(found, key=lambda f: f[:2])
            assert not line[at : match.start()].strip()
            for group, capture in captures.items():
                yield from ((c, Kind(capture["name"].removesuffix(".mask"))) for c in match[int(group)] or "" if not c.isspace())
            at = match.end()
        assert not line[at:].strip()


def kind_of(text: str, word: str) -> Kind:
    """The kind of a word's last occurrence in a text."""
    at = len(re.sub(r"\s", "", text[: text.rindex(word)]))
    return list(pygments_kinds(text))[at][1]


def test_every_reserved_word_is_of_one_kind():
    assert sorted(word for words in highlight.RESERVED.values() for word in words) == sorted(syntax.RESERVED)
    assert set(highlight.RESERVED[Kind.STATEMENT]) == syntax.STATEMENTS


@pytest.mark.parametrize(("kind", "word"), [(kind, word) for kind, words in highlight.RESERVED.items() for word in words])
def test_a_reserved_word_shows_its_kind(kind: Kind, word: str):
    assert kind_of(word, word) == kind
    assert kind_of(f"a {word} b", word) == kind
    assert kind_of(f"{word}s x_{word}", f"x_{word}") == Kind.NAME
    assert kind_of(f"let {word} = 1", word) == kind


@pytest.mark.parametrize(("text", "word", "kind"), [
    ("attend q.slot > slot", "slot", Kind.ATTRIBUTE), ("attend q.doc", "doc", Kind.ATTRIBUTE), ("attend q . doc", "q", Kind.SUBJECT), ("attend head", "head", Kind.GLOBAL),
    ("attend causal", "causal", Kind.FUNCTION), ("attend dilated(2, 3)", "dilated", Kind.FUNCTION), ("attend clamp(a)", "clamp", Kind.FUNCTION),
    ("input x: float[n] per query, head", "query", Kind.AXIS), ("input x: float per layer, head", "head", Kind.AXIS), ("input x: float per head", "float", Kind.TYPE),
    ("input x: float per head", "x", Kind.DEFINED), ("layout token", "token", Kind.NAME), ("stop q, v, hidden", "hidden", Kind.SUBJECT), ("stop v where v", "v", Kind.NAME),
    ("assert every query attends", "attends", Kind.CLAUSE), ("param a = 2e-3", "2e-3", Kind.NUMBER), ("attend a # b", "# b", Kind.COMMENT), ("predict a -> b", "->", Kind.OPERATOR),
])  # fmt: skip
def test_other_words(text: str, word: str, kind: Kind):
    assert kind_of(text, word) == kind


def test_the_names_of_every_spec_are_known():
    assert highlight.prelude()[:2] == ("causal", "full") and "same" in highlight.prelude()
    for attribute in checked.ATTRIBUTES:
        assert kind_of(f"position {attribute}", attribute) == Kind.ATTRIBUTE
    for name in checked.GLOBALS:
        assert kind_of(f"attend {name}", name) == Kind.GLOBAL


@pytest.mark.parametrize("name", highlight.BUILT_IN)
def test_built_in_functions_are_those_of_the_language(name: str):
    calls = {
        "min": "min(q.pos, 1) > 0",
        "max": "max(q.pos, 1) > 0",
        "abs": "abs(q.pos) > 0",
        "clamp": "clamp(q.pos, 0, 1) > 0",
        "range": "any(q.pos == i for i in range(3))",
    }
    srt.parse(f"attend {calls[name]}")


@pytest.mark.parametrize("name", TEXTS)
def test_no_character_is_lost_and_none_is_wrong(name: str):
    text = TEXTS[name]
    assert "".join(piece for _, _, piece in MaskLexer().get_tokens_unprocessed(text)) == text
    assert list(pygments_kinds(text)) == list(textmate_kinds(text))


def test_what_is_no_sign_of_the_language_is_marked():
    assert [piece for _, token, piece in MaskLexer().get_tokens_unprocessed("attend a & b") if token is Error] == ["&"]


def test_pygments_finds_the_lexer():
    """By its name and by a file's, though pygments ships a lexer of another language for files of this name."""
    if not [e for e in entry_points(group="pygments.lexers") if e.value == "srt_masks.highlight_pygments:MaskLexer"]:
        pytest.skip("the package is not installed as a distribution")
    assert type(get_lexer_by_name("srt-mask")) is MaskLexer
    assert type(get_lexer_for_filename("self_reasoning.mask")) is MaskLexer
    assert type(get_lexer_for_filename("a.mask", "attend causal\n")) is MaskLexer


def test_every_rule_says_what_each_group_is():
    for rule in highlight.rules():
        assert re.compile(rule.pattern).groups == len(rule.kinds), rule
    assert set(TOKENS) == set(Kind) and len(KINDS) == len(TOKENS)


def test_the_file_for_editors_is_what_the_rules_give():
    """After a change: python -m srt_masks.highlight > editors/mask.tmLanguage.json"""
    assert (ROOT / "editors" / "mask.tmLanguage.json").read_text() == highlight.textmate_text()


def test_the_extension_names_its_files():
    package = json.loads((ROOT / "editors" / "package.json").read_text())["contributes"]
    grammar = json.loads((ROOT / "editors" / package["grammars"][0]["path"]).read_text())
    assert grammar["scopeName"] == package["grammars"][0]["scopeName"] and package["languages"][0]["extensions"] == [f".{x}" for x in grammar["fileTypes"]]
    assert json.loads((ROOT / "editors" / package["languages"][0]["configuration"]).read_text())["comments"] == {"lineComment": "#"}
