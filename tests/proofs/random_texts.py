"""Random small texts with one claim, each known by its seed: of every kind of claim, over layouts, roles, inputs, facts, params, heads and layers."""

from __future__ import annotations

import random
from dataclasses import dataclass

LAYOUTS = (
    "", "", "", "layout repeat { a, b }", "layout repeat { a, b * 2 }", "layout a * 2, repeat { b }", "layout repeat { a }, repeat { b }", "layout repeat 2 { a, b }, repeat { b }",
    "layout given { a, b }", "queries layout repeat { a } keys layout repeat { b }", "queries layout repeat { a } keys layout b * 2, repeat { a, b }",
)  # fmt: skip
FIELDS = ("pos", "pos", "pos", "step", "step", "slot", "section")
INPUTS = {  # by name: how it is declared, facts that may stand behind it
    "doc": ("int per {token}", ("0 <= doc", "doc <= pos", "doc % 2 == 0", "pos == 0 or doc[pos - 1] <= doc", "0 <= doc < 4")),
    "up": ("int per {token}", ("up <= pos", "0 <= up < pos + 1", "up > pos")),
    "open": ("bool per {token}", ("open or pos > 1", "not open or pos % 2 == 0")),
    "score": ("float per {token}", ("0.0 <= score <= 1.0", "score > 0.5 or pos == 0")),
    "seen": ("bool per query, key", ("seen implies k.pos <= q.pos", "seen or q.pos != k.pos")),
    "span": ("int per head", ("1 <= span", "span < 3")),
    "rank": ("int per step", ("0 <= rank", "rank < steps")),
    "linked": ("bool[n, n]", ()),
    "first_of": ("int", ("0 <= first_of", "first_of == 1")),
}  # fmt: skip
PARAMS = ("param w = {} ", "param w = {} given w > 0 ", "param w = {} given 0 <= w <= 3 ")
KINDS = ("", "", "no flow where", "no flow where", "no flow where", "no grad where", "no grad where", "flow where", "grad where")
HUGE = ("4611686018427387904", "9223372036854775807", "(-9223372036854775807)")


@dataclass(frozen=True)
class Words:
    """What the text of one seed may speak of."""

    r: random.Random
    roles: tuple[str, ...]
    inputs: tuple[str, ...]
    has_param: bool
    is_cross: bool
    has_layers: bool

    def number(self, side: str, depth: int = 1) -> str:
        """A whole number about a query or a key."""
        names = [f"{side}.{n}" for n in FIELDS] + [f"{side}.{n}" for n in ("doc", "up", "rank") if n in self.inputs] * 2
        if not self.is_cross and self.r.random() < 0.1:
            names += [f"{n}[{side}.pos {op} 1]" for n in ("step", *(x for x in ("doc", "up") if x in self.inputs)) for op in "+-"] * 3
        base = self.r.choice(names)
        if depth and self.r.random() < 0.3:
            by = self.r.choice(["2", "3", "(-2)", *(["w"] if self.has_param else []), *([self.r.choice(HUGE)] if self.r.random() < 0.1 else [])])
            return f"({base} {self.r.choice(['//', '%', '*', '+', '-'])} {by})"
        return base

    def size(self) -> str:
        names = ["0", "1", "2", "3", "1", "2", *(["w"] * 3 if self.has_param else []), *(["span"] * 2 if "span" in self.inputs else [])]
        return self.r.choice([*names, *(["first_of"] * 2 if "first_of" in self.inputs else []), *([] if self.is_cross else ["length", "steps"])])

    def atom(self) -> str:
        r, side = self.r, self.r.choice("qk")
        about = [
            "causal", "causal", "diagonal", "full", "window(2)", f"window({self.size()})", f"first({self.size()})", "same(step)", "k.pos < q.pos", "k.pos == q.pos - 1",
            f"q.pos - k.pos {r.choice(['==', '<', '>', '!=', '<='])} {self.size()}", f"(q.pos - k.pos) % {r.choice(['2', '3', *(['w'] if self.has_param else [])])} == {r.choice('01')}",
            f"{self.number('k')} {r.choice(['<', '<=', '==', '!=', '>'])} {self.number('q')}", f"{self.number(side)} {r.choice(['<', '==', '!=', '>='])} {self.size()}",
            f"same(pos // {r.choice('23')})", f"head {r.choice(['==', '!=', '<'])} {r.choice('01')}", "any(k.pos == q.pos - s * s for s in range(3))",
            f"2 ** {self.number(side, 0)} {r.choice(['>', '<=', '=='])} {r.choice('0248')}",
        ]  # fmt: skip
        if self.has_layers:
            about += [f"layer {r.choice(['==', '%'])} {r.choice(['0', '1'])}".replace("% 0", "% 2 == 0").replace("% 1", "% 2 == 1"), "layer < 2"] * 2
        if len(self.roles) > 1:
            about += [f"{side} is {r.choice(self.roles)}", f"{side} is not {r.choice(self.roles)}", f"k is {self.roles[0]}"] * 2
        for name, words in (
            ("doc", ["same(doc)", "k.doc <= q.doc", "q.doc == k.pos"]), ("up", ["k.pos == q.up", "k.up <= q.pos"]), ("open", [f"{side}.open", "k.open", "same(open)"]),
            ("score", [f"{side}.score > 0.5", f"not ({side}.score < 0.5)", f"{side}.score >= 0.25"]), ("seen", ["seen"]), ("span", ["window(span)", "q.pos - k.pos <= span"]),
            ("rank", ["k.rank < q.rank", "same(rank)"]), ("linked", [f"linked[{self.number('q', 0)}, {self.number('k', 0)}]"]), ("first_of", ["k.pos < first_of", "k.pos == first_of"]),
        ):  # fmt: skip
            if name in self.inputs and (name != "seen" or not self.is_cross):
                about += words * 4
        return r.choice(about)

    def mask(self, depth: int) -> str:
        if depth == 0 or self.r.random() < 0.25:
            return self.atom()
        a, b = self.mask(depth - 1), self.mask(depth - 1)
        shapes = (
            f"({a} and {b})",
            f"({a} and {b})",
            f"({a} or {b})",
            f"(causal and {a})",
            f"(not {a})",
            f"({a} if {b} else {self.atom()})",
            f"({a} implies {b})",
        )
        return self.r.choice(shapes)


def text_of(seed: int) -> str:
    """One claim, the last; a text that may yet be wrong: what does not parse is left out by the caller."""
    r = random.Random(seed)
    layout = r.choice(LAYOUTS)
    is_cross = layout.startswith("queries")
    names = tuple(r.sample(sorted(INPUTS), r.choice([0, 0, 1, 1, 2])))
    if is_cross or "given" in layout:
        names = tuple(n for n in names if n not in ("rank", "seen"))
    words = Words(r, ("a", "b") if layout else (), names, r.random() < 0.3, is_cross, r.random() < 0.25)
    parts = [r.choice(PARAMS).format(r.choice("123"))] if words.has_param else []
    parts.append(layout)
    for name in names:
        declared, facts = INPUTS[name]
        if is_cross and "token" in declared:
            declared = declared.replace("{token}", "{key}")
        fact = f" given {r.choice(facts)}" if facts and r.random() < 0.5 else ""
        parts.append(f"input {name}: {declared.format(token='token', key='key')}{fact}")
    if not is_cross and r.random() < 0.12:
        parts.append(f"queries where {r.choice(['pos > 0', 'pos % 2 == 0', 'step > 0', *(['role is a'] if layout else [])])}")
    base = words.mask(2)
    if words.has_layers:
        base = f"({base} if layer {r.choice(['== 0', '% 2 == 0', '== 1'])} else {words.mask(1)})"
    parts.append(f"attend {base}")
    for _ in range(r.choice([0, 0, 1, 2])):
        targets = r.choice(["k, v", "k, v", "k", "v", "q", "hidden", "q, k, v"])
        factor = r.choice(["0", "0.5", "0.0", *(["w"] if words.has_param else []), *(["q.score"] if "score" in names and not is_cross else [])])
        rule = f"stop {targets}" if r.random() < 0.8 else f"scale {targets} by {factor}"
        parts.append(f"{rule} where {words.mask(1)}")
    other = r.random()
    if not is_cross and other < 0.1 and layout:
        parts.append(
            f"data {r.choice(['a', 'b', 'a, b'])} predict {r.choice('ab')} -> index + {r.choice('012')} {r.choice(['', 'where pos > 1', 'where step % 2 == 0'])} assert no leak"
        )
    elif not is_cross and other < 0.13:
        parts.append(
            f"{'' if not layout else 'data a '}predict {'a' if layout else 'token'} -> {r.choice(['index + 1', 'index', 'pos - 1', 'step + 1'])} assert no leak"
        )
    elif other < 0.2:
        parts.append(f"assert {r.choice(['every query attends', 'cacheable'])}")
    else:
        parts.append(f"assert {r.choice(KINDS)} {base if r.random() < 0.06 else words.mask(r.choice([0, 1, 1, 2]))}")
    return " ".join(" ".join(parts).split())
