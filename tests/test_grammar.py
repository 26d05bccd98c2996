"""The grammar and the parser: everything in the language parses, every reserved word is one, no text can hurt."""

from __future__ import annotations

import time
from importlib import resources

import pytest
from lark import Lark

import srt_masks as srt
from srt_masks.diagnostics import MOST_FOUND, MOST_SHOWN, Source, SpecError
from srt_masks.grammar import syntax
from srt_masks.grammar.parser import parse
from srt_masks.grammar.tables import grammar

GRAMMAR = resources.files("srt_masks.grammar").joinpath("mask.lark").read_text()

WHOLE_LANGUAGE = """
param reasons = 4 given 0 < reasons <= 8  param trickle = -0.25  param rate = 1e-3
input doc: int per step                    # comments end a line
input gap: int per layer, head given gap >= 1
input random: int[blocks, picks] per head
input gate: float per query, key
queries layout repeat { target }
keys layout source * (reasons + 1), repeat 2 { repeat 3 { a, b }, given { c, d } }
queries where role is target and pos > 2
data target, source
let block = pos // 16
let near(a, n) = abs(q.a - k.a) < n ** 2
attend causal and near(block, 3) or not k is source implies q is not target
    and k in {a, b} and layer not in {0, layers - 1}
    or (k.pos if head % 2 == 0 else -q.pos) <= random[q.block, 1] < q.picked[k.block]
    or any(k.pos == s for s in range(1, reasons)) or all(true for s in {1, 2})
    or role[q.pos + 1] is target or 2 ** -reasons ** 2 != +1
stop q, k, v, hidden
stop k where k.pos < q.pos
scale q, v by trickle / 2 where full
position slot if role is target else step
predict target -> index + 1 weight rate * 2 where slot == 0
assert k.pos <= q.pos
assert no flow where k.step > q.step
assert flow where k.step < q.step
assert no grad where q.pos < k.pos
assert grad where q.pos == k.pos
assert every query attends
assert no leak
assert cacheable
"""


def _lark(**options) -> Lark:
    return Lark(grammar(), parser="lalr", lexer="contextual", **options)


def test_the_whole_language_parses():
    tree, mistakes = parse(Source(WHOLE_LANGUAGE))
    assert not mistakes
    kinds = {type(s) for s in tree.statements}
    assert kinds == set(syntax.Statement.__args__)  # type: ignore[attr-defined]
    assert {s.claim for s in tree.statements if isinstance(s, syntax.Assert)} == set(syntax.Claim)
    assert len(str(tree).splitlines()) == len(tree.statements)


def test_the_grammar_has_no_conflict_even_in_strict_mode():
    _lark(strict=True)


@pytest.mark.parametrize("word", syntax.RESERVED)
def test_reserved_words_are_no_names(word: str):
    assert word in GRAMMAR.split("NAME:      /(?!(")[1].split(")")[0].split("|")
    for text in (f"let {word} = 1", f"param {word} = 1", f"input {word}: int", f"layout {word}", f"attend q.{word} == 1", f"let f({word}) = 1"):
        with pytest.raises(SpecError) as error:
            srt.parse(text)
        first = error.value.diagnostics[0]
        assert first.slug in ("reserved-word", "syntax", "unfinished"), (text, first)
        if text.startswith(("let ", "param", "input")) and "(" not in text:
            assert first.slug == "reserved-word" and f"`{word}` is a word of the language" in first.message


def test_the_keyword_list_and_the_grammar_are_one():
    inside = GRAMMAR.split("NAME:      /(?!(")[1].split(")")[0].split("|")
    assert sorted(inside) == sorted(syntax.RESERVED)


@pytest.mark.parametrize("name", ["hidden", "query", "token", "head_count", "v", "range", "stopped", "qq", "k2", "attends"])
def test_words_that_are_not_reserved_are_names(name: str):
    tree, mistakes = parse(Source(f"let {name} = 1"))
    assert not mistakes and tree.statements[0].name.text == name  # type: ignore[union-attr]


def test_precedence():
    def shape(text: str) -> str:
        tree, mistakes = parse(Source(f"attend {text}"))
        assert not mistakes
        return syntax.show(tree.statements[0].where)  # type: ignore[union-attr]

    for loose, tight in [
        ("not k is a", "not (k is a)"), ("a or b and c", "a or (b and c)"), ("not a and b", "(not a) and b"), ("a implies b implies c", "a implies (b implies c)"),
        ("-a ** b", "-(a ** b)"), ("a ** b ** c", "a ** (b ** c)"), ("a - b - c", "(a - b) - c"), ("a // b * c", "(a // b) * c"), ("a + b % c", "a + (b % c)"),
        ("a if b else c if d else e", "a if b else (c if d else e)"), ("a < b and c", "(a < b) and c"), ("a or b implies c", "(a or b) implies c"),
    ]:  # fmt: skip
        assert shape(loose) == shape(tight), (loose, tight)
    assert shape("2 ** 3") != shape("2 * 3")


@pytest.mark.parametrize("text", [
    "attend " + "(" * 10_000 + "causal" + ")" * 10_000, "attend " + "not " * 10_000 + "causal", "attend " + "-" * 10_000 + "q.pos > 0",
    "attend " + "q.pos + " * 20_000 + "1 > 0", "attend " + "q.pos ** " * 9_000 + "2 > 0", "attend " + "causal implies " * 9_000 + "causal",
    "x" * 10_000_000, "attend causal\n" * 800_000, "attend \x00 causal", "\x1b[31mattend", "layout token * 1000000000000\nattend causal",
    "attend causal\nlet a = " + "9" * 10_000, "layout repeat 1000000 { repeat 1000000 { a, b } }\nattend causal", "attend any(q.pos == i for i in range(100000000))",
    "let f0(x) = x + x\n" + "\n".join(f"let f{i}(x) = f{i - 1}(x) + f{i - 1}(x)" for i in range(1, 60)) + "\nattend f59(q.pos) > 0",
    "let a0 = 1\n" + "\n".join(f"let a{i} = a{i - 1} + q.pos" for i in range(1, 3000)) + "\nattend a2999 > 0",
], ids=lambda t: t[:24].replace("\n", " ").replace("\x00", "NUL").replace("\x1b", "ESC"))  # fmt: skip
def test_hostile_texts_end_soon_in_one_clear_error(text: str):
    srt.parse("attend causal")  # the grammar is made once
    begin = time.process_time()
    with pytest.raises(SpecError) as error:
        srt.parse(text)
    assert time.process_time() - begin < 2
    assert len(error.value.diagnostics) == 1
    assert len(error.value.report) < 1000


def test_a_report_is_bounded_and_comes_soon():
    begin = time.process_time()
    with pytest.raises(SpecError) as error:
        srt.parse("attend causal;" * 20_000)
    assert time.process_time() - begin < 3
    assert len(error.value.diagnostics) <= 2 * MOST_FOUND and error.value.report.count("error[") == MOST_SHOWN
    assert "more mistakes" in error.value.report


@pytest.mark.parametrize(
    "text", ["attendcausal", "attend causal stopk where causal", "attend causal andfull", "attend notcausal", "param n=3attend causal", "attend k istoken"]
)
def test_words_run_together_are_not_the_words(text: str):
    with pytest.raises(SpecError):
        srt.parse(text)


@pytest.mark.parametrize("text", ["layout repeat { data }", "layout token, stop", "layout token * attend", "let f(a, where) = a", "data token, predict"])
def test_reserved_words_are_no_names_inside_lists(text: str):
    with pytest.raises(SpecError) as error:
        srt.parse(f"{text}\nattend causal")
    assert len(error.value.diagnostics) == 1 and text.split()[-1 if "}" not in text else -2].strip("=,)") in ("a", "data", "stop", "attend", "predict"), text


@pytest.mark.parametrize(("text", "slug", "words"), [
    ("attend dilated(3, 0)", "constant-arithmetic", "divides by zero"), ("attend q.pos // 0 > 1", "constant-arithmetic", "divides by zero"), ("attend causal\nscale k by 1 / 0", "constant-arithmetic", "divides by zero"),
    ("attend 1e300 * 1e300 > q.pos", "constant-arithmetic", "no finite number"), ("attend q.pos ** -1 > 0", "constant-arithmetic", "negative power"), ("let a = a + 1\nattend q.pos > a", "used-before", "cannot use itself"),
    ("attend q.head == 1", "unknown-attribute", "same for every token"), ("let a = 9223372036854775807 + 1\nattend q.pos > a", "constant-arithmetic", "64 bits"),
])  # fmt: skip
def test_constants_that_cannot_be(text: str, slug: str, words: str):
    with pytest.raises(SpecError) as error:
        srt.parse(text)
    (one,) = error.value.diagnostics
    assert one.slug == slug and words in one.message + one.label


def test_numbers_are_written_in_ascii():
    with pytest.raises(SpecError, match=r"does not fit here|ends too early"):
        srt.parse("param n = \u0663\nattend first(n)")


def test_params_of_any_size_are_refused_in_words():
    for text in ("param n = 1\nattend first(n)", "param n = 1.5\nattend causal\nscale k by n"):
        for value in (10**400, -(10**5000), float("inf"), 2**63 if "1.5" not in text else float("nan")):
            with pytest.raises(srt.InputError, match="param `n` is a"):
                srt.parse(text, params={"n": value})


def test_long_lists_are_no_deep_texts():
    least = srt.parse("attend min(" + ", ".join(f"k.pos + {i}" for i in range(300)) + ") >= q.pos")
    assert srt.dense(least, steps=3).attend[0, 0].int().tolist() == [[1, 1, 1], [0, 1, 1], [0, 0, 1]]
    spec = srt.parse("attend " + " or ".join(f"k.pos == {i}" for i in range(3000)))
    assert srt.dense(spec, steps=4).attend.all()
    assert srt.compile(spec).plan(4).active_tiles == 1


def test_statements_are_recovered_one_by_one():
    with pytest.raises(SpecError) as error:
        srt.parse("param = 3\nattend causal and\nstop k v\nlet x = 1 +\nposition step")
    assert [d.slug for d in error.value.diagnostics] == ["syntax", "unfinished", "syntax", "unfinished"]


def test_comments_and_white_space_mean_nothing():
    plain = srt.parse("param n = 3 attend causal and window(n) stop k where k.pos<q.pos")
    spread = srt.parse("# attend full\r\nparam\n\tn=3 # attend\nattend causal and # stop q\n window ( n )\n\n stop k where\n k . pos < q . pos")
    assert plain.checked == spread.checked


def test_every_prefix_and_every_deletion_ends_in_diagnostics():
    pieces = WHOLE_LANGUAGE.split(" ")
    for i in range(len(pieces)):
        for text in (" ".join(pieces[:i]), " ".join(pieces[:i] + pieces[i + 1 :])):
            try:
                srt.parse(text)
            except SpecError as error:
                assert error.diagnostics
                for d in error.diagnostics:
                    assert "_" not in d.label.split("`")[0] and "NAME" not in d.label, d
