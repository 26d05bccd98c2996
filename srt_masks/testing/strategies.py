"""Hypothesis strategies for random specs: layouts, masks and gates that parse, check, and shrink towards `attend full`.

For sizes and inputs of a spec of yours see `drawing.py`.
"""

from __future__ import annotations

import torch
from hypothesis import strategies as st

from ..spec import Spec, parse
from .case import Case
from .drawing import cases_of

ROLES = ("word", "note", "sink")


@st.composite
def layouts(draw: st.DrawFn) -> str:
    """The text of a layout with a bare repeat: one to three sections."""
    rows = st.lists(st.tuples(st.sampled_from(ROLES), st.integers(1, 3)), min_size=1, max_size=3)
    repeat = "repeat { " + ", ".join(_row(*r) for r in draw(rows)) + " }"
    before = [_row(*r) for r in draw(st.lists(st.tuples(st.sampled_from(ROLES), st.integers(1, 4)), max_size=2))]
    after = draw(st.sampled_from(["", "repeat 2 { word, note }", "note * 2"]))
    return "layout " + ", ".join([*before, repeat, *([after] if after else [])])


def _row(role: str, count: int) -> str:
    return role if count == 1 else f"{role} * {count}"


def _numbers(side: str) -> st.SearchStrategy[str]:
    """Whole numbers about one side."""
    fields = [f"{side}.{a}" for a in ("pos", "step", "slot", "section", "doc", "rank", "block")]
    base = st.sampled_from(fields)
    return st.one_of(
        base, st.tuples(base, st.sampled_from(["//", "%", "+", "-", "*"]), st.integers(-3, 5)).map(lambda t: f"({t[0]} {t[1]} {_literal(t[2], t[1])})")
    )


def _literal(n: int, op: str = "") -> str:
    # A constant zero divisor is an error of the text.
    return str(n if n != 0 or op not in ("//", "%") else 2) if n >= 0 else f"({n})"


def _pair_numbers() -> st.SearchStrategy[str]:
    both = st.tuples(_numbers("q"), st.sampled_from(["-", "+", "*"]), _numbers("k")).map(lambda t: f"({t[0]} {t[1]} {t[2]})")
    more = st.tuples(both, st.sampled_from(["//", "%"]), st.sampled_from(["2", "3", "(-2)", "horizon"])).map(lambda t: f"({t[0]} {t[1]} {t[2]})")
    # Of some nothing is known before they are read: `edge`, what `jump` holds at a pair, a power.
    read = st.sampled_from(["edge", "jump[q.pos - k.pos]", "jump[edge]", "2 ** (q.step - k.slot)"])
    return st.one_of(both, both.map(lambda x: f"abs{x}"), more, read, st.just("max(q.pos, k.step)"), st.just("(q.rank if k is word else k.pos)"))


def masks() -> st.SearchStrategy[str]:
    """Pair conditions over the names that `specs` declares."""
    compared = st.tuples(
        st.one_of(_numbers("q"), _pair_numbers()), st.sampled_from(["<", "<=", "==", "!=", ">"]), st.one_of(_numbers("k"), st.integers(-2, 9).map(_literal))
    )
    atoms = st.one_of(
        st.sampled_from(
            ["full", "causal", "diagonal", "window(3)", "window(horizon)", "first(2)", "dilated(2, 3)", "same(doc)", "same(step)", "same(pos // 4)"]
        ),
        st.sampled_from(
            [
                "k is word",
                "q is not note",
                "k in {word, sink}",
                "k.open",
                "not q.open",
                "head % 2 == 0",
                "seen",
                "table[q.rank]",
                "grid[q.slot, k.rank]",
                "doc[k.pos + 1] == q.doc",
                "role[q.pos - 1] is note",
            ]
        ),
        compared.map(lambda t: " ".join(t)),
        _pair_numbers().flatmap(lambda x: st.sampled_from([f"table[{x}]", f"grid[{x}, 1]", f"grid[k.slot, {x}]"])),
        st.just("any(k.pos == q.pos - s * s for s in range(4))"),
    )

    def more(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.one_of(
            inner.map(lambda a: f"not ({a})"),
            st.tuples(inner, st.sampled_from(["and", "or", "implies"]), inner).map(lambda t: f"(({t[0]}) {t[1]} ({t[2]}))"),
            st.tuples(inner, inner, inner).map(lambda t: f"(({t[0]}) if ({t[1]}) else ({t[2]}))"),
        )

    return st.recursive(atoms, more, max_leaves=5)


def gates() -> st.SearchStrategy[str]:
    targets = st.sets(st.sampled_from("qkv"), min_size=1).map(lambda s: ", ".join(sorted(s)))
    factor = st.sampled_from(["0.5", "0", "trickle", "(k.step - q.step) / 4", "weights", "-1.5", "q.pos % 2"])
    stop = st.tuples(targets, masks()).map(lambda t: f"stop {t[0]} where {t[1]}")
    return st.one_of(stop, stop, st.tuples(targets, factor, masks()).map(lambda t: f"scale {t[0]} by {t[1]} where {t[2]}"), targets.map(lambda t: f"stop {t}"))


@st.composite
def cases(draw: st.DrawFn, most_steps: int = 12) -> Case:
    """A random spec with a size and inputs."""
    layout = draw(layouts())
    roles = [r for r in ROLES if r in layout]
    text = [
        "param horizon = 2", "param trickle = 0.25", layout,
        "input doc: int per token", "input rank: int per step", "input open: bool per token", "input seen: bool per query, key",
        "input edge: int per query, key", "input table: bool[n]", "input grid: bool[rows, columns]", "input jump: int[places]",
        "input weights: float per head, query, key", "let block = pos // 3",
        "attend " + draw(masks()), *draw(st.lists(gates(), max_size=3)),
    ]  # fmt: skip
    joined = "\n".join(text)
    for role in ROLES:
        if role not in roles:
            joined = joined.replace(role, roles[0]) if role != roles[0] else joined
    spec = parse(joined, params={"horizon": draw(st.integers(-1, 6)), "trickle": draw(st.sampled_from([0.0, 0.25, 1.0]))})
    steps = draw(st.integers(0, most_steps))
    heads = draw(st.integers(1, 3))
    tokens = spec.checked.queries.tokens(steps)
    longest = spec.checked.queries.longest(steps)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))

    def whole(most: int, *shape: int) -> torch.Tensor:
        return torch.randint(-1, most, shape, generator=generator)

    inputs = {
        "doc": whole(3, tokens).sort().values, "rank": whole(9, longest), "open": whole(3, tokens) > 0, "seen": whole(3, tokens, tokens) > 0,
        "edge": whole(6, tokens, tokens), "table": whole(2, draw(st.integers(0, 5))) > 0, "grid": whole(2, draw(st.integers(0, 4)), draw(st.integers(1, 4))) > 0,
        "jump": whole(6, draw(st.integers(0, 9))), "weights": torch.rand(heads, tokens, tokens, generator=generator),
    }  # fmt: skip
    return Case(spec, steps, heads, inputs=inputs)


@st.composite
def whole(draw: st.DrawFn) -> Case:
    """A random text of the whole language: the masks and gates of `cases`, and who asks, hidden gates, given layouts, positions, labels, claims, facts."""
    lines = draw(cases()).spec.text.splitlines()
    layout = next(i for i, line in enumerate(lines) if line.startswith("layout"))
    roles = [r for r in ROLES if r in lines[layout]]
    if draw(st.booleans()):
        lines[layout] = f"layout given {{ {', '.join(roles)} }}"
    more = [
        "queries where "
        + draw(st.sampled_from(["pos % 2 == 0", f"role is {roles[0]}", "pos >= length - 3", "slot < horizon", "role[pos + 1] is " + roles[-1]])),
        draw(st.sampled_from(["stop hidden where ", "scale hidden by trickle where ", "scale hidden, k by (q.pos - k.pos) / 3 where "]))
        + draw(_masks_of(roles)),
        f"data {roles[0]}\npredict {roles[-1]} -> index + 1 weight pos / 2 where slot == 0",
        "position 2 ** slot + step",
        "let level(x) = x // (layer + 1)\nstop q where level(q.pos) == level(k.pos)",
        "assert k.pos <= q.pos or " + draw(_masks_of(roles)),
    ]
    lines += draw(st.lists(st.sampled_from(more), unique=True, max_size=4))
    stated = {
        "input doc: int per token": "pos == 0 or doc[pos - 1] <= doc",
        "input rank: int per step": "-1 <= rank",
        "input seen: bool per query, key": "seen or q.pos != k.pos",
    }
    lines = [f"{line} given {stated[line]}" if line in stated and draw(st.booleans()) else line for line in lines]
    return draw(cases_of(parse("\n".join(lines)), most_tokens=24))


def _masks_of(roles: list[str]) -> st.SearchStrategy[str]:
    def known(text: str) -> str:
        for role in ROLES:
            text = text if role in roles else text.replace(role, roles[0])
        return text

    return masks().map(known)


def specs() -> st.SearchStrategy[Spec]:
    """Random specs of the whole language."""
    return whole().map(lambda case: case.spec)
