"""Random and broken texts: each ends in a Spec or in diagnostics that can be shown, soon, in little memory; none runs code or touches a file.

2,000 texts from fixed seeds in the ordinary run, 200,000 from fresh ones with HYPOTHESIS_PROFILE=thorough. A text that fails is shrunk
and printed as code to paste.
"""

from __future__ import annotations

import json
import os
import random
import re
import resource
import subprocess
import sys
import time
import unicodedata
import warnings
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
from conftest import ROOT
from test_grammar import WHOLE_LANGUAGE

import srt_masks as srt
from srt_masks.compiler.front import front
from srt_masks.diagnostics import Source, SpecError
from srt_masks.grammar import syntax, tables
from srt_masks.grammar.formatter import format_text
from srt_masks.grammar.parser import MAX_TEXT, parse

sys.path.insert(0, str(Path(__file__).parent / "zoo"))

from zoo import SCHEMES

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
RUNS, TEXTS = (20, 10_000) if THOROUGH else (5, 400)
FIRST = random.SystemRandom().randrange(2**32) if THOROUGH else 0  # every text has a number, which is its seed
LONGEST = 50_000  # characters
MOST_CPU = 1.0  # seconds to parse and check one text
MOST_MEMORY = 500_000_000  # bytes that a whole run may grow by

SOURCES = [WHOLE_LANGUAGE, *(s.text for s in SCHEMES), *(p.read_text() for p in sorted(ROOT.glob("examples/*.mask")))]
NAMES = re.findall(
    r"\S+", "a b token reason doc x9 _ __init__ causal full window same first diagonal min max abs clamp pos step slot index role head layer length v hidden"
)
NUMBERS = re.findall(r"\S+", "0 1 2 7 16 -1 0.5 1e-3 1e300 1e999 2147483648 9223372036854775807 9223372036854775808 0_0 1. 00 99999999999999999999")
SIGNS = [*"+-*/%<>=()[]{},:.&|~!^;?@$'\"\\`#", "->", "//", "**", "==", "!=", "<=", ">=", "&&", "=>", ":="]
WORDS = [*syntax.RESERVED, *NAMES, *NUMBERS, *SIGNS, "range(3)", "q.pos", "k.step", "\n", "\n"]
SPLIT = re.compile(r"\s+|[A-Za-z_]\w*|[0-9][\w.]*|->|//|\*\*|[<>=!]=|.", re.DOTALL)
# What only grammars call so: their terminals, lark's names for signs and helper rules, ours for names and numbers.
TERMINALS = "|".join(["LPAR|RPAR|LSQB|RSQB|LBRACE|RBRACE|COMMA|COLON|EQUAL|STAR|DOT", *re.findall("^([A-Z_]+):", tables.grammar(), re.MULTILINE)])
GRAMMARS_OWN = re.compile(rf"__\w+|\b_[A-Z]+\b|\b({TERMINALS})\b|<(name|number|end)>|\$END|_(star|plus)_")

# ------------------------------------------------------------------------------------------------------ making texts


def soup(r: random.Random) -> str:
    return r.choice([" ", "", " ", "\n"]).join(r.choices(WORDS, k=r.randrange(1, 40)))


def statements(r: random.Random) -> str:
    """Words as they may follow each other: a walk through the automaton."""
    machine = tables.load()
    lines = []
    for _ in range(r.randrange(1, 8)):
        states, words = [0], []
        while True:
            expected = sorted(tables.expected_after(machine, states))
            key = tables.END if tables.END in expected and (len(words) > 30 or r.random() < 0.3) else r.choice(expected)
            if len(words) > 30:  # head for the end: the cheapest operand, then whatever closes
                key = next((k for k in (tables.END, ")", "]", "}", "else", "for", "in", tables.NUMBER, tables.NAME) if k in expected), key)
            if key == tables.END or len(words) > 200:
                break
            words.append({tables.NAME: r.choice(NAMES), tables.NUMBER: r.choice(NUMBERS).lstrip("-")}.get(key, key))
            advance(machine, states, key)
        lines.append(" ".join(words))
    return "\n".join(lines)


def advance(machine: tables.Tables, states: list[int], key: str) -> None:
    while (action := machine.actions[states[-1]][key]) < 0:
        rule = machine.rules[action]
        del states[-rule.size :]
        states.append(machine.goto[states[-1]][rule.result])
    states.append(action)


def letters(r: random.Random) -> str:
    """Any characters: ASCII, letters and marks of every script, both directions, surrogates, planes that nobody uses."""
    ranges = [(0, 0x80), (0x20, 0x7F), (0x80, 0x400), (0x300, 0x370), (0x590, 0x700), (0x2000, 0x2070), (0xD800, 0xE000), (0x1F300, 0x1FAFF), (0, 0x110000)]
    return "".join(chr(r.randrange(*r.choice(ranges))) for _ in range(r.randrange(60)))


def raw(r: random.Random) -> str:
    data = r.randbytes(r.randrange(80))
    return data.decode(r.choice(["latin-1", "utf-8", "utf-16", "cp437"]), "replace")


def mutated(r: random.Random) -> str:
    pieces = SPLIT.findall(r.choice(SOURCES))
    for _ in range(r.randrange(1, 7)):
        if pieces:
            r.choice(MUTATIONS)(r, pieces)
    return "".join(pieces)


def _delete(r: random.Random, pieces: list[str]) -> None:
    at = r.randrange(len(pieces))
    del pieces[at : at + r.randrange(1, 4)]


def _duplicate(r: random.Random, pieces: list[str]) -> None:
    at = r.randrange(len(pieces))
    pieces[at:at] = pieces[at : at + r.randrange(1, 8)]


def _swap(r: random.Random, pieces: list[str]) -> None:
    a, b = r.randrange(len(pieces)), r.randrange(len(pieces))
    pieces[a], pieces[b] = pieces[b], pieces[a]


def _replace(r: random.Random, pieces: list[str]) -> None:
    pieces[r.randrange(len(pieces))] = r.choice([r.choice(WORDS), r.choice(pieces)])


def _rename(r: random.Random, pieces: list[str]) -> None:
    """Another name of the same text, which may be of another kind."""
    names = [i for i, p in enumerate(pieces) if p.isidentifier() and p not in syntax.RESERVED]
    if names:
        pieces[r.choice(names)] = pieces[r.choice(names)]


def _insert(r: random.Random, pieces: list[str]) -> None:
    """A line of another text."""
    at = r.choice([i for i, p in enumerate(pieces) if "\n" in p] or [0])
    pieces.insert(at, "\n" + r.choice([line for line in r.choice(SOURCES).splitlines() if line]))


def _splice(r: random.Random, pieces: list[str]) -> None:
    other = SPLIT.findall(r.choice(SOURCES))
    pieces[r.randrange(len(pieces)) :] = other[r.randrange(len(other)) :]


def _flip(r: random.Random, pieces: list[str]) -> None:
    at = r.randrange(len(pieces))
    word = pieces[at]
    i = r.randrange(len(word)) if word else 0
    pieces[at] = word[:i] + chr(ord(word[i : i + 1] or "x") ^ (1 << r.randrange(7))) + word[i + 1 :]


def _control(r: random.Random, pieces: list[str]) -> None:
    pieces.insert(
        r.randrange(len(pieces)), r.choice(["\0", "\x1b[2J", "\r", "\v", "\f", "\x85", "\u2028", "\u202e", "\ufeff", "\ud800", "\x7f", "\t", "\u0301"])
    )


def _blow_up(r: random.Random, pieces: list[str]) -> None:
    numbers = [i for i, p in enumerate(pieces) if p[:1].isdigit()]
    if numbers:
        pieces[r.choice(numbers)] = r.choice(["2147483647", "2147483648", "1000000000", "9" * r.randrange(1, 400), "1e308", "1e309", "0", "100001", "1_0"])


def _repeat(r: random.Random, pieces: list[str]) -> None:
    if len(pieces) > 2000:
        return
    at = r.randrange(len(pieces))
    few = pieces[at : at + r.randrange(1, 6)]
    times = int(10 ** r.uniform(2, 4)) if r.random() < (0.3 if THOROUGH else 0.1) else r.randrange(2, 100)
    pieces[at:at] = few * times


def _nest(r: random.Random, pieces: list[str]) -> None:
    at = r.randrange(len(pieces))
    open, close = r.choice(
        [("(", ")"), ("[", "]"), ("{", "}"), ("not ", ""), ("-", ""), ("abs(", ")"), ("any(", " for s in range(3))"), ("2 ** ", ""), ("repeat {", "}")]
    )
    depth = r.choice([1, 2, 5, 40, 98, 99, 100, 101, 150, 3000])
    pieces[at] = open * depth + pieces[at] + close * depth


MUTATIONS = [_delete, _duplicate, _swap, _replace, _rename, _rename, _insert, _splice, _flip, _control, _blow_up, _repeat, _nest]
KINDS = [mutated, mutated, mutated, mutated, statements, statements, soup, soup, letters, raw]


def text_of(number: int) -> str:
    r = random.Random(number)
    return r.choice(KINDS)(r)[:LONGEST]


# ------------------------------------------------------------------------------------------------------ judging them


@cache
def documented() -> frozenset[str]:
    return frozenset(re.findall(r"^## ([a-z-]+)$", (ROOT / "docs" / "errors.md").read_text(), re.MULTILINE))


def judge(text: str) -> str:
    """What is wrong with how a text is read; empty if nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return _judge(text)
        except Exception as error:
            return f"{type(error).__name__}: {error}"[:300]


def _judge(text: str) -> str:
    begin = time.process_time()
    try:
        spec = srt.parse(text)
        wrong = ""
    except SpecError as error:
        spec, wrong = None, _judge_report(error)
    if (seconds := time.process_time() - begin) > MOST_CPU:
        return f"{seconds:.2f} s for {len(text):,} characters"
    if spec is not None:
        assert str(spec.checked) and str(front(spec.checked))
    if wrong:
        return wrong
    return _judge_format(text)


def _judge_report(error: SpecError) -> str:
    if not error.diagnostics or len(error.report) > 40_000:
        return f"{len(error.diagnostics)} diagnostics, {len(error.report)} characters"
    if not all(c in "\n\t" or unicodedata.category(c)[0] != "C" for c in error.report):
        return "a control character would reach the terminal"
    for d in error.diagnostics:
        if d.slug not in documented():
            return f"docs/errors.md knows no {d.slug}"
        if not 0 <= d.span.start <= d.span.end <= max(1, len(error.source.text)):
            return f"{d.span} is outside of the text: {d}"
        if not d.message or not d.render(error.source).startswith(f"error[{d.slug}]: "):
            return f"cannot be shown: {d}"
        words = " ".join([d.message, d.label, *d.help])
        for found in GRAMMARS_OWN.finditer(words):
            if found.group() not in error.source.text:
                return f"speaks of {found.group()}: {words}"
    return ""


def _judge_format(text: str) -> str:
    source = Source(text.removeprefix("\ufeff"))
    try:
        tree, mistakes = parse(source)
    except SpecError:
        return ""
    if mistakes:
        return ""
    try:
        done = format_text(source)
    except SpecError as error:
        return "" if [d.slug for d in error.diagnostics] == ["text-too-long"] else f"not formatted: {error.report[:200]}"
    again, mistakes = parse(Source(done))
    if mistakes or str(again) != str(tree):
        return "formatting changes the tree"
    return "" if format_text(Source(done)) == done else "formatting twice is not formatting once"


def shrink(text: str, fails: Callable[[str], bool], seconds: float = 60) -> str:
    """A shorter text that still fails: pieces are left out, many at once and then fewer, while some can be."""
    pieces, stop = SPLIT.findall(text), time.monotonic() + seconds
    width = len(pieces)
    while width and time.monotonic() < stop:
        at, shorter = 0, False
        while at < len(pieces) and time.monotonic() < stop:
            rest = pieces[:at] + pieces[at + width :]
            if fails("".join(rest)):
                pieces, shorter = rest, True
            else:
                at += width
        width = min(width, len(pieces)) if shorter else width // 2
    return "".join(pieces)


@pytest.mark.parametrize("first", range(FIRST, FIRST + RUNS * TEXTS, TEXTS))
def test_every_text_is_read_or_refused_well(first: int):
    srt.parse("attend causal")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    parsed = 0
    for number in range(first, first + TEXTS):
        text = text_of(number)
        if why := judge(text):
            text = shrink(text, lambda t: bool(judge(t)))
            code = repr(text) if len(text) < 3000 else f"text_of({number})"
            raise AssertionError(f"{judge(text) or why}\n\n    from test_fuzz import judge, text_of\n    print(judge({code}))\n")
        parsed += _parses(text)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * (1 if sys.platform == "darwin" else 1024)
    assert grown < MOST_MEMORY, f"the peak of memory grew by {grown / 1e6:.0f} MB"
    assert TEXTS // 10 < parsed < TEXTS, "some texts of a run are right and some wrong, or it shows little"


def _parses(text: str) -> bool:
    try:
        return not parse(Source(text))[1]
    except SpecError:
        return False


def test_the_shrinker_finds_the_few_pieces_that_matter():
    text = "attend causal and window(3)\nstop k where q.pos - k.pos > 7\n" * 20
    assert shrink(text, lambda t: "stop" in t and "window" in t and t.index("window") < t.index("stop")) == "windowstop"


# --------------------------------------------------------------------------------------------- no code, no files

HOSTILE = """
attend __import__("os").system("touch owned")
attend open("/etc/passwd")
attend (lambda: 0)()
let x = eval("1")  attend q.pos > x
let __class__ = 1  attend q.__class__ > 0
let f(__globals__) = q.__globals__ == k.__globals__  attend f(pos)
input __builtins__: int per token  attend q.__builtins__ > 0
input x: int["../../etc/passwd"] per token  attend causal
attend {x.__class__.__mro__}
attend causal # %(x)s {0.__init__} $(touch owned) `touch owned`
param n = 1e5__import__  attend first(n)
attend q.pos > 0; import os; os.abort()
attend causal\n%include "/etc/passwd"\n%import common.WORD
layout exec, compile, open  attend k is open and not k is exec
let print(exec) = q.exec == k.exec  attend print(pos)
""".strip()

WATCH = """
import json, random, sys, threading
import srt_masks as srt
from srt_masks.compiler.front import front
from srt_masks.diagnostics import SpecError, Source
from srt_masks.grammar.formatter import format_text

def read(text):
    try:
        spec = srt.parse(text)
        str(spec.checked), str(front(spec.checked)), repr(spec), spec.params
    except SpecError as error:
        str(error), error.report
    try:
        format_text(Source(text))
    except SpecError as error:
        str(error)

texts = json.loads(sys.stdin.read())
for text in texts[:2]:
    read(text)  # what is loaded once, is loaded: modules, the tables, the prelude
seen = set()
sys.addaudithook(lambda event, args: seen.add(event))
for text in texts[2:]:
    read(text)
seen = sorted(seen)
print(seen)
"""


def test_a_text_runs_no_code_and_touches_no_file(tmp_path: Path):
    """Python tells an audit hook of every file opened, module imported, code compiled or run, process started, socket made."""
    texts = [WHOLE_LANGUAGE, "attend causal and nonsense &", *HOSTILE.splitlines(), HOSTILE, *SOURCES, *map(text_of, range(300))]
    done = subprocess.run([sys.executable, "-c", WATCH], input=json.dumps(texts), capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]" and not list(tmp_path.iterdir())


def test_the_watch_sees_what_it_should():
    """The test above would see a file, an import, or code made from a text."""
    spied = WATCH.replace("    read(text)\nseen = sorted", "    read(text)\n    open(sys.executable).close(); eval('1'); import wave\nseen = sorted")
    assert spied != WATCH
    done = subprocess.run([sys.executable, "-c", spied], input='["", "", ""]', capture_output=True, text=True, timeout=60)
    assert all(event in done.stdout for event in ("open", "exec", "compile", "import")), done.stdout + done.stderr


@pytest.mark.parametrize("character", ["\0", "\x1b", "\x7f", "\x9b", "\u202e", "\u2066", "\ud800"])
def test_what_would_show_another_text_than_is_read_is_refused(character: str):
    with pytest.raises(SpecError) as error:
        srt.parse(f"attend causal # {character}or full")
    assert [d.slug for d in error.value.diagnostics] == ["not-text"] and character not in error.value.report


def test_what_would_take_all_memory_is_refused():
    spec = srt.parse("attend causal")
    for ask, words in [
        (lambda: srt.dense(spec, steps=100_000), "at most 8"),
        (lambda: srt.tokens(spec, steps=1_000_001), "at most 1,000,000"),
        (lambda: srt.compile(spec).plan(2**29), "plan_memory"),
        (lambda: srt.compile(spec).plan(50_000).to_dense(), "too many for a dense mask"),
    ]:
        with pytest.raises(srt.InputError, match=words):
            ask()


def test_the_limits_are_those_of_the_code():
    page = (ROOT / "docs" / "threat-model.md").read_text()
    rows = re.findall(r"^\| [^|]+ \| ([\d,]+) \| `([\w.]+)\.(\w+)` \|$", page, re.MULTILINE)
    assert len(rows) == 19
    for most, module, name in rows:
        assert int(most.replace(",", "")) == getattr(import_module(f"srt_masks.{module}"), name), name


def test_a_text_of_any_kind_is_read_in_time():
    """A quarter of the largest text, right or wrong, in a few seconds of a slow machine: what takes quadratic time takes minutes."""
    for name, text in {
        "statements": "let a = k is token and 0 < q.step - k.step <= 16\n" * 5_000,
        "mistakes": "attend causal;\n" * 16_000,
        "no statement": "x " * 125_000,
        "one long list": "attend min(" + "k.pos, " * 35_000 + "0) > 0",
        "levels without end": "attend " + "not " * 62_000 + "&",
        "comments": "# comment\n" * 24_900 + "attend causal",
        "brackets": "attend " + "()" * 120_000,
        "names": "layout " + ",".join(f"r{i}" for i in range(36_000)) + "\nattend causal",
        "one line": "stop k where full " * 13_800,
    }.items():
        assert len(text) <= MAX_TEXT // 4
        begin = time.process_time()
        try:
            srt.parse(text)
        except SpecError as error:
            assert len(error.report) < 40_000
        assert time.process_time() - begin < 5, name
