"""What must not matter: the second time, neighbours in the batch, padding, threads, gates in the forward, the order of rules."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from calls import ANY_BACKEND, ANY_BLOCK_SPARSE, BACKENDS, BLOCK_SPARSE, FEW, assert_near, assert_same_bits, call, qkv, run
from hypothesis import given
from hypothesis import strategies as st

import srt_masks as srt
from srt_masks.testing.strategies import Case, cases

TEXT = "attend causal and (window(9) or k.pos % 5 == 0)\nstop k where q.pos - k.pos > 3\nscale v by 0.5 where head == 1"

# ------------------------------------------------------------------------------------------------ the same call


@FEW
@given(ANY_BLOCK_SPARSE, cases(most_steps=5), st.sampled_from([torch.float64, torch.float32, torch.float16]))
def test_the_same_call_gives_the_same_bits(backend: str, case: Case, dtype: torch.dtype):
    """And so does another callable of the same text."""
    tensors, options, attend = case.tensors(dtype), {"inputs": dict(case.inputs)}, case.compile(backend)
    first = call(attend, tensors, **options)
    assert_same_bits(call(attend, tensors, **options), first)
    assert_same_bits(call(case.compile(backend), tensors, **options), first)


@pytest.mark.parametrize("backend", BLOCK_SPARSE)
def test_with_several_threads_it_is_the_same_every_time(backend: str):
    """Sums run in one order with one number of threads; with another number, within the bound."""
    tokens, tile = (300, 64) if backend == "tiled" else (17, 16)
    tensors = qkv(tokens, heads=2, key_heads=1, dim=16, dtype=torch.float32)
    alone = run(TEXT, backend, tensors, tile=tile)
    torch.set_num_threads(2)
    try:
        first = run(TEXT, backend, tensors, tile=tile)
        for _ in range(3):
            assert_same_bits(run(TEXT, backend, tensors, tile=tile), first)
    finally:
        torch.set_num_threads(1)
    assert_near(alone, first, 1e-5)


# ------------------------------------------------------------------------------------------------ neighbours and padding


@FEW
@given(ANY_BLOCK_SPARSE, cases(most_steps=5), st.sampled_from([torch.float64, torch.float32]))
def test_what_neighbours_hold_changes_no_bit(backend: str, case: Case, dtype: torch.dtype):
    """Other rows of the batch, and, where heads share no key head, other heads."""
    case = replace(case, batch=2)
    options, attend, tensors = {"inputs": dict(case.inputs)}, case.compile(backend), case.tensors(dtype)
    first, others = call(attend, tensors, **options), case.tensors(dtype, seed=case.seed + 1)
    mixed = [torch.cat([x[:1], 100 * y[1:]]) for x, y in zip(tensors, others, strict=True)]
    assert_same_bits(call(attend, mixed, **options).members(0), first.members(0))
    beside = [x.clone() for x in tensors]
    for x, y in zip(beside, others, strict=True):
        x[:, 1:] = 100 * y[:, 1:]
    found = call(attend, beside, **options)
    assert_same_bits(type(found)(*(x[:, :1] for x in found)), type(first)(*(x[:, :1] for x in first)))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("text", ["attend causal\nstop k where q.pos - k.pos > 3", "attend causal and window(5)"])
def test_scores_of_any_size_change_no_bit_of_rows_that_do_not_see_them(backend: str, text: str):
    """One query a thousand times as large, and one key: out, lse and dQ of the other rows, which may be worked out another way where scores are large."""
    tensors = qkv(40, heads=1, dtype=torch.float32)
    first = run(text, backend, tensors)
    for place, size in ((0, 1000.0), (1, 1000.0)):
        other = [x.clone() for x in tensors]
        other[place][:, :, 30] *= size
        found = run(text, backend, other)
        for x, y in ((found.out, first.out), (found.lse, first.lse), (found.dq, first.dq)):
            assert torch.equal(x[:, :, :30], y[:, :, :30])
            assert not torch.equal(x[:, :, 30], y[:, :, 30])


@FEW
@given(ANY_BACKEND, cases(most_steps=4), st.integers(0, 4), st.integers(1, 3))
def test_a_row_alone_is_the_row_in_a_batch_with_padding(backend: str, case: Case, short: int, batch: int):
    """Whatever stands in the padding: results of the row are those of the row alone, and behind its end there is nothing."""
    layout = case.spec.checked.queries
    if any(axis in ("query", "key") for declared in case.spec.checked.inputs for axis in declared.axes) and "length" in case.spec.text:
        return
    steps = min(short, case.steps or 0)
    alone, tokens = case.resized(steps), layout.tokens(steps)
    whole = replace(case, batch=batch, lengths=(tokens,) * batch)
    tensors = whole.tensors()
    # A row is laid out for its own length: its inputs are those of the row alone, and the rest is padding.
    inputs = {}
    for declared in case.spec.checked.inputs:
        wide, own = torch.as_tensor(case.inputs[declared.name]).clone(), torch.as_tensor(alone.inputs[declared.name])
        wide[tuple(slice(0, n) for n in own.shape)] = own
        inputs[declared.name] = wide
    found = call(whole.compile(backend), tensors, lengths=[tokens] * batch, inputs=inputs)
    wanted = call(alone.compile("reference"), [x[:1, :, :tokens] for x in tensors], inputs=dict(alone.inputs))
    assert_near(type(found)(*(x[:1, :, :tokens] for x in found)), wanted)
    for name, x in (("out", found.out), ("dq", found.dq), ("dk", found.dk), ("dv", found.dv)):
        assert bool((x[:, :, tokens:] == 0).all()), name


# ------------------------------------------------------------------------------------------------ rules


def without_rules(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith(("stop", "scale")))


@FEW
@given(ANY_BACKEND, cases(most_steps=5))
def test_gates_never_change_a_forward_value(backend: str, case: Case):
    """To the bit, where tokens are visited in one order."""
    plain = srt.parse(without_rules(case.spec.text), params={n: x for n, x in case.spec.params.items() if n in ("horizon", "trickle")})
    q, k, v, _ = case.tensors()
    results = [
        srt.compile(spec, heads=case.heads, backend=backend, tile=16, order="natural")(q, k, v, return_lse=True, inputs=dict(case.inputs))
        for spec in (case.spec, plain)
    ]
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


RULES = [
    "stop k where q.pos - k.pos > 3",
    "scale q, k by 0.5 where k.pos % 2 == 0",
    "scale k, v by -2 where q.pos % 3 == 0",
    "stop v where k.pos == 4",
    "scale v, q by 0.25",
]


@FEW
@given(ANY_BACKEND, st.permutations(RULES), st.integers(0, len(RULES)))
def test_rules_compose_by_product_in_any_order(backend: str, rules: list[str], count: int):
    """Powers of two, so that products are exact; and one rule by the product is two rules."""
    tensors = qkv(20)
    first = run("\n".join(["attend causal", *rules[:count]]), backend, tensors)
    assert_same_bits(run("\n".join(["attend causal", *reversed(rules[:count])]), backend, tensors), first)
    assert_near(first, run("\n".join(["attend causal", *sorted(rules[:count])]), "reference", tensors))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_stop_is_a_scale_by_0_and_two_scales_are_one(backend: str):
    tensors = qkv(20)
    for one, other in (
        ("stop k where q.pos - k.pos > 3", "scale k by 0 where q.pos - k.pos > 3"),
        ("scale q, v by 0.25 where k.pos % 2 == 0", "scale q, v by 0.5 where k.pos % 2 == 0\nscale v, q by 0.5 where k.pos % 2 == 0"),
        ("scale q, k, v by 1", ""),
        ("stop q where k.pos == 2\nscale q by 4 where k.pos == 2", "stop q where k.pos == 2"),
    ):
        assert_near(run(f"attend causal\n{one}", backend, tensors), run(f"attend causal\n{other}", backend, tensors), 1e-13)


@FEW
@given(ANY_BLOCK_SPARSE, cases(most_steps=5))
def test_everything_stopped_is_exactly_zero(backend: str, case: Case):
    stopped = srt.parse(case.spec.text + "\nstop q, k, v", params={n: x for n, x in case.spec.params.items() if n in ("horizon", "trickle")})
    found = call(replace(case, spec=stopped).compile(backend), case.tensors(), inputs=dict(case.inputs))
    assert all(bool((x == 0).all()) for x in (found.dq, found.dk, found.dv))
