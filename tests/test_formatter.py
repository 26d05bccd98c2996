"""The formatter: goldens by hand for each rule of the layout; tokens, comments and tree of any text survive it, whatever its spacing."""

from __future__ import annotations

import random
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_grammar import WHOLE_LANGUAGE

from srt_masks.diagnostics import Source, SpecError
from srt_masks.grammar import parser
from srt_masks.grammar.formatter import WIDTH, difference, format_text
from srt_masks.grammar.parser import MAX_NESTING, parse
from srt_masks.grammar.tables import PIECES
from srt_masks.testing.strategies import cases

sys.path.insert(0, str(Path(__file__).parent / "zoo"))

from zoo import SCHEMES, Scheme

ZOO = [scheme.text for scheme in SCHEMES]


def formatted(text: str) -> str:
    """The canonical text, which has to be its own."""
    done = format_text(Source(text))
    assert format_text(Source(done)) == done
    return done


# ------------------------------------------------------------------------------------------------------------ goldens


@pytest.mark.parametrize(("text", "want"), [
    ("param   n=-3", "param n = -3"), ("param n = + 3", "param n = +3"), ("param n=1_000", "param n = 1_000"), ("param x=2e-3", "param x = 2e-3"),
    ("input doc:int per step", "input doc: int per step"), ("input t : float [ a,b ] per query ,key", "input t: float[a, b] per query, key"),
    ("param n=3 given-1<n", "param n = 3 given -1 < n"), ("input a:int[ b ] per head given a [ 1 ]>-2", "input a: int[b] per head given a[1] > -2"),
    ("data a,b", "data a, b"), ("layout repeat{token,reason*reasons}", "layout repeat { token, reason * reasons }"),
    ("queries  layout repeat n{a},b*-1", "queries layout repeat n { a }, b * -1"), ("layout given{ c,d }", "layout given { c, d }"),
    ("layout repeat (n+1)*2{a}", "layout repeat (n + 1) * 2 { a }"), ("layout repeat -n { a }", "layout repeat -n { a }"),
    ("let f ( a,b )=a", "let f(a, b) = a"), ("attend window ( n )", "attend window(n)"), ("attend( a )", "attend (a)"), ("attend not( a )", "attend not (a)"),
    ("attend q . pos<=k .pos", "attend q.pos <= k.pos"), ("attend t [ q.a,1 ]", "attend t[q.a, 1]"), ("attend q.t [ k.a ]", "attend q.t[k.a]"),
    ("attend k in{a,b}", "attend k in {a, b}"), ("attend k not  in { -1,+2 }", "attend k not in {-1, +2}"), ("attend k is  not a", "attend k is not a"),
    ("attend a-b-c", "attend a - b - c"), ("attend -a--b", "attend -a - -b"), ("attend - - a==- 1", "attend --a == -1"), ("attend (- a)*-b", "attend (-a) * -b"),
    ("attend 2**-a//b%c", "attend 2 ** -a // b % c"), ("attend a if-b else-c", "attend a if -b else -c"), ("attend q-k", "attend q - k"),
    ("attend true-f(-1,- 2)+t[- 1]", "attend true - f(-1, -2) + t[-1]"), ("attend not-a>1and(b)", "attend not -a > 1 and (b)"),
    ("attend any ( k.pos==s for s in range ( 1,n ) )", "attend any(k.pos == s for s in range(1, n))"), ("attend all(a for s in{1,2})", "attend all(a for s in {1, 2})"),
    ("stop q,k where a", "stop q, k where a"), ("scale q by-1/2 where a", "scale q by -1 / 2 where a"), ("position(a)", "position (a)"),
    ("predict token->index+1 weight-1 where a", "predict token -> index + 1 weight -1 where a"), ("assert no  leak", "assert no leak"),
])  # fmt: skip
def test_spaces(text: str, want: str):
    assert formatted(text) == want + "\n"


@pytest.mark.parametrize(("text", "want"), [
    ("", ""), (" \n\t\n", ""), ("#", "#\n"), ("attend a", "attend a\n"), ("\n\n attend a \n\n", "attend a\n"), ("\ufeffattend a\r\n", "attend a\n"),
    ("param a = 1  param b = 2 attend a", "param a = 1\nparam b = 2\nattend a\n"),
    ("queries\nlayout a keys\n\nlayout\tb", "queries layout a\nkeys layout b\n"),
    ("param a = 1\r\n\r\n \r\n\nattend\n\na", "param a = 1\n\nattend a\n"),
    ("\n\n# a \t\r\n\n\n#b\r\n\nattend a\n# c\n\n\n", "# a\n\n#b\n\nattend a\n# c\n"),
], ids=repr)  # fmt: skip
def test_lines(text: str, want: str):
    assert formatted(text) == want


BROKEN = [
    """
input distances: int[rows, columns]
    per token, head
    given all(distances[i, j] >= 0 for i in range(3))
        or all(distances[i, i] < 0 for i in range(3))
""",
    """
queries layout given {
    a_role_with_a_long_name,
    another_role_with_a_long_name,
    a_third_role_with_a_long_name
}
""",
    """
attend q is noisy and k is noisy and same(block)
    or q is noisy and k is clean and k.block < q.block
    or q is clean and k is clean and k.block <= q.block
""",
    """
stop q, k, v
    where q is action
        and k is not action
        and q.pos - k.pos <= horizon
        and q.step + k.step * 2 >= far
""",
    """
predict token -> index + 1 + some_table[pos + 1]
    weight rate * 2 if slot == 0 else rate / another
    where slot == 0 and role is token
""",
    """
attend causal
    and (first(a_number_of_sinks)
        or window(a_number_of_neighbours)
        or same(document_number)
        or any(k.pos == s for s in {1, 2}))
""",
    """
attend one_side_of_it_all and the_other_side_of_it
    implies one_more_of_these_conditions or another_one_of_these_conditions
""",
    """
let x = a_first_value if a_first_condition and more
    else a_second_value if a_second_condition and more
    else the_value_of_all_the_others
""",
    """
attend k in {alpha, beta, gamma, delta, epsilon, zeta, eta, theta, iota, kappa, lambda_,
    mu, nu, xi, omicron, pi, rho}
""",
    """
attend any(k.block == random[q.block, i] and q.something_long >= k.something_else
    for i in range(1, picks + another_count))
""",
    """
input a_table_with_a_long_name: float[blocks, picks, more_blocks, more_picks, even_more]
    per layer, head, query, key
""",
    """
layout sources * (a_number + another_number),
    repeat a_number_of_turns { question * long_question, answer * long_answer },
    repeat { word }
""",
    """
layout repeat {
    word,
    thought * number_of_thoughts,
    more_thought * number_of_more_thoughts,
    talk * number_of_words_of_talk
}
""",
    """
queries where role is a_role_with_a_long_name
    and pos > the_number_of_the_first_position_of_it
    and pos < the_end
""",
    """
attend the_sum_of_all_that_came_before(q.pos, k.pos)
        + the_sum_of_all_that_comes_behind(q.pos, k.pos)
    <= the_most_that_one_may_have
""",
    """
let near(attribute, number) = any(abs(q.attribute - k.attribute) < number * number
        and k.attribute - a_long_name >= number
    for s in range(1, number))
""",
    """
attend table[q.a_first_attribute_of_the_query, q.a_second_attribute_of_the_query,
    k.an_attribute_of_the_key]
""",
]


@pytest.mark.parametrize("want", BROKEN, ids=lambda text: text.split("\n")[1][:30])
def test_long_statements(want: str):
    want = want.lstrip("\n")
    one_line = " ".join(want.split())
    assert formatted(one_line) == formatted(one_line.replace(" ", "\n")) == want


def test_a_list_fills_its_lines():
    for longest in range(2, 30):
        lines = formatted("attend k in {" + ", ".join("m" * (i % longest + 1) for i in range(150)) + "}").splitlines()
        for line, after in pairwise(lines):
            assert len(line) <= WIDTH < len(line) + 1 + len(after.split()[0])


def test_the_width_is_the_last_column_that_is_used():
    fits = "attend " + "a" * 50 + " or " + "b" * (WIDTH - 61)
    assert len(fits) == WIDTH and formatted(fits + "  # a comment does not count") == fits + "  # a comment does not count\n"
    assert formatted(fits + "b") == fits.replace(" or", "\n    or") + "b\n"


def test_what_nothing_can_break_stays_whole():
    name = "a" * 99
    assert formatted(f"let {name} = {name}") == f"let {name} = {name}\n"


@pytest.mark.parametrize(("text", "want"), [
    # Comments of neighbouring one-line statements stand in one column; a blank line, a line without one and a longer statement end it.
    ("param a = 1 # x\nparam long = 2#y \nparam b = 3\nparam c = 4 # z\n\nparam longer = 5 # z",
     "param a = 1     # x\nparam long = 2  #y\nparam b = 3\nparam c = 4  # z\n\nparam longer = 5  # z\n"),
    ("param a = 1 # x\n# y\nparam long = 2 # z\nattend a # u\n or b # v\nstop k # w",
     "param a = 1  # x\n# y\nparam long = 2  # z\nattend a  # u\n    or b  # v\nstop k  # w\n"),
    ("param a = 1 param b = 2 # both", "param a = 1\nparam b = 2  # both\n"),
    # Behind the same token, before the same token.
    ("attend # c\n causal or x # d\n   # own\n\n# two\n and y#e\n# tail", "attend  # c\n    causal\n    or x  # d\n        # own\n        # two\n        and y  #e\n# tail\n"),
    ("attend # c\n causal or x", "attend  # c\n    causal or x\n"),
    ("attend a or b # c\n or d", "attend a\n    or b  # c\n    or d\n"),
    ("attend a - # c\n - q. # d\n pos", "attend a -  # c\n    -q.  # d\n    pos\n"),
    ("attend a and (\n# c\nb or d # e\n# f\n)", "attend a\n    and (\n        # c\n        b or d  # e\n        # f\n    )\n"),
    ("layout repeat { # c\na, # d\nb # e\n}", "layout repeat {  # c\n    a,  # d\n    b  # e\n}\n"),
    ("queries # c\n layout a", "queries  # c\n    layout a\n"),
    ("data a # c\n, b", "data a  # c\n    , b\n"),
], ids=lambda text: text[:20])  # fmt: skip
def test_comments(text: str, want: str):
    assert formatted(text) == want


def test_a_text_with_mistakes_is_refused_with_all_of_them():
    with pytest.raises(SpecError) as error:
        format_text(Source("\ufeffattend and\nparam = 1\nattend a", "x.mask"))
    assert [error.value.source.place(d.span.start) for d in error.value.diagnostics] == [(1, 8), (2, 7)] and "x.mask:2:7" in error.value.report


def test_a_text_that_grows_too_long_to_be_read_again_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(parser, "MAX_TEXT", len("attend a < b\n"))
    assert format_text(Source("attend a<b")) == "attend a < b\n"
    with pytest.raises(SpecError) as error:
        format_text(Source("attend a<bc"))
    assert error.value.diagnostics[0].slug == "text-too-long"


def test_a_difference():
    assert difference("a\n", "a\n", "x.mask") == ""
    assert difference("a\r\nb", "a\nb\n", "x.mask") == ("--- x.mask\n+++ x.mask (formatted)\n@@ -1,2 +1,2 @@\n-a\r\n-b\n\\ No newline at end of file\n+a\n+b\n")


# ----------------------------------------------------------------------------------------------------------- the laws


def tokens_of(text: str) -> list[str]:
    return [piece.group() for piece in PIECES.finditer(text) if piece.lastgroup]


def comments_of(text: str) -> list[tuple[str, int, bool]]:
    """Each comment, the number of tokens before it, and whether one of those is on its line."""
    found = []
    for i, line in enumerate(lines := text.split("\n")):
        code, sign, comment = line.partition("#")
        if sign:
            before = "\n".join([*(x.partition("#")[0] for x in lines[:i]), code])
            found.append(("#" + comment.rstrip(), len(tokens_of(before)), bool(code.strip())))
    return found


def tree_of(text: str) -> str:
    tree, mistakes = parse(Source(text))
    assert not mistakes, mistakes[0].render(Source(text))
    return str(tree)


def glue(left: str, right: str) -> bool:
    """Whether two tokens stay two with nothing between them."""
    words = (left[-1].isalnum() or left[-1] == "_") and (right[0].isalnum() or right[0] == "_")
    return not words and tokens_of(left + right) == [left, right]


SPACES = [" ", " ", "  ", "\t", "\n", "\r\n", " \n\t"]
BLANKS = ["\n\n", "\r\n \n\n"]
COMMENTS = [" # why\n", "#! \t \r\n", "\n  # on its own\n", "\n# one\n\n  # two\n", " # behind\n# above\n", "# (unclosed { \u00e9 attend\n"]


def spaced(tokens: list[str], seed: int, others: list[str], rate: float) -> str:
    """The tokens with other space between them, and with some of `others` between a few."""
    choose = random.Random(seed)
    text = choose.choice([*others, ""]) if rate else ""
    for left, right in zip(tokens, [*tokens[1:], "\n"], strict=True):
        gaps = [*SPACES, ""] if glue(left, right) else SPACES
        text += left + choose.choice(others if choose.random() < rate else gaps)
    return text


TEXTS = st.one_of(st.just(WHOLE_LANGUAGE), st.sampled_from(ZOO), cases().map(lambda case: case.spec.text))
SEEDS = st.integers(0, 2**32)


@given(TEXTS, SEEDS, st.sampled_from([0.0, 0.02, 0.2, 0.9]))
def test_nothing_but_white_space_changes(text: str, seed: int, rate: float):
    before = spaced(tokens_of(text), seed, COMMENTS + BLANKS, rate)
    after = formatted(before)
    assert tokens_of(after) == tokens_of(before) == tokens_of(text)
    assert tree_of(after) == tree_of(before)
    assert comments_of(after) == comments_of(before)
    assert not any(line != line.rstrip() for line in after.split("\n")) and not set(after) & set("\t\r") and "\n\n\n" not in after


@given(TEXTS, SEEDS, SEEDS)
def test_one_sequence_of_tokens_has_one_layout(text: str, seed: int, other: int):
    tokens = tokens_of(text)
    assert formatted(spaced(tokens, seed, [], 0)) == formatted(spaced(tokens, other, [], 0)) == formatted(" ".join(tokens))


@given(TEXTS, SEEDS)
def test_the_layout_hangs_on_comments_by_their_tokens_alone(text: str, seed: int):
    """Other white space round the same comments behind the same tokens: the same layout."""
    commented = spaced(tokens_of(text), seed, COMMENTS[:2], 0.1)
    squeezed = "\n".join(
        " ".join(code.split()) + sign + comment for code, sign, comment in (line.partition("#") for line in commented.split("\n")) if code or sign
    )
    assert formatted(squeezed) == formatted(commented)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
def test_the_zoo_keeps_its_look(scheme: Scheme):
    """Written by hand before there was a formatter: but for columns of comments, and breaks where a line would do, it stays as it is."""
    after = formatted(scheme.text)
    assert tree_of(after) == tree_of(scheme.text) and comments_of(after) == comments_of(scheme.text)
    assert all(len(line.partition("#")[0].rstrip()) <= WIDTH for line in after.split("\n"))
    if scheme.name != "knowledge insulation":
        assert [line.partition("#")[0].rstrip() for line in after.split("\n")] == [line.partition("#")[0].rstrip() for line in scheme.text.split("\n")]


# --------------------------------------------------------------------------------------------------------- large texts


DEEP = MAX_NESTING - 10
LARGE = {
    "statements": "let near(a, n) = abs(q.a - k.a) < n ** 2 and q.pos - k.pos >= 0 or k is reason  # why\n" * 1200,
    "one long statement": "attend " + " or ".join(["k.pos == 1"] * 8_000),
    "one long set": "attend k in {" + ", ".join(["abc"] * 20_000) + "}",
    "all of it nested": "attend " + "x or (" * DEEP + " or ".join(["k.pos == 1"] * 2_000) + ")" * DEEP,
    "nested many times": "attend " + " or ".join(["(" * DEEP + "k.pos" + ")" * DEEP + " == 1"] * 500),
    "comments": "attend " + "a or # why\n" * 8_000 + "b",
    "nothing but comments": "#\n" * 100_000,
}


@pytest.mark.parametrize("name", LARGE)
def test_large_texts_take_seconds(name: str):
    format_text(Source("attend causal"))
    begin = time.process_time()
    format_text(Source(LARGE[name]))
    assert time.process_time() - begin < 5
