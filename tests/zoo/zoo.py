"""A zoo of attention layouts, masks and gradient rules: independent NumPy oracles for the texts of `examples/`.

Every entry is a `Scheme`; its text is the one that is shipped, by its name. `cases` are the sizes it is tried at (one sequence each, no batch axis);
`oracle(case)` builds, position by position and without looking at the text, a dict of
    attend            bool  (layers, heads, queries, keys), broadcastable to that shape
    q, k, v, hidden   float gates, same shape (absent = all ones)
    asks              bool  (queries,)            rows that query at all, where the text has `queries where`; the other rows of
                                                  attend are empty (an implementation that takes q without them drops them)
    position          int   (positions,)          absent = not checked
    target            int   (queries,)            data token each output is trained on, -1 = none; absent = not checked
    weight            float (queries,)            absent = not checked
Input arrays have the axes named after `per`, in that order, then the table's own axes.
`cases` are small enough to print; `large` ones span many tiles, some full, some empty. Gates only matter where attended.
Input arrays are plain numbers: cast them to the declared type. `steps` matters only where the text has a bare `repeat` or no layout.
`given` holds the run-time tensors of a `layout given`: role names, step and slot of each position.
"""

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Callable

import numpy as np

from srt_masks.schemes import text_of


@dataclass(frozen=True)
class Scheme:
    name: str
    cases: tuple
    oracle: Callable
    large: tuple = ()  # cases that span many tiles

    @property
    def text(self) -> str:
        return text_of(self.name)


def case(steps=8, heads=1, layers=1, params=None, inputs=None, given=None):
    return SimpleNamespace(
        steps=steps, heads=heads, layers=layers, params=params or {}, inputs={n: np.asarray(a) for n, a in (inputs or {}).items()}, given=given
    )


def rng(seed):
    return np.random.default_rng(seed)


def grid(nq, nk, rule, dtype=bool):
    """rule(i, j) for every query i and key j -> (1, 1, nq, nk)"""
    out = np.zeros((nq, nk), dtype)
    for i in range(nq):
        for j in range(nk):
            out[i, j] = rule(i, j)
    return out[None, None]


def grids(layers, heads, nq, nk, rule, dtype=bool):
    """rule(layer, head, i, j) -> (layers, heads, nq, nk)"""
    return np.stack([np.stack([grid(nq, nk, lambda i, j: rule(l, h, i, j), dtype)[0, 0] for h in range(heads)]) for l in range(layers)])


def tree_ends(n, seed):
    """A tree of n tokens in depth-first order, drawn at random: the last of each token's descendants."""
    draw, last, path = rng(seed), np.arange(n), [0]
    for token in range(1, n):
        while len(path) > 1 and draw.random() < 0.45:
            path.pop()
        path.append(token)
        last[path] = token
    return last


def keep(mask, rows):
    """only the rows in `rows` query; the others attend to nothing"""
    out = np.zeros_like(mask)
    out[:, :, rows] = mask[:, :, rows]
    return out


SCHEMES = []


def scheme(name, cases):
    def add(oracle):
        SCHEMES.append(Scheme(name, tuple(cases), oracle))
        return oracle

    return add


# ---------------------------------------------------------------------------------------------- plain shapes


@scheme("causal", [case(7), case(1)])
def _(c):
    return {"attend": np.tril(np.ones((c.steps, c.steps), bool))[None, None], "position": np.arange(c.steps)}


@scheme(
    "bert padding",
    [case(6, inputs={"valid": [1, 1, 1, 1, 0, 0]}), case(4, inputs={"valid": [1, 0, 1, 1]}), case(3, inputs={"valid": [0, 0, 0]})],
)
def _(c):
    return {"attend": np.repeat(c.inputs["valid"].astype(bool)[None], c.steps, 0)[None, None]}


@scheme(
    "prefix lm",
    [case(7, inputs={"prefix": 3}), case(5, inputs={"prefix": 0}), case(5, inputs={"prefix": 9})],
)
def _(c):
    m = np.tril(np.ones((c.steps, c.steps), bool))
    m[:, : int(c.inputs["prefix"])] = True
    return {"attend": m[None, None]}


@scheme(
    "sliding window",
    [case(9, params={"span": 3}), case(5, params={"span": 1}), case(4)],
)
def _(c):
    w = c.params.get("span", 4096)
    return {"attend": grid(c.steps, c.steps, lambda i, j: max(0, i - w + 1) <= j <= i)}


@scheme(
    "longformer",
    [case(12, heads=3, params={"reach": 2}, inputs={"gap": [1, 2, 3], "marked": [1] + [0] * 6 + [1] + [0] * 4})],
)
def _(c):
    r, m = c.params["reach"], c.inputs["marked"]

    def rule(l, h, i, j):
        g = int(c.inputs["gap"][h])
        return j in {i + g * s for s in range(-r, r + 1)} or m[i] or m[j]

    return {"attend": grids(1, c.heads, c.steps, c.steps, rule)}


@scheme(
    "bigbird",
    [case(16, heads=2, params={"size": 2, "picks": 2}, inputs={"random": rng(1).integers(0, 8, (2, 8, 2))})],
)
def _(c):
    z = c.params["size"]
    n = c.steps // z
    out = np.zeros((1, c.heads, c.steps, c.steps), bool)
    for h in range(c.heads):
        for a in range(n):
            cols = {0, a - 1, a, a + 1} | set(c.inputs["random"][h, a].tolist())
            for b in range(n) if a == 0 else [x for x in cols if 0 <= x < n]:
                out[0, h, a * z : (a + 1) * z, b * z : (b + 1) * z] = True
    return {"attend": out}


@scheme(
    "sparse transformer, strided",
    [case(11, heads=4, params={"stride": 4})],
)
def _(c):
    s = c.params["stride"]
    return {"attend": grids(1, c.heads, c.steps, c.steps, lambda l, h, i, j: j in (range(max(0, i - s), i + 1) if h % 2 == 0 else range(i, -1, -s)))}


@scheme(
    "llama 4 chunks",
    [case(10, layers=8, params={"chunk": 4})],
)
def _(c):
    z = c.params["chunk"]

    def rule(l, h, i, j):
        return j <= i if l in (3, 7, 11) else (i // z) * z <= j <= i

    return {"attend": grids(c.layers, 1, c.steps, c.steps, rule)}


@scheme(
    "semi-autoregressive",
    [case(10, params={"size": 3})],
)
def _(c):
    z = c.params["size"]
    return {"attend": grid(c.steps, c.steps, lambda i, j: j < (i // z + 1) * z)}


@scheme(
    "streaming sinks",
    [case(12, params={"span": 3, "sinks": 2})],
)
def _(c):
    w, s = c.params["span"], c.params["sinks"]
    return {"attend": grid(c.steps, c.steps, lambda i, j: j in set(range(min(s, i + 1))) | set(range(max(0, i - w + 1), i + 1)))}


@scheme(
    "gemma 3",
    [case(7, layers=12, params={"span": 2})],
)
def _(c):
    w = c.params["span"]
    kinds = (["local"] * 5 + ["global"]) * 3
    return {"attend": grids(c.layers, 1, c.steps, c.steps, lambda l, h, i, j: j <= i and (kinds[l] == "global" or i - j <= w - 1))}


@scheme(
    "head windows at run time",
    [case(9, heads=2, layers=2, params={"sinks": 1}, inputs={"span": [[1, 3], [9, 2]]})],
)
def _(c):
    def rule(l, h, i, j):
        return j <= i and (j < c.params["sinks"] or j > i - c.inputs["span"][l, h])

    return {"attend": grids(2, 2, c.steps, c.steps, rule)}


# ---------------------------------------------------------------------------------------------- two and three dimensions


@scheme(
    "neighbourhood attention",
    [case(params={"height": 5, "width": 6, "side": 3}), case(params={"height": 7, "width": 6, "side": 5})],
)
def _(c):
    H, W, s = (c.params[n] for n in ("height", "width", "side"))
    h = s // 2
    m = np.zeros((H, W, H, W), bool)
    for y in range(H):
        for x in range(W):
            ys, xs = list(range(y - h, y + h + 1)), list(range(x - h, x + h + 1))
            while ys[0] < 0:
                ys = [a + 1 for a in ys]
            while ys[-1] >= H:
                ys = [a - 1 for a in ys]
            while xs[0] < 0:
                xs = [a + 1 for a in xs]
            while xs[-1] >= W:
                xs = [a - 1 for a in xs]
            for a in ys:
                for b in xs:
                    m[y, x, a, b] = True
    return {"attend": m.reshape(1, 1, H * W, H * W)}


@scheme(
    "axial",
    [case(12, layers=4, params={"width": 4})],
)
def _(c):
    n = c.steps
    ids = np.arange(n).reshape(-1, c.params["width"])
    row = np.zeros((n, n), bool)
    col = row.copy()
    for r in ids:
        row[np.ix_(r, r)] = True
    for r in ids.T:
        col[np.ix_(r, r)] = True
    return {"attend": np.stack([[row, col][l & 1][None] for l in range(c.layers)])}


# ---------------------------------------------------------------------------------------------- packing and sharing


@scheme(
    "packed documents",
    [case(7, inputs={"start": [0, 0, 0, 3, 3, 5, 5]})],
)
def _(c):
    cuts = sorted(set(c.inputs["start"].tolist())) + [c.steps]
    m = np.zeros((c.steps, c.steps), bool)
    place, y = [], []
    for a, b in zip(cuts, cuts[1:]):
        m[a:b, a:b] = np.tri(b - a)
        place += range(b - a)
        y += [*range(a + 1, b), -1]
    return {"attend": m[None, None], "position": np.array(place), "target": np.array(y)}


@scheme(
    "packed reasoning",
    [case(5, inputs={"doc": [4, 4, 7, 7, 7]})],
)
def _(c):
    docs = np.repeat(c.inputs["doc"], 3)
    return {"attend": (np.tri(len(docs), dtype=bool) & (docs[:, None] == docs[None]))[None, None]}


@scheme(
    "left padding",
    [case(6, inputs={"pad": 2}), case(4, inputs={"pad": 0})],
)
def _(c):
    p, n = int(c.inputs["pad"]), c.steps
    m = np.zeros((n, n), bool)
    m[p:, p:] = np.tri(n - p)
    return {"attend": m[None, None], "position": np.array([0] * p + list(range(n - p)))}


@scheme(
    "shared prompt",
    [case(params={"prompts": 3, "rollouts": 2, "tokens": 3}, inputs={"advantage": np.arange(9) / 8.0})],
)
def _(c):
    p, g, t = (c.params[n] for n in ("prompts", "rollouts", "tokens"))
    n = p + g * t
    m = np.zeros((n, n), bool)
    m[:p, :p] = np.tri(p)
    place, y = list(range(p)), [-1] * p
    for a in range(p, n, t):
        m[a : a + t, :p] = True
        m[a : a + t, a : a + t] = np.tri(t)
        place += range(p, p + t)
        y += [*range(a + 1, a + t), -1]
    y = np.array(y)
    return {"attend": m[None, None], "position": np.array(place), "target": y, "weight": np.where(y < 0, 0, c.inputs["advantage"])}


@scheme(
    "documents in a graph",
    [case(8, inputs={"doc": [0, 0, 1, 1, 2, 2, 3, 3], "linked": [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 1, 1]]})],
)
def _(c):
    m = np.tri(c.steps, dtype=bool)
    for a in range(len(c.inputs["linked"])):
        for b in range(len(c.inputs["linked"])):
            if not c.inputs["linked"][a][b]:
                m[np.ix_(c.inputs["doc"] == a, c.inputs["doc"] == b)] = False
    return {"attend": m[None, None]}


@scheme(
    "blocks for retrieval",
    [case(8, inputs={"block": [0, 0, 0, 1, 1, 2, 2, 2], "final": 2})],
)
def _(c):
    m = np.zeros((c.steps, c.steps), bool)
    for b in set(c.inputs["block"].tolist()):
        rows = np.flatnonzero(c.inputs["block"] == b)
        m[np.ix_(rows, rows)] = np.tri(len(rows))
        if b == c.inputs["final"]:
            m[rows] = np.tri(c.steps)[rows]
    return {"attend": m[None, None]}


@scheme(
    "past thoughts are dropped",
    [case(9, inputs={"turn": [0, 0, 0, 0, 1, 1, 1, 2, 2], "thought": [0, 1, 1, 0, 0, 1, 0, 0, 1]})],
)
def _(c):
    m = np.tri(c.steps, dtype=bool)
    for j in np.flatnonzero(c.inputs["thought"]):
        later = [i for i in range(j, c.steps) if c.inputs["turn"][i] > c.inputs["turn"][j]]
        m[later, j] = False
    return {"attend": m[None, None]}


# ---------------------------------------------------------------------------------------------- chosen at run time


@scheme(
    "moba",
    [case(12, heads=2, params={"size": 3}, inputs={"picked": rng(2).integers(0, 2, (12, 2, 4))})],
)
def _(c):
    def rule(l, h, i, j):
        z = c.params["size"]
        return j <= i and (j >= i - i % z or c.inputs["picked"][i, h, j // z] == 1)

    return {"attend": grids(1, c.heads, c.steps, c.steps, rule)}


@scheme(
    "flashmask columns",
    [
        case(
            8,
            inputs={
                "below_from": [8, 4, 3, 8, 6, 8, 7, 8],
                "below_to": [8, 6, 8, 8, 8, 8, 8, 8],
                "above_from": [0, 0, 1, 0, 0, 2, 0, 0],
                "above_to": [0, 0, 2, 3, 0, 5, 0, 7],
            },
        ),
        # ranges that cross the diagonal: only the part on their own side counts
        case(
            8,
            inputs={
                "below_from": [0, 0, 1, 4, 2, 7, 3, 0],
                "below_to": [3, 1, 4, 6, 8, 8, 7, 7],
                "above_from": [0, 2, 0, 4, 2, 0, 6, 1],
                "above_to": [0, 5, 3, 6, 5, 8, 8, 4],
            },
        ),
    ],
)
def _(c):
    m = np.ones((c.steps, c.steps), bool)
    x = c.inputs
    for j in range(c.steps):
        lo = slice(max(j, x["below_from"][j]), x["below_to"][j])
        up = slice(x["above_from"][j], min(j + 1, x["above_to"][j]))
        m[lo, j] = False
        m[up, j] = False
    return {"attend": m[None, None]}


@scheme(
    "clusters",
    [case(9, heads=2, inputs={"cluster": rng(4).integers(0, 3, (9, 2))})],
)
def _(c):
    x = c.inputs["cluster"]
    return {"attend": np.stack([np.tri(c.steps, dtype=bool) & np.equal.outer(x[:, h], x[:, h]) for h in range(c.heads)])[None]}


# ---------------------------------------------------------------------------------------------- layouts with roles


@scheme(
    "block diffusion",
    [case(6, params={"size": 2})],
)
def _(c):
    n, z = c.steps, c.params["size"]
    m = np.zeros((2 * n, 2 * n), bool)
    for b in range(n // z):
        noisy, clean = slice(b * z, b * z + z), slice(n + b * z, n + b * z + z)
        m[noisy, noisy] = True
        m[noisy, n : n + b * z] = True
        m[clean, n : n + b * z + z] = True
    return {"attend": m[None, None], "position": np.array([*range(n), *range(n)]), "target": np.array([*range(n)] + [-1] * n)}


@scheme(
    "medusa tree",
    [
        case(
            params={"past": 3, "nodes": 5},
            inputs={"ancestor": [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 0, 1, 0, 0], [1, 1, 0, 1, 0], [1, 0, 1, 0, 1]], "depth": [0, 1, 1, 2, 2]},
        )
    ],
)
def _(c):
    kids = {0: [1, 2], 1: [3], 2: [4]}
    m = np.zeros((8, 8), bool)
    m[3:, :3] = True

    def walk(n, path):
        path = path + [n]
        m[3 + n, [3 + p for p in path]] = True
        for x in kids.get(n, []):
            walk(x, path)

    walk(0, [])
    return {"attend": m[None, None], "asks": np.arange(8) >= 3, "position": np.array([0, 1, 2, 3, 4, 4, 5, 5])}


@scheme(
    "registers look ahead",
    [case(5, params={"ahead": 3})],
)
def _(c):
    d, n = c.params["ahead"], c.steps
    m = np.zeros((2 * n, 2 * n), bool)
    for t in range(n):
        m[2 * t, 0 : 2 * t + 1 : 2] = True
        m[2 * t + 1, 0 : 2 * t + 1 : 2] = True
        m[2 * t + 1, 2 * t + 1] = True
    return {
        "attend": m[None, None],
        "position": np.array([x for t in range(n) for x in (t, t + d - 1)]),
        "target": np.array([x if x < n else -1 for t in range(n) for x in (t + 1, t + d)]),
    }


@scheme(
    "quiet-star",
    [case(3, params={"thoughts": 2})],
)
def _(c):
    z = c.params["thoughts"] + 3
    rows = [(t, r) for t in range(c.steps) for r in range(z)]

    def rule(i, j):
        (ti, ri), (tj, rj) = rows[i], rows[j]
        return (tj == ti and rj <= ri) or (tj < ti and rj == 0)

    y = [t + 1 if r in (0, z - 1) and t + 1 < c.steps else -1 for t, r in rows]
    return {"attend": grid(len(rows), len(rows), rule), "target": np.array(y)}


@scheme(
    "pause tokens",
    [case(4, params={"prompts": 3, "pauses": 2})],
)
def _(c):
    return {"attend": np.tri(9, dtype=bool)[None, None], "position": np.arange(9), "target": np.array([-1, -1, -1, -1, 3, 4, 5, 6, -1])}


@scheme(
    "self reasoning, stopped",
    [case(5, params={"reasons": 2, "horizon": 2}), case(3, params={"reasons": 1})],
)
def _(c):
    r, f = c.params["reasons"], c.params.get("horizon", 16)
    n = c.steps * (r + 1)
    gate = np.ones((n, n))
    for t in range(c.steps):
        for late in range(t + 1, min(c.steps, t + f + 1)):
            gate[late * (r + 1) : (late + 1) * (r + 1), t * (r + 1) + 1 : (t + 1) * (r + 1)] = 0
    y = np.repeat(np.arange(1, c.steps + 1), r + 1)
    y[-(r + 1) :] = -1
    return {
        "attend": np.tri(n, dtype=bool)[None, None],
        "k": gate[None, None],
        "v": gate[None, None],
        "position": np.repeat(np.arange(c.steps), r + 1),
        "target": y,
    }


@scheme(
    "self reasoning, hidden",
    [case(6, params={"reasons": 2, "horizon": 2})],
)
def _(c):
    z, f = c.params["reasons"] + 1, c.params["horizon"]
    m = np.tri(c.steps * z, dtype=bool)
    for t in range(c.steps):
        m[z * (t + 1) : z * (t + 1 + f), z * t + 1 : z * t + z] = False
    return {"attend": m[None, None]}


@scheme(
    "patient heads",
    [case(7, heads=3, params={"patient": 2, "far": 3})],
)
def _(c):
    n = c.steps
    gate = np.ones((1, c.heads, n, n))
    gate[:, : c.params["patient"]] = np.tri(n, k=-c.params["far"])
    return {"attend": np.tri(n, dtype=bool)[None, None], "k": gate, "v": gate}


@scheme(
    "myopic training",
    [case(5), case(5, params={"trickle": 0.25})],
)
def _(c):
    n = c.steps
    gate = np.full((n, n), float(c.params.get("trickle", 0)))
    gate[np.triu_indices(n)] = 1
    return {"attend": np.tri(n, dtype=bool)[None, None], "k": gate[None, None], "v": gate[None, None]}


@scheme(
    "knowledge insulation",
    [case(params={"images": 2, "words": 1, "spoken": 3, "actions": 2})],
)
def _(c):
    a = c.params["images"] + c.params["words"]
    b = a + c.params["spoken"]
    n = b + c.params["actions"]
    m = np.zeros((n, n), bool)
    m[:, :a] = True
    m[a:b, a:b] = np.tri(b - a)
    m[b:, b:] = True
    g = np.ones((n, n))
    g[b:, :b] = 0
    return {"attend": m[None, None], "k": g[None, None], "v": g[None, None]}


@scheme(
    "three gates",
    [case(5, heads=2, inputs={n: rng(8 + i).random((2, 5, 5)) for i, n in enumerate(("gate_q", "gate_k", "gate_v"))})],
)
def _(c):
    return {"attend": np.tri(c.steps, dtype=bool)[None, None], **{n: c.inputs["gate_" + n][None] for n in "qkv"}}


@scheme(
    "coconut",
    [case(given={"role": ["question"] * 2 + ["begin"] + ["latent"] * 3 + ["finish"] + ["answer"] * 2, "step": list(range(9)), "slot": [0] * 9})],
)
def _(c):
    return {"attend": np.tri(9, dtype=bool)[None, None], "position": np.arange(9), "target": np.array([-1] * 6 + [2, 3, -1])}


@scheme(
    "gist tokens",
    [case(3, params={"prompts": 4, "gists": 2})],
)
def _(c):
    p, g = c.params["prompts"], c.params["gists"]
    m = np.tri(p + g + c.steps, dtype=bool)
    m[p + g :, :p] = False
    return {"attend": m[None, None]}


@scheme(
    "summaries",
    [case(3, params={"words": 3, "slots": 2})],
)
def _(c):
    w, z = c.params["words"], c.params["words"] + c.params["slots"]
    m = np.zeros((c.steps * z, c.steps * z), bool)
    for s in range(0, c.steps * z, z):
        m[s : s + z, s : s + z] = np.tri(z)
        for e in range(0, s, z):
            m[s : s + z, e + w : e + z] = True
    return {"attend": m[None, None]}


@scheme(
    "transformer-xl",
    [case(4, params={"kept": 3})],
)
def _(c):
    z = c.params["kept"]
    n = z + c.steps
    g = np.ones((n, n))
    g[:, :z] = 0
    return {"attend": keep(np.tri(n, dtype=bool)[None, None], range(z, n)), "asks": np.arange(n) >= z, "hidden": g[None, None], "position": np.arange(n)}


@scheme(
    "transfusion",
    [case(9, inputs={"image": [0, 1, 1, 1, 0, 0, 2, 2, 0]})],
)
def _(c):
    m = np.tri(c.steps, dtype=bool)
    for n in set(c.inputs["image"].tolist()) - {0}:
        own = np.flatnonzero(c.inputs["image"] == n)
        m[own[0] : own[-1] + 1, own[0] : own[-1] + 1] = True
    return {"attend": m[None, None]}


@scheme(
    "xlnet",
    [case(5, inputs={"rank": [3, 0, 4, 1, 2]})],
)
def _(c):
    order = np.argsort(c.inputs["rank"])  # the words in the order they are read
    m = np.zeros((2 * c.steps, 2 * c.steps), bool)
    for n, t in enumerate(order):
        for e in order[:n]:
            m[2 * t, 2 * e] = m[2 * t + 1, 2 * e] = True
        m[2 * t, 2 * t] = True
    y = np.full(2 * c.steps, -1)
    y[1::2] = np.arange(c.steps)
    return {"attend": m[None, None], "target": y}


@scheme(
    "encoder-decoder",
    [case(3, params={"sources": 5}, inputs={"valid": [1, 1, 1, 0, 0]})],
)
def _(c):
    return {"attend": np.array([c.inputs["valid"]] * c.steps, bool)[None, None]}


@scheme(
    "speculative verification",
    [case(params={"room": 4, "drafted": 3}, inputs={"used": 2})],
)
def _(c):
    a, d, u = c.params["room"], c.params["drafted"], int(c.inputs["used"])
    m = np.zeros((a + d, a + d), bool)
    m[a:, :u] = True
    m[a:, a:] = np.tri(d)
    return {"attend": m[None, None], "asks": np.arange(a + d) >= a, "position": np.array([*range(a), *range(u, u + d)])}


@scheme(
    "meta tokens",
    [case(6, layers=5, params={"metas": 2, "span": 2})],
)
def _(c):
    a, w = c.params["metas"], c.params["span"]
    n = a + c.steps
    wide = np.tri(n, dtype=bool)
    slim = wide & ~np.tri(n, k=-w, dtype=bool)
    slim |= wide & (np.arange(n) < a)[None]
    return {"attend": np.stack([x[None] for x in (wide, slim, wide, slim, wide)])}


@scheme(
    "vision registers",
    [case(3, params={"registers": 2})],
)
def _(c):
    return {"attend": np.ones((1, 1, 6, 6), bool), "position": np.array([0, 0, 0, 1, 2, 3])}


@scheme(
    "in-context rows",
    [case(3, params={"examples": 4})],
)
def _(c):
    m = np.zeros((7, 7), bool)
    m[:, :4] = True
    return {"attend": m[None, None]}


@scheme(
    "decision transformer",
    [case(3)],
)
def _(c):
    n = c.steps
    return {
        "attend": np.tri(3 * n, dtype=bool)[None, None],
        "position": np.repeat(np.arange(n), 3),
        "target": np.array([x for t in range(n) for x in (-1, t, -1)]),
    }


@scheme(
    "token tree",
    [case(8, inputs={"last": [7, 4, 3, 3, 4, 7, 6, 7]}), case(4, inputs={"last": [3, 3, 3, 3]}), case(3, inputs={"last": [0, 1, 2]})],
)
def _(c):
    last = c.inputs["last"]
    m = np.zeros((c.steps, c.steps), bool)
    for key in range(c.steps):
        m[key : last[key] + 1, key] = True
    return {"attend": m[None, None]}


@scheme(
    "shifted windows",
    [case(16, layers=2, params={"width": 4, "side": 2}), case(35, layers=3, heads=2, params={"width": 5, "side": 3})],
)
def _(c):
    """As the original does it: roll the image, cut it in windows, hold apart what the roll brought together."""
    width, side = c.params["width"], c.params["side"]
    height = c.steps // width

    def windows(layer):
        shift = side // 2 if layer % 2 else 0
        place = {}
        for y in range(height):
            for x in range(width):
                ry, rx = y - shift, x - shift  # below 0: rolled round to the other end, in a region of its own
                place[y * width + x] = (-1 if ry < 0 else ry // side, -1 if rx < 0 else rx // side)
        return place

    places = [windows(layer) for layer in range(c.layers)]
    return {"attend": grids(c.layers, 1, c.steps, c.steps, lambda l, h, i, j: places[l][i] == places[l][j])}


@scheme(
    "readouts",
    [case(3, params={"tasks": 2, "patches": 2, "readouts": 1}), case(2, params={"tasks": 1, "patches": 3, "readouts": 2})],
)
def _(c):
    rows = [("task", -1)] * c.params["tasks"]
    for step in range(c.steps):
        rows += [("seen", step)] * c.params["patches"] + [("readout", step)] * c.params["readouts"]
    sees = {"task": {"task"}, "seen": {"task", "seen"}, "readout": {"task", "seen", "readout"}}
    return {"attend": grid(len(rows), len(rows), lambda i, j: rows[j][0] in sees[rows[i][0]] and rows[j][1] <= rows[i][1])}


@scheme(
    "retrieved chunks",
    [case(11, params={"chunks": 3, "chunk": 4, "passage": 2}), case(5, heads=2, params={"chunks": 2, "chunk": 1, "passage": 3})],
)
def _(c):
    chunk, passage = c.params["chunk"], c.params["passage"]
    m = np.zeros((c.steps, c.params["chunks"] * passage), bool)
    for u in range(c.params["chunks"]):
        m[(u + 1) * chunk - 1 : (u + 2) * chunk - 1, u * passage : (u + 1) * passage] = True
    return {"attend": m[None, None]}


@scheme(
    "streaming speech",
    [case(3, params={"frames": 3, "ahead": 1, "back": 2, "memories": 1}), case(4, params={"frames": 2, "ahead": 2, "back": 3, "memories": 2})],
)
def _(c):
    n, frames, ahead = c.steps, c.params["frames"], c.params["ahead"]
    starts = np.cumsum([0, n, n * ahead, n * frames])  # of memories, copies, frames and summaries
    m = np.zeros((starts[3] + n, starts[3] + n), bool)
    for s in range(n):
        copies = np.arange(starts[1] + s * ahead, starts[1] + (s + 1) * ahead)
        own = np.arange(starts[2] + s * frames, starts[2] + (s + 1) * frames)
        seen = np.arange(starts[2] + max(s * frames - c.params["back"], 0), starts[2] + (s + 1) * frames)
        memories = np.arange(max(s - c.params["memories"], 0), s)
        for row in (*copies, *own):
            m[row, [*memories, *copies, *seen]] = True
        m[starts[3] + s, [*copies, *seen]] = True
    asks = np.arange(len(m)) >= n
    return {"attend": keep(m[None, None], asks), "asks": asks}


# ---------------------------------------------------------------------------------------------- sizes that span many tiles


def large(name, *cases):
    for n, entry in enumerate(SCHEMES):
        if entry.name == name:
            SCHEMES[n] = replace(entry, large=cases)
            return
    raise KeyError(name)


def runs(n, lengths, seed, first=0):
    """n integers: runs of random length (from, to), numbered from `first`"""
    r, out = rng(seed), []
    while len(out) < n:
        out += [first] * int(r.integers(*lengths))
        first += 1
    return np.array(out[:n])


def begins(ids):
    """for each token, where its run began"""
    return np.array([ids.tolist().index(x) for x in ids])


_docs = runs(400, (30, 140), 20)
_turns = runs(330, (40, 90), 21)
large("causal", case(385))
large("bert padding", case(300, inputs={"valid": np.arange(300) < 190}))
large("prefix lm", case(333, inputs={"prefix": 140}))
large("sliding window", case(520, params={"span": 100}))
large("longformer", case(300, heads=3, params={"reach": 20}, inputs={"gap": [1, 2, 4], "marked": np.isin(np.arange(300), [0, 1, 170])}))
large("bigbird", case(512, heads=2, params={"size": 32, "picks": 3}, inputs={"random": rng(22).integers(0, 16, (2, 16, 3))}))
large("sparse transformer, strided", case(300, heads=2, params={"stride": 17}))
large("llama 4 chunks", case(300, layers=4, params={"chunk": 96}))
large("semi-autoregressive", case(300, params={"size": 48}))
large("streaming sinks", case(400, params={"span": 64, "sinks": 4}))
large("gemma 3", case(260, layers=6, params={"span": 70}))
large("head windows at run time", case(260, heads=2, layers=2, params={"sinks": 3}, inputs={"span": [[20, 64], [260, 1]]}))
large("neighbourhood attention", case(params={"height": 17, "width": 19, "side": 7}))
large("axial", case(320, layers=2, params={"width": 40}))
large("packed documents", case(400, inputs={"start": begins(_docs)}))
large("packed reasoning", case(130, inputs={"doc": runs(130, (10, 50), 23)}))
large("left padding", case(300, inputs={"pad": 135}))
large("shared prompt", case(params={"prompts": 100, "rollouts": 4, "tokens": 70}, inputs={"advantage": rng(24).normal(size=380)}))
large("documents in a graph", case(400, inputs={"doc": _docs, "linked": rng(25).integers(0, 2, (_docs.max() + 1,) * 2) | np.eye(_docs.max() + 1, dtype=int)}))
large("blocks for retrieval", case(400, inputs={"block": _docs, "final": _docs.max()}))
large("past thoughts are dropped", case(330, inputs={"turn": _turns, "thought": (np.arange(330) - begins(_turns)) // 20 == 1}))
large("moba", case(384, heads=2, params={"size": 64}, inputs={"picked": rng(27).integers(0, 4, (384, 2, 6)) == 0}))
large(
    "flashmask columns",
    case(
        300,
        inputs={
            "below_from": np.minimum(np.arange(300) + rng(29).integers(1, 90, 300), 300),
            "below_to": np.full(300, 300),
            "above_from": np.zeros(300, int),
            "above_to": np.maximum(np.arange(300) - 40, 0),
        },
    ),
)
large("clusters", case(300, heads=2, inputs={"cluster": rng(30).integers(0, 5, (300, 2))}))
large("block diffusion", case(160, params={"size": 32}))
large("registers look ahead", case(150, params={"ahead": 4}))
large("quiet-star", case(40, params={"thoughts": 5}))
large("self reasoning, stopped", case(80, params={"reasons": 3, "horizon": 16}))
large("self reasoning, hidden", case(80, params={"reasons": 3, "horizon": 16}))
large("patient heads", case(300, heads=4, params={"patient": 2, "far": 130}))
large("myopic training", case(300), case(200, params={"trickle": 0.25}))
large("knowledge insulation", case(params={"images": 130, "words": 20, "spoken": 33, "actions": 70}))
large("three gates", case(150, heads=2, inputs={n: rng(34 + i).random((2, 150, 150)) for i, n in enumerate(("gate_q", "gate_k", "gate_v"))}))
large("gist tokens", case(150, params={"prompts": 140, "gists": 4}))
large("summaries", case(5, params={"words": 60, "slots": 8}))
large("transformer-xl", case(150, params={"kept": 200}))
large("transfusion", case(330, inputs={"image": np.where(_turns % 2, _turns, 0)}))
large("xlnet", case(140, inputs={"rank": rng(39).permutation(140)}))
large("encoder-decoder", case(200, params={"sources": 300}, inputs={"valid": np.arange(300) < 170}))
large("speculative verification", case(params={"room": 300, "drafted": 8}, inputs={"used": 210}))
large("meta tokens", case(270, layers=5, params={"metas": 30, "span": 60}))
large("decision transformer", case(110))
large("token tree", case(300, inputs={"last": tree_ends(300, 41)}))
large("shifted windows", case(324, layers=2, params={"width": 18, "side": 4}))
large("readouts", case(5, params={"tasks": 40, "patches": 60, "readouts": 4}))
large("retrieved chunks", case(300, params={"chunks": 9, "chunk": 32, "passage": 20}))
large("streaming speech", case(8, params={"frames": 16, "ahead": 8, "back": 32, "memories": 4}))
