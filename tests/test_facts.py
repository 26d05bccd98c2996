"""Facts: what is stated with an input or a param (`given`) is read, kept, and held to every call."""

from __future__ import annotations

import pytest

import srt_masks as srt
from srt_masks.grammar import checked as c

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
            assert str(error.value).startswith(f"param `n` is {n}; the text says `given {fact[:20]}") and str(error.value).endswith("(line 4)")
