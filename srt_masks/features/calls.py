"""A call: its arguments, q, k and v, the options of compile, and what torch may do with it; one row for each."""

from __future__ import annotations

from typing import Any

import torch

from .example import Effect, Example, Feature, Group, Memory, Refusal, Use

WINDOW = "param far = 3\nattend causal and window(far)"
GATED = "attend causal\nstop k where q.pos - k.pos > 2\nscale v by 0.5 where k.pos < 5"


def takes(name: str, words: str, call: dict[str, Any], without: dict[str, Any] | None = None, effect: Effect = Effect.CHANGES, **example: Any) -> Feature:
    """A row about arguments of the call."""
    return Feature(name, words, Example(call=call, **example), Example(call=without or {}, **example), effect)


def holds(name: str, words: str, **example: Any) -> Feature:
    """A row about q, k and v: the numbers are those of a plain call, whatever holds them."""
    example = {"text": GATED, **example}
    plain = {n: v for n, v in example.items() if n not in ("dtype", "memory")}
    return Feature(name, words, Example(**example), Example(**plain), Effect.SAME)


def is_used(name: str, words: str, use: Use, effect: Effect = Effect.SAME, refused: dict[str, Refusal] | None = None, **example: Any) -> Feature:
    """A row about what torch does with a call."""
    example = {"text": GATED, **example}
    return Feature(name, words, Example(use=use, **example), Example(**example), effect, refused or {})


ARGUMENTS = Group(
    "arguments of a call",
    (
        takes("layer=", "which layer is asked for", {"layer": 1}, {"layer": 0}, text="attend causal and (layer == 0 or window(3))", options={"layers": 2}),
        takes("lengths=", "ragged rows of a batch", {"lengths": [20, 13]}, text=GATED),
        takes("queries=range(a, b)", "some rows only: decoding, chunked prefill", {"queries": range(13, 20)}, {"queries": range(12, 19)}, text=GATED, queries=7),
        takes("queries=[...]", "where each row of the batch begins", {"queries": [13, 5]}, {"queries": [13, 13]}, text=GATED, queries=7),
        takes("scale=", "another than 1 / sqrt(head_dim); below 0 too", {"scale": -0.7}),
        takes("visited=", "rows of q, k and v in an order of their own", {"visited": torch.arange(19, -1, -1)}),
        takes("a value param", "another value compiles nothing", {"far": 5}, text=WINDOW),
        takes("a value param by row", "one for each row of the batch", {"far": torch.tensor([5, 2])}, {"far": torch.tensor([5, 5])}, text=WINDOW),
        Feature("return_lse=", "lse, and its gradient", Example(GATED, use=Use.LSE), Example(GATED)),
    ),
)  # fmt: skip

TENSORS = Group(
    "q, k and v",
    (
        *(holds(name, words, dtype=name) for name, words in (
            ("float16", "computed in float32"), ("bfloat16", "computed in float32"), ("float32", "IEEE float32, never TF32"), ("float64", ""),
        )),
        *(holds(f"head_dim {n}", words, head_dim=n) for n, words in (
            (8, ""), (31, "odd"), (64, ""), (80, "no power of 2"), (128, ""), (256, ""), (257, "and more"),
        )),
        holds("value_dim of its own", "another than head_dim", head_dim=16, value_dim=24),
        holds("grouped heads", "several query heads a key head, 7 for one", heads=7, key_heads=1),
        holds("transposed", "as a projection leaves it, (batch, tokens, heads, head_dim)", memory=Memory.TURNED),
        holds("strided", "a part of another tensor", memory=Memory.SLICED),
        holds("stride 0", "one row for all tokens", memory=Memory.EXPANDED),
        holds("NaN that nobody attends", "in keys: no result sees it", text="attend causal and k.pos % 4 != 1", memory=Memory.POISONED),
        holds("an empty batch", "", batch=0),
        holds("no tokens", "", queries=0, keys=0),
        is_used("part of q, k, v requires grad", "no work for the others", Use.K_ALONE),
    ),
)  # fmt: skip

OPTIONS = Group(
    "options of compile",
    (
        Feature("tile=", "how finely a mask is planned", Example(GATED, options={"tile": 16}), Example(GATED, options={"tile": 64}), Effect.SAME),
        Feature("order=", "in which tokens are visited", Example("attend k.pos % 4 == q.pos % 4", options={"order": "natural"}), Example("attend k.pos % 4 == q.pos % 4"), Effect.SAME),
        Feature('precision="ieee"', "the default", Example(GATED, options={"precision": "ieee"}), Example(GATED), Effect.SAME),
        Feature('precision="tf32"', "faster products of float32", Example(GATED, options={"precision": "tf32"}), Example(GATED), Effect.SAME),
    ),
)  # fmt: skip

DOUBLE = Refusal("BackendError", "the gradient of a gradient (double backward) is not served")
FORWARD_MODE = Refusal("BackendError", "forward-mode differentiation (jvp, jacfwd, hessian, dual numbers) is not served")

TRANSFORMS = Group(
    "what torch does with a call",
    (
        is_used("autocast", "float32 tensors are cast, as for torch's attention", Use.AUTOCAST, Effect.SAME),
        is_used("copy, pickle", "of the compiled attention: every rule stays", Use.COPIED),
        is_used("checkpoint", "torch.utils.checkpoint, use_reentrant=False", Use.CHECKPOINT),
        is_used("checkpoint, reentrant", "torch.utils.checkpoint, use_reentrant=True", Use.CHECKPOINT_REENTRANT),
        is_used("torch.compile", "the call is one operator of the graph", Use.COMPILE),
        is_used("torch.func.grad", "and vjp, jacrev", Use.FUNC_GRAD),
        is_used("torch.func.vmap", "the mapped axis becomes rows of the batch", Use.FUNC_VMAP, text="attend causal"),
        is_used("forward mode", "torch.func.jvp", Use.FUNC_JVP, text="attend causal", refused={"tiled": FORWARD_MODE, "triton": FORWARD_MODE}),
        is_used("double backward", "create_graph=True, and again", Use.DOUBLE_BACKWARD, text="attend causal", refused={"tiled": DOUBLE, "triton": DOUBLE}),
    ),
)  # fmt: skip
