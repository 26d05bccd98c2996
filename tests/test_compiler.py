"""Lowering, the simplifier's laws, bounds, boxes and runs, each against evaluation or brute force."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

import srt_masks as srt
from srt_masks.compiler import boxes, evaluate, ir
from srt_masks.compiler import exact as exact_tiles
from srt_masks.compiler.bounds import Bound, Interval, Truth, bound
from srt_masks.compiler.evaluate import Environment, operate
from srt_masks.compiler.evaluate import read as read_places
from srt_masks.compiler.front import front
from srt_masks.compiler.ir import Op
from srt_masks.compiler.labels import SHIFTS, State
from srt_masks.compiler.layout import attributes
from srt_masks.compiler.leaves import evaluate as evaluate_leaves
from srt_masks.compiler.leaves import split
from srt_masks.compiler.lower import lower
from srt_masks.compiler.runs import Consumer
from srt_masks.compiler.simplify import LAWS, instantiate, rules_by_operator, simplified, simplify
from srt_masks.grammar.checked import ATTRIBUTES, Type
from srt_masks.kernels import tiled_rows
from srt_masks.kernels.tiled_plan import Task, pack, unpack
from srt_masks.reference.masks import lay_out
from srt_masks.testing.strategies import Case, cases, layouts

GOLDEN = Path(__file__).parent / "golden"


@given(layouts(), st.integers(0, 9))
def test_layouts_agree_with_the_reference(text: str, steps: int):
    checked = srt.parse(text + "\ndata " + ("word" if "word" in text else "note" if "note" in text else "sink") + "\nattend full").checked
    tokens = checked.queries.tokens(steps)
    mine, theirs = attributes(checked.queries, tokens, checked.data, {}), lay_out(checked.queries, tokens, checked.data, {})
    assert len(mine) == tokens
    for name in ATTRIBUTES:
        assert torch.equal(mine[name], theirs[name]), name


# ------------------------------------------------------------------------------------------------ tables of truths, read at pairs


@pytest.mark.parametrize("rule", ["attend {}", "attend not {}", "attend causal\nstop k, v where {}", "attend causal\nscale q by 0.5 where not {}"])
@pytest.mark.parametrize(
    "looked_up",
    [
        "some[edge]", "some[relation[q.kind, k.kind]]", "some[far[q.pos - k.pos]]", "some[2 ** (q.pos - k.pos)]", "grid[edge, 1]",
        "grid[2, edge]", "grid[edge, edge]", "grid[edge, q.kind]", "some[max(3, q.pos - k.pos)]", "some[min(3, k.pos)]", "some[max(2, edge)]", "grid[min(1, k.pos), 3]",
    ],
)  # fmt: skip
def test_nothing_is_said_of_a_table_at_a_place_that_nothing_is_known_of(looked_up: str, rule: str):
    """A bound that is one for all boxes is no number that is one for all pairs."""
    tokens, generator = 48, torch.Generator().manual_seed(0)
    drawn = lambda most, *shape: torch.randint(most, shape, generator=generator)  # noqa: E731
    known = {
        "edge": drawn(5, tokens, tokens), "some": torch.tensor([True, False, True, True, False]), "grid": drawn(2, 5, 5) > 0, "relation": drawn(5, 4, 4),
        "kind": drawn(4, tokens), "far": drawn(5, tokens),
    }  # fmt: skip
    declared = {
        "edge": "int per query, key",
        "some": "bool[n]",
        "grid": "bool[n, m]",
        "relation": "int[types, types]",
        "kind": "int per token",
        "far": "int[places]",
    }
    names = [name for name in known if name in looked_up]
    spec = srt.parse("\n".join([*(f"input {name}: {declared[name]}" for name in names), rule.format(looked_up)]))
    inputs = {name: known[name] for name in names}
    assert torch.equal(
        srt.compile(spec, tile=16).plan(tokens, inputs=inputs).to_dense()[0, 0], srt.dense(spec, steps=tokens, inputs=inputs).attend.view(tokens, tokens)
    )
    q, k, v = (torch.randn(1, 1, tokens, 8, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(3))
    found = []
    for backend in ("tiled", "reference"):
        out = srt.compile(spec, backend=backend, tile=16 if backend == "tiled" else None)(q, k, v, inputs=inputs)
        found.append((out.detach(), *torch.autograd.grad(out.square().sum(), (q, k, v))))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


# ------------------------------------------------------------------------------------------------ the simplifier

_NUMBERS = [-(2**63), -3, -1, 0, 1, 2, 5, 2**63 - 1]


def _value(expr: ir.Expr, values: dict[str, int | bool]) -> int | bool:
    known: dict[ir.Expr, torch.Tensor] = {}
    for node in ir.postorder(expr):
        match node:
            case ir.Scalar(name=name):
                known[node] = torch.tensor(values[name])
            case ir.Const(value=value):
                known[node] = torch.tensor(value)
            case ir.Apply(op=op, args=args):
                known[node] = operate(op, [known[a] for a in args])
    return known[expr].item()


@pytest.mark.parametrize("rule", [r for rules in rules_by_operator().values() for r in rules], ids=lambda r: r.law)
def test_every_law_keeps_the_meaning(rule):
    letters = {"m": Type.BOOL, "n": Type.BOOL, "x": Type.INT, "y": Type.INT, "f": Type.INT, "g": Type.INT, "r": Type.FLOAT}
    bound_to = {name: ir.scalar(name, type) for name, type in letters.items()}
    left, right = instantiate(rule.left, bound_to), instantiate(rule.right, bound_to)
    for m in (False, True):
        for n in (False, True):
            for x in _NUMBERS:
                for y in (x, 0, 4):
                    values = {"m": m, "n": n, "x": x, "y": y, "f": x, "g": y, "r": x / 7}
                    assert _value(left, values) == _value(right, values), (rule.law, values)
    assert simplified(left) is simplified(right) and simplified(left) is not left


def test_laws_have_names_of_their_own():
    assert len({law for law, _, _ in LAWS}) == len(LAWS)


@given(cases())
@settings(max_examples=30)
def test_simplifying_keeps_the_meaning(case: Case):
    program = lower(case.spec.checked)
    simple = simplify(program)
    assert len(list(ir.postorder(*simple.pair_roots))) <= len(list(ir.postorder(*program.pair_roots)))
    assert simplify(simple) == simple
    tokens = program.queries.tokens(case.steps or 0)
    own = attributes(program.queries, tokens, program.data, {})
    inputs = {n: t.double() if t.is_floating_point() else t for n, t in case.inputs.items()}
    scalars = {**case.spec.params, "head": 0, "heads": case.heads, "layer": 0, "layers": 1, "length": tokens, "steps": case.steps or 0}
    before, after = (
        [
            x.expand(tokens, tokens)
            for x in evaluate_leaves(split(*p.pair_roots), Environment(scalars, inputs, own, own)).pairs(slice(None), slice(None), *p.pair_roots)
        ]
        for p in (program, simple)
    )
    for a, b in zip(before, after, strict=True):
        assert torch.equal(a.double(), b.double())


def test_nothing_is_not_folded_to_everything():
    assert front(srt.parse("attend full and not full").checked).attend is ir.FALSE
    assert front(srt.parse("attend causal or not causal").checked).attend is ir.TRUE


def test_folding_wraps_like_run_time():
    for op in (Op.ADD, Op.SUB, Op.MUL, Op.FLOORDIV, Op.MOD, Op.POW, Op.MIN, Op.MAX, Op.LT, Op.LE, Op.EQ, Op.NE):
        for a in _NUMBERS:
            for b in _NUMBERS:
                if op is Op.POW and b > 70:
                    continue
                folded = simplified(ir.apply(op, ir.const(a), ir.const(b)))
                assert isinstance(folded, ir.Const)
                assert folded.value == operate(op, [torch.tensor(a), torch.tensor(b)]).item(), (op, a, b)


@pytest.mark.parametrize("is_whole", [False, True])
def test_neighbours_in_order_are_what_each_is_place_by_place(is_whole: bool, monkeypatch: pytest.MonkeyPatch):
    """`doc[pos - 1]` over all tokens is a stretch of `doc`: no list of places is made, and beyond either end lies the same."""
    tokens, layout = 9, srt.parse("layout repeat { token, note * 2 }\nattend full").checked
    own = attributes(layout.queries, tokens, layout.data, {})
    axis = own if is_whole else own.at(torch.tensor([4, 0, 8, 8, 3]))
    inputs = {f"of{n}": torch.arange(1, n + 1) * 3 for n in (0, 1, 5, 9, 20)} | {"open": torch.ones(9) > 0, "weight": torch.arange(9.0).double() + 0.5}
    if is_whole:
        monkeypatch.setattr(evaluate, "read", lambda table, *rest: read_places(table, *rest) if isinstance(table, np.ndarray) else pytest.fail("places"))
    for side in ir.Side:
        environment, pos = Environment({}, inputs, axis, axis, None if is_whole else own), ir.attribute(side, "pos")
        there = ir.attribute(ir.Side.KEY, "pos")
        for far in (-(2**63), -12, -9, -4, -1, 0, 1, 4, 9, 12, 2**63 - 1):
            for index in (ir.apply(Op.ADD, pos, ir.const(far)), ir.apply(Op.ADD, ir.const(far), pos), ir.apply(Op.SUB, pos, ir.const(far)), pos):
                loads = [ir.load(n, (index,), {"open": Type.BOOL, "weight": Type.FLOAT}.get(n, Type.INT)) for n in inputs]
                landing = [ir.load(n, (there,), Type.INT) for n in inputs] + [ir.attribute(ir.Side.KEY, "role")]
                nodes = (*loads, *(ir.gather(x, index) for x in landing))
                for node, slow in zip(nodes, environment.at(side, np.arange(len(axis)), *nodes), strict=True):
                    (found,) = environment.evaluate(node)
                    assert found.dtype is torch.from_numpy(slow.copy()).dtype and found.tolist() == slow.tolist(), node


# ------------------------------------------------------------------------------------------------ bounds

_ENDS = st.integers(-6, 6) | st.sampled_from([-(2**63), -(2**63) + 1, 2**63 - 1, 2**62, -(2**62)])


@st.composite
def _expressions(draw: st.DrawFn, depth: int = 3) -> tuple[ir.Expr, dict[ir.Expr, tuple[int, int]]]:
    """A random expression of scalars, each with an interval."""
    leaves: dict[ir.Expr, tuple[int, int]] = {}

    def number(level: int) -> ir.Expr:
        if level == 0 or draw(st.booleans()):
            leaf = ir.scalar(f"x{len(leaves)}")
            first = draw(_ENDS)
            ends = sorted((first, draw(st.just(first) | _ENDS)))  # often a constant
            leaves[leaf] = (ends[0], ends[1])
            return leaf
        op = draw(st.sampled_from([Op.ADD, Op.SUB, Op.MUL, Op.MIN, Op.MAX, Op.NEG, Op.ABS, Op.FLOORDIV, Op.MOD, Op.SELECT]))
        if op is Op.SELECT:
            return ir.apply(op, truth(level - 1), number(level - 1), number(level - 1))
        return ir.apply(op, *(number(level - 1) for _ in range(op.value[1])))

    def truth(level: int) -> ir.Expr:
        op = draw(st.sampled_from([Op.LT, Op.LE, Op.EQ, Op.NE, *([Op.NOT, Op.AND, Op.OR] if level > 0 else [])]))
        if op in (Op.NOT, Op.AND, Op.OR):
            return ir.apply(op, *(truth(level - 1) for _ in range(op.value[1])))
        return ir.apply(op, number(max(0, level - 1)), number(max(0, level - 1)))

    return (truth(depth) if draw(st.booleans()) else number(depth)), leaves


@given(_expressions(), st.booleans(), st.randoms(use_true_random=False))
@settings(max_examples=300)
def test_sampled_points_lie_inside_the_bounds(drawn, has_range, random):
    """Also where the leaves say between which numbers their ends lie, as those of a plan do: so must every bound then."""
    expr, leaves = drawn
    of: dict[ir.Expr, Bound] = {
        leaf: Interval(np.array([lo]), np.array([hi]), *((lo, hi) if has_range else ())) for leaf, (lo, hi) in leaves.items()
    }  # fmt: skip
    with np.errstate(all="ignore"):
        for node in ir.postorder(expr):
            if node not in of:
                of[node] = bound(node, [of[a] for a in ir.children(node)])
    for node, found in of.items():
        if isinstance(found, Interval):
            assert found.least <= found.lo.item() and found.hi.item() <= found.most, ir.listing({"expr": node})
    for _ in range(8):
        point = {leaf.name: random.choice([lo, hi, random.randint(lo, hi)]) for leaf, (lo, hi) in leaves.items() if isinstance(leaf, ir.Scalar)}
        value = int(_value(expr, point))
        found = of[expr]
        ends = (found.must, found.may) if isinstance(found, Truth) else (found.lo, found.hi)
        assert ends[0].item() <= value <= ends[1].item(), (ir.listing({"expr": expr}), point, leaves)


@pytest.mark.parametrize("op", [Op.ADD, Op.SUB, Op.MUL, Op.FLOORDIV, Op.MOD, Op.MIN, Op.MAX, Op.ABS, Op.NEG])
@pytest.mark.parametrize("least", [-6, 0, 2**63 - 9, -(2**63)])
def test_bounds_beside_a_constant_hold_every_value_and_stay_in_range(op: Op, least: int):
    """Every interval of nine numbers, in the middle and at both ends of 64 bits, by every small constant: a box each, all at once."""
    numbers = [least + i for i in range(9)]
    ends = [(lo, hi) for lo in numbers for hi in numbers if lo <= hi]
    a = Interval(np.array([lo for lo, _ in ends]), np.array([hi for _, hi in ends]), numbers[0], numbers[-1])
    x, y = ir.scalar("x"), ir.scalar("y")
    node = ir.apply(op, *((x, y)[: op.value[1]]))
    for constant in range(-3, 4):
        b = Interval(np.array(constant), np.array(constant), constant, constant)
        with np.errstate(all="ignore"):
            found = bound(node, [a, b][: op.value[1]])
        assert isinstance(found, Interval) and bool((found.least <= found.lo).all()) and bool((found.hi <= found.most).all())
        lo, hi = (np.broadcast_to(e, len(ends)).tolist() for e in (found.lo, found.hi))
        value = {n: int(_value(node, {"x": n, "y": constant})) for n in numbers}
        for i, (first, last) in enumerate(ends):
            own = [value[n] for n in numbers if first <= n <= last]
            assert lo[i] <= min(own) and max(own) <= hi[i], (constant, first, last)
            if least in (-6, 0) and op is not Op.MOD and not (op is Op.FLOORDIV and constant <= 0):
                assert (lo[i], hi[i]) == (min(own), max(own)), (constant, first, last)


@pytest.mark.parametrize(
    "comparison",
    [
        "q.score < k.score",
        "not q.score < k.score",
        "q.score <= k.score",
        "q.score == k.score",
        "q.score != k.score",
        "q.score + k.score < 1.0",
        "q.score * k.score <= 0.5",
    ],
)
@pytest.mark.parametrize("special", [[float("nan")], [float("inf")], [float("-inf"), float("inf")], [float("nan"), float("inf"), 0.0], [0.25, 0.75]])
def test_nan_and_infinity_widen_to_everything(comparison: str, special: list[float], monkeypatch):
    monkeypatch.setattr(exact_tiles, "REFINE_PAIRS", 0)  # bounds alone decide
    spec = srt.parse(f"input score: float per token\nattend {comparison}\nstop k where {comparison}\nstop v where not ({comparison})")
    score = torch.tensor(special).repeat(64)[:64]
    score[:16], score[40:] = 0.25, special[-1]
    plan = srt.compile(spec, tile=16).plan(64, score=score)
    truth = srt.dense(spec, steps=64, inputs={"score": score})
    assert torch.equal(plan.to_dense()[0, 0], truth.attend[0, 0])
    forward, keys = (_labels(plan.groups[0].runs(c), 4, 4) for c in (Consumer.FORWARD, Consumer.DKV))
    for i in range(4):
        for j in range(4):
            box = (slice(16 * i, 16 * i + 16), slice(16 * j, 16 * j + 16))
            pairs = truth.attend[0, 0][box]
            assert forward[i, j] == 1 or (forward[i, j] == 0 and pairs.all()) or (forward[i, j] == -1 and not pairs.any())
            for name in "kv":
                on = getattr(truth, f"gate_{name}")[0, 0][box][pairs]
                said = State.NONE if keys[j, i] == -1 else State((int(keys[j, i]) >> SHIFTS[name]) & 3)
                assert said is State.MIXED or (said is State.NONE and (on == 0).all()) or (said is State.ALL and (on == 1).all())


# ------------------------------------------------------------------------------------------------ boxes and runs


def _labels(runs, rows: int, cols: int) -> torch.Tensor:
    table = torch.full((rows, cols), -1)
    ptr = runs.ptr.tolist()
    for row in range(rows):
        for i in range(ptr[row], ptr[row + 1]):
            table[row, runs.first[i] : runs.first[i] + runs.count[i]] = int(runs.kind[i])
    return table


@given(cases(most_steps=30), st.sampled_from([16, 32]), st.booleans())
def test_every_consumer_gets_its_exact_tiles(case: Case, tile: int, refine: bool):
    """Labels against the dense reference: EMPTY and FULL, NONE and ALL never lie; with refinement they are also complete."""
    saved, exact_tiles.REFINE_PAIRS = exact_tiles.REFINE_PAIRS, exact_tiles.REFINE_PAIRS if refine else 0
    try:
        attend = srt.compile(case.spec, heads=case.heads, tile=tile, order="natural")
        tokens = case.spec.checked.queries.tokens(case.steps or 0)
        plan = attend.plan(tokens, heads=case.heads, inputs=case.inputs)
    finally:
        exact_tiles.REFINE_PAIRS = saved
    masks = srt.dense(case.spec, steps=case.steps, heads=case.heads, inputs=case.inputs)
    assert torch.equal(plan.to_dense(), masks.attend)
    count = -(-tokens // tile)
    for group in plan.groups:
        head = group.heads[0]
        truth = masks.attend[0, head]
        gates = {n: getattr(masks, f"gate_{n}")[0, head] for n in "qkv"}
        tables = {c: _labels(group.runs(c), count, count) for c in Consumer}
        tables[Consumer.DKV] = tables[Consumer.DKV].T
        for i in range(count):
            for j in range(count):
                box = (slice(i * tile, (i + 1) * tile), slice(j * tile, (j + 1) * tile))
                pairs, whole = truth[box], truth[box].numel() == tile * tile
                found = int(tables[Consumer.FORWARD][i, j])
                kind = -1 if not pairs.any() else 0 if pairs.all() and whole else 1
                assert found == kind or (not refine and found == 1)
                for consumer in (Consumer.DQ, Consumer.DKV, Consumer.BACKWARD):
                    label = int(tables[consumer][i, j])
                    states = {}
                    for n in consumer.gates:
                        on = gates[n][box][pairs]
                        states[n] = State.NONE if not pairs.any() or (on == 0).all() else State.ALL if (on == 1).all() else State.MIXED
                    if label == -1:
                        assert all(s is State.NONE for s in states.values())
                        continue
                    for n, s in states.items():
                        said = State((label >> SHIFTS[n]) & 3)
                        # Of no pairs everything is true; a tile that is empty is then said to be so only once it is evaluated.
                        assert said is s or (not refine and (said is State.MIXED or not pairs.any())), (n, said, s)


def test_large_boxes_are_split_only_where_they_must_be():
    plan = srt.compile(srt.parse("attend causal")).plan(65536)
    assert plan.active_tiles == 512 * 513 // 2
    group = plan.groups[0]
    assert group.boxes.evaluated < 20_000
    assert plan.nbytes < 100_000


def test_stopped_work_is_skipped_and_the_skipping_is_real():
    """The multiplications that really run, counted by torch, are those the plan promises."""
    tile, dim, steps = 16, 8, 256
    spec = srt.parse("attend causal\nstop k, v where k.pos // 16 < q.pos // 16\nstop q where q.pos < 128")
    attend = srt.compile(spec, tile=tile)
    plan = attend.plan(steps)
    dq, dkv = plan.groups[0].runs(Consumer.DQ), plan.groups[0].runs(Consumer.DKV)
    assert plan.active_tiles == 136 and dkv.tiles == 16 and dq.tiles == 136 - 36
    q, k, v, dout = (torch.randn(1, 1, steps, dim) for _ in range(4))
    task = Task(q, k, v, unpack(pack(plan, has_rectangles=False), attend.compiled), attend.compiled.program, dim**-0.5)
    product = 2 * tile * tile * dim
    with FlopCounterMode(display=False) as forward:
        attended = tiled_rows.forward(task)
    assert forward.get_total_flops() == 2 * product * plan.active_tiles
    with FlopCounterMode(display=False) as backward:
        tiled_rows.backward(task, dout, None, attended, (True, True, True))
    both = sum(1 for i in range(16) for j in range(i + 1) if i >= 8 or i == j)  # tiles where any gradient flows
    assert backward.get_total_flops() == product * (2 * both + dq.tiles + dkv.tiles_where("k") + dkv.tiles_where("v"))
    with FlopCounterMode(display=False) as only_v:
        tiled_rows.backward(task, dout, None, attended, (False, False, True))
    assert only_v.get_total_flops() == product * 2 * dkv.tiles


def test_heads_with_one_mask_share_a_plan():
    plan = srt.compile(srt.parse("attend causal and dilated(20, 1 + head % 4)"), tile=16).plan(300, heads=8)
    assert len(plan.groups) == 4
    assert plan.group_of.tolist() == [[0, 1, 2, 3, 0, 1, 2, 3]]


@pytest.mark.parametrize("stage", ["tree", "checked", "ir", "plan", "triton"])
def test_every_stage_prints_as_before(stage: str, capsys, update_golden):
    from srt_masks.cli import main

    assert main(["emit", "--stage", stage, "examples/self_reasoning.mask"]) == 0
    text = capsys.readouterr().out
    if stage == "plan":
        text = text.split(" ms\n", 1)[1]  # times differ
    path = GOLDEN / f"self_reasoning.{stage}.txt"
    if update_golden:
        path.write_text(text)
    assert text == path.read_text()


def test_many_rules_are_no_deep_text():
    spec = srt.parse("attend causal\n" + "\n".join(f"stop k where k.pos == {i} and q.pos > {i}" for i in range(450)))
    plan = srt.compile(spec).plan(64)
    assert plan.active_tiles == 1
    masks = srt.dense(spec, steps=64)
    assert int((masks.attend & (masks.gate_k == 1)).sum()) == 64


def test_specs_that_differ_in_types_alone_have_names_of_their_own():
    one, other = (srt.compile(srt.parse(f"param w = {w}\nattend causal\nscale k by w * 0.5")).compiled.key for w in ("2", "2.0"))
    assert one != other


@pytest.mark.parametrize("limit", ["PROBE_BOXES", "MOST_BOXES"])
def test_masks_that_are_partial_everywhere_are_not_split_to_the_end(limit: str, monkeypatch: pytest.MonkeyPatch):
    """Boxes of many tiles are called PARTIAL: right, said so, and worked on as they are."""
    spec = srt.parse(
        "layout repeat { token, register }\nattend causal and (k is token or diagonal)\nstop k where k is register\nscale v by 1 / 2 where k.pos < q.pos - 9"
    )
    exact = srt.compile(spec, tile=16, order="natural").plan(500)
    monkeypatch.setattr(boxes, "PROBE_BOXES", 1)
    monkeypatch.setattr(boxes, "COARSEST", 2)
    if limit == "MOST_BOXES":
        monkeypatch.setattr(boxes, "MOST_BOXES", 8)
    attend = srt.compile(spec, tile=16, order="natural")
    plan = attend.plan(500)
    assert exact.inexact_tiles == 0 < plan.inexact_tiles
    assert plan.groups[0].boxes.evaluated < exact.groups[0].boxes.evaluated and int(plan.groups[0].boxes.level.max()) > 0
    assert torch.equal(plan.to_dense(), exact.to_dense())
    assert plan.active_tiles <= exact.active_tiles + plan.inexact_tiles
    data = [torch.randn(1, 1, 500, 8, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    truth = srt.compile(spec, backend="reference")
    for a, b in zip(*(torch.autograd.grad(call(*data).square().sum(), data) for call in (attend, truth)), strict=True):
        torch.testing.assert_close(a, b)


def test_a_mask_that_is_sparse_in_places_is_split_all_the_same(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(boxes, "PROBE_BOXES", 1)
    monkeypatch.setattr(boxes, "COARSEST", 2)
    plan = srt.compile(srt.parse("attend causal and window(20)"), tile=16).plan(1000)
    assert plan.inexact_tiles == 0 and plan.active_tiles < 3 * 63


@pytest.mark.parametrize("limit", ["MOST_BOXES", "MOST_FOR_NOTHING"])
def test_each_budget_alone_ends_the_splitting_of_a_regular_mask(limit: str, monkeypatch: pytest.MonkeyPatch):
    """Columns of a grid: every box of a few tiles is PARTIAL, one tile in eight is. What is not begun is said, and right."""
    spec = srt.parse("attend same(pos % 128)\nstop v where k.pos < q.pos")
    exact = srt.compile(spec, tile=16, order="natural").plan(1024)
    monkeypatch.setattr(boxes, "PROBE_BOXES", 1)
    monkeypatch.setattr(boxes, "COARSEST", 2)
    monkeypatch.setattr(exact_tiles.Exact, "mostly_partial", lambda *_: False)
    monkeypatch.setattr(boxes, limit, 40)
    plan = srt.compile(spec, tile=16, order="natural").plan(1024)
    assert exact.inexact_tiles == 0 < plan.inexact_tiles
    assert plan.groups[0].boxes.evaluated < exact.groups[0].boxes.evaluated
    assert torch.equal(plan.to_dense(), exact.to_dense())
