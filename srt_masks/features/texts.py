"""What a text may say: one row for each statement, kind of expression and kind of input."""

from __future__ import annotations

from typing import Any

from .example import Effect, Example, Feature, Group

CAUSAL = "attend causal"
PAIRS = [[(3 * q + 5 * k) % 7 / 6 for k in range(20)] for q in range(20)]  # a number for every query and key
FLAGS = [[(3 * q + 5 * k) % 7 < 3 for k in range(20)] for q in range(20)]
DOCS = [0] * 6 + [1] * 9 + [2] * 5
ROLES = {"role": ["word", "word", "thought", "thought"] * 5, "step": [i // 4 for i in range(20)], "slot": [0, 1, 0, 1] * 5}


def says(name: str, words: str, text: str, without: str | None = CAUSAL, effect: Effect = Effect.CHANGES, **example: Any) -> Feature:
    """A row about a text; `without` is the same call of another text, unless it is None: then that of CAUSAL with no arguments."""
    mine = Example(text, **example)
    other = Example() if without is None else Example(without, **{n: v for n, v in example.items() if n != "call"})
    return Feature(name, words, mine, other, effect)


def given(name: str, words: str, text: str, value: Any, instead: Any, **example: Any) -> Feature:
    """A row about an input `x`; without it is the same text on other numbers, which a backend that reads none would not tell apart."""
    more = example.pop("call", {})
    return Feature(name, words, Example(text, call={"x": value, **more}, **example), Example(text, call={"x": instead, **more}, **example))


STATEMENTS = Group(
    "statements",
    (
        says("attend", "who sees whom", CAUSAL, "attend full"),
        says("stop q", "the gradient into the query is stopped on some pairs", f"{CAUSAL}\nstop q where q.pos - k.pos > 2"),
        says("stop k", "into the key", f"{CAUSAL}\nstop k where q.pos - k.pos > 2"),
        says("stop v", "into the value", f"{CAUSAL}\nstop v where q.pos - k.pos > 2"),
        says("stop k, v apart", "k and v by different rules", f"{CAUSAL}\nstop k where q.pos - k.pos > 2\nstop v where k.pos < 5", f"{CAUSAL}\nstop k, v where q.pos - k.pos > 2"),
        says("stop hidden", "into the state that k and v are projected from", f"{CAUSAL}\nstop hidden where k.pos < 5"),
        says("scale by a number", "a gradient in part", f"{CAUSAL}\nscale k by 0.5 where q.pos - k.pos > 2"),
        says("scale by what a pair says", "a factor computed for every pair", f"{CAUSAL}\nscale q, v by 1 / (1 + q.pos - k.pos)"),
        says("scale by an input", "a factor given for every pair", f"input x: float per query, key\n{CAUSAL}\nscale v by x", call={"x": PAIRS}),
        says("layout", "roles, steps and slots", "layout repeat { token, reason * 3 }\nattend causal and not (k is reason and k.step < q.step)"),
        says("sections", "a layout of several parts", "layout prefix * 4, repeat { token }\nattend causal or k is prefix", "layout prefix * 4, repeat { token }\nattend causal"),
        Feature(
            "layout given", "role, step and slot given at the call",
            Example("layout given { word, thought }\nattend causal and not (k is thought and k.step < q.step)", call={"given": ROLES}),
            Example("layout given { word, thought }\nattend causal", call={"given": ROLES}),
        ),
        says(
            "two layouts", "queries and keys of two sequences", "queries layout repeat { a }\nkeys layout repeat { b * 2 }\nattend k.step <= q.step",
            "queries layout repeat { a }\nkeys layout repeat { b * 2 }\nattend full", queries=12, keys=20,
        ),
        says("queries where", "only some tokens ask", "queries where pos % 2 == 1\nattend causal", "queries where pos % 2 == 0\nattend causal", queries=10),
        says("let", "names, of tokens and of pairs", "let block = pos // 4\nlet near(n) = abs(q.pos - k.pos) < n\nattend same(block) or near(2)"),
        says(
            "position, predict, assert", "for models, tests and proofs: attention is the same without",
            "layout repeat { token }\nattend causal\nposition step // 2\npredict token -> index + 1\nassert every query attends", effect=Effect.SAME,
        ),
    ),
)  # fmt: skip

EXPRESSIONS = Group(
    "expressions",
    (
        says("arithmetic", "whole numbers of 64 bits; // and % floor", "attend (k.pos - q.pos) // 3 >= -2 and (q.pos - k.pos) % 5 != 3"),
        says("large numbers", "beyond 32 bits", "attend causal and q.pos * 10000000000 - k.pos * 10000000000 < 45000000000"),
        says("heads that differ", "`head`, also with grouped heads", "attend causal and (head == 0 or window(3))", heads=4),
        says("layers that differ", "`layer`", "attend causal and (layer == 0 or window(3))", "attend causal", options={"layers": 2}, call={"layer": 1}),
        says("length, steps", "of the row itself", "attend causal and k.pos >= length // 4 and k.step < steps - 2"),
        says("any, all over few", "up to some dozens", "attend any(q.pos - k.pos == s * s for s in range(4))\nstop v where all(k.pos != 2 * s for s in range(5))"),
        says("any, all over many", "hundreds", "attend any(q.pos - k.pos == s * s for s in range(300))"),
        says("lookup by a token", "`T[q.pos]`", f"input x: int per token\n{CAUSAL} and q.pos - k.pos < x[q.pos // 2]", call={"x": DOCS}),
        says("lookup by a pair", "`T[q.pos - k.pos]`", f"input x: int[n]\n{CAUSAL} and x[q.pos - k.pos] < 2", call={"x": DOCS}),
        says("lookup, grouped heads", "more registers still", f"input x: int[n]\n{CAUSAL} and x[q.pos - k.pos] < 2", call={"x": DOCS}, heads=4),
        says("table of two axes", "`T[q.block, k.block]`", f"input x: bool[n, n]\nlet block = pos // 4\n{CAUSAL} and (x[q.block, k.block] or same(block))", call={"x": [r[:5] for r in FLAGS[:5]]}),
        says("at a position", "an attribute of another token", f"layout repeat {{ a, b * 3 }}\n{CAUSAL} and role[q.pos - k.pos] is b", "layout repeat { a, b * 3 }\nattend causal"),
        says("floats compared", "in float64", f"input x: float per token\n{CAUSAL} and q.x - k.x <= 0.25", call={"x": [i % 5 / 4 for i in range(20)]}),
        says("a long rule", "hundreds of operations at every pair", "attend " + " or ".join(f"q.pos - k.pos == {i * i}" for i in range(200))),
    ),
)  # fmt: skip

INPUTS = Group(
    "inputs",
    (
        given("int per token", "documents, for one", f"input x: int per token\n{CAUSAL} and same(x)", DOCS, [0] * 20),
        given("bool per token", "padding, for one", f"input x: bool per token\n{CAUSAL} and k.x", [i % 4 != 1 for i in range(20)], [True] * 20),
        given("per step", "one for each time step", f"layout repeat {{ a, b }}\ninput x: int per step\n{CAUSAL} and same(x)", DOCS[::2], [0] * 10),
        given("per query, key", "a mask given whole", "input x: bool per query, key\nattend x", FLAGS, [[True] * 20] * 20),
        given("per head", "a number for each", f"input x: int per head\n{CAUSAL} and q.pos - k.pos < x", [3, 9], [9, 9]),
        given("per layer", "a number for each", f"input x: int per layer\n{CAUSAL} and q.pos - k.pos < x", [9, 3], [9, 9], options={"layers": 2}, call={"layer": 1}),
        given("per sequence", "one number", f"input x: int per sequence\n{CAUSAL} and q.pos - k.pos < x", 3, 9),
        given("by row of the batch", "with a batch axis", f"input x: int per token\n{CAUSAL} and same(x)", [DOCS, DOCS[::-1]], [DOCS, DOCS]),
        given("without an axis of tokens", "a table of a size of its own", f"input x: bool[n]\n{CAUSAL} and x[k.pos // 8]", [True, False, True], [True, True, True]),
    ),
)  # fmt: skip
