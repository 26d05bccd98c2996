"""What leaves a plan: BlockMasks for FlexAttention, exact intervals, dense masks, shards; each against the reference."""

from __future__ import annotations

import shutil
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_zoo import inputs_of
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, create_mask, flex_attention
from zoo_case import SCHEMES, Scheme

import srt_masks as srt
from srt_masks.compiler.plan import Plan
from srt_masks.compiler.runs import Consumer
from srt_masks.compiler.shard import deal, work_of_rows
from srt_masks.testing.case import Case
from srt_masks.testing.strategies import cases, whole

TILE = 16


def plan_of(case: Case, **options: Any) -> Plan:
    attend = srt.compile(case.spec, heads=case.heads, layers=case.layers, tile=case.tile, proofs="off", **options)
    layer = 0 if case.layers else None
    return attend.plan(case.extents.tokens, layer=layer, lengths=case.lengths, given=case.given, inputs={**case.inputs, **case.params})


def attended(case: Case) -> Tensor:
    """(batch, heads, queries, keys) of layer 0, by the reference."""
    return case.masks().attend[:, 0]


def agrees_with(mask: Tensor, block_mask: BlockMask) -> None:
    """The mask (batch, heads, queries, keys) is what the BlockMask says twice: by its predicate, and by its lists with it."""
    batch, heads, queries, keys = mask.shape
    tile = block_mask.BLOCK_SIZE[0]
    assert block_mask.seq_lengths == (queries, keys)
    said = create_mask(block_mask.mask_mod, batch, heads, queries, keys, device="cpu")
    assert torch.equal(said, mask)
    full, partial, full_t, partial_t = (
        lists_as_tiles(*pair)
        for pair in (
            (block_mask.full_kv_num_blocks, block_mask.full_kv_indices),
            (block_mask.kv_num_blocks, block_mask.kv_indices),
            (block_mask.full_q_num_blocks, block_mask.full_q_indices),
            (block_mask.q_num_blocks, block_mask.q_indices),
        )
    )
    assert torch.equal(full, full_t.mT) and torch.equal(partial, partial_t.mT)
    tiles = [x.repeat_interleave(tile, -2).repeat_interleave(tile, -1)[..., :queries, :keys].expand_as(mask) for x in (full, partial)]
    assert bool(mask[tiles[0]].all()), "a FULL tile lacks a pair"
    assert not bool(mask[~tiles[0] & ~tiles[1]].any()), "a pair stands in no listed tile"
    assert not (full & partial).any()
    assert torch.equal(block_mask.to_dense().bool(), full | partial)


def lists_as_tiles(counts: Tensor | None, indices: Tensor | None) -> Tensor:
    assert counts is not None and indices is not None
    assert counts.dtype is indices.dtype is torch.int32 and counts.is_contiguous() and indices.is_contiguous()
    tiles = torch.zeros(indices.shape, dtype=torch.int32)
    live = torch.arange(indices.shape[-1]) < counts[..., None]
    tiles.scatter_add_(-1, torch.where(live, indices, 0).long(), live.int())
    assert int(tiles.max()) <= 1, "a tile is listed twice"
    return tiles.bool()


def flex_equals_reference(mask: Tensor, block_mask: BlockMask, attention: Any = flex_attention) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (
        torch.randn(mask.shape[0], mask.shape[1], n, 16, generator=generator, dtype=torch.float32) for n in (mask.shape[2], mask.shape[3], mask.shape[3])
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        out = attention(q, k, v, block_mask=block_mask)
    scores = (q.double() @ k.double().mT / 4).masked_fill(~mask, float("-inf"))
    wanted = torch.nan_to_num(scores.softmax(-1)) @ v.double()
    assert torch.allclose(out.double(), wanted, atol=2e-6)


# ------------------------------------------------------------------------------------------------ to_flex


@settings(max_examples=settings.default.max_examples // 2)
@given(cases())
def test_a_block_mask_says_what_the_reference_says(case: Case):
    if case.steps == 0:
        return
    block_mask = plan_of(case).to_flex(gradients="drop")
    agrees_with(attended(case), block_mask)
    flex_equals_reference(attended(case), block_mask)


@settings(max_examples=settings.default.max_examples // 2)
@given(whole())
def test_texts_of_the_whole_language_are_exported(case: Case):
    mask = attended(case)
    if 0 in mask.shape:
        with pytest.raises(srt.InputError, match="at least one row"):
            plan_of(case).to_flex(gradients="drop")
        return
    agrees_with(mask, plan_of(case).to_flex(gradients="drop"))


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.name)
def test_the_zoo_is_exported(scheme: Scheme):
    sizes = scheme.cases[0]
    spec = srt.parse(scheme.text, params=sizes.params)
    if spec.checked.keys is not None and spec.checked.keys.rows_per_step:
        return  # a plan by itself cannot know the length of its keys
    layers = sizes.layers if spec.checked.speaks_of_layers else None
    steps = sizes.steps if spec.checked.repeats else None
    case = Case(spec, steps=steps, heads=sizes.heads, layers=layers, inputs=inputs_of(spec, sizes), given=sizes.given)
    mask, block_mask = attended(case), plan_of(case).to_flex(gradients="drop")
    agrees_with(mask, block_mask)
    flex_equals_reference(mask, block_mask)


BY_HAND: tuple[tuple[str, dict[str, Any]], ...] = (
    ("attend causal", {"steps": 1}),
    ("attend full", {"steps": 33}),
    ("attend head == 0 or causal", {"steps": 40, "heads": 3}),
    ("attend causal and k.pos > 20", {"steps": 50}),  # rows with no key
    ("attend causal and false", {"steps": 20}),  # nothing at all
    ("let d = pos // 7\nattend d[k.pos + q.pos] == q.d or window(3)", {"steps": 37, "batch": 3, "lengths": (37, 20, 0)}),
    ("attend k.pos >= length - 2 and causal", {"steps": 21, "batch": 2, "lengths": (5, 21)}),
    ("param near = 3\nattend window(near)", {"steps": 30, "batch": 2, "params": {"near": torch.tensor([1, 9])}}),
    ("param e = 3\nattend 2 ** (q.pos - k.pos) % 3 == 1 or (q.pos - k.pos) ** e % 7 == 1", {"steps": 70}),
    ("layout memory * 3, repeat { token }\nqueries where role is token\nattend causal", {"steps": 30}),
    ("queries layout target * 21\nkeys layout source * 35\nattend k.pos // 2 <= q.pos", {}),
    ("attend (head + q.pos) // 2 >= k.pos % 5", {"steps": 19, "heads": 4}),
    ("attend q.pos % 3 == 0", {"steps": 19}),
    ("attend (k.pos - 9) // 4 % 3 == 0 and (q.pos - k.pos) % -3 == 0", {"steps": 35}),
    ("input t: bool[n, m]\nattend t[q.pos, k.pos % 5]", {"steps": 35, "inputs": {"t": torch.arange(60).view(12, 5) % 4 == 0}}),
    ("input t: bool[n, m]\nattend t[q.pos, k.pos] or diagonal", {"steps": 20, "inputs": {"t": torch.zeros(0, 5, dtype=torch.bool)}}),
    (
        "input seen: bool per head, query, key\nattend seen",
        {"steps": 20, "heads": 2, "batch": 2, "inputs": {"seen": torch.arange(1600).view(2, 2, 20, 20) % 7 < 3}},
    ),
)


@pytest.mark.parametrize(("text", "options"), BY_HAND, ids=[t[:30] for t, _ in BY_HAND])
def test_block_masks_of_every_kind(text: str, options: dict[str, Any]):
    case = Case(srt.parse(text), **options)
    block_mask = plan_of(case).to_flex()
    agrees_with(attended(case), block_mask)
    flex_equals_reference(attended(case), block_mask)


@pytest.mark.skipif(shutil.which("g++") is None, reason="FlexAttention compiles for the CPU with a C++ compiler; none is here")
def test_compiled_flex_attention_follows_lists_and_predicate():
    text = "input doc: int per token\nattend causal and (same(doc) and head == 0 or window(5)) and k.pos < length - 3"
    case = Case(srt.parse(text), steps=70, heads=2, batch=3, lengths=(70, 33, 2), inputs={"doc": torch.arange(70) // 23})
    compiled = torch.compile(flex_attention)
    flex_equals_reference(attended(case), plan_of(case).to_flex(), compiled)


def test_a_lie_in_the_lists_is_seen():
    case = Case(srt.parse("attend causal"), steps=40)

    def told(**changed: Tensor) -> BlockMask:
        honest = plan_of(case).to_flex()
        for name, value in changed.items():
            getattr(honest, name).copy_(value)
        return honest

    agrees_with(attended(case), told())
    with pytest.raises(AssertionError, match="no listed tile"):
        agrees_with(attended(case), told(full_kv_num_blocks=torch.tensor(0), full_q_num_blocks=torch.tensor(0)))
    with pytest.raises(AssertionError, match="lacks a pair"):
        agrees_with(attended(case), told(full_kv_num_blocks=torch.tensor([1, 1, 1]), full_q_num_blocks=torch.tensor([3, 0, 0]), full_q_indices=torch.arange(3)))


def test_lists_are_those_of_create_block_mask():
    case = Case(srt.parse("attend causal and window(21)"), steps=100)
    ours = plan_of(case).to_flex()
    theirs = create_block_mask(ours.mask_mod, None, None, 100, 100, device="cpu", BLOCK_SIZE=TILE)
    assert torch.equal(ours.to_dense(), theirs.to_dense()) and ours.shape == theirs.shape and ours.BLOCK_SIZE == theirs.BLOCK_SIZE
    assert torch.equal(ours.full_kv_num_blocks, theirs.full_kv_num_blocks)  # type: ignore[arg-type]


def test_heads_and_rows_that_share_a_mask_share_its_lists():
    def shape(text: str, **options: Any) -> tuple[int, ...]:
        return tuple(plan_of(Case(srt.parse(text), steps=40, heads=4, **options)).to_flex().kv_indices.shape[:2])

    assert shape("attend causal") == (1, 1)
    assert shape("attend causal or head % 2 == 0") == (1, 4)
    assert shape("attend causal", batch=2, lengths=(3, 40)) == (2, 1)
    assert shape("attend causal and head < 2", batch=2, lengths=(3, 40)) == (2, 4)


def test_compact_lists_hold_the_same_tiles():
    plan = srt.compile(srt.parse("attend causal and window(200)"), tile=128).plan(3000)
    wide, narrow = plan.to_flex(device="cpu"), plan.to_flex(device="meta", compact=True)
    assert wide.kv_indices.shape[-1] == 24 and narrow.kv_indices.shape[-1] == 3
    assert narrow.full_kv_indices is not None and narrow.full_kv_indices.shape[-1] == 1


def test_what_is_not_exported_says_why():
    def refused(words: str, text: str = "attend causal", tokens: int = 40, tile: int = TILE, **options: Any) -> None:
        with pytest.raises(srt.InputError, match=words):
            srt.compile(srt.parse(text), tile=tile).plan(tokens).to_flex(**options)

    refused(r"gradient rules for k, v.*gradients='drop'", "attend causal\nstop k, v where k.pos == 0")
    refused(r"gradient rules for q", "attend causal\nscale q by 1 / 2")
    refused(r"one of 'refuse', 'drop'; got 'keep'", gradients="keep")
    refused(r"tiles of 128 tokens, or a multiple; this plan has 16.*tile=128", device="meta")
    refused("full width", compact=True, device="cpu")
    refused("device is a torch.device", device="gpu7x")
    if not torch.cuda.is_available():
        refused("torch finds no cuda here: .*Name another device=", device="cuda", tile=128)
    refused("at least one row", tokens=0)
    refused(r"take 16.0 GiB at full width; at most 8 GiB.*compact=True", tokens=2**19, tile=16)
    refused("cannot follow a power of a pair", "attend q.pos ** k.pos > 5")
    assert srt.compile(srt.parse("attend causal"), tile=128).plan(300).to_flex(device="meta").kv_indices.is_meta


# ------------------------------------------------------------------------------------------------ dense, intervals


@given(whole())
def test_dense_and_intervals_are_the_reference(case: Case):
    plan, mask = plan_of(case), attended(case)
    assert torch.equal(plan.to_dense(), mask)
    rebuilt = torch.zeros_like(mask)
    for found in plan.intervals():
        assert found.ptr.dtype is found.start.dtype is found.end.dtype is torch.int32
        assert bool((found.start < found.end).all())
        touch = found.start[1:] <= found.end[:-1]
        inner = torch.ones(max(0, len(found.start)), dtype=torch.bool)
        inner[found.ptr[:-1].long()[found.ptr[:-1] < len(found.start)]] = False  # the first of a query has none before it
        assert not bool((touch & inner[1:]).any()), "intervals of a query overlap or touch"
        own = found.to_dense()
        assert int(own.sum()) == found.pairs
        for b in found.batch:
            for h in found.heads:
                rebuilt[b, h, : found.queries, : found.keys] = own
    assert torch.equal(rebuilt, mask)


def test_intervals_of_neighbouring_queries_stay_apart():
    """A query's last key beside the next query's first."""
    spec = srt.parse("attend k.pos // 16 == q.pos % 2")
    (found,) = srt.compile(spec, tile=16).plan(32).intervals()
    assert len(found.start) == 32 and torch.equal(found.to_dense(), srt.dense(spec, steps=32).attend[0, 0])


@pytest.mark.parametrize(("text", "each"), [("attend causal", 1), ("attend causal and window(50)", 1), ("attend causal and (window(50) or first(2))", 2)])
def test_regular_masks_have_few_intervals(text: str, each: int):
    (found,) = srt.compile(srt.parse(text), tile=128).plan(4000).intervals()
    counts = found.ptr.diff()
    assert int(counts.max()) == each and int(counts.min()) == 1
    assert found.nbytes <= 4 * (4001 + 2 * each * 4000) and "pairs" in repr(found)


def test_intervals_beyond_any_memory_are_refused(monkeypatch):
    monkeypatch.setattr("srt_masks.compiler.intervals.MOST_INTERVALS", 1000)
    with pytest.raises(srt.InputError, match="more than 1,000 intervals"):
        srt.compile(srt.parse("attend (q.pos + k.pos) % 2 == 0"), tile=16).plan(300).intervals()


# ------------------------------------------------------------------------------------------------ shard

TEXTS = {
    "causal": "attend causal",
    "window": "attend causal and window(100)",
    "documents": "input doc: int per token\nattend causal and same(doc)",
    "stopped": "attend causal\nstop k, v where q.pos - k.pos > 200\nstop q where q.pos < 1000",
    "values": "attend causal\nstop v where q.pos - k.pos > 300",
    "keys": "attend causal\nstop k, q where q.pos - k.pos > 300",
    "heads": "attend causal and (head == 0 or window(64))",
}


def large(name: str) -> Plan:
    inputs = {"doc": srt.documents(lengths=[700, 3, 1500, 17, 900, 980])["doc"]} if name == "documents" else {}
    return srt.compile(srt.parse(TEXTS[name]), tile=32).plan(4100, heads=2, inputs=inputs)


@pytest.mark.parametrize("world", [1, 2, 3, 8, 200])
@pytest.mark.parametrize("name", TEXTS)
def test_shards_divide_queries_and_work(name: str, world: int):
    plan = large(name)
    shards = [plan.shard(rank, world) for rank in range(world)]
    queries = torch.cat([s.queries for s in shards])
    assert torch.equal(queries.sort().values, torch.arange(4100))
    dense = plan.to_dense().any(0).any(0)
    for s in shards:
        assert set(dense[s.queries].any(0).nonzero().flatten().tolist()) <= set(s.keys.tolist())
        assert abs(len(s.rows) - len(shards[0].rows)) <= 1 and s.every_work == shards[0].every_work and s.every_work[s.rank] == s.work
    works = [s.work for s in shards]
    assert max(works) - min(works) <= shards[0].most + 1e-9
    assert sum(works) == pytest.approx(total_work(plan))
    assert shards[0].imbalance == pytest.approx(max(works) * world / sum(works)) and f"rank 0 of {world}" in str(shards[0])


def total_work(plan: Plan) -> float:
    """Counted anew: by consumer, key-major for the gradients of keys and values."""
    work = 0.0
    for group in plan.groups:
        share = len(group.batch) * len(group.heads)
        for consumer, gate in ((Consumer.FORWARD, ""), (Consumer.DQ, "q"), (Consumer.DKV, "kv")):
            runs = group.runs(consumer)
            for count, kind in zip(runs.count.tolist(), runs.kind.tolist(), strict=True):
                live = [(kind >> {"q": 1, "k": 3, "v": 5}[x]) & 3 != 0 for x in gate]
                products = {"": 2, "q": 3, "kv": 4 if all(live) else 3 if live and live[0] else 2}[gate]
                work += share * count * products * (1.13 if kind & 1 else 1.0)
    return work


@pytest.mark.parametrize("name", ["causal", "window", "documents", "stopped"])
def test_ranks_are_close_to_even(name: str):
    plan = large(name)
    assert plan.shard(0, 4).imbalance < 1.05


@given(st.lists(st.floats(0, 100), max_size=40), st.integers(1, 9))
def test_the_gap_between_ranks_is_at_most_the_heaviest_row(work: list[float], world: int):
    rows = torch.tensor(work, dtype=torch.float64)
    dealt = deal(rows, world)
    assert sorted(torch.cat(dealt).tolist()) == list(range(len(work)))
    loads = [float(rows[r].sum()) for r in dealt]
    assert max(loads) - min(loads) <= max(work, default=0) + 1e-9
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


def test_the_heaviest_of_a_round_goes_to_the_rank_with_least():
    assert [r.tolist() for r in deal(torch.tensor([4.0, 3.0, 2.0, 1.0]), 2)] == [[0, 3], [1, 2]]
    assert [r.tolist() for r in deal(torch.tensor([1.0, 9.0, 5.0, 6.0, 2.0, 7.0]), 3)] == [[0, 1], [4, 5], [2, 3]]


def test_a_deal_is_better_than_contiguous_stretches():
    plan = large("causal")
    work = work_of_rows(plan.groups[0])
    stretches = [float(x.sum()) for x in work.chunk(4)]
    assert max(stretches) * 4 / sum(stretches) > 1.5 > 1.01 > plan.shard(0, 4).imbalance


def test_a_shard_shows_itself_in_one_line():
    shard = srt.compile(srt.parse("attend causal"), tile=TILE).plan(5000).shard(0, 2)
    assert repr(shard) == f"<Shard {shard}>" and "\n" not in repr(shard)


@pytest.mark.parametrize(
    ("rank", "world", "words"),
    [
        (2, 2, "from 0 to world - 1"),
        (-1, 2, "from 0"),
        (0, 0, "how many ranks there are, 1 or more; got 0"),
        (True, 2, "whole number"),
        (0, 1.5, "whole number"),
    ],
)
def test_ranks_that_are_not_there(rank: Any, world: Any, words: str):
    with pytest.raises(srt.InputError, match=words):
        large("causal").shard(rank, world)


@pytest.mark.parametrize("queries", [range(30, 51), range(0, 16), range(69, 70)])
def test_some_queries_alone_are_exported(queries: range):
    """Chunked prefill and decoding: q holds some positions, and FlexAttention counts its rows from 0."""
    text = "input doc: int per token\nattend causal and (same(doc) or window(9))"
    inputs = {"doc": torch.arange(70) // 17}
    plan = srt.compile(srt.parse(text), tile=TILE).plan(70, queries=queries, inputs=inputs)
    whole = srt.dense(srt.parse(text), steps=70, inputs=inputs).attend
    mask = whole[..., queries.start : queries.stop, :]
    agrees_with(mask, plan.to_flex())
    assert torch.equal(plan.to_dense(), mask) and torch.equal(plan.intervals()[0].to_dense(), mask[0, 0])
    shards = [plan.shard(rank, 2) for rank in range(2)]
    assert torch.equal(torch.cat([s.queries for s in shards]).sort().values, torch.arange(len(queries)))


@pytest.mark.parametrize("order", ["natural", "by role"])
def test_shards_are_tokens_of_the_caller_in_any_order(order: str):
    text = "layout repeat { token, reason * 4 }\nattend causal and not (k is reason and q.step - k.step > 3)"
    plan = srt.compile(srt.parse(text), tile=32, order=order).plan(2000)
    assert [g.order is None for g in plan.groups] == [order == "natural"]
    shards = [plan.shard(rank, 3) for rank in range(3)]
    assert torch.equal(torch.cat([s.queries for s in shards]).sort().values, torch.arange(2000))
    dense = plan.to_dense()[0, 0]
    for s in shards:
        assert set(dense[s.queries].any(0).nonzero().flatten().tolist()) <= set(s.keys.tolist())
    assert sum(s.work for s in shards) == pytest.approx(total_work(plan))
