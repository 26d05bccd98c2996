"""The reference against what is written out by hand: layouts, words, totals, gates, and attention itself."""

from __future__ import annotations

import math

import pytest
import torch

import srt_masks as srt
from srt_masks.grammar.checked import Op
from srt_masks.reference.attention import attention
from srt_masks.reference.masks import apply, power


def rows(mask: torch.Tensor) -> list[str]:
    return ["".join("#" if x else "." for x in row) for row in mask.reshape(mask.shape[-2:]).tolist()]


def test_sections_steps_and_slots():
    spec = srt.parse(
        "layout sink * 2, repeat { word, note * 2, word }, repeat 2 { word }\ndata word\nattend full\nposition pos\npredict note -> index + slot where slot == 1"
    )
    table = srt.tokens(spec, steps=2)
    assert table.role == ("sink", "sink", "word", "note", "note", "word", "word", "note", "note", "word", "word", "word")
    assert table.section.tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2]
    assert table.step.tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 1]
    assert table.slot.tolist() == [0, 1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0]
    assert table.index.tolist() == [-1, -1, 0, 0, 0, 1, 2, 2, 2, 3, 4, 5]
    assert table.target.tolist() == [-1, -1, -1, -1, 1, -1, -1, -1, 3, -1, -1, -1]
    assert table.weight.tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]
    assert str(table).splitlines()[0].split() == ["pos", "section", "step", "slot", "role", "index", "position", "asks", "target", "weight"]


def test_the_rule_of_self_reasoning():
    spec = srt.parse("layout repeat { token, reason }\nlet soon = k is reason and 0 < q.step - k.step <= 1\nattend causal\nstop k, v where soon")
    masks = srt.dense(spec, steps=3)
    assert rows(masks.attend) == ["#.....", "##....", "###...", "####..", "#####.", "######"]
    stopped = (masks.gate_k == 0) & masks.attend
    assert rows(stopped) == ["......", "......", ".#....", ".#....", "...#..", "...#.."]
    assert torch.equal(masks.gate_k, masks.gate_v) and bool((masks.gate_q == 1).all()) and bool((masks.gate_hidden == 1).all())


@pytest.mark.parametrize(("text", "picture"), [
    ("attend window(2)", ["##..", "###.", ".###", "..##"]), ("attend causal and window(2)", ["#...", "##..", ".##.", "..##"]), ("attend diagonal", ["#...", ".#..", "..#.", "...#"]),
    ("attend first(1) or dilated(2, 2)", ["#.#.", "##.#", "#.#.", "##.#"]), ("attend causal implies diagonal", ["####", ".###", "..##", "...#"]),
    ("attend k.pos in {0, q.pos}", ["#...", "##..", "#.#.", "#..#"]), ("attend k.pos not in {0, q.pos}", [".###", "..##", ".#.#", ".##."]),
    ("attend any(k.pos == q.pos - s for s in {1, 3})", ["....", "#...", ".#..", "#.#."]), ("attend all(k.pos != s for s in range(1, 3))", ["#..#"] * 4),
    ("attend any(full for s in range(0))", ["...."] * 4), ("attend k.pos < 2 if q.pos == 0 else k.pos == 3", ["##..", "...#", "...#", "...#"]),
    ("attend role[k.pos - 1] is token", [".###"] * 4), ("attend role[k.pos - 1] is not token", ["#..."] * 4), ("let b = pos // 2\nattend b[q.pos + 1] == k.b", ["##..", "..##", "..##", "##.."]),
    ("attend clamp(q.pos, 1, 2) == k.pos", [".#..", ".#..", "..#.", "..#."]), ("attend q.pos // -2 == k.pos - 2", ["..#.", ".#..", ".#..", "#..."]),
    ("attend -q.pos % 3 == k.pos", ["#...", "..#.", ".#..", "#..."]), ("param z = 0\nattend q.pos // z == k.pos", ["#..."] * 4),
    ("attend k.pos == length - 1 or k.pos == steps // 4 - 1", ["#..#"] * 4), ("let f(a, n) = q.a + n == k.a\nattend f(pos, 1)", [".#..", "..#.", "...#", "...."]),
    ("param window = 2\nattend k.pos < window", ["##.."] * 4), ("attend not true != (k.pos == 0)", ["#..."] * 4), ("let z = pos * 0\nattend z[q.pos - k.pos] == 0 and role[q.pos - k.pos] is token", ["#...", "##..", "###.", "####"]),
    ("let one = 1\nlet t = pos * 0 + one\nattend t[q.pos - k.pos] == one", ["#...", "##..", "###.", "####"]),
])  # fmt: skip
def test_words_mean_what_they_say(text: str, picture: list[str]):
    spec = srt.parse(text)
    assert rows(srt.dense(spec, steps=4).attend) == picture
    assert rows(srt.compile(spec, tile=16).plan(4).to_dense()) == picture


def test_inputs_on_every_axis():
    text = """
    input t: int per token  input s: int per step  input h: int per head  input l: int per layer  input one: int
    input p: bool per query, key  input table: int[n, 2] per head  input per_token: bool[m] per token
    layout repeat { a, b }
    attend (q.t == k.t or p) and k.s > h + l + one and table[k.step, 1] == 0 and q.per_token[k.slot]
    """
    spec = srt.parse(text)
    generator = torch.Generator().manual_seed(3)

    def whole(*shape):
        return torch.randint(0, 3, shape, generator=generator)

    inputs = {
        "t": whole(6),
        "s": whole(3),
        "h": whole(2),
        "l": whole(2),
        "one": torch.tensor(-2),
        "p": whole(6, 6) > 1,
        "table": whole(2, 2, 2) // 2,
        "per_token": whole(6, 1) > 0,
    }
    dense = srt.dense(spec, steps=3, heads=2, layers=2, inputs=inputs).attend
    for layer in range(2):
        for head in range(2):
            for i in range(6):
                for j in range(6):
                    table = inputs["table"][head, j // 2, 1] if j // 2 < 2 else 0
                    expected = (
                        bool(inputs["t"][i] == inputs["t"][j] or inputs["p"][i, j])
                        and bool(inputs["s"][j // 2] > inputs["h"][head] + inputs["l"][layer] - 2)
                        and bool(table == 0)
                        and bool(inputs["per_token"][i, 0])  # slots of a and b are both 0
                    )
                    assert dense[layer, head, i, j] == expected


def test_gates_multiply_and_order_does_not_matter():
    a = "attend full\nscale q, k by 0.5 where k.pos == 0\nscale k by -2 where q.pos == 0\nstop v where q.pos == k.pos"
    b = "attend full\nstop v where q.pos == k.pos\nscale k by -2 where q.pos == 0\nscale q, k by 0.5 where k.pos == 0"
    first, second = (srt.dense(srt.parse(t), steps=2) for t in (a, b))
    assert first.gate_q[0, 0].tolist() == [[0.5, 1.0], [0.5, 1.0]]
    assert first.gate_k[0, 0].tolist() == [[-1.0, -2.0], [0.5, 1.0]]
    assert first.gate_v[0, 0].tolist() == [[0.0, 1.0], [1.0, 0.0]]
    assert all(torch.equal(getattr(first, g), getattr(second, g)) for g in ("gate_q", "gate_k", "gate_v"))


def test_whole_numbers_floor_and_wrap():
    values = [-(2**63), -7, -1, 0, 1, 3, 2**63 - 1]
    for x in values:
        for y in values:
            a, b = torch.tensor(x), torch.tensor(y)
            wrapped = lambda n: (n + 2**63) % 2**64 - 2**63  # noqa: E731
            assert apply(Op.FLOORDIV, [a, b]).item() == (wrapped(x // y) if y else 0)
            assert apply(Op.MOD, [a, b]).item() == (x % y if y else 0)
            assert apply(Op.ADD, [a, b]).item() == wrapped(x + y)
            assert apply(Op.MUL, [a, b]).item() == wrapped(x * y)
            if -9 < y < 70:
                assert power(a, b).item() == (wrapped(x**y) if y >= 0 else 0)


def test_lengths_lay_each_row_out_for_itself():
    spec = srt.parse("layout repeat { a }, repeat { b }\nattend k is b and k.pos < length and steps > 1\nposition pos")
    masks = srt.dense(spec, steps=3, lengths=[6, 4, 2])
    assert masks.attend.shape == (3, 1, 1, 6, 6) and masks.position.shape == (3, 6)
    assert rows(masks.attend[0]) == ["...###"] * 6
    assert rows(masks.attend[1]) == ["..##.."] * 4 + ["......"] * 2
    assert rows(masks.attend[2]) == ["......"] * 6


def test_attention_is_softmax_attention_where_nothing_is_gated():
    q, k, v = (torch.randn(2, 3, 9, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    causal = torch.ones(9, 9).tril().bool()
    out, lse = attention(q, k, v, causal, *[torch.ones(1, 1)] * 3)
    plain = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    scores = (q @ k.transpose(-1, -2) / 2).masked_fill(~causal, -math.inf)
    torch.testing.assert_close(out, plain)
    torch.testing.assert_close(lse, scores.logsumexp(-1))
    w = torch.randn_like(out)
    for a, b in zip(torch.autograd.grad(out, (q, k, v), w), torch.autograd.grad(plain, (q, k, v), w), strict=True):
        torch.testing.assert_close(a, b)


def test_a_gate_is_a_blend_with_detach():
    """On one pair, by finite differences: only the path through that pair is scaled."""
    q, k, v = (torch.randn(1, 1, 3, 2, dtype=torch.float64) for _ in range(3))
    gate = torch.ones(3, 3, dtype=torch.float64)
    gate[2, 0] = 0.25
    one = torch.ones(1, 1)
    leaf = k.clone().requires_grad_()
    out, _ = attention(q, leaf, v, torch.ones(3, 3).tril().bool(), one, gate, one)
    w = torch.randn_like(out)
    (found,) = torch.autograd.grad(out, leaf, w)

    def objective(row: int, changed: torch.Tensor) -> float:
        result, _ = attention(q, changed, v, torch.ones(3, 3).tril().bool(), one, one, one)
        return float((result * w)[0, 0, row].sum())

    for dim in range(2):
        total = 0.0
        for row in range(3):
            up, down = k.clone(), k.clone()
            up[0, 0, 0, dim] += 1e-5
            down[0, 0, 0, dim] -= 1e-5
            total += gate[row, 0].item() * (objective(row, up) - objective(row, down)) / 2e-5
        assert abs(total - found[0, 0, 0, dim].item()) < 1e-8


def test_gates_never_change_a_value():
    q, k, v = (torch.randn(1, 1, 5, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    ones = torch.ones(1, 1)
    plain = attention(q, k, v, torch.ones(5, 5).bool(), ones, ones, ones)[0]
    for gate in (0.0, 0.3, -7.0, 1e18):
        assert torch.equal(plain, attention(q, k, v, torch.ones(5, 5).bool(), gate * ones, gate * ones, gate * ones)[0])


def test_heads_are_worked_in_chunks(monkeypatch):
    from srt_masks.reference import attention as module

    q, k, v = (torch.randn(2, 4, 9, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    whole = torch.autograd.grad(attention(q, k, v, torch.ones(9, 9).bool(), *[torch.ones(1, 1)] * 3)[0].square().sum(), (q, k, v))
    monkeypatch.setattr(module, "CHUNK_NUMBERS", 1)
    parts = torch.autograd.grad(attention(q, k, v, torch.ones(9, 9).bool(), *[torch.ones(1, 1)] * 3)[0].square().sum(), (q, k, v))
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b)


def test_what_dense_refuses():
    spec = srt.parse("attend causal")
    with pytest.raises(srt.InputError, match="how many time steps"):
        srt.dense(spec)
    with pytest.raises(srt.InputError, match="GiB"):
        srt.dense(spec, steps=1_000_000)
    with pytest.raises(srt.InputError, match="speaks of heads"):
        srt.dense(srt.parse("attend causal and head == 0"), steps=2)
    with pytest.raises(srt.InputError, match="speaks of layers"):
        srt.dense(srt.parse("attend causal and layer == 0"), steps=2)
    for lengths, inputs, words in (
        ([3], {}, "1 steps and 1 tokens"),
        ([2, 4], {"t": torch.zeros(3, 4).long()}, "batch axis is 1 or 2"),
        (3, {}, "vector of whole numbers"),
    ):
        with pytest.raises(srt.InputError, match=words):
            srt.dense(
                srt.parse("layout repeat { a, b }\ninput t: int per token\nattend full"),
                steps=2,
                lengths=lengths,
                inputs={"t": torch.zeros(4).long(), **inputs},
            )
    with pytest.raises(srt.InputError, match="one length"):
        srt.dense(srt.parse("layout a * 3\nattend full"), steps=2)
