"""docs/errors.md, run: each bad text gives exactly what the page shows, each good text none, and no slug is missing."""

from __future__ import annotations

import re

import pytest
from conftest import ROOT

import srt_masks as srt
from srt_masks.diagnostics import Source
from srt_masks.grammar import syntax
from srt_masks.grammar.parser import parse
from srt_masks.grammar.prelude import prelude_text
from srt_masks.grammar.suggest import SIGNATURES

PAGE = ROOT / "docs" / "errors.md"
ENTRY = re.compile(
    r"^## (?P<slug>[\w-]+)\n(?P<words>.*?)```mask bad[^\n]*\n(?P<bad>.*?)```\n(?P<said>```text\n.*?```\n)?```mask good\n(?P<good>.*?)```\n", re.M | re.S
)


def entries() -> list[re.Match[str]]:
    return list(ENTRY.finditer(PAGE.read_text()))


def said_of(text: str) -> str:
    with pytest.raises(srt.SpecError) as error:
        srt.parse(text.removesuffix("\n"), filename="bad.mask")
    return error.value.report + "\n"


@pytest.mark.parametrize("slug", [e["slug"] for e in entries()])
def test_the_page_says_what_happens(slug: str, update_golden):
    entry = next(e for e in entries() if e["slug"] == slug)
    said = f"```text\n{said_of(entry['bad'])}```\n"
    if update_golden:
        page = PAGE.read_text()
        whole = entry.group(0)
        fresh = whole.replace(entry["said"], said) if entry["said"] else whole.replace("```mask good", said + "```mask good")
        PAGE.write_text(page.replace(whole, fresh))
    else:
        assert entry["said"] == said
    assert f"error[{slug}]" in said
    srt.parse(entry["good"])


def test_every_slug_is_on_the_page():
    known = {e["slug"] for e in entries()}
    assert len(known) == PAGE.read_text().count("\n## ")
    used = set()
    for path in (ROOT / "srt_masks").rglob("*.py"):
        used |= set(re.findall(r"(?:(?:mistake|Diagnostic)\(\s*|slug=)\"([a-z][a-z-]+)\"", path.read_text()))
    used -= {"text-too-long"}  # the page cannot hold a text of a million characters; test_grammar has it
    used -= {"claim"}  # said where a spec is compiled, not where it is read: docs/proofs.md
    assert used == known


def test_carets_stand_right_under_tabs_and_wide_characters():
    report = said_of("attend causal # 一二\n\tand nme")
    line, carets = report.splitlines()[3:5]
    assert line == "2 | \tand nme" and carets.startswith("  | \t    ^^^")
    report = said_of("attend causal and # ü\nfoo  # comment")
    assert report.splitlines()[4].strip().startswith("| ^^^")


def test_independent_mistakes_come_together_and_followers_do_not():
    with pytest.raises(srt.SpecError) as error:
        srt.parse("input doc: int per tokn\nlet a = q.doc == k.doc\nlet b = a and nothing\nattend a and b or mising\nstop w")
    assert [d.slug for d in error.value.diagnostics] == ["unknown-axis", "unknown-name", "unknown-name", "unknown-target"]


def test_every_kind_of_mistake_is_found_in_one_run():
    with pytest.raises(srt.SpecError) as error:
        srt.parse("let f(a) = nothing + q.nope + q.a + a\nqueries layout repeat { b }\nlet g(x) = f(x)", params={"n": 3})
    assert [d.slug for d in error.value.diagnostics] == ["unknown-name", "unknown-attribute", "two-axes", "no-attend"]
    with pytest.raises(srt.SpecError, match="unfinished"):
        srt.parse("param n =\nattend window(n)", params={"n": 3})


def test_mistakes_inside_the_prelude_point_at_the_call():
    for text, place in (("attend same(3)", "1:13"), ("attend window(3) and dilated(3, 0)", "1:22")):
        report = said_of(text)
        assert f"bad.mask:{place}" in report and "prelude" not in report


def test_what_rests_on_the_arguments_of_a_function_is_said_at_each_call():
    with pytest.raises(srt.SpecError) as error:
        srt.parse("let less(a) = a > true\nlet all_less(a) = less(a)\nattend less(3)\nstop k where all_less(2)")
    assert [error.value.source.text[d.span.start : d.span.end] for d in error.value.diagnostics] == ["less(3)", "all_less(2)"]
    for d in error.value.diagnostics:
        assert d.help == ("in `less`, line 1: `a > true`", "`a > true`: an integer against true or false")
    report = said_of("let near(a, n) = abs(q.a - k.a) < n\nattend near(role, 3)")
    assert report.count("error[") == 1 and "bad.mask:2:8" in report and "`q.a`: this is a role" in report
    report = said_of("let less(a) = a > nothing\nattend less(3) and less(4)")
    assert report.count("error[") == 1 and "bad.mask:1:19" in report, "found without arguments: said once, in the body"


BESIDE_WHAT_DOES_NOT_PARSE = [
    ("attend causl\nstop v whre full", ["causl", "whre"]),
    ("layout repeat { token, reason }\nlet early = k is reson and q.step > 3\nattend causal and not earli\nstop k whre early", ["reson", "earli", "whre"]),
    # what the broken statement would have said is not missed
    ("let early = q.step >\nattend causal and early and k.early and early(3) and erly", ["", "erly"]),
    ("layout repeat { token; reason }\nattend k is reason and causl\npredict reason -> index + 1", [";", "causl"]),
    ("queries layout a b\nkeys layout c\nattend q is a and causl", ["b", "causl"]),
    ("data token where\nattend causal\nposition indx\npredict token -> index", ["where", "indx"]),
    ("predict token => index\nassert no leak\nattend causl", ["=>", "causl"]),
    ("attend causal and\nstop k where causl", ["", "causl"]),
    ("causal and full\nstop k where causl", ["causal", "causl"]),
    ("stop k v\nlet x = causl", ["v", "causl", ""]),  # and no `attend`
    ("let {long} = 3\nattend causl and window({long})", ["long", "causl"]),
    ("let x = {deep}\nattend causl and x", ["(", "causl"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "marked"), BESIDE_WHAT_DOES_NOT_PARSE, ids=[row[0].replace("\n", "; ") for row in BESIDE_WHAT_DOES_NOT_PARSE])
def test_a_statement_that_does_not_parse_hides_only_itself(text: str, marked: list[str]):
    with pytest.raises(srt.SpecError) as error:
        srt.parse(text.replace("{long}", "long" * 26).replace("{deep}", "(" * 101 + "1" + ")" * 101))
    found = [error.value.source.text[d.span.start : d.span.end].replace("long" * 26, "long") for d in error.value.diagnostics]
    assert found == marked, error.value.report


NO_TEXT = ["\r", "\v", "\f", "\x85", "\u2028", "\u2029", "\u200e", "\u200f", "\u061c", "\u202e", "\u200b", "\ufeff", "\x07"]


@pytest.mark.parametrize("sign", NO_TEXT, ids=[f"U+{ord(sign):04X}" for sign in NO_TEXT])
def test_what_a_reader_does_not_see_as_it_is_read_is_refused(sign: str):
    for text in (f"attend causal # note{sign}stop k, v", f"attend causal{sign}stop k"):
        report = said_of(text)
        assert report.startswith("error[not-text]") and f"U+{ord(sign):04X}" in report
        assert ("line feed" in report) is (sign in NO_TEXT[:6]) and ("the order" in report) is (sign in NO_TEXT[6:10])
    assert srt.parse("attend causal # note\r\nstop k, v").checked.rules


def test_a_long_line_is_cut_only_where_something_is_left_out():
    assert "…" not in said_of("attend causal and horizn" + " " * 200)
    far = said_of("attend " + " " * 200 + "horizn").splitlines()[3]
    assert far.startswith("1 | …") and far.endswith("horizn")
    wide = said_of("attend causal # " + "一" * 100 + "\nand horizn")
    assert "…" not in wide.splitlines()[3]
    line, carets = said_of("attend (" + "一" * 100 + ")").splitlines()[3:5]
    assert line.endswith("…") and len(line) < 90 and carets.startswith("  |         ^")


def test_whether_a_text_is_right_does_not_rest_on_the_value_of_a_param():
    near = "param n = 1\nlet near = any(pos == i for i in range(n))\nlet far = all(pos != i for i in range(n))\nattend causal and k.near or q.far"
    assert srt.dense(srt.parse(near), steps=3).attend[0, 0].int().tolist() == [[1, 0, 0], [1, 1, 1], [1, 1, 1]]
    assert srt.dense(srt.parse(near, params={"n": 0}), steps=3).attend.all()
    for bad in ("any(k.pos == i and nothing for i in range(n))", "any(k.pos + i for i in range(n))"):
        said = []
        for n in (0, 1):
            with pytest.raises(srt.SpecError) as error:
                srt.parse(f"param n = 1\nattend {bad}", params={"n": n})
            said.append(error.value.report)
        assert said[0] == said[1]
    srt.parse("param n = 0\nattend causal or any(k.pos % i == 0 for i in range(1, n))")


def test_functions_of_the_prelude_have_their_own_names():
    plain = srt.parse("attend same(step) and window(3) and dilated(3, 2)")
    named = srt.parse("param n = 7\nparam d = 8\nparam attr = 9\nattend same(step) and window(3) and dilated(3, 2)")
    assert plain.checked.attend == named.checked.attend


def test_errors_travel_between_processes():
    import pickle

    with pytest.raises(srt.SpecError) as error:
        srt.parse("attend x")
    again = pickle.loads(pickle.dumps(error.value))
    assert again.report == error.value.report and again.diagnostics == error.value.diagnostics


# A wrong text, the mistake's name, what the report must say, and the text with the remedy pasted. `!` before words that must not be said.
# A text without `attend` gets one: each row has one mistake and is told of one.
SAID = [
    # the wrong word or sign
    ("attend q.role is k.role", "syntax", "`q.role == k.role`|`same(role)`|!my_k", "attend q.role == k.role"),
    ("attend q is k", "syntax", "`q.role == k.role`|`same(role)`|!my_k", "attend same(role)"),
    ("attend q.step is not k.step", "syntax", "`q.step != k.step`|`not same(step)`", "attend not same(step)"),
    ("attend k is not in {token}", "syntax", "`k not in {token}`|!my_in", "attend k not in {token}"),
    ("attend k is in {token}", "syntax", "`k in {token}`|!my_in", "attend k in {token}"),
    ("attend k.step is 3", "syntax", "`==`", "attend k.step == 3"),
    ("attend k.position > 3", "reserved-word", "`k.pos`|attributes: pos|`let`|!my_position", "attend k.pos > 3"),
    ("attend k.pos =< q.pos", "syntax", "`=<`|write `<=`", "attend k.pos <= q.pos"),
    ("attend k.pos <> q.pos", "syntax", "`<>`|write `!=`", "attend k.pos != q.pos"),
    ("attend k.pos ≤ q.pos", "syntax", "write `<=`", "attend k.pos <= q.pos"),
    ("attend k.pos ≥ q.pos", "syntax", "write `>=`", "attend k.pos >= q.pos"),
    ("attend k.pos ≠ q.pos", "syntax", "write `!=`", "attend k.pos != q.pos"),
    ("attend = causal", "syntax", "`attend causal`|!==", "attend causal"),
    ("let größe = 3", "syntax", "`grö` does not fit|names are made of a-z, A-Z, 0-9 and `_`", "let groesse = 3"),
    ("let 日 = 3", "syntax", "names are made of a-z", "let day = 3"),
    ("let a\u0301 = 3", "syntax", "names are made of a-z", "let a = 3"),
    ("attend k.pоs > 3", "syntax", "`pо` does not fit|names are made of a-z", "attend k.pos > 3"),
    ("attend k.pos > ٣", "syntax", "numbers are written in 0-9", "attend k.pos > 3"),
    ("attend k.pos > 2²", "syntax", "numbers are written in 0-9", "attend k.pos > 4"),
    ("attend: causal", "syntax", "`attend causal`|!==", "attend causal"),
    ("param n: int = 3", "syntax", "`param n = 3`", "param n = 3"),
    # numbers
    ("param n = .5", "syntax", "`.5` is not written|write `0.5`", "param n = 0.5"),
    ("param n = -.5", "syntax", "write `0.5`", "param n = -0.5"),
    ("param n = 4.", "syntax", "`4.` is not written|write `4.0`", "param n = 4.0"),
    ("scale k by .25", "syntax", "write `0.25`|!expected", "scale k by 0.25"),
    ("scale k by 2. where full", "syntax", "write `2.0`|!expected", "scale k by 2.0 where full"),
    ("param n = 2 * 3", "syntax", "one number: write it out, or `let n = 2 * 3`", "let n = 2 * 3"),
    ("param n = 10 ** 3 given n > 2", "syntax", "write it out, or `let n = 10 ** 3`", "let n = 10 ** 3"),
    ("param m = 4\nparam n = m", "syntax", "write it out, or `let n = m`", "param m = 4\nlet n = m"),
    ("param n = -(3)", "syntax", "write it out, or `let n = -(3)`", "let n = -(3)"),
    ("param n = 4 // the window", "syntax", "comments begin with `#`|!let", "param n = 4 # the window"),
    ("attend q.pos > -9223372036854775809", "constant-arithmetic", "at most 64 bits", "attend q.pos > -9223372036854775808"),
    ("attend q.pos > 9223372036854775808", "constant-arithmetic", "at most 64 bits", "attend q.pos > 9223372036854775807"),
    ("attend q.pos > - -9223372036854775808", "constant-arithmetic", "64 bits", "attend q.pos > - -9223372036854775807"),
    # facts
    ("param n = 3 where n > 2", "syntax", "write `given n > 2`", "param n = 3 given n > 2"),
    ("input n: int per token where n > 2", "syntax", "write `given n > 2`", "input n: int per token given n > 2"),
    ("input n: int if n > 2", "syntax", "write `given n > 2`", "input n: int given n > 2"),
    ("input n: int given n > 2 per token", "syntax", "`per` comes before `given`", "input n: int per token given n > 2"),
    ("input n: int per token, given n > 2", "syntax", "no comma before `given`|!axis", "input n: int per token given n > 2"),
    ("param n given n > 2", "syntax", "`given` comes last: `param n = 4 given 0 < n`", "param n = 4 given n > 2"),
    ("input n given n > 2: int", "syntax", "`given` comes last", "input n: int given n > 2"),
    ("attend causal given k.pos > 2", "syntax", "stated with an `input` or a `param`", None),
    ("let n = 3 given n > 2", "syntax", "stated with an `input` or a `param`", "param n = 3 given n > 2"),
    ("input rank: int per token given 0 <= q.rank", "pair-here", "write `rank`, not `q.rank`", "input rank: int per token given 0 <= rank"),
    ("input open: bool per key given k.open", "pair-here", "write `open`, not `k.open`", "input open: bool per key given open"),
    ("input seen: bool per query, key given seen implies pos == 0", "whose", "`q.`|`k.`", "input seen: bool per query, key given seen implies q.pos == 0"),
    ("input n: int per token given n", "type-mismatch", "`given` needs a mask|compare it", "input n: int per token given n < 3"),
    ("input n: int per token given m < 3", "unknown-name", "nothing is called `m`", None),
    ("input n: int given n < m\nparam m = 3", "used-before", "move the definition up", "param m = 3\ninput n: int given n < m"),
    ("param m = 3 given n < m\nparam n = 2", "used-before", "move the definition up", "param n = 2\nparam m = 3 given n < m"),
    ("param m = 3 given m < length", "not-constant", "this rests on `length`", None),
    ("let most = 2 * length\nparam m = 3 given m < most", "not-constant", "this rests on `length`", None),
    ("input n: int\nparam m = 3 given m < n", "not-constant", "this rests on `n`", None),
    ("param m = 3 given k.pos < m", "not-constant", "this is about tokens", None),
    ("param m = 3 given pos < m", "not-constant", "this is about tokens", None),
    ("param m = 3 given m > 5", "fact-broken", "`m` is 3|this does not hold", "param m = 7 given m > 5"),
    ("param n = 4\nparam m = 3 given m > n", "fact-broken", "`m` is 3", "param n = 2\nparam m = 3 given m > n"),
    ("input n: int per token given pos < 3", "fact-elsewhere", "does not mention `n`", "input n: int per token given n < 3"),
    ("queries layout repeat { a }\nkeys layout b\ninput n: int given n < pos\nattend full", "two-axes", "a token of which?", None),
    ("queries layout repeat { a }\nkeys layout b\ninput n: int per key given n < length\nattend full", "two-axes", "`length` of which?", None),
    ("predict token => index + 1", "syntax", "write `->`", "predict token -> index + 1"),
    ("layout token, thought\nattend k = thought", "syntax", "`k is thought`|!==", "layout token, thought\nattend k is thought"),
    ("layout token, thought\nattend k != thought", "bare-subject", "`k is not thought`|!k.pos", "layout token, thought\nattend k is not thought"),
    ("layout token, thought\nattend k in [token, thought]", "syntax", "`{token, thought}`", "layout token, thought\nattend k in {token, thought}"),
    ("attend k in token", "syntax", "`k is token`", "attend k is token"),
    ("attend any(k.pos == i for i in 4)", "syntax", "`range(4)`", "attend any(k.pos == i for i in range(4))"),
    ("attend any(k.pos == i for i in rnage(4))", "syntax", "did you mean `range`?", "attend any(k.pos == i for i in range(4))"),
    ("attend query.pos > 3", "syntax", "`q.pos`", "attend q.pos > 3"),
    ("attend causal and key.pos > 3", "syntax", "`k.pos`", "attend causal and k.pos > 3"),
    ("attend causal and keys.pos > 3", "syntax", "`k.pos`", "attend causal and k.pos > 3"),
    ("attend v.pos > 3", "syntax", "`k.pos`", "attend k.pos > 3"),
    ("let late(x) = x.pos > 3", "syntax", "only `q` and `k`|`k.pos`", "let late(x) = k.pos > x"),
    ("attend causal and diagonal()", "syntax", "write `diagonal`|!expression", "attend causal and diagonal"),
    ("attend same()", "syntax", "write `same(attr)`|!expression", "attend same(pos)"),
    ("layout repeat(token, thought * 4)", "syntax", "`repeat { token, thought * 4 }`", "layout repeat { token, thought * 4 }"),
    ("layout repeat (token)", "syntax", "`repeat { token }`", "layout repeat { token }"),
    ("attend NOT causal", "syntax", "did you mean `not`?", "attend not causal"),
    ("attend causal AND full", "syntax", "did you mean `and`?", "attend causal and full"),
    ("attend k == q", "bare-subject", "`q.pos == k.pos`|!`k.pos`", "attend q.pos == k.pos"),
    ("attend q.pos in range(4)", "syntax", "`0 <= q.pos < 4`", "attend 0 <= q.pos < 4"),
    ("stop (k, v) where full", "syntax", "write `stop k, v where full`", "stop k, v where full"),
    ("layout {token}", "syntax", "write `layout token`", "layout token"),
    # clauses and their order
    ("predict token where step > 0 -> index + 1", "syntax", "`where` comes last", "predict token -> index + 1 where step > 0"),
    ("predict token -> index + 1 where slot == 0 weight 0.5", "syntax", "`where` comes last", "predict token -> index + 1 weight 0.5 where slot == 0"),
    ("scale k where full by 0.5", "syntax", "`where` comes last", "scale k by 0.5 where full"),
    ("attend causal where k.pos > 3", "syntax", "join with `and`", "attend causal and k.pos > 3"),
    ("stop k where full where causal", "syntax", "join with `and`", "stop k where full and causal"),
    ("stop k by 0.5", "syntax", "`scale k by", "scale k by 0.5"),
    ("stop k whre full", "syntax", "did you mean `where`?", "stop k where full"),
    ("stop k were full", "syntax", "did you mean `where`?", "stop k where full"),
    ("stop k Where full", "syntax", "did you mean `where`?", "stop k where full"),
    ("stop k if full", "syntax", "did you mean `where`?", "stop k where full"),
    # words near the words
    ("input doc: integer per token", "syntax", "did you mean `int`?", "input doc: int per token"),
    ("input on: boolean per token", "syntax", "did you mean `bool`?", "input on: bool per token"),
    ("input on: bol per token", "syntax", "did you mean `bool`?", "input on: bool per token"),
    ("input doc: int per keys", "unknown-axis", "did you mean `key`?|!my_keys", "input doc: int per key"),
    ("stop hiden", "unknown-target", "did you mean `hidden`?", "stop hidden"),
    ("stop key", "unknown-target", "did you mean `k`?", "stop k"),
    ("stop keys where full", "unknown-target", "no gradient is called `keys`|did you mean `k`?", "stop k where full"),
    ("stop value", "unknown-target", "did you mean `v`?", "stop v"),
    ("assert nofow where k.pos > q.pos", "syntax", "did you mean `no flow`?", "assert no flow where k.pos > q.pos"),
    ("assert no flwo where k.pos > q.pos", "syntax", "did you mean `flow`?", "assert no flow where k.pos > q.pos"),
    ("assert no gradient where k.pos > q.pos", "syntax", "did you mean `grad`?", "assert no grad where k.pos > q.pos"),
    ("assert cachable", "unknown-name", "did you mean `cacheable`?", "assert cacheable"),
    ("predict token -> index + 1\nassert noleak", "unknown-name", "did you mean `no leak`?|!role", "predict token -> index + 1\nassert no leak"),
    ("assert every query attend", "syntax", "did you mean `attends`?", "assert every query attends"),
    ("assert all queries attend", "syntax", "did you mean `every query attends`?", "assert every query attends"),
    ("layout token, thought\nattend k.is_thought", "unknown-attribute", "`k is thought`", "layout token, thought\nattend k is thought"),
    ("attend bidirectional", "unknown-name", "`full`|!section", "attend full"),
    ("attend CAUSAL", "unknown-name", "did you mean `causal`?", "attend causal"),
    ("attend causal and sectoin > 3", "unknown-name", "`q.section` or `k.section`", "attend causal and k.section > 3"),
    ("position setp", "unknown-name", "did you mean `step`?|!k.step", "position step"),
    # statements
    ("attend causal\n  AND full", "not-a-statement", "did you mean `and`?", "attend causal\n  and full"),
    ("attend causal\nparm n = 3", "not-a-statement", "did you mean `param`?|queries, keys", "attend causal\nparam n = 3"),
    ("causal", "not-a-statement", "write `attend causal`", None),
    ("param n = 3\ncausal and window(n)", "not-a-statement", "write `attend causal and window(n)`", None),
    ("n = 3", "not-a-statement", "write `let n = 3`", "let n = 3"),
    ("near(n) = causal and window(n)", "not-a-statement", "write `let near(n) = causal and window(n)`", "let near(n) = causal and window(n)"),
    ("doc: int per token", "not-a-statement", "write `input doc: int per token`", "input doc: int per token"),
    ("queires layout repeat { a }\nkeys layout repeat { b }", "not-a-statement", "did you mean `queries`?", "queries layout repeat { a }\nkeys layout repeat { b }"),
    # names of another kind
    ("input T: int[n]\nattend T(k.pos) > 0", "not-a-function", "write `T[k.pos]`|!and (", "input T: int[n]\nattend T[k.pos] > 0"),
    ("input T: int[n] per query\nattend T(k.pos) > 0", "not-a-function", "write `q.T[k.pos]`", "input T: int[n] per query\nattend q.T[k.pos] > 0"),
    ("input doc: int per token\nattend doc(q.pos) > 0", "not-a-function", "write `doc[q.pos]`", "input doc: int per token\nattend doc[q.pos] > 0"),
    ("let near = causal\nattend near (k is token)", "not-a-function", "`near and (k is token)`", "let near = causal\nattend near and (k is token)"),
    ("input T: int[n]\nattend k.T > 0", "not-an-attribute", "write `T[k.pos]`", "input T: int[n]\nattend T[k.pos] > 0"),
    ("input T: int[n] per token\nattend k.T > 0", "wrong-subscripts", "`k.T[q.pos]`", "input T: int[n] per token\nattend k.T[q.pos] > 0"),
    ("param n = 2.0\nlayout token, memory * n", "float-here", "`param n = 2`|!//", "param n = 2\nlayout token, memory * n"),
    ("param n = 2.5\nattend window(n)", "float-here", "`param n = 3`|!//", "param n = 3\nattend window(n)"),
    ("let block = pos / 4\nattend same(block)", "float-here", "`/` is float division|`pos // 4`", "let block = pos // 4\nattend same(block)"),
    ("let block = q.pos // 4\nattend same(block)", "not-an-attribute", "`block` is about a pair|`let block = pos // 4`|!attr`", "let block = pos // 4\nattend same(block)"),
    ("attend same(q.step)", "not-an-attribute", "write `same(step)`|!attr`", "attend same(step)"),
    ("attend any(k.pos == i for j in range(4))", "unknown-name", "the variable here is `j`|!q.pos", "attend any(k.pos == j for j in range(4))"),
    ("attend any(q_idx == i for i in range(4))", "unknown-name", "write `q.pos`", "attend any(q.pos == i for i in range(4))"),
    ("layout token, thought * k", "not-constant", "`param n = 4`|!ROLE|!k.pos", "param n = 4\nlayout token, thought * n"),
    ("layout token, reason * reasons", "unknown-name", "`param reasons = 4` above it", "param reasons = 4\nlayout token, reason * reasons"),
    ("predict token -> k.index + 1", "pair-here", "write `index`, not `k.index`|!step", "predict token -> index + 1"),
    ("queries where q is token", "pair-here", "write `role is token`, not `q is token`|!step", "queries where role is token"),
    ("attend causal and nme", "unknown-name", "`nme`|!your own names", "attend causal and full"),
    # signs of elsewhere
    ("attend q.pos − k.pos > 3", "syntax", "write `-`", "attend q.pos - k.pos > 3"),
    ("attend causal ∧ full", "syntax", "write `and`", "attend causal and full"),
    ("attend causal ∨ full", "syntax", "write `or`", "attend causal or full"),
    ("attend causal → full", "syntax", "write `implies`", "attend causal implies full"),
    ("predict token → index + 1", "syntax", "write `->`", "predict token -> index + 1"),
    ("attend q.pos × 3 > 2", "syntax", "write `*`", "attend q.pos * 3 > 2"),
    ("attend k is \"token\"", "syntax", "no quotes|write `token`", "attend k is token"),
    ("attend k is not ‘token’", "syntax", "no quotes|write `token`", "attend k is not token"),
    ("layout 'a', b", "syntax", "no quotes|write `a`", "layout a, b"),
    ("attend causal // the past", "syntax", "comments begin with `#`", "attend causal # the past"),
    ("attend causal // past", "type-mismatch", "comments begin with `#`", "attend causal # past"),
    ("// the past\nattend causal", "not-a-statement", "comments begin with `#`", "# the past\nattend causal"),
    ("layout repeat { token; thought }", "syntax", "write `,`", "layout repeat { token, thought }"),
    ("layout repeat * 4 { token }", "syntax", "`repeat 4 { token }`", "layout repeat 4 { token }"),
    ("let x = = 3", "syntax", "one `=` is enough|!==", "let x = 3"),
    ("queries: a\nkeys layout b", "syntax", "write `queries layout a`", "queries layout a\nkeys layout b"),
    ("attend window(n=3)", "syntax", "arguments have no names|write `3`", "attend window(3)"),
    ("attend same(attr=pos // 4)", "syntax", "arguments have no names|write `pos // 4`", "attend same(pos // 4)"),
    ("attend causal and to\u200dken", "syntax", "U+200D", None),
    # claims
    ("assert not flow where k.pos > q.pos", "syntax", "write `no flow`", "assert no flow where k.pos > q.pos"),
    ("predict token -> index + 1\nassert leak", "syntax", "write `no leak`", "predict token -> index + 1\nassert no leak"),
    ("assert no foo", "syntax", "expected `flow`, `grad` or `leak`", None),
    # a line that continues nothing
    ("attend causal\n3 + 4", "not-a-statement", "begins with `3`", None),
    ("attend causal\n\"note\"", "not-a-statement", "no statement", None),
    ("attend causal\n}", "not-a-statement", "begins with `}`", None),
    ("attend causal\nstop k\nnonsense", "not-a-statement", "begins with `nonsense`", None),
    ("query layout a\nkeys layout b", "not-a-statement", "did you mean `queries`?", "queries layout a\nkeys layout b"),
    # calls
    ("attend head(3) > 2", "not-a-function", "write `head`|![POSITION]", "attend head > 2"),
    ("attend pos(3) > 2", "not-a-function", "`pos[POSITION]`", "attend pos[3] > 2"),
    ("param w = 3\nattend w(3) > 2", "not-a-function", "write `w`|!*", "param w = 3\nattend w > 2"),
    ("layout a\nattend a(3)", "not-a-function", "write `k is a`", "layout a\nattend k is a"),
    ("let min = 3\nattend min(q.pos, 3) > 1", "not-a-function", "hides the built-in `min(...)`|!min *", "attend min(q.pos, 3) > 1"),
    ("let window = 3\nattend window(3)", "not-a-function", "`window(...)`|give the let `window` another name", "attend window(3)"),
    ("attend causal(q, k)", "not-a-function", "write `causal`|!token", "attend causal"),
    ("let near(a, n) = abs(q.a - k.a) < n\nattend k.near", "unknown-attribute", "write `near(a, n)`", None),
    ("let same_as(a, a) = same(a)", "name-taken", "`a` is taken", None),
    ("attend window(causal)", "type-mismatch", "`window(n)`: `n` is a number|this is true or false|!like", "attend window(3)"),
    ("attend dilated(2, full)", "type-mismatch", "`dilated(n, d)`: `d` is an integer|this is true or false", "attend dilated(2, 3)"),
    ("attend dilated(2, 2.5)", "type-mismatch", "`d` is an integer|this is a float", "attend dilated(2.5, 2)"),
    ("input doc: int per token\nattend same(q.doc)", "not-an-attribute", "`same(attr)`|write `same(doc)`", "input doc: int per token\nattend same(doc)"),
    ("input doc: int per token\nattend window(doc)", "whose", "whose?", "input doc: int per token\nattend window(q.doc)"),
    # words that are none here
    ("attend q.position > 1", "reserved-word", "`q.pos`", "attend q.pos > 1"),
    ("attend k.weight > 1", "reserved-word", "no attribute", None),
    ("attend k is data", "reserved-word", "no role|!my_data", "attend k is token"),
    ("predict data -> index + 1", "reserved-word", "no role|!my_data", "predict token -> index + 1"),
    ("input x: int per queries", "unknown-axis", "did you mean `query`?", "input x: int per query"),
    # about one token
    ("queries where pos", "type-mismatch", "`pos < 128`|!q.pos", "queries where pos < 128"),
    ("queries where role", "type-mismatch", "`role is ROLE`|!k is", "queries where role is token"),
    ("position step + k.pos", "pair-here", "write `pos`, not `k.pos`|!whose", "position step + pos"),
    ("position causal", "pair-here", "about a query and a key|!mentions", "position step"),
    # inputs, sizes, names
    ("input tab: int[n]\nattend k.tab[0] > 0", "not-an-attribute", "write `tab[0]`", "input tab: int[n]\nattend tab[0] > 0"),
    ("input x: int[n]\nparam n = 3", "used-before", "further down", "param n = 3\ninput x: int[n]"),
    ("input m: int[n]\nattend m[q.pos] > n", "unknown-name", "`n` is a size of `m`|`param n = 4` above `input m`", "param n = 4\ninput m: int[n]\nattend m[q.pos] > n"),
    (
        "input m: int[n]\nattend any(m[i] > q.pos for i in range(n))", "unknown-name", "`n` is a size of `m`|known only at the call",
        "param n = 4\ninput m: int[n]\nattend any(m[i] > q.pos for i in range(n))",
    ),
    ("input m: bool[query, key]\nattend m", "wrong-subscripts", "`input m: bool per query, key`", "input m: bool per query, key\nattend m"),
    ("input m: int[query, 4] per head\nattend m > 0", "wrong-subscripts", "`input m: int[4] per head, query`", "input m: int[4] per head, query\nattend q.m[0] > 0"),
    ("input m: bool[n, l]\nattend m", "wrong-subscripts", "`m[q.pos, k.pos]`|!per", "input m: bool[n, l]\nattend m[q.pos, k.pos]"),
    ("input x: int[step]", "not-constant", "depends on the token", "input x: int[n]"),
    ("param w = 4\nattend any(k.pos == w for w in range(3))", "name-taken", "already a param", "param w = 4\nattend any(k.pos == i for i in range(3))"),
    ("input w: int\nlet near(w) = k.pos > w", "name-taken", "already an input", "input w: int\nlet near(v) = k.pos > v"),
    ("param token = 3", "name-taken", "in a text without `layout`", "param token = 3\nlayout word"),
    ("data token, token", "said-twice", "stands twice", "data token"),
    ("layout given { a, b, a }", "said-twice", "`a` stands twice", "layout given { a, b }"),
    ("param causal = 3\nattend causal", "type-mismatch", "your param `causal` hides the prelude's", "param n = 3\nattend causal"),
    ("layout repeat { head }\nattend k is head", "name-taken", "known everywhere", "layout repeat { main }\nattend k is main"),
    ("layout a\nposition index\npredict a -> index + 1", "no-data", "`index` counts", "layout a\ndata a\nposition index\npredict a -> index + 1"),
    ("input doc: int per batch, token", "unknown-axis", "the batch may stand in front of any input", "input doc: int per token"),
    ("attend causal\nscale k by 0.9 ** (q.pos - k.pos)", "type-mismatch", "powers of a float come as a table|`input power: float[n]`",
     "input power: float[n]\nattend causal\nscale k by power[q.pos - k.pos]"),
    ("param n = 1025\ninput t: int[n] per query\nattend any(q.t[i] == k.pos for i in range(n))", "too-large", "at most 1024|`input seen: bool[n] per query`",
     "input seen: bool[n] per query\nattend q.seen[k.pos]"),
    # a table for a set, and counts where they do not stand
    ("input t: int[4] per query\nattend k.pos in q.t", "syntax", "`any(k.pos == q.t[i] for i in range(n))`|`n` is the table's size",
     "param n = 4\ninput t: int[n] per query\nattend any(k.pos == q.t[i] for i in range(n))"),
    ("input t: int[4]\nattend k.pos in t", "syntax", "`any(k.pos == t[i] for i in range(n))`", None),
    ("input t: int[4] per query\nattend any(k.pos == x for x in q.t)", "syntax", "`for x in range(n)`|`q.t[x]` for `x`", None),
    ("attend k.pos in q.slot", "syntax", "expected `{`|!any(", "attend k.pos in {q.slot}"),
    ("layout image * 16 * 16, b", "syntax", "write `image * (16 * 16)`", "layout image * (16 * 16), b"),
    ("param n = 3\nlayout repeat { cell * n + 1 }", "syntax", "write `cell * (n + 1)`", "param n = 3\nlayout repeat { cell * (n + 1) }"),
    ("layout a * 4 + repeat { b }", "syntax", "write `,`", "layout a * 4, repeat { b }"),
    ("layout repeat { a } * 4", "syntax", "write `repeat 4 { ... }`", "layout repeat 4 { a }"),
    ("layout 4 * a, b", "syntax", "write `a * 4`", "layout a * 4, b"),
    ("layout repeat 4 a, b", "syntax", "write `repeat 4 { a }`", "layout repeat 4 { a }, b"),
    ("attend causal\ndetach k, v where k.pos < 3", "not-a-statement", "did you mean `stop`?", "attend causal\nstop k, v where k.pos < 3"),
    ("loss token -> index + 1", "not-a-statement", "did you mean `predict`?", "predict token -> index + 1"),
    # what is written so elsewhere
    ("attend |q.pos - k.pos| < 3", "syntax", "`abs(...)` for what stands between bars|!`or`", "attend abs(q.pos - k.pos) < 3"),
    ("attend causal | full", "syntax", "write `or`|!abs", "attend causal or full"),
    ("attend head in {0..3}", "syntax", "write `0 <= x < 3`", "attend 0 <= head < 3"),
    ("attend q.pos - k.pos in 0..3", "syntax", "write `0 <= x < 3`", "attend 0 <= q.pos - k.pos < 3"),
    ("attend causal and window 4", "syntax", "write `window(4)`", "attend causal and window(4)"),
    ("attend causal and same step", "syntax", "write `same(step)`", "attend causal and same(step)"),
    ("attend same(step, slot)", "wrong-arguments", "`same(step) and same(slot)`", "attend same(step) and same(slot)"),
    ("attend window(3, 4)", "wrong-arguments", "takes 1; this call has 2|!for each", None),
    # members and counts
    ("layout a, b\nattend any(k is r for r in {a, b})", "unknown-role", "write `k.role == r`", "layout a, b\nattend any(k.role == r for r in {a, b})"),
    ("param n = 3\nlayout token * (n if n > 2 else 3)", "not-constant", "a choice is not for a count|!run time", "param n = 3\nlayout token * max(n, 3)"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "marked"), [
    ("param x = -99999999999999999999", "99999999999999999999"), ("attend any(k.pos == s for s in {pos})", "pos"), ("attend window(pos)", "pos"),
    ("attend any(k.pos == s for s in range(1, 2, 3))", "1, 2, 3"), ("attend same(q.step) and full", "q.step"), ("attend dilated(2, full)", "full"),
])  # fmt: skip
def test_the_mark_is_under_the_mistake(text: str, marked: str):
    with pytest.raises(srt.SpecError) as error:
        srt.parse(with_attend(text))
    (one,) = error.value.diagnostics
    assert error.value.source.text[one.span.start : one.span.end] == marked


def with_attend(text: str) -> str:
    return text if re.search("^attend", text, re.MULTILINE) else f"{text}\nattend full"


@pytest.mark.parametrize(("text", "slug", "words", "good"), SAID, ids=[row[0].replace("\n", "; ") for row in SAID])
def test_what_is_said_is_the_remedy(text: str, slug: str, words: str, good: str | None):
    with pytest.raises(srt.SpecError) as error:
        srt.parse(with_attend(text))
    (one,) = error.value.diagnostics
    said = "\n".join((one.message, one.label, *one.help))
    assert one.slug == slug, said
    for word in words.split("|"):
        assert (word.removeprefix("!") in said) is not word.startswith("!"), (word, said)
    if good is not None:
        srt.parse(with_attend(good))


def test_the_prelude_is_known_by_its_signatures():
    lets = [s for s in parse(Source(prelude_text()))[0].statements if isinstance(s, syntax.Let)]
    signatures = [s.name.text + (f"({', '.join(p.text for p in s.parameters)})" if s.parameters else "") for s in lets]
    assert tuple(signatures) == SIGNATURES


def test_a_mistake_on_a_line_leaves_the_lines_before_it_whole():
    with pytest.raises(srt.SpecError) as error:
        srt.parse("param n = 3\nnonsense\nattend window(n) and nothing(n)\nstop q z")
    assert [d.slug for d in error.value.diagnostics] == ["not-a-statement", "unknown-name", "syntax"]
    tree, mistakes = parse(Source("param n = 3\nnonsense\nlte m = 4"))
    assert [str(s.name) for s in tree.statements] == ["n", "m"] and [d.slug for d in mistakes] == ["not-a-statement"] * 2  # type: ignore[union-attr]
