"""A zoo of attention layouts, masks and gradient rules: spec texts beside independent NumPy oracles.

Every entry is a `Scheme`. `cases` are the sizes it is tried at (one sequence each, no batch axis);
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


@dataclass(frozen=True)
class Scheme:
    name: str
    source: str
    about: str
    text: str
    cases: tuple
    oracle: Callable
    large: tuple = ()  # cases that span many tiles


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


def keep(mask, rows):
    """only the rows in `rows` query; the others attend to nothing"""
    out = np.zeros_like(mask)
    out[:, :, rows] = mask[:, :, rows]
    return out


SCHEMES = []


def scheme(name, source, about, text, cases):
    def add(oracle):
        SCHEMES.append(Scheme(name, source, about, text.strip() + "\n", tuple(cases), oracle))
        return oracle

    return add


# ---------------------------------------------------------------------------------------------- plain shapes


@scheme("causal", "Vaswani et al. 2017, arXiv 1706.03762", "Each token sees itself and what came before.", "attend causal", [case(7), case(1)])
def _(c):
    return {"attend": np.tril(np.ones((c.steps, c.steps), bool))[None, None], "position": np.arange(c.steps)}


@scheme(
    "bert padding",
    "Devlin et al. 2018, arXiv 1810.04805",
    "Everything sees every real token; padding is not seen.",
    """
        input valid: bool per token
        attend k.valid
        """,
    [case(6, inputs={"valid": [1, 1, 1, 1, 0, 0]}), case(4, inputs={"valid": [1, 0, 1, 1]}), case(3, inputs={"valid": [0, 0, 0]})],
)
def _(c):
    return {"attend": np.repeat(c.inputs["valid"].astype(bool)[None], c.steps, 0)[None, None]}


@scheme(
    "prefix lm",
    "Raffel et al. 2020, arXiv 1910.10683",
    "A prefix, of a length known only at run time, is seen by all; the rest is causal.",
    """
        input prefix: int per sequence
        attend causal or k.pos < prefix
        """,
    [case(7, inputs={"prefix": 3}), case(5, inputs={"prefix": 0}), case(5, inputs={"prefix": 9})],
)
def _(c):
    m = np.tril(np.ones((c.steps, c.steps), bool))
    m[:, : int(c.inputs["prefix"])] = True
    return {"attend": m[None, None]}


@scheme(
    "sliding window",
    "Mistral 7B, arXiv 2310.06825",
    "Causal, and only the last `span` tokens, oneself included.",
    """
        param span = 4096
        attend causal and window(span)
        """,
    [case(9, params={"span": 3}), case(5, params={"span": 1}), case(4)],
)
def _(c):
    w = c.params.get("span", 4096)
    return {"attend": grid(c.steps, c.steps, lambda i, j: max(0, i - w + 1) <= j <= i)}


@scheme(
    "longformer",
    "Beltagy et al. 2020, arXiv 2004.05150",
    "A two-sided window, dilated by a different gap in each head; marked tokens see and are seen by all.",
    """
        param reach = 256                 # window radius
        input gap: int per head           # dilation of each head, at least 1
        input marked: bool per token
        let near = abs(q.pos - k.pos) <= reach * gap and (q.pos - k.pos) % gap == 0
        attend near or q.marked or k.marked
        """,
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
    "Zaheer et al. 2020, arXiv 2007.14062",
    "Blocks: neighbours, the first block as a global one, and random blocks drawn at run time for each head.",
    """
        param size = 64
        param picks = 3
        input random: int[blocks, picks] per head
        let block = pos // size
        let near = abs(q.block - k.block) <= 1
        let drawn = any(k.block == random[q.block, i] for i in range(picks))
        attend near or drawn or q.block == 0 or k.block == 0
        """,
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
    "Child et al. 2019, arXiv 1904.10509",
    "Even heads: the last `stride` tokens. Odd heads: every `stride`-th token.",
    """
        param stride = 128
        let back = q.pos - k.pos
        attend causal and (back <= stride if head % 2 == 0 else back % stride == 0)
        """,
    [case(11, heads=4, params={"stride": 4})],
)
def _(c):
    s = c.params["stride"]
    return {"attend": grids(1, c.heads, c.steps, c.steps, lambda l, h, i, j: j in (range(max(0, i - s), i + 1) if h % 2 == 0 else range(i, -1, -s)))}


@scheme(
    "llama 4 chunks",
    "Llama 4 (iRoPE); Hugging Face transformers, models/llama4",
    "Causal inside chunks, but for every fourth layer, which sees everything before.",
    """
        param chunk = 8192
        attend causal and (same(pos // chunk) or layer % 4 == 3)
        """,
    [case(10, layers=8, params={"chunk": 4})],
)
def _(c):
    z = c.params["chunk"]

    def rule(l, h, i, j):
        return j <= i if l in (3, 7, 11) else (i // z) * z <= j <= i

    return {"attend": grids(c.layers, 1, c.steps, c.steps, rule)}


@scheme(
    "semi-autoregressive",
    "Wang et al. 2018, arXiv 1808.08583; block-causal video models",
    "Causal over groups of `size` tokens, two-sided inside a group.",
    """
        param size = 4
        let group = pos // size
        attend k.group <= q.group
        """,
    [case(10, params={"size": 3})],
)
def _(c):
    z = c.params["size"]
    return {"attend": grid(c.steps, c.steps, lambda i, j: j < (i // z + 1) * z)}


@scheme(
    "streaming sinks",
    "StreamingLLM, Xiao et al. 2023, arXiv 2309.17453",
    "A causal window, and the first few tokens for ever.",
    """
        param span = 1020
        param sinks = 4
        attend causal and (window(span) or first(sinks))
        """,
    [case(12, params={"span": 3, "sinks": 2})],
)
def _(c):
    w, s = c.params["span"], c.params["sinks"]
    return {"attend": grid(c.steps, c.steps, lambda i, j: j in set(range(min(s, i + 1))) | set(range(max(0, i - w + 1), i + 1)))}


@scheme(
    "gemma 3",
    "Gemma 3 report, arXiv 2503.19786",
    "Five local layers, then a global one.",
    """
        param span = 1024
        attend causal and (window(span) or layer % 6 == 5)
        """,
    [case(7, layers=12, params={"span": 2})],
)
def _(c):
    w = c.params["span"]
    kinds = (["local"] * 5 + ["global"]) * 3
    return {"attend": grids(c.layers, 1, c.steps, c.steps, lambda l, h, i, j: j <= i and (kinds[l] == "global" or i - j <= w - 1))}


@scheme(
    "head windows at run time",
    "MoA, Fu et al. 2024, arXiv 2406.14909",
    "Every head of every layer has its own window length, found by a search and given as a tensor.",
    """
        param sinks = 64
        input span: int per layer, head
        attend causal and (window(span) or first(sinks))
        """,
    [case(9, heads=2, layers=2, params={"sinks": 1}, inputs={"span": [[1, 3], [9, 2]]})],
)
def _(c):
    def rule(l, h, i, j):
        return j <= i and (j < c.params["sinks"] or j > i - c.inputs["span"][l, h])

    return {"attend": grids(2, 2, c.steps, c.steps, rule)}


# ---------------------------------------------------------------------------------------------- two and three dimensions


@scheme(
    "neighbourhood attention",
    "NATTEN, Hassani et al. 2022, arXiv 2204.07143",
    "A square of keys round each pixel, pushed back inside at the borders.",
    """
        param height = 32
        param width = 32
        param side = 7
        layout repeat height * width { pixel }
        let row = pos // width
        let column = pos % width
        let top = clamp(row - side // 2, 0, height - side)
        let left = clamp(column - side // 2, 0, width - side)
        attend q.top <= k.row < q.top + side and q.left <= k.column < q.left + side
        """,
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
    "Ho et al. 2019, arXiv 1912.12180",
    "Rows in even layers, columns in odd ones.",
    """
        param width = 32
        attend same(pos // width) if layer % 2 == 0 else same(pos % width)
        """,
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
    "Hugging Face and Megatron sequence packing; Krell et al. 2021, arXiv 2107.02027",
    "Several documents in one row; each token knows where its own begins.",
    """
        input start: int per token         # position of the first token of one's document
        attend causal and same(start)
        position pos - start
        predict token -> index + 1 where start[pos + 1] == start
        assert every query attends
        assert no leak
        """,
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
    "Self Reasoning Tokens over packed documents (this project)",
    "A document number per time step, shared by the word and its reasoning tokens.",
    """
        param reasons = 2
        layout repeat { token, reason * reasons }
        input doc: int per step
        attend causal and same(doc)
        """,
    [case(5, inputs={"doc": [4, 4, 7, 7, 7]})],
)
def _(c):
    docs = np.repeat(c.inputs["doc"], 3)
    return {"attend": (np.tri(len(docs), dtype=bool) & (docs[:, None] == docs[None]))[None, None]}


@scheme(
    "left padding",
    "Hugging Face generate with padding_side=left",
    "Causal; the first `pad` tokens are nothing, and their own rows are empty.",
    """
        input pad: int per sequence
        attend causal and k.pos >= pad
        position max(pos - pad, 0)
        """,
    [case(6, inputs={"pad": 2}), case(4, inputs={"pad": 0})],
)
def _(c):
    p, n = int(c.inputs["pad"]), c.steps
    m = np.zeros((n, n), bool)
    m[p:, p:] = np.tri(n - p)
    return {"attend": m[None, None], "position": np.array([0] * p + list(range(n - p)))}


@scheme(
    "shared prompt",
    "Prefix Grouper, arXiv 2506.05433 (group rollouts in GRPO)",
    "One prompt, many sampled responses: each response sees the prompt and itself; rewards weight the loss.",
    """
        param prompts = 512
        param rollouts = 8
        param tokens = 1024
        layout prompt * prompts, repeat rollouts { response * tokens }
        data prompt, response
        input advantage: float per token
        attend causal and (k is prompt or k is response and same(step))
        position slot if role is prompt else prompts + slot
        predict response -> index + 1 weight advantage where slot < tokens - 1
        """,
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
    "Superposition prompting, Merth et al. 2024, arXiv 2404.06910",
    "A table over pairs of documents says which see which.",
    """
        input doc: int per token
        input linked: bool[docs, docs]
        attend causal and linked[q.doc, k.doc]
        """,
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
    "Block-Attention for RAG, Ma et al. 2024, arXiv 2409.15355",
    "Retrieved passages do not see each other; the last block, the question, sees all.",
    """
        input block: int per token
        input final: int per sequence
        attend causal and (same(block) or q.block == final)
        """,
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
    "Chat templates that strip earlier thinking (DeepSeek-R1, Qwen3), trained in one pass",
    "Thinking is seen inside its own turn only.",
    """
        input turn: int per token
        input thought: bool per token
        attend causal and (same(turn) or not k.thought)
        """,
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
    "Mixture of Block Attention, Lu et al. 2025, arXiv 2502.13189",
    "The own block, causally, and earlier blocks that a router picked for each query and head.",
    """
        param size = 512
        input picked: bool[blocks] per token, head
        let block = pos // size
        attend causal and (same(block) or q.picked[k.block])
        """,
    [case(12, heads=2, params={"size": 3}, inputs={"picked": rng(2).integers(0, 2, (12, 2, 4))})],
)
def _(c):
    def rule(l, h, i, j):
        z = c.params["size"]
        return j <= i and (j >= i - i % z or c.inputs["picked"][i, h, j // z] == 1)

    return {"attend": grids(1, c.heads, c.steps, c.steps, rule)}


@scheme(
    "flashmask columns",
    "FlashMask, Wang et al. 2024, arXiv 2410.01359",
    "Each key names a range of rows below, and one above, the diagonal that do not see it.",
    """
        input below_from: int per token
        input below_to: int per token
        input above_from: int per token
        input above_to: int per token
        let below = q.pos >= k.pos and k.below_from <= q.pos < k.below_to
        let above = q.pos <= k.pos and k.above_from <= q.pos < k.above_to
        attend not below and not above
        """,
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
    "Routing Transformer, Roy et al. 2020, arXiv 2003.05997",
    "Tokens that were put in one cluster, which differs by head.",
    """
        input cluster: int per token, head
        attend causal and same(cluster)
        """,
    [case(9, heads=2, inputs={"cluster": rng(4).integers(0, 3, (9, 2))})],
)
def _(c):
    x = c.inputs["cluster"]
    return {"attend": np.stack([np.tri(c.steps, dtype=bool) & np.equal.outer(x[:, h], x[:, h]) for h in range(c.heads)])[None]}


# ---------------------------------------------------------------------------------------------- layouts with roles


@scheme(
    "block diffusion",
    "BD3-LM, Arriola et al. 2025, arXiv 2503.09573",
    "A noisy copy, then a clean one: a noisy block sees itself and the clean blocks before it.",
    """
        param size = 16
        layout repeat { noisy }, repeat { clean }
        data clean
        let block = step // size
        attend q is noisy and k is noisy and same(block)
            or q is noisy and k is clean and k.block < q.block
            or q is clean and k is clean and k.block <= q.block
        predict noisy -> step
        assert no flow where q is noisy and k is clean and k.block >= q.block
        """,
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
    "Medusa, Cai et al. 2024, arXiv 2401.10774; EAGLE, arXiv 2401.15077",
    "Draft tokens form a tree and see the cache and their ancestors; only they ask.",
    """
        param past = 4096
        param nodes = 64
        input ancestor: bool[nodes, nodes] # [node, ancestor], each its own ancestor
        input depth: int[nodes]
        layout cached * past, node * nodes
        queries where role is node
        attend k is cached or k is node and ancestor[q.slot, k.slot]
        position past + depth[slot] if role is node else slot
        """,
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
    "MuToR, Gerontopoulos et al. 2025, arXiv 2505.10518",
    "A register after each word, unseen by others, predicts a word further on and is placed just before it.",
    """
        param ahead = 4
        layout repeat { token, register }
        attend causal and (k is token or diagonal)
        position step if role is token else step + ahead - 1
        predict token -> index + 1
        predict register -> index + ahead
        assert no flow where k is register and k.pos != q.pos
        """,
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
    "Zelikman et al. 2024, arXiv 2403.09629",
    "After each word a thought, seen by nothing but itself.",
    """
        param thoughts = 8
        layout repeat { token, begin, thought * thoughts, finish }
        attend causal and (k is token or same(step))
        predict token -> index + 1
        predict finish -> index + 1
        """,
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
    "Goyal et al. 2023, arXiv 2310.02226",
    "Pauses between prompt and answer; the last one predicts the first word of the answer.",
    """
        param prompts = 64
        param pauses = 10
        layout prompt * prompts, pause * pauses, repeat { answer }
        data prompt, answer
        attend causal
        position pos
        predict pause -> index + 1 where slot == pauses - 1
        predict answer -> index + 1
        """,
    [case(4, params={"prompts": 3, "pauses": 2})],
)
def _(c):
    return {"attend": np.tri(9, dtype=bool)[None, None], "position": np.arange(9), "target": np.array([-1, -1, -1, -1, 3, 4, 5, 6, -1])}


@scheme(
    "self reasoning, stopped",
    "Bonetto 2024, Self Reasoning Tokens (stop-gradient form)",
    "The next `horizon` steps may use a reasoning token but not train it.",
    """
        param reasons = 4
        param horizon = 16
        layout repeat { token, reason * reasons }
        let too_soon = k is reason and 0 < q.step - k.step <= horizon
        attend causal
        stop k, v where too_soon
        position step
        predict token -> index + 1
        predict reason -> index + 1
        assert no flow where k.step > q.step
        assert no grad where too_soon
        """,
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
    "lucidrains self-reasoning-tokens-pytorch (its default form)",
    "The next `horizon` steps do not see a reasoning token at all; later ones do.",
    """
        param reasons = 4
        param horizon = 16
        layout repeat { token, reason * reasons }
        attend causal and not (k is reason and 0 < q.step - k.step <= horizon)
        """,
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
    "lucidrains self-reasoning-tokens-pytorch, README to-do",
    "Some heads are trained by far-off tokens only.",
    """
        param patient = 4                  # heads 0 .. patient - 1
        param far = 32
        attend causal
        stop k, v where head < patient and q.step - k.step < far
        """,
    [case(7, heads=3, params={"patient": 2, "far": 3})],
)
def _(c):
    n = c.steps
    gate = np.ones((1, c.heads, n, n))
    gate[:, : c.params["patient"]] = np.tri(n, k=-c.params["far"])
    return {"attend": np.tri(n, dtype=bool)[None, None], "k": gate, "v": gate}


@scheme(
    "myopic training",
    "Wu et al. 2024, arXiv 2404.00859",
    "Nothing trains the keys and values of an earlier token, or only a little.",
    """
        param trickle = 0.0
        attend causal
        scale k, v by trickle where k.pos < q.pos
        """,
    [case(5), case(5, params={"trickle": 0.25})],
)
def _(c):
    n = c.steps
    gate = np.full((n, n), float(c.params.get("trickle", 0)))
    gate[np.triu_indices(n)] = 1
    return {"attend": np.tri(n, dtype=bool)[None, None], "k": gate[None, None], "v": gate[None, None]}


@scheme(
    "knowledge insulation",
    "pi0.5 + KI, Driess et al. 2025, arXiv 2505.23705",
    "An action expert reads the language model without training it.",
    """
        param images = 256
        param words = 32
        param spoken = 32                  # discrete action tokens
        param actions = 50
        layout context * (images + words), fast * spoken, action * actions
        attend k is context
            or q is fast and k is fast and k.slot <= q.slot
            or q is action and k is action
        stop k, v where q is action and k is not action
        assert no grad where q is action and k is not action
        """,
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
    "lucidrains self-reasoning-tokens-pytorch, stop_graddable_attn",
    "A float gate for each of q, k and v, given at run time for every head and pair.",
    """
        input gate_q: float per head, query, key
        input gate_k: float per head, query, key
        input gate_v: float per head, query, key
        attend causal
        scale q by gate_q
        scale k by gate_k
        scale v by gate_v
        """,
    [case(5, heads=2, inputs={n: rng(8 + i).random((2, 5, 5)) for i, n in enumerate(("gate_q", "gate_k", "gate_v"))})],
)
def _(c):
    return {"attend": np.tri(c.steps, dtype=bool)[None, None], **{n: c.inputs["gate_" + n][None] for n in "qkv"}}


@scheme(
    "coconut",
    "Hao et al. 2024, arXiv 2412.06769",
    "Latent thoughts between question and answer, where they stand being known at run time; the answer alone is trained.",
    """
        layout given { question, begin, latent, finish, answer }
        data question, answer
        attend causal
        position pos
        predict finish -> index + 1
        predict answer -> index + 1
        """,
    [case(given={"role": ["question"] * 2 + ["begin"] + ["latent"] * 3 + ["finish"] + ["answer"] * 2, "step": list(range(9)), "slot": [0] * 9})],
)
def _(c):
    return {"attend": np.tri(9, dtype=bool)[None, None], "position": np.arange(9), "target": np.array([-1] * 6 + [2, 3, -1])}


@scheme(
    "gist tokens",
    "Mu et al. 2023, arXiv 2304.08467",
    "What follows the gist sees the gist and not the prompt behind it.",
    """
        param prompts = 128
        param gists = 4
        layout prompt * prompts, gist * gists, repeat { token }
        attend causal and not (q is token and k is prompt)
        """,
    [case(3, params={"prompts": 4, "gists": 2})],
)
def _(c):
    p, g = c.params["prompts"], c.params["gists"]
    m = np.tri(p + g + c.steps, dtype=bool)
    m[p + g :, :p] = False
    return {"attend": m[None, None]}


@scheme(
    "summaries",
    "AutoCompressor, Chevalier et al. 2023, arXiv 2305.14788; ICAE, arXiv 2307.06945",
    "Segments end in summary slots; later segments see the summaries and not the text.",
    """
        param words = 512
        param slots = 8
        layout repeat { token * words, summary * slots }
        attend causal and (same(step) or k is summary)
        """,
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
    "Dai et al. 2019, arXiv 1901.02860",
    "The last segment's states are read, and detached before the key and value projections.",
    """
        param kept = 512
        layout memory * kept, repeat { token }
        queries where role is token
        attend causal
        stop hidden where k is memory
        position pos
        """,
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
    "Zhou et al. 2024, arXiv 2408.11039",
    "Causal text; the patches of one image see each other both ways.",
    """
        input image: int per token         # 0 is text
        attend causal or q.image > 0 and same(image)
        """,
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
    "Yang et al. 2019, arXiv 1906.08237; MAR-style random orders",
    "Two streams over a random order: the query stream must not see the word it predicts.",
    """
        layout repeat { content, query }
        data content
        input rank: int per step
        attend k is content and (k.rank < q.rank or q is content and same(step))
        predict query -> index
        assert no flow where q is query and k is content and same(step)
        """,
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
    "Raffel et al. 2020, arXiv 1910.10683 (T5 cross attention)",
    "Targets read every real source token.",
    """
        param sources = 512
        queries layout repeat { target }
        keys layout repeat sources { source }
        input valid: bool per key
        attend k.valid
        """,
    [case(3, params={"sources": 5}, inputs={"valid": [1, 1, 1, 0, 0]})],
)
def _(c):
    return {"attend": np.array([c.inputs["valid"]] * c.steps, bool)[None, None]}


@scheme(
    "speculative verification",
    "Leviathan et al. 2022, arXiv 2211.17192",
    "A cache of ragged length, then the drafted tokens, which alone ask.",
    """
        param room = 4096                  # cache capacity
        param drafted = 5
        layout cached * room, draft * drafted
        queries where role is draft
        input used: int per sequence
        attend k is cached and k.slot < used or k is draft and k.slot <= q.slot
        position slot if role is cached else used + slot
        """,
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
    "Hymba, Dong et al. 2024, arXiv 2411.13676",
    "Learned tokens in front are always seen; three layers are global, the rest local.",
    """
        param metas = 128
        param span = 1024
        layout meta * metas, repeat { token }
        attend causal and (k is meta or window(span) or layer in {0, layers // 2, layers - 1})
        """,
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
    "Darcet et al. 2023, arXiv 2309.16588",
    "A class token and registers in front of the patches; all see all.",
    """
        param registers = 4
        layout class, register * registers, repeat { patch }
        attend full
        position 0 if role is not patch else 1 + step
        """,
    [case(3, params={"registers": 2})],
)
def _(c):
    return {"attend": np.ones((1, 1, 6, 6), bool), "position": np.array([0, 0, 0, 1, 2, 3])}


@scheme(
    "in-context rows",
    "TabPFN, Hollmann et al. 2022, arXiv 2207.01848",
    "Rows of a table: all see the training rows, none sees a test row.",
    """
        param examples = 1000
        layout train * examples, repeat { test }
        attend k is train
        """,
    [case(3, params={"examples": 4})],
)
def _(c):
    m = np.zeros((7, 7), bool)
    m[:, :4] = True
    return {"attend": m[None, None]}


@scheme(
    "decision transformer",
    "Chen et al. 2021, arXiv 2106.01345",
    "Return, state, action, over and over; the state predicts the action.",
    """
        layout repeat { return, state, action }
        data action
        attend causal
        predict state -> index + 1
        """,
    [case(3)],
)
def _(c):
    n = c.steps
    return {
        "attend": np.tri(3 * n, dtype=bool)[None, None],
        "position": np.repeat(np.arange(n), 3),
        "target": np.array([x for t in range(n) for x in (-1, t, -1)]),
    }


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
