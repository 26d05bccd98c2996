"""Facts: what is stated with an input or a param (`given`) is read, kept, and held to every call."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import srt_masks as srt
from srt_masks.binding import Sizes, bind_call
from srt_masks.compiler.facts import Facts, lower_facts
from srt_masks.grammar import checked as c
from srt_masks.kernels.facts import lay_out_call
from srt_masks.kernels.planning import batch_rows
from srt_masks.reference.facts import broken_in
from srt_masks.testing import LAWS, Case, cases_of
from srt_masks.testing.drawing import call_params
from srt_masks.testing.keeping import keeps

# ------------------------------------------------------------------------------------------------ what a text may state


def facts(text: str) -> dict[str, c.Fact]:
    return {f.name: f for f in srt.parse(text).checked.facts}


def sides(expr: c.Expr) -> set[c.Side]:
    return {n.side for n in c.walk(expr) if isinstance(n, c.Attribute | c.LetRef)}


def test_a_fact_about_an_input_is_about_what_an_entry_is_about():
    found = facts("""
        input doc: int per token given 0 <= doc and (pos == 0 or doc[pos - 1] <= doc)
        input rank: int per step given rank < steps
        input asked: bool per query given asked or doc > 0
        input open: bool per key given open or open[pos + 1]
        input seen: bool per query, key given seen implies k.pos <= q.pos and q.doc == k.doc
        input reach: int per head, layer given 1 <= reach <= head + layer + 1
        input used: int given used >= 0
        input parent: int[blocks] given parent[pos] <= pos
        input plain: int per token
        let near = k.pos <= q.pos
        attend near
    """)
    assert {name: sides(f.where) for name, f in found.items()} == {
        "doc": {c.Side.OWN}, "rank": {c.Side.OWN}, "asked": {c.Side.OWN}, "open": {c.Side.OWN}, "seen": {c.Side.QUERY, c.Side.KEY},
        "reach": set(), "used": set(), "parent": {c.Side.OWN},
    }  # fmt: skip
    assert found["doc"].said == "`given 0 <= doc and (pos == 0 or doc[pos - 1] <= doc)` (line 2)"


def test_with_two_layouts_a_fact_is_about_the_side_of_its_input():
    found = facts("""
        queries layout repeat { a }
        keys layout b * 3
        input asked: int per query given asked <= pos
        input open: bool per key given open or role is b
        attend q.asked > k.pos and k.open
    """)
    assert {name: sides(f.where) for name, f in found.items()} == {"asked": {c.Side.QUERY}, "open": {c.Side.KEY}}


def test_facts_are_part_of_a_text():
    stated = "param n = 2 given n < 9 input a: int per token given a < n attend k.a < q.a"
    one, other = srt.parse(stated), srt.parse(stated.replace("given a < n", ""))
    assert one.checked != other.checked and one != other
    assert "param n: int = 2 given (n < 9)" in str(one.checked) and "input a: int per token given (a[pos] < n)" in str(one.checked)
    again = srt.parse("\n\n" + stated).checked
    assert again == one.checked and again.facts[0].span != one.checked.facts[0].span
    assert srt.parse("input a: int given a < heads attend causal").checked.speaks_of_heads


# ------------------------------------------------------------------------------------------------ params


@pytest.mark.parametrize(
    ("fact", "good", "bad"),
    [
        ("0 < n <= 512", [1, 512], [0, 513, -1]),
        ("n % 4 == 0 and n != 8", [4, -4, 0], [3, 8]),
        ("n in {1, 2} or not n < 100", [1, 2, 100], [3, 99]),
        ("(n if n > 3 else -n) ** 2 // 2 >= abs(m)", [4, -3, 3], [0, 2]),
        ("any(n == s * s for s in range(1, 4)) and max(n, m) - min(n, m) <= twice", [1, 4, 9], [2, 16]),
        ("m // (n - 5) == 0 and m % (n - 5) == 0", [5], [4, 6]),  # by zero is 0
        ("9223372036854775807 + n > 0", [0, -5], [1, 7]),  # whole numbers wrap
    ],
)
def test_a_fact_about_a_param_holds_in_the_text_in_with_params_and_at_every_call(fact: str, good: list[int], bad: list[int]):
    def text(n: int) -> str:
        return f"param m = 4\nlet twice = m * 2\nparam n = {n}\n  given {fact}\nattend causal and q.pos - k.pos < n"

    for n in good:
        spec = srt.parse(text(n))
        assert spec.with_params(n=n) == spec
        srt.dense(spec, steps=2, inputs={"n": n})
    spec = srt.parse(text(good[0]))
    for n in bad:
        with pytest.raises(srt.SpecError, match="fact-broken"):
            srt.parse(text(n))
        for call in (
            lambda n=n: srt.parse(text(good[0]), params={"n": n}),
            lambda n=n: spec.with_params(n=n),
            lambda n=n: srt.dense(spec, steps=2, inputs={"n": n}),
            lambda n=n: srt.compile(spec).plan(8, n=n),
        ):
            with pytest.raises(srt.InputError) as error:
                call()
            assert str(error.value).startswith(f"param `n` is {n}; the text says `given {fact[:20]}") and "` (line 4): " in str(error.value)


def test_a_fact_about_params_holds_in_every_row_of_the_batch():
    spec = srt.parse("param n = 2  param m = 4 given n <= m  attend causal and q.pos - k.pos < m and k.pos >= n")
    srt.dense(spec, steps=2, inputs={"n": torch.tensor([1, 3]), "m": torch.tensor([1, 3])})
    with pytest.raises(srt.InputError, match=r"param `m` is 2 \(row 1 of the batch\); the text says `given n <= m`"):
        srt.dense(spec, steps=2, inputs={"n": torch.tensor([1, 3]), "m": torch.tensor([1, 2])})
    with pytest.raises(srt.InputError, match="param `m` is 4"):
        srt.compile(spec)(*heads(2, batch=1), n=5)


# ------------------------------------------------------------------------------------------------ inputs


def heads(tokens: int, batch: int = 1, count: int = 2) -> list[Tensor]:
    torch.manual_seed(0)
    return [torch.randn(batch, count, tokens, 8) for _ in range(3)]


TOKENS = 6
EYE = torch.eye(TOKENS, dtype=torch.bool)
INPUTS = [  # a text, an input that is as it says, others, and what is said of these
    ("rank: int per token given 0 <= rank", [0, 3, 1, 0, 2, 9], {"`rank` is -3 at position 4; the text says `given 0 <= rank` (line 1)": [0, 0, 0, 0, -3, -4]}),
    (
        "doc: int per token given pos == 0 or doc[pos - 1] <= doc",
        [0, 0, 1, 1, 2, 2],
        {"`doc[2]` is 5, `doc` is 1 at position 3;": [0, 0, 5, 1, 2, 2], "`doc[4]` is 2, `doc` is 1 at position 5;": [0, 0, 1, 1, 2, 1]},
    ),
    ("trust: float per step given 0 <= trust < 1", [0.0, 0.5, 0.25, 0, 0, 0.9], {"`trust` is nan at position 1;": [0, math.nan, 0, 0, 0, 0]}),
    ("open: bool per key given open or pos % 2 == 1", [True, False] * 3, {"`open` is false at position 4;": [True, False, True, False, False, True]}),
    ("asked: bool per query given asked or 0 < pos", [True] + [False] * 5, {"`asked` is false at position 0;": [False] + [True] * 5}),
    (
        "seen: bool per query, key given seen implies k.pos <= q.pos",
        EYE,
        {"`seen` is true for the query at position 1 and the key at 5;": EYE | (torch.arange(36).reshape(6, 6) == 11)},
    ),
    ("reach: int per head given 1 <= reach <= 4 - head", [4, 3], {"`reach` is 4 (head 1);": [4, 4], "`reach` is 0 (head 0);": [0, 9]}),
    ("reach: int per layer, head given reach > layer", [[1, 1], [2, 2]], {"`reach` is 1 (head 1, layer 1);": [[1, 1], [2, 1]]}),
    ("used: int given used < length", 5, {"`used` is 6;": 6}),
    ("start: int[docs] given start[pos] <= pos", [0, 1, 1], {"`start[1]` is 2 at position 1;": [0, 2, 0]}),
    (
        "pick: int[2] per token given all(pick[i] <= pos for i in range(2)) and pick[0] <= pick[1]",
        [[0, 0]] * 6,
        {"`pick[0]` is 2, `pick[1]` is 1 at position 5;": [[0, 0]] * 5 + [[2, 1]]},
    ),
    ("near: int per token given near == block or near in {-1, -2}", [0, 0, 0, 1, -1, -2], {"`near` is 0 at position 3;": [0] * 6}),
]


def everywhere(spec: srt.Spec, values: dict[str, Any], tokens: int = TOKENS, batch: int = 1, **beside: Any) -> Iterator[tuple[str, Callable[[], object]]]:
    """Every way by which inputs come in, at two layers where the text speaks of layers, the second asked for."""
    layers = 2 if spec.checked.speaks_of_layers else None
    alone = {"steps": tokens, "heads": 2, "layers": layers, "inputs": values, **beside}
    yield "dense", lambda: srt.dense(spec, **alone)
    if batch == 1:
        yield "tokens", lambda: srt.tokens(spec, **alone)
        yield "explain", lambda: srt.explain(spec, 1, 0, **{k: v for k, v in alone.items() if k != "lengths"})
    for backend in ("reference", "tiled"):
        attend = srt.compile(spec, backend=backend, layers=layers)
        own = {"layer": 1 if layers else None, "inputs": values, **beside}
        yield backend, lambda attend=attend, own=own: attend(*heads(tokens, batch), **own)
        yield f"a plan of {backend}", lambda attend=attend, own=own: attend.plan(tokens, heads=2, **own)


@pytest.mark.parametrize(("stated", "good", "bad"), INPUTS, ids=[row[0] for row in INPUTS])
def test_an_input_is_what_the_text_says_of_it_wherever_it_comes_in(stated: str, good: Any, bad: dict[str, Any]):
    spec = srt.parse(f"let block = pos // 3 input {stated} attend causal")
    name = stated.partition(":")[0]
    for _, call in everywhere(spec, {name: torch.as_tensor(good)}):
        call()
    for words, value in bad.items():
        for way, call in everywhere(spec, {name: torch.as_tensor(value)}):
            with pytest.raises(srt.InputError) as error:
                call()
            assert str(error.value).startswith(f"input {words}"), way


def test_only_the_tokens_of_a_call_are_looked_at():
    """Padding may hold anything; a token that does not ask has its entry all the same."""
    spec = srt.parse("input rank: int per token given 0 <= rank and rank < length\nqueries where pos % 2 == 0\nattend causal")
    rank = torch.tensor([[0, 1, 0, 2, 3, 3], [0, 1, 2, 1, -1, -1]])
    for way, call in everywhere(spec, {"rank": rank}, batch=2, lengths=[6, 4]):
        if way not in ("reference", "tiled"):
            call()
    q, k, v = heads(6, 2)
    for backend in ("reference", "tiled"):
        attend = srt.compile(spec, backend=backend)
        attend(q[:, :, :3], k, v, rank=rank, lengths=[6, 4])
        with pytest.raises(srt.InputError, match=r"`rank` is -1 at position 4 \(row 1 of the batch\)"):
            attend(q[:, :, :3], k, v, rank=rank, lengths=[6, 5])
        with pytest.raises(srt.InputError, match=r"`rank` is 2 at position 1 \(row 0 of the batch\)"):
            attend(q[:, :, :3], k, v, rank=rank + (torch.arange(6) == 1), lengths=[2, 4])
    rank[0, 1] = -4  # a token that does not ask
    for _, call in everywhere(spec, {"rank": rank}, batch=2, lengths=[6, 4]):
        with pytest.raises(srt.InputError, match=r"`rank` is -4 at position 1 \(row 0 of the batch\)"):
            call()


def test_with_two_layouts_a_fact_is_held_to_its_own_side():
    spec = srt.parse("""
        queries layout repeat { a }
        keys layout b * 4
        input asked: int per query given asked <= pos
        input open: bool per key given open or pos != 3
        input seen: bool per query, key given seen or q.pos > k.pos
        attend seen and q.asked >= 0 and k.open
    """)
    good = {"asked": torch.tensor([0, 1]), "open": torch.ones(4) > 0, "seen": torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1]]) > 0}
    q, k, _ = heads(2)[0], *heads(4)[1:]
    for name, value, said in (
        ("asked", torch.tensor([0, 2]), "`asked` is 2 at position 1"),
        ("open", torch.arange(4) < 3, "`open` is false at position 3"),
        ("seen", torch.tensor([[1, 1, 1, 1], [1, 0, 1, 1]]) > 0, "`seen` is false for the query at position 1 and the key at 1"),
    ):
        for backend in ("reference", "tiled"):
            attend = srt.compile(spec, backend=backend)
            attend(q, k, k, **good)
            for call in (
                lambda attend=attend, own={**good, name: value}: attend(q, k, k, **own),
                lambda own={**good, name: value}: srt.dense(spec, steps=2, inputs=own),
            ):
                with pytest.raises(srt.InputError) as error:
                    call()
                assert said in str(error.value)


def test_pairs_are_looked_at_some_rows_at_a_time(monkeypatch):
    monkeypatch.setattr("srt_masks.compiler.facts.AT_ONCE", 2 * TOKENS)
    attend = srt.compile(srt.parse("input seen: bool per query, key given seen implies k.pos <= q.pos  attend seen"))
    with pytest.raises(srt.InputError, match="`seen` is true for the query at position 4 and the key at 5"):
        attend(*heads(TOKENS), seen=EYE | (torch.arange(36).reshape(6, 6) == 29))


def test_a_model_holds_its_inputs_to_the_text():
    spec = srt.parse("input doc: int per token given 0 <= doc  attend causal and same(doc)  predict token -> index + 1")
    model = srt.build_model(spec, dim=8, depth=1, heads=2, num_tokens=5)
    x = torch.zeros(2, 4, dtype=torch.int64)
    model(x, doc=torch.tensor([0, 0, 1, 1]))
    with pytest.raises(srt.InputError, match="`doc` is -1 at position 2"):
        model(x, doc=torch.tensor([0, 0, -1, 1]))


# ------------------------------------------------------------------------------------------------ when it is looked at


@pytest.fixture
def looked(monkeypatch) -> list[int]:
    """One entry each time that facts are held to tensors."""
    found: list[int] = []
    original = Facts.broken

    def spied(self: Facts, *args: Any) -> Any:
        found.append(len(found))
        return original(self, *args)

    monkeypatch.setattr(Facts, "broken", spied)
    return found


def test_a_tensor_is_looked_at_once_and_again_when_it_changes(looked: list[int]):
    attend = srt.compile(srt.parse("input doc: int per token given 0 <= doc  attend causal and same(doc)  stop k where q.doc == 1"))
    q, k, v = (x.requires_grad_() for x in heads(40))
    doc = torch.arange(40) // 10
    for _ in range(3):
        attend(q, k, v, doc=doc).sum().backward()
    assert len(looked) == 1
    attend(q, k, v, doc=doc.clone())  # known by its values
    assert len(looked) == 1
    doc[7] = -1
    for _ in range(2):
        with pytest.raises(srt.InputError, match="`doc` is -1 at position 7"):
            attend(q, k, v, doc=doc)
    assert len(looked) == 3  # what is wrong is never kept
    doc.data[7] = 0
    attend(q, k, v, doc=doc)
    doc.data[8] = -2
    with pytest.raises(srt.InputError, match="`doc` is -2 at position 8"):
        attend(q, k, v, doc=doc)


def test_numbers_that_make_the_same_mask_may_still_break_a_fact():
    spec = srt.parse("param n = 9  input rank: int per token given rank < n  attend causal and (n > 3 or k.rank == 0)")
    attend = srt.compile(spec)
    q, k, v = heads(8)
    rank = torch.arange(8)
    attend(q, k, v, rank=rank)
    for numbers in (5, torch.tensor([5])):
        with pytest.raises(srt.InputError, match="`rank` is 5 at position 5"):
            attend(q, k, v, rank=rank, n=numbers)
    by_layer = srt.compile(srt.parse("input rank: int per token given rank < 9 - layer  attend causal"), layers=5)
    by_layer(q, k, v, rank=rank, layer=0)
    with pytest.raises(srt.InputError, match=r"`rank` is 5 at position 5 \(layer 4\)"):
        by_layer(q, k, v, rank=rank, layer=4)
    some = srt.compile(srt.parse("input reach: int given reach < heads  attend causal"), tile=16)
    some(*heads(8, count=4), reach=3)
    with pytest.raises(srt.InputError, match="`reach` is 3;"):
        some(*heads(8, count=2), reach=3)


def test_rows_cut_out_of_a_longer_plan_are_held_to_the_facts_of_their_own_call():
    spec = srt.parse("input used: int given used < length  input note: int per token given 0 <= note  attend causal and k.pos != used")
    attend = srt.compile(spec, tile=16)
    for tokens in range(40, 60):
        q, k, v = heads(tokens)
        note = torch.zeros(tokens, dtype=torch.int64)
        last = range(tokens - 1, tokens)
        attend(q[:, :, -1:], k, v, queries=last, used=tokens - 1, note=note)
        note[-1] = -5
        with pytest.raises(srt.InputError, match=f"`note` is -5 at position {tokens - 1}"):
            attend(q[:, :, -1:], k, v, queries=last, used=tokens - 1, note=note)
        with pytest.raises(srt.InputError, match=f"`used` is {tokens};"):
            attend(q[:, :, -1:], k, v, queries=last, used=tokens, note=note.abs())


@pytest.mark.filterwarnings("ignore::UserWarning:torch.*", "ignore::FutureWarning:torch.*")
def test_a_compiled_call_looks_at_run_time(looked: list[int]):
    torch._dynamo.reset()
    attend = srt.compile(srt.parse("input doc: int per token given 0 <= doc  attend causal and same(doc)"))
    compiled = torch.compile(lambda q, k, v, doc: attend(q, k, v, doc=doc), backend="aot_eager", fullgraph=True)
    q, k, v = heads(8)
    assert torch.equal(compiled(q, k, v, torch.arange(8) // 4), attend(q, k, v, doc=torch.arange(8) // 4))
    before = len(looked)
    with pytest.raises(srt.InputError, match="`doc` is -1 at position 0"):
        compiled(q, k, v, torch.arange(8) - 1)
    assert len(looked) == before + 1
    rows = torch.stack([torch.arange(8) // 4, torch.arange(8) - 2])
    with pytest.raises(srt.InputError, match=r"`doc` is -2 at position 0 \(row 1 of the batch\)"):
        torch.func.vmap(lambda q, k, v, doc: attend(q, k, v, doc=doc))(*(x.expand(2, *x.shape) for x in (q, k, v)), rows)
    torch._dynamo.reset()


# ------------------------------------------------------------------------------------------------ one meaning

NUMBERS = ["{}rank", "rank[{}pos + 1]", "rank[{}pos - 2]", "{}doc", "gap", "table[{}doc]", "table[{}pos]", "{}pos", "{}step", "{}slot", "{}index", "{}block"]
ANYWHERE = ["steps", "length", "head", "n", "3"]


def truths(sides: list[str]) -> st.SearchStrategy[str]:
    """Conditions about one token, or about `q` and `k`."""
    own = [x.format(side) for x in NUMBERS for side in sides] + ANYWHERE
    one = st.sampled_from(own)
    number = one | st.tuples(one, st.sampled_from(["+", "-", "*", "//", "%"]), one).map(lambda x: f"({' '.join(x)})")
    compared = st.tuples(number, st.sampled_from(["<", "<=", "==", "!=", ">"]), number).map(" ".join)
    roles = st.sampled_from([f"{side.removesuffix('.') or 'role'} is word" for side in sides])
    return st.recursive(compared | roles, lambda x: st.tuples(x, st.sampled_from(["and", "or", "implies"]), x).map(lambda t: f"({' '.join(t)})"), max_leaves=4)


@settings(max_examples=150, deadline=None)
@given(truths([""]), truths(["q.", "k."]), st.integers(0, 2**16), st.integers(0, 5), st.booleans())
def test_the_compiler_and_the_reference_find_the_same_facts_broken(one: str, two: str, seed: int, steps: int, asks: bool):
    spec = srt.parse(f"""
        layout sink, repeat {{ word, note * 2 }}
        data word
        param n = 2
        let block = pos // 2
        input doc: int per step
        input gap: int per head
        input table: int[m]
        input rank: int per token given {one} or rank == 0 and not rank == 0
        input seen: bool per query, key given {two} or seen
        {"queries where slot == 0" if asks else ""}
        attend causal
    """)
    generator = torch.Generator().manual_seed(seed)

    def whole(*shape: int) -> Tensor:
        return torch.randint(-1, 4, shape, generator=generator)

    tokens = 1 + 3 * steps
    lengths = [tokens, 1 + 3 * int(torch.randint(steps + 1, (), generator=generator))]
    values = {
        "doc": whole(2, max(1, steps)),
        "gap": whole(2),
        "table": whole(4),
        "rank": whole(2, tokens),
        "seen": torch.rand(tokens, tokens, generator=generator) < 0.8,
    }
    call = bind_call(spec.checked, Sizes(tokens, tokens, 2, None, 2), lengths, values, {})
    for number in range(2):
        row = lay_out_call(spec.checked, call, number)
        found = next((b for f in spec.checked.facts_of_inputs if (b := broken_in(f, row)) is not None), None)
        scalars = {"heads": 2, "layers": 1, "layer": 0}
        other = lower_facts(spec.checked).broken([batch_rows(call)[number]], tokens, tokens, scalars)
        if found is None or other is None:
            assert found is other, (found, other)
        else:
            assert (found.fact, found.places, found.head, sorted(found.values)) == (other.fact, other.places, other.head, sorted(other.values))


# ------------------------------------------------------------------------------------------------ random cases

STATED = [
    "input doc: int per token given pos == 0 or doc[pos - 1] <= doc  attend causal and same(doc)",
    "input parent: int per token given -1 <= parent < pos  attend causal and k.pos >= q.parent",
    "input seen: bool per query, key given seen implies k.pos <= q.pos  attend seen",
    "param n = 3 given 0 < n < 6  param m = 2 given m < n  input reach: int per head given m <= reach < 2 * n  attend causal and q.pos - k.pos < reach",
    "queries layout repeat { a }  keys layout b * 6  input open: bool per key given open or pos % 2 == 1  attend k.open",
    "input pick: int[2] per step given pick[0] < pick[1] <= step + 1  layout repeat { token, note * 2 }  attend causal and q.step - k.step <= q.pick[0]",
]


def test_values_of_each_row_keep_to_what_is_stated_of_them():
    """One param is the same in both rows and the other is not: where a row has to fall back to the text's values, both do."""
    spec = srt.parse("param n = 3 given 0 < n < 6  param m = 2 given m < n  attend causal and q.pos - k.pos < n + m")
    differing = 0

    @settings(max_examples=300, deadline=None, database=None)
    @given(call_params(spec))
    def held(values: dict[str, list[int | float]]) -> None:
        nonlocal differing
        rows = [{"n": 3, "m": 2, **{name: own[row % len(own)] for name, own in values.items()}} for row in range(2)]
        assert all(row["m"] < row["n"] and 0 < row["n"] < 6 for row in rows), values
        differing += rows[0] != rows[1]

    held()
    assert differing > 5


@pytest.mark.parametrize("text", STATED)
def test_random_cases_keep_to_what_the_text_states(text: str):
    spec, varied = srt.parse(text), set()

    @settings(max_examples=30, deadline=None, database=None)
    @given(cases_of(spec))
    def held(case: Case) -> None:
        case.masks()  # raises, where a fact is broken
        assert keeps(case)
        varied.update(str(x.tolist()) for x in case.inputs.values())

    held()
    assert len(varied) > 2
    srt.testing.check(spec, laws=["agrees_with_reference", "reuse", "formatting"], examples=8)


def test_random_cases_that_cannot_be_are_said_so():
    spec = srt.parse("input n: int given n > 3 and n < 3  attend causal and k.pos < n")
    with pytest.raises(srt.InputError, match="no case was found"):
        srt.testing.check(spec, laws=["poison"], examples=3)
    with pytest.raises(srt.InputError, match="input `n` is 5;"):
        srt.testing.check(spec, laws=["poison"], inputs={"n": torch.tensor(5)}, examples=3)


def test_an_attention_that_looks_once_for_good_breaks_a_law(monkeypatch):
    spec = srt.parse("input rank: int per token given rank < 9  attend causal and k.rank <= q.rank")
    case = Case(spec, 4, inputs={"rank": torch.tensor([0, 1, 2, 8])})
    LAWS["reuse"](case)  # which adds 1 to them
    monkeypatch.setattr(Facts, "broken", lambda *_: None)
    with pytest.raises(AssertionError, match="is served, though they no longer are what the text says"):
        LAWS["reuse"](case)


def test_documents_are_packed_where_their_facts_hold():
    text = (
        "input doc: int per token given pos == 0 or doc[pos - 1] <= doc  input rank: int per token given {}  attend causal and same(doc) and k.rank <= q.rank"
    )
    srt.testing.check(srt.parse(text.format("0 <= rank")), laws=["packing"], examples=10)
    with pytest.raises(srt.testing.NotTried, match="what the text says of them"):
        srt.testing.check(srt.parse(text.format("rank == pos")), laws=["packing"], examples=10)
    with pytest.raises(AssertionError, match="documents packed into a row"):
        srt.testing.check(srt.parse(text.format("0 <= rank").replace("same(doc) and ", "")), laws=["packing"], examples=20)
