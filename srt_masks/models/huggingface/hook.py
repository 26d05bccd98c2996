"""One layer's attention, by the contract of transformers' attention functions, and `register`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ...default_device import on_the_cpu
from ...diagnostics import BackendError, InputError, listing
from .masks import SpecMask, spec_mask
from .sequences import Gather, Sequences
from .settings import KEY, Served, served_by

NAME = KEY

# Arguments that reach a layer and change no attention, or say again what the mask says.
HARMLESS = {
    "position_ids", "use_cache", "cache", "past_key_values", "cache_position", "output_attentions", "output_hidden_states", "return_dict", "labels", "shift_labels",
    "num_items_in_batch", "logits_to_keep", "sliding_window", "is_causal", "position_embeddings", "token_type_ids",
}  # fmt: skip


def register() -> None:
    """Makes "srt_masks" an attention of `transformers`: for attn_implementation= and model.set_attn_implementation. Again does no harm.

    Raises BackendError where transformers is not installed, or is too old for it.
    """
    try:
        from transformers import AttentionInterface, AttentionMaskInterface  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise BackendError("srt_masks.huggingface needs `transformers`, 5 or newer: pip install transformers") from None
    AttentionInterface.register(NAME, spec_attention)
    # Under a name without a mask function transformers makes no mask: padding would be dropped, and nothing said.
    AttentionMaskInterface.register(NAME, spec_mask)


@on_the_cpu
def spec_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, dropout: float = 0.0, scaling: float | None = None, **kwargs: Any
) -> tuple[Tensor, None]:
    """(batch, queries, heads, value_dim), and no weights. query (batch, heads, queries, head_dim), key and value (batch, key_heads, keys, head_dim), not repeated;
    the layer's spec is that of its config, and its inputs and value params come by name. Raises InputError, or BackendError for what a spec cannot keep."""
    mask = _check(module, query, key, attention_mask, dropout)
    served = served_by(module.config, mask.limits)
    named = _named(served, kwargs)
    beside = {"scale": scaling, **({"layer": module.layer_idx} if served.speaks_of_layers else {})}
    key, value = (_of_positions(x, mask) for x in (key, value))
    rows = mask.sequences_by(kwargs.get("position_ids"), served.rows_per_step)
    if rows.keys is not None:
        named = {name: _taken(served, name, x, rows.keys) for name, x in named.items()}
        key, value = rows.keys.take(key), rows.keys.take(value)
    if rows.queries is not None:
        query = rows.queries.take(query)
    asking = _asking(served, rows, query.shape[2], module.training)
    out = served.attend(query, key, value, lengths=rows.lengths, queries=asking, **beside, inputs=named)
    if rows.queries is not None:
        out = rows.queries.put_back(out)
    return out.transpose(1, 2).contiguous(), None


def _check(module: Any, query: Tensor, key: Tensor, mask: Any, dropout: float) -> SpecMask:
    """The layer's mask. Raises what is wrong with its call."""
    if dropout:
        raise BackendError(f"dropout of {dropout} on attention weights: a spec has none. Set attention_dropout (attn_pdrop in GPT-2) of the config to 0")
    if isinstance(mask, Tensor):
        raise InputError(
            f"an attention_mask of shape {tuple(mask.shape)} came as it is: a spec says who sees whom, so give one of (batch, tokens), true where a token is "
            "real, and the rest as an `input` of the spec"
        )
    if not isinstance(mask, SpecMask):
        raise BackendError(
            f"no mask came to {type(module).__name__}: this model, or its cache, makes its masks by itself, so padding would be dropped. Use "
            'attn_implementation="sdpa" for it'
        )
    if getattr(module, "is_cross_attention", False):
        raise BackendError("cross attention asks of one sequence and looks at another: a spec in a model of transformers serves self-attention")
    batch, queries, keys = mask.sizes
    if (query.shape[0], query.shape[2], key.shape[2]) != (batch, queries, keys):
        raise BackendError(
            f"the mask is of {batch} rows, {queries} queries and {keys} keys; to {type(module).__name__} came {query.shape[0]}, {query.shape[2]} and "
            f"{key.shape[2]}: it adds tokens of its own, or shares a cache with another layer, and that is not served"
        )
    return mask


def _named(served: Served, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs and value params among the arguments of a layer. Raises BackendError for one that nobody here would keep."""
    known = (*served.inputs, *served.params)
    for name, value in kwargs.items():
        if name not in known and name not in HARMLESS and value is not None and value is not False:
            raise BackendError(
                f"the model gives its attention `{name}`, and a spec cannot keep it: soft caps, biases and sinks change scores. The spec's own are "
                f"{listing(known) or 'none'}"
            )
    if kwargs.get("output_attentions"):
        raise BackendError('there are no attention weights to put out: output_attentions=True needs attn_implementation="eager"')
    return {name: kwargs[name] for name in known if kwargs.get(name) is not None}


def _of_positions(x: Tensor, mask: SpecMask) -> Tensor:
    """Keys, or values, from position 0 up to the last token: what a cache let go is hidden by the model's window and may be anything."""
    if mask.used is not None:
        x = x[:, :, : mask.used - mask.offset]
    return torch.nn.functional.pad(x, (0, 0, mask.offset, 0)) if mask.offset else x


def _asking(served: Served, rows: Sequences, queries: int, training: bool) -> Any:
    """`queries=` of the call: which positions ask. A text that is being written may end in mid-step, one that is learned may not."""
    if isinstance(rows.starts, Tensor):
        return rows.starts
    if rows.starts is not None:
        return range(rows.starts, rows.starts + queries)
    each = served.rows_per_step
    ends_whole = each < 2 or (rows.lengths is None and queries >= served.fixed and (queries - served.fixed) % each == 0)
    return None if ends_whole or training else range(0, queries)


def _taken(served: Served, name: str, value: Any, rows: Gather) -> Any:
    """An input, or a param by row of the batch, as the sequences are read. Raises InputError where it cannot be."""
    declared = served.inputs.get(name)
    if declared is None:
        return value[rows.batch_row] if isinstance(value, Tensor) and value.ndim == 1 else value
    value = torch.as_tensor(value)
    has_batch = value.ndim > declared.extents
    if not set(declared.axes) & {"token", "step", "query", "key"}:
        return value[rows.batch_row] if has_batch else value
    if declared.axes != ("token",):
        raise InputError(
            f"input `{declared.text}` with padding at the left, or packed documents: only an input per token, or per sequence, is read anew by the row"
        )
    batch, tokens = rows.home.shape
    whole = value if has_batch else value.expand(batch, *value.shape)
    if whole.shape[:2] != (batch, tokens):
        raise InputError(f"input `{name}` has a number for each token, padding too: wanted ({batch}, {tokens}), got {tuple(value.shape)}")
    return rows.take_rows(whole)
