"""Laws proved of all values: the simplifier's rules, the prelude's words, and orders of tokens under which a predicate stays what it is."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch
import z3

import srt_masks as srt
from srt_masks.compiler import ir
from srt_masks.compiler.candidates import candidates
from srt_masks.compiler.evaluate import Environment
from srt_masks.compiler.front import front
from srt_masks.compiler.ir import Expr, Side
from srt_masks.compiler.layout import attributes
from srt_masks.compiler.leaves import evaluate, split
from srt_masks.compiler.order import Order, arrange
from srt_masks.compiler.simplify import _VARIABLES, LAWS, Rule, instantiate, rules_by_operator
from srt_masks.grammar.checked import Type
from srt_masks.proofs.call import call
from srt_masks.proofs.limits import within
from srt_masks.proofs.pairs import Pairs
from srt_masks.proofs.solve import Solver
from srt_masks.proofs.values import Int, Real

# ------------------------------------------------------------------------------------------------ the simplifier's rules

# A letter is an element of an input, by query and key: any value of its type at every pair.
LETTERS = " ".join(
    f"input {letter}_{type}: {type} per query, key" for letter, type in product("mnxyrfg", ("bool", "int", "float"))
)  # fmt: skip
FLOATS = [0.0, -0.0, 5e-324, 1e-310, 1.0, 0.1, -2.5, 1e308, float("inf"), -float("inf"), float("nan")]
PROGRAM = front(srt.parse(f"layout repeat {{ a, b }} {LETTERS} attend full").checked)
RULES = [rule for rules in rules_by_operator().values() for rule in rules]


def letter(name: str, type: Type) -> Expr:
    if type is Type.ROLE:
        return ir.attribute(Side.QUERY if name == "x" else Side.KEY, "role")
    own, other = ir.attribute(Side.QUERY, "pos"), ir.attribute(Side.KEY, "pos")
    return ir.load(f"{name}_{type.value}", (own, other), type)


def differ(left: Expr, right: Expr) -> bool:
    """Whether z3 knows a query and a key, and values of the letters, for which two expressions do."""
    pairs = Pairs(call(PROGRAM), False)
    meaning = pairs.meaning(pairs.query(), pairs.key(), pairs.place())
    a, b = meaning.value(left), meaning.value(right)
    if isinstance(a, Real) and isinstance(b, Real):
        apart = z3.Or(a.nan != b.nan, z3.And(z3.Not(a.nan), a.term != b.term))
    else:
        apart = a.term != b.term if isinstance(a, Int) and isinstance(b, Int) else a != b
    solver = Solver(pairs.call, within(10))
    solver.add(apart)
    return solver.model() is not None


def sides_of(rule: Rule) -> list[tuple[Expr, Expr]]:
    """A rule as expressions, unsimplified, once for every type that its letters may have."""
    found = []
    letters = sorted({x for x in "mnxyrfg" if x in _words(rule.law)})
    for types in product(*(_VARIABLES[x] for x in letters)):
        if len({t for x, t in zip(letters, types, strict=True) if x in "xyfg"}) > 1:
            continue  # x beside y, f beside g, are of one type
        bound = {x: letter(x, t) for x, t in zip(letters, types, strict=True) if t is not Type.ROLE or "<" not in _words(rule.law)}
        if len(bound) == len(letters):
            found.append((instantiate(rule.left, bound), instantiate(rule.right, bound)))
    return found


def _words(law: str) -> str:
    """Both sides, without words of the language."""
    left, right = next((a, b) for name, a, b in LAWS if name == law)
    text = f"{left} {right}"
    for word in ("and", "or", "not", "true", "false", "if", "else", "min", "max"):
        text = " ".join(f" {text} ".replace(f" {word} ", " ").replace(f"{word}(", " ( ").split())
    return text


@pytest.mark.parametrize("rule", RULES, ids=lambda r: r.law)
def test_a_rule_of_the_simplifier_holds_of_all_values(rule: Rule):
    sides = sides_of(rule)
    assert sides
    for left, right in sides:
        assert not differ(left, right), (left, right)


def test_every_rule_is_tried():
    assert {r.law for r in RULES} == {law for law, _, _ in LAWS}


@pytest.mark.parametrize(
    ("left", "right"), [("m and n", "m"), ("not x < y", "y < x"), ("x - y", "y - x"), ("x < x + 1", "true"), ("abs(x) >= 0", "true"), ("r_ == r_", "true"), ("x * 2 // 2", "x")]
)  # fmt: skip
def test_what_is_no_law_is_seen(left: str, right: str):
    """The last four hold of numbers without end, and of floats that are numbers."""
    inputs = "input m: bool per query, key input n: bool per query, key input x: int per query, key input y: int per query, key input r_: float per query, key"
    both = (
        f"({left}) == ({right})"
        if right not in ("true", "m", "y < x")
        else f"({left}) implies ({right}) and ({right}) implies ({left})".replace(") and (", ")) and ((")
    )
    verdict = srt.prove(srt.parse(f"{inputs} attend full assert ({both})"))[-1]
    assert verdict.outcome == "refuted", verdict


# ------------------------------------------------------------------------------------------------ floats

KEPT = [
    ("r * 1.0", "r"),
    ("1.0 * r", "r"),
    ("r / 1.0", "r"),
    ("r + 0.0", "r"),
    ("0.0 + r", "r"),
    ("r - 0.0", "r"),
    ("0.0 - r", "-r"),
    ("1.0 / (r * 1.0)", "1.0 / (r + 0.0)"),
]
LOST = [("r * 0.0", "0.0"), ("r - r", "0.0"), ("r / r", "1.0"), ("r * 2.0 / 2.0", "r"), ("r + 1.0 - 1.0", "r"), ("1.0 - r", "r"), ("r - 2.0", "r"), ("1.0 / r", "r")]  # fmt: skip


def factor(words: str) -> srt.Spec:
    return srt.parse(f"input r: float per key attend full scale k by {words.replace('r', 'k.r')}")


def factors(words: str) -> torch.Tensor:
    return srt.dense(factor(words), steps=len(FLOATS), inputs={"r": torch.tensor(FLOATS, dtype=torch.float64)}).gate_k


@pytest.mark.parametrize(("one", "other"), KEPT)
def test_what_leaves_floats_as_they_are_is_proved(one: str, other: str):
    assert srt.equivalent(factor(one), factor(other))
    assert torch.equal(factors(one).nan_to_num(7), factors(other).nan_to_num(7))


@pytest.mark.parametrize(("one", "other"), LOST)
def test_what_changes_some_float_is_not_proved(one: str, other: str):
    assert not srt.equivalent(factor(one), factor(other), seconds=1)
    assert not torch.equal(factors(one).nan_to_num(7), factors(other).nan_to_num(7))


# ------------------------------------------------------------------------------------------------ the prelude's words

SAME = [
    ("attend causal", "attend not (k.pos > q.pos)"), ("attend diagonal", "attend window(1)"), ("attend diagonal", "attend same(pos)"), ("attend first(0)", "attend not full"),
    ("attend window(3)", "attend -3 < q.pos - k.pos < 3"), ("param n = 5 attend window(n)", "param n = 5 attend abs(k.pos - q.pos) <= n - 1 and n != -9223372036854775807 - 1"),
    ("param n = 5 attend dilated(n, 1)", "param n = 5 attend window(n)"), ("attend dilated(3, 2)", "attend window(6) and same(pos % 2)"),
    ("attend causal and window(4)", "attend 0 <= q.pos - k.pos < 4"), ("attend dilated(1, 4)", "attend diagonal"), ("attend first(1) and causal", "attend k.pos == 0"),
    ("attend same(pos // 4)", "attend abs(q.pos - k.pos) < 4 and q.pos // 4 == k.pos // 4"), ("attend causal or first(3)", "attend k.pos <= max(q.pos, 2)"),
    ("input doc: int per token attend same(doc)", "input doc: int per token attend not (q.doc < k.doc or k.doc < q.doc)"), ("attend full", "attend window(length)"),
    ("attend full", "attend causal implies full"), ("layout repeat { a, b } attend same(step)", "layout repeat { a, b } attend same(pos // 2)"),
    ("layout repeat { a, b } attend same(role)", "layout repeat { a, b } attend same(pos % 2)"), ("attend causal stop k, v where full", "attend causal scale k by 0 scale v by 0.0"),
    ("attend causal stop k, v where k.pos == q.pos stop k where causal", "attend causal stop k stop v where diagonal"),
]  # fmt: skip
APART = [
    ("attend window(3)", "attend -3 <= q.pos - k.pos < 3"), ("param n = 5 attend window(n)", "param n = 5 attend abs(k.pos - q.pos) <= n"), ("attend dilated(3, 2)", "attend window(7) and same(pos % 2)"),
    ("attend same(pos // 4)", "attend abs(q.pos - k.pos) < 4"), ("attend causal or first(3)", "attend k.pos <= max(q.pos, 3)"), ("attend full", "attend window(100)"),
    ("input doc: int per token attend same(doc)", "input doc: int per token attend q.doc - k.doc <= 0 and k.doc - q.doc <= 0"), ("attend causal stop k, v where full", "attend causal scale k by 0 scale v by 0.5"),
    ("attend causal stop hidden", "attend causal"), ("attend causal stop q where k.pos == 0", "attend causal"), ("queries where pos > 0 attend k.pos < q.pos", "attend k.pos < q.pos"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), SAME)
def test_one_mask_in_other_words(one: str, other: str):
    verdict = srt.equivalent(srt.parse(one), srt.parse(other))
    assert verdict, verdict


@pytest.mark.parametrize(("one", "other"), APART)
def test_words_that_are_nearly_so(one: str, other: str):
    assert not srt.equivalent(srt.parse(one), srt.parse(other))


# ------------------------------------------------------------------------------------------------ orders

ORDERED = [
    ("layout repeat { token, reason * 2 } attend causal and (k is token or q.step - k.step <= 2) stop k, v where k is reason and q.step > k.step", 24, {}),
    ("attend same(pos % 4) or causal and window(3)", 21, {}), ("input doc: int per token attend causal and same(doc)", 16, {"doc": torch.tensor([3, 1, 0, 3] * 4)}),
    ("input rank: int per token attend k.rank < q.rank scale v by 0.5 where same(pos // 2)", 12, {"rank": torch.arange(12).flip(0) % 5}),
    ("layout repeat { content, query } input rank: int per step attend k is content and (k.rank < q.rank or q is content and same(step))", 14, {"rank": torch.tensor([3, 0, 6, 1, 2, 5, 4])}),
    ("param width = 4 let row = pos // width let column = pos % width attend abs(q.row - k.row) <= 1 and abs(q.column - k.column) <= 1", 16, {}),
    ("input open: bool per token attend k.open or diagonal", 11, {"open": torch.tensor([True, False, False] * 3 + [True, True])}), ("attend dilated(3, 4)", 19, {}),
    ("layout sink * 3, repeat { token, note } attend causal and (k is sink or window(6)) stop hidden where k is sink", 15, {}),
    ("layout repeat { token, begin, thought * 2, finish } attend causal and (k is token or same(step))", 20, {}),
    ("layout a * 4, repeat { b } attend same(slot % 2) and causal stop k where same(step)", 13, {}),
    ("param period = 3 attend causal and (same(pos % period) or window(2))", 17, {}),
    # Rows of q are those that ask: sorted among themselves, the keys among all.
    ("layout repeat { token, reason * 2 } queries where role is reason or step % 3 == 0 attend causal and (k is token or q.step - k.step <= 2) stop k, v where k is reason and q.step > k.step", 24, {}),
    ("queries where pos % 4 != 1 attend same(pos % 4) or causal and window(3) scale q by 0.5 where q.pos % 2 == 1", 21, {}),
    ("input rank: int per token queries where pos > 2 attend k.rank < q.rank stop v where same(pos // 2)", 12, {"rank": torch.arange(12).flip(0) % 5}),
    # Two layouts: each side in an order of its own.
    ("queries layout repeat { target, note } keys layout bos, repeat { source * 2, end } attend k is end and k.step <= q.step or k is bos stop k where q is note", 12, {}),
    ("queries layout repeat { a } keys layout repeat { b * 2 } attend (q.pos - k.pos) % 3 == 0 scale v by 0.25 where k.slot == 1", 9, {}),
    ("queries layout repeat { a } keys layout c * 3, repeat { b } input of_key: int per key attend k.of_key == q.pos % 3 or k is c stop k, v where k.of_key == 0", 8, {"of_key": torch.arange(11) * 5 % 3}),
]  # fmt: skip


def test_orders_are_many():
    assert sum(len(_candidates(text)) for text, _, _ in ORDERED) >= 40


def _candidates(text: str):
    program = front(srt.parse(text).checked)
    return candidates(program, split(*program.pair_roots))


@pytest.mark.parametrize(("text", "tokens", "inputs"), ORDERED, ids=lambda x: x if isinstance(x, str) else "")
def test_a_predicate_of_tokens_in_another_order_is_the_predicate(text: str, tokens: int, inputs: dict[str, torch.Tensor]):
    """Evaluated over the tokens as they are visited, every candidate order against the reference's mask, its rows and columns put in that order."""
    spec = srt.parse(text)
    program, checked = front(spec.checked), spec.checked
    gates = (program.gate_q, program.gate_k, program.gate_v, program.gate_hidden)
    roots = (program.attend, *(x for gate in gates for x in (gate.open, gate.weight)))
    steps = checked.queries.steps(tokens)
    dense = srt.dense(spec, steps=steps, inputs=inputs, heads=1)
    own = attributes(program.queries, tokens, program.data, {})
    keys = own if program.keys is None else attributes(program.keys, dense.attend.shape[-1], program.data, {})
    scalars = {**spec.params, "head": 0, "heads": 1, "layer": 0, "layers": 1, "length": tokens, "steps": steps}
    environment = Environment(scalars, inputs, own, keys)
    if program.asks is not ir.TRUE:
        (asks,) = environment.evaluate(program.asks)
        environment = replace(environment, queries=own.picked(asks.expand(tokens)))
    parts = split(*roots)
    leaves = evaluate(parts, environment)
    tried = 0
    for candidate in candidates(program, parts):
        order = arrange(candidate, program, environment)
        if order is None:
            continue
        tried += 1

        def visited(mask: torch.Tensor, order: Order = order) -> torch.Tensor:
            return mask[0, 0].expand_as(dense.attend[0, 0])[order.queries][:, order.keys]

        found = [x.expand(len(order.queries), len(order.keys)) for x in order.picked(leaves).pairs(slice(None), slice(None), *roots)]
        wanted = visited(dense.attend)
        assert torch.equal(found[0], wanted), candidate.name
        for number, gate in enumerate((dense.gate_q, dense.gate_k, dense.gate_v, dense.gate_hidden)):
            open_, weight = found[1 + 2 * number : 3 + 2 * number]
            assert torch.equal((open_.double() * weight)[wanted], visited(gate)[wanted]), (candidate.name, number)
    assert tried
