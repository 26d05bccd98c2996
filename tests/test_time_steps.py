"""Time steps of queries and of keys: one number for both, or a pair where two layouts are of two lengths, wherever a size is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_block_mask

import srt_masks as srt
from srt_masks.cli import main
from srt_masks.testing import LAWS, Case
from srt_masks.testing.calls import _others
from srt_masks.testing.checking import asked_steps, try_law
from srt_masks.testing.drawing import cases_of
from srt_masks.time_steps import Steps, steps_in, tokens_of
from srt_masks.view.picture import picture

# A memory of blocks, each of a summary and its text, read from where it was made on.
TEXT = """
queries layout begin, repeat { token * 2 }
keys layout repeat { summary, text * 2 }
input made: int per key
attend k.made <= q.pos and (k is summary or q.pos - k.made < 6)
stop k, v where q.pos - k.made > 3
"""
SPEC = srt.parse(TEXT)
FIXED = srt.parse("queries layout repeat { token }\nkeys layout place * 3\nattend k.pos <= q.pos")
MADE = torch.tensor([0, 0, 0, 4, 4, 4])


def dense(queries: int, keys: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Who attends, and who trains k and v, written out by hand: bool (queries, keys)."""
    made = [MADE[j].item() for j in range(keys)]
    attend = [[made[j] <= i and (j % 3 == 0 or i - made[j] < 6) for j in range(keys)] for i in range(queries)]
    return torch.tensor(attend), torch.tensor([[i - made[j] <= 3 for j in range(keys)] for i in range(queries)])


def test_every_function_takes_steps_of_both_axes():
    inputs = {"made": MADE}
    masks = srt.dense(SPEC, steps=(5, 2), inputs=inputs)
    attend, trains = dense(11, 6)
    assert torch.equal(masks.attend[0, 0], attend) and torch.equal(masks.gate_v[0, 0].bool(), trains)
    assert len(srt.tokens(SPEC, steps=(5, 2), inputs=inputs).role) == 11
    report = srt.flow(SPEC, steps=(5, 2), inputs=inputs)
    assert (report.rows, report.keys) == (11, 6)
    assert srt.equivalent(SPEC, SPEC, steps=(5, 2), inputs=inputs).pairs == 66
    drawn = picture(SPEC, steps=(5, 2), inputs=inputs)
    assert drawn == picture(SPEC, steps=[5, 2], inputs=inputs)  # type: ignore[arg-type]
    assert (len(drawn.rows), drawn.columns[3:], drawn.column_starts) == (11, ("1 summary", "1 text0", "1 text1"), (0, 3))
    plan = srt.compile(SPEC).plan((11, 6), made=MADE)
    assert torch.equal(plan.to_dense()[0, 0], attend)


def test_a_mask_from_elsewhere_says_how_long_both_axes_are():
    attend, _ = dense(11, 6)
    assert srt.equivalent(SPEC, attend, inputs={"made": MADE})
    attend[10, 3] = not attend[10, 3]
    found = srt.equivalent(SPEC, attend, inputs={"made": MADE})
    assert not found and found.pair is not None and (found.pair.query, found.pair.key) == (10, 3) and "steps=(5, 2)" in found.scope
    far = srt.parse("queries layout repeat { token * 4 }\nkeys layout repeat { block }\nattend k.pos * 4 < q.pos")
    counted = srt.parse("param n = 3\nqueries layout repeat { token }\nkeys layout repeat n { block }\nattend k.pos * 4 < q.pos")
    assert srt.equivalent(counted, torch.arange(3) * 4 < torch.arange(8)[:, None])
    blocks = create_block_mask(lambda b, h, q, k: k * 4 < q, 1, 1, 256, 64, device="cpu")
    assert srt.equivalent(far, blocks)
    with pytest.raises(srt.InputError, match="10 queries of the other mask"):
        srt.equivalent(SPEC, attend[:10], inputs={"made": MADE})


def test_what_is_explained_is_as_long_as_its_positions_need():
    """Key 5 is of the second step; the tenth query, of the fifth, asks for no more keys than there are."""
    said = srt.explain(SPEC, 10, 5, inputs={"made": MADE})
    assert said.sees == bool(dense(11, 6)[0][10, 5])


@pytest.mark.parametrize(("spec", "steps", "words"), [
    (SPEC, (5, 2, 1), r"two: of the queries, and of the keys; got \(5, 2, 1\)"), (SPEC, (5, None), r"`repeat \{ summary, text \* 2 \}` repeats: give steps=, or steps=\(queries, keys\)"),
    (SPEC, None, "give steps="), (SPEC, (5, -1), "0 or more; got -1"), (SPEC, (5, True), "got True"), (SPEC, (5, 2.0), "got 2.0"), (SPEC, (5, 2**31), "at most"),
    (FIXED, (5, 3), r"the layout of keys, `place \* 3`, has one length, 3 tokens: give those of the other alone"), (srt.parse("attend causal"), (5, 5), "one layout for both: give one number"),
])  # fmt: skip
def test_what_is_no_pair_is_refused(spec: srt.Spec, steps: Any, words: str):
    with pytest.raises(srt.InputError, match=words):
        tokens_of(spec.checked, steps)
    with pytest.raises(srt.InputError, match=words):
        srt.dense(spec, steps=steps, inputs={"made": MADE} if spec is SPEC else None)


def test_a_layout_of_one_length_takes_none():
    assert tokens_of(FIXED.checked, (5, None)) == tokens_of(FIXED.checked, 5) == (5, 3)


@pytest.mark.parametrize(("tokens", "words"), [
    (11, r"give the rows of both, plan\(\(11, KEYS\)\)"), ((11, 7), r"7 keys is 2 steps and 1 tokens"), ((10, 6), "10 rows is 4 steps"), ((11, "6"), "tokens of keys is a whole number"), ((11, 6, 1), "got"),
])  # fmt: skip
def test_what_no_plan_is_of_is_refused(tokens: Any, words: str):
    with pytest.raises(srt.InputError, match=words):
        srt.compile(SPEC).plan(tokens, made=MADE)
    with pytest.raises(srt.InputError, match="one layout for both: give one number"):
        srt.compile(srt.parse("attend causal")).plan((5, 5))


@pytest.mark.parametrize(("declared", "shapes", "steps"), [
    ("input a: int per key", {"a": (6,)}, 2), ("input a: int per query", {"a": (7,)}, 3), ("input a: bool per query, key", {"a": (7, 6)}, (3, 2)),
    ("input a: int per head, key", {"a": (4, 6)}, 2), ("input a: int per query\ninput b: int[5] per key", {"a": (2, 7), "b": (2, 3, 5)}, (3, 1)),
    ("input a: int per query\ninput b: int per key", {"a": (5,), "b": (6,)}, 2), ("input a: int per key", {"a": (7,)}, None), ("input a: int", {"a": ()}, None),
])  # fmt: skip
def test_inputs_say_how_long_their_axes_are(declared: str, shapes: dict[str, tuple[int, ...]], steps: Steps | None):
    spec = srt.parse(f"queries layout begin, repeat {{ token * 2 }}\nkeys layout repeat {{ summary, text * 2 }}\n{declared}\nattend full")
    assert steps_in(spec.checked, {name: torch.zeros(shape) for name, shape in shapes.items()}) == steps


def test_commands_take_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "memory.mask").write_text(TEXT)
    path, made = str(tmp_path / "memory.mask"), f"made={MADE.tolist()}"
    for command in (["show"], ["plan"], ["explain", "10", "5"], ["explain", "--flow"], ["bench", "--heads", "1", "--repeat", "1"], ["emit", "--stage", "plan"]):
        assert main([command[0], path, *command[1:], "--steps", "5x2", "--input", made]) == 0
        said = capsys.readouterr().out
        assert "11 x 6" in said or "11 rows ask, 6 are read" in said or command[0] in ("show", "explain"), command
        if command == ["show"]:
            assert "4 token1" in said and "5 token" not in said and len(said.strip().splitlines()[3].split()[2:]) == 6
    assert main(["plan", path, "--steps", "5x2", "--input", made, "--format", "json"]) == 0
    assert (found := json.loads(capsys.readouterr().out))["queries"] == 11 and found["keys"] == 6
    assert main(["show", path, "--input", made]) == 0 and "1 token1" in capsys.readouterr().out  # 2 steps, as the input has
    (tmp_path / "one.mask").write_text("attend causal")
    assert main(["show", str(tmp_path / "one.mask"), "--steps", "5x2"]) == 2 and "--steps=5x2 are those of queries" in capsys.readouterr().err
    for wrong in ("5x2x1", "5y2", "x", "1.5"):
        with pytest.raises(SystemExit):
            main(["show", path, "--steps", wrong, "--input", made])
        assert "QUERIESxKEYS" in capsys.readouterr().err


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_laws_hold_for_axes_of_two_lengths(data: st.DataObject):
    case = data.draw(cases_of(SPEC).filter(lambda c: isinstance(c.steps, tuple)))
    for law in ("agrees_with_reference", "reuse", "permutation"):
        assert not LAWS[law].unfit(case.spec)
        LAWS[law](case)


def test_laws_are_tried_at_the_steps_that_are_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    seen = []
    law = replace(LAWS["formatting"], try_on=lambda case, backend: seen.append(case.steps), sized=True)
    try_law(SPEC, law, steps=asked_steps(SPEC, [(5, 2), (1, 3)]), examples=12)
    assert set(seen) == {(5, 2), (1, 3)}
    for steps, asked in ((torch.tensor(2), (2,)), (np.array([2, 3]), (2, 3)), (range(2), (0, 1)), ([np.int64(2), (5, 2)], (2, (5, 2)))):
        assert asked_steps(SPEC, steps) == asked
    for steps, words in (([(5, 2, 1)], "of the queries, and of the keys"), ("3", "got '3'"), (torch.rand(2), "float32"), ([True], "got"), ([-1], "got")):
        with pytest.raises(srt.InputError, match=words):
            asked_steps(SPEC, steps)
    with pytest.raises(srt.InputError, match="one layout for both"):
        asked_steps(srt.parse("attend causal"), [(5, 2)])
    (tmp_path / "memory.mask").write_text(TEXT)
    assert main(["test", str(tmp_path / "memory.mask"), "--law", "permutation", "--steps", "5x2", "--examples", "2"]) == 0
    assert "holds" in capsys.readouterr().out


def test_cases_are_drawn_longer_in_keys_and_in_queries():
    for more in (lambda q, k: q > k, lambda q, k: q < k):
        case = find(cases_of(SPEC), lambda c, more=more: isinstance(c.steps, tuple) and more(*c.steps), settings=settings(derandomize=True, database=None))
        assert eval(case.code().partition("case = ")[2], {"srt": srt, "spec": SPEC, "inputs": case.inputs, "params": case.params}).extents == case.extents


@pytest.mark.parametrize(("steps", "seed", "other"), [((5, 2), 1, (6, 3)), ((6, 2), 0, (3, 1)), ((4, 1), 0, 2)])
def test_another_length_is_another_of_both(steps: tuple[int, int], seed: int, other: Steps):
    case = Case(SPEC, steps, seed=seed, inputs={"made": torch.zeros(3 * steps[1], dtype=torch.int64)})
    ((_, found, _),) = [x for x in _others(case, 0) if x[0] == "a call of another length"]
    assert found.steps == other and found.inputs["made"].shape == (found.extents.keys,)
