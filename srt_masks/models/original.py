"""The names of the original library (self-reasoning-tokens-pytorch), with its arguments and their meaning, on our kernels.

Both build a spec from their arguments; from there it is parser, compiler and backend like any other text. Masks given as
tensors are inputs of that spec.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn

from ..default_device import on_the_cpu
from ..diagnostics import InputError
from ..kernels.attention import Attention, check_tensors, compile_spec
from ..spec import parse
from .blocks import Block
from .words import check_tokens

REASONING = """
param reasons = {reasons}
param horizon = 2

layout repeat {{ token, reason * reasons }}

let too_soon = k is reason and 0 < q.step - k.step <= horizon

{rule}
"""


@lru_cache(32)
def _reasoning(reasons: int, stop: bool, heads: int) -> Attention:
    """Stopped: the next steps may use a reasoning token but not train it. Hidden: they do not see it. Always causal."""
    rule = "attend causal\nstop k, v where too_soon" if stop else "attend causal and not too_soon"
    return compile_spec(parse(REASONING.format(reasons=reasons, rule=rule), filename="Transformer"), heads=heads)


class Transformer(nn.Module):
    """The original's model: causal, `num_reason_tokens` reasoning tokens behind every token.

    Arguments as there: `dim, num_tokens, depth, max_seq_len, max_reason_seq_len, dim_head, heads, ignore_index` and
    `stop_grad_next_tokens_to_reason` (True: the next steps use reasoning tokens without training them; False: they do not see them).
    """

    def __init__(
        self, *, dim: int, num_tokens: int, depth: int, max_seq_len: int = 2048, max_reason_seq_len: int = 4, dim_head: int = 64,
        heads: int = 8, ignore_index: int = -1, stop_grad_next_tokens_to_reason: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.max_seq_len, self.max_reason_seq_len, self.heads = max_seq_len, max_reason_seq_len, heads
        self.ignore_index = ignore_index
        self.stop_grad_next_tokens_to_reason = stop_grad_next_tokens_to_reason
        self.token_emb = nn.Embedding(num_tokens, dim)
        self.pos_emb = nn.Embedding(max_seq_len, dim)
        self.reason_tokens = nn.Parameter(0.02 * torch.randn(max_reason_seq_len, dim))
        self.layers = nn.ModuleList(Block(dim, heads, dim_head) for _ in range(depth))
        self.norm = nn.RMSNorm(dim)
        self.to_logits = nn.Linear(dim, num_tokens, bias=False)

    def forward(
        self, x: Tensor, num_reason_tokens: int = 0, num_steps_future_can_use_reason: int = 2,
        remove_reason_tokens_at_end: bool = False, return_loss: bool = False,
    ) -> Tensor:  # fmt: skip
        """Logits (batch, rows, num_tokens) for all rows; with `remove_reason_tokens_at_end` each token's own row alone; with
        `return_loss` the plain mean cross entropy over the rows, whose labels are x shifted by one.

        x (batch, tokens), whole numbers. The rows of a step t see a reasoning token of step s without training it (or do not see
        it) where 0 < t - s <= num_steps_future_can_use_reason.
        """
        x = check_tokens(x, self.token_emb.num_embeddings)
        for name, value in (("num_reason_tokens", num_reason_tokens), ("num_steps_future_can_use_reason", num_steps_future_can_use_reason)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise InputError(f"{name} is a whole number; got {value!r}")
        if not 0 <= num_reason_tokens <= self.max_reason_seq_len:
            raise InputError(f"num_reason_tokens is from 0 to max_reason_seq_len = {self.max_reason_seq_len}; got {num_reason_tokens}")
        labels = None
        if return_loss:
            if x.shape[1] < 2:
                raise InputError(f"a loss needs 2 tokens or more, the label of each being the next; got {x.shape[1]}")
            x, labels = x[:, :-1], x[:, 1:]
        steps = x.shape[1]
        if steps > self.max_seq_len:
            raise InputError(f"x has {steps} tokens; this model was built for max_seq_len = {self.max_seq_len}")
        rows_per_step = num_reason_tokens + 1
        words = rearrange(self.token_emb(x), "b n d -> b n 1 d")
        reasons = repeat(self.reason_tokens[:num_reason_tokens], "r d -> b n r d", b=x.shape[0], n=steps)
        state = rearrange(torch.cat((words, reasons), 2), "b n r d -> b (n r) d")
        state = state + repeat(self.pos_emb.weight[:steps], "n d -> (n r) d", r=rows_per_step)
        attend = _reasoning(num_reason_tokens, self.stop_grad_next_tokens_to_reason, self.heads)
        for layer in self.layers:
            state = layer(state, lambda q, k, v: attend(q, k, v, horizon=num_steps_future_can_use_reason))
        if remove_reason_tokens_at_end:
            state, rows_per_step = state[:, ::rows_per_step], 1
        logits = self.to_logits(self.norm(state))
        if labels is None:
            return logits
        labels = repeat(labels, "b n -> b (n r)", r=rows_per_step)
        return F.cross_entropy(rearrange(logits, "b n c -> b c n"), labels, ignore_index=self.ignore_index)


@on_the_cpu
def stop_graddable_attn(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, attn_mask: Tensor | None = None, causal: bool = False,
    q_stop_grad_mask: Tensor | None = None, k_stop_grad_mask: Tensor | None = None, v_stop_grad_mask: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Attention with a gate on the gradient of every pair into its query, key and value.

    q (batch, heads, queries, head_dim), k and v (batch, heads, keys, head_dim); `mask` bool (batch, keys), True = may be attended;
    `attn_mask` bool, True = may be attended; the stop masks bool, True = stopped, or floating: they multiply the gradient. The last
    four broadcast to (batch, heads, queries, keys). `causal` with unequal lengths aligns bottom-right. Raises InputError.
    """
    check_tensors(q, k, v)
    for name, value in (
        ("mask", mask),
        ("attn_mask", attn_mask),
        ("q_stop_grad_mask", q_stop_grad_mask),
        ("k_stop_grad_mask", k_stop_grad_mask),
        ("v_stop_grad_mask", v_stop_grad_mask),
    ):
        if value is not None and not isinstance(value, Tensor):
            raise InputError(f"{name} is a tensor, or None; got {type(value).__name__}")
    masks = {"attn": attn_mask, "q_gate": q_stop_grad_mask, "k_gate": k_stop_grad_mask, "v_gate": v_stop_grad_mask}
    declarations, allowed, rules = [], ["k.pos - q.pos <= shift"] if causal else [], []
    inputs: dict[str, Tensor | int] = {}
    if causal:
        declarations.append("input shift: int per sequence")
        inputs["shift"] = k.shape[-2] - q.shape[-2]
    if mask is not None:
        if mask.dtype is not torch.bool or mask.shape not in ((q.shape[0], k.shape[-2]), (1, k.shape[-2])):
            raise InputError(f"mask is bool (batch, keys) = ({q.shape[0]}, {k.shape[-2]}), True = may be attended; got {_describe(mask)}")
        declarations.append("input seen: bool per key")
        allowed.append("k.seen")
        inputs["seen"] = mask
    for name, value in masks.items():
        if value is None:
            continue
        is_gate = name != "attn"
        argument = f"{name[0]}_stop_grad_mask" if is_gate else "attn_mask"
        if value.dtype is not torch.bool and not (is_gate and value.is_floating_point()):
            wanted = "bool (True = stopped) or floating (it multiplies the gradient)" if is_gate else "bool (True = may be attended)"
            raise InputError(f"{argument} is {wanted}; got {_describe(value)}")
        if value.requires_grad:
            raise InputError(f"{argument} requires grad; gates are constants of the backward: give its .detach()")
        shaped, axes = _broadcast(value, q, k)
        declarations.append(f"input {name}: {'bool' if value.dtype is torch.bool else 'float'} per {axes}")
        inputs[name] = shaped
        if not is_gate:
            allowed.append("attn")
        elif value.dtype is torch.bool:
            rules.append(f"stop {name[0]} where {name}")
        else:
            rules.append(f"scale {name[0]} by {name}")
    lines = ["queries layout repeat { query_token }", "keys layout repeat { key_token }", *declarations]
    lines += [f"attend {' and '.join(allowed) or 'full'}", *rules]
    return _from_text("\n".join(lines))(q, k, v, inputs=inputs)


@lru_cache(64)
def _from_text(text: str) -> Attention:
    return compile_spec(parse(text, filename="stop_graddable_attn"))


def _broadcast(value: Tensor, q: Tensor, k: Tensor) -> tuple[Tensor, str]:
    """A mask as an input: with a head axis only if heads differ, with a batch axis only if rows of the batch do."""
    batch, heads, queries, keys = q.shape[0], q.shape[1], q.shape[2], k.shape[2]
    try:
        value.expand(batch, heads, queries, keys)
    except RuntimeError:
        raise InputError(f"a mask broadcasts to (batch, heads, queries, keys) = {(batch, heads, queries, keys)}; got {_describe(value)}") from None
    padded = value.reshape((1,) * (4 - value.ndim) + tuple(value.shape))
    axes = "query, key" if padded.shape[1] == 1 else "head, query, key"
    shaped = padded.expand(padded.shape[0], 1 if padded.shape[1] == 1 else heads, queries, keys)
    shaped = shaped[:, 0] if padded.shape[1] == 1 else shaped
    return (shaped[0] if padded.shape[0] == 1 else shaped), axes


def _describe(value: Tensor) -> str:
    return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
