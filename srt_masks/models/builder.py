"""`build_model`: a spec and a few sizes -> a trainable transformer."""

from __future__ import annotations

from typing import Any

from ..diagnostics import InputError, did_you_mean
from ..proofs.guard import hold
from ..spec import Spec
from .transformer import Config, SpecTransformer

ARGUMENTS = ("dim", "depth", "heads", "num_tokens", "dim_head", "max_positions", "backend", "proofs")
FOREIGN = {
    "vocab_size": "write num_tokens=", "layers": "write depth=", "n_layers": "write depth=", "num_layers": "write depth=", "num_heads": "write heads=",
    "n_heads": "write heads=", "d_model": "write dim=", "hidden_size": "write dim=", "max_seq_len": "write max_positions=", "head_dim": "write dim_head=",
    "dropout": "dropout on attention weights is not part of the language, and the model has none", "causal": "write `attend causal` in the text",
}  # fmt: skip


def build_model(
    spec: Spec,
    *,
    dim: int,
    depth: int,
    heads: int,
    num_tokens: int,
    dim_head: int | None = None,
    max_positions: int = 2048,
    backend: str = "auto",
    proofs: str = "warn",
    **unknown: Any,
) -> SpecTransformer:
    """A pre-norm decoder whose attention, gradients, positions and loss are those of the spec.

    `dim_head` is dim / heads unless given. Called with x (batch, data tokens) it lays the tokens out as the spec says and returns
    logits or the loss, in nats; see `SpecTransformer.forward`. What the text claims is proved first, as `compile` does: `proofs` is "warn", "strict" or
    "off". Raises SpecError for a claim that does not hold, InputError for a size that does not fit or a spec that
    describes no such model.
    """
    if not isinstance(spec, Spec):
        raise InputError(f"build_model takes a Spec; got {type(spec).__name__}")
    for name, value in (
        ("dim", dim),
        ("depth", depth),
        ("heads", heads),
        ("num_tokens", num_tokens),
        ("max_positions", max_positions),
        ("dim_head", 1 if dim_head is None else dim_head),
    ):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{name} is a whole number, 1 or more; got {value!r}")
    if dim_head is None:
        if dim % heads:
            raise InputError(f"dim {dim} is no multiple of heads {heads}: give dim_head=, or other sizes")
        dim_head = dim // heads
    for name in unknown:
        instead = FOREIGN.get(name) or did_you_mean(name, ARGUMENTS) or f"it takes {', '.join(ARGUMENTS)}"
        raise InputError(f"build_model has no argument `{name}`: {instead}")
    checked = spec.checked
    if checked.keys is not None:
        raise InputError("this spec has two layouts; models with cross attention are not served yet")
    if checked.queries.given is not None:
        raise InputError("models of `layout given` are not served yet; srt_masks.compile is, with given=")
    if checked.asks is not None:
        raise InputError(
            "where only some tokens ask (`queries where`), the states of the others come from elsewhere; such models are not served yet, srt_masks.compile is"
        )
    if not checked.data:
        raise InputError("this spec says nothing of data: write `data ROLE` for the tokens that carry it")
    if checked.position is None and not checked.queries.is_single_repeat:
        raise InputError("this layout is no single `repeat`, so the spec must say where tokens stand: write `position ...`, for example `position pos`")
    hold(spec, proofs)
    return SpecTransformer(spec, Config(dim, depth, heads, num_tokens, dim_head, max_positions), backend)
