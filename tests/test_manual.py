"""docs/language.md and docs/tour.md, run: texts parse or fail as said, what is drawn and printed is what the page shows, its tables are the code's.

A `mask` fence of a page may say more: `mask bad SLUG ...` is wrong in just these ways; `mask prelude` is the prelude; `mask tokens STEPS` shows the
table of tokens; `mask COMMAND ARGUMENT ...` goes through `srt-masks COMMAND - ARGUMENT ...`. A `text` fence behind one of these is what is said (of `show`: without title and legend).
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import get_args

import pytest
import test_docs
from conftest import ROOT

import srt_masks as srt
from srt_masks.cli import main
from srt_masks.diagnostics import MOST_FOUND, MOST_SHOWN, Source
from srt_masks.grammar import checked, expressions, layouts, parser, scope, syntax
from srt_masks.grammar.prelude import prelude_text
from srt_masks.schemes import entries

MANUAL, TOUR = PAGES = (ROOT / "docs" / "language.md", ROOT / "docs" / "tour.md")
FENCE = re.compile(r"^```(?P<info>[^\n`]+)\n(?P<body>.*?)^```\n(?:```text\n(?P<shown>.*?)^```\n)?", re.M | re.S)


@dataclass(frozen=True, slots=True)
class Block:
    """A fence of a page and, if a `text` fence follows at once, what that shows."""

    number: int
    words: tuple[str, ...]
    body: str
    shown: str | None
    start: int  # where `shown` stands in the page
    end: int

    def __str__(self) -> str:
        return f"{self.number}-{'-'.join(self.words)}"[:40]


def blocks(page: Path, language: str) -> list[Block]:
    found = []
    for number, m in enumerate(FENCE.finditer(page.read_text())):
        words = tuple(shlex.split(m["info"]))
        if words[0] == language:
            found.append(Block(number, words, m["body"], m["shown"], *m.span("shown")))
    return found


def printed_by(command: list[str], stdin: str = "") -> str:
    """What `srt-masks` says, run in this process."""
    out, before = io.StringIO(), sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(stdin.encode()))
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            main(command)
    finally:
        sys.stdin = before
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().rstrip().splitlines())


def said_of(block: Block) -> str:
    """What is said of the text of a `mask` fence, once it has been held to what the fence says."""
    match block.words[1:]:
        case ():
            srt.parse(block.body)
            return ""
        case ("prelude",):
            assert block.body == prelude_text().split("\n", 1)[1]
            return ""
        case ("bad", *slugs):
            with pytest.raises(srt.SpecError) as error:
                srt.parse(block.body.removesuffix("\n"), filename="bad.mask")
            assert [d.slug for d in error.value.diagnostics] == slugs
            return error.value.report + "\n"
        case ("tokens", steps):
            return f"{srt.tokens(srt.parse(block.body), steps=int(steps))}\n"
        case (command, *arguments):
            srt.parse(block.body)
            printed = printed_by([command, "-", *arguments], block.body)
            return printed if command != "show" else "".join(printed.splitlines(keepends=True)[2:-3])
    raise AssertionError(block.words)


# ------------------------------------------------------------------------------------------------ blocks


@pytest.mark.parametrize(("page", "block"), [(p, b) for p in PAGES for b in blocks(p, "mask")], ids=lambda x: x.name if isinstance(x, Path) else str(x))
def test_a_text_does_what_the_page_says(page: Path, block: Block, update_golden):
    said = said_of(block)
    assert block.shown is not None or block.words[1:2] in ((), ("prelude",), ("bad",)), "a command without what it prints"
    if update_golden and block.shown is not None:
        fresh = next(b for b in blocks(page, "mask") if b.number == block.number)
        text = page.read_text()
        page.write_text(text[: fresh.start] + said + text[fresh.end :])
    elif block.shown is not None:
        assert block.shown == said


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_blocks(page: Path):
    test_docs.test_python_blocks_run_and_print_what_the_page_shows(page)


def test_console_blocks():
    found = [b for page in PAGES for b in blocks(page, "console")]
    assert found
    for block in found:
        command, shown = block.body.split("\n", 1)
        assert printed_by(shlex.split(command.removeprefix("$ srt-masks "))) == shown


def test_links_lead_somewhere():
    for page in PAGES:
        text = page.read_text()
        anchors = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.*)$", text, re.M)}
        for target in re.findall(r"\]\(([^)]+)\)", text):
            assert target.startswith("https://") or (target[1:] in anchors if target[0] == "#" else (page.parent / target.split("#")[0]).exists()), target


# ------------------------------------------------------------------------------------------------ the whole language is there


def nodes(value: object) -> Iterator[object]:
    """Every node of a tree."""
    yield value
    if isinstance(value, tuple):
        for part in value:
            yield from nodes(part)
    elif hasattr(value, "__dataclass_fields__"):
        for name in value.__dataclass_fields__:  # type: ignore[attr-defined]
            yield from nodes(getattr(value, name))


def spelling(node: object) -> Iterator[str]:
    """The operators of one node, as the table of the manual writes them."""
    match node:
        case syntax.Choose():
            yield "a if c else b"
        case syntax.Logic(op=op):
            yield op
        case syntax.Not():
            yield "not"
        case syntax.Chain(rest=rest):
            yield from (op for op, _ in rest)
        case syntax.Is(negated=negated):
            yield "is not" if negated else "is"
        case syntax.In(negated=negated):
            yield "not in" if negated else "in"
        case syntax.Binary(op=op):
            yield op
        case syntax.Sign(op=op):
            yield f"{op}x"


def examples() -> list[object]:
    """The nodes of every right text of the manual."""
    trees = [parser.parse(Source(b.body))[0] for b in blocks(MANUAL, "mask") if b.words[1:2] not in (("bad",), ("prelude",))]
    return [n for tree in trees for n in nodes(tree)]


def test_every_statement_claim_and_kind_of_expression_has_an_example():
    seen = examples()
    kinds = {type(n) for n in seen}
    assert set(get_args(syntax.Statement)) <= kinds
    assert set(get_args(syntax.Item)) <= kinds
    assert set(get_args(syntax.Expr)) <= kinds
    assert {n.claim for n in seen if isinstance(n, syntax.Assert)} == set(syntax.Claim)
    assert {n.axis for n in seen if isinstance(n, syntax.Layout)} == {None, "queries", "keys"}
    assert {n.type for n in seen if isinstance(n, syntax.Input)} == {"bool", "int", "float"}
    assert {w.text for n in seen if isinstance(n, syntax.Input) for w in n.axes} == set(checked.INPUT_AXES)
    assert {w.text for n in seen if isinstance(n, syntax.Rule) for w in n.targets} == {"q", "k", "v", "hidden"}
    assert {(n.word, n.is_range) for n in seen if isinstance(n, syntax.Quantify)} == set(product(("any", "all"), (True, False)))
    named = {n.name if isinstance(n, syntax.Name) else n.name.text for n in seen if isinstance(n, syntax.Name | syntax.Call | syntax.Attribute)}
    prelude = {s.name.text for s in parser.parse(Source(prelude_text()))[0].statements if isinstance(s, syntax.Let)}
    assert {*checked.ATTRIBUTES, *checked.GLOBALS, "min", "max", "abs", "clamp", *prelude} <= named


# ------------------------------------------------------------------------------------------------ tables


def section(title: str) -> str:
    return re.split(rf"^#+ {re.escape(title)}$", MANUAL.read_text(), flags=re.M)[1].split("\n## ")[0]


def table(title: str) -> list[list[str]]:
    """The rows of the first table of a section."""
    lines = re.search(r"(?:^\|.*\n)+", section(title), re.M)[0].splitlines()[2:]  # type: ignore[index]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_the_precedence_table_has_every_operator():
    operators = [op for _, cell, _ in table("Precedence") for op in quoted(cell)]
    assert set(operators) == {op for n in examples() for op in spelling(n)}
    assert len(operators) == len(set(operators))


TEMPLATES = {"a if c else b": "{} if {} else {}", "not": "not {}", "is": "{} is r", "is not": "{} is not r", "in": "{} in {{1}}", "not in": "{} not in {{1}}"}


def template(op: str) -> str:
    return TEMPLATES.get(op) or (op[0] + "{}" if op.endswith("x") else "{} " + op + " {}")


def written(op: str, *operands: str) -> str:
    return template(op).format(*operands)


def arity(op: str) -> int:
    return template(op).count("{}")


def shape(text: str) -> str | None:
    """The tree of an expression; None where it is none."""
    tree, mistakes = parser.parse(Source(f"attend {text}"))
    return None if mistakes else syntax.show(tree.statements[0].where)  # type: ignore[union-attr]


def rows_of_operators() -> list[tuple[list[str], str, bool]]:
    """Operators, how they group, and whether the row stands on the level of the one above."""
    return [(quoted(cell), how, first == "on the same level") for first, cell, how in table("Precedence")]


def test_each_row_binds_tighter_than_the_rows_above():
    levels: list[list[str]] = []
    for operators, _, same in rows_of_operators():
        levels[len(levels) - same :] = [[*(levels[-1] if same else []), *operators]]
    tried = 0
    for loose, tight in ((x, y) for i, upper in enumerate(levels) for lower in levels[i + 1 :] for x, y in product(upper, lower)):
        for outer, inner, place in [(loose, tight, n) for n in range(arity(loose))] + [(tight, loose, n) for n in range(arity(tight))]:
            if (outer, inner[1:], place) == ("**", "x", 1):
                continue  # `2 ** -n` needs no brackets, as in Python
            operands = [written(inner, *"xyz") if n == place else "abc"[n] for n in range(arity(outer))]
            bare = shape(written(outer, *operands))
            whole = shape(written(outer, *(f"({o})" if n == place else o for n, o in enumerate(operands))))
            assert whole is not None and (bare == whole) is (outer == loose), (outer, inner, place)
            tried += 1
    assert tried > 500


def test_operators_of_one_row_group_as_the_table_says():
    for operators, how, _ in rows_of_operators():
        for first, second in product(operators, repeat=2):
            if how in ("prefix", "does not chain"):
                bare, bracketed = shape(written(second, written(first, "a"))), shape(written(second, f"({written(first, 'a')})"))
                assert bracketed is not None and bare == (bracketed if how == "prefix" else None)
                continue
            # Without brackets, as in "a - b + y" or "a if b else c if y else z"; and with them to the left and to the right.
            *others, last = "abc"[: arity(first)]
            start, rest = written(first, *others, ""), written(second, last, "y", "z")
            bare, left, right = shape(start + rest), shape(written(second, f"({start}{last})", "y", "z")), shape(f"{start}({rest})")
            assert None not in (bare, left, right) and left != right
            match how:
                case "left" | "right":
                    assert bare == (left if how == "left" else right)
                case "chains" | "any number":
                    assert bare not in (left, right)
                case _:
                    raise AssertionError(how)


def test_operators_of_one_level_do_not_mix():
    rows = rows_of_operators()
    mixed = [(a, b) for (upper, _, _), (lower, _, same) in pairwise(rows) if same for a, b in product(upper, lower)]
    assert mixed and all(shape(written(a, "a", written(b, "b"))) is None is shape(written(b, written(a, "a", "b"))) for a, b in mixed)


def test_the_lists_are_those_of_the_code():
    assert {name.split()[0] for row in table("The language") for name in quoted(row[0])} == syntax.STATEMENTS
    assert quoted(section("Reserved words").split("\n\n")[2]) == list(syntax.RESERVED)
    assert [quoted(row[0])[0] for row in table("Attributes")] == list(checked.ATTRIBUTES)
    assert [name for row in table("Numbers known everywhere") for name in quoted(row[0])] == list(checked.GLOBALS)
    assert sorted(name for row in table("Axes") for name in quoted(row[0])) == sorted(checked.INPUT_AXES)


def test_the_zoo_is_as_large_as_the_pages_say():
    said = [int(n) for page in PAGES for n in re.findall(r"(\d+)\s+published\s+schemes", page.read_text())]
    assert said == [len(entries())] * 2


def test_the_limits_are_those_of_the_code():
    limits = {what: (int(most.replace(",", "")), quoted(slug)) for what, most, slug in table("Limits")}
    assert limits == {
        "characters of a text": (parser.MAX_TEXT, ["text-too-long"]),
        "characters of a name": (parser.MAX_NAME, ["name-too-long"]),
        "levels of an expression as written": (parser.MAX_NESTING, ["nested-too-deeply"]),
        "levels of an expression, calls and lets written out": (scope.MAX_DEPTH, ["nested-too-deeply"]),
        "operations of a text, functions and ranges written out": (scope.MAX_NODES, ["too-large"]),
        "steps of a `range`": (expressions.MAX_RANGE, ["too-large"]),
        "tokens of a layout": (layouts.MAX_TOKENS, ["layout-too-large"]),
        "entries of one step, nested repeats written out": (layouts.MAX_ROWS, ["layout-too-large"]),
        "mistakes shown in one report": (MOST_SHOWN, []),
        "mistakes after which reading stops": (MOST_FOUND, []),
    }
